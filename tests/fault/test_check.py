#!/usr/bin/env python3
"""--check, --check-gradients, --plan-out, and options in the partition file's `train:` section."""

import filecmp
import json
import pathlib
import re
import tempfile
import unittest

import launch  # first: it finds the modules below
import program
import small_model
import tap

PARTITIONS = sorted((program.ROOT / "partitions").glob("*.yaml"))
SHIPPED = ["lenet5", "lenet5-to-last", "mlp", "resnet-18", "resnet-32", "resnet-50", "vgg-11",
           "wrn-10-1", "wrn-16-4", "wrn-28-10"]
SYNCHRONOUS = ("gpipe", "1f1b", "zb-h1")  # interleaved: train/test_interleaved.py


class Check(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.partition = small_model.write(cls.folder)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    # ---- check --------------------------------------------------------------------------------

    def check(self, partition, stages, *arguments, ranks=1):
        options = ["--check", *([f"--stages={stages}"] if stages else []), *arguments]
        return "\n".join(launch.succeed(ranks, partition, *options).out)

    def stages_of(self, text):
        """[(parameters, MiB, staleness)] of the table's lines."""
        line = r"(?m)^ +(\d+) +\S+ … \S+ +(\d+) +(\d+) +\S+ +\S+ +([\d.]+) +(\d+) +(\d+) "
        found = re.findall(line, text)
        self.assertEqual([int(row[0]) for row in found], list(range(len(found))), text)
        return [(int(row[2]), float(row[3]), int(row[5])) for row in found]

    def test_partition_files(self):
        self.assertEqual(sorted(path.stem for path in PARTITIONS), SHIPPED)
        for path in PARTITIONS:
            whole = None
            for stages in (1, 2, 4):
                with self.subTest(path.stem, stages=stages):
                    text = self.check(path, stages, "--dataset=synthetic", "--batch=2")
                    self.assertIn("staleness", text)
                    self.assertIn("MiB", text)
                    self.assertRegex(text, r"predicted: [\d.]+ ms a step")
                    self.assertIn("the schedule is sound", text)
                    rows = self.stages_of(text)
                    self.assertEqual(len(rows), stages, text)
                    self.assertEqual(len(re.findall(r"(?m)^rank \d+ \|", text)), stages, text)
                    parameters = sum(row[0] for row in rows)
                    whole = whole or parameters
                    self.assertEqual(parameters, whole, "a cut changes the model")
                    if stages > 1:
                        self.assertIn("cut as the file says", text)

    def test_staleness(self):
        """async, one micro-batch a step: as many updates late as there are stages behind."""
        text = self.check(self.partition, 4, "--micro-batch=16")
        self.assertEqual([row[2] for row in self.stages_of(text)], [3, 2, 1, 0])
        for schedule in SYNCHRONOUS:
            with self.subTest(schedule):
                text = self.check(self.partition, 4, f"--schedule={schedule}")
                self.assertEqual([row[2] for row in self.stages_of(text)], [0, 0, 0, 0])

    def test_recompute(self):
        """The line says how many ops run again, and with which weights."""
        none = r"recompute"
        again = r"(?m)^recompute {}{}, ops run again in a backward of each stage: {}$"
        cases = (
            ("--schedule=gpipe", "none", none),
            ("--schedule=gpipe", "all", again.format("all", "", "2 5")),
            ("--schedule=gpipe", "relu?,sum", again.format(r"relu\?,sum", "", "1 2")),
            ("--schedule=gpipe", "pool, conv2", again.format("pool, conv2", "", r"0 1 \(0: .*\)")),
            ("--schedule=1f1b", "all", again.format("all", "", r"2 0 \(0: .*\)")),
            ("--schedule=async", "all", again.format("all", " with the newest weights", "2 0 .*")),
            ("--stash", "all", again.format("all", " with the weights of the forward", "2 0 .*")),
        )
        for schedule, layers, expected in cases:
            with self.subTest(schedule, layers=layers):
                text = self.check(
                    self.partition, 2, schedule, "--backend=ref", "--batch=8", "--micro-batch=2",
                    f"--recompute={layers}",
                )
                test = self.assertNotRegex if layers == "none" else self.assertRegex
                test(text, expected)

    def test_recompute_by_block(self):
        path = program.ROOT / "partitions" / "wrn-10-1.yaml"
        lines = [
            next(line for line in self.check(
                path, 1, "--schedule=gpipe", "--dataset=synthetic", "--batch=4", "--micro-batch=2",
                f"--recompute={layers}",
            ).splitlines() if line.startswith("recompute")).split(", ops")[1]
            for layers in ("group1.0", "group1.0.*")
        ]
        self.assertEqual(lines[0], lines[1])

    def test_sync_epochs(self):
        """What is drawn is late; the header tells of the epochs before."""
        text = self.check(self.partition, 4, "--micro-batch=16", "--sync-epochs=1")
        self.assertIn("small: 1f1b for 1 epoch, then async, ", text)
        self.assertEqual([row[2] for row in self.stages_of(text)], [3, 2, 1, 0])

    def test_columns(self):
        """Cells end where their headings end, and a name is cut between two characters."""
        for length in (1, 26, 27, 28, 29, 40):
            with self.subTest(length=length):
                path = self.folder / "named.yaml"
                name = "n" * length
                path.write_text(self.partition.read_text().replace("conv1", name))
                lines = self.check(path, 1).splitlines()
                at = next(i for i, line in enumerate(lines) if line.startswith("stage"))
                head, row = lines[at], lines[at + 1]
                self.assertIn(f"{name} … fc"[:30], row)
                for words in ("layers", "fwd µs", "bubble"):
                    end = head.index(words) + len(words)
                    self.assertRegex(row[:end], r"\S$", f"{head}\n{row}")
                    self.assertRegex(row[end:], r"^( |$)", f"{head}\n{row}")

    def test_under_mpirun(self):
        """Without --stages, as many as there are ranks; rank 0 alone prints."""
        text = self.check(self.partition, None, ranks=2)
        self.assertEqual(len(self.stages_of(text)), 2)

    def test_nothing_is_trained(self):
        self.assertNotIn("loss", self.check(self.partition, 2))

    def test_gradients(self):
        for backend in ("ref", "onednn"):
            with self.subTest(backend):
                ended = launch.succeed(
                    1, self.partition, "--check-gradients", f"--backend={backend}", "--batch=4"
                )
                text = "\n".join(ended.out)
                parameters = [n for n in small_model.SHAPES if "running" not in n]
                for name in parameters:
                    self.assertRegex(text, rf"ok +{re.escape(name)} ")
                self.assertIn(f"all {len(parameters)} parameters agree", text)

    def test_check_gradients_of_recomputed(self):
        """Even with the one micro-batch that is in flight here."""
        text = "\n".join(launch.succeed(
            1, self.partition, "--check-gradients", "--backend=ref", "--batch=4", "--recompute=all"
        ).out)
        self.assertRegex(text, r"recompute all, ops run again in a backward of each stage: 7")
        self.assertIn("parameters agree", text)

    # ---- plan-out -----------------------------------------------------------------------------

    def train(self, ranks, partition, name, *arguments):
        """Trains; returns (saved folder, settings of the summary, what was said)."""
        summary = self.folder / f"{name}.json"
        ended = launch.succeed(
            ranks, partition, f"--save={self.folder}/{name}", f"--summary={summary}", *arguments
        )
        settings = json.loads(summary.read_text())["settings"]
        settings = {k: v for k, v in settings.items() if k not in ("save", "summary")}
        return self.folder / name, settings, "\n".join(ended.out)

    def assert_same_files(self, one, other):
        names = sorted(path.name for path in one.iterdir())
        self.assertEqual(names, sorted(path.name for path in other.iterdir()))
        self.assertEqual(len(names), 4)
        _, differing, unread = filecmp.cmpfiles(one, other, names, shallow=False)
        self.assertEqual(differing + unread, [])

    def layers(self, name):
        summary = json.loads((self.folder / f"{name}.json").read_text())
        return [stage["layers"] for stage in summary["stages"]]

    def test_plan_out(self):
        """Three stages, which the file has no cut for: the planner's cut is written back."""
        plan = self.folder / "plan.yaml"
        first, _, said = self.train(3, self.partition, "planned", f"--plan-out={plan}")
        self.assertRegex(said, "planner")
        again, _, said = self.train(3, plan, "read")
        self.assertIn("cut as the file says", said)
        self.assertEqual(self.layers("planned"), self.layers("read"))
        self.assertEqual(sum(self.layers("read"), []), small_model.NAMES)
        self.assert_same_files(first, again)
        added = [line for line in plan.read_text().splitlines() if re.match(r" *3: \[", line)]
        self.assertEqual(len(added), 1)
        rest = [line for line in plan.read_text().splitlines() if line not in added]
        self.assertEqual(rest, self.partition.read_text().splitlines(), "the rest is as it was")

    def test_plan_out_without_cuts(self):
        """Also into a file that has no `cuts:` at all."""
        bare, plan = self.folder / "bare.yaml", self.folder / "bare-plan.yaml"
        bare.write_text(self.partition.read_text().replace(small_model.CUTS, ""))
        self.train(2, bare, "bare", f"--plan-out={plan}")
        _, _, said = self.train(2, plan, "bare-read")
        self.assertIn("cut as the file says", said)
        self.assertEqual(self.layers("bare"), self.layers("bare-read"))

    def test_plan_out_of_check(self):
        """Looking at a plan writes it too."""
        plan = self.folder / "checked.yaml"
        text = self.check(self.partition, 3, f"--plan-out={plan}")
        self.assertIn("planner", text)
        again = self.check(plan, 3)
        self.assertIn("cut as the file says", again)
        self.assertEqual(self.stages_of(text), self.stages_of(again))

    def test_plan_out_of_a_refused_run(self):
        """The plan may go into the partition file itself, which a refusal leaves as it was."""
        path = self.folder / "own.yaml"
        path.write_text(self.partition.read_text())
        ended = launch.run(1, path, f"--plan-out={path}", f"--log={self.folder}/absent/x")
        self.assertEqual(ended.status, 2, ended)
        self.assertEqual(path.read_text(), self.partition.read_text())

    # ---- options of the file ------------------------------------------------------------------

    OPTIONS = {
        "dataset": "idx",
        "data": None,  # a folder that is not known yet
        "batch": 12,
        "micro-batch": 4,
        "epochs": 2,
        "lr": 0.03,
        "lr-schedule": "milestones",
        "milestones": "1",
        "lr-factor": 0.5,
        "momentum": 0.8,
        "weight-decay": 0.001,
        "optimizer": "nesterov",
        "schedule": "1f1b",
        "clip": 0.7,
        "shuffle": "off",
        "flip": "on",
        "crop": 1,
        "seed": 9,
        "eval-every": 0,
        "backend": "ref",
        "blocking-sends": "on",
        "log-every": 3,
    }

    def test_train_section(self):
        """Options of the file are those of the command line."""
        options = {**self.OPTIONS, "data": self.folder / "data"}
        plain, full = self.folder / "plain.yaml", self.folder / "full.yaml"
        plain.write_text(small_model.LAYERS + small_model.CUTS)
        lines = "".join(f"  {name}: {value}\n" for name, value in options.items())
        full.write_text(plain.read_text() + "train:\n" + lines)
        flags = {"blocking-sends": "--blocking-sends"}
        given = [flags.get(name, f"--{name}={value}") for name, value in options.items()]
        one, settings_one, said_one = self.train(2, plain, "given", *given)
        other, settings_other, said_other = self.train(2, full, "written")
        self.assertEqual(settings_one, settings_other)
        self.assert_same_files(one, other)
        steps = [re.findall(r"step \d+/\d+ \| loss \S+", said) for said in (said_one, said_other)]
        self.assertEqual(*steps)
        self.assertGreater(len(steps[0]), 2)

    def test_command_line_wins(self):
        _, settings, _ = self.train(2, self.partition, "wins", "--epochs=1", "--batch=6")
        self.assertEqual((settings["epochs"], settings["batch"]), (1, 6))


if __name__ == "__main__":
    tap.main()
