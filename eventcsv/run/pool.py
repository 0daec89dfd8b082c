"""Worker processes that may die: a task costs at most itself, and a worker that is lost is replaced.

Each worker is a spawned process with a pipe of its own; nothing is shared between them, no lock and no queue, so
whenever one is killed the others neither wait nor notice. (Pools that share a queue between workers can hang when
one is killed while it holds the queue's lock; see pebble's issue 163.)
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from selectors import EVENT_READ, PollSelector
from typing import TYPE_CHECKING, Final, Protocol

from eventcsv import masking
from eventcsv.errors import EventCsvError, reason_of
from eventcsv.run import starting
from eventcsv.run.process import ReapedProcess
from eventcsv.signals import STOP_SIGNALS
from eventcsv.worker.messages import Broken, Leave, Logged, Outcome, Ready, Taken, Task, Work
from eventcsv.worker.serve import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

_TICK_S: Final = 0.1
_START_TIMEOUT_S: Final = 120.0
_EXIT_TIMEOUT_S: Final = 30.0
_KILL_TIMEOUT_S: Final = 10.0
_ENDING_TIMEOUT_S: Final = 2.0
_MOST_FAILED_STARTS: Final = 3
_MOST_LATER_FAILED_STARTS: Final = 5
_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 5.0
_MOST_HANDINGS: Final = 3


class Tasks(Protocol):
    """Where a pool has its tasks from."""

    def ready(self) -> int:
        """Return how many tasks nobody has been given yet."""

    def expects_more(self) -> bool:
        """Tell whether there may be more tasks later, though none waits now."""

    def due_in_s(self) -> float:
        """Return after how many seconds there will be one that has to wait until then; infinity when there is none."""

    def has_lapsed(self, task: Task) -> bool:
        """Tell whether a task is not this pool's any more, so that its worker has to be stopped."""

    def next_task(self) -> Task:
        """Return one of them, which is given to a worker now."""

    def returned(self, task: Task) -> None:
        """Take back a task whose worker was lost before it took it up."""


class Listener(Protocol):
    """Whom a pool tells what came of its tasks."""

    def finished(self, outcome: Outcome) -> None:
        """Take note of what came of a task."""

    def lost(self, task: Task, reason: str) -> None:
        """Take note that a worker was lost with its task."""

    def asked_to_stop(self, reason: str) -> None:
        """Take note that an initializer wants nothing more to be begun."""


@dataclass(slots=True, eq=False)
class _Worker:
    """One worker process.

    Attributes:
        number: Its number; a replacement gets a new one.
        process: The process.
        connection: Takes tasks, brings messages.
        deadline: When it has to be ready, or done with its task, on the monotonic clock in seconds.
        task: What it was handed, or None.
        taken: Whether it has taken that up.
        ready: Whether it has started.
        pid: Its own process, once it has started; until then that of its reaper.
    """

    number: int
    process: ReapedProcess
    connection: Connection
    deadline: float
    task: Task | None = None
    taken: bool = False
    ready: bool = False
    pid: int | None = None


