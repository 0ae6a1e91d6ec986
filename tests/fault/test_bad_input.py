#!/usr/bin/env python3
"""Whatever is wrong with the input is found before training and said once.

On one rank and on two: exit status 2, nothing on stdout, and on stderr one line, which names the
option or the file and line, and what to write instead. mpirun's own words are left aside.
"""

import concurrent.futures
import dataclasses
import gzip
import pathlib
import re
import tempfile
import unittest

import launch  # first: it finds the modules below
import numpy as np
import program
import safetensors_io
import small_model
import tap

# Runs at a time. Each waits most of its time for mpirun, which takes a second to end a job whose
# exit status is not 0.
AT_ONCE = 6

SMALL = """name: small
input: {shape: [1, 8, 8]}
layers:
  - {name: conv1, kind: conv2d, features: 4, kernel: 3}
  - {name: relu1, kind: relu}
  - {name: flat, kind: flatten}
  - {name: fc1, kind: linear, features: 6}
  - {name: fc2, kind: linear, features: 3}
loss: {kind: cross-entropy}
cuts:
  2: [flat]
  3: [relu1, fc1]
train:
  dataset: synthetic
  samples: 32
  batch: 8
  epochs: 1
"""

VECTOR = """name: vector
input: {shape: [4]}
layers:
  - {name: fc1, kind: linear, features: 3}
loss: {kind: cross-entropy}
train: {dataset: synthetic, samples: 32, batch: 8, epochs: 1}
"""

COLOUR = """name: colour
input: {shape: [3, 32, 32]}
layers:
  - {name: pool, kind: global-avg-pool}
  - {name: flat, kind: flatten}
  - {name: fc1, kind: linear, features: 3}
loss: {kind: cross-entropy}
train: {batch: 8, epochs: 1}
"""


@dataclasses.dataclass
class Case:
    """One bad input: its command line, with {} for the folder of all files, and what the message
    must contain (regular expressions, with {} too)."""

    name: str
    arguments: str
    expects: list
    ranks: tuple = (1, 2)


