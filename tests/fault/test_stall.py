#!/usr/bin/env python3
"""--stall: a run in which a rank stands still says where every rank is, and ends with 1.

Ranks are stopped (SIGSTOP), which no MPI notices; layers of the clock backend take half a minute;
and what is merely slow goes on. The file of PIPETRAIN_PROGRESS is read while it is written.
"""

import os
import pathlib
import re
import signal
import tempfile
import time
import unittest
from unittest import mock

import launch  # first: it finds the modules below
import small_model
import tap

LIMIT_S = 1.0
# Until mpirun has ended what cannot run: a moment for the lines, its two sleeps of a second between
# signals, and a busy machine.
PATIENCE_S = 3.0
LINE = re.compile(
    r"^(?:rank (\d+): )?error: stalled for (\d+\.\d) s, host \S+, stage \d+ of \d+: (.*)$"
)
ENDLESS = ["--dataset=synthetic", "--samples=200000", "--eval-every=0", "--log-every=5"]
FEW = ["--dataset=synthetic", "--batch=8", "--eval-every=0"]
LONG_US = 30_000_000


def stalled(ended):
    """{rank: (seconds, where it is)}"""
    found = [m for line in ended.err if (m := LINE.match(line))]
    return {int(m[1] or 0): (float(m[2]), m[3]) for m in found}


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def clock(self, stages):
        """Stated times: {stage: µs of its forward}."""
        path = self.folder / "clock.csv"
        columns = "stage,forward_us,backward_input_us,backward_weight_us,update_us\n"
        path.write_text(columns + "".join(f"{s},{us},10,10,10\n" for s, us in stages.items()))
        return ["--backend=clock", f"--clock={path}"]


class Stopped(Case):
    def stop(self, ranks, victim, *arguments):
        """Stops a rank in mid-training; what was said of the others, and of it."""
        with launch.Run(ranks, launch.LENET5, *ENDLESS, *arguments) as running:
            running.wait_for("stdout", r"^step \d+", times=2)
            pids = running.rank_pids()
            os.kill(pids[victim], signal.SIGSTOP)
            began = time.monotonic()
            ended = running.end()
            seconds = time.monotonic() - began
            running.wait_until_gone(PATIENCE_S)
            self.assertEqual(running.left_behind(), [], ended)
        self.assertEqual(ended.status, 1, ended)
        self.assertGreater(seconds, LIMIT_S - 0.2, ended)
        self.assertLess(seconds, LIMIT_S + PATIENCE_S, ended)
        lines = stalled(ended)
        self.assertEqual(sorted(lines), [r for r in range(ranks) if r != victim], ended)
        return {rank: where for rank, (_, where) in lines.items()}

    def test_middle_rank(self):
        """Both neighbours name it, and what they wait for."""
        for how in ([], ["--schedule=1f1b", "--accumulate=4", "--micro-batch=8"]):
            with self.subTest(how):
                lines = self.stop(3, 1, f"--stall={LIMIT_S}", *how)
                for rank, message in ((0, "gradients|activations"), (2, "activations")):
                    self.assertRegex(lines[rank], "^waits for .*rank 1")
                    self.assertRegex(lines[rank], rf"({message}) of micro-batch \d+ \(step \d+\)|end")

    def test_first_rank(self):
        """By the variable: the others wait for each other, or for its word, and not in vain."""
        with mock.patch.dict(os.environ, {"PIPETRAIN_STALL": str(LIMIT_S)}):
            lines = self.stop(2, 0)
        self.assertRegex(lines[1], "^waits for .*rank 0")

    def test_in_an_agreement(self):
        """With checkpoints every step begins with rank 0's word, and is ended by all."""
        checkpoints = [f"--checkpoint={self.folder}/ck", "--every=1", "--schedule=1f1b"]
        lines = self.stop(2, 0, f"--stall={LIMIT_S}", *checkpoints)
        self.assertRegex(lines[1], "^waits for .*rank 0")

    def test_one_rank_alone(self):
        """Stopped within an action of nearly the limit: time in which it was stopped does not count."""
        arguments = [*ENDLESS, *self.clock({"*": 450_000}), "--log-every=1", "--stall=0.5"]
        with launch.Run(1, launch.LENET5, *arguments) as running:
            running.wait_for("stdout", r"^step \d+", times=2)
            running.process.send_signal(signal.SIGSTOP)
            time.sleep(1.5)
            running.process.send_signal(signal.SIGCONT)
            running.wait_for("stdout", r"^step \d+", times=len(running.lines["stdout"]) + 3)
            running.process.send_signal(signal.SIGTERM)
            ended = running.end()
        self.assertEqual(stalled(ended), {}, ended)


class Meeting(Case):
    """Where MPI itself waits for all ranks; both wait for ten seconds, side by side."""

    def assert_said(self, running, where):
        ended = running.end()
        self.assertEqual(ended.status, 1, ended)
        said = [line for line in ended.err if "stalled" in line]
        pattern = r"^rank 0: error: stalled for 1\d\.\d s, host \S+: is in (\w+), where all ranks meet"
        self.assertEqual([re.match(pattern, line)[1] for line in said], [where], ended)

    def test_start_and_end(self):
        words = [launch.program.PROGRAM, small_model.write(self.folder), f"--stall={LIMIT_S}"]
        one = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", 1, *words]
        alone = launch.Run(2, command=[*one, ":", "-np", 1, "sleep", 60])
        keeps = [f"--checkpoint={self.folder}/ck", "--every=1000", '--upload=sleep 2; : "$1"']
        with alone, launch.Run(2, *words[1:], *keeps) as done:
            pids = done.rank_pids()
            done.wait_for("stdout", "^done: ")
            os.kill(pids[1], signal.SIGSTOP)
            self.assert_said(alone, "MPI_Init")
            self.assert_said(done, "MPI_Finalize")


