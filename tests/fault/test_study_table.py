#!/usr/bin/env python3
"""What tools/study makes of runs: the table's numbers and marks, which runs are one computation (and
that they are), and the grids that come with it."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import launch  # first: it finds the modules below
import program
import small_model
import tap

sys.path.insert(0, str(program.ROOT / "tools"))
sys.dont_write_bytecode = True
import study_grid  # noqa: E402
import study_results  # noqa: E402
import study_table  # noqa: E402

GRIDS = sorted((program.ROOT / "tests" / "train" / "results").glob("study-*.toml"))
LATE = """
name = "late"
partition = "small.yaml"
stages = [1, 2]
seeds = [1, 2]
[methods.sync]
schedule = "1f1b"
[methods.none]
predict = "none"
[methods.stash]
stash = true
sync-epochs = 1
[methods."2bw"]
predict = "none"
2bw = true
[methods.slow]
lr = 0.001
[methods.slower]
lr = 0.001
pipemare-lr = 2
"""
# What changes no bit at one stage, and what does.
EQUAL = ({"schedule": "gpipe"}, {"schedule": "zb-h1"}, {"predict": "none"},
         {"predict": "spectrain", "stash": "on"}, {"in-flight": "2", "pipemare-lr": "2"},
         {"sync-epochs": "1", "gap-every": "2"}, {"gap-aware": "on"}, {"pipemare-dc": "0.2"})
OTHER = ({"2bw": "on", "predict": "none"}, {"nesterov-last": "on"}, {"lr": "0.02"})


def row(method, stages, seed, accuracy=None, state="done", **more):
    return {"method": method, "stages": stages, "seed": seed, "state": state,
            "test_accuracy": accuracy, "test_loss": None, **more}


def rows_of(method, stages, *accuracies, **more):
    return [row(method, stages, seed, a, **more) for seed, a in enumerate(accuracies, 1)]


class Table(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def table(self, rows, jobs=1):
        """{method: cells}, and the text."""
        methods = list(dict.fromkeys(r["method"] for r in rows))
        grid = study_grid.Grid("made up", None, methods, [], jobs, {})
        study_table.write(grid, rows, self.folder / "table.md")
        text = (self.folder / "table.md").read_text(encoding="utf-8")
        cells = [[c.strip() for c in line.strip("|").split("|")]
                 for line in text.splitlines() if line.startswith("| ")]
        return {method: rest for method, *rest in cells[1:]}, text

    def test_differences_and_the_best(self):
        """Means 80, 81 and 79 %; deviations 1, √2 and 0: of differences √(1 + 2) and 1."""
        cells, text = self.table(rows_of("sync", 4, 0.79, 0.80, 0.81)
                                 + rows_of("better", 4, 0.81 - 0.02**0.5 / 10, 0.81,
                                           0.81 + 0.02**0.5 / 10)
                                 + rows_of("worse", 4, 0.79, 0.79, 0.79))
        self.assertEqual(cells["sync"], ["80.00 ± 1.00 %"])
        self.assertEqual(cells["better"], ["**81.00 ± 1.41 %**, +1.00 ± 1.73"])
        self.assertEqual(cells["worse"], ["79.00 ± 0.00 %, −1.00 ± 1.00"])
        self.assertIn("the difference to `sync`", text)
        self.assertNotIn("¹", text)

    def test_one_seed_has_no_spread(self):
        cells, _ = self.table(rows_of("sync", 2, 0.5) + rows_of("other", 2, 0.25))
        self.assertEqual(cells, {"sync": ["**50.00 %**"], "other": ["25.00 %, −25.00"]})

    def test_columns_are_apart(self):
        cells, _ = self.table(rows_of("sync", 1, 0.5) + rows_of("sync", 8, 0.3)
                              + rows_of("other", 8, 0.4))
        self.assertEqual(cells, {"sync": ["**50.00 %**", "30.00 %"],
                                 "other": ["–", "**40.00 %**, +10.00"]})

    def test_without_the_row_sync(self):
        cells, text = self.table(rows_of("a", 2, 0.5) + rows_of("b", 2, 0.25))
        self.assertEqual(cells, {"a": ["**50.00 %**"], "b": ["25.00 %"]})
        self.assertNotIn("difference", text)

    def test_what_went_wrong_is_never_the_best(self):
        wrong = {"reason": "diverged: the accuracy is that of guessing"}
        lost = {"state": "failed", "reason": "diverged: the loss is no number any more"}
        killed = {"state": "failed", "reason": "exit status 1: killed"}
        cells, text = self.table(
            rows_of("sync", 2, 0.5, 0.5)
            + [row("lucky", 2, 1, 0.9), row("lucky", 2, 2, 0.1, **wrong)]
            + [row("mixed", 2, 1, **lost), row("mixed", 2, 2, **killed)]
            + [row("half", 2, 1, 0.9), row("half", 2, 2, state="missing")])
        self.assertEqual(cells["sync"], ["**50.00 ± 0.00 %**"])
        self.assertEqual(cells["lucky"], ["50.00 ± 56.57 %, +0.00 ± 56.57, **1 of 2 diverged**"])
        self.assertEqual(cells["mixed"], ["**1 of 2 diverged**, **1 of 2 failed**"])
        self.assertEqual(cells["half"], ["90.00 %, +40.00, 1 to run"])
        self.assertIn("- lucky, 2 stages, seed 2: diverged: the accuracy", text)
        self.assertIn("- mixed, 2 stages, seed 2: exit status 1: killed", text)

    def test_sync_at_one_number_of_stages(self):
        """It is shown and compared with at every other."""
        cells, text = self.table(rows_of("sync", 1, 0.5) + rows_of("other", 4, 0.25)
                                 + rows_of("other", 8, 0.75))
        self.assertEqual(cells, {"sync": ["**50.00 %**", "**50.00 %** ²", "50.00 % ²"],
                                 "other": ["–", "25.00 %, −25.00", "**75.00 %**, +25.00"]})
        self.assertIn("² Run at another number of stages", text)

    def test_sync_at_some_numbers_of_stages(self):
        """A seed counts once: three of them spread by 1 %, six of which two are alike by less."""
        cells, _ = self.table(rows_of("sync", 1, 0.79, 0.80, 0.81)
                              + rows_of("sync", 2, 0.79, 0.80, 0.81) + rows_of("other", 8, 0.5))
        self.assertEqual(cells["sync"][2], "**80.00 ± 1.00 %** ²")

    def test_epochs(self):
        rows = rows_of("sync", 2, 0.5, 0.5, epochs_to_sync=3)
        rows += [row("other", 2, 1, 0.5, epochs_to_sync=2), row("other", 2, 2, 0.4)]
        _, text = self.table(rows + rows_of("worse", 2, 0.4, 0.4))
        _, words, table = text.partition("at most 0.1 point below what `sync` has in the end")
        self.assertTrue(words)
        self.assertEqual(table.splitlines()[-3:],
                         ["| sync | 3 |", "| other | 2, never |", "| worse | never |"])
        self.assertNotIn("Epochs", self.table(rows_of("sync", 2, 0.5))[1])

    def test_losses(self):
        """Where nothing is classified, the least loss is the best."""
        cells, _ = self.table([row("sync", 1, 1, test_loss=0.5), row("other", 1, 1, test_loss=0.25)])
        self.assertEqual(cells, {"sync": ["loss 0.5"], "other": ["**loss 0.25**"]})

    def test_one_computation_is_marked(self):
        rows = rows_of("sync", 1, 0.5) + rows_of("a", 1, 0.5, same_as="sync")
        rows += rows_of("b", 1, 0.4) + rows_of("c", 1, 0.4, same_as="b")
        cells, text = self.table(rows)
        self.assertEqual(cells["a"], ["**50.00 %** ¹"])
        self.assertEqual(cells["c"], ["40.00 % ¹, −10.00"])
        self.assertRegex(text, "¹ At one stage .* as `b` or `sync`, run once")

    def test_side_by_side_is_said(self):
        self.assertNotIn("at a time", self.table(rows_of("sync", 1, 0.5))[1])
        self.assertIn("3 runs at a time", self.table(rows_of("sync", 1, 0.5), jobs=3)[1])

    def test_guessing(self):
        """A tenth above chance is put down to luck; no classes, no chance."""
        for accuracy, classes, guessed in ((0.1, 10, True), (0.109, 10, True), (0.112, 10, False),
                                           (0.5, 2, True), (0.1, None, False), (None, 10, False)):
            with self.subTest(accuracy=accuracy, classes=classes):
                summary = {"test_accuracy": accuracy, "classes": classes}
                self.assertEqual(bool(study_results.is_at_chance(summary)), guessed)


class OneComputation(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.partition = small_model.write(self.folder)
        self.path = self.folder / "grid.toml"

    def test_is_run_once(self):
        self.path.write_text(LATE)
        grid = study_grid.read(self.path)
        self.assertEqual({(run.slug, other.slug) for run, other in grid.same_as.items()},
                         {(f"{method}-p1-s{s}", f"{first}-p1-s{s}") for s in (1, 2)
                          for method, first in (("none", "sync"), ("stash", "sync"),
                                                ("slower", "slow"))})
        self.assertEqual(len(grid.runs), 6 * 2 * 2 - 6)

    def test_lists_of_ones_own_may_be_anything(self):
        self.path.write_text(LATE.replace("1f1b", "own.csv"))
        same = {other.method for other in study_grid.read(self.path).same_as.values()}
        self.assertEqual(same, {"none", "slow"})

    def test_results_are_shared(self):
        self.path.write_text(LATE)
        grid = study_grid.read(self.path)
        states = {run: "missing" for run in grid.runs}
        run = next(r for r in grid.runs if r.slug == "slow-p1-s1")
        (self.folder / run.slug).mkdir()
        summary = {"test_accuracy": 0.75, "classes": 2, "test_loss": 1.5, "stages": [
            {"staleness_mean": 0.0, "staleness_max": 0, "gap_relative": None}]}
        (self.folder / run.slug / "summary.json").write_text(json.dumps(summary))
        (self.folder / run.slug / "log.jsonl").write_text("")
        rows, found = study_results.read_all(grid, self.folder, {**states, run: "done"})
        self.assertEqual(len(rows), 6 * 2 * 2)
        self.assertEqual(list(found), [run])
        shared = [r for r in rows if r["state"] == "done"]
        self.assertEqual([(r["method"], r.get("same_as"), r["test_accuracy"]) for r in shared],
                         [("slow", None, 0.75), ("slower", "slow", 0.75)])

    def test_sync_may_be_run_at_one_number_of_stages(self):
        only_one = LATE.replace('schedule = "1f1b"', 'schedule = "1f1b"\nstages = [1]')
        self.path.write_text(only_one)
        grid = study_grid.read(self.path)
        self.assertEqual({r.stages for r in grid.runs if r.method == "sync"}, {1})
        for other in ('"async"', '"own.csv"', '"1f1b"\nnesterov-last = true'):
            with self.subTest(schedule=other):
                self.path.write_text(only_one.replace('"1f1b"', other))
                with self.assertRaisesRegex(study_grid.BadInput, r"methods.sync.*stages lacks 2"):
                    study_grid.read(self.path)

    def test_epochs_to_sync(self):
        """Against the mean of sync's last accuracies, 0.799, less a tenth of a point."""
        self.path.write_text(LATE.replace('schedule = "1f1b"', 'schedule = "1f1b"\nstages = [1]'))
        grid = study_grid.read(self.path)
        runs = {run.slug: run for run in grid.runs}
        curves = {"sync-p1-s1": (0.6, 0.79), "sync-p1-s2": (0.8, 0.808), "slow-p1-s1": (0.7, 0.797),
                  "none-p2-s1": (None, 0.798), "none-p2-s2": (0.9, 0.1)}
        rows, found = {}, {}
        for slug, seen in curves.items():
            rows[runs[slug]] = row(runs[slug].method, runs[slug].stages, runs[slug].seed, seen[-1])
            found[runs[slug]] = {"evals": [{"epoch": e, "test_accuracy": a}
                                           for e, a in enumerate(seen)]}
        study_results.add_epochs_to_sync(rows, found)
        self.assertEqual([r["epochs_to_sync"] for r in rows.values()], [None, 1, None, 2, 1])

    def losses(self, options):
        log = self.folder / "log.jsonl"
        words = [f"--{name}={value}" for name, value in options.items()]
        launch.succeed(1, self.partition, "--lr=0.01", "--eval-every=0", f"--log={log}", *words)
        return program.losses(log)

    def test_has_the_same_bits(self):
        text = subprocess.run([program.PROGRAM, "--help"], capture_output=True, text=True,
                              check=True).stdout
        known = set(re.findall(r"(?m)^  --(?:\[no-\])?([a-z0-9-]+)", text))
        plain = self.losses({})
        for options in EQUAL + OTHER:
            if not known.issuperset(options):
                continue
            with self.subTest(**options):
                run = study_grid.Run("a", 1, 1, tuple(options.items()))
                same = run.computation == study_grid.Run("b", 1, 1, ()).computation
                self.assertEqual(same, options in EQUAL)
                self.assertEqual(self.losses(options) == plain, same)
        two = {"2bw": "on", "predict": "none"}, {"2bw": "on", "predict": "none", "sync-epochs": "1"}
        runs = [study_grid.Run("a", 1, 1, tuple(options.items())) for options in two]
        self.assertNotEqual(self.losses(two[0]), self.losses(two[1]))
        self.assertEqual([run.computation for run in runs], [None, None])
        tried = {name for options in EQUAL for name in options}
        self.assertEqual(tried, set(study_grid.ABOUT_LATENESS))


class Grids(unittest.TestCase):
    def test_every_run_is_accepted(self):
        """By --check at the most stages of each method, with data that takes no time to read."""
        self.assertEqual([path.stem for path in GRIDS],
                         ["study-lenet5-to-last", "study-lenet5", "study-wrn-10-1"])
        for path in GRIDS:
            grid = study_grid.read(path)
            self.assertIn("sync", grid.methods)
            for method in grid.methods:
                runs = [run for run in grid.runs if run.method == method and run.seed == 1]
                for run in sorted(runs, key=lambda run: run.stages)[-1:]:
                    with self.subTest(path.stem, method=run.method):
                        options = {**dict(run.options), "dataset": "synthetic", "samples": "4000"}
                        words = [f"--{name}={value}" for name, value in options.items()]
                        launch.succeed(1, grid.partition, "--check", f"--stages={run.stages}", *words)


if __name__ == "__main__":
    tap.main()
