#!/usr/bin/env python3
"""Synchronous schedules give the same bits at any number of stages.

gpipe, 1f1b and zb-h1 on one to four ranks, and interleaved with two to four chunks on each of two to
four, for several numbers of micro-batches a step, with clipping, dropout and augmentation on and a
short last batch: every saved file equals, byte for byte, that of one rank with the same number of
micro-batches.
"""

import filecmp
import math
import pathlib
import tempfile
import unittest

import numpy as np

import program
import safetensors_io
import tap

SAMPLES = 22  # three steps an epoch, the last one short
BATCH = 8
SETTINGS = {
    "batch": BATCH,
    "epochs": 2,
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "clip": 1.0,
    "crop": 1,
    "flip": "on",
    "shuffle": "on",
    "seed": 5,
    "eval_every": 0,
    "threads": 1,
}

# relu1 is used again in the third of four stages, and so is the model's input: both are passed on
# by a stage that has no use for them.
PARTITION = """name: crossed
input: {shape: [3, 10, 10], mean: [0.45], std: [0.25]}
layers:
  - {name: conv1, kind: conv2d, features: 8, kernel: 3, padding: 1, bias: off}
  - {name: bn1, kind: batch-norm}
  - {name: relu1, kind: relu}
  - {name: conv2, kind: conv2d, features: 8, kernel: 3, padding: 1}
  - {name: bn2, kind: batch-norm}
  - {name: relu2, kind: relu}
  - {name: drop1, kind: dropout, p: 0.25}
  - {name: conv3, kind: conv2d, features: 8, kernel: 3, padding: 1}
  - {name: sum, kind: add, inputs: [conv3, relu1]}
  - {name: relu3, kind: relu}
  - {name: cat, kind: concat, inputs: [relu3, relu1, input]}
  - {name: pool, kind: max-pool, kernel: 2, stride: 2}
  - {name: conv4, kind: conv2d, features: 12, kernel: 3}
  - {name: flat, kind: flatten}
  - {name: fc1, kind: linear, features: 20}
  - {name: relu4, kind: relu}
  - {name: drop2, kind: dropout, p: 0.5}
  - {name: fc2, kind: linear, features: 5}
loss: {kind: cross-entropy}
cuts:
  2: [conv3]
  3: [conv2, cat]
  4: [conv2, conv3, pool]
"""


class Bitwise(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        data = cls.folder / "data.safetensors"
        safetensors_io.write_images(data, SAMPLES, (3, 10, 10), classes=5, seed=3)
        (cls.folder / "crossed.yaml").write_text(PARTITION)
        without_dropout = PARTITION.replace("p: 0.25", "p: 0").replace("p: 0.5", "p: 0")
        (cls.folder / "undropped.yaml").write_text(without_dropout)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def train(self, ranks, partition="crossed", **options):
        """Trains, once for each set of arguments; returns (folder of saved weights, losses and
        norms): a norm that is added up in another order may scale gradients to the same bits."""
        words = [partition, str(ranks), *(f"{k}-{v}" for k, v in options.items())]
        saved = self.folder / "_".join(words)
        log = saved.with_suffix(".jsonl")
        if not saved.exists():
            settings = {**SETTINGS, "dataset": "arrays", "data": self.folder / "data.safetensors"}
            path = self.folder / f"{partition}.yaml"
            program.run(ranks, path, **{**settings, **options}, save=saved, log=log)
        return saved, program.losses(log) + program.of_steps(log, "norm")

    def assert_same_files(self, one, other):
        names = sorted(path.name for path in one.iterdir())
        self.assertEqual(names, sorted(path.name for path in other.iterdir()))
        self.assertTrue(any(name.endswith(".safetensors") for name in names), "nothing was saved")
        _, differing, unread = filecmp.cmpfiles(one, other, names, shallow=False)
        self.assertEqual(differing + unread, [], f"files of {one.name} and {other.name} differ")

    def compare_all(self, backend):
        for per_step in (1, 2, 3, 4):
            same = {"backend": backend, "micro_batch": math.ceil(BATCH / per_step)}
            one_rank, losses = self.train(1, schedule="gpipe", **same)
            for schedule in ("gpipe", "1f1b", "zb-h1"):
                for ranks in (1, 2, 3, 4):
                    if (ranks, schedule) == (1, "gpipe"):
                        continue
                    with self.subTest(backend, M=per_step, schedule=schedule, ranks=ranks):
                        saved, own_losses = self.train(ranks, schedule=schedule, **same)
                        self.assert_same_files(one_rank, saved)
                        self.assertEqual(losses, own_losses)

    def compare_interleaved(self, backend):
        """The last step of an epoch has three quarters of the others' samples: of four micro-batches
        three are left, and of eight six, so that the last group is not full on four ranks."""
        cases = ((2, 2, 2), (2, 3, 2), (2, 4, 4), (3, 2, 3), (3, 3, 3), (4, 2, 4), (4, 3, 4),
                 (2, 2, 8), (4, 2, 8))
        for ranks, chunks, per_step in cases:
            with self.subTest(backend, ranks=ranks, chunks=chunks, M=per_step):
                same = {"backend": backend, "micro_batch": math.ceil(BATCH / per_step)}
                one_rank, losses = self.train(1, schedule="gpipe", **same)
                saved, own_losses = self.train(ranks, schedule="interleaved", chunks=chunks, **same)
                self.assert_same_files(one_rank, saved)
                self.assertEqual(losses, own_losses)

    def test_interleaved_ref(self):
        self.compare_interleaved("ref")

    def test_interleaved_onednn(self):
        self.compare_interleaved("onednn")

    def test_ref(self):
        self.compare_all("ref")

    def test_onednn(self):
        self.compare_all("onednn")

    def test_that_what_is_on_matters(self):
        """Clipping, augmentation and dropout change the result: the equality above is not that of
        runs in which they did nothing."""
        same = {"backend": "ref", "micro_batch": 4, "schedule": "gpipe"}
        saved, _ = self.train(1, **same)
        with_all = safetensors_io.read_folder(saved)
        variants = ({"clip": 0}, {"crop": 0}, {"flip": "off"}, {"shuffle": "off"}, {"seed": 6})
        for change in variants:
            with self.subTest(**change):
                other, _ = self.train(1, **{**same, **change})
                self.assert_differs(with_all, safetensors_io.read_folder(other))
        with self.subTest(dropout="off"):
            other, _ = self.train(1, "undropped", **same)
            self.assert_differs(with_all, safetensors_io.read_folder(other))

    def assert_differs(self, one, other):
        self.assertEqual(list(one), list(other))
        self.assertTrue(any(not np.array_equal(one[name], other[name]) for name in one))


if __name__ == "__main__":
    tap.main()
