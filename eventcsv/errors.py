"""The exception tree: one base class, so that `except EventCsvError` catches whatever eventcsv raises on purpose.

Every message says what happened, where (file, line or byte, field) and what to do next. All of them survive
pickling, since they travel from worker processes to their parent.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from eventcsv.event import Event


def reason_of(error: BaseException) -> str:
    """Return what an error says; of one of the system the file and the reason, without Python's number for it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if _is_path(error.filename) else error.strerror
    return str(error) or type(error).__name__


def _is_path(name: object) -> bool:
    return isinstance(name, str | bytes) and bool(name)


class EventCsvError(Exception):
    """The base of every error that eventcsv raises on purpose."""


class InvalidEvent(EventCsvError, ValueError):
    """An event belongs to no row or to no column, or has no status; nothing was written.

    Attributes:
        field: The argument or column at fault.
        rule: What it has to be, and what it was.
    """

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(field, rule)
        self.field = field
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.field}: {self.rule}"


class AppendError(EventCsvError):
    """An event could not be made durable, after all retries.

    The line may or may not be in the log (a failed sync leaves that unknown), so treat the result as not recorded:
    appending the same event again is always safe.

    Attributes:
        event: The event, whole, so that the caller can keep it elsewhere or append it again.
    """

    def __init__(self, message: str, event: Event | None = None) -> None:
        super().__init__(message, event)
        self.message = message
        self.event = event

    @property
    def reason(self) -> str:
        """What happened, without the advice, which is for whoever emits by themselves."""
        return self.message.partition(". Treat ")[0]

    def __str__(self) -> str:
        return self.message


MOST_WAIT_S: Final = 100 * 365 * 86_400.0
"""How long a PO may be asked to wait, in seconds: the time at which that ends still is one that can be written down."""


class Retry(Exception):
    """Raised by a function of `Session.run`: this PO has to be tried again later.

    It is no failure before the attempts of the run are used up; then it is one, with this reason.

    Args:
        reason: Why, for people.
        after_s: How long to wait at least, in seconds, up to 100 years; by default as long as after a failure.
    """

    def __init__(self, reason: str = "", after_s: float | None = None) -> None:
        if after_s is not None and not 0 <= after_s <= MOST_WAIT_S:
            raise ValueError(f"after_s: has to be a number of seconds from 0 to {MOST_WAIT_S:.0f}, not {after_s}")
        super().__init__(reason, after_s)
        self.reason = reason
        self.after_s = after_s

    def __str__(self) -> str:
        return self.reason or "to be tried again"


class StopRun(Exception):
    """Raised by a function of `Session.run`: there is no point in going on, for instance as a login has expired.

    The PO stays pending as it was, the workers finish what they are on, and the run ends with the reason.

    Args:
        reason: Why, for people.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or "asked for by the job"


class LockTimeout(EventCsvError, TimeoutError):
    """A lock was held by somebody else until the deadline."""


class SessionActive(EventCsvError):
    """Another session works on this CSV; only one may."""


class ServerError(EventCsvError):
    """The server that keeps the log cannot be reached, or is not fit to keep one."""


class ClaimLost(EventCsvError):
    """A claim on a PO is no longer ours: its lease had run out, and another host may have taken the PO over."""


class CorruptLog(EventCsvError):
    """The log is damaged beyond what reading around a damaged line can mend."""


class UnsupportedFormat(EventCsvError):
    """The log was made by a newer eventcsv, or for another job."""


class UnsafePath(EventCsvError):
    """Something that eventcsv did not make stands where one of its files belongs; it was left untouched."""


class InvalidCsv(EventCsvError, ValueError):
    """The CSV cannot be read without guessing; it was left untouched."""


class NoKeyColumn(InvalidCsv):
    """The CSV has no column of the name by which its rows are identified.

    Attributes:
        found: What it has instead.
        advice: What to do.
        line: The line further down, from 1, that has one, below titles and the like; None without.
    """

    def __init__(self, found: str, advice: str, line: int | None = None) -> None:
        super().__init__(found, advice, line)
        self.found = found
        self.advice = advice
        self.line = line

    def __str__(self) -> str:
        return f"{self.found}. {self.advice}"


class EditRefused(InvalidCsv):
    """A save of the CSV would do away with many results, so it is not taken before somebody says so."""


class InvalidWorkbook(EventCsvError, ValueError):
    """An Excel workbook cannot be made a CSV without guessing; nothing was written."""


class BackupError(EventCsvError):
    """A backup could not be made or does not match its metadata."""
