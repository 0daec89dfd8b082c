"""The fold: for each key and each column, the last event in the order of the log that sets the column wins.

The only place that knows it. Pure: it is given lines that `scan` has checked, and a table, and returns a table.

Polars parses the lines with a schema that names every column as text, since it would otherwise guess types and lose
columns that come late. With a schema it ignores unknown fields in silence instead, and turns a number into null. So
the fields are counted, in the bytes (`":` ends a name, `":"` one whose value is text) and in the result. When the two
differ, the chunk is read again line by line, and its column names join the schema. Text may hold those bytes too, which
costs that second reading, never a result.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Final

import orjson
import polars as pl

from eventcsv import masking
from eventcsv.event import BLANKS, COLUMNS, InFlight, Kind, column_id, decode
from eventcsv.scan import events
from eventcsv.view import Table, raw_of, with_columns_added

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from eventcsv.event import Event
    from eventcsv.scan import Chunk, Damage

FORMULA_STARTS: Final = "=+-@\t\r\uff1d\uff0b\uff0d\uff20"
"""What makes a spreadsheet take a cell for a formula (OWASP, "CSV Injection"), full-width forms included."""

_FIXED_TEXTS: Final = 5  # id, ts, kind, key, crc
_FIXED_MEMBERS: Final = 7  # those, v and set
_MERGE_ROWS: Final = 200_000
_MOVES: Final = [Kind.RESULT.value, Kind.STARTED.value]


class Fold:
    """Folds chunks of the log, in order, and applies them to a table.

    Args:
        table: What to fold onto.
        guard_formulas: Put an apostrophe before text that a spreadsheet would take for a formula.
        only: Keys of the table to fold; by default all.
        in_flight: What was in flight before the first chunk.

    Attributes:
        events: How many result lines were folded.
        unknown: For each key that is in no row, how many.
        in_flight: The POs that were taken up and have no result yet, by key.
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
        self.unknown: dict[str, int] = {}
        self.in_flight = {item.key: item for item in in_flight}
        self._table = table
        self._guard_formulas = guard_formulas
        self._row_keys = table.keys().alias("key")
        self._keys = (self._row_keys if only is None else pl.Series(list(only), dtype=pl.String)).unique().implode()
        self._spellings = list(dict.fromkeys((*COLUMNS.values(), *filter(None, table.names))))
        self._target_of = {
            column_id(name): index for index, name in reversed(list(enumerate(table.names))) if column_id(name)
        }
        self._added: list[str] = []
        self._parts: list[pl.DataFrame] = []

    @property
    def touches_rows(self) -> bool:
        """Whether an event set a column of a row that is there."""
        return bool(self._parts)

    def add(self, chunk: Chunk) -> tuple[Damage, ...]:
        """Fold one more chunk and return the damage found in it."""
        if not chunk.count:
            return chunk.damage
        frame = _parsed(chunk.lines, chunk.count, self._spellings)
        damage = chunk.damage
        if frame is None:
            found, damage = events(chunk)
            self._spellings = list(dict.fromkeys(_names(self._spellings, found)))
            frame = _framed(found, self._spellings)
            self._add_frame(frame, lambda row: found[row])
        else:
            lines = cache(lambda: chunk.lines.split(b"\n"))
            self._add_frame(frame, lambda row: decode(lines()[row]))
        return damage

    def _add_frame(self, frame: pl.DataFrame, event_of: Callable[[int], Event]) -> None:
        _report_unknown_kinds(frame)
        frame = frame.with_columns(pl.col("key").str.strip_chars(BLANKS))
        self._follow_flights(frame, event_of)
        results = frame.filter(pl.col("kind") == Kind.RESULT.value)
        self.events += results.height
        known = results.filter(pl.col("key").is_in(self._keys))
        if known.height < results.height:
            for key, count in results.join(known, on="key", how="anti").group_by("key").len().sort("key").iter_rows():
                self.unknown[key] = self.unknown.get(key, 0) + count
        part = self._part(known)
        if part.width > 1:
            self._parts.append(part)
            if sum(item.height for item in self._parts[1:]) > max(self._parts[0].height, _MERGE_ROWS):
                self._parts = [_last_per_key(self._parts)]

    def _follow_flights(self, frame: pl.DataFrame, event_of: Callable[[int], Event]) -> None:
        if not self.in_flight and not (frame.get_column("kind") == Kind.STARTED.value).any():
            return
        moves = frame.select("key", "kind").with_row_index("row").filter(pl.col("kind").is_in(_MOVES))
        last = moves.group_by("key").last()
        for key in last.filter(pl.col("key").is_in(list(self.in_flight))).get_column("key"):
            del self.in_flight[key]
        for key, row in last.filter(pl.col("kind") == Kind.STARTED.value).select("key", "row").sort("row").iter_rows():
            event = event_of(row)
            self.in_flight[key] = InFlight(key, event.id, event.ts)

    def _part(self, known: pl.DataFrame) -> pl.DataFrame:
        """Return, for each key, the last text of each column, in columns named by the index of their target."""
        texts = known.get_column("set").struct.unnest()
        texts.columns = [str(index) for index in range(texts.width)]
        used = [
            index
            for index, column in enumerate(texts.iter_columns())
            if column.null_count() < texts.height and column_id(self._spellings[index])
        ]
        self._add_columns(texts, used)
        sources: dict[int, list[int]] = {}
        for index in sorted(used, key=lambda index: self._spellings[index]):
            target = self._target_of[column_id(self._spellings[index])]
            if target != self._table.key:  # the key of a row is not an event's to set
                sources.setdefault(target, []).append(index)
        columns = [
            pl.coalesce([str(index) for index in found]).alias(f"to {target}") for target, found in sources.items()
        ]
        part = texts.with_columns(known.get_column("key")).select("key", *columns)
        return _last_per_key([part.rename(lambda name: name.removeprefix("to "))])

    def _add_columns(self, texts: pl.DataFrame, used: list[int]) -> None:
        """Give columns that the table lacks a place, in the order in which the log first sets them."""
        new = [index for index in used if column_id(self._spellings[index]) not in self._target_of]
        first_row = {index: texts.get_column(str(index)).is_not_null().arg_true().item(0) for index in new}
        for index in sorted(new, key=lambda index: (first_row[index], *_rank(self._spellings[index]))):
            spelling = self._spellings[index]
            if column_id(spelling) not in self._target_of:
                self._target_of[column_id(spelling)] = len(self._table.names) + len(self._added)
                self._added.append(spelling.strip(BLANKS))

    def result(self) -> Table:
        """Return the table with everything folded onto it; the very same one when no event touches a row."""
        if not self._parts:
            return self._table
        table = with_columns_added(self._table, self._added)
        self._parts = [_last_per_key(self._parts)]
        targets = [name for name in self._parts[0].columns if name != "key"]
        new = self._parts[0].select(
            "key", *(raw_of(self._guarded(pl.col(name)), table.dialect).alias(f"new {name}") for name in targets)
        )
        joined = table.rows.with_columns(self._row_keys).join(new, on="key", how="left", maintain_order="left")
        rows = joined.select(
            [
                pl.coalesce(f"new {name}", name).alias(name) if name in targets else pl.col(name)
                for name in table.rows.columns
            ]
        )
        return replace(table, rows=rows)

    def _guarded(self, text: pl.Expr) -> pl.Expr:
        if not self._guard_formulas:
            return text
        risky = text.str.slice(0, 1).is_in(list(FORMULA_STARTS))
        return pl.when(risky).then(pl.concat_str(pl.lit("'"), text)).otherwise(text)


