#!/usr/bin/env python3
"""What pipetrain-launch makes of the ends of mpirun, of hosts, and of what it finds at its start.

A script stands in for mpirun: it notes its words and does what it is told.
"""

import json
import pathlib
import signal
import time

import launch  # first: it finds the modules below
import launching
import tap


# What rank 0 writes when training begins.
BEGUN = "launch 1 step 0 of 9 median-step-us 0          \\n"


class StandIn(launching.Case):
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
        for code in (0, 2, 75):
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

    def test_interrupted(self):
        """By whom, the code does not say: the launcher knows whether it was asked for."""
        ended = self.run_to_end("exit 130", "--restarts=1")
        self.assertEqual(ended.status, 1, ended)
        self.assertEqual(len(self.lines), 2, "started, and restarted")
        self.assertIn("interrupted by a signal to a rank or to mpirun", "\n".join(ended.err))
        self.notes.unlink()
        self.directory.mkdir(exist_ok=True)
        (self.directory / "latest").write_text("step-000008\n")
        ended = self.run_to_end("trap '' USR1; kill -TERM $PPID; exit 130", "--restarts=1")
        self.assertEqual(ended.status, 75, ended)
        self.assertEqual(len(self.lines), 1, "the signal was for all")

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
        script = f"""
trap '' TERM INT USR1; printf '{BEGUN}' > "$PIPETRAIN_PROGRESS"; sleep 60 & echo up >&2
while :; do wait; done"""
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
        self.assertEqual(ended.status, 75, "nothing was trained, and nothing is lost")

    def test_asked_before_training(self):
        """It is ended, whatever it is at, and what was committed before is there."""
        for step in (None, 8):
            with self.subTest(step):
                if step:
                    self.directory.mkdir(exist_ok=True)
                    (self.directory / "latest").write_text(f"step-00000{step}\n")
                running = self.start("trap '' USR1; echo up >&2; sleep 60")
                running.wait_for("stderr", "^up")
                running.process.send_signal(signal.SIGTERM)
                ended = running.end()
                self.assertEqual(ended.status, 75, ended)
                self.assertEqual(running.processes(), {}, ended)
                said = f"step {step} is" if step else "no step is"
                self.assertRegex(ended.err[-1], f"stopped before it trained; {said} committed; the")
                self.assertEqual(len(self.notes.read_text().splitlines()), 1, "started once")
                self.notes.unlink()

    def test_state_between_launches(self):
        """No launch trains while one is waited for."""
        directory = self.directory
        directory.mkdir()
        script = f"""
echo 1 > {directory}/launch
echo '[{{"number": 1, "name": "a", "first_launch": 1, "last_launch": 1}}]' > {directory}/hosts.json
printf '{BEGUN}' > "$PIPETRAIN_PROGRESS"; sleep 0.5; exit 1"""
        running = self.start(script, "--restarts=3", "--backoff-max=60")
        running.wait_for("stderr", "trains on host 1 .a.; 0 of 9 steps are done")
        self.assertEqual(self.state()["hosts"], [{"number": 1, "name": "a"}])
        running.wait_for("stderr", "restart 3 of 3")
        self.assertEqual((self.state()["launch"], self.state()["hosts"]), (0, []))
        running.process.send_signal(signal.SIGTERM)
        self.assertEqual(running.end().status, 1)

    def test_latest_names_nothing(self):
        self.directory.mkdir()
        (self.directory / "latest").write_text("nothing\n")
        ended = self.run_to_end("exit 1", "--restarts=0")
        self.assertEqual(ended.status, 1, ended)
        self.assertIn("no step is committed", ended.err[-1])

    def test_hangup(self):
        """Stops the run, as a terminal that is closed; not under nohup."""
        script = f"""
trap 'exit 75' USR1; printf '{BEGUN}' > "$PIPETRAIN_PROGRESS"
echo up >&2; for i in 1 2 3 4 5 6; do sleep 0.2; done"""
        terminal = ["env", "--default-signal=HUP"]  # these tests may run under nohup themselves
        for prefix, status in ((terminal, 75), (["nohup"], 0)):
            with self.subTest(prefix):
                running = self.start(script, prefix=prefix)
                running.wait_for("stderr", "^up")
                running.process.send_signal(signal.SIGHUP)
                ended = running.end()
                self.assertEqual(ended.status, status, ended)

    def test_state_of_another_host(self):
        """Its pids mean nothing here: it is said, and nothing is ended."""
        self.run_to_end("exit 75")
        state = self.state()
        bystander = self.enterContext(launch.Run(0, command=["sleep", "60"]))
        state["host"] = "elsewhere"
        state["mark"] = "of-there"
        state["mpirun"]["pid"] = state["launcher"]["pid"] = bystander.process.pid
        (self.directory / "launcher" / "state.json").write_text(json.dumps(state))
        ended = self.run_to_end("exit 0")
        self.assertEqual(ended.status, 0, ended)
        self.assertRegex(ended.err[0], "ran on elsewhere")
        self.assertIsNone(bystander.process.poll())

    def test_pid_that_is_used_again(self):
        """Whoever has mpirun's number now, and no mark, is left alone."""
        self.run_to_end("exit 75")
        bystander = self.enterContext(launch.Run(0, command=["sleep", "60"]))
        state = self.state()
        state["mark"] = "of-then"
        stat = pathlib.Path(f"/proc/{bystander.process.pid}/stat").read_text()
        state["mpirun"] = {
            "pid": bystander.process.pid,
            "started": int(stat.rpartition(")")[2].split()[19]),
        }
        (self.directory / "launcher" / "state.json").write_text(json.dumps(state))
        self.assertEqual(self.run_to_end("exit 0").status, 0)
        self.assertIsNone(bystander.process.poll())

    def test_damaged_state(self):
        (self.directory / "launcher").mkdir(parents=True)
        (self.directory / "launcher" / "state.json").write_text("{}")
        ended = self.run_to_end("exit 0")
        self.assertEqual(ended.status, 2, ended)
        self.assertEqual(self.lines, [])
        self.assertRegex(ended.err[0], "state.json: is not the state of a launcher")


if __name__ == "__main__":
    tap.main()
