#!/usr/bin/env python3
"""How tools/gpu-check runs its steps: time, what runs beside what, and how it ends. No GPU is
needed."""

import os
import pathlib
import signal
import subprocess
import sys
import time

from gpu_check_case import Folder, gpu_check  # first: it finds the rest
import judge
import processes
import runner
import steps
import tap
import timetable


def wait_until_gone(pid):
    """Until the process has ended; the case fails when it does not."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} goes on")


# ---- one step ------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Setup:
    """What the runner itself needs of a setup."""

    def __init__(self, scratch, facts=None):
        self.scratch, self.facts, self.verdicts = scratch, facts, {}


class Running(Folder):
    """Commands that take as long as they are told, on a clock that only they move."""

    def start(self, total=100, status=0, seconds=10, output=""):
        self.clock, self.labels = Clock(), []
        self.status, self.seconds, self.output = status, seconds, output
        return runner.Runner(Setup(self.folder), lambda text: None, total_s=total,
                             clock=self.clock, processes=self)

    def execute(self, command, _log, limit):
        """In the place of Processes."""
        self.labels.append(command.label)
        took = min(self.seconds, limit)
        self.clock.now += took
        return (self.status if took == self.seconds else None), self.output

    def step(self, name="step", kind=timetable.CORRECT, about=5, limit=50, judged=None, lacks=None,
             change=None, labels=("one",), **of_command):
        commands = [processes.Command(label, ["true"], {}, **of_command) for label in labels]
        return runner.Step(name, "what", kind, about, limit, lambda setup: commands,
                           judged or (lambda setup, done: runner.Outcome("fine")),
                           lambda setup: lacks, change or (lambda setup, label, output: None))

    def test_passes(self):
        result = self.start().step(self.step())
        self.assertEqual((result["verdict"], result["says"], result["seconds"]),
                         (runner.PASSED, "fine", 10))
        for kind, verdict in ((timetable.SPEED, runner.MEASURED),
                              (timetable.PREPARATION, runner.PREPARED)):
            self.assertEqual(self.start().step(self.step(kind=kind))["verdict"], verdict)

    def test_fails(self):
        result = self.start(status=3, output="the last words").step(self.step())
        self.assertEqual(result["verdict"], runner.FAILED)
        self.assertIn("exit status 3: the last words", result["reason"])

        def wrong(setup, done):
            raise judge.Wrong("the weights differ")

        def unreadable(setup, done):
            return {}["images_per_s"]

        for judged, words in ((wrong, "the weights differ"), (unreadable, "KeyError")):
            result = self.start().step(self.step(judged=judged))
            self.assertEqual(result["verdict"], runner.FAILED)
            self.assertIn(words, result["reason"])

    def test_foreign_failure_is_no_failure(self):
        """The step goes on without it; the judge sees what it printed, and why it ended."""
        for told, words in (({"status": 1, "output": "{} and then"}, "exit status 1: {} and then"),
                            ({"seconds": 60}, "one did not end within 30 s")):
            run, seen = self.start(**told), []

            def judged(setup, done):
                seen.append((dict(done), done.missing))
                return runner.Outcome("fine")

            result = run.step(self.step(judged=judged, labels=("one", "two"), limit=100,
                                        foreign=True, limit_s=30))
            self.assertEqual((result["verdict"], self.labels), (runner.PASSED, ["one", "two"]))
            self.assertEqual(seen[0][0]["one"], self.output)
            self.assertIn(words, seen[0][1]["one"])

    def test_again(self):
        """A step that changes something on a failure is begun again, a few times, in one limit."""
        changes = ["half", "a quarter", "an eighth"]
        run = self.start(status=1, total=1000)
        result = run.step(self.step(change=lambda setup, label, output: changes.pop(0)))
        self.assertEqual((result["verdict"], result["changes"], len(self.labels)),
                         (runner.FAILED, ["half", "a quarter"], 3))
        run = self.start(status=1, total=1000)
        result = run.step(self.step(change=lambda setup, label, output: "less", limit=15))
        self.assertIn("did not end within 5 s", result["reason"])

    def test_excuse(self):
        """Who fails and says why this machine can't has not failed; success needs no excuse."""
        for output, verdict in (("Error: Device not supported\n", runner.NOT_RUN),
                                ("Invalid read of size 4\n", runner.FAILED)):
            run = self.start(status=9, output=output)
            result = run.step(self.step(excuse=steps.CANNOT_LOOK))
            self.assertEqual(result["verdict"], verdict)

    def test_step_limit(self):
        result = self.start(seconds=60).step(self.step(limit=50))
        self.assertEqual(result["verdict"], runner.FAILED)
        self.assertIn("did not end within 50 s", result["reason"])

    def test_does_not_begin_what_does_not_fit(self):
        run = self.start(total=28)
        self.assertEqual(run.step(self.step())["verdict"], runner.PASSED)
        result = run.step(self.step("long", about=20))
        self.assertEqual((result["verdict"], result["out_of_time"]), (runner.NOT_RUN, True))
        self.assertIn("needs about 20 s, and 18 s of 28 s are left", result["reason"])
        self.assertEqual(run.step(self.step("short"))["verdict"], runner.PASSED)
        self.assertEqual(len(self.labels), 2)

    def test_cut_off_by_the_whole_time(self):
        result = self.start(total=8).step(self.step())
        self.assertEqual((result["verdict"], result["out_of_time"]), (runner.NOT_RUN, True))
        self.assertIn("the 8 s of the whole check were over", result["reason"])

    def test_what_came_before_counts(self):
        """Finding the compiler and the libraries takes of the time too."""
        run = runner.Runner(Setup(self.folder), lambda text: None, total_s=100, begin=-97,
                            clock=Clock(), processes=self)
        self.assertIn("3 s of 100 s are left", run.step(self.step())["reason"])

    def test_lacking_and_broken(self):
        run = self.start()
        self.assertEqual(run.step(self.step(lacks="no MPI"))["reason"], "no MPI")
        run.broken = "the build failed"
        self.assertEqual(run.step(self.step())["reason"], "the build failed")
        self.assertEqual(self.labels, [])

    def test_real_commands(self):
        """The real thing: output, exit status, a program that is not there, one that hangs."""
        def execute(words, limit=60.0):
            command = processes.Command("c", words, dict(os.environ), {"GREETING": "hello"})
            log = self.folder / "deep" / "c.log"
            return processes.Processes().execute(command, log, limit)

        self.assertEqual(execute(["sh", "-c", "echo $GREETING; exit 4"]), (4, "hello\n"))
        self.assertEqual((self.folder / "deep" / "c.log").read_text(), "hello\n")
        self.assertEqual(execute([str(self.folder / "none")])[0], 127)
        begin = time.monotonic()
        status, output = execute(["sh", "-c", "echo begun; sleep 60 & wait"], 0.5)
        self.assertEqual((status, output), (None, "begun\n"))
        self.assertLess(time.monotonic() - begin, 30)

    def test_children_that_outlive_their_parent(self):
        """Nothing of a command that has ended goes on beside a measurement."""
        command = processes.Command("c", ["sh", "-c", "sleep 60 & echo $!"], dict(os.environ))
        status, output = processes.Processes().execute(command, self.folder / "c.log", 60)
        self.assertEqual(status, 0)
        wait_until_gone(int(output))

    def test_nothing_begins_after_the_end(self):
        """A step whose command was ended has more of them."""
        ended = processes.Processes()
        ended.end()
        command = processes.Command("c", ["touch", str(self.folder / "begun")], dict(os.environ))
        self.assertEqual(ended.execute(command, self.folder / "c.log", 60), (None, ""))
        self.assertFalse((self.folder / "begun").exists())

    def test_preparations_end_early(self):
        """They are not begun too late, and are cut off so that measurements have their time."""
        run = self.start(total=1000)
        self.clock.now = timetable.PREPARED_BY_S - 20
        of_preparation = {"kind": timetable.PREPARATION, "limit": 170}
        late = run.step(self.step("late", about=21, **of_preparation))
        self.assertEqual((late["verdict"], late["out_of_time"]), (runner.NOT_RUN, True))
        self.seconds = 60
        cut = run.step(self.step("cut", about=19, **of_preparation))
        self.assertEqual((cut["verdict"], self.clock.now),
                         (runner.NOT_RUN, timetable.PREPARED_BY_S))
        self.assertIn("in which measurements are prepared were over", cut["reason"])
        self.assertEqual(run.step(self.step("proof"))["verdict"], runner.FAILED)  # its own 50 s


