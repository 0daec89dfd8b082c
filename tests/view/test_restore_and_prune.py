"""The promise: going back and tidying up lose nothing that is needed, whenever they are stopped."""

from __future__ import annotations

import errno
import multiprocessing
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import operations
import pytest
from conftest import read_csv, segment_of, tree
from faults import Dying, Killed, Refusing, with_storage
from inside import compactor_of
from operations import edit

from eventcsv import BackupError, EventCsv, InvalidCsv
from eventcsv.errors import SessionActive
from eventcsv.log.types import Position
from eventcsv.storage.files import Storage
from eventcsv.view.backup import Backup, BackupStore
from eventcsv.view.retention import ASKED, KEPT, SESSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

SPAWN = multiprocessing.get_context("spawn")
CSV = "PO_NUMBER;STATUS;SUPPLIER\nPO1;;\nPO2;;\nPO3;;\n"


def statuses(job: EventCsv) -> list[str]:
    """Return the STATUS of each row."""
    return [row["STATUS"] for row in read_csv(Path(job.csv_path))]


def view(job: EventCsv) -> bytes:
    """Return the CSV."""
    return Path(job.csv_path).read_bytes()


def copied(job: EventCsv, name: str) -> EventCsv:
    """Return a job on a copy of everything that another one has."""
    folder = Path(job.csv_path).parent
    target = folder.with_name(f"{folder.name}-{name}")
    shutil.copytree(folder, target)
    return EventCsv(target / "input.csv", durability="process", lock_timeout_s=10)


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
        (Path(lost.log_dir) / "checkpoint.json").unlink()
        assert (False, wanted) == (lost.compact().changed, view(lost))
        for again in (job, EventCsv(job.csv_path)):
            assert (0, False) == ((result := again.compact()).events, result.changed)
            assert not again.replay().changed
        (Path(job.log_dir) / "checkpoint.json").unlink()
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
        assert ["COMPLETED", "COMPLETED"] == [row["STATUS"] for row in read_csv(Path(kept.path))][:2]
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
    data = bytearray(Path(damaged.path).read_bytes())
    data[20] ^= 1
    Path(damaged.path).write_bytes(data)
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


