"""The promise: what an operator has edited stays, results come on top of it, and no edit is lost on the way."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from conftest import read_csv, replays_to_itself, statuses, tree
from faults import Recording, with_storage
from operations import edit, leftovers

from eventcsv import EventCsv, InvalidCsv


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
    assert replays_to_itself(csv_path)


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
    assert replays_to_itself(csv_path)


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