# ---- several steps -----------------------------------------------------------------------------


class Together(Folder):
    """What may run beside what, with real commands that look out for one another."""

    def shell(self, name, script, kind=timetable.CORRECT):
        def plan(setup):
            return [processes.Command("sh", ["sh", "-c", script], dict(os.environ))]

        return runner.Step(name, "what", kind, 1, 60, plan, lambda setup, done: runner.Outcome())

    def waiting_for(self, other, own):
        """A script that ends well only while the other runs."""
        return (f"touch {self.folder}/{own}; n=0; until [ -e {self.folder}/{other} ]; do "
                "sleep 0.05; n=$((n+1)); [ $n -lt 400 ] || exit 1; done")

    def busy(self, name, seconds):
        mark = self.folder / f"busy-{name}"
        return f"touch {mark}; sleep {seconds}; rm {mark}"

    def alone(self, name):
        """A script that fails when it sees another one at work."""
        mark = self.folder / f"busy-{name}"
        return f"touch {mark}; sleep 0.3; set -- {self.folder}/busy-*; rm {mark}; [ $# -eq 1 ]"

    def run_steps(self, *table):
        run = runner.Runner(Setup(self.folder), lambda text: None)
        return {result["name"]: result for result in run.run(table)}

    def test_what_is_not_measured_shares_the_machine(self):
        results = self.run_steps(
            self.shell("build", self.waiting_for("early", "build")),
            self.shell("early", self.waiting_for("build", "early"), timetable.PREPARATION),
            self.shell("one", self.waiting_for("other", "one")),
            self.shell("other", self.waiting_for("one", "other")))
        self.assertEqual([result["verdict"] for result in results.values()],
                         [runner.PASSED, runner.PREPARED, runner.PASSED, runner.PASSED])
        self.assertEqual(list(results), ["build", "early", "one", "other"])

    def test_proofs_wait_for_the_build(self):
        results = self.run_steps(
            self.shell("build", f"sleep 0.5; touch {self.folder}/built"),
            self.shell("proof", f"[ -e {self.folder}/built ]"))
        self.assertEqual(results["proof"]["verdict"], runner.PASSED)

    def test_measurements_run_alone(self):
        """Not beside a proof, nor a preparation that takes longer, nor each other."""
        results = self.run_steps(
            self.shell("build", "true"),
            self.shell("early", self.busy("early", 1.5), timetable.PREPARATION),
            self.shell("proof", self.busy("proof", 1)),
            *(self.shell(name, self.alone(name), timetable.SPEED) for name in ("a", "b", "c")))
        self.assertEqual([results[name]["verdict"] for name in "abc"], [runner.MEASURED] * 3)

    def test_a_preparation_that_fails_costs_nothing_else(self):
        results = self.run_steps(
            self.shell("build", "true"), self.shell("early", "exit 1", timetable.PREPARATION),
            self.shell("proof", "true"), self.shell("speed", "true", timetable.SPEED))
        self.assertEqual([result["verdict"] for result in results.values()],
                         [runner.PASSED, runner.FAILED, runner.PASSED, runner.MEASURED])

    def test_a_failing_build_ends_what_is_prepared(self):
        begin = time.monotonic()
        results = self.run_steps(
            self.shell("build", "sleep 0.3; exit 1"),
            self.shell("early", "sleep 60", timetable.PREPARATION), self.shell("proof", "true"))
        self.assertLess(time.monotonic() - begin, 30)
        for name in ("early", "proof"):
            self.assertEqual((results[name]["verdict"], results[name]["reason"]),
                             (runner.NOT_RUN, "the build failed"))

    def test_a_mistake_in_a_step_ends_all(self):
        def mistaken(setup):
            raise AssertionError("a bug")

        bad = runner.Step("bad", "what", timetable.CORRECT, 1, 60, mistaken, None)
        begin = time.monotonic()
        with self.assertRaisesRegex(AssertionError, "a bug"):
            self.run_steps(self.shell("build", "true"), bad,
                           self.shell("long", f"echo $$ >{self.folder}/pid; exec sleep 60"))
        self.assertLess(time.monotonic() - begin, 30)


