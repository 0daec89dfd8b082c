"""Many lines of the log at once, as a frame. Pure. Every line is checked, and what looks odd is read one by one.

A line without a backslash has its texts between quotation marks and nowhere else, so cut at each of them it is a row of
a CSV, which Polars reads three times as fast as JSON. Which cells are values depends on the columns that the line sets,
and so does what stands between them: a line is believed to be of one kind with others when what `line.encode` would
write for its values is the same line again. Other lines are parsed by themselves; when one of them is damaged, the
whole chunk is left to `scan`.

The checksum is checked without cutting a line at it: zlib.crc32 of a whole line is that of its body, which the line
claims to be `h`, continued over its last bytes, which spell `h`. So it depends on `h` alone, and in a way that each of
the four bytes of `h` adds to by exclusive or, which four small tables hold.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Final
from zlib import crc32

import polars as pl

from eventcsv.errors import UnsupportedFormat
from eventcsv.event import Kind
from eventcsv.log.line import FORMAT_VERSION, decode
from eventcsv.log.scan import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from eventcsv.event import Event
    from eventcsv.log.scan import Chunk
    from eventcsv.log.types import Damage

SET: Final = "set "
"""What the columns of a frame begin with that hold the cells of events."""

# The cells of a line: {"v":1,"id":"...","ts":"...","kind":"...","key":"...","set":{"NAME":"...",...},"crc":"..."}
_ID: Final = 5
_TS: Final = 9
_KIND: Final = 13
_KEY: Final = 17
_FIRST_NAME: Final = 21
_QUOTES_OF_NONE: Final = 24
_FIRST_PRINTABLE: Final = 32  # what comes before it JSON has escaped
_LINES_AT_ONCE: Final = 2_048  # so few that the memory for their bytes is had again without asking the system
_NEVER: Final = "\x01"  # so it separates nothing
_SAMPLE: Final = 128
FEW_LINES: Final = 500
"""Up to so many lines are parsed one by one sooner than at once."""
_WORTH_IT: Final = 1 / 16  # of the lines that a kind is looked for in: so much dearer is one by one


@dataclass(frozen=True, slots=True)
class Parsed:
    """The events of a chunk.

    Attributes:
        chunk: The chunk.
        frame: The events, in order. The columns are `kind`, `key` and, for every column that an event sets, `SET` and
            its name.
        event_of: Returns the event of a row.
        damage: What was read around.
    """

    chunk: Chunk
    frame: pl.DataFrame
    event_of: Callable[[int], Event]
    damage: tuple[Damage, ...]

    def left_by(self, save: str) -> list[int]:
        """Return the rows of the edits whose ids begin with `save`."""
        is_edit = self.frame.get_column("kind") == Kind.EDIT.value
        return [row for row in is_edit.arg_true() if self.event_of(row).id.startswith(save)]


def parsed(chunk: Chunk) -> Parsed:
    """Return the events of a chunk, and its damage, lines that do not parse included.

    Raises:
        UnsupportedFormat: The segment, or a line of it, was made by a newer eventcsv.
    """
    lines = chunk.body
    crcs = array("I", map(crc32, BytesIO(lines)))
    frame = framed_at_once(lines, crcs) if len(crcs) > FEW_LINES else None
    if frame is not None:
        single = cache(lambda: lines.split(b"\n"))
        return Parsed(chunk, frame, lambda row: decode(single()[row]), chunk.gap)
    found, damage = events(chunk) if lines else ([], chunk.damage)
    return Parsed(chunk, framed(found), found.__getitem__, damage)


def framed_at_once(lines: bytes, crcs: array[int]) -> pl.DataFrame | None:
    """Return events as a frame, or None when a line is damaged or there is a doubt.

    Args:
        lines: Whole lines, each with its newline.
        crcs: zlib.crc32 of each of them, newline included.
    """
    cut = _cut(lines, crcs)
    if cut is None:
        return None
    escaped, rest = cut.clear(), cut
    if b"\\" in lines:
        escaped, rest = _parted(cut, pl.col("line").str.contains("\\", literal=True))
    parts: list[pl.DataFrame] = []
    while rest.height > FEW_LINES and (names := _commonest(rest)) is not None:
        before = rest.height
        alike, rest = _parted(rest, _written(names) == pl.col("line"))
        if not _is_whole(alike.get_column(_value(len(names))), alike.get_column("line crc")):
            return None
        parts.append(_events_of(alike, names))
        if alike.height < before * _WORTH_IT:
            break
    return _with_odd(parts, [escaped, rest])


def framed(found: Sequence[Event]) -> pl.DataFrame:
    """Return events that were parsed one by one as a frame."""
    names = dict.fromkeys(name for event in found for name in event.cells)
    cells = {SET + name: [event.cells.get(name) for event in found] for name in names}
    columns = {"kind": [event.kind for event in found], "key": [event.key for event in found], **cells}
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def _value(member: int) -> str:
    """Return the column of the value of a member of "set", or, behind its last one, of the checksum."""
    return str(_FIRST_NAME + 4 * member + 2)


def _cut(raw: bytes, crcs: array[int]) -> pl.DataFrame | None:
    """Return lines, their checksums and the cells that may be values, or None when there is a doubt."""
    try:
        lines = _read(raw, _NEVER, ["line"]).to_series()
        if lines.len() != len(crcs) or lines.str.len_bytes().sum() + lines.len() != len(raw):
            return None  # something was left out
        if _has_controls(lines):
            return None
        most = max(line.count('"') for line in _sample(lines))
        values = [_value(member) for member in range(max(0, (most - _QUOTES_OF_NONE) // 4) + 1)]
        cells = list(map(str, range(int(values[-1]) + 3)))
        cut = _read(raw, '"', cells, [_ID, _TS, _KIND, _KEY, *map(int, values)])
    except pl.exceptions.PolarsError:
        return None
    of_lines = pl.Series("line crc", crcs, dtype=pl.UInt32)
    return cut.with_columns(lines, of_lines).with_row_index("row") if cut.height == lines.len() else None


def _has_controls(lines: pl.Series) -> bool:
    """Tell whether raw control characters are in lines, which are no JSON then."""
    starts = range(0, lines.len(), _LINES_AT_ONCE)
    slices = (lines.slice(start, _LINES_AT_ONCE) for start in starts)
    return any((part.cast(pl.Binary).cast(pl.List(pl.UInt8)).explode() < _FIRST_PRINTABLE).any() for part in slices)


def _read(lines: bytes, separator: str, cells: Sequence[str], wanted: Sequence[int] | None = None) -> pl.DataFrame:
    return pl.read_csv(
        lines,
        has_header=False,
        separator=separator,
        quote_char=None,
        schema=dict.fromkeys(cells, pl.String),
        columns=wanted,
        empty_string_is_null=False,
        missing_columns="insert",
        extra_columns="ignore",
        truncate_ragged_lines=True,
    )


def _sample(lines: pl.Series) -> pl.Series:
    """Return some of the lines, at random: what they set may come in turns. The same ones each time."""
    return lines.sample(min(lines.len(), _SAMPLE), seed=1)


def _parted(cut: pl.DataFrame, test: pl.Expr) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the lines that pass a test and those that do not; copied only when there are both."""
    passes = cut.select(test.fill_null(value=False)).to_series()
    count = passes.sum()
    if count in {0, cut.height}:
        return (cut, cut.clear()) if count else (cut.clear(), cut)
    return cut.filter(passes), cut.filter(~passes)


