"""How far a job is, as often as it is worth to look. Draws nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from eventcsv.cli.wording import trouble_of
from eventcsv.errors import EventCsvError, reason_of
from eventcsv.masking import masked

if TYPE_CHECKING:
    from eventcsv.job import EventCsv
    from eventcsv.log.types import Damage
    from eventcsv.view.progress import Progress

_SHARE_OF_TIME: Final = 0.1
_STALE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a job stands at one moment.

    Attributes:
        progress: How far it is, as far as could be found out.
        now: When that is looked at, with its time zone.
        damage: What was found damaged since the watching began.
        trouble: What keeps the present progress from being known, or "".
        stopping: Who or what has asked the run to stop, or "".
    """

    progress: Progress
    now: datetime
    damage: tuple[Damage, ...] = ()
    trouble: str = ""
    stopping: str = ""


class Monitor:
    """Looks at a job again and again.

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

    def update(self) -> None:
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

    def snapshot(self, *, stopping: str = "") -> Snapshot:
        """Return what there is to show now."""
        trouble = self.trouble or trouble_of(self.progress)
        return Snapshot(self.progress, datetime.now(UTC), self.damage, trouble, stopping)
