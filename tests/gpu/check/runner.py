"""Runs steps within a time, and keeps what came out of each.

A step is a plan (commands) and a judgement of what they left. The most important stand first. What
measures nothing may share the machine:

    build         ########
    preparations  ##########################          LANES[PREPARATION] at a time
    proofs                #################           LANES[CORRECT] at a time
    speed                                   ### ####  alone: nothing else runs any more

A step that would not fit into what is left of the time is not run, and the report says so.
"""

import concurrent.futures
import contextlib
import dataclasses
import time
from typing import Callable

import timetable
from judge import Wrong
from processes import Processes
from timetable import CORRECT, PREPARATION, SPEED

PASSED, FAILED, MEASURED, PREPARED, NOT_RUN = "passed", "failed", "measured", "prepared", "not run"
REACHED = {PREPARATION: PREPARED, CORRECT: PASSED, SPEED: MEASURED}
TAIL = 1500  # characters of a failed command's output that are shown
MOST_CHANGES = 2  # a step is begun again so often, with another batch


@dataclasses.dataclass
class Outcome:
    says: str = ""  # a few words for the table
    figures: dict = dataclasses.field(default_factory=dict)
    bars: list = dataclasses.field(default_factory=list)  # {what, value, wanted, met}


class Done(dict):
    """{label: output} of a step's commands. Foreign ones that failed stand in `missing` too, as
    {label: reason}, with what they had printed until then in the dictionary."""

    def __init__(self):
        super().__init__()
        self.missing = {}


@dataclasses.dataclass(frozen=True)
class Step:
    name: str
    what: str
    kind: str  # PREPARATION, CORRECT or SPEED
    about_s: float  # what it should take; with less time left it is not begun
    limit_s: float  # it is stopped, and has failed, after so long
    plan: Callable  # (setup) -> [Command]
    judge: Callable  # (setup, Done) -> Outcome; raises judge.Wrong, or Stopped
    lacks: Callable = lambda setup: None  # (setup) -> why it cannot be run here, or None
    # (setup, label, output of a command that failed) -> what was changed so that the step may be
    # begun again, or None
    change: Callable = lambda setup, label, output: None
    needs: tuple = ()  # names of the steps that --only brings along


class Stopped(Exception):
    """A step that cannot go on, though nothing may be wrong."""

    def __init__(self, verdict, reason, out_of_time=False):
        super().__init__(reason)
        self.verdict, self.reason, self.out_of_time = verdict, reason, out_of_time


class Again(Exception):
    """The step is to be begun again; says what was changed."""


def tail(text):
    text = text.strip()
    return text if len(text) <= TAIL else "… " + text[-TAIL:]


