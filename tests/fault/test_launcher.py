#!/usr/bin/env python3
"""pipetrain-launch: what it restarts and what not, what it says, and what it leaves: nothing.

tests/fault/kill_loop is about the bits; here every case is looked at alone. Where only an exit code
matters, a script stands in for mpirun.
"""

import gzip
import json
import os
import pathlib
import signal
import tempfile
import time
import unittest

import checkpoints  # first: it finds the modules below
import launch
import launching
import small_model
import tap

STALL_S = 1
TEST_SAMPLES = 160000  # an evaluation of two seconds or more
LONG = ["--epochs=100000", "--log-every=200", "--every=200", "--eval-every=0"]


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="pt-")))
        self.directory = self.folder / "ck"

    def checkpoints(self):
        return [f"--checkpoint={self.directory}", f"--resume={self.directory}"]

    def number(self, name):
        """What is in ck/launch, or of the step in ck/latest."""
        return int((self.directory / name).read_text().strip().removeprefix("step-"))

    def state(self):
        return json.loads((self.directory / "launcher" / "state.json").read_text())


class StandIn(Case):
    """A script in the place of mpirun: it notes its words and does what it is told."""

    def start(self, script, *options, words=("program",), prefix=()):
        mpirun = self.folder / "mpirun"
        self.notes = self.folder / "notes"
        mpirun.write_text(f'#!/bin/sh\necho "$@" >> {self.notes}\n{script}\n')
        mpirun.chmod(0o755)
        command = [*prefix, launching.LAUNCH, f"--mpirun={mpirun}", *options, "--", *words]
        running = launch.Run(0, command=[*command, *self.checkpoints()])
        return self.enterContext(running)

    def run_to_end(self, script, *options, **how):
        running = self.start(script, *options, **how)
        ended = running.end()
        self.assertEqual(running.processes(), {}, ended)
        self.assertEqual(running.left_behind(), [], ended)
        self.lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return ended

    def test_final_codes(self):
        for code in (0, 2, 75, 130):
            with self.subTest(code):
                ended = self.run_to_end(f"exit {code}")
                self.assertEqual(ended.status, code, ended)
                self.assertEqual(len(self.lines), 1, "started once")
                self.notes.unlink()

    def test_budget(self):
        for script in ("exit 3", "kill -9 $$"):
            with self.subTest(script):
                ended = self.run_to_end(script, "--restarts=2", "--backoff-max=0.01")
                self.assertEqual(ended.status, 1, ended)
                self.assertEqual(len(self.lines), 3, "started, and restarted twice")
                self.assertRegex(ended.err[-1], "2 restarts .* are used up")
                self.assertIn("restart 2 of 2", "\n".join(ended.err))
                self.notes.unlink()

    def test_progress_gives_a_new_budget(self):
        """Each launch commits a step before it fails, until the tenth one is done."""
        script = f"""
n=$(wc -l < {self.folder}/notes); [ $n -lt 10 ] || exit 0
mkdir -p {self.directory}; echo step-00000$n > {self.directory}/latest; exit 1"""
        ended = self.run_to_end(script, "--restarts=1")
        self.assertEqual(ended.status, 0, ended)
        self.assertEqual(len(self.lines), 10)
        self.assertEqual(self.state()["starts"], 10)

    def test_delays(self):
        """0 s and 1 s of waiting, as they are said."""
        began = time.monotonic()
        ended = self.run_to_end("exit 1", "--restarts=2")
        self.assertGreater(time.monotonic() - began, 1)
        said = "\n".join(ended.err)
        self.assertRegex(said, r"restart 1 of 2 .*after 0 s\n.*restart 2 of 2 .*in 1 s")

    def test_no_mpirun(self):
        command = [launching.LAUNCH, "--mpirun=/no/mpirun", "--", "p", *self.checkpoints()]
        with launch.Run(0, command=command) as running:
            ended = running.end()
            self.assertEqual(running.left_behind(), [], ended)
        self.assertEqual(ended.status, 2, ended)
        self.assertIn("cannot start /no/mpirun", "\n".join(ended.err))

    def test_slow_start(self):
        ended = self.run_to_end("sleep 60", "--start-limit=0.3", "--restarts=1")
        self.assertEqual(ended.status, 1, ended)
        self.assertEqual(len(self.lines), 2)
        self.assertIn("--start-limit", "\n".join(ended.err))

    def test_no_progress(self):
        """Of two launches one writes once and hangs, the other goes on writing, slowly."""
        line = "launch 1 step %d of 9 median-step-us 1000          \\n"
        script = f"""
printf '{line}' 1 > "$PIPETRAIN_PROGRESS"
[ $(wc -l < {self.folder}/notes) -eq 2 ] || exec sleep 60
for i in 2 3 4 5 6 7; do sleep 1; printf '{line}' $i > "$PIPETRAIN_PROGRESS"; done"""
        ended = self.run_to_end(script, "--stall=0.5")
        self.assertEqual(ended.status, 0, ended)
        self.assertEqual(len(self.lines), 2)
        self.assertIn("made no progress", "\n".join(ended.err))

    def test_hosts(self):
        """Those that can be reached, with their slots."""
        probe = f'test "$1" != gone && test ! -e {self.folder}/away-"$1"'
        script = f"touch {self.folder}/away-b; [ $(wc -l < {self.folder}/notes) -gt 1 ] || exit 1"
        hosts = "--hosts=localhost:2,gone:4,b:3"
        ended = self.run_to_end(script, hosts, "--min=2", f"--probe={probe}")
        self.assertEqual(ended.status, 0, ended)
        self.assertIn("--host localhost:2,b:3 -np 5 program", self.lines[0])
        self.assertIn("--host localhost:2 -np 2 program", self.lines[1])
        self.assertIn("the host gone cannot be reached", "\n".join(ended.err))

    def test_too_few_hosts(self):
        options = ["--hosts=localhost:2,gone:4", "--min=3", "--probe=false", "--restarts=1"]
        ended = self.run_to_end("exit 0", *options)
        self.assertEqual(ended.status, 1, ended)
        self.assertEqual(self.lines, [], "nothing was started")
        self.assertRegex("\n".join(ended.err), "2 slots are left, and --min is 3")

    def test_what_ignores_signals_is_ended(self):
        """Ctrl-C twice, with an mpirun that has a child of its own and listens to nothing."""
        script = "trap '' TERM INT USR1; sleep 60 & echo up >&2; while :; do wait; done"
        running = self.start(script)
        running.wait_for("stderr", "^up")
        running.process.send_signal(signal.SIGINT)
        running.wait_for("stderr", "Ctrl-C .again. ends it now")
        running.process.send_signal(signal.SIGINT)
        ended = running.end()
        self.assertEqual(ended.status, 130, ended)
        self.assertEqual(running.processes(), {}, ended)

    def test_stop_while_waiting(self):
        running = self.start("exit 1", "--restarts=9", "--backoff-max=50")
        running.wait_for("stderr", "in 4 s")
        running.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        ended = running.end()
        self.assertLess(time.monotonic() - began, 2)
        self.assertEqual(ended.status, 1, "there is no checkpoint to go on from")

    def test_hangup(self):
        """Stops the run, as a terminal that is closed; not under nohup."""
        script = "trap 'exit 75' USR1; echo up >&2; for i in 1 2 3 4 5 6; do sleep 0.2; done"
        for prefix, status in (([], 75), (["nohup"], 0)):
            with self.subTest(prefix):
                running = self.start(script, prefix=prefix)
                running.wait_for("stderr", "^up")
                running.process.send_signal(signal.SIGHUP)
                ended = running.end()
                self.assertEqual(ended.status, status, ended)

    def test_damaged_state(self):
        (self.directory / "launcher").mkdir(parents=True)
        (self.directory / "launcher" / "state.json").write_text("{}")
        ended = self.run_to_end("exit 0")
        self.assertEqual(ended.status, 2, ended)
        self.assertEqual(self.lines, [])
        self.assertRegex(ended.err[0], "state.json: is not the state of a launcher")


class Real(Case):
    """With mpirun and ranks."""

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
        for victim in ("rank", "mpirun"):
            with self.subTest(victim):
                running = self.train()
                pid = running.rank_pids()[1] if victim == "rank" else running.mpirun_pid()
                os.kill(pid, signal.SIGKILL)
                running.wait_for("stderr", "was ended by signal 9|exit code 137")
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
