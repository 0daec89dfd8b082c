"""The promise of a session: alone, begun with a verified backup, current while it lasts, and final however it ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import jobs
import operations
import pytest
from command_line import Talk
from conftest import checkpoint_of, read_csv, segment_of, statuses, tree, wait_until
from faults import Dying, Killed, Recording, with_storage
from runs import session_elsewhere

from eventcsv import EventCsv, InvalidCsv, SessionActive
from eventcsv.view import backup
from eventcsv.view.retention import SESSION

DEADLINE_S: Final = 60.0
SPAWN: Final = multiprocessing.get_context("spawn")


def copies(folder: Path) -> dict[str, bytes]:
    """Return the CSVs in the backup folder, by the session in their names."""
    return {path.stem.split("_", 3)[3]: path.read_bytes() for path in (folder / "backup").glob("*.csv")}


# --- alone ---


def test_a_second_session_is_refused_and_told_who_works(csv_path: Path, job: EventCsv) -> None:
    """While one process holds a session another one gets SessionActive, with the session, its process and its start."""
    with session_elsewhere(csv_path, session_id="night-run") as script:
        before = tree(csv_path.parent)
        with pytest.raises(SessionActive) as refused, job.session():
            pass
        text = str(refused.value)
        assert f"session night-run works on this CSV since {datetime.now(UTC):%Y-}" in text
        assert f"process {script.pid} ({sys.executable} -c import jobs" in text
        holder = job.progress().session
        assert holder is not None
        assert ("night-run", script.pid) == (holder.session, holder.pid)
        assert re.search(re.escape(holder.since), text)
        assert before == tree(csv_path.parent)
        csv_path.with_name("gate").touch()
        assert 0 == script.wait(DEADLINE_S)
    with job.session() as session:
        assert session.id in copies(csv_path.parent)


def test_a_second_session_in_the_same_process_is_refused(csv_path: Path, job: EventCsv) -> None:
    """Two sessions of one process exclude each other as well."""
    with job.session(), pytest.raises(SessionActive, match=f"process {os.getpid()} "), EventCsv(csv_path).session():
        pass


def test_a_killed_session_is_no_obstacle(csv_path: Path, job: EventCsv) -> None:
    """After kill -9 of its holder the next session begins at once, and nobody is named any more."""
    with session_elsewhere(csv_path) as script:
        script.kill()
        script.wait()
        assert None is job.progress().session
        with job.session():
            assert job.progress().session is not None


def test_a_forked_child_does_not_keep_the_session(csv_path: Path, job: EventCsv) -> None:
    """A forked child that outlives its killed session does not hold the next one up."""
    with session_elsewhere(csv_path, fork=True) as script:
        forked = csv_path.with_name("forked")
        wait_until(lambda: forked.exists() and forked.read_text().endswith("\n"))
        script.kill()
        script.wait()
        child = int(forked.read_text())
        try:
            os.kill(child, 0)
            with job.session():
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_look_disturbs_no_session_and_is_not_disturbed(csv_path: Path, job: EventCsv) -> None:
    """Progress can be asked for at any time: it changes no file, and sees what is recorded at once."""
    with job.session(refresh_s=3600):
        job.emit_result("PO2", "PARTIAL")
        before = tree(csv_path.parent)
        progress = EventCsv(csv_path).progress()
        assert (1, {"": 2, "PARTIAL": 1}) == (progress.behind, progress.by_status)
        assert before == tree(csv_path.parent)


def look_for_ever(job: EventCsv) -> None:
    """Look at how far a job is, without a pause."""
    while True:
        job._session_lock.holder()


def test_lookers_keep_no_session_from_beginning(csv_path: Path, job: EventCsv) -> None:
    """Sessions begin although others look all the time."""
    with job.session():
        pass
    lookers = [SPAWN.Process(target=look_for_ever, args=(job,)) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(8):
            with EventCsv(csv_path).session():
                pass
    finally:
        for looker in lookers:
            looker.kill()
            looker.join()


@pytest.mark.parametrize("name", ["no/such/input.csv", "nope.csv"])
def test_a_mistyped_path_makes_nothing(tmp_path: Path, name: str) -> None:
    """A session over a CSV that is not there is an error, and leaves no folder behind."""
    with pytest.raises(InvalidCsv), EventCsv(tmp_path / name).session():
        pass
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("session_id", ["", "a b", "../x", "a_b", "x" * 65, "é", "a\n"])
def test_a_bad_session_id_is_refused(csv_path: Path, job: EventCsv, session_id: str) -> None:
    """What could not be part of a file name is a ValueError before anything happens; so is a refresh of nothing."""
    before = tree(csv_path.parent)
    with pytest.raises(ValueError, match="session_id"):
        job.session(session_id=session_id)
    for refresh_s in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="refresh_s"):
            job.session(refresh_s=refresh_s)
    assert before == tree(csv_path.parent)


# --- its beginning ---


def test_the_backup_holds_what_an_earlier_run_left(csv_path: Path, job: EventCsv) -> None:
    """Left-over events are folded first; the backup is the CSV after that, named after the session, with metadata."""
    job.emit_result("PO1", "COMPLETED")
    job.emit_result("PO2", "ERROR", error_message="x")
    with job.session(session_id="night-1") as session:
        assert 2 == session.begun.events
        assert ["COMPLETED", "ERROR", ""] == statuses(csv_path)
        data = csv_path.read_bytes()
        path = Path(session.backup.path)
        assert re.fullmatch(r"input_\d{8}_\d{6}_night-1\.csv", path.name)
        assert data == path.read_bytes()
        record = json.loads(path.with_suffix(".json").read_bytes())
        wanted = {"session": "night-1", "record_count": 3, "file_size_bytes": len(data)}
        assert wanted | {"sha256": sha256(data).hexdigest()} == {
            name: record[name] for name in ("session", "record_count", "file_size_bytes", "sha256")
        }
        assert 0 <= (datetime.now(UTC) - datetime.fromisoformat(record["created_at"])).total_seconds()
        job.emit_result("PO3", "COMPLETED")
    view = csv_path.read_bytes()
    assert (1, view) == (job.replay(backup=path.name).events, csv_path.read_bytes())


def test_a_session_begins_a_segment(csv_path: Path, job: EventCsv) -> None:
    """The segment before is sealed, and what the session records goes to a new one."""
    job.emit_result("PO1", "COMPLETED")
    with job.session():
        job.emit_result("PO2", "COMPLETED")
    first, second = (segment_of(job, number).read_bytes().splitlines() for number in (1, 2))
    assert "seal" == json.loads(first[-1])["kind"]
    assert ["header", "result"] == [json.loads(line)["kind"] for line in second]
    assert (2, ()) == ((report := EventCsv(csv_path).verify()).segments, report.findings)


def test_a_torn_line_is_no_damage(csv_path: Path, job: EventCsv) -> None:
    """Half a line that a killed writer left is reported as torn when a session begins, and ever after."""
    job.emit_result("PO1", "COMPLETED")
    whole = segment_of(job).stat().st_size
    job.emit_result("PO2", "COMPLETED")
    job.close()
    os.truncate(segment_of(job), whole + 40)
    with job.session() as session:
        assert ((), [(whole, 40, True)]) == (
            session.begun.damage,
            [(item.offset_bytes, item.length_bytes, item.torn) for item in session.begun.torn],
        )
        job.emit_result("PO3", "COMPLETED")
    assert [] == session.damage
    assert ["COMPLETED", "", "COMPLETED"] == statuses(csv_path)
    checkpoint_of(job).unlink()
    again = EventCsv(csv_path)
    for base in again.backups():
        result = again.replay(backup=base.name)
        assert () == result.damage
    report = again.verify()
    assert ((), [(whole, True)]) == (report.findings, [(item.offset_bytes, item.torn) for item in report.torn])


# --- while it lasts ---


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_results_of_another_process_show_during_the_session(csv_path: Path, durability: Any) -> None:
    """What any process records is in the CSV soon, without anybody asking for it."""
    job = EventCsv(csv_path, durability=durability)
    with job.session(refresh_s=0.02):
        code = "import sys, eventcsv; eventcsv.emit_result('PO2', 'PARTIAL', csv=sys.argv[1])"
        subprocess.run([sys.executable, "-c", code, str(csv_path)], check=True)
        wait_until(lambda: ["", "PARTIAL", ""] == statuses(csv_path))
        job.emit_result("PO1", "COMPLETED")
        wait_until(lambda: ["COMPLETED", "PARTIAL", ""] == statuses(csv_path))


def save(path: Path, data: bytes) -> None:
    """Save the CSV as most editors do."""
    path.with_name("saved").write_bytes(data)
    path.with_name("saved").replace(path)


def test_a_csv_that_is_broken_for_a_while_is_no_end(
    csv_path: Path, job: EventCsv, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken save of the operator is left alone, and results go on; once it is mended the CSV has them all."""
    with job.session(refresh_s=0.02) as session:
        job.emit_result("PO1", "COMPLETED")
        wait_until(lambda: "COMPLETED" in statuses(csv_path))
        whole = csv_path.read_bytes()
        broken = whole.replace(b"PO2;", b'PO2;"')
        save(csv_path, broken)
        job.emit_result("PO3", "COMPLETED")
        with pytest.raises(InvalidCsv, match="a quote is opened"):
            job.compact()
        wait_until(lambda: any(["view.not_updated" in str(record.msg) for record in caplog.records]))
        assert broken == csv_path.read_bytes()
        save(csv_path, whole.replace(b"PO2;;", b"PO2;;mended"))
        wait_until(lambda: ["COMPLETED", "", "COMPLETED"] == statuses(csv_path))
    assert [] == session.damage
    assert ["", "mended", ""] == [row["SUPPLIER"] for row in read_csv(csv_path)]


