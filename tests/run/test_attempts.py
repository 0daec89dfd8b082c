"""A steered run with real workers: attempts, Retry and StopRun, the brake, the pace, the choice, and what is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jobs
import pytest
import steered
from conftest import job_on, wait_until
from plain import logged
from runs import by_po, calls, make_job, rows_of
from servers import unused_name

from eventcsv import EventCsv

if TYPE_CHECKING:
    from servers import PgServer

    from eventcsv import RunResult

pytestmark = pytest.mark.usefixtures("no_process_is_left")


def run(job: EventCsv, **options: Any) -> RunResult:
    """Run a session over a job."""
    with job.session(refresh_s=0.05) as session:
        return session.run(steered.attempt, **options)


def times(folder: Path, key: str) -> list[float]:
    """Return when each attempt at a PO began, in seconds."""
    return list(map(float, (folder / f"tried {key}").read_text().split()))


def attempts(job: EventCsv, key: str) -> list[tuple[str, str, str]]:
    """Return the history of a PO: kind, number of the attempt, and what is said."""
    return [
        (event.kind, event.cells.get("attempt", ""), event.cells.get("reason", event.cells.get("STATUS", "")))
        for event in job.history(key)
    ]


# --- attempts ---


def test_what_fails_is_tried_again_after_the_others(tmp_path: Path) -> None:
    """Each attempt is in the history with its number; what came of the last one counts."""
    job = make_job(tmp_path, {"PO1": "fail retry fine", "PO2": "partial fine", "PO3": "negative", "PO4": "fine"})
    result = run(job, attempts=3, retry_after_s=0.1)
    assert {"PO1": "COMPLETED", "PO2": "COMPLETED", "PO3": "FAILED", "PO4": "COMPLETED"} == by_po(job)
    assert ["PO1", "PO2", "PO3", "PO4"] == calls(tmp_path)[:4]
    assert (4, {"COMPLETED": 3, "FAILED": 1}, 5, ()) == (
        result.processed,
        result.by_status,
        result.retried,
        result.waiting,
    )
    assert ["PO3"] == [outcome.key for outcome in result.failed]
    assert [
        ("started", "", ""),
        ("result", "", "ERROR"),
        ("deferred", "1", "OSError: no page for PO1, password=***"),
        ("started", "2", ""),
        ("deferred", "2", "rate limited"),
        ("started", "3", ""),
        ("result", "", "COMPLETED"),
    ] == attempts(job, "PO1")
    assert ("", "found") == (rows_of(job)["PO1"]["ERROR_MESSAGE"], rows_of(job)["PO1"]["SUPPLIER"])


def test_an_attempt_waits_for_its_time(tmp_path: Path) -> None:
    """Each time twice as long, and what the function itself says goes before that."""
    job = make_job(tmp_path, {"PO1": "fail", "PO2": "later later fine"})
    run(job, attempts=3, retry_after_s=0.3)
    first, second = (later - sooner for sooner, later in pairwise(times(tmp_path, "PO1")))
    assert first >= 0.3
    assert second >= 0.6
    assert all(later - sooner >= 0.7 for sooner, later in pairwise(times(tmp_path, "PO2")))


def test_a_retry_is_no_failure_until_the_attempts_are_used_up(tmp_path: Path) -> None:
    """Until then the row stays as it was; then it is one, with the reason."""
    job = make_job(tmp_path, {"PO1": "retry", "PO2": "retry retry fine"})
    result = run(job, attempts=2, retry_after_s=0.05)
    assert (["ERROR", "ERROR"], ["rate limited"] * 2) == (
        [row["STATUS"] for row in rows_of(job).values()],
        [outcome.message for outcome in result.failed],
    )
    assert [("started", "", ""), ("deferred", "1", "rate limited"), ("started", "2", ""), ("result", "", "ERROR")] == (
        attempts(job, "PO1")
    )


def test_one_attempt_is_all_there_is_unless_asked_for(tmp_path: Path) -> None:
    """A failure is recorded as ever, with no word of another attempt."""
    job = make_job(tmp_path, {"PO1": "fail", "PO2": "retry"})
    assert 0 == run(job).retried
    assert ["started", "result"] * 2 == [kind for key in ("PO1", "PO2") for kind, _, _ in attempts(job, key)]


@pytest.mark.parametrize("what", ["die fine", "hang fine"])
def test_a_worker_that_is_lost_costs_an_attempt_only(tmp_path: Path, what: str) -> None:
    """One that was killed, and one that took too long."""
    job = make_job(tmp_path, {"PO1": what, "PO2": "fine"})
    result = run(job, attempts=2, retry_after_s=0.05, timeout_s=2)
    assert ({"COMPLETED": 2}, 1, 1) == (result.by_status, result.lost_workers, result.retried)
    assert ["started", "result", "deferred", "started", "result"] == [kind for kind, _, _ in attempts(job, "PO1")]


def test_ctrl_c_while_all_wait_ends_at_once(tmp_path: Path) -> None:
    """What waits is pending, and counted as what it is: failed for now."""
    job = make_job(tmp_path, {"PO1": "fail", "PO2": "retry"})
    script = script_of(job, attempts=3, retry_after_s=3_000)
    wait_until(lambda: len(logged(job, "deferred")) == 2)
    waits = job.progress()
    assert (["PO1", "PO2"], [1, 1], ()) == (
        sorted(item.key for item in waits.waiting),
        [item.attempt for item in waits.waiting],
        waits.in_flight,
    )
    script.send_signal(signal.SIGINT)
    out, err = script.communicate(timeout=60)
    assert ("SIGINT 2", 0) == (out, script.returncode), err
    assert {"PO1": "ERROR", "PO2": ""} == by_po(job)
    assert job.progress().stopped == "SIGINT"
    assert ["PO1", "PO2"] == job.pending()


def script_of(job: EventCsv, *, attempts: int, retry_after_s: float) -> subprocess.Popen[str]:
    """Start a session in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "import steered; steered.main()", job.csv_path, str(attempts), str(retry_after_s)],
        cwd=jobs.HERE,
        stdout=-1,
        stderr=-1,
        text=True,
    )


