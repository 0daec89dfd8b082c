"""Results over time: how many came in each stretch of equal length, and what came of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from eventcsv.event import utc_text

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_BARS: Final = 60
_DAY_S: Final = 86_400
_WIDTHS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, _DAY_S)


class Category(StrEnum):
    """What a STATUS amounts to."""

    DONE = "done"
    OPEN = "open"
    FAILED = "failed"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Moment:
    """When a result came, and what it was."""

    at: datetime
    category: Category


@dataclass(frozen=True, slots=True)
class Timeline:
    """Results over time.

    Attributes:
        start: When the first bar begins, ISO 8601 in UTC.
        width_s: How long each bar is, in seconds.
        done: How many results in each bar were done.
        other: How many were neither done nor failures.
        failed: How many were failures.
    """

    start: str
    width_s: int
    done: tuple[int, ...]
    other: tuple[int, ...]
    failed: tuple[int, ...]


def timeline_of(moments: Sequence[Moment]) -> Timeline | None:
    """Return results over time in at most `MOST_BARS` bars of a round width; None when there are none."""
    if not moments:
        return None
    times = [moment.at.timestamp() for moment in moments]
    first, last = min(times), max(times)
    width_s = _width_s(first, last)
    start = int(first // width_s) * width_s
    bars = int((last - start) // width_s) + 1
    counts = {category: [0] * bars for category in (Category.DONE, Category.OPEN, Category.FAILED)}
    for time, moment in zip(times, moments, strict=True):
        counts[moment.category][int((time - start) // width_s)] += 1
    began = utc_text(datetime.fromtimestamp(start, UTC), timespec="seconds")
    return Timeline(began, width_s, *map(tuple, counts.values()))


def _width_s(first: float, last: float) -> int:
    for width_s in _WIDTHS_S:
        if last // width_s - first // width_s < MOST_BARS:
            return width_s
    days = int((last - first) // _DAY_S // (MOST_BARS - 1)) + 1
    return days * _DAY_S
