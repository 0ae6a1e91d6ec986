"""Runs steps one after the other within a time, and keeps what came out of each.

A step is a plan (commands) and a judgement of what they left. The most important stand first. A
step that would not fit into what is left of the time is not run, and the report says so.
"""

import dataclasses
import os
import re
import shlex
import signal
import subprocess
import time
from typing import Callable

from judge import Wrong

PASSED, FAILED, MEASURED, NOT_RUN = "passed", "failed", "measured", "not run"
CORRECT, SPEED = "correctness", "speed"
TAIL = 1500  # characters of a failed command's output that are shown


@dataclasses.dataclass(frozen=True)
class Command:
    label: str  # unique within the step: names the log file
    argv: list
    environment: dict
    variables: dict = dataclasses.field(default_factory=dict)  # set beside environment, shown
    foreign: bool = False  # not ours: when it fails there is no comparison, but nothing is wrong
    excuse: str = ""  # a pattern: who fails and prints this could not be run on this machine

    def excused(self, output):
        return self.foreign or bool(self.excuse and re.search(self.excuse, output))

    def text(self):
        words = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return " ".join(words + [shlex.quote(str(word)) for word in self.argv])


@dataclasses.dataclass
class Outcome:
    says: str = ""  # a few words for the table
    figures: dict = dataclasses.field(default_factory=dict)
    bars: list = dataclasses.field(default_factory=list)  # {what, value, wanted, met}


@dataclasses.dataclass(frozen=True)
class Step:
    name: str
    what: str
    kind: str  # CORRECT or SPEED
    least_s: float  # with less time left it is not begun
    limit_s: float  # it is stopped, and has failed, after so long
    plan: Callable  # (setup) -> [Command]
    judge: Callable  # (setup, {label: output}) -> Outcome; raises judge.Wrong
    lacks: Callable = lambda setup: None  # (setup) -> why it cannot be run here, or None


class Stopped(Exception):
    """A command that failed or was stopped."""

    def __init__(self, verdict, reason, out_of_time=False):
        super().__init__(reason)
        self.verdict, self.reason, self.out_of_time = verdict, reason, out_of_time


def tail(text):
    text = text.strip()
    return text if len(text) <= TAIL else "… " + text[-TAIL:]


def execute(command, log, limit_s):
    """(exit status or None when stopped, output); output goes to `log` too."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**command.environment, **command.variables}
    with open(log, "w+", encoding="utf-8", errors="replace") as file:
        try:
            process = subprocess.Popen([str(word) for word in command.argv], env=environment,
                                       stdin=subprocess.DEVNULL, stdout=file,
                                       stderr=subprocess.STDOUT, start_new_session=True)
        except OSError as error:
            return 127, f"{command.argv[0]}: {error.strerror}"
        try:
            status = process.wait(timeout=max(0.1, limit_s))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:  # stopped, or we were interrupted: with all its children
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        file.seek(0)
        return status, file.read()


class Runner:
    def __init__(self, setup, total_s, say, clock=time.monotonic, run=execute):
        self.setup, self.total_s, self.say, self.clock, self.run = setup, total_s, say, clock, run
        self.begin = clock()
        self.results = []
        self.broken = None  # why no further step makes sense

    def left_s(self):
        return self.total_s - (self.clock() - self.begin)

    def step(self, step):
        """Runs one step and returns its result, which is kept in results too."""
        begin = self.clock()
        result = {"name": step.name, "what": step.what, "kind": step.kind, "verdict": NOT_RUN,
                  "reason": None, "out_of_time": False, "seconds": 0.0, "says": "", "figures": {},
                  "bars": [], "commands": []}
        self.attempt(step, result)
        result["seconds"] = round(self.clock() - begin, 1)
        self.results.append(result)
        return result

    def attempt(self, step, result):
        result["reason"] = self.broken or step.lacks(self.setup)
        if result["reason"]:
            return
        if self.left_s() < step.least_s:
            result["reason"] = (f"it needs about {step.least_s:.0f} s, and {self.left_s():.0f} s "
                                f"of {self.total_s:.0f} s are left; --only {step.name} runs it")
            result["out_of_time"] = True
            return
        try:
            commands = step.plan(self.setup)
            result["commands"] = [command.text() for command in commands]
            outcome = step.judge(self.setup, self.run_all(step, commands))
        except Stopped as stopped:
            result["verdict"], result["reason"] = stopped.verdict, stopped.reason
            result["out_of_time"] = stopped.out_of_time
        except Wrong as wrong:
            result["verdict"], result["reason"] = FAILED, str(wrong)
        except (OSError, ValueError, ArithmeticError, LookupError, TypeError) as error:
            # A file that is not there or an output that cannot be read.
            result["verdict"], result["reason"] = FAILED, f"{type(error).__name__}: {error}"
        else:
            result["verdict"] = PASSED if step.kind == CORRECT else MEASURED
            result.update(says=outcome.says, figures=outcome.figures, bars=outcome.bars)

    def run_all(self, step, commands):
        begin, done = self.clock(), {}
        for command in commands:
            own = step.limit_s - (self.clock() - begin)
            limit = min(own, self.left_s())
            self.say(f"  {command.text()}")
            log = self.setup.scratch / step.name / f"{command.label}.log"
            status, output = self.run(command, log, limit)
            if status is None and limit < own:
                raise Stopped(NOT_RUN, f"{command.label} was cut off: the {self.total_s:.0f} s of "
                                       f"the whole check were over; --only {step.name} runs it",
                              out_of_time=True)
            if status is None:
                raise Stopped(NOT_RUN if command.foreign else FAILED,
                              f"{command.label} did not end within {step.limit_s:.0f} s: "
                              f"{tail(output)}")
            if status != 0:
                raise Stopped(NOT_RUN if command.excused(output) else FAILED,
                              f"{command.label}: exit status {status}: {tail(output)}")
            done[command.label] = output
        return done