# --- its end ---


def test_the_csv_is_final_after_the_session(csv_path: Path, job: EventCsv) -> None:
    """At the end everything that was recorded is in the CSV, however seldom it was refreshed."""
    with job.session(refresh_s=3600) as session:
        job.emit_result("PO1", "COMPLETED")
    assert ["COMPLETED", "", ""] == statuses(csv_path)
    assert session.ended is not None
    assert 1 == session.ended.events
    assert None is job.progress().session


def test_the_csv_is_final_after_an_exception(csv_path: Path, job: EventCsv) -> None:
    """What the body raises comes out as it is, after the CSV was brought up to date; so does the next session."""
    with pytest.raises(ZeroDivisionError), job.session(refresh_s=3600):  # noqa: PT012  # the body is what fails
        job.emit_result("PO1", "COMPLETED")
        _ = 1 // 0
    assert ["COMPLETED", "", ""] == statuses(csv_path)
    with job.session():
        pass


def test_an_exception_is_not_hidden_by_a_broken_csv(csv_path: Path, job: EventCsv) -> None:
    """When the CSV cannot be brought up to date at the end, that is the error, unless the body has one of its own."""
    for error, raised in ((None, InvalidCsv), (KeyError("mine"), KeyError)):
        with pytest.raises(raised), job.session(refresh_s=3600):  # noqa: PT012  # the body, or what follows it
            good = csv_path.read_bytes()
            job.emit_result("PO1", "COMPLETED")
            csv_path.write_bytes(good.replace(b"PO2;", b'PO2;"'))
            if error:
                raise error
        csv_path.write_bytes(good)
        job.compact()
        assert None is job.progress().session
    assert "COMPLETED" == statuses(csv_path)[0]


