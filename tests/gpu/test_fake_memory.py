#!/usr/bin/env python3
"""Device memory on the fake runtime: what is predicted is what is taken, and what does not fit is
refused before training, with the micro-batch that would.
"""

import re
import struct

import fake_program  # first: it finds the modules below
import tap

MIB = 1 << 20
LARGE = 64
LENET5 = {
    "samples": LARGE,
    "batch": LARGE,
    "micro_batch": LARGE,
    "steps": 1,
    "schedule": "async",
}
GRAIN = 256  # of blocks, on devices
PIECE = 2 * MIB  # of a device: what a look at its free memory may be wrong by
SLACK = 4 * MIB  # of the arena, for rounding its blocks up to grains
BESIDE = SLACK + 4 * GRAIN  # more than a rank takes beside its stage's memory
LIBRARIES = 256 * MIB  # what is left to them on a device
PAGE = 4096  # of what processes share
ROUNDING = 4 * GRAIN  # bytes by which sums of a few blocks may differ

REFUSED = r"needs (\d+) bytes of device memory, but GPU (\d+) has (\d+) left"
FITS = r"largest --micro-batch that fits is (\d+)$"


class Memory(fake_program.Case):
    def stages(self, ranks, model, fake=None, **options):
        return self.train(ranks, model, fake, **options)[2]

    # ---- predicted ----------------------------------------------------------------------------

    def test_predicted_is_taken(self):
        """In training and in evaluation, to the byte."""
        own = {"batch": 8, "micro_batch": 3, "steps": 3, "eval_every": 1}
        cases = (
            (1, {"schedule": "gpipe", "clip": 1}),
            (2, {"schedule": "1f1b", "precision": "bf16"}),
            (4, {"schedule": "async", "stash": True}),
            (2, {"schedule": "async", "in_flight": 2, "precision": "tf32"}),
            (3, {"schedule": "interleaved"}),
        )
        for ranks, options in cases:
            with self.subTest(ranks=ranks, **options):
                for stage in self.stages(ranks, "crossed", **own, **options):
                    self.assertGreater(stage["peak_bytes"], 4 * stage["parameters"])
                    self.assertEqual(stage["predicted_bytes"], stage["peak_bytes"], stage)

    # ---- refused ------------------------------------------------------------------------------

    def refuse(self, ranks, fake, **options):
        """What a refusal says: (bytes needed, device, bytes left, the micro-batch that fits)."""
        ended = self.launch(ranks, "lenet5", fake, **{**LENET5, **options})
        self.assert_one_message(ended, 2, f"error: rank \\d: .*{REFUSED}.*{FITS}")
        self.assertFalse(any(line.startswith("step") for line in ended.out), ended)
        pattern = f"{REFUSED}.*{FITS}"
        needed, device, left, fits = map(int, re.search(pattern, ended.err[0]).groups())
        self.assertGreater(needed, left)
        self.assertLess(fits, options.get("micro_batch", LARGE))
        return needed, device, left, fits

    def beside(self):
        """Of a device's memory, what is not left for a stage."""
        (stage,) = self.stages(1, "lenet5", **LENET5)
        memory = stage["peak_bytes"] + LIBRARIES
        return memory - self.refuse(1, {"memory": memory})[2]

    def test_largest_that_fits(self):
        """It runs, and the next larger one is refused."""
        for ranks in (1, 2):
            most, least = (
                max(stage["peak_bytes"] for stage in self.stages(ranks, "lenet5", **sized))
                for sized in (LENET5, {**LENET5, "micro_batch": 1})
            )
            fake = {"memory": (most + least) // 2 + self.beside()}
            with self.subTest(ranks=ranks):
                needed, _, left, fits = self.refuse(ranks, fake)
                self.assertEqual(needed, most)
                self.assertGreater(fits, 1)
                again = self.refuse(ranks, fake, micro_batch=fits + 1)
                self.assertEqual(again[2:], (left, fits))
                stages = self.stages(ranks, "lenet5", fake, **{**LENET5, "micro_batch": fits})
                self.assertLessEqual(max(stage["peak_bytes"] for stage in stages), left)

    def test_not_even_one(self):
        ended = self.launch(1, "lenet5", {"memory": 8 * MIB}, **LENET5)
        self.assert_one_message(ended, 2, f"{REFUSED}.*not even --micro-batch 1 fits")

    def test_the_least_of_all_ranks(self):
        """Rank 0 could do with less, rank 1 could not: what rank 0 says holds for both."""
        small = min(stage["peak_bytes"] for stage in self.stages(2, "lenet5", **LENET5))
        fake = {"memory": small - GRAIN + self.beside()}
        ended = self.launch(2, "lenet5", fake, **LENET5)
        self.assert_one_message(ended, 2, f"rank 0: .*{REFUSED}.*not even --micro-batch 1 fits")

    def test_to_the_byte(self):
        """What was said to be left is enough when that is needed, and a grain less is not."""
        (stage,) = self.stages(1, "lenet5", **LENET5)
        enough = stage["peak_bytes"] + self.beside()
        for more in (0, 100):
            self.stages(1, "lenet5", {"memory": enough + more}, **LENET5)
        self.refuse(1, {"memory": enough - GRAIN})

    def test_one_arena(self):
        """A run never has more of its device than what was predicted, with the slack."""
        for clip in (0, 1):  # whose sums of squares want memory as well
            fake = self.share()
            (stage,) = self.stages(1, "lenet5", fake, **{**LENET5, "schedule": "1f1b", "clip": clip})
            (taken,) = self.most(1)
            predicted = -(-stage["predicted_bytes"] // GRAIN) * GRAIN
            self.assertEqual(taken, predicted + SLACK)

    # ---- several ranks, one device ------------------------------------------------------------

    def share(self, **fake):
        page = self.folder / "shared"
        page.write_bytes(bytes(PAGE))
        return {"shared": page, **fake}

    def most(self, devices):
        """The most that was ever in use on each device."""
        page = (self.folder / "shared").read_bytes()
        numbers = struct.unpack_from(f"{2 * devices}Q", page)
        self.assertEqual(numbers[::2], (0,) * devices, "not all was given back")
        return numbers[1::2]

    def test_ranks_on_one_device(self):
        """Each has its own; the second may find too little, and says what it would take."""
        stages = self.stages(2, "lenet5", **LENET5)
        both = sum(stage["peak_bytes"] for stage in stages)
        largest = max(stage["peak_bytes"] for stage in stages)
        fake = self.share(memory=both + 2 * BESIDE + LIBRARIES)
        self.stages(2, "lenet5", {**fake, "seed": 2}, **LENET5)
        (taken,) = self.most(1)
        self.assertGreater(taken, both)
        fake = self.share(memory=largest + 2 * BESIDE + LIBRARIES)
        for _ in range(3):  # either may be the second
            ended = self.launch(2, "lenet5", self.share(**fake), **LENET5)
            self.assert_one_message(ended, 2, rf"error: rank \d: .*{REFUSED}")

    def test_a_smaller_micro_batch_for_two(self):
        """Whoever is second, or both at once: more than a piece is missing."""
        sized = {**LENET5, "samples": 2 * LARGE, "batch": 2 * LARGE, "micro_batch": 2 * LARGE}
        both = sum(stage["peak_bytes"] for stage in self.stages(2, "lenet5", **sized))
        fake = self.share(memory=both + 2 * SLACK + LIBRARIES - PIECE - MIB // 2)
        *_, fits = self.refuse(2, fake, **sized)
        self.stages(2, "lenet5", self.share(**fake), **{**sized, "micro_batch": fits})

    def test_devices_by_local_rank(self):
        """Four ranks on two devices: 0 and 2 on the first, 1 and 3 on the second."""
        fake = self.share(devices=2)
        need = [s["peak_bytes"] for s in self.stages(4, "lenet5", fake, **LENET5)]
        first, second = self.most(2)
        a, b, c, d = need
        self.assertAlmostEqual(first - second, a + c - b - d, delta=ROUNDING)
        for other in (a + b - c - d, a + d - b - c):
            self.assertGreater(abs(first - second - other), 2 * ROUNDING, "they cannot be told")


if __name__ == "__main__":
    tap.main()
