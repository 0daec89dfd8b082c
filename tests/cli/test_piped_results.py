"""The promise: one process records what a pipe brings, answers each line once it is durable, and loses none of them."""

from __future__ import annotations

import io
import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from command_line import COMMAND, run
from conftest import lines_of, read_csv, segment_of, tree

from eventcsv.cli import piped

if TYPE_CHECKING:
    from pathlib import Path

    from eventcsv import EventCsv


def emit(csv_path: Path, *lines: object, before: tuple[str, ...] = (), **options: Any) -> tuple[int, list[Any], str]:
    """Send lines, JSON or as they are; return the exit code, the answers and what was said besides."""
    sent = b"".join(line if isinstance(line, bytes) else f"{json.dumps(line)}\n".encode() for line in lines)
    command = [*before, *COMMAND, "emit", str(csv_path), "--stdin"]
    done = subprocess.run(command, input=sent, capture_output=True, check=False, timeout=120, **options)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


def events(job: EventCsv) -> list[dict[str, Any]]:
    """Return the events of the log, read without eventcsv's help."""
    return [json.loads(line) for line in lines_of(job)]


def test_each_line_is_answered_with_the_id_of_its_event(job: EventCsv, csv_path: Path) -> None:
    """A PO that is taken up, results with columns by name and by keyword: one answer a line, and all is in the CSV."""
    code, answers, said = emit(
        csv_path,
        {"key": "PO1", "started": True},
        {
            "key": "PO1",
            "status": "COMPLETED",
            "columns": {"ATTACHMENTS_FOUND": 2, "Reviewed by": "Ana", "SUPPLIER": None},
        },
        {"status": "ERROR", "key": "PO2", "error_message": "page not found", "started": False},
        '{"key": "PO3", "status": "PARTIAL", "attachment_names": ["ä.pdf", "b.pdf"]}'.encode(),  # no line end
    )
    assert (0, "") == (code, said)
    found = events(job)
    assert [(event["id"], event["key"]) for event in found] == [(answer["id"], answer["key"]) for answer in answers]
    assert ["started", "result", "result", "result"] == [event["kind"] for event in found]
    assert [1, 2, 3, 4] == [answer["line"] for answer in answers]
    job.compact()
    one, two, three = read_csv(csv_path)
    assert ("COMPLETED", "2", "Ana") == (one["STATUS"], one["ATTACHMENTS_FOUND"], one["Reviewed by"])
    assert ("ERROR", "page not found") == (two["STATUS"], two["ERROR_MESSAGE"])
    assert ("PARTIAL", "ä.pdf;b.pdf") == (three["STATUS"], three["AttachmentName"])