@dataclass(slots=True)
class Pool:
    """Workers that work on tasks, one each at a time.

    Args:
        work: What to do with a task.
        size: How many workers.
        timeout_s: How long a task may take, in seconds; None for as long as it likes.
        writer_prefix: What the ids of all workers' events begin with.
        numbers: Gives each worker a number that none had before.
        tasks: Gives the tasks.
        listener: Takes what comes of them.
    """

    work: Work
    size: int
    timeout_s: float | None
    writer_prefix: str
    numbers: Iterator[int]
    tasks: Tasks
    listener: Listener
    _workers: list[_Worker] = field(default_factory=list)
    _handed: dict[str, int] = field(default_factory=dict)
    _failed_starts: int = 0
    _ever_ready: bool = False
    _next_start_at: float = 0.0
    _look_at: float = 0.0
    _ends: PollSelector = field(default_factory=PollSelector)
    _watch: threading.Thread | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self, stopping: Callable[[], bool]) -> None:
        """Work until there is nothing left, or until `stopping` says so and what is in flight is done.

        Raises:
            EventCsvError: No worker could be started, three times in a row, and none is left.
        """
        try:
            while True:
                if not stopping():
                    self._hand_out()
                busy = any(worker.task for worker in self._workers)
                if not busy and (stopping() or not (self.tasks.ready() or self.tasks.expects_more())):
                    return
                takes_more = not stopping() and self._has_room()  # else what is due would be waited for without a pause
                for end, _ in self._ends.select(min(_TICK_S, self.tasks.due_in_s()) if takes_more else _TICK_S):
                    self._listen(end.data)
                if time.monotonic() >= self._look_at:
                    self._look_at = time.monotonic() + _TICK_S
                    self._check_for_deaths()
                    self._check_deadlines()
        finally:
            self._dismiss()

    # --- tasks ---

    def _hand_out(self) -> None:
        # Asked only when somebody could take a task up: to say what waits may claim it, and keep it from other hosts.
        while self._has_room() and (ready := self.tasks.ready()):
            idle = next((worker for worker in self._workers if worker.ready and not worker.task), None)
            starting = sum(not worker.ready for worker in self._workers)
            if idle:  # asked for only now, so that it is what the CSV says at this moment
                self._hand(self.tasks.next_task(), idle)
            elif len(self._workers) < self.size and starting < ready and time.monotonic() >= self._next_start_at:
                self._start_worker()
            else:
                return

    def _has_room(self) -> bool:
        return len(self._workers) < self.size or any(worker.ready and not worker.task for worker in self._workers)

    def _hand(self, task: Task, worker: _Worker) -> None:
        worker.task, worker.taken = task, False
        worker.deadline = time.monotonic() + _START_TIMEOUT_S
        if task.token is not None and self._watch is None:
            self._watch = threading.Thread(target=self._stop_lapsed, name="eventcsv-leases", daemon=True)
            self._watch.start()
        with suppress(OSError):  # it has just died, which its connection will tell
            worker.connection.send(task)

    def _listen(self, worker: _Worker) -> None:
        try:
            message = worker.connection.recv()
        except Exception:  # noqa: BLE001  # an end, or what the caller's code wrote into a descriptor of ours
            self._bury(worker, self._ending_of(worker))
            return
        match message:
            case Ready():
                worker.ready, worker.pid, worker.deadline = True, message.pid, float("inf")
                self._ever_ready, self._failed_starts = True, 0
                masking.get_logger().debug("worker.started", worker=worker.number, pid=worker.pid)
            case Taken():
                worker.taken = True
                worker.deadline = time.monotonic() + (float("inf") if self.timeout_s is None else self.timeout_s)
            case Outcome() if worker.task and worker.task.key == message.key:
                worker.task, worker.deadline = None, float("inf")
                self.listener.finished(message)
            case Logged():
                _log(worker, message)
            case Broken():
                if message.is_stop:
                    self.listener.asked_to_stop(message.reason)
                self._bury(worker, f"its initializer failed: {message.reason}")

    def _check_for_deaths(self) -> None:
        """Find dead workers whose connection does not tell, since a child that they forked has inherited it."""
        for worker in [worker for worker in self._workers if worker.process.exitcode is not None]:
            while worker in self._workers and worker.connection.poll():
                self._listen(worker)
            if worker in self._workers:
                self._bury(worker, self._ending_of(worker))

    def _stop_lapsed(self) -> None:
        """Kill whoever works on what another host may have taken over by now; its death shows like any other.

        In a thread of its own: the others may be waiting for the server just then.
        """
        while not self._ended.wait(_TICK_S):
            for worker in list(self._workers):
                if worker.task and worker.task.token is not None and self.tasks.has_lapsed(worker.task):
                    worker.process.end()

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.deadline < now]:
            if worker.connection.poll():  # what it has to say came just in time
                continue
            limit_s = self.timeout_s if worker.taken else _START_TIMEOUT_S
            self._bury(worker, f"it took longer than {limit_s:g} s and was stopped")

    # --- workers ---

    def _start_worker(self) -> None:
        connection, its_connection = multiprocessing.Pipe()
        number = next(self.numbers)
        process = ReapedProcess(
            target=serve,
            args=(self.work, f"{self.writer_prefix}-{number:02}", its_connection),
            name=f"eventcsv-worker-{number:02}",
        )
        try:
            resource_tracker.ensure_running()  # else start() does it, and unblocks the signals with it
            with _signals_blocked():  # until the worker has its own handlers, and is known here
                process.start()
                deadline = time.monotonic() + _START_TIMEOUT_S
                worker = _Worker(number, process, connection, deadline, pid=process.pid)
                self._workers.append(worker)
                self._ends.register(connection, EVENT_READ, worker)
        except OSError as error:  # no memory, or too many processes
            connection.close()
            self._note_failed_start(reason_of(error))
            return
        finally:
            its_connection.close()  # only the worker may hold it: that is how its death shows

    def _note_failed_start(self, reason: str) -> None:
        """Wait a while before the next one; when nobody is left who works, there is no point in it."""
        self._failed_starts += 1
        self._next_start_at = time.monotonic() + min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**self._failed_starts)
        most = _MOST_LATER_FAILED_STARTS if self._ever_ready else _MOST_FAILED_STARTS
        if self._failed_starts >= most and not any(worker.ready for worker in self._workers):
            raise EventCsvError(
                f"no worker could be started, {self._failed_starts} times in a row; the last one: {reason}"
            )

    def _ending_of(self, worker: _Worker) -> str:
        if worker.task and self.tasks.has_lapsed(worker.task):
            return "it was stopped, as its claim could not be renewed and another host may go on"
        return _ending(worker.process) + ("" if worker.ready else starting.advice())

    def _bury(self, worker: _Worker, reason: str) -> None:
        """Note that a worker is lost, with what it was working on."""
        self._workers.remove(worker)
        self._ends.unregister(worker.connection)
        _kill(worker)
        task = worker.task
        masking.get_logger().warning(
            "worker.lost", worker=worker.number, pid=worker.pid, reason=reason, key=task.key if task else None
        )
        if not worker.ready:
            self._note_failed_start(reason)
        if task is None:
            return
        asked_to_leave = worker.process.exitcode == 0 and not worker.taken
        handings = self._handed[task.key] = self._handed.get(task.key, 0) + (not asked_to_leave)
        if worker.taken or handings == _MOST_HANDINGS:
            self.listener.lost(task, reason)
        else:
            self.tasks.returned(task)

    def _dismiss(self) -> None:
        """Let idle workers end in peace, and kill the others."""
        self._ended.set()
        if self._watch:
            self._watch.join()
        try:
            for worker in self._workers:
                if worker.task or not worker.ready:
                    worker.process.end()
                else:
                    with suppress(OSError):  # it has just died
                        worker.connection.send(Leave())
            deadline = time.monotonic() + _EXIT_TIMEOUT_S
            for worker in self._workers:
                _see_off(worker, deadline)
        finally:  # somebody may insist meanwhile
            for worker in self._workers:
                _kill(worker)
            self._workers.clear()
            self._ends.close()


