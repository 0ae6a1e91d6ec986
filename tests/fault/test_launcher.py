#!/usr/bin/env python3
"""pipetrain-launch with mpirun and ranks: what it restarts, what stops it, and what it leaves: nothing.

tests/fault/kill_loop is about the bits; here every case is looked at alone.
"""

import gzip
import os
import signal
import time

import checkpoints  # first: it finds the modules below
import launch
import launching
import small_model
import tap

STALL_S = 1
TEST_SAMPLES = 160000  # an evaluation of two seconds or more
LONG = ["--epochs=100000", "--log-every=200", "--every=200", "--eval-every=0"]


class Real(launching.Case):
    def start(self, *arguments, ranks=2, options=()):
        self.partition = checkpoints.write_model(self.folder)
        running = launching.Launcher(
            ranks, self.partition, *self.checkpoints(), *arguments, options=options
        )
        return self.enterContext(running)

    def end(self, running, status):
        ended = running.end()
        self.assertEqual(ended.status, status, ended)
        self.assertEqual(running.processes(), {}, ended)
        self.assertEqual(running.left_behind(), [], ended)
        return ended

    def test_done(self):
        running = self.start("--every=4", "--keep=0")
        running.rank_pids()
        self.assertNotEqual(running.left_behind(), [], "the files of a run were not found")
        ended = self.end(running, 0)
        self.assertEqual(self.number("latest"), checkpoints.STEPS)
        self.assertEqual([line for line in ended.err if "restart" in line], [])
        self.assertEqual(self.state()["launcher"]["pid"], 0)
        self.assertEqual(self.state()["step"], checkpoints.STEPS)

    def test_refused(self):
        """Bad input is said once."""
        running = self.start("--bach=4", options=["--restarts=9"])
        ended = self.end(running, 2)
        self.assertEqual(sum("--bach" in line for line in ended.err), 1, ended)

    def test_failing(self):
        running = self.start("--fail-at=1", options=["--restarts=1"])
        ended = self.end(running, 1)
        self.assertEqual(self.number("launch"), 2)
        self.assertRegex("\n".join(ended.err), "launch 1 ended with exit code 1; no step")

    def train(self, *options):
        """A long run that has committed a step."""
        running = self.start(*LONG, options=options)
        running.wait_for("stdout", "^checkpoint of step")
        running.note_jobs()
        return running

    def stop(self, running):
        """By a signal that may come while it still starts, and then ends it."""
        running.process.send_signal(signal.SIGTERM)
        ended = self.end(running, 75)
        self.assertRegex(ended.err[-1], f"stop.*; step {self.number('latest')} is committed")

    def test_killed(self):
        """Or asked to end, by somebody who did not ask the launcher."""
        for victim, number, how in (
            ("rank", signal.SIGKILL, "signal 9"),
            ("mpirun", signal.SIGKILL, "signal 9"),
            ("rank", signal.SIGTERM, "interrupted by a signal"),
            ("mpirun", signal.SIGTERM, "interrupted by a signal|exit code 1;|signal 15"),
        ):
            with self.subTest(victim, number=number):
                running = self.train()
                pid = running.rank_pids()[1] if victim == "rank" else running.mpirun_pid()
                os.kill(pid, number)
                running.wait_for("stderr", f"launch 1 .*({how}).* restart 1 of")
                running.wait_for("stdout", r"goes on|from step \d+ of")
                running.note_jobs()
                self.stop(running)
                self.setUp()

    def test_stopped_mpirun(self):
        running = self.train(f"--stall={STALL_S}")
        os.kill(running.mpirun_pid(), signal.SIGSTOP)
        began = time.monotonic()
        running.wait_for("stderr", "because its mpirun had been stopped")
        self.assertLess(time.monotonic() - began, STALL_S + 2 + launch.PATIENCE_S)
        running.wait_for("stdout", r"from step \d+ of")
        self.stop(running)

    def test_fewer_hosts(self):
        """What four ranks have begun, two go on with."""
        self.partition = checkpoints.write_model(self.folder)
        options = ["--hosts=localhost:2,far:2", "--min=2", "--probe=false"]
        arguments = [self.partition, *self.checkpoints(), "--every=1", "--keep=0", "--schedule=1f1b"]
        whole = launching.Launcher(4, *arguments, "--steps=6")
        with whole:
            self.assertEqual(whole.end().status, 0)
        running = self.enterContext(launching.Launcher(0, *arguments, options=options))
        ended = self.end(running, 0)
        self.assertIn("far cannot be reached", "\n".join(ended.err))
        ranks = [checkpoints.manifest(self.directory, step)["ranks"] for step in (6, 7, 18)]
        self.assertEqual(ranks, [4, 2, 2])

    def test_evaluation_is_progress(self):
        """It takes no steps; the file's time shows that something goes on."""
        partition = checkpoints.write_model(self.folder)
        images, labels = small_model.samples(TEST_SAMPLES, seed=3)
        data = self.folder / "data"
        (data / "t10k-images-idx3-ubyte").write_bytes(small_model.idx(images))
        (data / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(small_model.idx(labels), 1))
        arguments = ["--eval-every=1", "--epochs=1", "--micro-batch=1", *self.checkpoints()]
        running = self.enterContext(launching.Launcher(2, partition, *arguments))
        path = self.directory / "launcher" / "progress"
        times = set()
        while running.process.poll() is None:
            if path.exists() and " step 6 of 6 " in path.read_text():
                times.add(path.stat().st_mtime_ns)
            time.sleep(launch.POLL_S)
        self.end(running, 0)
        self.assertGreater(len(times), 3, "written when the last step was done, and then touched")

    def test_asked_while_it_starts(self):
        """An mpirun that is slow to begin, and ranks that are."""
        slow = self.folder / "slow"
        slow.write_text('#!/bin/sh\necho up >&2\nsleep 60\nexec "$@"\n')
        slow.chmod(0o755)
        mpirun = self.folder / "mpirun"
        mpirun.write_text(f'#!/bin/sh\nexec {slow} mpirun "$@"\n')
        mpirun.chmod(0o755)
        partition = checkpoints.write_model(self.folder)
        for who, options, words in (
            ("mpirun", [f"--mpirun={mpirun}"], []),
            ("ranks", [], [slow]),
        ):
            with self.subTest(who):
                arguments = [partition, *self.checkpoints(), *LONG]
                running = launching.Launcher(2, *arguments, options=options, mpirun=words)
                self.enterContext(running)
                running.wait_for("stderr", "^up", times=2 if words else 1)
                running.process.send_signal(signal.SIGTERM)
                running.wait_for("stderr", "has not begun: the run is ended")
                self.end(running, 75)

    def test_interrupted_once(self):
        running = self.train()
        running.process.send_signal(signal.SIGINT)
        ended = self.end(running, 75)
        step = self.number("latest")
        self.assertIn(f"launcher: stopped; step {step} is committed", "\n".join(ended.err))
        running.start()
        running.wait_for("stdout", f"from step {step} of")
        self.stop(running)
        self.assertEqual(self.number("launch"), 2)

    def test_interrupted_twice(self):
        """The second time before the checkpoint could have been asked for: ranks are stopped."""
        running = self.train()
        for pid in running.rank_pids():
            os.kill(pid, signal.SIGSTOP)
        for _ in range(2):
            running.process.send_signal(signal.SIGINT)
            running.wait_for("stderr", "^launcher: Interrupt")
        self.end(running, 130)

    def test_second_launcher(self):
        running = self.train()
        with launch.Run(0, command=running.command) as second:
            ended = second.end()
        self.assertEqual(ended.status, 2, ended)
        self.assertIn(f"the pid {running.process.pid} ", "\n".join(ended.err))
        self.assertIsNone(running.process.poll())
        self.stop(running)

    def test_killed_launcher(self):
        """Another one ends what this one has left, and goes on."""
        running = self.train()
        before = set(running.processes()) - {running.process.pid}
        running.process.kill()
        running.process.wait()
        self.assertTrue(before & set(running.processes()), "mpirun goes on")
        running.start()
        running.wait_for("stderr", "has gone; 3 processes that it left are ended")
        running.wait_for("stdout", r"from step \d+ of")
        self.assertFalse(before & set(running.processes()))
        running.note_jobs()
        self.stop(running)
        self.assertEqual(self.number("launch"), 2)
        self.assertEqual(self.state()["starts"], 2)

    def test_others_are_left_alone(self):
        """Beside it another launcher works, whose run is not touched."""
        other = self.train()
        there = set(other.processes())
        self.setUp()
        running = self.train()
        running.process.kill()
        running.process.wait()
        running.start()
        running.wait_for("stdout", r"from step \d+ of")
        self.stop(running)
        self.assertEqual(set(other.processes()), there)
        self.assertNotEqual(other.left_behind(), [])
        other.process.send_signal(signal.SIGTERM)
        self.assertEqual(other.end().status, 75)


if __name__ == "__main__":
    tap.main()
