"""emit_result(): what it takes until a result is acknowledged, from one process and from many at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import signal
import time
from array import array
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import peers
from fixtures import emit, keys, lines, make, write_csv
from measuring import Bench, Name, in_turn, settle

from eventcsv import EventCsv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

    from eventcsv.log.file_log import Durability

OURS: Final = "eventcsv"
SQLITE_KEPT: Final = "SQLite, kept connection"
SQLITE_NEW: Final = "SQLite, new connection each"
PANDAS: Final = "pandas rewriting the CSV"
SYSTEM_CALLS: Final = "flock, fstat, write, unlock"
LOCKED: Final = "flock + write"
WRITE: Final = "write"
WRITE_AND_SYNC: Final = "write + fdatasync"
NEEDS: Final = {PANDAS: "pandas"}

_WARM_UPS: Final = 20
_WARM_UP_S: Final = 0.1
_PERCENTILES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def what(durability: str, workers: int) -> str:
    """Return the name of one measurement."""
    return f'emit_result(), durability "{durability}", {workers} worker{"s" * (workers > 1)}'


@dataclass(frozen=True, slots=True)
class Task:
    """What one writer process is to do in one round.

    Attributes:
        who: The contestant.
        path: The CSV.
        durability: What an acknowledged result has to survive.
        line: A line as eventcsv writes it, for the floors.
        keys: The POs of this process.
        first: The number of its first result; no two results of a round have the same.
        duration_s: How long to go on, in seconds.
    """

    who: str
    path: Path
    durability: Durability
    line: bytes
    keys: Sequence[str]
    first: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class Appended:
    """What one process did in one round: clock readings and the latency of each result, in nanoseconds."""

    start_ns: int
    end_ns: int
    latencies_ns: array[int]


@contextlib.contextmanager
def _eventcsv(task: Task) -> Iterator[peers.Operation]:
    with EventCsv(task.path, durability=task.durability) as job:
        yield partial(emit, job)


def _opened(task: Task) -> AbstractContextManager[peers.Operation]:
    sync = task.durability == "disk"
    openers: dict[str, Callable[[], AbstractContextManager[peers.Operation]]] = {
        OURS: lambda: _eventcsv(task),
        SQLITE_KEPT: lambda: peers.sqlite_kept(task.path, sync=sync),
        SQLITE_NEW: lambda: peers.sqlite_new(task.path, sync=sync),
        PANDAS: lambda: peers.pandas_rewrite(task.path),
        SYSTEM_CALLS: lambda: peers.system_calls(task.path, task.line),
        LOCKED: lambda: peers.locked_write(task.path, task.line),
        WRITE: lambda: peers.write(task.path, task.line, sync=False),
        WRITE_AND_SYNC: lambda: peers.write(task.path, task.line, sync=True),
    }
    return openers[task.who]()


def contestants(durability: str, workers: int) -> list[str]:
    """Return who takes part: pandas only alone, since several such processes overwrite each other."""
    floors = [WRITE_AND_SYNC] if durability == "disk" else [LOCKED, WRITE]
    alone: list[str] = []
    if durability == "process" and workers == 1:
        alone = [*[PANDAS] * peers.is_installed("pandas"), SYSTEM_CALLS]
    return [OURS, SQLITE_KEPT, SQLITE_NEW, *alone, *floors]


# --- the writer processes ----------------------------------------------------------------------------------------


def appended(task: Task, barrier: Barrier) -> Appended:
    """Append for as long as the task says, after all processes have opened their files and made some appends."""
    latencies_ns = array("q")
    known, clock = task.keys, time.perf_counter_ns
    with _opened(task) as operation:
        number, warm_until = task.first, clock() + int(1e9 * _WARM_UP_S)
        while number < task.first + _WARM_UPS and clock() < warm_until:
            operation(known[number % len(known)], number)
            number += 1
        barrier.wait(peers.TIMEOUT_S)
        begin = clock()
        deadline = begin + int(1e9 * task.duration_s)
        while (start := clock()) < deadline:
            operation(known[number % len(known)], number)
            latencies_ns.append(clock() - start)
            number += 1
        return Appended(begin, clock(), latencies_ns)


def _serve(tasks: Connection, barrier: Barrier) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the process that started this one
    with contextlib.suppress(EOFError):
        for task in iter(tasks.recv, None):
            tasks.send(appended(task, barrier))


class Writers:
    """A number of writer processes, spawned once and released together for every task."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._barrier = context.Barrier(count)  # kept, because its semaphore goes when it does
        self.count = count
        self._ends: list[Connection] = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            context.Process(target=_serve, args=(theirs, self._barrier), daemon=True).start()
            theirs.close()  # so that a writer that dies is an EOFError here, not a wait for ever
            self._ends.append(ours)

    def run(self, tasks: Sequence[Task]) -> list[Appended]:
        for end, task in zip(self._ends, tasks, strict=True):
            end.send(task)
        return [end.recv() for end in self._ends]

    def close(self) -> None:
        for end in self._ends:
            end.send(None)


