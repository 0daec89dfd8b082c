"""A run: which POs are still to do, in which order, and what came of them."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from eventcsv import masking
from eventcsv.errors import AppendError, ClaimLost, EventCsvError, InvalidEvent, ServerError
from eventcsv.event import BLANKS, COLUMNS, FAILED, Kind, Status, column_id
from eventcsv.log.history import history
from eventcsv.log.interface import Refusal, owner_of
from eventcsv.log.scan import events
from eventcsv.view.progress import work_of
from eventcsv.worker.messages import Outcome, Task
from eventcsv.worker.rules import key_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection

    from eventcsv.event import Event
    from eventcsv.log.interface import Claims
    from eventcsv.log.scan import Position
    from eventcsv.view.compactor import Compactor
    from eventcsv.view.edits import Edit
    from eventcsv.view.projection import Folded
    from eventcsv.worker.recorder import Recorder


_MOST_UNRECORDED: Final = 10
_LOOK_AGAIN_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run did.

    Attributes:
        processed: How many POs got a result.
        by_status: How many of them which STATUS.
        failed: Those with STATUS ERROR or FAILED, in the order of their results.
        interrupted: The POs that were in flight when an earlier run died.
        held: Those of them that were held back, as asked.
        elsewhere: How many POs other hosts have finished or taken over meanwhile.
        refused: Keys of the CSV that no event may have, for instance with a line break, or for which no
            claim can be made, longer than 2,000 bytes; mend them there.
        unrecorded: What could not be recorded; those POs stay pending.
        lost_workers: How many workers died or were stopped in the middle of a PO.
        stopped: What stopped the run early, a signal or that nothing could be recorded, or None.
        duration_s: How long it took, in seconds.
        edits: What the saves of the CSV did that were taken over as the session began or since.
        again: POs that this run had finished and worked on again, since somebody set their STATUS back.
    """

    processed: int
    by_status: dict[str, int]
    failed: tuple[Outcome, ...]
    interrupted: tuple[str, ...]
    held: tuple[str, ...]
    elsewhere: int
    refused: tuple[str, ...]
    unrecorded: tuple[Outcome, ...]
    lost_workers: int
    stopped: str | None
    duration_s: float
    edits: tuple[Edit, ...] = ()
    again: tuple[str, ...] = ()


