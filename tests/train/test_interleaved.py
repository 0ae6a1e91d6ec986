#!/usr/bin/env python3
"""Several blocks of layers on each rank: what a run says and writes is that of the whole model.

Bits are compared in test_bitwise.py; here are evaluation, weights that go from one cut to another,
inference, timings by block, lists of one's own with a column `chunk`, the plan, and what is said.
"""

import csv
import filecmp
import json
import pathlib
import re
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "fault"))

import launch  # noqa: E402  first: it finds the modules below
import small_model  # noqa: E402
import tap  # noqa: E402

HEADING = "rank,action,micro_batch,chunk\n"
KINDS = {"F": "FORWARD", "B": "BACKWARD_INPUT", "W": "BACKWARD_WEIGHT"}
PER_STEP = 4  # 90 samples in batches of 16 and micro-batches of 4: the last step has three
MICRO_BATCHES = 23
CLOCK_TOLERANCE_US = 500  # ranks compare their clocks by messages
SAME = ("--micro-batch=4", "--progress=off")
TWO = ("--schedule=interleaved", "--chunks=2")


def lines(rank, text):
    """ "F0a B0b" as the lines of a file."""
    words = text.split()
    return "".join(f"{rank},{KINDS[w[0]]},{w[1:-1]},{ord(w[-1]) - ord('a')}\n" for w in words)


