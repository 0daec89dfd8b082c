"""The promise: a prune removes only what nobody needs any more, and everything works after it as before."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import TYPE_CHECKING

import operations
import pytest
from conftest import checkpoint_of, read_csv, segment_of, statuses, tree
from inside import compactor_of
from operations import copied, edit, view

from eventcsv import EventCsv
from eventcsv.view.retention import KEPT

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


SPAWN = multiprocessing.get_context("spawn")


CSV = "PO_NUMBER;STATUS;SUPPLIER\nPO1;;\nPO2;;\nPO3;;\n"


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
    checkpoint = checkpoint_of(old_job)
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
