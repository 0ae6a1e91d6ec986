#!/usr/bin/env python3
"""tools/study: what it runs and does not run again, what it makes of the results, and bad grids."""

import csv
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

import launch  # first: it finds the modules below
import program
import small_model
import tap

STUDY = program.ROOT / "tools" / "study"
PICTURES = ("accuracy-steps", "accuracy-time", "loss-steps", "loss-time", "staleness", "gap")
GRID = """
name = "tiny"
partition = "small.yaml"
stages = [1, 2]
seeds = [1, 2, 3]
[options]
dataset = "synthetic"
samples = 48
batch = 16
epochs = 2
lr = 0.01
gap-every = 1
[methods.sync]
schedule = "1f1b"
stages = [1]
[methods."async, none"]
predict = "none"
stages = [2]
"""
FAILING = '[methods."too fast"]\nlr = 1e6\nstages = [1]\n'

# (what is wrong, replaced, by, words of the message)
BAD = (
    ("no TOML", 'name = "tiny"', "name = tiny", "this is not TOML"),
    ("unknown key", "[options]", "colour = 1\n[options]", "unknown key 'colour'"),
    ("no seeds", "seeds = [1, 2, 3]\n", "", "'seeds' is missing"),
    ("a wrong type", "stages = [1, 2]", 'stages = "two"', "'stages' must be a list"),
    ("no number", "stages = [1, 2]", 'stages = [1, "2"]', "whole numbers"),
    ("zero stages", "stages = [2]", "stages = [0]", "whole numbers"),
    ("twice", "seeds = [1, 2, 3]", "seeds = [1, 2, 1]", "twice"),
    ("no such model", "small.yaml", "absent.yaml", "there is no file"),
    ("an option of its own", "epochs = 2", "seed = 2", "seed is set by the study"),
    ("no option", "epochs = 2", '"Epochs!" = 2', "not the name of an option"),
    ("no job", "stages = [1, 2]", "stages = [1, 2]\njobs = 0", "'jobs' must be a whole number"),
    ("a switch of jobs", "stages = [1, 2]", "stages = [1, 2]\njobs = true", "'jobs' must be"),
    ("jobs in words", "stages = [1, 2]", 'stages = [1, 2]\njobs = "2"', "'jobs' must be"),
    ("a list as option", "epochs = 2", "epochs = [2]", "must be a number"),
    ("the same folder", 'stages = [1]\n[methods."async, none"]', 'stages = [2]\n[methods."Sync!"]',
     "share the folder"),
)


