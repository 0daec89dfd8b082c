"""The promise: the CSV depends on base and log only, is whole at every instant, and no operator's edit is lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import read_csv, segment_of, tree
from faults import Killed, Recording, with_storage

from eventcsv import BackupError, EventCsv, InvalidCsv, LockTimeout
from eventcsv.log.line import encode, sealed, unsealed
from eventcsv.storage.locks import locked


def statuses(path: Path) -> list[str]:
    """Return the STATUS of each row."""
    return [row["STATUS"] for row in read_csv(path)]


def backups_of(job: EventCsv) -> list[str]:
    """Return the names of the CSV copies in the backup folder."""
    return sorted(path.name for path in Path(job.backup_dir).glob("*.csv"))


def leftovers(folder: Path) -> list[str]:
    """Return what no finished run leaves behind: temporary files, and backups without their metadata."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    alone = [
        name for name in names if name.parent.name == "backup" and not (folder / name.with_suffix(".json")).exists()
    ]
    return [str(name) for name in names if ".tmp" in name.name] + [str(name) for name in alone]


# --- incremental and full ---


def test_what_is_new_is_folded_and_nothing_else(job: EventCsv, csv_path: Path) -> None:
    """Each compaction folds the events since the last one; the view has all of them."""
    job.emit_result("PO1", "COMPLETED")
    assert ((result := job.compact()).events, result.changed) == (1, True)
    job.emit_result("PO2", "FAILED", error_message="no")
    assert ((result := EventCsv(csv_path).compact()).events, result.changed) == (1, True)
    assert statuses(csv_path) == ["COMPLETED", "FAILED", ""]


def written(path: Path) -> tuple[int, int]:
    """Return what changes when a file is written, and not when it is read."""
    status = path.stat()
    return (status.st_ino, status.st_mtime_ns)


