"""Follows a job: looks at it again and again, and shows what it sees as a view on a terminal or as lines elsewhere."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from eventcsv.cli.wording import edit_line, progress_line, stopping_by
from eventcsv.signals import stop_signals, terminable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventcsv.cli.live.inline import Screen
    from eventcsv.cli.live.monitor import Monitor
    from eventcsv.run.session import Session

LOOK_S: Final = 1.0
LINE_EVERY_S: Final = 10.0
_MOST_LINES: Final = 16


def watch_in_full_screen(monitor: Monitor) -> None:
    """Show a job in the whole terminal until q, Ctrl-C or SIGTERM."""
    from eventcsv.cli.live.dashboard import HINT, frame  # noqa: PLC0415  # only a terminal needs rich
    from eventcsv.cli.live.fullscreen import full_screen  # noqa: PLC0415  # only a terminal has one

    with terminable(), full_screen() as screen, stop_signals() as stop:
        while not stop.is_set():
            width, height = screen.size
            screen.draw(frame(monitor.snapshot(), width=width, height=height, hint=HINT))
            if screen.wait(LOOK_S):
                return
            monitor.update()


def watch_in_lines(monitor: Monitor, show: Callable[[str], None], *, every_s: float) -> None:
    """Show a job line by line until Ctrl-C or SIGTERM."""
    with stop_signals() as stop:
        show(progress_line(monitor.progress))
        while not stop.wait(every_s):
            monitor.update()
            show(monitor.trouble or progress_line(monitor.progress))


@contextmanager
def following(monitor: Monitor, session: Session, screen: Screen | None, say: Callable[[str], None]) -> Iterator[None]:
    """Show how far a run is: live on a terminal, otherwise a line now and then.

    Args:
        monitor: Looks at the run's job.
        session: The run's session.
        screen: The terminal, or None.
        say: Prints a line.
    """
    ended = threading.Event()

    def follow() -> None:
        if screen:
            _draw_until(ended, monitor, session, screen, say)
        else:
            _say_until(ended, monitor, session, say)

    follower = threading.Thread(target=follow, name="eventcsv-follower", daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()


def _draw_until(
    ended: threading.Event, monitor: Monitor, session: Session, screen: Screen, say: Callable[[str], None]
) -> None:
    from rich.console import Group  # noqa: PLC0415  # only a terminal needs it

    from eventcsv.cli.live.dashboard import frame  # noqa: PLC0415  # only a terminal needs rich

    told, notice = len(session.edits), ""
    with screen.live() as live:
        while not ended.is_set():
            monitor.update()
            told = _say_edits(session, told, say)
            if session.notice != notice:
                say(f"eventcsv: {(notice := session.notice)}")
            width, height = screen.resize()
            lines = frame(monitor.snapshot(stopping=session.stopping), width=width - 1, height=_share(height))
            # The empty line takes what a terminal shows of Ctrl-C: it would break a full one, and move what is erased.
            live.update(Group(*lines, ""), refresh=True)
            ended.wait(LOOK_S)


def _share(height: int) -> int:
    """Return how many lines of a terminal the view may take: what is printed above it has to show, too."""
    return max(1, min(_MOST_LINES, height - height // 3 - 2))


def _say_until(ended: threading.Event, monitor: Monitor, session: Session, say: Callable[[str], None]) -> None:
    said: set[str] = set()

    def say_once(text: str) -> None:
        if text not in said:
            said.add(text)
            say(text)

    due_s, told = time.monotonic() + LINE_EVERY_S, len(session.edits)
    while not ended.wait(LOOK_S):
        told = _say_edits(session, told, say)
        if session.stopping:
            say_once(stopping_by(session.stopping))
        if session.notice:
            say_once(f"eventcsv: {session.notice}")
        if time.monotonic() > due_s:
            due_s += LINE_EVERY_S
            monitor.update()
            if monitor.trouble:
                say_once(f"eventcsv: {monitor.trouble}")
            else:
                say(progress_line(monitor.progress))


def _say_edits(session: Session, told: int, say: Callable[[str], None]) -> int:
    """Say what was saved since, and return how many saves were told by now."""
    new = session.edits[told:]
    for edit in new:
        say(f"eventcsv: {edit_line(edit)}")
    return told + len(new)
