"""The promise: the checkpoint is only a cache, and a replay from any base that is left gives what the CSV shows."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from conftest import checkpoint_of, flip, segment_of, statuses, tree
from faults import Killed, Recording, Refusing, killed_before_replacing, with_storage
from operations import edit

from eventcsv import BackupError, EventCsv
from eventcsv.log.line import encode


def test_the_checkpoint_is_only_a_cache(job: EventCsv, csv_path: Path) -> None:
    """Gone: the next compaction says so, replays and gives the same bytes, and makes no other base."""
    for number in range(6):
        job.emit_result(f"PO{number % 3 + 1}", "PARTIAL", columns={"n": number})
        job.compact()
    view = csv_path.read_bytes()
    checkpoint_of(job).unlink()
    result = EventCsv(csv_path).compact()
    assert (False, view, 6) == (result.changed, csv_path.read_bytes(), result.events)
    assert "no valid checkpoint" in str(result.rebuilt)
    assert 1 == len(job.backups())


def test_a_checkpoint_of_another_log_is_not_believed(job: EventCsv, csv_path: Path, tmp_path: Path) -> None:
    """A log that was swapped for another one of the same size is noticed by its identity."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    (tmp_path / "b").mkdir()
    shutil.copy(csv_path, tmp_path / "b")
    other = EventCsv(tmp_path / "b" / "input.csv", durability="process")
    other.emit_result("PO2", "COMPLETED")
    shutil.copy(segment_of(other), segment_of(job))
    result = EventCsv(csv_path).compact()
    assert result.events == 1
    assert statuses(csv_path) == ["COMPLETED", "COMPLETED", ""]


@pytest.mark.parametrize("change", ["shorter", "rewritten"])
def test_a_log_that_changed_behind_the_checkpoint_is_replayed(job: EventCsv, csv_path: Path, change: str) -> None:
    """A log that is shorter than was folded, or differs in it, gives a rebuild; the old view is kept aside."""
    first = job.emit_result("PO1", "COMPLETED")
    second = job.emit_result("PO2", "COMPLETED")
    job.compact()
    view = csv_path.read_bytes()
    log = segment_of(job).read_bytes()
    if change == "shorter":
        segment_of(job).write_bytes(log[: -len(encode(second))])
    else:
        segment_of(job).write_bytes(log.replace(encode(first), encode(first).replace(b"COMPLETED", b"COMPLETES")))
    result = EventCsv(csv_path).compact()
    assert result.rebuilt is not None
    assert result.kept is not None
    assert view == Path(result.kept.path).read_bytes()
    assert {"shorter": ["COMPLETED", "", ""], "rewritten": ["", "COMPLETED", ""]}[change] == statuses(csv_path)


def test_a_deleted_csv_is_rebuilt_and_that_is_said(job: EventCsv, csv_path: Path) -> None:
    """A CSV that is gone comes back from the newest base and the log."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    view = csv_path.read_bytes()
    csv_path.unlink()
    result = EventCsv(csv_path).compact()
    assert view == csv_path.read_bytes()
    assert "gone" in str(result.rebuilt)


def test_a_damaged_base_gives_way_to_the_one_before(job: EventCsv, csv_path: Path) -> None:
    """When the newest base is damaged, its CSV or its metadata, the replay starts from an older one."""
    job.emit_result("PO1", "COMPLETED", last_processed="")
    job.compact()
    edit(csv_path, "PO3;", "PO3;EDITED")
    newest = job.compact().base
    assert newest is not None
    job.emit_result("PO2", "COMPLETED", last_processed="")
    job.compact()
    flip(Path(newest.path), 30)
    result = EventCsv(csv_path).replay()
    assert statuses(csv_path) == ["COMPLETED", "COMPLETED", "EDITED"]  # what people typed is in the log, too
    assert not result.changed
    with pytest.raises(BackupError, match="damaged"):
        EventCsv(csv_path).replay(backup=newest.name)


def test_a_replay_can_start_from_any_base(job: EventCsv, csv_path: Path) -> None:
    """Named by its file name, an older base gives results and edits; an unknown name is an error that lists them."""
    job.emit_result("PO1", "COMPLETED", last_processed="")
    first = job.compact().base
    assert first is not None
    edit(csv_path, "PO3;", "PO3;MISTAKE")
    job.compact()
    job.replay(backup=first.name)
    assert statuses(csv_path) == ["COMPLETED", "", "MISTAKE"]
    assert not job.compact().changed
    with pytest.raises(BackupError, match=first.name):
        job.replay(backup="nope.csv")


def test_a_replay_without_its_backups_is_refused(job: EventCsv, csv_path: Path, tmp_path: Path) -> None:
    """With another backup folder than before, a replay would fold the log onto what was folded; it asks instead."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    before = tree(csv_path.parent)
    with pytest.raises(BackupError, match="--backup-dir"):
        EventCsv(csv_path, backup_dir=tmp_path / "elsewhere").replay()
    assert before == tree(csv_path.parent)


class Names(Recording):
    """Notes the directories that were synced, up to the first name that is given or taken back."""

    def __init__(self) -> None:
        super().__init__()
        self.synced: set[str] = set()
        self.is_over = False

    def before(self, step: str, *args: object) -> None:
        self.is_over = self.is_over or step in {"replace", "unlink"}
        if step == "sync" and not self.is_over and os.path.isdir(place := os.readlink(f"/proc/self/fd/{args[0]}")):
            self.synced.add(place)