class Slow(Case):
    def test_a_long_layer_is_no_wait(self):
        """One rank computes, and the others wait for it."""
        ended = launch.run(
            3,
            launch.LENET5,
            *FEW,
            "--samples=80",
            "--stall=0.2",
            *self.clock({"*": 10, 1: LONG_US}),
        )
        self.assertEqual(ended.status, 1, ended)
        lines = {rank: where for rank, (_, where) in stalled(ended).items()}
        self.assertRegex(lines[1], r"^computes, \d+ of its messages wait for its device")
        for rank in set(lines) - {1}:
            self.assertRegex(lines[rank], r"^waits for .* of micro-batch \d+ \(step 1\).*rank 1")

    def test_one_rank_computes(self):
        ended = launch.run(
            1, launch.LENET5, *FEW, "--samples=80", "--stall=0.2", *self.clock({0: LONG_US})
        )
        self.assertEqual(ended.status, 1, ended)
        seconds, where = stalled(ended)[0]
        self.assertRegex(where, r"^is in [A-Z_]+ of micro-batch 0 \(step 1\)$")
        self.assertAlmostEqual(seconds, 2.0, delta=0.5, msg="ten times as long before a step")

    def test_slow_is_not_stalled(self):
        """Steps of nine tenths of the limit, in one action."""
        arguments = ["--samples=32", "--epochs=1", "--stall=0.5", *self.clock({"*": 450_000})]
        ended = launch.succeed(2, launch.LENET5, *FEW, *arguments)
        self.assertIn("done: 4 steps", "\n".join(ended.out))

    def test_evaluations_are_progress(self):
        """As the end of an epoch, the last checkpoint and files are."""
        partition = small_model.write(self.folder)
        launch.succeed(
            2,
            partition,
            "--stall=0.5",
            f"--checkpoint={self.folder}/ck",
            f"--save={self.folder}/w",
            f"--trace={self.folder}/t",
        )
        infer = ["--infer=test", f"--weights={self.folder}/w", f"--out={self.folder}/out"]
        launch.succeed(2, partition, "--stall=0.5", *infer)


class Usage(Case):
    def refuse(self, ranks, words, *arguments):
        ended = launch.run(ranks, launch.LENET5, *FEW, "--samples=80", *arguments)
        self.assertEqual(ended.status, 2, ended)
        self.assertEqual(len(ended.err), 1, ended)
        self.assertIn(words, ended.err[0])

    def test_refused(self):
        self.refuse(1, '--stall "0": write seconds', "--stall=0")
        self.refuse(1, '--stall "5m": write seconds', "--stall=5m")
        self.refuse(1, "--stall goes with training or --infer", "--stall=5", "--check")
        with mock.patch.dict(os.environ, {"PIPETRAIN_STALL": "soon"}):
            self.refuse(2, 'PIPETRAIN_STALL "soon": write seconds')

    def test_the_option_is_stronger(self):
        with mock.patch.dict(os.environ, {"PIPETRAIN_STALL": "soon"}):
            launch.succeed(1, launch.LENET5, *FEW, "--samples=80", "--epochs=1", "--stall=off")


class Progress(Case):
    def test_one_line(self):
        path = self.folder / "progress"
        partition = small_model.write(self.folder)
        seen = []
        line = re.compile(
            rb"launch (\d+) step (\d+) of (\d+) median-step-us (\d+) *\n", flags=re.DOTALL
        )
        arguments = [f"--checkpoint={self.folder}/ck", "--epochs=20", "--eval-every=0"]
        with mock.patch.dict(os.environ, {"PIPETRAIN_PROGRESS": str(path)}):
            with launch.Run(2, partition, *arguments) as running:
                while running.process.poll() is None:
                    text = path.read_bytes() if path.exists() else b""
                    if text:
                        self.assertEqual(len(text), 80, text)
                        seen.append([int(n) for n in line.fullmatch(text).groups()])
                self.assertEqual(running.end().status, 0)
        text = path.read_bytes()
        launched, step, total, median = [int(n) for n in line.fullmatch(text).groups()]
        self.assertEqual((launched, step, total), (1, 120, 120))
        self.assertTrue(0 < median < 60e6, text)
        steps = [one[1] for one in seen]
        self.assertEqual(steps, sorted(steps))
        self.assertEqual(seen[0][0], 1)

    def test_going_on(self):
        """It stands at the step that the run goes on from, before any other is done."""
        path = self.folder / "progress"
        partition = small_model.write(self.folder)
        arguments = [partition, f"--checkpoint={self.folder}/ck", f"--resume={self.folder}/ck"]
        with mock.patch.dict(os.environ, {"PIPETRAIN_PROGRESS": str(path)}):
            launch.run(1, *arguments)
            path.write_bytes(b"x" * 200)
            launch.run(1, *arguments)
        text = path.read_bytes()
        self.assertTrue(text.startswith(b"launch 2 step 12 of 12 median-step-us 0 "), text)
        self.assertEqual(text[79:], b"\n" + b"x" * 120)

    def test_what_cannot_be_written(self):
        partition = small_model.write(self.folder)
        for path, word in ((self.folder / "no" / "file", "open"), ("/dev/full", "write")):
            with self.subTest(word), mock.patch.dict(os.environ, PIPETRAIN_PROGRESS=str(path)):
                ended = launch.run(1, partition)
                self.assertEqual(ended.status, 0, ended)
                self.assertEqual(len(ended.err), 1, ended)
                self.assertIn(f"PIPETRAIN_PROGRESS: cannot {word} {path}", ended.err[0])


if __name__ == "__main__":
    tap.main()
