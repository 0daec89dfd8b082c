"""The loop of a worker process: one PO after another, each result recorded before the next one. Loads no Polars."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, suppress
from selectors import EVENT_READ, PollSelector
from typing import TYPE_CHECKING, Final

from eventcsv.errors import StopRun
from eventcsv.signals import STOP_SIGNALS
from eventcsv.worker.event_loop import EventLoop
from eventcsv.worker.messages import Broken, Leave, Logged, Ready, Taken
from eventcsv.worker.values import LONGEST_MESSAGE, one_line
from eventcsv.worker.work import reason_asked, work_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from eventcsv.worker.messages import Task, Work

_LOOK_S: Final = 0.2


def serve(work: Work, writer: str, connection: Connection) -> None:
    """Work on what comes in, until a message or a SIGTERM asks to leave, or the connection ends.

    Args:
        work: What to do.
        writer: What the ids of this worker's events begin with.
        connection: Brings tasks, takes messages.
    """
    leaving = _detach(connection)
    _print_at_once()
    mutex = threading.RLock()

    def send(message: object) -> None:
        with mutex:  # the caller's code may have threads, and they may log
            connection.send(message)

    _forward_logs(send)
    work.job.record_as(writer)
    at_end = ExitStack()
    loop = EventLoop()
    at_end.callback(loop.close)
    try:
        _open(work, loop, at_end)
    except BaseException as error:  # noqa: BLE001  # whatever it is, the session has to know
        if isinstance(error, StopRun):
            send(Broken(reason_asked(error), is_stop=True))
        else:
            send(Broken(one_line(error, longest=LONGEST_MESSAGE)))
        return
    with suppress(EOFError, ConnectionError):  # the session has ended, or has died
        coming = PollSelector()
        coming.register(connection, EVENT_READ)
        send(Ready(os.getpid()))
        while not leaving.is_set():
            if coming.select(_LOOK_S):
                task: Task | Leave = connection.recv()
                if isinstance(task, Leave):
                    break
                send(Taken())
                send(work_on(task, work, loop.calling(work.process)))
    try:
        at_end.close()
    except BaseException as error:  # noqa: BLE001  # each result is recorded, so this is no PO's
        with suppress(ConnectionError):
            reason = one_line(error, longest=LONGEST_MESSAGE)
            send(Logged(logging.ERROR, {"event": "worker.not_finalized", "reason": reason}))


def _open(work: Work, loop: EventLoop, at_end: ExitStack) -> None:
    """Do what comes before the first PO, and see to it that what comes after the last one will be done."""
    if work.initializer:
        opened = loop.result_of(work.initializer())
        if isinstance(opened, AbstractContextManager):
            at_end.enter_context(opened)
        elif isinstance(opened, AbstractAsyncContextManager):
            loop.enter(opened, at_end)
    if work.finalizer:
        at_end.callback(loop.calling(work.finalizer))


def _detach(connection: Connection) -> threading.Event:
    """Leave Ctrl-C and hang-ups to the session, and lead a group of which whatever this worker starts is a part."""
    leaving = threading.Event()
    os.set_inheritable(connection.fileno(), False)  # a browser that inherited it would hide this worker's death
    # Handlers, since what is ignored stays ignored in the programs that a worker starts; a browser must stay stoppable.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGHUP, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    os.register_at_fork(after_in_child=_heed_signals)
    os.setpgrp()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    return leaving


def _heed_signals() -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _print_at_once() -> None:
    """Have each line that the caller's code prints come out at once, also into a pipe; what is held dies with us."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def _forward_logs(send: Callable[[object], None]) -> None:
    class Forwarding(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if isinstance(record.msg, dict):
                send(Logged(record.levelno, record.msg))

    logger = logging.getLogger("eventcsv")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(Forwarding())
    logger.propagate = False