@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", -signal.SIGINT), ("SIGTERM", 128 + signal.SIGTERM), ("SIGHUP", 128 + signal.SIGHUP)]
)
def test_the_csv_is_final_after_a_signal(csv_path: Path, job: EventCsv, name: str, code: int) -> None:
    """Ctrl-C, SIGTERM or SIGHUP to a script in its session: the last result is in the CSV when it has ended."""
    with session_elsewhere(csv_path, emit=True, refresh_s=3600) as script:
        assert ["", "", ""] == statuses(csv_path)
        script.send_signal(getattr(signal, name))
        assert code == script.wait(DEADLINE_S)
    assert ["COMPLETED", "", ""] == statuses(csv_path)
    assert (False, None) == (job.compact().changed, job.progress().session)


# --- its beginning, stopped at any step ---


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job of many sessions."""
    job = operations.after_sessions(tmp_path_factory.mktemp("prepared") / "job")
    return Path(job.csv_path).parent


def begin(path: Path, storage: Recording) -> BaseException | None:
    """Begin a session on a storage that fails; return what was raised."""
    session = with_storage(EventCsv(path, durability="process"), storage).session(session_id="new", refresh_s=3600)
    try:
        session.__enter__()
    except (OSError, Killed) as error:
        return error
    storage.before = lambda *_: None  # type: ignore[method-assign]  # it has begun: its end is not what is tested
    session.__exit__(None, None, None)
    return None


def steps_of_a_beginning(prepared: Path, folder: Path) -> list[str]:
    """Return the steps that change something when a session begins."""
    shutil.copytree(prepared, folder)
    storage = Recording()
    session = with_storage(EventCsv(folder / "input.csv"), storage).session(session_id="new", refresh_s=3600)
    with session:
        return list(storage.steps)


def test_half_a_seal_is_no_damage(prepared: Path, tmp_path: Path) -> None:
    """Killed while it seals the segment before: no result was lost, and the next session leaves no finding."""
    steps = steps_of_a_beginning(prepared, tmp_path / "clean")
    last_write = max(at for at, step in enumerate(steps) if step == "write")
    folder = shutil.copytree(prepared, tmp_path / "job")
    assert isinstance(begin(folder / "input.csv", Dying(last_write)), Killed)
    job = EventCsv(folder / "input.csv", durability="process")
    with job.session() as session:
        pass
    assert ([], ()) == (session.damage, job.verify().findings)


SESSIONS: Final = """
import os, sys
sys.path[:0] = sys.argv[2:]
import eventcsv.run.session, eventcsv.view.compactor, eventcsv.view.progress  # once, Polars with them; used in children
from eventcsv import EventCsv, masking
masking.get_logger()
path = sys.argv[1]
for line in sys.stdin:  # one session a line, each in a process of its own that does nothing but that
    pid = os.fork()
    if pid == 0:
        job = EventCsv(path, durability="process", settle_s=0)
        os.write(1, b"begin\\n")
        with job.session(refresh_s=0.01):
            while True:
                job.emit_result("PO2", "PARTIAL", last_processed=line.strip())
    os.write(1, b"%d\\n" % pid)
    os.waitpid(pid, 0)
    os.write(1, b"dead\\n")
