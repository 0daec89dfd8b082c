"""Measures eventcsv next to floors and peers, in one run: emit_result(), compact(), replay(), imports and memory.

    python benchmarks/bench.py [--quick] [--json FILE]

A floor is the least work that could do the job at all; a peer is another way of doing it. The contestants of a group
take turns within every round, each round in another order, so that a machine whose speed drifts drifts for all of
them. The absolute figures are this machine's at that moment; the ratios of the medians are what holds.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.metadata
import json
import multiprocessing
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

import orjson
import psutil  # type: ignore[import-untyped]  # it ships no types
from rich.console import Console
from rich.progress import track

from eventcsv import EventCsv
from eventcsv.event import COLUMNS
from eventcsv.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier

    from eventcsv.log import Durability

    Operation = Callable[[str, int], object]

T = TypeVar("T")

FLOOR: Final = "floor"
SQLITE: Final = "sqlite3 WAL"
PROCESSES: Final = (1, 8)
PO_COUNT: Final = 10_000
COMPACT_EVENTS: Final = (100, 10_000)
REPLAY_EVENTS: Final = (10_000, 100_000)
WORKER_EMITS: Final = 1_000
WARM_UPS: Final = 20
BARRIER_TIMEOUT_S: Final = 60.0

HEADER: Final = ("PO_NUMBER", *COLUMNS.values(), "Priority", "Supplier Segment", "Spend Type", "L1 UU Supplier Name")
SUPPLIER: Final = "Ekström Hydraulik"
NAMES: Final = ("invoice.pdf", "terms.docx")
FOLDER: Final = "downloads/Ekström/PO15262984"

STDERR: Final = Console(stderr=True)
STORAGE: Final = Storage()  # knows how each platform flushes a file


# --- what is measured, and how it is kept ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scale:
    """How much to measure.

    Attributes:
        emit_rounds: Rounds of emit_result().
        emit_s: How long each contestant appends in one round, in seconds.
        rounds: Rounds of everything else.
    """

    emit_rounds: int
    emit_s: float
    rounds: int


QUICK: Final = Scale(emit_rounds=3, emit_s=0.15, rounds=3)
FULL: Final = Scale(emit_rounds=9, emit_s=0.5, rounds=11)


@dataclass(frozen=True, slots=True)
class Series:
    """One contestant's figures for one thing measured, a figure for each round.

    Attributes:
        group: What was measured together.
        metric: What the figures are.
        unit: Their unit.
        who: The contestant; `FLOOR` is what the others of the group are compared with.
        rounds: The figures.
    """

    group: str
    metric: str
    unit: str
    who: str
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


class Figures:
    """Collects figures, and gives them as series in the order in which they were first seen."""

    def __init__(self) -> None:
        self._rounds: dict[tuple[str, str, str, str], list[float]] = {}

    def add(self, group: str, metric: str, unit: str, who: str, value: float) -> None:
        self._rounds.setdefault((group, metric, unit, who), []).append(value)

    def series(self) -> list[Series]:
        return [Series(*what, tuple(rounds)) for what, rounds in self._rounds.items()]


def in_turn(contestants: Sequence[T], round_number: int) -> list[T]:
    """Return the contestants in the order of this round: whoever was first is last in the next one."""
    first = round_number % len(contestants)
    return [*contestants[first:], *contestants[:first]]


def progress(rounds: int, what: str) -> Iterable[int]:
    """Yield the numbers of the rounds, with a progress bar on a terminal and a line elsewhere."""
    if not STDERR.is_terminal:
        STDERR.print(f"{what}: {rounds} rounds")
    return track(range(rounds), description=what, console=STDERR, disable=not STDERR.is_terminal, transient=True)


def timed_ms(action: Callable[[], object]) -> float:
    """Return how long `action` takes, in milliseconds."""
    start = time.perf_counter()
    action()
    return 1e3 * (time.perf_counter() - start)


# --- data --------------------------------------------------------------------------------------------------------


def keys() -> list[str]:
    """Return the POs of the CSV."""
    return [f"PO{15_200_000 + number}" for number in range(PO_COUNT)]


def write_csv(path: Path) -> None:
    """Write a CSV in the shape of data/sample/input.csv."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=";", lineterminator="\r\n")
        writer.writerow(HEADER)
        writer.writerows(
            [key, "PENDING", *[""] * 8, "3", "Tail", "Services; external", '12" Pipe & Valve Ltd'] for key in keys()
        )


def emit(job: EventCsv, key: str, number: int) -> None:
    """Record a typical result, whose counts tell it from every other."""
    job.emit_result(
        key,
        "COMPLETED",
        supplier=SUPPLIER,
        attachments_found=number,
        attachments_downloaded=number,
        attachment_names=NAMES,
        download_folder=FOLDER,
    )


