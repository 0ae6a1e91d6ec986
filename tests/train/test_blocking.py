#!/usr/bin/env python3
"""No schedule relies on messages being buffered on their way.

With --blocking-sends a send returns when its message was received; with messages above the eager
limits of shared memory (4 KiB) and TCP (64 KiB) the transport could not hide a wrong order anyway.
Every schedule must end, and give the bits that it gives without.
"""

import filecmp
import itertools
import os
import pathlib
import tempfile
import unittest
from unittest import mock

import program
import safetensors_io
import tap

LARGEST_EAGER_LIMIT = 64 * 1024  # bytes: that of TCP
FEATURES, SIDE, MICRO_BATCH = 16, 20, 3

# Every cut is crossed by FEATURES x SIDE x SIDE floats a sample, most by two such values, since
# `first` is used again at the end.
PARTITION = f"""name: wide
input: {{shape: [2, {SIDE}, {SIDE}]}}
layers:
  - {{name: first, kind: conv2d, features: {FEATURES}, kernel: 1}}
  - {{name: norm, kind: batch-norm}}
  - {{name: second, kind: conv2d, features: {FEATURES}, kernel: 3, padding: 1}}
  - {{name: relu, kind: relu}}
  - {{name: third, kind: conv2d, features: {FEATURES}, kernel: 1}}
  - {{name: sum, kind: add, inputs: [third, first]}}
  - {{name: pool, kind: global-avg-pool}}
  - {{name: fc, kind: linear, features: 4}}
loss: {{kind: cross-entropy}}
cuts:
  2: [relu]
  4: [norm, relu, sum]
"""
SAMPLES = 19  # three steps an epoch: 3 3 2, 3 3 2, 3
SETTINGS = {"batch": 8, "micro_batch": MICRO_BATCH, "epochs": 2, "lr": 0.05, "seed": 2}
SCHEDULES = {
    "gpipe": {"schedule": "gpipe"},
    "1f1b": {"schedule": "1f1b"},
    # A step of four micro-batches, and a short one of three.
    "interleaved": {"schedule": "interleaved", "batch": 12},
    "async": {"schedule": "async"},
    "async, one more in flight": {"schedule": "async", "in_flight": 1},
}
# Names for people, and what Open MPI may move messages with.
TRANSPORTS = {"shared memory": "vader,self", "TCP": "tcp,self"}


class Blocking(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        data = cls.folder / "data.safetensors"
        safetensors_io.write_images(data, SAMPLES, (2, SIDE, SIDE), classes=4, seed=12)
        (cls.folder / "wide.yaml").write_text(PARTITION)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def train(self, ranks, transport, **options):
        saved = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        # TCP through the loopback device alone: every machine has it.
        variables = {"OMPI_MCA_btl": transport, "OMPI_MCA_btl_tcp_if_include": "lo"}
        with mock.patch.dict(os.environ, variables if ranks > 1 else {}):
            program.run(
                ranks,
                self.folder / "wide.yaml",
                dataset="arrays",
                data=self.folder / "data.safetensors",
                save=saved,
                eval_every=1,
                threads=1,
                **{**SETTINGS, **options},
            )
        return saved

    def assert_same_files(self, one, other):
        names = sorted(path.name for path in one.iterdir())
        self.assertEqual(names, sorted(path.name for path in other.iterdir()))
        self.assertEqual(len(names), 5, "one file for each layer with weights")
        _, differing, unread = filecmp.cmpfiles(one, other, names, shallow=False)
        self.assertEqual(differing + unread, [], "files that differ")

    def test_messages_are_above_the_eager_limits(self):
        self.assertGreater(FEATURES * SIDE * SIDE * 4 * MICRO_BATCH, LARGEST_EAGER_LIMIT)

    def works(self, transport):
        """Can two ranks talk this way here at all? Not every container lets them use sockets."""
        try:
            self.train(2, transport, schedule="gpipe", steps=1)
        except AssertionError:
            return False
        return True

    def test_every_schedule(self):
        usable = {name: btl for name, btl in TRANSPORTS.items() if self.works(btl)}
        self.assertIn("shared memory", usable)
        for ranks, (schedule, options) in itertools.product((1, 2, 4), SCHEDULES.items()):
            if schedule == "interleaved" and ranks == 1:
                continue
            plain = self.train(ranks, TRANSPORTS["shared memory"], **options)
            for name in TRANSPORTS if ranks > 1 else ("shared memory",):
                with self.subTest(schedule=schedule, ranks=ranks, transport=name):
                    if name not in usable:
                        self.skipTest(f"two ranks cannot talk over {name} here")
                    saved = self.train(ranks, usable[name], blocking_sends=True, **options)
                    self.assert_same_files(plain, saved)


if __name__ == "__main__":
    tap.main()
