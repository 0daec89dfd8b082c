"""The promise: going back to any backup loses nothing that is needed, whenever it is stopped."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

import operations
import pytest
from conftest import checkpoint_of, flip, read_csv, statuses, tree
from faults import Refusing, with_storage
from inside import compactor_of
from operations import copied, edit, view
from runs import session_elsewhere

from eventcsv import BackupError, EventCsv, InvalidCsv
from eventcsv.errors import SessionActive
from eventcsv.storage.files import Storage
from eventcsv.view.retention import KEPT, SESSION

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def long_job(tmp_path: Path) -> EventCsv:
    """A job of some sessions and segments, with backups of each kind, an adopted edit and a result not yet folded."""
    return operations.long_job(tmp_path / "job")


# --- restore ---


def test_a_restore_with_replay_gives_what_a_replay_gives(long_job: EventCsv) -> None:
    """From every backup that is kept, the same bytes, and a later replay gives them again."""
    assert len(long_job.backups()) == 5
    for number, backup in enumerate(long_job.backups()):
        replayed, restored = copied(long_job, f"{number}-replayed"), copied(long_job, f"{number}-restored")
        replayed.replay(backup=backup.name)
        result = restored.restore(backup.name)
        assert view(replayed) == view(restored)
        assert ["COMPLETED", "COMPLETED"] == statuses(restored)[:2]
        assert (False, view(restored)) == (EventCsv(restored.csv_path).compact().changed, view(replayed))
        assert (False, view(restored)) == (EventCsv(restored.csv_path).replay().changed, view(replayed))
        assert () == restored.verify().findings
        assert result.kept is not None


def test_a_restore_without_replay_gives_exactly_the_backup(long_job: EventCsv) -> None:
    """Its bytes; what was undone stays out of the CSV, through compactions and replays, and new results come in."""
    for number, backup in enumerate(long_job.backups()):
        job = copied(long_job, str(number))
        wanted = Path(backup.path).read_bytes()
        assert wanted != view(job)
        job.restore(backup.name, replay=False)
        assert wanted == view(job)
        lost = copied(job, "lost")
        checkpoint_of(lost).unlink()
        assert (False, wanted) == (lost.compact().changed, view(lost))
        for again in (job, EventCsv(job.csv_path)):
            assert (0, False) == ((result := again.compact()).events, result.changed)
            assert not again.replay().changed
        checkpoint_of(job).unlink()
        assert not EventCsv(job.csv_path).compact().changed
        before = read_csv(Path(job.csv_path))
        job.emit_result("PO3", "COMPLETED", last_processed="9")
        assert 1 == job.compact().events
        assert before[:2] == [{name: row[name] for name in before[0]} for row in read_csv(Path(job.csv_path))[:2]]
        assert "COMPLETED" == statuses(job)[2]
        assert not job.replay().changed
        assert () == job.verify().findings


def test_what_the_csv_held_is_kept_first_and_can_be_restored(long_job: EventCsv) -> None:
    """Results that were not folded yet are in it, and so is an edit that no compaction had seen: there and back."""
    first = long_job.backups()[-1]
    edit(long_job, "EDITED", "EDITED AGAIN")
    for replay in (True, False):
        job = copied(long_job, str(replay))
        kept = job.restore(first.name, replay=replay).kept
        assert kept is not None
        held = Path(kept.path).read_bytes()
        assert b"EDITED AGAIN" in held
        assert ["COMPLETED", "COMPLETED"] == statuses(Path(kept.path))[:2]
        assert (held == view(job)) == replay  # what people typed is in the log, too
        back = job.restore(kept.name, replay=False)
        assert held == view(job)
        assert back.kept is not None
        assert not job.compact().changed


def test_a_broken_csv_is_kept_as_it_is(long_job: EventCsv) -> None:
    """A CSV that cannot be read is no obstacle to a restore, and its bytes are kept."""
    edit(long_job, "PO2;", 'PO2;"')
    for replay in (True, False):
        job = copied(long_job, str(replay))
        broken = view(job)
        kept = job.restore(job.backups()[-1].name, replay=replay).kept
        assert kept is not None
        assert broken == Path(kept.path).read_bytes()
        assert (3, ()) == (len(statuses(job)), job.verify().findings)
        assert not job.compact().changed
        with pytest.raises(BackupError, match="whose place in the log is not known"):
            job.restore(kept.name)


def test_a_broken_csv_that_was_kept_is_not_put_back(long_job: EventCsv) -> None:
    """What nobody can read is no CSV to go on with; whoever wants its bytes finds them in the backup's file."""
    edit(long_job, "PO2;", 'PO2;"')
    broken = view(long_job)
    kept = long_job.restore(long_job.backups()[-1].name).kept
    assert kept is not None
    mended = view(long_job)
    with pytest.raises(InvalidCsv, match="never closed"):
        long_job.restore(kept.name, replay=False)
    assert (broken, mended) == (Path(kept.path).read_bytes(), view(long_job))


