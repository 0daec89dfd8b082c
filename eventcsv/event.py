"""An event, its rules, and its one line of bytes. Pure: nothing here touches a file or a clock.

A line is UTF-8 JSON that ends in a newline:

    {"v":1,"id":"8f3a12c4-03-42","ts":"...Z","kind":"result","key":"PO15262984","set":{"STATUS":"COMPLETED"},"crc":"10ac5d14"}

`crc` always comes last and holds zlib.crc32 of the bytes before `,"crc":"`, so that it can be checked on the raw line,
before any parser has had its say.
"""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import orjson

from eventcsv.errors import InvalidEvent, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FORMAT_VERSION: Final = 1
MAX_LINE_BYTES: Final = 1 << 20
DEFAULT_KEY: Final = "PO_NUMBER"

WORKBOOKS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
"""What .xlsx and .xls begin with, which people take for CSVs."""

BLANKS: Final = " \t\n\v\f\r\x85\xa0\u1680\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200C)))
"""What does not count at either end of a key or a column name: white space, and what looks like nothing at all."""

CRC_BYTES: Final = len(b',"crc":"00000000"}')


class Status(StrEnum):
    """What came of a PO. Other upper-case words of the field (RATE_LIMIT, PO_NOT_FOUND) are allowed as plain text."""

    PENDING = "PENDING"
    COMPLETED = "COMPLETED"
    NO_ATTACHMENTS = "NO_ATTACHMENTS"
    PARTIAL = "PARTIAL"
    ERROR = "ERROR"
    FAILED = "FAILED"


DONE: Final = (Status.COMPLETED.value,)
"""What counts as done, unless a caller says otherwise: everything else is pending."""

FAILED: Final = frozenset({Status.ERROR.value, Status.FAILED.value})
"""What needs an error message, and counts as a failure."""


