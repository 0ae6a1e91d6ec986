#!/usr/bin/env python3
"""Mistakes that pipelines are known for, each held down by a run of the program.

Samples lost or counted twice at ragged ends, a ReLU that overwrites what a cut still needs, running
statistics that count a micro-batch twice, labels in another order than inputs, and memory that
grows with every message.
"""

import filecmp
import itertools
import json
import math
import os
import pathlib
import subprocess
import tempfile
import time
import unittest

import numpy as np

import program
import safetensors_io
import tap

# float32 with sums of at most some hundred terms, against the same formula in float64.
TOLERANCE = 2e-5

QUIET = {"eval_every": 0, "threads": 1}


def records(log, kind):
    with open(log, encoding="utf-8") as file:
        return [r for r in map(json.loads, file) if r.get("type") == kind]


class Case(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def write_data(self, x, y):
        safetensors_io.write(self.folder / "data.safetensors", {"x": x, "y": y})
        return {"dataset": "arrays", "data": self.folder / "data.safetensors"}


class RaggedBatches(Case):
    """With all weights zero, the loss of sample i is its squared target, 4^i: the digits of a sum
    of losses, in base 4, say how often each sample was counted."""

    PARTITION = """name: zero
input: {shape: [1]}
layers:
  - {name: a, kind: linear, features: 1, bias: off}
  - {name: b, kind: linear, features: 1, bias: off}
  - {name: c, kind: linear, features: 1, bias: off}
loss: {kind: mse}
cuts:
  2: [b]
  3: [b, c]
"""
    # (samples, batch, micro-batch); 13 is the most whose sum the nine digits of a log can tell
    SIZES = (
        (1, 1, 1),
        (1, 4, 3),
        (5, 8, 3),
        (7, 3, 2),
        (10, 4, 3),
        (11, 5, 5),
        (12, 4, 2),
        (13, 5, 1),
        (13, 13, 4),
        (13, 12, 12),
    )
    RUNS = ((1, "gpipe"), (2, "async"), (2, "gpipe"), (3, "1f1b"), (3, "async"))
    EPOCHS = 2

    def counts(self, record, loss, samples):
        """How often the mean loss of so many samples holds each sample."""
        total = round(record[loss] * samples)
        self.assertAlmostEqual(record[loss] * samples, total, delta=0.25)
        return [total >> 2 * i & 3 for i in range(14)]

    def check_steps(self, steps, count, batch):
        per_epoch = [min(batch, count - first) for first in range(0, count, batch)]
        self.assertEqual([s["samples"] for s in steps], per_epoch * self.EPOCHS)
        for epoch in range(self.EPOCHS):
            seen = np.zeros(14, int)
            own = steps[epoch * len(per_epoch) : (epoch + 1) * len(per_epoch)]
            for step in own:
                held = self.counts(step, "loss", step["samples"])
                self.assertEqual(sum(held), step["samples"], "samples in the loss of a step")
                seen += held
            self.assertEqual(seen.tolist(), [1] * count + [0] * (14 - count), f"epoch {epoch}")

    def test_every_sample_counts_once(self):
        path = self.write("zero.yaml", self.PARTITION)
        zero = np.zeros((1, 1), np.float32)
        safetensors_io.write(
            self.folder / "zero.safetensors", {f"{n}.weight": zero for n in "abc"}
        )
        for count, batch, micro_batch in self.SIZES:
            targets = (2.0 ** np.arange(count)).astype(np.float32).reshape(-1, 1)
            data = self.write_data(np.ones((count, 1), np.float32), targets)
            alone = None
            for ranks, schedule in self.RUNS:
                sizes = {"batch": batch, "micro_batch": micro_batch}
                with self.subTest(samples=count, **sizes, ranks=ranks, schedule=schedule):
                    log = self.folder / "log.jsonl"
                    program.run(
                        ranks,
                        path,
                        init=self.folder / "zero.safetensors",
                        log=log,
                        lr=0,
                        schedule=schedule,
                        epochs=self.EPOCHS,
                        **sizes,
                        **data,
                    )
                    steps = records(log, "step")
                    self.check_steps(steps, count, batch)
                    for evaluation in records(log, "eval"):
                        held = self.counts(evaluation, "test_loss", count)
                        self.assertEqual(held, [1] * count + [0] * (14 - count), "evaluation")
                    self.assertEqual(len(records(log, "eval")), self.EPOCHS)
                    losses = [s["loss"] for s in steps]
                    alone = alone or losses
                    self.assertEqual(losses, alone, "losses of one rank")


class ReluAtACut(Case):
    """A ReLU may run in place only on what nobody else needs: not on what arrives, not on what
    leaves."""

    # conv1 is read by relu1 and, behind every cut, by sum; conv2 by relu2 alone; relu2 by conv3.
    PARTITION = """name: relus
input: {{shape: [2, 8, 8]}}
layers:
  - {{name: conv1, kind: conv2d, features: 8, kernel: 3, padding: 1}}
  - {{name: relu1, kind: relu}}
  - {{name: conv2, kind: conv2d, features: 8, kernel: 3, padding: 1}}
  - {{name: relu2, kind: relu}}
  - {{name: conv3, kind: conv2d, features: 8, kernel: 3, padding: 1}}
  - {{name: sum, kind: add, inputs: [conv3, conv1]}}
  - {{name: relu3, kind: relu}}
  - {{name: flat, kind: flatten}}
  - {{name: fc, kind: linear, features: 5}}
loss: {{kind: cross-entropy}}
cuts:
  2: [{cut}]
"""
    CUTS = {
        "right before a relu": "relu2",
        "right after a relu": "conv3",
        "behind a value that a relu reads and that crosses": "relu1",
        "behind a relu whose input crosses": "conv2",
        "right before the relu of a sum": "relu3",
        "right after the relu of a sum": "flat",
    }

    def train(self, ranks, cut, **options):
        path = self.write(f"{cut}.yaml", self.PARTITION.format(cut=cut))
        saved = self.folder / f"saved-{len(list(self.folder.iterdir()))}"
        settings = {"batch": 6, "micro_batch": 2, "epochs": 3, "lr": 0.1, "seed": 3}
        program.run(ranks, path, save=saved, **{**settings, **options}, **QUIET, **self.data)
        return saved

    def assert_same_files(self, one, other):
        names = sorted(p.name for p in one.iterdir())
        self.assertEqual(names, sorted(p.name for p in other.iterdir()))
        self.assertEqual(len(names), 4, "one file for each layer with weights")
        _, differing, unread = filecmp.cmpfiles(one, other, names, shallow=False)
        self.assertEqual(differing + unread, [])

    def setUp(self):
        super().setUp()
        numbers = np.random.default_rng(4)
        x = numbers.standard_normal((15, 2, 8, 8)).astype(np.float32)
        self.data = self.write_data(x, numbers.integers(0, 5, 15, np.int64))

    def test_same_bits_as_one_rank(self):
        for backend in ("ref", "onednn"):
            alone = self.train(1, "relu1", schedule="gpipe", backend=backend)
            for (where, cut), schedule in itertools.product(self.CUTS.items(), ("gpipe", "1f1b")):
                with self.subTest(where, backend=backend, schedule=schedule):
                    saved = self.train(2, cut, schedule=schedule, backend=backend)
                    self.assert_same_files(alone, saved)

    def test_a_cut_across_a_relu_changes_nothing(self):
        """A ReLU has no weights: whichever side of the cut it is on, every layer with weights has
        the same staleness, so that asynchronous training gives the same bits too."""
        pairs = (("relu2", "conv3"), ("relu1", "conv2"))
        for (before, after), stash in itertools.product(pairs, (False, True)):
            with self.subTest(before=before, after=after, stash=stash):
                one = self.train(2, before, schedule="async", stash=stash)
                self.assert_same_files(one, self.train(2, after, schedule="async", stash=stash))

    def test_that_a_cut_across_weights_matters(self):
        one = self.train(2, "relu1", schedule="async")
        other = self.train(2, "relu2", schedule="async")
        with self.assertRaises(AssertionError):
            self.assert_same_files(one, other)


class RunningStatistics(Case):
    """With a learning rate of zero every layer computes the same function all the time, so that its
    statistics can be computed from the data alone."""

    PARTITION = """name: normed
input: {shape: [6]}
layers:
  - {name: bn1, kind: batch-norm}
  - {name: fc1, kind: linear, features: 5}
  - {name: bn2, kind: batch-norm}
  - {name: relu, kind: relu}
  - {name: fc2, kind: linear, features: 4}
  - {name: bn3, kind: batch-norm}
loss: {kind: cross-entropy}
cuts:
  3: [fc1, fc2]
"""
    EPSILON = 1e-5  # the defaults of batch-norm
    MOMENTUM = 0.1

    def expected(self, x, weights, micro_batches):
        running = {}
        for name, features in (("bn1", 6), ("bn2", 5), ("bn3", 4)):
            running[name] = [np.zeros(features), np.ones(features)]
        for first, last in micro_batches:
            h = self.normalise(x[first:last].astype(float), running["bn1"])
            h = h @ weights["fc1.weight"].T.astype(float) + weights["fc1.bias"]
            h = np.maximum(self.normalise(h, running["bn2"]), 0)
            h = h @ weights["fc2.weight"].T.astype(float) + weights["fc2.bias"]
            self.normalise(h, running["bn3"])
        return running

    def normalise(self, h, running):
        """Batch statistics, mixed into the running ones once."""
        mean, variance = h.mean(axis=0), h.var(axis=0)
        unbiased = variance * len(h) / (len(h) - 1)
        for i, value in enumerate((mean, unbiased)):
            running[i] = (1 - self.MOMENTUM) * running[i] + self.MOMENTUM * value
        return (h - mean) / np.sqrt(variance + self.EPSILON)

    def test_each_micro_batch_counts_once(self):
        numbers = np.random.default_rng(6)
        x = (3 * numbers.standard_normal((22, 6)) + 2).astype(np.float32)
        data = self.write_data(x, numbers.integers(0, 4, 22, np.int64))
        path = self.write("normed.yaml", self.PARTITION)
        weights = {
            "fc1.weight": numbers.standard_normal((5, 6)),
            "fc1.bias": numbers.standard_normal(5),
            "fc2.weight": numbers.standard_normal((4, 5)),
            "fc2.bias": numbers.standard_normal(4),
        }
        weights = {name: value.astype(np.float32) for name, value in weights.items()}
        safetensors_io.write(self.folder / "init.safetensors", weights)
        batch, micro_batch, epochs = 10, 4, 2  # of 10: 4 4 2; the last step has 2
        pieces = [
            (first, min(first + micro_batch, start + batch, len(x)))
            for start in range(0, len(x), batch)
            for first in range(start, min(start + batch, len(x)), micro_batch)
        ]
        expected = self.expected(x, weights, pieces * epochs)
        variants = [("gpipe", {}), ("1f1b", {}), ("async", {}), ("async", {"stash": True})]
        for (schedule, more), ranks, backend, evaluate in itertools.product(
            variants, (1, 3), ("ref", "onednn"), (0, 1)
        ):
            how = {"schedule": schedule, "backend": backend, "eval_every": evaluate, **more}
            with self.subTest(ranks=ranks, **how):
                saved = self.folder / "saved"
                program.run(
                    ranks,
                    path,
                    init=self.folder / "init.safetensors",
                    save=saved,
                    lr=0,
                    shuffle="off",
                    batch=batch,
                    micro_batch=micro_batch,
                    epochs=epochs,
                    threads=1,
                    **how,
                    **data,
                )
                got = safetensors_io.read_folder(saved)
                for name, pair in expected.items():
                    for kind, value in zip(("running_mean", "running_var"), pair):
                        np.testing.assert_allclose(
                            got[f"{name}.{kind}"], value, TOLERANCE, TOLERANCE, err_msg=name
                        )


class LabelOrder(Case):
    """The label is where the input is largest. Given weights that say so, every step is right, in
    whatever order the samples come, if each input meets its own label."""

    PARTITION = """name: largest
input: {shape: [10]}
layers:
  - {name: first, kind: linear, features: 10}
  - {name: relu, kind: relu}
  - {name: second, kind: linear, features: 10}
loss: {kind: cross-entropy}
cuts:
  2: [second]
  3: [relu, second]
"""
    COUNT = 48
    RUNS = tuple(itertools.product((1, 2, 3), ("gpipe", "1f1b", "async")))

    def setUp(self):
        super().setUp()
        numbers = np.random.default_rng(8)
        self.labels = numbers.integers(0, 10, self.COUNT, np.int64)
        self.x = numbers.uniform(0, 1, (self.COUNT, 10)).astype(np.float32)
        self.x[np.arange(self.COUNT), self.labels] += 2
        self.data = self.write_data(self.x, self.labels)
        self.path = self.write("largest.yaml", self.PARTITION)
        self.log = self.folder / "log.jsonl"

    def write_weights(self, first, second):
        zero = np.zeros(10, np.float32)
        tensors = {"first.weight": first, "first.bias": zero}
        tensors |= {"second.weight": second, "second.bias": zero}
        safetensors_io.write(self.folder / "init.safetensors", tensors)
        return self.folder / "init.safetensors"

    def mean_loss(self, first, second):
        y = np.maximum(self.x.astype(float) @ first.T, 0) @ second.T.astype(float)
        y -= y.max(axis=1, keepdims=True)
        log_softmax = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
        return -log_softmax[np.arange(self.COUNT), self.labels].mean()

    def test_first_loss_is_that_of_the_data(self):
        """One step holds all samples, so that the order of the shuffle does not show; that of the
        labels would."""
        numbers = np.random.default_rng(9)
        first = numbers.standard_normal((10, 10)).astype(np.float32)
        second = numbers.standard_normal((10, 10)).astype(np.float32)
        init = self.write_weights(first, second)
        for ranks, schedule in self.RUNS:
            with self.subTest(ranks=ranks, schedule=schedule):
                sizes = {"batch": self.COUNT, "micro_batch": 7, "epochs": 1, "shuffle": "on"}
                how = {"schedule": schedule, "init": init, "log": self.log}
                program.run(ranks, self.path, **sizes, **how, **QUIET, **self.data)
                (loss,) = program.losses(self.log)
                self.assertAlmostEqual(loss, self.mean_loss(first, second), delta=TOLERANCE)

    def test_every_step_is_right(self):
        identity = 8 * np.eye(10, dtype=np.float32)
        init = self.write_weights(identity, identity)
        for ranks, schedule in self.RUNS:
            with self.subTest(ranks=ranks, schedule=schedule):
                sizes = {"batch": 7, "micro_batch": 3, "epochs": 3, "shuffle": "on", "lr": 0}
                how = {"schedule": schedule, "init": init, "log": self.log}
                program.run(ranks, self.path, **sizes, **how, **self.data)
                steps = records(self.log, "step")
                self.assertEqual(len(steps), 3 * math.ceil(self.COUNT / 7))
                self.assertEqual({s["accuracy"] for s in steps}, {1.0})
                self.assertEqual({e["test_accuracy"] for e in records(self.log, "eval")}, {1.0})

    def test_it_learns_what_only_true_pairs_teach(self):
        sizes = {"batch": 8, "micro_batch": 4, "epochs": 30, "shuffle": "on", "lr": 0.05}
        program.run(3, self.path, **sizes, schedule="async", log=self.log, **self.data)
        self.assertEqual(records(self.log, "eval")[-1]["test_accuracy"], 1.0)


class Memory(Case):
    """Sends that nobody waits for pile up: a request of Open MPI takes some hundred bytes, its
    message more. After the first thousand micro-batches nothing may grow."""

    PARTITION = """name: steady
input: {shape: [64]}
layers:
  - {name: a, kind: linear, features: 256}
  - {name: relu, kind: relu}
  - {name: b, kind: linear, features: 10}
loss: {kind: cross-entropy}
cuts:
  2: [b]
"""
    PER_STEP = 4
    MICRO_BATCH = 32  # messages of 32 KiB, above the eager limit of shared memory
    PER_EPOCH = 500  # micro-batches; what an epoch needs is touched in the first
    EPOCHS = 20
    SETTLED = 1000  # micro-batches
    WINDOW = 2000  # micro-batches at the beginning and at the end that are compared
    # Below a hundred bytes for each of the 5,000 micro-batches that lie between the two windows at
    # least; what grows is a request, four times that. Some pages are left to chance.
    GROWTH_KIB = 400

    def sample(self, process, log):
        """[(micro-batches done, {pid: VmRSS in KiB})] until the process ends."""
        samples, size, steps = [], 0, 0
        while process.poll() is None:
            if log.exists():
                with open(log, "rb") as file:
                    file.seek(size)
                    text = file.read()
                size += len(text)
                steps += text.count(b'"type":"step"')
            ranks = {pid: resident(pid) for pid in children(process.pid)}
            if len(ranks) == 2 and all(ranks.values()):
                samples.append((steps * self.PER_STEP, ranks))
            time.sleep(0.002)  # the distance between two looks; nothing is waited for
        return samples

    def test_resident_set_stays_flat(self):
        path = self.write("steady.yaml", self.PARTITION)
        for schedule in ("async", "1f1b"):
            with self.subTest(schedule=schedule):
                log = self.folder / f"{schedule}.jsonl"
                command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", "2"]
                command += [program.PROGRAM, str(path), "--dataset=synthetic", "--eval-every=0"]
                command += [f"--samples={self.PER_EPOCH * self.MICRO_BATCH}"]
                command += [f"--micro-batch={self.MICRO_BATCH}", f"--accumulate={self.PER_STEP}"]
                command += [f"--epochs={self.EPOCHS}", f"--schedule={schedule}", f"--log={log}"]
                environment = dict(os.environ)
                if os.geteuid() == 0:
                    environment.update(
                        OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1"
                    )
                with open(self.folder / "output", "w+", encoding="utf-8") as output:
                    process = subprocess.Popen(
                        command, stdout=output, stderr=output, env=environment
                    )
                    samples = self.sample(process, log)
                    output.seek(0)
                    self.assertEqual(process.returncode, 0, output.read())
                self.check(samples)

    def check(self, samples):
        total = self.PER_EPOCH * self.EPOCHS
        early = [r for done, r in samples if 0 <= done - self.SETTLED < self.WINDOW]
        late = [r for done, r in samples if done >= total - self.WINDOW]
        self.assertGreater(len(early), 0, "looks at the run after it settled")
        self.assertGreater(len(late), 0, "looks at the end of the run")
        for pid in early[0]:
            before = max(ranks[pid] for ranks in early if pid in ranks)
            after = max(ranks[pid] for ranks in late if pid in ranks)
            words = f"resident set of a rank: {before} KiB, then {after} KiB"
            self.assertLessEqual(after - before, self.GROWTH_KIB, words)


def children(parent):
    """The processes that mpirun started here."""
    try:
        text = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def resident(pid):
    """VmRSS in KiB; 0 when the process is gone."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


if __name__ == "__main__":
    tap.main()
