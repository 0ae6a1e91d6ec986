#!/usr/bin/env python3
"""A run that goes on from a checkpoint ends with the bits of the run that was never interrupted.

Compared are all files of the last step: weights, statistics, the optimizer's state and what the
rules for late weights remember, and the losses on the way.
"""

import json
import pathlib

import checkpoints
import launch  # first: it finds the modules below
import small_model
import tap

SYNC = ["--schedule=1f1b"]
INSIDE, LATER, AT_AN_END = 4, 8, 12  # steps with a checkpoint, 12 after two whole epochs
RANKS = (1, 2, 3, 4)

OPTIMIZERS = {
    "sgd": ["--lr=0.05", "--clip=1"],
    "nesterov": ["--lr=0.02", "--weight-decay=0.01"],
    "adam": ["--lr=0.003", "--weight-decay=0.01"],
    "adamw": ["--lr=0.003", "--weight-decay=0.1"],
    "nadam-async": ["--lr=0.003"],
}

# Rules for late weights; what each remembers from step to step must be kept.
RULES = {
    "msnag": [],
    "stash": ["--predict=none", "--stash"],
    "aggmsnag": ["--predict=aggmsnag"],
    "spectrain": ["--predict=spectrain"],
    "adamw msnag": ["--optimizer=adamw", "--lr=0.003"],
    "2bw": ["--2bw", "--micro-batch=4"],
    "gap-aware": ["--gap-aware", "--predict=none"],
    "pipemare": ["--pipemare-dc=0.135", "--pipemare-lr=2", "--predict=none"],
    "sync epochs": ["--sync-epochs=1", "--pipemare-dc=0.135", "--predict=none"],
    "nesterov last": ["--nesterov-last"],
    "in flight": ["--in-flight=1"],
}


class Case(checkpoints.Case):
    def train(self, ranks, directory, *arguments, **how):
        return checkpoints.train(
            ranks, self.partition, directory, f"--log={directory}.jsonl", *arguments, **how
        )

    def losses(self, directory):
        return launch.program.losses(f"{directory}.jsonl")


class Exact(Case):
    def compare(self, straight, step, ranks, *arguments):
        """`straight` is a directory of the whole run; goes on from one of its steps."""
        again = checkpoints.cut_back(straight, step, self.fresh("again"))
        pathlib.Path(f"{again}.jsonl").unlink(missing_ok=True)
        ended = self.train(ranks, again, f"--resume={again}", *arguments)
        self.assertIn(f"from step {step} of {checkpoints.STEPS}", "\n".join(ended.out))
        self.assertEqual(self.losses(again), self.losses(straight)[step:])
        self.assertEqual(checkpoints.steps(again), checkpoints.steps(straight))
        for one in (checkpoints.EVERY * 3, checkpoints.STEPS):
            got, want = (checkpoints.bytes_of(d, one) for d in (again, straight))
            self.assertEqual(list(got), list(want))
            for name in want:
                self.assertTrue(got[name] == want[name], f"step {one}: {name} differs")
        return again

    def test_any_ranks(self):
        """Synchronous: from any number of ranks to any other, and as without checkpoints."""
        plain = [f"--save={self.folder}/plain", f"--log={self.folder}/plain.jsonl"]
        launch.succeed(1, self.partition, *SYNC, *plain)
        for ranks in RANKS:
            straight = self.fresh(f"straight-{ranks}")
            self.train(ranks, straight, *SYNC)
            self.assertEqual(self.losses(straight), self.losses(self.folder / "plain"))
            for onward in RANKS:
                step = (INSIDE, LATER, AT_AN_END)[(ranks + onward) % 3]
                with self.subTest(ranks=ranks, onward=onward, step=step):
                    self.compare(straight, step, onward, *SYNC)
        saved = checkpoints.safetensors_io.read_folder(self.folder / "plain")
        kept = checkpoints.tensors(straight, checkpoints.STEPS)
        for name, value in saved.items():
            self.assertEqual(value.tobytes(), kept[name].tobytes(), name)

    def test_other_schedules(self):
        """A checkpoint says nothing of who trained how."""
        straight = self.fresh("straight")
        self.train(2, straight, "--schedule=zb-h1")
        for schedule in ("gpipe", "interleaved"):
            with self.subTest(schedule):
                self.compare(straight, LATER, 2, f"--schedule={schedule}")

    def test_optimizers(self):
        for number, (name, options) in enumerate(OPTIMIZERS.items()):
            ranks = RANKS[number % 4]
            options = [f"--optimizer={name}", *options, *SYNC]
            straight = self.fresh("straight")
            self.train(ranks, straight, *options)
            with self.subTest(name):
                self.compare(straight, (INSIDE, LATER)[number % 2], 5 - ranks, *options)
                memory = [n for n in checkpoints.tensors(straight, INSIDE) if "#" in n]
                self.assertEqual(len(memory), 7 * (1 if name in ("sgd", "nesterov") else 2))

    def test_rules_for_late_weights(self):
        for number, (name, options) in enumerate(RULES.items()):
            ranks = 2 + number % 2
            straight = self.fresh("straight")
            self.train(ranks, straight, *options)
            with self.subTest(name, ranks=ranks):
                self.compare(straight, (INSIDE, LATER, AT_AN_END)[number % 3], ranks, *options)

    def test_that_draining_counts(self):
        """Asynchronous runs are others with checkpoints than without: so --every must be kept."""
        straight = self.fresh("straight")
        self.train(2, straight)
        launch.succeed(2, self.partition, f"--log={self.folder}/plain.jsonl")
        self.assertNotEqual(self.losses(straight), self.losses(self.folder / "plain"))

    def test_epochs_are_evaluated_again(self):
        """What was killed behind the last step of an epoch has not been evaluated."""
        straight = self.fresh("straight")
        options = [*SYNC, "--eval-every=1"]
        self.train(2, straight, *options)
        for step, epochs in ((AT_AN_END, [1, 2]), (checkpoints.STEPS, [2]), (LATER, [1, 2])):
            with self.subTest(step=step):
                again = self.compare(straight, step, 1, *options)
                evaluations, whole = (
                    [r for r in map(json.loads, open(f"{d}.jsonl")) if r["type"] == "eval"]
                    for d in (again, straight)
                )
                self.assertEqual([r["epoch"] for r in evaluations], epochs)
                for key in ("test_loss", "test_accuracy"):
                    self.assertEqual(evaluations[-1][key], whole[-1][key])
                ends = [json.loads(open(f"{d}.jsonl").readlines()[-1]) for d in (again, straight)]
                self.assertEqual(ends[0]["train_loss"], ends[1]["train_loss"])


