"""The promise: a run can be made, followed, mended and checked from the shell, and every mistake is told plainly."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest
from command_line import COMMAND, shown_on
from command_line import run_in as run
from conftest import read_csv, segment_of, statuses, tree, wait_until

if TYPE_CHECKING:
    from eventcsv import EventCsv

JOBS = '''
import os, sys, time

def download(key, row):
    """Ends well, but for what the environment asks of one PO."""
    print("chatter of", key)
    if key == os.environ.get("FAILS"):
        raise OSError("no answer from https://ana:hunter2@coupa.example/x?token=abc, ask ana@coupa.example")
    if key == os.environ.get("DIES"):
        print("last words of", key)
        os._exit(3)
    if key == os.environ.get("HANGS"):
        time.sleep(600)
    time.sleep(float(os.environ.get("TAKES_S", "0")))
    return {"SUPPLIER": row["SUPPLIER"] + "!", "opened": opened}

opened = 0

def open_browser():
    global opened
    opened += 1

def close_browser():
    open("closed", "a").write(f"{opened} ")

def fail():
    raise RuntimeError("no browser here")

def takes_nothing():
    pass
'''


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a CSV of 40 POs and a module that works on them."""
    rows = "".join(f"PO{number};;s{number}\n" for number in range(1, 41))
    (tmp_path / "input.csv").write_text("PO_NUMBER;STATUS;SUPPLIER\n" + rows)
    (tmp_path / "jobs.py").write_text(JOBS)
    return tmp_path


def start(place: Path, *args: object, **variables: str) -> subprocess.Popen[bytes]:
    """Start eventcsv in a folder, in a process group of its own."""
    return subprocess.Popen(
        [*COMMAND, *map(str, args)],
        cwd=place,
        env=os.environ | variables,
        stdout=-1,
        stderr=-1,
        start_new_session=True,
    )


def results(place: Path) -> int:
    """Return how many results are in the log."""
    return sum(path.read_bytes().count(b'"kind":"result"') for path in place.glob("input.events/*.jsonl"))


# --- run ---------------------------------------------------------------------------------------------------------


def test_a_run_from_the_shell(place: Path) -> None:
    """Every PO is worked on, each worker is initialized and finalized once, and what the workers print is no result."""
    hooks = ("--initializer", "jobs:open_browser", "--finalizer", "jobs:close_browser")
    done = run(place, "run", "input.csv", "jobs:download", "-w", 3, *hooks, "--json")
    record = orjson.loads(done.stdout)
    assert (0, 40, {"COMPLETED": 40}) == (done.returncode, record["processed"], record["by_status"])
    assert ["COMPLETED"] * 40 == statuses(place / "input.csv")
    assert {("s1!", "1")} == {(row["SUPPLIER"], row["opened"]) for row in read_csv(place / "input.csv")[:1]}
    assert "chatter of PO7" in done.stderr
    assert {"1"} == set((place / "closed").read_text().split())
    assert 40 == record["progress"]["done"]
    assert record["backup"]["path"].endswith(f"_{record['session']}.csv")


def test_failures_cost_themselves_and_the_exit_code(place: Path) -> None:
    """A PO that raises, one that kills its worker and one that hangs are ERROR; the others are done; exit code 1.

    What a worker has printed before it dies or is stopped is not lost.
    """
    done = run(
        place, "run", "input.csv", "jobs:download", "-w", 2, "--timeout", 2, FAILS="PO3", DIES="PO5", HANGS="PO9"
    )
    assert 1 == done.returncode
    rows = {row["PO_NUMBER"]: row for row in read_csv(place / "input.csv")}
    assert {"PO3", "PO5", "PO9"} == {key for key, row in rows.items() if row["STATUS"] != "COMPLETED"}
    assert "OSError: no answer from https://***@coupa.example/x?*** ask ***" == rows["PO3"]["ERROR_MESSAGE"]
    assert "the worker exited with code 3" == rows["PO5"]["ERROR_MESSAGE"]
    assert "it took longer than 2 s and was stopped" == rows["PO9"]["ERROR_MESSAGE"]
    assert {"last words of PO5", "chatter of PO9"}.issubset(done.stderr.splitlines())
    assert "37 of 40 POs done (92 %), 3 pending" in done.stdout
    again = run(place, "run", "input.csv", "jobs:download")
    assert (0, True) == (again.returncode, "processed  3 in" in again.stdout)
    assert {""} == {row["ERROR_MESSAGE"] for row in read_csv(place / "input.csv")}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param((), ["counts as pending"], id="not named"),
        pytest.param(("--done", "COMPLETED", "--done", "no_attachments"), [], id="named"),
    ],
)
def test_that_no_attachments_is_pending_is_told_when_it_is(
    place: Path, options: tuple[str, ...], told: list[str]
) -> None:
    """Who has named NO_ATTACHMENTS as done, and has stopped the run early, is not told to name it."""
    job = "def look(key, row):\n    return {'STATUS': 'NO_ATTACHMENTS' if key == 'PO2' else 'DEFERRED'}\n"
    (place / "jobs.py").write_text(job)
    done = run(place, "run", "input.csv", "jobs:look", *options)
    assert told == re.findall("(?<=NO_ATTACHMENTS )counts as pending", done.stdout)