def test_nothing_new_leaves_the_file_alone(job: EventCsv, csv_path: Path) -> None:
    """Without new events the CSV is not written, nor anything else."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    before = (written(csv_path), tree(csv_path.parent))
    for again in (job, EventCsv(csv_path)):
        assert not again.compact().changed
    assert before == (written(csv_path), tree(csv_path.parent))


def test_events_that_say_what_the_csv_says_already_change_nothing(job: EventCsv, csv_path: Path) -> None:
    """An event that repeats what is there moves the checkpoint, not the file."""
    job.emit_result("PO1", "COMPLETED", last_processed="now")
    job.compact()
    before = csv_path.stat()
    job.emit_result("PO1", "COMPLETED", last_processed="now")
    result = job.compact()
    assert (result.events, result.changed) == (1, False)
    assert before == csv_path.stat()
    assert EventCsv(csv_path).compact().events == 0


def test_replay_gives_the_same_bytes(job: EventCsv, csv_path: Path) -> None:
    """Whether folded bit by bit or at once, over several segments, the bytes are the same."""
    for number in range(12):
        job.emit_result(
            f"PO{number % 3 + 1}", "ERROR", error_message=f'line "{number}";\n', columns={f"c{number % 4}": number}
        )
        if number % 3 == 0:
            job.compact()
        if number % 5 == 0:
            job.log.new_segment()
    job.compact()
    view = csv_path.read_bytes()
    result = EventCsv(csv_path).replay()
    assert view == csv_path.read_bytes()
    assert (result.events, result.changed, result.kept) == (12, False, None)


def test_unknown_keys_are_counted_reported_and_kept(job: EventCsv, csv_path: Path) -> None:
    """A result for a PO that the CSV lacks is named with its count, adds no row and no column, and stays in the log."""
    job.emit_result("PO9", "COMPLETED", columns={"extra": 1})
    job.emit_result("PO9", "ERROR", error_message="x")
    job.emit_result("PO1", "COMPLETED", last_processed="")
    result = job.compact()
    assert result.unknown == {"PO9": 2}
    assert list(read_csv(csv_path)[0]) == ["PO_NUMBER", "STATUS", "SUPPLIER", "LAST_PROCESSED"]
    assert len(read_csv(csv_path)) == 3
    assert len(list(job.history("PO9"))) == 2


def test_a_row_that_comes_late_gets_its_results(job: EventCsv, csv_path: Path) -> None:
    """Results for a PO that the CSV lacked are folded once an operator adds its row, and are in every later replay."""
    job.emit_result("PO9", "ERROR", error_message="x", last_processed="")
    job.emit_result("PO9", "COMPLETED", last_processed="")
    assert {"PO9": 2} == job.compact().unknown
    csv_path.write_bytes(csv_path.read_bytes() + b"PO9;;\n")
    job.emit_result("PO1", "COMPLETED", last_processed="")
    result = EventCsv(csv_path).compact()
    assert ("PO9",) == result.late
    assert ["COMPLETED", "", "", "COMPLETED"] == statuses(csv_path)
    view = csv_path.read_bytes()
    (Path(job.log_dir) / "checkpoint.json").unlink()
    assert ((), False) == ((again := EventCsv(csv_path).compact()).late, again.changed)
    assert view == csv_path.read_bytes()


def test_a_cell_that_is_too_long_for_a_spreadsheet_is_told(job: EventCsv, csv_path: Path) -> None:
    """32,767 characters are what Excel takes; one more is kept whole here, and named."""
    job.emit_result("PO1", "ERROR", columns={"page": "ä" * 32_767})
    assert () == job.compact().over_long
    job.emit_result("PO2", "ERROR", columns={"page": "ä" * 32_768})
    assert ("PO2 page",) == job.compact().over_long
    assert 32_768 == len(read_csv(csv_path)[1]["page"])
    assert () == job.compact().over_long
    job.emit_result("PO3", "COMPLETED")
    command = [sys.executable, "-m", "eventcsv", "compact", str(csv_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "which would cut them: PO2 page" in done.stdout


def test_formulas_from_the_web_are_disarmed(job: EventCsv, csv_path: Path) -> None:
    """Text of an event that a spreadsheet would run gets an apostrophe; the log keeps the text; there is a switch."""
    job.emit_result("PO1", "COMPLETED", supplier="=HYPERLINK(1)", columns={"a": "+1", "b": "'=x", "c": "a=b"})
    job.compact()
    row = read_csv(csv_path)[0]
    assert (row["SUPPLIER"], row["a"], row["b"], row["c"]) == ("'=HYPERLINK(1)", "'+1", "'=x", "a=b")
    assert next(job.history("PO1")).cells["SUPPLIER"] == "=HYPERLINK(1)"
    result = EventCsv(csv_path, guard_formulas=False).compact()
    assert read_csv(csv_path)[0]["SUPPLIER"] == "=HYPERLINK(1)"
    assert result.rebuilt is not None


def test_the_csv_keeps_its_mode(job: EventCsv, csv_path: Path) -> None:
    """The new file has the mode of the old one, whoever else may read it."""
    csv_path.chmod(0o640)
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    assert csv_path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_our_own_files_are_as_readable_as_the_csv(job: EventCsv, csv_path: Path, umask: int, mode: int) -> None:
    """Logs and backups hold business data: who may read the CSV may read them, whatever the umask; nobody writes."""
    csv_path.chmod(mode)
    before = os.umask(umask)
    try:
        with job.session():
            job.emit_result("PO1", "COMPLETED")
    finally:
        os.umask(before)
    ours = [Path(job.log_dir), Path(job.backup_dir), *Path(job.log_dir).iterdir(), *Path(job.backup_dir).iterdir()]
    folders, files = {0o600: (0o700, 0o600), 0o640: (0o750, 0o640), 0o664: (0o755, 0o644)}[mode]
    modes = {path.name: path.stat().st_mode & 0o777 for path in ours}
    assert (0o600, 0o600) == (modes.pop("append.lock"), modes.pop("compact.lock"))  # which a reader could hold
    assert {path.name: folders if path.is_dir() else files for path in ours if path.name in modes} == modes


# --- edits ---


def edit(path: Path, old: str, new: str) -> None:
    """Change the CSV as an editor does that writes in place."""
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))


def test_an_edit_becomes_the_new_base(job: EventCsv, csv_path: Path) -> None:
    """Rows added, removed and reordered and cells corrected by an operator stay, and later results go on top."""
    job.emit_result("PO1", "ERROR", error_message="x")
    job.compact()
    header, one, two, _three = csv_path.read_text().splitlines()
    csv_path.write_text("\n".join([header, two, "PO7;;;;", one.replace("ERROR", "COMPLETED")]) + "\n")
    edited = csv_path.read_bytes()
    job.emit_result("PO7", "PARTIAL")
    result = job.compact()
    assert result.edited
    assert result.base is not None
    view = csv_path.read_bytes()
    assert view == Path(result.base.path).read_bytes()
    assert edited in {Path(backup.path).read_bytes() for backup in job.backups()}
    assert statuses(csv_path) == ["", "PARTIAL", "COMPLETED"]
    assert (False, view) == (EventCsv(csv_path).replay().changed, csv_path.read_bytes())


def test_a_save_from_an_editor_that_was_open_for_long_loses_no_result(job: EventCsv, csv_path: Path) -> None:
    """An editor saves what it loaded hours ago: the edits in it stay, and the results recorded since come back."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    loaded = csv_path.read_bytes()
    job.emit_result("PO2", "ERROR", error_message="429")
    job.emit_result("PO2", "COMPLETED", error_message="", supplier="new")
    job.compact()
    csv_path.write_bytes(loaded.replace(b"PO3;;", b"PO3;;edited"))
    job.emit_result("PO3", "PARTIAL")
    result = job.compact()
    assert (True, 2, 1) == (result.edited, result.stale, result.events)
    assert ["COMPLETED", "COMPLETED", "PARTIAL"] == statuses(csv_path)
    assert ["", "new", "edited"] == [row["SUPPLIER"] for row in read_csv(csv_path)]
    view = csv_path.read_bytes()
    assert (False, view) == (EventCsv(csv_path).replay().changed, csv_path.read_bytes())


