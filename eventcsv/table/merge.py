"""The merge of a saved CSV with what the log has made of it since, row by row. Pure: it is given tables and lines.

Whoever saves the CSV saves what their editor had loaded, perhaps hours ago. For each row that differs from the present
one, the version that it was loaded from is looked for among all that this row ever had; what the person changed about
that version holds, and the rest is as it is now:

    the version   of those with its LAST_PROCESSED the ones whose results it shows best; of these the one that it agrees
                  with in most cells; in a tie the earliest, so that in doubt nothing is undone
    a cell        holds as it was saved, unless a result has set it since and the person did not touch it: it shows what
                  the row had between two results, or a program's spelling of that; then it stays as it is now
    a new row     has come without the results of its PO that it does not show: they are folded onto it
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from eventcsv.event import COLUMNS, Kind, column_id
from eventcsv.table.difference import places, texts_now
from eventcsv.table.fold import unguarded_id
from eventcsv.table.frames import SET
from eventcsv.table.respelling import alike
from eventcsv.table.table import Table, raw_of, raw_text, text_of
from eventcsv.table.versions import MergedColumn, are_alike, judged, place_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from eventcsv.table.difference import Difference
    from eventcsv.table.versions import Past


@dataclass(frozen=True, slots=True)
class Met:
    """A cell that a person changed and that a result had set.

    Attributes:
        key: The PO.
        column: The column.
        typed: What the person typed, which stands now.
        result: What the result had set.
    """

    key: str
    column: str
    typed: str
    result: str


@dataclass(frozen=True)
class Merged:
    """What a saved CSV becomes.

    Attributes:
        table: The CSV, in the dialect of the present one.
        edits: What people changed, by key: column to text. A new row has an entry, whatever it holds.
        cells: How many cells changed, of rows that were there.
        rewritten: How many of those differ only as programs rewrite values.
        met: Those of them that a result had set.
        stale: How many rows were older than their results and kept them.
        doubtful: How many of those are from before what is known of them, so that nothing was taken of what they have
            in columns that results set.
        returned: Columns that `saved` lacked and that came back, since results set them.
    """

    table: Table
    edits: dict[str, dict[str, str]]
    cells: int
    rewritten: int
    met: tuple[Met, ...]
    stale: int
    doubtful: int
    returned: tuple[str, ...]


def merge(found: Difference, past: Past, *, kept: pl.DataFrame) -> Merged:
    """Merge a saved CSV with the present one.

    Args:
        found: How the two differ.
        past: What the rows that differ were before.
        kept: Rows of the present CSV that the saved one lacks and that stay, as in `Difference.gone`.
    """
    columns = [MergedColumn(name, index, found.twins[index]) for index, name in enumerate(found.saved.names)]
    lost = [MergedColumn(found.current.names[index], None, index) for index in found.lost_columns()]
    returned = [column for column in lost if column.ident in past.set_by_results]
    columns += returned
    columns += list(_new_to_all(found, past, {column.ident for column in columns}))
    items = found.rows.filter(found.differs)
    as_began = _as_they_began(items, found, past, columns)
    items = items.filter(~as_began)
    cells = _decided(judged(_cells(found, columns, items), items, found, columns, past), past, columns)
    new = pl.col("twin").is_null()
    changed = cells.filter(~new & (pl.col("text") != pl.col("present")))
    names = [column.name for column in columns]
    return Merged(
        table=_table(found, columns, cells, kept),
        edits=_edits(cells, found, names),
        cells=changed.height,
        rewritten=sum(map(alike, changed["text"], changed["then"])),
        met=tuple(
            Met(key, names[column], typed, result)
            for key, column, typed, result in changed.filter(pl.col("by result"))
            .select("key", "column", "text", "present")
            .iter_rows()
        ),
        stale=cells.filter(~new & pl.col("stays")).get_column("row").n_unique() + int(as_began.sum()),
        doubtful=cells.filter(~new & pl.col("stays") & pl.col("doubt")).get_column("row").n_unique(),
        returned=tuple(column.name for column in returned),
    )


def _new_to_all(found: Difference, past: Past, known: Collection[str]) -> Iterator[MergedColumn]:
    """Yield the columns that no CSV has yet, and that results of new rows set."""
    late = past.lines.filter((pl.col("kind") == Kind.RESULT.value) & pl.col("key").is_in(found.new_keys()))
    for ident, name in past.set_by_results.items():
        if ident and ident not in known and late.height and late.get_column(SET + ident).null_count() < late.height:
            yield MergedColumn(name, None, None)


def _as_they_began(items: pl.DataFrame, found: Difference, past: Past, columns: Sequence[MergedColumn]) -> pl.Series:
    """Tell which rows are as the first base has them while only results have changed them: they stay as they are now.

    Nothing that is asked below would come to anything else; but most rows of an old copy are of these.
    """
    if found.saved.index_of(COLUMNS["last_processed"]) is None:
        return pl.repeat(value=False, n=items.height, dtype=pl.Boolean, eager=True)
    by_others = past.lines.filter(pl.col("kind") != Kind.RESULT.value).get_column("key").unique()
    began = items.join(
        places(past.first).rename({"row": "first"}), on=["key", "nth"], how="left", maintain_order="left"
    )
    is_there = began.get_column("twin").is_not_null() & began.get_column("first").is_not_null()
    same = is_there & ~began.get_column("key").is_in(by_others.implode())
    for column in columns:
        if column.saved is not None:
            place = place_of(past.first, column)
            first = texts_now(past.first, place, began.select(pl.col("first").alias("twin")))
            same &= found.saved.texts(column.saved).gather(began.get_column("row")) == first
    return same


def _cells(found: Difference, columns: Sequence[MergedColumn], items: pl.DataFrame) -> pl.DataFrame:
    """Return the cells of the rows that differ, one a line: `saved` and `now`; of new rows all of them."""
    parts = []
    for index, column in enumerate(columns):
        now = texts_now(found.current, column.twin, items)
        is_new = items.get_column("twin").is_null()
        saved = now if column.saved is None else found.saved.texts(column.saved).gather(items.get_column("row"))
        every = items.with_columns(saved.alias("saved"), now.alias("now"), pl.lit(index, pl.UInt32).alias("column"))
        parts.append(every.filter(is_new | (saved != now)))
    return pl.concat(parts)


# --- what becomes of each cell -----------------------------------------------------------------------------------


def _decided(cells: pl.DataFrame, past: Past, columns: Sequence[MergedColumn]) -> pl.DataFrame:
    """Add to cells what they are now (`present`), what they will be (`text`), and whether they stay so (`stays`)."""
    idents = {*past.set_by_results, *map(unguarded_id, COLUMNS.values())}
    of_results = [index for index, column in enumerate(columns) if column.ident in idents]
    is_new = pl.col("twin").is_null()
    cells = cells.with_columns(pl.when(is_new).then("last").otherwise("now").alias("present"))
    differs, since = pl.col("saved") != pl.col("present"), pl.col("since")
    asked = cells.select(differs & since & ~is_new).to_series()
    untouched = cells.get_column("shown") | are_alike(cells.get_column("saved"), cells.get_column("then"), asked)
    # Of results that are known no more nobody can tell which columns they set; what is empty none of them has set.
    may_be_a_result = pl.col("column").is_in(of_results) | (pl.col("now") != "")
    in_doubt = pl.col("doubt") & ~is_new & may_be_a_result
    cells = cells.with_columns(untouched.alias("untouched"))
    cells = cells.with_columns((differs & (since & (pl.col("untouched") | is_new) | in_doubt)).alias("stays"))
    return cells.with_columns(pl.when("stays").then("present").otherwise("saved").alias("text"))


def _edits(cells: pl.DataFrame, found: Difference, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return what people changed, by key.

    Of a key on several rows only what is the same in all of them: a line of the log is about all rows of a key. The
    rest is in the base that follows.
    """
    edits: dict[str, dict[str, str]] = {key: {} for key in found.new_keys() if key}
    rows = found.rows.group_by("key").agg(pl.len().alias("rows"))
    changed = (
        cells.filter((pl.col("text") != pl.col("present")) & (pl.col("key") != ""))
        .group_by("key", "column", maintain_order=True)
        .agg(pl.col("text").first(), pl.col("text").n_unique().alias("texts"), pl.len().alias("times"))
        .join(rows, on="key", maintain_order="left")
        .filter((pl.col("texts") == 1) & (pl.col("times") == pl.col("rows")))
    )
    for key, column, text in changed.select("key", "column", "text").iter_rows():
        if column_id(names[column]):
            edits.setdefault(key, {})[names[column]] = text
    return edits


