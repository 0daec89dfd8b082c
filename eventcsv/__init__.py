"""eventcsv: crash-proof results for long jobs over the rows of a CSV.

Workers call `emit_result()`; an `EventCsv` folds what they recorded into the CSV. Importing this loads the light worker
side only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventcsv.errors import (
    AppendError,
    BackupError,
    CorruptLog,
    EventCsvError,
    InvalidCsv,
    InvalidEvent,
    LockTimeout,
    SessionActive,
    UnsafePath,
    UnsupportedFormat,
)
from eventcsv.event import Event, Status
from eventcsv.facade import EventCsv, emit_result
from eventcsv.version import __version__

if TYPE_CHECKING:
    from eventcsv.compactor import CompactResult

__all__ = [
    "AppendError",
    "BackupError",
    "CompactResult",
    "CorruptLog",
    "Event",
    "EventCsv",
    "EventCsvError",
    "InvalidCsv",
    "InvalidEvent",
    "LockTimeout",
    "SessionActive",
    "Status",
    "UnsafePath",
    "UnsupportedFormat",
    "__version__",
    "emit_result",
]


def __getattr__(name: str) -> object:
    if name == "CompactResult":  # loads Polars, so only for who asks
        from eventcsv.compactor import CompactResult  # noqa: PLC0415

        return CompactResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
