"""A whole run: `eventcsv run` over every PO, from the command to its end, next to a pool that has no safety at all."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING, Final

from fixtures import write_csv
from measuring import HERE, Bench, Name, command, in_turn, run_process, settle, timed_s

if TYPE_CHECKING:
    from pathlib import Path

WHAT: Final = "a whole run, no work per PO"
OURS: Final = "eventcsv run"
POOL: Final = "multiprocessing.Pool, CSV at the end"


def measure(bench: Bench) -> None:
    """Measure whole runs, and look at whether everything is there afterwards."""
    scale = bench.scale
    for number in bench.rounds(scale.run_rounds, WHAT):
        for who in in_turn([OURS, POOL], number):
            directory = bench.folder(f"run{number}{who[:5]}")
            path = directory / "input.csv"
            write_csv(path, scale.rows)
            settle(directory)
            lines: dict[str, list[str | Path]] = {
                OURS: command("run", path, "work:nothing", "--workers", str(scale.workers)),
                POOL: [sys.executable, HERE / "work.py", path, str(scale.workers)],
            }
            bench.figures.add(Name(WHAT, who), timed_s(lambda: run_process(*lines[who])))  # noqa: B023  # called at once
            _check_complete(path, who, scale.rows)
            bench.figures.add(Name(WHAT, who, "POs"), scale.rows / bench.figures.rounds[Name(WHAT, who)][-1], "/s")


def _check_complete(path: Path, who: str, rows: int) -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        done = sum(row["STATUS"] == "COMPLETED" for row in csv.DictReader(file, delimiter=";"))
    segments = sorted(path.with_suffix(".events").glob("events-*.jsonl"))
    results = sum(segment.read_bytes().count(b'"kind":"result"') for segment in segments)
    if done != rows or (who == OURS and results != rows):
        raise SystemExit(f"{who}: {done} of {rows} POs are done in the CSV, {results} results are in the log")
