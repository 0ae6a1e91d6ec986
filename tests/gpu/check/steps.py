"""The steps of the check, most important first, and what they run on.

Paths, arguments and environment variables of our programs stand in this file and in no other of
the check; those that measure stand in speed.py.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys

import deps
import judge
import speed
from processes import Command
from runner import Outcome, Step
from timetable import ABOUT_S, CORRECT

# Where ninja leaves what is needed, below the build folder.
PROGRAMS = {
    "pipetrain": "src/app/pipetrain",
    "module": "src/backend/pipetrain-cuda.so",  # no program links it: they load it
    "test_ops": "tests/test_ops",
    "bench_kernels": "tests/gpu/bench_kernels",
}
PRECISIONS = ("fp32", "tf32", "bf16")
KERNELS = ("avg_pool", "elementwise", "flat", "global_pool", "late", "loss", "max_pool", "move",
           "norm")  # kernels/*.cu
REAL_IMAGES = "usr/share/datasets/fashion-mnist"
MOST_THREADS = 8


@dataclasses.dataclass
class Setup:
    """What the steps run on."""

    root: pathlib.Path
    build: pathlib.Path
    scratch: pathlib.Path
    deps: pathlib.Path
    build_environment: dict
    run_environment: dict
    device: dict
    facts: dict
    torch_python: str | None = None
    quick: bool = False
    dry: bool = False
    # What steps leave for later ones: verdicts by name, batches that were made smaller, and those
    # that torch.compile has in its cache, by versus.Case.
    verdicts: dict = dataclasses.field(default_factory=dict)
    batches: dict = dataclasses.field(default_factory=dict)
    compiled: dict = dataclasses.field(default_factory=dict)

    def program(self, name):
        return str(self.build / PROGRAMS[name])

    def partition(self, model):
        return str(self.root / "partitions" / f"{model}.yaml")

    @property
    def torch_environment(self):
        """As we were started: the libraries of another system could stand in Python's way."""
        return dict(os.environ)

    def folder(self, step):
        path = self.scratch / step
        if not self.dry:
            path.mkdir(parents=True, exist_ok=True)
        return path

    def python(self, name, *arguments):
        """A Python program of ours; any Python 3 will do."""
        return ["python3", "-B", str(self.root / "tests" / "gpu" / name), *map(str, arguments)]


# ---- build -------------------------------------------------------------------------------------


def meson():
    return ["meson"] if shutil.which("meson") else [sys.executable, "-m", "mesonbuild.mesonmain"]


def plan_build(setup):
    environment = setup.build_environment
    options = ["--buildtype=release", "-Dcuda=enabled", "-Donednn=auto", "-Dtests=enabled",
               f"-Dmpi={'enabled' if deps.has_mpi(environment) else 'disabled'}",
               f"-Dgpu_arch={setup.facts.get('gpu_arch') or 'all'}"]
    again = ["--reconfigure"] if (setup.build / "build.ninja").exists() else []
    return [
        Command("setup", [*meson(), "setup", *again, setup.build, setup.root, *options],
                environment),
        Command("compile", ["ninja", "-C", setup.build, *PROGRAMS.values()], environment),
    ]


def judge_build(setup, _):
    for name in PROGRAMS:
        if not os.access(setup.program(name), os.X_OK):
            raise judge.Wrong(f"the build left no {setup.program(name)}")
    return Outcome("with MPI" if deps.has_mpi(setup.build_environment) else "without MPI: one rank")


# ---- ops ---------------------------------------------------------------------------------------


def ops_step(precision):
    def plan(setup):
        return [Command("ops", [setup.program("test_ops"), "cuda", precision],
                        setup.run_environment, {"CMOCKA_MESSAGE_OUTPUT": "TAP"})]

    def decide(_, done):
        passed, skipped = judge.count_tap(done["ops"])
        says = f"{passed} cases" + (f", {skipped} skipped" if skipped else "")
        return Outcome(says, {"passed": passed, "skipped": skipped})

    return Step(f"ops-{precision}", f"every op on the GPU against ref, {precision}", CORRECT,
                ABOUT_S[f"ops-{precision}"], 90, plan, decide)


