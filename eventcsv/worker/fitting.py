"""As much of a result as a line of the log has room for, where it cannot hold all of it as it was given. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import orjson

from eventcsv.errors import InvalidEvent
from eventcsv.log.line import MAX_LINE_BYTES, line_of
from eventcsv.worker.values import Note, cut_mark, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventcsv.event import Event

_SHORTEST_CUT: Final = 64


def fitted(event: Event, notes: list[Note]) -> Event:
    """Return an event that can be a line of the log for one that cannot.

    Args:
        event: The event.
        notes: Takes what was done to it.

    Raises:
        InvalidEvent: Two of its columns would have the same name then.
    """
    cells = {writable(name, name, notes): writable(text, name, notes) for name, text in event.cells.items()}
    _refuse_merged(event.cells, cells)
    event = replace(event, cells=cells)
    while (line_bytes := len(line_of(event))) > MAX_LINE_BYTES:
        texts = [event.key, *event.cells, *event.cells.values()]
        sizes = [_size_bytes(text) for text in texts]
        longest_bytes = _level(sizes, MAX_LINE_BYTES - (line_bytes - sum(sizes)))
        if longest_bytes < _SHORTEST_CUT:  # there are too many for one line
            kept = list(event.cells.items())[: len(event.cells) // 2]
            notes.append(Note(kept[-1][0], f"the {len(event.cells) - len(kept):,} columns after it had no place left"))
            event = replace(event, cells=dict(kept))
        else:
            event = _cut_event(event, longest_bytes, notes)
    return event


def writable(text: str, column: str, notes: list[Note]) -> str:
    """Return a text as UTF-8 can hold it."""
    fitting = plain(text)
    if fitting != text:
        notes.append(
            Note(plain(column), r"a lone surrogate, which UTF-8 cannot hold, was written as \udcff or the like")
        )
    return fitting


def _refuse_merged(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    if len(after) < len(before):
        raise InvalidEvent("columns", "the same column is given twice, as the names look once they fit into the log")


def _level(sizes: list[int], budget_bytes: int) -> int:
    """Return how long the longest may be, so that all of them fit together."""
    ordered = sorted(sizes)
    for index, size in enumerate(ordered):
        share = budget_bytes // (len(ordered) - index)
        if size > share:
            return share
        budget_bytes -= size
    return ordered[-1]


def _cut_event(event: Event, longest_bytes: int, notes: list[Note]) -> Event:
    def shortened(text: str, column: str) -> str:
        if _size_bytes(text) <= longest_bytes:
            return text
        fitting = _cut_to(text, longest_bytes)
        notes.append(Note(column, f"{len(text):,} characters were cut, as a line of the log holds 1 MiB"))
        return fitting

    names = {name: shortened(name, f"{name[:_SHORTEST_CUT]}...") for name in event.cells}
    cells = {names[name]: shortened(text, names[name]) for name, text in event.cells.items()}
    _refuse_merged(event.cells, cells)
    return replace(event, key=shortened(event.key, "the key"), cells=cells)


def _cut_to(text: str, longest_bytes: int) -> str:
    mark = cut_mark(len(text))
    least, most = 0, len(text)
    while least < most:
        middle = (least + most + 1) // 2
        if _size_bytes(text[:middle] + mark) <= longest_bytes:
            least = middle
        else:
            most = middle - 1
    return text[:least] + mark


def _size_bytes(text: str) -> int:
    return len(orjson.dumps(text))
