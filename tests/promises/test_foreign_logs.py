"""A log, checkpoint or backup that is newer, of another key, damaged or unknown is refused and left as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conftest import append_raw, checkpoint_of, flip, job_on, segment_of
from refusals import GOOD, assert_says, compact, emit, history, named, refused, replay, verify, with_history

from eventcsv import AppendError, BackupError, UnsupportedFormat
from eventcsv.log.line import sealed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from refusals import Action


@pytest.mark.parametrize("action", [compact, replay, history, verify], ids=named)
def test_a_line_of_a_newer_eventcsv_stops_the_work(tmp_path: Path, action: Action) -> None:
    """A line with a valid checksum and a higher version is no damage: the error says who made it, and where it is."""
    job = with_history(tmp_path / "input.csv")
    append_raw(
        job, sealed({"v": 2, "id": "x-00-1", "ts": "", "kind": "result", "key": "PO1", "set": {"STATUS": "COMPLETED"}})
    )

    message = refused(tmp_path, UnsupportedFormat, lambda: action(job))

    assert_says(message, "made by a newer eventcsv", "version 2", "Upgrade", "events-000001.jsonl")


@pytest.mark.parametrize("number", ["9" * 5000, "", "-1", "²", "many"])
def test_an_attempt_without_a_number_is_the_first_one(tmp_path: Path, number: str) -> None:
    """Whoever wrote that line does not keep a job from its log."""
    job = with_history(tmp_path / "input.csv")
    line = {"v": 1, "id": "x-00-1", "ts": "", "kind": "started", "key": "PO3", "set": {"attempt": number}}
    append_raw(job, sealed(line))
    assert [("PO3", 1)] == [(item.key, item.attempt) for item in job.progress().in_flight]
    job.compact()


@pytest.mark.parametrize("action", [compact, replay, emit, history, verify], ids=named)
def test_a_segment_of_a_newer_eventcsv_stops_the_work(tmp_path: Path, action: Action) -> None:
    """The header of a newer eventcsv stops writers too: who knows what its readers expect."""
    path = tmp_path / "input.csv"
    job = with_history(path)
    segment = segment_of(job, 2)
    segment.write_bytes(
        sealed({"v": 2, "ts": "", "kind": "header", "log": "x", "segment": 2, "key_column": "PO_NUMBER"})
    )

    error = AppendError if action is emit else UnsupportedFormat
    message = refused(tmp_path, error, lambda: action(job))

    assert_says(message, "events-000002.jsonl", "made by a newer eventcsv", "version 2", "Upgrade")


def test_a_checkpoint_of_a_newer_eventcsv_stops_the_work(tmp_path: Path) -> None:
    """A checkpoint that may mean something else is not overwritten by an older eventcsv."""
    job = with_history(tmp_path / "input.csv")
    checkpoint = checkpoint_of(job)
    checkpoint.write_bytes(sealed({"v": 2}))

    message = refused(tmp_path, UnsupportedFormat, job.compact)

    assert_says(message, str(checkpoint), "made by a newer eventcsv", "Upgrade")


@pytest.mark.parametrize("action", [compact, replay, emit], ids=named)
def test_a_log_for_another_key_column_is_refused(tmp_path: Path, action: Action) -> None:
    """Results by PO mean nothing to rows that go by supplier; the error names the key column to give."""
    path = tmp_path / "input.csv"
    with_history(path)

    error = AppendError if action is emit else UnsupportedFormat
    message = refused(tmp_path, error, lambda: action(job_on(path, key="SUPPLIER")))

    assert_says(message, "events-000001.jsonl", "'PO_NUMBER'", "'SUPPLIER'", "--key")


def test_a_log_for_the_key_column_in_another_case_is_accepted(tmp_path: Path) -> None:
    """`po_number` is the column `PO_NUMBER` here as in the CSV."""
    path = tmp_path / "input.csv"
    with_history(path)

    with job_on(path, key=" po_number ") as job:
        emit(job)
        assert {"COMPLETED": 3} == job.compact().by_status


def damage_byte(backup: Path) -> None:
    flip(backup, backup.stat().st_size // 2)


def cut_short(backup: Path) -> None:
    backup.write_bytes(backup.read_bytes()[:-1])


def remove(backup: Path) -> None:
    backup.unlink()


def damage_metadata(backup: Path) -> None:
    damage_byte(backup.with_suffix(".json"))


@pytest.mark.parametrize(
    ("damage", "what"),
    [(damage_byte, "damaged"), (cut_short, "damaged"), (remove, "gone"), (damage_metadata, "")],
    ids=["byte", "cut", "gone", "metadata"],
)
def test_a_replay_from_a_damaged_backup_is_refused(tmp_path: Path, damage: Callable[[Path], None], what: str) -> None:
    """A backup that is not what its metadata tells of is named and not used."""
    job = with_history(tmp_path / "input.csv")
    (backup,) = (tmp_path / "backup").glob("*.csv")
    damage(backup)

    message = refused(tmp_path, BackupError, lambda: job.replay(backup=backup.name))

    assert_says(message, backup.name, what)


@pytest.mark.parametrize("name", ["", "input.csv", "../input.csv", "input_20250101_000000_00000000.csv", "\ud800"])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
def test_a_replay_from_an_unknown_backup_is_refused(tmp_path: Path, *, name: str, is_first: bool) -> None:
    """The error names the backups that there are, and nothing is made for a name that is none."""
    path = tmp_path / "input.csv"
    path.write_bytes(GOOD)
    job = job_on(path) if is_first else with_history(path)
    known = [backup.name for backup in (tmp_path / "backup").glob("*.csv")] or ["none"]

    message = refused(tmp_path, BackupError, lambda: job.replay(backup=name))

    assert_says(message, str(tmp_path / "backup"), repr(name), *known)
