"""The promise: a program that changes the ends of lines, as git does when it is told to, costs no result."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import run
from conftest import append_raw, cannot, read_csv, segment_of, statuses, tree

from eventcsv import EventCsv

if TYPE_CHECKING:
    from collections.abc import Callable


def by_git(folder: Path) -> None:
    """Let git check a folder out again, as it does where core.autocrlf is on."""
    if not shutil.which("git"):
        cannot("git is not installed")
    setting = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    options = ["-c", "core.autocrlf=true", "-c", "user.name=a", "-c", "user.email=a@example.org"]

    def git(*arguments: str) -> None:
        subprocess.run(["git", *options, *arguments], cwd=folder, env=os.environ | setting, check=True)

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "a job")
    for name in tree(folder):
        if name.endswith((".csv", ".json", ".jsonl")) and not name.startswith(".git"):
            (folder / name).unlink()
    git("checkout", "-q", "--", ".")


def in_the_log(folder: Path) -> None:
    """Put a CR before each newline of the log alone."""
    for path in folder.glob("*.events/*.jsonl"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def taken_back(folder: Path) -> None:
    """Do what the message says."""
    for path in folder.glob("*.events/*.jsonl"):
        subprocess.run(["sed", "-i", r"s/\r$//", path], check=True)


def status(path: Path) -> subprocess.CompletedProcess[str]:
    return run("status", path)


@pytest.mark.parametrize("change", [in_the_log, by_git])
def test_a_log_with_cr_lf_is_read_as_it_was_written(
    job: EventCsv, csv_path: Path, change: Callable[[Path], None]
) -> None:
    """Nothing is lost or folded anew, it is said for what it is, and taking it back leaves nothing to say."""
    job.emit_result("PO1", "COMPLETED")
    append_raw(job, b'{"v":1,"id":"half')
    job.emit_result("PO1", "PARTIAL")
    job.compact()
    append_raw(job, b'{"v":1,"id":"half')
    job.new_segment()
    job.emit_result("PO2", "COMPLETED")
    job.close()
    before = {name: data for name, data in tree(csv_path.parent).items() if name.endswith("jsonl")}
    change(csv_path.parent)
    assert b"\r\n" in segment_of(job, 2).read_bytes()
    found = status(csv_path)
    assert (3, True, True) == (found.returncode, "CR LF" in found.stdout, "sed -i" in found.stdout), found
    result = EventCsv(csv_path).compact()
    assert (None, True) == (result.rebuilt, all("CR LF" in item.reason for item in result.damage))
    assert change is by_git or (1, False) == (result.events, result.edited)
    assert ["PARTIAL", "COMPLETED", ""] == statuses(csv_path)
    report = EventCsv(csv_path).verify()
    assert 2 == len(report.torn)
    of_log = [item.problem for item in report.findings if ".events/" in item.place]
    assert [True, True] == ["CR LF" in problem for problem in of_log]
    again = EventCsv(csv_path)
    again.emit_result("PO3", "COMPLETED")
    assert [1, 2, 3] == again.log.segments()
    again.replay()
    assert ["PARTIAL", "COMPLETED", "COMPLETED"] == statuses(csv_path)
    again.new_segment()
    again.close()
    taken_back(csv_path.parent)
    after = {name: data for name, data in tree(csv_path.parent).items() if name.endswith("jsonl")}
    assert before.items() <= {name: after[name][: len(data)] for name, data in before.items()}.items()
    last = EventCsv(csv_path)
    assert (None, ()) == ((found_last := last.compact()).rebuilt, found_last.damage)
    assert [] == [item for item in last.verify().findings if ".events/" in item.place]


def test_a_backup_with_other_line_ends_is_read_as_it_was_made(job: EventCsv, csv_path: Path) -> None:
    """The CSV is rebuilt from it to the same bytes, and verify says what became of it, metadata included."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    view = csv_path.read_bytes()
    for path in Path(job.backup_dir).iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    again = EventCsv(csv_path)
    assert ["other line ends" in item.problem for item in again.verify().findings] == [True]
    assert not again.replay().changed
    csv_path.unlink()
    assert again.compact().rebuilt
    assert view == csv_path.read_bytes()


def test_single_lines_with_a_cr_are_read_and_told_with_their_place(job: EventCsv, csv_path: Path) -> None:
    """Those that follow each other are told as one."""
    for number in range(6):
        job.emit_result("PO1", "PARTIAL", columns={"note": number})
    lines = segment_of(job).read_bytes().splitlines(keepends=True)
    changed = [line.replace(b"\n", b"\r\n") if number in {2, 3, 6} else line for number, line in enumerate(lines)]
    segment_of(job).write_bytes(b"".join(changed))
    result = job.compact()
    assert 6 == result.events
    starts = [sum(map(len, changed[:number])) for number in range(len(changed))]
    assert [(starts[2], len(changed[2] + changed[3])), (starts[6], len(changed[6]))] == [
        (item.offset_bytes, item.length_bytes) for item in result.damage
    ]
    assert ["5"] == [row["note"] for row in read_csv(csv_path)][:1]
    assert 6 == len(list(job.history("PO1")))


@pytest.mark.parametrize("piece_bytes", [1, 2, 7, 100])
def test_pieces_of_any_size_are_read_without_the_crs(
    job: EventCsv, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a CR and its newline are in two of them."""
    job.emit_result("PO1", "PARTIAL")
    size_bytes = segment_of(job).stat().st_size
    in_the_log(Path(job.csv_path).parent)
    monkeypatch.setattr("eventcsv.storage.files.READ_BYTES", piece_bytes)
    assert size_bytes == job.log.end().position.offset_bytes
    assert 1 == len(list(job.history("PO1")))
