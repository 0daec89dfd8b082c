"""The fold: for each key and each column, the last event in the order of the log that sets the column wins.

The only place that knows it. Pure: it is given events, chunk by chunk, and a table, and returns a table.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import polars as pl

from eventcsv import masking
from eventcsv.event import BLANKS, COLUMNS, MOVES, InFlight, Kind, column_id, in_flight_after
from eventcsv.table.frames import SET
from eventcsv.table.table import Table, raw_of, with_columns_added

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from eventcsv.event import Event
    from eventcsv.log.types import Damage
    from eventcsv.table.frames import Parsed

FORMULA_STARTS: Final = "=+-@\t\r\uff1d\uff0b\uff0d\uff20"
"""What makes a spreadsheet take a cell for a formula (OWASP, "CSV Injection"), full-width forms included."""

_RISKY: Final = f"^[{re.escape(FORMULA_STARTS)}]"

_MERGE_ROWS: Final = 200_000  # what was merged before is merged again, so not too often
SETTING: Final = [Kind.RESULT.value, Kind.EDIT.value]
"""The kinds of lines that set cells."""

_COUNT: Final = "results"  # no column of an event's: those begin with SET


class Fold:
    """Folds chunks of the log, in order, and applies them to a table.

    Args:
        table: What to fold onto.
        guard_formulas: Put an apostrophe before text that a spreadsheet would take for a formula.
        only: Keys of the table to fold; by default all.
        in_flight: What was in flight before the first chunk.

    Attributes:
        events: How many results were folded; what people changed is folded as well, and counted as none.
        in_flight: The POs that were taken up and have no result yet, or wait to be tried again, by key.
    """

    def __init__(
        self,
        table: Table,
        *,
        guard_formulas: bool = True,
        only: Iterable[str] | None = None,
        in_flight: Iterable[InFlight] = (),
    ) -> None:
        self.events = 0
        self.in_flight = {item.key: item for item in in_flight}
        self._table = table
        self._guard_formulas = guard_formulas
        self._row_keys = table.keys().alias("key")
        self._keys = self._row_keys if only is None else pl.Series(list(only), dtype=pl.String)
        self._target_of = {
            unguarded_id(name): index for index, name in reversed(list(enumerate(table.names))) if column_id(name)
        }
        self._added: list[str] = []
        self._parts: list[pl.DataFrame] = []
        self._guards_at_once = False
        self._split: tuple[pl.DataFrame, pl.DataFrame] | None = None

    @property
    def unknown(self) -> dict[str, int]:
        """For each key of results that is in no row, how many there are."""
        _, unknown = self._reduced()
        return dict(unknown.filter(pl.col(_COUNT) > 0).select("key", _COUNT).sort("key").iter_rows())

    def add(self, parsed: Parsed) -> tuple[Damage, ...]:
        """Fold the events of one more chunk and return the damage found in it."""
        frame = parsed.frame
        if frame.height:
            _report_unknown_kinds(frame)
            frame = frame.with_columns(pl.col("key").str.strip_chars(BLANKS))
            self._follow_flights(frame, parsed.event_of)
            self._add_cells(frame.filter(pl.col("kind").is_in(SETTING)))
        return parsed.damage

    def _add_cells(self, lines: pl.DataFrame) -> None:
        is_edit = lines.get_column("kind") == Kind.EDIT.value
        self.events += lines.height - int(is_edit.sum())
        self._split = None
        part = self._part(lines, is_edit)
        self._parts.append(part)
        if sum(item.height for item in self._parts[1:]) > max(self._parts[0].height, _MERGE_ROWS):
            self._reduce()

    def _follow_flights(self, frame: pl.DataFrame, event_of: Callable[[int], Event]) -> None:
        if not self.in_flight and not frame.get_column("kind").is_in([Kind.STARTED.value, Kind.DEFERRED.value]).any():
            return
        moves = frame.select("key", "kind").with_row_index("row").filter(pl.col("kind").is_in(MOVES))
        last = moves.group_by("key").last()
        for key in last.filter(pl.col("key").is_in(list(self.in_flight))).get_column("key"):
            del self.in_flight[key]
        for key, row in last.filter(pl.col("kind") != Kind.RESULT.value).select("key", "row").sort("row").iter_rows():
            if item := in_flight_after(event_of(row), key):
                self.in_flight[key] = item

    def _part(self, results: pl.DataFrame, is_edit: pl.Series) -> pl.DataFrame:
        """Return the key of each line and its texts, in columns called `SET` and their `unguarded_id`."""
        used = [
            name
            for name in (column.removeprefix(SET) for column in results.columns if column.startswith(SET))
            if column_id(name) and results.get_column(SET + name).null_count() < results.height
        ]
        self._add_columns(results, used)
        columns = {SET + ident: pl.coalesce(found) for ident, found in spellings(used).items()}
        part = results.select("key", (~is_edit).cast(pl.UInt32).alias(_COUNT), **columns)
        if not self._guards_at_once and self._guard_formulas and is_edit.any() and _holds_formula(part.filter(is_edit)):
            # A person's formula is theirs. From here on each text is guarded as it comes, while it is known
            # whose it is.
            self._guards_at_once = True
            self._parts = [item.with_columns(guarded_text(pl.exclude("key", _COUNT))) for item in self._parts]
        if self._guards_at_once:
            texts = pl.exclude("key", _COUNT)
            part = part.with_columns(pl.when(is_edit).then(texts).otherwise(guarded_text(texts)))
        return part

    def _add_columns(self, results: pl.DataFrame, used: list[str]) -> None:
        """Give columns that the table lacks a place, in the order in which the log first sets them in a row."""
        new = [name for name in used if unguarded_id(name) not in self._target_of]
        if not new:
            return
        known = results.filter(pl.col("key").is_in(self._keys.implode()))
        rows = {name: known.get_column(SET + name).is_not_null().arg_true() for name in new}
        first_row = {name: found.item(0) for name, found in rows.items() if found.len()}
        for name in sorted(first_row, key=lambda name: (first_row[name], *_rank(name))):
            if unguarded_id(name) not in self._target_of:
                self._target_of[unguarded_id(name)] = len(self._table.names) + len(self._added)
                added = name.strip(BLANKS)
                self._added.append(guarded(added) if self._guard_formulas else added)

    def _reduce(self) -> None:
        """Keep, of the parts so far, the last text of each column of each key."""
        every = pl.concat(self._parts, how="diagonal")
        texts = pl.exclude("key", _COUNT).last(ignore_nulls=True)
        self._parts = [every.group_by("key").agg(pl.col(_COUNT).sum(), texts)]

    def _reduced(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return what is left of the parts, of keys that have a row and of the others."""
        if self._split is None:
            if self._parts:
                self._reduce()
            last = self._parts[0] if self._parts else pl.DataFrame(schema={"key": pl.String, _COUNT: pl.UInt32})
            is_known = last.get_column("key").is_in(self._keys.implode())
            self._split = (last, last.clear()) if is_known.all() else (last.filter(is_known), last.filter(~is_known))
        return self._split

    def result(self) -> Table:
        """Return the table with everything folded onto it; the very same one when no event touches a row."""
        last, _ = self._reduced()
        sources = dict(self._sources(last))
        if not sources:
            return self._table
        table = with_columns_added(self._table, self._added) if self._added else self._table
        new = last.select("key", raw_of(self._cell(pl.col(list(sources.values()))), table.dialect))
        found = self._row_keys.to_frame().with_row_index("row").join(new, on="key", how="inner")
        changed = [_scattered(table.rows.get_column(to), found["row"], found[name]) for to, name in sources.items()]
        return table.with_cells(table.rows.with_columns(changed))

    def _sources(self, last: pl.DataFrame) -> Iterator[tuple[str, str]]:
        """Yield each column of the table that a row gets a text in, and the column of `last` that has it."""
        for column in last.columns:
            target = self._target_of.get(column.removeprefix(SET))
            is_set = column.startswith(SET) and last.get_column(column).null_count() < last.height
            if is_set and target is not None and target != self._table.key:  # the key is not an event's to set
                yield str(target), column

    def _cell(self, text: pl.Expr) -> pl.Expr:
        return guarded_text(text) if self._guard_formulas and not self._guards_at_once else text


