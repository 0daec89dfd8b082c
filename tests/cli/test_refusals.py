"""The command refuses bad input with its exit code and the reason on standard error, and changes nothing on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import append_raw, statuses
from refusals import GOOD, assert_says, everything, run, with_history

from eventcsv.log.line import sealed

if TYPE_CHECKING:
    from collections.abc import Callable

    Runs = Callable[..., subprocess.CompletedProcess[str]]


DROP_CAPABILITIES = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
for capability in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what makes root pass over permission bits
    libc.prctl(24, capability, 0, 0, 0)  # 24: PR_CAPBSET_DROP, which holds from the next exec on
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def run_bound(tmp_path: Path) -> Runs:
    """Run the command as somebody whom permission bits bind: as oneself, or as root without its powers."""
    prefix = [sys.executable, "-c", DROP_CAPABILITIES] if os.geteuid() == 0 else []
    if prefix and sys.platform != "linux":
        pytest.skip("runs as root, whom permission bits do not bind here")
    probe = tmp_path / "probe"
    probe.touch(mode=0)
    reading = subprocess.run([*prefix, sys.executable, "-c", f"open({str(probe)!r})"], capture_output=True, check=False)
    probe.unlink()
    if reading.returncode == 0:
        pytest.skip("permission bits do not bind this user on this file system")
    return partial(run, before=prefix)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A command line that has to be refused.

    Attributes:
        args: The command, the CSV and the rest.
        code: The exit code.
        parts: What standard error has to say.
        data: The CSV, or None when there is none.
    """

    args: tuple[str | bytes, ...]
    code: int
    parts: tuple[str, ...]
    data: bytes | None = GOOD


def emit_line(*rest: str | bytes, key: str | bytes = "PO1", status: str = "COMPLETED") -> tuple[str | bytes, ...]:
    return ("emit", "input.csv", key, status, *rest)


REFUSALS: dict[str, Refusal] = {
    "compact missing": Refusal(("compact", "input.csv"), 1, ("input.csv", "no such file"), data=None),
    "replay missing": Refusal(("replay", "input.csv"), 1, ("input.csv", "no such file"), data=None),
    "emit missing": Refusal(emit_line(), 1, ("input.csv", "no such file", "Check the path"), data=None),
    "history missing": Refusal(("history", "input.csv", "PO1"), 1, ("input.csv", "no such file"), data=None),
    "history of nothing": Refusal(("history", "input.csv", "PO9"), 1, ("input.events", "'PO9'")),
    "compact a folder": Refusal(("compact", "."), 1, ("a directory",), data=None),
    "compact empty": Refusal(("compact", "input.csv"), 1, ("input.csv", "is empty"), data=b""),
    "compact ragged": Refusal(("compact", "input.csv"), 1, ("line 5", "Mend the line"), data=GOOD + b"PO4\n"),
    "replay unclosed quote": Refusal(("replay", "input.csv"), 1, ("line 5", "never closed"), data=GOOD + b'PO4;"a;\n'),
    "compact UTF-16": Refusal(
        ("compact", "input.csv"), 1, ("UTF-16", "--encoding utf-16"), data=GOOD.decode().encode("utf-16")
    ),
    "compact cp1252": Refusal(("compact", "input.csv"), 1, ("line 5", "0xe9"), data=GOOD + b"PO4;;\xe9\n"),
    "compact other key": Refusal(("compact", "input.csv", "--key", "ORDER"), 1, ("line 1", "'ORDER'", "--key")),
    "compact no key": Refusal(("compact", "input.csv", "--key", ""), 2, ("key",), data=b"PO_NUMBER;\nPO1;\n"),
    "bad delimiter": Refusal(("compact", "input.csv", "--delimiter", ";;"), 2, ("delimiter", "one ASCII character")),
    "bad encoding": Refusal(("compact", "input.csv", "--encoding", "utf-99"), 2, ("utf-99", "cp1252")),
    "unknown backup": Refusal(("replay", "input.csv", "--backup", "b.csv"), 1, ("no backup", "b.csv", "none")),
    "unknown option": Refusal(("compact", "input.csv", "--fast"), 2, ("--fast",)),
    "unknown command": Refusal(("compress", "input.csv"), 2, ("compress",)),
    "no CSV": Refusal(("compact",), 2, ("CSV",)),
    "no status": Refusal(("emit", "input.csv", "PO1"), 2, ("STATUS",)),
    "bad log level": Refusal(("--log-level", "loud", "compact", "input.csv"), 2, ("--log-level", "loud")),
    "bad durability": Refusal(emit_line("--durability", "paper"), 2, ("--durability", "paper")),
    "status empty": Refusal(emit_line(status=""), 2, ("status", "is required", "Nothing was written")),
    "set without equals": Refusal(emit_line("--set", "SUPPLIER"), 2, ("--set", "COLUMN=TEXT", "SUPPLIER")),
    "set without column": Refusal(emit_line("--set", "=x"), 2, ("column", "empty")),
    "set the key column": Refusal(emit_line("--set", "PO_NUMBER=PO2"), 2, ("PO_NUMBER", "key column")),
    "set a column twice": Refusal(emit_line("--set", "Note=a", "--set", "Note=b"), 2, ("Note", "twice")),
    "key empty": Refusal(emit_line(key=""), 2, ("key", "empty")),
    "key with an escape": Refusal(emit_line(key="\x1b[31mPO1"), 2, ("key", "U+001B")),
}


