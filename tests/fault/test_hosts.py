#!/usr/bin/env python3
"""pipetrain-launch with two hosts, one of which is lost: its power fails, or its cable is pulled.

The hosts are namespaces of this machine (hosts.py), which mpirun and the launcher reach by ssh.
Prints how long a loss took, until the next launch trained.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

import checkpoints
import hosts
import launch
import launching
import program
import tap

WHY_NOT = hosts.why_not()
STEPS = 2400  # some seconds on two hosts; what is to happen happens in the first one
EVERY = 50
LOST_AT = 200
STALL_S = 2


@unittest.skipIf(WHY_NOT, WHY_NOT)
class Hosts(checkpoints.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.network = cls.enterClassContext(hosts.Hosts("alpha", "beta", "gamma"))
        cls.straight = cls.folder / "straight"
        ended = launch.run(1, *cls.words(cls.straight)[1:])
        if ended.status != 0:
            raise AssertionError(str(ended))

    @classmethod
    def words(cls, directory):
        return [
            program.PROGRAM, cls.partition, f"--checkpoint={directory}", f"--resume={directory}",
            f"--every={EVERY}", "--keep=0", f"--epochs={STEPS // 6}", "--schedule=1f1b",
            "--log-every=200",
        ]

    def start(self, name, *places):
        """Two ranks on each of these hosts, from alpha."""
        self.directory = self.fresh(name)
        options = [f"--hosts={':2,'.join(places)}:2", f"--stall={STALL_S}"]
        command = [*self.network.on("alpha"), launching.LAUNCH, *options, "--", *launching.PLACE]
        return self.enterContext(launch.Run(4, command=[*command, *self.words(self.directory)]))

    def wait_for_step(self, running, step):
        """Until it is committed."""
        while (checkpoints.latest(self.directory) or 0) < step:
            self.assertIsNone(running.process.poll(), running.lines)
            self.assertLess(running.seconds(), launch.TIME_LIMIT_S, running.lines)
            time.sleep(launch.POLL_S)

    def lose(self, running, how):
        """Beta, by one of the network's ways; until the others train."""
        began = time.monotonic()
        how("beta")
        running.wait_for("stderr", "launch 1 .* restart 1 of")
        ended = time.monotonic()
        running.wait_for("stderr", "beta cannot be reached")
        asked = time.monotonic()
        running.wait_for("stderr", "launch 2 trains")
        print(
            f"# {self.id()}: launch 1 was ended after {ended - began:.1f} s, hosts were asked for "
            f"{asked - ended:.1f} s, launch 2 trained after {time.monotonic() - began:.1f} s"
        )

    def end(self, running):
        ended = running.end()
        self.assertEqual(ended.status, 0, ended)
        self.assertEqual(
            checkpoints.bytes_of(self.directory, STEPS), checkpoints.bytes_of(self.straight, STEPS)
        )
        for name in self.network.numbers:
            self.network.wait_until_idle(name)
        return ended

    def trained_by(self, step):
        """{name of a host: its ranks} when this step was committed."""
        written = checkpoints.manifest(self.directory, step)["hosts"]
        return {host["name"]: host["ranks"] for host in written}

    def test_both(self):
        running = self.start("both", "alpha", "beta")
        ended = self.end(running)
        self.assertEqual(self.trained_by(STEPS), {"alpha": [0, 1], "beta": [2, 3]})
        self.assertNotIn("restart", "\n".join(ended.err))

    def test_killed_there(self):
        """A rank, and what mpirun holds the other host by."""
        running = self.start("there", "alpha", "beta")
        self.wait_for_step(running, LOST_AT)
        os.kill(self.network.ranks("beta")[3], signal.SIGKILL)
        running.wait_for("stderr", "launch 1 .* restart 1 of")
        running.wait_for("stderr", "launch 2 trains")
        os.kill(self.network.daemon("beta"), signal.SIGKILL)
        running.wait_for("stderr", "launch 2 .* restart")
        self.end(running)
        self.assertEqual(self.trained_by(STEPS), {"alpha": [0, 1], "beta": [2, 3]})

    def test_power_fails(self):
        """... with rank 0; the other host goes on, with the two ranks that it takes."""
        running = self.start("power", "beta", "gamma")
        self.wait_for_step(running, LOST_AT)
        self.addCleanup(self.network.start, "beta")
        self.lose(running, self.network.lose)
        self.end(running)
        self.assertEqual(self.trained_by(EVERY), {"beta": [0, 1], "gamma": [2, 3]})
        self.assertEqual(self.trained_by(STEPS), {"gamma": [0, 1]})

    def test_cable_is_pulled(self):
        """... and put in again: what was left there ends, and the next launch has both hosts."""
        running = self.start("cable", "alpha", "beta")
        self.wait_for_step(running, LOST_AT)
        self.assertEqual(sorted(self.network.ranks("beta")), [2, 3])
        self.lose(running, self.network.unplug)
        self.network.plug("beta")
        os.kill(self.network.ranks("alpha")[0], signal.SIGKILL)
        self.end(running)
        self.assertEqual(self.trained_by(STEPS), {"alpha": [0, 1], "beta": [2, 3]})

    def test_no_host_is_left(self):
        """... by tests that are killed."""
        words = "import hosts, os; n = hosts.Hosts('one').__enter__(); print(n.folder, flush=True); "
        words += "os.kill(os.getpid(), 9)"
        command = [sys.executable, "-B", "-c", words]
        folder = pathlib.Path(__file__).resolve().parent
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        left = pathlib.Path(done.stdout.strip())
        self.assertTrue(left.is_absolute(), done)
        began = time.monotonic()
        while left.exists():
            self.assertLess(time.monotonic() - began, launch.PATIENCE_S, left)
            time.sleep(launch.POLL_S)


if __name__ == "__main__":
    tap.main()