class Interleaved(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.partition = small_model.write(cls.folder)
        cls.plain, cls.plain_said = cls.train(1, "plain", "--schedule=1f1b")
        cls.timing = cls.folder / "timing.csv"
        cls.saved, cls.said = cls.train(3, "saved", *TWO, "--accumulate=3", "--batch=12",
                                        f"--timing={cls.timing}")
        cls.two, cls.two_said = cls.train(2, "two", *TWO)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    @classmethod
    def train(cls, ranks, name, *arguments):
        saved, summary = cls.folder / name, cls.folder / f"{name}.json"
        ended = launch.succeed(ranks, cls.partition, f"--save={saved}", f"--summary={summary}",
                               *SAME, *arguments)
        return saved, "\n".join(ended.out)

    def summary(self, name):
        return json.loads((self.folder / f"{name}.json").read_text())

    def assert_same_files(self, one, other):
        names = sorted(path.name for path in one.iterdir())
        self.assertEqual(names, sorted(path.name for path in other.iterdir()))
        self.assertEqual(len(names), 4)
        _, differing, unread = filecmp.cmpfiles(one, other, names, shallow=False)
        self.assertEqual(differing + unread, [])

    # ---- results ------------------------------------------------------------------------------

    def test_evaluation(self):
        """Forward only, through all blocks; the answers are the last one's."""
        self.assert_same_files(self.plain, self.two)
        one, other = self.summary("plain"), self.summary("two")
        for key in ("test_accuracy", "best_accuracy", "test_loss", "train_loss", "steps"):
            self.assertEqual(one[key], other[key], key)

    def test_summary(self):
        summary = self.summary("two")
        self.assertEqual(summary["settings"]["chunks"], 2)
        self.assertEqual(self.summary("plain")["settings"]["chunks"], 1)
        stages = summary["stages"]
        self.assertEqual(len(stages), 2)
        blocks = [names for stage in stages for names in stage["layers"]]
        self.assertEqual(sorted(blocks), sorted(small_model.NAMES))
        self.assertEqual(stages[0]["layers"], ["conv1", "conv2", "sum", "relu2"])
        self.assertEqual(stages[1]["layers"][:2], ["bn1", "relu1"])
        total = self.summary("plain")["stages"][0]["parameters"]
        self.assertEqual(sum(stage["parameters"] for stage in stages), total)
        for stage in stages:
            self.assertEqual(stage["staleness_max"], 0)
            self.assertEqual(stage["predicted_bytes"], stage["peak_bytes"])
        # The first rank holds PV + P - 1 chunks of micro-batches.
        self.assertEqual([stage["stash_peak"] for stage in stages], [5, 3])

    def test_what_is_said(self):
        self.assertIn("2 stages of 2 chunks (cut as the file says)", self.two_said)
        self.assertIn("conv1 … conv1, conv2 … relu2", self.two_said)
        self.assertNotIn("chunks", self.plain_said)

    # ---- weights ------------------------------------------------------------------------------

    def test_weights_go_on_anywhere(self):
        tuned = [self.train(ranks, f"tuned-{i}", f"--init={self.two}", *options)[0]
                 for i, (ranks, options) in enumerate((
                     (1, ("--schedule=gpipe",)), (2, TWO), (4, ("--schedule=interleaved",)),
                     (2, ("--schedule=interleaved", "--chunks=5"))))]
        for other in tuned[1:]:
            self.assert_same_files(tuned[0], other)

    def test_missing_weights_are_named_by_block(self):
        partial = self.folder / "partial"
        partial.mkdir()
        for path in self.two.iterdir():
            if "-fc." not in path.name and "-conv2." not in path.name:
                (partial / path.name).write_bytes(path.read_bytes())
        ended = launch.run(2, self.partition, *TWO, *SAME, f"--init={partial}", "--steps=1")
        self.assertEqual(ended.status, 0, ended)
        words = " ".join(ended.err + ended.out)
        for name in ("fc.weight", "conv2.weight", "5 tensors read, 4 left random"):
            self.assertIn(name, words)

    def test_inference(self):
        answers = []
        for ranks, options in ((1, ()), (1, TWO[:1]), (2, TWO), (3, (*TWO[:1], "--chunks=3"))):
            out = self.folder / f"answers-{len(answers)}.csv"
            launch.succeed(ranks, self.partition, "--infer=test", f"--weights={self.two}",
                           f"--out={out}", "--micro-batch=4", *options)
            answers.append(out.read_text())
        for other in answers[1:]:
            self.assertEqual(answers[0], other)

    # ---- times --------------------------------------------------------------------------------

    def test_timing_by_block(self):
        """A row for each micro-batch and block, stages counted from the first layer; every block
        begins after the one before, whichever ranks they are on."""
        with open(self.timing, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        at = {(int(r["stage"]), int(r["epoch"]), int(r["micro_batch"])): r for r in rows}
        self.assertEqual(len(at), len(rows))
        self.assertEqual(len(rows), 2 * 6 * MICRO_BATCHES)
        for (stage, epoch, m), row in at.items():
            self.assertEqual(int(row["rank"]), stage % 3)
            begin = float(row["fwd_start_us"])
            updates = stage < 3 and (m % 3 == 2 or m == MICRO_BATCHES - 1)
            self.assertEqual(row["update_us"] != "", updates, row)
            if stage > 0:
                before = at[stage - 1, epoch, m]
                end = float(before["fwd_start_us"]) + float(before["fwd_us"])
                self.assertLess(end, begin + CLOCK_TOLERANCE_US)
                behind, back = float(row["bwd_start_us"]), float(before["bwd_start_us"])
                self.assertLess(behind, back + CLOCK_TOLERANCE_US)

    # ---- lists of one's own -------------------------------------------------------------------

    def test_list_of_a_step(self):
        """No schedule of ours: one micro-batch after the other through all four blocks."""
        path = self.folder / "step.csv"
        ranks = [" ".join(f"F{m}a F{m}b B{m}b W{m}b B{m}a W{m}a" for m in range(PER_STEP))] * 2
        path.write_text(HEADING + lines(0, ranks[0]) + lines(1, ranks[1]))
        listed, said = self.train(2, "listed", f"--schedule={path}")
        self.assert_same_files(self.two, listed)
        self.assertIn("2 stages of 2 chunks", said)

    def test_round_trip(self):
        out, again = self.folder / "out.csv", self.folder / "again.csv"
        one, _ = self.train(2, "one", *TWO, "--clip=0.5", f"--schedule-out={out}")
        other, _ = self.train(2, "other", "--clip=0.5", f"--schedule={out}",
                              f"--schedule-out={again}")
        self.assert_same_files(one, other)
        self.assertEqual(out.read_text(), again.read_text())
        self.assertEqual(len(out.read_text().splitlines()), 1 + 3 * MICRO_BATCHES * 2 * 2)

    def test_late_list(self):
        """A list whose forwards are late, on several chunks: it predicts, stashes and ends."""
        path = self.folder / "late.csv"
        begin = "F0a F0b F1a F1b "
        steps = "".join(f"B{m}b W{m}b B{m}a W{m}a " +
                        (f"F{m + 2}a F{m + 2}b " if m + 2 < MICRO_BATCHES else "")
                        for m in range(MICRO_BATCHES))
        path.write_text(HEADING + lines(0, begin + steps) + lines(1, begin + steps))
        for options in (("--stash",), ("--predict=msnag",), ("--nesterov-last", "--predict=none")):
            with self.subTest(options[0]):
                _, said = self.train(2, f"late{options[0]}", f"--schedule={path}", "--eval-every=1",
                                     *options)
                self.assertRegex(said, r"staleness mean 0\.\d+, max 1")
                late = self.summary(f"late{options[0]}")
                self.assertEqual([stage["stash_peak"] for stage in late["stages"]], [4, 4])
                for stage in late["stages"]:
                    self.assertEqual(stage["predicted_bytes"], stage["peak_bytes"])

        self.refuse(2, (f"--schedule={path}", "--sync-epochs=1"), "have 2; leave --sync-epochs out")
        _, said = self.train(2, "late-gap", f"--schedule={path}", "--gap-every=3", "--predict=none")
        for stage in self.summary("late-gap")["stages"]:
            self.assertGreater(stage["gap"], 0)

    def test_recompute(self):
        """Per block: the same bits, and the memory that is predicted, less than without."""
        again, _ = self.train(2, "again", *TWO, "--recompute=all")
        self.assert_same_files(self.two, again)
        for stage, kept in zip(self.summary("again")["stages"], self.summary("two")["stages"]):
            self.assertEqual(stage["predicted_bytes"], stage["peak_bytes"])
            self.assertLess(stage["peak_bytes"], kept["peak_bytes"])

    # ---- looking and planning -----------------------------------------------------------------

    def test_check(self):
        plan = self.folder / "plan.yaml"
        text = "\n".join(launch.succeed(1, self.partition, "--check", "--stages=2",
                                        "--schedule=interleaved", "--chunks=3", *SAME,
                                        f"--plan-out={plan}").out)
        self.assertIn("2 stages of 3 chunks (cut by the planner)", text)
        self.assertIn("rank 0 |  0Fa  1Fa  0Fb  1Fb  0Fc  1Fc  2Fa  0Bc ", text)
        self.assertIn("a b … chunk", text)
        self.assertIn("the schedule is sound", text)
        self.assertEqual(len(re.findall(r"(?m)^ +[01]  \w+ … ", text)), 2, text)
        cut = re.search(r"(?m)^  6: \[(.*)\]", plan.read_text())
        self.assertEqual(len(cut[1].split(",")), 5)

    def refuse(self, ranks, arguments, *words):
        ended = launch.run(ranks, self.partition, *SAME, *arguments)
        said = "\n".join(ended.err)
        self.assertEqual(ended.status, 2, ended)
        for word in words:
            self.assertIn(word, said)
        self.assertEqual(said.count("error:"), 1, ended)
        self.assertNotIn("step ", "\n".join(ended.out))

    def test_bad_input(self):
        self.refuse(2, ("--schedule=1f1b", "--chunks=2"), "--chunks goes with", "interleaved")
        self.refuse(1, TWO, "2 chunks on one rank", "--chunks 1")
        self.refuse(2, (*TWO[:1], "--chunks=6"), "are 12 blocks", "only 10 layers", "smaller --chunks")
        self.refuse(3, TWO, "4 micro-batches does not divide into groups of 3", "--accumulate 3 or "
                    "--accumulate 6")
        self.refuse(4, (*TWO, "--micro-batch=8"), "; write --accumulate 4, or --schedule 1f1b")
        self.refuse(2, (*TWO, "--in-flight=1"), "--in-flight 1 with --schedule interleaved")
        self.refuse(2, (*TWO, "--stash"), "leave --stash out")
        self.refuse(2, (*TWO[:1], "--chunks=0"), "--chunks", "1")
        self.refuse(1, ("--check", "--stages=3", *TWO), "groups of 3")


if __name__ == "__main__":
    tap.main()
