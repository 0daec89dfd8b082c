"""The promise in the system calls of real workers: what was not written and synced is not acknowledged."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest
from traced import parsed, strace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from traced import Call

ORDER: Final = ["lock", "write", "unlock", "sync", "acknowledge"]

WORKER: Final = """
import os, sys
from eventcsv import AppendError, EventCsv
from eventcsv.log import file_log as log, retry

path, acknowledged, count, toy = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
retry.FIRST_RETRY_S, retry.LONGEST_RETRY_S = 0.001, 0.002
written, synced = log.FileLog._write, log.FileLog._sync

def sync_in_the_lock(self, line):
    written(self, line)
    synced(self)

def write_after_unlocking(self, line):
    self._lock()
    self._unlock()
    self._write(line)

def forget_the_failure(self):
    try:
        synced(self)
    finally:
        self._poisoned = False

if toy == "sync in the lock":
    log.FileLog._write, log.FileLog._sync = sync_in_the_lock, lambda self: None
if toy == "write after unlocking":
    log.FileLog._write_locked = write_after_unlocking
if toy == "forget the failure":
    log.FileLog._sync = forget_the_failure
job = EventCsv(path, durability="process" if toy == "no sync" else "disk", lock_timeout_s=60)
fd = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for number in range(count):
    if toy == "acknowledge first":
        os.write(fd, b"told\\n")
    try:
        event = job.emit_result("PO1", "COMPLETED", columns={"n": number, "text": "x" * (number % 50)})
    except AppendError as error:
        print("failed", error)
        continue
    if toy != "acknowledge first":
        os.write(fd, event.id.encode() + b"\\n")
"""


class Worker:
    """A process that records results and acknowledges each one, under strace."""

    def __init__(self, folder: Path, *, count: int, number: int = 0, toy: str = "", inject: str = "") -> None:
        self._folder = folder
        self.acknowledged = folder / f"acknowledged-{number}"
        self._trace = folder / f"trace-{number}"
        options = ["-e", f"inject={inject}"] if inject else []
        traced = ["-y", "-s", "0", "-e", "trace=flock,write,fdatasync", *options, "-o", str(self._trace)]
        arguments = [str(folder / "input.csv"), str(self.acknowledged), str(count), toy]
        command = [strace(), *traced, sys.executable, "-c", WORKER, *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end(self) -> str:
        """Wait for its end; return what it printed."""
        output = self._process.communicate()[0]
        assert 0 == self._process.returncode, output
        return output

    def calls(self) -> list[Call]:
        """Return what it asked of the system."""
        with self._trace.open() as lines:
            return list(parsed(lines))

    def ids(self) -> list[str]:
        """Return the ids of the events that it acknowledged."""
        return self.acknowledged.read_text().split()


def told(calls: Sequence[Call]) -> Iterator[tuple[str, str]]:
    """Say what the calls mean, and on which file; a lock that was not free is asked for again and means nothing."""
    for call in calls:
        name = (found := re.match(r"\d+<[^>]*/([^/>]+)>", call.arguments)) and found[1]
        is_segment = bool(name and re.fullmatch(r"events-\d{6}\.jsonl", name))
        match call.name:
            case "flock" if name == "append.lock" and call.result == "0":
                yield ("unlock" if "LOCK_UN" in call.arguments else "lock"), name
            case "write" if is_segment:
                yield "write", str(name)
            case "write" if name and name.startswith("acknowledged"):
                yield "acknowledge", name
            case "fdatasync" if is_segment:
                yield ("sync" if call.result == "0" else "failed sync"), str(name)


def appends(calls: Sequence[Call]) -> Iterator[list[tuple[str, str]]]:
    """Cut what the calls mean behind each acknowledgement; what is left over is one more."""
    steps: list[tuple[str, str]] = []
    for step in told(calls):
        steps.append(step)
        if step[0] == "acknowledge":
            yield steps
            steps = []
    if steps:
        yield steps


def is_in_order(append: Sequence[tuple[str, str]]) -> bool:
    """Tell whether an append was acknowledged after its file was synced, which came after the lock was given back."""
    files = {name for step, name in append if step in {"write", "sync"}}
    return ORDER == [step for step, _ in append] and len(files) == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a CSV."""
    (tmp_path / "input.csv").write_text("PO_NUMBER;STATUS\nPO1;\n")
    return tmp_path


