"""Builds the tables and plots of benchmarks/README.md from the JSON of one run; no figure comes from elsewhere.

python benchmarks/page.py benchmarks/results.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import folding
import growth
from measuring import Figures, Name, Spread
from plot import log_log, seconds_text
from scales import Scale, Size
from targets import targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BEGIN: Final = "<!-- figures: made by page.py, do not edit -->"
END: Final = "<!-- end of figures -->"
_AXES: Final = {growth.BY_EVENTS: "growth-events.svg", growth.BY_ROWS: "growth-rows.svg"}
_OPERATIONS: Final = (growth.EMIT, growth.COMPACT, growth.REPLAY, growth.RESUME)


def _scale(record: dict[str, Any]) -> Scale:
    sizes = {
        "long_log": Size(**record["long_log"]),
        "live": tuple(Size(**size) for size in record["live"]),
        "replays": tuple(Size(**size) for size in record["replays"]),
        "growth_events": tuple(record["growth_events"]),
        "growth_rows": tuple(record["growth_rows"]),
    }
    return Scale(**{**record, **sizes})


def build(report: dict[str, Any], folder: Path) -> str:
    """Write the plots to a folder, the tables into its README.md, and return the tables.

    Args:
        report: What `bench.py` wrote as JSON.
        folder: Where README.md is; it is made when there is none.
    """
    figures, scale = Figures.from_json(report["figures"]), _scale(report["scale"])
    for axis, name in _AXES.items():
        lines = _grown(figures, scale, axis)
        if lines:
            (folder / name).write_text(log_log(f"Cost by {axis}", axis, "time", lines))
    if replayed := _replayed(figures, scale):
        title = "A full replay, and the same fold by others"
        (folder / "replay.svg").write_text(log_log(title, "events in the log", "time", replayed))
    text = "\n".join(_page(report, figures, scale))
    readme = folder / "README.md"
    page = readme.read_text() if readme.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}")
    return text


def _page(report: dict[str, Any], figures: Figures, scale: Scale) -> Iterator[str]:
    machine = "; ".join(f"{what} {text}" for what, text in report["machine"].items())
    yield f"Scale `{scale.name}`, {report['took_s']:.0f} s. {machine}."
    yield ""
    yield from _instead(figures, scale)
    yield from _targets(figures, scale)
    yield from _figures(figures)
    yield from _growth(figures, scale)


# --- what people would use in place of eventcsv ------------------------------------------------------------------


def _instead(figures: Figures, scale: Scale) -> Iterator[str]:
    yield "| what | eventcsv | instead | | ratio |"
    yield "|---|---|---|---|---|"
    for target in targets(scale):
        if not (target.instead and target.against and all(name in figures.rounds for name in target.names())):
            continue
        unit = figures.units[target.figure]
        ours, theirs = (_value(figures.spread(name).median, unit) for name in (target.figure, target.against))
        ratio = _spread(target.result(figures), "x")
        yield f"| {target.figure.what} | {ours} | {target.against.who} | {theirs} | {ratio} |"
    yield ""
    yield "Rates: more is better; times: less is. What was to be reached, and whether it was:"
    yield ""


# --- the targets -------------------------------------------------------------------------------------------------


def _targets(figures: Figures, scale: Scale) -> Iterator[str]:
    yield "| what | target | measured: median (min to max) | |"
    yield "|---|---|---|---|"
    for target in targets(scale):
        ours = Name(*target.figure)
        unit = "x" if target.against else figures.units.get(ours, "")
        limit = f"{target.sense} {_value(target.limit, unit)}".replace("<=", "&le;").replace(">=", "&ge;")
        if not all(name in figures.rounds for name in target.names()):
            yield f"| {target.text} | {limit} | not measured in this run | |"
            continue
        result = target.result(figures)
        verdict = "met" if target.is_met(result) else "**MISSED**"
        yield f"| {target.text} | {limit} | {_spread(result, unit)} | {verdict} |"
    yield ""


def _value(value: float, unit: str) -> str:
    if unit == "s":
        return seconds_text(value)
    digits = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{digits}{unit}" if unit in {"x", "%", "/s", ""} else f"{digits} {unit}"


def _spread(result: Spread, unit: str) -> str:
    if result.least == result.most:
        return _value(result.median, unit)
    return f"{_value(result.median, unit)} ({_value(result.least, unit)} to {_value(result.most, unit)})"


# --- all figures -------------------------------------------------------------------------------------------------


def _figures(figures: Figures) -> Iterator[str]:
    """Yield a table for each thing measured: the contestants below each other, the metrics side by side."""
    names = [name for name in figures.rounds if not name.what.startswith("growth")]
    for what in dict.fromkeys(name.what for name in names):
        metrics = list(dict.fromkeys(name.metric for name in names if name.what == what))
        yield f"**{what}**"
        yield ""
        yield f"| | {' | '.join(metrics)} |"
        yield f"|---|{'---|' * len(metrics)}"
        for who in dict.fromkeys(name.who for name in names if name.what == what):
            cells = [Name(what, who, metric) for metric in metrics]
            shown = [
                _spread(figures.spread(name), figures.units[name]) if name in figures.rounds else "" for name in cells
            ]
            yield f"| {who} | {' | '.join(shown)} |"
        yield ""


# --- growth ------------------------------------------------------------------------------------------------------


def _series(figures: Figures, sizes: tuple[int, ...], name: Callable[[int], Name]) -> list[tuple[float, float]]:
    """Return the medians of one line of a plot, by size."""
    return [(size, figures.spread(name(size)).median) for size in sizes if name(size) in figures.rounds]


def _grown(figures: Figures, scale: Scale, axis: str) -> dict[str, list[tuple[float, float]]]:
    sizes = scale.growth_events if axis == growth.BY_EVENTS else scale.growth_rows
    found = {
        operation: _series(figures, sizes, lambda size, who=operation: Name(growth.what(axis, size), who))  # type: ignore[misc]
        for operation in _OPERATIONS
    }
    return {operation: line for operation, line in found.items() if len(line) > 1}


def _replayed(figures: Figures, scale: Scale) -> dict[str, list[tuple[float, float]]]:
    def line(who: str) -> list[tuple[float, float]]:
        sizes = {size.events: size for size in scale.replays}
        return _series(figures, tuple(sizes), lambda events: Name(folding.what(sizes[events]), who))

    found = {who: line(who) for who in (folding.OURS, folding.DUCKDB, folding.PYTHON, folding.FLOOR)}
    return {who: points for who, points in found.items() if len(points) > 1}


def _growth(figures: Figures, scale: Scale) -> Iterator[str]:
    if _replayed(figures, scale):
        yield "![A full replay](replay.svg)"
        yield ""
    for axis, name in _AXES.items():
        lines = _grown(figures, scale, axis)
        if not lines:
            continue
        fixed = f"{scale.rows:,} {growth.BY_ROWS if axis == growth.BY_EVENTS else growth.BY_EVENTS}"
        sizes = [f"{int(size):,}" for size, _ in next(iter(lines.values()))]
        yield f"**How cost grows with {axis}** ({fixed}; medians). Slope of the line that fits best in log-log:"
        yield "0 is constant, 1 is linear; the last column is between the two biggest sizes alone."
        yield ""
        yield f"| | {' | '.join(sizes)} | slope | last step |"
        yield f"|---|{'---|' * (len(sizes) + 2)}"
        for operation, points in lines.items():
            shown = " | ".join(seconds_text(seconds) for _, seconds in points)
            yield f"| {operation} | {shown} | {growth.slope(points):.2f} | {growth.slope(points[-2:]):.2f} |"
        yield ""
        yield f"![Cost by {axis}]({name})"
        yield ""


def main() -> None:
    """Build the page anew from a run's JSON, next to it."""
    source = Path(sys.argv[1])
    print(build(json.loads(source.read_text()), source.parent))


if __name__ == "__main__":
    main()
