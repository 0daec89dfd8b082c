"""The promise: threads, forks and signals, at whatever moment of an append, cost no event and leave no lock behind."""

from __future__ import annotations

import itertools
import os
import pickle
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING

import pytest
from conftest import file_log, lines_of
from faults import Recording, with_storage

from eventcsv import AppendError, EventCsv, EventCsvError
from eventcsv.log.line import decode, encode
from eventcsv.storage.files import Storage
from eventcsv.storage.locks import locked

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType


# --- threads, forks, signals ---


def test_threads_share_a_job(job: EventCsv) -> None:
    """Eight threads, one descriptor: every line is whole, every id is there once."""

    def work(number: int) -> list[str]:
        return [job.emit_result(f"PO{number}", "COMPLETED").id for _ in range(250)]

    with ThreadPoolExecutor(8) as pool:
        acknowledged = chain.from_iterable(pool.map(work, range(8)))
    ids = [decode(line).id for line in lines_of(job)]
    assert 2000 == len(set(ids)) == len(ids)
    assert set(acknowledged) == set(ids)


def test_a_forked_child_writes_as_itself(job: EventCsv) -> None:
    """After a fork both sides append, with ids of their own, and neither frees the other's lock."""
    job.emit_result("PO1", "COMPLETED")
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            for _ in range(200):
                job.emit_result(f"PO{number}", "COMPLETED")
            os._exit(0)
        children.append(pid)
    for _ in range(200):
        job.emit_result("PO9", "COMPLETED")
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    ids = [decode(line).id for line in lines_of(job)]
    assert 1001 == len(set(ids)) == len(ids)
    assert len({ident.rpartition("-")[0] for ident in ids}) == 5


def test_a_forked_child_does_not_free_the_parents_lock(job: EventCsv, csv_path: Path) -> None:
    """A child forked while its parent holds the lock closes the inherited file; a contender still finds it locked."""
    job.emit_result("PO1", "COMPLETED")
    file_log(job)._lock()
    pid = os.fork()
    if pid == 0:
        job.close()
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(AppendError, match="held"):
        EventCsv(csv_path, lock_timeout_s=0.01).emit_result("PO2", "COMPLETED")
    file_log(job)._unlock()


