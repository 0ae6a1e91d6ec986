"""Pictures as self-contained SVG that suit light and dark pages: what tools/plot and tools/study
share. Needs nothing but Python's standard library."""

import math
import sys
from xml.sax.saxutils import escape


class BadInput(Exception):
    """What is wrong with the input, where, and what to do."""


# ---- SVG ---------------------------------------------------------------------------------------

# Each class is given once for light pages and once for dark ones. Boxes keep their colours: they
# are dark enough for the white numbers on them, and bright enough for either background.
STYLE = """
text { font-family: system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; font-size: 12px }
.page { fill: #ffffff } .text { fill: #24292f } .muted { fill: #57606a }
.title { font-size: 17px; font-weight: 600 } .name { font-size: 13px; font-weight: 600 }
.grid { stroke: #d8dee4; stroke-width: 1; fill: none } .axis { stroke: #57606a; fill: none }
.epoch { stroke: #afb8c1; stroke-dasharray: 2 4; fill: none }
.raw { stroke: #2f6fb3; stroke-width: 1; opacity: .28; fill: none }
.train { stroke: #2f6fb3; stroke-width: 2; stroke-linejoin: round; fill: none }
.test { stroke: #c2571a; stroke-width: 2; stroke-linejoin: round; fill: none }
.held-out { stroke: #2d8a57; stroke-width: 2; stroke-dasharray: 6 4; fill: none }
.test-dot { fill: #c2571a } .held-out-dot { fill: #2d8a57 } .track { fill: #f0f2f5 }
.F { fill: #2f6fb3 } .B { fill: #b8561b } .U { fill: #7a4fa8 } .wait { fill: #a3abb5 }
.odd { opacity: .8 } .on-box { fill: #ffffff; font-size: 11px; text-anchor: middle }
.left { text-anchor: end } .middle { text-anchor: middle }
.s0 { color: #2f6fb3 } .s1 { color: #c2571a } .s2 { color: #2d8a57 } .s3 { color: #7a4fa8 }
.s4 { color: #b03060 } .s5 { color: #6b7a1f } .s6 { color: #1f7f8c } .s7 { color: #8a5a2b }
.s8 { color: #4f5fc4 } .s9 { color: #b8860b } .s10 { color: #5c6670 } .s11 { color: #d6467c }
.curve { stroke: currentColor; stroke-width: 2; stroke-linejoin: round; fill: none }
.base { color: #24292f; stroke-width: 3 }
.band { fill: currentColor; opacity: .14; stroke: none } .key { fill: currentColor }
.dashed { stroke-dasharray: 6 4 } .dotted { stroke-dasharray: 2 3 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } .text { fill: #e6edf3 } .muted { fill: #9198a1 }
.grid { stroke: #272e37 } .axis { stroke: #9198a1 } .epoch { stroke: #4a525c }
.raw, .train { stroke: #62a6ec } .test { stroke: #f0883e } .test-dot { fill: #f0883e }
.held-out { stroke: #57c08a } .held-out-dot { fill: #57c08a }
.track { fill: #1c2129 } .wait { fill: #656e79 }
.s0 { color: #62a6ec } .s1 { color: #f0883e } .s2 { color: #57c08a } .s3 { color: #b48ae0 }
.s4 { color: #ef6f9c } .s5 { color: #b5c457 } .s6 { color: #4fc3d1 } .s7 { color: #d0a070 }
.s8 { color: #98a5f5 } .s9 { color: #e6c04d } .s10 { color: #a9b4bf } .s11 { color: #f7a1c4 }
.base { color: #e6edf3 }
}
"""


def number(value):
    """A coordinate: two decimals are a hundredth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


class Picture:
    def __init__(self, width, height, title):
        self.width, self.height = width, height
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img">',
            f"<title>{escape(title)}</title><style>{STYLE}</style>",
            f'<rect class="page" width="{width}" height="{height}"/>',
        ]

    def add(self, part):
        self.parts.append(part)

    def text(self, x, y, words, kind="text"):
        self.add(f'<text class="{kind}" x="{number(x)}" y="{number(y)}">{escape(words)}</text>')

    def rect(self, x, y, width, height, kind, hint=None, radius=0):
        head = f'<rect class="{kind}" x="{number(x)}" y="{number(y)}" width="{number(width)}" '
        head += f'height="{number(height)}"' + (f' rx="{radius}"' if radius else "")
        self.add(f"{head}><title>{escape(hint)}</title></rect>" if hint else head + "/>")

    def line(self, x1, y1, x2, y2, kind):
        self.add(f'<path class="{kind}" d="M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}"/>')

    def curve(self, points, kind):
        if len(points) > 1:
            path = "L".join(f"{number(x)} {number(y)}" for x, y in points)
            self.add(f'<path class="{kind}" d="M{path}"/>')

    def write(self, out):
        svg = "\n".join(self.parts + ["</svg>", ""])
        if out == "-":
            sys.stdout.write(svg)
            return
        try:
            with open(out, "w", encoding="utf-8") as file:
                file.write(svg)
        except OSError as error:
            raise BadInput(f"{out}: cannot write: {error.strerror}; choose another -o") from error
        print(f"wrote {out}")


def ticks(low, high, most):
    """Round numbers in [low, high], at most about `most` of them."""
    span = high - low
    if span <= 0:
        return [low]
    power = 10 ** math.floor(math.log10(span / most))
    step = next(power * k for k in (1, 2, 5, 10, 20) if span / (power * k) <= most)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value):
    """A number as a tick says it: 1,500, 0.25, 1e-05."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
