#!/usr/bin/env python3
"""The memory that is predicted before a run is the memory that the run takes.

The summary has two numbers for each stage: predicted_bytes, made by planning alone, and peak_bytes,
counted by the backend while training and evaluation ran. They agree for every backend, schedule and
cut; and the peak grows with the micro-batches in flight, as the schedule says.
"""

import json
import pathlib
import tempfile
import unittest

import program
import safetensors_io
import tap

# Planning knows every block that is taken, so the two are equal today; a library that gives a
# prediction of its own needs no more than this.
TOLERANCE = 0.01

SAMPLES = 22  # neither whole batches nor whole micro-batches: programs of several sizes
SETTINGS = {
    "batch": 8,
    "micro_batch": 3,
    "steps": 3,
    "eval_every": 1,
    "threads": 1,
}

# Everything that a library may want in a layout of its own: convolutions of 8 and of 6 channels, an
# add and a concat of values with different layouts, dropout of an image, flatten, vectors that are
# normalised, and both pools.
PARTITION = """name: mixed
input: {shape: [3, 10, 10], mean: [0.45], std: [0.25]}
layers:
  - {name: conv1, kind: conv2d, features: 8, kernel: 3, padding: 1, bias: off}
  - {name: bn1, kind: batch-norm}
  - {name: relu1, kind: relu}
  - {name: drop1, kind: dropout, p: 0.25}
  - {name: conv2, kind: conv2d, features: 8, kernel: 3, padding: 1}
  - {name: sum, kind: add, inputs: [conv2, drop1, relu1]}
  - {name: gelu1, kind: gelu}
  - {name: cat, kind: concat, inputs: [gelu1, relu1, input]}
  - {name: pool1, kind: max-pool, kernel: 2, stride: 2}
  - {name: conv3, kind: conv2d, features: 6, kernel: 2}
  - {name: pool2, kind: avg-pool, kernel: 2, stride: 2}
  - {name: conv4, kind: conv2d, features: 16, kernel: 1}
  - {name: flat, kind: flatten}
  - {name: fc1, kind: linear, features: 20}
  - {name: bn2, kind: batch-norm}
  - {name: relu2, kind: relu}
  - {name: fc2, kind: linear, features: 5}
loss: {kind: cross-entropy}
cuts:
  2: [cat]
  4: [conv2, cat, flat]
"""

LAYERS = {"mixed": 17, "lenet5": 12, "mlp": 6, "wrn-10-1": 29}  # no more blocks than these
IN_A_STEP = 8  # micro-batches, more than there are stages
FEWER = 4


