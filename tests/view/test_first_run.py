"""The promise: a STATUS that may mean something else is not written over, nor gone by, before somebody says so."""

from __future__ import annotations

import os
import pty
import subprocess
from typing import TYPE_CHECKING

import orjson
import pytest
from command_line import COMMAND, shown_on
from command_line import run_in as run
from conftest import read_csv, tree

from eventcsv import EventCsv, InvalidEvent
from eventcsv.table.reader import parse
from eventcsv.view.first_run import doubtful_statuses

if TYPE_CHECKING:
    from pathlib import Path

JOBS = """
def work(key, row):
    if key == "PO2":
        raise TimeoutError("no answer")
def whole(key, row):
    return row | {"Note": key}
def named(key, row):
    return {"STATUS": "PARTIAL", "Note": key}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a list whose Status is the customer's, and a module that works on it."""
    (tmp_path / "jobs.py").write_text(JOBS)
    write(tmp_path, "Issued", "Completed", "Issued")
    return tmp_path


def write(place: Path, *statuses: str) -> None:
    rows = "".join(f"PO{number};{text}\n" for number, text in enumerate(statuses, 1))
    (place / "input.csv").write_text(f"PO_NUMBER;Status\n{rows}")


def column(place: Path, name: str) -> list[str]:
    return [row[name] for row in read_csv(place / "input.csv")]


def test_a_status_of_its_own_stops_a_run_that_nobody_is_asked_about(place: Path) -> None:
    """What it says, what would become of it and the ways out are told; nothing is made."""
    before = tree(place)
    done = run(place, "run", "input.csv", "jobs:work", PYTHONDONTWRITEBYTECODE="1")
    assert 2 == done.returncode
    for word in ("Issued 2, Completed 1", "1 PO would count as done", "--status-column RESULT", "--yes"):
        assert word in done.stderr, done.stderr
    assert before == tree(place)


def test_with_yes_it_is_the_jobs(place: Path) -> None:
    """Said once: what says COMPLETED is done, the rest is worked on; no later run asks."""
    first = run(place, "run", "input.csv", "jobs:work", "--yes")
    assert (0, ["COMPLETED", "Completed", "COMPLETED"]) == (first.returncode, column(place, "Status"))
    assert 0 == run(place, "run", "input.csv", "jobs:work").returncode


@pytest.mark.parametrize("answer", ["y", "n"])
def test_on_a_terminal_it_is_asked(place: Path, answer: str) -> None:
    """No is the default, and an end."""
    main, side = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "run", "input.csv", "jobs:work"], cwd=place, stdin=side, stdout=subprocess.PIPE, stderr=side
    ) as process:
        os.close(side)
        said = b""
        while b"Go on with it? [y/N]" not in said:
            said += os.read(main, 4096)
        os.write(main, f"{answer}\n".encode())
        shown_on(main)
        process.wait()
    assert b"Issued 2" in said
    assert {"y": 0, "n": 1}[answer] == process.returncode
    assert {"y": ["COMPLETED", "Completed", "COMPLETED"], "n": ["Issued", "Completed", "Issued"]}[answer] == column(
        place, "Status"
    )


def test_another_column_takes_what_came_of_it(place: Path) -> None:
    """With --status-column the list's own words stay as they are, everywhere."""
    done = run(place, "run", "input.csv", "jobs:work", "--status-column", "RESULT", "--json")
    record = orjson.loads(done.stdout)
    assert (1, {"COMPLETED": 2, "ERROR": 1}) == (done.returncode, record["by_status"]), done.stderr
    assert {"COMPLETED": 2, "ERROR": 1} == record["progress"]["by_status"]
    assert ["Issued", "Completed", "Issued"] == column(place, "Status")
    assert ["COMPLETED", "ERROR", "COMPLETED"] == column(place, "RESULT")
    env = {"EVENTCSV_STATUS_COLUMN": "RESULT"}
    assert "2 of 3 POs done" in run(place, "status", "input.csv", **env).stdout
    assert "PO2\n" == run(place, "pending", "input.csv", **env).stdout
    assert "recorded PO2 COMPLETED" in run(place, "emit", "input.csv", "PO2", "COMPLETED", **env).stdout
    assert "COMPLETED 3" in run(place, "compact", "input.csv", **env).stdout
    assert "nothing is wrong" in run(place, "verify", "input.csv", **env).stdout
    assert 0 == run(place, "report", "input.csv", "-o", "r.html", **env).returncode
    assert ["Issued", "Completed", "Issued"] == column(place, "Status")


