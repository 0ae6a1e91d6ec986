#!/usr/bin/env python3
"""Makes the golden values of tests/train/test_golden.py with PyTorch.

    apt-get install python3-torch python3-numpy dataset-fashion-mnist
    /usr/bin/python3 tests/train/golden/make_golden.py

LeNet-5 and WRN-10-1 as in partitions/, trained for ten steps of sixteen samples on the first images
of Fashion-MNIST, in order, by SGD with momentum, in float32 on one thread. Each FILE.safetensors
holds

    init.LAYER.weight …     weights to start from (PyTorch's own initialisation, seed 0)
    final.LAYER.weight …    weights and running statistics after the last step
    losses                  the loss of every step

and for LeNet-5 also nesterov.LAYER.weight … and nesterov-losses. The settings stand in the files'
metadata, where the test reads them. Made with PyTorch 1.13.1.

The script also runs everything in double precision and prints how far float32 strayed from it: the
tolerances of the test are a few times these numbers.
"""

import gzip
import pathlib
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import safetensors_io  # noqa: E402  (its folder had to be found first)

DATA = pathlib.Path("/usr/share/datasets/fashion-mnist")
MEAN, STD = 0.2860, 0.3530
# WRN-10-1 learns slowly here on purpose. The background of these images is one flat area, so that a
# rounding error can push hundreds of equal activations across the kink of a ReLU at once: at a rate
# of 0.05 float32 and double differ by a quarter of the way that the weights went in ten steps, and
# a comparison would prove little; at this rate it is one percent.
SETTINGS = {
    "lenet5": {"steps": 10, "batch": 16, "lr": 0.05, "momentum": 0.9, "weight-decay": 0.0005},
    "wrn-10-1": {"steps": 10, "batch": 16, "lr": 0.002, "momentum": 0.9, "weight-decay": 0.0005},
}


class LeNet5(nn.Module):
    """partitions/lenet5.yaml"""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(x.flatten(1)))
        return self.fc3(functional.relu(self.fc2(x)))


class Block(nn.Module):
    """Pre-activation residual block; where the shape changes, a 1x1 convolution of the activated
    input is the shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = None
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        activated = functional.relu(self.bn1(x))
        y = self.conv2(functional.relu(self.bn2(self.conv1(activated))))
        return y + (self.shortcut(activated) if self.shortcut else x)


class WideResNet10(nn.Module):
    """partitions/wrn-10-1.yaml"""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.group1 = nn.Sequential(Block(16, 16, 1))
        self.group2 = nn.Sequential(Block(16, 32, 2))
        self.group3 = nn.Sequential(Block(32, 64, 2))
        self.bn1 = nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.group3(self.group2(self.group1(self.conv1(x))))
        return self.fc(functional.relu(self.bn1(x)).mean((2, 3)))


def read_idx(name, header):
    with gzip.open(DATA / name) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def read_data(count):
    """The first images, normalised, and their labels."""
    images = read_idx("train-images-idx3-ubyte.gz", 16)[: count * 784].reshape(count, 1, 28, 28)
    labels = read_idx("train-labels-idx1-ubyte.gz", 8)[:count]
    pixels = (images.astype(np.float32) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64))


def new_model(kind, dtype):
    torch.manual_seed(0)
    return kind().to(dtype)


def train(kind, settings, nesterov, dtype=torch.float32):
    """Returns (losses, tensors after the last step)."""
    model = new_model(kind, dtype)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings["lr"],
        momentum=settings["momentum"],
        weight_decay=settings["weight-decay"],
        nesterov=nesterov,
    )
    batch = settings["batch"]
    images, labels = read_data(settings["steps"] * batch)
    losses = []
    for first in range(0, len(labels), batch):
        output = model(images[first : first + batch].to(dtype))
        loss = functional.cross_entropy(output, labels[first : first + batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses, np.float32), tensors_of(model)


def tensors_of(model):
    """Weights and running statistics by name, without PyTorch's batch counters."""
    return {
        name: tensor.detach().to(torch.float32).numpy().copy()
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def report(name, initial, single, double):
    """Prints how far float32 is from double, in the measures of test_golden.py."""
    losses = np.abs(single[0] - double[0])
    moved = [
        np.linalg.norm(single[1][key] - double[1][key])
        / np.linalg.norm(single[1][key] - initial[key])
        for key in initial
    ]
    print(f"{name}: losses of the first three steps {losses[:3].max():.1e}, of all")
    print(f"    {losses.max():.1e}, tensors by the way that they went {max(moved):.1e}")


def make(name, kind, variants):
    settings = SETTINGS[name]
    initial = tensors_of(new_model(kind, torch.float32))
    tensors = {f"init.{key}": value for key, value in initial.items()}
    for prefix, losses_name, nesterov in variants:
        single = train(kind, settings, nesterov)
        double = train(kind, settings, nesterov, torch.float64)
        report(f"{name} {prefix}", initial, single, double)
        tensors.update({f"{prefix}.{key}": value for key, value in single[1].items()})
        tensors[losses_name] = single[0]
    safetensors_io.write(HERE / f"{name}.safetensors", tensors, settings)


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    plain, nesterov = ("final", "losses", False), ("nesterov", "nesterov-losses", True)
    make("lenet5", LeNet5, (plain, nesterov))
    make("wrn-10-1", WideResNet10, (plain,))


if __name__ == "__main__":
    main()