def test_a_status_that_is_reset_on_purpose_stays_reset(job: EventCsv, csv_path: Path) -> None:
    """An operator who sets a PO back to PENDING, so that it is done again, is not overruled, even for the last one."""
    for key in ("PO1", "PO2", "PO3"):
        job.emit_result(key, "COMPLETED")
    job.compact()
    csv_path.write_bytes(
        csv_path.read_bytes().replace(b"PO1;COMPLETED", b"PO1;PENDING").replace(b"PO3;COMPLETED", b"PO3;PENDING")
    )
    result = job.compact()
    assert (True, 0) == (result.edited, result.stale)
    assert ["PENDING", "COMPLETED", "PENDING"] == statuses(csv_path)


@pytest.mark.parametrize("other", ["", "PO1"])
def test_saved_twice_from_before_a_late_row_was_folded_in(job: EventCsv, csv_path: Path, other: str) -> None:
    """A row added and saved, its results folded in, and saved again from the same editor: the results are not lost."""
    job.emit_result("PO9", "COMPLETED", supplier="found", last_processed="9")
    if other:
        job.emit_result(other, "COMPLETED", last_processed="1")
    job.compact()
    loaded = csv_path.read_bytes()
    in_editor = loaded + (b"PO9;COMPLETED;;\n" if other else b"PO9;;\n")  # a text that he typed shows no event
    csv_path.write_bytes(in_editor)
    assert ("PO9",) == job.compact().late
    view = csv_path.read_bytes()
    csv_path.write_bytes(in_editor)
    job.compact()
    assert view == csv_path.read_bytes()
    assert (False, view) == (EventCsv(csv_path).replay().changed, csv_path.read_bytes())


def test_a_late_row_that_is_reset_on_purpose_stays_reset(job: EventCsv, csv_path: Path) -> None:
    """Whoever has seen the results of the row that he added can set it back to PENDING."""
    job.emit_result("PO9", "COMPLETED", supplier="found", last_processed="9")
    job.compact()
    csv_path.write_bytes(csv_path.read_bytes() + b"PO9;;\n")
    assert ("PO9",) == job.compact().late
    edit(csv_path, "PO9;COMPLETED", "PO9;PENDING")
    assert () == job.compact().late
    assert "PENDING" == statuses(csv_path)[-1]


