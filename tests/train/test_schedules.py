#!/usr/bin/env python3
"""Schedules as files, and weight gradients that wait.

What --schedule-out writes and --schedule reads trains to the same bits; a list for one step trains
as the schedule that it is taken from; what cannot be run is refused before training, on every
number of ranks, with the line. And a rank does one thing at a time in zb-h1 too.
"""

import csv
import filecmp
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "fault"))

import launch  # noqa: E402  first: it finds the modules below
import small_model  # noqa: E402
import tap  # noqa: E402

HEADING = "rank,action,micro_batch\n"
KINDS = {"F": "FORWARD", "B": "BACKWARD_INPUT", "W": "BACKWARD_WEIGHT"}
PER_STEP = 4  # 90 samples in batches of 16 and micro-batches of 4: the last step has three
MICRO_BATCHES = 23
ROUNDING_US = 0.002  # times have three decimals
SAME = ("--micro-batch=4", "--eval-every=0", "--progress=off")


def lines(rank, text):
    """ "F0 B0 W0" as the lines of a file."""
    return "".join(f"{rank},{KINDS[word[0]]},{word[1:]}\n" for word in text.split())


class Schedules(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.partition = small_model.write(cls.folder)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def train(self, ranks, name, schedule, *arguments):
        saved = self.folder / name
        ended = launch.succeed(ranks, self.partition, f"--schedule={schedule}", f"--save={saved}",
                               *SAME, *arguments)
        return saved, "\n".join(ended.out)

    def assert_same_files(self, one, other):
        names = sorted(path.name for path in one.iterdir())
        self.assertEqual(names, sorted(path.name for path in other.iterdir()))
        self.assertEqual(len(names), 4)
        _, differing, unread = filecmp.cmpfiles(one, other, names, shallow=False)
        self.assertEqual(differing + unread, [])

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    # ---- files that are good ------------------------------------------------------------------

    def test_round_trip(self):
        """Written by a run and read by the next: the same bits, and the same file again."""
        cases = (
            ("1f1b", 3, "--clip=0.5"),
            ("zb-h1", 4, "--clip=0.5"),
            ("gpipe", 1, "--steps=4"),  # less than an epoch
            ("zb-h1", 2, "--steps=8"),  # a whole epoch, and the beginning of another
            ("async", 3, "--stash"),
            ("async", 3, "--predict=msnag"),
            ("async", 2, "--in-flight=2"),
        )
        for number, (schedule, ranks, option) in enumerate(cases):
            with self.subTest(schedule, ranks=ranks, option=option):
                out, again = (self.folder / f"{number}{name}.csv" for name in ("", "-again"))
                one, _ = self.train(ranks, f"{number}", schedule, option, f"--schedule-out={out}")
                other, said = self.train(ranks, f"{number}-read", out, option,
                                         f"--schedule-out={again}")
                self.assert_same_files(one, other)
                self.assertEqual(out.read_text(), again.read_text())
                self.assertIn(str(out), said)
                count = 4 * PER_STEP if option == "--steps=4" else MICRO_BATCHES
                self.assertEqual(len(out.read_text().splitlines()), 1 + 3 * count * ranks)

    def test_check_writes_the_same(self):
        run, check = self.folder / "run.csv", self.folder / "check.csv"
        self.train(2, "for-check", "zb-h1", f"--schedule-out={run}")
        launch.succeed(1, self.partition, "--check", "--stages=2", "--schedule=zb-h1", *SAME,
                       f"--schedule-out={check}")
        self.assertEqual(run.read_text(), check.read_text())

    def test_list_of_a_step(self):
        """It repeats, and its last micro-batches are left out of a short step. This one is no
        schedule of ours: weight gradients in pairs on one rank, and all at the end on the other."""
        path = self.write(
            "step.csv",
            HEADING
            + lines(1, "F0 B0 F1 B1 F2 B2 F3 B3 W0 W1 W2 W3")
            + lines(0, "F0 F1 F2 B0 B1 W0 W1 F3 B2 B3 W2 W3"),
        )
        flushed, _ = self.train(1, "flushed", "gpipe", "--clip=0.5")
        listed, _ = self.train(2, "listed", path, "--clip=0.5")
        self.assert_same_files(flushed, listed)
        text = "\n".join(launch.succeed(1, self.partition, "--check", "--stages=2", *SAME,
                                        f"--schedule={path}").out)
        self.assertIn("the schedule is sound", text)
        self.assertRegex(text, r"(?m)^rank 0 \|  0F  1F  2F  0B   \.  1B  0W  1W  3F ")

    # ---- files that are not -------------------------------------------------------------------

    def refuse(self, ranks, path, *words, arguments=SAME):
        ended = launch.run(ranks, self.partition, f"--schedule={path}", *arguments)
        self.assertEqual(ended.status, 2, ended)
        text = "\n".join(ended.err)
        for word in words:
            self.assertIn(word, text)
        self.assertEqual(text.count("error:"), 1, ended)
        self.assertNotIn("step", "\n".join(ended.out))

    def test_bad_files(self):
        good = "F0 B0 W0 F1 B1 W1 F2 B2 W2 F3 B3 W3"
        cases = {
            "empty": ("", "is empty; the first line must be rank,action,micro_batch"),
            "column": ("rank,action\n0,FORWARD\n", ":1: the column micro_batch is missing"),
            "action": (HEADING + "0,BACKWARD,0\n", ":2: unknown action 'BACKWARD'"),
            "twice": (HEADING + lines(0, good + " F2"), ":14: the second FORWARD of micro-batch 2 "),
            "missing": (HEADING + lines(0, good[:-3]), "rank 0 has no BACKWARD_WEIGHT of micro-"),
            "long": (HEADING + "0" * 300 + "\n", ":2: a line of 300 bytes"),
            "ranks": (HEADING + lines(0, good) + lines(1, good) + lines(2, good),
                      "has lists for 3 ranks, and this run has"),
            "count": (HEADING + lines(0, good[:18]) + lines(1, good[:18]),
                      "has 2 micro-batches a rank; it must have those of one step of this run, "
                      "which are 4, or those of an epoch, which are 23"),
        }
        for name, (text, words) in cases.items():
            path = self.write(f"{name}.csv", text)
            for ranks in (1, 2):
                if name == "count" and ranks == 1:
                    continue  # there the number of ranks is wrong too
                with self.subTest(name, ranks=ranks):
                    self.refuse(ranks, path, f"{path}", words)
        self.refuse(2, self.folder / "absent.csv", "absent.csv: no such file")

    def test_bad_orders(self):
        good = "F0 B0 W0 F1 B1 W1 F2 B2 W2 F3 B3 W3"
        cases = {
            "order": (good, good.replace("F2 B2 W2 F3", "F3 F2 B2 W2"), ":20: ",
                      "FORWARD of micro-batch 3: it is out of order: the next FORWARD is that of"),
            "before": (good.replace("B1 W1", "W1 B1"), good, ":6: ",
                       "it comes before the BACKWARD_INPUT of the same micro-batch"),
            "deadlock": (good, "F0 F1 B0 W0 B1 W1 F2 B2 W2 F3 B3 W3", "it would never end",
                         "deadlock.csv:15)"),
        }
        for name, (first, second, *words) in cases.items():
            path = self.write(f"{name}.csv", HEADING + lines(0, first) + lines(1, second))
            with self.subTest(name):
                self.refuse(2, path, f"{path}", *words)
            with self.subTest(name, check=True):
                self.refuse(1, path, *words, arguments=(*SAME, "--check", "--stages=2"))

    def test_bad_combinations(self):
        """What a schedule must be known for, its file is read for."""
        late = self.folder / "late.csv"
        self.train(2, "late", "async", f"--schedule-out={late}")
        step = self.write("flushing.csv", HEADING + lines(0, "F0 F1 F2 F3 B0 W0 B1 W1 B2 W2 B3 W3"))
        self.refuse(2, late, "--clip 1 with --schedule", f"{late}", arguments=(*SAME, "--clip=1"))
        for option in ("--stash", "--predict=msnag", "--in-flight=1"):
            with self.subTest(option):
                self.refuse(1, step, option.split("=")[0], f"{step}", arguments=(*SAME, option))
        text = late.read_text()
        first, second = "0,BACKWARD_WEIGHT,0\n", "0,BACKWARD_INPUT,1\n"
        waits = self.write("waits.csv", text.replace(first, "").replace(second, second + first))
        self.train(2, "waits", waits, "--stash")
        self.train(2, "gap-aware", late, "--gap-aware")
        self.refuse(2, waits, f"{waits}", "BACKWARD_WEIGHT", arguments=(*SAME, "--gap-aware"))
        # What needs no schedule does not read it.
        launch.succeed(1, self.partition, "--check-gradients", "--schedule=absent.csv", "--batch=2")

    # ---- gradients that wait ------------------------------------------------------------------

    def rows(self, schedule):
        path = self.folder / f"{schedule}-times.csv"
        self.train(4, f"{schedule}-timed", schedule, f"--timing={path}", "--epochs=1")
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def test_times_of_waiting_gradients(self):
        for row in self.rows("1f1b"):
            self.assertEqual((row["weight_start_us"], row["weight_us"]), ("", ""))
        rows = self.rows("zb-h1")
        for rank in range(4):
            mine = [row for row in rows if int(row["rank"]) == rank]
            waited = [row["weight_us"] != "" for row in mine]
            self.assertEqual(len(waited), MICRO_BATCHES)
            # The last of a step that is shorter than the delay follows its own input gradient.
            self.assertEqual(sum(waited), 0 if rank == 0 else MICRO_BATCHES, f"rank {rank}")
            intervals = []
            for row in mine:
                for kind in ("fwd", "bwd", "weight", "update"):
                    if row[f"{kind}_start_us"]:
                        start = float(row[f"{kind}_start_us"])
                        intervals.append((start, start + float(row[f"{kind}_us"]), kind))
            intervals.sort()
            for (_, end, _), (start, _, _) in zip(intervals, intervals[1:]):
                self.assertLessEqual(end, start + ROUNDING_US, f"rank {rank}: {intervals}")


if __name__ == "__main__":
    tap.main()
