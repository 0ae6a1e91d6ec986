"""The steps that measure: kernels against the copy rate, training against PyTorch, links.

Ours and PyTorch take turns (ours, PyTorch, ours) on the same device with the same batch; what
counts is the median over stretches of steps, after steps that are left out.
"""

import statistics

import deps
import judge
from runner import SPEED, Command, Outcome, Step

# (least memory in GiB, batch), falling
BATCHES = {
    "resnet-50": ((70, 256), (35, 128), (16, 64), (0, 32)),
    "wrn-28-10": ((35, 256), (16, 128), (0, 64)),
}
SHAPES = {"resnet-50": (3, 224, 224, 1000), "wrn-28-10": (3, 32, 32, 10)}
BATCHES_OF_IMAGES = 4  # different batches in the file of images
MOST_EPOCHS = 1000  # the steps end a run, not these
WARM_UP, STRETCHES, STRETCH = 10, 5, 8  # steps left out; stretches; steps of each
QUICK_STRETCHES, QUICK_STRETCH = 3, 4
MEASURED = (("resnet-50", "bf16"), ("wrn-28-10", "bf16"), ("resnet-50", "tf32"),
            ("wrn-28-10", "tf32"))


def stretches(setup):
    return (QUICK_STRETCHES, QUICK_STRETCH) if setup.quick else (STRETCHES, STRETCH)


def batch(setup, model):
    return judge.batch_for(setup.device.get("memory_bytes"), BATCHES[model])


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


# ---- training ----------------------------------------------------------------------------------


def ours(setup, model, precision, folder, label, size=None, pieces=1):
    """Images lie in a file as bytes: loading and copying them counts."""
    count, length = stretches(setup)
    size = size or batch(setup, model)
    return [setup.program("pipetrain"), setup.partition(model), "--backend=cuda",
            f"--precision={precision}", "--dataset=arrays", f"--data={folder}/images.safetensors",
            "--crop=0", "--flip=off", "--schedule=1f1b", "--optimizer=sgd", "--lr=0.01",
            "--momentum=0.9", "--weight-decay=1e-4", "--lr-schedule=constant", "--warmup=0",
            f"--batch={size}", f"--micro-batch={size // pieces}", f"--epochs={MOST_EPOCHS}",
            f"--steps={WARM_UP + count * length}", "--eval-every=0", "--progress=off",
            f"--timing={folder}/{label}.csv", f"--summary={folder}/{label}.json"]


def make_images(setup, model, folder):
    shape = SHAPES[model]
    count = BATCHES_OF_IMAGES * batch(setup, model)
    return setup.python("check/make_images.py", folder / "images.safetensors", count, *shape)


def torch(setup, model, precision, mode):
    count, length = stretches(setup)
    program = setup.python("torch_models.py", f"--model={model}", f"--precision={precision}",
                           f"--mode={mode}", f"--batch={batch(setup, model)}",
                           f"--warm-up={WARM_UP}", f"--stretches={count}", f"--stretch={length}")
    return [setup.torch_python or "python3", *program[1:]]


def lacks_torch(setup):
    return None if setup.torch_python else "no Python here has PyTorch"


def rates_of_ours(setup, folder, labels):
    count, _ = stretches(setup)
    rates = []
    for label in labels:
        ends, samples = judge.read_timing(folder / f"{label}.csv")
        rates += judge.windows(ends, samples, WARM_UP, count)
    return rates


def rates_of_torch(output):
    facts = judge.read_json_lines(output)[-1]
    return facts, facts["images_per_s"]


def speed_step(model, precision):
    name = f"speed-{model}-{precision}"

    def plan(setup):
        folder = setup.folder(name)
        environment = setup.run_environment
        commands = [
            Command("images", make_images(setup, model, folder), environment),
            Command("ours-1", ours(setup, model, precision, folder, "ours-1"), environment),
        ]
        if setup.torch_python:
            commands.append(Command("eager", torch(setup, model, precision, "eager"),
                                    setup.torch_environment, foreign=True))
        commands.append(Command("ours-2", ours(setup, model, precision, folder, "ours-2"),
                                environment))
        return commands

    def decide(setup, done):
        mine = summary(rates_of_ours(setup, setup.folder(name), ("ours-1", "ours-2")))
        figures = {"model": model, "precision": precision, "batch": batch(setup, model),
                   "images_per_s": mine}
        says, bars = f"{mine['median']:,.0f} images/s", []
        if "eager" in done:
            facts, rates = rates_of_torch(done["eager"])
            figures["eager"] = {**facts, "images_per_s": summary(rates)}
            ratio = mine["median"] / statistics.median(rates)
            says += f"; PyTorch eager {statistics.median(rates):,.0f}; ratio {ratio:.2f}"
            bars.append({"what": f"{model} {precision} / PyTorch eager", "value": ratio,
                         "wanted": judge.WANTED_OF_EAGER,
                         "met": ratio >= judge.WANTED_OF_EAGER})
        return Outcome(says, figures, bars)

    return Step(name, f"{model}, {precision}: images a second, beside PyTorch eager", SPEED, 35,
                110, plan, decide)


def compile_step(model, precision):
    name = f"compile-{model}-{precision}"

    def plan(setup):
        folder = setup.folder(name)
        return [
            Command("images", make_images(setup, model, folder), setup.run_environment),
            Command("ours", ours(setup, model, precision, folder, "ours"), setup.run_environment),
            Command("compile", torch(setup, model, precision, "compile"), setup.torch_environment,
                    foreign=True),
        ]

    def decide(setup, done):
        mine = summary(rates_of_ours(setup, setup.folder(name), ("ours",)))
        facts, rates = rates_of_torch(done["compile"])
        ratio = mine["median"] / statistics.median(rates)
        says = (f"{mine['median']:,.0f} images/s; torch.compile {statistics.median(rates):,.0f}; "
                f"ratio {ratio:.2f}")
        return Outcome(says, {"model": model, "precision": precision,
                              "batch": batch(setup, model), "images_per_s": mine,
                              "compile": {**facts, "images_per_s": summary(rates)}})

    return Step(name, f"{model}, {precision}: beside torch.compile", SPEED, 70, 180, plan, decide,
                lacks_torch)


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
LINKS = ("host", "device", "device", "host")  # in turns, so that a drift cancels out


def lacks_cuda_aware(setup):
    mpi = setup.facts.get("mpi")
    if lacks_ranks(setup) or mpi["cuda_aware"]:
        return lacks_ranks(setup)
    return f"the MPI here is not CUDA-aware ({mpi['version']})"


def plan_links(setup):
    folder = setup.folder("p2p")
    commands = [Command("images", make_images(setup, "resnet-50", folder), setup.run_environment)]
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
        rates[way] += rates_of_ours(setup, folder, (f"{way}-{turn}",))
    medians = {way: summary(rates[way]) for way in rates}
    ratio = medians["device"]["median"] / medians["host"]["median"]
    return Outcome(f"{medians['device']['median']:,.0f} images/s, {medians['host']['median']:,.0f} "
                   f"through host memory: {ratio:.2f} x", {"images_per_s": medians, "ratio": ratio})


# ---- the table ---------------------------------------------------------------------------------

STEPS = (
    Step("kernels", "our kernels against the device's copy rate", SPEED, 10, 60, plan_kernels,
         judge_kernels),
    *(speed_step(*case) for case in MEASURED),
    Step("p2p", "links: device memory against host memory", SPEED, 40, 120, plan_links, judge_links,
         lacks_cuda_aware),
    *(compile_step(*case) for case in MEASURED),
)