@pytest.mark.parametrize("ahead_s", [0, 3600])
def test_half_a_save_is_no_edit(job: EventCsv, csv_path: Path, ahead_s: int) -> None:
    """A slow save is waited for, also when a server whose clock runs ahead dates it in the future."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    whole = csv_path.read_bytes()
    edited = whole + b"".join(b"PO%d;;;\n" % number for number in range(4, 40))
    started = threading.Event()

    def save_slowly() -> None:
        with csv_path.open("wb", buffering=0) as file:
            for line in edited.splitlines(keepends=True):
                file.write(line)
                os.utime(file.fileno(), times=(time.time() + ahead_s, time.time() + ahead_s))
                started.set()
                time.sleep(0.02)

    thread = threading.Thread(target=save_slowly)
    thread.start()
    started.wait()
    result = EventCsv(csv_path, settle_s=0.5).compact()
    thread.join()
    assert (True, 39) == (result.edited, result.rows)
    assert edited == csv_path.read_bytes()


def test_a_changed_switch_and_an_edit_together_lose_neither(job: EventCsv, csv_path: Path) -> None:
    """Turning the formula guard off rebuilds the view, but an edit that came first is an edit."""
    job.emit_result("PO1", "COMPLETED", supplier="=1")
    job.compact()
    csv_path.write_bytes(csv_path.read_bytes() + b"PO4;;added;\n")
    off = EventCsv(csv_path, guard_formulas=False)
    assert off.compact().edited
    assert "added" == read_csv(csv_path)[3]["SUPPLIER"]


def test_an_edit_in_the_moment_before_the_replacement_is_not_lost(csv_path: Path) -> None:
    """An operator who saves while the new view is being written wins: their version is read again and folded onto."""

    class EditedLate(Recording):
        times = 2

        def before(self, step: str, *args: object) -> None:
            if step == "replace" and str(args[1]).endswith("checkpoint.json") and self.times:
                self.times -= 1
                edit(csv_path, "PO3;;", f"PO3;;edited {self.times}")

    job = with_storage(EventCsv(csv_path), EditedLate())
    job.emit_result("PO1", "COMPLETED")
    result = job.compact()
    assert result.edited
    assert [row["SUPPLIER"] for row in read_csv(csv_path)] == ["", "", "edited 0edited 1"]
    assert statuses(csv_path) == ["COMPLETED", "", ""]
    assert leftovers(csv_path.parent) == []


def test_a_csv_broken_by_an_edit_is_refused_and_can_be_rebuilt(job: EventCsv, csv_path: Path) -> None:
    """Broken quoting is refused with its line, nothing is changed; replay keeps the broken file aside and rebuilds."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    good = csv_path.read_bytes()
    edit(csv_path, "PO2;", 'PO2;"')
    before = tree(csv_path.parent)
    with pytest.raises(InvalidCsv, match="line 3: a quote is opened"):
        job.compact()
    assert before == tree(csv_path.parent)
    result = job.replay()
    assert good == csv_path.read_bytes()
    assert result.kept is not None
    assert before["input.csv"] == Path(result.kept.path).read_bytes()
    assert not job.compact().changed


# --- the checkpoint and the bases ---


def corrupt(path: Path, place: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_the_checkpoint_is_only_a_cache(job: EventCsv, csv_path: Path) -> None:
    """Gone, cut off anywhere, flipped anywhere: the next compaction replays and gives the same bytes."""
    for number in range(6):
        job.emit_result(f"PO{number % 3 + 1}", "PARTIAL", columns={"n": number})
        job.compact()
    view = csv_path.read_bytes()
    checkpoint = Path(job.log_dir) / "checkpoint.json"
    whole = checkpoint.read_bytes()
    for place in range(0, len(whole) - 1, 7):
        for broken in (whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]):
            checkpoint.write_bytes(broken)
            result = EventCsv(csv_path).compact()
            assert (False, view, 6) == (result.changed, csv_path.read_bytes(), result.events)
    checkpoint.unlink()
    assert "no valid checkpoint" in str(EventCsv(csv_path).compact().rebuilt)
    assert view == csv_path.read_bytes()
    assert len(backups_of(job)) == 1


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
    corrupt(Path(newest.path), 30)
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
    corrupt(Path(base.path), 30)
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
            with_storage(EventCsv(csv_path, encoding="cp1252"), KilledBeforeReplacing(str(csv_path))).compact()
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
        with pytest.raises(OSError, match="space"):
            with_storage(EventCsv(csv_path), RefusingToWriteView(csv_path)).compact()
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
    corrupt(segment_of(job), 30)
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


# --- stopped at any step ---


class RefusingToWriteView(Recording):
    """Has no space for the new view."""

    def __init__(self, csv_path: Path) -> None:
        super().__init__()
        self._temporary = str(csv_path.with_name(f".{csv_path.name}.eventcsv.tmp"))

    def before(self, step: str, *args: object) -> None:
        if step == "create" and args[0] == self._temporary:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._temporary)