"""


def test_killed_sessions_leave_five_backups(csv_path: Path, job: EventCsv) -> None:
    """Sessions killed with kill -9 at random moments leave at most five valid backups, and a job that works."""
    rng = random.Random(20251002)
    helper = Talk(SESSIONS, csv_path, jobs.HERE.parents[1], POLARS_MAX_THREADS="1")
    counts = set()
    for number in range(70):
        helper.say(number)
        told = {helper.hear(), helper.hear()}
        (pid,) = told - {"begin"}
        time.sleep(rng.uniform(0, 0.1))
        os.kill(int(pid), signal.SIGKILL)
        assert "dead" == helper.hear()
        folder = csv_path.parent / "backup"
        unfinished = list(folder.glob("*.tmp"))
        assert len(unfinished) <= 1
        counts.add(len([made for made in job.backups() if made.reason == SESSION]))
        assert 3 == len(read_csv(csv_path))
    helper.end()
    assert max(counts) >= 5  # and one more for each that was killed between its backup and the removal of older ones
    recorded = [event.cells["LAST_PROCESSED"] for event in job.history("PO2")]
    with job.session() as session:
        assert [] == session.damage
        job.emit_result("PO1", "COMPLETED")
    assert recorded[-1] == read_csv(csv_path)[1]["LAST_PROCESSED"]
    assert 5 + 1 == len(job.backups())  # the first base stays
    assert [] == operations.leftovers(csv_path.parent)
    view = csv_path.read_bytes()
    assert (False, view) == (job.replay().changed, csv_path.read_bytes())
    assert () == job.verify().findings


# --- which backups go ---


def test_a_clock_that_is_set_back_costs_no_new_backup(
    csv_path: Path, job: EventCsv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest by their number go, whatever the dates in their names say; the newest one never does."""
    for number in range(9):

        class Clock(datetime):
            hours = number

            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime(2025, 10, 2, 23 - 2 * cls.hours, 0, 0, tzinfo=tz)

        monkeypatch.setattr(backup, "datetime", Clock)
        with job.session(session_id=f"s{number}") as session:
            job.emit_result("PO1", "PARTIAL", last_processed=str(number))
        assert session.backup.session == job.backups()[0].session
        assert Path(session.backup.path).exists()
    assert {"s0", "s4", "s5", "s6", "s7", "s8"} == set(copies(csv_path.parent))  # s0 is the first base
    assert "input_20251002_070000_s8.csv" == session.backup.name
    csv_path.unlink()
    assert (1, "8") == (job.compact().events, read_csv(csv_path)[0]["LAST_PROCESSED"])


