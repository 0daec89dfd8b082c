"""The promise: whatever a worker starts ends with it and with its session, and a child that it forks is no worker."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import jobs
import psutil  # type: ignore[import-untyped]
import pytest
from conftest import wait_until
from living import is_alive
from plain import logged
from runs import ADOPTS, DEADLINE_S, STARTED, ask_to_stop, at_work, by_po, calls, children, make_job, meanwhile, pids

from eventcsv.run import reaper

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_process_is_left")


@pytest.mark.parametrize("what", STARTED)
@pytest.mark.parametrize("ending", ["", " and die", " and hang"])
def test_what_a_worker_started_goes_with_it(tmp_path: Path, what: str, ending: str) -> None:
    """A program that a worker started is gone after the run, however the worker ended, and whatever it leads itself."""
    if not ADOPTS and what == "a leader" and ending != " and hang":
        pytest.skip("only Linux tells whose it was once its parent has ended")
    job = make_job(tmp_path, {"PO1": f"leave {what}{ending}", "PO2": ""})
    with job.session() as session:
        result = session.run(jobs.work, timeout_s=5)
        assert not any(map(is_alive, children(tmp_path)))
    assert (bool(ending), 1) == (bool(result.lost_workers), len(children(tmp_path)))
    assert "COMPLETED" == by_po(job)["PO2"]


@pytest.mark.skipif(not ADOPTS, reason="only Linux tells whose an orphan was")
def test_what_a_worker_started_stays_when_another_one_dies(tmp_path: Path) -> None:
    """An orphan is its own worker's: that another one ends concerns it as little as it concerns the other."""
    job = make_job(tmp_path, {"PO1": "leave an orphan and gate", "PO2": "gate", "PO3": ""})

    def look() -> None:
        wait_until(lambda: 2 == len(calls(tmp_path)) and children(tmp_path))
        worker_of = dict(zip(calls(tmp_path), pids(tmp_path), strict=True))
        os.kill(worker_of["PO2"], signal.SIGKILL)
        wait_until(lambda: "ERROR" in by_po(job).values())
        wait_until(lambda: not is_alive(worker_of["PO2"]))
        assert all(map(is_alive, [worker_of["PO1"], *children(tmp_path)]))
        (tmp_path / "gate").touch()

    with meanwhile(look), job.session(refresh_s=0.05) as session:
        result = session.run(jobs.work, workers=2)
    assert {"COMPLETED": 2, "ERROR": 1} == result.by_status
    assert not any(map(is_alive, children(tmp_path)))


def test_a_worker_that_dies_while_it_is_looked_for_has_its_own_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after its guard has looked who is dead and before it looks who lives, it is not said to have exited."""
    guard = reaper._Reaper()
    guard.worker = os.posix_spawnp("sleep", ["sleep", "60"], {})

    def look() -> list[int]:
        os.kill(guard.worker, signal.SIGKILL)
        os.waitid(os.P_PID, guard.worker, os.WEXITED | os.WNOWAIT)
        return []

    monkeypatch.setattr(reaper, "_descendants", look)
    guard.end_all(adopts=True)
    assert guard.status is not None
    assert -signal.SIGKILL == os.waitstatus_to_exitcode(guard.status)


@pytest.mark.skipif(not ADOPTS, reason="only Linux tells a worker that its guard has died")
def test_a_worker_dies_with_its_guard(tmp_path: Path) -> None:
    """Whoever kills the process before a worker costs the PO that it is on, and leaves nobody at work on it."""
    job = make_job(tmp_path, {"PO1": "gate", "PO2": ""})

    def kill() -> None:
        wait_until(lambda: calls(tmp_path))
        (worker,) = pids(tmp_path)
        guard = psutil.Process(worker).ppid()
        assert guard != os.getpid()
        os.kill(guard, signal.SIGKILL)
        wait_until(lambda: not is_alive(worker))

    with meanwhile(kill), job.session() as session:
        session.run(jobs.work)
    assert {"PO1": "ERROR", "PO2": "COMPLETED"} == by_po(job)


def test_a_forked_child_does_not_hide_its_workers_death(tmp_path: Path) -> None:
    """A worker is known to be dead at once even when a process that it forked lives on, and that one is ended too."""
    job = make_job(tmp_path, {"PO1": "fork and die", "PO2": ""})
    with job.session() as session:
        session.run(jobs.work)
    assert {"PO1": "ERROR", "PO2": "COMPLETED"} == by_po(job)
    assert not (tmp_path / "outlived").exists()


@pytest.mark.parametrize("what", STARTED)
@pytest.mark.parametrize("ending", ["kill -9", "Ctrl-C twice"])
def test_what_workers_started_ends_with_the_session(tmp_path: Path, what: str, ending: str) -> None:
    """The browsers of its workers do not go on under the next run."""
    job = make_job(tmp_path, {f"PO{number}": f"leave {what} and gate" for number in range(4)})
    script = at_work(job)
    assert all(map(is_alive, children(tmp_path)))
    if ending == "kill -9":
        script.kill()
    else:
        ask_to_stop(script, signal.SIGINT, tmp_path)
        script.send_signal(signal.SIGINT)
    script.communicate(timeout=DEADLINE_S)
    wait_until(lambda: not any(map(is_alive, [*children(tmp_path), *pids(tmp_path)])))


@pytest.mark.parametrize("what", ["fork and return", "fork and raise"])
def test_a_forked_child_is_no_second_worker(tmp_path: Path, what: str) -> None:
    """A child that comes back from the function instead of its parent reports nothing."""
    job = make_job(tmp_path, {f"PO{number}": what if number % 2 else "" for number in range(12)})
    with job.session() as session:
        result = session.run(jobs.work, workers=2)
    assert (12, {"COMPLETED": 12}) == (result.processed, result.by_status)
    assert 12 == len(logged(job, "result"))


def test_children_of_a_job_can_be_terminated(tmp_path: Path) -> None:
    """What a worker makes of SIGTERM is not for the children that its code forks."""
    job = make_job(tmp_path, {"PO1": "fork and terminate"})
    with job.session() as session:
        assert {"COMPLETED": 1} == session.run(jobs.work, timeout_s=30).by_status
