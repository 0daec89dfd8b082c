"""replay(): the whole log, every line of it verified, folded onto its base; next to folds that verify nothing.

Each fold is a process of its own, which takes its time after its imports and tells the peak of its memory.

    python benchmarks/folding.py CONTESTANT CSV LOG
"""

from __future__ import annotations

import csv
import json
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

import peers
from fixtures import Fixture, make
from measuring import Bench, Name, in_turn, print_json, run_process
from peak import peak_mib

if TYPE_CHECKING:
    from collections.abc import Callable

    from scales import Size

OURS: Final = "eventcsv"
DUCKDB: Final = "DuckDB"
PYTHON: Final = "Python"
FLOOR: Final = "read the log, copy the CSV"
_LONGEST_FOR_PYTHON: Final = 1_000_000


def what(size: Size) -> str:
    """Return the name of one measurement."""
    return f"replay(), {size}"


def contestants(size: Size) -> list[str]:
    """Return who takes part: Python not where it would take minutes."""
    found = [OURS, DUCKDB, PYTHON, FLOOR]
    if not peers.is_installed("duckdb"):
        found.remove(DUCKDB)
    if size.events > _LONGEST_FOR_PYTHON:
        found.remove(PYTHON)
    return found


def _replay(csv_path: Path, _log_dir: Path) -> None:
    from eventcsv import EventCsv  # noqa: PLC0415  # this and the table below load what is used, and no more

    result = EventCsv(csv_path).replay()
    if result.damage or not result.changed:
        raise SystemExit("the log is not what it was made as")


def _loaded(who: str) -> Callable[[Path, Path], None]:
    if who == OURS:
        import eventcsv.view.compactor  # noqa: F401, PLC0415  # Polars with it

        return _replay
    if who == DUCKDB:
        import duckdb  # noqa: F401, PLC0415  # its import is not to be timed
    return {DUCKDB: peers.fold_in_duckdb, PYTHON: peers.fold_in_python, FLOOR: peers.copy}[who]


def folded(who: str, fixture: Fixture) -> tuple[float, float]:
    """Let one contestant fold in a fresh process; return its time in seconds and its peak memory in MiB."""
    fixture.reset()
    seconds, mib = json.loads(run_process(sys.executable, __file__, who, fixture.csv_path, fixture.log_dir))
    return seconds, mib


def _digest(path: Path) -> str:
    """Return a hash of a CSV's cells, however they are quoted."""
    found = sha256()
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.reader(file, delimiter=";"):
            found.update("\0".join([*row, "\n"]).encode())
    return found.hexdigest()


def check_alike(fixture: Fixture, size: Size) -> None:
    """Make sure that all end in the same rows before their times are compared; they quote differently."""
    folded(OURS, fixture)
    cells = _digest(fixture.csv_path)
    for who in set(contestants(size)) - {OURS, FLOOR}:
        folded(who, fixture)
        if _digest(fixture.csv_path) != cells:
            raise SystemExit(f"eventcsv and {who} end in different rows, so their times cannot be compared")


def measure(bench: Bench) -> None:
    """Measure every size with every contestant."""
    for size in bench.scale.replays:
        bench.tell(f"{what(size)}: making the log")
        fixture = make(bench.directory / "replay", size.events, size.rows)
        check_alike(fixture, size)
        for number in bench.rounds(size.rounds, what(size)):
            for who in in_turn(contestants(size), number):
                seconds, mib = folded(who, fixture)
                bench.figures.add(Name(what(size), who), seconds)
                bench.figures.add(Name(what(size), who, "peak memory"), mib, "MiB")
        fixture.remove()


def main() -> None:
    """Fold once, in this process."""
    who, csv_path, log_dir = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    fold = _loaded(who)
    start = time.perf_counter()
    fold(csv_path, log_dir)
    print_json([time.perf_counter() - start, peak_mib()])


if __name__ == "__main__":
    main()