def settle(directory: Path) -> None:
    """Flush what the preparation wrote, so that nobody is charged for it."""
    for path in (path for path in directory.rglob("*") if path.is_file()):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Fixture:
    """A CSV that was compacted once, and a log with events that are not in it yet.

    Attributes:
        csv_path: The CSV.
        log_dir: Its log.
        content: What the CSV holds before a measurement.
        checkpoint: What the checkpoint holds before a measurement.
    """

    csv_path: Path
    log_dir: Path
    content: bytes
    checkpoint: bytes

    @classmethod
    def made(cls, directory: Path, event_count: int) -> Self:
        directory.mkdir()
        csv_path = directory / "input.csv"
        write_csv(csv_path)
        with EventCsv(csv_path, durability="process") as job:
            job.compact()
            known = keys()
            for number in range(event_count):
                emit(job, known[number % PO_COUNT], number)
            log_dir = Path(job.log_dir)
        settle(directory)
        return cls(csv_path, log_dir, csv_path.read_bytes(), (log_dir / "checkpoint.json").read_bytes())

    def reset(self) -> None:
        """Undo a compaction. It never touches the log's segments, so these two files are all."""
        self.csv_path.write_bytes(self.content)
        (self.log_dir / "checkpoint.json").write_bytes(self.checkpoint)
        settle(self.csv_path.parent)


# --- emit_result() -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """What one writer process is to do in one round.

    Attributes:
        who: The contestant.
        job: The EventCsv; pickled on the way, so that every process has its own copy.
        durability: What an acknowledged result has to survive.
        line: A line as eventcsv writes it, for the floor.
        keys: The POs of this process.
        first: The number of its first result; no two results of a round have the same.
        duration_s: How long to go on, in seconds.
    """

    who: str
    job: EventCsv
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
def open_eventcsv(task: Task) -> Iterator[Operation]:
    """Call emit_result() on this process's own EventCsv."""
    with task.job as job:
        yield partial(emit, job)


@contextlib.contextmanager
def open_floor(task: Task) -> Iterator[Operation]:
    """Append the same bytes to the same kind of file, without a lock, a check or a thought."""
    fd, line = os.open(f"{task.job.csv_path}.floor", os.O_WRONLY | os.O_APPEND | os.O_CREAT), task.line

    def write_and_sync(_key: str, _number: int) -> None:
        os.write(fd, line)
        STORAGE.datasync(fd)

    yield write_and_sync if task.durability == "disk" else lambda _key, _number: os.write(fd, line)
    os.close(fd)


@contextlib.contextmanager
def open_sqlite(task: Task) -> Iterator[Operation]:
    """Update one row in a transaction of its own, on a connection that stays open.

    The counts make every update differ: SQLite skips the commit of one that changes nothing.
    """
    database = sqlite3.connect(f"{task.job.csv_path}.sqlite", timeout=BARRIER_TIMEOUT_S, isolation_level=None)
    database.execute(f"PRAGMA synchronous={'FULL' if task.durability == 'disk' else 'NORMAL'}")
    database.execute(f"PRAGMA fullfsync={int(task.durability == 'disk')}")  # matters on macOS only
    columns = ("STATUS", "SUPPLIER", "ATTACHMENTS_FOUND", "ATTACHMENTS_DOWNLOADED", "AttachmentName", "LAST_PROCESSED")
    update = f"UPDATE po SET {'=?,'.join(columns)}=?,DOWNLOAD_FOLDER=? WHERE PO_NUMBER=?"
    names = ";".join(NAMES)

    def operation(key: str, number: int) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        database.execute(update, ("COMPLETED", SUPPLIER, number, number, names, now, FOLDER, key))

    yield operation
    database.close()


def make_sqlite(job: EventCsv) -> None:
    """Load the CSV into a table."""
    with contextlib.closing(sqlite3.connect(f"{job.csv_path}.sqlite")) as database, database:
        database.execute("PRAGMA journal_mode=WAL")
        columns = ",".join(f'"{name}" TEXT' for name in HEADER[1:])
        database.execute(f"CREATE TABLE po (PO_NUMBER TEXT PRIMARY KEY,{columns}) WITHOUT ROWID")
        with open(job.csv_path, encoding="utf-8-sig", newline="") as file:
            rows = islice(csv.reader(file, delimiter=";"), 1, None)
            database.executemany(f"INSERT INTO po VALUES ({','.join('?' * len(HEADER))})", rows)


