#!/usr/bin/env python3
"""SIGUSR1: a run takes a checkpoint at the end of its step, ends with 75, and goes on from there.

What goes on ends with the bits of a run that was never stopped. Where nothing can be kept the
signal is told and ignored.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import tempfile
import time
import unittest

import checkpoints
import launch  # first: it finds the modules below
import small_model
import tap

STOPPED = 75
MORE_STEPS = 7  # that the run which goes on has
STEPS_PER_EPOCH = small_model.TRAIN_SAMPLES // 2
LONG = ["--batch=2", "--micro-batch=1", "--epochs=100000", "--eval-every=0", "--log-every=2"]
# Asynchronous runs are what they are by their drains: every step has one.
ASYNC, SYNC = ["--every=1"], ["--schedule=1f1b", "--every=1000000"]


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.partition = small_model.write(self.folder)
        self.ck = self.folder / "ck"

    def start(self, ranks, *arguments):
        """A run that is training and would not end."""
        running = self.enterContext(launch.Run(ranks, self.partition, *LONG, *arguments))
        running.wait_for("stdout", r"^step \d+", times=2)
        return running

    def end(self, running, status):
        ended = running.end()
        self.assertEqual(ended.status, status, ended)
        return ended

    def assert_one_message(self, ended, pattern):
        self.assertEqual(len(ended.err), 1, f"not one message: {ended}")
        self.assertRegex(ended.err[0], pattern)


class Stop(Case):
    def stop(self, ranks, *arguments):
        """Stops a run with checkpoints in self.ck; the last step that it did."""
        running = self.start(
            ranks,
            f"--checkpoint={self.ck}",
            f"--log={self.folder}/log",
            f"--summary={self.folder}/summary",
            f"--trace={self.folder}/trace",
            f"--save={self.folder}/saved",
            *arguments,
        )
        running.process.send_signal(signal.SIGUSR1)
        ended = self.end(running, STOPPED)
        self.assertEqual(running.left_behind(), [], ended)
        step = checkpoints.latest(self.ck)
        self.assert_one_message(
            ended, rf"^stopped after step {step} with a checkpoint in {self.ck}; .* --resume"
        )
        self.assertIn(f"stopped: {step} steps, {step // STEPS_PER_EPOCH} epochs", str(ended.out))
        return step

    def judge_files(self, step):
        records = [json.loads(line) for line in open(self.folder / "log")]
        kinds = [record["type"] for record in records]
        self.assertEqual(kinds.count("step"), step)
        self.assertEqual((kinds[-1], records[-1]["steps"]), ("end", step))
        self.assertEqual(json.loads((self.folder / "summary").read_text())["steps"], step)
        json.loads((self.folder / "trace").read_text())
        self.assertEqual(os.listdir(self.folder / "saved"), [], "training has not ended")

    def compare(self, step, ranks, *arguments):
        """Goes on, and compares with a run in one piece."""
        last = step + MORE_STEPS
        whole = self.folder / "whole"
        for directory, more in ((self.ck, [f"--resume={self.ck}"]), (whole, [])):
            launch.run(
                ranks,
                self.partition,
                *LONG,
                f"--steps={last}",
                f"--checkpoint={directory}",
                f"--log={directory}.jsonl",
                *more,
                *arguments,
            )
            self.assertEqual(checkpoints.latest(directory), last)
        losses = [launch.program.losses(f"{d}.jsonl") for d in (self.ck, whole)]
        self.assertEqual(losses[0], losses[1][step:])
        self.assertEqual(*(checkpoints.bytes_of(d, last) for d in (self.ck, whole)))

    def test_goes_on_to_the_same_bits(self):
        for ranks, then, how in ((1, 2, SYNC), (2, 1, SYNC), (3, 2, SYNC), (2, 2, ASYNC)):
            with self.subTest(ranks=ranks, how=how):
                self.setUp()
                step = self.stop(ranks, *how)
                self.judge_files(step)
                self.compare(step, then, *how)

    def test_rank_0_is_the_one_to_ask(self):
        """What a batch system sends to one rank alone."""
        running = self.start(2, f"--checkpoint={self.ck}", *SYNC)
        first, second = running.rank_pids()
        os.kill(second, signal.SIGUSR1)
        running.wait_for("stdout", r"^step \d+", times=len(running.lines["stdout"]) + 3)
        os.kill(first, signal.SIGUSR1)
        self.assert_one_message(self.end(running, STOPPED), "^stopped after step")

    def test_the_checkpoint_fails(self):
        for ranks in (1, 2):
            with self.subTest(ranks=ranks):
                running = self.start(ranks, f"--checkpoint={self.ck}", *SYNC)
                shutil.rmtree(self.ck)
                running.process.send_signal(signal.SIGUSR1)
                ended = self.end(running, 1)
                self.assertRegex(ended.err[0], rf"no checkpoint of step \d+.*{self.ck}")
                self.assertRegex(ended.err[1], "could not be written")


class Early(Case):
    """The signal comes while the partition file is read, from a pipe that says when."""

    def ask_early(self, *arguments):
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        running = self.enterContext(launch.Run(1, pipe, *arguments))
        with open(pipe, "w", encoding="utf-8") as file:  # waits for its reader
            self.wait_for_sleep(running)
            running.process.send_signal(signal.SIGUSR1)
            self.wait_for_sleep(running)
            file.write(self.partition.read_text())
        return running

    def wait_for_sleep(self, running):
        """Until it reads, or has ended, and no signal is on its way."""
        path = pathlib.Path("/proc") / str(running.process.pid) / "status"
        asleep = re.compile(r"State:\s+[SZ].*SigPnd:\s+0+\n.*ShdPnd:\s+0+\n", re.DOTALL)
        while not asleep.search(path.read_text()):
            self.assertLess(running.seconds(), launch.TIME_LIMIT_S)
            time.sleep(launch.POLL_S)

    def test_before_training(self):
        ended = self.end(self.ask_early(*LONG, f"--checkpoint={self.ck}"), STOPPED)
        self.assert_one_message(ended, "^stopped after step 1 ")
        self.assertEqual(checkpoints.steps(self.ck), [1])

    def test_nothing_is_left_to_do(self):
        """The last step's checkpoint is the run's own."""
        ended = self.end(self.ask_early("--steps=1", f"--checkpoint={self.ck}"), 0)
        self.assertEqual(ended.err, [])
        self.assertEqual(checkpoints.steps(self.ck), [1])

    def test_nothing_to_keep(self):
        launch.succeed(1, self.partition, f"--save={self.folder}/w", "--steps=1")
        infer = ["--infer=test", f"--weights={self.folder}/w", f"--out={self.folder}/out"]
        for arguments in (["--check"], ["--check-gradients"], infer, ["--steps=3"]):
            with self.subTest(arguments):
                ended = self.end(self.ask_early(*arguments), 0)
                self.assert_one_message(ended, "^warning: SIGUSR1 .* --checkpoint DIR .* ignored$")
                (self.folder / "pipe").unlink()

    def test_told_once_while_training(self):
        running = self.start(2)
        for _ in range(2):
            steps = len(running.lines["stdout"])
            running.process.send_signal(signal.SIGUSR1)
            running.wait_for("stdout", r"^step \d+", times=steps + 3)
        running.process.send_signal(signal.SIGTERM)
        ended = running.end()
        self.assertNotEqual(ended.status, STOPPED, ended)
        self.assertEqual(sum("SIGUSR1" in line for line in ended.err), 1, ended)


if __name__ == "__main__":
    tap.main()