class Going(Case):
    """One command line starts and restarts; directories are kept in order."""

    def test_one_command_line(self):
        directory = self.fresh("ck")
        command = [f"--resume={directory}", "--keep=2", *SYNC]
        first = self.train(1, directory, *command)
        self.assertIn("starts from the beginning", "\n".join(first.err + first.out))
        self.assertEqual(checkpoints.steps(directory), [16, 18])
        self.assertEqual(checkpoints.latest(directory), checkpoints.STEPS)
        again = self.train(2, directory, *command)
        self.assertIn("from step 18 of 18", "\n".join(again.out))
        self.assertEqual((directory / "launch").read_text(), "2\n")
        self.assertEqual(checkpoints.manifest(directory, 18)["launch"], 1)
        self.train(2, directory, *command, "--epochs=4")
        self.assertEqual(checkpoints.steps(directory), [20, 24])
        self.assertEqual(checkpoints.manifest(directory, 24)["launch"], 3)
        launches = [
            r["launch"] for r in map(json.loads, open(f"{directory}.jsonl")) if r["type"] == "run"
        ]
        self.assertEqual(launches, [1, 2, 3], "the log goes on, too")

    def test_every(self):
        """Seconds, and epochs by default."""
        directory = self.fresh("ck")
        self.train(2, directory, "--every=0.000001s")
        self.assertEqual(checkpoints.steps(directory)[-17:], list(range(2, checkpoints.STEPS + 1)))
        directory = self.fresh("ck")
        self.train(2, directory, "--every=1000s")
        self.assertEqual(checkpoints.steps(directory), [checkpoints.STEPS])
        directory = self.fresh("ck")
        ended = launch.run(2, self.partition, f"--checkpoint={directory}")
        self.assertEqual(ended.status, 0, ended)
        self.assertEqual(checkpoints.steps(directory), [6, 12, 18])

    def test_manifest(self):
        directory = self.fresh("ck")
        self.train(2, directory, *SYNC)
        for step, epoch, within in ((4, 0, 4), (12, 2, 0), (16, 2, 4)):
            found = checkpoints.manifest(directory, step)
            self.assertEqual(
                [found[key] for key in ("step", "epoch", "epoch_step", "ranks", "cuts")],
                [step, epoch, within, 2, ["conv1", "conv2"]],
            )
            self.assertTrue(checkpoints.is_good(directory, step))
        shapes = {k: v.shape for k, v in checkpoints.tensors(directory, 4).items() if "#" not in k}
        self.assertEqual(shapes, small_model.SHAPES)

    def test_refused(self):
        """Both sides are named, and nothing is started."""
        directory = self.fresh("ck")
        self.train(1, directory, *SYNC)
        other = self.folder / "other.yaml"
        text = self.partition.read_text()
        models = {
            "kind: linear, features: 3": ("kind: linear, features: 4", "fc.weight is [3,64] there"),
            "name: relu2, kind: relu": ("name: relu2, kind: gelu", "relu2"),
            "name: fc, kind": ("name: head, kind", "head.weight"),
        }
        cases = [
            (["--optimizer=adam"], r'optimizer is "sgd" there and "adam" here'),
            (["--batch=32"], "batch is 16 there and 32 here"),
            (["--seed=9"], "seed is 1 there and 9 here"),
            (["--samples=80"], "samples to learn is 90 there and 80 here"),
            (["--shuffle=off"], "shuffle is true there and false here"),
            (["--epochs=2"], "stands at step 18, and this run ends at 12"),
        ]
        for arguments, words in cases:
            with self.subTest(arguments):
                ended = launch.run(2, self.partition, f"--resume={directory}", *arguments)
                self.assertEqual(ended.status, 2, ended)
                self.assertIn(words, "\n".join(ended.err))
        for old, (new, words) in models.items():
            with self.subTest(new):
                self.assertIn(old, text)
                other.write_text(text.replace(old, new))
                ended = launch.run(1, other, f"--resume={directory}", *SYNC)
                self.assertEqual(ended.status, 2, ended)
                self.assertIn(words, "\n".join(ended.err))
                self.assertIn("there and", "\n".join(ended.err))

    def test_rules_must_have_been_kept(self):
        directory = self.fresh("ck")
        self.train(2, directory, "--predict=none")
        ended = launch.run(
            2, self.partition, f"--resume={directory}", "--predict=none", "--pipemare-dc=0.1"
        )
        self.assertEqual(ended.status, 2, ended)
        self.assertIn("#drift", "\n".join(ended.err))

    def test_what_may_change_is_said(self):
        directory = self.fresh("ck")
        self.train(1, directory, *SYNC)
        ended = launch.run(
            2, self.partition, f"--resume={directory}", *SYNC, "--epochs=4", "--lr=0.01"
        )
        self.assertEqual(ended.status, 0, ended)
        self.assertIn("--lr 0.01 (it was 0.05)", "\n".join(ended.err))
        self.assertNotIn("epochs", "\n".join(ended.err))

    def test_rates_of_another_length_are_said(self):
        """The model's plan, cosine, is stretched over the run; others are not."""
        said = "goes on with --lr-schedule cosine over 24 steps (it was 18)"
        for plan, words in (("cosine", [said]), ("constant", [])):
            directory = self.fresh("ck")
            arguments = [*SYNC, f"--lr-schedule={plan}"]
            self.train(1, directory, *arguments)
            self.assertEqual(checkpoints.manifest(directory, 18)["total_steps"], 18)
            for length, found in (("--epochs=4", words), ("--steps=24", words), ("--steps=18", [])):
                with self.subTest(plan, length=length):
                    again = [f"--resume={directory}", *arguments, length]
                    ended = launch.run(1, self.partition, *again)
                    self.assertEqual(ended.status, 0, ended)
                    self.assertEqual([w for w in [said] if w in "\n".join(ended.err)], found)
                    self.assertEqual(len(ended.err), len(found), ended)

    def test_another_run_is_not_written_over(self):
        directory = self.fresh("ck")
        self.train(1, directory, *SYNC)
        before = checkpoints.bytes_of(directory, 18)
        ended = self.train(1, directory, *SYNC, expect=2)
        self.assertIn("--resume", "\n".join(ended.err))
        self.assertEqual(checkpoints.bytes_of(directory, 18), before)

    def test_bad_usage(self):
        cases = {
            ("--every=5",): "--every goes with --checkpoint",
            ("--keep=5",): "--keep goes with --checkpoint",
            (f"--checkpoint={self.folder}/x", "--every=0"): 'every "0"',
            (f"--checkpoint={self.folder}/x", "--every=1.5"): 'every "1.5"',
            (f"--checkpoint={self.folder}/x", "--every=5m"): 'every "5m"',
            (f"--checkpoint={self.partition}/x",): "cannot make the directory",
            (f"--checkpoint={self.folder}/x", "--infer=test"): "--checkpoint goes with training",
            ("--resume=x", "--check"): "--resume goes with training",
        }
        for arguments, words in cases.items():
            with self.subTest(arguments):
                ended = launch.run(1, self.partition, *arguments)
                self.assertEqual(ended.status, 2, ended)
                self.assertIn(words, "\n".join(ended.err))

    def test_init_from_a_checkpoint(self):
        """Its weights alone, as any folder of safetensors."""
        directory = self.fresh("ck")
        self.train(1, directory, *SYNC)
        step = checkpoints.step_folder(directory, 18)
        launch.succeed(
            2, self.partition, f"--init={step}", "--lr=0", f"--save={self.folder}/tuned", *SYNC
        )
        tuned = checkpoints.safetensors_io.read_folder(self.folder / "tuned")
        kept = checkpoints.tensors(directory, 18)
        for name in ("conv1.weight", "fc.bias"):
            self.assertEqual(tuned[name].tobytes(), kept[name].tobytes())


if __name__ == "__main__":
    tap.main()
