"""The promise: the live view shows how a job stands in a terminal of any size, and leaves the terminal as it was."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

import psutil  # type: ignore[import-untyped]  # it has no stubs of its own
import pyte
import pytest
from command_line import COMMAND
from conftest import segment_of
from hypothesis import given
from hypothesis import strategies as st

from eventcsv import EventCsv
from eventcsv.cli.live.dashboard import ago, frame
from eventcsv.cli.live.monitor import Monitor, Snapshot
from eventcsv.event import InFlight, utc_text
from eventcsv.log.types import Damage
from eventcsv.view.progress import Failure, Progress
from eventcsv.view.session_lock import Holder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TYPED: Final = shlex.join(COMMAND)
NOW: Final = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ALTERNATE: Final = 1049 << 5  # how pyte numbers a private mode
CONTROL: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


class TwoScreens(pyte.Screen):
    """pyte's screen, which lacks the alternate one."""

    def set_mode(self, *modes: int, **options: Any) -> None:
        super().set_mode(*modes, **options)
        if ALTERNATE >> 5 in modes and options.get("private"):
            self.primary = ([*self.display], (self.cursor.x, self.cursor.y))
            self.erase_in_display(2)

    def reset_mode(self, *modes: int, **options: Any) -> None:
        super().reset_mode(*modes, **options)
        if ALTERNATE >> 5 in modes and options.get("private"):
            lines, (x, y) = self.primary
            self.erase_in_display(2)
            for number, line in enumerate(lines, 1):
                self.cursor_position(number, 1)
                self.draw(line.rstrip())
            self.cursor_position(y + 1, x + 1)


