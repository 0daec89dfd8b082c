"""`emit_result()`: a result is recorded from wherever a worker is. Light: loads no Polars."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from eventcsv.errors import EventCsvError
from eventcsv.event import DEFAULT_KEY
from eventcsv.log.opening import is_url
from eventcsv.worker.recorder import JOB_VARIABLE, LOG_VARIABLE, Recorder

if TYPE_CHECKING:
    from eventcsv.event import Event, Status

CSV_VARIABLE: Final = "EVENTCSV_CSV"

_recorders: dict[tuple[str, str, str, str | None], Recorder] = {}


def emit_result(  # the details are those of the method, which checks them
    key: str,
    status: str | Status,
    *,
    csv: str | os.PathLike[str] | None = None,
    log: str | os.PathLike[str] | None = None,
    job: str | None = None,
    key_column: str = DEFAULT_KEY,
    **details: Any,  # noqa: ANN401
) -> Event:
    """Record the result of one PO, from wherever a worker is: `EventCsv.emit_result` without an EventCsv at hand.

    Args:
        key: The PO.
        status: What came of it.
        csv: The CSV; by default the one that EVENTCSV_CSV names. A worker on another machine than the CSV needs none.
        log: The event log, as for `EventCsv`; by default EVENTCSV_LOG, or the one beside the CSV.
        job: What the job is called on the server; by default EVENTCSV_JOB, or the name of the CSV without ".csv".
        key_column: The column that identifies a row.
        details: The keyword arguments of `EventCsv.emit_result`.

    Returns:
        The event as it stands in the log.

    Raises:
        EventCsvError: Nothing names a CSV, nor a server and a job on it.
        InvalidEvent: It belongs to no row or to no column, or has no status; nothing was written.
        AppendError: The result could not be made durable.
    """
    path = csv or os.environ.get(CSV_VARIABLE)
    place = log or os.environ.get(LOG_VARIABLE)
    called = job or os.environ.get(JOB_VARIABLE)
    if not path and not (is_url(place) and called):
        raise EventCsvError(
            f"emit_result: which CSV? Give csv=..., or set {CSV_VARIABLE}. Without a CSV, on another machine, name the "
            f"log on its server and the job there: log=... and job=..., or {LOG_VARIABLE} and {JOB_VARIABLE}"
        )
    name = (os.path.abspath(path) if path else "", key_column, str(place), called)
    known = _recorders.get(name)
    if known is None:
        made = Recorder(path or f"{called}.csv", key=key_column, log=place, job=called)
        if not path:
            made.leave_csv()
        known = _recorders.setdefault(name, made)
    return known.emit_result(key, status, **details)
