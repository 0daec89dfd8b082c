"""The promise: the CSV depends on base and log only, and is whole at every instant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import run
from conftest import checkpoint_of, read_csv, segment_of, statuses, tree
from faults import Killed, Killing, killed_before_replacing, with_storage
from operations import edit, leftovers

from eventcsv import EventCsv, LockTimeout
from eventcsv.log.line import sealed, unsealed
from eventcsv.storage.locks import locked

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
    checkpoint_of(job).unlink()
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
    assert "which would cut them: PO2 page" in run("compact", csv_path).stdout


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


# --- stopped at any step ---


def test_a_backup_that_was_cut_short_does_not_stay(job: EventCsv, csv_path: Path) -> None:
    """Killed while it makes a backup that nobody needs any more: the next compaction clears up what is left of it."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    edit(csv_path, "PO2;", "PO2;EDITED")
    with pytest.raises(Killed):
        with_storage(
            EventCsv(csv_path), Killing(lambda step, args: step == "replace" and "/backup/" in str(args[1]))
        ).replay()
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
        with_storage(EventCsv(csv_path), killed_before_replacing(csv_path)).compact()
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
