"""An event, and its one line of bytes. Pure: nothing here touches a file or a clock.

A line is UTF-8 JSON that ends in a newline:

    {"v":1,"id":"8f3a12c4-03-42","ts":"...Z","kind":"result","key":"PO15262984","set":{"STATUS":"COMPLETED"},"crc":"10ac5d14"}

`crc` always comes last and holds zlib.crc32 of the bytes before `,"crc":"`, so that it can be checked on the raw line,
before any parser has had its say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import orjson

from eventcsv.errors import InvalidEvent, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT_VERSION: Final = 1
MAX_LINE_BYTES: Final = 1 << 20
LONGEST_CELL: Final = 32_767
"""How many characters a spreadsheet takes in a cell; "Excel specifications and limits", Microsoft."""

DEFAULT_KEY: Final = "PO_NUMBER"

WORKBOOKS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
"""What .xlsx and .xls begin with, which people take for CSVs."""

BLANKS: Final = " \t\n\v\f\r\x85\xa0\u1680\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200C)))
"""What does not count at either end of a key or a column name: white space, and what looks like nothing at all."""

CRC_BYTES: Final = len(b',"crc":"00000000"}')


class Status(StrEnum):
    """What came of a PO. Other words of the field (RATE_LIMIT, PO_NOT_FOUND) are plain text."""

    PENDING = "PENDING"
    COMPLETED = "COMPLETED"
    NO_ATTACHMENTS = "NO_ATTACHMENTS"
    PARTIAL = "PARTIAL"
    ERROR = "ERROR"
    FAILED = "FAILED"


DONE: Final = (Status.COMPLETED.value,)
"""What counts as done, unless a caller says otherwise: everything else is pending."""

FAILED: Final = frozenset({Status.ERROR.value, Status.FAILED.value})
"""What has an error message, and counts as a failure."""


class Kind(StrEnum):
    """What a line says: a result, a PO taken up, cells that a person changed, half a line before it, of a segment."""

    RESULT = "result"
    STARTED = "started"
    EDIT = "edit"
    TORN = "torn"
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
        mended: What was done to values that could not be recorded as they were given, a sentence each. It is told to
            whoever has just recorded the event; the log keeps what stands in `cells` only.
    """

    id: str
    ts: str
    kind: str
    key: str
    cells: Mapping[str, str]
    mended: tuple[str, ...] = field(default=(), compare=False)


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


# --- the columns -------------------------------------------------------------------------------------------------

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


def column_id(name: str) -> str:
    """Return what makes two spellings of a column name the same column: case and surrounding blanks do not."""
    return name.strip(BLANKS).casefold()


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
        line = line_of(event)
    except TypeError:
        raise InvalidEvent("event", "holds a lone surrogate, which no UTF-8 file can hold. Replace it") from None
    if len(line) > MAX_LINE_BYTES:
        raise InvalidEvent(
            "event", f"makes a line of {len(line):,} bytes; at most {MAX_LINE_BYTES:,} (1 MiB) are allowed. Shorten it"
        )
    return line


def line_of(event: Event) -> bytes:
    """Return the line of `event`, however long.

    Raises:
        TypeError: It holds what JSON in UTF-8 cannot.
    """
    return sealed(
        {"v": FORMAT_VERSION, "id": event.id, "ts": event.ts, "kind": event.kind, "key": event.key, "set": event.cells}
    )


def sealed(record: Mapping[str, Any]) -> bytes:
    """Return `record` as a line of JSON with its checksum as the last field."""
    body = orjson.dumps(record)[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, crc32(body))


def is_whole(line: bytes) -> bool:
    """Tell whether `line`, without its newline, carries the checksum of its own bytes."""
    return line[-CRC_BYTES:] == b',"crc":"%08x"}' % crc32(line[:-CRC_BYTES])


def unsealed(line: bytes) -> dict[str, Any]:
    """Return the record of a `line` of ours, given without its newline, and read without a CR before that.

    Raises:
        ValueError: The checksum does not hold, or it is not a record of ours.
        UnsupportedFormat: It is whole and was made by a newer eventcsv.
    """
    line = line.removesuffix(b"\r")
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
