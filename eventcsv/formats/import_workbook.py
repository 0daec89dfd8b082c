"""A list that lives in Excel becomes the CSV of a new job."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from openpyxl.utils import range_boundaries

from eventcsv.errors import InvalidCsv, InvalidWorkbook, UnsafePath
from eventcsv.event import BLANKS, column_id
from eventcsv.formats.xlsx_reader import read_sheet
from eventcsv.storage.output import check_output, write_output
from eventcsv.table.reader import parse
from eventcsv.table.table import DEFAULT_DELIMITER, Dialect, raw_text

if TYPE_CHECKING:
    from eventcsv.formats.xlsx_reader import Sheet
    from eventcsv.storage.files import Storage

_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import wrote.

    Attributes:
        csv_path: The CSV.
        workbook: The workbook.
        sheet: The sheet that was read.
        other_sheets: Those that were not.
        header_row: The row, from 1, in which the column names are; what stands above it was left out.
        rows: How many rows the CSV has.
        columns: How many columns.
        without_key: The rows of the sheet, from 1, that have no key. They are in the CSV, and no result can be theirs.
        repeated: Keys that are on several rows, with how many; a result goes to each of them.
        rounded: Cells with numbers of more than 15 digits, of which Excel has kept 15.
        hidden: The rows of the sheet, from 1, that are hidden there, by a filter for instance.
        left_out: Whether those were left out.
        merged: Merged cells, as A2:A4, whose text all the cells that they cover have got.
    """

    csv_path: str
    workbook: str
    sheet: str
    other_sheets: tuple[str, ...]
    header_row: int
    rows: int
    columns: int
    without_key: tuple[int, ...]
    repeated: dict[str, int]
    rounded: tuple[str, ...]
    hidden: tuple[int, ...] = ()
    left_out: bool = False
    merged: tuple[str, ...] = ()


def import_workbook(
    workbook: str,
    csv_path: str,
    *,
    key: str,
    sheet: str | None,
    has_job: bool,
    force: bool,
    storage: Storage,
    visible: bool = False,
) -> ImportResult:
    """Write the CSV of a sheet; see `EventCsv.import_workbook`."""
    _check_place(csv_path, storage, has_job=has_job, force=force)
    source = read_sheet(workbook, sheet)
    header_row, key_index = _header(source, workbook, key)
    width = _width(source.rows[header_row - 1 :])
    merged = sorted((place for place in source.merged if _first_row(place) > header_row), key=_first_row)
    for place in merged:  # of names, which have to differ, only the first column has one
        source.fill(place, width)
    names, *rows = _rectangle(source.rows[header_row - 1 :])
    filled = [(number, row) for number, row in enumerate(rows, header_row + 1) if any(row)]
    numbered = [(number, row) for number, row in filled if not (visible and number in source.hidden)]
    data = _csv_of([names, *(row for _, row in numbered)])
    try:
        parse(data, source=f"{workbook}, sheet {source.name!r}, as a CSV", key=key, delimiter=DEFAULT_DELIMITER)
    except InvalidCsv as error:
        raise InvalidWorkbook(str(error)) from None
    _check_place(csv_path, storage, has_job=has_job, force=force)  # reading may take a while
    write_output(storage, csv_path, data, like=storage.rights(csv_path))
    keys = Counter(row[key_index].strip(BLANKS) for _, row in numbered)
    return ImportResult(
        csv_path=csv_path,
        workbook=workbook,
        sheet=source.name,
        other_sheets=source.others,
        header_row=header_row,
        rows=len(numbered),
        columns=len(names),
        without_key=tuple(number for number, row in numbered if not row[key_index].strip(BLANKS)),
        repeated={name: count for name, count in keys.items() if name and count > 1},
        rounded=source.rounded,
        hidden=tuple(number for number, _ in filled if number in source.hidden),
        left_out=visible,
        merged=tuple(merged),
    )


def _first_row(place: str) -> int:
    _, top, _, _ = range_boundaries(place)
    return int(top)


def _check_place(csv_path: str, storage: Storage, *, has_job: bool, force: bool) -> None:
    if has_job:
        raise UnsafePath(
            f"{csv_path}: is a job already, with an event log or backups. Add rows to the CSV itself, where edits are "
            "kept, or import to another name"
        )
    check_output(
        storage, csv_path, force=force, refusal=". Name another CSV, or say --force (force=True) to replace it"
    )


def _header(sheet: Sheet, workbook: str, key: str) -> tuple[int, int]:
    """Return the row, from 1, that names the columns, and the index of the key column in it."""
    wanted = column_id(key)
    for number, row in enumerate(sheet.rows, 1):
        for index, text in enumerate(row):
            if column_id(text) == wanted:
                return number, index
    first = next((row for row in sheet.rows if any(row)), [])
    found = ", ".join(repr(text) for text in first[:_SHOWN] if text) or "nothing"
    others = f", or another sheet with --sheet: {', '.join(map(repr, sheet.others))}" if sheet.others else ""
    raise InvalidWorkbook(
        f"{workbook}, sheet {sheet.name!r}: has no column {key!r}; its first row that is not blank has {found}. "
        f"Name the key column with --key{others}"
    )


def _rectangle(rows: list[list[str]]) -> list[list[str]]:
    """Return rows of the same length, without the empty columns at the right."""
    width = _width(rows)
    return [(row + [""] * width)[:width] for row in rows]


def _width(rows: list[list[str]]) -> int:
    return max(index for row in rows for index, text in enumerate(row, 1) if text)


_EMPTY: Final = '""'  # alone in its row; a blank line says nothing


def _csv_of(rows: list[list[str]]) -> bytes:
    """Return a CSV that Excel, on a double click, takes for what it is."""
    dialect = Dialect()
    lines = (dialect.delimiter.join(raw_text(cell, dialect) for cell in row) for row in rows)
    return "".join(f"{line or _EMPTY}\n" for line in lines).encode("utf-8-sig")
