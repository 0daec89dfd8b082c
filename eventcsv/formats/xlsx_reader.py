"""A sheet of an Excel workbook as rows of text: what Excel shows where that is unambiguous. Reads only.

openpyxl, because of the readers tried it alone tells an error from an empty cell, and the number format, in which the
leading zeros of many a PO are.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from xml.etree import ElementTree as ET

import openpyxl
from openpyxl.styles.numbers import is_datetime
from openpyxl.utils import get_column_letter, range_boundaries

from eventcsv.errors import InvalidWorkbook
from eventcsv.event import OLE, ZIP
from eventcsv.formats.number_format import Unclear, shown_number

_SHOWN: Final = 10
_DIGITS: Final = 10**15
_SAVE: Final = "Open it in Excel, mend that, save it"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet.

    Attributes:
        name: Its name.
        others: The names of the other sheets.
        rows: The texts of each row, from the first row on; as long as the row is.
        rounded: Cells with numbers of more than 15 digits, of which Excel keeps 15.
        hidden: The rows, from 1, that are hidden, by a filter for instance.
        merged: The ranges of cells that are merged, as A2:A4; only the first cell of one has a text of its own.
    """

    name: str
    others: tuple[str, ...]
    rows: list[list[str]]
    rounded: tuple[str, ...]
    hidden: frozenset[int] = frozenset()
    merged: tuple[str, ...] = ()

    def fill(self, merged: str, width: int) -> None:
        """Give every cell that a merged one covers the text of that, within the first `width` columns."""
        left, top, right, bottom = range_boundaries(merged)
        text = self.rows[top - 1][left - 1] if top <= len(self.rows) and left <= len(self.rows[top - 1]) else ""
        right = min(right, width)
        for row in self.rows[top - 1 : bottom]:
            row.extend([""] * (right - len(row)))
            row[left - 1 : right] = [text] * (right - left + 1)


