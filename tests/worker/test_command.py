"""A command that is run for each PO: what it is given, what it says, and how it ends, with real programs."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import cannot, wait_until
from hypothesis import given
from hypothesis import strategies as st
from runs import by_po, make_job, rows_of

from eventcsv import Retry, StopRun
from eventcsv.worker.command import Column, Command, argument

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventcsv import EventCsv

pytestmark = pytest.mark.usefixtures("no_process_is_left")

SAY = "import json, os, sys; print(json.dumps({'said': [sys.argv[1:], sys.stdin.read(), os.environ['EVENTCSV_KEY']]}))"


def python(code: str, *words: str) -> Command:
    """Return the command of a piece of Python."""
    return Command.of([sys.executable, "-S", "-c", code.replace("{", "{{").replace("}", "}}"), *words])


def shell(script: str, *words: str) -> Command:
    """Return the command of a script of the shell."""
    return Command.of(["sh", "-c", script.replace("{", "{{").replace("}", "}}"), "sh", *words])


# --- arguments ---


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{PO_NUMBER}.pdf", (Column("PO_NUMBER"), ".pdf")),
        ("{}", (Column(""),)),
        ("a{ x y }b{}", ("a", Column("x y"), "b", Column(""))),
        ("{{}}", ("{", "}")),
        ("{{{A}}}", ("{", Column("A"), "}")),
        ('{{"a": 1}', ("{", '"a": 1', "}")),
        ("plain", ("plain",)),
        ("", ()),
    ],
)
def test_braces_are_cells(text: str, parts: tuple[str | Column, ...]) -> None:
    """A column, the key, and a brace itself when it is doubled."""
    assert parts == argument(text)


@pytest.mark.parametrize("text", ["{A", "a{", "{{{", "{a{b}"])
def test_a_brace_that_is_left_open_is_refused(text: str) -> None:
    """With the way to write one."""
    with pytest.raises(ValueError, match=r"a brace is left open\..* a brace"):
        argument(text)


@pytest.mark.parametrize(
    ("words", "said"), [([], "no command"), ([""], "no command"), (["{A}"], "same for every PO"), (["x{}"], "same")]
)
def test_a_cell_is_never_the_program(words: list[str], said: str) -> None:
    """Nor is nothing at all."""
    with pytest.raises(ValueError, match=said):
        Command.of(words)


HOSTILE = [
    "; rm -rf /",
    "$(id)",
    "`id`",
    "-rf",
    "--help",
    "{A}",
    "{}",
    "{{",
    "a b\tc",
    "\n",
    "'",
    '"',
    "*",
    "~",
    "é\ud7ff",
    "",
]


@given(st.lists(st.sampled_from(HOSTILE), min_size=2, max_size=2))
def test_cells_arrive_as_they_are(cells: list[str]) -> None:
    """No shell, no option and no brace in a cell means anything; the row is there once more as JSON."""
    row = {"PO_NUMBER": "PO1", "A": cells[0], "B b": cells[1]}
    said: Any = python(SAY, "{A}", "x{ b B }y{b b}", "{}")("PO1", row)["said"]
    words, told, key = said
    assert ([cells[0], f"x{cells[1]}y{cells[1]}", "PO1"], "PO1") == (words, key)
    assert row == json.loads(told)
    assert "\n" == told[-1]


def test_the_columns_that_are_wanted_have_to_be_there() -> None:
    """Case and blanks aside."""
    command = Command.of(["echo", "{a}", "{B}", "{}", "{c }", "{B}"])
    assert ["B", "c"] == command.unknown(["A", "d"])
    assert [] == command.unknown(["A", "b", " C"])


def test_a_cell_with_a_nul_is_an_error_of_its_po() -> None:
    """No argument can hold it."""
    with pytest.raises(ValueError, match="a NUL"):
        shell("true", "{A}")("PO1", {"A": "a\0b"})


# --- what comes of it ---


@pytest.mark.parametrize(
    ("script", "returned"),
    [
        ("true", {}),
        ("echo hello", {}),
        ("""echo hello; echo '{"note": "n", "ATTACHMENTS_FOUND": 3}'""", {"note": "n", "ATTACHMENTS_FOUND": 3}),
        ("""echo '{"STATUS": "NO_ATTACHMENTS"}'; echo; echo '  '""", {"STATUS": "NO_ATTACHMENTS"}),
        ("""printf '{"note": "no newline"}'""", {"note": "no newline"}),
        ("""echo '{"note": "n"}'; echo done""", {}),
        ("echo '[1]'", {}),
        ("echo '{'", {}),
        ("""echo '{"n": 12345678901234567890123}'""", {"n": 12345678901234567890123}),
        ("""echo '{"note": "n"}' >&2""", {}),
    ],
)
def test_the_last_line_has_the_columns(script: str, returned: dict[str, object]) -> None:
    """When it is a JSON object; an empty one behind it does not count."""
    assert returned == shell(script)("PO1", {})


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "exit code 3"),
        ("echo no page >&2; exit 1", "exit code 1: no page"),
        ("echo a >&2; echo password=hunter2 >&2; exit 1", "exit code 1: a password=***"),
        ("kill -9 $$", "killed by signal 9 (SIGKILL)"),
        ("echo what >&2; kill $$", "killed by signal 15 (SIGTERM): what"),
        ("""echo '{"ERROR_MESSAGE": "own words", "STATUS": "COMPLETED"}'; exit 1""", "own words"),
    ],
)
def test_any_other_exit_code_is_an_error(script: str, message: str) -> None:
    """With the end of standard error as its message, secrets masked."""
    assert {"STATUS": "ERROR", "ERROR_MESSAGE": message} == shell(script)("PO1", {})


def test_what_a_failed_one_names_is_recorded_all_the_same() -> None:
    """Its columns, and the last words of many."""
    found = shell("""seq 20000 >&2; echo '{"note": "half"}'; exit 2""")("PO1", {})
    assert "half" == found["note"]
    assert str(found["ERROR_MESSAGE"]).startswith("exit code 2: ...")
    assert str(found["ERROR_MESSAGE"]).endswith(" 19999 20000")


def test_exit_code_75_asks_for_another_attempt() -> None:
    """As EX_TEMPFAIL of sysexits.h does of a mailer."""
    with pytest.raises(Retry, match="exit code 75: busy"):
        shell("echo busy >&2; exit 75")("PO1", {})


@pytest.mark.parametrize("made", ["not there", "not executable", "a folder"])
def test_what_cannot_be_run_stops_the_run(tmp_path: Path, made: str) -> None:
    """It would fail for every PO."""
    path = tmp_path / "program"
    if made == "not executable":
        path.write_text("#!/bin/sh\n")
    elif made == "a folder":
        path.mkdir()
    with pytest.raises(StopRun, match="program: cannot be run"):
        Command.of([str(path)])("PO1", {})


# --- what it prints ---


def test_output_comes_line_by_line(capfd: pytest.CaptureFixture[str]) -> None:
    """Each line behind its PO, on the stream that it came from."""
    shell("echo one; printf two; echo three >&2")("PO 7", {})
    assert ("PO 7: one\nPO 7: two\n", "PO 7: three\n") == capfd.readouterr()


def test_output_can_be_kept_in_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One a PO, whatever its key is; a further attempt is added."""
    command = Command.of(["sh", "-c", "echo $0; echo err >&2", "{}"], tmp_path)
    for key in ("PO1", "../a/b", ".", "é" * 200, "é" * 201, "PO1"):
        command(key, {})
    assert ("", "") == capfd.readouterr()
    assert "PO1\nerr\nPO1\nerr\n" == (tmp_path / "PO1.txt").read_text()
    assert 5 == len(list(tmp_path.iterdir()))
    assert "../a/b\nerr\n" == (tmp_path / "..%2Fa%2Fb.txt").read_text()