def test_attempts_are_counted_by_the_log(tmp_path: Path) -> None:
    """After kill -9 a run goes on with the next attempt of what waited, not before its time, and of what was begun."""
    job = make_job(tmp_path, {"PO1": "fail", "PO2": "fine gate", "PO3": "gate"})
    script = script_of(job, attempts=3, retry_after_s=2)
    wait_until(lambda: logged(job, "deferred") and len(calls(tmp_path)) == 3)
    script.kill()
    script.communicate()
    (tmp_path / "gate").touch()
    wait_until(lambda: not job.session_holder())
    plan = {item.key: (item.attempts, bool(item.until)) for item in job.plan()}
    assert {"PO1": (1, True), "PO3": (1, False)} == plan
    result = run(job, attempts=3, retry_after_s=0.05)
    assert ("ERROR", "COMPLETED") == (by_po(job)["PO1"], by_po(job)["PO3"])
    assert ["", "2", "3"] == [number for kind, number, _ in attempts(job, "PO1") if kind == "started"]
    assert ["", "2"] == [number for kind, number, _ in attempts(job, "PO3") if kind == "started"]
    first, second, _ = times(tmp_path, "PO1")
    assert second - first >= 2
    assert ("PO3",) == result.interrupted


def test_a_new_run_begins_to_count_anew_what_was_given_up(tmp_path: Path) -> None:
    """Whoever runs it again wants it tried again."""
    job = make_job(tmp_path, {"PO1": "fail fail fail fine"})
    assert {"ERROR": 1} == run(job, attempts=2, retry_after_s=0.05).by_status
    assert {"COMPLETED": 1} == run(job, attempts=2, retry_after_s=0.05).by_status
    assert ["", "2", "", "2"] == [number for kind, number, _ in attempts(job, "PO1") if kind == "started"]
    assert [4] == [item.attempts for item in job.report().pos]


# --- what ends a run ---


