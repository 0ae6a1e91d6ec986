"""Pictures of a study: one panel for each number of stages, on the same scales, a curve a method."""

import math
import statistics

from study_grid import BASE, stages_words
from svg import Picture, number, short, ticks

WIDTH, LEFT, RIGHT = 960, 76, 230
TITLE, ABOVE, BELOW, LEAST = 40, 44, 56, 190  # of the picture; around and in each panel
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


class Panel:
    """Axes with curves; its key stands at the right, and makes it as tall as it must be."""

    def __init__(self, picture, top, heading, names, spans, height):
        (self.x_low, self.x_high), (self.y_low, self.y_high), whole = spans
        self.picture, self.top = picture, top + ABOVE
        self.right, self.bottom = WIDTH - RIGHT, top + ABOVE + height
        x_name, y_name = names
        span = self.x_high - self.x_low
        for tick in ticks(self.x_low, self.x_high, min(8, max(span, 1)) if whole else 8):
            picture.line(self.x(tick), self.top, self.x(tick), self.bottom, "grid")
            picture.text(self.x(tick), self.bottom + 18, short(tick), "muted middle")
        for tick in ticks(self.y_low, self.y_high, 6):
            picture.line(LEFT, self.y(tick), self.right, self.y(tick), "grid")
            picture.text(LEFT - 8, self.y(tick) + 4, short(tick), "muted left")
        picture.line(LEFT, self.top, LEFT, self.bottom, "axis")
        picture.line(LEFT, self.bottom, self.right, self.bottom, "axis")
        picture.text(LEFT, self.top - 12, f"{heading}: {y_name}", "text name")
        picture.text((LEFT + self.right) / 2, self.bottom + 40, x_name, "text middle")

    def x(self, value):
        return LEFT + (value - self.x_low) / ((self.x_high - self.x_low) or 1) * (self.right - LEFT)

    def y(self, value):
        span = (self.y_high - self.y_low) or 1
        return self.bottom - (value - self.y_low) / span * (self.bottom - self.top)

    def curve(self, points, kind):
        """A line through the means, and a band from the least to the greatest."""
        edge = [(x, high) for x, _, _, high in points]
        edge += [(x, low) for x, _, low, _ in reversed(points)]
        path = "L".join(f"{number(self.x(x))} {number(self.y(y))}" for x, y in edge)
        self.picture.add(f'<path class="band {kind}" d="M{path}Z"/>')
        self.picture.curve([(self.x(x), self.y(y)) for x, y, *_ in points], f"curve {kind}")

    def key(self, at, words, kind):
        y = self.top + 8 + KEY_LINE * at
        self.picture.line(self.right + 16, y, self.right + 44, y, f"curve {kind}")
        self.picture.text(self.right + 52, y + 4, words, "text")


def kind_of(grid, method):
    """How its curve looks, in every panel alike: colours first, then dashes too."""
    if method == BASE:
        return "base"
    at = [m for m in grid.methods if m != BASE].index(method)
    return f"s{at % COLOURS}{DASHES[at // COLOURS % len(DASHES)]}"


def base_stages(grid, found, n):
    """Where the method that others are compared with was run: there, or at the fewest."""
    known = {run.stages for run in found if run.method == BASE}
    return n if n in known else min(known, default=n)


def lines_of(grid, found, choose, n):
    """[(method, points)] of a panel."""
    lines = []
    for method in grid.methods:
        at = base_stages(grid, found, n) if method == BASE else n
        mine = [curves for run, curves in found.items() if (run.method, run.stages) == (method, at)]
        points = mean_curve([choose(curves) for curves in mine]) if mine else []
        if points:
            lines.append((method, points))
    return lines


def spans_of(panels):
    """What all panels share: the limits of both axes, and whether x counts something."""
    every = [p for _, lines in panels for _, points in lines for p in points]
    xs = [p[0] for p in every]
    return ((min(0, *xs), max(xs)), limits([y for p in every for y in p[1:]]),
            all(isinstance(x, int) for x in xs))


def draw_curves(grid, found, stages, choose, title, names, path):
    """`stages`: the numbers of stages that get a panel."""
    panels = [(n, lines_of(grid, found, choose, n)) for n in stages]
    panels = [(n, lines) for n, lines in panels if any(method != BASE for method, _ in lines)]
    path.unlink(missing_ok=True)
    if not panels:
        return
    heights = [max(LEAST, KEY_LINE * len(lines)) for _, lines in panels]
    whole = TITLE + sum(ABOVE + height + BELOW for height in heights)
    picture = Picture(WIDTH, whole, f"{grid.name}: {title}")
    picture.text(LEFT, 30, f"{grid.name}: {title}", "text title")
    top, spans = TITLE, spans_of(panels)
    for (n, lines), height in zip(panels, heights):
        panel = Panel(picture, top, stages_words(n), names, spans, height)
        for at, (method, points) in enumerate(lines):
            panel.curve(points, kind_of(grid, method))
            panel.key(at, method, kind_of(grid, method))
        top += ABOVE + height + BELOW
    picture.write(str(path))


def staleness(curves):
    return list(enumerate(curves["staleness"]))


def gap(curves):
    return [(stage, 100 * share) for stage, share in enumerate(curves["gap"]) if finite(share)]


def draw(grid, found, folder):
    """All of them, into the folder; one that nothing is known for is not there."""
    stages = sorted({run.stages for run in found})
    pictures = (
        ("accuracy-steps", accuracy, "step", "test accuracy", ("optimizer step", "%")),
        ("accuracy-time", accuracy, "train_s", "test accuracy", ("seconds of training", "%")),
        ("loss-steps", loss, "step", "training loss", ("optimizer step", "loss")),
        ("loss-time", loss, "train_s", "training loss", ("seconds of training", "loss")),
    )
    for name, choose, x, title, names in pictures:
        draw_curves(grid, found, stages, lambda c, f=choose, x=x: f(c, x), title, names,
                    folder / f"{name}.svg")
    late = {run: curves for run, curves in found.items() if run.stages > 1}
    draw_curves(grid, late, [n for n in stages if n > 1], staleness,
                "staleness of forwards, mean", ("stage", "updates"), folder / "staleness.svg")
    # At the most stages lateness tells most.
    draw_curves(grid, late, stages[-1:], gap, "what the weights of forwards were off, mean",
                ("stage", "% of the weights"), folder / "gap.svg")