def _commonest(cut: pl.DataFrame) -> tuple[str, ...] | None:
    """Return the columns that most of a sample of the lines set, or None when no line looks like one of ours."""
    shapes = Counter(tuple(line.split('"')[_FIRST_NAME::4]) for line in _sample(cut.get_column("line")))
    for shape, _ in shapes.most_common():
        names = shape[:-1]
        if shape[-1:] == ("crc",) and _value(len(names)) in cut.columns:
            return names
    return None


def _written(names: Sequence[str]) -> pl.Expr:
    """Return what `line.encode` writes for the cells of lines that set these columns."""
    between = [f'{{"v":{FORMAT_VERSION},"id":"', '","ts":"', '","kind":"', '","key":"']
    values = [str(cell) for cell in (_ID, _TS, _KIND, _KEY)]
    between += [f'","{name}":"' if member else f'","set":{{"{name}":"' for member, name in enumerate(names)]
    between += ['"},"crc":"' if names else '","set":{},"crc":"', '"}']
    values += [_value(member) for member in range(len(names) + 1)]
    pairs = zip(between, [*map(pl.col, values), pl.lit("")], strict=True)
    return pl.concat_str([item for text, cell in pairs for item in (pl.lit(text), cell)])


def _events_of(alike: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    cells = {SET + name: _value(member) for member, name in enumerate(names)}
    return alike.select("row", kind=str(_KIND), key=str(_KEY), **cells)


def _with_odd(parts: list[pl.DataFrame], odd: Iterable[pl.DataFrame]) -> pl.DataFrame | None:
    """Return the parts together with what is parsed line by line, in order, or None when one of that is damaged."""
    try:
        for cut in odd:
            if cut.height:
                frame = framed([decode(line.encode()) for line in cut.get_column("line")])
                parts = [*parts, frame.insert_column(0, cut.get_column("row"))]
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
