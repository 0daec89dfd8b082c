"""How cost grows: emit, compact, replay and resume, by the length of the log and by the rows of the CSV."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Final

from emit import median_emit_s
from fixtures import emit, keys, make
from folding import OURS, folded
from measuring import Bench, Name, in_turn, timed_s
from processes import resume_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures import Fixture

BY_EVENTS: Final = "events in the log"
BY_ROWS: Final = "rows in the CSV"
EMIT: Final = "emit_result(), p50"
COMPACT: Final = "compact()"
REPLAY: Final = "replay()"
RESUME: Final = "eventcsv status"


def what(axis: str, size: int) -> str:
    """Return the name of one measurement."""
    return f"growth, {size:,} {axis}"


def _emitted_s(fixture: Fixture, bench: Bench) -> float:
    fixture.reset("folded")
    with fixture.job() as job:
        return median_emit_s(job, fixture.rows, bench.scale.emits)


def _compacted_s(fixture: Fixture, bench: Bench) -> float:
    """Return how long it takes to fold some new results with the table resident, in seconds."""
    fixture.reset("folded")
    known = keys(fixture.rows)
    with fixture.job() as job:
        for first in (0, bench.scale.new_events):  # the first compaction of a process loads the table
            for number in range(first, first + bench.scale.new_events):
                emit(job, known[number % fixture.rows], number)
            took_s = timed_s(job.compact)
    return took_s


def measure(bench: Bench) -> None:
    """Measure every operation at every size of both axes."""
    scale = bench.scale
    axes = [(BY_EVENTS, size, size, scale.rows) for size in scale.growth_events]
    axes += [(BY_ROWS, size, scale.rows, size) for size in scale.growth_rows]
    operations: dict[str, Callable[[Fixture], float]] = {
        EMIT: lambda fixture: _emitted_s(fixture, bench),
        COMPACT: lambda fixture: _compacted_s(fixture, bench),
        REPLAY: lambda fixture: folded(OURS, fixture)[0],
    }
    for axis, size, events, rows in axes:
        bench.tell(f"{what(axis, size)}: making the log")
        fixture = make(bench.directory / "growth", events, rows)
        fixture.fold()
        for number in bench.rounds(scale.growth_rounds, what(axis, size)):
            for operation in in_turn(list(operations), number):
                bench.figures.add(Name(what(axis, size), operation), operations[operation](fixture))
            fixture.reset("folded")
            bench.figures.add(Name(what(axis, size), RESUME), resume_s(fixture, "status"))
        fixture.remove()


def slope(points: list[tuple[float, float]]) -> float:
    """Return the slope of the line that fits some points best, both axes logarithmic: 0 constant, 1 linear."""
    xs, ys = ([math.log10(point[axis]) for point in points] for axis in (0, 1))
    return statistics.linear_regression(xs, ys).slope
