"""The promise of a run: whatever happens to a worker costs its own PO only, and every other one gets its result."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

import jobs
import psutil  # type: ignore[import-untyped]
import pytest
from conftest import read_csv, wait_until

from eventcsv import EventCsv, EventCsvError
from eventcsv.signals import stop_signals
from eventcsv.view.refresh import keep_current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventcsv.view.compact_result import CompactResult
    from eventcsv.worker.messages import Row

DEADLINE_S: Final = 60.0


def make_job(folder: Path, todo: dict[str, str]) -> EventCsv:
    """Make a CSV whose column DO tells the workers what to do with each PO."""
    path = folder / "input.csv"
    lines = [f"{key};;{what};{folder}\n" for key, what in todo.items()]
    path.write_text("PO_NUMBER;STATUS;DO;IN\n" + "".join(lines))
    return EventCsv(path, durability="process")


def rows_of(job: EventCsv) -> dict[str, dict[str, str]]:
    """Return the rows of the CSV by their key."""
    return {row["PO_NUMBER"]: row for row in read_csv(Path(job.csv_path))}


def statuses(job: EventCsv) -> dict[str, str]:
    """Return the STATUS of each PO."""
    return {key: row["STATUS"] for key, row in rows_of(job).items()}


def logged(job: EventCsv, kind: str) -> list[dict[str, Any]]:
    """Return the whole lines of the log that are of one kind, read without eventcsv's help."""
    found = []
    for path in sorted(Path(job.log_dir).glob("events-*.jsonl")):
        for line in path.read_bytes().split(b"\n")[:-1]:
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                found += [record] if record["kind"] == kind else []
    return found


def by_number(records: list[dict[str, Any]]) -> list[str]:
    """Return the POs of some lines of the log, in the order of their numbers."""
    return sorted([record["key"] for record in records], key=lambda key: int(key[2:]))


def calls(folder: Path) -> list[str]:
    """Return the POs that workers have noted, in their order."""
    path = folder / "calls"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def pids(folder: Path) -> list[int]:
    """Return the worker of each PO that was noted."""
    path = folder / "calls"
    return [int(line.split()[1]) for line in path.read_text().splitlines()] if path.exists() else []


def children(folder: Path) -> list[int]:
    """Return the programs that workers have started."""
    return [int(line) for line in (folder / "children").read_text().split()]


def is_alive(pid: int) -> bool:
    """Tell whether a process lives; one that nobody has asked after yet does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a session's process, dead ones that were not waited for included."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE or "spawn_main" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


@contextlib.contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Do something while a run is going on; what goes wrong with it fails the test."""
    errors: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001  # it is raised where the test sees it
            errors.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join()
    if errors:
        raise errors[0]


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """After each test no worker is left, neither alive nor as a zombie."""
    before = set(workers_of(os.getpid()))
    yield
    assert set() == set(workers_of(os.getpid())) - before


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
        view = Path(job.csv_path).read_bytes()
        assert (False, view) == (EventCsv(job.csv_path).replay().changed, Path(job.csv_path).read_bytes())
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
    assert {"PO1": "COMPLETED", "PO2": "ERROR", "PO3": "COMPLETED"} == statuses(job)
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
    assert {key: "ERROR" if what else "COMPLETED" for key, what in todo.items()} == statuses(job)
    assert len(LOSES_THE_WORKER) == result.lost_workers
    assert all([MISHAPS[todo[out.key]] in out.message for out in result.failed])


ADOPTS: Final = sys.platform == "linux"
STARTED: Final = [
    "a child",
    "a leader",
    pytest.param("an orphan", marks=pytest.mark.skipif(not ADOPTS, reason="only Linux tells whose an orphan was")),
]


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
    assert "COMPLETED" == statuses(job)["PO2"]