def test_a_command_that_fails_is_an_error_in_the_other_column_too(place: Path) -> None:
    """Whatever the list's own column says, and whatever the command names itself."""
    path = place / "input.csv"
    path.write_text(path.read_text().replace("Issued", "ERROR", 1))
    said = """echo '{"RESULT": "COMPLETED"}'; exit 3"""
    for script in ("exit 3", said):
        done = run(
            place,
            "run",
            "input.csv",
            "--status-column",
            "RESULT",
            "--",
            "sh",
            "-c",
            script.replace("{", "{{").replace("}", "}}"),
        )
        assert (1, ["ERROR"] * 3) == (done.returncode, column(place, "RESULT")), done.stdout


def test_to_forget_the_other_column_is_noticed(place: Path) -> None:
    """A later run without --status-column is asked as a first one: it would do it all again, over the list's words."""
    assert 1 == run(place, "run", "input.csv", "jobs:work", "--status-column", "RESULT").returncode
    done = run(place, "run", "input.csv", "jobs:work")
    assert (2, True) == (done.returncode, "no result has been written to STATUS yet" in done.stderr)


@pytest.mark.parametrize(("function", "status"), [("whole", "COMPLETED"), ("named", "PARTIAL")])
def test_what_a_function_returns_fits_either_way(place: Path, function: str, status: str) -> None:
    """A whole row with the list's own STATUS in it, and one that calls it STATUS as always."""
    done = run(place, "run", "input.csv", f"jobs:{function}", "--status-column", "RESULT")
    assert 0 == done.returncode, done.stdout + done.stderr
    assert ([status] * 3, ["PO1", "PO2", "PO3"]) == (column(place, "RESULT"), column(place, "Note"))
    assert ["Issued", "Completed", "Issued"] == column(place, "Status")


def test_work_that_is_set_back_in_the_other_column_is_done_again(place: Path) -> None:
    """What people change there counts as it does in STATUS."""
    options = ("--status-column", "RESULT")
    run(place, "run", "input.csv", "jobs:whole", *options)
    path = place / "input.csv"
    path.write_text(path.read_text().replace("COMPLETED", "PENDING", 1))
    again = run(place, "run", "input.csv", "jobs:whole", *options)
    assert "processed  1 in" in again.stdout, again.stdout


DOUBTS = [
    pytest.param("", (), False, id="none yet"),
    pytest.param("PENDING", (), False, id="as a list begins"),
    pytest.param("pending", (), False, id="in another spelling"),
    pytest.param("No attachments", (), False, id="as a person writes it"),
    pytest.param("ERROR", (), False, id="to be done again"),
    pytest.param("Issued", (), True, id="a word of its own"),
    pytest.param("COMPLETED", (), True, id="done, and nothing tells by whom"),
    pytest.param("Shipped", ("SHIPPED",), False, id="named as done"),
    pytest.param("COMPLETED", ("COMPLETED", "SHIPPED"), True, id="done as ever"),
]


@pytest.mark.parametrize(("status", "done", "asked"), DOUBTS)
def test_what_is_asked_about(status: str, done: tuple[str, ...], asked: bool) -> None:  # noqa: FBT001  # a parameter
    """What a run would write itself is no question; what is done is one, as nobody is known to have done it."""
    table = parse(f"PO_NUMBER;STATUS\nPO1;{status}\n".encode(), source="input.csv", key="PO_NUMBER")
    assert asked == bool(doubtful_statuses(table, done or ("COMPLETED",)))


def test_a_result_is_the_answer(place: Path) -> None:
    """Once a result is in the log it is known what STATUS means: pools of one's own are never asked."""
    job = EventCsv(place / "input.csv", durability="process")
    assert {"Issued": 2, "Completed": 1} == job.doubtful_statuses()
    job.emit_started("PO1")
    job.compact()
    assert {"Issued": 2, "Completed": 1} == job.doubtful_statuses()
    job.emit_result("PO1", "COMPLETED")
    assert {} == job.doubtful_statuses()


@pytest.mark.parametrize("name", [" ", "po_number", "ERROR_MESSAGE", "a\nb"])
def test_a_column_that_is_for_something_else_is_refused(place: Path, name: str) -> None:
    """The key and the other well-known columns have their own meaning."""
    with pytest.raises(InvalidEvent, match="status_column"):
        EventCsv(place / "input.csv", status_column=name)
    assert 2 == run(place, "status", "input.csv", "--status-column", name).returncode
