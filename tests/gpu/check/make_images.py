#!/usr/bin/env python3
"""usage: make_images.py FILE COUNT CHANNELS HEIGHT WIDTH CLASSES

Writes random images (bytes) and classes as a safetensors file for the dataset `arrays`: training
reads images as it would read real ones, and the time to make them up is not measured.
"""

import json
import os
import struct
import sys


def write(path, count, channels, height, width, classes):
    image = channels * height * width
    end = count * image
    header = {
        "x": {"dtype": "U8", "shape": [count, channels, height, width], "data_offsets": [0, end]},
        "y": {"dtype": "I64", "shape": [count], "data_offsets": [end, end + 8 * count]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(count):
            file.write(os.urandom(image))
        file.write(struct.pack(f"<{count}q", *(i % classes for i in range(count))))


if __name__ == "__main__":
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    write(sys.argv[1], *map(int, sys.argv[2:]))