# ---- training ----------------------------------------------------------------------------------

# model -> steps, batch, learning rate: short, so that rounding has no time to grow
TRAINING = {"lenet5": (36, 128, 0.02), "wrn-16-4": (10, 32, 0.02)}


def images(setup):
    """Options for a small set of images, the same for every backend: the test half of
    Fashion-MNIST where it is, else made-up images."""
    for place in (setup.deps / REAL_IMAGES, pathlib.Path("/") / REAL_IMAGES):
        if (place / "t10k-images-idx3-ubyte.gz").is_file():
            folder = setup.scratch / "images"
            if not setup.dry:
                folder.mkdir(parents=True, exist_ok=True)
                for path in place.glob("t10k-*"):
                    for half in ("train", "t10k"):
                        link = folder / path.name.replace("t10k", half)
                        with contextlib.suppress(FileExistsError):  # another step was first
                            link.symlink_to(path)
            return ["--dataset=idx", f"--data={folder}"]
    return ["--dataset=synthetic", "--samples=10000"]


def cpu_backend(setup):
    """onednn, unless this build lacks it."""
    program = setup.program("pipetrain")
    if not os.access(program, os.X_OK):
        return "onednn"
    text = subprocess.run([program, "--help"], env=setup.run_environment, capture_output=True,
                          text=True).stdout
    choices = re.search(r"--backend NAME.*?One of ([^.]*)\.", text, re.DOTALL)
    return "onednn" if choices and "onednn" in choices[1] else "ref"


def training(setup, model, backend, *options):
    return [setup.program("pipetrain"), setup.partition(model), *images(setup),
            f"--backend={backend}", "--eval-every=0", "--progress=off", "--seed=1",
            "--optimizer=sgd", "--momentum=0.9", "--weight-decay=1e-4", "--lr-schedule=constant",
            "--warmup=0", *options]


def lacks_speed(model):
    """ref multiplies in plain loops: LeNet-5 takes seconds with it, WRN-16-4 many minutes."""
    def lacks(setup):
        if model == "lenet5" or cpu_backend(setup) == "onednn":
            return None
        return "without oneDNN the CPU's half takes too long; tools/gpu-check --collect brings it"

    return lacks


def train_step(model):
    steps, batch, rate = TRAINING[model]

    def plan(setup):
        folder = setup.folder(f"train-{model}")
        common = ["--schedule=1f1b", f"--batch={batch}", f"--micro-batch={batch}", f"--lr={rate}",
                  f"--steps={steps}"]
        threads = min(MOST_THREADS, len(os.sched_getaffinity(0)))
        runs = {"cpu": training(setup, model, cpu_backend(setup), f"--threads={threads}", *common)}
        for precision in PRECISIONS:
            runs[precision] = training(setup, model, "cuda", f"--precision={precision}", *common)
        return [Command(name, [*run, f"--log={folder / name}.jsonl"], setup.run_environment)
                for name, run in runs.items()]

    def decide(setup, _):
        folder = setup.folder(f"train-{model}")
        losses = {name: judge.read_losses(folder / f"{name}.jsonl")
                  for name in ("cpu", *PRECISIONS)}
        differences = {
            precision: judge.compare_losses(losses["cpu"], losses[precision],
                                            judge.LOSS_TOLERANCE[model, precision], steps,
                                            judge.EARLY_TOLERANCE.get(precision, math.inf))
            for precision in PRECISIONS
        }
        says = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
        tolerances = {name: judge.LOSS_TOLERANCE[model, name] for name in PRECISIONS}
        return Outcome(f"losses differ by at most {says}",
                       {"greatest_difference": differences, "tolerance": tolerances,
                        "early_tolerance": judge.EARLY_TOLERANCE, "losses": losses})

    return Step(f"train-{model}", f"{model}: {steps} steps on the GPU as on the CPU", CORRECT,
                ABOUT_S[f"train-{model}"], 120, plan, decide, lacks_speed(model))


# ---- ranks -------------------------------------------------------------------------------------

