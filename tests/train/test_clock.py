#!/usr/bin/env python3
"""Whole runs on the clock backend: schedules run and end, stages take the times that were stated,
--check predicts from them, and nothing pretends to have been computed.

Times are bounded from below exactly, and from above so that only a fault gets there: the machine
may be busy with other things.
"""

import csv
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time
import unittest

import program
import tap

MODEL = program.ROOT / "tests" / "bench" / "equal-64.yaml"
HEAD = "stage,forward_us,backward_input_us,backward_weight_us,update_us"
SAMPLES = 64  # of a micro-batch of the model
TIMES = (4000, 3000, 2000, 1000)  # µs
ROUNDING_US = 0.01  # of a CSV with three decimals, over a sum of a few
SLOW_US = 20e6  # no machine that runs the tests at all is late by so much


class Clock(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def times(self, *rows):
        path = self.folder / "times.csv"
        rows = rows or (("*", *TIMES),)
        path.write_text("\n".join([HEAD, *(",".join(map(str, row)) for row in rows), ""]))
        return path

    def options(self, per_step, steps, **more):
        return {
            "backend": "clock",
            "clock": self.folder / "times.csv",
            "micro_batch": SAMPLES,
            "accumulate": per_step,
            "samples": SAMPLES * per_step * steps,
            "epochs": 1,
            **more,
        }

    def run_timed(self, ranks, **options):
        """The timing rows, the summary, and what was printed."""
        timing, summary = self.folder / "timing.csv", self.folder / "summary.json"
        output = program.run(ranks, MODEL, timing=timing, summary=summary, **options)
        with open(timing, encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return rows, json.loads(summary.read_text()), output

    def predicted_us(self, ranks, **options):
        """Of the span, by --check: the simulator, links free."""
        text = program.run(1, MODEL, check=True, stages=ranks, **options)
        found = re.search(r"predicted: ([\d.]+) ms a step, .* for (\d+) steps", text)
        return 1e3 * float(found[1]) * int(found[2]), text

    def test_stated_times(self):
        """Each forward, backward and update of each schedule has its length; the whole is never
        shorter than simulated."""
        self.times(("0", 2000, 1500, 1000, 500), ("*", *TIMES))
        for ranks in (1, 2, 4):
            for schedule in ("async", "gpipe", "1f1b"):
                with self.subTest(ranks=ranks, schedule=schedule):
                    options = self.options(ranks, 3, schedule=schedule)
                    rows, summary, _ = self.run_timed(ranks, **options)
                    self.assertEqual(len(rows), ranks * ranks * 3)
                    for row in rows:
                        stated = (2000, 1500, 1000, 500) if row["rank"] == "0" else TIMES
                        for part, least in (
                            ("fwd_us", stated[0]),
                            ("bwd_us", stated[1] + stated[2]),
                            ("update_us", stated[3]),
                        ):
                            if part != "update_us" or row[part]:
                                self.assertGreaterEqual(float(row[part]), least - ROUNDING_US)
                                self.assertLess(float(row[part]), least + SLOW_US)
                    updates = [row for row in rows if row["update_us"]]
                    self.assertEqual(len(updates), ranks * 3)
                    self.assertEqual(summary["steps"], 3)
                    self.compare_with_prediction(rows, ranks, options)

    def test_stated_times_of_blocks(self):
        """A stage of the file is a block: rank 0 has the first and the third of four."""
        stated = (2000, 1500, 1000, 500)
        self.times(("0", *TIMES), ("2", *stated), ("*", *TIMES))
        options = self.options(4, 3, schedule="interleaved", chunks=2)
        out = self.folder / "out.csv"
        rows, _, _ = self.run_timed(2, **options, clock_out=out)
        written = [line.split(",") for line in out.read_text().splitlines()[1:]]
        self.assertEqual([[float(n) for n in row] for row in written],
                         [[s, *(stated if s == 2 else TIMES)] for s in range(4)])
        self.assertEqual(len(rows), 4 * 4 * 3)
        for row in rows:
            forward, back, weight, _ = stated if row["stage"] == "2" else TIMES
            self.assertGreaterEqual(float(row["fwd_us"]), forward - ROUNDING_US)
            self.assertGreaterEqual(float(row["bwd_us"]), back + weight - ROUNDING_US)
            if row["update_us"]:  # of both blocks of the rank
                both = TIMES[3] + (stated[3] if row["rank"] == "0" else TIMES[3])
                self.assertGreaterEqual(float(row["update_us"]), both - ROUNDING_US)
        self.assertEqual(sum(row["update_us"] != "" for row in rows), 2 * 3)
        self.compare_with_prediction(rows, 2, options)

    def compare_with_prediction(self, rows, ranks, options):
        predicted, _ = self.predicted_us(ranks, **options)
        begin = min(float(row["fwd_start_us"]) for row in rows)
        end = max(
            float(row[f"{part}_start_us"]) + float(row[f"{part}_us"])
            for row in rows
            for part in ("bwd", "weight", "update")
            if row[f"{part}_start_us"]
        )
        printed_us = 0.005e3 * 3 + 1  # --check prints two decimals of ms a step
        between_ranks_us = 100  # clocks of ranks are compared by messages
        self.assertGreaterEqual(end - begin, predicted - printed_us - between_ranks_us)
        self.assertLess(end - begin, predicted + SLOW_US)

    def test_prediction_is_stated(self):
        """Nothing is profiled: 1f1b over equal stages has its formula, to the last digit."""
        self.times(("*", 34000, 33000, 32000, 7000))
        options = self.options(4, 3, schedule="1f1b")
        predicted, text = self.predicted_us(4, **options)
        self.assertEqual(predicted, 3 * (4 * 99000 + 3 * 67000 + 7000))
        self.assertEqual(len(re.findall(r"(?m)^ +\d .* 34000 +65000 ", text)), 4, text)
        self.assertIn("stages as stated", text)
        # Each of two blocks has those times: twice the work, and fill and drain as short as before.
        options = self.options(4, 3, schedule="interleaved", chunks=2)
        predicted, text = self.predicted_us(4, **options)
        self.assertEqual(predicted, 3 * (4 * 2 * 99000 + 3 * 67000 + 2 * 7000))
        self.assertEqual(len(re.findall(r"(?m)^ +\d .* 68000 +130000 ", text)), 4, text)

    def test_memory(self):
        """Predicted is taken, and nobody is spared the activations."""
        self.times(("*", 100, 100, 100, 0))
        for schedule in ("async", "1f1b"):
            with self.subTest(schedule):
                options = self.options(4, 2, schedule=schedule)
                _, clock, _ = self.run_timed(4, **options)
                del options["clock"]
                _, ref, _ = self.run_timed(4, **{**options, "backend": "ref"})
                for mine, theirs in zip(clock["stages"], ref["stages"]):
                    self.assertEqual(mine["peak_bytes"], mine["predicted_bytes"])
                    self.assertEqual(mine["peak_bytes"], theirs["peak_bytes"])

    def test_nothing_pretends(self):
        self.times(("*", 100, 100, 100, 0))
        log = self.folder / "log.jsonl"
        _, summary, output = self.run_timed(2, **self.options(2, 3), log=log)
        self.assertIn("nothing is computed", output.splitlines()[0])
        self.assertEqual(program.losses(log), [0, 0, 0])
        self.assertEqual(summary["train_loss"], 0)
        self.assertIsNone(summary["test_accuracy"])

    def test_clip(self):
        """A step that all ranks meet in."""
        self.times(("*", 1000, 1000, 1000, 0))
        rows, _, _ = self.run_timed(2, **self.options(2, 2, schedule="1f1b", clip=1))
        self.assertEqual(len(rows), 8)

    def test_waits_cost_little(self):
        """Ranks that wait leave the processors alone: one that spins uses all that it can get."""
        self.times(("*", 100000, 100000, 100000, 0))
        ranks, steps = 4, 6
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        program.run(ranks, MODEL, **self.options(1, steps))
        took = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.assertLess(used, took / 2)

    def test_measured_times_replayed(self):
        """--clock-out of a real run, and of --check, is what --clock reads."""
        out = self.folder / "measured.csv"
        options = self.options(2, 2, schedule="1f1b")
        del options["clock"]
        for check in (False, True):
            with self.subTest(check=check):
                looking = {"check": True, "stages": 2} if check else {}
                real = {**options, "backend": "ref", "clock_out": out, **looking}
                program.run(1 if check else 2, MODEL, **real)
                head, *rows = out.read_text().splitlines()
                self.assertEqual(head, HEAD)
                self.assertEqual([row.split(",")[0] for row in rows], ["0", "1"])
                numbers = [[float(text) for text in row.split(",")[1:]] for row in rows]
                self.assertTrue(all(min(row) > 0 for row in numbers), rows)
                options["clock"] = out
                _, text = self.predicted_us(2, **options)
                for forward, gradient, weight, _ in numbers:
                    self.assertRegex(text, f" {forward:.0f} +{gradient + weight:.0f} ")
                del options["clock"]

    def test_bench(self):
        """tools/bench --clock, the quick way: all its rows, and none faster than possible."""
        out = self.folder / "bench.json"
        build = os.environ.get("PT_BUILD_ROOT") or str(program.ROOT / "build-test")
        script = program.ROOT / "tests" / "bench" / "clock.py"
        command = [sys.executable, "-B", script, "--quick", f"--build={build}", f"--out={out}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        self.assertEqual(done.returncode, 0, done)
        report = json.loads(out.read_text())
        self.assertEqual({row["ranks"] for row in report["rows"]}, {2, 4})
        for row in report["rows"]:
            with self.subTest(row["schedule"], ranks=row["ranks"]):
                self.assertLess(row["share"], 1.01)
                self.assertGreater(row["share"], 0.1)
                self.assertIn(row["schedule"], done.stdout)
                if row["compared"] == "span":
                    self.assertAlmostEqual(row["simulated_span_ms"], row["ideal_ms"], delta=0.1)

    # ---- refusals -----------------------------------------------------------------------------

    def test_refused(self):
        """What makes no sense is refused, with what to write instead."""
        good = f"--clock={self.times()}"
        short = self.folder / "short.csv"
        short.write_text(f"{HEAD}\n0,1,1,1\n")
        one = self.folder / "one.csv"
        one.write_text(f"{HEAD}\n0,1,1,1,1\n")
        on = "--backend=clock"
        cases = (
            ([on], "--backend clock needs --clock FILE.csv"),
            ([good], "--clock goes with --backend clock"),
            ([on, f"--clock={self.folder}/none.csv"], "none.csv"),
            ([on, f"--clock={short}"], "short.csv:2:8: a row has 5 fields"),
            ([on, f"--clock={one}", "--check", "--stages=2"], "no row for stage 1 of 2"),
            ([on, good, f"--save={self.folder}/saved"], "leave it out, or choose another backend"),
            ([on, good, "--check-gradients"], "so --check-gradients has nothing"),
            ([on, good, "--eval-every=1"], "write --eval-every 0"),
            ([on, good, "--precision=bf16"], "--precision fp32"),
            ([on, good, "--p2p=device"], "--p2p"),
        )
        for arguments, words in cases:
            with self.subTest(" ".join(arguments).replace(str(self.folder), "")):
                command = [program.PROGRAM, str(MODEL), "--samples=64", *arguments]
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=60, check=False
                )
                self.assertEqual(done.returncode, 2, done)
                self.assertIn(words, done.stderr)
                self.assertFalse((self.folder / "saved").exists())


if __name__ == "__main__":
    tap.main()
