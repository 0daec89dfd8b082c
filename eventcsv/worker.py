"""What a worker process does: one PO after another, each result recorded before the next one. Loads no Polars."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from eventcsv.errors import AppendError, InvalidEvent
from eventcsv.event import COLUMNS, Status, column_id
from eventcsv.masking import masked

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from eventcsv.event import Event

    Row = dict[str, str]
    Process = Callable[[str, Row], Mapping[str, object] | None]
    Initializer = Callable[[], object]

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_S: Final = 0.2
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_LONGEST_MESSAGE: Final = 1_000
_STATUS: Final = column_id(COLUMNS["status"])
_MESSAGE: Final = column_id(COLUMNS["error_message"])


class Recorder(Protocol):
    """Where results are recorded: an `EventCsv`, of which a worker needs no more than this."""

    def record_as(self, writer: str) -> None:
        """Begin the ids of events to come with `writer`."""

    def emit_started(self, key: str) -> Event:
        """Record that a PO is taken up."""

    def emit_result(
        self,
        key: str,
        status: str,
        *,
        error_message: str | None = None,
        columns: Mapping[str, object] | None = None,
    ) -> Event:
        """Record the result of a PO."""


@dataclass(frozen=True, slots=True)
class Task:
    """A PO to be worked on.

    Attributes:
        key: The PO.
        row: Its row: column name to text.
    """

    key: str
    row: Row


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a PO.

    Attributes:
        key: The PO.
        status: Its STATUS, or "" when nothing could be recorded.
        message: Its ERROR_MESSAGE, or why nothing could be recorded.
        details: The traceback of what `process` raised, or "".
        unrecorded: The event that could not be recorded, or None.
    """

    key: str
    status: str
    message: str = ""
    details: str = ""
    unrecorded: Event | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has started."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The worker could not start.

    Attributes:
        reason: What its initializer raised.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The worker has taken up its task."""


@dataclass(frozen=True, slots=True)
class Logged:
    """The worker has something for the log output.

    Attributes:
        level: Its level, as the logging module numbers them.
        fields: The event with its fields.
    """

    level: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What every worker is given. It is pickled, so the functions have to be importable ones.

    Attributes:
        job: Where to record results.
        process: Called with each PO and its row.
        initializer: Called once, before the first PO.
    """

    job: Recorder
    process: Process
    initializer: Initializer | None

    def check(self) -> None:
        """Raise whatever keeps this from being pickled."""
        pickle.dumps(self)


def serve(work: Work, writer: str, connection: Connection, lifeline: Connection, session_pid: int) -> None:
    """Work on what comes in, until the connection ends or a SIGTERM asks to leave.

    Args:
        work: What to do.
        writer: What the ids of this worker's events begin with.
        connection: Brings tasks, takes messages.
        lifeline: Ends with the session's process, whatever becomes of that.
        session_pid: That process.
    """
    leaving = _detach(connection, lifeline, session_pid)
    mutex = threading.RLock()

    def send(message: object) -> None:
        with mutex:  # the caller's code may have threads, and they may log
            connection.send(message)

    _forward_logs(send)
    work.job.record_as(writer)
    try:
        if work.initializer:
            work.initializer()
    except Exception as error:  # noqa: BLE001  # whatever it is, the session has to know
        send(Broken(_one_line(error)))
        return
    with suppress(EOFError, ConnectionError):  # the session has ended, or has died
        send(Ready())
        while not leaving.is_set():
            if connection.poll(_LOOK_S):
                task: Task = connection.recv()
                send(Taken())
                send(work_on(task, work))


def _detach(connection: Connection, lifeline: Connection, session_pid: int) -> threading.Event:
    """Leave Ctrl-C and hang-ups to the session, and die with it; what this worker starts dies with the worker."""
    leaving = threading.Event()
    for end in (connection, lifeline):  # a browser that inherited these would hide this worker's death
        os.set_inheritable(end.fileno(), False)
    # Handlers, since what is ignored stays ignored in the programs that a worker starts; a browser must stay stoppable.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGHUP, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    os.setpgrp()
    _ask_to_be_killed_with(session_pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    threading.Thread(target=_die_with, args=(lifeline,), daemon=True).start()
    return leaving


def _ask_to_be_killed_with(session_pid: int) -> None:
    """Have the kernel kill this worker when its session dies, even while it lets no other thread run. Linux only."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415  # nobody else needs it

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != session_pid:  # it was too late for that
        os.killpg(0, signal.SIGKILL)


def _die_with(lifeline: Connection) -> None:
    # Two sessions must never work on one PO, so a worker does not outlive its own; nor does what it has started.
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)


def _forward_logs(send: Callable[[object], None]) -> None:
    class Forwarding(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if isinstance(record.msg, dict):
                send(Logged(record.levelno, record.msg))

    logger = logging.getLogger("eventcsv")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(Forwarding())
    logger.propagate = False


def work_on(task: Task, work: Work) -> Outcome:
    """Take up a PO, work on it and record what came of it."""
    try:
        work.job.emit_started(task.key)  # first, so that a crash after the work does not hide that it was done
    except AppendError as error:
        return Outcome(task.key, "", message=f"it was not taken up: {error}", unrecorded=error.event)
    details = ""
    try:
        cells = _cells(work.process(task.key, task.row), task.row)
    except Exception as error:  # noqa: BLE001  # any failure of the caller's code is this PO's, and nobody else's
        cells = {COLUMNS["status"]: Status.ERROR, COLUMNS["error_message"]: _one_line(error)}
        details = traceback.format_exc()
    try:
        event = _record(work.job, task.key, cells)
    except AppendError as error:
        return Outcome(task.key, "", message=str(error), details=details, unrecorded=error.event)
    return Outcome(task.key, event.cells[COLUMNS["status"]], _text_of(event.cells), details)


def _record(job: Recorder, key: str, cells: dict[str, object]) -> Event:
    status = cells.pop(COLUMNS["status"])
    try:
        return job.emit_result(key, status, columns=cells)  # type: ignore[arg-type]  # it is checked there
    except InvalidEvent as error:
        return job.emit_result(key, Status.ERROR, error_message=_clean(f"the result breaks a rule: {error}"))


def _cells(returned: object, row: Row) -> dict[str, object]:
    """Return the columns to set: STATUS first, and an old ERROR_MESSAGE cleared unless there is a new one."""
    if returned is None:
        returned = {}
    if not isinstance(returned, Mapping):
        raise TypeError(f"process returned {type(returned).__name__}; it has to return a mapping of columns, or None")
    named = {column_id(str(name)): value for name, value in returned.items()}
    status = named.get(_STATUS)
    cells: dict[str, object] = {COLUMNS["status"]: Status.COMPLETED if status is None else status}
    if named.get(_MESSAGE) is None and any(column_id(name) == _MESSAGE and text for name, text in row.items()):
        cells[COLUMNS["error_message"]] = ""
    return cells | {name: value for name, value in returned.items() if column_id(str(name)) != _STATUS}


def _text_of(cells: Mapping[str, str]) -> str:
    return next((text for name, text in cells.items() if column_id(name) == _MESSAGE), "")


def _one_line(error: BaseException) -> str:
    """Return what an exception says, as one line that any cell can hold."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # an exception may well fail to describe itself
        text = "(it cannot be shown)"
    return _clean(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _clean(text: str) -> str:
    """Return a text as one line without secrets, and not too long."""
    line = masked(" ".join(text.split()))  # nobody has looked at it before it goes into the CSV
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[: _LONGEST_MESSAGE - 3]}..."