RANKS = (1, 2, 4)
SCHEDULES = {"1f1b": "fp32", "gpipe": "bf16"}  # each with a precision, so that both are covered


def plan_ranks(setup):
    folder = setup.folder("ranks")
    commands = []
    for schedule, precision in SCHEDULES.items():
        for ranks in RANKS:
            label = f"{schedule}-{ranks}"
            run = training(setup, "lenet5", "cuda", f"--precision={precision}",
                           "--deterministic=on", f"--schedule={schedule}", "--batch=128",
                           "--micro-batch=32", "--lr=0.02", "--steps=20",
                           f"--save={folder / label}.weights")
            commands.append(Command(label, speed.mpirun(ranks, run), setup.run_environment))
    run = training(setup, "lenet5", "cuda", "--schedule=async", "--predict=msnag", "--batch=32",
                   "--micro-batch=32", "--lr=0.02", "--steps=60", f"--log={folder}/async.jsonl")
    commands.append(Command("async-4", speed.mpirun(4, run), setup.run_environment))
    return commands


def judge_ranks(setup, _):
    folder = setup.folder("ranks")
    for schedule in SCHEDULES:
        judge.compare_weights(folder / f"{schedule}-{ranks}.weights" for ranks in RANKS)
    losses = judge.read_losses(folder / "async.jsonl")
    # Nothing to compare with: asynchronous training on four stages must learn, no more.
    judge.compare_losses(losses, losses, 0, 60)
    return Outcome("1, 2 and 4 ranks: the same weights, bit for bit")


# ---- sanitizers --------------------------------------------------------------------------------


def sanitizer(setup):
    return shutil.which("compute-sanitizer", path=setup.run_environment.get("PATH"))


def lacks_sanitizer(setup):
    return None if sanitizer(setup) else "compute-sanitizer is not on this machine"


# tool -> options where cuDNN and cuBLAS take part. They ask the driver for things that some lack,
# which is no error (the program looks at the errors of its own calls), and what they do in shared
# memory is theirs to check.
BESIDE_LIBRARIES = {
    "memcheck": ["--report-api-errors", "no"],
    "racecheck": [word for name in KERNELS for word in ("--kernel-name", f"kns=_{name}_cu_")],
}
# Some virtual machines have the tool, and a GPU that it can't look into.
CANNOT_LOOK = "Device not supported"


def sanitizer_step(tool):
    def plan(setup):
        prefix = [sanitizer(setup) or "compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
        run = training(setup, "lenet5", "cuda", "--precision=fp32", "--schedule=1f1b",
                       "--batch=32", "--micro-batch=16", "--steps=3")
        bench = [setup.program("bench_kernels"), "--small"]
        return [Command("kernels", [*prefix, *bench], setup.run_environment, excuse=CANNOT_LOOK),
                Command("lenet5", [*prefix, *BESIDE_LIBRARIES[tool], *run], setup.run_environment,
                        excuse=CANNOT_LOOK)]

    def decide(_, done):
        for label, output in done.items():
            if not re.search(r"(ERROR SUMMARY: 0 errors|RACECHECK SUMMARY: 0 hazards)", output):
                raise judge.Wrong(f"{label}: compute-sanitizer printed no clean summary")
        return Outcome("no errors: every kernel of ours, LeNet-5")

    return Step(tool, f"compute-sanitizer {tool}", CORRECT, ABOUT_S[tool], 150, plan, decide,
                lacks_sanitizer)


# ---- the table ---------------------------------------------------------------------------------

STEPS = (
    Step("build", "build from source", CORRECT, ABOUT_S["build"], 300, plan_build, judge_build),
    *speed.PREPARATIONS,
    *map(ops_step, PRECISIONS),
    *map(train_step, TRAINING),
    Step("ranks", "1, 2 and 4 ranks on one GPU", CORRECT, ABOUT_S["ranks"], 150, plan_ranks,
         judge_ranks, speed.lacks_ranks),
    *map(sanitizer_step, ("memcheck", "racecheck")),
    *speed.STEPS,
)
