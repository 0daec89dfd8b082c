"""The text of a CSV cut into raw cells, and its header found. Pure, and light: a worker looks here, too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from eventcsv.errors import InvalidCsv, NoKeyColumn
from eventcsv.event import OLE, ZIP, column_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DELIMITERS: Final = (";", ",", "\t", "|")
_SEP_LINE: Final = re.compile(r'"?(?i:sep)=([\t\x20\x21\x23-\x7e])"?[;,\t|]*(?:\r\n|\n|\r)')
_MOST_TITLE_LINES: Final = 50
_TITLES: Final = 1 << 16
_SHOWN: Final = 80
_NAMES_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Header:
    """What names the columns.

    Attributes:
        raw: Its raw cells.
        names: Their text.
        start: Where the rows begin.
        delimiter: Between cells.
        newline: What it ends in.
        sep_line: The line before it by which Excel is told the delimiter, `sep=;`, with its line end; or "".
    """

    raw: tuple[str, ...]
    names: tuple[str, ...]
    start: int
    delimiter: str
    newline: str
    sep_line: str = ""


def check_no_workbook(data: bytes, source: str) -> None:
    """Refuse a workbook, which people take for a CSV.

    Args:
        data: Its bytes, or the first ones.
        source: What the CSV is called, for the error.

    Raises:
        InvalidCsv: It is one.
    """
    if data.startswith((ZIP, OLE)):
        raise InvalidCsv(
            f"{source}: is an Excel workbook or another ZIP file. Save it as 'CSV UTF-8', "
            "or make a CSV of an .xlsx with eventcsv import"
        )


def find_header(text: str, *, source: str, key: str, delimiter: str | None = None) -> Header:
    """Find the header: the first record, or the one after a line `sep=;`.

    Args:
        text: The CSV, or its beginning.
        source: Its path, for errors.
        key: The name of the column that identifies a row, case and surrounding blanks aside.
        delimiter: Between cells; by default what a line `sep=;` says, else the one of ; , TAB | that shows the key.

    Raises:
        NoKeyColumn: No column has that name.
        InvalidCsv: It cannot be read, is no header, or names a column twice.
    """
    if not text or text.isspace():
        raise InvalidCsv(f"{source}: is empty. The first line has to name the columns, {key} among them")
    sep = _SEP_LINE.match(text)
    at = sep.end() if sep else 0
    candidates = (delimiter or (sep[1] if sep else ""),)
    wanted = column_id(key)
    # Which trial was the best one, by how many cells it began: only what is wrong with that one is worth telling.
    most, best, broken = 0, tuple[str, ...](), None
    for candidate in candidates if candidates[0] else DELIMITERS:
        raw: list[str] = []
        try:
            start, newline = _first_record(text, candidate, source, at, raw)
        except InvalidCsv as error:
            if len(raw) + 1 > most:
                most, broken = len(raw) + 1, error
            continue
        names = tuple(map(cell_text, raw))
        if any(column_id(name) == wanted for name in names):
            _check_names(names, f"{source}, line {line_of(text, at)}")
            return Header(tuple(raw), names, start, candidate, newline, sep[0] if sep else "")
        if len(raw) > most or (len(raw) == most and broken):
            most, best, broken = len(raw), names, None
    if broken:
        raise broken
    raise _no_header(text[at:], best, source=source, line=line_of(text, at), key=key, delimiter=candidates[0])


def _first_record(text: str, delimiter: str, source: str, at: int, raw: list[str]) -> tuple[int, str]:
    """Put the raw cells of a record into `raw`, and return where it ends, and in what."""
    for cell, separator, end in cells(text, delimiter, source, at):
        raw.append(cell)
        if separator != delimiter:
            return end, separator or "\n"
    return len(text), "\n"


def _check_names(names: Sequence[str], where: str) -> None:
    taken: dict[str, str] = {}
    for name in names:
        ident = column_id(name)
        if ident in taken:
            raise InvalidCsv(
                f"{where}: the columns {taken[ident]!r} and {name!r} have the same name, so nobody can tell "
                "which one a result belongs to. Rename one of them"
            )
        if ident:  # columns without a name are left in peace: no event can mean them
            taken[ident] = name


def _no_header(text: str, names: Sequence[str], *, source: str, line: int, key: str, delimiter: str) -> InvalidCsv:
    """Return what to say of a first line that is no header."""
    what = "is blank" if names in {(), ("",)} else f"has no column {key!r}"
    later = _line_with(text, key, delimiter)
    if later:
        above = "the line" if later == 1 else f"the {later:,} lines"
        advice = f"Remove {above} above it: a CSV begins with the names of its columns"
        return NoKeyColumn(f"{source}, line {line}: {what}; line {line + later:,} has it", advice, line + later)
    if what == "is blank":
        return InvalidCsv(f"{source}, line {line}: is blank. The first line has to name the columns, {key} among them")
    columns = ", ".join(repr(name[:_SHOWN]) for name in names[:_NAMES_SHOWN])
    more = f" and {len(names) - _NAMES_SHOWN:,} more" if len(names) > _NAMES_SHOWN else ""
    return NoKeyColumn(
        f"{source}, line {line}: {what}; it has {columns}{more}",
        "Name the key column with --key, or the delimiter with --delimiter",
    )


def _line_with(text: str, key: str, delimiter: str) -> int | None:
    """Return how many lines further down one would do as a header, below titles and the like; None without one."""
    lines = re.finditer(r"[^\r\n]*(?:\r\n|\n|\r|\Z)", text[:_TITLES])
    for number, (found, _) in enumerate(zip(lines, range(_MOST_TITLE_LINES), strict=False)):
        for candidate in (delimiter,) if delimiter else DELIMITERS:
            raw: list[str] = []
            try:
                _first_record(found[0], candidate, "", 0, raw)
            except InvalidCsv:
                continue
            if any(column_id(cell_text(cell)) == column_id(key) for cell in raw):
                return number
    return None


# --- cells ---------------------------------------------------------------------------------------------------------


def cell_text(raw: str) -> str:
    """Return the text of one raw cell."""
    return raw[1:-1].replace('""', '"') if raw.startswith('"') else raw


def line_of(text: str, at: int) -> int:
    """Return the number, from 1, of the line in which a character stands."""
    return text.count("\n", 0, at) + text.count("\r", 0, at) - text.count("\r\n", 0, at) + 1


def cells(text: str, delimiter: str, source: str, at: int) -> Iterator[tuple[str, str, int]]:
    """Yield each raw cell from `at` on, what ends it (delimiter, line end, "" at the end) and where that ends.

    Raises:
        InvalidCsv: A quote is opened and never closed, or text follows a closing one.
    """
    mark = re.escape(delimiter)
    pattern = re.compile(rf'("[^"]*+(?:""[^"]*+)*+"|[^"{mark}\r\n][^{mark}\r\n]*|)({mark}|\r\n|\n|\r|\Z)')
    open_row = False
    while at < len(text) or open_row:  # behind a delimiter there is one more cell, even at the end of the file
        found = pattern.match(text, at)
        if found is None:
            raise _broken_quotes(text, at, source)
        at = found.end()
        open_row = found[2] == delimiter
        yield found[1], found[2], at


def _broken_quotes(text: str, at: int, source: str) -> InvalidCsv:
    where = f"{source}, line {line_of(text, at)}"
    closed = re.compile(r'"[^"]*+(?:""[^"]*+)*+"').match(text, at)
    if closed is None:
        return InvalidCsv(f"{where}: a quote is opened and never closed: {text[at : at + 40]!r}. Close it")
    return InvalidCsv(
        f"{where}: text follows a closing quote: {text[at : closed.end() + 20][:_SHOWN]!r}. "
        'Write a quote within a quoted cell as ""'
    )
