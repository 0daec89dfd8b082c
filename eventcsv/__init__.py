"""eventcsv: crash-proof results for long jobs over the rows of a CSV.

Workers call `emit_result()`; an `EventCsv` folds what they recorded into the CSV. Whatever is asked of this is loaded
then, and not before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from eventcsv.errors import (
    AppendError,
    BackupError,
    ClaimLost,
    CorruptLog,
    EventCsvError,
    InvalidCsv,
    InvalidEvent,
    InvalidWorkbook,
    LockTimeout,
    Retry,
    ServerError,
    SessionActive,
    StopRun,
    UnsafePath,
    UnsupportedFormat,
)
from eventcsv.event import Event, Status
from eventcsv.version import __version__

if TYPE_CHECKING:
    from eventcsv.formats.export import ExportResult
    from eventcsv.formats.import_workbook import ImportResult
    from eventcsv.job import EventCsv
    from eventcsv.report.model import Report
    from eventcsv.run.run import RunResult
    from eventcsv.run.session import Session
    from eventcsv.view.backup import Backup
    from eventcsv.view.compact_result import CompactResult
    from eventcsv.view.progress import Progress
    from eventcsv.view.prune import PruneResult
    from eventcsv.view.verify import VerifyReport
    from eventcsv.worker.emit import emit_result

__all__ = [
    "AppendError",
    "Backup",
    "BackupError",
    "ClaimLost",
    "CompactResult",
    "CorruptLog",
    "Event",
    "EventCsv",
    "EventCsvError",
    "ExportResult",
    "ImportResult",
    "InvalidCsv",
    "InvalidEvent",
    "InvalidWorkbook",
    "LockTimeout",
    "Progress",
    "PruneResult",
    "Report",
    "Retry",
    "RunResult",
    "ServerError",
    "Session",
    "SessionActive",
    "Status",
    "StopRun",
    "UnsafePath",
    "UnsupportedFormat",
    "VerifyReport",
    "__version__",
    "emit_result",
]

# Only for who asks: most of them load Polars, and the command line says what it can do without any of them.
_WHERE = {
    "Backup": "view.backup",
    "CompactResult": "view.compact_result",
    "EventCsv": "job",
    "ExportResult": "formats.export",
    "ImportResult": "formats.import_workbook",
    "Progress": "view.progress",
    "PruneResult": "view.prune",
    "Report": "report.model",
    "RunResult": "run.run",
    "Session": "run.session",
    "VerifyReport": "view.verify",
    "emit_result": "worker.emit",
}


if not TYPE_CHECKING:  # to a type checker, a name that is not listed above is a mistake

    def __getattr__(name: str) -> object:
        if name in _WHERE:
            return getattr(import_module(f"eventcsv.{_WHERE[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