def test_output_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    """As of a program that cannot write; a failure of its own says more."""
    (tmp_path / "PO1.txt").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*PO1\.txt"):
        Command.of(["sh", "-c", "seq 10000"], tmp_path)("PO1", {})
    assert "exit code 3" == Command.of(["sh", "-c", "echo; exit 3"], tmp_path)("PO1", {})["ERROR_MESSAGE"]


def test_100_mb_cost_no_memory(capfd: pytest.CaptureFixture[str]) -> None:
    """With newlines or without; the last line counts all the same."""
    code = "import sys; [sys.stdout.write(%r * 1000) for _ in range(%d)]; print('\\n{\"note\": 1}')"
    for text, times in (("y" * 999 + "\n", 50), ("n" * 1000, 50)):
        assert {"note": 1} == python(code % (text, times))("PO1", {})
        out, _ = capfd.readouterr()
        assert out.count("y") + out.count("n") >= 49_900_000


def test_a_line_too_long_for_columns_is_none() -> None:
    """Nor does it fail."""
    assert {} == python("print('{\"note\": \"' + 'x' * 3_000_000 + '\"}')")("PO1", {})


# --- how it ends ---


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """Return what comes of something, and how long it took, in seconds."""
    clock = time.monotonic()
    return action(), time.monotonic() - clock


