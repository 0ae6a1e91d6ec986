#!/usr/bin/env python3
"""Whole runs of the cuda backend on the fake runtime: right losses, and the same bits in whatever
order the streams run, on any number of ranks, and wherever messages lie.

The fake ends a run in which a message is sent before its bytes are there, or its slot is used again
too early, so that every run here also proves the order of copies and messages.
"""

import itertools
import math
import unittest

import fake_program  # first: it finds the modules below
import tap
import test_bitwise

SEEDS = (2, 3)  # orders of the streams, beside the first

# Both compute in fp32 by the same formulas; the sums have another order. A few steps of a few
# thousand roundings of 6e-8 stay far below this, and far above it is any gradient that is missing.
FP32 = 1e-4
# Values of bf16 have eight bits: each rounding is off by up to 0.4 %, and a loss is a sum of
# differences of such values. What is lost on the way is worth more than this.
BF16 = 3e-2


class Losses(fake_program.Case):
    """One rank against the backend ref."""

    def compare(self, model, precision, tolerance, **options):
        options = {"schedule": "async", "seed": 2, **options}
        _, expected, *_ = self.train(1, model, backend="ref", **options)
        _, losses, *_ = self.train(1, model, precision=precision, **options)
        self.assertEqual(len(losses), len(expected))
        self.assertTrue(all(map(math.isfinite, losses)), losses)
        for step, (loss, known) in enumerate(zip(losses, expected)):
            what = f"step {step}: {losses} {expected}"
            self.assertLessEqual(abs(loss - known), tolerance * known, what)
        self.assertGreater(abs(losses[0] - losses[-1]), tolerance, "nothing changed")

    def compare_all(self, model, **options):
        for precision, tolerance in (("fp32", FP32), ("bf16", BF16)):
            with self.subTest(model, precision=precision):
                self.compare(model, precision, tolerance, **options)

    def test_lenet5(self):
        self.compare_all("lenet5", batch=4, micro_batch=3, steps=6, lr=0.1)

    def test_wrn_10_1(self):
        self.compare_all("wrn-10-1", batch=3, micro_batch=2, steps=3, lr=0.2, samples=6)

    def test_crossed(self):
        options = {"batch": 8, "micro_batch": 3, "epochs": 2, "lr": 0.1, "crop": 1, "flip": "on"}
        self.compare_all("crossed", **options, schedule="gpipe", clip=1.0)

    def test_large_inputs(self):
        """They are loaded in pieces: it is the same as small micro-batches, which are not."""
        options = {"schedule": "gpipe", "samples": 96, "batch": 48, "steps": 2, "lr": 0.1}
        options |= {"seed": 2, "crop": 2, "flip": "on"}
        _, expected, *_ = self.train(1, "lenet5", backend="ref", micro_batch=8, **options)
        _, losses, *_ = self.train(2, "lenet5", micro_batch=48, **options)
        self.assertEqual(len(losses), 2)
        for loss, known in zip(losses, expected):
            self.assertLessEqual(abs(loss - known), FP32 * known, f"{losses} {expected}")


class Bits(fake_program.Case):
    """The order of streams and the number of ranks change nothing."""

    SETTINGS = {**test_bitwise.SETTINGS, "micro_batch": 3, "eval_every": 2}

    def compare_all(self, precision):
        same = {**self.SETTINGS, "precision": precision}
        alone, losses, *_ = self.train(1, "crossed", {"seed": 1}, schedule="gpipe", **same)
        runs = [(1, "gpipe", seed) for seed in SEEDS]
        runs += [(1, "1f1b", 4)]
        runs += itertools.product((2, 4), ("gpipe", "1f1b"), SEEDS)
        runs += [(3, "interleaved", seed) for seed in SEEDS]  # a step has three micro-batches
        for ranks, schedule, seed in runs:
            with self.subTest(precision, ranks=ranks, schedule=schedule, seed=seed):
                saved, own, *_ = self.train(
                    ranks, "crossed", {"seed": seed}, schedule=schedule, **same
                )
                self.assert_same_files(alone, saved)
                self.assertEqual(losses, own)

    def test_fp32(self):
        self.compare_all("fp32")

    def test_bf16(self):
        self.compare_all("bf16")

    def test_recomputed(self):
        """What is not kept changes no bit, and running statistics are updated once."""
        runs = ((1, "gpipe", "all"), (2, "1f1b", "bn?,relu?"), (2, "zb-h1", "all"), (4, "gpipe", "all"))
        for precision, (ranks, schedule, layers) in itertools.product(("fp32", "bf16"), runs):
            same = {**self.SETTINGS, "precision": precision}
            alone, losses, *_ = self.train(1, "crossed", {"seed": 1}, schedule="gpipe", **same)
            for seed in SEEDS:
                with self.subTest(precision, ranks=ranks, schedule=schedule, seed=seed):
                    saved, own, stages, _ = self.train(
                        ranks, "crossed", {"seed": seed}, schedule=schedule, recompute=layers, **same
                    )
                    self.assert_same_files(alone, saved)
                    self.assertEqual(losses, own)
                    self.assertGreater(stages[0]["ops_again"], 0)
                    for stage in stages:
                        self.assertEqual(stage["predicted_bytes"], stage["peak_bytes"])

    def test_async(self):
        for ranks, also in (
            (1, {}),
            (2, {}),
            (4, {}),
            (4, {"stash": True}),
            (4, {"gap_aware": True}),
            (4, {"predict": "aggmsnag"}),
            (4, {"pipemare_dc": 0.135, "predict": "none"}),
        ):
            options = {**self.SETTINGS, "clip": 0, "schedule": "async", "predict": "msnag",
                       "gap_every": 2, **also}
            first, losses, stages, *_ = self.train(ranks, "crossed", {"seed": 1}, **options)
            gaps = [stage["gap_relative"] for stage in stages]
            for seed in SEEDS:
                with self.subTest(ranks=ranks, **also, seed=seed):
                    saved, own, stages, *_ = self.train(
                        ranks, "crossed", {"seed": seed}, **options
                    )
                    self.assertEqual(losses, own)
                    self.assertEqual([stage["gap_relative"] for stage in stages], gaps)
                    self.assert_same_files(first, saved)
            with self.subTest("against ref", ranks=ranks, **also):
                _, known, stages, *_ = self.train(ranks, "crossed", backend="ref", **options)
                for gap, stage in zip(gaps, stages):
                    self.assertAlmostEqual(gap, stage["gap_relative"], delta=FP32 * gap)
                for loss, expected in zip(losses, known):
                    self.assertLessEqual(abs(loss - expected), FP32 * expected)