def test_a_function_can_stop_the_run(tmp_path: Path) -> None:
    """Its PO stays as it was, others finish what they are on, and what is not begun stays pending."""
    todo = {"PO1": "gate", "PO2": "stop", **{f"PO{number}": "fine" for number in range(3, 30)}}
    job = make_job(tmp_path, todo)
    with job.session(refresh_s=0.05) as session:
        stopping = []

        def release() -> None:
            wait_until(lambda: session.stopping)
            stopping.append(session.stopping)
            (tmp_path / "gate").touch()

        releasing = threading.Thread(target=release)
        releasing.start()
        result = session.run(steered.attempt, workers=2, attempts=3)
        releasing.join()
    assert ["the job itself: login expired"] == stopping
    assert ("the job itself: login expired", (), 0) == (result.stopped, result.failed, result.lost_workers)
    assert ("COMPLETED", "") == (by_po(job)["PO1"], by_po(job)["PO2"])
    assert [("started", "", ""), ("deferred", "1", "login expired")] == attempts(job, "PO2")
    progress = job.progress()
    assert ("the job itself: login expired", (), ()) == (progress.stopped, progress.waiting, progress.in_flight)
    assert () == run(job, only=["PO5"]).interrupted
    assert not job.progress().stopped


def test_an_initializer_can_stop_the_run(tmp_path: Path) -> None:
    """Before anything is begun, and at its first word: to start another worker would help nobody."""
    job = make_job(tmp_path, {"PO1": "fine", "PO2": "fine"})
    result = run(job, workers=2, initializer=steered.login)
    assert ("the job itself: login expired", 0, []) == (result.stopped, result.processed, logged(job, "started"))


@pytest.mark.parametrize("halt", [4, "50%"])
def test_the_brake_ends_a_run(tmp_path: Path, halt: int | str) -> None:
    """Attempts count, since with attempts nothing is given up before all have failed once."""
    job = make_job(tmp_path, {f"PO{number}": "fail" for number in range(60)})
    result = run(job, halt=halt, attempts=3, retry_after_s=100, workers=2)
    most = 4 if halt == 4 else 20
    assert most <= result.processed <= most + 1
    assert len(result.waiting) == result.processed == len(result.failed)
    assert result.stopped is not None
    assert result.stopped.startswith("its brake: ")
    assert "halt" not in result.notice
    assert job.progress().stopped == result.stopped


def test_a_run_in_which_all_fail_at_first_names_the_brake(tmp_path: Path) -> None:
    """While it goes on, for whoever watches, and in its result."""
    job = make_job(tmp_path, {f"PO{number}": "fail" for number in range(21)})
    result = run(job)
    assert (21, None) == (result.processed, result.stopped)
    assert "--halt 20" in result.notice
    assert not run(job, limit=19).notice


# --- pace and choice ---


def test_no_more_begin_than_the_rate_allows(tmp_path: Path) -> None:
    """All workers together, attempts included, and no more than the limit."""
    job = make_job(tmp_path, {f"PO{number}": "fail" if number == 0 else "fine" for number in range(20)})
    result = run(job, rate="5/s", limit=4, workers=3, attempts=2, retry_after_s=0.01)
    begun = sorted(moment for path in tmp_path.glob("tried *") for moment in map(float, path.read_text().split()))
    assert 5 == len(begun)
    assert (4, 1) == (result.processed, result.retried)
    assert begun[-1] - begun[0] >= 0.75  # four periods, less what a worker took to get to its first one


def test_a_run_takes_what_was_chosen_in_its_order(tmp_path: Path) -> None:
    """And leaves the others as they are."""
    job = make_job(tmp_path, {f"PO{number}": "fine" for number in range(9)})
    with pytest.raises(ValueError, match="only: 'PO77' is in no row"):
        run(job, only=["PO77"])
    with pytest.raises(ValueError, match="rate: "):
        run(job, rate="fast")
    run(job, only=["PO3", "PO5", "PO7"], order_by="-PO_NUMBER", limit=2)
    assert ["PO7", "PO5"] == calls(tmp_path)
    assert 2 == sum(status == "COMPLETED" for status in by_po(job).values())


def test_a_status_is_chosen_by_what_stands_now(tmp_path: Path) -> None:
    """What a run itself makes of a PO does not bring it into the choice again, nor does an attempt leave it."""
    path = tmp_path / "input.csv"
    rows = [f"PO1;ERROR;fail;{tmp_path}", f"PO2;;fine;{tmp_path}", f"PO3;error;retry fine;{tmp_path}"]
    path.write_text("PO_NUMBER;STATUS;DO;IN\n" + "".join(f"{row}\n" for row in rows))
    job = job_on(path)
    result = run(job, status=["ERROR"], attempts=2, retry_after_s=0.05)
    assert ({"ERROR": 1, "COMPLETED": 1}, "") == (result.by_status, by_po(job)["PO2"])
    assert ["PO1", "PO1", "PO3", "PO3"] == sorted(calls(tmp_path))


