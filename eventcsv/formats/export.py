"""The CSV in another format: an Excel workbook, Parquet or JSON Lines. All cells are the texts that the CSV has.

A file appears whole or not at all, and takes the place of nothing but an earlier export.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, Final, Literal, assert_never, get_args

import orjson
import polars as pl

from eventcsv.event import ZIP, column_id
from eventcsv.storage.output import write_output

if TYPE_CHECKING:
    from eventcsv.log.types import Damage
    from eventcsv.storage.files import Storage
    from eventcsv.storage.rights import Rights
    from eventcsv.table.table import Table
    from eventcsv.view.compactor import Compactor

Format = Literal["xlsx", "parquet", "jsonl"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
_MARK: Final = {"eventcsv": "export"}
_REFUSAL: Final = (
    ", and is no earlier export or was changed since. Name another file, or say --force (force=True) to replace it"
)


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        path: The file, or None for a stream.
        file_format: xlsx, parquet or jsonl.
        rows: How many rows it has, the header aside.
        columns: How many columns.
        size_bytes: Its size.
        cut: Cells of a workbook, as "key column", that have more characters than Excel can hold. They end in a note.
        damage: What is damaged in the part of the log that was read.
        torn: Lines that a crash had cut off. Normal after one: they were never acknowledged.
    """

    path: str | None
    file_format: Format
    rows: int
    columns: int
    size_bytes: int
    cut: tuple[str, ...]
    damage: tuple[Damage, ...]
    torn: tuple[Damage, ...]


def _format_of(path: str, named: str | None) -> Format:
    """Return the format of a file: the one that is named, or else the one of its suffix.

    Raises:
        ValueError: There is no such format, or the suffix tells none.
    """
    suffix = os.path.splitext(path)[1].lower().removeprefix(".")
    found = named or {"ndjson": "jsonl"}.get(suffix, suffix)
    if found not in FORMATS:
        raise ValueError(f"which format is {named or path!r}? End the name in .xlsx, .parquet or .jsonl, or name one")
    return found


def export(
    compactor: Compactor, target: str | os.PathLike[str] | IO[bytes], *, file_format: Format | None, force: bool
) -> ExportResult:
    """Write the CSV to a file or a stream; see `EventCsv.export`."""
    path = os.path.abspath(target) if isinstance(target, str | os.PathLike) else ""
    file_format = _format_of(path, file_format)
    projection = compactor.project()
    table, files = projection.table, compactor.files
    if path:
        is_earlier = partial(_is_export, key=table.names[table.key])
        files.check_output(path, force=force, refusal=_REFUSAL, is_earlier=is_earlier)
    data, cut = _rendered(table, file_format)
    if isinstance(target, str | os.PathLike):
        write_output(files.storage, path, data, like=_rights(path, files.csv_path, files.storage))
    else:
        target.write(data)
    return ExportResult(
        path=path or None,
        file_format=file_format,
        rows=table.rows.height,
        columns=len(table.names),
        size_bytes=len(data),
        cut=cut,
        damage=projection.damage,
        torn=projection.torn,
    )


def _rights(target: str, csv_path: str, storage: Storage) -> Rights | None:
    """Return the rights to the CSV, or to the earlier export when somebody has closed that further."""
    earlier, wanted = storage.rights(target), storage.rights(csv_path)
    return earlier if earlier and (wanted is None or earlier.within(wanted)) else wanted


def _rendered(table: Table, file_format: Format) -> tuple[bytes, tuple[str, ...]]:
    """Return the bytes of the file, and what was cut to fit into it."""
    if file_format == "xlsx":
        from eventcsv.formats.xlsx_writer import workbook_of  # noqa: PLC0415  # the other formats need no xlsxwriter

        return workbook_of(table)
    frame = table.rows_as_text()
    frame.columns = _unique_names(table)
    buffer = io.BytesIO()
    match file_format:
        case "parquet":
            frame.write_parquet(buffer, metadata=_MARK)
        case "jsonl":
            frame.write_ndjson(buffer)
        case _:
            assert_never(file_format)
    return buffer.getvalue(), ()


def _unique_names(table: Table) -> list[str]:
    """Return the names of the columns; those without one, of which there may be several, are called "column 3"."""
    names = list(table.names)
    for index, name in enumerate(names):
        if not column_id(name):
            wanted = f"column {index + 1}"
            while wanted in names:
                wanted += "_"
            names[index] = wanted
    return names


def _is_export(path: str, key: str) -> bool:
    """Tell whether a file is an earlier export that nobody has worked on since, or empty."""
    with open(path, "rb") as file:
        head = file.read(4)
        if head.startswith(b"{"):
            file.seek(0)
            return _is_row(file.readline(), key)
    if head == b"PAR1":
        with suppress(pl.exceptions.PolarsError, OSError):
            return _MARK.items() <= pl.read_parquet_metadata(path).items()
    if head.startswith(ZIP):
        from eventcsv.formats.xlsx_writer import is_untouched  # noqa: PLC0415  # only a workbook needs xlsxwriter

        return is_untouched(path)
    return not head


def _is_row(line: bytes, key: str) -> bool:
    """Tell whether a line is a row of an export: texts only, the key among them. A line of an event log is none."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return isinstance(row, dict) and key in row and all(isinstance(text, str) for text in row.values())