SESSION_AT_WORK = """
import sys
import eventcsv
with eventcsv.EventCsv(sys.argv[1]).session(session_id="theirs", refresh_s=1000):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_nothing_is_restored_or_pruned_while_a_session_is_at_work(long_job: EventCsv) -> None:
    """Another process's session is named in the error, and nothing changes; what only looks is let through."""
    command = [sys.executable, "-c", SESSION_AT_WORK, long_job.csv_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as theirs:
        assert theirs.stdout is not None
        assert theirs.stdin is not None
        assert "ready\n" == theirs.stdout.readline()
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
        theirs.stdin.close()
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
        (Path(job.log_dir) / "checkpoint.json").unlink(missing_ok=True)
        fresh.compact()
    else:
        fresh.replay()
    assert before == view(job)


# --- prune ---


@pytest.fixture
def old_job(tmp_path: Path) -> EventCsv:
    """A job of so many sessions that retention has removed its first backups."""
    return operations.old_job(tmp_path / "old")


def needed(job: EventCsv) -> int:
    """Return the segment that the oldest backup goes on in, as its metadata says."""
    first = job.backups()[-1]  # which gives way to a prune
    return min(backup.position.segment for backup in job.backups() if backup.position and backup != first)


def test_a_dry_run_says_what_would_go_and_removes_nothing(old_job: EventCsv) -> None:
    """Not one file changes, and the real run then does exactly that."""
    before = tree(Path(old_job.csv_path).parent)
    told = old_job.prune(dry_run=True)
    assert before == tree(Path(old_job.csv_path).parent)
    gone = [f"events-{number:06d}.jsonl" for number in range(1, needed(old_job))]
    sizes = sum(len(before[f"input.events/{name}"]) for name in gone)
    assert (tuple(gone), sizes, True) == (told.removed, told.size_bytes, told.dry_run)
    assert (9 - len(gone), old_job.backups()[-2]) == (told.kept, told.needed_by)
    done = old_job.prune()
    assert (told.removed, told.size_bytes, told.kept, False) == (done.removed, done.size_bytes, done.kept, done.dry_run)
    after = tree(Path(old_job.csv_path).parent)
    left = {name.rpartition("/")[2] for name in before.keys() - after.keys()}
    assert (set(gone), 2) == ({name for name in left if name.startswith("events-")}, len(left) - len(gone))
    assert {name: data for name, data in before.items() if name in after} == {
        name: data for name, data in after.items() if name in before
    }
    assert () == old_job.prune().removed


def test_after_a_prune_everything_works_as_before(old_job: EventCsv) -> None:
    """Compact, replay, verify, history and restore, from every backup, give what they gave with the whole log."""
    whole = copied(old_job, "whole")
    assert 4 == len(old_job.prune().removed)
    assert () == EventCsv(old_job.csv_path).verify().findings
    for job in (whole, old_job):
        job.compact()
    assert view(whole) == view(old_job)
    assert (None, False) == ((result := EventCsv(old_job.csv_path).compact()).rebuilt, result.changed)
    assert not EventCsv(old_job.csv_path).replay().changed
    known = [event.id for event in whole.history("PO3")]
    assert known[-len(kept := [event.id for event in old_job.history("PO3")]) :] == kept
    assert len(known) > len(kept) > 0
    for number, backup in enumerate(old_job.backups()):
        one, other = copied(whole, str(number)), copied(old_job, str(number))
        for replay in (True, False):
            results = [job.restore(backup.name, replay=replay) for job in (one, other)]
            assert view(one) == view(other)
            assert [()] * 2 == [result.damage for result in results]
        for job in (one, other):
            job.emit_result("PO1", "PARTIAL", last_processed="11")
            job.compact()
        assert view(one) == view(other)
        assert () == other.verify().findings


def in_sessions(folder: Path) -> EventCsv:
    """Return a job whose backups are each of the end of a finished segment, as those of real sessions are."""
    folder.mkdir()
    (folder / "input.csv").write_text(CSV)
    job = EventCsv(folder / "input.csv", durability="process")
    for number in range(KEPT + 1):
        with job.session(session_id=f"s{number}"):
            job.emit_result(f"PO{number % 3 + 1}", "PARTIAL", last_processed=f"{number}")
    return job


def test_after_a_prune_the_backup_of_a_finished_segment_can_be_restored(tmp_path: Path) -> None:
    """A backup of the end of a finished segment does not need that segment, and stays a base without it."""
    job = in_sessions(tmp_path / "job")
    before = view(job)
    for backup in job.backups():
        copied(job, backup.session).restore(backup.name)
    job.prune()
    for backup in job.backups():
        assert () == job.restore(backup.name).damage
        assert before == view(job)


def test_after_a_prune_an_edit_is_an_edit(tmp_path: Path) -> None:
    """With only the newest backup left, the checkpoint is believed after a prune, and no edit is overruled."""
    job = in_sessions(tmp_path / "job")
    for backup in job.backups()[1:]:
        Path(backup.path).with_suffix(".json").unlink()
        Path(backup.path).unlink()
    job.emit_result("PO1", "COMPLETED", last_processed="9")
    job.compact()
    job.prune()
    edit(job, "PO1;COMPLETED", "PO1;PENDING")
    fresh = EventCsv(job.csv_path)
    assert fresh.compact().edited
    assert "PENDING" == statuses(fresh)[0]


def test_the_active_segment_is_never_removed(job: EventCsv) -> None:
    """Nor is anything without a checkpoint, without a backup, or without a log."""
    assert ((), 0) == ((result := job.prune()).removed, result.kept)
    job.emit_result("PO1", "PARTIAL")
    job.new_segment()
    assert ((), 2, None) == ((result := job.prune()).removed, result.kept, result.needed_by)
    job.compact()
    job.back_up()
    for path in Path(job.backup_dir).glob("*"):
        path.unlink()
    assert ((), 2, None) == ((result := job.prune()).removed, result.kept, result.needed_by)


def test_the_last_segment_that_is_left_is_never_removed(old_job: EventCsv) -> None:
    """Should later segments be lost, the last one that is there is active now, whatever place the backups tell of."""
    for number in range(2, 10):
        segment_of(old_job, number).unlink()
    assert ((), 1) == ((result := EventCsv(old_job.csv_path).prune()).removed, result.kept)
    assert segment_of(old_job, 1).exists()


def test_without_a_checkpoint_nothing_is_pruned(old_job: EventCsv) -> None:
    """Gone or damaged: nobody knows what is needed, so everything stays until the next compaction."""
    checkpoint = Path(old_job.log_dir) / "checkpoint.json"
    for spoil in (lambda: checkpoint.write_bytes(b"{}\n"), checkpoint.unlink):
        spoil()
        assert ((), 9) == ((result := EventCsv(old_job.csv_path).prune()).removed, result.kept)
    old_job.compact()
    assert 4 == len(old_job.prune().removed)


def write_when_told(path: str, pipe: Connection) -> None:
    """Record a result each time that somebody asks for it."""
    job = EventCsv(path, durability="process")
    while (key := pipe.recv()) is not None:
        job.emit_result(key, "PARTIAL", last_processed="slept")
        pipe.send(True)


def test_a_writer_that_sleeps_across_a_prune_goes_on(job: EventCsv) -> None:
    """Its segment was sealed and removed while it slept: its next result goes to the one that is active now."""
    ours, theirs = SPAWN.Pipe()
    writer = SPAWN.Process(target=write_when_told, args=(job.csv_path, theirs))
    writer.start()
    ours.send("PO1")
    assert ours.recv()
    for number in range(KEPT + 1):
        compactor_of(job).begin_session(f"s{number}")
        job.new_segment()
        job.emit_result("PO2", "PARTIAL", last_processed=f"{number}")
    job.compact()
    assert "events-000001.jsonl" in job.prune().removed
    ours.send("PO3")
    assert ours.recv()
    ours.send(None)
    writer.join(60)
    assert 0 == writer.exitcode
    assert not segment_of(job, 1).exists()
    assert ["slept"] == [event.cells["LAST_PROCESSED"] for event in job.history("PO3")]
    assert 1 == job.compact().events
    assert "slept" == read_csv(Path(job.csv_path))[2]["LAST_PROCESSED"]


# --- retention ---


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
