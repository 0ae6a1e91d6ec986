"""Starts the program so that its end can be judged: processes, messages and what is left behind.

Every run has a session and a TMPDIR of its own and carries a mark in its environment, by which all
of its processes are found, mpirun's and the ranks', and nobody else's.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "train"))

import program  # noqa: E402

LENET5 = program.ROOT / "partitions" / "lenet5.yaml"
SHARED_MEMORY = pathlib.Path("/dev/shm")
TIME_LIMIT_S = 60  # far above what any of these runs needs; only a hang gets there
PATIENCE_S = 5  # for mpirun to end what a failed test leaves running
POLL_S = 0.01  # between looks at /proc, which tells nobody when a process ends
MARK = "PT_TEST_RUN"

# What mpirun itself says stands between two such lines ...
FENCE = re.compile(r"^-{20,}$")
# ... or begins like this: its counts of further banners, its errors while it ends a job, its answer
# to a signal, and what the MPI library says about a neighbour that vanished while it was read.
OWN_WORDS = re.compile(
    r"^\[[^\]]*:\d+\] (\d+ more process|Set MCA parameter|Read -1, expected"
    r"|\[\[\d+,\d+\],\d+\] ORTE_ERROR_LOG)|^mpirun: |^\*\*\* "
)


@dataclasses.dataclass
class Ended:
    """How a run ended and what it said: `out` and `err` are its own lines, `banner` mpirun's."""

    command: list
    status: int
    seconds: float
    out: list
    err: list
    banner: str

    def __str__(self):
        words = " ".join(str(word) for word in self.command)
        said = "\n".join(["stdout:", *self.out, "stderr:", *self.err, "mpirun:", self.banner])
        return f"{words}\nexit status {self.status} after {self.seconds:.1f} s\n{said}"


def split_banner(text):
    """(own lines, mpirun's words) of what was written to stderr."""
    own, banner, inside = [], [], False
    for line in text.splitlines():
        if FENCE.match(line):
            inside = not inside
        elif inside or OWN_WORDS.match(line):
            banner.append(line)
        elif line.strip():
            own.append(line)
    return own, "\n".join(banner)