class Links(fake_program.Case):
    """--p2p: the same bits by every way, and a way is taken only when it is sound."""

    SETTINGS = {
        "batch": 6,
        "micro_batch": 2,
        "epochs": 1,
        "eval_every": 1,
        "lr": 0.1,
        "precision": "bf16",
    }

    def train_by(self, p2p, mpi, ranks=2, schedule="1f1b", **more):
        fake = {"seed": 2, **({"mpi": mpi} if mpi else {})}
        return self.train(
            ranks, "crossed", fake, p2p=p2p, schedule=schedule, **{**self.SETTINGS, **more}
        )

    def where(self, run):
        """Slots on the device are a part of its memory."""
        return [stage["predicted_bytes"] for stage in run[2]]

    def test_same_bits(self):
        for ranks, schedule in ((2, "1f1b"), (4, "async"), (3, "interleaved")):
            host = self.train_by("host", None, ranks, schedule)
            for p2p, mpi in (("device", "yes"), ("device", "silent"), ("auto", "yes")):
                with self.subTest(ranks=ranks, schedule=schedule, p2p=p2p, mpi=mpi):
                    run = self.train_by(p2p, mpi, ranks, schedule)
                    self.assert_same_files(host[0], run[0])
                    self.assertEqual(host[1], run[1])
                    pairs = zip(self.where(host), self.where(run))
                    self.assertTrue(all(there > here for here, there in pairs))
                    warnings = [r"^rank 0: warning: .*does not say"] if mpi == "silent" else []
                    self.assert_warned(run[3], warnings)

    def test_slots_are_counted(self):
        for ranks, schedule in ((4, "async"), (3, "interleaved")):
            for stage in self.train_by("device", "yes", ranks, schedule)[2]:
                self.assertEqual(stage["predicted_bytes"], stage["peak_bytes"], stage)

    def assert_warned(self, ended, patterns):
        self.assertEqual(len(ended.err), len(patterns), ended)
        for line, pattern in zip(ended.err, patterns):
            self.assertRegex(line, pattern)

    def test_auto_without_such_an_mpi(self):
        host = self.train_by("host", None)
        for mpi in (None, "silent"):
            with self.subTest(mpi=mpi):
                run = self.train_by("auto", mpi)
                self.assertEqual(self.where(host), self.where(run))
                self.assert_warned(run[3], [])

    def test_auto_sees_a_wrong_message(self):
        """The short one or the long one, on one rank or on the other."""
        host = self.train_by("host", None)
        for mpi in ("spoil:1", "spoil:2", "spoil:1@0", "spoil:2@1"):
            with self.subTest(mpi):
                run = self.train_by("auto", mpi)
                self.assert_same_files(host[0], run[0])
                self.assertEqual(self.where(host), self.where(run))
                warning = r"^rank 0: warning: .*a message came out wrong.*host memory"
                self.assert_warned(run[3], [warning])

    def test_that_messages_matter(self):
        host = self.train_by("host", None)
        spoilt = self.train_by("device", "spoil:1@1")
        with self.assertRaises(AssertionError):
            self.assert_same_files(host[0], spoilt[0])

    def test_device_memory_is_no_host_memory(self):
        """What such an MPI saves from: the fake does not let others have its memory."""
        fake = {"seed": 2}
        ended = self.launch(2, "crossed", fake, p2p="device", schedule="1f1b", **self.SETTINGS)
        self.assertNotEqual(ended.status, 0, ended)
        self.assertRegex("\n".join(ended.err), "takes no device memory")


if __name__ == "__main__":
    tap.main()