def spellings(names: Iterable[str]) -> dict[str, list[str]]:
    """Return, by `unguarded_id`, the columns of a frame that mean the same column of the CSV."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(unguarded_id(name), []).append(SET + name)
    return found


def guarded_text(text: pl.Expr) -> pl.Expr:
    """Return texts of results as they become cells, with an apostrophe before what looks like a formula."""
    return pl.when(~_is_risky(text)).then(text).otherwise(pl.lit("'") + text)  # what comes first gives each its name


def _is_risky(text: pl.Expr) -> pl.Expr:
    return text.str.contains(_RISKY)


def _holds_formula(part: pl.DataFrame) -> bool:
    texts = part.select(pl.exclude("key", _COUNT))
    return bool(texts.width and texts.select(pl.any_horizontal(_is_risky(pl.all()).any())).item())


def _scattered(cells: pl.Series, rows: pl.Series, new: pl.Series) -> pl.Series:
    """Return a column with new cells in some rows; null leaves a cell as it is."""
    if new.null_count():
        is_set = new.is_not_null()
        rows, new = rows.filter(is_set), new.filter(is_set)
    return cells.clone().scatter(rows, new)


def guarded(text: str) -> str:
    """Return the text of a cell for the text of an event, as `Fold` makes it unless it is told not to."""
    return f"'{text}" if text[:1] and text[0] in FORMULA_STARTS else text


def unguarded_id(name: str) -> str:
    """Return the `column_id` of a column by any of its names, with the guard against formulas or without."""
    ident = column_id(name)
    return ident[1:] if ident == guarded(ident[1:]) else ident


def _rank(spelling: str) -> tuple[int, str]:
    """Return the place of a column among those that one event sets first: the well-known ones, then by name."""
    well_known = list(COLUMNS.values())
    return (well_known.index(spelling) if spelling in well_known else len(well_known), spelling)


def _report_unknown_kinds(frame: pl.DataFrame) -> None:
    kinds = set(frame.get_column("kind").unique()) - {kind.value for kind in Kind}
    if kinds:
        masking.get_logger().warning(
            "log.unknown_kind", kinds=sorted(kinds), advice="a newer eventcsv may have written them"
        )
