"""Reads directories of checkpoints as anybody may who knows the format, and trains with them.

Nothing here shares code with the program: checksums are zlib's, the manifest is Python's JSON.
"""

import json
import pathlib
import shutil
import tempfile
import unittest
import zlib

import launch  # first: it finds the modules below
import safetensors_io
import small_model

STEPS = 18  # three epochs of six steps, the last of which is short
EVERY = 4  # so that checkpoints stand inside epochs; 12 ends one
FILES = 4  # conv1, bn1, conv2, fc
NAME = "step-{:06}"


def step_folder(directory, step):
    return pathlib.Path(directory) / NAME.format(step)


def steps(directory):
    """Those with a manifest, in order."""
    return sorted(
        int(path.parent.name.removeprefix("step-"))
        for path in pathlib.Path(directory).glob("step-*/manifest.json")
        if path.parent.name.count(".") == 0
    )


def manifest(directory, step):
    return json.loads((step_folder(directory, step) / "manifest.json").read_text())


def is_good(directory, step):
    """Everything that the manifest names is there, byte for byte."""
    folder = step_folder(directory, step)
    try:
        files = manifest(directory, step)["files"]
        blobs = [(folder / file["name"]).read_bytes() for file in files]
    except (OSError, ValueError, KeyError):
        return False
    return len(files) == FILES and all(
        len(blob) == file["bytes"] and zlib.crc32(blob) == file["crc32"]
        for blob, file in zip(blobs, files)
    )


def latest(directory, name="latest"):
    """The step that `latest`, or `best`, names, or None."""
    path = pathlib.Path(directory) / name
    return int(path.read_text().strip().removeprefix("step-")) if path.exists() else None


def tensors(directory, step):
    return safetensors_io.read_folder(step_folder(directory, step))


def bytes_of(directory, step):
    """{name of a file: its bytes}, without the manifest, which also tells when and by whom."""
    folder = step_folder(directory, step)
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def cut_back(source, step, target):
    """What a run that was killed after `step` would have left."""
    target = pathlib.Path(target)
    target.mkdir()
    for one in steps(source):
        if one <= step:
            shutil.copytree(step_folder(source, one), step_folder(target, one))
    (target / "latest").write_text(NAME.format(step) + "\n")
    return target


def write_model(folder):
    """small.yaml with augmentation, and a plan of learning rates that is felt in every step."""
    partition = small_model.write(folder)
    text = partition.read_text().replace("epochs: 2", "epochs: 3, eval-every: 0, crop: 1, flip: on")
    partition.write_text(text.replace("batch: 16", "batch: 16, lr-schedule: cosine, warmup: 0.5"))
    return partition


def train(ranks, partition, directory, *arguments, expect=0, **how):
    """With checkpoints into `directory`; how it ended."""
    ended = launch.run(
        ranks,
        partition,
        f"--checkpoint={directory}",
        f"--every={EVERY}",
        "--keep=0",
        *arguments,
        **how,
    )
    if ended.status != expect:
        raise AssertionError(str(ended))
    return ended


class Case(unittest.TestCase):
    """Tests with a folder of their own, and the model in it."""

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.partition = write_model(cls.folder)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def fresh(self, name):
        """A path where nothing is."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        return path
