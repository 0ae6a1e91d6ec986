#!/usr/bin/env python3
"""Recomputed layers change neither the bits of a synchronous run nor, with --stash, those of an
asynchronous one; and they give back the memory that they say.

A small residual network with batch-norm, dropout and max-pool, on one to four ranks, for several
numbers of micro-batches a step and several sets of layers: every saved file, running statistics
among them, equals that of a run which keeps everything.
"""

import filecmp
import itertools
import json
import math
import pathlib
import tempfile
import unittest

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
    "seed": 5,
    "eval_every": 2,
    "threads": 1,
}

# The input and r0 are read again in the third of four stages: what crosses a cut is kept.
PARTITION = """name: residual
input: {shape: [3, 8, 8], mean: [0.45], std: [0.25]}
blocks:
  basic:
    layers:
      - {name: conv1, kind: conv2d, features: 8, kernel: 3, padding: 1, bias: off}
      - {name: bn1, kind: batch-norm}
      - {name: relu1, kind: relu}
      - {name: drop, kind: dropout, p: 0.25}
      - {name: conv2, kind: conv2d, features: 8, kernel: 3, padding: 1, bias: off}
      - {name: bn2, kind: batch-norm}
      - {name: sum, kind: add, inputs: [bn2, "@"]}
      - {name: relu2, kind: relu}
layers:
  - {name: conv0, kind: conv2d, features: 8, kernel: 3, padding: 1}
  - {name: r0, kind: relu}
  - {name: g.0, block: basic}
  - {name: g.1, block: basic}
  - {name: cat, kind: concat, inputs: [g.1, r0, input]}
  - {name: pool, kind: max-pool, kernel: 2}
  - {name: gelu, kind: gelu}
  - {name: flat, kind: flatten}
  - {name: fc1, kind: linear, features: 12}
  - {name: r1, kind: relu}
  - {name: fc2, kind: linear, features: 5}
loss: {kind: cross-entropy}
cuts:
  2: [g.1]
  3: [g.0.conv2, pool]
  4: [g.0.bn1, g.1.conv1, fc1]
"""

# Whole stages, pieces of fused rows, both sides of values that are overwritten in place or shared.
SETS = (
    "all",
    "g.*.bn?,g.*.relu?",
    "r0,g.0.bn1,g.1,pool,gelu",
    "conv0,g.0.relu1,g.*.sum,flat,cat",
    "g.0,g.1.drop,fc1,r1",
)


class Recompute(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        data = cls.folder / "data.safetensors"
        safetensors_io.write_images(data, SAMPLES, (3, 8, 8), classes=5, seed=3)
        (cls.folder / "residual.yaml").write_text(PARTITION)
        cls.runs = {}

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def train(self, ranks, **options):
        """Trains, once for each set of arguments; returns (folder of saved weights, losses, what the
        summary says of each stage)."""
        key = (ranks, *sorted(options.items()))
        if key not in self.runs:
            saved = self.folder / f"run-{len(self.runs)}"
            log, summary = saved.with_suffix(".jsonl"), saved.with_suffix(".json")
            settings = {**SETTINGS, "dataset": "arrays", "data": self.folder / "data.safetensors"}
            program.run(
                ranks,
                self.folder / "residual.yaml",
                **{**settings, **options},
                save=saved,
                log=log,
                summary=summary,
            )
            stages = json.loads(summary.read_text(encoding="utf-8"))["stages"]
            self.runs[key] = (saved, program.losses(log), stages)
        return self.runs[key]

    def assert_same(self, one, other):
        names = sorted(path.name for path in one[0].iterdir())
        self.assertEqual(names, sorted(path.name for path in other[0].iterdir()))
        self.assertTrue(any(name.endswith(".safetensors") for name in names), "nothing was saved")
        _, differing, unread = filecmp.cmpfiles(one[0], other[0], names, shallow=False)
        self.assertEqual(differing + unread, [])
        self.assertEqual(one[1], other[1])

    def compare_all(self, backend):
        sets = itertools.cycle(SETS)
        for per_step in (1, 2, 3, 4):
            same = {"backend": backend, "micro_batch": math.ceil(BATCH / per_step)}
            kept = self.train(1, schedule="gpipe", **same)
            for schedule, ranks in itertools.product(("gpipe", "1f1b", "zb-h1"), (1, 2, 3, 4)):
                chosen = next(sets)
                with self.subTest(
                    backend, M=per_step, schedule=schedule, ranks=ranks, recompute=chosen
                ):
                    run = self.train(ranks, schedule=schedule, recompute=chosen, **same)
                    self.assert_same(kept, run)
                    for stage in run[2]:
                        self.assertEqual(stage["predicted_bytes"], stage["peak_bytes"])

    def test_ref(self):
        self.compare_all("ref")

    def test_onednn(self):
        self.compare_all("onednn")

    def test_stashed(self):
        """The backward has the weights of its forward: what it computes again is what was there."""
        same = {"schedule": "async", "stash": True, "micro_batch": 4, "backend": "onednn"}
        for ranks, predict in itertools.product((2, 4), ("none", "msnag")):
            kept = self.train(ranks, predict=predict, **same)
            for chosen in SETS:
                with self.subTest(ranks=ranks, predict=predict, recompute=chosen):
                    run = self.train(ranks, predict=predict, recompute=chosen, **same)
                    self.assert_same(kept, run)

    def test_that_weights_matter(self):
        """Without a stash it has newer ones: the equality above is not that of runs which computed
        nothing again."""
        same = {"schedule": "async", "predict": "none", "micro_batch": 4, "backend": "onednn"}
        kept, run = (self.train(4, recompute=chosen, **same) for chosen in ("none", "all"))
        self.assertNotEqual(kept[1], run[1])

    def test_memory(self):
        """All stages but the last need less, by as much for each micro-batch in flight but one as is
        not kept; where there is one, or as many wait for weight gradients, nothing is run again."""
        same = {"backend": "onednn", "micro_batch": 2, "batch": 2 * 8, "samples": 32}
        for schedule, saves in (
            ("gpipe", (True, True, True, True)),
            ("1f1b", (True, True, True, False)),
            ("zb-h1", (True, True, True, False)),
            ("async", (True, True, True, False)),
        ):
            kept, run = (
                self.train(4, schedule=schedule, recompute=chosen, **same)[2]
                for chosen in ("none", "all")
            )
            for before, after, less in zip(kept, run, saves):
                with self.subTest(schedule=schedule, stage=before["rank"]):
                    self.assertEqual(before["ops_again"], 0)
                    self.assertEqual(after["ops_again"] > 0, less)
                    self.assertEqual(after["peak_bytes"] < before["peak_bytes"], less)
                    self.assertEqual(after["peak_bytes"], after["predicted_bytes"])

    def test_that_slots_shrink(self):
        """From 4 to 8 micro-batches in flight on one stage: what each costs is what is kept of it,
        to the byte the model's input and the predictions, beside who and what the samples are."""
        size = 2
        same = {"backend": "ref", "schedule": "gpipe", "micro_batch": size, "samples": 16}
        more, fewer = (
            self.train(1, recompute="all", batch=count * size, **same)[2][0] for count in (8, 4)
        )
        aligned = [-(-size * n * 4 // 64) * 64 for n in (3 * 8 * 8, 5)]
        answers = 2 * size * 4  # sample numbers, labels
        each, rest = divmod(more["peak_bytes"] - fewer["peak_bytes"], 4)
        self.assertEqual(rest, 0)
        self.assertEqual(each, sum(aligned) + answers)


if __name__ == "__main__":
    tap.main()
