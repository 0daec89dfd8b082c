"""The promise on a simulated computer: any interleaving, kills, power cuts and failing disks, each seed another one.

Any seeds, or one again with all its steps:

    python tests/promises/test_simulator.py --seeds 1000 --first 20000
    python tests/promises/test_simulator.py --seed 177 --trace
"""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys
import time
from collections import Counter
from contextlib import ExitStack, nullcontext, suppress
from random import Random
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from simulated import Machine, Odds, Process, Violation
from simulated_storage import SimulatedStorage
from simulation import Simulation
from witness import LOG

from eventcsv.log.file_log import FileLog
from eventcsv.log.reader import LogReader
from eventcsv.storage.files import Storage
from eventcsv.view.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from eventcsv.view.checkpoint import CsvVersion
    from eventcsv.view.projection import StartingPoint

SEEDS = range(130)
LONG_RUN = [range(first, first + 500) for first in range(0, 10_000, 500)]
MOST_SEEDS_OF_A_CONTROL = 400
FOUND_AT = {
    "a failed sync tried again on its descriptor": 567,
    "the view shows what is not synced": 913,
    "names that a killed process gave are relied on": 480,
}
"""Where the search for what takes long to find begins: where it ended the last time."""

SOMETIMES = (
    "CSV replaced",
    "NUL bytes after a power cut",
    "a sector torn by a power cut",
    "an old copy saved",
    "acknowledged after a fault",
    "an event twice in the log",
    "backup removed",
    "descriptor poisoned",
    "disk full",
    "edit adopted",
    "failed for good",
    "killed: in a backup",
    "killed: in a compaction",
    "killed: in a segment change",
    "killed: while a lock was held",
    "killed: while the checkpoint was written",
    "late results folded",
    "lock contention",
    "lock timeout",
    "names lost at a power cut",
    "power cut: in a backup",
    "power cut: in a compaction",
    "power cut: in a segment change",
    "power cut: while a lock was held",
    "power cut: while the checkpoint was written",
    "rebuilt without being asked",
    "restored",
    "segment change",
    "segment pruned",
    "short write healed",
    "somebody else's sync failed",
    "stale edit",
    "torn tail healed",
    "unsynced data lost",
    "verified beside others",
)
"""What a run has to have met: a promise that was never put to the test proves nothing."""


def run(seed: int, trace: Callable[[str], object] | None = None) -> Counter[str]:
    """Run one seed, and return how often what has happened; the error of one that fails tells how to see it again."""
    simulation = Simulation(seed, trace)
    try:
        simulation.run()
    except Exception as error:
        raise Violation(
            f"{error}\nSee each step: python tests/promises/test_simulator.py --seed {seed} --trace"
        ) from error
    return simulation.met


@pytest.mark.parametrize("seeds", [SEEDS, *(pytest.param(seeds, marks=pytest.mark.long) for seeds in LONG_RUN)])
def test_every_seed_keeps_the_promise(seeds: range) -> None:
    """Whatever befalls a job, its log and its CSV are what they have to be, and everything has befallen it."""
    met = sum(map(run, seeds), Counter[str]())
    assert [] == [name for name in SOMETIMES if not met[name]]


def test_a_seed_tells_everything() -> None:
    """The same seed takes the same steps, so that whatever it finds can be seen again."""
    for seed in (3, 7):
        first: list[str] = []
        second: list[str] = []
        run(seed, first.append)
        run(seed, second.append)
        assert first == second


# --- controls: without a protection, the harness has to go red ---------------------------------------------------


def _without_healing(storage: SimulatedStorage, fd: int, size_bytes: int, offset_bytes: int) -> bytes:
    return b"\n" if size_bytes == 1 else _pread(storage, fd, size_bytes, offset_bytes)


def _checkpoint_deferred(publisher: Publisher, views: tuple[CsvVersion, ...], start: StartingPoint) -> None:
    if len(views) > 1:
        publisher.__dict__["deferred"] = (views, start)
    else:
        _save(publisher, views, start)


def _replaced_before_the_checkpoint(publisher: Publisher, start: StartingPoint) -> None:
    _replace(publisher, start)
    if deferred := publisher.__dict__.pop("deferred", None):
        _save(publisher, *deferred)


def _synced_again(log: FileLog) -> None:
    try:
        log.storage.datasync(log._segment_fd)
    except OSError:
        log.storage.datasync(log._segment_fd)


def _unlocked_before_writing(log: FileLog, line: bytes) -> None:
    log._lock()
    log._unlock()
    log._write(line)


def _log_directory_not_synced(storage: Storage, path: str) -> None:
    if path != LOG:
        _sync_directory(storage, path)


def _view_not_synced(storage: Storage, path: str, data: bytes, **like: Any) -> tuple[str, ...]:
    with patch.object(storage, "sync") if path.endswith(".eventcsv.tmp") else nullcontext():
        return _write_new(storage, path, data, **like)


