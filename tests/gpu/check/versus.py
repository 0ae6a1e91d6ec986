"""PyTorch's side of the comparison: a case (model and precision), the preparation that fills
torch.compile's cache, and the run that is measured.

Compiling takes a minute of processor time that no measurement can spare. So each case is compiled
once beside steps that measure nothing, and the run that is timed finds what it needs on disk. It
chooses among kernels by timing them itself (torch_models.py): the device is its own by then.
"""

import dataclasses

import judge
from processes import Command
from runner import NOT_RUN, PREPARED, Outcome, Step, Stopped
from timetable import ABOUT_S, PREPARATION

NAMES = {"eager": "PyTorch eager", "compile": "torch.compile"}
RUN_LIMIT_S = 120  # of eager and compiled together; ours has the rest of the step's time
LEAST_GIB = 35  # below, two compilations leave too little memory to what runs beside them
COMPILED_STEPS = 2  # the first compiles forward and backward
OUT_OF_MEMORY = "out of memory"
COMPILING, MEASURING = "compile", "torch"  # labels of commands


@dataclasses.dataclass(frozen=True)
class Case:
    model: str
    precision: str
    batches: tuple  # ((least GiB, batch), …), falling

    @property
    def speed(self):
        return f"speed-{self.model}-{self.precision}"

    @property
    def compile(self):
        return f"compile-{self.model}-{self.precision}"

    def planned_batch(self, setup):
        return judge.batch_for(setup.device.get("memory_bytes"), self.batches)

    def batch(self, setup):
        """The same for both sides; a refusal may have made it smaller."""
        return setup.batches.get(self, self.planned_batch(setup))

    def smaller_batch(self, setup, label, output):
        """A command was refused: the batch that both sides try next, as text; None when the refusal
        was about something else."""
        size = self.batch(setup)
        if label in (COMPILING, MEASURING):
            whose = "PyTorch"
            smaller = size // 2 if OUT_OF_MEMORY in output.lower() else None
        else:
            whose, smaller = "pipetrain", judge.batch_that_fits(output)
        if not smaller or smaller >= size:
            return None
        setup.batches[self] = smaller
        return f"a batch of {size} does not fit {whose}: {smaller} for both"

    def uncompiled(self, setup):
        """Why torch.compile is not measured, or None."""
        if setup.dry:
            return None
        verdict = setup.verdicts.get(self.compile)
        if verdict is None:
            return "left out"
        if verdict != PREPARED:
            return f"{self.compile} was not"
        if setup.compiled[self] != self.batch(setup):
            return f"it was compiled for a batch of {setup.compiled[self]}"
        return None


def torch(setup, case, modes, warm_up, count, length):
    program = setup.python("torch_models.py", f"--model={case.model}",
                           f"--precision={case.precision}", f"--modes={','.join(modes)}",
                           f"--batch={case.batch(setup)}", f"--warm-up={warm_up}",
                           f"--stretches={count}", f"--stretch={length}")
    return [setup.torch_python or "python3", *program[1:]]


def cache(setup):
    """Where torch.compile keeps what it made; said aloud, as not every version does so unasked."""
    return {"TORCHINDUCTOR_CACHE_DIR": str(setup.scratch / "inductor"),
            "TORCHINDUCTOR_FX_GRAPH_CACHE": "1", "TORCHINDUCTOR_AUTOGRAD_CACHE": "1"}


# ---- measured ----------------------------------------------------------------------------------


def measure(setup, case, modes, count, length, warm_up):
    return Command(MEASURING, torch(setup, case, modes, warm_up, count, length),
                   setup.torch_environment, cache(setup), foreign=True, limit_s=RUN_LIMIT_S)


def read(setup, case, done):
    """(mode, what PyTorch printed of it, why there is nothing) of each mode; a mode that ended
    before another failed counts."""
    if MEASURING not in done:
        return [(mode, None, "no Python here has PyTorch") for mode in NAMES]
    printed = {facts["mode"]: facts for facts in judge.read_json_lines(done[MEASURING])}
    failed = done.missing.get(MEASURING, "it printed nothing")
    reasons = {"eager": failed, "compile": case.uncompiled(setup) or failed}
    return [(mode, printed.get(mode), None if mode in printed else reasons[mode])
            for mode in NAMES]


def brief(reason):
    """What failed, and its last words."""
    first, *others = reason.splitlines()
    return " … ".join([first, *others[-1:]])


# ---- prepared ----------------------------------------------------------------------------------


def lacks_compile(setup):
    if not setup.torch_python:
        return "no Python here has PyTorch"
    gib = (setup.device.get("memory_bytes") or 0) / 2**30
    if gib < LEAST_GIB:
        return f"the device's {gib:.0f} GiB have no room for it beside the other steps"
    return None


def compile_step(case):
    def plan(setup):
        command = torch(setup, case, ["compile"], COMPILED_STEPS, 0, 1)
        return [Command(COMPILING, ["nice", "-n", "10", *command], setup.torch_environment,
                        cache(setup), foreign=True)]

    def decide(setup, done):
        if done.missing:
            raise Stopped(NOT_RUN, done.missing[COMPILING])
        setup.compiled[case] = case.batch(setup)
        (facts,) = judge.read_json_lines(done[COMPILING])
        return Outcome(f"compiled in {facts['first_step_s']:.0f} s",
                       {"model": case.model, "precision": case.precision, **facts})

    return Step(case.compile, f"{case.model}, {case.precision}: fill torch.compile's cache",
                PREPARATION, ABOUT_S[case.compile], 170, plan, decide, lacks_compile,
                case.smaller_batch)