def test_nothing_to_do_is_fine(place: Path) -> None:
    """A run over a CSV whose POs are all done does nothing, and says so with exit code 0."""
    run(place, "run", "input.csv", "jobs:download", "-w", 2)
    done = run(place, "run", "input.csv", "jobs:download")
    assert (0, True) == (done.returncode, "40 of 40 POs done (100 %), 0 pending" in done.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_cleanly(place: Path, number: int) -> None:
    """What is in flight is finished and recorded, the CSV is current, and the next run goes on."""
    with start(place, "run", "input.csv", "jobs:download", "-w", 2, "--json", TAKES_S="0.1") as process:
        wait_until(lambda: results(place) > 5, "some results")
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    record = orjson.loads(out)
    assert (1, signal.Signals(number).name) == (process.returncode, record["stopped"])
    assert [] == record["progress"]["in_flight"]
    assert record["processed"] == results(place) == statuses(place / "input.csv").count("COMPLETED") < 40
    assert 0 == run(place, "run", "input.csv", "jobs:download", "-w", 2).returncode
    assert ["COMPLETED"] * 40 == statuses(place / "input.csv")


def test_insisting_stops_at_once_and_tells_what_was_in_flight(place: Path) -> None:
    """A second Ctrl-C does not wait for a PO that hangs; it stays pending and the next run retries or holds it."""
    with start(place, "run", "input.csv", "jobs:download", "-w", 2, HANGS="PO3") as process:
        wait_until(lambda: results(place) == 39, "all results but one")
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)  # two that come together would be one
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (1, True) == (process.returncode, b"run it again to go on" in err)
    assert (39, "") == (statuses(place / "input.csv").count("COMPLETED"), statuses(place / "input.csv")[2])
    status = run(place, "status", "input.csv", "--json")
    assert ["PO3"] == [item["key"] for item in orjson.loads(status.stdout)["in_flight"]]
    held = run(place, "run", "input.csv", "jobs:download", "--interrupted", "hold")
    assert (True, 39) == ("held       1 in flight" in held.stdout, statuses(place / "input.csv").count("COMPLETED"))
    retried = run(place, "run", "input.csv", "jobs:download")
    assert (0, True) == (retried.returncode, "retried    1 in flight when the last run died: PO3" in retried.stdout)


def test_a_killed_run_is_resumed(place: Path) -> None:
    """SIGKILL of the main process: its workers end with it, and the same command goes on where it was."""
    with start(place, "run", "input.csv", "jobs:download", "-w", 3, TAKES_S="0.05") as process:
        wait_until(lambda: results(place) > 9, "some results")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)  # which ends once the workers have ended, too
    recorded = results(place)
    done = run(place, "run", "input.csv", "jobs:download", "-w", 3, "--json")
    record = orjson.loads(done.stdout)
    assert (0, 40 - recorded, ["COMPLETED"] * 40) == (
        done.returncode,
        record["processed"],
        statuses(place / "input.csv"),
    )
    assert 0 == run(place, "verify", "input.csv").returncode


