"""A session: one run over a CSV, from what the last one left over to the last result in the CSV.

While it lasts it is the only one. It brings the CSV up to date with what an earlier run left in the log, makes a
verified backup, begins a new segment, keeps the CSV current in the background, and ends with a full compaction, however
it ends. `Session.run` works through the pending POs with worker processes.
"""

from __future__ import annotations

import itertools
import os
import re
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, Self

from eventcsv import masking
from eventcsv.errors import EventCsvError
from eventcsv.event import DONE
from eventcsv.log.interface import LEASE_S, owner_of
from eventcsv.run.choice import Choice
from eventcsv.run.options import Interrupted, RunOptions
from eventcsv.run.pool import Pool
from eventcsv.run.run import Run, RunResult
from eventcsv.run.starting import check_callable, check_hook, check_importable, workers_possible
from eventcsv.run.steering import Attempts
from eventcsv.run.todo import Todo
from eventcsv.signals import Stop, stop_signals, terminable
from eventcsv.view.progress import pending_of
from eventcsv.view.refresh import keep_current
from eventcsv.worker.messages import Work

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from eventcsv.event import InFlight
    from eventcsv.log.types import Damage
    from eventcsv.view.backup import Backup
    from eventcsv.view.compact_result import CompactResult
    from eventcsv.view.compactor import Compactor
    from eventcsv.view.edits import Edit
    from eventcsv.view.session_lock import SessionLock
    from eventcsv.worker.messages import Finalizer, Initializer, Process
    from eventcsv.worker.recorder import Recorder

_SESSION_ID: Final = re.compile(r"[0-9A-Za-z-]{1,64}")


