"""How a saved CSV differs from the present one: which row and which column of the one is which of the other. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from eventcsv.event import column_id
from eventcsv.table.fold import unguarded_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventcsv.table.table import Table


@dataclass(frozen=True)
class Difference:
    """How a saved CSV differs from the present one.

    Attributes:
        saved: The saved CSV.
        current: The present one.
        rows: The rows of `saved`: their number as `row`, their `key`, their place among the rows of that key as `nth`,
            and the number of the row of `current` that each one is as `twin`; null when it is new.
        gone: The rows of `current` that `saved` lacks, with `row`, `key` and `nth`.
        twins: For each column of `saved` the column of `current` that it is, or None.
        differs: Which rows of `saved` are new or have a cell that differs.
    """

    saved: Table
    current: Table
    rows: pl.DataFrame
    gone: pl.DataFrame
    twins: tuple[int | None, ...]
    differs: pl.Series

    def keys(self) -> list[str]:
        """Return the keys of the rows that differ."""
        return self.rows.filter(self.differs).get_column("key").unique(maintain_order=True).to_list()

    def new_keys(self) -> list[str]:
        """Return the keys of the rows that are new."""
        return self.rows.filter(pl.col("twin").is_null()).get_column("key").to_list()

    def lost_columns(self) -> list[int]:
        """Return the columns of `current` that `saved` lacks."""
        return [index for index in range(len(self.current.names)) if index not in self.twins]


def difference(saved: Table, current: Table) -> Difference:
    """Match the rows of two CSVs by key, those that share one by their order, and the columns by name."""
    mine, theirs = places(saved), places(current)
    rows = mine.join(theirs.rename({"row": "twin"}), on=["key", "nth"], how="left", maintain_order="left")
    gone = theirs.join(mine, on=["key", "nth"], how="anti", maintain_order="left")
    known = {ident: index for index, ident in reversed(list(enumerate(_idents(current))))}
    twins = _with_unguarded([known.get(ident) for ident in _idents(saved)], saved, current)
    differs = rows.get_column("twin").is_null()
    for index, twin in enumerate(twins):
        differs |= saved.texts(index) != texts_now(current, twin, rows)
    return Difference(saved, current, rows, gone, twins, differs)


def _with_unguarded(twins: list[int | None], saved: Table, current: Table) -> tuple[int | None, ...]:
    """Match what is left of the columns by their names without the guard against formulas, which may come and go."""
    left = {
        unguarded_id(name): index
        for index, name in reversed(list(enumerate(current.names)))
        if index not in twins and column_id(name)
    }
    return tuple(
        left.pop(unguarded_id(name), None) if twin is None and column_id(name) else twin
        for twin, name in zip(twins, saved.names, strict=True)
    )


def places(table: Table) -> pl.DataFrame:
    """Return the rows of a table: their number as `row`, their `key`, and their place among those of it as `nth`."""
    keys = pl.DataFrame({"key": table.keys()}).with_row_index("row")
    return keys.with_columns(nth=pl.int_range(pl.len()).over("key"))


def _idents(table: Table) -> Iterator[str]:
    """Yield what makes a column the same in another table; those without a name are told apart by their order."""
    nameless = 0
    for name in table.names:
        nameless += not column_id(name)
        yield column_id(name) or f"\0{nameless}"


def texts_now(current: Table, twin: int | None, rows: pl.DataFrame) -> pl.Series:
    """Return the texts that rows have in a column of the present CSV; "" where there are none."""
    if twin is None:
        return pl.repeat("", rows.height, dtype=pl.String, eager=True)
    return current.texts(twin).gather(rows.get_column("twin")).fill_null("")
