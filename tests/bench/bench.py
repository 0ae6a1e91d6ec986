#!/usr/bin/env python3
"""Measures what tools/bench prints; see there. Needs nothing but Python's standard library.

A round runs, one after the other, the floor, one rank and two ranks, and the next round runs them
in the opposite order. Ratios are taken inside a round and the median of the rounds is what counts:
a machine that gets slower or faster meanwhile does not change them. What is taken from a run is
its steady state on the last rank: from the update after the first few micro-batches, where
pipelines fill and memory is touched for the first time, to the last one.
"""

import argparse
import csv
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = {"lenet5": 128, "wrn-16-4": 32}  # samples of a micro-batch, which is a whole step here
WANTED = {  # on two idle cores; the sign says on which side of it a number should be
    ("lenet5", "ratio_to_floor"): ("<=", 1.30),
    ("wrn-16-4", "ratio_to_floor"): ("<=", 1.10),
    ("wrn-16-4", "speed_up"): (">=", 1.85),
}
ROUNDS, QUICK_ROUNDS = 7, 2
RUN_S, QUICK_RUN_S = 4.0, 0.7  # how long the floor's run computes, about
FEWEST, QUICK_FEWEST, MOST = 8, 2, 2000  # micro-batches of the floor's run
FILL = 4  # micro-batches that are not counted: the pipeline fills, memory is new
FOREIGN_CORES = 0.05  # other programs may use so much without disturbing: a shell, a clock
TIME_LIMIT_S = 600  # far above what any of these runs needs; only a hang gets there


class Failure(Exception):
    """What did not run, and what it said."""


# ---- running -----------------------------------------------------------------------------------


