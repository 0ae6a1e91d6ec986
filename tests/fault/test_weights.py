#!/usr/bin/env python3
"""--save, --init and --infer: weights go out, come back and predict the same.

Predictions are the same bytes on one, two and four ranks and from any kind of input, are in the
input's order, and count up to the accuracy that training reported.
"""

import csv
import filecmp
import gzip
import json
import pathlib
import tempfile
import unittest

import launch  # first: it finds the modules below
import numpy as np
import safetensors_io
import small_model
import tap

ACCURACY_DIGITS = 9  # a share of a few samples, written with nine digits
ROUNDINGS = 2e-6  # two numbers of six decimals, and the last bits of the inputs
LOSS = 1e-3  # of probabilities of six decimals
PROBABILITY_SUM = 5e-6  # three numbers of six decimals each
FINE = ["--lr=0", "--weight-decay=0", "--epochs=1"]


class Weights(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.partition = small_model.write(cls.folder)
        cls.saved = cls.folder / "saved"
        cls.train(2, "saved", "--epochs=3")
        cls.summary = json.loads((cls.folder / "saved.json").read_text())

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    @classmethod
    def train(cls, ranks, name, *arguments, partition=None):
        """Trains and saves to `name`; the summary and the log are beside it."""
        return launch.run(
            ranks,
            partition or cls.partition,
            f"--save={cls.folder}/{name}",
            f"--summary={cls.folder}/{name}.json",
            f"--log={cls.folder}/{name}.jsonl",
            *arguments,
        )

    def losses(self, name):
        return launch.program.losses(self.folder / f"{name}.jsonl")

    # ---- save ---------------------------------------------------------------------------------

    def test_names_and_shapes(self):
        """PyTorch's, one file a layer, each named after its layer."""
        tensors = safetensors_io.read_folder(self.saved)
        self.assertEqual({k: v.shape for k, v in tensors.items()}, small_model.SHAPES)
        self.assertTrue(all(np.isfinite(tensor).all() for tensor in tensors.values()))
        files = sorted(path.name for path in self.saved.iterdir())
        self.assertEqual(len(files), 4, "conv1, bn1, conv2, fc")
        for path in self.saved.iterdir():
            layers = {name.split(".")[0] for name in safetensors_io.read(path)[0]}
            self.assertEqual(len(layers), 1, path)
            self.assertIn(f"-{layers.pop()}.safetensors", path.name)

    def test_saved_into_a_folder_to_be_made(self):
        ended = launch.run(2, self.partition, f"--save={self.folder}/made/for/it")
        self.assertEqual(ended.status, 0, ended)
        self.assertEqual(len(list((self.folder / "made/for/it").iterdir())), 4)

    def test_weights_learnt(self):
        """The rest of this file is about a model that knows something."""
        self.assertGreater(self.summary["test_accuracy"], 0.6)

    # ---- init ---------------------------------------------------------------------------------

    def assert_same_parameters(self, one, other):
        one, other = safetensors_io.read_folder(one), safetensors_io.read_folder(other)
        self.assertEqual(list(one), list(other))
        for name in one:
            if "running" not in name:  # these follow the data at any learning rate
                np.testing.assert_array_equal(one[name], other[name], name)

    def test_round_trip(self):
        """At learning rate 0 what was read is written again, on any number of ranks."""
        for ranks in (1, 2, 4):
            with self.subTest(ranks=ranks):
                ended = self.train(ranks, f"again-{ranks}", f"--init={self.saved}", *FINE)
                self.assertEqual(ended.status, 0, ended)
                self.assertEqual(ended.err, [], "something was missing")
                self.assert_same_parameters(self.saved, self.folder / f"again-{ranks}")
        first = [self.losses(f"again-{ranks}")[0] for ranks in (1, 2, 4)]
        self.assertEqual(len(set(first)), 1, f"losses of the first step: {first}")

    def test_one_file(self):
        """As other programs write: everything in one file, in any order."""
        tensors = safetensors_io.read_folder(self.saved)
        path = self.folder / "whole.safetensors"
        safetensors_io.write(path, dict(reversed(tensors.items())))
        ended = self.train(2, "from-one", f"--init={path}", *FINE)
        self.assertEqual(ended.status, 0, ended)
        self.assert_same_parameters(self.saved, self.folder / "from-one")

    def test_fine_tuning_goes_on(self):
        """It begins where the first training ended, not where a new one does."""
        self.train(2, "tuned", f"--init={self.saved}", "--lr=0.01")
        begin, fresh = self.losses("tuned")[0], self.losses("saved")[0]
        self.assertLess(begin, 0.8 * fresh)

    def test_new_head(self):
        """Layers that a file lacks keep random weights and are named, whichever rank has them."""
        partial = self.folder / "partial"
        partial.mkdir()
        for path in self.saved.iterdir():
            if "-fc." not in path.name:
                (partial / path.name).write_bytes(path.read_bytes())
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                ended = self.train(ranks, f"new-head-{ranks}", f"--init={partial}", *FINE)
                self.assertEqual(ended.status, 0, ended)
                words = " ".join(ended.err + ended.out)
                self.assertIn("fc.weight", words)
                self.assertIn("fc.bias", words)
                self.assertNotIn("conv1.weight", words)
                got = safetensors_io.read_folder(self.folder / f"new-head-{ranks}")
                kept = safetensors_io.read_folder(partial)
                np.testing.assert_array_equal(got["conv2.weight"], kept["conv2.weight"])
                self.assertGreater(np.abs(got["fc.weight"]).max(), 0)

    # ---- infer --------------------------------------------------------------------------------

    def infer(self, ranks, source, name, *arguments):
        out = self.folder / name
        ended = launch.succeed(
            ranks,
            self.partition,
            f"--infer={source}",
            f"--weights={self.saved}",
            f"--out={out}",
            *arguments,
        )
        self.assertTrue(any(str(out) in line for line in ended.out), ended)
        with open(out, encoding="utf-8") as file:
            return out, list(csv.DictReader(file))

    def inputs(self):
        """The test images, as each kind of input."""
        images, _ = small_model.samples(small_model.TEST_SAMPLES, seed=2)
        arrays = self.folder / "x.safetensors"
        safetensors_io.write(arrays, {"x": images[:, None]})
        packed = self.folder / "images.gz"
        packed.write_bytes(gzip.compress(small_model.idx(images)))
        return ["test", arrays, packed, self.folder / "data" / "t10k-images-idx3-ubyte"]

    def test_same_bytes(self):
        first, _ = self.infer(1, "test", "first.csv")
        for number, source in enumerate(self.inputs()):
            for ranks in (1, 2, 4):
                with self.subTest(pathlib.Path(source).name, ranks=ranks):
                    out, _ = self.infer(ranks, source, f"{number}-{ranks}.csv")
                    self.assertTrue(filecmp.cmp(first, out, shallow=False), out.read_text())

    def test_contents(self):
        _, rows = self.infer(2, "test", "contents.csv")
        self.assertEqual(list(rows[0]), ["sample", "class", "probability", "p0", "p1", "p2"])
        self.assertEqual(
            [int(row["sample"]) for row in rows], list(range(small_model.TEST_SAMPLES))
        )
        for row in rows:
            shares = [float(row[f"p{c}"]) for c in range(small_model.CLASSES)]
            self.assertLess(abs(sum(shares) - 1), PROBABILITY_SUM)
            self.assertEqual(float(row["probability"]), max(shares))
            self.assertEqual(shares[int(row["class"])], max(shares))

    def test_accuracy(self):
        """Counted here, from the predictions and the labels, it is what training said."""
        _, labels = small_model.samples(small_model.TEST_SAMPLES, seed=2)
        _, rows = self.infer(4, "test", "accuracy.csv")
        right = sum(int(row["class"]) == label for row, label in zip(rows, labels))
        accuracy = right / small_model.TEST_SAMPLES
        self.assertAlmostEqual(accuracy, self.summary["test_accuracy"], ACCURACY_DIGITS)
        loss = -sum(
            np.log(float(row[f"p{label}"])) for row, label in zip(rows, labels)
        ) / len(rows)
        self.assertAlmostEqual(loss, self.summary["test_loss"], delta=LOSS)

    def test_order(self):
        """Another order of the inputs is the same order of the predictions."""
        images, _ = small_model.samples(small_model.TEST_SAMPLES, seed=2)
        order = np.random.default_rng(3).permutation(small_model.TEST_SAMPLES)
        path = self.folder / "permuted.safetensors"
        safetensors_io.write(path, {"x": images[order][:, None]})
        _, straight = self.infer(2, "test", "straight.csv", "--backend=ref")
        _, permuted = self.infer(2, path, "permuted.csv", "--backend=ref")
        for row, index in zip(permuted, order):
            self.assertEqual(row["p0"], straight[index]["p0"])

    def test_floats(self):
        """x may hold floats: values from 0 to 1, as normalisation expects them."""
        images, _ = small_model.samples(small_model.TEST_SAMPLES, seed=2)
        path = self.folder / "floats.safetensors"
        safetensors_io.write(path, {"x": images[:, None].astype(np.float32) / np.float32(255)})
        _, bytes_ = self.infer(1, "test", "bytes.csv")
        _, floats = self.infer(1, path, "floats.csv")
        for one, other in zip(bytes_, floats):
            self.assertAlmostEqual(float(one["p0"]), float(other["p0"]), delta=ROUNDINGS)

    def test_one_sample(self):
        """Fewer than there are ranks."""
        images, _ = small_model.samples(1, seed=2)
        path = self.folder / "one.safetensors"
        safetensors_io.write(path, {"x": images[:, None]})
        for ranks in (1, 4):
            with self.subTest(ranks=ranks):
                _, rows = self.infer(ranks, path, "one.csv")
                self.assertEqual(len(rows), 1)


if __name__ == "__main__":
    tap.main()
