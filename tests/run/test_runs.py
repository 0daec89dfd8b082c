"""The promise of a run: whatever happens to a worker costs its own PO only, and every other one gets its result."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jobs
import pytest
from conftest import read_csv, replays_to_itself, wait_until
from plain import logged
from runs import by_po, calls, make_job, rows_of

from eventcsv import EventCsv, EventCsvError

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventcsv.worker.messages import Row


pytestmark = pytest.mark.usefixtures("no_process_is_left")


# --- what a run persists ---


def test_one_worker_or_four_persist_the_same_csv(tmp_path: Path) -> None:
    """How many workers there are shows in nothing but LAST_PROCESSED and the order of the log."""
    kinds = ["", "", "raise", "negative", "no page", "list", "nothing"]
    found = []
    for workers in (1, 4):
        folder = tmp_path / str(workers)
        folder.mkdir()
        job = make_job(folder, {f"PO{number}": kinds[number % len(kinds)] for number in range(42)})
        with job.session() as session:
            result = session.run(jobs.work, workers=workers)
        assert (42, 12, 0) == (result.processed, len(result.failed), result.lost_workers)
        assert {"COMPLETED": 24, "ERROR": 12, "NO_ATTACHMENTS": 6} == result.by_status
        rows = rows_of(job).values()
        assert all([row["LAST_PROCESSED"] for row in rows])
        found.append([row | {"LAST_PROCESSED": "", "IN": ""} for row in rows])
        assert replays_to_itself(job.csv_path)
    assert found[0] == found[1]


MISHAPS: Final = {
    "raise": r"RuntimeError: page not found second line \udc80",
    "raise mute": "Mute: (it cannot be shown)",
    "_exit": "the worker exited with code 3",
    "exit": "SystemExit: 5",
    "kill": "the worker was killed by signal 9 (SIGKILL)",
    "segfault": "the worker was killed by signal 11 (SIGSEGV)",
    "hang": "it took longer than 1 s and was stopped",
    "stop": "it took longer than 1 s and was stopped",
    "memory": "MemoryError",
    "list": "process returned ['COMPLETED']; it may return columns",
    "a key": "process returned PO_NUMBER 'PO9', which is the key of another row",
    "column of bytes": "process returned the name of a column that is no text, or blank: b'x'",
}


LOSES_THE_WORKER: Final = {"_exit", "kill", "segfault", "hang", "stop"}


@pytest.mark.parametrize("mishap", MISHAPS)
def test_what_goes_wrong_costs_its_own_po_only(tmp_path: Path, mishap: str) -> None:
    """Whatever a PO does to its worker becomes its ERROR, which says what happened; those around it are COMPLETED."""
    job = make_job(tmp_path, {"PO1": "", "PO2": mishap, "PO3": ""})
    initializer = jobs.limit_memory if mishap == "memory" else None
    with job.session() as session:
        result = session.run(jobs.work, timeout_s=1 if mishap in {"hang", "stop"} else None, initializer=initializer)
    assert {"PO1": "COMPLETED", "PO2": "ERROR", "PO3": "COMPLETED"} == by_po(job)
    message = rows_of(job)["PO2"]["ERROR_MESSAGE"]
    assert MISHAPS[mishap] in message
    assert [("PO2", "ERROR", message)] == [(out.key, out.status, out.message) for out in result.failed]
    assert {"COMPLETED": 2, "ERROR": 1} == result.by_status
    assert (mishap in LOSES_THE_WORKER, None) == (bool(result.lost_workers), result.stopped)
    assert 3 == len(logged(job, "result"))
    assert () == EventCsv(job.csv_path).verify().findings


def test_several_mishaps_at_once(tmp_path: Path) -> None:
    """With four workers and a mishap in every other PO, nobody waits for anybody and each PO gets its own result."""
    kinds = sorted(set(MISHAPS) - {"memory"})
    todo = {f"PO{number}": kinds[number // 2] if number % 2 else "" for number in range(2 * len(kinds))}
    job = make_job(tmp_path, todo)
    with job.session() as session:
        result = session.run(jobs.work, workers=4, timeout_s=1)
    assert {key: "ERROR" if what else "COMPLETED" for key, what in todo.items()} == by_po(job)
    assert len(LOSES_THE_WORKER) == result.lost_workers
    assert all([MISHAPS[todo[out.key]] in out.message for out in result.failed])


def test_an_old_error_message_goes_with_success(tmp_path: Path) -> None:
    """A PO that failed before and is COMPLETED now shows no ERROR_MESSAGE any more; other columns stay."""
    job = make_job(tmp_path, {"PO1": "", "PO2": "nothing", "PO3": "no page"})
    for key in ("PO1", "PO2", "PO3"):
        job.emit_result(key, "ERROR", error_message="429", columns={"Reviewed by": "Ana"})
    job.close()
    with job.session() as session:
        session.run(jobs.work)
    assert {"PO1": "COMPLETED", "PO2": "COMPLETED", "PO3": "NO_ATTACHMENTS"} == by_po(job)
    assert {("", "Ana")} == {(row["ERROR_MESSAGE"], row["Reviewed by"]) for row in rows_of(job).values()}


def test_a_po_on_several_rows_is_worked_on_once(tmp_path: Path) -> None:
    """Rows with the same key share one call and its result; rows without a key are left alone."""
    job = make_job(tmp_path, {})
    with Path(job.csv_path).open("a") as file:
        file.writelines(f"{key};;note;{tmp_path}\n" for key in ("PO1", "", "PO2", " PO1 ", "  "))
    with job.session() as session:
        assert ["PO1", "PO2"] == session.pending()
        result = session.run(jobs.work, workers=2)
    assert ["PO1", "PO2"] == sorted(calls(tmp_path))
    assert 2 == result.processed
    rows = read_csv(Path(job.csv_path))
    assert ["COMPLETED", "", "COMPLETED", "COMPLETED", ""] == [row["STATUS"] for row in rows]


@pytest.mark.parametrize("key", ['"PO2\nb"', "PO\x072"])
def test_a_key_that_cannot_be_recorded_costs_its_own_po_only(tmp_path: Path, key: str) -> None:
    """A line break in one key of the CSV keeps nobody from working on the other POs."""
    job = make_job(tmp_path, {"PO1": "", key: "", "PO3": ""})
    with job.session() as session:
        session.run(jobs.work)
    assert {"PO1": "COMPLETED", "PO3": "COMPLETED"}.items() <= by_po(job).items()


# --- workers ---


def test_workers_are_light(tmp_path: Path) -> None:
    """A worker loads neither Polars nor anything of the command line."""
    job = make_job(tmp_path, {"PO1": "modules"})
    with job.session() as session:
        session.run(jobs.work)
    assert ("COMPLETED", "") == (by_po(job)["PO1"], rows_of(job)["PO1"]["MODULES"])


def test_what_workers_cannot_import_is_refused(job: EventCsv) -> None:
    """A lambda or an inner function is refused at once, with the way out, before any worker is started."""

    def inner(_key: str, _row: Row) -> None:
        """Be nowhere to import from."""

    with job.session() as session:
        for process in (inner, lambda _key, _row: None):
            with pytest.raises(EventCsvError, match=r"cannot be given to a worker process.*at the top of a module"):
                session.run(process)
        with pytest.raises(EventCsvError, match="at the top of a module"):
            session.run(jobs.work, initializer=lambda: None)
        with pytest.raises(EventCsvError, match="at the top of a module"):
            session.run(jobs.work, finalizer=lambda: None)
    assert [] == logged(job, "started")


def test_arguments_that_make_no_sense_are_refused(job: EventCsv) -> None:
    """No workers, no time, and a word that nobody knows are ValueErrors."""
    with job.session() as session:
        for arguments in ({"workers": 0}, {"timeout_s": 0}, {"timeout_s": -1.0}, {"interrupted": "forget"}):
            with pytest.raises(ValueError, match=next(iter(arguments))):
                session.run(jobs.work, **arguments)


def test_every_event_has_an_id_of_its_own(tmp_path: Path) -> None:
    """Over several runs in one session, too: history takes equal ids for one event that was appended twice."""
    job = make_job(tmp_path, {"PO1": "", "PO2": "no page", "PO3": ""})
    with job.session() as session:
        session.run(jobs.work)
        session.run(jobs.work, done=())
    ids = [event["id"] for kind in ("started", "result") for event in logged(job, kind)]
    assert 12 == len(ids) == len(set(ids))


def test_closed_descriptors_stop_nobody_else(tmp_path: Path) -> None:
    """A PO whose code closes whatever is open, and goes on, costs itself only."""
    job = make_job(tmp_path, {"PO1": "close everything and hang", "PO2": "", "PO3": ""})
    with job.session() as session:
        result = session.run(jobs.work, workers=2, timeout_s=60)
    assert {"PO1": "ERROR", "PO2": "COMPLETED", "PO3": "COMPLETED"} == by_po(job)
    assert {"COMPLETED": 2, "ERROR": 1} == result.by_status


def test_one_run_at_a_time(tmp_path: Path) -> None:
    """A second run in the same session is refused, as both would work on the same POs."""
    job = make_job(tmp_path, {"PO1": "gate"})
    with job.session() as session:
        first = threading.Thread(target=session.run, args=(jobs.work,))
        first.start()
        wait_until(lambda: calls(tmp_path))
        with pytest.raises(EventCsvError, match="is on already"):
            session.run(jobs.work)
        (tmp_path / "gate").touch()
        first.join()
        assert 0 == session.run(jobs.work).processed


@pytest.mark.parametrize("function", [jobs.generator, jobs.generator_later])
def test_a_generator_is_refused(tmp_path: Path, function: Callable[..., Any]) -> None:
    """It would be called for every PO and never run."""
    job = make_job(tmp_path, {"PO1": ""})
    with job.session() as session, pytest.raises(EventCsvError, match="is a generator"):
        session.run(function)


def test_the_whole_row_may_be_returned(tmp_path: Path) -> None:
    """Its key among the rest, as long as that is what it was."""
    job = make_job(tmp_path, {"PO1": "whole row", "PO2": "no coroutine"})
    with job.session() as session:
        session.run(jobs.work)
    rows = rows_of(job)
    assert ("ERROR", "CancelledError: base") == (rows["PO2"]["STATUS"], rows["PO2"]["ERROR_MESSAGE"])
    assert ("COMPLETED", "new") == (rows["PO1"]["STATUS"], rows["PO1"]["SUPPLIER"])