def busy_seconds():
    """Processor seconds that this machine has spent on anything, all cores together."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(word) for word in file.readline().split()[1:9]]
    user, nice, system, _idle, _wait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


def run(command):
    """Returns standard output and how many cores other programs used meanwhile."""
    begin, busy, own = time.monotonic(), busy_seconds(), own_seconds()
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{' '.join(command)}: {error}") from None
    if done.returncode != 0:
        words = " ".join(command)
        raise Failure(f"exit status {done.returncode}: {words}\n{done.stdout}{done.stderr}")
    foreign = (busy_seconds() - busy) - (own_seconds() - own)
    return done.stdout, max(0.0, foreign / (time.monotonic() - begin))


def run_floor(setup, model, micro_batches):
    command = [setup.floor, partition(model), str(MODELS[model]), str(micro_batches)]
    output, foreign = run(command)
    return json.loads(output), foreign


def run_training(setup, model, ranks, micro_batches):
    """One epoch of so many steps of one micro-batch each. Returns numbers, and foreign cores."""
    batch = MODELS[model]
    with tempfile.TemporaryDirectory(prefix="pipetrain-bench-") as folder:
        timing, summary = f"{folder}/timing.csv", f"{folder}/summary.json"
        command = [setup.program, partition(model), "--dataset=synthetic", "--backend=onednn"]
        command += ["--schedule=async", "--predict=msnag", "--threads=1", "--eval-every=0"]
        command += [f"--batch={batch}", f"--micro-batch={batch}", f"--steps={micro_batches}"]
        command += [f"--samples={batch * micro_batches}"]
        command += [f"--timing={timing}", f"--summary={summary}"]
        if ranks > 1:
            command = ["mpirun", "-np", str(ranks), *setup.placing, *command]
        _, foreign = run(command)
        with open(timing, encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        with open(summary, encoding="utf-8") as file:
            facts = json.load(file)
    return training_numbers(rows, facts, batch, ranks), foreign


def training_numbers(rows, facts, batch, ranks):
    """µs a micro-batch, steady, and of them busy on each rank."""
    by_rank = [[row for row in rows if int(row["rank"]) == rank] for rank in range(ranks)]
    counted = [ordered[FILL:] for ordered in by_rank]
    for ordered in counted:
        if not ordered:
            raise Failure("a rank without timings")

    def end(row):
        return float(row["update_start_us"]) + float(row["update_us"])

    last = by_rank[-1]
    n = len(counted[-1])
    step_us = (end(last[-1]) - end(last[FILL - 1])) / n
    parts = ("fwd_us", "bwd_us", "weight_us", "update_us")
    busy = [
        sum(float(row[part] or 0) for row in ordered for part in parts) / len(ordered)
        for ordered in counted
    ]
    waits = [
        sum(float(row[f"recv_{what}_wait_us"]) for row in ordered for what in ("act", "grad"))
        / len(ordered)
        for ordered in counted
    ]
    return {
        "us": step_us,
        "images_per_s": batch * 1e6 / step_us,
        "busy_us": busy,
        "receive_wait_us": waits,
        "summary_images_per_s": facts["images_per_s"],
        "summary_idle_us": [
            (stage["elapsed_us"] - stage["busy_us"]) / facts["steps"] for stage in facts["stages"]
        ],
    }


def partition(model):
    return str(ROOT / "partitions" / f"{model}.yaml")


# ---- rounds ------------------------------------------------------------------------------------


def one_round(setup, model, micro_batches, number):
    """Floor, one rank, two ranks, in this order or the opposite one."""
    runs = {
        "floor": lambda: run_floor(setup, model, micro_batches),
        "one": lambda: run_training(setup, model, 1, micro_batches + FILL),
        "two": lambda: run_training(setup, model, 2, 2 * micro_batches + FILL),
    }
    names = list(runs) if number % 2 == 0 else list(reversed(runs))
    result = {"order": names, "foreign_cores": {}}
    for name in names:
        result[name], result["foreign_cores"][name] = runs[name]()
    floor, one, two = result["floor"], result["one"], result["two"]
    result["ratio_to_floor"] = one["us"] / floor["us"]
    result["speed_up"] = one["us"] / two["us"]
    result["engine_us"] = one["us"] - one["busy_us"][0]
    result["above_floor_us"] = one["busy_us"][0] - floor["us"]
    result["disturbed"] = max(result["foreign_cores"].values()) > FOREIGN_CORES
    return result


def measure(setup, model):
    floor, _ = run_floor(setup, model, 2)
    seconds, fewest = (QUICK_RUN_S, QUICK_FEWEST) if setup.quick else (RUN_S, FEWEST)
    micro_batches = int(min(MOST, max(fewest, seconds * 1e6 / floor["us"])))
    quiet, disturbed = [], []
    tries = setup.rounds if setup.quick else 2 * setup.rounds
    for number in range(tries):
        result = one_round(setup, model, micro_batches, number)
        (disturbed if result["disturbed"] else quiet).append(result)
        say(
            f"{model}: round {number + 1}: {result['ratio_to_floor']:.3f} x floor, two ranks "
            f"{result['speed_up']:.3f} x one{' (disturbed)' if result['disturbed'] else ''}"
        )
        if len(quiet) == setup.rounds:
            break
    counted = (quiet + disturbed)[: setup.rounds]
    return {
        "model": model,
        "micro_batch": MODELS[model],
        "micro_batches": micro_batches,
        "disturbed_rounds_counted": sum(result["disturbed"] for result in counted),
        **medians(counted),
        "layers": counted[0]["floor"]["layers"],
        "rounds": [without_layers(result) for result in counted],
    }


def without_layers(result):
    floor = {key: value for key, value in result["floor"].items() if key != "layers"}
    return {**result, "floor": floor}


def medians(rounds):
    def middle(get):
        return statistics.median(get(result) for result in rounds)

    return {
        "floor_us": middle(lambda r: r["floor"]["us"]),
        "one_rank_us": middle(lambda r: r["one"]["us"]),
        "two_ranks_us": middle(lambda r: r["two"]["us"]),
        "one_rank_images_per_s": middle(lambda r: r["one"]["images_per_s"]),
        "two_ranks_images_per_s": middle(lambda r: r["two"]["images_per_s"]),
        "ratio_to_floor": middle(lambda r: r["ratio_to_floor"]),
        "speed_up": middle(lambda r: r["speed_up"]),
        "engine_us": middle(lambda r: r["engine_us"]),
        "above_floor_us": middle(lambda r: r["above_floor_us"]),
        "two_ranks_busy_us": [middle(lambda r, i=i: r["two"]["busy_us"][i]) for i in range(2)],
    }


# ---- report ------------------------------------------------------------------------------------


def say(text):
    print(text, file=sys.stderr, flush=True)


def machine():
    name = platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return {"processor": name, "cores": len(os.sched_getaffinity(0)), "system": platform.release()}


def verdict(result, key):
    if (result["model"], key) not in WANTED:
        return ""
    sign, bound = WANTED[result["model"], key]
    met = result[key] <= bound if sign == "<=" else result[key] >= bound
    return f"wanted {sign} {bound:.2f}: {'met' if met else 'missed'}"


def table(results):
    lines = []
    for r in results:
        both = "busy {:.0f} | {:.0f} µs a micro-batch".format(*r["two_ranks_busy_us"])
        rows = [
            ("floor, µs a micro-batch", f"{r['floor_us']:.0f}", ""),
            ("one rank, µs a micro-batch", f"{r['one_rank_us']:.0f}", ""),
            ("  one rank / floor", f"{r['ratio_to_floor']:.3f}", verdict(r, "ratio_to_floor")),
            ("  busy - floor, µs", f"{r['above_floor_us']:.1f}", "loader, loss, update, reorders"),
            ("  elapsed - busy, µs", f"{r['engine_us']:.1f}", "the engine itself"),
            ("one rank, images/s", f"{r['one_rank_images_per_s']:.1f}", ""),
            ("two ranks, images/s", f"{r['two_ranks_images_per_s']:.1f}", both),
            ("  two ranks / one rank", f"{r['speed_up']:.3f}", verdict(r, "speed_up")),
        ]
        rounds = len(r["rounds"])
        lines.append(f"{r['model']}, micro-batch {r['micro_batch']}, medians of {rounds} rounds")
        lines += [f"  {what:<28} {value:>10}  {note}".rstrip() for what, value, note in rows]
        if r["disturbed_rounds_counted"]:
            lines.append(
                f"  {r['disturbed_rounds_counted']} rounds were disturbed by other programs: "
                "repeat this on an idle machine"
            )
    return "\n".join(lines)


def parse():
    parser = argparse.ArgumentParser(prog="tools/bench")
    hidden = argparse.SUPPRESS  # these two come from tools/bench
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build-bench", help=hidden)
    parser.add_argument("--placing", default="--oversubscribe --bind-to none", help=hidden)
    parser.add_argument("--case", choices=MODELS, action="append", help="measure this model only")
    parser.add_argument("--rounds", type=int, default=None, help=f"how many (default {ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="see that it works; short runs")
    parser.add_argument("--out", metavar="FILE.json", help="write everything that was measured")
    setup = parser.parse_args()
    if setup.rounds is None:
        setup.rounds = QUICK_ROUNDS if setup.quick else ROUNDS
    if setup.rounds < 1:
        parser.error("--rounds must be at least 1")
    if setup.out:  # tried before, not after, the measurement
        try:
            open(setup.out, "a", encoding="utf-8").close()
        except OSError as error:
            parser.error(f"--out: cannot write {setup.out}: {error.strerror}")
    setup.placing = setup.placing.split()
    setup.floor = str(setup.build / "tests" / "bench" / "floor")
    # The program lies at the top of a build folder, or in the folder of its sources.
    places = [setup.build / "pipetrain", setup.build / "src" / "app" / "pipetrain"]
    setup.program = str(next((place for place in places if place.is_file()), places[0]))
    return setup


def main():
    setup = parse()
    results = []
    try:
        for model in setup.case or MODELS:
            results.append(measure(setup, model))
    except Failure as failure:
        say(f"bench: {failure}")
        return 1
    print(table(results))
    if setup.out:
        with open(setup.out, "w", encoding="utf-8") as file:
            report = {"machine": machine(), "quick": setup.quick, "cases": results}
            json.dump(report, file, indent=2)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
