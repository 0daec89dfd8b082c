"""Many lines of the log at once, as a frame. Pure. Every line is checked, and what looks odd is read one by one.

A line without a backslash has its texts between quotation marks and nowhere else, so cut at each of them it is a row of
a CSV, which Polars reads three times as fast as JSON: every fourth cell is a name, the one after the next its value.
Where names and colons stand as `event.encode` puts them the line is what it looks like. Other lines are parsed by
themselves; when one of them is damaged, the whole chunk is left to `scan`.

The checksum is checked without cutting a line at it: zlib.crc32 of a whole line is that of its body, which the line
claims to be `h`, continued over its last bytes, which spell `h`. So it depends on `h` alone, and in a way that each of
the four bytes of `h` adds to by exclusive or, which four small tables hold.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import cache, reduce
from io import BytesIO
from itertools import takewhile
from operator import and_, or_
from typing import TYPE_CHECKING, Final
from zlib import crc32

import polars as pl

from eventcsv.errors import UnsupportedFormat
from eventcsv.event import FORMAT_VERSION, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from eventcsv.event import Event
    from eventcsv.scan import Chunk

SET: Final = "set "
"""What the columns of a frame begin with that hold the cells of events."""

# The cells of a line: {"v":1,"id":"...","ts":"...","kind":"...","key":"...","set":{"NAME":"...",...},"crc":"..."}
_FIXED: Final = {2: f":{FORMAT_VERSION},", 11: "kind", 15: "key", 19: "set"}
_KIND: Final = 13
_KEY: Final = 17
_FIRST_NAME: Final = 21
_QUOTES_OF_NONE: Final = 24
_LAST_NAME: Final = "crc"
_SAMPLE: Final = 256
_SAMPLE_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Bulk:
    """The lines of a chunk, not yet believed.

    Attributes:
        chunk: The chunk.
        lines: Its lines, header left out.
        crcs: zlib.crc32 of each of them, newline included.
    """

    chunk: Chunk
    lines: bytes
    crcs: array[int]


def bulk_of(chunk: Chunk) -> Bulk:
    """Return the lines of a chunk with what takes Python's lock to find out.

    Raises:
        UnsupportedFormat: The segment was made by a newer eventcsv.
    """
    lines = chunk.body
    return Bulk(chunk, lines, array("I", map(crc32, BytesIO(lines))))


def parsed(bulk: Bulk) -> pl.DataFrame | None:
    """Return the events, in order, as a frame, or None when a line is damaged.

    The columns are `kind`, `key` and, for every column that an event sets, `SET` and its name.
    """
    members = max(line.count(b'"') for line in bulk.lines[:_SAMPLE_BYTES].split(b"\n")) - _QUOTES_OF_NONE
    cut = _cut(bulk.lines, max(0, members // 4))
    if cut is None or cut.height != len(bulk.crcs):
        return None
    cut = cut.with_row_index("row").with_columns(pl.Series("line crc", bulk.crcs, dtype=pl.UInt32))
    parts: list[pl.DataFrame] = []
    odd: list[int] = []
    for names in _shapes(cut):
        alike, cut = _parted(cut, _has_shape(names))
        if b"\\" in bulk.lines:
            escaped, alike = _parted(alike, _has_escape(names))
            odd.extend(escaped.get_column("row"))
        if not _is_whole(alike.get_column(_cell(len(names), 2)), alike.get_column("line crc")):
            return None
        parts.append(_events_of(alike, names))
    return _with_odd(parts, [*odd, *cut.get_column("row")], bulk)


def framed(found: Sequence[Event], rows: Iterable[int]) -> pl.DataFrame:
    """Return events that were parsed one by one as a frame such as `parsed` returns, with a column `row`."""
    names = dict.fromkeys(name for event in found for name in event.cells)
    cells = {SET + name: pl.Series([event.cells.get(name) for event in found], dtype=pl.String) for name in names}
    head = {"row": pl.Series(list(rows), dtype=pl.UInt32)}
    head |= {"kind": pl.Series([event.kind for event in found], dtype=pl.String)}
    head |= {"key": pl.Series([event.key for event in found], dtype=pl.String)}
    return pl.DataFrame(head | cells)


def _cell(member: int, place: int) -> str:
    """Return the column of a member's name (0), of what stands behind it (1), or of its value (2)."""
    return str(_FIRST_NAME + 4 * member + place)


def _is_name(column: str) -> bool:
    return column.isdecimal() and int(column) >= _FIRST_NAME and (int(column) - _FIRST_NAME) % 4 == 0


