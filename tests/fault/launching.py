"""Starts pipetrain-launch, and knows what it has started."""

import glob
import json
import os
import pathlib
import tempfile
import unittest

import launch  # first: it finds the module below
import program

LAUNCH = os.environ.get("PT_LAUNCH") or str(
    pathlib.Path(program.PROGRAM).with_name("pipetrain-launch")
)
PLACE = ["--oversubscribe", "--bind-to", "none"]


class Launcher(launch.Run):
    """A launcher with mpirun and ranks. start() starts it again."""

    def __init__(self, ranks, *arguments, options=(), mpirun=()):
        """`options` are the launcher's, `mpirun` mpirun's; ranks = 0: whoever knows says it."""
        places = [*PLACE, "-np", ranks] if ranks else PLACE
        command = [LAUNCH, *options, "--", *places, *mpirun, program.PROGRAM, *arguments]
        super().__init__(ranks, command=command)

    def mpirun_pid(self):
        """The process that the launcher has started last, or None."""
        ranks = self.found_ranks()
        for pid in self.processes():
            if pid != self.process.pid and pid not in ranks.values():
                return pid
        return None

    def found_ranks(self):
        """{rank: pid} of those that are there now."""
        ranks = {}
        for pid, environment in self.processes().items():
            rank = environment.get(b"OMPI_COMM_WORLD_RANK")
            if rank is not None:
                ranks[int(rank)] = pid
        return ranks

    def note_jobs(self):
        """Remembers by which numbers Open MPI names the segments of the job that runs now."""
        pattern = "pipetrain-launch-*/ompi.*/pid.*/contact.txt"
        # Not pathlib's glob: a folder that is removed while it looks would end that.
        for contact in glob.iglob(pattern, root_dir=self.temporary):
            try:
                text = (pathlib.Path(self.temporary) / contact).read_text()
                family = int(text.split(".")[0])
            except (OSError, ValueError):  # it is being written, or removed
                continue
            self.jobs.add(family + 1)  # the first job of its family


class Case(unittest.TestCase):
    """A test with a directory of checkpoints in a folder of its own."""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="pt-")))
        self.directory = self.folder / "ck"

    def checkpoints(self):
        return [f"--checkpoint={self.directory}", f"--resume={self.directory}"]

    def number(self, name):
        """What is in ck/launch, or of the step in ck/latest."""
        return int((self.directory / name).read_text().strip().removeprefix("step-"))

    def state(self):
        return json.loads((self.directory / "launcher" / "state.json").read_text())
