"""The steps that measure: kernels against the copy rate, training against PyTorch, links.

Ours and PyTorch take turns (ours, PyTorch, ours) on the same device with the same batch; what
counts is the median over stretches of steps, after steps that are left out. Nothing else runs
meanwhile.
"""

import statistics

import deps
import judge
import versus
from processes import Command
from runner import Outcome, Step
from timetable import ABOUT_S, PREPARATION, SPEED
from versus import Case

# (least memory in GiB, batch), falling
BATCHES = {
    "resnet-50": ((70, 256), (35, 128), (16, 64), (0, 32)),
    "wrn-28-10": ((35, 256), (16, 128), (0, 64)),
}
SHAPES = {"resnet-50": (3, 224, 224, 1000), "wrn-28-10": (3, 32, 32, 10)}
BATCHES_OF_IMAGES = 4  # different batches in the file of images
MOST_EPOCHS = 1000  # the steps end a run, not these
WARM_UP, STRETCHES, STRETCH = 8, 5, 4  # steps left out; stretches; steps of each
QUICK_STRETCHES, QUICK_STRETCH = 3, 4
TURNS = ("ours-1", "ours-2")
CASES = tuple(Case(model, precision, BATCHES[model])
              for precision in ("bf16", "tf32") for model in BATCHES)


def stretches(setup):
    return (QUICK_STRETCHES, QUICK_STRETCH) if setup.quick else (STRETCHES, STRETCH)


def summary(rates):
    return {"median": statistics.median(rates), "stretches": rates}


def mpirun(ranks, command):
    return ["mpirun", "-np", ranks, "--oversubscribe", "--bind-to", "none", *command]


def lacks_ranks(setup):
    if not setup.facts.get("mpi"):
        return "there is no MPI on this machine; tools/gpu-check --collect brings one"
    if not deps.has_mpi(setup.build_environment):
        return "there is an mpirun, but no MPI to build with: the program has one rank only"
    return None


# ---- images ------------------------------------------------------------------------------------


def images_file(setup, model):
    return setup.scratch / "images" / f"{model}.safetensors"


def make_images(setup, model, size, path):
    return setup.python("check/make_images.py", path, BATCHES_OF_IMAGES * size, *SHAPES[model])


def plan_images(setup):
    setup.folder("images")
    # All cases of a model begin with the same batch.
    return [Command(case.model, make_images(setup, case.model, case.planned_batch(setup),
                                            images_file(setup, case.model)),
                    setup.run_environment)
            for case in CASES[:len(BATCHES)]]


# ---- training ----------------------------------------------------------------------------------


def ours(setup, model, precision, folder, label, size, pieces=1, images=None):
    """Images lie in a file as bytes: loading and copying them counts."""
    count, length = stretches(setup)
    return [setup.program("pipetrain"), setup.partition(model), "--backend=cuda",
            f"--precision={precision}", "--dataset=arrays",
            f"--data={images or images_file(setup, model)}", "--crop=0", "--flip=off",
            "--schedule=1f1b", "--optimizer=sgd", "--lr=0.01", "--momentum=0.9",
            "--weight-decay=1e-4", "--lr-schedule=constant", "--warmup=0", f"--batch={size}",
            f"--micro-batch={size // pieces}", f"--epochs={MOST_EPOCHS}",
            f"--steps={WARM_UP + count * length}", "--eval-every=0", "--progress=off",
            f"--timing={folder}/{label}.csv", f"--summary={folder}/{label}.json"]


def rates_of_ours(setup, folder, label):
    count, _ = stretches(setup)
    ends, samples = judge.read_timing(folder / f"{label}.csv")
    return judge.windows(ends, samples, WARM_UP, count)


def plan_speed(setup, case):
    """ours, PyTorch, ours: what drifts meets both alike."""
    folder, size = setup.folder(case.speed), case.batch(setup)
    environment = setup.run_environment
    commands, images = [], images_file(setup, case.model)
    if size != case.planned_batch(setup):  # whole batches only
        images = folder / "images.safetensors"
        commands.append(Command("images", make_images(setup, case.model, size, images),
                                environment))

    def turn(label):
        return Command(label, ours(setup, case.model, case.precision, folder, label, size,
                                   images=images), environment)

    commands.append(turn(TURNS[0]))
    if setup.torch_python:
        modes = ["eager"] + ([] if case.uncompiled(setup) else ["compile"])
        commands.append(versus.measure(setup, case, modes, *stretches(setup), WARM_UP))
    return [*commands, turn(TURNS[1])]


