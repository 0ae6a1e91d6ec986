"""The table of a study: methods down, numbers of stages across.

A run that failed or diverged is shown as such, and a method with one is never the best."""

from study_grid import BASE, stages_words
from study_results import NEAR, base_rows, spread
from study_run import DIVERGED


def with_spread(mean, deviation, form):
    return form.format(mean) + (f" ± {deviation:.2f}" if deviation is not None else "")


class Cell:
    """One method at one number of stages: the rows of its seeds. `borrowed`: run at another."""

    def __init__(self, rows, borrowed=False):
        self.rows, self.borrowed = rows, borrowed
        self.done = [r for r in rows if r["state"] == "done"]
        self.accuracies = self.values("test_accuracy", 100)
        self.losses = self.values("test_loss", 1)
        wrong = [r["reason"] for r in rows if r.get("reason")]
        self.diverged = sum(reason.startswith(DIVERGED) for reason in wrong)
        self.failed = len(wrong) - self.diverged
        self.missing = sum(r["state"] == "missing" for r in rows)
        self.same_as = next((r["same_as"] for r in rows if r.get("same_as")), None)

    def values(self, key, factor):
        return [factor * r[key] for r in self.done if r[key] is not None]

    def score(self):
        """What the best is found by; None: out of the contest."""
        if not self.rows or len(self.done) < len(self.rows) or self.diverged:
            return None
        if self.accuracies:
            return spread(self.accuracies)[0]
        return -spread(self.losses)[0] if self.losses else None

    def result(self):
        if self.accuracies:
            return with_spread(*spread(self.accuracies), "{:.2f}") + " %"
        if self.losses:
            return f"loss {spread(self.losses)[0]:.4g}"
        return "not evaluated" if self.done else ""

    def difference(self, base):
        """To the base, in percentage points: the spreads of both sides count."""
        if not base or base is self or not self.accuracies or not base.accuracies:
            return ""
        if self.same_as and (self.same_as == BASE or self.same_as == base.same_as):
            return ""
        (mine, my_spread), (its, its_spread) = spread(self.accuracies), spread(base.accuracies)
        both = None
        if my_spread is not None and its_spread is not None:
            both = (my_spread**2 + its_spread**2) ** 0.5
        return with_spread(mine - its, both, "{:+.2f}").replace("-", "−")

    def epochs(self):
        """Of each seed, to be as good as the base; once, if all are alike."""
        seen = [str(r.get("epochs_to_sync") or "never") for r in self.done]
        return ", ".join(seen[:1] if len(set(seen)) == 1 else seen) or "–"

    def text(self, base, is_best):
        if not self.rows:
            return "–"
        result = self.result()
        words = [f"**{result}**" if is_best else result, self.difference(base)]
        if self.same_as:
            words[0] += " ¹"
        if self.borrowed:
            words[0] += " ²"
        for count, what in ((self.diverged, "diverged"), (self.failed, "failed")):
            if count:
                words.append(f"**{count} of {len(self.rows)} {what}**")
        if self.missing:
            words.append(f"{self.missing} to run")
        return ", ".join(word for word in words if word)


def notes(grid, cells, table):
    lines = []
    if BASE in grid.methods and len(grid.methods) > 1:
        lines.append(f"Behind the comma: the difference to `{BASE}` at as many stages, ± the root "
                     "of the sum of both squared deviations.")
    if any(cell.score() is not None for cell in cells.values()):
        lines.append("Bold: the best mean of its column.")
    if "¹" in table:
        same = sorted({cell.same_as for cell in cells.values() if cell.same_as})
        lines.append("¹ At one stage nothing is late: the same computation as "
                     + " or ".join(f"`{name}`" for name in same) + ", run once.")
    if "²" in table:
        lines.append("² Run at another number of stages: what is synchronous has the same bits at any.")
    if grid.jobs > 1:
        lines.append(f"{grid.jobs} runs at a time shared this machine: accuracies do not depend on "
                     "it, but all times do, in results.csv and in the pictures over seconds.")
    return lines


def reasons(rows):
    """Of every run that went wrong; once, if it stands for several."""
    return [f"- {r['method']}, {stages_words(r['stages'])}, seed {r['seed']}: {r['reason']}"
            for r in rows if r.get("reason") and not r.get("same_as")]


def as_table(methods, stages, text):
    """Lines of a table whose cells are text(method, number of stages)."""
    lines = ["| method | " + " | ".join(map(stages_words, stages)) + " |",
             "|---" * (len(stages) + 1) + "|"]
    for method in methods:
        lines.append(f"| {method} | " + " | ".join(text(method, n) for n in stages) + " |")
    return lines


def find_cells(grid, rows, stages):
    cells = {(method, n): Cell([r for r in rows if r["method"] == method and r["stages"] == n])
             for method in grid.methods for n in stages}
    for n in stages:
        if BASE in grid.methods and not cells[BASE, n].rows:
            cells[BASE, n] = Cell(base_rows(rows, n), borrowed=True)
    return cells


def write(grid, rows, path):
    stages = sorted({row["stages"] for row in rows})
    cells = find_cells(grid, rows, stages)
    best = {n: max((cell.score() for (_, m), cell in cells.items()
                    if m == n and cell.score() is not None), default=None) for n in stages}

    def result(method, n):
        cell = cells[method, n]
        is_best = cell.score() is not None and cell.score() == best[n]
        return cell.text(cells.get((BASE, n)), is_best)

    lines = as_table(grid.methods, stages, result)
    head = [f"Test accuracy after the last epoch, mean ± standard deviation over seeds: "
            f"{grid.name}.", ""]
    for line in notes(grid, cells, "\n".join(lines)):
        lines += ["", line]
    if any(row.get("epochs_to_sync") for row in rows):
        lines += ["", f"Epochs until the test accuracy is at most {100 * NEAR:g} point below what "
                  f"`{BASE}` has in the end, of each seed:", ""]
        lines += as_table(grid.methods, stages, lambda method, n: cells[method, n].epochs())
    wrong = reasons(rows)
    if wrong:
        lines += ["", "Failed or diverged:", "", *wrong]
    path.write_text("\n".join(head + lines) + "\n", encoding="utf-8")
