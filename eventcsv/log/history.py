"""The events of one key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from eventcsv.event import BLANKS
from eventcsv.log.scan import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventcsv.event import Event
    from eventcsv.log.interface import Log
    from eventcsv.log.types import Damage, Position


def history(
    log: Log, key: str, *, since: Position | None = None, on_damage: Callable[[Damage], object] | None = None
) -> Iterator[Event]:
    """Yield the events of a key in the order of the log, one that was appended twice by a retry only once.

    Args:
        log: The log.
        key: The key, blanks at its ends aside.
        since: The place in the log to begin at; by default its first.
        on_damage: Called with each damaged stretch of the log, which may have been about this key.

    Raises:
        UnsupportedFormat: The log was made by a newer eventcsv.
    """
    wanted = key.strip(BLANKS)
    needle = orjson.dumps(wanted)[1:-1]
    seen: set[str] = set()
    for chunk in log.read(since or log.first(), log.end().position):
        if on_damage:
            for damage in chunk.damage:
                on_damage(damage)
        if needle not in chunk.lines:
            continue
        for event in events(chunk)[0]:
            if event.key.strip(BLANKS) == wanted and event.id not in seen:
                seen.add(event.id)
                yield event