class Session:
    """A run over a CSV; a context manager. Made by `EventCsv.session`.

    Args:
        job: The CSV.
        compactor: Keeps it current.
        lock: Keeps other sessions away.
        session_id: Its name, in backups and log output; by default something random.
        refresh_s: How far the CSV may be behind the log, in seconds.
        accept_edit: Whether what was saved before is taken over even if it does away with many results.

    Attributes:
        id: Its name.
        begun: What bringing the CSV up to date did at the beginning; its `base` is the backup.
        ended: What the compaction at the end did, or None.
        interrupted: The POs that were in flight when an earlier run died.
        damage: What was found damaged in the log so far.
        edits: What the saves did that were taken over so far, as the session began or since.
        stop: Asks the present run to finish what is in flight and to return; None when none is on.
    """

    def __init__(
        self,
        job: Recorder,
        compactor: Compactor,
        lock: SessionLock,
        *,
        session_id: str | None = None,
        refresh_s: float = 1.0,
        accept_edit: bool = False,
    ) -> None:
        if session_id is not None and not _SESSION_ID.fullmatch(session_id):
            raise ValueError(f"session_id: has to be 1 to 64 of 0-9, A-Z, a-z and -, not {session_id!r}")
        if not 0 < refresh_s <= threading.TIMEOUT_MAX:
            raise ValueError(f"refresh_s: has to be a number of seconds above 0, not {refresh_s}")
        # What event ids begin with must be used only once, whatever name a caller gives its sessions.
        self._writer = os.urandom(4).hex()
        self._numbers = itertools.count(1)
        self.id = session_id or self._writer
        self.interrupted: tuple[InFlight, ...] = ()
        self.damage: list[Damage] = []
        self.edits: list[Edit] = []
        self._accept_edit = accept_edit
        self.ended: CompactResult | None = None
        self.stop: Stop | None = None
        self._current: Run | None = None
        self._job = job
        self._compactor = compactor
        self._lock = lock
        self._refresh_s = refresh_s
        self._end = threading.Event()
        self._view_changed = threading.Event()
        self._at_exit = ExitStack()
        self._is_open = False
        self._pid = os.getpid()
        self._running = threading.Lock()

    def __enter__(self) -> Self:
        if self._end.is_set() or self._is_open:
            raise EventCsvError("a session is entered once; make another one: job.session()")
        self._compactor.check()  # before the lock makes a folder beside a mistyped path
        with ExitStack() as stack:
            stack.enter_context(self._lock.held(self.id))
            stack.enter_context(terminable())
            self.begun = self._compactor.begin_session(self.id, accept_edit=self._accept_edit)
            self._take_note(self.begun)
            self.interrupted = self.begun.in_flight
            self._job.log.new_segment()
            self._job.record_as(f"{self._writer}-00")
            background = threading.Thread(target=self._keep_current, name="eventcsv-compactor", daemon=True)
            background.start()
            stack.callback(background.join)
            stack.callback(self._end.set)
            self._at_exit = stack.pop_all()
        self._is_open = True
        masking.get_logger().info(
            "session.started",
            session=self.id,
            csv=self._job.csv_path,
            backup=self.backup.path,
            left_over=self.begun.events,
            in_flight=[item.key for item in self.interrupted],
        )
        return self

    @property
    def backup(self) -> Backup:
        """The backup that was made at the beginning."""
        if self.begun.base is None:
            raise EventCsvError("a session without a backup")  # what begin() returns has one
        return self.begun.base

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid != os.getpid():  # a forked child that leaves the block; the session is its parent's
            return
        with ExitStack() as stack:
            stack.push(self._at_exit)
            self._is_open = False
            self._end.set()
            try:
                self.ended = self._compactor.compact()
                self._take_note(self.ended)
            except (EventCsvError, OSError) as trouble:
                if kind is None:
                    raise
                masking.get_logger().error("session.not_compacted", session=self.id, error=str(trouble))
        masking.get_logger().info(
            "session.ended", session=self.id, csv=self._job.csv_path, error=None if kind is None else kind.__name__
        )

    def _take_note(self, result: CompactResult) -> None:
        self.damage += result.damage
        self.edits += result.edits

    def _keep_current(self) -> None:
        def on_result(result: CompactResult) -> None:
            self._take_note(result)
            if result.edited or result.rebuilt:
                self._view_changed.set()

        def on_trouble(trouble: str) -> None:
            masking.get_logger().warning("view.not_updated", csv=self._job.csv_path, error=trouble)

        keep_current(self._compactor, self._end, refresh_s=self._refresh_s, on_result=on_result, on_trouble=on_trouble)

    @property
    def stopping(self) -> str:
        """Who or what has asked the present run to stop, or ""."""
        return (self.stop.reason or "the program" if self.stop and self.stop.is_set() else "") or (
            self._current.hopeless if self._current else ""
        )

    @property
    def notice(self) -> str:
        """What whoever watches the present run should know, or ""."""
        return self._current.notice if self._current else ""

    def pending(self, *, done: Collection[str] = DONE) -> list[str]:
        """Return the POs that are not done, in the order of the CSV; see `EventCsv.pending`."""
        return pending_of(self._compactor.project().table, done)

    def run(
        self,
        process: Process,
        *,
        workers: int = 1,
        timeout_s: float | None = None,
        interrupted: Interrupted = "retry",
        initializer: Initializer | None = None,
        finalizer: Finalizer | None = None,
        done: Collection[str] = DONE,
        lease_s: float = LEASE_S,
        attempts: int = 1,
        retry_after_s: float = 30.0,
        halt: int | str | None = None,
        rate: str | None = None,
        limit: int | None = None,
        only: Collection[str] | None = None,
        status: Collection[str] | None = None,
        order_by: str | None = None,
    ) -> RunResult:
        """Work through the pending POs, in the order of the CSV, with worker processes.

        Each result is recorded by its worker before the next PO is taken up. An exception becomes STATUS=ERROR with
        its message. A worker that dies, or takes longer than `timeout_s`, costs its own PO only (ERROR, with what
        happened) and is replaced. POs that an operator adds while this runs are worked on too.

        In the main thread the first Ctrl-C, SIGTERM or SIGHUP lets the workers finish what they are on and returns;
        the second one stops at once.

        Args:
            process: Called in a worker with a PO and its row (column name to text). It returns columns (a mapping from
                names to values, a dataclass, a named tuple, pairs), a STATUS, True, False for FAILED, or None. STATUS
                is COMPLETED when it names none, and an old ERROR_MESSAGE is cleared when it names none. Of anything
                else STATUS is ERROR, with what was returned. It has to be importable: at the top of a module.
            workers: How many worker processes.
            timeout_s: How long a PO may take, in seconds; None for as long as it likes.
            interrupted: What to do with POs that were in flight when an earlier run died, whose work may or may not
                have been done: "retry" them, or "hold" them back.
            initializer: Called once in each worker, before its first PO, for instance to open a browser. It may be a
                context manager (a function under contextlib.contextmanager, a class with __enter__): what it returns
                is entered then, and left where a finalizer is called.
            finalizer: Called once in each worker that ends in peace, after its last PO, for instance to close that
                browser. It has 30 seconds for this. One that is lost is not asked, and whatever it started is killed.
            done: The STATUS words that count as done.
            lease_s: With a log on a server, how long other hosts wait before they take over the POs of one that died or
                was cut off, in seconds. Runs on several hosts take different POs.
            attempts: How often a PO that fails is tried, after the others. Attempts that a run which died has made
                count.
            retry_after_s: How long the second attempt waits, in seconds; each further one twice as long, up to an hour,
                and all of them up to a quarter longer, at random. `Retry` of a function says it by itself.
            halt: End the run once so many POs failed in a row (20), or such a share of the last 100 ("30%", of 20 at
                least). None for never.
            rate: No more POs begin than that, retries included: "30/min", "2/s", "500/h". None for no limit.
            limit: Work on so many POs at most.
            only: Work on these POs only, as far as they are pending.
            status: Work only on what has one of these STATUS words now; "" for none yet.
            order_by: The column that says the order: numbers as numbers, then texts, empty ones last; with "-" before
                its name the greatest first. By default the order of the CSV.

        Returns:
            What was done.

        Raises:
            ValueError: An argument makes no sense.
            EventCsvError: No worker could be started, or a function cannot be given to one or called.
            InvalidCsv: The CSV cannot be read.
        """
        how = RunOptions(
            workers=workers,
            timeout_s=timeout_s,
            interrupted=interrupted,
            done=done,
            lease_s=lease_s,
            attempts=Attempts(attempts, retry_after_s),
            halt=halt,
            rate=rate,
            choice=Choice.of(only=only, status=status, order_by=order_by, limit=limit),
        )
        if not self._is_open or self._pid != os.getpid():
            raise EventCsvError("the session is not open here: with job.session() as session: session.run(...)")
        if not self._running.acquire(blocking=False):
            raise EventCsvError("a run of this session is on already; two would work on the same POs")
        try:
            return self._run(Work(self._job, process, initializer, finalizer), how)
        finally:
            self._running.release()

    def _run(self, work: Work, how: RunOptions) -> RunResult:
        clock = time.perf_counter()
        check_callable(work.process)
        check_hook(work.initializer, "initializer")
        check_hook(work.finalizer, "finalizer")
        check_importable(work)
        workers, notice = workers_possible(self._compactor.log, how.workers)
        if notice:
            masking.get_logger().warning("run.fewer_workers", workers=workers, reason=notice)
        todo = Todo(self._job, self._compactor, self._view_changed, how, owner=owner_of(self._writer))
        run = Run(self._job, todo, self._writer, halt=how.halt)
        self._current = run
        size = min(workers, max(1, todo.expected))
        pool = Pool(work, size, how.timeout_s, self._writer, self._numbers, todo, run)
        with stop_signals() as stop:
            self.stop = stop
            try:
                if todo.expected:
                    pool.run(lambda: stop.is_set() or bool(run.hopeless))
            finally:
                self.stop = self._current = None
                todo.claimed.close()
        stopped = stop.reason or run.hopeless or None
        if stopped:
            with suppress(EventCsvError, OSError):  # it is told by the result, too
                self._job.record_stopped(stopped)
        return run.result(stopped=stopped, edits=tuple(self.edits), duration_s=time.perf_counter() - clock)
