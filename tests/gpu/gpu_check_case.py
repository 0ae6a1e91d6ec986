"""The modules of tools/gpu-check and what its tests share."""

import importlib.util
import os
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "gpu" / "check"), str(ROOT / "tests" / "train")]

import report  # noqa: E402
import runner  # noqa: E402
import steps  # noqa: E402

spec = importlib.util.spec_from_file_location(
    "gpu_check", ROOT / "tests" / "gpu" / "check" / "__main__.py")
gpu_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu_check)

FACTS = {"date": "2026-01-31T10:00:00+00:00", "commit": "c" * 40, "cuda": "13.0.88",
         "gpu_arch": "90", "cudnn": "9.19.0", "pytorch": None, "meson": "1.0.1",
         "mpi": {"version": "Open MPI", "cuda_aware": False},
         "processor": {"name": "a processor", "cores": 2}}
DEVICE = {"name": "NVIDIA Example 1", "driver": "580.1", "memory_bytes": 80 * 2**30, "count": 1,
          "capability": "9.0"}


class Folder(unittest.TestCase):
    """A case with a folder of its own."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="gpu-check-")
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)

    def check_setup(self, **changes):
        """What steps run on: all of it in the folder."""
        values = {"root": ROOT, "build": self.folder, "scratch": self.folder, "deps": self.folder,
                  "build_environment": dict(os.environ), "run_environment": dict(os.environ),
                  "device": DEVICE, "facts": FACTS, **changes}
        return steps.Setup(**values)


def result(name, verdict=runner.PASSED, kind="correctness", out_of_time=False, bars=()):
    reason = "a reason" if verdict in (runner.FAILED, runner.NOT_RUN) else None
    return {"name": name, "what": "what", "kind": kind, "verdict": verdict, "reason": reason,
            "out_of_time": out_of_time, "planned_s": 1, "began_s": 0.5, "seconds": 1.5,
            "says": "words", "figures": {}, "bars": list(bars), "commands": ["a command"],
            "changes": []}


def document(*results):
    return report.document(DEVICE, FACTS, list(results), 10.0, 12.34, False, False, "/somewhere")
