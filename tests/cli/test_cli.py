"""The promise: the command line answers on stdout, for people and for programs, with an exit code that tells."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest
from command_line import COMMAND, ran, run, shown_on
from conftest import read_csv, segment_of, wait_until

from eventcsv.storage.locks import locked
from eventcsv.version import __version__

if TYPE_CHECKING:
    from eventcsv import EventCsv


def test_emit_compact_history(csv_path: Path) -> None:
    """A result from the shell ends up in the CSV, and its history can be asked for."""
    assert 0 == run("emit", csv_path, "PO1", "ERROR", "--set", "ERROR_MESSAGE=a=b", "--set", "Extra=1").returncode
    done = run("compact", csv_path)
    assert (0, "") == (done.returncode, done.stderr)
    assert "ERROR 1" in done.stdout
    assert ("ERROR", "a=b", "1") == tuple(read_csv(csv_path)[0][name] for name in ("STATUS", "ERROR_MESSAGE", "Extra"))
    assert "ERROR_MESSAGE = a=b" in run("history", csv_path, "PO1").stdout


def test_json_is_for_programs(csv_path: Path) -> None:
    """With --json, stdout is JSON and nothing else, one document a line."""
    emitted = orjson.loads(run("emit", csv_path, "PO1", "COMPLETED", "--json").stdout)
    assert ("PO1", "COMPLETED") == (emitted["key"], emitted["cells"]["STATUS"])
    compacted = orjson.loads(run("compact", csv_path, "--json").stdout)
    assert (1, {"": 2, "COMPLETED": 1}, True) == (compacted["events"], compacted["by_status"], compacted["changed"])
    assert [emitted] == [orjson.loads(line) for line in run("history", csv_path, "PO1", "--json").stdout.splitlines()]
    assert 1 == orjson.loads(run("replay", csv_path, "--json").stdout)["events"]


def test_damage_has_an_exit_code_of_its_own(job: EventCsv, csv_path: Path) -> None:
    """Finished, but not everything could be read: exit 3, and the places are named. Half a line is fine: exit 0."""
    job.emit_result("PO1", "COMPLETED")
    log = segment_of(job).read_bytes()
    segment_of(job).write_bytes(log + b'{"v":1,"id":"')
    done = run("compact", csv_path)
    assert (0, True) == (done.returncode, f"events-000001.jsonl, byte {len(log):,}, 13 bytes" in done.stdout)
    job.emit_result("PO2", "COMPLETED")
    healed = segment_of(job).read_bytes()
    torn = f"torn line  events-000001.jsonl, byte {len(log):,}, 14 bytes"
    for command in ("status", "compact", "verify"):
        done = run(command, csv_path)
        assert (0, 1) == (done.returncode, done.stdout.count(torn)), command
    segment_of(job).write_bytes(b"".join(line for line in healed.splitlines(True) if b'"kind":"torn"' not in line))
    done = run("compact", csv_path)
    assert (3, True) == (done.returncode, f"damage     events-000001.jsonl, byte {len(log):,}, 14 bytes" in done.stdout)


def test_a_held_lock_has_an_exit_code_of_its_own(
    job: EventCsv, csv_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process compacts for too long: exit 4, and the process is named."""
    job.emit_result("PO1", "COMPLETED")
    monkeypatch.setenv("EVENTCSV_LOCK_TIMEOUT_S", "0.05")
    with locked(job._storage, str(Path(job.log_dir) / "compact.lock"), 1):
        done = run("compact", csv_path)
    assert (4, True) == (done.returncode, f"process {os.getpid()} " in done.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_keeps_the_csv_current(job: EventCsv, csv_path: Path, number: int) -> None:
    """--watch folds what others record, goes on over a CSV that cannot be read, and ends well on Ctrl-C and SIGTERM."""
    with subprocess.Popen([*COMMAND, "compact", str(csv_path), "--watch", "--json"], stdout=-1, stderr=-1) as watch:
        assert watch.stderr is not None
        stderr = watch.stderr
        try:
            job.emit_result("PO1", "COMPLETED")
            wait_until(lambda: "COMPLETED" in csv_path.read_text(), "the first result")
            good = csv_path.read_bytes()
            csv_path.write_bytes(good.replace(b"PO2", b'"PO2'))
            job.emit_result("PO3", "PARTIAL")
            wait_until(lambda: b"never closed" in stderr.readline(), "the report of the broken CSV")
            csv_path.write_bytes(good)
            wait_until(lambda: "PARTIAL" in csv_path.read_text(), "the result after the CSV was mended")
            job.emit_result("PO2", "ERROR", error_message="last")
        finally:
            watch.send_signal(number)
        out, told = watch.communicate(timeout=60)
    assert (0, watch.returncode) == (watch.returncode, 0), told.decode()
    assert "last" in csv_path.read_text()
    assert "ERROR" in orjson.loads(out.splitlines()[-1])["by_status"]


def test_a_terminal_gets_a_bar_and_is_left_as_it_was(job: EventCsv, csv_path: Path) -> None:
    """On a terminal there is a progress bar; afterwards it is gone and the cursor is back."""
    for _ in range(300):
        job.emit_result("PO1", "COMPLETED", supplier="x" * 20_000)
    main, side = pty.openpty()
    with subprocess.Popen([*COMMAND, "compact", str(csv_path)], stdout=-1, stderr=side) as done:
        out, _ = done.communicate(timeout=60)
    os.close(side)
    shown = shown_on(main)
    assert b"folding" in shown
    assert b"\x1b[?25h" in shown[shown.rindex(b"\x1b[?25l") :]
    assert b"COMPLETED 1" in out


@pytest.mark.parametrize(
    "command",
    [
        *(
            "",
            "compact",
            "emit",
            "export",
            "history",
            "import",
            "pending",
            "prune",
            "replay",
            "run",
            "status",
            "verify",
        ),
        *("backup create", "backup list", "backup restore"),
    ],
)
def test_every_help_teaches(command: str) -> None:
    """Each --help has its usage, what it does, and an example that could be typed."""
    done = run(*command.split(), "--help", NO_COLOR="1", COLUMNS="100")
    assert 0 == done.returncode
    assert "Usage:" in done.stdout
    assert "Example: eventcsv" in done.stdout or not command


def test_version_and_nothing() -> None:
    """--version says it; no command at all shows the help and is a usage error."""
    assert f"eventcsv {__version__}\n" == run("--version").stdout
    done = run()
    assert (2, True) == (done.returncode, "Usage:" in done.stdout + done.stderr)


def test_log_output_is_masked_json(job: EventCsv, csv_path: Path) -> None:
    """--log-level info logs to stderr, as JSON when that is no terminal, and stdout stays the result."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    csv_path.write_bytes(csv_path.read_bytes() + b"PO4;;;\n")
    done = run("--log-level", "info", "compact", csv_path, "--json")
    assert "view.edited" == orjson.loads(done.stderr.splitlines()[0])["event"]
    assert orjson.loads(done.stdout)["edited"]
    assert 2 == run("--log-level", "loud", "compact", csv_path).returncode


def test_control_characters_do_not_reach_the_terminal(job: EventCsv, csv_path: Path) -> None:
    """What was scraped from the web cannot steer the terminal of who reads its history."""
    job.emit_result("PO1", "ERROR", error_message="\x1b[2Jgone\u202e")
    out = run("history", csv_path, "PO1").stdout
    assert "\\u001b[2Jgone\\u202e" in out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)


def test_a_closed_pipe_is_no_traceback(job: EventCsv, csv_path: Path) -> None:
    """`eventcsv history ... | head -1` ends quietly."""
    for _ in range(2000):
        job.emit_result("PO1", "COMPLETED")
    done = run_shell(f"{' '.join(COMMAND)} history {csv_path} PO1 | head -n 1")
    assert (1, "") == (len(done.stdout.splitlines()), done.stderr)


def test_history_says_when_a_line_may_be_missing(job: EventCsv, csv_path: Path) -> None:
    """A damaged line may have been about the PO that is asked for: exit 3, and the place on stderr."""
    job.emit_result("PO1", "ERROR", error_message="first")
    job.emit_result("PO1", "COMPLETED")
    segment_of(job).write_bytes(segment_of(job).read_bytes().replace(b"first", b"worst"))
    done = run("history", csv_path, "PO1")
    assert (3, True, True) == (done.returncode, "COMPLETED" in done.stdout, "checksum" in done.stderr)


def test_a_value_cannot_pretend_to_be_an_event(job: EventCsv, csv_path: Path) -> None:
    """A line end in a value is shown as an escape, so history has a line for each cell and no other."""
    job.emit_result("PO1", "ERROR", error_message="x\n2099-01-01T00:00:00.000000Z  result  aaaaaaaaaaaa-00-1")
    assert 4 == len(run("history", csv_path, "PO1").stdout.splitlines())


def test_a_log_is_not_begun_for_a_column_that_is_not_there(csv_path: Path) -> None:
    """A forgotten --key is noticed with the first result, not after hours of them."""
    csv_path.write_text("ORDER;STATUS\n1;\n")
    done = run("emit", csv_path, "1", "COMPLETED")
    assert (1, True) == (done.returncode, "--key" in done.stderr)
    assert 0 == run("emit", csv_path, "1", "COMPLETED", "--key", "order").returncode
    assert 0 == run("compact", csv_path, "--key", "ORDER").returncode


def test_closed_streams_are_survived(csv_path: Path) -> None:
    """Without stdout or stderr the work is done all the same; a full one is named, and what it does not mean."""
    for redirection, code in ((">&-", 0), ("2>&-", 0), (">/dev/full", 1)):
        done = run_shell(f"{' '.join(COMMAND)} emit {csv_path} PO1 COMPLETED --json {redirection}")
        assert (code, "") == (done.returncode, done.stderr.partition("eventcsv: standard output")[0])
    assert 3 == len(run("history", csv_path, "PO1", "--json").stdout.splitlines())


def run_shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell."""
    return ran(["sh", "-c", command])