def _log(worker: _Worker, message: Logged) -> None:
    fields = dict(message.fields)
    level = logging.getLevelName(message.level).lower()
    getattr(masking.get_logger(), level)(fields.pop("event", ""), **{**fields, "worker": worker.number})


def _see_off(worker: _Worker, deadline: float) -> None:
    """Wait for the end of a worker that is to end, and hear what it still has to say."""
    with suppress(Exception):  # an end, or what the caller's code wrote into a descriptor of ours
        while worker.connection.poll(max(0, deadline - time.monotonic())):
            message = worker.connection.recv()
            if isinstance(message, Logged):
                _log(worker, message)
    worker.process.join(max(0, deadline - time.monotonic()))
    if worker.process.exitcode is None:
        reason = f"it took longer than {_EXIT_TIMEOUT_S:g} s to end and was stopped"
        masking.get_logger().error("worker.not_finalized", worker=worker.number, pid=worker.pid, reason=reason)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(worker: _Worker) -> None:
    """Kill a worker with whatever it has started (a browser), and forget it."""
    worker.process.end()
    worker.process.join(_KILL_TIMEOUT_S)
    if worker.process.exitcode is None:  # somebody has stopped its reaper
        worker.process.kill()
        worker.process.join()
    worker.connection.close()


def _ending(process: ReapedProcess) -> str:
    """Return, in words, how a worker ended."""
    process.join(_ENDING_TIMEOUT_S)
    code = process.exitcode
    if code is None:
        return "the worker closed its connection"
    if code >= 0:
        return f"the worker exited with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
    hint = "; was memory short?" if name == "SIGKILL" else ""
    return f"the worker was killed by signal {-code} ({name}){hint}"