def test_one_that_closes_its_pipes_is_waited_for(tmp_path: Path) -> None:
    """Its end is what counts."""
    shell(f"exec >&- 2>&- <&-; sleep 0.3; touch {tmp_path}/done; exit 0")("PO1", {"A": "x" * 300_000})
    assert (tmp_path / "done").exists()


def test_a_child_that_is_left_is_ended(tmp_path: Path) -> None:
    """It holds the pipes; nobody waits for it."""
    found, took_s = timed(lambda: shell(f"sleep 60 & echo $! > {tmp_path}/pid; echo '{{\"note\": 1}}'")("PO1", {}))
    assert {"note": 1} == found
    assert took_s < 30
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])


def test_one_that_reads_nothing_is_not_waited_for() -> None:
    """However long the row is, and one that reads it slowly gets all of it."""
    row = {"A": "x" * 3_000_000}
    assert {} == shell("exit 0")("PO1", row)
    assert {"n": len(json.dumps(row, separators=(",", ":"))) + 1} == python(
        "import sys, time, json; time.sleep(0.2); print(json.dumps({'n': len(sys.stdin.buffer.read())}))"
    )("PO1", row)


COMMANDS = {
    "fine": "true",
    "ignores": "trap '' TERM INT HUP; sleep 60",
    "child": "sleep 60 & wait",
    "leaves": "(trap '' TERM; sleep 60) & exit 0",
}


@pytest.fixture
def commands(tmp_path: Path) -> tuple[EventCsv, Command]:
    """A job of which each PO says in DO what the command does, and that command."""
    script = tmp_path / "do.sh"
    cases = "".join(f"{name}) {what};;\n" for name, what in COMMANDS.items())
    script.write_text(f'#!/bin/sh\necho $$ >> {tmp_path}/pids\ncase "$1" in\n{cases}esac\n')
    script.chmod(0o755)
    return make_job(tmp_path, {f"PO{n}": name for n, name in enumerate(COMMANDS)}), Command.of([str(script), "{DO}"])


def alive(folder: Path) -> list[int]:
    """Return the programs that are still there."""
    pids = map(int, (folder / "pids").read_text().split())
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_a_timeout_ends_the_whole_group(commands: tuple[EventCsv, Command], tmp_path: Path) -> None:
    """Whatever it ignores and has started."""
    job, command = commands
    with job.session() as session:
        result = session.run(command, workers=2, timeout_s=1)
    assert {"PO0": "COMPLETED", "PO1": "ERROR", "PO2": "ERROR", "PO3": "COMPLETED"} == by_po(job)
    assert "longer than 1 s" in rows_of(job)["PO1"]["ERROR_MESSAGE"]
    assert 2 == result.lost_workers
    wait_until(lambda: not alive(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.parametrize("how", [[signal.SIGKILL], [signal.SIGINT, signal.SIGINT]])
def test_the_end_of_the_run_is_that_of_its_commands(
    commands: tuple[EventCsv, Command], tmp_path: Path, how: list[signal.Signals]
) -> None:
    """A kill of the main process, and a second Ctrl-C."""
    job, _ = commands
    words = [sys.executable, "-m", "eventcsv", "run", job.csv_path, "-w", "2", "--only", "PO1", "--only", "PO2"]
    run = subprocess.Popen([*words, "--", str(tmp_path / "do.sh"), "{DO}"], stdout=-1, stderr=-1)
    wait_until(lambda: (tmp_path / "pids").exists() and len(alive(tmp_path)) == 2)
    for number in how:
        run.send_signal(number)
        time.sleep(0.3)
    run.communicate(timeout=60)
    wait_until(lambda: not alive(tmp_path))
    assert {"PO1", "PO2"} <= set(job.pending())


def test_curl_downloads_what_a_cell_names(tmp_path: Path) -> None:
    """The plainest use."""
    if not shutil.which("curl"):
        cannot("curl is not installed")
    job = make_job(tmp_path, {"PO1": (tmp_path / "here").as_uri(), "PO2": (tmp_path / "gone").as_uri()})
    (tmp_path / "here").write_text("attachment")
    with job.session() as session:
        session.run(Command.of(["curl", "-fsS", "-o", f"{tmp_path}/{{PO_NUMBER}}.pdf", "{DO}"]))
    assert "attachment" == (tmp_path / "PO1.pdf").read_text()
    assert ("COMPLETED", "ERROR") == (by_po(job)["PO1"], by_po(job)["PO2"])
    assert rows_of(job)["PO2"]["ERROR_MESSAGE"].startswith("exit code 37: curl: (37)")
