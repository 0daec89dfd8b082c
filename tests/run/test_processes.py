"""The promise with real processes: workers, a compactor and kill -9, all at once."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from command_line import python
from conftest import lines_of, read_csv, replays_to_itself, statuses, wait_until
from faults import with_storage

from eventcsv import EventCsv
from eventcsv.log.line import decode
from eventcsv.storage.files import Storage

if TYPE_CHECKING:
    from pathlib import Path

SPAWN = multiprocessing.get_context("spawn")


def emit_share(job: EventCsv, keys: list[str]) -> None:
    """Record a result for each PO."""
    for key in keys:
        job.emit_result(
            key, "COMPLETED", attachments_found=1, attachments_downloaded=1, attachment_names=[f"{key}.pdf"]
        )


def test_eight_workers_and_a_compactor(tmp_path: Path) -> None:
    """10,000 results of 8 processes, folded while they come: each is in the log once, and in the CSV."""
    keys = [f"PO{number:05d}" for number in range(10_000)]
    path = tmp_path / "input.csv"
    path.write_text("PO_NUMBER;STATUS\n" + "".join(f"{key};PENDING\n" for key in keys))
    job = EventCsv(path, durability="process")
    workers = [SPAWN.Process(target=emit_share, args=(job, keys[number::8])) for number in range(8)]
    for worker in workers:
        worker.start()
    compactions = folded = 0
    while any(worker.is_alive() for worker in workers):
        result = job.compact()
        assert () == result.damage
        compactions += result.changed
        folded += result.events
        time.sleep(0.05)
    assert [0] * 8 == [worker.exitcode for worker in workers]
    folded += job.compact().events
    events = [decode(line) for line in lines_of(job)]
    assert keys == sorted(event.key for event in events)
    assert 10_000 == len({event.id for event in events}) == folded
    assert {"COMPLETED": 10_000} == Counter(row["STATUS"] for row in read_csv(path))
    assert [f"{key}.pdf" for key in keys] == [row["AttachmentName"] for row in read_csv(path)]
    assert compactions > 1
    assert replays_to_itself(path)


def emit_for_ever(job: EventCsv, number: int, acknowledged: str) -> None:
    """Record result after result, and note each one once it is acknowledged."""
    rng = random.Random(number)
    fd = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        size = rng.choice((10, 400, 5_000, 300_000))
        event = job.emit_result("PO1", "ERROR", columns={"text": "x" * size, "writer": number})
        os.write(fd, f"{event.id}\n".encode())


def test_kill_9_in_mid_append_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Workers are killed at random moments, others go on: what was acknowledged is there, and lines were torn."""
    path = tmp_path / "input.csv"
    path.write_text("PO_NUMBER;STATUS\nPO1;\n")
    job = EventCsv(path, durability="process")
    rng = random.Random(20251002)
    torn = kills = 0
    survivor = EventCsv(path, durability="process")
    survivor.emit_result("PO1", "COMPLETED")
    while (torn < 3 or kills < 40) and kills < 400:
        pid = os.fork()
        acknowledged_file = tmp_path / f"acknowledged-{kills}"
        if pid == 0:
            emit_for_ever(job, kills, str(acknowledged_file))
        # The first append of a fork of so large a process may take longer than all the others together.
        wait_until(lambda file=acknowledged_file: file.exists() and file.stat().st_size, "the first result")  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.01))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kills += 1
        torn += job.log.end().torn is not None
        survivor.emit_result("PO1", "COMPLETED")
    acknowledged = {ident for file in tmp_path.glob("acknowledged-*") for ident in file.read_text().split()}
    written = {event.id for event in job.history("PO1")}
    assert acknowledged <= written
    assert len(written) <= len(acknowledged) + 2 * kills  # a kill may fall between the line and its note
    result = job.compact()
    assert ((), torn) == (result.damage, len(result.torn))
    assert torn > 0
    assert {"COMPLETED": 1} == result.by_status


LIGHT = """
import sys
import eventcsv
job = eventcsv.EventCsv(sys.argv[1])
job.emit_result("PO1", "COMPLETED")
eventcsv.emit_result("PO2", eventcsv.Status.PARTIAL, csv=sys.argv[1])
print(sorted({name.partition(".")[0] for name in sys.modules} & {"polars", "typer", "rich", "structlog", "tenacity"}))
"""


def test_the_worker_side_loads_nothing_heavy(csv_path: Path) -> None:
    """Importing eventcsv and recording results loads neither Polars nor what only the command line needs."""
    assert "[]\n" == python(LIGHT, csv_path).stdout


def test_emit_result_finds_its_csv_in_the_environment(csv_path: Path) -> None:
    """A worker that was told nothing uses EVENTCSV_CSV, and without that gets an error that names both ways."""
    code = "import eventcsv; eventcsv.emit_result('PO1', 'COMPLETED')"
    assert 0 == python(code, EVENTCSV_CSV=str(csv_path)).returncode
    assert {"COMPLETED": 1, "": 2} == dict(EventCsv(csv_path).compact().by_status)
    assert "csv=..., or set EVENTCSV_CSV" in python(code, EVENTCSV_CSV="").stderr


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_every_start_method_works(job: EventCsv, method: str) -> None:
    """A job can be handed to processes of any kind."""
    context = multiprocessing.get_context(method)
    workers = [context.Process(target=emit_share, args=(job, ["PO1", "PO2", "PO3"])) for _ in range(2)]  # type: ignore[attr-defined]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [0, 0] == [worker.exitcode for worker in workers]
    assert 6 == job.compact().events


def test_a_segment_that_is_finished_at_this_moment_ends_in_no_event(job: EventCsv, csv_path: Path) -> None:
    """A session begins a segment just after a compaction listed them: the old one's seal is not taken for a line."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    other = EventCsv(csv_path, durability="process")

    class Overtaken(Storage):
        armed = True

        def names(self, path: str) -> list[str]:
            found = super().names(path)
            if self.armed and sys._getframe(2).f_code.co_name == "end":
                self.armed = False
                other.new_segment()
            return found

    storage = Overtaken()
    with_storage(job, storage)
    job.emit_result("PO2", "COMPLETED")
    result = job.compact()
    assert not storage.armed
    assert ((), None) == (result.damage, result.rebuilt)
    job.emit_result("PO3", "COMPLETED")
    result = job.compact()
    assert ((), None) == (result.damage, result.rebuilt)
    assert () == EventCsv(csv_path).verify().findings
    assert ["COMPLETED"] * 3 == statuses(csv_path)
