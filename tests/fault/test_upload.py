#!/usr/bin/env python3
"""--upload: the command sees every committed step, whatever it does, and nothing waits for it."""

import os
import shutil
import signal
import time

import checkpoints
import launch  # first: it finds the modules below
import tap

LAST = checkpoints.STEPS
ONE = [f"--every={LAST}"]  # a single checkpoint, at the end
SYNC = "--schedule=1f1b"
PAUSES_S = (1, 2, 4)  # before a command is tried again
OUR_SIGNALS = (1 << 31) - 1  # those from 32 on are the C library's own
SOON_S = 5  # far below what the command would take that is ended


class Upload(checkpoints.Case):
    def setUp(self):
        self.directory = self.fresh("ck")
        self.seen = self.fresh("seen")

    def script(self, text):
        """A command that is given the folder behind it."""
        path = self.folder / "command"
        path.write_text(f'#!/bin/sh\necho "$PIPETRAIN_STEP" >> {self.seen}\n{text}\n')
        path.chmod(0o755)
        return path

    def train(self, command, *arguments, ranks=1, expect=0):
        return checkpoints.train(
            ranks, self.partition, self.directory, SYNC, f"--upload={command}", *arguments,
            expect=expect,
        )

    def steps_seen(self):
        return [int(line) for line in self.seen.read_text().split()] if self.seen.exists() else []

    def marked(self):
        found = self.directory.glob("step-*/uploaded")
        return sorted(int(path.parent.name.removeprefix("step-")) for path in found)

    # ---- what it gets -----------------------------------------------------------------------

    def test_every_step_once(self):
        remote = self.fresh("remote")
        remote.mkdir()
        self.train(self.script(f'cp -r "$1" {remote}'), ranks=2)
        every = checkpoints.steps(self.directory)
        self.assertEqual(self.steps_seen(), every)
        self.assertEqual(self.marked(), every)
        self.assertEqual(checkpoints.steps(remote), every)
        self.assertTrue(all(checkpoints.is_good(remote, step) for step in every))
        self.train(self.script("true"), f"--resume={self.directory}", "--epochs=4")
        self.assertEqual(self.steps_seen(), [*every, 20, 24], "what has a mark is not seen again")

    def test_where_the_folder_goes(self):
        step = str(checkpoints.step_folder(self.directory, LAST))
        for command, words in ((f"echo behind >> {self.seen}; echo", "\n" + step),
                               (f'echo "$1" before >> {self.seen} #', f"{step} before\n")):
            with self.subTest(command):
                shutil.rmtree(self.directory, ignore_errors=True)
                ended = self.train(command, *ONE)
                said = "\n" + "\n".join(ended.err) + "\n" + self.seen.read_text()
                self.assertIn(words, said)
                self.assertNotIn(step, "\n".join(ended.out), "what it says goes to stderr")

    def test_its_surroundings(self):
        """The launch that wrote the step, no input, no files of ours, no signal kept from it."""
        self.train("true", *ONE)
        (checkpoints.step_folder(self.directory, LAST) / "uploaded").unlink()
        found = self.fresh("found")
        ended = self.train(
            self.script(f'{{ echo "$PIPETRAIN_LAUNCH"; wc -c; ls /proc/self/fd | tr "\\n" " "; echo;'
                        f" grep -E 'Sig(Blk|Ign)' /proc/self/status; }} > {found}"),
            *ONE, f"--resume={self.directory}",
        )
        self.assertEqual(ended.err, [])
        run, count, files, blocked, ignored = found.read_text().splitlines()
        self.assertEqual((run, count), ("1", "0"))
        self.assertEqual(files.split(), ["0", "1", "2", "3"])  # the last one is of ls itself
        self.assertEqual(int(blocked.split()[1], 16), 0)
        self.assertEqual(int(ignored.split()[1], 16) & OUR_SIGNALS, 0)

    # ---- what it does -----------------------------------------------------------------------

    def test_that_fails_twice(self):
        count = self.fresh("count")
        ended = self.train(
            self.script(f'echo >> {count}; test "$(wc -l < {count})" -gt 2 || exit 7'), *ONE
        )
        self.assertEqual(self.steps_seen(), [LAST] * 3)
        self.assertEqual(self.marked(), [LAST])
        self.assertGreater(ended.seconds, PAUSES_S[0] + PAUSES_S[1])
        self.assertNotIn("warning", "\n".join(ended.err))

    def test_that_always_fails(self):
        """A warning; the next launch hands over what is still there."""
        ended = self.train(self.script("exit 7"), *ONE)
        self.assertEqual(self.steps_seen(), [LAST] * (1 + len(PAUSES_S)))
        self.assertRegex("\n".join(ended.err), f"step-{LAST:06}: the command ended with 7")
        self.assertEqual(self.marked(), [])
        self.assertEqual(checkpoints.latest(self.directory), LAST)
        self.train(self.script("true"), f"--resume={self.directory}")
        self.assertEqual(self.steps_seen()[4:], [LAST])
        self.assertEqual(self.marked(), [LAST])

    def test_that_is_killed(self):
        count = self.fresh("count")
        self.train(self.script(f'test -e {count} || {{ touch {count}; kill -9 $$ $PPID; }}'), *ONE)
        self.assertEqual(self.steps_seen(), [LAST] * 2)
        self.assertEqual(self.marked(), [LAST])

    def test_nothing_waits_and_nothing_goes(self):
        """It takes until the last step is there; then its own, long out of date, is still whole."""
        manifest = checkpoints.step_folder(self.directory, LAST) / "manifest.json"
        whole = self.fresh("whole")
        self.train(
            self.script(f'i=0; while [ ! -e {manifest} ] && [ $i -lt 600 ]; do sleep 0.05; '
                        f'i=$((i+1)); done; ls "$1" | wc -l >> {whole}'),
            "--keep=1", ranks=2,
        )
        self.assertEqual(self.steps_seen(), [checkpoints.EVERY, LAST])
        files = checkpoints.FILES + 1  # and the manifest
        self.assertEqual(whole.read_text().split(), [str(files)] * 2)
        self.assertEqual(checkpoints.latest(self.directory), LAST)

    # ---- how a run ends ---------------------------------------------------------------------

    def end_by(self, number, ranks):
        """Nothing of the command is left, not even what it has started."""
        arguments = [self.partition, SYNC, *ONE, f"--checkpoint={self.directory}"]
        with launch.Run(ranks, *arguments, "--upload=(sleep 1000); true") as run:
            run.wait_for("stderr", "waits for the command")
            began = time.monotonic()
            if number == signal.SIGKILL and ranks > 1:
                os.kill(run.rank_pids()[0], number)
            else:
                run.process.send_signal(number)
            run.wait_until_gone(SOON_S, launcher_s=SOON_S)
            ended = run.end()
            self.assertLess(time.monotonic() - began, 2 * SOON_S, ended)
        self.assertEqual(self.marked(), [])
        self.assertEqual(checkpoints.latest(self.directory), LAST)
        return ended.status

    def test_ended_while_it_waits(self):
        self.assertEqual(self.end_by(signal.SIGINT, ranks=1), 130)

    def test_killed_while_it_waits(self):
        self.assertEqual(self.end_by(signal.SIGKILL, ranks=1), -signal.SIGKILL)

    def test_ended_under_mpirun(self):
        self.assertNotEqual(self.end_by(signal.SIGINT, ranks=2), 0)

    def test_killed_under_mpirun(self):
        self.assertNotEqual(self.end_by(signal.SIGKILL, ranks=2), 0)

    def test_bad_usage(self):
        cases = {
            ("--upload=true",): "--upload goes with --checkpoint",
            ("--upload= ", f"--checkpoint={self.folder}/x"): "write a command",
        }
        for arguments, words in cases.items():
            with self.subTest(arguments):
                ended = launch.run(1, self.partition, *arguments)
                self.assertEqual(ended.status, 2, ended)
                self.assertIn(words, "\n".join(ended.err))

    def test_not_from_a_file(self):
        """A partition file from somewhere runs no commands."""
        path = self.folder / "other.yaml"
        path.write_text(self.partition.read_text().replace("batch: 16", "upload: 'x', batch: 16"))
        ended = launch.run(1, path)
        self.assertEqual(ended.status, 2, ended)
        self.assertIn("upload", "\n".join(ended.err))


if __name__ == "__main__":
    tap.main()