class KilledBeforeReplacing(Recording):
    """Is killed at the moment when a file is about to be replaced."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def before(self, step: str, *args: object) -> None:
        if step == "replace" and args[1] == self._path:
            raise Killed


class KilledInBackup(Recording):
    """Is killed at the moment when a backup is about to be finished."""

    def before(self, step: str, *args: object) -> None:
        if step == "replace" and "/backup/" in str(args[1]):
            raise Killed


def test_a_backup_that_was_cut_short_does_not_stay(job: EventCsv, csv_path: Path) -> None:
    """Killed while it makes a backup that nobody needs any more: the next compaction clears up what is left of it."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    edit(csv_path, "PO2;", "PO2;EDITED")
    with pytest.raises(Killed):
        with_storage(EventCsv(csv_path), KilledInBackup()).replay()
    assert [] != leftovers(csv_path.parent)
    edit(csv_path, "PO2;EDITED", "PO2;")
    job.compact()
    assert [] == leftovers(csv_path.parent)


def test_killed_before_the_replacement_an_edit_then_costs_no_event(csv_path: Path) -> None:
    """Killed with the checkpoint ahead of the CSV, which an operator then edits: every event is still folded."""
    job = EventCsv(csv_path, durability="process")
    job.emit_result("PO1", "COMPLETED", last_processed="1")
    job.compact()
    job.emit_result("PO2", "PARTIAL", last_processed="2")
    with pytest.raises(Killed):
        with_storage(EventCsv(csv_path), KilledBeforeReplacing(str(csv_path))).compact()
    edit(csv_path, "PO3;", "PO3;EDITED")
    EventCsv(csv_path).compact()
    assert statuses(csv_path) == ["COMPLETED", "PARTIAL", "EDITED"]


def test_two_compactors_take_turns(job: EventCsv, csv_path: Path) -> None:
    """The second one waits for the first, and says who it is when that takes too long."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    with (
        locked(job._storage, str(Path(job.log_dir) / "compact.lock"), 1),
        pytest.raises(LockTimeout, match=f"process {os.getpid()} "),
    ):
        EventCsv(csv_path, lock_timeout_s=0.05).compact()


def test_a_clock_that_was_set_back_decides_nothing(job: EventCsv, csv_path: Path) -> None:
    """The later line wins, whatever LAST_PROCESSED says of the two."""
    job.emit_result("PO1", "PARTIAL", last_processed="2030-01-01T00:00:00Z")
    job.emit_result("PO1", "COMPLETED", last_processed="2020-01-01T00:00:00Z")
    job.compact()
    row = read_csv(csv_path)[0]
    assert ("COMPLETED", "2020-01-01T00:00:00Z") == (row["STATUS"], row["LAST_PROCESSED"])


def test_what_a_foreign_checkpoint_says_of_the_csv_is_forgotten(tmp_path: Path) -> None:
    """A job that looked while the checkpoint was of another log reads the CSV as it is once that was mended."""
    path = tmp_path / "input.csv"
    path.write_text("PO_NUMBER;S,PO_NUMBER,Z\nPO1;a,XX1,z\nPO2;c,XX2,z\n")
    with EventCsv(path, delimiter=";") as job:
        job.emit_result("PO1", "COMPLETED")
        job.compact()
    checkpoint = tmp_path / "input.events" / "checkpoint.json"
    record = unsealed(checkpoint.read_bytes().removesuffix(b"\n"))
    checkpoint.write_bytes(sealed({**record, "log": "another", "delimiter": ","}))
    looking = EventCsv(path)
    assert ["PO2"] == looking.pending()
    EventCsv(path, delimiter=";").compact()
    assert ["PO2"] == looking.pending()


@pytest.mark.parametrize("verb", ["compact", "replay"])
def test_whoever_asks_for_progress_hears_of_that_call_only(job: EventCsv, csv_path: Path, verb: str) -> None:
    """What is called with the steps of one compaction is called by nothing that comes later, not by a session."""
    heard: list[tuple[int, int]] = []
    job.emit_result("PO1", "COMPLETED")
    getattr(job, verb)(on_progress=lambda done, total: heard.append((done, total)))
    size_bytes = segment_of(job).stat().st_size
    assert [(size_bytes, size_bytes)] == heard
    job.emit_result("PO2", "COMPLETED")
    assert ["PO3"] == job.pending()
    job.progress()
    job.compact()
    job.replay()
    job.verify()
    job.export(csv_path.with_name("out.jsonl"))
    with job.session(refresh_s=0.01) as session:
        job.emit_result("PO3", "COMPLETED")
        session.pending()
    job.restore(Path(job.backups()[0].path).name)
    assert 1 == len(heard)