@pytest.mark.skipif(not ADOPTS, reason="only Linux tells whose an orphan was")
def test_what_a_worker_started_stays_when_another_one_dies(tmp_path: Path) -> None:
    """An orphan is its own worker's: that another one ends concerns it as little as it concerns the other."""
    job = make_job(tmp_path, {"PO1": "leave an orphan and gate", "PO2": "gate", "PO3": ""})

    def look() -> None:
        wait_until(lambda: 2 == len(calls(tmp_path)) and children(tmp_path))
        worker_of = dict(zip(calls(tmp_path), pids(tmp_path), strict=True))
        os.kill(worker_of["PO2"], signal.SIGKILL)
        wait_until(lambda: "ERROR" in statuses(job).values())
        wait_until(lambda: not is_alive(worker_of["PO2"]))
        assert all(map(is_alive, [worker_of["PO1"], *children(tmp_path)]))
        (tmp_path / "gate").touch()

    with meanwhile(look), job.session(refresh_s=0.05) as session:
        result = session.run(jobs.work, workers=2)
    assert {"COMPLETED": 2, "ERROR": 1} == result.by_status
    assert not any(map(is_alive, children(tmp_path)))


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
    assert {"PO1": "ERROR", "PO2": "COMPLETED"} == statuses(job)


def test_a_forked_child_does_not_hide_its_workers_death(tmp_path: Path) -> None:
    """A worker is known to be dead at once even when a process that it forked lives on, and that one is ended too."""
    job = make_job(tmp_path, {"PO1": "fork and die", "PO2": ""})
    with job.session() as session:
        session.run(jobs.work)
    assert {"PO1": "ERROR", "PO2": "COMPLETED"} == statuses(job)
    assert not (tmp_path / "outlived").exists()


def test_an_old_error_message_goes_with_success(tmp_path: Path) -> None:
    """A PO that failed before and is COMPLETED now shows no ERROR_MESSAGE any more; other columns stay."""
    job = make_job(tmp_path, {"PO1": "", "PO2": "nothing", "PO3": "no page"})
    for key in ("PO1", "PO2", "PO3"):
        job.emit_result(key, "ERROR", error_message="429", columns={"Reviewed by": "Ana"})
    job.close()
    with job.session() as session:
        session.run(jobs.work)
    assert {"PO1": "COMPLETED", "PO2": "COMPLETED", "PO3": "NO_ATTACHMENTS"} == statuses(job)
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
    assert {"PO1": "COMPLETED", "PO3": "COMPLETED"}.items() <= statuses(job).items()


# --- workers ---


def test_workers_are_light(tmp_path: Path) -> None:
    """A worker loads neither Polars nor anything of the command line."""
    job = make_job(tmp_path, {"PO1": "modules"})
    with job.session() as session:
        session.run(jobs.work)
    assert ("COMPLETED", "") == (statuses(job)["PO1"], rows_of(job)["PO1"]["MODULES"])


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
    assert {"PO1": "COMPLETED", "PO2": "ERROR", "PO3": "COMPLETED", "PO4": "COMPLETED"} == statuses(job)
    assert 3 == len((tmp_path / "starts").read_text().split())