_pread = SimulatedStorage.pread
_save = Publisher._save
_replace = Publisher._replace
_sync_directory = Storage.sync_directory
_write_new = Storage.write_new

CONTROLS: dict[str, list[tuple[Any, str, Any]]] = {
    "no fdatasync before an append is acknowledged": [(FileLog, "_sync", lambda _log: None)],
    "no fsync of the log's directory after a new segment": [(Storage, "sync_directory", _log_directory_not_synced)],
    "no newline after a torn line": [(SimulatedStorage, "pread", _without_healing)],
    "nobody says what half a line is": [(FileLog, "_healing", lambda _log, _size_bytes: b"\n")],
    "checkpoint written after the CSV was replaced": [
        (Publisher, "_save", _checkpoint_deferred),
        (Publisher, "_replace", _replaced_before_the_checkpoint),
    ],
    "a failed sync tried again on its descriptor": [(FileLog, "_sync", _synced_again)],
    "unlocked before the write": [(FileLog, "_write_locked", _unlocked_before_writing)],
    "no lock": [(SimulatedStorage, "try_lock", lambda storage, fd: bool(storage._of(fd)))],
    "the view shows what is not synced": [(LogReader, "sync", lambda _log, _start, _end: None)],
    "names that a killed process gave are relied on": [(Publisher, "_rely_on", lambda *_: None)],
    "the CSV replaced by a file that is not synced": [(Storage, "write_new", _view_not_synced)],
}


def first_found(control: str) -> tuple[int, Violation] | None:
    """Return the first seed that finds a protection missing, and what it finds."""
    with ExitStack() as stack:
        for owner, name, replacement in CONTROLS[control]:
            stack.enter_context(patch.object(owner, name, replacement))
        first = FOUND_AT.get(control, 0)
        for seed in range(first, first + MOST_SEEDS_OF_A_CONTROL):
            try:
                run(seed)
            except Violation as violation:
                return seed, violation
    return None


@pytest.mark.parametrize("control", CONTROLS)
def test_without_a_protection_a_seed_fails(control: str) -> None:
    """A harness that cannot fail proves nothing: each protection that is taken out is missed."""
    assert first_found(control) is not None


# --- the simulated computer is like a real one -------------------------------------------------------------------


def test_the_simulated_file_system_behaves_like_the_real_one(tmp_path: Path) -> None:
    """Any calls, in any order, give the same results and the same errors."""
    rng = Random(0)
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        machine = Machine(Random(0), Odds())
        simulated = machine.process("one").storage
        for path in filter(None, _heads(str(folder))):
            simulated.mkdir(path)
        sides = _Side(Storage()), _Side(simulated)
        for _ in range(60):
            call = _any_call(rng, str(folder))
            real, made_up = (side.outcome(*call) for side in sides)
            assert real == made_up, (call, real, made_up)
        for side in sides:
            side.close()


def _heads(path: str) -> Iterable[str]:
    parts = path.split("/")
    return ["/".join(parts[: size + 1]) for size in range(len(parts))]


def _any_call(rng: Random, folder: str) -> tuple[str, tuple[Any, ...]]:
    path, other = (f"{folder}/{rng.choice(('a', 'b', 'c', 'd/e', 'd/f', 'd'))}" for _ in range(2))
    fd = rng.randrange(4)
    flags = rng.choice((os.O_RDONLY, os.O_RDWR, os.O_WRONLY))
    flags |= rng.choice((0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_DIRECTORY))
    flags |= rng.choice((0, os.O_APPEND))
    if flags & os.O_TRUNC:
        flags = flags & ~os.O_ACCMODE | os.O_RDWR  # to truncate what is only read is undefined
    renamed = f"{folder}/{rng.choice('ab')}", f"{folder}/{rng.choice('abc')}"
    return rng.choice(
        (
            ("open", (path, flags)),
            ("open", (path, os.O_RDWR | os.O_CREAT)),
            ("close", (fd,)),
            ("write", (fd, rng.randbytes(rng.randrange(1, 9)))),
            ("write", (fd, rng.randbytes(rng.randrange(1, 9)))),
            ("pread", (fd, rng.randrange(1, 9), rng.randrange(9))),
            ("fstat", (fd,)),
            ("stat", (path,)),
            ("exists", (path,)),
            ("sync", (fd,)),
            ("datasync", (fd,)),
            ("try_lock", (fd,)),
            ("try_lock_shared", (fd,)),
            ("unlock", (fd,)),
            ("replace", renamed),
            ("unlink", (path,)),
            ("mkdir", (rng.choice((other, f"{folder}/d")),)),
            ("names", (rng.choice((folder, path)),)),
        )
    )


