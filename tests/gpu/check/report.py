"""The table that is printed and the JSON file that is kept."""

import json
import re

from runner import FAILED, MEASURED, NOT_RUN, PASSED, PREPARED
from timetable import CORRECT

SCHEMA = 1
SIGNS = {PASSED: "✓", MEASURED: "✓", PREPARED: "✓", FAILED: "✗", NOT_RUN: "–"}

# Every object of the file: key -> the types that its value may have.
NONE = type(None)
NUMBER = (int, float)
DOCUMENT = {"schema": (int,), "device": (dict,), "facts": (dict,), "quick": (bool,),
            "partial": (bool,), "correct": (bool,), "planned_s": NUMBER, "seconds": NUMBER,
            "steps": (list,)}
DEVICE = {"name": (str,), "driver": (str, NONE), "memory_bytes": (int, NONE), "count": (int,),
          "capability": (str, NONE)}
FACTS = {"date": (str,), "commit": (str, NONE), "cuda": (str, NONE),
         "gpu_arch": (str, NONE), "cudnn": (str, NONE),
         "pytorch": (str, NONE), "meson": (str, NONE), "mpi": (dict, NONE), "processor": (dict,)}
RESULT = {"name": (str,), "what": (str,), "kind": (str,), "verdict": (str,), "reason": (str, NONE),
          "out_of_time": (bool,), "planned_s": NUMBER, "began_s": NUMBER, "seconds": NUMBER,
          "says": (str,), "figures": (dict,), "bars": (list,), "commands": (list,),
          "changes": (list,)}
BAR = {"what": (str,), "value": NUMBER, "wanted": NUMBER, "met": (bool,)}


# ---- what it comes to --------------------------------------------------------------------------


def unproved(result):
    """A correctness step that the machine could run, had there been time."""
    return result["kind"] == CORRECT and result["out_of_time"]


def correct(results):
    """Did all correctness steps that could be run pass, and nothing else fail?"""
    ran = [result for result in results if result["verdict"] != NOT_RUN]
    proved = any(result["kind"] == CORRECT and result["verdict"] == PASSED for result in ran)
    return proved and not any(result["verdict"] == FAILED or unproved(result)
                              for result in results)


def without_root(value, root):
    """The same with paths of the checkout made relative: where it lies is nobody's business."""
    if isinstance(value, str):
        return value.replace(f"{root}/", "").replace(str(root), ".")
    if isinstance(value, list):
        return [without_root(item, root) for item in value]
    if isinstance(value, dict):
        return {key: without_root(item, root) for key, item in value.items()}
    return value


def document(device, facts, results, planned_s, seconds, quick, partial, root):
    return {"schema": SCHEMA, "device": device, "facts": facts, "quick": quick,
            "partial": partial, "correct": correct(results), "planned_s": round(planned_s, 1),
            "seconds": round(seconds, 1),
            "steps": without_root(results, root)}


def mistakes(value, fields, where):
    """What is wrong with one object of the file."""
    if not isinstance(value, dict):
        return [f"{where}: must be an object"]
    found = [f"{where}: {key} is missing" for key in fields if key not in value]
    found += [f"{where}: unknown key {key}" for key in value if key not in fields]
    for key, types in fields.items():
        # A bool is an int to Python; here it is one only where it is meant.
        wrong = isinstance(value.get(key), bool) and bool not in types
        if key in value and (wrong or not isinstance(value[key], types)):
            found.append(f"{where}: {key} is {value[key]!r}")
    return found


def check(value):
    """What is wrong with a result file, one line each; none when it is right."""
    found = mistakes(value, DOCUMENT, "file")
    if found:
        return found
    if value["schema"] != SCHEMA:
        found.append(f"file: schema is {value['schema']}, this is for {SCHEMA}")
    found += mistakes(value["device"], DEVICE, "device") + mistakes(value["facts"], FACTS, "facts")
    for at, result in enumerate(value["steps"]):
        of_result = mistakes(result, RESULT, f"step {at}")
        found += of_result
        if of_result:
            continue
        if result["verdict"] not in SIGNS:
            found.append(f"step {at}: unknown verdict {result['verdict']!r}")
        if (result["reason"] is None) != (result["verdict"] in (PASSED, MEASURED, PREPARED)):
            found.append(f"step {at}: a reason stands with what failed or was not run, only")
        for bar in result["bars"]:
            found += mistakes(bar, BAR, f"step {at}, bar")
    if not found and value["correct"] != correct(value["steps"]):
        found.append("file: correct does not follow from the steps")
    return found


# ---- file --------------------------------------------------------------------------------------


def file_name(date, device, taken=()):
    """2026-01-31-nvidia-h100.json; a second one of the day ends in -2."""
    words = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "unknown"
    stem = f"{date[:10]}-{words}"
    names = [f"{stem}.json", *(f"{stem}-{n}.json" for n in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)


def write(folder, value):
    folder.mkdir(parents=True, exist_ok=True)
    taken = {path.name for path in folder.glob("*.json")}
    path = folder / file_name(value["facts"]["date"], value["device"]["name"], taken)
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


# ---- table -------------------------------------------------------------------------------------


def head(device, facts):
    memory = device["memory_bytes"]
    mpi = facts["mpi"]
    aware = "CUDA-aware" if mpi and mpi["cuda_aware"] else "not CUDA-aware"
    parts = [
        f"{device['name']}" + (f", {memory / 2**30:.0f} GiB" if memory else ""),
        f"driver {device['driver'] or 'unknown'}",
        f"CUDA {facts['cuda'] or 'unknown'}", f"cuDNN {facts['cudnn'] or 'unknown'}",
        f"PyTorch {facts['pytorch']}" if facts["pytorch"] else "no PyTorch",
        f"{mpi['version']}, {aware}" if mpi else "no MPI",
        f"commit {(facts['commit'] or 'unknown')[:12]}", facts["date"],
    ]
    return " | ".join(parts)


def line(result):
    words = result["says"] if result["reason"] is None else result["reason"].splitlines()[0]
    if result["verdict"] in (FAILED, NOT_RUN):
        words = f"{result['verdict']}: {words}"
    return f"{SIGNS[result['verdict']]} {result['name']:<24} {result['seconds']:>6.1f} s  {words}"


def bar_line(bar):
    state = "reached" if bar["met"] else "NOT REACHED"
    return f"  {bar['what']:<58} {bar['value']:>6.2f}  wanted ≥ {bar['wanted']:.2f}: {state}"


def verdict(results):
    """The last lines: which steps failed, by name, and what was proved."""
    lines = []
    for words, chosen in (
        ("failed", [r["name"] for r in results if r["verdict"] == FAILED]),
        ("no time for", [r["name"] for r in results if unproved(r)]),
    ):
        if chosen:
            lines.append(f"{words}: {', '.join(chosen)}")
    counts = {v: sum(r["verdict"] == v for r in results)
              for v in (PASSED, PREPARED, MEASURED, FAILED, NOT_RUN)}
    lines.append(", ".join(f"{count} {v}" for v, count in counts.items()))
    return lines


def table(value):
    results = value["steps"]
    lines = [head(value["device"], value["facts"]), "", *map(line, results)]
    bars = [bar for result in results for bar in result["bars"]]
    if bars:
        lines += ["", "bars:", *map(bar_line, bars)]
    times = f"{value['seconds']:.0f} s, planned {value['planned_s']:.0f} s"
    return "\n".join([*lines, "", *verdict(results), times])
