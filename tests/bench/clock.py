#!/usr/bin/env python3
"""Measures what tools/bench --clock prints: what schedules, engine and links cost when nothing is
computed. Needs nothing but Python's standard library.

Every stage takes the same stated time (--backend clock), so any number of ranks runs on any machine
and the best possible time is known. What a row is compared with:

  rate  async: one micro-batch every F+B, on the last stage, counted once as many micro-batches have
        passed as there are stages: by then whatever a link costs has come round the pipeline.
  span  schedules that flush: per step M·(F+B) of work and the bubble that the row states, from the
        first forward to the last backward of any rank.

Rows take turns, run by run, and the median counts.
"""

import argparse
import collections
import csv
import json
import os
import pathlib
import re
import statistics
import sys
import tempfile

from bench import Failure, machine, run, say

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests" / "bench" / "equal-64.yaml"
SAMPLES = 64  # of a micro-batch; the model's messages then have 32 KiB

Times = collections.namedtuple("Times", "forward input weight")  # ms of a stage and a micro-batch
FULL = Times(34, 33, 33)
QUICK = Times(6, 6, 6)
RUNS, QUICK_RUNS = 5, 1
STEPS, LEAST = 3, 24  # a run has at least so many steps of M = ranks, and so many micro-batches

# name, options, ranks, bubble per step from (ranks, times), wanted share of the ideal, one pass,
# blocks of layers on each rank. The times are of all of a rank's blocks together.
# A schedule that flushes states its bubble: adding one is adding a line. The gradient of the inputs
# leaves before that of the weights is made, so the next stage waits for F and B_input alone.
# One pass: all of the backward is input gradient, so that no other work hides the way of a message.
# A micro-batch then takes F + B + 2·way·(P-1)/P, which says how long that way is.
Row = collections.namedtuple("Row", "name options ranks bubble wanted one_pass chunks", defaults=(1,))
ASYNC = ["--schedule=async", "--predict=none"]
ROWS = [
    Row("async", ASYNC, (2, 4, 8, 16, 32), None, 0.99, False),
    Row("async, one pass", ASYNC, (8, 32), None, None, True),
    Row("gpipe", ["--schedule=gpipe"], (4, 8), lambda p, t: (p - 1) * (t.forward + t.input), 0.97,
        False),
    Row("1f1b", ["--schedule=1f1b"], (4, 8, 16), lambda p, t: (p - 1) * (t.forward + t.input), 0.97,
        False),
    Row("interleaved", ["--schedule=interleaved", "--chunks=2"], (4, 8, 16),
        lambda p, t: (p - 1) * (t.forward + t.input) / 2, 0.97, False, 2),
    Row("zb-h1", ["--schedule=zb-h1"], (4, 8, 16),
        lambda p, t: (p - 1) * (t.forward + t.input - t.weight), 0.97, False),
]
QUICK_RANKS = (2, 4)


def times_of(setup, row):
    t = setup.times
    return Times(t.forward, t.input + t.weight, 0) if row.one_pass else t