# ---- ended from outside -------------------------------------------------------------------------


class Endings(Folder):
    """A check that is ended from outside leaves no process behind."""

    PROGRAM = """\
import pathlib, signal, sys
for ending in (signal.SIGINT, signal.SIGTERM):  # whoever runs the tests may ignore them
    signal.signal(ending, signal.SIG_DFL)
sys.path.insert(0, sys.argv[1])
import gpu_check_case as case
import machine, steps
import test_gpu_check_runs as tests

folder = pathlib.Path(sys.argv[2])
hang = f"sleep 300 & echo $$ $! >{folder}/%s.new; mv {folder}/%s.new {folder}/%s.pids; wait"
shell = tests.Together().shell
steps.STEPS = (
    shell("build", sys.argv[3].replace("HANG", hang.replace("%s", "build"))),
    shell("early", hang.replace("%s", "early"), "preparation"),
    shell("proof", hang.replace("%s", "proof")))
machine.find_device = lambda: (case.DEVICE, None)
case.gpu_check.find_setup = lambda options, device: tests.Setup(folder, case.FACTS)
sys.exit(case.gpu_check.main([f"--out={folder}"]))
"""

    def end(self, ending, build, marks):
        here = pathlib.Path(__file__).resolve().parent
        check = subprocess.Popen([sys.executable, "-B", "-c", self.PROGRAM, str(here),
                                  str(self.folder), build],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        end = time.monotonic() + 60
        paths = [self.folder / f"{name}.pids" for name in marks]
        while not all(path.exists() for path in paths) and time.monotonic() < end:
            time.sleep(0.02)
        check.send_signal(ending)
        output, _ = check.communicate(timeout=60)
        self.assertEqual(check.returncode, gpu_check.INTERRUPTED, output)
        self.assertIn(f"ended by {ending.name}", output)
        self.assertNotIn("Traceback", output)
        pids = [int(pid) for path in paths for pid in path.read_text().split()]
        self.assertEqual(len(pids), 2 * len(marks))
        for pid in pids:
            wait_until_gone(pid)
        self.assertEqual(list(self.folder.glob("*.json")), [])

    def test_beside_the_build(self):
        self.end(signal.SIGINT, "HANG", ("build", "early"))

    def test_beside_a_proof(self):
        self.end(signal.SIGTERM, "true", ("early", "proof"))


if __name__ == "__main__":
    tap.main()
