"""The promise: whatever goes wrong is told in words that say what, where and what next; tracebacks are for --debug.

Provoked through the real command line. What is wrong with a CSV, an event or a stranger's file is in
`test_refusals.py`, mistakes in calling `run` and missing CSVs in `test_commands.py`; here is the rest.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import typer.main
from command_line import COMMAND, python, ran, run
from conftest import cannot, segment_of
from typer.core import TyperGroup

from eventcsv import EventCsv
from eventcsv.cli.app import app
from eventcsv.cli.output import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORK: Final = """
def generator(key, row): yield
def takes_nothing(): pass
def work(key, row): pass
number = 3
"""


def shell(folder: Path, line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell, in which `eventcsv` is the command."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("EVENTCSV_")}
    return subprocess.run(
        ["bash", "-c", re.sub(r"\beventcsv (?!:)", f"{shlex.join(COMMAND)} ", line)],
        cwd=folder,
        env=plain | {"COLUMNS": "400", "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@dataclass(frozen=True, slots=True)
class Case:
    """Something that goes wrong.

    Attributes:
        line: The line of shell that provokes it.
        code: The exit code.
        words: What standard error says, all of it.
        prepare: What is done before, to a job that has a result in its log and one in its CSV.
    """

    line: str
    code: int
    words: tuple[str, ...]
    prepare: Callable[[EventCsv], object] = bool


def file_for_log(job: EventCsv) -> None:
    os.rename(job.log_dir, f"{job.log_dir}.away")
    with open(job.log_dir, "x"):
        pass


def damaged_backup(job: EventCsv) -> None:
    path = job.backups()[0].path
    with open(path, "a") as file:
        file.write("x")
    os.rename(path, os.path.join(os.path.dirname(path), "input_20260101_000000_a.csv"))
    os.rename(f"{path[:-4]}.json", os.path.join(os.path.dirname(path), "input_20260101_000000_a.json"))


def workbook(job: EventCsv) -> None:
    os.rename(job.log_dir, f"{job.log_dir}.away")
    with open(job.csv_path, "wb") as file:
        file.write(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 old Excel")


def of_nobody(name: str) -> Callable[[EventCsv], object]:
    def prepare(job: EventCsv) -> None:
        if os.geteuid():
            cannot("only root can give a file away")
        os.chown(os.path.join(os.path.dirname(job.csv_path), name), 65534, -1)

    return prepare


def damaged_log(job: EventCsv) -> None:
    segment = segment_of(job)
    segment.write_bytes(segment.read_bytes().replace(b'"key":"PO2"', b'"key":"PO7"'))


def gap_in_log(job: EventCsv) -> None:
    job.new_segment()
    job.new_segment()
    segment_of(job, 2).unlink()


RUN: Final = "eventcsv run input.csv"
CASES: Final = {
    # how the command is called
    "no such command": Case("eventcsv stats input.csv", 2, ("No such command 'stats'", "Did you mean 'status'?")),
    "no such backup command": Case("eventcsv backup lst input.csv", 2, ("'lst'", "Did you mean 'list'?")),
    "no argument": Case("eventcsv history input.csv", 2, ("Missing argument 'KEY'", "history -h")),
    "no status": Case("eventcsv emit input.csv PO1", 2, ("STATUS", "is missing", "--started", "emit -h")),
    "endless timeout": Case(f"{RUN} work:work --timeout inf", 2, ("--timeout", "number of seconds", "inf")),
    "negative timeout": Case(f"{RUN} work:work --timeout -5", 2, ("--timeout", "seconds from 0.001 to")),
    "endless lock timeout": Case("eventcsv status input.csv --lock-timeout 1e300", 2, ("--lock-timeout", "1e+300")),
    "endless refresh": Case(f"{RUN} work:work --refresh inf", 2, ("--refresh", "inf")),
    "bad session": Case(f"{RUN} work:work --session a/b", 2, ("--session", "'a/b'")),
    "bad lock variable": Case(
        "EVENTCSV_LOCK_TIMEOUT_S=soon eventcsv status input.csv", 2, ("EVENTCSV_LOCK_TIMEOUT_S", "not a valid float")
    ),
    "bad debug variable": Case("EVENTCSV_DEBUG=maybe eventcsv status input.csv", 2, ("EVENTCSV_DEBUG",)),
    "export to no folder": Case(
        "eventcsv export input.csv -o no/out.xlsx", 1, ("/no: there is no such folder", "Make it, or name another")
    ),
    "export into a file": Case(
        "eventcsv export input.csv -o input.csv/out.xlsx", 1, ("input.csv: there is no such folder", "Make it")
    ),
    "report to no folder": Case(
        "eventcsv report input.csv -o no/out.html", 1, ("/no: there is no such folder", "Make it")
    ),
    "backups in no folder": Case(
        "EVENTCSV_BACKUP_DIR=/proc/nope eventcsv backup create input.csv", 1, ("/proc/nope", "run it again")
    ),
    "backups in a file": Case(
        "EVENTCSV_BACKUP_DIR=input.csv eventcsv backup create input.csv", 1, ("input.csv: is a file", "move it away")
    ),
    # the function of a run
    "generator": Case(f"{RUN} work:generator", 2, ("work:generator", "is a generator", "Let it return")),
    "other signature": Case(f"{RUN} work:takes_nothing", 2, ("does not take them", "def download(key, row)")),
    "no such function": Case(f"{RUN} work:wrok", 2, ("no function 'wrok'", "it has generator", "work")),
    "not a function": Case(f"{RUN} work:number", 2, ("no function 'number'", "of type int")),
    "no such module": Case(f"{RUN} wrok:work", 2, ("no module 'wrok' in /", "the folder that holds wrok.py")),
    "no name of a module": Case(f"{RUN} ..:work", 2, ("'..' cannot be the name of a module",)),
    "syntax error": Case(f"echo 'def f(' > wrong.py; {RUN} wrong:f", 1, ("wrong.py, line 1", "Mend it there")),
    "missing import": Case(f"echo 'import nope' > wrong.py; {RUN} wrong:f", 1, ("No module named 'nope'", "installed")),
    "exit at import": Case(f"echo 'exit(3)' > wrong.py; {RUN} wrong:f", 1, ("ends Python", "__name__")),
    "no workbook": Case("eventcsv import no.xlsx new.csv", 1, ("no.xlsx: there is no such file", "Check the path")),
    "a folder for a workbook": Case("eventcsv import . new.csv", 1, ("is a folder", "Name the workbook")),
    "a file for a folder": Case(
        "eventcsv status input.csv/x.csv", 1, ("Not a directory. Mend that, and run it again",)
    ),
    # what stands in the way
    "file for a log": Case("eventcsv compact input.csv", 1, ("input.events: is a file", "move it away"), file_for_log),
    "file for a log, looked at": Case(
        "eventcsv status input.csv", 1, ("input.events: is a file", "move it away"), file_for_log
    ),
    "foreign log": Case(
        "eventcsv compact input.csv",
        1,
        ("input.events", "of user 65534", "run as its owner"),
        of_nobody("input.events"),
    ),
    "foreign lock": Case(
        "eventcsv emit input.csv PO1 COMPLETED",
        1,
        ("append.lock", "of user 65534", "Treat it as not done", "emit it again"),
        of_nobody("input.events/append.lock"),
    ),
    "old Excel": Case("eventcsv status input.csv", 1, ("input.csv: is an Excel workbook", "CSV UTF-8"), workbook),
    "old Excel, emitted to": Case(
        "eventcsv emit input.csv PO1 COMPLETED", 1, ("input.csv: is an Excel workbook", "CSV UTF-8"), workbook
    ),
    "folder gone": Case("mkdir x; cd x; rmdir ../x; eventcsv status input.csv", 1, ("folder", "is gone", "cd")),
    # what is damaged or missing
    "no events of a key": Case("eventcsv history input.csv PO9", 1, ("input.events", "'PO9'", "no result yet")),
    "no such backup": Case("eventcsv backup restore input.csv b.csv", 1, ("no backup 'b.csv'", "there are: input_2")),
    "damaged backup": Case(
        "eventcsv backup restore input.csv input_20260101_000000_a.csv",
        1,
        ("input_20260101_000000_a.csv: the backup is damaged", "eventcsv backup list"),
        damaged_backup,
    ),
    "missing segment": Case(
        "eventcsv history input.csv PO1", 3, ("events-000002.jsonl", "the segment is missing"), gap_in_log
    ),
    "damaged line": Case("eventcsv history input.csv PO2", 3, ("events-000001.jsonl, byte", "checksum"), damaged_log),
    # where the output goes
    "full output": Case("eventcsv status input.csv > /dev/full", 1, ("standard output: No space left on device",)),
    "full output, watched": Case(
        "eventcsv status input.csv --watch > /dev/full", 1, ("standard output: No space left on device",)
    ),
    "full output, help": Case("eventcsv --help > /dev/full", 1, ("No space left on device",)),
    "a log file that is the CSV": Case("eventcsv --log-file input.csv status input.csv", 2, ("Name another file",)),
    "a log file that is the event log": Case(
        "eventcsv emit input.csv PO1 PARTIAL && eventcsv --log-file input.events/events-000001.jsonl status input.csv",
        2,
        ("events-000001.jsonl: is no such log",),
    ),
    "no status at all": Case("eventcsv emit input.csv PO1 ''", 2, ("what came of the PO? Nothing was written",)),
    "no log file": Case("eventcsv status input.csv --log-file no/x", 2, ("--log-file", "no/x: No such file")),
}


@pytest.fixture
def worked_on(job: EventCsv, csv_path: Path) -> EventCsv:
    """A job with a backup, a result in the CSV and one in the log only."""
    (csv_path.parent / "work.py").write_text(WORK)
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    job.emit_result("PO2", "COMPLETED")
    job.close()
    return job


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_what_goes_wrong_is_told_in_words(worked_on: EventCsv, csv_path: Path, case: Case) -> None:
    """The exit code, what, where and what next; no traceback, and no CSV that is any different."""
    case.prepare(worked_on)
    before = csv_path.read_bytes()
    done = shell(csv_path.parent, case.line)
    assert case.code == done.returncode, done.stderr
    assert [] == [word for word in case.words if word not in done.stderr], done.stderr
    assert "Traceback" not in done.stderr
    assert "[Errno" not in done.stderr
    assert case.code != Exit.USAGE or 1 == len(done.stderr.splitlines()), done.stderr
    assert before == csv_path.read_bytes()


@pytest.mark.parametrize("bare", ["env -u HOME", "env -u TERM", "env -i"])
@pytest.mark.usefixtures("worked_on")
def test_a_bare_environment_is_enough(csv_path: Path, bare: str) -> None:
    """No HOME, no TERM, no PATH, no locale."""
    done = shell(csv_path.parent, f"{bare} eventcsv status input.csv")
    assert (0, "") == (done.returncode, done.stderr)
    assert "2 of 3 POs done" in done.stdout


def test_a_full_disk_is_told_by_name(small_disk: Path) -> None:
    """A compaction that has no room says so, leaves the CSV whole, and works once there is room."""
    path = small_disk / "input.csv"
    path.write_text("PO_NUMBER;STATUS\n" + "".join(f"PO{number};{'x' * 60}\n" for number in range(1000)))
    job = EventCsv(path, durability="process")
    job.emit_result("PO1", "COMPLETED")
    before = path.read_bytes()
    (small_disk / "filler").write_bytes(b"x" * 160_000)
    done = shell(small_disk, "eventcsv compact input.csv")
    assert 1 == done.returncode
    assert "No space left on device" in done.stderr
    assert before == path.read_bytes()
    (small_disk / "filler").unlink()
    assert 0 == shell(small_disk, "eventcsv compact input.csv").returncode


# --- tracebacks --------------------------------------------------------------------------------------------------

WITH_MISTAKE: Final = """
from eventcsv import EventCsv
from eventcsv.cli.main import main
def mistaken(self, **options):
    raise KeyError("token=hunter2")