# --- the table ---------------------------------------------------------------------------------------------------


def _table(found: Difference, columns: Sequence[MergedColumn], cells: pl.DataFrame, kept: pl.DataFrame) -> Table:
    """Return the merged CSV: as it is now, in the order of the saved one, with the cells that were decided upon."""
    current, dialect = found.current, found.current.dialect
    twins = pl.concat([found.rows.get_column("twin"), kept.get_column("row").cast(pl.UInt32)])
    changed = cells.filter(pl.col("twin").is_null() | (pl.col("text") != pl.col("now"))).with_columns(
        raw_of(pl.col("text"), dialect).alias("raw")
    )
    parts = changed.partition_by("column", as_dict=True)
    rows: dict[str, pl.Series] = {}
    for index, column in enumerate(columns):
        if column.twin is None:
            raw = pl.repeat(raw_text("", dialect), len(twins), dtype=pl.String, eager=True)
        else:
            raw = current.rows.get_column(str(column.twin)).gather(twins).fill_null(raw_text("", dialect))
        if (part := parts.get((index,))) is not None:
            raw = raw.scatter(part.get_column("row"), part.get_column("raw"))
        rows[str(index)] = raw
    header = tuple(
        current.header[column.twin]
        if column.twin is not None and current.names[column.twin] == column.name
        else raw_text(column.name, dialect)
        for column in columns
    )
    dialect = replace(dialect, quotes_all=all(cell.startswith('"') for cell in header))  # as it will be read again
    if len(columns) == 1:  # alone, an empty cell is a blank line, and one with a comma could be two
        rows["0"] = pl.select(raw_of(text_of(pl.lit(rows["0"])), replace(dialect, quotes_all=True))).to_series()
    names = tuple(column.name for column in columns)
    return Table(dialect, header, names, found.saved.key, pl.DataFrame(rows), current.status_column)