# What is wrong in a partition file: (name, what is replaced in SMALL, by what, expected words). The
# message must name the line in which the replacement begins.
IN_THE_FILE = [
    ("unknown section", "cuts:", "cutz:", ["unknown key 'cutz'", "did you mean 'cuts'"]),
    ("unknown key of the input", "shape:", "shapes:", ["'shapes'", "did you mean 'shape'"]),
    ("unknown key of a layer", "kernel: 3", "kernal: 3", ["'kernal'", "did you mean 'kernel'"]),
    ("unknown key of the loss", "{kind: cross", "{kin: cross", ["'kin'", "did you mean 'kind'"]),
    ("unknown key of train", "epochs: 1", "epoch: 1", ["epoch", "did you mean .*epochs"]),
    ("option not for files", "epochs: 1", "infer: test", ["infer", "command line"]),
    ("unknown kind of layer", "kind: relu", "kind: reluu", ["'reluu'", "did you mean 'relu'"]),
    ("unknown loss", "cross-entropy", "cross-entropi", ["did you mean 'cross-entropy'"]),
    ("unknown dataset", "synthetic", "synthetik", ["synthetik", "did you mean .*synthetic"]),
    ("a word for a number", "features: 4", "features: many", ["features", "number", "'many'"]),
    ("a number for a list", "[1, 8, 8]", "8", ["'shape'", "list"]),
    ("a list for a number", "kernel: 3", "kernel: [1, 2, 3]", ["kernel", "pair"]),
    ("a text for a mapping", "{kind: cross-entropy}", "cross-entropy", ["'loss'", "mapping"]),
    ("a word for a number of train", "batch: 8", "batch: few", ["batch", "few", "number"]),
    ("a fraction", "epochs: 1", "epochs: 1.5", ["epochs", "1.5", "whole number"]),
    ("too small", "features: 4", "features: 0", ["features", "from 1"]),
    ("too large", "[1, 8, 8]", "[1, 8, 80000000]", ["'shape'", "from 1 to"]),
    ("too small in train", "batch: 8", "batch: 0", ["batch", "between 1 and"]),
    ("unknown choice in train", "epochs: 1", "schedule: 1f2b", ["1f2b", "1f1b"]),
    ("kernel larger than image", "kernel: 3", "kernel: 11", ["conv1", "11"]),
    ("linear on an image", "kind: flatten", "kind: relu", ["flatten"], "- {name: fc1"),
    (
        "sum of different shapes",
        "{name: fc2, kind: linear, features: 3}",
        "{name: sum, kind: add, inputs: [fc1, flat]}",
        ["sum"],
    ),
    (
        "answers are an image",
        "  - {name: flat, kind: flatten}\n  - {name: fc1, kind: linear, features: 6}\n"
        "  - {name: fc2, kind: linear, features: 3}\n",
        "  - {name: pool, kind: max-pool, kernel: 2}\n",
        ["'pool'", "cross-entropy", "linear"],
    ),
    ("input of another name", "kind: relu}", "kind: relu, inputs: [conv2]}", ["'conv2'", "conv1"]),
    (
        "layer feeds nothing",
        "kind: relu}",
        "kind: relu, inputs: [input]}",
        ["'conv1'"],
        "{name: conv1",
    ),
    ("name twice", "name: relu1", "name:  conv1", ["'conv1'", "line 4"]),
    ("layer without name", "{name: flat, kind", "{kind", ["name"]),
    ("layer without kind", ", kind: relu}", "}", ["kind"], "- {name: relu1"),
    ("no YAML", "[1, 8, 8]}", "[1, 8, 8}", []),
    ("cut drops a layer", "2: [flat]", "2: [conv1]", ["drops", "'conv1'"]),
    ("cut drops a stage", "3: [relu1, fc1]", "3: [relu1]", ["drops", "needs 2 entries"]),
    ("cut doubles a layer", "3: [relu1, fc1]", "3: [relu1, relu1]", ["doubles", "'relu1'"]),
    ("cut has an entry too many", "2: [flat]", "2: [flat, fc1]", ["needs 1 entr"]),
    ("cut reorders", "3: [relu1, fc1]", "3: [fc1, relu1]", ["reorders", "'relu1'"]),
    ("cut names no layer", "2: [flat]", "2: [flatt]", ["'flatt'", "did you mean 'flat'"]),
    (
        "cut has more stages than layers",
        "2: [flat]",
        "6: [relu1, flat, fc1, fc2, fc2]",
        ["6 stages", "5 layers"],
    ),
    ("two cuts for one number", "3: [relu1, fc1]", "2: [relu1]", ["2"]),
]
ON_THE_COMMAND_LINE = [
    Case("unknown option", "--lrr=3", ["--lrr", "did you mean --lr"]),
    Case("unknown option, nothing near", "--xyzzy", ["--xyzzy", "--help"]),
    Case("no value", "{}/small.yaml --lr", ["--lr", "RATE"]),
    Case("value for a flag", "{}/small.yaml --stash=3", ["--stash"]),
    Case("two partition files", "{}/small.yaml {}/vector.yaml", ["vector.yaml"]),
    Case("no number", "{}/small.yaml --lr=abc", ["--lr", "abc", "number"]),
    Case("number with a tail", "{}/small.yaml --batch=8x", ["--batch", "8x", "number"]),
    Case("fraction", "{}/small.yaml --epochs=1.5", ["--epochs", "1.5", "whole number"]),
    Case("negative rate", "{}/small.yaml --lr=-1", ["--lr", "between 0 and"]),
    Case("no rate", "{}/small.yaml --lr=nan", ["--lr", "nan"]),
    Case("empty batch", "{}/small.yaml --batch=0", ["--batch", "between 1 and"]),
    Case("too many threads", "{}/small.yaml --threads=100000", ["--threads", "between 1 and"]),
    Case("number beyond all", "{}/small.yaml --steps=99999999999999999999", ["--steps"]),
    Case("unknown schedule", "{}/small.yaml --schedule=1f2b", ["--schedule", "1f1b"]),
    Case("unknown optimizer", "{}/small.yaml --optimizer=sgdd", ["--optimizer", "sgd"]),
    Case("unknown backend", "{}/small.yaml --backend=abacus", ["--backend", "ref"]),
    Case("unknown dataset", "{}/small.yaml --dataset=arrayz", ["did you mean .*arrays"]),
    Case("no partition file", "{}/absent.yaml", ["{}/absent.yaml", "no such file"]),
    Case("folder for a partition file", "{}/cifar", ["{}/cifar"]),
    Case("empty partition file", "{}/empty.yaml", ["{}/empty.yaml", "empty"]),
    Case("bytes for a partition file", "{}/bytes.yaml", ["{}/bytes.yaml:1", "UTF-8"]),
    Case(
        "batch is not M x b",
        "{}/small.yaml --batch=10 --micro-batch=5 --accumulate=3",
        ["--batch 10", "--accumulate 3", "--micro-batch 5", "15"],
    ),
    Case(
        "batch cannot be divided",
        "{}/small.yaml --batch=10 --accumulate=3",
        ["--batch 10", "--accumulate 3", "--micro-batch"],
    ),
    Case(
        "micro-batch larger than batch",
        "{}/small.yaml --batch=8 --micro-batch=16",
        ["--micro-batch 16", "--batch 8"],
    ),
    Case("clip in async", "{}/small.yaml --schedule=async --clip=1", ["--clip", "1f1b"]),
    Case(
        "msnag with nesterov",
        "{}/small.yaml --schedule=async --predict=msnag --optimizer=nesterov",
        ["msnag", "nesterov", "--optimizer sgd", "--predict none"],
    ),
    Case(
        "spectrain with adam",
        "{}/small.yaml --schedule=async --predict=spectrain --optimizer=adam",
        ["spectrain", "--optimizer sgd", "--predict msnag"],
    ),
    Case(
        "msnag with nadam-async",
        "{}/small.yaml --schedule=async --predict=msnag --optimizer=nadam-async",
        ["msnag", "nadam-async", "--predict none", "--optimizer adamw"],
    ),
    Case(
        "pipemare-lr in 1f1b",
        "{}/small.yaml --schedule=1f1b --pipemare-lr=2",
        ["--pipemare-lr", "--schedule async"],
    ),
    Case(
        "sync-epochs in gpipe",
        "{}/small.yaml --schedule=gpipe --sync-epochs=2",
        ["--sync-epochs", "gpipe", "--schedule async"],
    ),
    Case(
        "sync-epochs to the end",
        "{}/small.yaml --epochs=3 --sync-epochs=3",
        ["--sync-epochs 3", "3 epochs", "--schedule 1f1b"],
    ),
    Case(
        "sync-epochs of few steps",
        "{}/small.yaml --steps=8 --sync-epochs=2",
        ["--sync-epochs 2", "2 epochs", "more --epochs"],
    ),
    Case(
        "sync-epochs and no training",
        "{}/small.yaml --check-gradients --sync-epochs=2",
        ["--sync-epochs", "training or --check"],
    ),
    Case(
        "gap-every beyond the epoch",
        "{}/small.yaml --micro-batch=4 --gap-every=9",
        ["--gap-every 9", "8 micro-batches", "at most --gap-every 8"],
    ),
    Case(
        "gap-every of nothing computed",
        "{}/small.yaml --backend=clock --clock=times.csv --gap-every=2",
        ["--gap-every", "computes nothing"],
    ),
    Case(
        "gap-every and no training",
        "{}/small.yaml --check-gradients --gap-every=2",
        ["--gap-every", "training or --check"],
    ),
    Case(
        "2bw with too few micro-batches",
        "{}/small.yaml --check --stages=3 --schedule=async --batch=4 --micro-batch=4 --2bw",
        ["--2bw", "--accumulate 2", "--stash"],
    ),
    Case("2bw in 1f1b", "{}/small.yaml --schedule=1f1b --2bw", ["--2bw", "--schedule async"]),
    Case("2bw with stash", "{}/small.yaml --schedule=async --2bw --stash", ["--2bw", "--stash"]),
    Case(
        "2bw with msnag",
        "{}/small.yaml --schedule=async --2bw --predict=msnag",
        ["--2bw", "--predict none"],
    ),
    Case(
        "aggmsnag with one micro-batch a step",
        "{}/small.yaml --schedule=async --predict=aggmsnag --batch=8",
        ["aggmsnag", "--predict msnag", "--accumulate"],
    ),
    Case(
        "FTPipe's msnag with sgd",
        "{}/small.yaml --schedule=async --predict=msnag-ftpipe",
        ["msnag-ftpipe", "--optimizer adam", "--predict msnag"],
    ),
    Case(
        "gap-aware with adam",
        "{}/small.yaml --schedule=async --optimizer=adam --gap-aware",
        ["--gap-aware", "--optimizer sgd"],
    ),
    Case(
        "momentum of adam",
        "{}/small.yaml --optimizer=adamw --momentum=0.5",
        ["--momentum", "--optimizer sgd", "--beta1"],
    ),
    Case("betas of sgd", "{}/small.yaml --optimizer=sgd --beta2=0.5", ["--beta2", "adam"]),
    Case(
        "nesterov-last in 1f1b",
        "{}/small.yaml --schedule=1f1b --nesterov-last",
        ["--nesterov-last", "--schedule async", "--optimizer sgd"],
    ),
    Case(
        "nesterov-last with adam",
        "{}/small.yaml --schedule=async --optimizer=adam --nesterov-last",
        ["--nesterov-last", "--schedule async", "--optimizer sgd"],
    ),
    Case(
        "coupled decay foreseen too far",
        "{}/small.yaml --check --stages=2 --schedule=async --predict=msnag --optimizer=adam "
        "--weight-decay=0.1 --batch=1 --in-flight=80 --dataset=synthetic --samples=200",
        ["64", "--optimizer adamw", "--weight-decay 0", "--in-flight"],
    ),
    Case(
        "prediction in 1f1b",
        "{}/small.yaml --schedule=1f1b --predict=msnag",
        ["--predict msnag", "--schedule async"],
    ),
    Case("stash in gpipe", "{}/small.yaml --schedule=gpipe --stash", ["--stash", "async"]),
    Case("in-flight in 1f1b", "{}/small.yaml --schedule=1f1b --in-flight=2", ["async"]),
    Case(
        "recompute: no such layer",
        "{}/small.yaml --recompute=relu1,fc3",
        ["--recompute", "'fc3'", "did you mean 'fc1'"],
    ),
    Case(
        "recompute: nothing like a layer",
        "{}/small.yaml --recompute=norm.*",
        ["--recompute", "'norm.\\*'", "none, all, or", "conv1, relu1, flat, fc1, fc2"],
    ),
    Case("recompute: a comma too many", "{}/small.yaml --recompute=conv1,,fc1", ["no layer ''"]),
    Case(
        "recompute: what the loss reads",
        "{}/small.yaml --recompute=fc2",
        ["--recompute fc2", "loss", "leave --recompute out"],
    ),
    Case("debug: no such rank", "{}/small.yaml --debug=2", ["--debug=2", "--debug=0"]),
    Case("debug: no rank", "{}/small.yaml --debug=x", ["--debug=x", "--debug=0"]),
    Case("debug: negative", "{}/small.yaml --debug=-1", ["--debug=-1", "--debug=0"]),
    Case("debug: a gap", "{}/small.yaml --debug=0,,0", ["--debug=0,,0", "--debug=0"]),
    Case("fail-at: no such rank", "{}/small.yaml --fail-at=2", ["--fail-at"]),
    Case(
        "milestones missing",
        "{}/small.yaml --lr-schedule=milestones",
        ["--milestones", "such as"],
    ),
    Case(
        "milestones that descend",
        "{}/small.yaml --lr-schedule=milestones --milestones=3,2",
        ["--milestones", "ascend"],
    ),
    Case(
        "milestones that are no numbers",
        "{}/small.yaml --lr-schedule=milestones --milestones=early",
        ["--milestones", "early", "such as"],
    ),
    Case("flip of a vector", "{}/vector.yaml --flip=on", ["--flip", "vector"], ranks=(1,)),
    Case("more ranks than layers", "{}/vector.yaml", ["2 (stages|ranks)", "1 layer"], ranks=(2,)),
    Case(
        "check of more stages than layers",
        "{}/small.yaml --check --stages=6",
        ["6 stages", "5 layers"],
        ranks=(1,),
    ),
    Case("infer without weights", "{}/small.yaml --infer=test --out={}/o.csv", ["--weights"]),
    Case("infer without out", "{}/small.yaml --infer=test --weights={}/good", ["--out"]),
    Case("weights without infer", "{}/small.yaml --weights={}/good", ["--init"]),
    Case("out without infer", "{}/small.yaml --out={}/o.csv", ["--infer"]),
]