EventCsv.compact = mistaken
main()
"""


def with_mistake(csv_path: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command that has a mistake in it."""
    return python(WITH_MISTAKE, *args, cwd=csv_path.parent, **variables)


def test_a_want_of_threads_is_no_mistake_of_ours(csv_path: Path) -> None:
    """As Python says it under `ulimit -v`, or with too many processes."""
    script = WITH_MISTAKE.replace('KeyError("token=hunter2")', 'RuntimeError("can\'t start new thread")')
    done = python(script, "compact", "input.csv", cwd=csv_path.parent)
    assert (1, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert "no more threads, or no memory for them" in done.stderr
    assert "mistake" not in done.stderr


def test_a_file_that_hides_pythons_own_module_is_named(csv_path: Path) -> None:
    """No worker starts beside a types.py, whatever the script looks like; the main process, which is none, goes on."""
    (csv_path.parent / "work.py").write_text(WORK)
    (csv_path.parent / "types.py").write_text("x = 1\n")
    start = "import sys; sys.path.pop(0); sys.argv[0] = 'eventcsv'; from eventcsv.cli.main import main; main()"
    done = python(start, "run", "input.csv", "work:work", cwd=csv_path.parent)
    # What the interpreter of a process that could not begin says of it may come later than our own line.
    told = [line for line in done.stderr.splitlines() if "no worker could be started" in line]
    assert (1, 1) == (done.returncode, len(told)), done.stderr
    last = told[0]
    assert f"types.py in {csv_path.parent} hides Python's own module of that name. Rename it" in last
    assert "__name__" not in last


def test_a_mistake_of_ours_is_one_line(csv_path: Path) -> None:
    """It is called what it is, with its place, what it does not mean, and how to tell of it."""
    done = with_mistake(csv_path, "compact", "input.csv")
    assert (1, "", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines()))
    for word in ("a mistake in eventcsv: KeyError", "(compact.py, line ", "safe in the log", "report it", "--debug"):
        assert word in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("args", "variables"),
    [
        (("--debug", "compact", "input.csv"), {}),
        (("compact", "input.csv", "--debug"), {}),
        (("compact", "input.csv"), {"EVENTCSV_DEBUG": "1"}),
    ],
)
def test_debug_shows_the_traceback(csv_path: Path, args: tuple[str, ...], variables: dict[str, str]) -> None:
    """Asked for in any of three ways; secrets are masked, and the last line is the same as ever."""
    done = with_mistake(csv_path, *args, **variables)
    assert (1, "") == (done.returncode, done.stdout)
    assert "Traceback (most recent call last):" in done.stderr
    assert "in mistaken" in done.stderr
    assert "a mistake in eventcsv" in done.stderr.splitlines()[-1]
    assert "hunter2" not in done.stderr


