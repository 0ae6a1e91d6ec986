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
TOOLS = ("ip", "mount", "nsenter", "ssh", "ssh-keygen", "unshare")
SPACES = ("--net", "--uts", "--mount", "--pid", "--ipc")
NETWORK = "10.77.0.{}"  # nobody else's: no card of the machine is in there
CARD = "02:00:00:00:00:{:02}"  # the same when a host is switched on again: others remember it

TRIAL = """
set -e
mount -t tmpfs tmpfs /run
ip link add name ports type bridge
ip link add name one type veth peer name other
"""

# $1: the folder, $2: the name, $3: sshd's libraries
BOOT = """
set -e
hostname "$2"
ip link set lo up
for file in hosts passwd shadow ssh/ssh_config; do
    mount --bind "$1/$(basename $file)" /etc/$file
done
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mkdir -m 755 /run/sshd
if [ "$2" != switch ]; then
    LD_LIBRARY_PATH=$3 "$1/sshd" -f "$1/sshd_config" -E "$1/$2.log"
fi
echo up
exec cat >/dev/null
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
    if not place():
        note = PLACES[0] / "missing"
        return f"no sshd: {note.read_text().strip() if note.exists() else 'tools/test brings it'}"
    tried = subprocess.run(["unshare", *SPACES, "--fork", "--mount-proc", "sh", "-c", TRIAL],
                           capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"no hosts of our own here: {tried.stderr.strip()}"


class Host:
    def __init__(self, folder, name):
        libraries = ":".join(map(str, (place() / "usr" / "lib").glob("*-linux-gnu")))
        self.process = subprocess.Popen(
            ["unshare", *SPACES, "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", BOOT, "sh", folder, name, libraries],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )
        if self.process.stdout.readline() != "up\n":
            raise AssertionError(f"{name} does not start")
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
        for host in self.hosts.values():
            host.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_files(self):
        for key in ("key", "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key],
                           check=True)
        shutil.copy(place() / "usr" / "sbin" / "sshd", self.folder)
        lines = ["127.0.0.1 localhost"]
        lines += [f"{NETWORK.format(i)} {name}" for name, i in self.numbers.items()]
        (self.folder / "hosts").write_text("\n".join(lines) + "\n")
        # sshd wants a user of that name, for the part that has no rights.
        users = pathlib.Path("/etc/passwd").read_text()
        (self.folder / "passwd").write_text(f"{users}sshd:x:65533:65534::/run/sshd:/bin/false\n")
        (self.folder / "shadow").write_text("root:*:19000:0:99999:7:::\n")  # not locked
        (self.folder / "sshd_config").write_text(SSHD_CONFIG.format(folder=self.folder))
        (self.folder / "ssh_config").write_text(SSH_CONFIG.format(folder=self.folder))

    def on(self, name):
        """What stands before a command that shall run there."""
        target = f"--target={self.hosts[name].first}"
        return ["nsenter", target, *SPACES, f"--wd={program.ROOT}"]

    def _ip(self, name, words):
        target = f"--target={self.hosts[name].first}"
        subprocess.run(["nsenter", target, "--net", "ip", *words.split()], check=True)

    def start(self, name):
        """Switches a host on, and plugs it in."""
        host, number = Host(self.folder, name), self.numbers[name]
        self.hosts[name] = host
        self._ip("switch", f"link add name {name} type veth peer name eth0 netns {host.first}")
        self._ip("switch", f"link set {name} master ports up")
        self._ip(name, f"link set eth0 address {CARD.format(number)}")
        self._ip(name, f"addr add {NETWORK.format(number)}/24 dev eth0")
        self._ip(name, "link set eth0 up")

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
        """The pid of the one by which mpirun holds this host."""
        return next(pid for pid, called, _ in self.processes(name) if called == "orted")

    def wait_for_ranks(self, name, count, limit_s=launch.PATIENCE_S):
        began = time.monotonic()
        while len(found := self.ranks(name)) != count:
            if time.monotonic() - began > limit_s:
                raise AssertionError(f"{name} has the ranks {found}, not {count} of them")
            time.sleep(launch.POLL_S)
        return found
