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

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from eventcsv.event import COLUMNS, Kind, column_id
from eventcsv.table.fold import unguarded_id
from eventcsv.table.frames import SET
from eventcsv.table.respelling import alike
from eventcsv.table.table import Table, raw_of, raw_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

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


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the merged CSV: its name, and its places in the saved CSV and in the present one."""

    name: str
    saved: int | None
    twin: int | None

    @property
    def ident(self) -> str:
        """Its `unguarded_id`; "" when it has no name, so that no line can mean it."""
        return unguarded_id(self.name) if column_id(self.name) else ""


def difference(saved: Table, current: Table) -> Difference:
    """Match the rows of two CSVs by key, those that share one by their order, and the columns by name."""
    mine, theirs = _places(saved), _places(current)
    rows = mine.join(theirs.rename({"row": "twin"}), on=["key", "nth"], how="left", maintain_order="left")
    gone = theirs.join(mine, on=["key", "nth"], how="anti", maintain_order="left")
    known = {ident: index for index, ident in reversed(list(enumerate(_idents(current))))}
    twins = tuple(known.get(ident) for ident in _idents(saved))
    differs = rows.get_column("twin").is_null()
    for index, twin in enumerate(twins):
        differs |= saved.texts(index) != _now(current, twin, rows)
    return Difference(saved, current, rows, gone, twins, differs)


def _places(table: Table) -> pl.DataFrame:
    keys = pl.DataFrame({"key": table.keys()}).with_row_index("row")
    return keys.with_columns(nth=pl.int_range(pl.len()).over("key"))


def _idents(table: Table) -> Iterator[str]:
    """Yield what makes a column the same in another table; those without a name are told apart by their order."""
    nameless = 0
    for name in table.names:
        nameless += not column_id(name)
        yield column_id(name) or f"\0{nameless}"


def _now(current: Table, twin: int | None, rows: pl.DataFrame) -> pl.Series:
    """Return the texts that rows have in a column of the present CSV; "" where there are none."""
    if twin is None:
        return pl.repeat("", rows.height, dtype=pl.String, eager=True)
    return current.texts(twin).gather(rows.get_column("twin")).fill_null("")


def merge(found: Difference, past: Past, *, kept: pl.DataFrame, done: Collection[str] = ()) -> Merged:
    """Merge a saved CSV with the present one.

    Args:
        found: How the two differ.
        past: What the rows that differ were before.
        kept: Rows of the present CSV that the saved one lacks and that stay, as in `Difference.gone`.
        done: Keys of rows that were merged already, before a crash: they are as they are now.
    """
    columns = [_Column(name, index, found.twins[index]) for index, name in enumerate(found.saved.names)]
    lost = [_Column(found.current.names[index], None, index) for index in found.lost_columns()]
    returned = [column for column in lost if column.ident in past.set_by_results]
    columns += returned
    columns += list(_new_to_all(found, past, {column.ident for column in columns}))
    items = found.rows.filter(found.differs)
    as_began = _as_they_began(items, found, past, columns)
    items = items.filter(~as_began)
    cells = _decided(_judged(_cells(found, columns, items), items, found, columns, past), past, columns, done)
    new = pl.col("twin").is_null()
    changed = cells.filter(~new & (pl.col("text") != pl.col("present")))
    names = [column.name for column in columns]
    return Merged(
        table=_table(found, columns, cells, kept),
        edits=_edits(cells, found, names, done),
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


def _new_to_all(found: Difference, past: Past, known: Collection[str]) -> Iterator[_Column]:
    """Yield the columns that no CSV has yet, and that results of new rows set."""
    late = past.lines.filter((pl.col("kind") == Kind.RESULT.value) & pl.col("key").is_in(found.new_keys()))
    for ident, name in past.set_by_results.items():
        if ident and ident not in known and late.height and late.get_column(SET + ident).null_count() < late.height:
            yield _Column(name, None, None)


def _as_they_began(items: pl.DataFrame, found: Difference, past: Past, columns: Sequence[_Column]) -> pl.Series:
    """Tell which rows are as the first base has them while only results have changed them: they stay as they are now.

    Nothing that is asked below would come to anything else; but most rows of an old copy are of these.
    """
    if found.saved.index_of(COLUMNS["last_processed"]) is None:
        return pl.repeat(value=False, n=items.height, dtype=pl.Boolean, eager=True)
    by_others = past.lines.filter(pl.col("kind") != Kind.RESULT.value).get_column("key").unique()
    began = items.join(
        _places(past.first).rename({"row": "first"}), on=["key", "nth"], how="left", maintain_order="left"
    )
    is_there = began.get_column("twin").is_not_null() & began.get_column("first").is_not_null()
    same = is_there & ~began.get_column("key").is_in(by_others.implode())
    for column in columns:
        if column.saved is not None:
            place = _place(past.first, column)
            first = _now(past.first, place, began.select(pl.col("first").alias("twin")))
            same &= found.saved.texts(column.saved).gather(began.get_column("row")) == first
    return same


def _cells(found: Difference, columns: Sequence[_Column], items: pl.DataFrame) -> pl.DataFrame:
    """Return the cells of the rows that differ, one a line: `saved` and `now`; of new rows all of them."""
    parts = []
    for index, column in enumerate(columns):
        now = _now(found.current, column.twin, items)
        is_new = items.get_column("twin").is_null()
        saved = now if column.saved is None else found.saved.texts(column.saved).gather(items.get_column("row"))
        every = items.with_columns(saved.alias("saved"), now.alias("now"), pl.lit(index, pl.UInt32).alias("column"))
        parts.append(every.filter(is_new | (saved != now)))
    return pl.concat(parts)


# --- which version it was ----------------------------------------------------------------------------------------


def _judged(
    cells: pl.DataFrame, items: pl.DataFrame, found: Difference, columns: Sequence[_Column], past: Past
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


def _lines_of(items: pl.DataFrame, columns: Sequence[_Column], past: Past) -> pl.DataFrame:
    """Return, row by row and in order, what set its cells: `row`, `at`, `kind`, and a text or null for each column."""
    beginning = _places(past.first).join(items.select("key", "nth", pl.col("row").alias("item")), on=["key", "nth"])
    first = items.select("row", pl.lit(-1, pl.Int64).alias("at"), pl.lit(BASE).alias("kind")).join(
        pl.DataFrame(
            {
                "row": beginning.get_column("item"),
                **{
                    str(index): past.first.texts(place).gather(beginning.get_column("row"))
                    for index, column in enumerate(columns)
                    if (place := _place(past.first, column)) is not None
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


def _place(table: Table, column: _Column) -> int | None:
    if not column.ident:
        return None
    return next((index for index, name in enumerate(table.names) if unguarded_id(name) == column.ident), None)


def _versions(lines: pl.DataFrame, items: pl.DataFrame, found: Difference, columns: Sequence[_Column]) -> pl.DataFrame:
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
    found = _alike(judged.get_column(f"saved {stamp}"), judged.get_column(stamp), unknown)
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


# --- what becomes of each cell -----------------------------------------------------------------------------------


def _decided(cells: pl.DataFrame, past: Past, columns: Sequence[_Column], done: Collection[str]) -> pl.DataFrame:
    """Add to cells what they are now (`present`), what they will be (`text`), and whether they stay so (`stays`)."""
    idents = {*past.set_by_results, *map(unguarded_id, COLUMNS.values())}
    of_results = [index for index, column in enumerate(columns) if column.ident in idents]
    is_new, is_done = pl.col("twin").is_null(), pl.col("key").is_in(list(done))
    cells = cells.with_columns(pl.when(is_new).then("last").otherwise("now").alias("present"))
    differs, since = pl.col("saved") != pl.col("present"), pl.col("since")
    asked = cells.select(differs & since & ~is_new).to_series()
    untouched = cells.get_column("shown") | _alike(cells.get_column("saved"), cells.get_column("then"), asked)
    # Of results that are known no more nobody can tell which columns they set; what is empty none of them has set.
    may_be_a_result = pl.col("column").is_in(of_results) | (pl.col("now") != "")
    in_doubt = pl.col("doubt") & ~is_new & may_be_a_result
    cells = cells.with_columns(untouched.alias("untouched"))
    cells = cells.with_columns((differs & (since & (pl.col("untouched") | is_new) | in_doubt)).alias("stays"))
    return cells.with_columns(
        pl.when(pl.col("stays") | (is_done & ~is_new)).then("present").otherwise("saved").alias("text")
    )


def _alike(texts: pl.Series, others: pl.Series, where: pl.Series) -> pl.Series:
    """Tell which of some texts differ at most as programs rewrite values."""
    pairs = zip(texts, others, where, strict=True)
    return pl.Series([asked and alike(text, other) for text, other, asked in pairs], dtype=pl.Boolean)


def _edits(
    cells: pl.DataFrame, found: Difference, names: Sequence[str], done: Collection[str]
) -> dict[str, dict[str, str]]:
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
    return {key: edit for key, edit in edits.items() if key not in done}


# --- the table ---------------------------------------------------------------------------------------------------


def _table(found: Difference, columns: Sequence[_Column], cells: pl.DataFrame, kept: pl.DataFrame) -> Table:
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
    key = found.saved.key
    names = tuple(column.name for column in columns)
    return Table(dialect, header, names, key, pl.DataFrame(rows), current.status_column)
