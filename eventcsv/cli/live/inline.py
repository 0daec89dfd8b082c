"""Keeps what the caller's code prints apart from results and from the live view of a run.

Standard output is for results, so whatever a job prints goes to standard error. On a terminal that is where the live
view is drawn, and a print of a worker would tear it: there, both go through a pipe, and come out above the view.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from eventcsv.masking import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.live import Live

_LOOK_S: Final = 0.2


def can_be_drawn_on(fd: int) -> bool:
    """Tell whether a descriptor is a terminal in which more can be done than to add lines."""
    return os.isatty(fd) and os.environ.get("TERM", "dumb") not in {"", "dumb", "unknown"}


@dataclass(frozen=True, slots=True)
class Screen:
    """A terminal to draw on.

    Attributes:
        console: Writes to it, whatever standard error is meanwhile.
    """

    console: Console

    def live(self) -> Live:
        """Return what draws a view below whatever is printed."""
        from rich.live import Live  # noqa: PLC0415  # only a terminal needs it

        # What is printed has its own way to the screen.
        redirected = False
        return Live(
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=redirected,
            redirect_stderr=redirected,
        )

    def resize(self) -> tuple[int, int]:
        """Return how many columns and lines there are at this moment, and draw accordingly from now on."""
        with suppress(OSError):
            size = os.get_terminal_size(self.console.file.fileno())
            if size.columns and size.lines:
                self.console.size = size
        return self.console.size


@contextmanager
def own_screen() -> Iterator[Screen | None]:
    """Send what this process and its children print to standard error; on a terminal, give the terminal itself."""
    try:
        is_terminal = can_be_drawn_on(2)
        kept = {number: os.dup(number) for number in (1, 2)}
    except OSError:  # one of them is closed
        yield None
        return
    try:
        _flush()
        if is_terminal:
            with _piped(kept[2]) as screen:
                yield screen
        else:
            os.dup2(2, 1)
            yield None
    finally:
        _flush()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


@contextmanager
def _piped(terminal: int) -> Iterator[Screen]:
    from rich.console import Console  # noqa: PLC0415  # only a terminal needs it

    end, beginning = os.pipe()
    for number in (1, 2):
        os.dup2(beginning, number)
    os.close(beginning)
    ended = threading.Event()
    with os.fdopen(os.dup(terminal), "w", encoding="utf-8", errors="backslashreplace") as file:
        console = Console(file=file, force_terminal=True)
        printer = threading.Thread(target=_print_lines, args=(end, console, ended), daemon=True)
        printer.start()
        try:
            yield Screen(console)
        finally:
            _flush()
            ended.set()
            printer.join()
            os.close(end)


def _print_lines(end: int, console: Console, ended: threading.Event) -> None:
    """Print what comes in, line by line, until told to end; a browser may keep the other end open for longer."""
    from rich.text import Text  # noqa: PLC0415  # only a terminal needs it

    rest = b""
    while True:
        ready = select.select([end], [], [], 0 if ended.is_set() else _LOOK_S)[0]
        if not ready and ended.is_set():
            break
        if ready:
            *lines, rest = (rest + os.read(end, 65536)).split(b"\n")
            for line in lines:
                console.print(Text(escaped(line.decode(errors="replace"))), soft_wrap=True)
    if rest:
        console.print(Text(escaped(rest.decode(errors="replace"))), soft_wrap=True)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
