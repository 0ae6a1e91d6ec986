"""Hosts on one machine: each has a name, a network card, processes and a shared memory of its own
and an sshd, and all are on one switch.

    with hosts.Hosts("alpha", "beta") as network:
        command = network.on("alpha") + ["mpirun", "--host", "alpha:2,beta:2", …]
        network.unplug("beta")

They are the kernel's namespaces, and share what is on disk. A host lives as long as a pipe to its
first process is open: when the tests end, however they end, so do the hosts with all that runs there.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import launch  # first: it finds the module below
import program

# Where Debian's sshd may be: unpacked by tools/test, or installed.
PLACES = (program.ROOT / "build-sshd", pathlib.Path("/"))
TOOLS = ("hostname", "ip", "mount", "nsenter", "ssh", "ssh-keygen", "unshare")
SPACES = ("--net", "--uts", "--mount", "--pid", "--ipc")
NETWORK = "10.77.0.{}"  # nobody else's: no card of the machine is in there
SSHD_USER = 65533  # for the part of sshd that has no rights
CARD = "02:00:00:00:00:{:02}"  # the same when a host is switched on again: others remember it

TRIAL = """
set -e
mount --bind /etc/passwd /etc/hosts
mount -t tmpfs tmpfs /dev/shm
ip link add name ports type bridge
ip link add name one type veth peer name other
"""

# $1: the folder, $2: the name, $3: sshd's libraries, $4: sshd. The switch is the last one to end.
BOOT = """
set -e
hostname "$2"
ip link set lo up
for file in hosts passwd shadow; do
    mount --bind "$1/$file" /etc/$file
done
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mkdir -m 755 /run/sshd
if [ "$2" != switch ]; then
    LD_LIBRARY_PATH=$3 "$4" -f "$1/sshd_config" -E "$1/$2.log"
fi
echo up
cat >/dev/null
[ "$2" != switch ] || rm -rf -- "$1"
"""

SSHD_CONFIG = """\
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PermitRootLogin yes
PasswordAuthentication no
StrictModes no
PidFile none
"""

SSH_CONFIG = """\
IdentityFile {folder}/key
IdentitiesOnly yes
IdentityAgent none
BatchMode yes
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
"""


def place():
    """The folder whose usr/ has sshd, or None."""
    return next((one for one in PLACES if (one / "usr" / "sbin" / "sshd").exists()), None)


def why_not():
    """Why there can be no such hosts; "" if there can."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        return f"no {', '.join(missing)} here"
    if os.geteuid() != 0:
        return "only root may make network cards"
    users = pathlib.Path("/proc/self/uid_map").read_text().splitlines()
    if sum(int(line.split()[2]) for line in users) <= SSHD_USER:
        return "this root has no users for sshd"
    if not place():
        note = PLACES[0] / "missing"
        return f"no sshd: {note.read_text().strip() if note.exists() else 'tools/test brings it'}"
    command = ["unshare", *SPACES, "--fork", "--mount-proc", "sh", "-c", TRIAL]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"no hosts of our own here: {tried.stderr.strip()}"


