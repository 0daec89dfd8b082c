"""What is done with one PO: it is taken up and worked on, and what came of it is recorded."""

from __future__ import annotations

import os
import traceback
from contextlib import suppress
from dataclasses import is_dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final

from eventcsv.errors import AppendError, ClaimLost, InvalidEvent, Retry, StopRun
from eventcsv.event import BLANKS, COLUMNS, FAILED, Status, column_id
from eventcsv.worker.messages import Outcome
from eventcsv.worker.rules import Pairs, column_ident, pairs_in
from eventcsv.worker.values import (
    LONGEST_MESSAGE,
    cleaned,
    is_missing,
    is_truth,
    one_line,
    short,
    text_of,
    whole_digits,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from eventcsv.event import Event
    from eventcsv.worker.messages import Returned, Row, Task, Work
    from eventcsv.worker.recorder import Recorder

_LONGEST_DETAILS: Final = 20_000
_MAY_RETURN: Final = "it may return columns (a mapping, a dataclass, pairs), a STATUS, True, False or None"
_STATUS: Final = column_id(COLUMNS["status"])
_MESSAGE: Final = column_id(COLUMNS["error_message"])


def work_on(task: Task, work: Work, process: Callable[[str, Row], Returned]) -> Outcome:
    """Take up a PO, work on it and record what came of it.

    Args:
        task: The PO.
        work: Whose it is.
        process: Does the work.
    """
    if task.token is not None:
        work.job.hold(task.key, task.token)
    try:
        outcome = _work_on(task, work, process)
    except ClaimLost as error:
        return Outcome(task.key, "", message=str(error), taken_over=True)
    finally:
        work.job.hold(task.key, None)
    return tried_again(work.job, task, outcome)


def tried_again(job: Recorder, task: Task, outcome: Outcome) -> Outcome:
    """Record that a PO whose attempt has failed waits for the next one, if there is to be one."""
    if task.retry_s is None or outcome.status.upper() not in FAILED:
        return outcome
    with suppress(AppendError):  # the result is recorded; that there is going to be another one is known here
        job.record_deferred(task.key, attempt=task.attempt, reason=outcome.message, wait_s=task.retry_s)
    return replace(outcome, wait_s=task.retry_s)


def _work_on(task: Task, work: Work, process: Callable[[str, Row], Returned]) -> Outcome:
    try:  # first, so that a crash after the work does not hide that it was done
        work.job.emit_started(task.key, attempt=task.attempt)
    except AppendError as error:
        return Outcome(task.key, "", message=f"it was not taken up: {error.reason}", unrecorded=error.event)
    details = ""
    pid = os.getpid()
    asked: Retry | StopRun | None = None
    message = ""
    try:
        cells = _cells(process(task.key, task.row), task, work.job.key, work.job.status_column)
    except BaseException as error:  # noqa: BLE001  # any failure of the caller's code is this PO's, and nobody else's
        asked = error if isinstance(error, Retry | StopRun) else None
        message = reason_asked(asked) if asked else one_line(error, longest=LONGEST_MESSAGE)
        cells = {COLUMNS["status"]: Status.ERROR, COLUMNS["error_message"]: message}
        details = "" if asked else traceback.format_exc()[-_LONGEST_DETAILS:]
    if os.getpid() != pid:  # a child that the caller's code forked, and that has no business here
        os._exit(0)
    try:
        if isinstance(asked, StopRun):
            return _put_back(work.job, task, message, stop=message)
        if asked and task.retry_s is not None:
            wait_s = task.retry_s if asked.after_s is None else asked.after_s
            return _put_back(work.job, task, message, wait_s=wait_s)
        event = _record(work.job, task.key, cells)
    except AppendError as error:
        stop = message if isinstance(asked, StopRun) else ""
        return Outcome(task.key, "", message=error.reason, details=details, unrecorded=error.event, stop=stop)
    return Outcome(task.key, event.cells[work.job.status_column], _text_of(event.cells), details, attempt=task.attempt)


def reason_asked(asked: Retry | StopRun) -> str:
    """Return why a function of the caller's asks for another attempt, or for the end of the run."""
    try:
        return str(asked)
    except Exception:  # noqa: BLE001  # a class of the caller's may well fail to describe itself
        return one_line(asked, longest=LONGEST_MESSAGE)


def _put_back(job: Recorder, task: Task, reason: str, *, wait_s: float | None = None, stop: str = "") -> Outcome:
    """Leave a PO as it was before it was taken up."""
    job.record_deferred(task.key, attempt=task.attempt, reason=reason, wait_s=wait_s)
    return Outcome(
        task.key, "", cleaned(reason, longest=LONGEST_MESSAGE), attempt=task.attempt, wait_s=wait_s, stop=stop
    )


def _record(job: Recorder, key: str, cells: dict[str, object]) -> Event:
    status = cells.pop(COLUMNS["status"])
    try:
        return job.emit_result(key, status, columns=cells)  # type: ignore[arg-type]  # it is checked there
    except InvalidEvent as error:
        return job.emit_result(key, Status.ERROR, error_message=_of_no_place(error))


def _of_no_place(error: InvalidEvent) -> str:
    return cleaned(f"the result belongs to no row or no column: {error}", longest=LONGEST_MESSAGE)


def _cells(returned: object, task: Task, key_column: str, status_column: str) -> dict[str, object]:
    """Return the columns to set: STATUS first, and an old ERROR_MESSAGE cleared unless there is a new one.

    The key may be among them, unchanged, since to return the row with some cells changed is natural. So may a STATUS of
    the list's own, when what came of a PO has another column.
    """
    returned = _without_enum(returned)
    if returned is None:
        return _completed({}, task)
    if is_truth(returned):
        return _completed({_STATUS: (COLUMNS["status"], Status.COMPLETED if returned else Status.FAILED)}, task)
    if isinstance(returned, str):
        return _completed({_STATUS: (COLUMNS["status"], returned)}, task)
    pairs, unread = pairs_in(returned)
    if not pairs and not hasattr(returned, "keys") and not is_dataclass(returned):
        unread = short(returned)
    named, faults = _named(pairs, task, key_column)
    named = _with_status(named, task, status_column)
    faults = [f"{unread}; {_MAY_RETURN}"] * bool(unread) + faults
    if faults:
        message = text_of(named.pop(_MESSAGE, ("", None))[1], []) or ""
        told = cleaned("; ".join(f"process returned {fault}" for fault in faults), longest=LONGEST_MESSAGE)
        named[_STATUS] = (COLUMNS["status"], Status.ERROR)
        named[_MESSAGE] = (COLUMNS["error_message"], f"{message}; {told}" if message.strip() else told)
    return _completed(named, task)


def _named(pairs: Pairs, task: Task, key_column: str) -> tuple[dict[str, tuple[str, object]], list[str]]:
    """Return the columns that can be set, by what tells them apart, and what is wrong with the others."""
    named: dict[str, tuple[str, object]] = {}
    faults: list[str] = []
    for name, value in pairs:
        ident = column_ident(name) if isinstance(name, str) else ""
        if not ident:
            faults.append(f"the name of a column that is no text, or blank: {short(name)}")
        elif ident in named:
            faults.append(f"the column {name!r} twice")
        elif ident != column_id(key_column):
            named[ident] = (str(name), value)
        elif (key := _key_text(value)) not in {"", task.key}:
            faults.append(f"{name} {short(key)}, which is the key of another row")
    return named, faults


def _with_status(named: dict[str, tuple[str, object]], task: Task, status_column: str) -> dict[str, tuple[str, object]]:
    """Return the columns with what came of the PO as STATUS, which may have another column than the list's own."""
    ident = column_ident(status_column)
    if ident == _STATUS:
        return named
    rest = {name: value for name, value in named.items() if name not in {ident, _STATUS}}
    given, own = named.get(ident, ("", None))[1], named.get(_STATUS)
    if own and isinstance(own[1], Status):  # no cell is one, so this is no part of the row
        return rest | {_STATUS: own}
    if not is_missing(given) and given != "":
        return rest | {_STATUS: (COLUMNS["status"], given)}
    if own is None or any(column_id(name) == _STATUS and text == own[1] for name, text in task.row.items()):
        return rest  # a whole row was returned, and its STATUS is the list's
    return rest | {_STATUS: own}


def _completed(named: Mapping[str, tuple[str, object]], task: Task) -> dict[str, object]:
    status = named.get(_STATUS, ("", None))[1]
    is_none = is_missing(status) or (isinstance(status, str) and not status.strip(BLANKS))
    cells: dict[str, object] = {COLUMNS["status"]: Status.COMPLETED if is_none else status}
    if is_missing(named.get(_MESSAGE, ("", None))[1]) and any(
        column_id(name) == _MESSAGE and text for name, text in task.row.items()
    ):
        cells[COLUMNS["error_message"]] = ""
    return cells | {name: value for ident, (name, value) in named.items() if ident != _STATUS and value is not None}


def _without_enum(value: object) -> object:
    return _without_enum(value.value) if isinstance(value, Enum) and not isinstance(value, str) else value


def _key_text(value: object) -> str:
    return (whole_digits(value) or text_of(value, []) or "").strip(BLANKS)


def _text_of(cells: Mapping[str, str]) -> str:
    return next((text for name, text in cells.items() if column_id(name) == _MESSAGE), "")
