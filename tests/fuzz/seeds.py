#!/usr/bin/env python3
"""Writes the seeds of the binary formats into corpus/: arrays, cifar, idx, safetensors; and those of
manifests, whose checksum nobody writes by hand.

usage: tests/fuzz/seeds.py

The same bytes every time. Seeds of the text formats are written by hand. Files that a fuzzer found
lie beside them and are left alone.
"""

import gzip
import json
import pathlib
import struct
import zlib

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def safetensors(tensors, data, **metadata):
    """tensors: name -> (dtype, shape, [begin, end])."""
    header = {"__metadata__": metadata} if metadata else {}
    for name, (dtype, shape, offsets) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


def idx(*dims):
    return struct.pack(f">{1 + len(dims)}I", 0x800 + len(dims), *dims)


def packed(data):
    return gzip.compress(data, mtime=0)


def safetensors_seeds():
    weights = {
        "conv.weight": ("F32", [2, 1, 1, 2], [0, 16]),
        "conv.bias": ("F32", [2], [16, 24]),
        "steps": ("I64", [], [24, 32]),
        "labels": ("I32", [2], [32, 40]),
        "mask": ("U8", [3], [40, 43]),
        "empty": ("F32", [0, 7], [43, 43]),
    }
    data = floats(1, -2, 3.5, 1e-9, 0, 7) + struct.pack("<qii", 9, -1, 2) + b"\0\1\2"
    good = safetensors(weights, data, format="pt")
    crooked = safetensors({"a": ("U8", [1], [0, 1]), "b": ("F32", [2], [1, 9])}, b"\7" + floats(1, 2))
    hole = safetensors({"a": ("U8", [1], [0, 1]), "b": ("U8", [1], [2, 3])}, b"abc")
    huge = safetensors({"a": ("F32", [1 << 31, 1 << 31, 1 << 31], [0, 4])}, floats(1))
    return {
        "valid-weights": good,
        "valid-crooked": crooked,
        "valid-nothing": safetensors({}, b""),
        "bad-truncated": good[:-1],
        "bad-hole": hole,
        "bad-huge-shape": huge,
        "bad-huge-header": struct.pack("<Q", 1 << 62) + good[8:],
        "bad-dtype": safetensors({"a": ("BF16", [1], [0, 2])}, b"ab"),
    }


def arrays_seeds():
    x = ("F32", [2, 1, 2, 2], [0, 32])
    pixels = floats(*(0.5 * i for i in range(8)))
    infinite = pixels[:-4] + floats(float("inf"))

    def file(y, answers, inputs=pixels):
        return safetensors({"x": x, "y": y}, inputs + answers)

    return {
        "valid-classes": file(("I64", [2], [32, 48]), struct.pack("<qq", 0, 2)),
        "valid-classes-i32": file(("I32", [2], [32, 40]), struct.pack("<ii", 1, 2)),
        "valid-vectors": file(("F32", [2, 2], [32, 48]), floats(1, 2, 3, 4)),
        "valid-bytes": safetensors(
            {"x": ("U8", [3, 4], [0, 12]), "y": ("U8", [3], [12, 15])}, bytes(range(12)) + b"\0\1\2"
        ),
        "bad-label": file(("U8", [2], [32, 34]), b"\0\3"),
        "bad-infinite": file(("U8", [2], [32, 34]), b"\0\1", infinite),
        "bad-count": file(("U8", [3], [32, 35]), b"\0\1\2"),
        "bad-no-samples": safetensors(
            {"x": ("F32", [0, 1, 2, 2], [0, 0]), "y": ("U8", [0], [0, 0])}, b""
        ),
    }