class Host:
    def __init__(self, folder, name):
        usr = place() / "usr"
        libraries = ":".join(map(str, (usr / "lib").glob("*-linux-gnu")))
        self.process = subprocess.Popen(
            ["unshare", *SPACES, "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", BOOT, "sh", folder, name, libraries, usr / "sbin" / "sshd"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )
        if self.process.stdout.readline() != "up\n":
            self.kill()
            log = folder / f"{name}.log"
            raise AssertionError(f"{name} does not start: {log.read_text() if log.exists() else ''}")
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.first = int(children.read_text())

    def kill(self):
        """All at once, as when the power fails: its first process takes the others along."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Hosts:
    """A context manager, within which the hosts are up."""

    def __init__(self, *names):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pt-hosts-"))
        self.numbers = {name: i for i, name in enumerate(names, start=1)}
        self.hosts = {}

    def __enter__(self):
        try:
            self._write_files()
            self.hosts["switch"] = Host(self.folder, "switch")
            self._ip("switch", "link add name ports type bridge")
            self._ip("switch", "link set ports up")
            for name in self.numbers:
                self.start(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for host in reversed(self.hosts.values()):
            host.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_files(self):
        (self.folder / ".ssh").mkdir(mode=0o700)
        for key in ("key", "host_key"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key]
            subprocess.run(words, check=True)
        names = [f"{NETWORK.format(i)} {name}" for name, i in self.numbers.items()]
        users = [
            line
            for line in pathlib.Path("/etc/passwd").read_text().splitlines()
            if not line.startswith(("root:", "sshd:"))
        ]
        users += [
            f"root:x:0:0::{self.folder}:/bin/sh",  # whose own settings of ssh stay away
            f"sshd:x:{SSHD_USER}:65534::/run/sshd:/bin/false",
        ]
        for name, lines in (
            ("hosts", ["127.0.0.1 localhost", *names]),
            ("passwd", users),
            ("shadow", ["root:*:19000:0:99999:7:::"]),  # not locked
            ("sshd_config", [SSHD_CONFIG.format(folder=self.folder)]),
            (".ssh/config", [SSH_CONFIG.format(folder=self.folder)]),
        ):
            (self.folder / name).write_text("\n".join(lines) + "\n")

    def on(self, name):
        """What stands before a command that shall run there."""
        target = f"--target={self.hosts[name].first}"
        return ["nsenter", target, *SPACES, f"--wd={program.ROOT}"]

    def _ip(self, name, words):
        target = f"--target={self.hosts[name].first}"
        subprocess.run(["nsenter", target, "--net", "ip", *words.split()], check=True)

    def start(self, name):
        """Switches a host on, plugs it in, and waits until it answers."""
        host, number = Host(self.folder, name), self.numbers[name]
        self.hosts[name] = host
        self._ip("switch", f"link add name {name} type veth peer name eth0 netns {host.first}")
        self._ip("switch", f"link set {name} master ports up")
        self._ip(name, f"link set eth0 address {CARD.format(number)}")
        self._ip(name, f"addr add {NETWORK.format(number)}/24 dev eth0")
        self._ip(name, "link set eth0 up")
        subprocess.run(
            [*self.on(name), "ssh", "-o", "ConnectionAttempts=5", name, "true"], check=True
        )

    def unplug(self, name):
        """Pulls the cable. Nothing on the host ends by that."""
        self._ip("switch", f"link set {name} down")

    def plug(self, name):
        self._ip("switch", f"link set {name} up")

    def lose(self, name):
        """The power fails: nobody hears of the end of what ran there."""
        self._ip("switch", f"link delete {name}")
        self.hosts.pop(name).kill()

    def processes(self, name):
        """[(pid, name of its program, its environment)] on this host; none, where it is lost."""
        if name not in self.hosts:
            return []
        space = os.readlink(f"/proc/{self.hosts[name].first}/ns/pid")
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(path / "ns" / "pid") != space:
                    continue
                called = (path / "comm").read_text().strip()
                environment = (path / "environ").read_bytes().split(b"\0")
            except OSError:  # it ended meanwhile
                continue
            if len(environment) > 1:  # one that has ended has none, and waits to be looked at
                found.append((int(path.name), called, environment))
        return found

    def ranks(self, name):
        """{rank: pid} of what mpirun has started there."""
        return {
            int(entry.partition(b"=")[2]): pid
            for pid, _, environment in self.processes(name)
            for entry in environment
            if entry.startswith(b"OMPI_COMM_WORLD_RANK=")
        }

    def daemon(self, name):
        """The pid of the one by which mpirun holds this host: it has started the ranks there."""
        rank = next(iter(self.ranks(name).values()))
        status = pathlib.Path(f"/proc/{rank}/stat").read_text()
        return int(status.rpartition(")")[2].split()[1])

    def wait_until_idle(self, name):
        """Waits until nothing of mpirun's runs there. What an unplugged host runs hears of the end
        of the others when it sends again, which takes the longer the longer it was unplugged."""
        began = time.monotonic()
        while left := [
            (pid, called)
            for pid, called, environment in self.processes(name)
            if called == "orted" or any(e.startswith(b"OMPI_COMM_WORLD_RANK=") for e in environment)
        ]:
            if time.monotonic() - began > launch.TIME_LIMIT_S:
                raise AssertionError(f"still there on {name}: {left}")
            time.sleep(launch.POLL_S)