OPENERS: Final = {"eventcsv": open_eventcsv, SQLITE: open_sqlite, FLOOR: open_floor}


def appended(task: Task, barrier: Barrier) -> Appended:
    """Append for as long as the task says, after all processes have opened their files and made some appends."""
    latencies_ns = array("q")
    known, clock = task.keys, time.perf_counter_ns
    with OPENERS[task.who](task) as operation:
        for number in range(WARM_UPS):
            operation(known[number], task.first + number)
        barrier.wait(BARRIER_TIMEOUT_S)
        number, begin = task.first + WARM_UPS, clock()
        deadline = begin + int(1e9 * task.duration_s)
        while (start := clock()) < deadline:
            operation(known[number % len(known)], number)
            latencies_ns.append(clock() - start)
            number += 1
        return Appended(begin, clock(), latencies_ns)


def serve(tasks: Connection, barrier: Barrier) -> None:
    """Do one task after another; the body of a writer process."""
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
            context.Process(target=serve, args=(theirs, self._barrier), daemon=True).start()
            theirs.close()  # so that a writer that dies is an EOFError here, not a wait for ever
            self._ends.append(ours)

    def run(self, tasks: Iterable[Task]) -> list[Appended]:
        for end, task in zip(self._ends, tasks, strict=True):
            end.send(task)
        return [end.recv() for end in self._ends]

    def close(self) -> None:
        for end in self._ends:
            end.send(None)


def sample_line(directory: Path) -> bytes:
    """Return a line as eventcsv writes it."""
    fixture = Fixture.made(directory / "sample", 1)
    return next(fixture.log_dir.glob("events-*.jsonl")).read_bytes().splitlines(keepends=True)[-1]


def one_slice(
    writers: Writers, who: str, *, durability: Durability, line: bytes, directory: Path, duration_s: float
) -> list[Appended]:
    """Let one contestant append for one round, to files of its own that are gone afterwards."""
    directory.mkdir()
    write_csv(directory / "input.csv")
    job = EventCsv(directory / "input.csv", durability=durability)
    if who == SQLITE:
        make_sqlite(job)
    settle(directory)
    done = writers.run(
        Task(who, job, durability, line, keys()[number :: writers.count], (number + 1) * 10**6, duration_s)
        for number in range(writers.count)
    )
    shutil.rmtree(directory)
    return done


def measure_emit(figures: Figures, line: bytes, scale: Scale, directory: Path) -> None:
    """Measure latency and rate of results, for each number of processes and each durability."""
    pools = [Writers(count) for count in PROCESSES]
    floors: dict[Durability, str] = {"process": "os.write", "disk": "os.write, os.fdatasync"}
    for number in progress(scale.emit_rounds, "emit_result()"):
        for durability, floor in floors.items():
            for writers in pools:
                group = f'emit_result(), durability "{durability}", processes: {writers.count}; floor: {floor}'
                for who in in_turn(list(OPENERS), number):
                    done = one_slice(
                        writers,
                        who,
                        durability=durability,
                        line=line,
                        directory=directory / "emit",
                        duration_s=scale.emit_s,
                    )
                    add_emit(figures, group, who, done)
    for writers in pools:
        writers.close()


