"""The grid of a study: which runs a TOML file asks for, and how each is started.

    name = "lenet5"
    partition = "../../partitions/lenet5.yaml"    # from where this file lies
    stages = [1, 2, 4]                            # ranks
    seeds = [1, 2, 3]
    jobs = 1                                      # runs at a time; more disturb each other's times

    [options]                                     # of every run, as on the command line
    epochs = 10
    gap-every = 20                                # for gap.svg

    [methods.sync]                                # one row of the table; options of its own
    schedule = "1f1b"                             # the others are compared with the row `sync`
    stages = [1]                                  # instead of those above; its bits are those of any
    [methods."async, none"]
    predict = "none"
    stages = [2, 4]

A run is one method at one number of stages with one seed. At one stage nothing is late, and methods
that differ in what they do about lateness are one computation: it is run once for all of them."""

import dataclasses
import hashlib
import pathlib
import re
import tomllib

from svg import BadInput

KEYS = {"name": str, "partition": str, "stages": list, "seeds": list, "jobs": int, "options": dict,
        "methods": dict}
OPTIONAL = {"jobs": 1, "options": {}}
# What the study itself says to a run.
OWN = ("seed", "log", "summary", "progress", "check", "infer", "help", "version", "debug")
# Options that change nothing where nothing is late. (--2bw is late at one stage, too.)
ABOUT_LATENESS = ("schedule", "predict", "stash", "in-flight", "sync-epochs", "pipemare-lr",
                  "pipemare-dc", "gap-aware", "gap-every")
SYNCHRONOUS = ("gpipe", "1f1b", "zb-h1")
BASE = "sync"  # the method that the others are compared with


def stages_words(n):
    return f"{n} stage{'s' * (n > 1)}"


def in_one_word(name):
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@dataclasses.dataclass(frozen=True)
class Run:
    method: str
    stages: int
    seed: int
    options: tuple  # ((name, value), …)

    @property
    def slug(self):
        return f"{in_one_word(self.method)}-p{self.stages}-s{self.seed}"

    def has(self, words):
        """Are these whole parts of its name? sync is none of async's."""
        return f"-{in_one_word(words)}-" in f"-{self.slug}-"

    @property
    def words(self):
        return f"{self.method}, {stages_words(self.stages)}, seed {self.seed}"

    @property
    def computation(self):
        """What two runs must have in common to have the same bits; None where nothing is known."""
        options = dict(self.options)
        usual = options.get("schedule", "async") in ("async", *SYNCHRONOUS)
        if self.stages > 1 or not usual or options.get("2bw", "off") != "off":
            return None
        return self.seed, frozenset((k, v) for k, v in options.items() if k not in ABOUT_LATENESS)

    @property
    def is_synchronous(self):
        """Has the same bits at any number of stages? (A last stage of its own kind moves.)"""
        options = dict(self.options)
        return (options.get("schedule") in SYNCHRONOUS
                and options.get("nesterov-last", "off") == "off")

    @property
    def arguments(self):
        """Without the partition file. Files lie in the folder where the run is started."""
        own = (("seed", self.seed), ("log", "log.jsonl"), ("summary", "summary.json"),
               ("progress", "off"))
        return [f"--{name}={value}" for name, value in self.options + own]


@dataclasses.dataclass
class Grid:
    name: str
    partition: pathlib.Path
    methods: list  # in the order of the file
    runs: list  # no two of them are one computation
    jobs: int  # runs at a time
    same_as: dict  # a run that is left out: the run that has its result

    def key(self, run):
        """Changes when a run would be another one: its options, its model."""
        model = hashlib.sha256(self.partition.read_bytes()).hexdigest()
        return f"{run.stages} ranks, {' '.join(run.arguments)}, model {model[:16]}\n"


def fail(path, words):
    raise BadInput(f"{path}: {words}")


def whole_numbers(path, where, values):
    good = isinstance(values, list) and values and all(
        isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in values)
    if not good:
        fail(path, f"{where} must be a list of whole numbers from 1 on, such as [1, 2, 4]")
    if len(set(values)) != len(values):
        fail(path, f"{where} names a number twice")
    return values


def option(path, where, name, value):
    """(name, text) of one option, as the command line wants it."""
    if name in OWN:
        fail(path, f"{where}: {name} is set by the study itself; take it out")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        fail(path, f"{where}: '{name}' is not the name of an option, such as weight-decay")
    if isinstance(value, bool):
        return name, "on" if value else "off"
    if isinstance(value, (int, float, str)):
        return name, str(value)
    return fail(path, f"{where}: {name} must be a number, a text, true or false")


def check_keys(path, data):
    for key in data:
        if key not in KEYS:
            fail(path, f"unknown key '{key}'; there are {', '.join(KEYS)}")
    for key, kind in KEYS.items():
        if key not in data and key not in OPTIONAL:
            fail(path, f"the key '{key}' is missing")
        if not isinstance(data.setdefault(key, OPTIONAL.get(key)), kind):
            fail(path, f"'{key}' must be a {'table' if kind is dict else kind.__name__}")
    if isinstance(data["jobs"], bool) or data["jobs"] < 1:
        fail(path, "'jobs' must be a whole number from 1 on: how many runs at a time")
    if not data["methods"]:
        fail(path, "there is no method: write a table [methods.NAME] for each")


def read_runs(path, data):
    stages = whole_numbers(path, "stages", data["stages"])
    seeds = whole_numbers(path, "seeds", data["seeds"])
    common = [option(path, "[options]", *item) for item in data["options"].items()]
    for method, table in data["methods"].items():
        where = f"[methods.{method}]"
        if not isinstance(table, dict):
            fail(path, f"{where} must be a table")
        table = dict(table)
        own = whole_numbers(path, f"{where}: stages", table.pop("stages", stages))
        options = dict(common)
        options.update(option(path, where, *item) for item in table.items())
        for n in own:
            for seed in seeds:
                yield Run(method, n, seed, tuple(options.items()))


def check_base(path, runs):
    """Where the base is not run, the others are compared with its runs elsewhere."""
    base = [run for run in runs if run.method == BASE]
    lacking = {run.stages for run in runs} - {run.stages for run in base}
    if base and lacking and not base[0].is_synchronous:
        fail(path, f"[methods.{BASE}]: stages lacks {min(lacking)}, and only schedules that are "
                   f"synchronous ({', '.join(SYNCHRONOUS)}) learn the same at any number of stages")


def find_same(runs):
    """({a run: an earlier one that is the same computation}, the others)"""
    first, same, others = {}, {}, []
    for run in runs:
        known = run.computation
        if known in first:
            same[run] = first[known]
        else:
            others.append(run)
        if known:
            first.setdefault(known, run)
    return same, others


def read(path):
    path = pathlib.Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: this is not TOML: {error}") from error
    check_keys(path, data)
    partition = (path.parent / data["partition"]).resolve()
    if not partition.is_file():
        fail(path, f"partition: there is no file {partition}")
    runs = list(read_runs(path, data))
    slugs = [run.slug for run in runs]
    for run in runs:
        if slugs.count(run.slug) > 1:
            fail(path, f"two methods would share the folder {run.slug}; give them names that "
                       "differ in letters or digits")
    check_base(path, runs)
    same, runs = find_same(runs)
    return Grid(data["name"], partition, list(data["methods"]), runs, data["jobs"], same)
