"""Fails when eventcsv has become much slower than it was, in half a minute and by ratios alone.

    python benchmarks/check.py

Each ratio is to something that eventcsv does not influence, measured in turns within the same second. Noise only ever
makes things slower, so the best round of each side counts, and what misses its limit is measured again before it fails.
Where nobody waits for a disk it is the processor's time that is compared, which a busy machine hardly changes.
The limits lie well above what is usual: they catch a mistake, not a percent.
"""

from __future__ import annotations

import gc
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import live
import machine
import peers
from fixtures import Fixture, emit, keys, lines, make
from measuring import in_turn, run_code, timed_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from eventcsv.log.file_log import Durability

    Clock = Callable[[], float]

_ATTEMPTS: Final = 4
_ROWS: Final = 10_000
_EVENTS: Final = 50_000
_FIRST_RESULT: Final = "import sys, eventcsv; eventcsv.EventCsv(sys.argv[1]).emit_result('PO15200000', 'COMPLETED')"


@dataclass(frozen=True, slots=True)
class Check:
    """A ratio with a limit.

    Attributes:
        what: What is compared with what.
        limit: What the ratio may be at most.
        rounds: How often each side is measured before they are compared.
        ours: Does it with eventcsv and returns how long that took, in seconds.
        theirs: Does what it is compared with.
    """

    what: str
    limit: float
    rounds: int
    ours: Callable[[], float]
    theirs: Callable[[], float]

    def ratio(self) -> float:
        """Return the ratio of the best rounds of both sides."""
        best: dict[Callable[[], float], float] = {}
        for number in range(self.rounds):
            for side in in_turn([self.ours, self.theirs], number):
                best[side] = min(side(), best.get(side, float("inf")))
        return best[self.ours] / best[self.theirs]

    def holds(self) -> bool:
        """Measure until the limit is kept, or the attempts are used up."""
        for attempt in range(1, _ATTEMPTS + 1):
            ratio = self.ratio()
            kept = ratio <= self.limit
            verdict = "ok" if kept else "TOO SLOW" if attempt == _ATTEMPTS else "once more"
            print(f"{self.what:<80} {ratio:6.2f}x, at most {self.limit:g}x: {verdict}", flush=True)
            if kept:
                return True
        return False


def _emits_s(fixture: Fixture, durability: Durability, count: int, clock: Clock) -> float:
    from eventcsv import EventCsv  # noqa: PLC0415  # beside what it measures

    known = keys(_ROWS)
    with EventCsv(fixture.csv_path, durability=durability) as job:
        emit(job, known[0], 0)
        start = clock()
        for number in range(1, count):
            emit(job, known[number], number)
        return clock() - start


def _calls_s(operation: AbstractContextManager[peers.Operation], count: int, clock: Clock) -> float:
    with operation as call:
        start = clock()
        for number in range(1, count):
            call("", number)
        return clock() - start


def _folded_s(fixture: Fixture, fold: Callable[[], object]) -> float:
    fixture.reset()
    gc.collect()
    start = time.process_time()
    fold()
    return time.process_time() - start


def checks(directory: Path) -> Iterator[Check]:
    """Yield the checks, each made ready when its turn comes."""
    short = make(directory / "short", 0, _ROWS)
    line = next(lines(1, _ROWS))
    yield Check(
        'emit_result(), durability "process", against flock, fstat, write and unlock alone',
        4,
        7,
        lambda: _emits_s(short, "process", 2_000, time.process_time),
        lambda: _calls_s(peers.system_calls(short.csv_path, line), 2_000, time.process_time),
    )
    yield Check(
        'emit_result(), durability "disk", against write + fdatasync',
        2,
        7,
        lambda: _emits_s(short, "disk", 300, time.perf_counter),
        lambda: _calls_s(peers.write(short.csv_path, line, sync=True), 300, time.perf_counter),
    )
    yield Check(
        "a worker's import and first result against `import polars`",
        0.8,
        5,
        lambda: timed_s(partial(run_code, _FIRST_RESULT, short.csv_path)),
        lambda: timed_s(partial(run_code, "import polars")),
    )
    found = live.contest(directory, _ROWS, 100)

    def compacted_s(who: str) -> float:
        found[who].add(100)
        return timed_s(found[who].compact)

    yield Check(
        "compact() of 100 new events onto 10,000 POs against its reads, writes and syncs",
        20,
        15,
        lambda: compacted_s(live.OURS),
        lambda: compacted_s(live.FLOOR),
    )
    log = make(directory / "log", _EVENTS, _ROWS)
    yield Check(
        f"replay() of {_EVENTS:,} events against plain Python that verifies nothing",
        3.5,
        4,
        lambda: _folded_s(log, log.job().replay),
        lambda: _folded_s(log, lambda: peers.fold_in_python(log.csv_path, log.log_dir)),
    )


def main() -> None:
    """Measure every ratio; exit 1 when one of them is over its limit."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    machine.forget_settings()
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=".") as name:
        (Path(name) / ".gitignore").write_text("*\n")
        kept = [check.holds() for check in checks(Path(name).resolve())]
    if not all(kept):
        raise SystemExit("eventcsv has become slower than it was. Profile it: make bench tells more")


if __name__ == "__main__":
    main()
