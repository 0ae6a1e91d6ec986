#!/usr/bin/env python3
"""ResNet-50 and WRN-28-10 in PyTorch, trained on made-up images that lie on the device: what
tools/gpu-check compares pipetrain's speed with. Prints one JSON object for each mode, as soon as it
is measured.

Everything that makes PyTorch fast without touching the model is on: channels-last, cuDNN's own
search for algorithms, TF32 or autocast to bf16, `set_to_none`. No image is loaded or copied.
With --stretches=0 nothing is measured: that fills the cache of torch.compile.

ResNet-50: K. He et al., "Deep residual learning for image recognition", CVPR 2016, with the stride
in the 3x3 convolution, as torchvision has it. WRN-28-10: S. Zagoruyko, N. Komodakis, "Wide residual
networks", BMVC 2016, for 10 classes.
"""

import argparse
import gc
import json
import sys
import time

BEGIN = time.perf_counter()

import torch
from torch import nn
from torch.nn import functional


def conv(inputs, outputs, kernel, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Bottleneck(nn.Module):
    """relu( x' + bn(1x1(relu(bn(3x3(relu(bn(1x1(x)))))))) ), x' = x or bn(1x1(x))"""

    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.skip = None
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += x if self.skip is None else self.skip(x)
        return functional.relu(y, inplace=True)


def resnet_50():
    layers = [conv(3, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            layers.append(Bottleneck(inputs, width, stride if block == 0 else 1))
            inputs = 4 * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000)]
    return nn.Sequential(*layers)


class WideBlock(nn.Module):
    """z = relu(bn(x));  x' + 3x3(relu(bn(3x3(z)))), x' = x or 1x1(z)"""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs, 3)
        self.skip = conv(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, x):
        z = functional.relu(self.bn1(x), inplace=True)
        y = functional.relu(self.bn2(self.conv1(z)), inplace=True)
        return self.conv2(y) + (x if self.skip is None else self.skip(z))


def wrn_28_10():
    layers, inputs = [conv(3, 16, 3)], 16
    for outputs, stride in ((160, 1), (320, 2), (640, 2)):
        for block in range(4):
            layers.append(WideBlock(inputs, outputs, stride if block == 0 else 1))
            inputs = outputs
    layers += [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1),
               nn.Flatten(), nn.Linear(inputs, 10)]
    return nn.Sequential(*layers)


# name -> maker, parameters, image, classes
MODELS = {
    "resnet-50": (resnet_50, 25_557_032, (3, 224, 224), 1000),
    "wrn-28-10": (wrn_28_10, 36_479_194, (3, 32, 32), 10),
}


def make(name):
    """The model; ends the program when it has not the number of parameters that it must have."""
    maker, wanted, _, _ = MODELS[name]
    model = maker()
    found = sum(parameter.numel() for parameter in model.parameters())
    if found != wanted:
        sys.exit(f"{name}: {found} parameters, there must be {wanted}")
    return model


def trainer(options, mode, model):
    """A function that trains one step on the same images and returns the loss, unread."""
    _, _, image, classes = MODELS[options.model]
    image = (image[0], options.size or image[1], options.size or image[2])
    x = torch.randn(options.batch, *image, device=options.device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.randint(classes, (options.batch,), device=options.device)
    rule = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    network = torch.compile(model) if mode == "compile" else model

    def step():
        rule.zero_grad(set_to_none=True)
        with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16"):
            loss = functional.cross_entropy(network(x), y)
        loss.backward()
        rule.step()
        return loss

    return step


def measure(options, step):
    """Seconds of the first step, images a second of every stretch, and the last loss."""
    def wait():
        if options.device == "cuda":
            torch.cuda.synchronize()

    begin = time.perf_counter()
    loss = step()
    wait()
    first_s = time.perf_counter() - begin
    for _ in range(options.warm_up - 1):
        loss = step()
    rates = []
    for _ in range(options.stretches):
        wait()
        begin = time.perf_counter()
        for _ in range(options.stretch):
            loss = step()
        wait()
        rates.append(options.batch * options.stretch / (time.perf_counter() - begin))
    return first_s, rates, loss.item()


def run(options, mode):
    """Makes the model anew and measures it; the result as a dictionary. What it took of the device
    is free again afterwards."""
    torch.manual_seed(1)
    model = make(options.model).to(options.device, memory_format=torch.channels_last).train()
    try:
        first_s, rates, loss = measure(options, trainer(options, mode, model))
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        sys.exit(f"{mode}: out of memory with a batch of {options.batch}")
    if loss != loss:
        sys.exit(f"{mode}: the loss is not a number")
    return {"mode": mode, "images_per_s": rates, "loss": loss, "batch": options.batch,
            "precision": options.precision, "first_step_s": first_s}


def set_up(options):
    torch.backends.cudnn.benchmark = True
    tf32 = options.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    if "compile" in options.modes:
        if not hasattr(torch, "compile"):
            sys.exit(f"PyTorch {torch.__version__} has no torch.compile; 2.0 and later have it")
        # Kernels that are chosen by timing them are chosen here, by each process for itself: one
        # that only fills the cache shares the device, and its timings would mislead.
        import torch._inductor.config as inductor
        if hasattr(inductor, "autotune_local_cache"):
            inductor.autotune_local_cache = False


def modes(text):
    found = text.split(",")
    if not found or len(set(found)) < len(found) or set(found) - {"eager", "compile"}:
        raise argparse.ArgumentTypeError("eager, compile, or eager,compile")
    return found


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="bf16")
    parser.add_argument("--modes", type=modes, default=["eager"], metavar="eager,compile",
                        help="one after the other")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--warm-up", type=int, default=10, help="steps that are not counted, ≥ 1")
    parser.add_argument("--stretches", type=int, default=5)
    parser.add_argument("--stretch", type=int, default=8, help="steps of a stretch")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", type=int, help="height and width of images, for tests")
    return parser.parse_args()


def main():
    options = parse()
    set_up(options)
    facts = {
        "import_s": time.perf_counter() - BEGIN, "pytorch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
    }
    for mode in options.modes:
        print(json.dumps({**run(options, mode), **facts}), flush=True)
        gc.collect()
        if options.device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
