"""Live compaction: what it takes each second of a run to bring the CSV up to date, in a process that holds the table.

The floor reads, writes and syncs the very same files in the same order and folds nothing. That it syncs and renames as
often as eventcsv does is counted in the same run, so that it cannot get out of date unnoticed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from fixtures import Fixture, append_raw, emit, keys, last_segment, lines, make
from measuring import Bench, Name, in_turn, timed_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from scales import Size

OURS: Final = "eventcsv"
FLOOR: Final = "the same reads, writes and syncs"


def what(size: Size) -> str:
    """Return the name of one measurement."""
    return f"compact(), table resident, {size.rows:,} POs, {size.events:,} new events"


class Resident:
    """A long-lived EventCsv that holds the table, as a live run does."""

    def __init__(self, fixture: Fixture) -> None:
        self._job = fixture.job()
        self._job.compact()
        self._keys = keys(fixture.rows)
        self._emitted = 0

    def add(self, count: int) -> None:
        for _ in range(count):
            emit(self._job, self._keys[self._emitted % len(self._keys)], self._emitted)
            self._emitted += 1

    def compact(self) -> None:
        if not self._job.compact().changed:
            raise SystemExit("the CSV was not written, so there is nothing to measure")

    def close(self) -> None:
        self._job.close()


class Floor:
    """The same system calls on a job of its own."""

    def __init__(self, fixture: Fixture) -> None:
        self._fixture = fixture
        self._csv = fixture.csv_path
        self._log_dir = fixture.log_dir
        self._backups = sorted((fixture.csv_path.parent / "backup").glob("*.json"))
        self._folded_bytes = last_segment(fixture.log_dir).stat().st_size

    def add(self, count: int) -> None:
        append_raw(last_segment(self._log_dir), lines(count, self._fixture.rows))

    def compact(self) -> None:
        lock = os.open(self._log_dir / "compact.lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in (*self._backups, self._log_dir / "checkpoint.json"):
            path.read_bytes()
        data = self._csv.read_bytes()
        self._read_and_sync_log()
        temporary = self._csv.with_suffix(".tmp")
        _write_synced(temporary, data)
        temporary.read_bytes()
        self._checkpoint((self._log_dir / "checkpoint.json").read_bytes())
        self._csv.read_bytes()  # edited meanwhile?
        os.replace(temporary, self._csv)
        _sync_directory(self._csv.parent)
        os.close(lock)

    def _read_and_sync_log(self) -> None:
        fd = os.open(last_segment(self._log_dir), os.O_RDONLY)
        size_bytes = os.fstat(fd).st_size
        os.pread(fd, size_bytes - self._folded_bytes, self._folded_bytes)
        os.fdatasync(fd)
        os.close(fd)
        self._folded_bytes = size_bytes

    def _checkpoint(self, data: bytes) -> None:
        temporary = self._log_dir / "checkpoint.json.tmp"
        _write_synced(temporary, data)
        os.replace(temporary, self._log_dir / "checkpoint.json")
        _sync_directory(self._log_dir)

    def close(self) -> None:
        pass


def _write_synced(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


@contextmanager
def _counted(counts: Counter[str]) -> Iterator[None]:
    """Count the syncs and renames of this process, Python's own calls all of them."""
    kept = {name: getattr(os, name) for name in ("fsync", "fdatasync", "replace")}

    def counting(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object) -> object:
            counts[name] += 1
            return call(*args)

        return counted

    for name, call in kept.items():
        setattr(os, name, counting(name, call))
    try:
        yield
    finally:
        for name, call in kept.items():
            setattr(os, name, call)


def _check_alike(found: dict[str, Resident | Floor], new_events: int) -> None:
    counts: dict[str, Counter[str]] = {who: Counter() for who in found}
    for who, one in found.items():
        one.add(new_events)
        one.compact()  # the first one may do more
        one.add(new_events)
        with _counted(counts[who]):
            one.compact()
    if counts[OURS] != counts[FLOOR]:
        raise SystemExit(f"live.py: the floor has to do what compact() does: {counts[FLOOR]} against {counts[OURS]}")


def contest(directory: Path, rows: int, new_events: int) -> dict[str, Resident | Floor]:
    """Return both contestants, each with a job of its own, checked to do the same syncs."""
    found: dict[str, Resident | Floor] = {
        OURS: Resident(make(directory / "live-ours", 0, rows)),
        FLOOR: Floor(make(directory / "live-floor", 0, rows)),
    }
    _check_alike(found, new_events)
    return found


def measure(bench: Bench) -> None:
    """Measure compact() against the floor."""
    for size in bench.scale.live:
        bench.tell(f"{what(size)}: making the CSV")
        folder = bench.folder(f"live-{size.rows}")
        found = contest(folder, size.rows, size.events)
        for number in bench.rounds(size.rounds, what(size)):
            for who in in_turn(list(found), number):
                found[who].add(size.events)
                bench.figures.add(Name(what(size), who), timed_s(found[who].compact))
        for one in found.values():
            one.close()
        shutil.rmtree(folder)
