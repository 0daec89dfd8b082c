"""Lines on two logarithmic axes, as SVG that reads in a light and in a dark page."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Points = Sequence[tuple[float, float]]

WIDTH: Final = 760
HEIGHT: Final = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 210, 40, 50
_LABEL_PX: Final = 15
_COLOURS: Final = ("#3b78c4", "#c8581b", "#2f8f5b", "#8a5bc0", "#b0487c")  # each readable on white and on near-black
_STYLE: Final = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; }
  .grid { stroke: #d0d7de; }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .grid { stroke: #3d444d; } }
"""


def seconds_text(seconds: float) -> str:
    """Return a time with the unit that suits it."""
    if seconds >= 100:
        return f"{seconds:,.0f} s"
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 0.9995:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def log_log(title: str, x_label: str, y_label: str, lines: Mapping[str, Points]) -> str:
    """Return a plot with a label at the end of each line; the y axis is a time in seconds."""
    points = [point for line in lines.values() for point in line]
    x_range, y_range = (_decades([point[axis] for point in points]) for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (math.log10(x) - x_range[0]) / (x_range[1] - x_range[0]) * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - (math.log10(y) - y_range[0]) / (y_range[1] - y_range[0]) * (HEIGHT - _TOP - _BOTTOM),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        f'  role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="{_LEFT}" y="20">{escape(title)}</text>',
        f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text x="{_LEFT - 60}" y="{_TOP - 8}">{escape(y_label)}</text>',
    ]
    for exponent in range(x_range[0], x_range[1] + 1):
        x, bottom = place(10.0**exponent, 10.0 ** y_range[0])
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom:.1f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{10**exponent:,}</text>')
    for exponent in range(y_range[0], y_range[1] + 1):
        x, y = place(10.0 ** x_range[0], 10.0**exponent)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{seconds_text(10.0**exponent)}</text>')
    placed = {label: [place(*point) for point in line] for label, line in lines.items()}
    parts += _drawn(placed)
    return "\n".join([*parts, "</svg>", ""])


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _drawn(placed: Mapping[str, Points]) -> Iterator[str]:
    """Yield the lines, and their labels far enough apart to be read."""
    last_y = -math.inf
    label_y: dict[str, float] = {}
    for label in sorted(placed, key=lambda label: placed[label][-1][1]):
        last_y = label_y[label] = max(placed[label][-1][1] + 4, last_y + _LABEL_PX)
    for (label, line), colour in zip(placed.items(), _COLOURS, strict=False):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for x, y in line:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
        end_x = line[-1][0] + 10
        yield f'<text x="{end_x:.1f}" y="{label_y[label]:.1f}" style="fill:{colour}">{escape(label)}</text>'