def idx_seeds():
    """The target's model wants 2x3 pixels and has 3 classes."""
    images = idx(4, 2, 3) + bytes(range(24))
    labels = idx(4) + b"\0\1\2\0"
    return {
        "valid-plain": images + labels,
        "valid-packed": packed(images) + packed(labels),
        "valid-mixed": packed(images) + labels,
        "bad-label": images + idx(4) + b"\0\1\3\0",
        "bad-count": images + idx(3) + b"\0\1\2",
        "bad-shape": idx(4, 3, 3) + bytes(36) + labels,
        "bad-truncated": images[:-1] + labels,
        "bad-longer": images + b"\0" + labels,
        "bad-huge": idx(0xFFFFFFFF, 2, 3) + idx(0xFFFFFFFF),
        "bad-damaged": packed(images)[:-6] + b"\0\0\0\0\0\0" + packed(labels),
    }


def cifar_seeds():
    """One label of ten and 3072 bytes, or two labels of a hundred and as many bytes."""

    def pixels(k):
        return bytes([k]) * 3072

    return {
        "valid-one-of-10": b"\7" + pixels(1),
        "valid-five-of-10": b"".join(bytes([k]) + pixels(k) for k in range(5)),
        "valid-one-of-100": b"\1\77" + pixels(2),
        "bad-label": b"\12" + pixels(3),
        "bad-fine-label": b"\1\144" + pixels(4),
        "bad-length": b"\7" + pixels(5)[:-1],
        "bad-empty": b"",
    }


def sealed(manifest):
    """With the checksum of the rest, as compact JSON with sorted keys."""
    rest = json.dumps(manifest, separators=(",", ":"), sort_keys=True)
    return json.dumps({**manifest, "crc32": zlib.crc32(rest.encode())}, indent=1).encode()


def manifest_seeds():
    """The target's run: one linear layer from 3 to 2, 60 samples, 100 steps, all else by default."""
    file = {"name": "layer-000-fc.safetensors", "bytes": 200, "crc32": 4294967295}
    settings = {"optimizer": "sgd", "dataset": "fashion-mnist", "batch": 32, "shuffle": True,
                "seed": 1, "validation": 0.0}
    good = {
        "format": 1, "layers": [["fc", "linear"]], "tensors": {"fc.weight": [2, 3], "fc.bias": [2]},
        "samples": 60, "validation_samples": 0, "settings": {**settings, "lr": 0.5},
        "sums": {"loss": None, "correct": 3, "samples": 32}, "step": 3, "launch": 1,
        "best_accuracy": 0.5, "best": None, "files": [file],
    }

    def other(**changes):
        return sealed({**good, **changes})

    def other_file(**changes):
        return other(files=[{**file, **changes}])

    best = {"step": 2, "accuracy": 0.5, "loss": 1.5}
    return {
        "valid-plain": sealed(good),
        "valid-best": other(best=best),
        "valid-no-files": other(files=[]),
        "bad-cut": sealed(good)[:-9],
        "bad-no-object": b"[1, 2]",
        "bad-depth": b"[" * 5000,
        "bad-twice": b'{"format": 1, "format": 1}',
        "bad-format": other(format=2),
        "bad-layer": other(layers=[["fc", "conv2d"]]),
        "bad-tensor": other(tensors={"fc.weight": [2, 3], "fc.bias": [2], "fc.\u009b1m": [3]}),
        "bad-samples": other(samples=61),
        "bad-seed": other(settings={**settings, "seed": -1}),
        "bad-split": other(settings={**settings, "validation": 0.5}),
        "bad-step": other(step=101),
        "bad-launch": other(launch=(1 << 63) - 1),
        "bad-best": other(best={**best, "step": -1}),
        "bad-sums": other(sums=[1]),
        "bad-name": other_file(name="../step-000001/manifest.json"),
        "bad-name-of-a-folder": other_file(name=".."),
        "bad-name-empty": other_file(name=""),
        "bad-bytes": other_file(bytes=-1),
        "bad-crc": other_file(crc32=1 << 32),
        "bad-file": other(files=["fc"]),
    }


def main():
    seeds = {
        "arrays": arrays_seeds(),
        "cifar": cifar_seeds(),
        "idx": idx_seeds(),
        "manifest": manifest_seeds(),
        "safetensors": safetensors_seeds(),
    }
    for target, files in seeds.items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
