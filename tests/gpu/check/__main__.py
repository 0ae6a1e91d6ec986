"""tools/gpu-check: see there, and --help."""

import argparse
import os
import pathlib
import shutil
import signal
import sys
import time

import deps
import machine
import report
import runner
import steps
import timetable

ROOT = pathlib.Path(__file__).resolve().parents[3]
NO_DEVICE = 77  # what test harnesses take for "skipped"
INTERRUPTED = 130
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ABOUT = """\
Proves and measures the CUDA backend on a machine with a GPU, in under eight minutes: builds from
source in build-gpu/, runs its steps (--list), prints a table, and writes one JSON file,
tests/gpu/results/DATE-DEVICE.json.

Proofs run a few at a time, and beside them torch.compile fills its cache; measurements begin when
all of these have ended, and run alone: ours, PyTorch eager and compiled, ours again. A batch that
does not fit one side is made smaller for both.
"""

MORE = """\
What it needs: nvcc (CUDA 12 or 13), cuDNN 9 (of the toolkit, or the Python package nvidia-cudnn), a
C compiler, meson, ninja. PyTorch is compared with where a Python here has it. Libraries that a bare
machine lacks can be brought along:

  tools/gpu-check --collect      on a Debian machine, as any user: downloads and unpacks libfyaml,
                                 jansson, zlib, cmocka, oneDNN and Open MPI into .deps/ (or the
                                 folder that PT_DEPS names); take that folder to the GPU machine

Examples
  tools/gpu-check                             everything
  tools/gpu-check --only ops-bf16,kernels     the build and these
  tools/gpu-check --skip compile              all, with PyTorch eager only
  tools/gpu-check --dry-run                   print the commands, run nothing; needs no GPU

A step that the machine lacks something for, or the time, is reported as not run, with the reason.
Exit status: 0 every correctness step that the machine can run passed (bars of speed that are not
reached are printed, and fail nothing), 1 a step failed or there was no time for a correctness step,
2 bad usage, 77 no GPU, 130 interrupted (nothing of it goes on running).
"""


def names_of(words):
    """The steps that words such as "ops,kernels" mean: a name, or what names begin with."""
    chosen = []
    for word in ",".join(words).split(","):
        found = [step.name for step in steps.STEPS
                 if step.name == word or step.name.startswith(word + "-")]
        if not found:
            known = ", ".join(step.name for step in steps.STEPS)
            raise ValueError(f"there is no step '{word}'; there are {known}")
        chosen += found
    return chosen


def parse(arguments):
    parser = argparse.ArgumentParser(prog="tools/gpu-check", description=ABOUT, epilog=MORE,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the steps and end")
    parser.add_argument("--only", metavar="STEP", action="append",
                        help="the build and this step; several: --only A,B")
    parser.add_argument("--skip", metavar="STEP", action="append", help="all but this step")
    parser.add_argument("--quick", action="store_true",
                        help="shorter measurements, no torch.compile")
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path,
                        help="where the JSON file goes (default: tests/gpu/results)")
    parser.add_argument("--dry-run", action="store_true", help="print all commands, run nothing")
    # This one is handled before Python starts, and stands here to be seen.
    parser.add_argument("--collect", action="store_true",
                        help="on a Debian machine: fill .deps/ and end")
    options = parser.parse_args(arguments)
    try:
        only = names_of(options.only) if options.only else [step.name for step in steps.STEPS]
        skip = names_of(options.skip) if options.skip else []
    except ValueError as error:
        parser.error(str(error))
    if options.quick:
        skip += [name for name in names_of(["compile"]) if not options.only or name not in only]
    needed = {name for step in steps.STEPS if step.name in only for name in step.needs}
    options.chosen = [step for step in steps.STEPS
                      if (step.name in {*only, *needed} and step.name not in skip)
                      or step.name == "build"]
    options.partial = options.quick or len(options.chosen) < len(steps.STEPS)
    return options


def say(text):
    # In one piece: several steps speak at a time.
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_list():
    for step in steps.STEPS:
        print(f"{step.name:<24} {step.kind:<12} about {step.about_s:>3.0f} s  {step.what}")
    print(f"all of them, some at a time: about {timetable.planned_s(steps.STEPS):.0f} s of "
          f"{timetable.TOTAL_S} s")


def keep_or_clear(build, made_with):
    """A folder that was built with other libraries or for another checkout would lead astray: it is
    emptied. Raises deps.Missing when the folder is not ours."""
    note = build / "made-with.json"
    if note.is_file() and note.read_text(encoding="utf-8") == made_with:
        return
    if build.exists() and not note.is_file():
        raise deps.Missing(f"{build} is in the way and was not made by gpu-check; move it")
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir()
    note.write_text(made_with, encoding="utf-8")


def find_setup(options, device):
    """Raises deps.Missing when the machine cannot build."""
    build = ROOT / "build-gpu"
    scratch = build / "check"
    unpacked = pathlib.Path(os.environ.get("PT_DEPS") or ROOT / ".deps").absolute()
    links = build / "links"
    build_environment, run_environment, parts = deps.environments(unpacked, links)
    if not options.dry_run:
        keep_or_clear(build, deps.description(ROOT, build_environment, parts))
        shutil.rmtree(scratch, ignore_errors=True)
        deps.link_names(parts, links)
    python = deps.python_with_torch()
    facts = machine.facts(ROOT, deps.toolkit(), parts, python, run_environment, device)
    return steps.Setup(
        root=ROOT, build=build, scratch=scratch, deps=unpacked,
        build_environment=build_environment, run_environment=run_environment, device=device,
        facts=facts, torch_python=python, quick=options.quick, dry=options.dry_run)


def dry_run(options):
    device = {"name": "(no device)", "memory_bytes": 80 * 2**30, "count": 0, "driver": None,
              "capability": None}
    setup = find_setup(options, device)
    for step in options.chosen:
        lacking = step.lacks(setup)
        print(f"# {step.name}: {step.what}" + (f" (not run here: {lacking})" if lacking else ""))
        for command in step.plan(setup):
            print(command.text())
    return 0


def check(options, device):
    begin = time.monotonic()
    setup = find_setup(options, device)
    say(report.head(device, setup.facts))

    def show(result):
        say(report.line(result))
        if result["verdict"] == runner.FAILED:
            say(result["reason"])

    results = runner.Runner(setup, say, show, begin=begin).run(options.chosen)
    value = report.document(device, setup.facts, results, timetable.planned_s(options.chosen),
                            time.monotonic() - begin, options.quick, options.partial, ROOT)
    path = report.write(options.out or ROOT / "tests" / "gpu" / "results", value)
    print(report.table(value))
    print(f"written: {path}")
    return 0 if value["correct"] else 1


def interrupt(signal_number, _):
    for ending in ENDINGS:  # once is enough: what follows takes no time
        signal.signal(ending, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(signal_number).name)


def main(arguments):
    options = parse(arguments)
    if options.list:
        print_list()
        return 0
    try:
        if options.dry_run:
            return dry_run(options)
        device, reason = machine.find_device()
        if device is None:
            print(f"gpu-check: {reason}; nothing was run")
            return NO_DEVICE
        for ending in ENDINGS:
            if signal.getsignal(ending) != signal.SIG_IGN:  # as nohup wants it
                signal.signal(ending, interrupt)
        return check(options, device)
    except deps.Missing as missing:
        say(f"gpu-check: {missing}")
        return 1
    except KeyboardInterrupt as ended:
        say(f"gpu-check: ended by {ended}; nothing goes on running, nothing was written")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