def _cut(lines: bytes, members: int) -> pl.DataFrame | None:
    """Return the cells that matter of lines that set up to so many columns, cut at quotation marks."""
    cells = [_cell(member, place) for member in range(members + 1) for place in range(3)]
    wanted = sorted((*_FIXED, _KIND, _KEY, *map(int, cells)))
    try:
        return pl.read_csv(
            lines,
            has_header=False,
            separator='"',
            quote_char=None,
            schema=dict.fromkeys(map(str, range(int(cells[-1]) + 3)), pl.String),
            columns=wanted,
            empty_string_is_null=False,
            missing_columns="insert",
            extra_columns="ignore",
            truncate_ragged_lines=True,
        )
    except pl.exceptions.PolarsError:
        return None


def _parted(cut: pl.DataFrame, test: pl.Expr) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the lines that pass a test and those that do not; copied only when there are both."""
    passes = cut.select(test).to_series()
    count = passes.sum()
    if count in {0, cut.height}:
        return (cut, cut.clear()) if count else (cut.clear(), cut)
    return cut.filter(passes), cut.filter(~passes)


def _shapes(cut: pl.DataFrame) -> Iterator[tuple[str, ...]]:
    """Yield the columns that lines set, for all combinations that a sample of the lines shows."""
    sample = cut.gather_every(cut.height // _SAMPLE + 1)
    cells = [sample.get_column(name) for name in sample.columns if _is_name(name)]
    for row in dict.fromkeys(zip(*cells, strict=True)):
        names = list(takewhile(bool, row))
        if names and names.pop() == _LAST_NAME and len({*names}) == len(names):
            yield tuple(names)


def _has_shape(names: Sequence[str]) -> pl.Expr:
    """Tell which lines set just these columns."""
    every = [*names, _LAST_NAME]
    tests = [pl.col(str(place)) == text for place, text in _FIXED.items()]
    tests += [pl.col(_cell(member, 0)) == name for member, name in enumerate(every)]
    tests += [pl.col(_cell(member, 1)) == ":" for member in range(len(every))]
    return reduce(and_, (test.fill_null(value=False) for test in tests))


def _has_escape(names: Sequence[str]) -> pl.Expr:
    texts = [str(_KEY), *(_cell(member, 2) for member in range(len(names)))]
    return reduce(or_, (pl.col(column).str.contains("\\", literal=True) for column in texts))


def _events_of(alike: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    cells = {SET + name: _cell(member, 2) for member, name in enumerate(names)}
    return alike.select("row", kind=str(_KIND), key=str(_KEY), **cells)


def _with_odd(parts: list[pl.DataFrame], odd: list[int], bulk: Bulk) -> pl.DataFrame | None:
    """Return the parts together with what is parsed line by line, in order, or None when one of that is damaged."""
    if odd:
        lines = bulk.lines.split(b"\n")
        try:
            parts = [*parts, framed([decode(lines[row]) for row in odd], odd)]
        except (ValueError, UnsupportedFormat):
            return None
    every = parts[0] if len(parts) == 1 else pl.concat(parts, how="diagonal").sort("row")
    return every.drop("row")


# --- checksums ---------------------------------------------------------------------------------------------------


def _is_whole(claimed: pl.Series, crcs: pl.Series) -> bool:
    """Tell whether lines have the checksums that they claim, in hex, by zlib.crc32 of each of them."""
    numbers = claimed.str.to_integer(base=16, dtype=pl.UInt32, strict=False)
    if numbers.null_count():
        return False
    of_nothing, tables = _tables()
    expected = pl.Series([of_nothing], dtype=pl.UInt32).new_from_index(0, numbers.len())
    for place, table in enumerate(tables):
        expected = expected ^ table.gather((numbers // (1 << 8 * place)) % 256)
    return bool((expected == crcs).all())


def _crc_of_line(claimed: int) -> int:
    """Return zlib.crc32 of any whole line that claims this checksum."""
    return crc32(b',"crc":"%08x"}\n' % claimed, claimed)


@cache
def _tables() -> tuple[int, list[pl.Series]]:
    """Return `_crc_of_line` of 0, and what each value of each byte, the lowest first, changes about it."""
    of_nothing = _crc_of_line(0)
    changes = [[_crc_of_line(value << 8 * place) ^ of_nothing for value in range(256)] for place in range(4)]
    return of_nothing, [pl.Series(change, dtype=pl.UInt32) for change in changes]
