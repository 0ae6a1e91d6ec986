#!/usr/bin/env python3
"""A Slurm cluster of this machine alone: a slurmctld and two slurmd, in a folder of their own.

    with cluster.Cluster() as slurm:
        slurm.call("sbatch", "-n2", script)

It has a munged with a key of its own: nobody else can have it run a program as the user who
started it. The munge of the machine, if there is one, is left alone.

All that belongs to it, down to the ranks of a job, has the path of its slurm.conf in the
environment. By that a guard, a process of its own, ends all of it and removes the folder when the
pipe to it closes: when the tests end, however they end.
"""

import getpass
import glob
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(
    os.environ.get("PT_SOURCE_ROOT") or pathlib.Path(__file__).resolve().parents[2]
).resolve()
# Where Debian's packages may be: unpacked by tools/test, or installed.
PLACES = (ROOT / "build-slurm", pathlib.Path("/"))
NODES = ("n1", "n2")
START_S = 30  # a second is usual
CALL_S = 60  # for one command of Slurm's
POLL_S = 0.02  # between looks at what tells nobody when it changes
QUIET_LOOKS = 10  # in a row that find no process: one that is in exec has no environment to be seen

CONFIGURATION = """\
ClusterName=pipetrain-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
CredType=cred/munge
# How long a requeued job waits at least: 5 s is the smallest number that is accepted.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
PluginDir={plugins}
PlugStackConfig={folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=1
TmpFS={folder}/tmp
ReturnToService=0
# The nodes have the processors that this says, whatever the machine has.
SlurmdParameters=config_overrides
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=1000
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=1000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Unavailable(Exception):
    """There is no Slurm here, and why."""


def place():
    """The folder whose usr/ has Slurm. Raises Unavailable."""
    for folder in PLACES:
        if (folder / "usr" / "sbin" / "slurmctld-wlm").exists():
            return folder
    note = PLACES[0] / "missing"
    why = note.read_text().strip() if note.exists() else "tools/test brings them"
    raise Unavailable(f"Debian's Slurm is not here: {why}")


def free_ports(count):
    """So many ports that nobody listens on now."""
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def processes(configuration):
    """{pid: environment} of all that belongs to the cluster with this slurm.conf and is alive."""
    alive = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes()
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
        pairs = dict(entry.split(b"=", 1) for entry in environment.split(b"\0") if b"=" in entry)
        if pairs.get(b"SLURM_CONF") == os.fsencode(configuration):
            alive[int(path.name)] = pairs
    return alive


def sweep(folder):
    """Ends all that belongs to the cluster of this folder, and removes the folder."""
    quiet = 0
    while quiet < QUIET_LOOKS:
        alive = processes(folder / "slurm.conf")
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        quiet = 0 if alive else quiet + 1
        time.sleep(POLL_S)
    shutil.rmtree(folder, ignore_errors=True)


class Cluster:
    """A context manager; inside, `environment` is for whatever shall talk to the cluster."""

    def __init__(self):
        self.usr = place() / "usr"
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pt-slurm-"))
        self.configuration = self.folder / "slurm.conf"
        plugins = pathlib.Path(glob.glob(str(self.usr / "lib" / "*-linux-gnu" / "slurm-wlm"))[0])
        path = os.environ["PATH"]
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(self.configuration),
            "PATH": os.pathsep.join([str(self.usr / "bin"), str(self.usr / "sbin"), path]),
            "LD_LIBRARY_PATH": str(plugins),
            "TMPDIR": str(self.folder / "tmp"),
            # The second node's ranks would share memory under the names of the first one's: nodes
            # that are one machine talk by TCP.
            "OMPI_MCA_btl": "self,tcp",
        }
        self.environment.pop("OMPI_MCA_orte_tmpdir_base", None)  # TMPDIR says where
        for name in ("state", "tmp", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        (self.folder / "plugstack.conf").touch()
        self.configuration.write_text(
            CONFIGURATION.format(
                host=socket.gethostname(),
                ports=free_ports(1 + len(NODES)),
                user=getpass.getuser(),
                folder=self.folder,
                plugins=plugins,
                nodes=NODES,
            )
        )
        self.guard = None
        self.daemons = []

    def __enter__(self):
        # In a session of its own: what ends the tests' process group does not end their guard.
        self.guard = subprocess.Popen(
            [sys.executable, "-B", __file__, self.folder],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self.start_munge()
            self.start_slurm()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.guard.stdin.close()
        self.guard.wait()
        for daemon in self.daemons:
            daemon.wait()

    def start_munge(self):
        """With a key of its own: it knows nobody else's munge, and nobody else knows it."""
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        self.daemon(
            "munged",
            "--foreground",
            "--force",  # others cannot reach the socket: so it shall be
            f"--key-file={key}",
            *(f"--{what}-file={self.folder}/munge.{what}" for what in ("log", "pid", "seed")),
            f"--socket={self.folder}/munge.socket",
        )
        self.wait_for("munge.socket", (self.folder / "munge.socket").exists, START_S)

    def start_slurm(self):
        stepd = self.usr / "sbin" / "slurmstepd-wlm"
        self.daemon("slurmctld-wlm", "-D")
        for node in NODES:
            self.daemon("slurmd-wlm", "-D", "-N", node, "-d", stepd)
        self.wait_for("idle nodes", self.all_idle, START_S)

    def daemon(self, *command):
        with open(self.folder / "daemons.log", "ab") as log:
            started = self.start(*command, stdout=log, stderr=log, cwd=self.folder)
        self.daemons.append(started)

    def all_idle(self):
        found = self.try_call("sinfo", "--noheader", "--Node", "--format=%T").stdout.split()
        return found == ["idle"] * len(NODES)

    # ---- what a user does -------------------------------------------------------------------

    def try_call(self, *command, **how):
        """Runs a command to its end; its output is text."""
        return subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CALL_S,
            check=False,
            env=self.environment,
            **how,
        )

    def start(self, *command, **how):
        """A process that goes on beside the tests."""
        words = [str(word) for word in command]
        return subprocess.Popen(
            words, env=self.environment, stdin=subprocess.DEVNULL, start_new_session=True, **how
        )

    def call(self, *command, **how):
        """What it printed; AssertionError when it failed."""
        done = self.try_call(*command, **how)
        if done.returncode != 0:
            raise AssertionError(f"{done}\n{self.logs()}")
        return done.stdout

    def job(self, number):
        """What Slurm says of a job: {JobState: …, Restarts: …, …}."""
        words = self.call("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def ranks(self, number):
        """Pids of a job's ranks, whether mpirun started them or srun."""
        return [
            pid
            for pid, environment in processes(self.configuration).items()
            if environment.get(b"SLURM_JOB_ID") == str(number).encode()
            and b"PMIX_RANK" in environment
        ]

    def wait_for(self, what, found, limit_s=CALL_S):
        """Waits until found() is true, and returns it."""
        began = time.monotonic()
        while not (result := found()):
            if time.monotonic() - began > limit_s:
                raise AssertionError(f"no {what} after {limit_s} s\n{self.logs()}")
            time.sleep(POLL_S)
        return result

    def logs(self):
        """The end of all that the daemons wrote."""
        return "\n".join(
            f"{path.name}:\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.folder.glob("*.log"))
        )


if __name__ == "__main__":  # the guard
    for the_end in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(the_end, signal.SIG_IGN)
    sys.stdin.buffer.read()
    sweep(pathlib.Path(sys.argv[1]))