def test_one_session_at_a_time(place: Path) -> None:
    """A second run is told which session, of which process, is at work since when; exit code 4, nothing changed."""
    with start(place, "run", "input.csv", "jobs:download", HANGS="PO1") as process:
        wait_until(lambda: b'"started"' in b"".join(tree(place / "input.events").values()), "the first PO")
        before = _settled(place)
        for command in (["run", "input.csv", "jobs:download"], ["prune", "input.csv"]):
            done = run(place, *command)
            assert 4 == done.returncode
            assert f"process {process.pid} (" in done.stderr
            assert "works on this CSV since 20" in done.stderr
        assert before == _settled(place)
        process.kill()
        process.communicate(timeout=60)
    assert 0 == run(place, "run", "input.csv", "jobs:download", "-w", 2).returncode


def _settled(place: Path) -> list[str]:
    """Name the files of a job, but for what a session is just writing."""
    return sorted(name for name in tree(place) if not name.endswith(".tmp"))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "nope.csv", "jobs:download"], 1, "nope.csv: there is no such file"),
        (["run", "input.csv", "jobs"], 2, "has to be a module and a function"),
        (["run", "input.csv", "jobs.py:download"], 2, "jobs:download"),
        (["run", "input.csv", "nojobs:download"], 2, "no module 'nojobs'"),
        (["run", "input.csv", "jobs:nope"], 2, "no function 'nope'"),
        (["run", "input.csv", "jobs:opened"], 2, "no function 'opened'"),
        (["run", "input.csv", "jobs:takes_nothing"], 2, "is called with a PO and its row"),
        (["run", "input.csv", "broken:download"], 1, "broken.py, line 2"),
        (["run", "input.csv", "jobs:download", "--initializer", "jobs:fail"], 1, "RuntimeError: no browser here"),
        (["run", "input.csv", "jobs:download", "--finalizer", "jobs:nope"], 2, "no function 'nope'"),
        (["run", "input.csv", "jobs:download", "--finalizer", "jobs:download"], 2, "is called without arguments"),
        (["run", "input.csv", "jobs:download", "--session", "a/b"], 2, "0-9, A-Z, a-z"),
        (["run", "input.csv", "jobs:download", "--workers", "0"], 2, "--workers"),
        (["run", "input.csv", "jobs:download", "--timeout", "0"], 2, "--timeout"),
        (["run", "input.csv", "jobs:download", "--interrupted", "maybe"], 2, "retry"),
        (["status", "nope.csv"], 1, "nope.csv: there is no such file"),
        (["status", "input.csv", "--log-file", "no/such/folder"], 2, "No such file"),
        (["pending", "nope.csv"], 1, "nope.csv: there is no such file"),
        (["verify", "nope.csv"], 1, "nope.csv: there is no such file"),
        (["prune", "nope.csv"], 1, "nope.csv: there is no such file"),
        (["backup", "list", "nope.csv"], 1, "nope.csv: there is no such file"),
        (["backup", "create", "nope.csv"], 1, "nope.csv: there is no such file"),
        (["backup", "restore", "nope.csv", "x"], 1, "no backup 'x'"),
        (["backup", "restore", "input.csv", "x"], 1, "no backup 'x'"),
        (["status", "input.csv", "--key", "NUMBER"], 1, "no column 'NUMBER'"),
    ],
)
def test_mistakes_are_told_plainly(place: Path, arguments: list[str], code: int, said: str) -> None:
    """A wrong input has a fitting exit code and a message that says what and where; nothing is made of it."""
    (place / "broken.py").write_text("import os\nos.nothing()\n")
    environment = {"COLUMNS": "400", "PYTHONDONTWRITEBYTECODE": "1"}
    done = run(place, *arguments, **environment)
    assert (code, "", True) == (done.returncode, done.stdout, said in done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    if code != 1 or "nope.csv" in arguments:
        assert {"input.csv", "jobs.py", "broken.py"} == set(tree(place))
    assert [""] * 40 == statuses(place / "input.csv")


def test_what_cannot_be_recorded_stays_pending(place: Path, small_disk: Path) -> None:
    """With no room for the log the run fails and loses nothing: with room again it goes on."""
    (small_disk / "input.csv").write_bytes((place / "input.csv").read_bytes())
    (small_disk / "jobs.py").write_text(JOBS)
    (small_disk / "fill").write_bytes(b"x" * 212_000)
    assert 1 == run(small_disk, "run", "input.csv", "jobs:download", "-w", 2, PYTHONDONTWRITEBYTECODE="1").returncode
    (small_disk / "fill").unlink()
    again = run(small_disk, "run", "input.csv", "jobs:download", "-w", 2, PYTHONDONTWRITEBYTECODE="1")
    assert 0 == again.returncode, again.stderr
    assert ["COMPLETED"] * 40 == statuses(small_disk / "input.csv")


# --- status, pending, logs ---------------------------------------------------------------------------------------


def test_status_and_pending_answer_without_a_trace(job: EventCsv, csv_path: Path) -> None:
    """They count what is not in the CSV yet, and no file changes by it."""
    job.emit_result("PO2", "COMPLETED")
    job.emit_result("PO3", "ERROR", error_message="page not found")
    before = tree(csv_path.parent)
    place = csv_path.parent
    record = orjson.loads(run(place, "status", csv_path, "--json").stdout)
    assert (3, 1, 2, 2) == (record["total"], record["done"], record["pending"], record["behind"])
    assert [("PO3", "page not found")] == [(item["key"], item["message"]) for item in record["failures"]]
    shown = run(place, "status", csv_path).stdout
    assert "1 of 3 POs done (33 %), 2 pending" in shown
    assert "PO3: ERROR  page not found" in shown
    assert "PO1\nPO3\n" == run(place, "pending", csv_path).stdout
    assert ["PO1"] == orjson.loads(
        run(place, "pending", csv_path, "--done", "COMPLETED", "--done", "error", "--json").stdout
    )["pending"]
    assert before == tree(csv_path.parent)


def test_status_says_what_is_damaged(job: EventCsv, csv_path: Path) -> None:
    """Exit code 3 and the place."""
    job.emit_result("PO1", "COMPLETED")
    job.emit_result("PO2", "COMPLETED")
    log = segment_of(job).read_bytes()
    segment_of(job).write_bytes(log.replace(b"PO1", b"PO7"))
    done = run(csv_path.parent, "status", csv_path)
    assert (3, True) == (done.returncode, "events-000001.jsonl, byte" in done.stdout)


def test_watching_a_run_from_elsewhere(place: Path) -> None:
    """Programs get a line of JSON at each look; the run is not disturbed; Ctrl-C ends it with exit code 0."""
    with (
        start(place, "run", "input.csv", "jobs:download", "-w", 2, TAKES_S="0.1") as process,
        start(place, "status", "input.csv", "--watch", "--json") as watch,
    ):
        assert watch.stdout is not None
        stdout = watch.stdout
        wait_until(lambda: orjson.loads(stdout.readline())["session"], "a session")
        wait_until(lambda: orjson.loads(stdout.readline())["done"] == 40, "the end")
        watch.send_signal(signal.SIGINT)
        assert 0 == watch.wait(timeout=60)
        assert 0 == process.wait(timeout=60)
        watch.communicate()
        process.communicate()


def test_a_terminal_gets_a_live_view_and_is_left_as_it_was(place: Path) -> None:
    """On a terminal a run draws how far it is; afterwards that is gone, and the cursor is back."""
    main, side = pty.openpty()
    command = [*COMMAND, "run", "input.csv", "jobs:download", "-w", "2"]
    environment = os.environ | {"TAKES_S": "0.1", "TERM": "xterm"}
    with subprocess.Popen(command, cwd=place, env=environment, stdin=side, stdout=-1, stderr=side) as process:
        os.close(side)
        shown = shown_on(main)
        out, _ = process.communicate(timeout=60)
    assert 0 == process.returncode
    assert b"of 40 POs done" in shown
    assert b"workers" in shown
    assert b"\x1b[?25h" in shown[shown.rindex(b"\x1b[?25l") :]
    assert b"40 of 40 POs done" in out


def test_logs_have_names_and_fields_and_no_secrets(place: Path) -> None:
    """--log-file takes them as JSON, one event a line, for its owner only; what workers report is among them."""
    done = run(place, "run", "input.csv", "jobs:download", "-w", 2, "--log-file", "run.log", FAILS="PO3", DIES="PO5")
    assert 1 == done.returncode
    text = (place / "run.log").read_text()
    events = [orjson.loads(line) for line in text.splitlines()]
    names = [event["event"] for event in events]
    assert ("session.started", "session.ended") == (names[0], names[-1])
    assert {"worker.lost", "po.failed"} <= set(names)
    assert {"PO3", "PO5"} == {event["key"] for event in events if event["event"] == "po.failed"}
    assert not {"hunter2", "token=abc", "ana@coupa.example"}.intersection(text.split())
    assert [] == [secret for secret in ("hunter2", "token=abc", "ana@coupa") if secret in text + done.stdout]
    assert 0o600 == (place / "run.log").stat().st_mode & 0o777
    assert "" == run(place, "run", "input.csv", "jobs:download", "--log-level", "error").stderr.partition("session")[0]


# --- backup, verify, prune ---------------------------------------------------------------------------------------


def test_backups_from_the_shell(job: EventCsv, csv_path: Path) -> None:
    """They are listed, made and restored, with the log after them and without."""
    place = csv_path.parent
    first = csv_path.read_bytes()
    made = orjson.loads(run(place, "backup", "create", csv_path, "--json").stdout)
    name = Path(made["path"]).name
    assert (3, "asked for") == (made["record_count"], made["reason"])
    job.emit_result("PO1", "COMPLETED")
    run(place, "compact", csv_path)
    listed = run(place, "backup", "list", csv_path).stdout
    assert name in listed
    assert [name] == [
        Path(item["path"]).name
        for item in orjson.loads(run(place, "backup", "list", csv_path, "--json").stdout)["backups"]
    ]
    done = run(place, "backup", "restore", csv_path, name, "--no-replay")
    assert (0, first) == (done.returncode, csv_path.read_bytes())
    assert "the CSV as it was before" in done.stdout
    assert 0 == run(place, "backup", "restore", csv_path, name).returncode
    assert b"COMPLETED" in csv_path.read_bytes()


def test_verify_and_prune_from_the_shell(place: Path) -> None:
    """Verify counts what it read; prune tells what it would do, and then does it."""
    for _ in range(8):
        assert 0 == run(place, "run", "input.csv", "jobs:download", "-w", 2, "--done", "COMPLETED").returncode
    report = orjson.loads(run(place, "verify", "input.csv", "--json").stdout)
    assert (9, []) == (report["segments"], report["findings"])
    would = orjson.loads(run(place, "prune", "input.csv", "--dry-run", "--json").stdout)
    assert (True, 9) == (bool(would["removed"]), len(list(place.glob("input.events/*.jsonl"))))
    before = (place / "input.csv").read_bytes()
    did = orjson.loads(run(place, "prune", "input.csv", "--json").stdout)
    assert would["removed"] == did["removed"]
    assert did["kept"] == len(list(place.glob("input.events/*.jsonl")))
    assert 0 == run(place, "verify", "input.csv").returncode
    assert 0 == run(place, "replay", "input.csv").returncode
    assert before == (place / "input.csv").read_bytes()


def test_verify_names_what_is_wrong(place: Path) -> None:
    """Each finding with its place, all of them, and exit code 3."""
    run(place, "run", "input.csv", "jobs:download", "-w", 2)
    segment = place / "input.events/events-000002.jsonl"
    log = segment.read_bytes()
    segment.write_bytes(log.replace(b'"key":"PO4"', b'"key":"PX4"', 1))
    (backup,) = (place / "backup").glob("*.csv")
    backup.write_bytes(backup.read_bytes() + b"x")
    done = run(place, "verify", "input.csv")
    assert 3 == done.returncode
    assert "events-000002.jsonl, byte" in done.stdout
    assert f"{backup.name}: the backup is damaged" in done.stdout


def test_a_command_loads_no_other(csv_path: Path) -> None:
    """All of them take longer to load than what most of them do."""
    code = (
        "import sys\nfrom eventcsv.cli.app import app\napp(['pending', sys.argv[1]], standalone_mode=False)\n"
        "print(*sorted(name for name in sys.modules if name.startswith('eventcsv.cli.commands.')), file=sys.stderr)\n"
    )
    line = [sys.executable, "-c", code, str(csv_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert ["eventcsv.cli.commands.status"] == done.stderr.split()