def test_an_initializer_that_fails_from_then_on_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no replacement can be started any more the run says so, keeps its results, and leaves the rest pending."""
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    job = make_job(tmp_path, {"PO1": "", "PO2": "kill", "PO3": "", "PO4": ""})
    with job.session() as session, pytest.raises(EventCsvError, match="no browser here"):
        session.run(jobs.work, initializer=jobs.fail_later)
    assert {"PO1": "COMPLETED", "PO2": "ERROR", "PO3": "", "PO4": ""} == statuses(job)


def noted(folder: Path, what: str) -> set[str]:
    """Return the workers that have noted a start or an end."""
    path = folder / what
    found = path.read_text().split() if path.exists() else []
    assert len(set(found)) == len(found)
    return set(found)


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
    what = {f"PO{number}": "pid" for number in range(10)} | {"PO5": "kill", "PO10": "gate"}
    job = make_job(tmp_path, what)

    def let_it_end() -> None:
        wait_until(lambda: len(noted(tmp_path, "starts")) == 3)
        time.sleep(1)  # until the one that took the place of the lost one is ready: before that it is lost as well
        (tmp_path / "gate").touch()

    with meanwhile(let_it_end), job.session() as session:
        result = session.run(jobs.work, workers=2, **hooks)
    starts, ends = noted(tmp_path, "starts"), noted(tmp_path, "ends")
    assert (1, len(starts) - 1) == (result.lost_workers, len(ends))
    assert ends < starts
    assert {"COMPLETED": 10, "ERROR": 1} == result.by_status


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
    script = jobs.start(Path(job.csv_path), workers=2, initializer="count", finalizer="never_end")
    wait_until(lambda: 2 == len(calls(tmp_path)))
    script.send_signal(signal.SIGINT)
    wait_until((tmp_path / "asked").exists)
    (tmp_path / "gate").touch()
    wait_until(lambda: 2 == len(noted(tmp_path, "ends")))
    assert all(map(is_alive, pids(tmp_path)))
    script.send_signal(signal.SIGINT)
    script.communicate(timeout=DEADLINE_S / 2)
    assert -signal.SIGINT == script.returncode
    assert not any(map(is_alive, pids(tmp_path)))
    assert {"COMPLETED": 2, "": 7} == Counter(statuses(job).values())


@pytest.mark.parametrize("finalizer", [jobs.fail_at_end, jobs.never_end])
def test_a_finalizer_that_fails_costs_no_po(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finalizer: Callable[[], None]
) -> None:
    """Each result is recorded by then; what went wrong is told, without secrets."""
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    monkeypatch.setattr("eventcsv.run.pool._EXIT_TIMEOUT_S", 1.0)
    told: list[dict[str, Any]] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(cast("dict[str, Any]", record.msg))  # type: ignore[method-assign]
    job = make_job(tmp_path, {"PO1": "", "PO2": ""})
    logging.getLogger("eventcsv").addHandler(handler)
    try:
        with job.session() as session:
            result = session.run(jobs.work, finalizer=finalizer)
    finally:
        logging.getLogger("eventcsv").removeHandler(handler)
    assert ({"COMPLETED": 2}, 0, 1) == (result.by_status, result.lost_workers, len(noted(tmp_path, "ends")))
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
        (jobs.opens_later, "a plain function"),
        (jobs.browser_later, "a plain function"),
        (jobs.takes_one, "without arguments"),
    ],
)
def test_what_would_open_and_close_nothing_is_refused(
    job: EventCsv, name: str, hook: Callable[..., Any], said: str
) -> None:
    """A coroutine that nobody awaits and a generator that nobody asks are no initializers, nor what wants arguments."""
    with job.session() as session:
        with pytest.raises(EventCsvError, match=f"{name}: .*{said}"):
            session.run(jobs.work, **cast("dict[str, Any]", {name: hook}))
        with pytest.raises(EventCsvError, match="finalizer: is a context manager"):
            session.run(jobs.work, finalizer=jobs.browser)
    assert [] == logged(job, "started")


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


def test_killed_between_recording_and_reporting_is_no_error(tmp_path: Path) -> None:
    """A result that stands in the log counts, whether or not its worker lived to tell."""
    job = make_job(tmp_path, {"PO1": "", "PO2": "", "PO3": ""})
    with job.session() as session:
        result = session.run(jobs.work, initializer=jobs.die_after_recording)
    assert {"PO1": "COMPLETED", "PO2": "COMPLETED", "PO3": "COMPLETED"} == statuses(job)
    assert ({"COMPLETED": 3}, (), 1) == (result.by_status, result.failed, result.lost_workers)
    assert 3 == len(logged(job, "result"))


def test_killed_between_the_work_and_its_record_is_an_error(tmp_path: Path) -> None:
    """Work whose result was not recorded is not taken for done."""
    job = make_job(tmp_path, {"PO1": "", "PO2": "", "PO3": ""})
    with job.session() as session:
        session.run(jobs.work, initializer=jobs.die_before_recording)
    assert {"PO1": "COMPLETED", "PO2": "ERROR", "PO3": "COMPLETED"} == statuses(job)


def test_a_result_of_an_earlier_run_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    """A worker that dies before it takes up a PO that had a result in the same session leaves its own ERROR."""
    job = make_job(tmp_path, {"PO1": "", "PO2": "no page", "PO3": ""})
    with job.session() as session:
        session.run(jobs.work)
        result = session.run(jobs.work, initializer=jobs.die_before_taking_up)
    assert {"ERROR": 1} == result.by_status


def test_every_event_has_an_id_of_its_own(tmp_path: Path) -> None:
    """Over several runs in one session, too: history takes equal ids for one event that was appended twice."""
    job = make_job(tmp_path, {"PO1": "", "PO2": "no page", "PO3": ""})
    with job.session() as session:
        session.run(jobs.work)
        session.run(jobs.work, done=())
    ids = [event["id"] for kind in ("started", "result") for event in logged(job, kind)]
    assert 12 == len(ids) == len(set(ids))


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
    assert words == Counter(statuses(job).values())
    assert {"the worker was killed by signal 9 (SIGKILL); was memory short?"} == {out.message for out in result.failed}
    assert 50 == len(killed)
    assert () == EventCsv(job.csv_path).progress().in_flight


# --- interrupted and resumed ---


def test_a_killed_run_is_resumed(tmp_path: Path) -> None:
    """Killed at PO 200 of 446: workers die too, earlier results stay, what was in flight is named, the rest is done."""
    job = make_job(tmp_path, {f"PO{number}": "" if number < 200 else "gate" for number in range(446)})
    script = jobs.start(Path(job.csv_path), workers=4)
    wait_until(lambda: 4 == len(calls(tmp_path)))
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
    assert {"COMPLETED": 446} == Counter(statuses(job).values())
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
    script = jobs.start(Path(job.csv_path), workers=2)
    wait_until(lambda: 2 == len(calls(tmp_path)))
    script.send_signal(getattr(signal, name))
    wait_until((tmp_path / "asked").exists)
    (tmp_path / "gate").touch()
    out, err = script.communicate(timeout=DEADLINE_S)
    assert (0, "") == (script.returncode, err)
    assert [name, 2, {"COMPLETED": 2}, []] == json.loads(out)
    assert {"PO0": "COMPLETED", "PO1": "COMPLETED"} | {f"PO{number}": "" for number in range(2, 9)} == statuses(job)
    assert ["PO0", "PO1"] == sorted(calls(tmp_path))
    assert ((), 0) == ((progress := job.progress()).in_flight, progress.behind)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", -signal.SIGINT), ("SIGTERM", 128 + signal.SIGTERM)])
def test_a_second_signal_stops_now(tmp_path: Path, name: str, code: int) -> None:
    """The second one waits for nobody: workers are ended, their POs stay pending and are named the next time."""
    job = make_job(tmp_path, {"PO1": ""} | {f"PO{number}": "gate" for number in range(2, 9)})
    script = jobs.start(Path(job.csv_path), workers=2)
    wait_until(lambda: 2 == len(calls(tmp_path)))
    script.send_signal(getattr(signal, name))
    wait_until((tmp_path / "asked").exists)
    script.send_signal(getattr(signal, name))
    script.communicate(timeout=DEADLINE_S)
    assert code == script.returncode
    assert not any(map(is_alive, pids(tmp_path)))
    assert {"COMPLETED": 1, "": 7} == Counter(statuses(job).values())
    (tmp_path / "gate").touch()
    with job.session() as session:
        assert ["PO2", "PO3"] == sorted(one.key for one in session.interrupted)
        result = session.run(jobs.work, workers=2)
    assert (("PO2", "PO3"), 7) == (result.interrupted, result.processed)
    assert {"COMPLETED": 8} == Counter(statuses(job).values())


def test_ctrl_c_in_the_terminal_is_for_the_session_only(tmp_path: Path) -> None:
    """A Ctrl-C reaches the whole process group; the workers leave it to the session."""
    job = make_job(tmp_path, {f"PO{number}": "gate" for number in range(9)})
    script = jobs.start(Path(job.csv_path), workers=2)
    wait_until(lambda: 2 == len(calls(tmp_path)))
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
    assert wanted == statuses(job)
    job.emit_result("PO2", "COMPLETED")
    with job.session() as session:
        assert ["PO3"] == session.pending()
        assert {"COMPLETED": 1} == session.run(jobs.work).by_status
    assert {"COMPLETED": 5} == Counter(statuses(job).values())


def test_a_worker_that_may_not_write_costs_what_it_could_not_record(tmp_path: Path) -> None:
    """A log that a worker may not grow: its results are handed back whole, and the next run records them."""
    job = make_job(tmp_path, {"PO1": "", "PO2": "no large files", "PO3": ""})
    with job.session() as session:
        result = session.run(jobs.work)
        assert ["PO2", "PO3"] == [out.key for out in result.unrecorded] == session.pending()
        assert all(["could not be recorded" in out.message for out in result.unrecorded])
    assert {"PO1": "COMPLETED", "PO2": "", "PO3": ""} == statuses(job)
    Path(job.csv_path).write_bytes(Path(job.csv_path).read_bytes().replace(b"no large files", b""))
    with job.session() as session:
        result = session.run(jobs.work)
    assert (("PO2",), {"COMPLETED": 2}) == (result.interrupted, result.by_status)
    assert {"COMPLETED": 3} == Counter(statuses(job).values())


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
    assert {"COMPLETED": 6} == Counter(statuses(job).values())
    assert "" == rows_of(job)["PO3"]["LAST_PROCESSED"]


def test_the_next_po_is_skipped_when_it_is_marked_as_done(tmp_path: Path) -> None:
    """Even the PO that is next in turn is left alone when an operator marks it as done before it is taken up."""
    job = make_job(tmp_path, {"PO0": "raise", "PO1": "gate", "PO2": "note", "PO3": "note"})
    Path(job.csv_path).write_text(Path(job.csv_path).read_text().replace("PO0;;", "PO0;COMPLETED;"))
    edited_during_a_run(job, tmp_path, "PO2;;", "PO2;COMPLETED;")
    assert ["PO1", "PO3"] == calls(tmp_path)


def test_impatience_leaves_no_worker_behind(tmp_path: Path) -> None:
    """More Ctrl-C, while the second one ends the workers, spare none of them: no two sessions on one PO."""
    job = make_job(tmp_path, {f"PO{number}": "gate" for number in range(8)})
    for delay_s in (0.0003, 0.001):
        script = jobs.start(Path(job.csv_path), workers=4)
        wait_until(lambda: 4 == len(calls(tmp_path)))
        script.send_signal(signal.SIGINT)
        wait_until((tmp_path / "asked").exists)
        time.sleep(0.1)
        for _ in range(12):
            script.send_signal(signal.SIGINT)
            time.sleep(delay_s)
        script.communicate(timeout=DEADLINE_S)
        assert not any(map(is_alive, pids(tmp_path)))
        (tmp_path / "calls").unlink()
        (tmp_path / "asked").unlink()


@pytest.mark.parametrize("what", STARTED)
@pytest.mark.parametrize("ending", ["kill -9", "Ctrl-C twice"])
def test_what_workers_started_ends_with_the_session(tmp_path: Path, what: str, ending: str) -> None:
    """The browsers of its workers do not go on under the next run."""
    job = make_job(tmp_path, {f"PO{number}": f"leave {what} and gate" for number in range(4)})
    script = jobs.start(Path(job.csv_path), workers=2)
    wait_until(lambda: 2 == len(calls(tmp_path)))
    assert all(map(is_alive, children(tmp_path)))
    if ending == "kill -9":
        script.kill()
    else:
        script.send_signal(signal.SIGINT)
        wait_until((tmp_path / "asked").exists)
        script.send_signal(signal.SIGINT)
    script.communicate(timeout=DEADLINE_S)
    wait_until(lambda: not any(map(is_alive, [*children(tmp_path), *pids(tmp_path)])))


def test_closed_descriptors_stop_nobody_else(tmp_path: Path) -> None:
    """A PO whose code closes whatever is open, and goes on, costs itself only."""
    job = make_job(tmp_path, {"PO1": "close everything and hang", "PO2": "", "PO3": ""})
    with job.session() as session:
        result = session.run(jobs.work, workers=2, timeout_s=60)
    assert {"PO1": "ERROR", "PO2": "COMPLETED", "PO3": "COMPLETED"} == statuses(job)
    assert {"COMPLETED": 2, "ERROR": 1} == result.by_status


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


def test_a_coroutine_is_refused(tmp_path: Path) -> None:
    """It would be called for every PO and never run."""
    job = make_job(tmp_path, {"PO1": ""})
    with job.session() as session, pytest.raises(EventCsvError, match="plain function"):
        session.run(jobs.coroutine)  # type: ignore[arg-type]  # that is the point


def test_the_whole_row_may_be_returned(tmp_path: Path) -> None:
    """Its key among the rest, as long as that is what it was."""
    job = make_job(tmp_path, {"PO1": "whole row", "PO2": "no coroutine"})
    with job.session() as session:
        session.run(jobs.work)
    rows = rows_of(job)
    assert ("ERROR", "CancelledError: base") == (rows["PO2"]["STATUS"], rows["PO2"]["ERROR_MESSAGE"])
    assert ("COMPLETED", "new") == (rows["PO1"]["STATUS"], rows["PO1"]["SUPPLIER"])


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
    assert {"COMPLETED": 60} == Counter(statuses(job).values())


def test_only_the_second_signal_insists() -> None:
    """Whoever is ending workers is not struck by a third one: else those that come after would live on."""
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert ("SIGINT", True) == (stop.reason, stop.is_set())
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_in_the_middle_of_polars_only_asks_to_stop() -> None:
    """Polars answers a SIGINT by an exception of its own, unless it was loaded before our handler was put in force."""
    code = (
        "import os, signal, threading\n"
        "from eventcsv.signals import stop_signals\n"
        "with stop_signals() as stop:\n"
        "    import polars as pl\n"
        "    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    while not stop.is_set():\n"
        "        pl.LazyFrame({'a': range(300_000)}).group_by('a').agg(pl.len()).collect()\n"
        "print(stop.reason)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (0, "SIGINT\n") == (done.returncode, done.stdout), done.stderr


def test_a_signal_in_the_middle_of_a_wait_ends_it() -> None:
    """The handler runs in the thread that waits, at whatever step of the wait: it must not need what the wait holds."""
    code = (
        "import signal, sys\n"
        "from eventcsv.signals import stop_signals\n"
        "for step in range(12):\n"
        "    calls = iter(range(step + 1))\n"
        "    with stop_signals() as stop:\n"
        "        sys.setprofile(lambda *_: next(calls, None) == step and signal.raise_signal(signal.SIGTERM))\n"
        "        stop.wait(0.01)\n"
        "        sys.setprofile(None)\n"
        "        assert stop.is_set()\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


@pytest.mark.parametrize(
    ("took_s", "worked_s", "pause_s"),
    [
        pytest.param(0.01, 0.01, 0.2, id="quick"),
        pytest.param(0.1, 0.1, 0.9, id="busy: a tenth of a processor"),
        pytest.param(0.5, 0.02, 0.5, id="waited for the disk: half of the time"),
        pytest.param(0.1, 0.4, 0.9, id="other threads were busy, too"),
    ],
)
def test_a_pause_is_as_long_as_the_work_before_it_asks_for(
    took_s: float, worked_s: float, pause_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for a slow disk is no work, and must not keep the CSV back for nine times as long."""
    wall, processor, pauses = itertools.count(0, took_s), itertools.count(0, worked_s), list[float]()
    clocks = SimpleNamespace(perf_counter=wall.__next__, process_time=processor.__next__)
    monkeypatch.setattr("eventcsv.view.refresh.time", clocks)

    class Stop:
        def wait(self, timeout: float, /) -> bool:
            pauses.append(timeout)
            return len(pauses) > 1

    class Job:
        def compact(self) -> CompactResult:
            return cast("CompactResult", SimpleNamespace(changed=True))

        def fingerprint(self) -> tuple[object, ...]:
            return (1,)

    keep_current(Job(), Stop(), refresh_s=1.0, on_result=repr, on_trouble=print)
    assert [0.2, pytest.approx(pause_s)] == pauses


def test_the_view_is_kept_current_after_a_signal_in_the_middle_of_polars() -> None:
    """In a thread, KeyboardInterrupt is Polars' own doing: what it was at is done again."""
    end, outcomes = threading.Event(), [KeyboardInterrupt(), None]
    done: list[CompactResult] = []

    class Job:
        def compact(self) -> CompactResult:
            if outcome := outcomes.pop(0):
                raise outcome
            end.set()
            return cast("CompactResult", SimpleNamespace(changed=True))

        def fingerprint(self) -> tuple[object, ...]:
            return (1,)

    keep = functools.partial(keep_current, Job(), end, refresh_s=0.001, on_result=done.append, on_trouble=print)
    thread = threading.Thread(target=keep)
    thread.start()
    thread.join(60)
    assert ([], 1) == (outcomes, len(done))
    outcomes.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        keep_current(Job(), threading.Event(), refresh_s=0.001, on_result=done.append, on_trouble=print)