class Kind(StrEnum):
    """What a line says: a result, a PO taken up, cells that a person changed, the first and last line of a segment."""

    RESULT = "result"
    STARTED = "started"
    EDIT = "edit"
    HEADER = "header"
    SEAL = "seal"


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the log.

    Attributes:
        id: Unique: writer session, writer number, counter. A retry appends the same id again.
        ts: When it was made, ISO 8601 in UTC with microseconds. It never decides anything; the order of the log does.
        kind: See `Kind`; a plain string, because a newer eventcsv may write kinds that this one does not know.
        key: The PO.
        cells: Column name to the exact text of its cell. "" clears a cell; a column that is absent stays as it is.
    """

    id: str
    ts: str
    kind: str
    key: str
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class InFlight:
    """A PO that a worker took up and that has no result yet: being worked on, or left so by a run that died.

    Attributes:
        key: The PO.
        id: The id of the event that took it up; it begins with the run's and the worker's.
        ts: When that was, ISO 8601 in UTC.
    """

    key: str
    id: str
    ts: str


# --- the rules ---------------------------------------------------------------------------------------------------

_STATUS = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_STATUSES = frozenset(status.value for status in Status)
_COUNT = re.compile(r"[0-9]{1,18}")
_COUNTS: Final = ("attachments_found", "attachments_downloaded")
_MOST: Final = 10**18
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

COLUMNS: Final = {
    "status": "STATUS",
    "supplier": "SUPPLIER",
    "attachments_found": "ATTACHMENTS_FOUND",
    "attachments_downloaded": "ATTACHMENTS_DOWNLOADED",
    "attachment_names": "AttachmentName",
    "last_processed": "LAST_PROCESSED",
    "error_message": "ERROR_MESSAGE",
    "download_folder": "DOWNLOAD_FOLDER",
    "coupa_url": "COUPA_URL",
}
"""Keyword argument of emit_result() to column of the CSV."""

_SHOWN: Final = 60

_KEYWORDS: Final = {column: keyword for keyword, column in COLUMNS.items()}


def column_id(name: str) -> str:
    """Return what makes two spellings of a column name the same column: case and surrounding blanks do not."""
    return name.strip(BLANKS).casefold()


_KEYWORD_OF = {column_id(column): keyword for keyword, column in COLUMNS.items()}


def check_key(key: object) -> str:
    """Return `key` when it can name a row of the CSV.

    Raises:
        InvalidEvent: It is not text, is empty but for blanks, or holds a control character.
    """
    if not isinstance(key, str):
        raise InvalidEvent("key", f"has to be text, not {type(key).__name__}: leading zeros would be lost")
    if not key.strip(BLANKS):
        raise InvalidEvent("key", "must not be empty")
    if not key.isprintable() and (found := _CONTROL.search(key)):
        raise InvalidEvent("key", f"holds the control character U+{ord(found[0]):04X} at position {found.start()}")
    return key


def check_cells(values: Mapping[str, object], *, key_column: str = DEFAULT_KEY) -> dict[str, str]:
    """Turn column values into the exact text of their cells.

    Args:
        values: Column name to value: text, a whole or finite number, True or False, for LAST_PROCESSED also a datetime
            with a time zone, for AttachmentName also several names, which are joined with ";". None leaves the column
            alone.
        key_column: The column that identifies a row, which no event may set.

    Returns:
        Column name to text, in the order given, None left out.

    Raises:
        InvalidEvent: A rule is broken; the error names the field and the rule.
    """
    cells: dict[str, str] = {}
    known: dict[str, str] = {}
    for column, value in values.items():
        if value is None:
            continue
        keyword = _KEYWORDS.get(column)  # spelled as usual, as nearly all are
        if keyword is None:
            _check_column(column, cells, key_column)
            keyword = _KEYWORD_OF.get(column_id(column))
        cells[column] = text = value if type(value) is str else _text(keyword or column, value)
        if keyword:
            known[keyword] = text
    _check_rules(known)
    return cells


def _check_column(column: object, seen: Iterable[str], key_column: str) -> None:
    if not isinstance(column, str):
        raise InvalidEvent("columns", f"a column name has to be text, not {type(column).__name__} (after {list(seen)})")
    if not column.strip(BLANKS):
        raise InvalidEvent("columns", "a column name must not be empty")
    if found := _CONTROL.search(column):
        raise InvalidEvent("columns", f"the name {column!r} holds the control character U+{ord(found[0]):04X}")
    if column_id(column) in map(column_id, seen):
        raise InvalidEvent("columns", f"{column!r} is given twice, case and surrounding blanks aside")
    if column_id(column) == column_id(key_column):
        raise InvalidEvent(column, "is the key column; an event sets the other columns of a row, never its key")


def _check_rules(cells: Mapping[str, str]) -> None:
    """Check the rules between and about the well-known columns, by keyword."""
    status = cells.get("status")
    if status is not None:
        if status not in _STATUSES and not _STATUS.fullmatch(status):
            raise InvalidEvent(
                "status", f"has to be an upper-case word such as COMPLETED or RATE_LIMIT, not {status!r}"
            )
        if status in FAILED and not cells.get("error_message", "").strip():
            raise InvalidEvent(
                "error_message", f"is required with status {status}: say what went wrong (--set ERROR_MESSAGE=...)"
            )
    found, downloaded = map(cells.get, _COUNTS)
    for field, count in zip(_COUNTS, (found, downloaded), strict=True):
        if count and not _COUNT.fullmatch(count):
            raise InvalidEvent(field, f"has to be a whole number that is not negative, not {_short(count)}")
    if found and downloaded and int(downloaded) > int(found):
        raise InvalidEvent("attachments_downloaded", f"is {downloaded}, more than the {found} of attachments_found")


def _text(field: str, value: object) -> str:
    if field in _COUNTS and type(value) is int and 0 <= value < _MOST:
        return str(value)
    if isinstance(value, str):
        return str.__str__(value)  # a StrEnum member becomes its text
    if field == "last_processed" and isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidEvent(field, "a datetime needs a time zone, for instance datetime.now(UTC)")
        return utc_text(value, timespec="seconds")
    if field == "attachment_names":
        return _joined_names(field, value)
    if field in _COUNTS:
        return _count(field, value)
    if isinstance(value, (bool, int, float)):
        return _number(field, value)
    raise InvalidEvent(field, f"has to be text or a number, not {type(value).__name__}; None leaves the column alone")


def _joined_names(field: str, value: object) -> str:
    try:
        names = list(value)  # type: ignore[call-overload]  # the error below is for what cannot be iterated
    except TypeError:
        raise InvalidEvent(field, f"has to be a list of file names, not {type(value).__name__}") from None
    for name in names:
        if not isinstance(name, str):
            raise InvalidEvent(field, f"holds a {type(name).__name__} among the file names")
    return ";".join(names)


def _count(field: str, value: object) -> str:
    try:
        count = operator.index(value)  # type: ignore[arg-type]  # whole numbers of other libraries pass, floats do not
    except TypeError:
        raise InvalidEvent(field, f"has to be a whole number that is not negative, not {_short(value)}") from None
    if isinstance(value, bool) or not 0 <= count < _MOST:
        raise InvalidEvent(field, f"has to be a whole number that is not negative, not {_short(value)}")
    return str(count)


def _number(field: str, value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidEvent(field, f"has to be a finite number, not {value}")
    try:
        return str(value)
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        raise InvalidEvent(field, "is a number of more than 4,300 digits") from None


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:
        return "a number of more than 4,300 digits"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def utc_text(moment: datetime, *, timespec: str = "microseconds") -> str:
    """Return `moment`, which has a time zone, as ISO 8601 in UTC with a Z."""
    return moment.astimezone(UTC).isoformat(timespec=timespec)[:-6] + "Z"


# --- the line ----------------------------------------------------------------------------------------------------


def encode(event: Event) -> bytes:
    """Return the line of `event`, newline included.

    Raises:
        InvalidEvent: It holds a lone surrogate, or the line would be longer than 1 MiB.
    """
    try:
        line = sealed(
            {
                "v": FORMAT_VERSION,
                "id": event.id,
                "ts": event.ts,
                "kind": event.kind,
                "key": event.key,
                "set": event.cells,
            }
        )
    except TypeError:
        raise _not_unicode(event) from None
    if len(line) > MAX_LINE_BYTES:
        lengths = {"key": len(event.key), "columns": max(map(len, event.cells), default=0)}
        lengths |= {_KEYWORD_OF.get(column_id(column), column): len(text) for column, text in event.cells.items()}
        longest = max(lengths, key=lambda field: lengths[field])
        raise InvalidEvent(
            longest,
            f"makes a line of {len(line):,} bytes; at most {MAX_LINE_BYTES:,} (1 MiB) are allowed. Shorten it",
        )
    return line


def _not_unicode(event: Event) -> InvalidEvent:
    for field, text in (("key", event.key), *event.cells.items()):
        for name, part in ((field, text), ("columns", field)):
            try:
                part.encode()
            except UnicodeEncodeError as error:
                where = f"the name {field!r} " if name == "columns" else ""
                rule = (
                    f"{where}holds a lone surrogate at position {error.start}, which no UTF-8 file can hold. Replace it"
                )
                return InvalidEvent(_KEYWORD_OF.get(column_id(name), name), rule)
    return InvalidEvent("event", "cannot be written as JSON")


def sealed(record: Mapping[str, Any]) -> bytes:
    """Return `record` as a line of JSON with its checksum as the last field."""
    body = orjson.dumps(record)[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, crc32(body))


def is_whole(line: bytes) -> bool:
    """Tell whether `line`, without its newline, carries the checksum of its own bytes."""
    return line[-CRC_BYTES:] == b',"crc":"%08x"}' % crc32(line[:-CRC_BYTES])


def unsealed(line: bytes) -> dict[str, Any]:
    """Return the record of a `line` of ours, given without its newline.

    Raises:
        ValueError: The checksum does not hold, or it is not a record of ours.
        UnsupportedFormat: It is whole and was made by a newer eventcsv.
    """
    if not is_whole(line):
        raise ValueError("checksum does not match")
    record = orjson.loads(line)
    version = record.get("v") if isinstance(record, dict) else None
    if not isinstance(version, int) or version < 1:
        raise ValueError("not a line of eventcsv")
    if version > FORMAT_VERSION:
        raise UnsupportedFormat(
            f"format version {version}: made by a newer eventcsv; this one reads up to version {FORMAT_VERSION}. "
            "Upgrade: pip install --upgrade eventcsv"
        )
    del record["crc"]
    return dict(record)


def decode(line: bytes) -> Event:
    """Return the event of a `line`, given without its newline.

    Raises:
        ValueError: The line is damaged or not an event.
        UnsupportedFormat: It was made by a newer eventcsv.
    """
    record = unsealed(line)
    key, cells = record.get("key"), record.get("set", {})
    texts = [record.get("id"), record.get("ts"), record.get("kind"), key]
    if not isinstance(cells, dict) or not all(isinstance(text, str) for text in (*texts, *cells.values())):
        raise ValueError("not an event: a field is missing or not text")
    return Event(record["id"], record["ts"], record["kind"], record["key"], cells)
