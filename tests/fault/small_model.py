"""A small model with everything that inference must get right, and data that it learns at once."""

import gzip
import struct

import numpy as np

CLASSES = 3
TRAIN_SAMPLES = 90
TEST_SAMPLES = 37  # leaves a short last micro-batch at every size used here

# Batch normalisation and dropout behave otherwise in evaluation; the sum makes a stage pass on what
# it has no use for.
LAYERS = """name: small
input: {shape: [1, 8, 8], mean: [0.4], std: [0.3]}
layers:
  - {name: conv1, kind: conv2d, features: 4, kernel: 3, padding: 1, bias: off}
  - {name: bn1, kind: batch-norm}
  - {name: relu1, kind: relu}
  - {name: conv2, kind: conv2d, features: 4, kernel: 3, padding: 1}
  - {name: sum, kind: add, inputs: [conv2, relu1]}
  - {name: relu2, kind: relu}
  - {name: pool, kind: max-pool, kernel: 2}
  - {name: flat, kind: flatten}
  - {name: drop, kind: dropout, p: 0.2}
  - {name: fc, kind: linear, features: 3}
loss: {kind: cross-entropy}
"""

CUTS = """cuts:
  2: [conv2]
  4: [bn1, conv2, pool]
"""

SHAPES = {
    "conv1.weight": (4, 1, 3, 3),
    "bn1.weight": (4,),
    "bn1.bias": (4,),
    "bn1.running_mean": (4,),
    "bn1.running_var": (4,),
    "conv2.weight": (4, 4, 3, 3),
    "conv2.bias": (4,),
    "fc.weight": (3, 64),
    "fc.bias": (3,),
}
NAMES = LAYERS.split("name: ")[2:]
NAMES = [text.split(",")[0] for text in NAMES]


def samples(count, seed):
    """(images u8 (count, 8, 8), labels): a bright bar whose place tells the class, and noise."""
    numbers = np.random.default_rng(seed)
    labels = numbers.integers(0, CLASSES, count, np.uint8)
    images = numbers.integers(0, 120, (count, 8, 8), np.uint8)
    for image, label in zip(images, labels):
        image[:, 2 * label + 1] = numbers.integers(100, 256, 8)
    return images, labels


def idx(array):
    """The bytes of an IDX file."""
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write(folder):
    """small.yaml and a folder of IDX files, one of them packed."""
    data = folder / "data"
    data.mkdir()
    for split, count, seed in (("train", TRAIN_SAMPLES, 1), ("t10k", TEST_SAMPLES, 2)):
        images, labels = samples(count, seed)
        (data / f"{split}-images-idx3-ubyte").write_bytes(idx(images))
        (data / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    train = f"train: {{dataset: idx, data: {data}, batch: 16, micro-batch: 8, epochs: 2}}\n"
    (folder / "small.yaml").write_text(LAYERS + CUTS + train)
    return folder / "small.yaml"
