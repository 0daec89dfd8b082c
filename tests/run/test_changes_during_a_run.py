"""The promise: a disk that fills up and an operator who edits, while a run goes on, cost nobody else's PO."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import jobs
import pytest
from conftest import wait_until
from runs import by_po, calls, make_job, meanwhile, rows_of

if TYPE_CHECKING:
    from eventcsv import EventCsv

pytestmark = pytest.mark.usefixtures("no_process_is_left")


# --- the disk says no ---


def test_a_full_disk_costs_what_could_not_be_recorded(small_disk: Path) -> None:
    """No space: such results are handed back whole and stay pending; with space again the others go on."""
    todo = {"PO1": "", "PO2": "fill the disk", "PO3": "", "PO4": "", "PO5": ""}
    job = make_job(small_disk, todo)

    class MakesSpace(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if isinstance(record.msg, dict) and ("result.unrecorded", "PO3") == (
                record.msg.get("event"),
                record.msg.get("key"),
            ):
                (small_disk / "filler").unlink()

    handler = MakesSpace()
    logging.getLogger("eventcsv").addHandler(handler)
    try:
        with job.session() as session:
            result = session.run(jobs.work)
    finally:
        logging.getLogger("eventcsv").removeHandler(handler)
    assert [("PO2", "result"), ("PO3", "started")] == [
        (out.key, out.unrecorded.kind) for out in result.unrecorded if out.unrecorded
    ]
    assert result.unrecorded[0].unrecorded is not None
    assert {"STATUS": "COMPLETED", "SUPPLIER": "y" * 9000}.items() <= dict(
        result.unrecorded[0].unrecorded.cells
    ).items()
    assert ({"COMPLETED": 3}, 0) == (result.by_status, result.lost_workers)
    wanted = {"PO1": "COMPLETED", "PO2": "", "PO3": "", "PO4": "COMPLETED", "PO5": "COMPLETED"}
    assert wanted == by_po(job)
    job.emit_result("PO2", "COMPLETED")
    with job.session() as session:
        assert ["PO3"] == session.pending()
        assert {"COMPLETED": 1} == session.run(jobs.work).by_status
    assert {"COMPLETED": 5} == Counter(by_po(job).values())


def test_a_worker_that_may_not_write_costs_what_it_could_not_record(tmp_path: Path) -> None:
    """A log that a worker may not grow: its results are handed back whole, and the next run records them."""
    job = make_job(tmp_path, {"PO1": "", "PO2": "no large files", "PO3": ""})
    with job.session() as session:
        result = session.run(jobs.work)
        assert ["PO2", "PO3"] == [out.key for out in result.unrecorded] == session.pending()
        assert all(["could not be recorded" in out.message for out in result.unrecorded])
    assert {"PO1": "COMPLETED", "PO2": "", "PO3": ""} == by_po(job)
    Path(job.csv_path).write_bytes(Path(job.csv_path).read_bytes().replace(b"no large files", b""))
    with job.session() as session:
        result = session.run(jobs.work)
    assert (("PO2",), {"COMPLETED": 2}) == (result.interrupted, result.by_status)
    assert {"COMPLETED": 3} == Counter(by_po(job).values())


# --- the operator edits while it runs ---


def edited_during_a_run(job: EventCsv, folder: Path, old: str, new: str) -> None:
    """Save another version of the CSV once the first PO is in flight, and let it go on when the session knows it."""

    def edit() -> None:
        path = Path(job.csv_path)
        wait_until(lambda: calls(folder))
        saved = path.with_name("saved.csv")
        saved.write_text(path.read_text().replace(old, new))
        saved.replace(path)
        wait_until(lambda: len(job.backups()) > 1)
        job.emit_result("PO0", "COMPLETED", supplier="seen")  # once this shows, what the edit set off is over
        wait_until(lambda: "seen" in path.read_text())
        (folder / "gate").touch()

    with meanwhile(edit), job.session(refresh_s=0.05) as session:
        session.run(jobs.work)


def test_rows_that_are_added_during_a_run_are_worked_on_in_it(tmp_path: Path) -> None:
    """A row that an operator adds is worked on in the same run; one that they mark as done is left alone."""
    job = make_job(tmp_path, {"PO0": "raise", "PO1": "gate", "PO2": "note", "PO3": "note", "PO4": "note"})
    Path(job.csv_path).write_text(Path(job.csv_path).read_text().replace("PO0;;", "PO0;COMPLETED;"))
    added = f"PO3;COMPLETED;note;{tmp_path}\nPO9;;note;{tmp_path}\n"
    edited_during_a_run(job, tmp_path, f"PO3;;note;{tmp_path}\n", added)
    assert ["PO1", "PO2", "PO9", "PO4"] == calls(tmp_path)
    assert {"COMPLETED": 6} == Counter(by_po(job).values())
    assert "" == rows_of(job)["PO3"]["LAST_PROCESSED"]


def test_the_next_po_is_skipped_when_it_is_marked_as_done(tmp_path: Path) -> None:
    """Even the PO that is next in turn is left alone when an operator marks it as done before it is taken up."""
    job = make_job(tmp_path, {"PO0": "raise", "PO1": "gate", "PO2": "note", "PO3": "note"})
    Path(job.csv_path).write_text(Path(job.csv_path).read_text().replace("PO0;;", "PO0;COMPLETED;"))
    edited_during_a_run(job, tmp_path, "PO2;;", "PO2;COMPLETED;")
    assert ["PO1", "PO3"] == calls(tmp_path)


def test_a_run_that_can_record_nothing_stops(small_disk: Path) -> None:
    """With no room for the log it is no use to try every PO; the run says so, and a later one goes on."""
    job = make_job(small_disk, {f"PO{number}": "fill the disk" if number == 2 else "" for number in range(60)})
    with contextlib.suppress(OSError), job.session() as session:
        result = session.run(jobs.work, workers=2)
    assert "nothing could be recorded" in str(result.stopped)
    assert 10 <= len(result.unrecorded) < 40
    (small_disk / "filler").unlink()
    path = Path(job.csv_path)
    path.write_text(path.read_text().replace("fill the disk", ""))
    with job.session() as session:
        session.run(jobs.work, workers=2)
    assert {"COMPLETED": 60} == Counter(by_po(job).values())
