"""Which version a saved row was loaded from, among all that it ever had, and what has happened to it since. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from eventcsv.event import COLUMNS, Kind, column_id
from eventcsv.table.difference import places
from eventcsv.table.fold import unguarded_id
from eventcsv.table.frames import SET
from eventcsv.table.respelling import alike

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eventcsv.table.difference import Difference
    from eventcsv.table.table import Table

BASE: Final = "base"
"""The kind of a line of `Past` that tells what a row was in a base."""

_STAMP: Final = column_id(COLUMNS["last_processed"])
_NOTHING_SET: Final = pl.DataFrame(
    schema={
        "row": pl.UInt32,
        "at": pl.Int64,
        "kind": pl.String,
        "set": pl.String,
        "column": pl.UInt32,
        "saved": pl.String,
    }
)


@dataclass(frozen=True, slots=True)
class Past:
    """What rows were before.

    Attributes:
        first: The CSV as the job's first base has it.
        lines: What came after, in order: results, edits, and what later bases tell of rows that the first one lacks
            (`BASE`). The columns are `key`, `nth` (the place among the rows of that key; null for all of them), `kind`,
            and one for each column that is set, called `set` and its `unguarded_id`.
        set_by_results: The columns that results set, by `unguarded_id`, as the log first spells them.
        is_whole: Whether this begins where the job did.
    """

    first: Table
    lines: pl.DataFrame
    set_by_results: Mapping[str, str]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class MergedColumn:
    """A column of the merged CSV: its name, and its places in the saved CSV and in the present one."""

    name: str
    saved: int | None
    twin: int | None

    @property
    def ident(self) -> str:
        """Its `unguarded_id`; "" when it has no name, so that no line can mean it."""
        return unguarded_id(self.name) if column_id(self.name) else ""


def judged(
    cells: pl.DataFrame, items: pl.DataFrame, found: Difference, columns: Sequence[MergedColumn], past: Past
) -> pl.DataFrame:
    """Add to cells what the version had that their row was loaded from, as `then`, and what has happened since.

    `shown` tells whether it shows what it had between the result before that version and the one after it, `since`
    whether a result has set it since, `last` is what it is by the log alone, `by result` whether that is a result's,
    and `doubt` whether the row may be from before everything that is known.
    """
    lines = _lines_of(items, columns, past)
    versions = _versions(lines, items, found, columns)
    eras = versions.group_by("row", "era").agg(pl.col("at").min().alias("from"), pl.col("at").max().alias("to"))
    basis = (
        best(versions)
        .select("row", "era", pl.col("at").alias("basis"), (~pl.col("same stamp") & (not past.is_whole)).alias("doubt"))
        .join(eras, on=["row", "era"], how="left", maintain_order="left")
    )
    at, text, is_result = pl.col("at"), pl.col("set"), pl.col("kind") == Kind.RESULT.value
    told = (
        _one_a_line(lines, cells)
        .join(basis.drop("doubt"), on="row", maintain_order="left")
        .with_columns(
            pl.when(at <= pl.col("basis")).then(text).alias("then"),
            pl.when(at <= pl.col("from")).then(text).alias("first had"),
            ((text == pl.col("saved")) & (at > pl.col("from")) & (at <= pl.col("to"))).alias("shown"),
            (is_result & (at > pl.col("basis"))).alias("since"),
        )
        .group_by("row", "column")
        .agg(
            pl.col("then", "first had").last(ignore_nulls=True),
            pl.col("shown", "since").any(),
            text.last().alias("last"),
            is_result.last().alias("by result"),
        )
    )
    return (
        cells.join(told, on=["row", "column"], how="left", maintain_order="left")
        .join(basis.select("row", "doubt"), on="row", how="left", maintain_order="left")
        .with_columns(
            pl.col("then", "last", "first had").fill_null(""),
            pl.col("shown", "since", "by result", "doubt").fill_null(value=False),
        )
        .with_columns(pl.col("shown") | (pl.col("saved") == pl.col("first had")))
        .drop("first had")
    )


def _lines_of(items: pl.DataFrame, columns: Sequence[MergedColumn], past: Past) -> pl.DataFrame:
    """Return, row by row and in order, what set its cells: `row`, `at`, `kind`, and a text or null for each column."""
    beginning = places(past.first).join(items.select("key", "nth", pl.col("row").alias("item")), on=["key", "nth"])
    first = items.select("row", pl.lit(-1, pl.Int64).alias("at"), pl.lit(BASE).alias("kind")).join(
        pl.DataFrame(
            {
                "row": beginning.get_column("item"),
                **{
                    str(index): past.first.texts(place).gather(beginning.get_column("row"))
                    for index, column in enumerate(columns)
                    if (place := place_of(past.first, column)) is not None
                },
            },
        ),
        on="row",
        how="left",
        maintain_order="left",
    )
    later = (
        items.select("row", "key", "nth")
        .join(past.lines.rename({"nth": "of"}).with_row_index("at"), on="key")
        .filter(pl.col("of").is_null() | (pl.col("of") == pl.col("nth")))
        .with_columns(pl.col("at").cast(pl.Int64))
    )
    known = set(past.lines.columns)
    texts = {
        str(index): pl.col(SET + column.ident) if SET + column.ident in known else pl.lit(None, pl.String)
        for index, column in enumerate(columns)
    }
    missing = [pl.lit("").alias(name) for name in texts if name not in first.columns]
    first = first.with_columns(missing).select("row", "at", "kind", *(pl.col(name).fill_null("") for name in texts))
    return pl.concat([first, later.select("row", "at", "kind", **texts)]).sort("row", "at")


def place_of(table: Table, column: MergedColumn) -> int | None:
    """Return which column of a table a column is, or None."""
    if not column.ident:
        return None
    return next((index for index, name in enumerate(table.names) if unguarded_id(name) == column.ident), None)


def _versions(
    lines: pl.DataFrame, items: pl.DataFrame, found: Difference, columns: Sequence[MergedColumn]
) -> pl.DataFrame:
    """Return each version of each row, with how well the saved row agrees with it.

    `same stamp` tells whether their LAST_PROCESSED is the same, `results` in how many cells the saved row agrees with
    what results alone had made of it then, and `cells` in how many with the version itself.
    """
    used = [str(index) for index, column in enumerate(columns) if column.ident and column.saved is not None]
    texts = {
        f"saved {name}": found.saved.texts(columns[int(name)].saved or 0).gather(items.get_column("row"))
        for name in used
    }
    is_edit = pl.col("kind") == Kind.EDIT.value
    # Each row begins with a line that sets all of its cells, so nothing is filled across rows.
    versions = lines.select(
        "row",
        "at",
        (~is_edit).cum_sum().alias("era"),
        *(pl.col(name).forward_fill().alias(name) for name in used),
        *(pl.when(~is_edit).then(pl.col(name)).forward_fill().alias(f"by results {name}") for name in used),
    ).join(items.select("row").with_columns(**texts), on="row", maintain_order="left")
    stamp = next((name for name in used if columns[int(name)].ident == _STAMP), "")
    same = pl.col(stamp) == pl.col(f"saved {stamp}") if stamp else pl.lit(value=False)
    judged = versions.with_columns(
        same.alias("same stamp"),
        pl.sum_horizontal(pl.col(f"saved {name}") == pl.col(f"by results {name}") for name in used).alias("results"),
        pl.sum_horizontal(pl.col(f"saved {name}") == pl.col(name) for name in used).alias("cells"),
    )
    return _with_respelled_stamps(judged, stamp) if stamp else judged


def _with_respelled_stamps(judged: pl.DataFrame, stamp: str) -> pl.DataFrame:
    """Take the same moment in another spelling for the same, where no version has the very text."""
    unknown = judged.select(~pl.col("same stamp").any().over("row") & (pl.col(f"saved {stamp}") != "")).to_series()
    if not unknown.any():
        return judged
    found = are_alike(judged.get_column(f"saved {stamp}"), judged.get_column(stamp), unknown)
    return judged.with_columns((pl.col("same stamp") | found).alias("same stamp"))


def best(judged: pl.DataFrame) -> pl.DataFrame:
    """Return the version of each row that it was most likely loaded from."""
    for merit in ("same stamp", "results", "cells"):
        judged = judged.filter(pl.col(merit) == pl.col(merit).max().over("row"))
    return judged.unique("row", keep="first", maintain_order=True)


def _one_a_line(lines: pl.DataFrame, cells: pl.DataFrame) -> pl.DataFrame:
    """Return what set some cells, in order: `row`, `at`, `kind`, `column`, the text `set`, and what was `saved`."""
    parts = [
        lines.filter(pl.col(str(index)).is_not_null())
        .select("row", "at", "kind", pl.col(str(index)).alias("set"))
        .join(of_column.select("row", "column", "saved"), on="row", maintain_order="left")
        for (index,), of_column in cells.partition_by("column", as_dict=True).items()
    ]
    return pl.concat([_NOTHING_SET, *parts])


def are_alike(texts: pl.Series, others: pl.Series, where: pl.Series) -> pl.Series:
    """Tell which of some texts differ at most as programs rewrite values."""
    pairs = zip(texts, others, where, strict=True)
    return pl.Series([asked and alike(text, other) for text, other, asked in pairs], dtype=pl.Boolean)