def micro_batches(setup, ranks):
    return ranks * (STEPS if setup.quick else max(STEPS, -(-LEAST // ranks)))


def ideal_ms(setup, row, ranks):
    """Of a micro-batch (async), or of the whole span."""
    t = times_of(setup, row)
    if row.bubble is None:
        return sum(t)
    n = micro_batches(setup, ranks)
    return n * sum(t) + n // ranks * row.bubble(ranks, t)


# ---- one run -----------------------------------------------------------------------------------


def command(setup, row, ranks, folder):
    stage_times = pathlib.Path(folder) / "times.csv"
    us = [f"{1e3 * ms / row.chunks:g}" for ms in times_of(setup, row)]
    stage_times.write_text(
        "stage,forward_us,backward_input_us,backward_weight_us,update_us\n"
        f"*,{','.join(us)},0\n",
        encoding="ascii",
    )
    words = [setup.program, str(MODEL), "--backend=clock", f"--clock={stage_times}", *row.options]
    words += [f"--micro-batch={SAMPLES}", f"--accumulate={ranks}", "--epochs=1", "--progress=off"]
    return words + [f"--samples={SAMPLES * micro_batches(setup, ranks)}"]


def simulated_ms(setup, row, ranks):
    """What --check predicts for the span: links free."""
    with tempfile.TemporaryDirectory(prefix="pipetrain-bench-") as folder:
        text, _ = run(command(setup, row, ranks, folder) + ["--check", f"--stages={ranks}"])
    found = re.search(r"predicted: ([\d.]+) ms a step, .* for (\d+) steps", text)
    return float(found[1]) * int(found[2])


def end_of(line):
    """Of its backward; the weight gradient stands apart where other work came between."""
    parts = [(line[f"{name}_start_us"], line[f"{name}_us"]) for name in ("bwd", "weight")]
    return max(float(start) + float(length) for start, length in parts if start)


def measured(setup, row, ranks):
    """ms of a micro-batch and of the span, and cores that other programs used."""
    with tempfile.TemporaryDirectory(prefix="pipetrain-bench-") as folder:
        timing = f"{folder}/timing.csv"
        words = command(setup, row, ranks, folder) + [f"--timing={timing}"]
        place = ["mpirun", "-np", str(ranks), "--oversubscribe", "--bind-to", "none"]
        _, foreign = run([*place, *words])
        with open(timing, encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    stages = ranks * row.chunks
    starts = [float(line["fwd_start_us"]) for line in rows if int(line["stage"]) == stages - 1]
    span = max(map(end_of, rows)) - min(float(line["fwd_start_us"]) for line in rows)
    steady = (starts[-1] - starts[ranks]) / (len(starts) - 1 - ranks)
    return {"micro_batch_ms": steady / 1e3, "span_ms": span / 1e3, "foreign_cores": foreign}


# ---- all of them -------------------------------------------------------------------------------


def judge(setup, row, ranks, runs):
    what = "micro_batch_ms" if row.bubble is None else "span_ms"
    ideal = ideal_ms(setup, row, ranks)
    shares = [ideal / one[what] for one in runs]
    return {
        "schedule": row.name,
        "ranks": ranks,
        "micro_batches": micro_batches(setup, ranks),
        "per_step": ranks,
        "compared": "rate" if row.bubble is None else "span",
        "ideal_ms": ideal,
        "simulated_span_ms": simulated_ms(setup, row, ranks),
        "measured_ms": statistics.median(one[what] for one in runs),
        "span_ms": statistics.median(one["span_ms"] for one in runs),
        "share": statistics.median(shares),
        "share_least": min(shares),
        "share_most": max(shares),
        "wanted": row.wanted,
        "way_us": way_us(row, ranks, ideal, statistics.median(one[what] for one in runs)),
        "runs": runs,
    }


def way_us(row, ranks, ideal, found):
    return 1e3 * (found - ideal) * ranks / (2 * (ranks - 1)) if row.one_pass else None


def measure(setup):
    cases = [(row, ranks) for row in ROWS for ranks in (QUICK_RANKS if setup.quick else row.ranks)]
    runs = {(row.name, ranks): [] for row, ranks in cases}
    for number in range(setup.runs):
        for row, ranks in cases:
            one = measured(setup, row, ranks)
            runs[row.name, ranks].append(one)
            say(
                f"run {number + 1} of {setup.runs}: {row.name}, {ranks} ranks: "
                f"{one['micro_batch_ms']:.2f} ms a micro-batch, {one['span_ms']:.0f} ms in all, "
                f"others used {one['foreign_cores']:.2f} cores"
            )
    return [judge(setup, row, ranks, runs[row.name, ranks]) for row, ranks in cases]


def table(setup, results):
    t = setup.times
    lines = [
        f"stages of {t.forward} + {t.input} + {t.weight} ms (F, B_input, B_weight), M = ranks, "
        f"median of {setup.runs} runs",
        f"  {'schedule':<16} {'ranks':>5} {'ideal ms':>9} {'measured':>9} {'share':>8}  "
        f"{'least … most':<17} {'span':>8} {'simulated':>9}  async faster by",
    ]
    whole = {r["ranks"]: r["span_ms"] for r in results if r["schedule"] == ROWS[0].name}
    for r in results:
        spread = f"{100 * r['share_least']:.2f} … {100 * r['share_most']:.2f} %"
        if r["wanted"] is None:
            note = f"a message takes {r['way_us']:.0f} µs"
        elif setup.quick:
            note = ""
        else:
            met = "met" if r["share"] >= r["wanted"] else "missed"
            note = f"wanted >= {100 * r['wanted']:.0f} %: {met}"
        faster = ""
        if r["compared"] == "span" and r["ranks"] in whole:
            faster = f"{r['span_ms'] / whole[r['ranks']]:.3f}"
        lines.append(
            f"  {r['schedule']:<16} {r['ranks']:>5} {r['ideal_ms']:>9.1f} {r['measured_ms']:>9.1f} "
            f"{100 * r['share']:>6.2f} %  {spread:<17} {r['span_ms']:>8.0f} "
            f"{r['simulated_span_ms']:>9.0f}  {faster or '-':<15} {note}".rstrip()
        )
    others = [one["foreign_cores"] for r in results for one in r["runs"]]
    lines.append(
        f"  other programs used {statistics.median(others):.2f} cores, {max(others):.2f} at most"
    )
    return "\n".join(lines)


def parse():
    parser = argparse.ArgumentParser(prog="tools/bench --clock")
    hidden = argparse.SUPPRESS  # from tools/bench
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build-bench", help=hidden)
    parser.add_argument("--placing", help=hidden)
    parser.add_argument("--runs", type=int, default=None, help=f"of each row (default {RUNS})")
    parser.add_argument("--quick", action="store_true", help="see that it works: 2 and 4 ranks")
    parser.add_argument("--out", metavar="FILE.json", help="write everything that was measured")
    setup = parser.parse_args()
    if setup.runs is None:
        setup.runs = QUICK_RUNS if setup.quick else RUNS
    if setup.runs < 1:
        parser.error("--runs must be at least 1")
    if setup.out:
        try:
            open(setup.out, "a", encoding="utf-8").close()
        except OSError as error:
            parser.error(f"--out: cannot write {setup.out}: {error.strerror}")
    setup.times = QUICK if setup.quick else FULL
    places = [setup.build / "pipetrain", setup.build / "src" / "app" / "pipetrain"]
    setup.program = str(next((place for place in places if place.is_file()), places[0]))
    return setup


def main():
    setup = parse()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        results = measure(setup)
    except Failure as failure:
        say(f"bench: {failure}")
        return 1
    print(table(setup, results))
    if setup.out:
        with open(setup.out, "w", encoding="utf-8") as file:
            report = {
                "machine": machine(),
                "quick": setup.quick,
                "stage_ms": setup.times._asdict(),
                "rows": results,
            }
            json.dump(report, file, indent=2)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