def add_emit(figures: Figures, group: str, who: str, done: list[Appended]) -> None:
    """Add the figures of all processes together."""
    latencies_ns = sorted(latency for part in done for latency in part.latencies_ns)
    last = len(latencies_ns) - 1
    elapsed_ns = max(part.end_ns for part in done) - min(part.start_ns for part in done)
    figures.add(group, "p50", "us", who, latencies_ns[last // 2] / 1e3)
    figures.add(group, "p99", "us", who, latencies_ns[last * 99 // 100] / 1e3)
    figures.add(group, "worst", "us", who, latencies_ns[last] / 1e3)  # shows who starves, which p99 hides
    figures.add(group, "rate", "events/s", who, len(latencies_ns) / elapsed_ns * 1e9)


# --- compact() and replay() --------------------------------------------------------------------------------------

FLOOR_PROCESS: Final = """
import os, sys
csv, log_dir = sys.argv[1:]
for name in os.listdir(log_dir):
    with open(os.path.join(log_dir, name), "rb") as file:
        file.read()
with open(csv, "rb") as file:
    data = file.read()
with open(csv + ".floor", "wb") as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
os.replace(csv + ".floor", csv)
"""
FLOOR_CODE: Final = compile(FLOOR_PROCESS.replace("sys.argv[1:]", "arguments"), "floor", "exec")
FLOOR_OF_FOLD: Final = "floor: read log and CSV; write, fsync, rename CSV"
COMPACT: Final = "import sys; from eventcsv import EventCsv; EventCsv(sys.argv[1]).compact()"


def floor_of_fold(fixture: Fixture) -> None:
    """Read the log and the CSV, and replace the CSV durably by the same bytes."""
    exec(FLOOR_CODE, {"arguments": [str(fixture.csv_path), str(fixture.log_dir)]})


def fold_in_python(fixture: Fixture) -> None:
    """Do the same fold with a dict and the csv module, and replace the CSV durably. No checksums, no checkpoint."""
    with fixture.csv_path.open(encoding="utf-8-sig", newline="") as file:
        names, *rows = csv.reader(file, delimiter=";")
    row_of = {row[0]: row for row in rows}
    column_of = {name: index for index, name in enumerate(names)}
    for segment in sorted(fixture.log_dir.glob("events-*.jsonl")):
        for line in segment.read_bytes().splitlines():
            event = orjson.loads(line)
            if event["kind"] == "result" and (row := row_of.get(event["key"])):
                for column, text in event["set"].items():
                    row[column_of[column]] = text
    temporary = fixture.csv_path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";", lineterminator="\r\n").writerows([names, *rows])
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(fixture.csv_path)


def replay(fixture: Fixture) -> None:
    """Rebuild the CSV from its backup and the whole log."""
    EventCsv(fixture.csv_path).replay()


def check_same_fold(fixture: Fixture) -> None:
    """Make sure that replay() and the plain Python that it is compared with end in the same bytes."""
    results = set()
    for fold in (replay, fold_in_python):
        fixture.reset()
        fold(fixture)
        results.add(fixture.csv_path.read_bytes())
    if len(results) > 1 or fixture.content in results:
        raise SystemExit("replay() and plain Python differ, so their times cannot be compared")


def run_code(code: str, fixture: Fixture) -> str:
    """Run `code` in a fresh interpreter to its end and return what it printed."""
    arguments = [sys.executable, "-c", code, str(fixture.csv_path), str(fixture.log_dir)]
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


class Resident:
    """A long-lived EventCsv that holds the table, as a live run does."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        write_csv(directory / "input.csv")
        self._directory = directory
        self._job = EventCsv(directory / "input.csv", durability="process")
        self._job.compact()
        self._emitted = 0

    def add(self, event_count: int) -> None:
        for key in keys()[:event_count]:
            self._emitted += 1
            emit(self._job, key, self._emitted)
        settle(self._directory)

    def compact(self) -> None:
        self._job.compact()


def measure_compact(figures: Figures, fixtures: dict[int, Fixture], scale: Scale, directory: Path) -> None:
    """Measure compact(), with the table resident and as a whole process."""
    residents = {count: Resident(directory / f"resident{count}") for count in COMPACT_EVENTS}
    for number in progress(scale.rounds, "compact()"):
        for count, resident in residents.items():
            fixture = fixtures[count]
            contestants: list[tuple[str, str, Callable[[], object]]] = [
                ("table resident", "eventcsv", resident.compact),
                ("table resident", FLOOR, partial(floor_of_fold, fixture)),
                ("fresh process", "eventcsv", partial(run_code, COMPACT, fixture)),
                ("fresh process", FLOOR, partial(run_code, FLOOR_PROCESS, fixture)),
            ]
            resident.add(count)
            for where, who, action in in_turn(contestants, number):
                fixture.reset()
                group = f"compact(), {PO_COUNT:,} POs, {count:,} new events, {where}; {FLOOR_OF_FOLD}"
                figures.add(group, "time", "ms", who, timed_ms(action))


def measure_replay(figures: Figures, fixtures: dict[int, Fixture], scale: Scale) -> None:
    """Measure replay() from the base, with Polars loaded."""
    contestants = [("eventcsv", replay), ("plain Python", fold_in_python), (FLOOR, floor_of_fold)]
    for count in REPLAY_EVENTS:
        check_same_fold(fixtures[count])
    for number in progress(scale.rounds, "replay()"):
        for count in REPLAY_EVENTS:
            group = f"replay(), {PO_COUNT:,} POs, {count:,} events; {FLOOR_OF_FOLD}"
            for who, action in in_turn(contestants, number):
                fixtures[count].reset()
                figures.add(group, "time", "ms", who, timed_ms(partial(action, fixtures[count])))


# --- imports and memory ------------------------------------------------------------------------------------------

FIRST_RESULT: Final = "import sys, eventcsv; eventcsv.EventCsv(sys.argv[1]).emit_result('PO15200000', 'COMPLETED')"
MANY_RESULTS: Final = f"""
import sys, eventcsv
job = eventcsv.EventCsv(sys.argv[1], durability="process")
for number in range({WORKER_EMITS}):
    job.emit_result("PO15200000", "COMPLETED", attachments_found=number)
"""
# VmHWM, because what getrusage tells on Linux includes the peak of the process that started this one.
PRINT_PEAK: Final = """
import resource, sys
try:
    with open("/proc/self/status") as file:
        print(next(int(line.split()[1]) for line in file if line.startswith("VmHWM")))
except FileNotFoundError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1))
"""


def measure_processes(figures: Figures, fixtures: dict[int, Fixture], scale: Scale) -> None:
    """Measure how long whole processes take, and the peak of their resident memory."""
    count = COMPACT_EVENTS[-1]
    contestants = [
        ("worker, first result", FIRST_RESULT, fixtures[0]),
        (f"worker, {WORKER_EMITS:,} results", MANY_RESULTS, fixtures[0]),
        (f"compact, {count:,} events", COMPACT, fixtures[count]),
        ("import eventcsv", "import eventcsv", fixtures[0]),
        ("import polars", "import polars", fixtures[0]),
        (FLOOR, "", fixtures[0]),
    ]
    group = "whole processes, imports included; floor: a bare interpreter"
    for number in progress(scale.rounds, "processes"):
        for who, code, fixture in in_turn(contestants, number):
            fixture.reset()
            figures.add(group, "time", "ms", who, timed_ms(partial(run_code, code, fixture)))
            fixture.reset()
            figures.add(group, "peak memory", "MiB", who, int(run_code(code + PRINT_PEAK, fixture)) / 1024)


# --- the report --------------------------------------------------------------------------------------------------


def machine(directory: Path) -> dict[str, str]:
    """Return what the figures depend on: the machine, the versions, the load."""
    mounts = sorted(psutil.disk_partitions(all=True), key=lambda mount: len(mount.mountpoint))
    file_system = [mount.fstype for mount in mounts if directory.resolve().is_relative_to(mount.mountpoint)][-1:]
    packages = ("eventcsv", "polars", "orjson", "portalocker")
    return {
        "CPU": f"{cpu_model()}, {psutil.cpu_count()} cores",
        "kernel": platform.platform(),
        "file system": "".join(file_system) or "unknown",
        "load before": load(),
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
        "sqlite": sqlite3.sqlite_version,
    }


def load() -> str:
    """Return the load of the last 1, 5 and 15 minutes: on a busy machine only the ratios mean something."""
    return " ".join(f"{average:.2f}" for average in os.getloadavg())


def cpu_model() -> str:
    """Return the name of the processor."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def print_table(series: list[Series]) -> None:
    """Print a block for each group, a line for each series."""
    floors = {(item.group, item.metric): item.median for item in series if item.who == FLOOR}
    for group in dict.fromkeys(item.group for item in series):
        print(f"\n{group}")
        print(f"  {'':37}{'median':>11}{'min':>11}{'max':>11}  {'unit':9}{'x floor':>9}")
        found = sorted((item for item in series if item.group == group), key=lambda item: item.metric)
        for item in found:
            figures = "".join(f"{value:>11,.1f}" for value in (item.median, min(item.rounds), max(item.rounds)))
            floor = floors.get((item.group, item.metric))
            ratio = f"{item.median / floor:9.3g}" if floor else ""
            print(f"  {item.metric:13}{item.who:24}{figures}  {item.unit:9}{ratio}")


def arguments() -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(description="Measure eventcsv next to floors and peers.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures there")
    parser.add_argument("--quick", action="store_true", help="few short rounds: half a minute, rough figures")
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write the figures."""
    options = arguments()
    scale = QUICK if options.quick else FULL
    os.environ.pop("EVENTCSV_BACKUP_DIR", None)  # what is made here goes away again
    figures = Figures()
    # Beside the work, because /tmp is often memory; the directory hides itself from git.
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=".") as name:
        directory = Path(name)
        (directory / ".gitignore").write_text("*\n")
        line = sample_line(directory)
        described = machine(directory) | {"line": f"{len(line)} bytes"}
        measure_emit(figures, line, scale, directory)
        counts = {0, *COMPACT_EVENTS, *REPLAY_EVENTS}
        fixtures = {count: Fixture.made(directory / f"fixture{count}", count) for count in sorted(counts)}
        measure_compact(figures, fixtures, scale, directory)
        measure_replay(figures, fixtures, scale)
        measure_processes(figures, fixtures, scale)
        described["load after"] = load()
    for what, text in described.items():
        print(f"{what:12} {text}")
    print_table(figures.series())
    if options.json:
        report = {"machine": described, "scale": asdict(scale), "series": [asdict(item) for item in figures.series()]}
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
