"""Ctrl-C, SIGTERM and SIGHUP: the first one asks to stop, the second one insists."""

from __future__ import annotations

import os
import queue
import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BY_SIGNAL: Final = 128
"""What a shell adds to the number of the signal that ended a command, for its exit code."""


class Stop:
    """Set by the first signal.

    Not a `threading.Event`: setting one takes a lock that `wait()` of the same thread may hold at that moment, so that
    the handler would wait for itself for ever. `put` of a SimpleQueue is documented as reentrant.

    Attributes:
        reason: The name of that signal, or "".
    """

    def __init__(self) -> None:
        self.reason = ""
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_set = False

    def set(self) -> None:
        """Ask to stop."""
        self._is_set = True
        self._asked.put(None)

    def is_set(self) -> bool:
        """Return whether anyone asked to stop."""
        return self._is_set

    def wait(self, timeout_s: float) -> bool:
        """Wait for that, `timeout_s` seconds at most, and return whether anyone did. For one waiting thread."""
        if not self._is_set:
            with suppress(queue.Empty):
                self._asked.get(timeout=timeout_s)
        return self._is_set


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Give an event that the first signal sets; the second one strikes as ever. Only the main thread gets signals.

    A signal that is ignored, as SIGINT is for a shell's background jobs and SIGHUP below nohup, stays so.
    """
    # When it is loaded, Polars puts a handler of its own before the one in force; whatever it is doing at a SIGINT then
    # ends as KeyboardInterrupt, beside our handler (https://github.com/pola-rs/polars/pull/20961). Loaded first, it is
    # ours that replaces it.
    import polars  # noqa: F401, ICN001, PLC0415  # only to be loaded, and not for those who never wait for a signal

    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    mine = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def on_signal(number: int, frame: FrameType | None) -> None:
        if not stop.is_set():
            stop.reason = signal.Signals(number).name
            stop.set()
            return
        # From here on workers are being ended, and no further impatience may spare one of them.
        for one in mine:
            signal.signal(one, _ignore)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in mine:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number in mine:
            signal.signal(number, before[number])


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing; unlike SIG_IGN this is not inherited by programs that are started meanwhile."""


@contextmanager
def while_loading() -> Iterator[None]:
    """Let Ctrl-C end this process as it ends any program: amid imports there is nobody who could say something."""
    before = signal.getsignal(signal.SIGINT)
    mine = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if mine:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGINT, before)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as an exception does, so that what has to be done at its end is done."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(BY_SIGNAL + number)

    mine = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)
