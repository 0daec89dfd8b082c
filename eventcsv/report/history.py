"""What the log tells of each PO, of each segment and of each kind of failure: one pass over its events. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final

from eventcsv.event import BLANKS, COLUMNS, REASON, Event, Kind, column_id, is_failure, moment_of
from eventcsv.report.grouping import pattern_of
from eventcsv.report.timeline import Category, Moment
from eventcsv.table.fold import FORMULA_STARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

KEPT_EVENTS: Final = 50
KINDS: Final = (Kind.STARTED, Kind.RESULT, Kind.EDIT, Kind.DEFERRED)
"""What the history of a PO consists of."""

_MESSAGE: Final = column_id(COLUMNS["error_message"])
_moment = cache(moment_of)
_FORMULAS: Final = tuple(f"'{start}" for start in FORMULA_STARTS)


@dataclass(slots=True)
class PoHistory:
    """What the log has told of one PO so far."""

    started: int = 0
    results: int = 0
    unannounced: int = 0
    interrupted: int = 0
    edits: int = 0
    deferred: int = 0
    took_s: float | None = None
    begun: tuple[datetime | None, int] | None = None
    patterns: dict[str, None] = field(default_factory=dict)
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))


@dataclass(slots=True)
class SegmentHistory:
    """What the log has told of one segment so far."""

    moments: list[Moment] = field(default_factory=list)
    writers: set[str] = field(default_factory=set)
    first_at: str = ""
    last_at: str = ""
    interrupted: int = 0
    stopped: str = ""


@dataclass(slots=True)
class Group:
    """What the log has told of one kind of failure so far."""

    example: str = ""
    times: int = 0
    pos: set[str] = field(default_factory=set)
    open: int = 0
    first_at: str = ""
    last_at: str = ""


class History:
    """Everything that the log tells, event by event."""

    def __init__(
        self, done: Collection[str], shown: Callable[[str], str], status_column: str = COLUMNS["status"]
    ) -> None:
        self.pos: dict[str, PoHistory] = {}
        self.segments: dict[int, SegmentHistory] = {}
        self.groups: dict[str, Group] = {}
        self._done = done
        self._status = column_id(status_column)
        self._shown = shown
        self._ids: set[str] = set()

    def add(self, segment: int, event: Event) -> None:
        """Take note of one event; one that a retry appended again counts once."""
        if event.kind == Kind.STOPPED and segment in self.segments:
            self.segments[segment].stopped = self._shown(event.cells.get(REASON, ""))
        if event.kind not in KINDS or event.id in self._ids:
            return
        self._ids.add(event.id)
        key = event.key.strip(BLANKS)
        po = self.pos.setdefault(key, PoHistory())
        po.events.append(event)
        if event.kind == Kind.EDIT:
            po.edits += 1
            return
        past = self.segments.setdefault(segment, SegmentHistory())
        past.first_at = past.first_at or event.ts
        past.last_at = event.ts
        moment = _moment(event.ts)
        if event.kind == Kind.STARTED:
            self._start(po, moment, segment)
            past.stopped = ""
        elif event.kind == Kind.DEFERRED:
            po.deferred += 1
            po.begun = None
        else:
            past.writers.add(event.id.rpartition("-")[0])
            self._end(key, po, event, past, moment)

    def _start(self, po: PoHistory, moment: datetime | None, segment: int) -> None:
        self._break_off(po)
        po.started += 1
        po.begun = (moment, segment)

    def _break_off(self, po: PoHistory) -> None:
        """Count an attempt that will have no result."""
        if po.begun:
            po.interrupted += 1
            self.segments[po.begun[1]].interrupted += 1
            po.begun = None

    def _end(self, key: str, po: PoHistory, event: Event, past: SegmentHistory, moment: datetime | None) -> None:
        po.results += 1
        if po.begun:
            took_s = (moment - po.begun[0]).total_seconds() if moment and po.begun[0] else -1.0
            if took_s >= 0:  # a clock that was set back tells nothing
                po.took_s = max(took_s, po.took_s or 0.0)
            po.begun = None
        else:
            po.unannounced += 1
        cells = {column_id(name): text for name, text in event.cells.items()}
        category = category_of_result(cells.get(self._status, ""), cells.get(_MESSAGE, ""), self._done)
        if category is Category.FAILED:
            group = self.group(key, cells.get(_MESSAGE, ""))
            group.times += 1
            group.first_at = group.first_at or event.ts
            group.last_at = event.ts
        if moment:
            past.moments.append(Moment(moment, category))

    def group(self, key: str, message: str) -> Group:
        """Put a PO into the group of a message."""
        example = self._shown(message[1:] if message.startswith(_FORMULAS) else message)  # as it was before the fold
        pattern = pattern_of(example, key)
        self.pos.setdefault(key, PoHistory()).patterns[pattern] = None
        group = self.groups.setdefault(pattern, Group())
        group.example = example
        group.pos.add(key)
        return group

    def finish(self, *, at_work: bool) -> None:
        """Count what is in flight as interrupted, unless somebody is at work on it."""
        for po in self.pos.values():
            if not at_work:
                self._break_off(po)


def category_of_result(status: str, message: str, done: Collection[str]) -> Category:
    """Return what a result amounts to, by the STATUS words that count as done."""
    if status.strip(BLANKS).upper() in done:
        return Category.DONE
    return Category.FAILED if is_failure(status, message) else Category.OPEN
