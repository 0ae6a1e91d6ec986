"""What counts as right: reads what programs print and write, and decides. Runs no program."""

import csv
import json
import math
import pathlib
import re
import statistics

# The greatest difference of a step's mean loss between the GPU and the CPU backend, which starts
# from the same weights and sees the same samples in the same order. Rounding differs in every sum,
# and training lets small differences grow; the runs are short so that they stay small. The widths
# come from CPU runs whose initial weights were disturbed by so much as a precision rounds away:
# see README.md in ../results.
LOSS_TOLERANCE = {
    ("lenet5", "fp32"): 1e-3,
    ("lenet5", "tf32"): 1e-2,
    ("lenet5", "bf16"): 5e-2,
    ("wrn-16-4", "fp32"): 3e-2,
    ("wrn-16-4", "tf32"): 6e-2,
    ("wrn-16-4", "bf16"): 2e-1,
}
# Before the differences have grown, strict fp32 must agree this well: CPU runs with another number
# of threads stay below 1e-4. A wrong gradient or a wrong rule shows here.
EARLY_STEPS = 4
EARLY_TOLERANCE = {"fp32": 1e-3}
# A run that learns nothing agrees with everything: the reference must come down by so much.
LEARNED = 0.1

# Bars of the comparison with PyTorch and of the kernels; missing one is said, but fails nothing.
WANTED_OF_EAGER = 1.0
WANTED_OF_COPY = 0.8
# Two runs of ours with PyTorch between them may differ by so much (a factor) before it is said.
STEADY = 1.03


class Wrong(Exception):
    """What does not hold."""


# ---- test programs -----------------------------------------------------------------------------


def count_tap(text):
    """(passed, skipped) of a program that prints TAP. Raises Wrong when a case failed, none ran or
    the plan is not met."""
    cases = re.findall(r"^(not )?ok\b[^\n]*", text, re.MULTILINE)
    lines = [m[0] for m in re.finditer(r"^(?:not )?ok\b[^\n]*", text, re.MULTILINE)]
    failed = [line for line, bad in zip(lines, cases) if bad]
    skipped = sum("# skip" in line.lower() for line in lines)
    planned = re.findall(r"^1\.\.(\d+)", text, re.MULTILINE)
    if failed:
        raise Wrong(f"{len(failed)} of {len(lines)} cases failed, the first: {failed[0][:200]}")
    if len(lines) - skipped < 1:
        raise Wrong("no case ran")
    if not planned:
        raise Wrong("the program ended before it said how many cases it has")
    if int(planned[-1]) != len(lines):
        raise Wrong(f"{planned[-1]} cases were planned, {len(lines)} were run")
    return len(lines) - skipped, skipped


# ---- losses ------------------------------------------------------------------------------------


def read_losses(path):
    """The loss of every step, in order, from a --log file."""
    with open(path, encoding="utf-8") as file:
        records = [json.loads(line) for line in file if line.strip()]
    losses = [record.get("loss") for record in records if record.get("type") == "step"]
    # A loss that is no number is written as null.
    return [math.nan if loss is None else float(loss) for loss in losses]


def compare_losses(reference, other, tolerance, steps, early=math.inf):
    """The greatest difference of two runs; `early` is the tolerance of the first EARLY_STEPS.
    Raises Wrong."""
    if len(reference) != steps or len(other) != steps:
        raise Wrong(f"{steps} steps were wanted; the CPU logged {len(reference)}, the GPU "
                    f"{len(other)}")
    if not all(map(math.isfinite, reference)):
        raise Wrong("a loss of the CPU run is not a number")
    fallen = reference[0] - statistics.fmean(reference[-max(1, steps // 5):])
    if fallen < LEARNED:
        raise Wrong(f"the CPU run learned nothing (its loss fell by {fallen:.3f}): the comparison "
                    "would prove nothing")
    for step, loss in enumerate(other, 1):
        if not math.isfinite(loss):
            raise Wrong(f"the GPU's loss of step {step} is not a number")
    differences = [abs(ours - theirs) for ours, theirs in zip(reference, other)]
    for step, difference in enumerate(differences, 1):
        most = min(early, tolerance) if step <= EARLY_STEPS else tolerance
        if difference > most:
            raise Wrong(f"step {step}: loss {other[step - 1]:.6f} on the GPU, "
                        f"{reference[step - 1]:.6f} on the CPU; they may differ by {most:g}")
    return max(differences)


# ---- weights -----------------------------------------------------------------------------------


def compare_weights(folders):
    """Every folder must hold the files of the first, byte for byte. Returns how many.
    Raises Wrong."""
    first, *others = map(pathlib.Path, folders)
    files = {path.name: path.read_bytes() for path in sorted(first.glob("*.safetensors"))}
    if not files:
        raise Wrong(f"{first.name}: no weights were saved")
    for other in others:
        theirs = {path.name: path.read_bytes() for path in sorted(other.glob("*.safetensors"))}
        if files.keys() != theirs.keys():
            raise Wrong(f"{other.name} saved other layers than {first.name}")
        different = [name for name in files if files[name] != theirs[name]]
        if different:
            raise Wrong(f"{other.name} and {first.name} differ in {len(different)} of "
                        f"{len(files)} layers, the first: {different[0]}")
    return len(files)


# ---- speed -------------------------------------------------------------------------------------


def windows(ends_s, samples, warm_up, count):
    """Images a second of `count` equal stretches of steps, after `warm_up` of them. ends_s[i] is
    when step i ended, samples[i] its size. Raises Wrong when there are too few steps."""
    length = (len(ends_s) - warm_up) // count
    if warm_up < 1 or length < 1:
        raise Wrong(f"{len(ends_s)} steps are too few for {count} stretches after {warm_up}")
    rates = []
    for k in range(count):
        begin = warm_up + k * length - 1  # the stretch starts when the step before it ended
        end = begin + length
        seconds = ends_s[end] - ends_s[begin]
        if seconds <= 0:
            raise Wrong(f"step {end} ended no later than step {begin}")
        rates.append(sum(samples[begin + 1:end + 1]) / seconds)
    return rates


def read_timing(path, rank=0):
    """(ends in s, samples) of a rank's steps, from a --timing file."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["rank"]) == rank]
    ends, samples = {}, {}
    for row in rows:
        step = int(row["epoch"]), int(row["step"])  # steps are counted within an epoch
        samples[step] = samples.get(step, 0) + int(row["samples"])
        if row["update_us"]:
            end = (float(row["update_start_us"]) + float(row["update_us"])) / 1e6
            ends[step] = max(end, ends.get(step, end))
    order = sorted(ends)
    return [ends[step] for step in order], [samples[step] for step in order]


def read_json_lines(text):
    """The JSON objects among the lines of a program's output."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def slow_kernels(rows, wanted=WANTED_OF_COPY):
    """Names of memory-bound kernels below the wanted part of the copy rate."""
    return [f"{row['kernel']} {row['type']} {row['of_copy']:.2f}" for row in rows
            if row["bound"] == "memory" and row["of_copy"] < wanted]


def batch_for(memory_bytes, batches):
    """The batch of the greatest memory that the device has; batches: ((GiB, batch), …), falling.
    Both programs take the same one."""
    gib = (memory_bytes or 0) / 2**30
    return next((batch for least, batch in batches if gib >= least), batches[-1][1])


def batch_that_fits(output):
    """The batch that the program names when it refuses one as too large, or None."""
    found = re.search(r"largest --micro-batch that fits is (\d+)", output)
    return int(found[1]) if found else None
