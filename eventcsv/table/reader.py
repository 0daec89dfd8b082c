"""A strict read of a CSV.

Two readers lead to the raw cells. The fast one lets Polars parse the file and is believed only when writing its result
gives the same bytes again. Whatever is not so regular (cells quoted without need, a bare quote as in `5" pipe`, blank
lines) goes to the careful one, which reads what Python's csv module reads without doubt and refuses the rest with line
and reason.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import polars as pl

from eventcsv.errors import InvalidCsv
from eventcsv.event import COLUMNS, column_id
from eventcsv.table.cells import DELIMITERS, cells, check_no_workbook, find_header, line_of
from eventcsv.table.table import BOM, Dialect, Table, body, raw_of, special

if TYPE_CHECKING:
    from collections.abc import Sequence

_UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_SHOWN: Final = 80


def parse(
    data: bytes,
    *,
    source: str,
    key: str,
    delimiter: str | None = None,
    encoding: str | None = None,
    quotes_marks: bool = False,
    status_column: str = COLUMNS["status"],
) -> Table:
    """Read a CSV strictly.

    Args:
        data: The bytes of the file.
        source: Its path, for errors.
        key: The name of the column that identifies a row, case and surrounding blanks aside.
        delimiter: Between cells, one ASCII character; by default what a line `sep=;` says, else the one of
            ; , TAB | that shows the key column.
        encoding: As Python names it; by default UTF-8. Another becomes UTF-8 with a byte order mark, for spreadsheets.
        quotes_marks: How texts are going to be written, see `Dialect`; how they are likely to be written.
        status_column: What the column is called that says what came of a row; it need not be there.

    Raises:
        InvalidCsv: It cannot be read without guessing; the error names the line and the reason.
    """
    _check_delimiter(delimiter, source)
    text, utf8, has_bom = _decoded(data, source, encoding)
    head = find_header(text, source=source, key=key, delimiter=delimiter)
    dialect = Dialect(
        delimiter=head.delimiter,
        newline=head.newline,
        ends_in_newline=text[-1] in "\r\n",
        has_bom=has_bom,
        quotes_all=all(cell.startswith('"') for cell in head.raw),
        quotes_marks=quotes_marks,
        sep_line=head.sep_line,
    )
    rows = _fast(bytes(utf8[len(text[: head.start].encode()) :]), dialect, len(head.raw))
    if rows is None:
        rows = _careful(text, head.start, dialect, len(head.raw), source)
        if delimiter is None and not head.sep_line:
            _check_lone_column(rows, source)
    return Table(
        dialect, head.raw, head.names, [*map(column_id, head.names)].index(column_id(key)), rows, status_column
    )


def shows_delimiter(table: Table) -> bool:
    """Tell whether whoever reads a CSV finds what separates it without being told."""
    dialect = table.dialect
    head = f"{dialect.sep_line}{dialect.delimiter.join(table.header)}{dialect.newline}"
    try:
        return find_header(head, source="", key=table.names[table.key]).delimiter == dialect.delimiter
    except InvalidCsv:
        return False


def _check_delimiter(delimiter: str | None, source: str) -> None:
    if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n'):
        raise InvalidCsv(f"{source}: a delimiter is one ASCII character, no quote and no line end; not {delimiter!r}")


def _decoded(data: bytes, source: str, encoding: str | None) -> tuple[str, memoryview, bool]:
    """Return the text of the file, its UTF-8, and whether it is to be written with a byte order mark."""
    if encoding is not None and not data.startswith(BOM):
        return _decoded_as(data, source, encoding)
    check_no_workbook(data, source)
    if data.startswith(_UTF16_BOMS):
        raise InvalidCsv(
            f"{source}: is UTF-16, not UTF-8. Save it as 'CSV UTF-8', or name the encoding: --encoding utf-16"
        )
    has_bom = data.startswith(BOM)
    utf8 = memoryview(data)[len(BOM) * has_bom :]  # a copy takes as long as all of this
    try:
        text = str(utf8, "utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start + len(data) - len(utf8)) + 1
        raise InvalidCsv(
            f"{source}, line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8. Save it as 'CSV UTF-8', "
            "or name its encoding, for instance --encoding cp1252 for a file of Western European Excel"
        ) from None
    if re.match("[^\r\n]*\0", text):
        order = "be" if text.startswith("\0") else "le"
        raise InvalidCsv(
            f"{source}, line 1: holds NUL characters, as UTF-16 does. Name the encoding: --encoding utf-16-{order}"
        )
    return text, utf8, has_bom


def _decoded_as(data: bytes, source: str, encoding: str) -> tuple[str, memoryview, bool]:
    try:
        text = data.decode(encoding)
        utf8 = text.encode()
    except LookupError:
        raise InvalidCsv(f"{source}: there is no encoding {encoding!r}; try utf-8, cp1252, utf-16 or latin-1") from None
    except UnicodeError as error:
        raise InvalidCsv(f"{source}: is not {encoding}: {error}. Name the encoding that it was saved in") from None
    if len(text) == len(data) and not data.isascii():
        with suppress(
            UnicodeDecodeError
        ):  # bytes that were not meant as UTF-8 hardly ever are: it was converted before
            return data.decode(), memoryview(data), False
    was_utf8 = encoding.lower().replace("-", "").replace("_", "") in {"utf8", "utf8sig"}
    return text.removeprefix("\ufeff"), memoryview(utf8.removeprefix(BOM)), not was_utf8


def _fast(data: bytes, dialect: Dialect, width: int) -> pl.DataFrame | None:
    """Read regular rows, or return None when they are not regular: when writing their cells does not give `data`."""
    columns = list(map(str, range(width)))
    if not data:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    # A lone column hides blank lines and foreign delimiters.
    texts = _texts(data, dialect, columns) if width > 1 else None
    if texts is None:
        return None
    has_quotes = b'"' in data
    plain, wide = (replace(dialect, quotes_all=False, quotes_marks=marks) for marks in (False, True))
    marked = _holding(special(wide), texts) if has_quotes or b"\r" in data else []
    if _has_lone_return(texts.select(marked), data):
        return None
    likely = [wide, plain] if dialect.quotes_marks else [plain, wide]
    for how in [dialect] if dialect.quotes_all else likely:
        rows = texts.with_columns(raw_of(pl.all() if how.quotes_all else pl.col(marked), how))
        if _gives_again(rows, dialect, data):
            return rows
        if not has_quotes:
            return None
    return _cut(data, dialect, columns)


def _holding(pattern: str, texts: pl.DataFrame) -> list[str]:
    """Return the columns in which a text holds a pattern."""
    found = texts.select(pl.all().str.contains(pattern).any()).row(0)
    return [column for column, is_found in zip(texts.columns, found, strict=True) if is_found]


def _cut(data: bytes, dialect: Dialect, columns: Sequence[str]) -> pl.DataFrame | None:
    """Read rows in which cells are quoted now and then without need, cut by a pattern, or return None."""
    mark, newline = re.escape(dialect.delimiter), dialect.newline
    cell = rf'(?:"[^"]*(?:""[^"]*)*"|[^"{mark}\r\n][^{mark}\r\n]*)?'
    text = data.decode() if dialect.ends_in_newline else data.decode() + newline
    cells = pl.Series([text]).str.extract_all(f"{cell}(?:{mark}|{newline})").explode()
    if cells.len() % len(columns):
        return None
    ends = [*[dialect.delimiter] * (len(columns) - 1), newline]
    rows = pl.DataFrame(
        {
            column: cells.gather_every(len(columns), index).str.strip_suffix(end)
            for index, (column, end) in enumerate(zip(columns, ends, strict=True))
        }
    )
    return rows if _gives_again(rows, dialect, data) else None


def _texts(data: bytes, dialect: Dialect, columns: Sequence[str]) -> pl.DataFrame | None:
    """Return the text of all cells as Polars reads them, or None when it does not."""
    try:
        return pl.read_csv(
            data,
            has_header=False,
            separator=dialect.delimiter,
            schema=dict.fromkeys(columns, pl.String),
            empty_string_is_null=False,
            missing_columns="raise",
        )
    except pl.exceptions.PolarsError:
        return None


def _has_lone_return(texts: pl.DataFrame, data: bytes) -> bool:
    """Tell whether a carriage return without a newline is in cells: to some it is a line end, to others text."""
    if data.count(b"\r") == data.count(b"\r\n"):
        return False
    return any(column.str.contains("\r", literal=True).any() for column in texts)


def _gives_again(rows: pl.DataFrame, dialect: Dialect, data: bytes) -> bool:
    written = body(rows, dialect)
    return (written if dialect.ends_in_newline else written.removesuffix(dialect.newline.encode())) == data


def _careful(text: str, start: int, dialect: Dialect, width: int, source: str) -> pl.DataFrame:
    """Read the rows, which begin at `start`, one by one."""
    flat: list[str] = []
    row: list[str] = []
    for cell, separator, end in cells(text, dialect.delimiter, source, start):
        row.append(cell)
        if separator == dialect.delimiter:
            continue
        if (separator == "\r") != (dialect.newline == "\r") and separator:
            line = line_of(text, end - 1)
            raise InvalidCsv(
                f"{source}, line {line}: ends in {separator!r}, the first line in {dialect.newline!r}. "
                "Is a lone carriage return a line end here, or part of a cell? Save the file again, or quote the cell"
            )
        if row != [""]:  # a blank line says nothing
            if len(row) != width:
                raise _ragged(source, line_of(text, start), row, width)
            flat += row
        row = []
        start = end
    columns = {str(index): flat[index::width] for index in range(width)}
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def _check_lone_column(rows: pl.DataFrame, source: str) -> None:
    for cell in rows.to_series() if rows.width == 1 else ():
        if not cell.startswith('"') and (found := [mark for mark in DELIMITERS[1:] if mark in cell]):
            raise InvalidCsv(
                f"{source}: {cell[:_SHOWN]!r} could be one cell or several, as the header has one column only. "
                f"If it is one cell, say --delimiter ';', if several, --delimiter {found[0]!r}"
            )


def _ragged(source: str, line: int, row: Sequence[str], width: int) -> InvalidCsv:
    how = (
        f"Mend the line: it lacks {width - len(row)}, which may be empty"
        if len(row) < width
        else "Mend the line, or quote the cell that holds the delimiter"
    )
    return InvalidCsv(
        f"{source}, line {line}: {len(row)} instead of {width} cells: {' | '.join(row)[:_SHOWN]!r}. {how}"
    )
