#!/usr/bin/env python3
"""Launches and hosts have numbers that only grow: in the manifest, the log, the summary, and what
the launcher says and keeps.

A host is what has a name: ranks get names of their own from the kernel's UTS namespaces.
"""

import json
import os
import pathlib
import subprocess
import unittest

import checkpoints
import launch  # first: it finds the modules below
import launching
import program
import tap

# In a namespace of its own, for which others than root need one of users around it.
ALONE = ["unshare", "--uts"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--uts"]
NAMED = ["sh", "-c", 'hostname "$1" && shift && exec "$@"', "sh"]
PLACES = ["--oversubscribe", "--bind-to", "none"]


def on_host(name):
    """What stands before a command that shall see this name."""
    return [*ALONE, *NAMED, name]


def why_not():
    try:
        tried = subprocess.run(
            [*on_host("alpha"), "hostname"], capture_output=True, text=True, check=False
        )
    except OSError as reason:
        return str(reason)
    return "" if tried.stdout == "alpha\n" else f"no host names to give: {tried.stderr.strip()}"


WHY_NOT = why_not()


@unittest.skipIf(WHY_NOT, WHY_NOT)
class Numbers(checkpoints.Case):
    def train(self, hosts, directory, *arguments, expect=0):
        """A rank on each of these hosts."""
        words = [program.PROGRAM, self.partition, f"--checkpoint={directory}", *arguments]
        words += [f"--log={directory}.jsonl", f"--summary={directory}.json"]
        command = ["mpirun", *PLACES]
        for host in hosts:
            command += ["-np", 1, *on_host(host), *words, ":"]
        ended = launch.run(len(hosts), command=command[:-1])
        self.assertEqual(ended.status, expect, ended)
        return ended

    def known(self, directory):
        """{name: (number, first launch, last launch)}."""
        hosts = json.loads((directory / "hosts.json").read_text())
        return {h["name"]: (h["number"], h["first_launch"], h["last_launch"]) for h in hosts}

    def hosts_in_manifest(self, directory, step):
        return [
            (host["number"], host["name"], host["ranks"])
            for host in checkpoints.manifest(directory, step)["hosts"]
        ]

    def run_records(self, directory):
        lines = pathlib.Path(f"{directory}.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if record["type"] == "run"]

    def test_hosts(self):
        """One leaves, one comes, the first is there again, and another directory goes on."""
        directory, other = self.fresh("ck"), self.fresh("other")
        resume = f"--resume={directory}"
        self.train(["alpha", "beta", "alpha"], directory, "--steps=4")
        self.assertEqual(self.known(directory), {"alpha": (1, 1, 1), "beta": (2, 1, 1)})
        self.assertEqual(
            self.hosts_in_manifest(directory, 4), [(1, "alpha", [0, 2]), (2, "beta", [1])]
        )
        self.train(["gamma", "beta"], directory, resume, "--steps=8")
        self.assertEqual(
            self.hosts_in_manifest(directory, 8), [(2, "beta", [1]), (3, "gamma", [0])]
        )
        self.train(["alpha"], directory, resume, "--steps=10")
        self.train(["alpha"], directory, resume, "--steps=11", "--fail-at=0", expect=1)
        self.train(["delta", "beta"], other, resume, "--steps=12")
        self.assertEqual(
            self.known(directory), {"alpha": (1, 1, 4), "beta": (2, 1, 2), "gamma": (3, 2, 2)}
        )
        self.assertEqual(
            self.known(other),
            {"alpha": (1, 1, 4), "beta": (2, 1, 5), "gamma": (3, 2, 2), "delta": (4, 5, 5)},
        )
        self.assertEqual(checkpoints.manifest(other, 12)["launch"], 5)
        stages = [record["stages"] for record in self.run_records(directory)]
        self.assertEqual(
            [[(stage["host"], stage["host_number"]) for stage in one] for one in stages],
            [[("alpha", 1), ("beta", 2), ("alpha", 1)], [("gamma", 3), ("beta", 2)]]
            + 2 * [[("alpha", 1)]],
        )
        self.assertEqual([one["launch"] for one in self.run_records(directory)], [1, 2, 3, 4])
        summary = json.loads(pathlib.Path(f"{other}.json").read_text())
        self.assertEqual([stage["host_number"] for stage in summary["stages"]], [4, 2])

    def test_broken_list(self):
        """No number is given twice for that: the run says what to do, and every step is there."""
        directory = self.fresh("broken")
        self.train(["alpha", "beta"], directory, "--steps=4")
        (directory / "hosts.json").write_text('[{"number": 1}]')
        ended = self.train(
            ["beta", "alpha"], directory, f"--resume={directory}", "--steps=8", expect=2
        )
        self.assertRegex("\n".join(ended.err), r"hosts\.json .*remove it.* entry 0")
        self.assertTrue(checkpoints.is_good(directory, 4))
        (directory / "hosts.json").unlink()
        self.train(["beta", "alpha"], directory, f"--resume={directory}", "--steps=8")
        self.assertEqual(self.known(directory), {"beta": (1, 3, 3), "alpha": (2, 3, 3)})


class Unnumbered(checkpoints.Case):
    def test_without_checkpoints(self):
        """There is nothing to count in."""
        log = self.folder / "plain.jsonl"
        launch.succeed(1, self.partition, f"--log={log}", "--steps=1")
        record = json.loads(log.read_text().splitlines()[0])
        self.assertIsNone(record["launch"])
        self.assertIsNone(record["stages"][0]["host_number"])


@unittest.skipIf(WHY_NOT, WHY_NOT)
class Launcher(launching.Case):
    def test_state(self):
        """What trains now, while it does; and nothing behind that."""
        partition = checkpoints.write_model(self.folder)
        words = [program.PROGRAM, partition, *self.checkpoints(), "--epochs=100000"]
        words += ["--every=200", "--log-every=100"]
        command = [launching.LAUNCH, "--", *PLACES, "-np", 1, *on_host("alpha"), *words]
        command += [":", "-np", 1, *on_host("beta"), *words]
        with launch.Run(2, command=command) as running:
            running.wait_for("stderr", "launch 1 trains on host 1 .alpha., 2 .beta.")
            state = self.state()
            self.assertEqual(state["launch"], 1)
            names = [(host["number"], host["name"]) for host in state["hosts"]]
            self.assertEqual(names, [(1, "alpha"), (2, "beta")])
            running.process.terminate()
            ended = running.end()
        self.assertEqual(ended.status, 75, ended)
        state = self.state()
        self.assertEqual((state["launch"], state["hosts"]), (0, []))


if __name__ == "__main__":
    tap.main()
