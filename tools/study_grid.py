"""The grid of a study: which runs a TOML file asks for, and how each is started.

    name = "lenet5"
    partition = "../../partitions/lenet5.yaml"    # from where this file lies
    stages = [1, 2, 4]                            # ranks
    seeds = [1, 2, 3]

    [options]                                     # of every run, as on the command line
    epochs = 10

    [methods.sync]                                # one row of the table; options of its own
    schedule = "1f1b"
    [methods."async, none"]
    predict = "none"
    stages = [2, 4]                               # instead of those above

A run is one method at one number of stages with one seed."""

import dataclasses
import hashlib
import pathlib
import re
import tomllib

from svg import BadInput

KEYS = {"name": str, "partition": str, "stages": list, "seeds": list, "options": dict,
        "methods": dict}
# What the study itself says to a run.
OWN = ("seed", "log", "summary", "progress", "check", "infer", "help", "version", "debug")


def stages_words(n):
    return f"{n} stage{'s' * (n > 1)}"


@dataclasses.dataclass(frozen=True)
class Run:
    method: str
    stages: int
    seed: int
    options: tuple  # ((name, value), …)

    @property
    def slug(self):
        method = re.sub(r"[^a-z0-9]+", "-", self.method.lower()).strip("-")
        return f"{method}-p{self.stages}-s{self.seed}"

    @property
    def words(self):
        return f"{self.method}, {stages_words(self.stages)}, seed {self.seed}"

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
    runs: list

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
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
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
        if key == "options" and key not in data:
            continue
        if key not in data:
            fail(path, f"the key '{key}' is missing")
        if not isinstance(data[key], kind):
            fail(path, f"'{key}' must be a {'table' if kind is dict else kind.__name__}")
    if not data["methods"]:
        fail(path, "there is no method: write a table [methods.NAME] for each")


def read_runs(path, data):
    stages = whole_numbers(path, "stages", data["stages"])
    seeds = whole_numbers(path, "seeds", data["seeds"])
    common = [option(path, "[options]", *item) for item in data.get("options", {}).items()]
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
    return Grid(data["name"], partition, list(data["methods"]), runs)
