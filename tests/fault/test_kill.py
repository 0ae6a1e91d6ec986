#!/usr/bin/env python3
"""However a rank ends, all of them end, soon, with one message, and leave nothing behind.

A rank is killed or fails in mid-training, on two ranks and on four; and whoever started a run ends
it, from a terminal (SIGINT) or from a script (SIGTERM). Each time: no rank is left within two
seconds and no mpirun within two more, nothing of it is in shared memory or in the session
directory, and there is one message.
"""

import os
import signal
import time
import unittest

import launch
import tap

LIMIT_S = 2.0  # what is promised
# mpirun's two sleeps of a second between its signals. A rank that ends cuts a sleep short, if it
# does not end in the instant before: then mpirun itself takes longer than the ranks.
LAUNCHER_S = 2.0
NEVER_ENDS = [
    launch.LENET5,
    "--dataset=synthetic",
    "--samples=200000",
    "--epochs=1000",
    "--eval-every=0",
    "--log-every=5",
]
INTERRUPTED = 130
ENDED = "interrupted|ended by a signal"


class Kill(unittest.TestCase):
    def start(self, ranks, *arguments, **how):
        """A run that is training; its ranks are in `pids`."""
        running = self.enterContext(launch.Run(ranks, *NEVER_ENDS, *arguments, **how))
        running.wait_for("stdout", r"^step \d+", times=2)
        return running

    def judge(self, running, began):
        """All are gone in time and nothing is left; returns how it ended."""
        spent = time.monotonic() - began
        running.wait_until_gone(LIMIT_S - spent, LAUNCHER_S if running.ranks > 1 else 0)
        ended = running.end()
        self.assertEqual(running.left_behind(), [], ended)
        return ended

    def assert_one_message(self, ended, pattern):
        self.assertEqual(len(ended.err), 1, f"not one message: {ended}")
        self.assertRegex(ended.err[0], pattern)

    # ---- killed -----------------------------------------------------------------------------

    def kill_one(self, ranks, victim):
        running = self.start(ranks)
        pids = running.rank_pids()
        self.assertNotEqual(running.left_behind(), [], "the files of a run were not found")
        began = time.monotonic()
        os.kill(pids[victim], signal.SIGKILL)
        ended = self.judge(running, began)
        self.assertNotEqual(ended.status, 0, ended)
        # mpirun alone knows which rank was killed, and says it once. Rank 0, if it is alive, adds
        # where the run was.
        self.assertEqual(ended.banner.count("noticed that process rank"), 1, ended)
        self.assertRegex(ended.banner, rf"process rank {victim} .*\n?.*signal 9")
        if victim == 0:
            self.assertEqual(ended.err, [], f"more than mpirun's message: {ended}")
        else:
            self.assert_one_message(ended, ENDED)

    def test_killed_rank(self):
        for ranks, victim in ((2, 0), (2, 1), (4, 0), (4, 2), (4, 3)):
            with self.subTest(ranks=ranks, victim=victim):
                self.kill_one(ranks, victim)
                self.doCleanups()

    # ---- failing ----------------------------------------------------------------------------

    def fail_one(self, ranks, victim, *arguments, micro_batch=0):
        began = time.monotonic()
        with launch.Run(ranks, *NEVER_ENDS, f"--fail-at={victim}", *arguments) as running:
            if ranks > 1:
                running.rank_pids()
            running.wait_for("stderr", "error:")
            began = time.monotonic()
            ended = self.judge(running, began)
        self.assertEqual(ended.status, 1, ended)
        self.assert_one_message(ended, r"--fail-at")
        who = rf"rank {victim}\b.*stage {victim}\b" if ranks > 1 else "stage 0"
        self.assertRegex(ended.err[0], who)
        self.assertRegex(ended.err[0], rf"(?i)update.*micro-batch {micro_batch}\b")

    def test_failing_rank(self):
        for ranks, victim in ((1, 0), (2, 0), (2, 1), (4, 0), (4, 2), (4, 3)):
            with self.subTest(ranks=ranks, victim=victim):
                self.fail_one(ranks, victim)

    def test_failing_rank_in_a_later_micro_batch(self):
        """The first update of a step of four micro-batches is at the fourth."""
        arguments = ["--schedule=1f1b", "--accumulate=4", "--micro-batch=8"]
        for victim in (0, 1):
            with self.subTest(victim=victim):
                self.fail_one(2, victim, *arguments, micro_batch=3)

    # ---- ended by whoever started it ----------------------------------------------------------

    def test_signal_to_mpirun(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            for ranks in (2, 4):
                with self.subTest(number.name, ranks=ranks):
                    running = self.start(ranks)
                    running.rank_pids()
                    began = time.monotonic()
                    running.process.send_signal(number)
                    ended = self.judge(running, began)
                    self.assertNotEqual(ended.status, 0, ended)
                    self.assert_one_message(ended, ENDED)
                    self.doCleanups()

    def test_signal_to_one_rank(self):
        """As when a batch system ends one of several nodes."""
        for victim in (0, 1):
            with self.subTest(victim=victim):
                running = self.start(2)
                pids = running.rank_pids()
                began = time.monotonic()
                os.kill(pids[victim], signal.SIGTERM)
                ended = self.judge(running, began)
                self.assertEqual(ended.status, INTERRUPTED, ended)
                self.assert_one_message(ended, ENDED)
                self.doCleanups()

    def test_signal_without_mpirun(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number.name):
                running = self.start(1)
                began = time.monotonic()
                running.process.send_signal(number)
                ended = self.judge(running, began)
                self.assertEqual(ended.status, INTERRUPTED, ended)
                self.assert_one_message(ended, ENDED)
                self.doCleanups()

    def test_signal_while_nothing_can_answer(self):
        """A stopped rank cannot be asked: mpirun's own kill reaches it."""
        running = self.start(2)
        pids = running.rank_pids()
        os.kill(pids[1], signal.SIGSTOP)
        began = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        ended = self.judge(running, began)
        self.assertNotEqual(ended.status, 0, ended)

    def test_signal_while_waiting_for_a_debugger(self):
        """Ctrl-C counts outside of training too."""
        with launch.Run(1, *NEVER_ENDS, "--debug") as running:
            running.wait_for("stderr", "waits for a debugger")
            began = time.monotonic()
            running.process.send_signal(signal.SIGINT)
            ended = self.judge(running, began)
        self.assertEqual(ended.status, INTERRUPTED, ended)
        self.assertEqual(sum("interrupted" in line for line in ended.err), 1, ended)


if __name__ == "__main__":
    tap.main()
