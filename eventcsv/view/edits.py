"""What a save of the CSV did, what the rows in it were before, and which saves are not taken until somebody says so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from eventcsv.event import BLANKS, COLUMNS, Kind, column_id
from eventcsv.table.fold import SETTING, guarded, guarded_text, spellings, unguarded_id
from eventcsv.table.frames import SET
from eventcsv.table.read_ahead import Ahead
from eventcsv.table.respelling import is_lossy, lossy_forms
from eventcsv.table.versions import BASE, Past

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from eventcsv.log.interface import Log
    from eventcsv.log.types import Position
    from eventcsv.table.difference import Difference
    from eventcsv.table.frames import Parsed
    from eventcsv.table.merge import Met
    from eventcsv.table.table import Table

MOST_VANISHED: Final = 10
MOST_SHARE_VANISHED: Final = 0.05
_NUMBER_IN_SHORT = re.compile(r"[^eE]+[eE][+-]?\d+")
_STAMP: Final = column_id(COLUMNS["last_processed"])


@dataclass(frozen=True, slots=True)
class Edit:
    """What a save of the CSV did.

    Attributes:
        saved_at: When the CSV was saved, ISO 8601 in UTC.
        cells: How many cells it changed, of rows that were there.
        rewritten: How many of those differ only as programs rewrite values (1 and 1.0).
        met: Those of them that a result had set, with both values.
        added: The keys of the rows that it added.
        removed: The keys of the rows that it removed.
        younger: The keys of rows that it lacks and that stay, as they were added after it was loaded.
        stale: How many rows were older than their results and kept them.
        doubtful: How many of those are from before what is kept of the job, so that nothing was taken of what they have
            in columns that results set.
        new_columns: The columns that it added.
        gone_columns: The columns that it removed.
        returned: The columns that it lacks and that came back, since results set them.
        delimiter: What it is separated by, unless that is what the CSV is separated by.
        copy: The file name of the backup that keeps it as it was saved; None when the CSV is that, byte for byte.
    """

    saved_at: str
    cells: int
    rewritten: int
    met: tuple[Met, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    younger: tuple[str, ...]
    stale: int
    doubtful: int
    new_columns: tuple[str, ...]
    gone_columns: tuple[str, ...]
    returned: tuple[str, ...]
    delimiter: str | None
    copy: str | None = None


@dataclass(frozen=True)
class Known:
    """What the log and the bases tell of the rows that a save touches.

    Attributes:
        past: What they were before.
        with_results: The keys that have results.
        standing: What earlier attempts to take over this very save have left in the log, by key, where nothing has come
            after it.
        attempted: How many lines they have left there in all.
    """

    past: Past
    with_results: pl.Series
    standing: dict[str, Mapping[str, str]]
    attempted: int


def read_past(
    found: Difference,
    bases: Sequence[tuple[Position, Table]],
    log: Log,
    end: Position,
    *,
    seen: tuple[Position, Sequence[Parsed]],
    save: str,
    is_whole: bool,
    guard_formulas: bool,
) -> Known:
    """Read what the rows that differ were before.

    Args:
        found: How the saved CSV differs from the present one.
        bases: The bases of the job, the oldest first, each with its place in the log.
        log: The event log.
        end: Where to stop.
        seen: What was read of the log before, from a place on up to `end`; nothing when it was too much to keep.
        save: What the ids of the lines begin with that this save leaves in the log; they are no past of its rows.
        is_whole: Whether the oldest base is where the job begins.
        guard_formulas: Whether texts of results became cells with an apostrophe before what looks like a formula.
    """
    at, first = bases[0]
    reading = _Reading(save, guard_formulas=guard_formulas)
    gone = found.gone.get_column("key").to_list()
    missing = {*found.keys(), *gone}.difference(first.keys())
    if missing.isdisjoint(gone):  # else it has to be found out how late the saved CSV was loaded
        reading.keys = [*found.keys(), *gone]
    for position, table in bases[1:]:
        if here := missing.intersection(table.keys()):
            reading.read(log, at, position)
            reading.add_base(table, here)
            missing -= here
            at = position
    since, parsed = seen
    if parsed and at <= since:
        reading.read(log, at, since)
        reading.add(parsed)
    else:
        reading.read(log, at, end)
    return reading.known(first, is_whole=is_whole)


class _Reading:
    """One pass over the log."""

    def __init__(self, save: str, *, guard_formulas: bool) -> None:
        self.keys: list[str] | None = None
        self._save = save
        self._guard_formulas = guard_formulas
        self._parts: list[pl.DataFrame] = []
        self._set_by_results: dict[str, str] = {}
        self._with_results: list[pl.Series] = [pl.Series("key", dtype=pl.String)]
        self._standing: dict[str, Mapping[str, str]] = {}
        self._attempted = 0

    def read(self, log: Log, start: Position, end: Position) -> None:
        if start < end:
            self.add(Ahead(log.read(start, end)))

    def add(self, read: Iterable[Parsed]) -> None:
        for parsed in read:
            self._add(parsed)

    def _add(self, parsed: Parsed) -> None:
        frame = parsed.frame
        if not frame.height:
            return
        lines = (
            frame.lazy()
            .with_row_index("line")
            .with_columns(pl.col("key").str.strip_chars(BLANKS))
            .filter(pl.col("kind").is_in(SETTING))
            .collect()
        )
        results = lines.filter(pl.col("kind") == Kind.RESULT.value)
        names = [column.removeprefix(SET) for column in frame.columns if column.startswith(SET)]
        for name in names:
            if column_id(name) and results.get_column(SET + name).null_count() < results.height:
                spelled = name.strip(BLANKS)
                spelled = guarded(spelled) if self._guard_formulas else spelled
                self._set_by_results.setdefault(unguarded_id(name), spelled)
        self._with_results.append(results.get_column("key").unique())
        own = parsed.left_by(self._save)
        self._attempted += len(own)
        if keys := {*self._standing, *lines.filter(pl.col("line").is_in(own)).get_column("key")}:
            self._follow(lines.filter(pl.col("key").is_in(list(keys))), own, parsed)
            lines = lines.filter(~pl.col("line").is_in(own))
        if self.keys is not None:
            lines = lines.filter(pl.col("key").is_in(self.keys))
        texts = {}
        is_edit = pl.col("kind") == Kind.EDIT.value
        for ident, columns in spellings(name for name in names if column_id(name)).items():
            text = pl.coalesce(columns)
            texts[SET + ident] = (
                pl.when(is_edit).then(text).otherwise(guarded_text(text)) if self._guard_formulas else text
            )
        self._parts.append(lines.select("key", pl.lit(None, pl.Int64).alias("nth"), "kind", **texts))

    def _follow(self, lines: pl.DataFrame, own: Sequence[int], parsed: Parsed) -> None:
        """Take note of what this save has left in the log, as long as nothing comes after it."""
        for key, line in lines.select("key", "line").iter_rows():
            self._standing.pop(key, None)
            if line in own:
                self._standing[key] = parsed.event_of(line).cells

    def add_base(self, table: Table, keys: set[str]) -> None:
        """Note what a base tells of rows that no earlier one has."""
        texts = {
            SET + unguarded_id(name): table.texts(index)
            for index, name in reversed(list(enumerate(table.names)))
            if column_id(name)
        }
        rows = pl.DataFrame({"key": table.keys(), **texts})
        rows = rows.with_columns(nth=pl.int_range(pl.len()).over("key"), kind=pl.lit(BASE))
        self._parts.append(rows.filter(pl.col("key").is_in(list(keys))))

    def known(self, first: Table, *, is_whole: bool) -> Known:
        none = pl.DataFrame(schema={"key": pl.String, "nth": pl.Int64, "kind": pl.String})
        lines = pl.concat([none, *self._parts], how="diagonal")
        past = Past(first, lines, self._set_by_results, is_whole)
        return Known(past, pl.concat(self._with_results).unique(), self._standing, self._attempted)


def kept_rows(found: Difference, past: Past) -> pl.DataFrame:
    """Return the rows that a saved CSV lacks and that stay: those that a save added after it was loaded."""
    late = found.gone.filter(~pl.col("key").is_in(past.first.keys().implode()))
    if not late.height:
        return late
    by_saves = past.lines.with_row_index("at").filter(pl.col("kind") != Kind.RESULT.value)
    added = by_saves.group_by("key").agg(pl.min("at"))
    latest = _latest_shown(found.saved, past.lines)
    return (
        late.join(added, on="key", how="left", maintain_order="left")
        .filter(pl.col("at").is_not_null() & (pl.col("at") > latest))
        .select(found.gone.columns)
    )


def _latest_shown(saved: Table, lines: pl.DataFrame) -> int:
    """Return the place among lines of the last one that a saved CSV shows, or -1.

    A result shows by its LAST_PROCESSED; whatever else by all of its texts.
    """
    places = {unguarded_id(name): saved.texts(index) for index, name in enumerate(saved.names) if column_id(name)}
    row_of = {key: row for row, key in enumerate(saved.keys())}
    idents = [(column, places.get(column.removeprefix(SET))) for column in lines.columns if column.startswith(SET)]
    for at in range(lines.height - 1, -1, -1):
        line = lines.row(at, named=True)
        row = row_of.get(line["key"])
        if row is None:
            continue
        stamp = line.get(SET + _STAMP)
        if line["kind"] == Kind.RESULT.value and stamp and _STAMP in places:
            if places[_STAMP][row] == stamp:
                return at
            continue
        texts = [
            (line[column], cells[row] if cells is not None else "")
            for column, cells in idents
            if line[column] is not None
        ]
        if any(text for text, _ in texts) and all(text == cell for text, cell in texts):
            return at
    return -1


def refusal(found: Difference, known: Known, removed: Sequence[str]) -> str | None:
    """Return why a save is not taken before somebody says so, or None when it is.

    Args:
        found: How the saved CSV differs from the present one.
        known: What its rows were before.
        removed: The keys of the rows that would go.
    """
    current = found.current
    if current.status_index() is not None and found.saved.status_index() is None:
        return f"the column {current.status_column} is gone, which says what is done"
    respelled = list(_respelled(removed, found.new_keys()))
    if respelled:
        (key, saved), more = respelled[0], len(respelled) - 1
        return (
            f"{key} is now {saved}{f', and {more:,} more' if more else ''}: "
            "the program that saved it took the keys for numbers, or quoted them once more"
        )
    keys, with_results = pl.Series(removed, dtype=pl.String), known.with_results.implode()
    vanished = keys.filter(keys.is_in(with_results))
    having = int(current.keys().is_in(with_results).sum())
    if len(vanished) > MOST_VANISHED and len(vanished) > MOST_SHARE_VANISHED * having:
        return f"{len(vanished):,} of {having:,} rows with results are gone, {vanished[0]} among them"
    return None


def _respelled(gone: Sequence[str], new: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the keys that came back as a program makes them of numbers, with what they are now."""
    there = set(new)
    short = [key for key in there if _NUMBER_IN_SHORT.fullmatch(key)]
    for key in gone:
        form = next((form for form in lossy_forms(key) if form in there), None) or next(
            (form for form in short if is_lossy(key, form)), None
        )
        if form:
            yield key, form
