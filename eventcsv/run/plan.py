"""What a run would do. Writes nothing."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from eventcsv.event import BLANKS, Kind

if TYPE_CHECKING:
    from collections.abc import Collection

    from eventcsv.log.interface import Log
    from eventcsv.run.choice import Choice
    from eventcsv.view.projection import Projection

_STARTED: Final = re.compile(rb'"kind":"%b","key":("(?:[^"\\]|\\.)*")' % Kind.STARTED.encode())


@dataclass(frozen=True, slots=True)
class Planned:
    """A PO that a run would work on.

    Attributes:
        key: The PO.
        status: Its STATUS now; "" for none yet.
        attempts: How often it was taken up so far.
        until: When its next attempt may begin, ISO 8601 in UTC; "" for at once.
    """

    key: str
    status: str
    attempts: int
    until: str


def plan(
    projection: Projection, log: Log, choice: Choice, done: Collection[str] | str, *, csv_path: str
) -> list[Planned]:
    """Return the POs that a run would work on, in its order.

    Args:
        projection: The CSV at the log's present end.
        log: The event log.
        choice: Which POs, and in which order.
        done: The STATUS words that count as done.
        csv_path: The CSV.

    Raises:
        ValueError: The choice cannot be meant.
    """
    choice.check(projection, done, source=csv_path)
    _, chosen = choice.of_pending(projection, done)
    attempts: Counter[str] = Counter()
    for chunk in log.read(log.first(), projection.end.position):
        attempts.update(orjson.loads(key).strip(BLANKS) for key in _STARTED.findall(chunk.lines))
    waits = {item.key: item.until for item in projection.in_flight}
    rows = chosen.select("key", "status").head(chosen.height if choice.limit is None else choice.limit).iter_rows()
    return [Planned(key, status, attempts[key], waits.get(key, "")) for key, status in rows]
