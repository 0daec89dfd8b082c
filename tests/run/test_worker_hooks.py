"""The promise: each worker opens what it needs once and closes it at its end, and hooks that fail cost no PO."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jobs
import pytest
from conftest import wait_until
from living import is_alive
from plain import logged
from runs import DEADLINE_S, ask_to_stop, at_work, by_po, calls, make_job, meanwhile, noted, pids, rows_of

from eventcsv import EventCsv, EventCsvError

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.usefixtures("no_process_is_left")


def test_the_initializer_is_called_once_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker, a replacement too, calls it once, before its first PO."""
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    job = make_job(tmp_path, {f"PO{number}": "kill" if number == 5 else "pid" for number in range(12)})
    with job.session() as session:
        result = session.run(jobs.work, workers=2, initializer=jobs.count)
    starts = (tmp_path / "starts").read_text().split()
    assert len(set(starts)) == len(starts)
    assert {row["PID"] for row in rows_of(job).values()} - {""} <= set(starts)
    assert (1, {"COMPLETED": 11, "ERROR": 1}) == (result.lost_workers, result.by_status)


@pytest.mark.parametrize("workers", [1, 4])
def test_an_initializer_that_fails_fails_the_run(tmp_path: Path, workers: int) -> None:
    """An initializer that raises is the run's error, which says so; no PO is blamed for it, and nothing is recorded."""
    job = make_job(tmp_path, {"PO1": "", "PO2": "", "PO3": "", "PO4": ""})
    before = Path(job.csv_path).read_bytes()
    with job.session() as session, pytest.raises(EventCsvError, match="its initializer failed: OSError: no browser"):
        session.run(jobs.work, workers=workers, initializer=jobs.fail)
    assert [] == logged(job, "result") + logged(job, "started")
    assert before == Path(job.csv_path).read_bytes()


def test_an_initializer_that_fails_once_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a replacement cannot be started at first, no PO is lost by that."""
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    job = make_job(tmp_path, {"PO1": "", "PO2": "kill", "PO3": "", "PO4": ""})
    with job.session() as session:
        session.run(jobs.work, initializer=jobs.fail_second)
    assert {"PO1": "COMPLETED", "PO2": "ERROR", "PO3": "COMPLETED", "PO4": "COMPLETED"} == by_po(job)
    assert 3 == len((tmp_path / "starts").read_text().split())


def test_an_initializer_that_fails_from_then_on_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no replacement can be started any more the run says so, keeps its results, and leaves the rest pending."""
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    job = make_job(tmp_path, {"PO1": "", "PO2": "kill", "PO3": "", "PO4": ""})
    with job.session() as session, pytest.raises(EventCsvError, match="no browser here"):
        session.run(jobs.work, initializer=jobs.fail_later)
    assert {"PO1": "COMPLETED", "PO2": "ERROR", "PO3": "", "PO4": ""} == by_po(job)


@pytest.mark.parametrize(
    "hooks",
    [
        {"initializer": jobs.count, "finalizer": jobs.tell_end},
        {"initializer": jobs.browser},
        {"initializer": jobs.Browser},
    ],
    ids=["functions", "a context manager", "a class"],
)
def test_who_ends_in_peace_is_finalized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hooks: dict[str, Any]) -> None:
    """Each worker that comes to the end of the run, and none that was lost before, closes what it has opened."""
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    what = {f"PO{number}": "pid" for number in range(10)} | {"PO5": "kill", "PO10": "gate", "PO11": "gate"}
    job = make_job(tmp_path, what)

    def let_it_end() -> None:
        wait_until(lambda: len(calls(tmp_path)) == 2)  # there are two again, and both are ready
        (tmp_path / "gate").touch()

    with meanwhile(let_it_end), job.session() as session:
        result = session.run(jobs.work, workers=2, **hooks)
    starts, ends = noted(tmp_path, "starts"), noted(tmp_path, "ends")
    assert (1, len(starts) - 1) == (result.lost_workers, len(ends))
    assert ends < starts
    assert {"COMPLETED": 11, "ERROR": 1} == result.by_status


def test_who_is_asked_to_leave_is_finalized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM to a worker: it finishes its PO, closes what it has opened, and another one goes on."""
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    job = make_job(tmp_path, {"PO1": "gate", "PO2": "", "PO3": ""})

    def ask() -> None:
        wait_until(lambda: calls(tmp_path))
        os.kill(pids(tmp_path)[0], signal.SIGTERM)
        (tmp_path / "gate").touch()

    with meanwhile(ask), job.session() as session:
        result = session.run(jobs.work, initializer=jobs.browser)
    assert ({"COMPLETED": 3}, 2) == (result.by_status, len(noted(tmp_path, "ends")))
    assert noted(tmp_path, "starts") == noted(tmp_path, "ends")


def test_one_signal_lets_workers_be_finalized_and_two_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends workers in peace; a second one, while they close what they opened, waits for nobody."""
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    job = make_job(tmp_path, {f"PO{number}": "gate" for number in range(9)})
    script = at_work(job, initializer="count", finalizer="never_end")
    ask_to_stop(script, signal.SIGINT, tmp_path)
    (tmp_path / "gate").touch()
    wait_until(lambda: 2 == len(noted(tmp_path, "ends")))
    assert all(map(is_alive, pids(tmp_path)))
    script.send_signal(signal.SIGINT)
    script.communicate(timeout=DEADLINE_S / 2)
    assert -signal.SIGINT == script.returncode
    assert not any(map(is_alive, pids(tmp_path)))
    assert {"COMPLETED": 2, "": 7} == Counter(by_po(job).values())


@pytest.mark.parametrize("finalizer", [jobs.fail_at_end, jobs.never_end])
def test_a_finalizer_that_fails_costs_no_po(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, finalizer: Callable[[], None]
) -> None:
    """Each result is recorded by then; what went wrong is told, without secrets."""
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    monkeypatch.setattr("eventcsv.run.pool._EXIT_TIMEOUT_S", 1.0)
    job = make_job(tmp_path, {"PO1": "", "PO2": ""})
    with job.session() as session:
        result = session.run(jobs.work, finalizer=finalizer)
    assert ({"COMPLETED": 2}, 0, 1) == (result.by_status, result.lost_workers, len(noted(tmp_path, "ends")))
    told = [cast("dict[str, Any]", record.msg) for record in caplog.records if record.name.startswith("eventcsv")]
    (reason,) = [record["reason"] for record in told if record["event"] == "worker.not_finalized"]
    assert reason in {
        "OSError: https://***@browser.example does not answer",
        "it took longer than 1 s to end and was stopped",
    }


@pytest.mark.parametrize("name", ["initializer", "finalizer"])
@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (jobs.yields, "is a generator"),
        (jobs.yields_later, "is a generator"),
        (jobs.takes_one, "without arguments"),
    ],
)
def test_what_would_open_and_close_nothing_is_refused(
    job: EventCsv, name: str, hook: Callable[..., Any], said: str
) -> None:
    """A generator that nobody asks is no initializer, nor what wants arguments."""
    with job.session() as session:
        with pytest.raises(EventCsvError, match=f"{name}: .*{said}"):
            session.run(jobs.work, **cast("dict[str, Any]", {name: hook}))
        for manager in (jobs.browser, jobs.browser_later):
            with pytest.raises(EventCsvError, match="finalizer: is a context manager"):
                session.run(jobs.work, finalizer=manager)
    assert [] == logged(job, "started")
