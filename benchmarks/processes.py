"""Whole processes, from start to exit: what a worker, a resume and a single compaction cost with their imports."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from fixtures import append_raw, last_segment, lines, make
from measuring import Bench, Name, command, in_turn, run_code, run_process, timed_s

if TYPE_CHECKING:
    from fixtures import Fixture

WORKER: Final = "a worker's import and first result"
WORKER_MEMORY: Final = "a worker's memory"
RESUME: Final = "resume"
COMPACT: Final = "a single compaction"
COMMANDS: Final = "commands, from start to exit"
OURS: Final = "eventcsv"
POLARS: Final = "import polars"
BARE: Final = "a bare interpreter"
OVER_BARE: Final = "over a bare interpreter"
STATUS: Final = "eventcsv status"
PENDING: Final = "eventcsv pending"
EMIT: Final = "eventcsv emit"
HELP: Final = "eventcsv --help"
VERSION: Final = "eventcsv --version"
TYPER: Final = "import typer"
COMMAND: Final = "eventcsv compact"
METHOD: Final = "EventCsv.compact()"

_FEW_ROWS: Final = 446
_FIRST_RESULT: Final = "import sys, eventcsv; eventcsv.EventCsv(sys.argv[1]).emit_result('PO15200000', 'COMPLETED')"
_MANY_RESULTS: Final = """
import sys, eventcsv
job = eventcsv.EventCsv(sys.argv[1], durability="process")
for number in range(1_000):
    job.emit_result("PO15200000", "COMPLETED", attachments_found=number)
"""
_COMPACT: Final = "import sys; from eventcsv import EventCsv; EventCsv(sys.argv[1]).compact()"
_PRINT_PEAK: Final = "\nfrom peak import peak_mib; print(peak_mib())"


def measure_worker(bench: Bench) -> None:
    """Measure what every worker process pays once."""
    fixture = make(bench.directory / "worker", 0, bench.scale.rows)
    times = [(OURS, _FIRST_RESULT), (POLARS, "import polars"), (BARE, "")]
    for number in bench.rounds(bench.scale.rounds, WORKER):
        for who, code in in_turn(times, number):
            fixture.reset()
            bench.figures.add(Name(WORKER, who), timed_s(partial(run_code, code, fixture.csv_path)))
        peaks = {
            who: float(run_code(code + _PRINT_PEAK, fixture.csv_path))
            for who, code in in_turn([(OURS, _MANY_RESULTS), (POLARS, "import polars"), (BARE, "")], number)
        }
        for who, mib in peaks.items():
            bench.figures.add(Name(WORKER_MEMORY, who, "peak memory"), mib, "MiB")
        bench.figures.add(Name(WORKER_MEMORY, OVER_BARE, "peak memory"), peaks[OURS] - peaks[BARE], "MiB")
    fixture.remove()


def resume_s(fixture: Fixture, name: str) -> float:
    """Return how long `eventcsv status` or another reading command takes, in seconds."""
    return timed_s(lambda: run_process(*command(name, fixture.csv_path)))


def measure_resume(bench: Bench) -> None:
    """Measure the commands that a resume begins with, over a long log with a valid checkpoint."""
    size = bench.scale.long_log
    bench.tell(f"{RESUME}: making the log")
    fixture = make(bench.directory / "resume", size.events, size.rows)
    fixture.fold()
    for number in bench.rounds(size.rounds, RESUME):
        for who in in_turn([STATUS, PENDING, POLARS], number):
            took_s = timed_s(lambda: run_code("import polars")) if who == POLARS else resume_s(fixture, who.split()[1])
            bench.figures.add(Name(RESUME, who), took_s)
    fixture.remove()


def measure_commands(bench: Bench) -> None:
    """Measure what it takes to start, of a job as it is today: 446 POs."""
    fixture = make(bench.directory / "commands", 0, _FEW_ROWS)
    job = fixture.csv_path
    contestants = {
        EMIT: partial(run_process, *command("emit", job, "PO15200000", "COMPLETED")),
        WORKER: partial(run_code, _FIRST_RESULT, job),
        STATUS: partial(run_process, *command("status", job)),
        POLARS: partial(run_code, "import polars"),
        HELP: partial(run_process, *command("--help")),
        VERSION: partial(run_process, *command("--version")),
        TYPER: partial(run_code, "import typer"),
    }
    for number in bench.rounds(bench.scale.rounds, COMMANDS):
        for who in in_turn(list(contestants), number):
            bench.figures.add(Name(COMMANDS, who), timed_s(contestants[who]))
    fixture.remove()


def measure_compact(bench: Bench) -> None:
    """Measure one compaction as a process of its own."""
    scale = bench.scale
    fixture = make(bench.directory / "single", 0, scale.rows)
    contestants = {
        COMMAND: partial(run_process, *command("compact", fixture.csv_path)),
        METHOD: partial(run_code, _COMPACT, fixture.csv_path),
        POLARS: partial(run_code, "import polars"),
        BARE: partial(run_code, ""),
    }
    for number in bench.rounds(scale.rounds, COMPACT):
        for who in in_turn(list(contestants), number):
            fixture.reset()
            append_raw(last_segment(fixture.log_dir), lines(scale.new_events, scale.rows))
            bench.figures.add(Name(COMPACT, who), timed_s(contestants[who]))
    fixture.remove()
