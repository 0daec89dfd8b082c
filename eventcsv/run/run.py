"""A run: what came of its POs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from eventcsv import masking
from eventcsv.errors import AppendError, ClaimLost, ServerError
from eventcsv.event import COLUMNS, FAILED, Kind, Status
from eventcsv.log.history import history
from eventcsv.run.steering import Brake
from eventcsv.worker.messages import Outcome
from eventcsv.worker.work import tried_again

if TYPE_CHECKING:
    from eventcsv.event import Event
    from eventcsv.run.todo import Todo
    from eventcsv.view.edits import Edit
    from eventcsv.worker.messages import Task
    from eventcsv.worker.recorder import Recorder


_MOST_UNRECORDED: Final = 10
_SO_MANY: Final = 20  # when so many fail at first, it is most likely nothing of theirs


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run did.

    Attributes:
        processed: How many POs got a result.
        by_status: How many of them which STATUS.
        failed: Those with STATUS ERROR or FAILED, in the order of their results; those still waiting come last.
        interrupted: The POs that were in flight when an earlier run died.
        held: Those of them that were held back, as asked.
        elsewhere: How many POs other hosts have finished or taken over meanwhile.
        refused: Keys of the CSV that no event may have, for instance with a line break, or for which no
            claim can be made, longer than 2,000 bytes; mend them there.
        unrecorded: What could not be recorded; those POs stay pending.
        lost_workers: How many workers died or were stopped in the middle of a PO.
        stopped: What stopped the run early: a signal, the job (`StopRun`), its brake, or that nothing could be
            recorded; or None.
        duration_s: How long it took, in seconds.
        edits: What the saves of the CSV did that were taken over as the session began or since.
        again: POs that this run had finished and worked on again, since somebody set their STATUS back.
        waiting: POs that were still to be tried again when the run ended.
        retried: How many attempts there were beyond the first one of each PO.
        notice: What whoever reads this should know: that all failed from the first one on; or "".
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
    waiting: tuple[str, ...] = ()
    retried: int = 0
    notice: str = ""


class Run:
    """What came of the POs of a run; the listener of a pool.

    Args:
        job: Where results are recorded.
        todo: What there is to do.
        writer: What the ids of this session's events begin with.
        halt: When so much has failed that there is no point in going on.

    Attributes:
        hopeless: Why there is no point in going on, or "".
        notice: What whoever watches should know, or "".
    """

    def __init__(self, job: Recorder, todo: Todo, writer: str, *, halt: int | str | None = None) -> None:
        self.hopeless = ""
        self.notice = ""
        self._halts = halt is not None
        self._brake = Brake(halt)
        self._waiting: dict[str, Outcome] = {}
        self._job = job
        self._todo = todo
        self._writer = writer
        self._by_status: Counter[str] = Counter()
        self._failed: list[Outcome] = []
        self._unrecorded: list[Outcome] = []
        self._unrecorded_in_a_row = 0
        self._taken_over = 0
        self._lost_workers = 0

    def finished(self, outcome: Outcome) -> None:
        """Take note of what came of a PO."""
        self._waiting.pop(outcome.key, None)
        if outcome.stop:
            self.asked_to_stop(outcome.stop)
        if outcome.taken_over:
            self._todo.finish(outcome.key, recorded=False)
            self._taken_over += 1
            masking.get_logger().warning("po.taken_over", key=outcome.key, reason=outcome.message)
        elif outcome.unrecorded:
            self._todo.finish(outcome.key, recorded=False)
            self._note_unrecorded(outcome, outcome.unrecorded)
        else:
            self._unrecorded_in_a_row = 0
            self._note_recorded(outcome)

    def asked_to_stop(self, reason: str) -> None:
        """Take note that the job wants nothing more to be begun."""
        if not self.hopeless:
            self.hopeless = f"the job itself: {reason}"
            masking.get_logger().warning("run.stopped", reason=reason)

    def _note_recorded(self, outcome: Outcome) -> None:
        failed = outcome.status in FAILED
        if outcome.status:
            self._brake.note(outcome.key, failed=failed)
            if self._brake.reason and not self.hopeless:
                self.hopeless = f"its brake: {self._brake.reason}"
                masking.get_logger().warning("run.stopped", reason=self._brake.reason)
            if self._brake.failed_at_first >= _SO_MANY and not (self._halts or self.notice):
                self.notice = f"the first {_SO_MANY} POs all failed; --halt 20 (halt=20) ends such a run early"
                masking.get_logger().warning("run.all_failed", advice=self.notice)
        if failed:
            masking.get_logger().info(
                "po.failed", key=outcome.key, error=outcome.message, exception=outcome.details or None
            )
        if outcome.wait_s is not None:
            self._waiting[outcome.key] = outcome
            self._todo.wait(outcome.key, outcome.wait_s)
            masking.get_logger().info(
                "po.waits", key=outcome.key, attempt=outcome.attempt, wait_s=outcome.wait_s, reason=outcome.message
            )
        elif outcome.status:
            self._todo.finish(outcome.key, recorded=True)
            self._count(outcome)
        else:
            self._todo.put_back(outcome.key)

    def _count(self, outcome: Outcome) -> None:
        self._by_status[outcome.status] += 1
        if outcome.status in FAILED:
            self._failed.append(outcome)

    def _note_unrecorded(self, outcome: Outcome, event: Event) -> None:
        self._unrecorded.append(outcome)
        if event.kind == Kind.RESULT:  # of which this may be the only trace
            whole = dataclasses.asdict(event)
            masking.get_logger().error("result.unrecorded", key=outcome.key, reason=outcome.message, result=whole)
        else:
            masking.get_logger().warning("result.unrecorded", key=outcome.key, reason=outcome.message)
        self._unrecorded_in_a_row += 1
        if self._unrecorded_in_a_row == _MOST_UNRECORDED:
            self.hopeless = f"itself, as nothing could be recorded {_MOST_UNRECORDED} times in a row"

    def lost(self, task: Task, reason: str) -> None:
        """Record that a worker was lost with its PO, unless it had recorded a result before."""
        self._lost_workers += 1
        self._job.hold(task.key, task.token)
        try:
            outcome = self._outcome_of(task, reason)
        except AppendError as error:
            outcome = Outcome(task.key, "", error.reason, unrecorded=error.event)
        except ClaimLost as error:
            outcome = Outcome(task.key, "", str(error), taken_over=True)
        finally:
            self._job.hold(task.key, None)
        if outcome:
            self.finished(outcome)

    def _outcome_of(self, task: Task, reason: str) -> Outcome | None:
        """Return what came of a PO whose worker was lost, or None when it is given back."""
        last = self._last_of(task)
        has_result = last is not None and last.kind == Kind.RESULT
        if not has_result and self._todo.claimed.has_lapsed(task):  # nothing of the PO's is wrong
            if self._todo.claimed.is_taken_over(task):
                raise ClaimLost(reason)
            masking.get_logger().warning("po.given_back", key=task.key, reason=reason)
            self._todo.give_back(task)
            return None
        if last is None or not has_result:
            last = self._job.emit_result(task.key, Status.ERROR, error_message=reason)
            self._job.hold(task.key, None)  # a result ends the claim
        status, message = (last.cells.get(name, "") for name in (self._job.status_column, COLUMNS["error_message"]))
        return tried_again(self._job, task, Outcome(task.key, status, message, attempt=task.attempt))

    def _last_of(self, task: Task) -> Event | None:
        """Return the last event of a PO that is ours, as far as it can be read."""
        last = None
        try:
            for event in history(self._job.log, task.key, since=self._todo.claimed.seen(task.key)):
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
        """Return what was done; what waits for another attempt, and nobody has done meanwhile, has failed for now."""
        todo = self._todo
        waiting = {key: outcome for key, outcome in self._waiting.items() if todo.is_open(key)}
        for outcome in waiting.values():
            if outcome.status:
                self._count(outcome)
        return RunResult(
            processed=self._by_status.total(),
            by_status=dict(self._by_status.most_common()),
            failed=tuple(self._failed),
            interrupted=todo.interrupted,
            held=todo.held,
            elsewhere=self._taken_over + todo.elsewhere,
            refused=tuple(todo.refused),
            unrecorded=tuple(self._unrecorded),
            lost_workers=self._lost_workers,
            stopped=stopped,
            duration_s=duration_s,
            edits=edits,
            again=tuple(todo.again),
            waiting=tuple(waiting),
            retried=todo.retried,
            notice=self.notice,
        )
