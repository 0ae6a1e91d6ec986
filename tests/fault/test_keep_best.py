#!/usr/bin/env python3
"""The step with the best score on what is held out stays, whatever else goes."""

import json
import pathlib
import shutil

import checkpoints
import launch  # first: it finds the modules below
import tap

FRACTION = "0.2"
STEPS = 5  # of an epoch: 72 samples in batches of 16
EPOCHS = 8
# Too large a rate: scores go up and down, so that the best one is not the last.
RATES = ["--lr=0.4", "--lr-schedule=constant", f"--epochs={EPOCHS}", "--eval-every=1"]


def scores(directory):
    """{step: (accuracy, -loss)} as they were logged."""
    with open(f"{directory}.jsonl", encoding="utf-8") as file:
        records = [r for r in map(json.loads, file) if r["type"] == "validation"]
    return {r["step"]: (r["validation_accuracy"], -r["validation_loss"]) for r in records}


def best_of(found):
    """The first of those that are equally good."""
    return max(sorted(found), key=lambda step: found[step])


class KeepBest(checkpoints.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.straight = cls.folder / "straight"
        cls.train(1, cls.straight, "--keep=2")
        cls.scores = scores(cls.straight)
        cls.best = best_of(cls.scores)

    @classmethod
    def train(cls, ranks, directory, *arguments, expect=0, best=True):
        ended = launch.run(
            ranks,
            cls.partition,
            "--schedule=1f1b",
            f"--checkpoint={directory}",
            f"--log={directory}.jsonl",
            f"--summary={directory}.json",
            f"--validation={FRACTION}",
            *RATES,
            *(["--keep-best"] if best else []),
            *arguments,
        )
        if ended.status != expect:
            raise AssertionError(str(ended))
        return ended

    def fresh(self, name):
        path = super().fresh(name)
        pathlib.Path(f"{path}.jsonl").unlink(missing_ok=True)
        return path

    def test_that_the_model_shows_something(self):
        """The best step is neither among the newest nor the first, and scores differ."""
        self.assertIn(self.best, range(2 * STEPS, (EPOCHS - 2) * STEPS))
        self.assertGreater(len(set(self.scores.values())), 3)

    def test_best_and_newest_stay(self):
        self.assertEqual(checkpoints.latest(self.straight, "best"), self.best)
        last = EPOCHS * STEPS
        self.assertEqual(checkpoints.steps(self.straight), [self.best, last - STEPS, last])
        self.assertEqual(checkpoints.latest(self.straight), last)
        self.assertTrue(checkpoints.is_good(self.straight, self.best))

    def test_the_score_is_of_those_weights(self):
        """Whoever evaluates the files that stayed finds the score: on what is held out, by a run
        of no more steps."""
        step = checkpoints.step_folder(self.straight, self.best)
        log = self.folder / "again.jsonl"
        ended = launch.run(2, self.partition, f"--init={step}", "--lr=0", f"--log={log}",
                           f"--validation={FRACTION}", "--epochs=1", "--eval-every=1",
                           "--schedule=1f1b")
        self.assertEqual(ended.status, 0, ended)
        # Statistics of batch-norm move in training, so that scores are near, not equal.
        got = scores(self.folder / "again")[STEPS][0]
        self.assertAlmostEqual(got, self.scores[self.best][0], delta=0.25)

    def test_what_is_written(self):
        accuracy, loss = self.scores[self.best]
        wanted = {"step": self.best, "accuracy": accuracy, "loss": -loss}
        last = EPOCHS * STEPS
        self.assertEqual(checkpoints.manifest(self.straight, last)["best"], wanted)
        summary = json.loads(pathlib.Path(f"{self.straight}.json").read_text())
        self.assertEqual(summary["best_step"], self.best)

    def test_going_on(self):
        """From every step at which it may have been killed: the same best step in the end."""
        whole = self.fresh("whole")
        self.train(1, whole, "--keep=0")
        for step in range(STEPS, (EPOCHS + 1) * STEPS, STEPS):
            with self.subTest(step=step):
                again = checkpoints.cut_back(whole, step, self.fresh("again"))
                before = {s: v for s, v in self.scores.items() if s < step}
                if before:
                    (again / "best").write_text(checkpoints.NAME.format(best_of(before)) + "\n")
                ended = self.train(1 + step % 2, again, "--keep=2", f"--resume={again}")
                self.assertEqual(checkpoints.latest(again, "best"), self.best, ended)
                self.assertTrue(checkpoints.is_good(again, self.best))
                self.assertNotIn("best so far", "\n".join(ended.err))

    def test_named_before_it_was_killed(self):
        """The evaluation was over and `best` written, the next checkpoint not."""
        whole = self.fresh("whole")
        self.train(1, whole, "--keep=0")
        again = checkpoints.cut_back(whole, self.best, self.fresh("again"))
        (again / "best").write_text(checkpoints.NAME.format(self.best) + "\n")
        self.train(2, again, "--keep=1", f"--resume={again}")
        self.assertEqual(checkpoints.latest(again, "best"), self.best)

    def test_named_where_nobody_would_look_again(self):
        """It was the last epoch, and was evaluated for that; now it is one between two that are."""
        directory = self.fresh("ck")
        early = self.best // STEPS
        every = f"--eval-every={early - 1}"
        self.train(1, directory, "--keep=1", f"--epochs={early}", every)
        self.assertEqual(checkpoints.latest(directory, "best"), self.best)
        self.train(2, directory, "--keep=1", every, f"--resume={directory}")
        self.assertEqual(checkpoints.latest(directory, "best"), self.best)
        self.assertTrue(checkpoints.is_good(directory, self.best))

    def test_best_inside_an_epoch(self):
        """Where --steps ended the run before; what comes behind is worse."""
        directory = self.fresh("inside")
        self.train(1, directory, "--lr=0.05", f"--steps={STEPS + 3}")
        best = checkpoints.latest(directory, "best")
        self.assertEqual(best, STEPS + 3, scores(directory))
        for ranks in (1, 2):
            again = self.fresh(f"inside-{ranks}")
            shutil.copytree(directory, again)
            self.train(ranks, again, f"--resume={again}", "--lr=4", f"--steps={4 * STEPS}")
            steps = [best, *(n * STEPS for n in (2, 3, 4))]
            self.assertEqual(sorted(scores(again)), steps, "of that step again, too")
            self.assertEqual(best_of(scores(again)), best)
            self.assertEqual(checkpoints.latest(again, "best"), best)

    def test_steps_inside_epochs(self):
        """--every does not meet the epochs' ends: these have checkpoints of their own."""
        directory = self.fresh("ck")
        self.assertNotEqual(self.best % 7, 0)
        self.train(2, directory, "--every=7", "--keep=1")
        self.assertEqual(checkpoints.latest(directory, "best"), self.best)
        self.assertEqual(checkpoints.steps(directory), [self.best, EPOCHS * STEPS])

    def test_without_it_nothing_stays(self):
        directory = self.fresh("ck")
        self.train(1, directory, "--keep=2", best=False)
        self.assertEqual(len(checkpoints.steps(directory)), 2)
        self.assertIsNone(checkpoints.latest(directory, "best"))

    def test_a_launch_without_it_leaves_the_best(self):
        directory = self.fresh("ck")
        early = f"--epochs={self.best // STEPS}"
        self.train(1, directory, "--keep=1", early)
        self.assertEqual(checkpoints.latest(directory, "best"), self.best)
        self.train(1, directory, "--keep=1", f"--resume={directory}", best=False)
        self.assertEqual(checkpoints.latest(directory, "best"), self.best)
        self.assertTrue(checkpoints.is_good(directory, self.best))

    def test_a_best_step_that_is_broken(self):
        """It is said, and the best of the rest is kept."""
        directory = self.fresh("ck")
        shutil.copytree(self.straight, directory)
        with open(checkpoints.step_folder(directory, self.best) / "layer-000-conv1.safetensors",
                  "r+b") as file:
            file.write(b"!")
        ended = self.train(1, directory, "--keep=2", f"--resume={directory}")
        self.assertIn(f"step-{self.best:06}, the best so far, is passed over", "\n".join(ended.err))
        self.assertEqual(checkpoints.latest(directory, "best"), EPOCHS * STEPS)

    def test_another_directory(self):
        """The best one is not there, and cannot be kept."""
        directory = self.fresh("ck")
        ended = self.train(1, directory, f"--resume={self.straight}", f"--epochs={EPOCHS + 1}")
        self.assertIn("it is not in --checkpoint", "\n".join(ended.err))
        self.assertEqual(checkpoints.latest(directory, "best"), (EPOCHS + 1) * STEPS)
        self.assertEqual(checkpoints.latest(self.straight, "best"), self.best)

    def test_the_split_must_be_the_same(self):
        cases = {
            "--validation=0.3": "validation is 0.2 there and 0.3 here",
            "--seed=9": "seed is 1 there and 9 here",
            "--samples=85": "samples to learn is 72 there and 68 here",
        }
        for argument, words in cases.items():
            with self.subTest(argument):
                ended = self.train(1, self.straight, f"--resume={self.straight}", argument, expect=2)
                self.assertIn(words, "\n".join(ended.err))

    def test_bad_usage(self):
        checkpoint = f"--checkpoint={self.folder}/x"
        cases = {
            ("--keep-best",): "--keep-best goes with --checkpoint",
            ("--keep-best", checkpoint): "write --validation FRACTION",
            ("--keep-best", checkpoint, "--validation=0.2", "--eval-every=0"): "eval-every",
        }
        for arguments, words in cases.items():
            with self.subTest(arguments):
                ended = launch.run(1, self.partition, *arguments)
                self.assertEqual(ended.status, 2, ended)
                self.assertIn(words, "\n".join(ended.err))


if __name__ == "__main__":
    tap.main()
