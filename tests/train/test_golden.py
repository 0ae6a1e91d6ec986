#!/usr/bin/env python3
"""Ten steps of LeNet-5 and WRN-10-1 equal PyTorch's: losses, weights and running statistics.

The expected values, and the script that made them, are in tests/train/golden.
"""

import dataclasses
import pathlib
import tempfile
import unittest

import numpy as np

import program
import safetensors_io
import tap

GOLDEN = program.ROOT / "tests" / "train" / "golden"


@dataclasses.dataclass
class Tolerance:
    """How far a run may be from PyTorch's. Both compute in float32 and sum in another order;
    make_golden.py prints how far PyTorch itself is from its own result in double precision."""

    first_losses: float  # absolute, of the first three steps
    losses: float  # absolute, of all steps
    tensors: float  # of each tensor: norm of the difference by norm of the way from its start


# PyTorch against itself: 2e-7, 5e-7 and 4e-6. Without weight decay the tensors are off by 6e-2, and
# by 3e-2 at a rate that is wrong by 0.2 %.
LENET5 = Tolerance(first_losses=5e-6, losses=1e-5, tensors=2e-4)
# PyTorch against itself: 2e-7, 5e-5 and 1e-2 (the kinks of ReLU; see make_golden.py). Without
# weight decay the tensors are off by 5e-1, and by 8e-2 at a rate that is wrong by 5 %.
WRN_10_1 = Tolerance(first_losses=1e-5, losses=5e-4, tensors=5e-2)
# Running statistics forget a tenth in each step and hardly feel the kinks. PyTorch against itself:
# 2e-4. That the variance is the unbiased one is below this: tests of the op prove that.
STATISTICS = 1e-3


class Golden(unittest.TestCase):
    def compare(self, name, tolerance, ranks, variant="final", **options):
        golden, settings = safetensors_io.read(GOLDEN / f"{name}.safetensors")
        initial = self.part(golden, "init")
        expected = self.part(golden, variant)
        losses = golden["losses" if variant == "final" else f"{variant}-losses"]
        got_losses, got = self.train(name, initial, ranks, settings, options)

        self.assertEqual(len(got_losses), len(losses))
        strays = np.abs(np.array(got_losses) - losses)
        self.assertLess(strays[:3].max(), tolerance.first_losses, f"losses {got_losses[:3]}")
        self.assertLess(strays.max(), tolerance.losses, f"losses {got_losses}")
        self.assertEqual(sorted(got), sorted(expected))
        for key, value in expected.items():
            self.assertEqual(got[key].shape, value.shape, key)
            limit = STATISTICS if "running_" in key else tolerance.tensors
            stray = np.linalg.norm(got[key] - value) / np.linalg.norm(value - initial[key])
            self.assertLess(stray, limit, key)

    @staticmethod
    def part(tensors, prefix):
        prefix += "."
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    @staticmethod
    def train(name, initial, ranks, settings, options):
        given = {key.replace("-", "_"): value for key, value in settings.items()}
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            safetensors_io.write(folder / "init.safetensors", initial)
            everything = {
                **given,
                "micro_batch": given["batch"],
                "optimizer": "sgd",
                "lr_schedule": "constant",
                "warmup": 0,
                "clip": 0,
                "crop": 0,
                "flip": "off",
                "shuffle": "off",
                "schedule": "1f1b",
                "predict": "none",
                "eval_every": 0,
                "threads": 1,
                **options,
            }
            program.run(
                ranks,
                program.ROOT / "partitions" / f"{name}.yaml",
                **everything,
                init=folder / "init.safetensors",
                save=folder / "saved",
                log=folder / "log.jsonl",
            )
            saved = safetensors_io.read_folder(folder / "saved")
            return program.losses(folder / "log.jsonl"), saved

    def test_lenet5(self):
        for backend in ("onednn", "ref"):
            for ranks in (1, 2):
                with self.subTest(backend, ranks=ranks):
                    self.compare("lenet5", LENET5, ranks, backend=backend)

    def test_lenet5_in_micro_batches(self):
        self.compare("lenet5", LENET5, 2, micro_batch=5)

    def test_lenet5_nesterov(self):
        self.compare("lenet5", LENET5, 1, variant="nesterov", optimizer="nesterov")

    def test_wrn_10_1(self):
        for backend, ranks in (("onednn", 1), ("onednn", 2), ("ref", 1)):
            with self.subTest(backend, ranks=ranks):
                self.compare("wrn-10-1", WRN_10_1, ranks, backend=backend)


if __name__ == "__main__":
    tap.main()