def test_debug_shows_where_a_foreseen_error_comes_from(csv_path: Path) -> None:
    """The reason is the last line, the traceback above it."""
    done = shell(csv_path.parent, "eventcsv compact nope.csv --debug")
    assert 1 == done.returncode
    assert "Traceback" in done.stderr
    assert "no such file" in done.stderr.splitlines()[-1]


BEGIN: Final = "from eventcsv.__main__ import main; print('begun', flush=True); main()"


@pytest.mark.parametrize("every_ms", [170, pytest.param(20, marks=pytest.mark.long)])
@pytest.mark.parametrize("line", ["status input.csv", "run input.csv slow:work -w 2", "compact input.csv --watch"])
def test_ctrl_c_at_any_time_is_no_traceback(csv_path: Path, line: str, every_ms: int) -> None:
    """From the command's own first line, before it has loaded anything, to the last one that it prints."""
    (csv_path.parent / "slow.py").write_text("import time\ndef work(key, row): time.sleep(0.2)\n")
    said = set()
    for delay_ms in range(20, 1200, every_ms):
        command = [sys.executable, "-c", BEGIN, *line.split()]
        with subprocess.Popen(
            command, cwd=csv_path.parent, stdout=-1, stderr=-1, text=True, start_new_session=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()  # Python itself has started, and may not be blamed on us
            time.sleep(delay_ms / 1000)
            os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert "Traceback" not in err, f"after {delay_ms} ms: {err}"
        said.add(process.returncode)
    assert {0, 1, 130, -signal.SIGINT}.issuperset(said)  # 130: a shell's word for SIGINT, and typer's


def test_ctrl_c_while_python_ends_is_no_traceback(csv_path: Path) -> None:
    """All is done and told by then; whatever is still being taken down says nothing."""
    at_the_end = f"import atexit, os; atexit.register(os.kill, os.getpid(), {int(signal.SIGINT)}); {BEGIN}"
    command = [sys.executable, "-c", at_the_end, "status", "input.csv"]
    done = subprocess.run(command, cwd=csv_path.parent, capture_output=True, text=True, check=False, timeout=60)
    assert (-signal.SIGINT, "") == (done.returncode, done.stderr)
    assert "0 of 3 POs done" in done.stdout


SHELL_LINES: Final = {
    "nobody hears what is said": ("run input.csv work:work 2>/dev/full", 0),
    "nor the result": ("run input.csv work:work >/dev/full 2>&1", 1),
    "every stream is closed": ("run input.csv work:work <&- >&- 2>&-", 0),
    "and there is a log": ("--log-file log.jsonl run input.csv work:work <&- >&- 2>&-", 0),
}


@pytest.mark.parametrize(("line", "code"), SHELL_LINES.values(), ids=SHELL_LINES)
def test_who_cannot_be_told_keeps_nobody_from_working(csv_path: Path, line: str, code: int) -> None:
    """Full or closed streams cost what was to be said; that the result could not be written is a failure."""
    (csv_path.parent / "work.py").write_text("def work(key, row): pass\n")
    done = subprocess.run(["bash", "-c", f"{shlex.join(COMMAND)} {line}"], cwd=csv_path.parent, check=False, timeout=60)
    assert (code, []) == (done.returncode, EventCsv(csv_path).pending())
    if (csv_path.parent / "log.jsonl").exists():
        assert all(map(json.loads, (csv_path.parent / "log.jsonl").read_text().splitlines()))


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("emit input.csv PO1 ERROR 2>/dev/full", 0, ""),
        ("status none.csv 2>/dev/full", 1, ""),
        ("--version >/dev/full", 1, "eventcsv: No space left on device"),
        ("emit input.csv --stdin <&-", 2, "there is no standard input to read"),
    ],
)
def test_a_stream_that_is_no_use_changes_no_exit_code(csv_path: Path, line: str, code: int, said: str) -> None:
    """Nor does Python add a word of its own."""
    shell = ["bash", "-c", f"{shlex.join(COMMAND)} {line}"]
    done = subprocess.run(shell, cwd=csv_path.parent, check=False, timeout=60, capture_output=True, text=True)
    assert (code, True, False) == (done.returncode, said in done.stderr, "Traceback" in done.stderr)


