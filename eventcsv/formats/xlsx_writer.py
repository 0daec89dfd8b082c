"""The CSV as an Excel workbook: every cell is text, the header stays in sight, STATUS has colours. Pure.

Cells are written one by one as strings, and not as a table of Excel's: its header may not hold a blank, a repeated or a
long name, and a CSV's may.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import xlsxwriter
from xlsxwriter.utility import xl_col_to_name, xl_range

from eventcsv.errors import EventCsvError
from eventcsv.event import LONGEST_CELL

if TYPE_CHECKING:
    from eventcsv.table.table import Table

AUTHOR: Final = "eventcsv export"
_MOST_ROWS: Final = 1_048_576
_MOST_COLUMNS: Final = 16_384
_NARROWEST: Final = 8
_WIDEST: Final = 60
_ARROW: Final = 3  # what the filter's arrow covers of a header
_CORE: Final = "docProps/core.xml"
_CORE_BYTES: Final = 4096

# Blue and orange, and not green and red, which one man in twelve cannot tell apart. The words stay, black on light.
_COLOURS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ('{0}="COMPLETED"', {"bg_color": "#D6E9F8"}),
    ('OR({0}="ERROR",{0}="FAILED")', {"bg_color": "#F9D5C0", "bold": True}),
    ('{0}="PARTIAL"', {"bg_color": "#FFF2BF"}),
    ('{0}="NO_ATTACHMENTS"', {"bg_color": "#E6E6E6"}),
    ('AND({0}<>"",{0}<>"PENDING")', {"bg_color": "#EADCF2"}),
)

# Whoever saves a workbook puts their own name or the time there.
_UNTOUCHED: Final = re.compile(
    rb"<cp:lastModifiedBy>"
    + AUTHOR.encode()
    + rb"</cp:lastModifiedBy><dcterms:created [^>]*>([^<]*)</dcterms:created><dcterms:modified [^>]*>\1<"
)


def workbook_of(table: Table) -> tuple[bytes, tuple[str, ...]]:
    """Return the bytes of a workbook, and the cells, as "key column", that were cut to what Excel can hold.

    Raises:
        EventCsvError: There are more rows or columns than a sheet takes.
    """
    height, width = table.rows.height, len(table.names)
    if height >= _MOST_ROWS or width > _MOST_COLUMNS:
        raise EventCsvError(
            f"{height:,} rows and {width:,} columns are more than a sheet of Excel takes "
            f"({_MOST_ROWS - 1:,} and {_MOST_COLUMNS:,}). Export to .parquet or .jsonl"
        )
    buffer = io.BytesIO()
    book = xlsxwriter.Workbook(buffer, {"in_memory": True})
    book.set_properties({"author": AUTHOR})
    sheet = book.add_worksheet("results")
    cut = _write(book, sheet, table)
    _colour(book, sheet, table)
    sheet.freeze_panes(1, 1 if table.key == 0 else 0)
    sheet.autofilter(0, 0, height, width - 1)
    sheet.ignore_errors({"number_stored_as_text": xl_range(0, 0, height, width - 1)})
    book.close()
    return buffer.getvalue(), cut


def is_untouched(path: str) -> bool:
    """Tell whether a file is a workbook that `workbook_of` made and that nobody has saved since."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_CORE) as core:
            return _UNTOUCHED.search(core.read(_CORE_BYTES)) is not None
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError):
        return False


def _write(book: xlsxwriter.Workbook, sheet: Any, table: Table) -> tuple[str, ...]:  # noqa: ANN401  # it has no types
    """Write header and rows; return which cells were cut."""
    text_format = book.add_format({"num_format": "@"})  # so that what is typed there later stays text as well
    head_format = book.add_format({"num_format": "@", "bold": True, "bg_color": "#EFEFEF", "bottom": 1})
    texts = table.rows_as_text()
    keys = table.keys()
    for column, (name, width) in enumerate(zip(table.names, _widths(table, texts), strict=True)):
        sheet.set_column(column, column, width, text_format)
        sheet.write_string(0, column, _fitting(name), head_format)
    cut = []
    for row, cells in enumerate(texts.iter_rows()):
        for column, text in enumerate(cells):
            fitting = _fitting(text)
            if fitting:
                sheet.write_string(row + 1, column, fitting, text_format)
            if fitting is not text:
                cut.append(f"{keys[row]} {table.names[column]}")
    return tuple(cut)


def _widths(table: Table, texts: pl.DataFrame) -> list[int]:
    longest = texts.select(pl.all().str.len_chars().max().fill_null(0)).row(0) if texts.height else [0] * texts.width
    return [
        min(max(_NARROWEST, longest[index] + 1, len(name) + _ARROW), _WIDEST) for index, name in enumerate(table.names)
    ]


def _fitting(text: str) -> str:
    """Return a text, or as much of it as a cell takes with a note of the cut. Excel counts UTF-16 units."""
    if len(text) <= LONGEST_CELL // 2:
        return text
    units = text.encode("utf-16-le")
    if len(units) <= 2 * LONGEST_CELL:
        return text
    note = f" [cut here; the CSV has all {len(text):,} characters]"
    return units[: 2 * (LONGEST_CELL - len(note))].decode("utf-16-le", errors="ignore") + note


def _colour(book: xlsxwriter.Workbook, sheet: Any, table: Table) -> None:  # noqa: ANN401  # it has no types
    """Colour rows by their STATUS: by rule, so that the colours follow when rows are sorted or changed."""
    status = table.status_index()
    if status is None or not table.rows.height:
        return
    cell = f"TRIM(${xl_col_to_name(status)}2)"
    for rule, look in _COLOURS:
        shown = {"type": "formula", "criteria": "=" + rule.format(cell), "format": book.add_format(look)}
        sheet.conditional_format(1, 0, table.rows.height, len(table.names) - 1, shown | {"stop_if_true": True})