# --- what is measured --------------------------------------------------------------------------------------------


def one_slice(
    writers: Writers, who: str, durability: Durability, directory: Path, *, rows: int, duration_s: float
) -> list[Appended]:
    """Let one contestant append for one round, to files of its own that are gone afterwards."""
    directory.mkdir()
    path = directory / "input.csv"
    write_csv(path, rows)
    if who in {SQLITE_KEPT, SQLITE_NEW}:
        peers.make_sqlite(path)
    settle(directory)
    line = next(lines(1, rows, first=10_000_000))
    shares = [keys(rows)[number :: writers.count] for number in range(writers.count)]
    done = writers.run(
        [
            Task(who, path, durability, line, share, 1 + number * 100_000_000, duration_s)
            for number, share in enumerate(shares)
        ]
    )
    shutil.rmtree(directory)
    return done


def measure(bench: Bench) -> None:
    """Measure every contestant, by durability and number of processes, in the same rounds."""
    scale = bench.scale
    pools = [Writers(1), Writers(scale.workers)]
    durabilities: tuple[Durability, ...] = ("process", "disk")
    for number in bench.rounds(scale.emit_rounds, "emit_result()"):
        for writers in pools:
            for durability in durabilities:
                for who in in_turn(contestants(durability, writers.count), number):
                    done = one_slice(
                        writers, who, durability, bench.directory / "emit", rows=scale.rows, duration_s=scale.emit_s
                    )
                    _add(bench, what(durability, writers.count), who, done)
    for writers in pools:
        writers.close()


def _add(bench: Bench, measured: str, who: str, done: list[Appended]) -> None:
    """Add the figures of all processes together."""
    add = bench.figures.add
    latencies_ns = sorted(latency for part in done for latency in part.latencies_ns)
    last = len(latencies_ns) - 1
    for metric, share in _PERCENTILES.items():
        add(Name(measured, who, metric), latencies_ns[int(last * share)] / 1e9)
    add(Name(measured, who, "worst"), latencies_ns[last] / 1e9)  # shows who starves, which percentiles hide
    elapsed_ns = max(part.end_ns for part in done) - min(part.start_ns for part in done)
    add(Name(measured, who, "rate"), len(latencies_ns) / elapsed_ns * 1e9, "/s")
    counts = [len(part.latencies_ns) for part in done]
    add(Name(measured, who, "least / most"), min(counts) / max(counts), "")


# --- the log's length --------------------------------------------------------------------------------------------

EMPTY: Final = "into an empty log"
LONG: Final = "into a long log"
BY_LOG: Final = "emit_result(), by what is in the log"


def median_emit_s(job: EventCsv, rows: int, count: int) -> float:
    """Return the median latency of recording `count` results, in seconds."""
    known, clock = keys(rows), time.perf_counter_ns
    latencies_ns = array("q")
    for number in range(_WARM_UPS + count):
        start = clock()
        emit(job, known[number % rows], number)
        latencies_ns.append(clock() - start)
    return sorted(latencies_ns[_WARM_UPS:])[count // 2] / 1e9


def measure_by_log(bench: Bench) -> None:
    """Measure whether it matters how long the log is already, in one process that survives only itself."""
    size = bench.scale.long_log
    found = {
        EMPTY: make(bench.directory / "empty", 0, size.rows),
        LONG: make(bench.directory / "long", size.events, size.rows),
    }
    for number in bench.rounds(size.rounds, "emit_result() into a long log"):
        for who in in_turn(list(found), number):
            found[who].reset()
            with found[who].job() as job:
                bench.figures.add(Name(BY_LOG, who, "p50"), median_emit_s(job, size.rows, bench.scale.emits))
    for fixture in found.values():
        fixture.remove()
