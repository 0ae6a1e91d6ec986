#!/usr/bin/env python3
"""--debug with a real gdb: the line that a rank prints is run as it stands, in batch mode.

The listed ranks wait until a debugger releases them, the others go on as far as they can without
them, and the released run trains to its end.
"""

import json
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest
import unittest.mock

import launch  # first: it finds the modules below
import tap

RUN = [
    launch.LENET5,
    "--dataset=synthetic",
    "--samples=256",
    "--epochs=1",
    "--eval-every=0",
]
WAITS = r"rank (\d+) \(stage (\d+)\) waits for a debugger: host (\S+), pid (\d+)"
DETACHED = r"Inferior 1 .*detached"
GDB_LINE = r"^\s*gdb\s+(gdb -p (\d+) .*)$"


def why_gdb_cannot_attach():
    """None, or why not: no gdb, or the system forbids ptrace."""
    if not shutil.which("gdb"):
        return "there is no gdb"
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        try:
            said = gdb("-p", sleeper.pid, "-ex", "detach")
        finally:
            sleeper.kill()
    if "ptrace: Operation not permitted" in said or "Could not attach" in said:
        return "gdb may not attach here: " + next(l for l in said.splitlines() if "ttach" in l)
    return None


def gdb(*arguments):
    """What gdb said, in batch mode and without anybody's init files."""
    done = subprocess.run(
        ["gdb", "-batch", "-nx", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=launch.TIME_LIMIT_S,
        check=False,
    )
    return done.stdout


class Debug(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        reason = why_gdb_cannot_attach()
        if reason:
            raise unittest.SkipTest(reason)

    def waiting(self, running, ranks):
        """{rank: (pid, printed gdb line)} of the ranks that wait, once so many have said so."""
        lines = running.wait_for("stderr", GDB_LINE, times=len(ranks))
        said = running.wait_for("stderr", WAITS, times=len(ranks))
        by_pid = {int(line[2]): line[1] for line in lines}
        self.assertEqual(len(by_pid), len(said))
        for line in said:
            self.assertEqual(line[1], line[2], "a rank is a stage")
        return {int(line[1]): (int(line[4]), by_pid[int(line[4])]) for line in said}

    def release(self, line):
        """Runs the printed line, in batch mode; what it said."""
        words = shlex.split(line)
        self.assertEqual(words[0], "gdb")
        # `continue` would keep gdb until the rank has ended, and rightly so for a person.
        words = ["detach" if word == "continue" else word for word in words]
        return self.checked(gdb(*words[1:]))

    def checked(self, said):
        self.assertNotRegex(said, "No symbol|unknown type", "gdb does not take what was printed")
        return said

    def debug(self, option, listed, ranks=2):
        """Starts with --debug, releases who waits, and judges the end."""
        with launch.Run(ranks, *RUN, option) as running:
            waiting = self.waiting(running, listed)
            self.assertEqual(sorted(waiting), listed)
            if ranks > 1:
                pids = running.rank_pids()
                self.assertEqual([pids[rank] for rank in listed], [waiting[r][0] for r in listed])
            for rank in listed:
                pid, line = waiting[rank]
                self.assertTrue(running.process.poll() is None, running.lines)
                self.assertNotIn("step", "".join(running.lines["stdout"]), "nobody trains yet")
                said = self.release(line)
                self.assertRegex(said, DETACHED)
            ended = running.end()
        self.assertEqual(ended.status, 0, ended)
        self.assertTrue(any(text.startswith("done: ") for text in ended.out), ended)
        self.assertEqual(sum(bool(re.search(WAITS, text)) for text in ended.err), len(listed))

    def test_listed_ranks(self):
        for option, listed in (("--debug=1", [1]), ("--debug=0", [0]), ("--debug=0,1", [0, 1])):
            with self.subTest(option):
                self.debug(option, listed)

    def test_all_ranks(self):
        self.debug("--debug", [0, 1])

    def test_without_mpirun(self):
        self.debug("--debug", [0], ranks=1)

    @unittest.skipUnless(shutil.which("strip"), "there is no strip")
    def test_release(self):
        """In a program without debugging information gdb knows names, but no types."""
        with tempfile.TemporaryDirectory() as folder:
            stripped = f"{folder}/pipetrain"
            subprocess.run(
                ["strip", "--strip-debug", "-o", stripped, launch.program.PROGRAM], check=True
            )
            with unittest.mock.patch.object(launch.program, "PROGRAM", stripped):
                self.debug("--debug=0,1", [0, 1])

    def test_debugger_that_stays(self):
        """As printed, with `continue`: gdb sees the rank's end."""
        with launch.Run(2, *RUN, "--debug=1") as running:
            _, line = self.waiting(running, [1])[1]
            said = gdb(*shlex.split(line)[1:])
            ended = running.end()
        self.assertRegex(said, r"exited normally")
        self.assertEqual(ended.status, 0, ended)

    def test_where_it_waits(self):
        """The backtrace names functions of the program, from a release build too."""
        with launch.Run(2, *RUN, "--debug=1") as running:
            pid, line = self.waiting(running, [1])[1]
            said = gdb("-p", pid, "-ex", "bt", "-ex", "detach")
            self.release(line)
            ended = running.end()
        self.assertIn("pt_app_wait_for_debugger", said)
        self.assertEqual(ended.status, 0, ended)

    def test_editor(self):
        """What VS Code's debugger does with its line: it attaches by pid, then runs the command."""
        with launch.Run(2, *RUN, "--debug=0") as running:
            pid, _ = self.waiting(running, [0])[0]
            (line,) = running.wait_for("stderr", r"VS Code\s+(\{.*\}), then .*: -exec (.*)$")
            settings = json.loads(line[1])
            self.assertEqual(settings["request"], "attach")
            self.assertEqual(settings["processId"], str(pid))
            with tempfile.NamedTemporaryFile("w", suffix=".gdb") as script:
                script.write(f"attach {pid}\n{line[2]}\ndetach\n")
                script.flush()
                said = self.checked(gdb("-x", script.name))
            self.assertRegex(said, DETACHED)
            ended = running.end()
        self.assertEqual(ended.status, 0, ended)


if __name__ == "__main__":
    tap.main()
