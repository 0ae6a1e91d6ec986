#!/usr/bin/env python3
"""The scripts of tools/ that need no build, and the README held to the program.

tools/test-summary decides whether a change may go in, so it is tried on logs of every kind.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import launch  # first: it finds the modules below
import program
import tap

TOOLS = program.ROOT / "tools"
README = (program.ROOT / "README.md").read_text(encoding="utf-8")

# What a test program wrote and how it ended: (name, TAP or other output, meson's result, exit
# status, passed, failed, skipped).
ENDS = [
    ("all good", "1..2\nok 1 - a\nok 2 - b\n", "OK", 0, 2, 0, 0),
    ("plan at the end", "ok 1 - a\nok 2 - b\n1..2\n", "OK", 0, 2, 0, 0),
    ("one bad", "1..2\nok 1 - a\nnot ok 2 - b\n", "FAIL", 1, 1, 1, 0),
    ("died half-way", "1..3\nok 1 - a\n", "ERROR", -11, 1, 2, 0),
    ("died before its plan", "ok 1 - a\n", "ERROR", -11, 1, 1, 0),
    ("died after the last case", "1..1\nok 1 - a\n", "ERROR", -6, 1, 1, 0),
    ("a sanitizer's verdict at the end", "1..1\nok 1 - a\n", "FAIL", 1, 1, 1, 0),
    ("too slow", "1..1\nok 1 - a\n", "TIMEOUT", None, 1, 1, 0),
    ("bailed out", "1..1\nok 1 - a\nBail out! no\n", "ERROR", 1, 1, 1, 0),
    ("one skipped", "1..2\nok 1 - a\nok 2 - b # SKIP no gdb\n", "OK", 0, 1, 0, 1),
    ("all skipped", "1..0 # SKIP no device\n", "SKIP", 0, 0, 0, 1),
    ("skipped by its exit status", "no device\n", "SKIP", 77, 0, 0, 1),
    ("two plans", "1..1\nok 1 - a\n1..1\nok 1 - b\n", "OK", 0, 2, 0, 0),
    ("no TAP, good", "fine\n", "OK", 0, 1, 0, 0),
    ("no TAP, bad", "", "FAIL", 1, 0, 1, 0),
]


def run(*command, **how):
    return subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=launch.TIME_LIMIT_S,
        check=False,
        **how,
    )


class Tools(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    # ---- test-summary -------------------------------------------------------------------------

    def summarise(self, *logs):
        return run(sys.executable, "-B", TOOLS / "test-summary", *logs)

    def log(self, ends):
        path = self.folder / "testlog.json"
        records = [
            {"name": name, "stdout": text, "stderr": "", "result": result, "returncode": status}
            for name, text, result, status, *_ in ends
        ]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    def assert_sum(self, done, passed, failed, skipped):
        last = done.stdout.splitlines()[-1]
        self.assertEqual(last, f"{passed} passed, {failed} failed, {skipped} skipped", done)
        self.assertEqual(done.returncode, 0 if passed and not failed else 1, done)

    def test_summary_of_each_end(self):
        for end in ENDS:
            with self.subTest(end[0]):
                self.assert_sum(self.summarise(self.log([end])), *end[4:])

    def test_summary_adds_up(self):
        sums = [sum(end[i] for end in ENDS) for i in (4, 5, 6)]
        self.assert_sum(self.summarise(self.log(ENDS)), *sums)

    def test_summary_of_what_did_not_run(self):
        self.assert_sum(self.summarise(self.folder / "testlog.json"), 0, 1, 0)
        self.assert_sum(self.summarise(self.log([])), 0, 0, 0)

    def test_usage(self):
        slurm = ("slurm/salloc", "slurm/sbatch", "slurm/job")
        for path in ("run", "test", "fuzz", "bench", "plot", *slurm):
            with self.subTest(path):
                done = run(TOOLS / path, "--help", cwd=self.folder)
                self.assertEqual(done.returncode, 0, done)
                self.assertIn("usage:", done.stdout)

    def test_refused(self):
        """Before anything is installed or built."""
        for path in ("test", "fuzz"):
            with self.subTest(path):
                done = run(TOOLS / path, "--bogus", cwd=self.folder)
                self.assertEqual(done.returncode, 2, done)
                self.assertIn("'--bogus'", done.stderr)

    def test_fuzz_knows_its_targets(self):
        """Those that have a corpus are those that are built."""
        table = (program.ROOT / "tests" / "fuzz" / "meson.build").read_text(encoding="utf-8")
        built = re.findall(r"'(\w+)'", re.search(r"fuzz_targets = \[(.*?)\]", table, re.S)[1])
        self.assertEqual(run(TOOLS / "fuzz", "--list").stdout.split(), built)
        for words in (["cifra"], ["--seconds", "0"], ["--seconds", "1m"]):
            done = run(TOOLS / "fuzz", *words)
            self.assertEqual(done.returncode, 2, done)
            self.assertIn(words[-1], done.stderr)

    # ---- the program, from elsewhere ----------------------------------------------------------

    def test_default_file_from_elsewhere(self):
        """lenet5.yaml is found from the program's own place: at the top, or in a build folder."""
        for place in ("pipetrain", "build/pipetrain", "build/src/app/pipetrain"):
            with self.subTest(place):
                copy = self.folder / "tree" / place
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(program.PROGRAM, copy)
                partitions = self.folder / "tree" / "partitions"
                partitions.mkdir(exist_ok=True)
                shutil.copy(launch.LENET5, partitions)
                arguments = ["--dataset=synthetic", "--samples=64", "--check"]
                done = run(copy, *arguments, cwd=self.folder)
                self.assertEqual(done.returncode, 0, done)
                self.assertIn("lenet5", done.stdout)

    # ---- README -------------------------------------------------------------------------------

    def test_readme_has_the_options(self):
        text = run(program.PROGRAM, "--help").stdout
        options = text[text.index("What to do:") : text.index("\nExit status:")]
        self.assertIn(f"```\n{options.rstrip()}\n```", README)

    def test_readme_says_what_files_may_not_set(self):
        said = re.search(r"† marks what cannot stand in a partition file: ([^.]*)\.", README)[1]
        names = set(re.findall(r"`([a-z-]+)`", said))
        options = set(re.findall(r"(?m)^  --(?:\[no-\])?([a-z0-9-]+)", README))
        self.assertLess(names, options)
        summary = self.folder / "summary.json"
        arguments = ["--dataset=synthetic", "--samples=32", f"--summary={summary}"]
        launch.succeed(1, launch.LENET5, *arguments, "--eval-every=0")
        self.assertEqual(set(json.loads(summary.read_text())["settings"]), options - names)

    def test_readme_example_runs(self):
        path = self.folder / "tiny.yaml"
        path.write_text(re.search(r"(?s)```yaml\n(.*?)```", README)[1])
        arguments = ["--dataset=synthetic", "--samples=64", "--batch=32", "--epochs=1"]
        ended = launch.succeed(2, path, *arguments)
        self.assertIn("cut as the file says", "\n".join(ended.out))

    def test_readme_picture(self):
        done = run(program.PROGRAM, launch.LENET5, "--check", "--stages=4", "--dataset=synthetic")
        rows = re.findall(r"(?m)^(?:rank \d \||  time ).*$", done.stdout)
        self.assertEqual(len(rows), 5, done)
        self.assertIn("\n".join("    " + row for row in rows), README)


if __name__ == "__main__":
    tap.main()