def judge_speed(setup, case, done):
    folder = setup.folder(case.speed)
    turns = [rates_of_ours(setup, folder, label) for label in TURNS]
    mine = summary([rate for turn in turns for rate in turn])
    first, last = map(statistics.median, turns)
    figures = {"model": case.model, "precision": case.precision, "batch": case.batch(setup),
               "images_per_s": mine, "drift": last / first}
    says = f"{mine['median']:,.0f} images/s with a batch of {case.batch(setup)}"
    if not 1 / judge.STEADY <= last / first <= judge.STEADY:
        says += f" (first {first:,.0f}, then {last:,.0f}: the device is not steady)"
    bars = []
    for mode, facts, reason in versus.read(setup, case, done):
        if reason:
            figures[mode] = {"reason": reason}
            says += f"; {versus.NAMES[mode]} not run: {versus.brief(reason)}"
            continue
        theirs = summary(facts["images_per_s"])
        ratio = mine["median"] / theirs["median"]
        figures[mode] = {**facts, "images_per_s": theirs, "ratio": ratio}
        says += f"; {versus.NAMES[mode]} {theirs['median']:,.0f}, ratio {ratio:.2f}"
        if mode == "eager":
            bars.append({"what": f"{case.model} {case.precision} / PyTorch eager", "value": ratio,
                         "wanted": judge.WANTED_OF_EAGER, "met": ratio >= judge.WANTED_OF_EAGER})
    return Outcome(says, figures, bars)


def speed_step(case):
    return Step(case.speed, f"{case.model}, {case.precision}: images a second, beside PyTorch",
                SPEED, ABOUT_S[case.speed], 200, lambda setup: plan_speed(setup, case),
                lambda setup, done: judge_speed(setup, case, done), change=case.smaller_batch,
                needs=("images", case.compile))


# ---- kernels -----------------------------------------------------------------------------------


def plan_kernels(setup):
    quick = ["--quick"] if setup.quick else []
    return [Command("kernels", [setup.program("bench_kernels"), *quick], setup.run_environment)]


def judge_kernels(_, done):
    rows = judge.read_json_lines(done["kernels"])
    copies = [row for row in rows if "copy_gb_per_s" in row]
    kernels = [row for row in rows if "kernel" in row]
    if len(copies) != 1 or not kernels:
        raise judge.Wrong(f"{len(copies)} copy rates and {len(kernels)} kernels were printed")
    bound = [row for row in kernels if row["bound"] == "memory"]
    least = min(bound, key=lambda row: row["of_copy"])
    slow = judge.slow_kernels(kernels)
    says = (f"{len(bound) - len(slow)} of {len(bound)} memory-bound kernels reach "
            f"{judge.WANTED_OF_COPY:.0%} of {copies[0]['copy_gb_per_s']:,.0f} GB/s")
    if slow:
        says += "; below: " + ", ".join(slow)
    bar = {"what": f"slowest memory-bound kernel ({least['kernel']} {least['type']}) / copy",
           "value": least["of_copy"], "wanted": judge.WANTED_OF_COPY, "met": not slow}
    return Outcome(says, {**copies[0], "kernels": kernels}, [bar])


# ---- links -------------------------------------------------------------------------------------

LINK_BATCH, LINK_PIECES = 64, 4  # samples of a step; micro-batches of a step
LINKS = ("host", "device", "host")  # in turns, so that a drift cancels out


def lacks_cuda_aware(setup):
    mpi = setup.facts.get("mpi")
    if lacks_ranks(setup) or mpi["cuda_aware"]:
        return lacks_ranks(setup)
    return f"the MPI here is not CUDA-aware ({mpi['version']})"


def plan_links(setup):
    folder, commands = setup.folder("p2p"), []
    for turn, way in enumerate(LINKS):
        label = f"{way}-{turn}"
        run = [*ours(setup, "resnet-50", "bf16", folder, label, LINK_BATCH, LINK_PIECES),
               f"--p2p={way}"]
        commands.append(Command(label, mpirun(2, run), setup.run_environment))
    return commands


def judge_links(setup, _):
    folder = setup.folder("p2p")
    rates = {"host": [], "device": []}
    for turn, way in enumerate(LINKS):
        rates[way] += rates_of_ours(setup, folder, f"{way}-{turn}")
    medians = {way: summary(rates[way]) for way in rates}
    ratio = medians["device"]["median"] / medians["host"]["median"]
    return Outcome(f"{medians['device']['median']:,.0f} images/s, {medians['host']['median']:,.0f} "
                   f"through host memory: {ratio:.2f} x", {"images_per_s": medians, "ratio": ratio})


# ---- the table ---------------------------------------------------------------------------------

PREPARATIONS = (
    Step("images", "random images for the measurements", PREPARATION, ABOUT_S["images"], 60,
         plan_images, lambda setup, done: Outcome(f"{BATCHES_OF_IMAGES} batches for each model")),
    *map(versus.compile_step, CASES),
)
STEPS = (
    Step("kernels", "our kernels against the device's copy rate", SPEED, ABOUT_S["kernels"], 60,
         plan_kernels, judge_kernels),
    *map(speed_step, CASES),
    Step("p2p", "links: device memory against host memory", SPEED, ABOUT_S["p2p"], 120, plan_links,
         judge_links, lacks_cuda_aware, needs=("images",)),
)