class Runner:
    def __init__(self, setup, say, show=lambda result: None, total_s=timetable.TOTAL_S,
                 clock=time.monotonic, processes=None, begin=None):
        """`say` takes lines of progress, `show` every result as soon as it is there. The time runs
        from `begin` on the clock, or from now."""
        self.setup, self.say, self.show, self.total_s = setup, say, show, total_s
        self.clock, self.processes = clock, processes or Processes()
        self.begin = clock() if begin is None else begin
        self.results = []
        self.broken = None  # why no further step makes sense

    def age_s(self):
        return self.clock() - self.begin

    def left_s(self, kind):
        """Preparations end early enough to leave the measurements their time."""
        end_s = self.total_s
        if kind == PREPARATION:
            end_s = min(end_s, timetable.PREPARED_BY_S)
        return end_s - self.age_s()

    # ---- all steps --------------------------------------------------------------------------

    def run(self, steps):
        """Runs all of them, the first of which builds; their results, in the steps' order. When it
        is interrupted, every process ends."""
        build, *others = steps
        of_kind = {kind: [step for step in others if step.kind == kind] for kind in REACHED}
        with contextlib.ExitStack() as stack:
            lanes = {kind: stack.enter_context(concurrent.futures.ThreadPoolExecutor(width))
                     for kind, width in timetable.LANES.items()}
            stack.callback(self.leave, lanes.values())

            def begin(kind, chosen):
                return [lanes[kind].submit(self.step, step) for step in chosen]

            early = begin(PREPARATION, of_kind[PREPARATION])
            self.wait(begin(CORRECT, [build]))
            if self.results_of(build.name)["verdict"] != PASSED:
                self.broken = "the build failed"
                self.processes.end()
            self.wait(early + begin(CORRECT, of_kind[CORRECT]))
            self.wait(begin(SPEED, of_kind[SPEED]))
        return [self.results_of(step.name) for step in steps]

    def wait(self, futures):
        """Until all have ended. A mistake in a step ends the check."""
        for future in futures:
            future.result()

    def leave(self, lanes):
        """Threads are waited for after this: they must find nothing more to do."""
        for lane in lanes:
            lane.shutdown(wait=False, cancel_futures=True)
        self.processes.end()

    def results_of(self, name):
        return next(result for result in self.results if result["name"] == name)

    # ---- one step ---------------------------------------------------------------------------

    def step(self, step):
        """Runs one step and returns its result, which is kept in results too."""
        begin = self.clock()
        result = {"name": step.name, "what": step.what, "kind": step.kind, "verdict": NOT_RUN,
                  "reason": None, "out_of_time": False, "planned_s": step.about_s,
                  "began_s": round(self.age_s(), 1), "seconds": 0.0, "says": "", "figures": {},
                  "bars": [], "commands": [], "changes": []}
        self.attempt(step, result)
        result["seconds"] = round(self.clock() - begin, 1)
        self.setup.verdicts[step.name] = result["verdict"]
        self.results.append(result)
        self.show(result)
        return result

    def attempt(self, step, result):
        result["reason"] = self.broken or step.lacks(self.setup)
        if result["reason"]:
            return
        left = self.left_s(step.kind)
        if left < step.about_s:
            result["reason"] = (f"it needs about {step.about_s:.0f} s, and {max(0, left):.0f} s "
                                f"of {self.age_s() + left:.0f} s are left; --only {step.name} "
                                "runs it")
            result["out_of_time"] = True
            return
        try:
            outcome = self.judged(step, result)
        except Stopped as stopped:
            result["verdict"], result["reason"] = stopped.verdict, stopped.reason
            result["out_of_time"] = stopped.out_of_time
        except Wrong as wrong:
            result["verdict"], result["reason"] = FAILED, str(wrong)
        except (OSError, ValueError, ArithmeticError, LookupError, TypeError) as error:
            # A file that is not there or an output that cannot be read.
            result["verdict"], result["reason"] = FAILED, f"{type(error).__name__}: {error}"
        else:
            result["verdict"] = REACHED[step.kind]
            result.update(says=outcome.says, figures=outcome.figures, bars=outcome.bars)

    def judged(self, step, result):
        begin = self.clock()
        while True:
            commands = step.plan(self.setup)
            result["commands"] = [command.text() for command in commands]
            may_change = len(result["changes"]) < MOST_CHANGES
            try:
                return step.judge(self.setup, self.run_all(step, commands, begin, may_change))
            except Again as again:
                self.say(f"  {step.name}: {again}")
                result["changes"].append(str(again))

    def run_all(self, step, commands, begin, may_change):
        done = Done()
        for command in commands:
            own = min(command.limit_s, step.limit_s - (self.clock() - begin))
            left = self.left_s(step.kind)
            self.say(f"  {step.name}: {command.text()}")
            log = self.setup.scratch / step.name / f"{command.label}.log"
            status, output = self.processes.execute(command, log, min(own, left))
            done[command.label] = output
            if status == 0:
                continue
            if self.broken:
                raise Stopped(NOT_RUN, self.broken)
            may_change = may_change and status is not None
            changed = may_change and step.change(self.setup, command.label, output)
            if changed:
                raise Again(changed)
            if status is None and left < own:
                raise Stopped(NOT_RUN, self.cut_off(step, command), out_of_time=True)
            reason = f"{command.label}: exit status {status}: {tail(output)}"
            if status is None:
                reason = f"{command.label} did not end within {own:.0f} s: {tail(output)}"
            if not command.foreign:
                raise Stopped(NOT_RUN if command.excused(output) else FAILED, reason)
            done.missing[command.label] = reason
        return done

    def cut_off(self, step, command):
        whole = f"the {self.total_s:.0f} s of the whole check"
        if step.kind == PREPARATION and timetable.PREPARED_BY_S < self.total_s:
            whole = f"the {timetable.PREPARED_BY_S:.0f} s in which measurements are prepared"
        return f"{command.label} was cut off: {whole} were over; --only {step.name} runs it"