def test_what_is_answered_is_recorded_and_survives_a_kill(job: EventCsv, csv_path: Path) -> None:
    """A caller who waits for each answer gets it before the next line, and the event is in the log by then."""
    command = [*COMMAND, "emit", str(csv_path), "--stdin", "--durability", "process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        for number in range(20):
            process.stdin.write(f'{{"key": "PO1", "status": "WORD{number}"}}\n'.encode())
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert (answer["id"], f"WORD{number}") == ((last := events(job)[-1])["id"], last["set"]["STATUS"])
        process.kill()
    assert 20 == len(events(job))


BAD = {
    b"\n": "line: is no JSON",
    b'{"key": "PO2", "status": "COMPL\n': "line: is no JSON",
    b"PO2 COMPLETED\n": "line: is no JSON",
    b"[" * 100_000 + b"\n": "line: is no JSON",
    b'{"key": "PO2", "status": "COMPLETED", "supplier": ' + b"9" * 5000 + b"}\n": "line: is no JSON",
    b'["PO2", "COMPLETED"]\n': "line: has to be an object",
    b'"PO2"\n': "line: has to be an object",
    b'{"status": "COMPLETED"}\n': "key: ",
    b'{"key": "  ", "status": "COMPLETED"}\n': "key: ",
    b'{"key": "PO\\n2", "status": "COMPLETED"}\n': "key: ",
    b'{"key": "PO2"}\n': "status: is required",
    b'{"key": "PO2", "status": null}\n': "status: is required",
    b'{"key": "PO2", "status": "COMPLETED", "columns": {"PO_NUMBER": "PO3"}}\n': "PO_NUMBER: is the key column",
    b'{"key": "PO2", "status": "COMPLETED", "columns": {" ": "x"}}\n': "columns: ",
    b'{"key": "PO2", "status": "COMPLETED", "columns": {"x": 1, "x": 2}}\n': "x: is given twice",
    b'{"key": "PO2", "key": "PO3", "status": "COMPLETED"}\n': "key: is given twice",
    b'{"kind": "edit", "key": "PO2", "set": {}}\n': "kind: is none of key, status",
    b'{"key": "PO2", "started": 1}\n': "started: has to be true or false",
    b'{"key": "PO2", "started": true, "status": "COMPLETED"}\n': "status: has no place beside started",
    b'{"started": true}\n': "key: ",
}


def test_a_bad_line_costs_itself_only(job: EventCsv, csv_path: Path) -> None:
    """Each is answered with what is wrong with it, and the good ones around it are recorded; the exit code tells."""
    good = {"key": "PO1", "status": "COMPLETED"}
    lines = [line for bad in BAD for line in (bad, good)]
    code, answers, said = emit(csv_path, *lines)
    assert (1, "") == (code, said)
    assert list(range(1, len(lines) + 1)) == [answer["line"] for answer in answers]
    for answer, expected in zip(answers[::2], BAD.values(), strict=True):
        assert (True, {"line", "error"}) == (answer["error"].startswith(expected), set(answer)), (answer, expected)
    assert [event["id"] for event in events(job)] == [answer["id"] for answer in answers[1::2]]


def test_a_line_that_is_too_long_costs_itself_only(job: EventCsv, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read past, and never held in memory as a whole."""
    monkeypatch.setattr(piped, "_LONGEST_BYTES", 100)
    good = b'{"key": "PO1", "status": "COMPLETED"}'
    for size, failed in ((99, []), (100, [2]), (101, [2]), (201, [2]), (1000, [2])):  # without the line end
        answers: list[dict[str, Any]] = []
        lines = io.BytesIO(good + b"\n" + good.ljust(size) + b"\n" + good)
        assert len(failed) == piped.record_lines(job, lines, answers.append)
        assert failed == [answer["line"] for answer in answers if "more than" in answer.get("error", "")]
        assert [1, 2, 3] == [answer["line"] for answer in answers]


def test_what_cannot_be_made_durable_is_answered_so(job: EventCsv, csv_path: Path) -> None:
    """A log that may not grow: the lines that did not fit are told, those before them are safe."""
    lines = [{"key": f"PO{number}", "status": "COMPLETED", "supplier": "x" * 300} for number in (1, 2, 3)]
    code, answers, _ = emit(csv_path, *lines, before=("sh", "-c", 'ulimit -f 2; exec "$@"', "sh"))
    assert 1 == code
    recorded = [answer["id"] for answer in answers if "id" in answer]
    assert 0 < len(recorded) < 3 == len(answers)
    assert all(["could not be recorded" in answer["error"] for answer in answers[len(recorded) :]])
    assert recorded == [event.id for key in ("PO1", "PO2", "PO3") for event in job.history(key)]


def test_who_does_not_listen_loses_no_result(job: EventCsv, csv_path: Path) -> None:
    """When nobody reads the answers any more, what comes is recorded all the same; the exit code tells."""
    command = [*COMMAND, "emit", str(csv_path), "--stdin"]
    sent = b'{"key": "PO1", "status": "COMPLETED"}\n' * 5
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1) as process:
        assert process.stdout
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate(sent, timeout=60)
    assert (1, 5) == (process.returncode, len(events(job)))
    assert b"answered no more" in err
    assert b"Traceback" not in err


def test_ctrl_c_ends_it(job: EventCsv, csv_path: Path) -> None:
    """A terminal that sends nothing is left without a traceback; what was answered stays."""
    command = [*COMMAND, "emit", str(csv_path), "--stdin"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b'{"key": "PO1", "status": "COMPLETED"}\n')
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (1, False, 1) == (process.returncode, b"Traceback" in err, len(events(job)))


def test_a_mistyped_path_makes_nothing(csv_path: Path) -> None:
    """It is told once, and not by each line."""
    before = tree(csv_path.parent)
    code, answers, said = emit(csv_path.with_name("nope.csv"), *[{"key": "PO1", "status": "COMPLETED"}] * 3)
    assert (1, [], 1) == (code, answers, said.count("there is no such file"))
    assert before == tree(csv_path.parent)


# --- one event ---


def one(csv_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `eventcsv emit` once."""
    return run("emit", csv_path, *arguments, COLUMNS="300")


def test_what_is_taken_up_shows_as_in_flight(job: EventCsv, csv_path: Path) -> None:
    """A script tells what it is about to do; until there is a result, everybody sees it."""
    done = one(csv_path, "PO2", "--started")
    (event,) = events(job)
    assert (0, f"recorded PO2 as taken up, as {event['id']}\n") == (done.returncode, done.stdout)
    assert [("PO2", event["id"])] == [(item.key, item.id) for item in job.progress().in_flight]
    shown = json.loads(one(csv_path, "PO3", "--started", "--json").stdout)
    assert (events(job)[1]["id"], "started") == (shown["id"], shown["kind"])
    one(csv_path, "PO2", "COMPLETED")
    assert ["PO3"] == [item.key for item in job.progress().in_flight]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "KEY: is missing"),
        (("PO1",), "STATUS: is missing"),
        (("PO1", "COMPLETED", "--started"), "STATUS: has no place beside --started"),
        (("PO1", "--started", "--set", "a=b"), "--set: has no place beside --started"),
        (("--started",), "KEY: is missing"),
        (("PO1", "--stdin"), "KEY: has no place beside --stdin"),
        (("--stdin", "--set", "a=b"), "--set: has no place beside --stdin"),
        (("--stdin", "--started"), "--started: has no place beside --stdin"),
    ],
)
def test_forms_are_not_mixed(job: EventCsv, csv_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """What belongs to another form of the command is refused by name, with exit code 2, before anything is written."""
    done = one(csv_path, *arguments)
    assert (2, True, "") == (done.returncode, said in done.stderr, done.stdout), done.stderr
    assert not segment_of(job).exists()