INFER = "{}/small.yaml --infer={}/x.safetensors --out={}/o.csv"
ON_DISK = [
    Case("no such weights", INFER + " --weights={}/absent", ["{}/absent"]),
    Case("no weights in a folder", INFER + " --weights={}/cifar", ["{}/cifar", "safetensors"]),
    Case("weights of another model", INFER + " --weights={}/other", ["{}/other", "conv1|fc1"]),
    Case("weights of another shape", INFER + " --weights={}/shape", ["{}/shape", "fc1"]),
    Case("truncated weights", INFER + " --weights={}/cut.safetensors", ["{}/cut.safetensors"]),
    Case("weights that are none", INFER + " --weights={}/small.yaml", ["{}/small.yaml"]),
    Case("init of another shape", "{}/small.yaml --init={}/shape", ["{}/shape", "fc1"]),
    Case("init of another model", "{}/small.yaml --init={}/other", ["{}/other"]),
    Case("no such init", "{}/small.yaml --init={}/absent", ["{}/absent"]),
    Case(
        "no such input",
        "{}/small.yaml --infer={}/absent --out={}/o.csv --weights={}/good",
        ["{}/absent", "safetensors", "IDX"],
    ),
    Case(
        "input of another shape",
        "{}/small.yaml --infer={}/flat.safetensors --out={}/o.csv --weights={}/good",
        ["{}/flat.safetensors", r"\(1, 8, 8\)"],
    ),
    Case(
        "input without x",
        "{}/small.yaml --infer={}/only-y.safetensors --out={}/o.csv --weights={}/good",
        ["{}/only-y.safetensors", r"\bx\b"],
    ),
    Case(
        "input that is neither",
        "{}/small.yaml --infer={}/small.yaml --out={}/o.csv --weights={}/good",
        ["{}/small.yaml", "IDX"],
    ),
    *(
        Case(
            f"{option} cannot be written",
            f"{{}}/small.yaml --{option}={{}}/small.yaml/x",
            [f"--{option}|directory", "{}/small.yaml"],
        )
        for option in ("log", "timing", "trace", "summary", "save", "plan-out")
    ),
    *(
        Case(
            f"{option} in no folder",
            f"{{}}/small.yaml --{option}={{}}/absent/x",
            [f"--{option}", "{}/absent"],
        )
        for option in ("log", "timing", "trace", "summary", "plan-out")
    ),
    *(
        Case(f"two outputs in one file: {name}", f"{{}}/small.yaml {words}", expects)
        for name, words, expects in [
            ("by name", "--log={}/o.csv --summary={}/o.csv", ["--log {}/o.csv and --summary {}/o"]),
            ("dots", "--timing=./no-o --trace=no-o", ["--timing ./no-o and --trace no-o are one"]),
            ("by link", "--trace={}/small.yaml --clock-out={}/linked", ["--clock-out .* --trace"]),
            ("checked", "--check --plan-out={}/o.csv --schedule-out={}/o.csv", ["--plan-out .*one"]),
        ]
    ),
    Case("save to a file", "{}/small.yaml --save={}/program", ["--save {}/program", "directory"]),
    Case("save nowhere", "{}/small.yaml --save=", ["--save", "directory"]),
    Case(
        "out cannot be written",
        "{}/small.yaml --infer={}/x.safetensors --weights={}/good --out={}/absent/x",
        ["--out", "{}/absent"],
    ),
    Case("no data there", "{}/small.yaml --dataset=idx --data={}/absent", ["{}/absent", "--data"]),
    Case("where is the data", "{}/small.yaml --dataset=idx", ["--data DIR"]),
    Case("where are the arrays", "{}/small.yaml --dataset=arrays", ["--data PATH"]),
    Case("no CIFAR", "{}/colour.yaml --dataset=cifar100 --data={}/cifar", ["train.bin", "--data"]),
    *(
        Case(name, f"{{}}/small.yaml --dataset=idx --data={{}}/{folder}", expects)
        for name, folder, expects in [
            ("truncated, gz", "idx-gz", ["{}/idx-gz/train-images-idx3-ubyte.gz:", "truncated"]),
            ("truncated", "idx-plain", ["{}/idx-plain/train-images-idx3-ubyte:", "truncated"]),
            ("truncated labels", "idx-labels", ["{}/idx-labels/train-labels-idx1", "truncated"]),
            ("truncated header", "idx-header", ["{}/idx-header/train-images-idx3", "truncated"]),
            ("images that are none", "idx-magic", ["{}/idx-magic/train-images-idx3", "IDX"]),
            ("images damaged", "idx-damaged", ["{}/idx-damaged/train-images.*gz", "damaged"]),
            ("images of another size", "idx-size", ["{}/idx-size/train-im", "4x4", r"\(1, 8, 8\)"]),
            ("a label too few", "idx-count", ["{}/idx-count/train-images", "train-labels", "15"]),
            ("label out of range", "idx-range", ["{}/idx-range/train-l", "sample 3", "0 … 2"]),
            ("no samples", "idx-empty", ["{}/idx-empty/train-images", "no samples"]),
            ("no test set", "idx-no-test", ["{}/idx-no-test/t10k-images"]),
        ]
    ),
    *(
        Case(name, f"{{}}/colour.yaml --dataset=cifar10 --data={{}}/{folder}", expects)
        for name, folder, expects in [
            ("truncated CIFAR", "cifar", ["{}/cifar/data_batch_5.bin", "truncated"]),
            ("CIFAR label out of range", "cifar-range", ["{}/cifar-range/data_batch_1", "0 … 2"]),
        ]
    ),
    Case("CIFAR for small images", "{}/small.yaml --dataset=cifar10 --data={}/cifar", ["3x32x32"]),
    *(
        Case(name, f"{{}}/small.yaml --dataset=arrays --data={{}}/{file}.safetensors", expects)
        for name, file, expects in [
            ("truncated arrays", "cut", ["{}/cut.safetensors"]),
            ("arrays cut in the header", "cut-header", ["{}/cut-header.safetensors"]),
            ("arrays without x", "only-y", ["{}/only-y.safetensors", "missing", r"as x\b"]),
            ("arrays without y", "x", ["{}/x.safetensors", "missing", r"as y\b"]),
            ("arrays of another shape", "flat", ["{}/flat.safetensors", r"\(1, 8, 8\)"]),
            ("arrays with too few y", "few-y", ["{}/few-y.safetensors", "16", "15"]),
            ("arrays label out of range", "range", ["{}/range.safetensors", "sample 5", "0 … 2"]),
            ("arrays with NaN", "nan", ["{}/nan.safetensors", "not a number"]),
            ("arrays with float classes", "float-y", ["{}/float-y.safetensors", "mse"]),
            ("arrays that are no arrays", "text", ["{}/text.safetensors"]),
        ]
    ),
]