class _Side:
    """A storage with at most four open files, which are called by their place."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._fds: list[int] = []

    def outcome(self, call: str, arguments: tuple[Any, ...]) -> object:
        """Return what a call gives, in words that are the same on both sides, or the error."""
        if call in {"close", "write", "pread", "fstat", "sync", "datasync", "try_lock", "try_lock_shared", "unlock"}:
            if arguments[0] >= len(self._fds):
                return None
            arguments = (self._fds[arguments[0]], *arguments[1:])
        try:
            found = getattr(self._storage, call)(*arguments)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        if call == "open":
            self._fds.append(found)
            if len(self._fds) > 4:
                self._storage.close(self._fds.pop(0))
            return "opened"
        if call == "close":
            self._fds.remove(arguments[0])
        if call == "names":
            return sorted(found)
        if isinstance(found, os.stat_result):
            is_directory = stat.S_ISDIR(found.st_mode)
            details = () if is_directory else (found.st_nlink, found.st_size)
            return (found.st_mode, found.st_uid, found.st_gid, *details)
        return found

    def close(self) -> None:
        for fd in self._fds:
            self._storage.close(fd)


def _process() -> tuple[Machine, Process]:
    machine = Machine(Random(0), Odds())
    process = machine.process("one")
    return machine, process


def test_what_is_synced_survives_a_power_cut_and_the_rest_may_not() -> None:
    """Of what is not synced each power cut keeps something else; of what is, everything."""
    seen: set[bytes] = set()
    for seed in range(100):
        machine, process = _process()
        machine.rng.seed(seed)
        process.storage.write_new("/a", b"old")
        process.storage.sync_directory("/")
        fd = process.storage.open("/a", os.O_WRONLY | os.O_APPEND)
        process.storage.write(fd, b"new")
        process.storage.write_new("/b", b"whole")
        machine.boot()
        content = machine.content("/a")
        assert content is not None
        assert b"old" == content[:3]
        assert machine.content("/b") in {None, b"whole"}
        seen.add(content)
    assert {b"old", b"oldnew", b"old\0\0\0", b"oldn"} <= seen


def test_a_failed_sync_is_told_once_to_everybody_who_has_the_file_open() -> None:
    """After it the data is still read, and a second sync says yes; the disk may not have it."""
    machine, process = _process()
    storage = process.storage
    first, second = (storage.open("/a", os.O_RDWR | os.O_CREAT) for _ in range(2))
    storage.sync_directory("/")
    storage.write(first, b"data")
    machine.rng.seed(2)
    file = machine.files()["/a"]
    file.fail_sync(machine.rng)
    for fd in (first, second):
        with pytest.raises(OSError, match="Input/output error"):
            storage.datasync(fd)
        storage.datasync(fd)
    assert b"data" == storage.pread(first, 9, 0)
    assert b"" == bytes(file.disk)


def test_the_dead_give_up_their_locks() -> None:
    """A lock belongs to an open file, and goes with its process."""
    machine, one = _process()
    other = machine.process("other")
    fds = [process.storage.open("/a", os.O_RDWR | os.O_CREAT) for process in (one, other)]
    assert (True, False) == (one.storage.try_lock(fds[0]), other.storage.try_lock(fds[1]))
    one.end()
    assert other.storage.try_lock(fds[1])


# --- from the command line ---------------------------------------------------------------------------------------


def _say(text: str) -> None:
    with suppress(BrokenPipeError):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def main() -> int:
    """Run many seeds, or one, and say what they met."""
    parser = argparse.ArgumentParser(description="Run the simulation.")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="one seed only")
    parser.add_argument("--trace", action="store_true", help="say every step")
    parser.add_argument("--controls", action="store_true", help="say which seed finds which protection missing")
    options = parser.parse_args()
    if options.controls:
        found = {control: first_found(control) for control in CONTROLS}
        for control, what in found.items():
            _say(f"{control}: " + ("NOT FOUND" if what is None else f"seed {what[0]}: {str(what[1])[:200]}"))
        return int(None in found.values())
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else [options.seed]
    met: Counter[str] = Counter()
    failed: list[int] = []
    clock = time.perf_counter()
    for seed in seeds:
        try:
            met += run(seed, _say if options.trace else None)
        except Violation as violation:
            failed.append(seed)
            _say(f"seed {seed} FAILED: {violation}")
    took_s = time.perf_counter() - clock
    for name, times in sorted(met.items()):
        _say(f"{times:9,}  {name}")
    never = [name for name in SOMETIMES if not met[name]] if options.seed is None else []
    _say(f"{len(seeds)} seeds in {took_s:.0f} s, {len(seeds) / took_s:.1f} a second; failed: {failed}; never: {never}")
    return int(bool(failed or never))


if __name__ == "__main__":
    sys.exit(main())
