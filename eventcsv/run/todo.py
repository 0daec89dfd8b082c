"""Which POs are still to do, and in which order: by the CSV as it is now, and by what other hosts have claimed."""

from __future__ import annotations

import time
from collections import Counter, deque
from datetime import UTC, datetime
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from eventcsv import masking
from eventcsv.errors import EventCsvError, InvalidEvent
from eventcsv.event import BLANKS, Kind, column_id, moment_of
from eventcsv.log.interface import Refusal
from eventcsv.log.scan import events
from eventcsv.run.claimed import Claimed
from eventcsv.run.steering import Pace
from eventcsv.worker.messages import Task
from eventcsv.worker.rules import key_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Iterable, Iterator

    from eventcsv.event import InFlight
    from eventcsv.log.types import Position
    from eventcsv.run.options import RunOptions
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
        how: How the run is steered.
        owner: What the run calls itself in its claims.

    Attributes:
        interrupted: The POs that were in flight when an earlier run died.
        held: Those of them that are held back.
        elsewhere: How many POs other hosts have finished since.
        refused: Keys that no event, or no claim, may have.
        again: POs that were finished here and are to do again, since somebody set their STATUS back.
        retried: How many attempts were begun beyond the first one of each PO.
        claimed: What is claimed, so that no other host works on it.
    """

    def __init__(
        self,
        job: Recorder,
        compactor: Compactor,
        view_changed: threading.Event,
        how: RunOptions,
        *,
        owner: str,
    ) -> None:
        self._job = job
        self._compactor = compactor
        self._status = column_id(job.status_column)
        self._view_changed = view_changed
        self._how = how
        self._hold = how.interrupted == "hold"
        self._pace = Pace(how.rate)
        self._attempted: dict[str, int] = {}
        self._waiting: list[tuple[float, str]] = []
        self._due_again: dict[str, None] = {}
        self._begun: Counter[str] = Counter()
        self._queue: deque[tuple[str, int]] = deque()
        self._met: set[str] = set()
        self._finished: set[str] = set()
        self._edits_seen: Position | None = None
        self._exhausted = False
        self._held_elsewhere: deque[tuple[str, int]] = deque()
        self._finished_elsewhere: set[str] = set()
        self._look_again_at = 0.0
        self.elsewhere = 0
        self.refused: list[str] = []
        self.again: dict[str, None] = {}
        self.retried = 0
        folded = self._plan()
        how.choice.check(folded, how.done, source=job.csv_path)
        self.claimed = Claimed(job, compactor, how, owner=owner, start=folded.end.position)
        unfinished = {item.key: item for item in folded.in_flight}
        for key in self.claimed.by_anyone():
            unfinished.pop(key, None)
        self.interrupted = tuple(key for key, _ in self._queue if key in unfinished and not unfinished[key].waits)
        self.held = self.interrupted if self._hold else ()
        self._met.update(self.held)
        self._go_on(unfinished.values())
        self._queue = deque(item for item in self._queue if item[0] not in self._met)

    def __len__(self) -> int:
        """Return how many POs could begin now if it were not for their pace."""
        limit = self._how.choice.limit
        if limit is None or self._is_full:  # then those in the queue had begun before
            return len(self._queue)
        return min(len(self._queue), limit - len(self._begun))

    @property
    def expected(self) -> int:
        """How many POs are known to be worked on, now or later."""
        return len(self) + len(self._waiting)

    @property
    def _is_full(self) -> bool:
        return self._how.choice.limit is not None and len(self._begun) >= self._how.choice.limit

    def _go_on(self, unfinished: Iterable[InFlight]) -> None:
        """Count the attempts that an earlier run has made, and let wait what it had let wait."""
        now, clock = datetime.now(UTC), time.monotonic()
        chosen = {key for key, _ in self._queue}
        for item in unfinished:
            self._attempted[item.key] = item.attempt
            if item.waits and item.key in chosen and (wait_s := _seconds_until(item.until, now)) > 0:
                heappush(self._waiting, (clock + wait_s, item.key))
                self._met.add(item.key)

    def _plan(self) -> Projection:
        """Find what is still to do, by the CSV as it is now."""
        self._view_changed.clear()
        folded = self._compactor.project()
        pending, chosen = self._how.choice.of_pending(folded, self._how.done)
        self._row_of = dict(pending.select("key", "row").iter_rows())
        self._take_up_again(folded.end.position, self._row_of.keys())
        self._rows, self._names = folded.table.rows_as_text(), folded.table.names
        for key in chosen.get_column("key"):
            if key not in self._met and not _is_key(key):
                self._refuse(key)
        fresh = (item for item in chosen.select("key", "row").iter_rows() if item[0] not in self._met)
        self._queue = deque(item for item in fresh if item[0] in self._begun or not self._is_full)
        self._queue.extend((key, self._row_of[key]) for key in self._due_again if key in self._row_of)
        return folded

    def _take_up_again(self, end: Position, pending: Collection[str]) -> None:
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
                    self.claimed.see(key, end)
                    self._attempted.pop(key, None)
                    masking.get_logger().info("po.again", key=key)

    def _refuse(self, key: str) -> None:
        self._met.add(key)
        self.refused.append(key)
        masking.get_logger().warning("run.key_refused", key=key, csv=self._job.csv_path)

    # --- what the pool asks ---

    def ready(self) -> int:
        """Return how many POs nobody has been given yet and could begin now, by the CSV as it is now."""
        if self._view_changed.is_set() or not (self._queue or self._held_elsewhere or self._exhausted):
            try:
                self._plan()
            except (EventCsvError, OSError) as error:  # the operator will mend it; what is known is worked on
                masking.get_logger().warning("run.not_planned_again", csv=self._job.csv_path, error=str(error))
            self._exhausted = not self._queue
            self._held_elsewhere.clear()  # they are in the plan again
        clock = time.monotonic()
        if not len(self):
            self._queue.extend(self._due(clock))
        if self._pace.wait_s(clock):
            return 0
        if self.claimed.is_shared:
            self._claim_next()
        return len(self)

    def _due(self, clock: float) -> Iterator[tuple[str, int]]:
        """Yield the POs that have waited long enough to be tried again, unless somebody has done them meanwhile."""
        while self._waiting and self._waiting[0][0] <= clock:
            _, key = heappop(self._waiting)
            if key in self._row_of:
                self._due_again[key] = None
                yield key, self._row_of[key]

    def due_in_s(self) -> float:
        """Return after how many seconds a PO may begin that has to wait until then; infinity when none has."""
        clock = time.monotonic()
        if len(self):
            return self._pace.wait_s(clock) or float("inf")
        if self._waiting:
            return max(0.0, self._waiting[0][0] - clock, self._pace.wait_s(clock))
        return float("inf")

    def _claim_next(self) -> None:
        """Bring to the front a PO that is claimed for this run; those that others work on wait at the side."""
        if not self._queue and self._held_elsewhere and time.monotonic() >= self._look_again_at:
            self._queue, self._held_elsewhere = self._held_elsewhere, deque()
            self._look_again_at = time.monotonic() + _LOOK_AGAIN_S
        while self._queue and (refusal := self.claimed.claim(self._queue[0][0])):
            item = self._queue.popleft()
            key, _ = item
            if refusal is Refusal.HELD:
                self._held_elsewhere.append(item)
                continue
            self._due_again.pop(key, None)
            if refusal is Refusal.FINISHED:
                self.elsewhere += 1
                self._finished_elsewhere.add(key)
                self._met.add(key)
            elif refusal is Refusal.TOO_LONG:
                self._refuse(key)
            else:
                self._hold_back(key)

    def _hold_back(self, key: str) -> None:
        self._due_again.pop(key, None)
        self.interrupted += (key,)
        self.held += (key,)
        self._met.add(key)

    def expects_more(self) -> bool:
        """Tell whether POs wait for their time, or others are worked on by hosts that may give them back by dying."""
        return bool(self._held_elsewhere or self._waiting or len(self))

    def has_lapsed(self, task: Task) -> bool:
        """Tell whether another host may have taken over a PO by now."""
        return self.claimed.has_lapsed(task)

    def next_task(self) -> Task:
        """Return the next PO with its row."""
        key, row = self._queue.popleft()
        self._met.add(key)
        self._due_again.pop(key, None)
        if key in self._begun:
            self.retried += 1
        self._begun[key] += 1
        if self._begun[key] == 1 and self._is_full:
            self._keep_begun()
        self._pace.begin(time.monotonic())
        attempt = self._attempted[key] = self._attempted.get(key, 0) + 1
        cells = dict(zip(self._names, self._rows.row(row), strict=True))
        return Task(key, cells, self.claimed.token(key), attempt, self._how.attempts.wait_s(attempt))

    def _keep_begun(self) -> None:
        """Forget what was not begun, since no more may be: what an earlier run had let wait, or others work on."""
        self._queue = deque(item for item in self._queue if item[0] in self._begun)
        self._held_elsewhere = deque(item for item in self._held_elsewhere if item[0] in self._begun)
        self._waiting = [item for item in self._waiting if item[1] in self._begun]
        heapify(self._waiting)
        self._due_again = {key: None for key in self._due_again if key in self._begun}

    def returned(self, task: Task) -> None:
        """Take back a PO that nobody has begun."""
        self._attempted[task.key] = task.attempt - 1
        self._begun[task.key] -= 1
        self.claimed.release(task.key)
        if self._begun[task.key]:  # not its first attempt, so its STATUS may be none of the chosen ones by now
            self.retried -= 1
            self._due_again[task.key] = None
        else:
            del self._begun[task.key]
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
        self.claimed.forget(key)
        if recorded:
            self._finished.add(key)

    def wait(self, key: str, wait_s: float) -> None:
        """Let a PO wait for its next attempt, which another host may make as well."""
        self.claimed.put_aside(key)
        heappush(self._waiting, (time.monotonic() + wait_s, key))

    def put_back(self, key: str) -> None:
        """Leave a PO as it was, and begin it no more in this run."""
        self.claimed.put_aside(key)
        self._attempted.pop(key, None)

    def is_open(self, key: str) -> bool:
        """Tell whether a PO that was let wait is still to do, as far as is known here."""
        return key in self._row_of and key not in self._finished_elsewhere


def _seconds_until(ts: str, now: datetime) -> float:
    moment = moment_of(ts)
    return (moment - now).total_seconds() if moment else 0.0


def _is_key(text: str) -> bool:
    try:
        key_of(text)
    except InvalidEvent:
        return False
    return True
