"""Runs of the whole program on the fake CUDA runtime (fake/fake.h), where PT_PROGRAM is
pipetrain-fake.

What the fake is told comes with a run: fake={"seed": 3} is PT_FAKE_SEED=3. Every run also says at
its end what it did not release, and then exits with 99.
"""

import contextlib
import filecmp
import json
import os
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "fault"))

import launch  # noqa: E402  first: it finds the modules of tests/train
import program  # noqa: E402
import safetensors_io  # noqa: E402
import test_bitwise  # noqa: E402

SAMPLES = 14  # two steps of eight and six, each with a short last micro-batch of three


@contextlib.contextmanager
def told(fake):
    """The environment in which the fake does so."""
    settings = {f"PT_FAKE_{name.upper()}": str(value) for name, value in fake.items()}
    with unittest.mock.patch.dict(os.environ, {"PT_FAKE_REPORT": "1", **settings}):
        yield


def words(options):
    """{"micro_batch": 4, "stash": True} as arguments of the program."""
    result = []
    for name, value in options.items():
        name = name.replace("_", "-")
        flag = f"--{name}" if value else f"--no-{name}"
        result.append(flag if isinstance(value, bool) else f"--{name}={value}")
    return result


def test_losses(log):
    with open(log, encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return [record["test_loss"] for record in records if record.get("type") == "eval"]


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name)
        data = cls.folder / "data.safetensors"
        safetensors_io.write_images(data, SAMPLES, (3, 10, 10), classes=5, seed=3)
        # Skips, sums and dropout across three cuts.
        (cls.folder / "crossed.yaml").write_text(test_bitwise.PARTITION)
        cls.runs = {}

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def model(self, name):
        """(partition file, where its data comes from)"""
        if name == "crossed":
            data = {"dataset": "arrays", "data": self.folder / "data.safetensors"}
        else:
            data = {"dataset": "synthetic", "samples": SAMPLES}
        own = self.folder / f"{name}.yaml"
        return own if own.exists() else program.ROOT / "partitions" / f"{name}.yaml", data

    def launch(self, ranks, model, fake, **options):
        """Runs to any end; the options come last and decide."""
        path, data = self.model(model)
        settings = {"backend": "cuda", "eval_every": 0, "threads": 1, **data, **options}
        with told(fake):
            return launch.run(ranks, path, *words(settings))

    def train(self, ranks, model, fake=None, **options):
        """Trains, once for each set of arguments; returns (folder of saved weights, losses of steps
        and evaluations, what the summary says of each stage, how it ended)."""
        fake = fake or {}
        key = (ranks, model, *sorted(fake.items()), *sorted(options.items()))
        if key not in self.runs:
            saved = self.folder / f"run-{len(self.runs)}"
            log, summary = saved.with_suffix(".jsonl"), saved.with_suffix(".json")
            ended = self.launch(
                ranks, model, fake, **options, save=saved, log=log, summary=summary
            )
            self.assertEqual(ended.status, 0, ended)
            stages = json.loads(summary.read_text(encoding="utf-8"))["stages"]
            self.runs[key] = (saved, program.losses(log) + test_losses(log), stages, ended)
        return self.runs[key]

    def assert_same_files(self, one, other):
        names = sorted(path.name for path in one.iterdir())
        self.assertEqual(names, sorted(path.name for path in other.iterdir()))
        self.assertTrue(any(name.endswith(".safetensors") for name in names), "nothing was saved")
        _, differing, unread = filecmp.cmpfiles(one, other, names, shallow=False)
        self.assertEqual(differing + unread, [])

    def assert_one_message(self, ended, status, pattern):
        self.assertEqual(ended.status, status, ended)
        self.assertEqual(len(ended.err), 1, f"not one message: {ended}")
        self.assertRegex(ended.err[0], pattern)
