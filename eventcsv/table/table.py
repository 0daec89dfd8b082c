"""The CSV in memory: what dialect it has, its cells, and a faithful write.

Cells are kept raw, as they stand in the file, quotes included, so that a cell that no event touches is written back to
the byte.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import polars as pl

from eventcsv.event import BLANKS, COLUMNS, column_id
from eventcsv.table.cells import DELIMITERS

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_DELIMITER: Final = ";"
BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV is written.

    Attributes:
        delimiter: Between cells, one character.
        newline: Between rows.
        ends_in_newline: Whether the last row has one too.
        has_bom: Whether the file starts with the UTF-8 byte order mark, by which Excel knows UTF-8.
        quotes_all: Whether cells are quoted, needed or not, as all of the header's are.
        quotes_marks: Whether texts that eventcsv writes are quoted for any of ; , TAB | in them, too: a spreadsheet
            whose dialog splits at several of them leaves them whole then. A job that began without goes on without.
        sep_line: The line before the header by which Excel is told the delimiter, `sep=;`, with its line end; or "".
    """

    delimiter: str = DEFAULT_DELIMITER
    newline: str = "\n"
    ends_in_newline: bool = True
    has_bom: bool = False
    quotes_all: bool = False
    quotes_marks: bool = False
    sep_line: str = ""


@dataclass(frozen=True)
class Table:
    """A CSV in memory.

    Attributes:
        dialect: How it is written.
        header: The raw cells of the first line.
        names: Their text.
        key: The index of the key column.
        rows: The raw cells of the other lines, in columns "0", "1", ...
        status_column: What the column is called that says what came of a row.
    """

    dialect: Dialect
    header: tuple[str, ...]
    names: tuple[str, ...]
    key: int
    rows: pl.DataFrame
    status_column: str = COLUMNS["status"]

    def keys(self) -> pl.Series:
        """Return each row's key without surrounding blanks."""
        return self._keys

    @cached_property
    def _keys(self) -> pl.Series:
        return self.texts(self.key).str.strip_chars(BLANKS)

    def with_cells(
        self, rows: pl.DataFrame, *, header: tuple[str, ...] | None = None, names: tuple[str, ...] | None = None
    ) -> Table:
        """Return the table with other cells, or columns, but the same keys, which are not found out once more."""
        changed = replace(self, rows=rows, header=header or self.header, names=names or self.names)
        changed.__dict__["_keys"] = self._keys
        return changed

    def texts(self, column: int) -> pl.Series:
        """Return the text of a column's cells."""
        if column not in self._texts:
            self._texts[column] = self.rows.select(text_of(pl.col(str(column)))).to_series()
        return self._texts[column]

    @cached_property
    def _texts(self) -> dict[int, pl.Series]:
        """The columns whose text was asked for: a merge asks for each of them several times."""
        return {}

    def index_of(self, name: str) -> int | None:
        """Return the index of a column, case and surrounding blanks aside, or None."""
        wanted = column_id(name)
        return next((index for index, own in enumerate(self.names) if column_id(own) == wanted), None)

    def status_index(self) -> int | None:
        """Return the index of the column that says what came of a row, or None."""
        return self.index_of(self.status_column)

    def rows_as_text(self) -> pl.DataFrame:
        """Return the text of all cells, in columns "0", "1", ..."""
        return self.rows.select(text_of(pl.all()))


# --- a cell ------------------------------------------------------------------------------------------------------


def text_of(raw: pl.Expr) -> pl.Expr:
    """Return the text of raw cells."""
    inner = raw.str.slice(1, raw.str.len_chars() - 2).str.replace_all('""', '"', literal=True)
    return pl.when(raw.str.starts_with('"')).then(inner).otherwise(raw)


def raw_of(text: pl.Expr, dialect: Dialect) -> pl.Expr:
    """Return the raw cells of texts, quoted where the dialect needs it; null stays null."""
    quoted = pl.format('"{}"', text.str.replace_all('"', '""', literal=True))
    if dialect.quotes_all:
        return pl.when(text.is_not_null()).then(quoted)
    return pl.when(text.str.contains(special(dialect))).then(quoted).otherwise(text)


def special(dialect: Dialect) -> str:
    """Return a pattern of what a cell has to be quoted for."""
    marks = "".join(DELIMITERS) if dialect.quotes_marks else ""
    return f'[{re.escape(dialect.delimiter)}{re.escape(marks)}"\r\n]'


def raw_text(text: str, dialect: Dialect) -> str:
    """Return the raw cell of one text."""
    if dialect.quotes_all or re.search(special(dialect), text):
        return '"' + text.replace('"', '""') + '"'
    return text


# --- write -------------------------------------------------------------------------------------------------------


def render(table: Table) -> bytes:
    """Return the bytes of the CSV file."""
    dialect = table.dialect
    head = dialect.sep_line + dialect.delimiter.join(table.header) + dialect.newline
    data = (BOM if dialect.has_bom else b"") + head.encode() + body(table.rows, dialect)
    return data if dialect.ends_in_newline else data.removesuffix(dialect.newline.encode())


def body(rows: pl.DataFrame, dialect: Dialect) -> bytes:
    """Return the bytes of rows, the last one with its line end."""
    buffer = io.BytesIO()
    rows.write_csv(
        buffer, include_header=False, separator=dialect.delimiter, line_terminator=dialect.newline, quote_style="never"
    )
    return buffer.getvalue()


def with_columns_added(table: Table, names: Sequence[str]) -> Table:
    """Return the table with empty columns at its right end."""
    start = len(table.names)
    empty = '""' if table.dialect.quotes_all else ""
    added = [pl.lit(empty, pl.String).alias(str(start + index)) for index in range(len(names))]
    return table.with_cells(
        table.rows.with_columns(added),
        header=(*table.header, *(raw_text(name, table.dialect) for name in names)),
        names=(*table.names, *names),
    )
