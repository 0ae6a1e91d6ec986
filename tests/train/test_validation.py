#!/usr/bin/env python3
"""Samples that are held out: who learns without them learns as if they were not there.

Which ones they are is read off the losses of a run that learns one sample a step; then both parts
are written as data sets of their own, and a run on these has the same bits.
"""

import json
import pathlib
import sys
import tempfile
import unittest

import numpy as np

import program
import safetensors_io
import tap

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "fault"))
import launch  # noqa: E402

COUNT, HELD, INPUTS, CLASSES = 50, 13, 6, 3
FRACTION = "0.26"

MODEL = """name: split
input: {{shape: [{inputs}]}}
layers:
  - {{name: first, kind: linear, features: 7}}
  - {{name: relu, kind: relu}}
  - {{name: last, kind: linear, features: {outputs}}}
loss: {{kind: {loss}}}
train: {{dataset: arrays, batch: 8, micro-batch: 4, epochs: 3, schedule: 1f1b, lr: 0.1}}
"""


def records(log, kind):
    with open(log, encoding="utf-8") as file:
        return [r for r in map(json.loads, file) if r["type"] == kind]


class Validation(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        numbers = np.random.default_rng(3)
        cls.x = numbers.normal(size=(COUNT, INPUTS)).astype(np.float32)
        cls.y = (cls.x[:, 0] > 0).astype(np.int64) + (cls.x[:, 1] > 0.5)
        cls.partition = cls.write_model("classes", "cross-entropy", CLASSES)
        cls.whole = cls.write("whole", range(COUNT), [0, 1, 2])
        cls.learned = cls.find_learned()
        cls.held = [i for i in range(COUNT) if i not in cls.learned]
        cls.straight = cls.train("straight", 1, cls.whole)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    @classmethod
    def write_model(cls, name, loss, outputs):
        path = cls.folder / f"{name}.yaml"
        path.write_text(MODEL.format(inputs=INPUTS, outputs=outputs, loss=loss))
        return path

    @classmethod
    def write(cls, name, train, test, y=None):
        """A data set of these samples to learn, and those to test."""
        folder = cls.folder / name
        folder.mkdir(exist_ok=True)
        y = cls.y if y is None else y
        for part, samples in (("train", train), ("test", test)):
            chosen = {"x": cls.x[list(samples)], "y": y[list(samples)]}
            safetensors_io.write(folder / f"{part}.safetensors", chosen)
        return folder

    @classmethod
    def train(cls, name, ranks, data, *arguments, fraction=FRACTION, partition=None):
        log = cls.folder / f"{name}.jsonl"
        options = [f"--validation={fraction}"] if fraction else []
        launch.succeed(ranks, partition or cls.partition, f"--data={data}", f"--log={log}",
                       f"--summary={cls.folder}/{name}.json", *options, *arguments)
        return log

    @classmethod
    def find_learned(cls):
        """Sample i wants the answer i, and weights stay zero: the loss of each step is i²."""
        targets = np.arange(COUNT, dtype=np.float32)[:, None]
        model = cls.write_model("who", "mse", 1)
        zeros = cls.folder / "zeros.safetensors"
        shapes = {"first.weight": (7, INPUTS), "first.bias": 7, "last.weight": (1, 7), "last.bias": 1}
        safetensors_io.write(zeros, {k: np.zeros(s, np.float32) for k, s in shapes.items()})
        data = cls.write("who", range(COUNT), [0], targets)
        log = cls.train("who", 1, data, "--shuffle=off", "--batch=1", "--micro-batch=1", "--lr=0",
                        "--epochs=1", f"--init={zeros}", partition=model)
        roots = np.sqrt(program.losses(log))
        found = np.rint(roots).astype(int)
        if not np.allclose(found, roots, atol=1e-3):
            raise AssertionError(f"these are no numbers of samples: {roots}")
        return found.tolist()

    def scores(self, log, kind="validation", prefix="validation"):
        return [(r[f"{prefix}_loss"], r[f"{prefix}_accuracy"]) for r in records(log, kind)]

    def test_parts(self):
        self.assertEqual(len(self.learned), COUNT - HELD)
        self.assertEqual(self.learned, sorted(set(self.learned)))

    def test_as_if_they_were_not_there(self):
        """Learning has the bits of a run on the rest, and validation those of a test on the part."""
        parts = self.write("parts", self.learned, self.held)
        other = self.train("other", 1, parts, fraction=None)
        self.assertEqual(program.losses(self.straight), program.losses(other))
        self.assertEqual(self.scores(self.straight), self.scores(other, "eval", "test"))
        self.assertEqual(len(self.scores(self.straight)), 3)

    def test_the_test_set_comes_last(self):
        tests = records(self.straight, "eval")
        self.assertEqual([r["epoch"] for r in tests], [2])
        parts = self.write("whole-rest", self.learned, [0, 1, 2])
        other = self.train("other-test", 1, parts, fraction=None)
        self.assertEqual(self.scores(self.straight, "eval", "test"),
                         self.scores(other, "eval", "test")[-1:])

    def test_ranks_and_schedules(self):
        for name, ranks, options in (("two", 2, []), ("three", 3, ["--schedule=zb-h1"]),
                                     ("chunks", 1, ["--schedule=gpipe"])):
            with self.subTest(name):
                log = self.train(name, ranks, self.whole, *options)
                self.assertEqual(program.losses(log), program.losses(self.straight))
                self.assertEqual(self.scores(log), self.scores(self.straight))
        log = self.train("async", 3, self.whole, "--schedule=async")
        samples = sum(r["samples"] for r in records(log, "step"))
        self.assertEqual(samples, 3 * (COUNT - HELD))

    def test_seeds_differ(self):
        log = self.train("seed", 1, self.whole, "--seed=2", "--lr=0")
        again = self.train("seed-again", 1, self.whole, "--seed=1", "--lr=0", "--eval-every=3")
        self.assertNotEqual(self.scores(log)[-1], self.scores(again)[-1])
        self.assertEqual(len(self.scores(again)), 1)

    def test_what_is_said(self):
        summary = json.loads((self.folder / "straight.json").read_text())
        found = self.scores(self.straight)
        self.assertEqual((summary["validation_loss"], summary["validation_accuracy"]), found[-1])
        self.assertEqual(summary["best_validation_accuracy"], max(a for _, a in found))
        ended = launch.succeed(1, self.partition, f"--data={self.whole}", "--validation=0.26")
        said = "\n".join(ended.out)
        self.assertIn("37 samples to learn, 13 to validate, 3 to test", said)
        self.assertRegex(said, r"epoch 1/3 \| .* \| validation accuracy")
        self.assertNotRegex(said, r"epoch [12]/3 \| .*test")
        self.assertRegex(said, r"(?m)^done: .*\| test accuracy [\d.]+% \| validation accuracy "
                               r"[\d.]+% \(best [\d.]+%\)$")

    def test_refused(self):
        for arguments, words in (
            (["--validation=0.001"], "write a larger fraction"),
            (["--validation=1"], "--validation"),
            (["--validation=0.2", "--eval-every=0"], "--eval-every 1 or more"),
            (["--validation=0.2", "--infer=test", "--weights=x", "--out=y"], "goes with training"),
        ):
            with self.subTest(arguments):
                ended = launch.run(1, self.partition, f"--data={self.whole}", *arguments)
                self.assertEqual(ended.status, 2, ended)
                self.assertIn(words, "\n".join(ended.err))


if __name__ == "__main__":
    tap.main()