def test_a_child_does_not_keep_the_lock_of_a_parent_that_died(job: EventCsv, csv_path: Path) -> None:
    """A parent killed while it holds the lock leaves it free, even though a forked child lives on."""
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        job.emit_result("PO1", "COMPLETED")
        file_log(job)._lock()
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        os.write(write, str(child).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    child = int(os.read(read, 20))
    try:
        EventCsv(csv_path, lock_timeout_s=1).emit_result("PO2", "COMPLETED")
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_forked_by_another_thread_keeps_no_lock(job: EventCsv) -> None:
    """A lock that was held while some thread forked is free once its holder leaves, however long the child lives."""
    job.emit_result("PO1", "COMPLETED")
    for name in ("append.lock", "compact.lock"):
        path = os.path.join(job.log_dir, name)
        with locked(job._storage, path, 1):
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
        try:
            with locked(job._storage, path, 1):
                pass
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_a_job_can_be_pickled(job: EventCsv) -> None:
    """A copy in another process is a writer of its own; nothing open travels with it."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    copy = pickle.loads(pickle.dumps(job))
    first, second = job.emit_result("PO2", "COMPLETED"), copy.emit_result("PO3", "COMPLETED")
    assert first.id.rpartition("-")[0] != second.id.rpartition("-")[0]
    assert [first.key, second.key] == [decode(line).key for line in lines_of(job)][1:]


def test_an_append_from_a_signal_handler_within_an_append_is_an_error_not_a_deadlock(csv_path: Path) -> None:
    """The handler gets a typed error; the append that it interrupted goes through."""
    caught: list[Exception] = []

    class Interrupting(Recording):
        armed = False

        def datasync(self, fd: int) -> None:
            if self.armed:
                self.armed = False
                signal.raise_signal(signal.SIGUSR1)
            super().datasync(fd)

    def handler(_number: int, _frame: FrameType | None) -> None:
        try:
            job.emit_result("PO2", "COMPLETED")
        except EventCsvError as error:
            caught.append(error)

    storage = Interrupting()
    job = with_storage(EventCsv(csv_path), storage)
    job.emit_result("PO1", "COMPLETED")
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        storage.armed = True
        job.emit_result("PO3", "COMPLETED")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ["within an append" in str(error) for error in caught] == [True]
    assert [decode(line).key for line in lines_of(job)] == ["PO1", "PO3"]


def test_an_interrupt_leaves_no_lock_behind(job: EventCsv, csv_path: Path) -> None:
    """Ctrl-C at any moment of an append: another writer goes on at once, and every line is whole."""
    job.emit_result("PO1", "COMPLETED")
    main = threading.get_ident()
    stop = threading.Event()

    def interrupt() -> None:
        while not stop.wait(0.0007):
            signal.pthread_kill(main, signal.SIGINT)

    armed: list[bool] = []

    def strike(*_: object) -> None:
        if armed:  # once each time, and never outside of the append
            armed.clear()
            raise KeyboardInterrupt

    struck, before = 0, signal.signal(signal.SIGINT, strike)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        for _ in range(200):
            try:
                armed.append(True)
                while True:
                    job.emit_result("PO1", "COMPLETED")
            except KeyboardInterrupt:
                struck += 1
    finally:
        stop.set()
        thread.join()
        signal.signal(signal.SIGINT, before)
    EventCsv(csv_path, lock_timeout_s=0.5, durability="process").emit_result("PO2", "COMPLETED")
    job.emit_result("PO3", "COMPLETED")
    assert 200 == struck
    assert job.compact().damage == ()


def test_nothing_is_stuck_after_interrupts_anywhere(job: EventCsv) -> None:
    """Ctrl-C 800 times at any moment of an append, also around the thread lock: the next append goes through."""
    job.emit_result("PO1", "COMPLETED")
    job.log.lock_timeout_s = 0.5
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    rng = random.Random(11)
    struck = 0
    try:
        while struck < 800:
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(20e-6, 300e-6))
                for _ in range(100):
                    job.emit_result("PO1", "COMPLETED")
            except KeyboardInterrupt:
                struck += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    job.emit_result("PO2", "COMPLETED")
    assert 2 == job.compact().by_status["COMPLETED"]


class Unsynced(Storage):
    """Does not wait for a disk."""

    def sync(self, fd: int) -> None:
        pass


def _interrupt_at_call(job: EventCsv, number: int) -> bool:
    """Strike with Ctrl-C at a call or return within an append, where Python looks for signals; tell whether it did."""
    left = number

    def strike(_frame: FrameType, _what: str, _argument: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            sys.setprofile(None)
            raise KeyboardInterrupt

    try:
        sys.setprofile(strike)
        job.emit_result("PO1", "COMPLETED")
        sys.setprofile(None)
    except KeyboardInterrupt:
        return True
    return False


# An interrupt between open() and its `with` leaves the closing to Python, which does it, and says so.
@pytest.mark.filterwarnings("ignore:.*/proc/self/mountinfo:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("appended", [0, 1])
def test_a_writer_goes_on_right_after_an_interrupt_at_any_call(tmp_path: Path, appended: int) -> None:
    """Ctrl-C at every call of an append that opens a segment: others get the lock, and nothing goes behind a seal."""
    for number in itertools.count(1):  # a folder each, since more segments are more calls
        path = tmp_path / f"{number}.csv"
        path.write_text("PO_NUMBER;STATUS\nPO1;\nPO2;\nPO3;\n")
        job, other = (
            with_storage(EventCsv(path, durability="process", lock_timeout_s=0.5), Unsynced()) for _ in range(2)
        )
        other.emit_result("PO3", "PARTIAL")
        for _ in range(appended):
            job.emit_result("PO1", "PARTIAL")
            other.new_segment()
        if not _interrupt_at_call(job, number):
            break
        other.emit_result("PO3", "PARTIAL")
        segment = other.new_segment().segment
        event = job.emit_result("PO2", "COMPLETED")
        assert encode(event)[:-1] == lines_of(job, segment)[-1], f"after Ctrl-C at call {number}"
    assert number > 50