def test_a_deleted_csv_is_no_obstacle(long_job: EventCsv) -> None:
    """With the CSV gone, it comes back as the backup has it."""
    backup = long_job.backups()[1]
    Path(long_job.csv_path).unlink()
    long_job.restore(backup.name, replay=False)
    assert Path(backup.path).read_bytes() == view(long_job)


def test_in_flight_is_what_it_was_after_a_restore(long_job: EventCsv) -> None:
    """Whatever is put in the CSV's place, a PO that was taken up and has no result is in flight."""
    event = long_job.emit_started("PO3")
    for replay in (True, False):
        long_job.restore(long_job.backups()[-1].name, replay=replay)
        assert [event.id] == [item.id for item in EventCsv(long_job.csv_path).progress().in_flight]


def test_in_flight_is_what_it_was_after_a_restore_of_a_broken_csv(long_job: EventCsv) -> None:
    """That the CSV cannot be read changes nothing about what workers have begun."""
    event = long_job.emit_started("PO3")
    edit(long_job, "PO2;", 'PO2;"')
    long_job.restore(long_job.backups()[-1].name, replay=False)
    assert [event.id] == [item.id for item in long_job.progress().in_flight]


def test_an_edit_after_a_restore_does_not_bring_back_what_was_undone(long_job: EventCsv) -> None:
    """Results that a restore took out are older than the CSV that it put there, so no editor missed them."""
    long_job.restore(long_job.backups()[-1].name, replay=False)
    edit(long_job, "PO3;", "PO3;EDITED")
    long_job.compact()
    assert ["", "", "EDITED"] == statuses(long_job)


def test_a_row_that_comes_late_does_not_bring_back_what_was_undone(long_job: EventCsv) -> None:
    """A PO that a restore had no row for gets the results recorded since, and none from before."""
    long_job.emit_result("PO9", "PARTIAL", supplier="undone")
    long_job.restore(long_job.backups()[-1].name, replay=False)
    long_job.emit_result("PO9", "COMPLETED", last_processed="9")
    long_job.compact()
    edit(long_job, "PO3;;", "PO3;;\nPO9;;")
    long_job.compact()
    assert ("COMPLETED", "") == ((late := read_csv(Path(long_job.csv_path))[3])["STATUS"], late["SUPPLIER"])