def read_sheet(path: str, name: str | None = None) -> Sheet:
    """Read a sheet, by default the first one that is not hidden.

    Raises:
        InvalidWorkbook: It is no workbook, it has no such sheet, or a cell holds an error or a formula without result.
        OSError: The file cannot be read.
    """
    data = _data(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of drop-down lists and the like, which are no cells
            return _read(path, data, name)
    except InvalidWorkbook:
        raise
    except Exception as error:  # noqa: BLE001  # what openpyxl raises depends on where the file is broken
        raise _unreadable(path, error) from None


def _data(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise InvalidWorkbook(f"{path}: there is no such file. Check the path") from None
    except IsADirectoryError:
        raise InvalidWorkbook(f"{path}: is a folder. Name the workbook in it") from None
    if data.startswith(OLE):
        raise InvalidWorkbook(
            f"{path}: is a workbook of the old kind (.xls), or one with a password. Save it as .xlsx without a password"
        )
    if not data.startswith(ZIP):
        raise InvalidWorkbook(f"{path}: is no Excel workbook (.xlsx). A CSV needs no import: use it as it is")
    if kind := _other_kind(data):
        raise InvalidWorkbook(f"{path}: is {kind}, and no .xlsx. Save it as .xlsx, or as a CSV in UTF-8")
    return data


def _other_kind(data: bytes) -> str:
    """Return what a ZIP file is that holds a spreadsheet of another kind, or ""."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            kind = archive.read("mimetype").decode("ascii", "replace") if "mimetype" in names else ""
    except Exception:  # noqa: BLE001  # it is broken, which is told when it is read
        return ""
    if kind.startswith("application/vnd.oasis.opendocument"):
        return f"an OpenDocument {kind.partition('opendocument.')[2] or 'file'} (.ods)"
    if "xl/workbook.bin" in names:
        return "a binary workbook (.xlsb)"
    return "a spreadsheet of Numbers" if any(name.endswith(".iwa") for name in names) else ""


def _read(path: str, data: bytes, name: str | None) -> Sheet:
    # Twice side by side: openpyxl gives either the results of formulas or the formulas, and one without a result looks
    # like an empty cell.
    values, formulas = (
        openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=data_only) for data_only in (True, False)
    )
    sheet = _chosen(values, path, name)
    rows, rounded = _rows(path, sheet, formulas[sheet.title])
    others = tuple(other for other in values.sheetnames if other != sheet.title)
    return Sheet(sheet.title, others, rows, rounded, *_layout(sheet))


def _layout(sheet: Any) -> tuple[frozenset[int], tuple[str, ...]]:  # noqa: ANN401  # openpyxl has no types
    """Return which rows are hidden, and which cells are merged: what openpyxl leaves out when it reads only."""
    hidden, merged, number = set(), [], 0
    with sheet._get_source() as source:  # noqa: SLF001  # as its own reader does
        for _, item in ET.iterparse(source):  # noqa: S314  # openpyxl has parsed the very same
            tag = item.tag.rpartition("}")[2]
            if tag == "row":
                number = int(item.get("r") or number + 1)
                if item.get("hidden") in {"1", "true"}:
                    hidden.add(number)
                item.clear()
            elif tag == "mergeCell":
                merged.append(str(item.get("ref")))
    return frozenset(hidden), tuple(merged)


def _unreadable(path: str, error: Exception) -> InvalidWorkbook:
    return InvalidWorkbook(
        f"{path}: cannot be read as a workbook ({type(error).__name__}: {error}). Open it in Excel and save it again"
    )


def _chosen(book: Any, path: str, name: str | None) -> Any:  # noqa: ANN401  # openpyxl has no types
    sheets = [sheet for sheet in book.worksheets if name or sheet.sheet_state == "visible"]
    found = next((sheet for sheet in sheets if name in (None, sheet.title)), None)
    if found is None:
        names = ", ".join(repr(sheet.title) for sheet in book.worksheets) or "none"
        wanted = f"has no sheet {name!r}" if name else "has no sheet that is not hidden"
        raise InvalidWorkbook(f"{path}: {wanted}; its sheets: {names}. Name one of them: --sheet")
    return found


def _rows(path: str, sheet: Any, formulas: Any) -> tuple[list[list[str]], tuple[str, ...]]:  # noqa: ANN401  # no types
    """Return the texts of all rows, and which numbers Excel had rounded."""
    sheet.reset_dimensions()  # programs that write workbooks often note wrong ones
    formulas.reset_dimensions()
    rows, rounded, broken, unclear = [], [], [], []
    for number, (row, sources) in enumerate(zip(sheet.iter_rows(), formulas.iter_rows(), strict=True), 1):
        texts = []
        for index, (cell, source) in enumerate(zip(row, sources, strict=True), 1):
            place = f"{get_column_letter(index)}{number}"
            if cell.data_type == "e":
                broken.append(f"{place} ({cell.value})")
            elif cell.value is None and source.data_type == "f":
                broken.append(f"{place} (a formula without a result)")
            elif isinstance(cell.value, int | float) and abs(cell.value) >= _DIGITS:
                rounded.append(place)
            try:
                texts.append("" if cell.value is None else _text(cell.value, cell.number_format))
            except Unclear:
                unclear.append(f"{place} ({cell.value} as {cell.number_format})")
        rows.append(texts)
    if broken:
        raise InvalidWorkbook(f"{path}, sheet {sheet.title!r}: {_few(broken)}: there is no value. {_SAVE}")
    if unclear:
        raise InvalidWorkbook(
            f"{path}, sheet {sheet.title!r}: {_few(unclear)}: nobody can tell which zeros that shows. "
            "Give those cells the format 0000000, with as many zeros as there are digits, and save it"
        )
    return rows, tuple(rounded)


def _few(places: list[str]) -> str:
    return ", ".join(places[:_SHOWN]) + (f" and {len(places) - _SHOWN:,} more" if len(places) > _SHOWN else "")


def _text(value: object, number_format: str) -> str:
    """Return the text of a cell."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return _number(value, number_format)
    if isinstance(value, timedelta):
        minutes, seconds = divmod(round(value.total_seconds()), 60)
        return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
    if isinstance(value, datetime) and is_datetime(number_format.lower()) == "date":
        return value.date().isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    return _unescaped(str(value))


def _number(value: float, number_format: str) -> str:
    """Return a number with at most the 15 digits that Excel keeps, without an exponent, and with a format's zeros."""
    text = str(value) if isinstance(value, int) else f"{Decimal(f'{value:.15g}'):f}"
    return shown_number(text, number_format)


def _unescaped(text: str) -> str:
    """Return a text with the control characters that a workbook escapes: _x000D_ is a carriage return."""
    return re.sub("_x(00[01][0-9A-F]|FFF[EF])_", lambda found: chr(int(found[1], 16)), text)
