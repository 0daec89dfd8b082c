"""What a compaction or replay did, and what the CSV is after it, for whoever asked for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from eventcsv.event import LONGEST_CELL
from eventcsv.table.cells import cell_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventcsv.event import InFlight
    from eventcsv.log.types import Damage, Position
    from eventcsv.table.table import Table
    from eventcsv.view.backup import Backup
    from eventcsv.view.edits import Edit
    from eventcsv.view.projection import Projection
    from eventcsv.view.publisher import Published


@dataclass(frozen=True, slots=True)
class CompactResult:
    """What a compaction or replay did.

    Attributes:
        csv_path: The CSV.
        events: How many results were folded this time.
        rows: How many rows the CSV has.
        by_status: How many of them have which STATUS, the most frequent first; "" for none yet.
        changed: Whether the CSV was written; it is not touched when nothing is new.
        edited: Whether somebody had saved the CSV; what became of that is the new base, kept in `base`.
        stale: How many rows of what was saved were older than their results, which they kept.
        rebuilt: Why the whole log was replayed, or None when only what was new was folded.
        unknown: Keys that are in no row, with the number of their results folded this time. They stay in the log.
        late: Keys whose rows were added to the CSV after their results were recorded; those results are in it now.
        added_columns: Columns that the CSV lacked.
        over_long: Cells, as "key column", with more characters than a spreadsheet takes: it would cut them when it
            saves. Told when the CSV was written.
        damage: What is damaged in the part of the log that was read.
        torn: Lines that a crash had cut off. Normal after one: they were never acknowledged.
        in_flight: The POs that were taken up and have no result yet.
        position: How far the log is in the CSV.
        base: The backup made as the base of later replays, or None.
        kept: The backup of a CSV that a rebuild replaced, or None.
        duration_s: How long it took, in seconds.
        edit: What the save did that was taken over, or None.
        overtaken: What saves before it did, as the CSV was saved once more while they were taken over.
        notes: What else changed with the CSV when it was replaced, in words: rights that could not be kept, names
            that went stale.
    """

    csv_path: str
    events: int
    rows: int
    by_status: dict[str, int]
    changed: bool
    edited: bool
    stale: int
    rebuilt: str | None
    unknown: dict[str, int]
    late: tuple[str, ...]
    added_columns: tuple[str, ...]
    over_long: tuple[str, ...]
    damage: tuple[Damage, ...]
    torn: tuple[Damage, ...]
    in_flight: tuple[InFlight, ...]
    position: Position
    base: Backup | None
    kept: Backup | None
    duration_s: float
    edit: Edit | None = None
    overtaken: tuple[Edit, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def edits(self) -> tuple[Edit, ...]:
        """What all the saves did that were taken over, in their order."""
        return (*self.overtaken, *([self.edit] if self.edit else []))


def result_of(csv_path: str, projection: Projection, published: Published, edit: Edit | None) -> CompactResult:
    """Return what was done by projecting and publishing a CSV.

    Args:
        csv_path: The CSV.
        projection: What was published.
        published: What that took.
        edit: What the save did that was taken over, or None.
    """
    start, table = projection.start, projection.table
    return CompactResult(
        csv_path=csv_path,
        events=projection.events,
        rows=table.rows.height,
        by_status=_by_status(table),
        changed=published.changed,
        edited=edit is not None,
        stale=edit.stale if edit else 0,
        rebuilt=start.rebuilt,
        unknown=projection.unknown,
        late=tuple(sorted(projection.late)),
        added_columns=table.names[len((start.known or start).table.names) :] if not edit else (),
        over_long=tuple(_over_long(table)) if published.changed else (),
        damage=projection.damage,
        torn=projection.torn,
        in_flight=tuple(item for item in projection.in_flight if not item.waits),
        position=projection.end.position,
        base=published.base,
        kept=published.kept,
        duration_s=0.0,
        edit=edit,
        notes=published.notes,
    )


def _over_long(table: Table) -> Iterator[str]:
    longest_bytes = table.rows.select(pl.max_horizontal(pl.all().str.len_bytes().max())).item()
    if longest_bytes is None or longest_bytes <= LONGEST_CELL:  # as nearly always, and told at once
        return
    lengths = table.rows_as_text().select(pl.all().str.len_chars())
    for index, name in enumerate(table.names):
        if (lengths[:, index].max() or 0) > LONGEST_CELL:  # type: ignore[operator]  # a number, or None
            for row in (lengths[:, index] > LONGEST_CELL).arg_true():
                yield f"{table.keys()[row]} {name}"


def _by_status(table: Table) -> dict[str, int]:
    column = table.status_index()
    if column is None:
        return {"": table.rows.height}
    counts: Counter[str] = Counter()
    for raw, count in table.rows.get_column(str(column)).value_counts().iter_rows():
        counts[cell_text(raw)] += count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