@pytest.mark.parametrize("replay", [True, False])
def test_a_backup_that_is_damaged_or_unknown_is_refused(long_job: EventCsv, replay: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """Nothing is changed by the attempt, and the error says what is wrong."""
    folder = Path(long_job.csv_path).parent
    long_job.restore(long_job.backups()[0].name)  # the lock of sessions is there from now on
    lock = Path(long_job.log_dir) / "session.lock"
    damaged, gone = long_job.backups()[-1], long_job.backups()[-2]
    flip(Path(damaged.path), 20)
    Path(gone.path).unlink()
    before = {name: data for name, data in tree(folder).items() if not name.endswith(lock.name)}
    for name, reason in [(damaged.name, "is damaged"), (gone.name, "is gone"), ("nope.csv", "no backup 'nope.csv'")]:
        for job in (long_job, EventCsv(long_job.csv_path)):
            with pytest.raises(BackupError, match=reason):
                job.restore(name, replay=replay)
    assert before == {name: data for name, data in tree(folder).items() if not name.endswith(lock.name)}


def test_a_restore_for_a_mistyped_path_makes_nothing(tmp_path: Path) -> None:
    """Beside a CSV that is not there no folder appears."""
    with pytest.raises((BackupError, InvalidCsv)):
        EventCsv(tmp_path / "typo.csv").restore("x.csv")
    assert [] == list(tmp_path.iterdir())


def test_nothing_is_restored_or_pruned_while_a_session_is_at_work(long_job: EventCsv) -> None:
    """Another process's session is named in the error, and nothing changes; what only looks is let through."""
    with session_elsewhere(Path(long_job.csv_path), session_id="theirs", refresh_s=1000) as theirs:
        before = tree(Path(long_job.csv_path).parent)
        backup = long_job.backups()[-1].name
        attempts: list[Callable[[], object]] = [
            lambda: long_job.restore(backup),
            lambda: long_job.restore(backup, replay=False),
            long_job.prune,
        ]
        for attempt in attempts:
            with pytest.raises(SessionActive, match="session theirs works on this CSV"):
                attempt()
        long_job.prune(dry_run=True)
        assert before == tree(Path(long_job.csv_path).parent)
        Path(long_job.csv_path).with_name("gate").touch()
        assert 0 == theirs.wait(60)
    long_job.restore(backup)


def test_a_backup_that_retention_is_about_to_remove_can_be_restored(long_job: EventCsv) -> None:
    """The oldest one of the limit goes back into place; that it is removed later changes nothing about the CSV."""
    for number in range(KEPT - 2):
        compactor_of(long_job).begin_session(f"s{number}")
    oldest = next(backup for backup in reversed(long_job.backups()) if backup.reason == SESSION)
    wanted = Path(oldest.path).read_bytes()
    long_job.restore(oldest.name, replay=False)
    assert wanted == view(long_job)
    for number in range(KEPT):
        compactor_of(long_job).begin_session(f"t{number}")
    assert not Path(oldest.path).exists()
    assert wanted == view(long_job)
    assert not long_job.replay().changed
    assert () == long_job.verify().findings


# --- restore, stopped ---


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> EventCsv:
    """A job that is copied for each step."""
    return operations.long_job(tmp_path_factory.mktemp("model") / "job")


def attempt(job: EventCsv, storage: Storage, *, replay: bool) -> None:
    """Restore the first backup through a storage that fails."""
    with_storage(EventCsv(job.csv_path), storage).restore(job.backups()[-1].name, replay=replay)


def refused_before_replacing(job: EventCsv) -> Storage:
    """Return a storage that refuses to put the CSV of a restore in place, and nothing else."""

    def refuses(storage: Any, step: str, args: tuple[Any, ...]) -> bool:
        made = [name for name in Path(job.backup_dir).glob("*.json") if b"restored from" in name.read_bytes()]
        return step == "replace" and args[1] == job.csv_path and bool(made) and bool(storage)

    return Refusing(errno.ENOSPC, refuses)


@pytest.mark.parametrize("lost", [True, False])
def test_a_restore_that_failed_is_not_made_up_for_by_a_replay(model: EventCsv, lost: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """The error said that the CSV is the old one, so neither a replay nor a lost checkpoint may undo results later."""
    job = copied(model, f"failed-{lost}")
    job.compact()
    before = view(job)
    with pytest.raises(OSError, match="No space"):
        attempt(job, refused_before_replacing(job), replay=False)
    assert before == view(job)
    fresh = EventCsv(job.csv_path)
    if lost:
        checkpoint_of(job).unlink(missing_ok=True)
        fresh.compact()
    else:
        fresh.replay()
    assert before == view(job)


def test_a_backup_on_a_bad_sector_gives_way_to_the_one_before(long_job: EventCsv) -> None:
    """EIO on the newest one: replay takes the one before, and verify names it."""
    bad = next(backup.path for backup in long_job.backups() if backup.position)
    before = long_job.compact()

    class BadSector(Storage):
        def read(self, path: str) -> bytes | None:
            if path == bad:
                raise OSError(errno.EIO, "Input/output error", path)
            return super().read(path)

    job = with_storage(EventCsv(long_job.csv_path, durability="process"), BadSector())
    result = job.replay()
    assert (before.by_status, before.rows) == (result.by_status, result.rows)
    assert bad in {finding.place for finding in job.verify().findings}
