"""Follows a job: looks at it again and again, and shows each look as a view on a terminal or as lines elsewhere."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from eventcsv.cli.wording import STOPPING, edit_line, progress_line, trouble_of
from eventcsv.errors import EventCsvError, reason_of
from eventcsv.masking import masked
from eventcsv.signals import stop_signals, terminable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventcsv.cli.live.dashboard import Look
    from eventcsv.cli.live.inline import Screen
    from eventcsv.job import EventCsv
    from eventcsv.log.scan import Damage
    from eventcsv.run.session import Session
    from eventcsv.view.progress import Progress

LOOK_S: Final = 1.0
LINE_EVERY_S: Final = 10.0
_SHARE_OF_TIME: Final = 0.1
_STALE_S: Final = 5.0
_MOST_LINES: Final = 16


class Looks:
    """How far a job is, look by look.

    Args:
        job: The job.
        done: The STATUS words that count as done.

    Attributes:
        progress: As it was at the last look that succeeded.
        trouble: What kept the last look from succeeding, or "".
        damage: Every damaged place that was met so far; a compaction passes over one, and then only we know of it.

    Raises:
        What `EventCsv.progress` raises: a first look that fails is no trouble that passes.
    """

    def __init__(self, job: EventCsv, done: list[str]) -> None:
        self.trouble = ""
        self._job = job
        self._done = done
        self._damage: dict[tuple[str, int], Damage] = {}
        self._seen: object = None
        self._due_s = 0.0
        self.progress = self._measure()
        self._due_s = 0.0  # what it costs shows from the next one on: this one had to load what it needs

    @property
    def damage(self) -> tuple[Damage, ...]:
        return tuple(self._damage.values())

    def again(self) -> None:
        """Look again, if there is anything new; it costs a tenth of the time at most."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return
        try:
            state = (self._job.fingerprint(), self._job.session_holder())
            if state == self._seen and now_s < self._due_s + _STALE_S:  # the rate falls when nothing comes
                return
            self.progress = self._measure()
            self._seen, self.trouble = state, ""
        except (EventCsvError, OSError) as error:  # the operator will mend it
            self._seen, self.trouble = None, f"{masked(reason_of(error))}. Results go on into the log"

    def _measure(self) -> Progress:
        clock_s = time.monotonic()
        try:
            progress = self._job.progress(done=self._done)
        finally:
            ended_s = time.monotonic()
            self._due_s = ended_s + (ended_s - clock_s) * (1 / _SHARE_OF_TIME - 1)
        self._damage |= {(item.segment, item.offset_bytes): item for item in progress.damage}
        return progress

    def look(self, *, stopping: bool = False) -> Look:
        """Return what there is to show now."""
        from eventcsv.cli.live.dashboard import Look  # noqa: PLC0415  # only a terminal needs rich

        trouble = self.trouble or trouble_of(self.progress)
        return Look(self.progress, datetime.now(UTC), self.damage, trouble, stopping)


def watch_in_full_screen(looks: Looks) -> None:
    """Show a job in the whole terminal until q, Ctrl-C or SIGTERM."""
    from eventcsv.cli.live.dashboard import HINT, frame  # noqa: PLC0415  # only a terminal needs rich
    from eventcsv.cli.live.fullscreen import full_screen  # noqa: PLC0415  # the same

    with terminable(), full_screen() as screen, stop_signals() as stop:
        while not stop.is_set():
            width, height = screen.size
            screen.draw(frame(looks.look(), width=width, height=height, hint=HINT))
            if screen.wait(LOOK_S):
                return
            looks.again()


def watch_in_lines(looks: Looks, show: Callable[[str], None], *, every_s: float) -> None:
    """Show a job line by line until Ctrl-C or SIGTERM."""
    with stop_signals() as stop:
        show(progress_line(looks.progress))
        while not stop.wait(every_s):
            looks.again()
            show(looks.trouble or progress_line(looks.progress))


@contextmanager
def following(looks: Looks, session: Session, screen: Screen | None, say: Callable[[str], None]) -> Iterator[None]:
    """Show how far a run is: live on a terminal, otherwise a line now and then.

    Args:
        looks: The run's job.
        session: The run's session.
        screen: The terminal, or None.
        say: Prints a line.
    """
    ended = threading.Event()

    def follow() -> None:
        if screen:
            _draw_until(ended, looks, session, screen, say)
        else:
            _say_until(ended, looks, session, say)

    follower = threading.Thread(target=follow, name="eventcsv-follower", daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()


def _draw_until(
    ended: threading.Event, looks: Looks, session: Session, screen: Screen, say: Callable[[str], None]
) -> None:
    from rich.console import Group  # noqa: PLC0415  # only a terminal needs it

    from eventcsv.cli.live.dashboard import frame  # noqa: PLC0415  # the same

    told = len(session.edits)
    with screen.live() as live:
        while not ended.is_set():
            looks.again()
            told = _say_edits(session, told, say)
            width, height = screen.resize()
            lines = frame(looks.look(stopping=_is_stopping(session)), width=width - 1, height=_share(height))
            # The empty line takes what a terminal shows of Ctrl-C: it would break a full one, and move what is erased.
            live.update(Group(*lines, ""), refresh=True)
            ended.wait(LOOK_S)


def _share(height: int) -> int:
    """Return how many lines of a terminal the view may take: what is printed above it has to show, too."""
    return max(1, min(_MOST_LINES, height - height // 3 - 2))


def _say_until(ended: threading.Event, looks: Looks, session: Session, say: Callable[[str], None]) -> None:
    said: set[str] = set()

    def say_once(text: str) -> None:
        if text not in said:
            said.add(text)
            say(text)

    due_s, told = time.monotonic() + LINE_EVERY_S, len(session.edits)
    while not ended.wait(LOOK_S):
        told = _say_edits(session, told, say)
        if _is_stopping(session):
            say_once(STOPPING)
        if time.monotonic() > due_s:
            due_s += LINE_EVERY_S
            looks.again()
            if looks.trouble:
                say_once(f"eventcsv: {looks.trouble}")
            else:
                say(progress_line(looks.progress))


def _say_edits(session: Session, told: int, say: Callable[[str], None]) -> int:
    """Say what was saved since, and return how many saves were told by now."""
    new = session.edits[told:]
    for edit in new:
        say(f"eventcsv: {edit_line(edit)}")
    return told + len(new)


def _is_stopping(session: Session) -> bool:
    return bool(session.stop and session.stop.is_set())
