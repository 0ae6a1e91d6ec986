"""Reads and writes safetensors files: u64 LE header size, a JSON header, then the data.

Kept apart from the C code on purpose: two implementations that agree are a test of both.
"""

import json
import pathlib
import struct

import numpy as np

DTYPES = {"F32": np.float32, "I64": np.int64, "I32": np.int32, "U8": np.uint8}
NAMES = {np.dtype(numpy_type): name for name, numpy_type in DTYPES.items()}


def write(path, tensors, metadata=None):
    """Writes {name: array} in the order given. The same input always gives the same bytes."""
    header = {}
    if metadata:
        header["__metadata__"] = {str(k): str(v) for k, v in metadata.items()}
    blobs = []
    offset = 0
    for name, tensor in tensors.items():
        tensor = np.asarray(tensor)
        blob = tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes(order="C")
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for blob in blobs:
            file.write(blob)


def write_images(path, samples, shape, classes, seed):
    """Random images as bytes with random labels, for --dataset=arrays."""
    numbers = np.random.default_rng(seed)
    images = numbers.integers(0, 256, (samples, *shape), np.uint8)
    write(path, {"x": images, "y": numbers.integers(0, classes, samples, np.int64)})


def read(path):
    """Returns ({name: array}, metadata). Refuses a header whose offsets do not cover the data."""
    blob = pathlib.Path(path).read_bytes()
    (size,) = struct.unpack_from("<Q", blob)
    header = json.loads(blob[8 : 8 + size])
    data = blob[8 + size :]
    metadata = header.pop("__metadata__", {})
    tensors = {}
    covered = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        if begin != covered:
            raise ValueError(f"{path}: hole or overlap in the data before {name}")
        covered = end
        dtype = np.dtype(DTYPES[entry["dtype"]]).newbyteorder("<")
        tensors[name] = np.frombuffer(data[begin:end], dtype).reshape(entry["shape"])
    if covered != len(data):
        raise ValueError(f"{path}: {len(data) - covered} bytes of data belong to no tensor")
    return tensors, metadata


def read_folder(folder):
    """All tensors of all files of a folder, as --save leaves it."""
    tensors = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        for name, tensor in read(path)[0].items():
            if name in tensors:
                raise ValueError(f"{path}: {name} is in another file too")
            tensors[name] = tensor
    return tensors