def environment():
    return {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


class Study(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        small_model.write(self.folder)
        self.grid = self.folder / "grid.toml"
        self.grid.write_text(GRID)
        self.out = self.folder / "out"

    def study(self, *arguments):
        command = [sys.executable, "-B", STUDY, self.grid, f"--out={self.out}",
                   f"--program={program.PROGRAM}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False,
                              env=environment(), timeout=4 * launch.TIME_LIMIT_S)

    def times(self):
        """When each run ended."""
        return {path.parent.name: path.stat().st_mtime_ns
                for path in self.out.glob("*/summary.json")}

    def rows(self):
        with open(self.out / "results.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    # ---- running ------------------------------------------------------------------------------

    def test_runs_everything_once(self):
        done = self.study()
        self.assertEqual(done.returncode, 0, done)
        first = self.times()
        slugs = [f"{m}-s{seed}" for m in ("sync-p1", "async-none-p2") for seed in (1, 2, 3)]
        self.assertEqual(sorted(first), sorted(slugs))
        again = self.study()
        self.assertEqual(again.returncode, 0, again)
        self.assertEqual(self.times(), first)
        for slug in slugs:
            settings = json.loads((self.out / slug / "summary.json").read_text())["settings"]
            self.assertEqual(settings["seed"], int(slug[-1]))
            self.assertEqual(settings["lr"], 0.01)
            self.assertEqual(settings["schedule"], "1f1b" if "sync-p1" in slug[:7] else "async")
        self.check_results()
        self.check_changes(first)

    def check_results(self):
        """The table says what the summaries say, and every picture is a picture."""
        found = {}
        for path in self.out.glob("*/summary.json"):
            method = path.parent.name[:-3]
            summary = json.loads(path.read_text())
            found.setdefault(method, []).append(summary["test_accuracy"])
        table = (self.out / "table.md").read_text()
        for values in found.values():
            words = f"{100 * statistics.mean(values):.2f} ± {100 * statistics.stdev(values):.2f} %"
            self.assertIn(words, table)
        self.assertEqual({(r["method"], r["stages"], r["state"]) for r in self.rows()},
                         {("sync", "1", "done"), ("async, none", "2", "done")})
        late = [r for r in self.rows() if r["stages"] == "2"]
        self.assertTrue(all(r["staleness_max"] == "1" for r in late), late)
        self.assertTrue(all(float(r["gap_relative"]) > 0 for r in late), late)
        self.assertTrue(all(float(r["gap_relative"]) == 0 for r in self.rows() if r not in late))
        for name in PICTURES:
            root = xml.etree.ElementTree.parse(self.out / f"{name}.svg").getroot()
            curves = [e for e in root.iter() if e.get("class", "").startswith("curve")]
            self.assertGreaterEqual(len(curves), 2, name)
        words = "".join(root.itertext())  # of the last one, gap: at the most stages
        for expected in ("async, none", "2 stages"):
            self.assertIn(expected, words)
        self.assertNotIn("1 stage", words)

    def check_changes(self, first):
        """Another option: only the runs that it is about."""
        self.grid.write_text(GRID.replace('predict = "none"', 'predict = "none"\nmomentum = 0.5'))
        listed = self.study("--list").stdout.splitlines()
        self.assertEqual(sum(line.startswith("missing") for line in listed), 3, listed)
        only = self.study("--only=async", "--only=s2")
        self.assertEqual(only.returncode, 1, "the others are still missing")
        changed = {slug for slug, end in self.times().items() if first[slug] != end}
        self.assertEqual(changed, {"async-none-p2-s2"})
        self.assertIn("2 to run", (self.out / "table.md").read_text())

    def test_failures_are_shown(self):
        self.grid.write_text(GRID + FAILING)
        done = self.study("--only=p1-s1")
        self.assertEqual(done.returncode, 1, done)
        table = (self.out / "table.md").read_text()
        self.assertIn("**1 of 3 diverged**, 2 to run", table)
        self.assertRegex(table, "too fast, 1 stage, seed 1: diverged: the loss is no number")
        failed = [r for r in self.rows() if r["state"] == "failed"]
        self.assertEqual([r["method"] for r in failed], ["too fast"])
        mark = self.out / "too-fast-p1-s1" / "failed"
        before = mark.stat().st_mtime_ns
        self.study("--only=p1-s1")
        self.assertEqual(mark.stat().st_mtime_ns, before)
        self.study("--only=p1-s1", "--retry")
        self.assertGreater(mark.stat().st_mtime_ns, before)

    def test_refused_runs_say_why(self):
        self.grid.write_text(GRID.replace('predict = "none"', 'predict = "nine"'))
        self.assertEqual(self.study("--only=async-none-p2-s1").returncode, 1)
        table = (self.out / "table.md").read_text()
        self.assertRegex(table, "exit status 2: error: .*nine")
        self.assertIn("**1 of 3 failed**, 2 to run", table)

    def under_way(self):
        """How many runs there were at a time at most: their folders tell when they began and ended."""
        spans = [((path.parent / "command").stat().st_mtime_ns, path.stat().st_mtime_ns)
                 for path in self.out.glob("*/summary.json")]
        return max(sum(a <= begin < b for a, b in spans) for begin, _ in spans)

    def test_side_by_side(self):
        for jobs in (1, 3):
            self.grid.write_text(GRID.replace("[options]", f"jobs = {jobs}\n[options]"))
            self.out = self.folder / f"out-{jobs}"
            done = self.study()
            self.assertEqual(done.returncode, 0, done)
            self.assertEqual(self.under_way(), jobs)
            self.assertEqual("runs at a time" in done.stdout, jobs > 1)
        one, other = ([(r["method"], r["seed"], r["test_loss"]) for r in csv.DictReader(
            (self.folder / f"out-{jobs}" / "results.csv").open(encoding="utf-8"))]
            for jobs in (1, 3))
        self.assertEqual(one, other)

    def test_interrupted(self):
        """Ctrl-C: what was done stays, no rank is left, and the same command goes on."""
        text = GRID.replace("epochs = 2", "epochs = 100000")
        self.grid.write_text(text.replace("[options]", "jobs = 2\n[options]"))
        command = [sys.executable, "-B", STUDY, self.grid, f"--out={self.out}",
                   f"--program={program.PROGRAM}", "--only=async"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, env=environment(), start_new_session=True)
        self.addCleanup(self.end, process)
        logs = [self.out / f"async-none-p2-s{seed}" / "log.jsonl" for seed in (1, 2)]
        end = time.monotonic() + launch.TIME_LIMIT_S
        while time.monotonic() < end and not all(
            log.exists() and log.stat().st_size > 2000 for log in logs
        ):
            time.sleep(0.05)
        report = self.study("--report")
        self.assertEqual((report.returncode, report.stderr), (1, ""), "runs are under way")
        self.assertIn("3 to run", report.stdout)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=launch.TIME_LIMIT_S)
        self.assertEqual(process.returncode, 130, (out, err))
        self.assertIn("the same command goes on", err)
        self.assertEqual(self.ranks_below(self.out), [])
        self.assertEqual(list(self.out.glob("*/failed")), [], "interrupted is not failed")
        self.assertIn("3 to run", (self.out / "table.md").read_text())

    @staticmethod
    def end(process):
        """Where the test has failed before it came to that: a study ends its ranks at SIGINT."""
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=launch.TIME_LIMIT_S)

    def ranks_below(self, folder):
        """Processes that work in the study's folders."""
        found = []
        for link in pathlib.Path("/proc").glob("[0-9]*/cwd"):
            try:
                if pathlib.Path(os.readlink(link)).is_relative_to(folder):
                    found.append(link.parent.name)
            except OSError:
                continue
        return found

    # ---- grids --------------------------------------------------------------------------------

    def test_bad_grids(self):
        for name, old, new, words in BAD:
            with self.subTest(name):
                self.assertIn(old, GRID)
                self.grid.write_text(GRID.replace(old, new, 1))
                done = self.study()
                self.assertEqual(done.returncode, 2, done)
                self.assertEqual(len(done.stderr.splitlines()), 1, done)
                self.assertRegex(done.stderr, f"^tools/study: .*{re.escape(words)}")
                self.assertFalse(self.out.exists())

    def test_no_such_run(self):
        for word in ("abc", "yn", "s", "p1-s"):
            said = self.study(f"--only={word}").stderr
            self.assertRegex(said, "no run of the grid has such a name")

    def test_only(self):
        """Whole parts of a name, also as the grid writes a method."""
        late, sync = "async-none-p2-s{}", "sync-p1-s{}"
        for words, names, seeds in (
            (["sync"], [sync], (1, 2, 3)),
            (["async"], [late], (1, 2, 3)),
            (["async, none"], [late], (1, 2, 3)),
            (["p1-s2"], [sync], (2,)),
            (["none", "s3"], [late], (3,)),
            (["s1"], [sync, late], (1,)),
        ):
            with self.subTest(words):
                done = self.study("--list", *[f"--only={word}" for word in words])
                listed = [line.split()[-1] for line in done.stdout.splitlines()]
                wanted = [name.format(seed) for name in names for seed in seeds]
                self.assertEqual(sorted(listed), sorted(wanted), done)

    def test_example_is_a_grid(self):
        text = subprocess.run([sys.executable, "-B", STUDY, "--example"], capture_output=True,
                              text=True, check=True).stdout
        self.grid.write_text(text.replace("../../partitions/lenet5.yaml", "small.yaml"))
        listed = self.study("--list")
        self.assertEqual(listed.returncode, 0, listed)
        self.assertEqual(len(listed.stdout.splitlines()), (1 + 2) * 3)


if __name__ == "__main__":
    tap.main()