class Terminal:
    """A shell in a pseudo-terminal, and what one would see on its screen."""

    def __init__(self, folder: Path, *, columns: int = 80, lines: int = 24, **variables: str) -> None:
        self.screen = TwoScreens(columns, lines)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        plain = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "--noediting", "-i"],
            cwd=folder,
            env=plain | {"TERM": "xterm-256color", "PS1": "ready> ", "LC_ALL": "C.UTF-8"} | variables,
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # no threads here
        )
        os.close(side)

    def __enter__(self) -> Self:
        self.wait_for("ready>")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._main)
        self._shell.kill()
        self._shell.wait()

    @property
    def pid(self) -> int:
        """The process of the shell."""
        return self._shell.pid

    def type(self, text: str) -> None:
        """Type."""
        os.write(self._main, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of the window."""
        self.screen.resize(lines, columns)
        fcntl.ioctl(self._main, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def modes(self) -> list[Any]:
        """What the terminal is set to."""
        return termios.tcgetattr(self._main)

    @property
    def text(self) -> str:
        """What the screen shows."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    @property
    def is_alternate(self) -> bool:
        """Whether the alternate screen is shown."""
        return ALTERNATE in self.screen.mode

    def wait_for(self, text: str) -> None:
        """Wait until the screen shows something."""
        self.wait_until(lambda: text in self.text, text)

    def wait_until(self, holds: Callable[[], object], what: str) -> None:
        """Wait until something holds of the screen."""
        deadline = time.monotonic() + 60
        while not holds():
            if time.monotonic() > deadline:
                pytest.fail(f"never: {what}\n{self.text}")
            if select.select([self._main], [], [], 0.05)[0]:
                piece = os.read(self._main, 65536)
                self.raw += piece
                self._stream.feed(piece)


def looked(**changes: Any) -> Snapshot:
    """Return a look at a busy job."""
    progress = Progress(
        csv_path="/data/po.csv",
        total=10_000,
        done=4_312,
        pending=5_688,
        by_status={"PENDING": 5_600, "COMPLETED": 4_312, "ERROR": 70, "RATE_LIMIT": 10, "PARTIAL": 7, "": 1},
        rate_per_min=412.0,
        eta_s=828.0,
        failures=tuple(
            Failure(f"PO{number}", "ERROR", "TimeoutError: " + "no answer " * 20, utc_text(NOW - timedelta(seconds=90)))
            for number in range(80)
        ),
        session=Holder("17a3301d", 7, utc_text(NOW - timedelta(hours=2))),
        in_flight=tuple(
            InFlight(f"PO9{number}", f"17a3301d-{number:02}-5", utc_text(NOW - timedelta(seconds=3)))
            for number in range(1, 9)
        ),
        unknown=2,
        behind=3,
        damage=(),
        torn=(),
        csv_written_at=utc_text(NOW - timedelta(minutes=5)),
        log_written_at=utc_text(NOW),
    )
    damage = (Damage("events-000002.jsonl", 4711, 130, "the checksum does not match"),)
    trouble, stopping = changes.pop("trouble", ""), changes.pop("stopping", "")
    return Snapshot(dataclasses.replace(progress, **changes), NOW, damage, trouble, stopping)


def shown(look: Snapshot, width: int, height: int, hint: str = "hint") -> list[str]:
    """Return the lines of a frame."""
    return [line.plain for line in frame(look, width=width, height=height, hint=hint)]


# --- what it says, and how it fits -------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(1, 70), st.booleans(), st.booleans())
def test_a_view_fits_every_terminal(width: int, height: int, trouble: bool, idle: bool) -> None:  # noqa: FBT001  # drawn
    """No size has a line too many or one too wide, whatever there is to tell."""
    changes: dict[str, Any] = {"session": None, "in_flight": (), "failures": (), "by_status": {}} if idle else {}
    look = looked(trouble="po.csv, line 5: a quote is opened and never closed. " * 3 if trouble else "", **changes)
    lines = frame(look, width=width, height=height, hint="hint")
    assert 1 <= len(lines) <= height
    assert [] == [line.plain for line in lines if line.cell_len > width]


def test_what_matters_least_goes_first() -> None:
    """In one line there is how far it is; then what stops it, the pace and what is wrong, before any detail."""
    look = looked(stopping="SIGINT", trouble="no space left")
    found = ["\n".join(shown(look, 80, height)) for height in range(1, 40)]
    words = ["4,312 of 10,000 POs done (43 %)", "stopping once", "412 a minute", "no space left", "damage     1 place"]
    words += ["by status", "failed     80", "3 results behind", "8 in flight", "session 17a3301d", "2 keys"]
    firsts = [next(height for height, text in enumerate(found, 1) if word in text) for word in words]
    assert sorted(firsts) == firsts
    assert 1 == firsts[0]


def test_a_view_of_80_by_24_says_it_all() -> None:
    """Every kind of news has its place in the usual size, in words."""
    text = "\n".join(shown(looked(), 80, 24))
    for word in (
        *("session 17a3301d, for 2:00:00", "PENDING", "RATE_LIMIT", "412 a minute, about 0:13:48 left"),
        *("3 results behind the log; written 5 min ago, the log just now", "1 place in the log", "PO91  0:00:03"),
        *("80, the latest first", "1 min ago  PO79  ERROR  TimeoutError: no answer", "hint"),
    ):
        assert word in text, word


def test_a_wider_terminal_is_used() -> None:
    """Messages get longer, and workers stand side by side."""
    narrow, wide = (max(map(len, shown(looked(), width, 40))) for width in (80, 160))
    assert (80, 160) == (narrow, wide)
    assert 8 == max(sum(f"PO9{number} " in line for line in shown(looked(), 300, 40)) for number in range(1, 9)) * 8
    assert 4 <= next(line.count("PO9") for line in shown(looked(), 160, 40) if "PO91" in line)


def test_what_came_from_elsewhere_cannot_steer_the_terminal() -> None:
    """Keys, statuses and messages are shown with escapes, and secrets are masked."""
    evil = "\x1b[2Jtoken=abc\n"
    flights = (InFlight(evil, "a-00-1", evil),)
    text = "".join(
        shown(looked(failures=(Failure(evil, evil, evil, evil),), by_status={evil: 1}, in_flight=flights), 200, 40)
    )
    assert [] == re.findall("[\x00-\x1f]", text)
    assert "token=***" in text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "just now"), (2, "2 s ago"), (59, "59 s ago"), (61, "1 min ago"), (7201, "2 h ago"), (86401, "1 day ago")],
)
def test_ages_are_told_roughly(seconds: float, said: str) -> None:
    """The unit that fits."""
    assert said == ago(seconds)


def test_damage_stays_in_the_view(job: EventCsv) -> None:
    """A compaction passes over a damaged line, and whoever watched goes on seeing it."""
    job.emit_result("PO1", "COMPLETED")
    monitor = Monitor(job, ["COMPLETED"])
    job.emit_result("PO2", "COMPLETED")
    segment_of(job).write_bytes(segment_of(job).read_bytes().replace(b'"key":"PO2"', b'"key":"PO7"'))
    monitor._due_s = 0.0
    monitor.update()
    assert 1 == len(monitor.damage)
    job.compact()
    monitor._due_s = 0.0
    monitor.update()
    assert (0, 1) == (len(monitor.progress.damage), len(monitor.damage))


