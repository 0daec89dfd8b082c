"""The words that all share: an event, its kinds, what comes of a PO, the columns of the CSV. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LONGEST_CELL: Final = 32_767
"""How many characters a spreadsheet takes in a cell; "Excel specifications and limits", Microsoft."""

DEFAULT_KEY: Final = "PO_NUMBER"

ZIP: Final = b"PK\x03\x04"
"""What an .xlsx begins with, and any other ZIP file."""

OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""What an .xls begins with, and an .xlsx with a password."""

BLANKS: Final = " \t\n\v\f\r\x85\xa0\u1680\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200C)))
"""What does not count at either end of a key or a column name: white space, and what looks like nothing at all."""


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


def done_words(done: Collection[str] | str) -> tuple[str, ...]:
    """Return the STATUS words that count as done, in upper case; what is no text is spelled as it is in the log."""
    words = [done] if isinstance(done, str) else done
    return tuple(str(word).strip(BLANKS).upper().encode(errors="backslashreplace").decode() for word in words)


def is_failure(status: str, message: str = "") -> bool:
    """Tell whether a PO that is not done has failed, since its STATUS, case aside, says so, or a message does."""
    return message != "" or status.strip(BLANKS).upper() in FAILED


ATTEMPT: Final = "attempt"
UNTIL: Final = "until"
REASON: Final = "reason"
"""What a line says of a PO that was taken up again, or put back: which attempt, until when it waits, and why."""


class Kind(StrEnum):
    """What a line says: a result, a PO taken up or put back, cells that a person changed, and what is of no PO."""

    RESULT = "result"
    STARTED = "started"
    DEFERRED = "deferred"
    EDIT = "edit"
    STOPPED = "stopped"
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
    """A PO that is neither done with nor at rest: a worker is on it, or has died on it, or it waits to be tried again.

    Attributes:
        key: The PO.
        id: The id of the event that took it up, or put it back; it begins with the run's and the worker's.
        ts: When that was, ISO 8601 in UTC.
        attempt: Which attempt that was, from 1.
        until: When the next attempt may begin, ISO 8601 in UTC; "" while a worker is on it.
        reason: Why there has to be another one.
    """

    key: str
    id: str
    ts: str
    attempt: int = 1
    until: str = ""
    reason: str = ""

    @property
    def waits(self) -> bool:
        """Whether nobody is on it, and it is to be tried again."""
        return self.until != ""


MOVES: Final = (Kind.STARTED.value, Kind.DEFERRED.value, Kind.RESULT.value)
"""The kinds of lines after which `in_flight_after` knows where a PO is."""


_MOST_DIGITS: Final = 9  # Python makes no number of some thousands of them


def in_flight_after(event: Event, key: str) -> InFlight | None:
    """Return where a PO is after an event that took it up, put it back or ended it; None when it is at rest."""
    number, until = event.cells.get(ATTEMPT, "1"), event.cells.get(UNTIL, "")
    attempt = int(number) if number.isascii() and number.isdecimal() and len(number) <= _MOST_DIGITS else 1
    if event.kind == Kind.STARTED:
        return InFlight(key, event.id, event.ts, attempt)
    if event.kind == Kind.DEFERRED and until:
        return InFlight(key, event.id, event.ts, attempt, until, event.cells.get(REASON, ""))
    return None


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


def moment_of(ts: str | None) -> datetime | None:
    """Return a time of the log, in UTC where it does not say, or None when it is none."""
    try:
        moment = datetime.fromisoformat(ts or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def seconds_since(ts: str | None, now: datetime) -> float | None:
    """Return how long ago a time of the log is, or None when nobody can tell; 0.0 when it is to come."""
    moment = moment_of(ts)
    return max(0.0, (now - moment).total_seconds()) if moment else None