def events_in(folder: Path) -> Counter[str]:
    """Return the ids in the log, read without eventcsv's help."""
    lines = [line for path in (folder / "input.events").glob("*.jsonl") for line in path.read_bytes().splitlines()]
    return Counter(found[1].decode() for line in lines if (found := re.match(rb'\{"v":1,"id":"([^"]+)"', line)))


@pytest.mark.parametrize("workers", [1, pytest.param(4, marks=pytest.mark.long)])
def test_every_append_is_acknowledged_last(folder: Path, workers: int) -> None:
    """In 1,000 appends of a process, alone or of four at once: lock, write, unlock, sync, and only then the word."""
    made = [Worker(folder, count=1000, number=number) for number in range(workers)]
    assert [""] * workers == [worker.end() for worker in made]
    found = [append for worker in made for append in appends(worker.calls())]
    assert [] == [append for append in found if not is_in_order(append)][:3]
    assert workers * 1000 == len(found)
    waited = [call for worker in made for call in worker.calls() if call.name == "flock" and "EAGAIN" in call.result]
    assert bool(waited) == (workers > 1)  # or they did not meet
    assert Counter(ident for worker in made for ident in worker.ids()) == events_in(folder)


@pytest.mark.parametrize(
    ("toy", "wrong"),
    # One that is always a step ahead with its word gives it once too early, and has work left at the end.
    [("sync in the lock", 20), ("write after unlocking", 20), ("no sync", 20), ("acknowledge first", 2)],
)
def test_a_toy_is_out_of_order(folder: Path, toy: str, wrong: int) -> None:
    """Control: whatever is out of order is found in the calls."""
    worker = Worker(folder, count=20, toy=toy)
    worker.end()
    assert wrong == len([append for append in appends(worker.calls()) if not is_in_order(append)])


def syncs_after_a_failure(calls: Sequence[Call]) -> list[str]:
    """Return the segments that were synced once more after a sync of them had failed."""
    failed: set[str] = set()
    again: list[str] = []
    for step, name in told(calls):
        if step in {"sync", "failed sync"} and name in failed:
            again.append(name)
        if step == "failed sync":
            failed.add(name)
    return again


def test_a_sync_that_fails_is_not_asked_again(folder: Path) -> None:
    """The disk says no once: the event is not acknowledged before it is on disk in a new segment, and all goes on."""
    worker = Worker(folder, count=5, inject="fdatasync:error=EIO:when=3")
    assert "" == worker.end()
    found = list(appends(worker.calls()))
    one, two = "events-000001.jsonl", "events-000002.jsonl"
    retried = [("lock", "append.lock"), ("write", one), ("unlock", "append.lock"), ("failed sync", one)]
    retried += [("lock", "append.lock"), ("write", two), ("unlock", "append.lock"), ("sync", two)]
    assert retried == found[2][:-1]
    assert [True, True, False, True, True] == [is_in_order(append) for append in found]
    assert [] == syncs_after_a_failure(worker.calls())
    assert {two} == {name for append in found[3:] for step, name in append if step == "sync"}
    events = events_in(folder)
    assert worker.ids() == list(dict.fromkeys(worker.ids())) == sorted(events, key=worker.ids().index)
    assert [1, 1, 2, 1, 1] == [events[ident] for ident in worker.ids()]


def test_a_disk_that_never_syncs_acknowledges_nothing(folder: Path) -> None:
    """Each try goes to a segment of its own, and then the error is told; not one event is acknowledged."""
    worker = Worker(folder, count=2, inject="fdatasync:error=EIO:when=1+")
    assert 2 == worker.end().count("could not be recorded (4 tries)")
    steps = [step for append in appends(worker.calls()) for step in append]
    assert {"lock": 8, "write": 8, "unlock": 8, "failed sync": 8} == Counter(step for step, _ in steps)
    assert 8 == len({name for step, name in steps if step == "failed sync"})
    assert [] == worker.ids()


def test_a_toy_asks_again(folder: Path) -> None:
    """Control: a worker that forgets that a sync failed is found to believe the second one."""
    worker = Worker(folder, count=5, toy="forget the failure", inject="fdatasync:error=EIO:when=3")
    worker.end()
    assert ["events-000001.jsonl"] == syncs_after_a_failure(worker.calls())[:1]
