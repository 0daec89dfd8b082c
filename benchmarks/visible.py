"""From acknowledged to visible: how long a result that is durable takes to show in the CSV, and what that costs.

Workers record at a steady pace under a session, whose compactions are all that the process in the middle does, so that
its processor time is theirs. An observer of its own looks at the CSV all the time and notes when a PO first shows as
done.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from fixtures import emit, keys, write_csv
from measuring import Bench, Name, settle

from eventcsv import EventCsv

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

WHAT: Final = "from acknowledged to visible"
WHO: Final = "eventcsv"
_LOOK_S: Final = 0.002
_TIMEOUT_S: Final = 60.0


def _work(path: Path, share: list[str], duration_s: float, barrier: Barrier, done: Connection) -> None:
    """Record the results of some POs at a steady pace and tell when each was acknowledged."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    acknowledged_ns: dict[str, int] = {}
    with EventCsv(path) as job:
        barrier.wait(_TIMEOUT_S)
        begin = time.monotonic()
        for number, key in enumerate(share):
            time.sleep(max(0.0, begin + duration_s * number / len(share) - time.monotonic()))
            emit(job, key, number)
            acknowledged_ns[key] = time.monotonic_ns()
    done.send(acknowledged_ns)


def _observe(path: Path, count: int, barrier: Barrier, done: Connection) -> None:
    """Tell when each PO was first seen to be done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    seen_ns: dict[str, int] = {}
    last: tuple[int, int] | None = None
    barrier.wait(_TIMEOUT_S)
    deadline = time.monotonic() + _TIMEOUT_S
    while len(seen_ns) < count and time.monotonic() < deadline:
        status, now_ns = path.stat(), time.monotonic_ns()
        if last != (status.st_ino, status.st_mtime_ns):
            last = (status.st_ino, status.st_mtime_ns)
            for line in path.read_bytes().splitlines():
                key, _, rest = line.partition(b";")
                if rest.startswith(b"COMPLETED;"):
                    seen_ns.setdefault(key.decode(), now_ns)
        time.sleep(_LOOK_S)
    done.send(seen_ns)


def measure(bench: Bench) -> None:
    """Watch some runs."""
    scale = bench.scale
    for number in bench.rounds(scale.visible_rounds, WHAT):
        directory = bench.folder(f"visible{number}")
        path = directory / "input.csv"
        write_csv(path, scale.rows)
        settle(directory)
        latencies_s, share = _watched(path, scale.rows, scale.workers, scale.visible_s)
        last = len(latencies_s) - 1
        for metric, place in (("p50", last // 2), ("p99", last * 99 // 100), ("worst", last)):
            bench.figures.add(Name(WHAT, WHO, metric), latencies_s[place])
        bench.figures.add(Name(WHAT, WHO, "share of a core"), 100 * share, "%")


def _watched(path: Path, rows: int, workers: int, duration_s: float) -> tuple[list[float], float]:
    """Return, of one run, the sorted latencies in seconds and the share of a core that the session took."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers + 2)
    ends: list[Connection] = []

    def start(target: object, *args: object) -> None:
        ours, theirs = context.Pipe()
        context.Process(target=target, args=(path, *args, barrier, theirs), daemon=True).start()  # type: ignore[arg-type]
        theirs.close()
        ends.append(ours)

    with EventCsv(path).session():
        start(_observe, rows)
        for number in range(workers):
            start(_work, keys(rows)[number::workers], duration_s)
        barrier.wait(_TIMEOUT_S)
        clock, processor = time.monotonic(), time.process_time()
        seen_ns, *acknowledged = [_received(end) for end in ends]
        share = (time.process_time() - processor) / (time.monotonic() - clock)
    known = {key: moment for part in acknowledged for key, moment in part.items()}
    if known.keys() != seen_ns.keys() or len(known) != rows:
        raise SystemExit(f"{len(known)} of {rows} POs were recorded, {len(seen_ns)} were seen in the CSV")
    return sorted(max(0, seen_ns[key] - moment) / 1e9 for key, moment in known.items()), share


def _received(end: Connection) -> dict[str, int]:
    with contextlib.suppress(EOFError):
        found: dict[str, int] = end.recv()
        return found
    raise SystemExit(f"process {os.getpid()}: a process that it started has died")