def test_what_somebody_finishes_while_it_waits_is_not_tried_again(tmp_path: Path) -> None:
    """By hand, in the CSV."""
    job = make_job(tmp_path, {"PO1": "fail", "PO2": "gate"})
    with job.session(refresh_s=0.05) as session:

        def finish() -> None:
            wait_until(lambda: by_po(job)["PO1"] == "ERROR")
            path = Path(job.csv_path)
            path.write_text(path.read_text().replace("PO1;ERROR", "PO1;COMPLETED"))
            wait_until(lambda: session.edits)
            (tmp_path / "gate").touch()

        finishing = threading.Thread(target=finish)
        finishing.start()
        result = session.run(steered.attempt, workers=2, attempts=2, retry_after_s=1)
        finishing.join()
    assert ((), (), {"COMPLETED": 1}) == (result.failed, result.waiting, result.by_status)
    assert ["PO1", "PO2"] == sorted(calls(tmp_path))
    assert {"PO1": "COMPLETED", "PO2": "COMPLETED"} == by_po(job)


def test_the_limit_counts_what_an_earlier_run_had_let_wait(tmp_path: Path) -> None:
    """However many get due at the same time; the others stay pending."""
    job = make_job(tmp_path, {f"PO{number}": "much-later fine" for number in range(6)})
    script = script_of(job, attempts=3, retry_after_s=1)
    wait_until(lambda: len(logged(job, "deferred")) == 6)
    script.kill()
    script.communicate()
    wait_until(lambda: not job.session_holder())
    result = run(job, attempts=3, limit=2)
    assert (2, {"COMPLETED": 2}) == (result.processed, result.by_status)
    assert 4 == len(job.pending())


def test_what_is_due_while_all_are_busy_costs_no_cpu(tmp_path: Path) -> None:
    """It is waited for like anything else."""
    job = make_job(tmp_path, {"PO1": "retry fine", "PO2": "gate"})
    with job.session() as session:
        used = []

        def watch() -> None:
            wait_until(lambda: calls(tmp_path) == ["PO1", "PO2"])
            time.sleep(0.3)
            before = time.process_time()
            time.sleep(1.5)
            used.append(time.process_time() - before)
            (tmp_path / "gate").touch()

        watching = threading.Thread(target=watch)
        watching.start()
        session.run(steered.attempt, attempts=2, retry_after_s=0.1)
        watching.join()
    assert used[0] < 0.5


def test_a_column_of_the_order_may_go_while_it_runs(tmp_path: Path) -> None:
    """Then the order is that of the CSV."""
    path = tmp_path / "input.csv"
    rows = [f"PO{number};;{what};{tmp_path};{9 - number}" for number, what in enumerate(["fine", "fine", "gate"])]
    path.write_text("PO_NUMBER;STATUS;DO;IN;Priority\n" + "".join(f"{row}\n" for row in rows))
    job = job_on(path)
    with job.session(refresh_s=0.05) as session:

        def drop() -> None:
            wait_until(lambda: calls(tmp_path) == ["PO2"])
            lines = path.read_text().splitlines()
            place = lines[0].split(";").index("Priority")
            cut = [";".join(cell for at, cell in enumerate(line.split(";")) if at != place) for line in lines]
            path.write_text("\n".join(cut) + "\n")
            wait_until(lambda: session.edits)
            (tmp_path / "gate").touch()

        dropping = threading.Thread(target=drop)
        dropping.start()
        result = session.run(steered.attempt, order_by="Priority")
        dropping.join()
    assert ({"COMPLETED": 3}, ["PO2", "PO0", "PO1"]) == (result.by_status, calls(tmp_path))