class Run:
    """What there is to do, and what came of it; the listener of a pool.

    Args:
        job: Where results are recorded.
        compactor: Knows the CSV at the log's present end.
        view_changed: Set whenever an operator may have changed what there is to do.
        done: The STATUS words that count as done.
        hold: Whether POs that were in flight when an earlier run died are held back.
        writer: What the ids of this session's events begin with.
        lease_s: How long a claim lasts without being renewed, in seconds.

    Attributes:
        todo: The POs that nobody has been given yet, each with its row number.
        hopeless: Why there is no point in going on, or "".
    """

    def __init__(
        self,
        job: Recorder,
        compactor: Compactor,
        view_changed: threading.Event,
        done: Collection[str],
        *,
        hold: bool,
        writer: str,
        lease_s: float,
    ) -> None:
        self.todo: deque[tuple[str, int]] = deque()
        self.hopeless = ""
        self._unrecorded_in_a_row = 0
        self._job = job
        self._compactor = compactor
        self._status = column_id(job.status_column)
        self._view_changed = view_changed
        self._done = done
        self._met: set[str] = set()
        self._finished: set[str] = set()
        self._again: dict[str, None] = {}
        self._reset_at: dict[str, Position] = {}
        self._edits_seen: Position | None = None
        self._exhausted = False
        self._by_status: Counter[str] = Counter()
        self._failed: list[Outcome] = []
        self._unrecorded: list[Outcome] = []
        self._lost_workers = 0
        self._refused: list[str] = []
        folded = self._plan()
        self._start = folded.end.position
        self._writer = writer
        self._claims = job.log.claims(owner=owner_of(writer), lease_s=lease_s, seen=self._start)
        self._tokens: dict[str, int] = {}
        self._held_elsewhere: deque[tuple[str, int]] = deque()
        self._elsewhere = 0
        self._look_again_at = 0.0
        self._hold = hold
        self._waited_for: set[str] = set()
        in_flight = {item.key for item in folded.in_flight} - (self._claims.held() if self._claims else frozenset())
        self._interrupted = tuple(key for key, _ in self.todo if key in in_flight)
        self._held = self._interrupted if hold else ()
        self._met.update(self._held)
        self.todo = deque(item for item in self.todo if item[0] not in self._met)

    def _plan(self) -> Folded:
        """Find what is still to do, by the CSV as it is now."""
        self._view_changed.clear()
        folded = self._compactor.peek()
        pending = work_of(folded.table, self._done).filter(~pl.col("done"))
        self._take_up_again(folded.end.position, set(pending.get_column("key")))
        self._rows, self._names = folded.table.rows_as_text(), folded.table.names
        for key in pending.get_column("key"):
            if key not in self._met and not _is_key(key):
                self._refuse(key)
        self.todo = deque(item for item in pending.select("key", "row").iter_rows() if item[0] not in self._met)
        return folded

    def _take_up_again(self, end: Position, pending: set[str]) -> None:
        """Let POs be worked on again whose STATUS somebody has set back after this run had finished them."""
        start, self._edits_seen = self._edits_seen, end
        if start is None or start == end:
            return
        for chunk in self._compactor.origins.log.read(start, end):
            if b'"kind":"edit"' not in chunk.raw:
                continue
            for event in events(chunk)[0]:
                key = event.key.strip(BLANKS)
                is_reset = event.kind == Kind.EDIT and any(column_id(name) == self._status for name in event.cells)
                if is_reset and key in self._finished and key in pending:
                    self._finished.discard(key)
                    self._met.discard(key)
                    self._again[key] = None
                    self._reset_at[key] = end
                    masking.get_logger().info("po.again", key=key)

    def _refuse(self, key: str) -> None:
        self._met.add(key)
        self._refused.append(key)
        masking.get_logger().warning("run.key_refused", key=key, csv=self._job.csv_path)

    # --- what the pool asks and tells ---

    def waiting(self) -> int:
        """Return how many POs nobody has been given yet, by the CSV as it is now."""
        if self._view_changed.is_set() or not (self.todo or self._held_elsewhere or self._exhausted):
            try:
                self._plan()
            except (EventCsvError, OSError) as error:  # the operator will mend it; what is known is worked on
                masking.get_logger().warning("run.not_planned_again", csv=self._job.csv_path, error=str(error))
            self._exhausted = not self.todo
            self._held_elsewhere.clear()  # they are in the plan again
        if self._claims:
            self._claim_next(self._claims)
        return len(self.todo)

    def _claim_next(self, claims: Claims) -> None:
        """Bring to the front a PO that is claimed for this run; those that others work on wait at the side."""
        if not self.todo and self._held_elsewhere and time.monotonic() >= self._look_again_at:
            self.todo, self._held_elsewhere = self._held_elsewhere, deque()
            self._look_again_at = time.monotonic() + _LOOK_AGAIN_S
        while self.todo and self.todo[0][0] not in self._tokens:
            key, _ = self.todo[0]
            try:
                found = claims.claim(key, seen=self._reset_at.get(key))
            except EventCsvError as error:  # the server is away; what is in flight goes on
                masking.get_logger().warning("claims.not_made", error=str(error))
                found = Refusal.HELD
            if isinstance(found, int) and self._hold and key in self._waited_for:
                found = self._unless_interrupted(key, found, claims)
            if found is Refusal.HELD:
                self._waited_for.add(key)
                self._held_elsewhere.append(self.todo.popleft())
            elif found is Refusal.FINISHED:
                self._elsewhere += 1
                self._met.add(key)
                self.todo.popleft()
            elif found is Refusal.TOO_LONG:
                self._refuse(key)
                self.todo.popleft()
            elif found is Refusal.INTERRUPTED:
                self._interrupted += (key,)
                self._held += (key,)
                self._met.add(key)
                self.todo.popleft()
            else:
                self._tokens[key] = found

    def _unless_interrupted(self, key: str, token: int, claims: Claims) -> int | Refusal:
        """Return the token of a PO that another host gave up, or why it is not to be worked on after all."""
        try:
            in_flight = {item.key for item in self._compactor.peek().in_flight}
            refusal = Refusal.INTERRUPTED if key in in_flight else None
        except (EventCsvError, OSError) as error:  # it is looked at again
            masking.get_logger().warning("run.not_planned_again", csv=self._job.csv_path, error=str(error))
            refusal = Refusal.HELD
        if refusal:
            claims.release(key)
        return refusal or token

    def expects_more(self) -> bool:
        """Tell whether other hosts work on POs, which they may give back by dying."""
        return bool(self._held_elsewhere)

    def has_lapsed(self, task: Task) -> bool:
        """Tell whether another host may have taken over a PO by now."""
        return self._claims is not None and self._claims.has_lapsed(task.key)

    def next_task(self) -> Task:
        """Return the next PO with its row."""
        key, row = self.todo.popleft()
        self._met.add(key)
        return Task(key, dict(zip(self._names, self._rows.row(row), strict=True)), self._tokens.get(key))

    def close(self) -> None:
        """Give back what this run has claimed."""
        if self._claims:
            self._claims.close()

    def _forget_claim(self, key: str) -> None:
        if self._claims:
            self._claims.forget(key)
            self._tokens.pop(key, None)
            self._job.hold(key, None)

    def returned(self, task: Task) -> None:
        """Take back a PO that nobody has begun."""
        if self._claims:
            self._claims.release(task.key)
            self._forget_claim(task.key)
        self._met.discard(task.key)
        self._view_changed.set()

    def finished(self, outcome: Outcome) -> None:
        """Take note of what came of a PO."""
        self._forget_claim(outcome.key)
        if outcome.taken_over:
            self._elsewhere += 1
            masking.get_logger().warning("po.taken_over", key=outcome.key, reason=outcome.message)
            return
        if outcome.unrecorded:
            self._unrecorded.append(outcome)
            if outcome.unrecorded.kind == Kind.RESULT:  # of which this may be the only trace
                whole = dataclasses.asdict(outcome.unrecorded)
                masking.get_logger().error("result.unrecorded", key=outcome.key, reason=outcome.message, result=whole)
            else:
                masking.get_logger().warning("result.unrecorded", key=outcome.key, reason=outcome.message)
            self._unrecorded_in_a_row += 1
            if self._unrecorded_in_a_row == _MOST_UNRECORDED:
                self.hopeless = f"itself, as nothing could be recorded {_MOST_UNRECORDED} times in a row"
            return
        self._unrecorded_in_a_row = 0
        self._finished.add(outcome.key)
        self._by_status[outcome.status] += 1
        if outcome.status in FAILED:
            self._failed.append(outcome)
            masking.get_logger().info(
                "po.failed", key=outcome.key, error=outcome.message, exception=outcome.details or None
            )

    def lost(self, task: Task, reason: str) -> None:
        """Record that a worker was lost with its PO, unless it had recorded a result before."""
        self._lost_workers += 1
        if task.token is not None:
            self._job.hold(task.key, task.token)
        try:
            last = self._last_of(task)
            has_result = last is not None and last.kind == Kind.RESULT
            if not has_result and self._claims and self._claims.has_lapsed(task.key):  # nothing of the PO's is wrong
                if self._claims.is_taken_over(task.key):
                    raise ClaimLost(reason)  # noqa: TRY301  # as when its result had come too late
                self._give_back(task, reason)
                return
            if last is None or not has_result:
                last = self._job.emit_result(task.key, Status.ERROR, error_message=reason)
            cells = last.cells
            outcome = Outcome(task.key, cells.get(self._job.status_column, ""), cells.get(COLUMNS["error_message"], ""))
        except AppendError as error:
            outcome = Outcome(task.key, "", error.reason, unrecorded=error.event)
        except ClaimLost as error:
            outcome = Outcome(task.key, "", str(error), taken_over=True)
        self.finished(outcome)

    def _give_back(self, task: Task, reason: str) -> None:
        """Leave a PO that was stopped to whoever claims it next, which may be this run."""
        masking.get_logger().warning("po.given_back", key=task.key, reason=reason)
        self.returned(task)
        if self._hold:
            self._met.add(task.key)
            self._interrupted += (task.key,)
            self._held += (task.key,)

    def _last_of(self, task: Task) -> Event | None:
        """Return the last event of a PO that is ours, as far as it can be read."""
        last = None
        try:
            for event in history(self._job.log, task.key, since=self._reset_at.get(task.key, self._start)):
                if event.kind == Kind.EDIT:
                    continue
                if task.token is None or event.id.startswith(f"{self._writer}-"):  # others have ids of other hosts
                    last = event
        except ServerError:
            if task.token is None:
                raise
            return None  # the server will tell: after a result the claim is over
        return last

    def result(self, *, stopped: str | None, edits: tuple[Edit, ...], duration_s: float) -> RunResult:
        """Return what was done."""
        return RunResult(
            processed=self._by_status.total(),
            by_status=dict(self._by_status.most_common()),
            failed=tuple(self._failed),
            interrupted=self._interrupted,
            held=self._held,
            elsewhere=self._elsewhere,
            refused=tuple(self._refused),
            unrecorded=tuple(self._unrecorded),
            lost_workers=self._lost_workers,
            stopped=stopped,
            duration_s=duration_s,
            edits=edits,
            again=tuple(self._again),
        )


def _is_key(text: str) -> bool:
    try:
        key_of(text)
    except InvalidEvent:
        return False
    return True
