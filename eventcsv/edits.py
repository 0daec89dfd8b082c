"""How much of the log an edited CSV has seen.

Whoever saves the CSV saves what their editor loaded, perhaps hours ago, and editors do not reload. The results recorded
since are in the log but not in the saved version, and taking them for "changed by the operator" would lose them. So the
saved version is searched for results: the last event that shows in it tells when it was loaded, and what came later is
folded onto it. An event before that which does not show was changed on purpose, and stays as it was changed.

An event shows when a cell has its text, and had that text from no earlier event and not from the beginning.
LAST_PROCESSED makes nearly every event unmistakable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventcsv.event import BLANKS, Kind, column_id
from eventcsv.fold import guarded, unguarded_id
from eventcsv.scan import Position, placed_events

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventcsv.scan import Chunk
    from eventcsv.view import Table

    Cells = dict[tuple[str, str], set[str]]


@dataclass(frozen=True, slots=True)
class Seen:
    """How much of the log an edited CSV has seen.

    Attributes:
        position: After the last event that shows in it, or None when none does.
        unseen: How many results for its rows come later and do not show.
        keys: The keys of which an event shows.
    """

    position: Position | None
    unseen: int
    keys: frozenset[str]


def seen(edited: Table, first: Table, chunks: Iterable[Chunk], *, guard_formulas: bool) -> Seen:
    """Search an edited CSV for the events of the log.

    Args:
        edited: The CSV as it was saved.
        first: The CSV as it was before any event.
        chunks: The log.
        guard_formulas: Whether texts became cells with an apostrophe before what looks like a formula.
    """
    shown, before = _cells(edited), _cells(first)
    keys = set(edited.keys())
    met: set[tuple[str, str]] = set()
    position, unseen = None, 0
    seen_keys: set[str] = set()
    for chunk in chunks:
        for end_bytes, event in placed_events(chunk):
            key = event.key.strip(BLANKS)
            if event.kind != Kind.RESULT or key not in keys:
                continue
            shows = [
                cell
                for column, text in event.cells.items()
                if (guarded(text) if guard_formulas else text) in shown.get(cell := (key, unguarded_id(column)), ())
            ]
            unseen += len(shows) < len(event.cells)
            for cell in shows:
                if cell not in met:
                    met.add(cell)
                    if shown[cell].isdisjoint(before.get(cell, {""})):
                        position, unseen = Position(chunk.number, end_bytes), 0
                        seen_keys.add(key)
    return Seen(position, unseen, frozenset(seen_keys))


def _cells(table: Table) -> Cells:
    """Return the texts of each cell, by key and column; of several when a key is on several rows."""
    cells: Cells = {}
    keys = table.keys().to_list()
    for index, name in enumerate(table.names):
        if index != table.key and column_id(name):
            for key, text in zip(keys, table.texts(index), strict=True):
                cells.setdefault((key, unguarded_id(name)), set()).add(text)
    return cells