def write_idx(folder, packed=False, images=None, labels=None, edit_images=None, edit_labels=None):
    """A folder of IDX files, as they should be but for what is given."""
    if images is None:
        images = np.arange(16 * 64, dtype=np.uint8).reshape(16, 8, 8)
    if labels is None:
        labels = np.arange(16, dtype=np.uint8) % 3
    folder.mkdir()
    for split in ("train", "t10k"):
        for kind, array, edit in (
            ("images-idx3", images, edit_images),
            ("labels-idx1", labels, edit_labels),
        ):
            blob = small_model.idx(array)
            blob = gzip.compress(blob) if packed else blob
            if edit and split == "train":
                blob = edit(blob)
            (folder / f"{split}-{kind}-ubyte{'.gz' if packed else ''}").write_bytes(blob)


def write_idx_folders(root):
    def flip(blob):
        """Another byte in the middle, past the header of gzip."""
        at = len(blob) // 2
        return blob[:at] + bytes([blob[at] ^ 0xFF]) + blob[at + 1 :]

    wrong = np.arange(16, dtype=np.uint8) % 3
    wrong[3] = 3
    write_idx(root / "idx-gz", packed=True, edit_images=lambda blob: blob[: len(blob) // 2])
    write_idx(root / "idx-plain", edit_images=lambda blob: blob[:-1])
    write_idx(root / "idx-labels", edit_labels=lambda blob: blob[:-1])
    write_idx(root / "idx-header", edit_images=lambda blob: blob[:10])
    write_idx(root / "idx-magic", edit_images=lambda blob: b"GIF8" + blob[4:])
    write_idx(root / "idx-damaged", packed=True, edit_images=flip)
    write_idx(root / "idx-size", images=np.zeros((16, 4, 4), np.uint8))
    write_idx(root / "idx-count", labels=np.zeros(15, np.uint8))
    write_idx(root / "idx-range", labels=wrong)
    nothing = np.zeros((0, 8, 8), np.uint8)
    write_idx(root / "idx-empty", images=nothing, labels=np.zeros(0, np.uint8))
    write_idx(root / "idx-no-test")
    for path in (root / "idx-no-test").glob("t10k-*"):
        path.unlink()


def write_cifar(folder, label=2, missing=0):
    folder.mkdir()
    record = bytes([label]) + bytes(3 * 32 * 32)
    for batch in range(1, 6):
        blob = record * 2
        if batch == 5 and missing:
            blob = blob[:-missing]
        (folder / f"data_batch_{batch}.bin").write_bytes(blob)
    (folder / "test_batch.bin").write_bytes(record)


def write_arrays(root):
    x = np.linspace(0, 1, 16 * 64, dtype=np.float32).reshape(16, 1, 8, 8)
    y = np.arange(16, dtype=np.int64) % 3
    with_nan, out_of_range = x.copy(), y.copy()
    with_nan[7, 0, 3, 3] = np.nan
    out_of_range[5] = 3
    for name, tensors in {
        "whole": {"x": x, "y": y},
        "x": {"x": x},
        "only-y": {"y": y},
        "flat": {"x": x.reshape(16, 64)[:, :63], "y": y},
        "few-y": {"x": x, "y": y[:15]},
        "range": {"x": x, "y": out_of_range},
        "nan": {"x": with_nan, "y": y},
        "float-y": {"x": x, "y": y.astype(np.float32)},
    }.items():
        safetensors_io.write(root / f"{name}.safetensors", tensors)
    whole = (root / "whole.safetensors").read_bytes()
    (root / "cut.safetensors").write_bytes(whole[:-1])
    (root / "cut-header.safetensors").write_bytes(whole[:20])
    (root / "text.safetensors").write_text("x and y, I promise\n" * 9)


def write_weights(root):
    """good: what SMALL has; shape: fc1 has another one; other: another model's names."""
    shapes = {
        "conv1.weight": (4, 1, 3, 3),
        "conv1.bias": (4,),
        "fc1.weight": (6, 144),
        "fc1.bias": (6,),
        "fc2.weight": (3, 6),
        "fc2.bias": (3,),
    }
    variants = {
        "good": shapes,
        "shape": {**shapes, "fc1.weight": (6, 143)},
        "other": {"encoder.weight": (6, 144)},
    }
    for folder, tensors in variants.items():
        (root / folder).mkdir()
        zeros = {name: np.zeros(shape, np.float32) for name, shape in tensors.items()}
        safetensors_io.write(root / folder / "layer-000.safetensors", zeros)


def write_files(root):
    (root / "small.yaml").write_text(SMALL)
    (root / "vector.yaml").write_text(VECTOR)
    (root / "linked").symlink_to("small.yaml")
    (root / "colour.yaml").write_text(COLOUR)
    (root / "empty.yaml").write_text("")
    (root / "bytes.yaml").write_bytes(bytes(range(256)))
    (root / "program").touch(0o755)  # root may enter nothing else that is no directory
    write_idx_folders(root)
    write_cifar(root / "cifar", missing=1)
    write_cifar(root / "cifar-range", label=3)
    write_arrays(root)
    write_weights(root)


def cases_in_the_file(root):
    """Writes a partition file for each row; the cases that these make."""
    cases = []
    for number, (name, old, new, expects, *elsewhere) in enumerate(IN_THE_FILE):
        if SMALL.count(old) < 1:
            raise ValueError(f"{name}: {old!r} is not in the file")
        text = SMALL.replace(old, new, 1)
        at = text.index(elsewhere[0] if elsewhere else new)
        path = root / f"bad-{number}.yaml"
        path.write_text(text)
        line = text.count("\n", 0, at) + 1
        place = f"{re.escape(str(path))}:{line}:"
        cases.append(Case(name, str(path), [place, *expects]))
    return cases


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.root = pathlib.Path(cls.temporary.name)
        write_files(cls.root)
        cls.groups = {
            "file": cases_in_the_file(cls.root),
            "options": ON_THE_COMMAND_LINE,
            "disk": ON_DISK,
        }
        cls.pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE)
        cls.ends = {
            (group, case.name, ranks): cls.pool.submit(cls.start, case, ranks)
            for group, cases in cls.groups.items()
            for case in cases
            for ranks in case.ranks
        }

    @classmethod
    def tearDownClass(cls):
        cls.pool.shutdown()
        cls.temporary.cleanup()

    @classmethod
    def start(cls, case, ranks):
        arguments = case.arguments.replace("{}", str(cls.root)).split()
        return launch.run(ranks, *arguments)

    def judge(self, group):
        for case in self.groups[group]:
            for ranks in case.ranks:
                with self.subTest(case.name, ranks=ranks):
                    self.judge_one(case, self.ends[group, case.name, ranks].result())

    def judge_one(self, case, ended):
        self.assertEqual(ended.status, 2, ended)
        self.assertEqual(ended.out, [], f"something was started: {ended}")
        self.assertEqual(len(ended.err), 1, f"not one message: {ended}")
        self.assertTrue(ended.err[0].startswith("error: "), ended)
        for words in case.expects:
            words = words.replace("{}", re.escape(str(self.root)))
            self.assertRegex(ended.err[0], words)

    def test_partition_file(self):
        self.judge("file")

    def test_options(self):
        self.judge("options")

    def test_files(self):
        self.judge("disk")

    def test_first_rank_comes_late(self):
        """The one that speaks is not ended by the others, which have found the same."""
        late = ["sh", "-c", 'sleep 0.5 && exec "$0" "$@"', program.PROGRAM, "--bach=4"]
        command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", "1", *late,
                   ":", "-np", "2", program.PROGRAM, "--bach=4"]
        ended = launch.run(3, command=command)
        self.assertEqual(ended.status, 2, ended)
        self.assertEqual(len(ended.err), 1, ended)
        self.assertIn("--bach", ended.err[0])

    def test_nothing_was_written(self):
        """A refused run makes no file, not even those that could have been written."""
        concurrent.futures.wait(self.ends.values())
        self.assertFalse((self.root / "o.csv").exists())

    def test_that_the_rest_is_good(self):
        """What is wrong above is one thing at a time: without it, the same files run."""
        root = self.root
        for arguments in (
            [root / "small.yaml"],
            [root / "small.yaml", "--dataset=arrays", f"--data={root}/whole.safetensors"],
            [root / "small.yaml", f"--init={root}/good"],
            [root / "small.yaml", "--log=/dev/null", "--summary=/dev/null"],
            [
                root / "small.yaml",
                f"--infer={root}/x.safetensors",
                f"--weights={root}/good",
                f"--out={root}/predictions.csv",
            ],
        ):
            with self.subTest(" ".join(map(str, arguments[1:])).replace(str(root), "")):
                launch.succeed(1, *arguments)
        for name in ("idx-good", "idx-good-gz"):
            with self.subTest(name):
                write_idx(root / name, packed=name.endswith("gz"))
                launch.succeed(1, root / "small.yaml", "--dataset=idx", f"--data={root}/{name}")
        with self.subTest("cifar"):
            write_cifar(root / "cifar-good")
            data = f"--data={root}/cifar-good"
            launch.succeed(1, root / "colour.yaml", "--dataset=cifar10", data)


if __name__ == "__main__":
    tap.main()
