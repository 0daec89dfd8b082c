"""The promise: a run that is killed or asked to stop loses no result, leaves no worker behind, and is resumed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import jobs
import psutil  # type: ignore[import-untyped]
import pytest
from conftest import wait_until
from living import is_alive
from plain import logged
from runs import DEADLINE_S, ask_to_stop, at_work, by_number, by_po, calls, make_job, meanwhile, pids, rows_of

from eventcsv import EventCsv

pytestmark = pytest.mark.usefixtures("no_process_is_left")


def test_killed_between_recording_and_reporting_is_no_error(tmp_path: Path) -> None:
    """A result that stands in the log counts, whether or not its worker lived to tell."""
    job = make_job(tmp_path, {"PO1": "", "PO2": "", "PO3": ""})
    with job.session() as session:
        result = session.run(jobs.work, initializer=jobs.die_after_recording)
    assert {"PO1": "COMPLETED", "PO2": "COMPLETED", "PO3": "COMPLETED"} == by_po(job)
    assert ({"COMPLETED": 3}, (), 1) == (result.by_status, result.failed, result.lost_workers)
    assert 3 == len(logged(job, "result"))


def test_killed_between_the_work_and_its_record_is_an_error(tmp_path: Path) -> None:
    """Work whose result was not recorded is not taken for done."""
    job = make_job(tmp_path, {"PO1": "", "PO2": "", "PO3": ""})
    with job.session() as session:
        session.run(jobs.work, initializer=jobs.die_before_recording)
    assert {"PO1": "COMPLETED", "PO2": "ERROR", "PO3": "COMPLETED"} == by_po(job)


def test_a_result_of_an_earlier_run_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    """A worker that dies before it takes up a PO that had a result in the same session leaves its own ERROR."""
    job = make_job(tmp_path, {"PO1": "", "PO2": "no page", "PO3": ""})
    with job.session() as session:
        session.run(jobs.work)
        result = session.run(jobs.work, initializer=jobs.die_before_taking_up)
    assert {"ERROR": 1} == result.by_status


def test_a_storm_of_kills(tmp_path: Path) -> None:
    """50 kills of workers that are at work: each PO has one result, COMPLETED or ERROR, and the run ends."""
    job = make_job(tmp_path, {f"PO{number}": "short" for number in range(200)})
    rng = random.Random(20251002)
    killed: set[int] = set()
    over = threading.Event()

    def kill() -> None:
        while len(killed) < 50 and not over.is_set():
            fresh = set(pids(tmp_path)[-3:]) - killed
            if fresh:
                time.sleep(rng.uniform(0, 0.008))
                victim = rng.choice(sorted(fresh))
                killed.add(victim)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            time.sleep(0.002)

    with meanwhile(kill), job.session() as session:
        result = session.run(jobs.work, workers=4)
        over.set()
    results = logged(job, "result")
    assert [f"PO{number}" for number in range(200)] == sorted(
        [line["key"] for line in results], key=lambda po: int(po[2:])
    )
    words = Counter(line["set"]["STATUS"] for line in results)
    assert set(words) == {"COMPLETED", "ERROR"}
    assert (200, dict(words), ()) == (result.processed, result.by_status, result.unrecorded)
    assert words == Counter(by_po(job).values())
    assert {"the worker was killed by signal 9 (SIGKILL); was memory short?"} == {out.message for out in result.failed}
    assert 50 == len(killed)
    assert () == EventCsv(job.csv_path).progress().in_flight


def test_a_killed_run_is_resumed(tmp_path: Path) -> None:
    """Killed at PO 200 of 446: workers die too, earlier results stay, what was in flight is named, the rest is done."""
    job = make_job(tmp_path, {f"PO{number}": "" if number < 200 else "gate" for number in range(446)})
    script = at_work(job, workers=4)
    workers = pids(tmp_path)
    script.kill()
    script.wait()  # its pipes end with the last of its workers
    wait_until(lambda: not any(map(is_alive, workers)))
    script.communicate()
    in_flight = [f"PO{number}" for number in range(200, 204)]
    first = logged(job, "result")
    assert [f"PO{number}" for number in range(200)] == by_number(first)
    assert in_flight == sorted(calls(tmp_path)) == sorted(one.key for one in job.progress().in_flight)
    (tmp_path / "gate").touch()
    with job.session() as session:
        assert in_flight == sorted(one.key for one in session.interrupted)
        held = session.run(jobs.work, workers=2, interrupted="hold")
        assert (tuple(in_flight), tuple(in_flight), 242) == (held.interrupted, held.held, held.processed)
        assert sorted(in_flight) == sorted(session.pending())
        retried = session.run(jobs.work)
        assert (tuple(in_flight), (), 4) == (retried.interrupted, retried.held, retried.processed)
    assert {"COMPLETED": 446} == Counter(by_po(job).values())
    taken = Counter(line["key"] for line in logged(job, "started"))
    assert [1, 2, 1] == [taken["PO199"], taken["PO200"], taken["PO204"]]
    assert 450 == taken.total()
    rows = rows_of(job)
    assert [one["set"]["LAST_PROCESSED"] for one in first] == [rows[one["key"]]["LAST_PROCESSED"] for one in first]
    assert first == logged(job, "result")[:200]


def test_a_worker_that_lets_no_thread_run_dies_with_its_session(tmp_path: Path) -> None:
    """A killed session takes even a worker with it that is stuck in a function of C."""
    job = make_job(tmp_path, {"PO1": "hold the interpreter"})
    script = jobs.start(Path(job.csv_path), workers=1)
    wait_until(lambda: calls(tmp_path))
    (worker,) = pids(tmp_path)
    script.kill()
    script.wait()
    try:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(worker).wait(3)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        script.communicate()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_one_signal_lets_workers_finish(tmp_path: Path, name: str) -> None:
    """The first Ctrl-C, SIGTERM or SIGHUP: what is in flight is finished and recorded, the rest stays pending."""
    job = make_job(tmp_path, {f"PO{number}": "gate" for number in range(9)})
    script = at_work(job)
    ask_to_stop(script, getattr(signal, name), tmp_path)
    (tmp_path / "gate").touch()
    out, err = script.communicate(timeout=DEADLINE_S)
    assert (0, "") == (script.returncode, err)
    assert [name, 2, {"COMPLETED": 2}, []] == json.loads(out)
    assert {"PO0": "COMPLETED", "PO1": "COMPLETED"} | {f"PO{number}": "" for number in range(2, 9)} == by_po(job)
    assert ["PO0", "PO1"] == sorted(calls(tmp_path))
    assert ((), 0) == ((progress := job.progress()).in_flight, progress.behind)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", -signal.SIGINT), ("SIGTERM", 128 + signal.SIGTERM)])
def test_a_second_signal_stops_now(tmp_path: Path, name: str, code: int) -> None:
    """The second one waits for nobody: workers are ended, their POs stay pending and are named the next time."""
    job = make_job(tmp_path, {"PO1": ""} | {f"PO{number}": "gate" for number in range(2, 9)})
    script = at_work(job)
    ask_to_stop(script, getattr(signal, name), tmp_path)
    script.send_signal(getattr(signal, name))
    script.communicate(timeout=DEADLINE_S)
    assert code == script.returncode
    assert not any(map(is_alive, pids(tmp_path)))
    assert {"COMPLETED": 1, "": 7} == Counter(by_po(job).values())
    (tmp_path / "gate").touch()
    with job.session() as session:
        assert ["PO2", "PO3"] == sorted(one.key for one in session.interrupted)
        result = session.run(jobs.work, workers=2)
    assert (("PO2", "PO3"), 7) == (result.interrupted, result.processed)
    assert {"COMPLETED": 8} == Counter(by_po(job).values())


def test_ctrl_c_in_the_terminal_is_for_the_session_only(tmp_path: Path) -> None:
    """A Ctrl-C reaches the whole process group; the workers leave it to the session."""
    job = make_job(tmp_path, {f"PO{number}": "gate" for number in range(9)})
    script = at_work(job)
    os.killpg(script.pid, signal.SIGINT)
    for worker in pids(tmp_path):
        os.kill(worker, signal.SIGINT)
    wait_until((tmp_path / "asked").exists)
    (tmp_path / "gate").touch()
    out, _ = script.communicate(timeout=DEADLINE_S)
    assert ["SIGINT", 2, {"COMPLETED": 2}, []] == json.loads(out)


def test_a_worker_that_is_asked_to_leave_finishes_its_po(tmp_path: Path) -> None:
    """SIGTERM to a worker: the PO that it is on gets its result, and another worker does the rest."""
    job = make_job(tmp_path, {"PO1": "gate", "PO2": "gate", "PO3": "gate"})

    def ask() -> None:
        wait_until(lambda: calls(tmp_path))
        os.kill(pids(tmp_path)[0], signal.SIGTERM)
        (tmp_path / "gate").touch()

    with meanwhile(ask), job.session() as session:
        result = session.run(jobs.work)
    assert ({"COMPLETED": 3}, ()) == (result.by_status, result.failed)
    assert ["PO1", "PO2", "PO3"] == calls(tmp_path)
    first, second, third = pids(tmp_path)
    assert first != second == third


def test_impatience_leaves_no_worker_behind(tmp_path: Path) -> None:
    """More Ctrl-C, while the second one ends the workers, spare none of them: no two sessions on one PO."""
    job = make_job(tmp_path, {f"PO{number}": "gate" for number in range(8)})
    for delay_s in (0.0003, 0.001):
        script = at_work(job, workers=4)
        ask_to_stop(script, signal.SIGINT, tmp_path)
        time.sleep(0.1)
        for _ in range(12):
            script.send_signal(signal.SIGINT)
            time.sleep(delay_s)
        script.communicate(timeout=DEADLINE_S)
        assert not any(map(is_alive, pids(tmp_path)))
        (tmp_path / "calls").unlink()
        (tmp_path / "asked").unlink()