def test_nothing_new_costs_no_look(job: EventCsv, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has not changed is not counted again, for five seconds at least; what has changed is."""
    monitor = Monitor(job, ["COMPLETED"])
    monitor.update()
    monitor._due_s = time.monotonic()
    counted: list[Progress] = []

    def progress(_self: EventCsv, **_options: object) -> Progress:
        counted.append(monitor.progress)
        return monitor.progress

    monkeypatch.setattr(EventCsv, "progress", progress)
    monitor.update()
    assert [] == counted
    job.emit_result("PO1", "COMPLETED")
    monitor.update()
    assert 1 == len(counted)


# --- on a real terminal ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["q", "\x03", "TERM"])
def test_watching_leaves_the_terminal_as_it_was(job: EventCsv, csv_path: Path, end: str) -> None:
    """Screen, cursor and echo are back after q, Ctrl-C and SIGTERM; the last state stands below what was there."""
    job.emit_result("PO1", "COMPLETED")
    with Terminal(csv_path.parent) as terminal:
        terminal.type("echo befo''re\n")
        terminal.wait_for("before")
        terminal.type(f"{TYPED} status input.csv --watch; echo code=$?; stty -a | grep -c ' echo '\n")
        terminal.wait_for("ends this view")
        assert (True, True) == (terminal.is_alternate, terminal.screen.cursor.hidden)
        assert "before" not in terminal.text
        job.emit_result("PO2", "ERROR", error_message="no such page")
        terminal.wait_for("no such page")
        if end == "TERM":
            psutil.Process(terminal.pid).children()[0].terminate()
        else:
            terminal.type(end)
        terminal.wait_until(lambda: re.search(r"code=0\n1\n", terminal.text), "the end")
    assert (False, False) == (terminal.is_alternate, terminal.screen.cursor.hidden)
    assert "before" in terminal.text
    assert "input.csv: 1 of 3 POs done (33 %), 2 pending" in terminal.text


def test_stopping_and_going_on_with_ctrl_z(job: EventCsv, csv_path: Path) -> None:
    """The shell gets its terminal back while the view is stopped, and the view comes back with fg."""
    job.emit_result("PO1", "COMPLETED")
    with Terminal(csv_path.parent) as terminal:
        terminal.type(f"{TYPED} status input.csv --watch\n")
        terminal.wait_for("ends this view")
        terminal.type("\x1a")
        terminal.wait_for("Stopped")
        assert (False, False) == (terminal.is_alternate, terminal.screen.cursor.hidden)
        terminal.type("stty -a | grep -c ' echo '; fg\n")
        terminal.wait_until(lambda: terminal.is_alternate and "ends this view" in terminal.text, "the view again")
        terminal.type("q")
        terminal.wait_for("2 pending")
    assert (False, False) == (terminal.is_alternate, terminal.screen.cursor.hidden)


def is_whole(screen: pyte.Screen) -> bool:
    """Tell whether a screen shows one view and nothing else, as wide as it is."""
    lines = [line.rstrip() for line in screen.display if "POs done" in line]
    bar = "─" * (screen.columns - len("0 of 3 POs done (0 %)  "))
    return lines == ["0 of 3 POs done (0 %)" + (f"  {bar}" if len(bar) >= 10 else "")]


def test_a_changed_size_is_followed(job: EventCsv, csv_path: Path) -> None:
    """Smaller, larger and tiny: the view is drawn anew at once and leaves no rest of the old one."""
    job.emit_result("PO1", "ERROR", error_message="x" * 100)
    with Terminal(csv_path.parent) as terminal:
        terminal.type(f"{TYPED} status input.csv --watch\n")
        terminal.wait_for("ends this view")
        for columns, lines in ((60, 15), (120, 40), (30, 3), (80, 24)):
            terminal.resize(columns, lines)
            terminal.wait_until(lambda: is_whole(terminal.screen), f"a view of {columns} x {lines}")
        terminal.type("q")
        terminal.wait_for("3 pending")


def test_an_error_in_the_view_leaves_the_terminal_as_it_was(job: EventCsv, csv_path: Path) -> None:
    """What nobody foresaw ends the view, not the terminal."""
    job.emit_result("PO1", "COMPLETED")
    (csv_path.parent / "broken.py").write_text(
        "import sys\nfrom eventcsv.cli.live.monitor import Monitor\nfrom eventcsv.cli.main import main\n"
        "def again(self): raise RuntimeError('unforeseen')\n"
        "Monitor.update = again\nsys.argv = ['eventcsv', 'status', 'input.csv', '--watch']\nmain()\n"
    )
    with Terminal(csv_path.parent) as terminal:
        terminal.type(f"{sys.executable} broken.py; echo code=$?; stty -a | grep -c ' echo '\n")
        terminal.wait_until(lambda: re.search(r"code=1\n1\n", terminal.text), "the end")
    assert (False, False) == (terminal.is_alternate, terminal.screen.cursor.hidden)
    assert "unforeseen" in terminal.text


def test_a_broken_csv_is_told_and_forgotten_when_mended(job: EventCsv, csv_path: Path) -> None:
    """The view goes on with what it knew, says what is wrong, and that nothing is lost by it."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    good = csv_path.read_bytes()
    with Terminal(csv_path.parent) as terminal:
        terminal.type(f"{TYPED} status input.csv --watch\n")
        terminal.wait_for("1 of 3 POs done")
        csv_path.write_bytes(good + b'PO4;"')
        terminal.wait_for("never closed")
        assert "1 of 3 POs done" in terminal.text
        csv_path.write_bytes(good + b"PO4;;;\n")
        terminal.wait_for("1 of 4 POs done")
        assert "never closed" not in terminal.text
        terminal.type("q")
        terminal.wait_for("3 pending")


def test_without_colour_there_are_words(job: EventCsv, csv_path: Path) -> None:
    """NO_COLOR leaves no colour, and everything can still be told apart."""
    job.emit_result("PO1", "ERROR", error_message="no such page")
    with Terminal(csv_path.parent, NO_COLOR="1") as terminal:
        terminal.type(f"{TYPED} status input.csv --watch\n")
        terminal.wait_for("ends this view")
        terminal.type("q")
        terminal.wait_until(lambda: not terminal.is_alternate and "ERROR" in terminal.text, "the last state")
    codes = {code for found in re.findall(rb"\x1b\[([\d;]*)m", terminal.raw) for code in found.split(b";")}
    assert set() == {code for code in codes if code.isdigit() and 30 <= int(code) <= 107}


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_dumb_terminal_gets_lines(job: EventCsv, csv_path: Path, term: str) -> None:
    """Where the cursor cannot be moved, nothing tries to."""
    job.emit_result("PO1", "COMPLETED")
    with Terminal(csv_path.parent, TERM=term) as terminal:
        terminal.type(f"{TYPED} status input.csv --watch\n")
        terminal.wait_for("1 of 3 POs done (33 %);")
        terminal.type("\x03")
        terminal.wait_until(lambda: terminal.text.count("ready>") == 2, "the prompt")
    assert b"\x1b" not in re.sub(rb"\x1b\[\?2004[hl]", b"", terminal.raw)


def test_a_pipe_gets_lines_without_control_codes(job: EventCsv, csv_path: Path) -> None:
    """Whatever TERM says."""
    job.emit_result("PO1", "COMPLETED")
    command = [*COMMAND, "status", str(csv_path), "--watch"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, env=os.environ | {"FORCE_COLOR": "1"}) as watch:
        assert watch.stdout is not None
        line = watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        out, err = watch.communicate(timeout=60)
    assert (0, b"", b"") == (watch.returncode, out, err)
    assert b"1 of 3 POs done (33 %); " in line
    assert not CONTROL.search(line.rstrip())


def test_a_run_draws_below_what_its_workers_print(csv_path: Path) -> None:
    """What is printed stays, the view goes, the cursor is back, and the result stands below."""
    (csv_path.parent / "work.py").write_text(
        "import pathlib, time\ndef work(key, row):\n    print('chatter of', key)\n"
        "    while not pathlib.Path('seen').exists():\n        time.sleep(0.05)\n"
    )
    with Terminal(csv_path.parent) as terminal:
        terminal.type(f"{TYPED} run input.csv work:work\n")
        terminal.wait_until(lambda: "workers" in terminal.text and "chatter of PO1" in terminal.text, "the view")
        assert (False, True) == (terminal.is_alternate, terminal.screen.cursor.hidden)
        (csv_path.parent / "seen").touch()
        terminal.wait_for("  backup     ")
    assert not terminal.screen.cursor.hidden
    assert [f"chatter of PO{number}" for number in (1, 2, 3)] == re.findall("chatter of PO.", terminal.text)
    assert "workers" not in terminal.text


def test_a_question_can_be_left_by_ctrl_c(csv_path: Path) -> None:
    """Though a handler of Polars' would have the terminal be read again."""
    csv_path.write_text("PO_NUMBER;STATUS\nPO1;shipped\n")
    (csv_path.parent / "work.py").write_text("def work(key, row): pass\n")
    with Terminal(csv_path.parent) as terminal:
        terminal.type(f"{TYPED} run input.csv work:work\n")
        terminal.wait_for("Go on with it? [y/N]:")
        terminal.type("\x03")
        terminal.wait_for("eventcsv: stopped")
    assert "shipped" in csv_path.read_text()


def test_nothing_of_the_view_is_left_after_ctrl_c(csv_path: Path) -> None:
    """What the terminal shows of the key, beside a line that is full, does not move what is erased."""
    (csv_path.parent / "work.py").write_text(
        "import time\ndef work(key, row):\n    time.sleep(key != 'PO1')\n    raise ValueError('no answer ' * 20)\n"
    )
    with Terminal(csv_path.parent) as terminal:
        terminal.type(f"{TYPED} run input.csv work:work\n")
        terminal.wait_until(lambda: re.search("PO1 .* no answer", terminal.text), "the view with a failure")
        terminal.type("\x03")
        terminal.wait_for("  backup     ")
    assert "by SIGINT; run it again to go on" in terminal.text
    assert not re.search(r"session \S+, for", terminal.text)