def test_a_class_of_the_jobs_own_that_cannot_say_why_costs_no_worker(tmp_path: Path) -> None:
    """Neither one that asks for another attempt, nor one that ends the run."""
    job = make_job(tmp_path, {"PO1": "mute", "PO2": "mute"})
    result = run(job, attempts=2, retry_after_s=0.01)
    assert ("PO1", 0) == (*result.waiting, result.lost_workers)
    assert "the job itself: MuteStop: (it cannot be shown)" == result.stopped


# --- on several hosts ---


def test_a_po_that_waits_is_claimed_by_nobody(tmp_path: Path, pg_server: PgServer) -> None:
    """Whoever is there at its time tries it again: the host that let it wait, or another one when that has stopped."""
    name, hosts = unused_name("steered"), list[EventCsv]()
    for host in ("a", "b"):
        (tmp_path / host).mkdir()
        path = Path(make_job(tmp_path / host, {"PO1": "fail fail fine", "PO2": "fine", "PO3": "fine"}).csv_path)
        path.write_text(path.read_text().replace(f"{tmp_path}/{host}", str(tmp_path)))
        hosts.append(EventCsv(path, log=pg_server.url, job=name))
    first, second = hosts
    result = run(first, attempts=2, retry_after_s=1.5)
    assert ({"COMPLETED": 2, "ERROR": 1}, 1) == (result.by_status, result.retried)
    first.record_deferred("PO1", attempt=2, reason="busy", wait_s=1.5)
    claims = first.log.claims(owner="looks", lease_s=30, seen=first.log.end().position)
    assert claims is not None
    assert frozenset() == claims.held()
    claims.close()
    assert ["PO1"] == [item.key for item in second.progress().waiting]
    result = run(second, attempts=3)
    assert ({"COMPLETED": 1}, 0) == (result.by_status, result.elsewhere)
    *_, before, last = times(tmp_path, "PO1")
    assert last - before >= 1.5
    assert ["", "2", "3"] == [number for kind, number, _ in attempts(second, "PO1") if kind == "started"]


# --- functions that are coroutines ---


@pytest.fixture
def noting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what was closed is noted."""
    monkeypatch.setenv("NOTED_IN", str(tmp_path))
    return tmp_path / "closed"


def test_a_browser_that_lives_on_the_loop_is_there_for_every_po(tmp_path: Path, noting: Path) -> None:
    """One loop a worker for its life; closed in peace at the end."""
    job = make_job(tmp_path, {f"PO{number}": "page" for number in range(8)})
    with job.session() as session:
        result = session.run(steered.visit, workers=2, initializer=steered.browser)
    assert {"COMPLETED": 8} == result.by_status
    pids = {row["SUPPLIER"].removeprefix("page by ") for row in rows_of(job).values()}
    assert pids <= set(noting.read_text().split())


def test_hooks_may_be_coroutines(tmp_path: Path, noting: Path) -> None:
    """They run on the loop of their worker."""
    job = make_job(tmp_path, {"PO1": "never awaits"})
    with job.session() as session:
        session.run(steered.visit, initializer=steered.open_later, finalizer=steered.close_later)
    assert 1 == len(noting.read_text().split())


def test_whatever_a_coroutine_does_costs_its_own_po_only(tmp_path: Path) -> None:
    """It cancels itself, leaves tasks behind, raises, hangs, or blocks its loop."""
    words = ["never awaits", "cancels itself", "leaves a task", "raises", "hang", "block", "never awaits"]
    job = make_job(tmp_path, {f"PO{number}": word for number, word in enumerate(words)})
    with job.session() as session:
        result = session.run(steered.visit, timeout_s=1.5)
    messages = [row.get("ERROR_MESSAGE", "") for row in rows_of(job).values()]
    assert ["", "CancelledError", "", "OSError: no page"] == messages[:4]
    assert all("longer than 1.5 s" in message for message in messages[4:6])
    assert ({"COMPLETED": 3, "ERROR": 4}, 2) == (result.by_status, result.lost_workers)


def test_a_coroutine_asks_for_another_attempt(tmp_path: Path) -> None:
    """As any function does."""
    job = make_job(tmp_path, {"PO1": "retry"})
    with job.session() as session:
        result = session.run(steered.visit, attempts=2, retry_after_s=0.01)
    assert (1, {"ERROR": 1}) == (result.retried, result.by_status)