# --- help and completion -----------------------------------------------------------------------------------------


def commands(group: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield every command, as one would type it."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


TOP: Final = typer.main.get_command(app)
assert isinstance(TOP, TyperGroup)
EVERY: Final = list(commands(TOP))


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_help_has_an_example_that_can_be_typed(path: tuple[str, ...]) -> None:
    """It shows as a whole in a usual terminal, it is of this command, and its command line parses."""
    done = run(*path, "--help", NO_COLOR="1", COLUMNS="100")
    found = re.search(r"Example: (eventcsv .*?)\n\s*\n", f"{done.stdout}\n\n", re.DOTALL)
    assert found, done.stdout
    assert "--debug" in done.stdout
    words = shlex.split(" ".join(found[1].split()))
    words = words[1 : words.index("|") if "|" in words else None]
    assert list(path) == words[: len(path)]
    command: object = TOP
    for name in path:
        assert isinstance(command, TyperGroup)
        command = command.commands[name]
    context = command.make_context(" ".join(path), words[len(path) :])  # type: ignore[attr-defined]  # it is a command
    named = "postgresql://" if path[0] == "log" else "data/input/input.csv"
    assert any(named in str(value) for value in context.params.values())


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("eventcsv sta", ["status"]),
        ("eventcsv backup re", ["restore"]),
        ("eventcsv run input.csv jobs:f --work", ["--workers"]),
        ("eventcsv run input.csv jobs:f --interrupted h", ["hold"]),
        ("eventcsv status inp", []),  # bash itself completes files, as `-o default` says
    ],
)
def test_bash_completes_what_is_typed(csv_path: Path, typed: str, completed: list[str]) -> None:
    """In a real bash, with the script that --show-completion gives."""
    program = csv_path.with_name("eventcsv")
    start = "import sys; sys.argv[0] = 'eventcsv'; from eventcsv.cli.main import main; main()"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{start}" "$@"\n')
    program.chmod(0o700)
    script = f"""
        eval "$(eventcsv --show-completion bash)"
        complete -p eventcsv >&2
        COMP_WORDS=({typed}); COMP_CWORD={len(typed.split()) - 1}
        _eventcsv_completion eventcsv
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = os.pathsep.join([str(csv_path.parent), os.environ["PATH"]])
    done = ran(["bash", "-c", script], csv_path.parent, PATH=path)
    assert completed == done.stdout.split(), done.stderr
    assert "complete -o default -F _eventcsv_completion eventcsv" in done.stderr


def test_the_help_begins_with_what_people_need_first() -> None:
    """A run and how far it is come before what mends and moves."""
    names = re.findall(r"^[│ ]*([a-z]+)  ", shell(Path.cwd(), "eventcsv --help").stdout, re.MULTILINE)
    assert ["run", "status"] == names[:2]
    assert {path[0] for path in EVERY} == set(names)


@pytest.mark.parametrize("how", ["python -c", "standard input"])
def test_a_function_that_no_worker_can_import_is_told_where_to_go(csv_path: Path, how: str) -> None:
    """A notebook, the REPL, -c and standard input have no module that a worker could import."""
    script = f"""
from eventcsv import EventCsv
def work(key, row): pass
with EventCsv({str(csv_path)!r}).session() as session:
    session.run(work)
"""
    command = [sys.executable, "-c", script] if how == "python -c" else [sys.executable]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, timeout=120)
    assert 1 == done.returncode
    assert "in a module of its own, as jobs.py" in done.stderr.splitlines()[-1]
    assert "__name__" not in done.stderr