def test_nothing_is_built_on_names_that_a_power_cut_could_take_back(job: EventCsv, csv_path: Path) -> None:
    """A process may be killed before it has synced the names of CSV, checkpoint, base or segment; the next one does."""
    job.emit_result("PO1", "COMPLETED", last_processed="1")
    job.compact()
    everything = {str(csv_path.parent), job.log_dir, job.backup_dir}
    other = EventCsv(csv_path)
    for _ in range(2):
        with_storage(other, names := Names()).compact()
        assert (everything, False) == (names.synced, names.is_over)
        everything = set()  # a live run has made sure already
    job.emit_result("PO2", "COMPLETED", last_processed="2")
    with_storage(EventCsv(csv_path), names := Names()).compact()
    assert {str(csv_path.parent), job.log_dir, job.backup_dir} == names.synced


def test_with_the_backups_gone_a_new_base_is_made(job: EventCsv, csv_path: Path) -> None:
    """A CSV never stays without a base to replay from."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    shutil.rmtree(job.backup_dir)
    job.emit_result("PO2", "COMPLETED")
    result = job.compact()
    assert result.base is not None
    view = csv_path.read_bytes()
    assert (1, view) == (EventCsv(csv_path).replay().events, csv_path.read_bytes())


def test_a_rebuild_never_trusts_a_copy_that_rotted(job: EventCsv, csv_path: Path) -> None:
    """A backup that claims to hold the CSV but is damaged is no copy: the CSV is kept anew before it is replaced."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    edit(csv_path, "PO3;", "PO3;EDITED")
    edited = csv_path.read_bytes()
    base = job.compact().base
    assert base is not None
    flip(Path(base.path), 30)
    csv_path.write_bytes(edited + b"PO4;;\n")
    kept = job.replay().kept
    assert kept is not None
    assert edited + b"PO4;;\n" == Path(kept.path).read_bytes()


@pytest.mark.parametrize("text", ["Müller", "Mueller"])
def test_killed_while_a_csv_is_converted(csv_path: Path, text: str) -> None:
    """A first compaction that was to convert the CSV and died can be repeated, with the encoding or without it."""
    original = f"PO_NUMBER;STATUS;SUPPLIER\nPO1;;{text}\n".encode("cp1252")
    views = set()
    for again in ("cp1252", None):
        shutil.rmtree(csv_path.parent / "input.events", ignore_errors=True)
        shutil.rmtree(csv_path.parent / "backup", ignore_errors=True)
        csv_path.write_bytes(original)
        job = EventCsv(csv_path, durability="process", encoding="cp1252")
        job.emit_result("PO1", "COMPLETED", last_processed="")
        with pytest.raises(Killed):
            with_storage(EventCsv(csv_path, encoding="cp1252"), killed_before_replacing(csv_path)).compact()
        EventCsv(csv_path, encoding=again).compact()
        views.add(csv_path.read_bytes())
        assert not EventCsv(csv_path).replay().changed
    assert {f"\ufeffPO_NUMBER;STATUS;SUPPLIER;LAST_PROCESSED\nPO1;COMPLETED;{text};\n".encode()} == views


@pytest.mark.parametrize("way", ["edit taken back", "newest base gone", "another folder"])
def test_a_replay_starts_from_what_the_view_grew_from(job: EventCsv, csv_path: Path, tmp_path: Path, way: str) -> None:
    """Whatever happened to the bases, the next compaction sees to it that a replay gives what the CSV shows."""
    job.emit_result("PO1", "COMPLETED", last_processed="")
    job.compact()
    view = csv_path.read_bytes()
    backup_dir = None
    edit(csv_path, "PO3;", "PO3;EDITED")
    if way == "edit taken back":
        job.emit_result("PO2", "PARTIAL", last_processed="")
        new_view = str(csv_path.with_name(f".{csv_path.name}.eventcsv.tmp"))
        full = Refusing(errno.ENOSPC, lambda _, step, args: step == "create" and args[0] == new_view)
        with pytest.raises(OSError, match="space"):
            with_storage(EventCsv(csv_path), full).compact()
        csv_path.write_bytes(view)
    else:
        base = job.compact().base
        assert base is not None
        if way == "newest base gone":
            Path(base.path).unlink()
            Path(base.path).with_suffix(".json").unlink()
        else:
            backup_dir = shutil.copytree(job.backup_dir, tmp_path / "elsewhere")
            (backup_dir / base.name).with_suffix(".json").unlink()
    job.emit_result("PO2", "PARTIAL", last_processed="")
    EventCsv(csv_path, backup_dir=backup_dir).compact()
    view = csv_path.read_bytes()
    result = EventCsv(csv_path, backup_dir=backup_dir).replay()
    assert (False, view) == (result.changed, csv_path.read_bytes())


def test_a_job_whose_header_is_damaged_keeps_its_backups(job: EventCsv, csv_path: Path) -> None:
    """With the only header damaged, an operator's correction is not overwritten by the events before it."""
    job.emit_result("PO1", "ERROR", error_message="x")
    job.compact()
    edit(csv_path, "PO1;ERROR", "PO1;COMPLETED")
    job.compact()
    flip(segment_of(job), 30)
    job.emit_result("PO2", "PARTIAL")
    job.compact()
    EventCsv(csv_path, durability="process").emit_result("PO3", "PARTIAL")
    EventCsv(csv_path).compact()
    assert ["COMPLETED", "PARTIAL", "PARTIAL"] == statuses(csv_path)


def test_a_dated_copy_of_a_segment_is_none(job: EventCsv, csv_path: Path) -> None:
    """events-20251002.jsonl, a copy that somebody made, is neither read nor written to."""
    job.emit_result("PO1", "COMPLETED")
    copy = Path(job.log_dir) / "events-20251002.jsonl"
    shutil.copy(segment_of(job), copy)
    before = copy.read_bytes()
    EventCsv(csv_path, durability="process").emit_result("PO2", "COMPLETED")
    result = EventCsv(csv_path).compact()
    assert (2, ()) == (result.events, result.damage)
    assert before == copy.read_bytes()