class Run:
    """One run, from start to end; a context manager that leaves no process behind."""

    def __init__(self, ranks, *arguments, prefix=(), mpirun=None, command=None):
        """Without `mpirun`, one rank is started alone. `prefix` comes before the program. `command`
        is the whole command line instead."""
        self.ranks = ranks
        self.command = [*prefix, program.PROGRAM, *map(str, arguments)]
        if ranks > 1 if mpirun is None else mpirun:
            place = ["--oversubscribe", "--bind-to", "none", "-np", str(ranks)]
            self.command = ["mpirun", *place, *self.command]
        if command is not None:
            self.command = [*map(str, command)]
        self.mark = uuid.uuid4().hex
        self.temporary = tempfile.mkdtemp(prefix="pt-")
        self.environment = {**os.environ, "TMPDIR": self.temporary, MARK: self.mark}
        self.environment.pop("OMPI_MCA_orte_tmpdir_base", None)  # TMPDIR says where
        if os.geteuid() == 0:
            allowed = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
            self.environment.update(dict.fromkeys(allowed, "1"))
        self.lines = {"stdout": [], "stderr": []}
        self.open_streams = 0
        self.changed = threading.Condition()
        self.jobs = set()
        self.readers = []
        self.began = time.monotonic()
        self.start()

    def start(self):
        """The command, with what is read from it behind what there is already."""
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=program.ROOT,
            start_new_session=True,
        )
        self.open_streams += len(self.lines)
        streams = {"stdout": self.process.stdout, "stderr": self.process.stderr}
        for name, stream in streams.items():
            reader = threading.Thread(target=self._read, args=(name, stream), daemon=True)
            self.readers.append(reader)
            reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end_by_force()
        for reader in self.readers:
            reader.join()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _end_by_force(self):
        """mpirun is asked first: it clears the shared memory away."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                pass
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()

    def _read(self, name, stream):
        with stream:
            for line in stream:
                with self.changed:
                    self.lines[name].append(line)
                    self.changed.notify_all()
        with self.changed:
            self.open_streams -= 1
            self.changed.notify_all()

    def seconds(self):
        """Since the start."""
        return time.monotonic() - self.began

    # ---- looking ----------------------------------------------------------------------------

    def wait_for(self, name, pattern, times=1):
        """Waits until so many lines of stdout or stderr match; returns the matches."""

        def found():
            return [m for line in self.lines[name] if (m := re.search(pattern, line))]

        def enough():
            return len(found()) >= times or self.open_streams == 0

        with self.changed:
            self.changed.wait_for(enough, TIME_LIMIT_S)
            if len(found()) < times:
                raise AssertionError(f"no line like {pattern!r}: {self.lines}")
            return found()

    def processes(self):
        """{pid: environment} of all processes of this run that are alive."""
        alive = {}
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                environment = (path / "environ").read_bytes()
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:  # it ended meanwhile, or is somebody else's
                continue
            entries = environment.split(b"\0")
            pairs = dict(entry.split(b"=", 1) for entry in entries if b"=" in entry)
            if pairs.get(MARK.encode()) == self.mark.encode() and state not in "ZX":
                alive[int(path.name)] = pairs
        return alive

    def rank_pids(self):
        """[pid of rank 0, of rank 1, …] under mpirun, as soon as all have started. Also notes the
        job's number."""
        while True:
            ranks = {}
            for pid, environment in self.processes().items():
                rank = environment.get(b"OMPI_COMM_WORLD_RANK")
                if rank is not None:
                    ranks[int(rank)] = pid
                    self.jobs.add(int(environment[b"OMPI_MCA_ess_base_jobid"]))
            if sorted(ranks) == list(range(self.ranks)):
                return [ranks[rank] for rank in range(self.ranks)]
            if self.open_streams == 0 or self.seconds() > TIME_LIMIT_S:
                raise AssertionError(f"ranks found: {ranks}\n{self.lines}")
            time.sleep(POLL_S)

    def left_behind(self):
        """Files of this run in shared memory and in its session directory. Open MPI names those in
        shared memory by the job, which rank_pids() has noted."""
        names = [f"{job:x}" for job in self.jobs]
        shared = [
            path for path in SHARED_MEMORY.iterdir() if any(name in path.name for name in names)
        ]
        # Not pathlib's rglob: a folder that is removed while it looks would end that.
        found = [
            pathlib.Path(folder) / name
            for folder, folders, files in os.walk(self.temporary)
            for name in folders + files
        ]
        return shared + found

    # ---- ending -----------------------------------------------------------------------------

    def end(self):
        """Waits for the end. Raises AssertionError with all that was said when there is none."""
        hung = False
        try:
            self.process.wait(TIME_LIMIT_S - self.seconds())
        except subprocess.TimeoutExpired:
            hung = True
            self._end_by_force()
        seconds = self.seconds()
        status = self.process.wait()
        for reader in self.readers:
            reader.join()
        own, banner = split_banner("".join(self.lines["stderr"]))
        out = [line.rstrip("\n") for line in self.lines["stdout"]]
        ended = Ended(self.command, status, seconds, out, own, banner)
        if hung:
            raise AssertionError(f"no end: {ended}")
        return ended

    def wait_until_gone(self, limit_s, launcher_s=0):
        """Waits until no process of this run is left; AssertionError when that takes longer than
        the limit. mpirun itself may take `launcher_s` more."""
        began = time.monotonic()
        while alive := self.processes():
            ranks = [pid for pid in alive if pid != self.process.pid]
            waited = time.monotonic() - began
            if waited > limit_s + launcher_s or (ranks and waited > limit_s):
                raise AssertionError(f"after {waited:.2f} s still there: {alive}\n{self.lines}")
            time.sleep(POLL_S)


def run(ranks, *arguments, **how):
    """Runs to the end; returns how it ended."""
    with Run(ranks, *arguments, **how) as running:
        return running.end()


def succeed(ranks, *arguments, **how):
    """The same, for a run that must succeed without a word on stderr."""
    ended = run(ranks, *arguments, **how)
    if ended.status != 0 or ended.err:
        raise AssertionError(str(ended))
    return ended
