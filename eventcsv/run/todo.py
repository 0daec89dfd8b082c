"""Which POs are still to do, and in which order: by the CSV as it is now, and by what other hosts have claimed."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

import polars as pl

from eventcsv import masking
from eventcsv.errors import EventCsvError, InvalidEvent
from eventcsv.event import BLANKS, Kind, column_id
from eventcsv.log.interface import Refusal
from eventcsv.log.scan import events
from eventcsv.view.progress import work_of
from eventcsv.worker.messages import Task
from eventcsv.worker.rules import key_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection

    from eventcsv.log.interface import Claims
    from eventcsv.log.types import Position
    from eventcsv.view.compactor import Compactor
    from eventcsv.view.projection import Projection
    from eventcsv.worker.recorder import Recorder

_LOOK_AGAIN_S: Final = 0.5


class Todo:
    """The POs that a run has still to do; the source of a pool's tasks. Its length is how many nobody has been given.

    Args:
        job: Whose POs they are.
        compactor: Knows the CSV at the log's present end.
        view_changed: Set whenever an operator may have changed what there is to do.
        done: The STATUS words that count as done.
        hold: Whether POs that were in flight when an earlier run died are held back.
        owner: What the run calls itself in its claims.
        lease_s: How long a claim lasts without being renewed, in seconds.

    Attributes:
        interrupted: The POs that were in flight when an earlier run died.
        held: Those of them that are held back.
        elsewhere: How many POs other hosts have finished since.
        refused: Keys that no event, or no claim, may have.
        again: POs that were finished here and are to do again, since somebody set their STATUS back.
    """

    def __init__(
        self,
        job: Recorder,
        compactor: Compactor,
        view_changed: threading.Event,
        done: Collection[str],
        *,
        hold: bool,
        owner: str,
        lease_s: float,
    ) -> None:
        self._job = job
        self._compactor = compactor
        self._status = column_id(job.status_column)
        self._view_changed = view_changed
        self._done = done
        self._hold = hold
        self._queue: deque[tuple[str, int]] = deque()
        self._met: set[str] = set()
        self._finished: set[str] = set()
        self._reset_at: dict[str, Position] = {}
        self._edits_seen: Position | None = None
        self._exhausted = False
        self._tokens: dict[str, int] = {}
        self._held_elsewhere: deque[tuple[str, int]] = deque()
        self._waited_for: set[str] = set()
        self._look_again_at = 0.0
        self.elsewhere = 0
        self.refused: list[str] = []
        self.again: dict[str, None] = {}
        folded = self._plan()
        self._start = folded.end.position
        self._claims = job.log.claims(owner=owner, lease_s=lease_s, seen=self._start)
        in_flight = {item.key for item in folded.in_flight} - (self._claims.held() if self._claims else frozenset())
        self.interrupted = tuple(key for key, _ in self._queue if key in in_flight)
        self.held = self.interrupted if hold else ()
        self._met.update(self.held)
        self._queue = deque(item for item in self._queue if item[0] not in self._met)

    def __len__(self) -> int:
        return len(self._queue)

    def _plan(self) -> Projection:
        """Find what is still to do, by the CSV as it is now."""
        self._view_changed.clear()
        folded = self._compactor.project()
        pending = work_of(folded.table, self._done).filter(~pl.col("done"))
        self._take_up_again(folded.end.position, set(pending.get_column("key")))
        self._rows, self._names = folded.table.rows_as_text(), folded.table.names
        for key in pending.get_column("key"):
            if key not in self._met and not _is_key(key):
                self._refuse(key)
        self._queue = deque(item for item in pending.select("key", "row").iter_rows() if item[0] not in self._met)
        return folded

    def _take_up_again(self, end: Position, pending: set[str]) -> None:
        """Let POs be worked on again whose STATUS somebody has set back after this run had finished them."""
        start, self._edits_seen = self._edits_seen, end
        if start is None or start == end:
            return
        for chunk in self._job.log.read(start, end):
            if b'"kind":"edit"' not in chunk.raw:
                continue
            for event in events(chunk)[0]:
                key = event.key.strip(BLANKS)
                is_reset = event.kind == Kind.EDIT and any(column_id(name) == self._status for name in event.cells)
                if is_reset and key in self._finished and key in pending:
                    self._finished.discard(key)
                    self._met.discard(key)
                    self.again[key] = None
                    self._reset_at[key] = end
                    masking.get_logger().info("po.again", key=key)

    def _refuse(self, key: str) -> None:
        self._met.add(key)
        self.refused.append(key)
        masking.get_logger().warning("run.key_refused", key=key, csv=self._job.csv_path)

    # --- what the pool asks ---

    def waiting(self) -> int:
        """Return how many POs nobody has been given yet, by the CSV as it is now."""
        if self._view_changed.is_set() or not (self._queue or self._held_elsewhere or self._exhausted):
            try:
                self._plan()
            except (EventCsvError, OSError) as error:  # the operator will mend it; what is known is worked on
                masking.get_logger().warning("run.not_planned_again", csv=self._job.csv_path, error=str(error))
            self._exhausted = not self._queue
            self._held_elsewhere.clear()  # they are in the plan again
        if self._claims:
            self._claim_next(self._claims)
        return len(self._queue)

    def _claim_next(self, claims: Claims) -> None:
        """Bring to the front a PO that is claimed for this run; those that others work on wait at the side."""
        if not self._queue and self._held_elsewhere and time.monotonic() >= self._look_again_at:
            self._queue, self._held_elsewhere = self._held_elsewhere, deque()
            self._look_again_at = time.monotonic() + _LOOK_AGAIN_S
        while self._queue and self._queue[0][0] not in self._tokens:
            key, _ = self._queue[0]
            found = self._claim(key, claims)
            if isinstance(found, int):
                self._tokens[key] = found
                return
            item = self._queue.popleft()
            if found is Refusal.HELD:
                self._waited_for.add(key)
                self._held_elsewhere.append(item)
            elif found is Refusal.FINISHED:
                self.elsewhere += 1
                self._met.add(key)
            elif found is Refusal.TOO_LONG:
                self._refuse(key)
            else:
                self._hold_back(key)

    def _claim(self, key: str, claims: Claims) -> int | Refusal:
        try:
            found = claims.claim(key, seen=self._reset_at.get(key))
        except EventCsvError as error:  # the server is away; what is in flight goes on
            masking.get_logger().warning("claims.not_made", error=str(error))
            return Refusal.HELD
        if isinstance(found, int) and self._hold and key in self._waited_for:
            return self._unless_interrupted(key, found, claims)
        return found

    def _unless_interrupted(self, key: str, token: int, claims: Claims) -> int | Refusal:
        """Return the token of a PO that another host gave up, or why it is not to be worked on after all."""
        try:
            in_flight = {item.key for item in self._compactor.project().in_flight}
            refusal = Refusal.INTERRUPTED if key in in_flight else None
        except (EventCsvError, OSError) as error:  # it is looked at again
            masking.get_logger().warning("run.not_planned_again", csv=self._job.csv_path, error=str(error))
            refusal = Refusal.HELD
        if refusal:
            claims.release(key)
        return refusal or token

    def _hold_back(self, key: str) -> None:
        self.interrupted += (key,)
        self.held += (key,)
        self._met.add(key)

    def expects_more(self) -> bool:
        """Tell whether other hosts work on POs, which they may give back by dying."""
        return bool(self._held_elsewhere)

    def has_lapsed(self, task: Task) -> bool:
        """Tell whether another host may have taken over a PO by now."""
        return self._claims is not None and self._claims.has_lapsed(task.key)

    def next_task(self) -> Task:
        """Return the next PO with its row."""
        key, row = self._queue.popleft()
        self._met.add(key)
        return Task(key, dict(zip(self._names, self._rows.row(row), strict=True)), self._tokens.get(key))

    def returned(self, task: Task) -> None:
        """Take back a PO that nobody has begun."""
        if self._claims:
            self._claims.release(task.key)
            self._tokens.pop(task.key, None)
        self._met.discard(task.key)
        self._view_changed.set()

    # --- what came of one ---

    def give_back(self, task: Task) -> None:
        """Leave a PO that was stopped to whoever claims it next, which may be this run."""
        self.returned(task)
        if self._hold:
            self._hold_back(task.key)

    def finish(self, key: str, *, recorded: bool) -> None:
        """Take note that a PO is over, with a result of this run's or without."""
        if self._claims:
            self._claims.forget(key)
            self._tokens.pop(key, None)
        if recorded:
            self._finished.add(key)

    def is_taken_over(self, task: Task) -> bool:
        """Tell whether another host has taken over a PO, by the server; no when it does not answer."""
        return self._claims is not None and self._claims.is_taken_over(task.key)

    def seen(self, key: str) -> Position:
        """Return how much of the log was known of a PO when it was planned."""
        return self._reset_at.get(key, self._start)

    def close(self) -> None:
        """Give back what is claimed."""
        if self._claims:
            self._claims.close()


def _is_key(text: str) -> bool:
    try:
        key_of(text)
    except InvalidEvent:
        return False
    return True
