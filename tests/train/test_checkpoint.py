#!/usr/bin/env python3
"""What a checkpoint means outside this program: where it drains a pipeline, and what PyTorch reads.

A drain is compared with the independent simulation of asynchrony, which knows them at the end of
epochs: data that consists of two equal halves, learnt in their order, with a checkpoint between
the halves, is two epochs of one half.
"""

import json
import pathlib
import tempfile
import unittest

import numpy as np

import async_reference
import program
import safetensors_io
import tap
import test_async

try:
    import torch
except ImportError:
    torch = None

HALF = 36  # samples of one half: whole steps, so that the other half has the same
ACCURACY_DIGITS = 9  # a share of a few samples, written with nine digits
LOSS = 1e-5  # of a mean of float32 numbers around 2, summed in another order
SAMPLES, TEST_SAMPLES = 160, 97


class Drained(test_async.Comparing):
    """The reference is given epochs of one half; the program epochs of two, and checkpoints."""

    @staticmethod
    def half(stages):
        x, t, weights = test_async.problem(stages)
        return x[:HALF], t[:HALF], weights

    def train_halves(self, stages, options, steps):
        x, t, weights = self.half(stages)
        names = test_async.layer_names(stages)
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            column = {"x": [*x, *x], "y": [*t, *t]}
            safetensors_io.write(
                folder / "data.safetensors",
                {k: np.array(v, np.float32).reshape(-1, 1) for k, v in column.items()},
            )
            flat = dict(zip(sum(names, []), sum(weights, [])))
            safetensors_io.write(
                folder / "init.safetensors",
                {f"{k}.weight": np.array([[v]], np.float32) for k, v in flat.items()},
            )
            (folder / "scalar.yaml").write_text(test_async.partition(stages, folder, options))
            program.run(
                stages,
                folder / "scalar.yaml",
                init=folder / "init.safetensors",
                checkpoint=folder / "ck",
                every=HALF // options.batch,
                steps=steps,
                log=folder / "log.jsonl",
            )
            kept = safetensors_io.read_folder(folder / "ck" / f"step-{steps:06}")
            return program.losses(folder / "log.jsonl"), [
                [float(kept[f"{name}.weight"].reshape(())) for name in own] for own in names
            ]

    def test_drains_as_at_an_epoch(self):
        for predict, stash, micro_batch in (
            ("none", False, 4),
            ("msnag", False, 2),
            ("msnag", True, 4),
        ):
            options = async_reference.Options(
                batch=4, micro_batch=micro_batch, predict=predict, stash=stash
            )
            steps = 4 * (HALF // options.batch)
            with self.subTest(predict=predict, stash=stash, micro_batch=micro_batch):
                expected, history = async_reference.simulate(*self.half(3), steps, options)
                losses, weights = self.train_halves(3, options, steps)
                self.assertEqual(len(losses), steps)
                for step, (loss, want) in enumerate(zip(losses, expected)):
                    self.assertAlmostEqual(loss, want, delta=test_async.TOLERANCE, msg=f"{step}")
                for own, want in zip(weights, history[-1]):
                    np.testing.assert_allclose(own, want, rtol=0, atol=test_async.TOLERANCE)


PARTITION = """name: both
input: {shape: [1, 8, 8], mean: [0.5], std: [0.25]}
layers:
  - {name: conv1, kind: conv2d, features: 4, kernel: 3, padding: 1, bias: off}
  - {name: bn1, kind: batch-norm}
  - {name: relu1, kind: relu}
  - {name: pool, kind: max-pool, kernel: 2}
  - {name: flat, kind: flatten}
  - {name: fc, kind: linear, features: 5}
loss: {kind: cross-entropy}
"""


@unittest.skipUnless(torch, "no PyTorch here (python3-torch)")
class PyTorch(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        data = cls.folder / "data"
        data.mkdir()
        for split, count, seed in (("train", SAMPLES, 3), ("test", TEST_SAMPLES, 4)):
            path = data / f"{split}.safetensors"
            safetensors_io.write_images(path, count, (1, 8, 8), classes=5, seed=seed)
        cls.partition = cls.folder / "both.yaml"
        cls.partition.write_text(PARTITION)
        cls.options = {
            "dataset": "arrays",
            "data": data,
            "batch": 16,
            "schedule": "1f1b",
            "backend": "ref",
            "shuffle": "off",
        }

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    @staticmethod
    def module():
        """The same network."""
        return torch.nn.ModuleDict(
            {
                "conv1": torch.nn.Conv2d(1, 4, 3, padding=1, bias=False),
                "bn1": torch.nn.BatchNorm2d(4),
                "fc": torch.nn.Linear(64, 5),
            }
        )

    @staticmethod
    def forward(module, images):
        x = (images / 255 - 0.5) / 0.25
        x = torch.relu(module["bn1"](module["conv1"](x)))
        return module["fc"](torch.flatten(torch.max_pool2d(x, 2), 1))

    def judge(self, module, split):
        """(accuracy, mean loss) of evaluation."""
        found, _ = safetensors_io.read(self.options["data"] / f"{split}.safetensors")
        images = torch.from_numpy(found["x"].astype(np.float32))
        labels = torch.from_numpy(found["y"].copy())
        module.eval()
        with torch.no_grad():
            y = self.forward(module, images)
            right = int((y.argmax(1) == labels).sum())
            return right / len(labels), float(torch.nn.functional.cross_entropy(y, labels))

    def test_reads_a_checkpoint(self):
        summary = self.folder / "summary.json"
        program.run(
            2,
            self.partition,
            **self.options,
            epochs=3,
            checkpoint=self.folder / "ck",
            summary=summary,
        )
        kept = safetensors_io.read_folder(self.folder / "ck" / "step-000030")
        module = self.module()
        state = {k: torch.from_numpy(v.copy()) for k, v in kept.items() if "#" not in k}
        missing, unexpected = module.load_state_dict(state, strict=False)
        self.assertLessEqual(set(missing), {"bn1.num_batches_tracked"})  # by version of PyTorch
        self.assertEqual(unexpected, [])
        accuracy, loss = self.judge(module, "test")
        said = json.loads(summary.read_text())
        self.assertAlmostEqual(accuracy, said["test_accuracy"], ACCURACY_DIGITS)
        self.assertAlmostEqual(loss, said["test_loss"], delta=LOSS)

    def test_the_optimizers_state_is_pytorchs(self):
        """By its names, with a value for each weight."""
        program.run(
            1, self.partition, **self.options, steps=1, lr=0, checkpoint=self.folder / "one"
        )
        kept = safetensors_io.read_folder(self.folder / "one" / "step-000001")
        momentum = {k: v for k, v in kept.items() if "#" in k}
        self.assertEqual(
            sorted(momentum),
            sorted(
                f"{name}#momentum_buffer"
                for name in ("bn1.bias", "bn1.weight", "conv1.weight", "fc.bias", "fc.weight")
            ),
        )
        self.assertTrue(all(np.abs(value).max() > 0 for value in momentum.values()))

    def test_trains_what_pytorch_saved(self):
        torch.manual_seed(5)
        module = self.module()
        with torch.no_grad():
            module["bn1"].running_mean += 0.1
        state = {k: v.numpy() for k, v in module.state_dict().items() if v.ndim > 0}
        safetensors_io.write(self.folder / "torch.safetensors", state)
        init = {"init": self.folder / "torch.safetensors"}
        summary = self.folder / "init.json"
        program.run(2, self.partition, **self.options, **init, steps=40, summary=summary)
        trained = json.loads(summary.read_text())
        program.run(
            2, self.partition, **self.options, **init, steps=1, lr=0, log=self.folder / "log.jsonl"
        )
        accuracy, loss = self.judge(module, "test")
        self.assertLess(trained["train_loss"], loss)
        module.train()
        found, _ = safetensors_io.read(self.options["data"] / "train.safetensors")
        images = torch.from_numpy(found["x"].astype(np.float32))
        labels = torch.from_numpy(found["y"].copy())
        first = slice(self.options["batch"])
        with torch.no_grad():
            y = self.forward(module, images[first])
            want = float(torch.nn.functional.cross_entropy(y, labels[first]))
        self.assertAlmostEqual(program.losses(self.folder / "log.jsonl")[0], want, delta=LOSS)


if __name__ == "__main__":
    tap.main()
