"""The terminal for a view alone: alternate screen, no cursor, no echo; given back as it was, however the view ends.

Ctrl-Z gives it back too, and `fg` takes it again. Only `kill -9` leaves it as it is; `reset` mends that.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, Group
from rich.control import Control
from rich.screen import Screen

from eventcsv.cli.live.inline import can_be_drawn_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from rich.text import Text

_SIZE: Final = (80, 24)  # of a terminal that does not tell
_READ_BYTES: Final = 1024
_ASCII: Final = str.maketrans({"━": "=", "─": "-", "…": "~"})


class FullScreen:
    """A terminal that a view has for itself. Made by `full_screen`; for the main thread only.

    Args:
        console: Writes to it.
        keys: The descriptor that keys come from, or None when nobody can type.
        woken: Becomes readable with each signal.
    """

    def __init__(self, console: Console, keys: int | None, woken: int) -> None:
        self._console = console
        self._keys = keys
        self._woken = woken
        self._modes: list[Any] | None = None
        self._shown: object = None
        self._is_to_stop = False

    @property
    def size(self) -> tuple[int, int]:
        """How many columns and lines there are at this moment."""
        try:
            size = os.get_terminal_size(self._console.file.fileno())
        except OSError:
            return _SIZE
        return (size.columns or _SIZE[0], size.lines or _SIZE[1])

    def draw(self, lines: list[Text]) -> None:
        """Show these lines, in one write, unless they are shown already."""
        size = self.size
        if (lines, size) == self._shown:
            return
        self._console.size = size
        if not self._console.encoding.startswith("utf"):
            for line in lines:
                line.plain = line.plain.translate(_ASCII)
        with self._console:
            self._console.control(Control.home())
            self._console.print(Screen(Group(*lines)), end="")
        self._shown = (lines, size)

    def wait(self, timeout_s: float) -> bool:
        """Wait for a while, for less when a signal or a key comes; tell whether that key asks to end."""
        ready, _, _ = select.select([self._woken, *([] if self._keys is None else [self._keys])], [], [], timeout_s)
        if self._woken in ready:
            os.read(self._woken, _READ_BYTES)
        if self._is_to_stop:
            self._is_to_stop = False
            self._stop()
        if self._keys not in ready or self._keys is None:
            return False
        typed = os.read(self._keys, _READ_BYTES)
        if not typed:  # the terminal is gone
            self._keys = None
        return b"q" in typed.lower()

    def take(self) -> None:
        """Take the terminal, from whoever had it."""
        if self._keys is not None:
            self._modes = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)  # first: in the background it stops here, with the screen as it was
        self._console.set_alt_screen(True)
        self._console.show_cursor(False)
        self._shown = None

    def give_back(self) -> None:
        """Leave the terminal as it was."""
        with suppress(OSError):  # it may be gone
            self._console.show_cursor(True)
            self._console.set_alt_screen(False)
        if self._keys is not None and self._modes is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._modes)

    def suspend(self, _number: int, _frame: FrameType | None) -> None:
        """Stop with the next `wait`; the handler of Ctrl-Z, which may come in the middle of a write to the terminal."""
        self._is_to_stop = True

    def _stop(self) -> None:
        """Give the terminal back for as long as this process is stopped."""
        self.give_back()
        before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, before)
        self.take()


def has_full_screen() -> bool:
    """Tell whether standard output is a terminal that is ours: a view in the background must not disturb the shell."""
    try:
        return can_be_drawn_on(1) and os.tcgetpgrp(1) == os.getpgrp()
    except OSError:  # it is not the terminal that controls us, so nobody else uses it
        return can_be_drawn_on(1)


@contextmanager
def full_screen() -> Iterator[FullScreen]:
    """Take the whole terminal for as long as the block lasts."""
    with ExitStack() as stack:
        woken, waking = os.pipe()
        stack.callback(os.close, woken)
        stack.callback(os.close, waking)
        os.set_blocking(waking, False)
        stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(waking, warn_on_full_buffer=False))
        console = Console(file=sys.stdout, force_terminal=True, force_interactive=True, highlight=False)
        screen = FullScreen(console, 0 if os.isatty(0) else None, woken)
        stack.callback(screen.give_back)
        screen.take()
        for number, handler in ((signal.SIGTSTP, screen.suspend), (signal.SIGWINCH, _look_again)):
            stack.enter_context(_handled(number, handler))
        yield screen


@contextmanager
def _handled(number: int, handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _look_again(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: that there is a handler is what wakes the view after a change of the window's size."""
