#!/usr/bin/env python3
"""--gap-every: what the log and the summary say of the gap, against the weights of the independent
simulation, epoch by epoch and stage by stage."""

import dataclasses
import json
import pathlib
import statistics
import tempfile
import unittest

import async_reference
import program
import tap
import test_async

BATCH, STEPS = test_async.BATCH, test_async.STEPS
EPOCHS = 3  # the last one is short
LENET5 = program.ROOT / "partitions" / "lenet5.yaml"

# (name, stages, options). With M = 1 a first stage of four is three updates late: a measurement
# takes four forwards, and more often than that none can begin.
CASES = [
    (f"{name}, every {every}", stages, async_reference.Options(gap_every=every, **options))
    for name, stages, options in (
        ("none", 4, {}),
        ("none, M = 2", 3, {"micro_batch": 2}),
        ("stash", 4, {"stash": True}),
        ("msnag", 4, {"predict": "msnag", "decay": 0.05}),
        ("msnag, stash", 2, {"predict": "msnag", "stash": True}),
        ("spectrain", 2, {"predict": "spectrain"}),
        ("2bw", 3, {"two_versions": True, "micro_batch": 2}),
        ("in flight", 2, {"in_flight": 2, "micro_batch": 2}),
        ("sync first", 3, {"sync_epochs": 1}),
    )
    for every in (1, 3)
]


class Gap(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def files(self):
        records = [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]
        summary = json.loads((self.folder / "summary").read_text())
        return [r for r in records if r["type"] == "gap"], summary["stages"]

    def options(self):
        return {"log": self.folder / "log", "summary": self.folder / "summary"}

    def assert_mean(self, got, values, what):
        """Weights of about one, each with the tolerance of the comparison of weights."""
        if not values:
            self.assertIsNone(got, what)
            return
        self.assertAlmostEqual(got, statistics.mean(values), delta=test_async.TOLERANCE, msg=what)

    def test_against_the_simulation(self):
        for name, stages, options in CASES:
            with self.subTest(name):
                test_async.train(stages, options, steps=STEPS, **self.options())
                _, simulated = async_reference.run(*test_async.problem(stages), STEPS, options)
                self.compare(*self.files(), simulated)

    def compare(self, records, summary, simulated):
        self.assertEqual([r["epoch"] for r in records], list(range(EPOCHS)))
        self.assertEqual([r["step"] for r in records], [10, 20, 23])
        for s, stage in enumerate(simulated):
            self.assertEqual(len(stage.gaps), EPOCHS)
            for epoch, found in enumerate(stage.gaps):
                record, what = records[epoch], f"stage {s}, epoch {epoch}"
                self.assertEqual(record["measured"][s], len(found), what)
                self.assert_mean(record["gap"][s], [off for off, _ in found], what)
                self.assert_mean(record["gap_relative"][s], [share for _, share in found], what)
            found = [pair for epoch in stage.gaps for pair in epoch]
            self.assert_mean(summary[s]["gap"], [off for off, _ in found], f"stage {s}")
            self.assert_mean(summary[s]["gap_relative"], [share for _, share in found],
                             f"stage {s}")

    def test_that_the_simulation_tells_them_apart(self):
        """A gap is many times the tolerance, and how often it is looked at changes the mean."""
        for name, stages, options in CASES:
            means = []
            for every in (options.gap_every, options.gap_every + 1):
                chosen = dataclasses.replace(options, gap_every=every)
                _, found = async_reference.run(*test_async.problem(stages), STEPS, chosen)
                means.append(statistics.mean(off for off, _ in found[0].gaps[1]))
            with self.subTest(name):
                self.assertGreater(means[0], 20 * test_async.TOLERANCE)
                self.assertGreater(abs(means[0] - means[1]), 2 * test_async.TOLERANCE)

    def test_of_a_network(self):
        """Exactly 0 where nothing is late, for every schedule and at any number of stages."""
        same = {"dataset": "synthetic", "samples": 100, "batch": 16, "micro_batch": 4, "epochs": 2,
                "eval_every": 0, "threads": 1, "gap_every": 5, "predict": "none"}
        for ranks in (1, 3):
            for schedule in ("1f1b", "zb-h1", "gpipe", "async"):
                with self.subTest(schedule, ranks=ranks):
                    options = {k: v for k, v in same.items()
                               if k != "predict" or schedule == "async"}
                    program.run(ranks, LENET5, schedule=schedule, **options, **self.options())
                    records, summary = self.files()
                    self.assertEqual([r["measured"] for r in records], [[5] * ranks] * 2)
                    late = [s["gap"] > 0 for s in summary]
                    self.assertEqual(late, [s["staleness_max"] > 0 for s in summary])
                    self.assertEqual(any(late), schedule == "async" and ranks > 1)

    def test_not_asked_for(self):
        program.run(2, LENET5, dataset="synthetic", samples=64, epochs=1, eval_every=0,
                    **self.options())
        records, summary = self.files()
        self.assertEqual(records, [])
        self.assertTrue(all(s["gap"] is None and s["gap_relative"] is None for s in summary))


if __name__ == "__main__":
    tap.main()
