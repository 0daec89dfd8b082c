"""The promise: of backups the ones that can be relied on stay, five of a kind, and nothing of others is touched."""

from __future__ import annotations

import errno
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from conftest import tree
from faults import Dying, Killed, Refusing, with_storage
from operations import edit

from eventcsv import EventCsv
from eventcsv.log.types import Position
from eventcsv.storage.files import Storage
from eventcsv.view.backup import Backup, BackupStore
from eventcsv.view.retention import ASKED, KEPT, SESSION


@pytest.fixture
def store(tmp_path: Path) -> BackupStore:
    """The backups of a CSV."""
    return BackupStore(str(tmp_path / "backup"), str(tmp_path / "input.csv"), Storage())


def made(store: BackupStore, *reasons: str, log: str = "L") -> list[Backup]:
    """Make backups for these reasons."""
    return [
        store.create(b"PO_NUMBER\n", partial(Backup, reason=reason, record_count=0, log=log, position=Position(1, 0)))
        for reason in reasons
    ]


def numbers(backups: list[Backup]) -> list[int]:
    """Return their numbers, in order."""
    return sorted(backup.number for backup in backups)


def test_the_newest_five_of_sessions_stay(store: BackupStore) -> None:
    """Of seven the two oldest go, with their metadata; asked again, nothing goes."""
    made(store, *[SESSION] * KEPT)
    assert [] == store.retain("L")
    made(store, SESSION, SESSION)
    assert [1, 2] == numbers(store.retain("L"))
    assert [3, 4, 5, 6, 7] == numbers(store.all())
    assert 2 * KEPT == len(list(Path(store.directory).iterdir()))
    assert [] == store.retain("L")


def test_what_somebody_asked_for_is_never_removed(store: BackupStore) -> None:
    """However old it is, and it takes nobody's place among the five."""
    made(store, ASKED, *[SESSION, ASKED] * (KEPT + 1), ASKED)
    assert [2] == numbers(store.retain("L"))
    assert 2 + KEPT + KEPT + 1 == len(store.all())


def test_of_the_others_the_newest_five_stay_unless_all_sessions_are_newer(store: BackupStore) -> None:
    """Other reasons have five of their own, and none that is older than the oldest session that stays."""
    made(store, "edited", *[SESSION] * 3, *["edited"] * KEPT)
    assert [1] == numbers(store.retain("L"))
    made(store, *[SESSION] * 3)
    assert [2] == numbers(store.retain("L"))
    made(store, *[SESSION] * 2)
    assert [3, 4, 5, 6, 7, 8, 9] == numbers(store.retain("L"))
    assert [10, 11, 12, 13, 14] == numbers(store.all())


def test_damaged_backups_do_not_count(store: BackupStore) -> None:
    """Five that can be relied on stay, whatever lies between them; damaged ones older than those go."""
    backups = made(store, *[SESSION] * (KEPT + 3))
    Path(backups[7].path).write_bytes(b"damaged")
    Path(backups[6].path).unlink()
    Path(backups[0].path).unlink()
    assert [1] == numbers(store.retain("L"))
    assert [2, 3, 4, 5, 6, 7, 8] == numbers(store.all())


def test_a_name_is_not_free_while_metadata_has_it(store: BackupStore) -> None:
    """What is known of a backup that is gone is not written over."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    _, base = store._free_name(now, "mine")
    Path(store.directory).mkdir()
    Path(f"{base}.json").touch()
    assert base != store._free_name(now, "mine")[1]


def test_nothing_of_others_is_touched(store: BackupStore, tmp_path: Path) -> None:
    """Backups of another log or another CSV, and files that only look like backups, are nobody's to remove."""
    made(store, *[SESSION] * (KEPT + 3), log="other")
    made(BackupStore(store.directory, str(tmp_path / "input2.csv"), Storage()), *[SESSION] * (KEPT + 2))
    folder = Path(store.directory)
    (folder / "input_20260101_000000_mine.csv").write_text("mine")
    (folder / "input_20260101_000000_mine.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    before = tree(folder)
    assert [] == store.retain("L") == store.retain(None)
    made(store, *[SESSION] * (KEPT + 1))
    assert 1 == len(store.retain("L"))
    assert before == {name: data for name, data in tree(folder).items() if name in before}


def test_killed_in_the_middle_of_a_removal(tmp_path: Path) -> None:
    """Whatever is left of a backup that was being removed is cleared by the next one that is made."""
    for step in range(1000):
        folder = tmp_path / str(step)
        store = BackupStore(str(folder / "backup"), str(folder / "input.csv"), Storage())
        folder.mkdir()
        made(store, *[SESSION] * (KEPT + 2))
        try:
            BackupStore(store.directory, str(folder / "input.csv"), Dying(step)).retain("L")
        except Killed:
            assert KEPT <= len([backup for backup in store.all() if store.read(backup)])
        else:
            break
        made(store, SESSION)
        assert KEPT <= len(store.retain("L")) + KEPT
        assert KEPT == len(store.all())
        assert 2 * KEPT == len(list(Path(store.directory).iterdir()))
    assert step >= 6


def test_a_backup_that_cannot_be_removed_is_no_failed_compaction(job: EventCsv, csv_path: Path) -> None:
    """The CSV is the new one, so the compaction does not say that it failed; the backup goes another time."""
    job.compact()
    for number in range(KEPT + 2):
        edit(job, "PO3;", f"PO3;{number}")
        job.emit_result("PO1", "PARTIAL", last_processed=f"{number}")
        storage = Refusing(errno.EIO, lambda _, step, args: step == "unlink" and "backup" in str(args[0]))
        with_storage(EventCsv(csv_path), storage).compact()
    reasons = Counter(backup.reason for backup in job.backups())
    assert reasons["the CSV was edited"] >= KEPT
    edit(job, "PO3;", "PO3;z")
    job.compact()
    reasons = Counter(backup.reason for backup in job.backups())
    assert (KEPT, KEPT, 1) == (*list(reasons.values())[:2], reasons["before the first compaction"])
    assert 2 * reasons.total() == len(list(Path(job.backup_dir).iterdir()))