class Memory(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        data = cls.folder / "data.safetensors"
        safetensors_io.write_images(data, SAMPLES, (3, 10, 10), classes=5, seed=7)
        (cls.folder / "mixed.yaml").write_text(PARTITION)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def stages(self, ranks, model, **options):
        """Trains, and returns what the summary says of each stage."""
        if model == "mixed":
            path = self.folder / "mixed.yaml"
            data = {"dataset": "arrays", "data": self.folder / "data.safetensors"}
        else:
            path = program.ROOT / "partitions" / f"{model}.yaml"
            data = {"dataset": "synthetic", "samples": SAMPLES}
        summary = self.folder / "summary.json"
        program.run(ranks, path, **{**SETTINGS, **data, **options}, summary=summary)
        stages = json.loads(summary.read_text(encoding="utf-8"))["stages"]
        self.assertEqual(len(stages), ranks)
        return stages

    def compare(self, ranks, model, **options):
        for stage in self.stages(ranks, model, **options):
            predicted, peak = stage["predicted_bytes"], stage["peak_bytes"]
            self.assertGreater(peak, 4 * stage["parameters"], "not even the weights were counted")
            self.assertLessEqual(
                abs(predicted - peak),
                TOLERANCE * peak,
                f"stage {stage['rank']}: {predicted} predicted, {peak} taken",
            )

    def compare_all(self, backend, models):
        schedules = (
            {"schedule": "async"},
            {"schedule": "async", "stash": True},
            {"schedule": "1f1b"},
            {"schedule": "zb-h1"},
            {"schedule": "interleaved", "micro_batch": 2},
            {"schedule": "interleaved", "chunks": 3, "micro_batch": 1},
        )
        for model in models:
            for ranks in (1, 2, 4):
                for schedule in schedules:
                    blocks = ranks * schedule.get("chunks", 2)
                    if "micro_batch" in schedule and (ranks == 1 or blocks > LAYERS[model]):
                        continue
                    with self.subTest(backend, model=model, ranks=ranks, **schedule):
                        self.compare(ranks, model, backend=backend, **schedule)

    def test_onednn(self):
        self.compare_all("onednn", ("mixed", "lenet5", "mlp", "wrn-10-1"))

    def test_ref(self):
        self.compare_all("ref", ("mixed", "lenet5"))

    def test_options(self):
        """What else changes how much is taken."""
        cases = (
            {"threads": 2},
            {"predict": "none"},
            {"predict": "none", "stash": True},
            {"gap_aware": True},
            {"gap_aware": True, "micro_batch": 8, "predict": "none"},
            {"pipemare_dc": 0.135, "predict": "none"},
            {"predict": "aggmsnag", "stash": True},
            {"in_flight": 2},
            {"schedule": "gpipe"},
            {"schedule": "gpipe", "recompute": "all"},
            {"schedule": "zb-h1", "recompute": "relu1,conv2,sum,cat"},
            {"eval_every": 0},
            {"momentum": 0},
            {"steps": 6, "sync_epochs": 1},
            {"steps": 6, "sync_epochs": 1, "stash": True},
            {"gap_every": 2},
            {"checkpoint": self.folder / "ck", "every": 1},
            {"checkpoint": self.folder / "ck-gap", "gap_aware": True, "optimizer": "nesterov"},
        )
        for options in cases:
            with self.subTest(**options):
                self.compare(2, "mixed", backend="onednn", **options)

    def test_that_rules_cost_where_something_is_late(self):
        """Gap-aware keeps versions, a mean and a gradient beside, the correction two buffers: on the
        first stage and not on the last."""
        plain, gap_aware, corrected = (
            self.stages(2, "lenet5", backend="onednn", predict="none", **rule)
            for rule in ({}, {"gap_aware": True}, {"pipemare_dc": 0.135})
        )
        for run in (gap_aware, corrected):
            self.assertGreater(run[0]["peak_bytes"], plain[0]["peak_bytes"])
            self.assertEqual(run[1]["peak_bytes"], plain[1]["peak_bytes"])

    def test_that_waiting_gradients_count(self):
        """zb-h1 has stage s put off s weight gradients, as far as the step has so many; with its own,
        s + 1 blocks of gradients wait. From 3 micro-batches a step to 8, on 4 stages, every stash
        grows from 3 to 4, and the blocks of the last stage alone."""
        size, ranks = 2, 4
        same = {"backend": "onednn", "micro_batch": size, "samples": 2 * IN_A_STEP * size}
        all_of_8, all_of_4, more, fewer = (
            self.stages(ranks, "lenet5", schedule=schedule, batch=count * size, **same)
            for schedule, count in (
                ("gpipe", IN_A_STEP),
                ("gpipe", FEWER),
                ("zb-h1", IN_A_STEP),
                ("zb-h1", 3),
            )
        )
        for i in range(ranks):
            with self.subTest(stage=i):
                self.assertEqual(more[i]["stash_peak"], ranks)
                self.assertEqual(fewer[i]["stash_peak"], 3)
                each = (all_of_8[i]["peak_bytes"] - all_of_4[i]["peak_bytes"]) // FEWER
                grown = more[i]["peak_bytes"] - fewer[i]["peak_bytes"]
                compare = self.assertGreater if i == ranks - 1 else self.assertEqual
                compare(grown, each)
                for run in (more, fewer):
                    self.assertEqual(run[i]["peak_bytes"], run[i]["predicted_bytes"])

    def test_that_the_schedule_decides(self):
        """gpipe holds all M micro-batches of a step on every stage, 1f1b no more than the stages
        from here to the end; each costs the same."""
        size = 2
        same = {"backend": "onednn", "micro_batch": size, "samples": 2 * IN_A_STEP * size}
        for ranks in (2, 4):
            all_of_8, all_of_4, some_of_8 = (
                self.stages(ranks, "lenet5", schedule=schedule, batch=count * size, **same)
                for schedule, count in (
                    ("gpipe", IN_A_STEP),
                    ("gpipe", FEWER),
                    ("1f1b", IN_A_STEP),
                )
            )
            for i in range(ranks):
                with self.subTest(ranks=ranks, stage=i):
                    to_the_end = ranks - i
                    self.assertEqual(all_of_8[i]["stash_peak"], IN_A_STEP)
                    self.assertEqual(all_of_4[i]["stash_peak"], FEWER)
                    self.assertEqual(some_of_8[i]["stash_peak"], to_the_end)
                    for name in ("peak_bytes", "predicted_bytes"):
                        most, half, least = (
                            run[i][name] for run in (all_of_8, all_of_4, some_of_8)
                        )
                        each, rest = divmod(most - half, IN_A_STEP - FEWER)
                        self.assertEqual(rest, 0)
                        self.assertGreater(each, 0)
                        self.assertEqual(most - least, (IN_A_STEP - to_the_end) * each)


if __name__ == "__main__":
    tap.main()
