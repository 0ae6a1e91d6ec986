"""What the runs of a study left behind, read."""

import csv
import json
import statistics

from study_grid import BASE
from study_run import DIVERGED, read_summary

COLUMNS = ("method", "stages", "seed", "state", "same_as", "test_accuracy", "best_accuracy",
           "test_loss", "train_loss", "images_per_s", "train_s", "staleness_mean",
           "staleness_max", "gap_relative", "epochs_to_sync", "reason")
# Accuracy of a model that has learnt nothing, and how much luck is put down to that.
LUCK = 1.1
# As good as sync: so close to the mean of its last accuracies.
NEAR = 0.001


def greatest(stages, key):
    values = [stage[key] for stage in stages if stage.get(key) is not None]
    return max(values) if values else None


def is_at_chance(summary):
    accuracy, classes = summary["test_accuracy"], summary.get("classes")
    return accuracy is not None and classes and accuracy <= LUCK / classes


def read_run(run, state, folder):
    """One line of the CSV file, and the curves of a run that is done."""
    row = {"method": run.method, "stages": run.stages, "seed": run.seed, "state": state}
    if state == "failed":
        row["reason"] = (folder / "failed").read_text(encoding="utf-8").strip()
    if state != "done":
        return row, None
    summary = read_summary(folder)
    row.update((key, summary[key]) for key in COLUMNS if key not in row and key in summary)
    for key in ("staleness_mean", "staleness_max", "gap_relative"):
        row[key] = greatest(summary["stages"], key)
    if is_at_chance(summary):
        row["reason"] = f"{DIVERGED}: the accuracy is that of guessing"
    with open(folder / "log.jsonl", encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    curves = {
        "evals": [r for r in records if r["type"] == "eval"],
        "steps": [r for r in records if r["type"] == "step"],
        "staleness": [stage["staleness_mean"] for stage in summary["stages"]],
        "gap": [stage.get("gap_relative") for stage in summary["stages"]],
    }
    return row, curves


def base_rows(rows, stages):
    """Of the method that others are compared with, at as many stages or, where it was not run there,
    at the fewest: study_grid has seen that it learns the same."""
    mine = [row for row in rows if row["method"] == BASE]
    known = {row["stages"] for row in mine}
    at = stages if stages in known else min(known, default=None)
    return [row for row in mine if row["stages"] == at]


def add_epochs_to_sync(rows, found):
    """How many epochs a run took to be as good as sync is in the end. None: it never was."""
    for run, curves in found.items():
        last = [row["test_accuracy"] for row in base_rows(rows.values(), run.stages)
                if row.get("test_accuracy") is not None]
        if last:
            target = statistics.fmean(last) - NEAR
            rows[run]["epochs_to_sync"] = next(
                (r["epoch"] + 1 for r in curves["evals"]
                 if r["test_accuracy"] is not None and r["test_accuracy"] >= target), None)


def read_all(grid, folder, states):
    """(rows in the order of the grid, {run: curves}). A run that another stands for has its row."""
    rows, found = {}, {}
    for run, state in states.items():
        rows[run], curves = read_run(run, state, folder / run.slug)
        if curves:
            found[run] = curves
    add_epochs_to_sync(rows, found)
    for run, other in grid.same_as.items():
        rows[run] = {**rows[other], "method": run.method, "same_as": other.method}
    order = {method: i for i, method in enumerate(grid.methods)}
    return sorted(rows.values(), key=lambda r: (order[r["method"]], r["stages"], r["seed"])), found


def spread(values):
    """(mean, standard deviation of the sample; None for one value)"""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def write_csv(rows, path):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
