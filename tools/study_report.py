"""What a study found: a table, a CSV file and pictures, of the runs that are there."""

import math
import statistics

import study_table
from study_grid import stages_words
from study_results import read_all, write_csv
from svg import Picture, number, short, ticks

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 420, 76, 250, 76, 60
KEY_LINE = 19
COLOURS = 12
DASHES = ("", " dashed", " dotted")


def finite(value):
    return isinstance(value, (int, float)) and math.isfinite(value)


def mean_x(xs):
    """Steps are the same in all runs and stay whole numbers; times are not."""
    return xs[0] if len(set(xs)) == 1 else statistics.fmean(xs)


def mean_curve(curves):
    """[(x, mean, least, greatest)] where all runs have a point of the same place in the list."""
    points = []
    for same in zip(*curves):
        if all(finite(y) for _, y in same):
            ys = [y for _, y in same]
            points.append((mean_x([x for x, _ in same]), statistics.fmean(ys), min(ys),
                           max(ys)))
    return points


def accuracy(curves, x):
    return [(r[x], 100 * r["test_accuracy"]) for r in curves["evals"]
            if finite(r["test_accuracy"])]


def loss(curves, x):
    """Training loss, averaged between evaluations, whose time is known."""
    points, last = [], 0
    for record in curves["evals"]:
        mine = [s["loss"] for s in curves["steps"] if last < s["step"] <= record["step"]]
        last = record["step"]
        if mine and all(finite(y) for y in mine):
            points.append((record[x], statistics.fmean(mine)))
    return points


def limits(values):
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


class Axes:
    def __init__(self, title, x_name, y_name, xs, ys, keys):
        self.x_low, self.x_high = min(0, *xs), max(xs)
        self.y_low, self.y_high = limits(ys)
        self.right, self.bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        self.picture = Picture(WIDTH, max(HEIGHT, TOP + KEY_LINE * (keys + 1)), title)
        self.picture.text(LEFT, 30, title, "text title")
        whole = all(isinstance(x, int) for x in xs)  # steps or stages: no tick between two
        span = self.x_high - self.x_low
        for tick in ticks(self.x_low, self.x_high, min(8, max(span, 1)) if whole else 8):
            self.picture.line(self.x(tick), TOP, self.x(tick), self.bottom, "grid")
            self.picture.text(self.x(tick), self.bottom + 18, short(tick), "muted middle")
        for tick in ticks(self.y_low, self.y_high, 6):
            self.picture.line(LEFT, self.y(tick), self.right, self.y(tick), "grid")
            self.picture.text(LEFT - 8, self.y(tick) + 4, short(tick), "muted left")
        self.picture.line(LEFT, TOP, LEFT, self.bottom, "axis")
        self.picture.line(LEFT, self.bottom, self.right, self.bottom, "axis")
        self.picture.text(LEFT, TOP - 12, y_name, "text name")
        self.picture.text((LEFT + self.right) / 2, self.bottom + 42, x_name, "text middle")

    def x(self, value):
        return LEFT + (value - self.x_low) / ((self.x_high - self.x_low) or 1) * (self.right - LEFT)

    def y(self, value):
        span = (self.y_high - self.y_low) or 1
        return self.bottom - (value - self.y_low) / span * (self.bottom - TOP)

    def curve(self, points, kind, dash):
        """A line through the means, and a band from the least to the greatest."""
        edge = [(x, high) for x, _, _, high in points]
        edge += [(x, low) for x, _, low, _ in reversed(points)]
        path = "L".join(f"{number(self.x(x))} {number(self.y(y))}" for x, y in edge)
        self.picture.add(f'<path class="band {kind}" d="M{path}Z"/>')
        self.picture.curve([(self.x(x), self.y(y)) for x, y, *_ in points], f"curve {kind}{dash}")

    def key(self, at, words, kind, dash):
        y = TOP + 8 + KEY_LINE * at
        self.picture.line(self.right + 16, y, self.right + 44, y, f"curve {kind}{dash}")
        self.picture.text(self.right + 52, y + 4, words, "text")


def draw_curves(grid, found, choose, title, names, path):
    """One curve a method and number of stages: a colour each method, a dash each number."""
    stages = sorted({run.stages for run in found})
    lines = []
    for m, method in enumerate(grid.methods):
        for n in stages:
            mine = [curves for run, curves in found.items()
                    if run.method == method and run.stages == n]
            points = mean_curve([choose(curves) for curves in mine]) if mine else []
            if points:
                dash = DASHES[stages.index(n) % len(DASHES)]
                lines.append((f"{method}, {stages_words(n)}", f"s{m % COLOURS}", dash, points))
    path.unlink(missing_ok=True)
    if not lines:
        return
    every = [p for *_, points in lines for p in points]
    axes = Axes(f"{grid.name}: {title}", *names, [p[0] for p in every],
                [y for p in every for y in p[1:]], len(lines))
    for at, (words, kind, dash, points) in enumerate(lines):
        axes.curve(points, kind, dash)
        axes.key(at, words, kind, dash)
    axes.picture.write(str(path))


def staleness(curves):
    return list(enumerate(curves["staleness"]))


def gap(curves):
    return [(stage, 100 * share) for stage, share in enumerate(curves["gap"]) if finite(share)]


def of_most_stages(found):
    """Where lateness tells most."""
    most = max((run.stages for run in found), default=0)
    return {run: curves for run, curves in found.items() if run.stages == most}


def write(grid, folder, states):
    """Everything, into the study's folder."""
    rows, found = read_all(grid, folder, states)
    folder.mkdir(parents=True, exist_ok=True)
    study_table.write(grid, rows, folder / "table.md")
    write_csv(rows, folder / "results.csv")
    pictures = (
        ("accuracy-steps", accuracy, "step", "test accuracy", ("optimizer step", "%")),
        ("accuracy-time", accuracy, "train_s", "test accuracy", ("seconds of training", "%")),
        ("loss-steps", loss, "step", "training loss", ("optimizer step", "loss")),
        ("loss-time", loss, "train_s", "training loss", ("seconds of training", "loss")),
    )
    for name, choose, x, title, names in pictures:
        draw_curves(grid, found, lambda c, f=choose, x=x: f(c, x), title, names,
                    folder / f"{name}.svg")
    draw_curves(grid, {r: c for r, c in found.items() if r.stages > 1}, staleness,
                "staleness of forwards, mean", ("stage", "updates"), folder / "staleness.svg")
    draw_curves(grid, of_most_stages(found), gap, "what the weights of forwards were off, mean",
                ("stage", "% of the weights"), folder / "gap.svg")
    print((folder / "table.md").read_text(encoding="utf-8"), end="")
