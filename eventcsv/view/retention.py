"""Which backups are kept: the newest of each sort, and those that somebody asked for. Pure.

Of backups that sessions made the newest five stay; of those of edits the newest five, and the first of each session as
long as the session's own; of the others the newest five. The first base of all stays as long as the log begins where it
does: whoever saves a copy of the CSV as it was then has to be understood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from eventcsv.log.types import Position

KEPT: Final = 5
SESSION: Final = "a session began"
ASKED: Final = "asked for"
FIRST: Final = "before the first compaction"
EDITED: Final = "the CSV was edited"
AS_SAVED: Final = "as it was saved"


class Copy(Protocol):
    """A backup, as far as it matters here."""

    @property
    def number(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def position(self) -> Position | None: ...


AnyCopy = TypeVar("AnyCopy", bound=Copy)


def kept(known: Sequence[AnyCopy], first: Position | None, is_whole: Callable[[AnyCopy], bool]) -> set[int]:
    """Return the numbers of the backups that stay.

    Args:
        known: The backups of one log, the newest first.
        first: Where the log begins; None when that is no reason to keep one.
        is_whole: Tells whether a backup is what was written.
    """
    asked = {backup.number for backup in known if backup.reason == ASKED}
    of_sessions = _newest(known, {SESSION}, is_whole)
    floor = min(of_sessions) if len(of_sessions) >= KEPT else 0
    stay = asked | of_sessions | _first_base(known, first)
    others = {backup.reason for backup in known} - {ASKED, SESSION, EDITED, AS_SAVED}
    for reasons in ({EDITED}, {AS_SAVED}, others):
        stay |= {number for number in _newest(known, reasons, is_whole) if number >= floor}
    for reason in (EDITED, AS_SAVED):
        numbers = sorted(backup.number for backup in known if backup.reason == reason)
        stay |= {next((number for number in numbers if number > session), session) for session in of_sessions}
    return stay


def _first_base(known: Sequence[Copy], first: Position | None) -> set[int]:
    """Return the first base of all when the log begins where it does, and only one of several there."""
    places = [(item.position, item.number) for item in known if item.position is not None]
    return {min(places)[1]} if places and min(places)[0] == first else set()


def _newest(known: Sequence[AnyCopy], reasons: Collection[str], is_whole: Callable[[AnyCopy], bool]) -> set[int]:
    """Return the numbers of the newest made for some reasons; damaged ones stay, too, and do not count."""
    stay: set[int] = set()
    whole = 0
    for backup in known:
        if backup.reason not in reasons:
            continue
        if whole == KEPT:
            break
        stay.add(backup.number)
        whole += is_whole(backup)
    return stay