def assert_refused(
    folder: Path, *args: str | bytes, parts: tuple[str, ...], code: int = 1, runs: Runs = run
) -> subprocess.CompletedProcess[str]:
    """Run the command, which has to say this on standard error, nothing besides, and to leave the folder as it is."""
    before = everything(folder)
    done = runs(folder, *args)
    assert before == everything(folder)
    assert (code, "") == (done.returncode, done.stdout)
    assert_says(done.stderr, *parts)
    return done


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=list(REFUSALS))
def test_the_command_refuses_and_changes_nothing(tmp_path: Path, refusal: Refusal) -> None:
    """The exit code tells used wrongly from failed, the reason is on standard error, and no traceback is."""
    if refusal.data is not None:
        (tmp_path / "input.csv").write_bytes(refusal.data)
    done = assert_refused(tmp_path, *refusal.args, parts=refusal.parts, code=refusal.code)
    assert not any(mark in done.stderr for mark in "\x1b\0\r")


def test_the_command_accepts_what_was_mended(tmp_path: Path) -> None:
    """After each refusal the right command works at once: nothing is left in the way."""
    path = tmp_path / "input.csv"
    path.write_bytes(GOOD + b"PO4\n")
    assert 1 == run(tmp_path, "compact", "input.csv").returncode
    path.write_bytes(GOOD + b"PO4;;\n")
    assert 2 == run(tmp_path, *emit_line(status=" ")).returncode
    assert 0 == run(tmp_path, *emit_line("--set", "ERROR_MESSAGE=no page", status="FAILED")).returncode

    done = run(tmp_path, "compact", "input.csv")

    assert (0, "") == (done.returncode, done.stderr)
    assert ["FAILED", "", "", ""] == statuses(path)


@pytest.mark.parametrize("args", [("compact", "input.csv"), ("replay", "input.csv")], ids=["compact", "replay"])
@pytest.mark.parametrize(
    ("mode", "parts"),
    [(0o000, ("input.csv", "ermission")), (0o444, ("input.csv", "read-only", "chmod u+w"))],
    ids=["unreadable", "read-only"],
)
def test_a_csv_that_may_not_be_read_or_written_is_left_alone(
    tmp_path: Path,
    run_bound: Runs,
    args: tuple[str, ...],
    mode: int,
    parts: tuple[str, ...],
) -> None:
    """Whoever took the permission from the CSV meant it; given back, the same command works."""
    path = tmp_path / "input.csv"
    path.write_bytes(GOOD)
    path.chmod(mode)
    assert_refused(tmp_path, *args, parts=parts, runs=run_bound)
    path.chmod(0o600)
    assert GOOD == path.read_bytes()
    assert 0 == run_bound(tmp_path, *args).returncode


@pytest.mark.parametrize(
    "args", [("compact", "input.csv"), ("replay", "input.csv"), emit_line()], ids=["compact", "replay", "emit"]
)
def test_a_folder_that_may_not_be_written_is_left_alone(tmp_path: Path, run_bound: Runs, args: tuple[str, ...]) -> None:
    """Where no log can be made, the command says which folder it is, and a result is not called recorded."""
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "input.csv").write_bytes(GOOD)
    folder.chmod(0o555)
    assert_refused(folder, *args, parts=(str(folder), "Permission denied"), runs=run_bound)
    folder.chmod(0o700)
    assert 0 == run_bound(folder, *args).returncode


def test_a_log_that_may_not_be_written_leaves_nothing_half_done(tmp_path: Path, run_bound: Runs) -> None:
    """When the checkpoint cannot be written, the CSV stays the old one, and no temporary file stays beside it."""
    job = with_history(tmp_path / "input.csv")
    Path(job.log_dir).chmod(0o500)
    assert_refused(tmp_path, "compact", "input.csv", parts=("input.events", "Permission denied"), runs=run_bound)
    Path(job.log_dir).chmod(0o700)
    assert 0 == run_bound(tmp_path, "compact", "input.csv").returncode


def test_the_command_names_a_stranger_and_leaves_it(tmp_path: Path) -> None:
    """A link in the place of the temporary file is refused with exit code 1, and what it points to stays."""
    with_history(tmp_path / "input.csv")
    victim = tmp_path / "victim.txt"
    victim.write_text("somebody's work")
    (tmp_path / ".input.csv.eventcsv.tmp").symlink_to(victim)
    parts = (".input.csv.eventcsv.tmp", "a symbolic link", "untouched")
    assert_refused(tmp_path, "compact", "input.csv", parts=parts)
    assert "somebody's work" == victim.read_text()


def test_the_command_names_a_newer_eventcsv(tmp_path: Path) -> None:
    """A log of a newer eventcsv is exit code 1 with the remedy, never exit code 3 for damage."""
    job = with_history(tmp_path / "input.csv")
    append_raw(job, sealed({"v": 2, "id": "x-00-1", "ts": "", "kind": "result", "key": "PO1", "set": {}}))
    assert_refused(tmp_path, "compact", "input.csv", parts=("made by a newer eventcsv", "Upgrade"))