def guarded(text: str) -> str:
    """Return the text of a cell for the text of an event, as `Fold` makes it unless it is told not to."""
    return f"'{text}" if text[:1] and text[0] in FORMULA_STARTS else text


def _names(known: Iterable[str], found: Iterable[Event]) -> Iterator[str]:
    yield from known
    for event in found:
        yield from event.cells


def _rank(spelling: str) -> tuple[int, str]:
    """Return the place of a column among those that one event sets first: the well-known ones, then by name."""
    well_known = list(COLUMNS.values())
    return (well_known.index(spelling) if spelling in well_known else len(well_known), spelling)


def _schema(spellings: list[str]) -> dict[str, pl.DataType]:
    cells = pl.Struct(dict.fromkeys(spellings, pl.String))
    return {"kind": pl.String(), "key": pl.String(), "set": cells}


def _parsed(lines: bytes, count: int, spellings: list[str]) -> pl.DataFrame | None:
    """Return the lines as a frame, or None when Polars does not read them or leaves something out."""
    try:
        frame = pl.read_ndjson(lines, schema=_schema(spellings))
    except pl.exceptions.PolarsError:
        return None
    cells = frame.get_column("set").struct.unnest()
    texts = sum(column.len() - column.null_count() for column in cells.iter_columns())
    members = lines.count(b'":') - lines.count(b'\\":')
    adds_up = lines.count(b'":"') == texts + _FIXED_TEXTS * count and members == texts + _FIXED_MEMBERS * count
    missing = frame.get_column("key").null_count() + frame.get_column("kind").null_count()
    return frame if adds_up and frame.height == count and not missing else None


def _framed(found: list[Event], spellings: list[str]) -> pl.DataFrame:
    rows = [{"kind": event.kind, "key": event.key, "set": dict(event.cells)} for event in found]
    if not rows:
        return pl.DataFrame(schema=_schema(spellings))
    return pl.read_ndjson(b"\n".join(map(orjson.dumps, rows)), schema=_schema(spellings))


def _last_per_key(parts: list[pl.DataFrame]) -> pl.DataFrame:
    every = pl.concat(parts, how="diagonal") if len(parts) > 1 else parts[0]
    return every.group_by("key").agg(pl.exclude("key").last(ignore_nulls=True))


def _report_unknown_kinds(frame: pl.DataFrame) -> None:
    kinds = set(frame.get_column("kind").unique()) - {kind.value for kind in Kind}
    if kinds:
        masking.get_logger().warning(
            "log.unknown_kind", kinds=sorted(kinds), advice="a newer eventcsv may have written them"
        )
