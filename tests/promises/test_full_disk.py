"""The promise on a disk that is full: what cannot be recorded is said to be, nothing is lost, and all goes on after."""

from __future__ import annotations

import errno
import multiprocessing
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest
from conftest import KEYS, read_csv, replays_to_itself, wait_until
from faults import with_storage
from operations import litter

from eventcsv import AppendError, EventCsv
from eventcsv.log import retry
from eventcsv.storage.files import Storage

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event
    from pathlib import Path

SPAWN: Final = multiprocessing.get_context("spawn")
WORKERS: Final = 4
MORE: Final = 5
"""How many results each worker records once there is room again."""


class Careless(Storage):
    """Takes no for an answer, and says nothing."""

    def write(self, fd: int, data: bytes) -> int:
        """Write what there is room for."""
        with suppress(OSError):
            super().write(fd, data)
        return len(data)


def emit_until_told(job: EventCsv, notes: str, room: Event, stop: Event) -> None:
    """Record result after result, and note which were acknowledged and what made others fail."""
    vars(retry).update(FIRST_RETRY_S=0.001, LONGEST_RETRY_S=0.002)
    fd = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def emit(text: str, note: str) -> None:
        try:
            event = job.emit_result(KEYS[os.getpid() % len(KEYS)], "COMPLETED", columns={"text": text})
            os.write(fd, f"{note} {event.id}\n".encode())
        except AppendError as error:
            cause = error.__cause__
            os.write(
                fd, f"failed {errno.errorcode[cause.errno or 0] if isinstance(cause, OSError) else cause}\n".encode()
            )
            time.sleep(0.005)

    while not room.is_set():
        emit("x" * 900, "acknowledged")
    for _ in range(MORE):
        emit("", "again")
    stop.wait()


class Ordeal:
    """Workers and a compactor on a small disk that is full for a while.

    Args:
        job: What the workers are given.
        disk: The disk.
        folder: A folder elsewhere.
    """

    def __init__(self, job: EventCsv, disk: Path, folder: Path) -> None:
        self._filler = disk / "filler"
        self._room, self._stop = SPAWN.Event(), SPAWN.Event()
        self._notes = [folder / f"notes-{number}" for number in range(WORKERS)]
        arguments = [(job, str(path), self._room, self._stop) for path in self._notes]
        self._processes = [SPAWN.Process(target=emit_until_told, args=each) for each in arguments]

    def noted(self, what: str) -> list[list[str]]:
        """Return what each worker has noted of a kind."""
        notes = [path.read_bytes().decode() if path.exists() else "" for path in self._notes]
        found = [[line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")] for text in notes]
        return [[value for kind, value in lines if kind == what] for lines in found]

    def fill(self) -> None:
        """Leave a little room, and let the workers begin."""
        self._filler.write_bytes(b"x" * (20 << 10))
        for process in self._processes:
            process.start()

    def empty(self) -> None:
        """Make room, and wait until every worker has gone on."""
        self._filler.unlink()
        self._room.set()
        wait_until(lambda: all(len(ids) == MORE for ids in self.noted("again")), "every worker goes on")

    def end(self) -> set[str]:
        """Let the workers come to their end; return the ids of the events that they acknowledged."""
        self._stop.set()
        for process in self._processes:
            process.join(60)
        assert [0] * WORKERS == [process.exitcode for process in self._processes]
        return {ident for ids in (*self.noted("acknowledged"), *self.noted("again")) for ident in ids}


@pytest.fixture
def path(small_disk: Path) -> Path:
    """A CSV on the small disk, with a backup and a log."""
    path = small_disk / "input.csv"
    path.write_text("PO_NUMBER;STATUS\n" + "".join(f"{key};\n" for key in (*KEYS, "PO4")))
    EventCsv(path).compact()
    return path


def recorded(path: Path) -> set[str]:
    """Return the ids of the events in the log."""
    return {event.id for key in KEYS for event in EventCsv(path).history(key)}


def compact_for_ever(job: EventCsv) -> None:
    """Compact again and again."""
    while True:
        job.compact()


@pytest.mark.parametrize("small_disk", [64], indirect=True)
def test_workers_and_a_compactor_on_a_disk_that_is_full_for_a_while(path: Path, tmp_path: Path) -> None:
    """Nothing acknowledged is lost, every failure is told, the CSV stays whole, and all goes on once there is room."""
    job = EventCsv(path, lock_timeout_s=60)
    ordeal = Ordeal(job, path.parent, tmp_path)
    ordeal.fill()
    with pytest.raises(OSError, match="No space left on device"):
        compact_for_ever(job)
    wait_until(lambda: all(ordeal.noted("failed")), "every worker meets the full disk")
    assert 4 == len(read_csv(path))
    with pytest.raises(AppendError, match=r"PO4 could not be recorded .*No space left on device"):
        job.emit_result("PO4", "COMPLETED", columns={"text": "x" * 50_000})
    assert "PO4" in job.pending()
    ordeal.empty()
    acknowledged = ordeal.end()
    assert {"ENOSPC"} <= {cause for causes in ordeal.noted("failed") for cause in causes} <= {"ENOSPC", "EIO"}
    job.compact()
    assert len(acknowledged) > WORKERS * MORE
    assert set() == acknowledged - recorded(path)
    assert "" == read_csv(path)[3]["STATUS"]
    assert [] == litter(path.parent)
    assert replays_to_itself(path)


@pytest.mark.parametrize("small_disk", [64], indirect=True)
def test_a_toy_loses_results_on_a_full_disk(path: Path, tmp_path: Path) -> None:
    """Control: workers that do not look whether they could write acknowledge what is lost."""
    ordeal = Ordeal(with_storage(EventCsv(path, lock_timeout_s=60), Careless()), path.parent, tmp_path)
    ordeal.fill()
    wait_until(lambda: all(len(ids) > 20 for ids in ordeal.noted("acknowledged")), "more than there is room for")
    ordeal.empty()
    assert ordeal.end() - recorded(path)
