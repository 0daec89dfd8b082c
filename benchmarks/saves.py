"""A save of the CSV that is taken over, next to a replay of the same log: both read all of it.

A fresh copy has one cell changed. So has an old copy, from before the run: each of its rows differs from what it is.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fixtures import Fixture, make
from measuring import Bench, Name, in_turn, timed_s

if TYPE_CHECKING:
    from scales import Scale

FRESH: Final = "a fresh copy"
OLD: Final = "an old copy"
REPLAY: Final = "replay()"
_EVENTS_A_ROW: Final = 10


def what(scale: Scale) -> str:
    """Return the name of the measurement."""
    return f"compact() of a save, {scale.rows * _EVENTS_A_ROW:,} events, {scale.rows:,} POs"


class _Saves:
    """A job whose log was folded, and what somebody saves of it."""

    def __init__(self, fixture: Fixture) -> None:
        before = fixture.csv_path.read_bytes()
        fixture.fold()
        now = fixture.csv_path.read_bytes()
        self._fixture = fixture
        self._saved = {FRESH: _with_one_cell_changed(now), OLD: _with_one_cell_changed(before)}

    def taken_s(self, who: str) -> float:
        """Return how long it takes to take a save over, or to replay, in seconds."""
        self._fixture.reset("folded" if who in self._saved else "base")
        job = self._fixture.job()
        if who == REPLAY:
            return timed_s(job.replay)
        self._fixture.csv_path.write_bytes(self._saved[who])
        os.utime(self._fixture.csv_path, (settled := time.time() - 60, settled))
        seconds = timed_s(job.compact)
        newest = job.backups()[0]
        edit = job.progress().last_edit
        if edit is None or edit.cells != 1 or newest.edit is None:
            raise SystemExit(f"{who}: the save was not taken over as it was meant: {edit}")
        for path in (Path(newest.path), Path(newest.path).with_suffix(".json")):
            path.unlink()  # so that the next one starts from the same base
        job.close()
        return seconds


def _with_one_cell_changed(csv: bytes) -> bytes:
    return csv.replace(b";3;Tail;", b";4;Tail;", 1)


def measure(bench: Bench) -> None:
    """Measure both copies and the replay."""
    rows = bench.scale.rows
    bench.tell(f"{what(bench.scale)}: making the log")
    fixture = make(bench.directory / "saves", rows * _EVENTS_A_ROW, rows)
    saves = _Saves(fixture)
    for number in bench.rounds(bench.scale.rounds, what(bench.scale)):
        for who in in_turn([FRESH, OLD, REPLAY], number):
            bench.figures.add(Name(what(bench.scale), who), saves.taken_s(who))
    fixture.remove()