def test_what_is_not_ours_in_the_backup_folder_stays(tmp_path: Path) -> None:
    """Foreign files, whatever they are called, and backups of another CSV of the same name are never removed."""
    shared = tmp_path / "backups"
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "input.csv").write_text("PO_NUMBER;STATUS\nPO1;\n")
        made.append(EventCsv(tmp_path / name / "input.csv", backup_dir=shared, durability="process"))
    one, other = made
    for number in range(3):
        with other.session(session_id=f"other{number}"):
            pass
    foreign = {
        "input_20200101_000000_mine.csv": b"mine",
        "input_20200101_000000_mine.json": b"{}",
        "input_20200101_000000_alone.csv": b"alone",
        "input.csv": b"x",
        "input_20200101_000000_x.json.tmp": b"x",
        "input_20200101_000000_y.deadbeef.json.tmp": b"y",
        "notes.txt": b"n",
    }
    for name, data in foreign.items():
        (shared / name).write_bytes(data)
    before = tree(shared)
    for number in range(8):
        with one.session(session_id=f"one{number}"):
            pass
    after = tree(shared)
    assert before == {name: after[name] for name in before}
    ours = sorted(Path(name).stem.split("_", 3)[3] for name in set(after) - set(before) if name.endswith(".csv"))
    assert ["one0", *(f"one{number}" for number in range(3, 8))] == ours  # the first base stays


def test_what_somebody_asked_for_stays(csv_path: Path, job: EventCsv) -> None:
    """A backup that was asked for is never removed, and a damaged one is not counted among the five that stay."""
    asked = job.back_up()
    for number in range(3):
        with job.session(session_id=f"s{number}"):
            pass
    (damaged,) = (csv_path.parent / "backup").glob("*_s2.csv")
    damaged.write_bytes(b"rot")
    for number in range(3, 9):
        with job.session(session_id=f"s{number}"):
            pass
        valid = [made for made in job.backups() if sha256(Path(made.path).read_bytes()).hexdigest() == made.sha256]
        assert min(number, 5) == len([made for made in valid if made.reason == SESSION])
    assert asked.session in copies(csv_path.parent)


def test_a_forked_child_that_leaves_the_block_ends_nothing(csv_path: Path) -> None:
    """The session is its parent's: the child neither compacts nor unlocks."""
    job = EventCsv(csv_path, durability="process")
    with job.session() as session:
        child = os.fork()
        if child == 0:
            session.__exit__(None, None, None)
            os._exit(0)
        assert 0 == os.waitpid(child, 0)[1]
        assert job.progress().session is not None
        job.emit_result("PO1", "COMPLETED")
    assert "COMPLETED" in csv_path.read_text()


def test_an_edit_without_the_status_is_refused(csv_path: Path) -> None:
    """Else everything would count as pending, and be done again: the CSV stays as it is, the results in the log."""
    job = EventCsv(csv_path, durability="process")
    job.compact()
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    edited = csv_path.read_text().replace("STATUS", "State")
    csv_path.write_text(edited)
    with pytest.raises(InvalidCsv, match="column STATUS is gone"):
        job.compact()
    assert edited == csv_path.read_text()
    csv_path.write_text(edited.replace("State", "STATUS"))
    assert ["PO2", "PO3"] == (job.compact(), job.pending())[1]
