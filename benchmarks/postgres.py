"""Measures the log on a PostgreSQL server here: appends, replay, freshness, claims, and how it grows with hosts.

    python benchmarks/postgres.py [--quick]

It starts a server of its own, with fsync on, and removes it. A host is a process with a connection of its own; server
and hosts share this machine's cores, so the growth shows where a server of this size ends, not where a larger one does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))  # the servers of the tests

from servers import PgServer  # type: ignore[import-not-found,unused-ignore]

from eventcsv import EventCsv
from eventcsv.event import Event, Kind
from eventcsv.log.file_log import FileLog
from eventcsv.log.line import encode
from eventcsv.log.postgres.admin import init
from eventcsv.log.postgres.log import PgLog
from eventcsv.log.types import Position

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.synchronize import Barrier

    Body = Callable[[str, str, int, float], list[float]]

CLIENTS: Final = (1, 8, 32)
HOSTS: Final = (1, 2, 4, 8, 16, 32, 64)
TS: Final = "2025-10-02T12:43:11.123456Z"
CELLS: Final = {
    "STATUS": "COMPLETED",
    "ATTACHMENTS_FOUND": "2",
    "ATTACHMENTS_DOWNLOADED": "2",
    "AttachmentName": "order.pdf;terms.pdf",
    "LAST_PROCESSED": "2025-10-02T12:43:11Z",
    "ERROR_MESSAGE": "",
    "DOWNLOAD_FOLDER": "downloads/supplier/PO15262984",
}


def log_of(url: str, job: str) -> PgLog:
    """Return a log, begun."""
    log = PgLog(url, job=job, directory="", key_column="PO_NUMBER")
    log.make()
    return log


def appending(url: str, job: str, number: int, seconds: float) -> list[float]:
    """Append for so long; return how long each append took, in seconds."""
    log = log_of(url, job)
    took: list[float] = []
    end = time.perf_counter() + seconds
    while (clock := time.perf_counter()) < end:
        log.append(log.new_event(Kind.RESULT, f"PO{number}{len(took)}", CELLS, TS))
        took.append(time.perf_counter() - clock)
    return took


def claiming(url: str, job: str, number: int, seconds: float) -> list[float]:
    """Claim, take up and finish POs for so long, as a host does; return how long each PO took, in seconds."""
    facade = EventCsv(f"{job}.csv", log=url, job=job)
    facade.leave_csv()
    claims = facade.log.claims(owner=f"host {number}", lease_s=30, seen=Position(1, 0))
    if claims is None:
        raise TypeError("a log on a server has claims")
    took: list[float] = []
    end = time.perf_counter() + seconds
    while (clock := time.perf_counter()) < end:
        key = f"PO{number}-{len(took)}"
        token = claims.claim(key)
        facade.hold(key, token if isinstance(token, int) else None)
        facade.emit_started(key)
        facade.emit_result(key, "COMPLETED")
        facade.hold(key, None)
        claims.forget(key)
        took.append(time.perf_counter() - clock)
    claims.close()
    return took


def _in_process(
    body: Body, arguments: tuple[str, str, int, float], barrier: Barrier, results: multiprocessing.Queue[list[float]]
) -> None:
    barrier.wait()
    results.put(body(*arguments))


def together(body: Body, url: str, job: str, count: int, seconds: float) -> list[float]:
    """Run `body` in so many processes at once; return what all of them return."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.Queue()
    processes = [
        context.Process(target=_in_process, args=(body, (url, job, number, seconds), barrier, results))
        for number in range(count)
    ]
    for process in processes:
        process.start()
    took = [item for _ in processes for item in results.get()]
    for process in processes:
        process.join()
    return took


def shown(took: list[float], seconds: float) -> str:
    """Return rate and latencies, in words."""
    cuts = statistics.quantiles(took, n=100)
    return f"{len(took) / seconds:8,.0f} /s   p50 {cuts[49] * 1e3:7.2f} ms   p99 {cuts[98] * 1e3:7.2f} ms"


def filled(url: str, count: int) -> tuple[PgLog, int]:
    """Return a log of so many events, and its size in bytes."""
    log = log_of(url, f"replay {count}")
    at = log.end().position.offset_bytes
    rows: list[tuple[int, str | None, bytes]] = []
    start = at
    for number in range(count):
        event = Event(f"bench-00-{number}", TS, "result", f"PO{number % 10_000}", {**CELLS, "n": str(number)})
        line = encode(event)
        at += len(line)
        rows.append((at, event.id, line))
        if len(rows) == 5_000 or number == count - 1:
            log.store(1, start, rows)
            rows, start = [], at
    return log, at


def measure_replay(url: str, folder: Path, count: int) -> None:
    """Read and replay a log of so many events, from the server and from files."""
    log, size_bytes = filled(url, count)
    files = FileLog(str(folder / "files.events"), key_column="PO_NUMBER")
    from eventcsv.log.copy import copy_log  # noqa: PLC0415  # only here

    copy_log(log, files)
    path = folder / "input.csv"
    base = "PO_NUMBER;STATUS\n" + "".join(f"PO{number};\n" for number in range(10_000))
    for name, reader in (("server", log), ("files", files)):
        clock = time.perf_counter()
        lines = sum(len(chunk.raw) for chunk in reader.read(reader.first(), reader.end().position))
        took = time.perf_counter() - clock
        print(f"read {count:,} events from {name:7} {lines / 1e6:6.0f} MB in {took:6.2f} s")
    for name, place in (("server", url), ("files", str(folder / "files.events"))):
        path.write_text(base)
        shutil.rmtree(folder / "backup", ignore_errors=True)
        clock = time.perf_counter()
        done = EventCsv(path, log=place, job=f"replay {count}").compact()
        took = time.perf_counter() - clock
        print(f"fold {done.events:,} events from {name:7} {size_bytes / 1e6:6.0f} MB in {took:6.2f} s")


def measure_freshness(url: str, folder: Path, seconds: float) -> None:
    """Measure from an acknowledged result to its being in the CSV of a session."""
    path = folder / "fresh.csv"
    path.write_text("PO_NUMBER;STATUS\n" + "".join(f"PO{number};\n" for number in range(10_000)))
    job = EventCsv(path, log=url, job="fresh")
    took = []
    with job.session():
        end = time.perf_counter() + seconds
        number = 0
        while time.perf_counter() < end:
            job.emit_result(f"PO{number}", f"SEEN_{number}")
            clock = time.perf_counter()
            while f"SEEN_{number};".encode() not in path.read_bytes().replace(b"\n", b";"):
                time.sleep(0.005)
            took.append(time.perf_counter() - clock)
            number += 1
            time.sleep(0.13)
    print(f"from acknowledged to visible: median {statistics.median(took):.2f} s, longest {max(took):.2f} s")


def main() -> None:
    """Measure everything, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="rough figures in half a minute")
    quick = parser.parse_args().quick
    seconds = 1.0 if quick else 5.0
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir="."))
    server = PgServer()
    try:
        server.create().restart({"max_connections": 200})
        init(server.url)
        for count in CLIENTS:
            took = together(appending, server.url, f"one job {count}", count, seconds)
            print(f"append, {count:2} clients, one job  {shown(took, seconds)}")
        for count in HOSTS[::2] if quick else HOSTS:
            took = together(claiming, server.url, log_of(server.url, f"claims {count}").job, count, seconds)
            print(f"claim, started, result, {count:2} hosts {shown(took, seconds)}")
        measure_freshness(server.url, folder, seconds)
        measure_replay(server.url, folder, 50_000 if quick else 1_000_000)
    finally:
        server.remove()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
