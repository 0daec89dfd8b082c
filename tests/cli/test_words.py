"""The promise: what a command says of a job names what is meant, counts what is alike, and contradicts nothing."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from eventcsv import EventCsv, InvalidCsv
from eventcsv.cli import messages, run_messages
from eventcsv.run.run import RunResult
from eventcsv.worker.messages import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


def text(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def run_of(failed: Sequence[Outcome] = (), unrecorded: Sequence[Outcome] = ()) -> RunResult:
    """Return what a run did that did nothing well."""
    return RunResult(
        processed=len(failed),
        by_status={"ERROR": len(failed)},
        failed=tuple(failed),
        interrupted=(),
        held=(),
        elsewhere=0,
        refused=(),
        unrecorded=tuple(unrecorded),
        lost_workers=0,
        stopped=None,
        duration_s=1.0,
    )


def said_of(job: EventCsv, result: RunResult) -> str:
    return text(run_messages.run_lines(job.csv_path, result, job.progress(), job.back_up(), "", done=("COMPLETED",)))


# --- keys --------------------------------------------------------------------------------------------------------


def test_keys_without_a_row_are_named(job: EventCsv) -> None:
    """The first ten in words, all of them for programs; by status and by the summary of a run."""
    keys = [f"PO9{number:02}" for number in range(12)]
    for key in reversed(keys):
        job.emit_result(key, "COMPLETED")
    progress = job.progress()
    named = f"12 keys with results and no row: {', '.join(keys[:10])} and 2 more"
    assert named in text(messages.progress_lines(progress))
    assert tuple(keys) == dataclasses.asdict(progress)["unknown_keys"]
    assert named in said_of(job, run_of())
    job.compact()
    assert tuple(keys) == job.progress().unknown_keys


def test_keys_that_a_spreadsheet_made_numbers_of_are_named(job: EventCsv, csv_path: Path) -> None:
    """They are one PO where there were three: rows are counted against POs, and the way back is told."""
    csv_path.write_text("PO_NUMBER;STATUS\n4,5E+15;\n4,5E+15;\n4,5E+15;\n1.2E+14;\nPO1E+5;\n")
    progress = job.progress()
    assert (3, 5, {"4,5E+15": 3}, ("4,5E+15", "1.2E+14")) == (
        progress.total,
        progress.rows,
        progress.repeated,
        progress.mangled,
    )
    said = text(messages.progress_lines(progress))
    assert "5 rows are 3 POs: 4,5E+15 (3 rows)" in said
    assert "a spreadsheet has lost the digits: 4,5E+15, 1.2E+14\n" in said
    assert "format that column as text" in said


def test_sound_keys_are_no_news(job: EventCsv) -> None:
    """Nothing is said of keys when there is nothing to say."""
    progress = job.progress()
    assert (3, {}, ()) == (progress.rows, progress.repeated, progress.mangled)
    assert [] == list(messages.key_lines(progress))


# --- failures ----------------------------------------------------------------------------------------------------


def test_many_failures_are_counted_by_what_they_have_in_common(job: EventCsv) -> None:
    """240 times the same trouble is one line with its count and some of the POs; what happened once comes last."""
    failed = [Outcome(f"PO{number}", "ERROR", f"HTTP 503 for PO{number} after 30 s") for number in range(240)]
    failed += [Outcome("PO999", "FAILED", "no such order")]
    said = said_of(job, run_of(failed))
    assert "  failed     240 x ERROR  HTTP 503 for [PO] after [n] s\n" in said
    assert "             PO0, PO1, PO2, PO3, PO4 and 235 more\n" in said
    assert "  failed     1 x FAILED  no such order\n             PO999\n" in said


def test_few_failures_are_told_one_by_one(job: EventCsv) -> None:
    """As long as each of them can be read."""
    said = said_of(job, run_of([Outcome(f"PO{number}", "ERROR", "HTTP 503") for number in range(3)]))
    assert ["PO0: ERROR  HTTP 503", "PO1: ERROR  HTTP 503", "PO2: ERROR  HTTP 503"] == [
        line.split(None, 1)[1] for line in said.splitlines() if line.startswith("  failed")
    ]


def test_what_could_not_be_recorded_is_one_line_a_reason(job: EventCsv) -> None:
    """A full disk says the same of each PO, with the same path."""
    told = "/data/input.events: the result of {} could not be recorded (4 tries): No space left on device"
    lost = [Outcome(f"PO{number}", "", told.format(f"PO{number}")) for number in range(50)]
    said = said_of(job, run_of(unrecorded=lost))
    assert f"  unrecorded 50 x {told.format('[PO]')}\n" in said
    assert 1 == said.count("No space left")


def test_kinds_beyond_the_first_ten_are_counted(job: EventCsv) -> None:
    """The summary stays as long as a screen."""
    failed = [Outcome(f"PO{number}", "ERROR", f"trouble {chr(97 + number)}") for number in range(13)]
    assert "and 3 more with 3 other messages; --json lists all" in said_of(job, run_of(failed))


# --- compaction and verify ---------------------------------------------------------------------------------------


def test_an_event_of_no_row_is_not_said_to_be_folded(job: EventCsv) -> None:
    """The CSV was not touched, and nothing was folded: that is one story."""
    job.compact()
    job.emit_result("PO9", "COMPLETED")
    said = text(messages.compaction_lines(job.compact()))
    assert "is up to date and was not touched" in said
    assert "  folded     0 events, up to" in said
    assert "1 event for keys that are in no row: PO9" in said


def test_a_result_that_changes_nothing_says_so(job: EventCsv) -> None:
    """Folded, and the CSV not touched: it showed that already."""
    for _ in range(2):
        job.emit_result("PO1", "COMPLETED", last_processed="2026-01-01")
        result = job.compact()
    said = text(messages.compaction_lines(result))
    assert "was not touched" in said
    assert "1 event, which the CSV shows already, up to" in said


def test_verify_counts_what_the_csv_lacks(job: EventCsv) -> None:
    """Byte for byte what a replay gives, up to where it is; what came later is not in it yet."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    assert "what a replay gives, byte for byte" == job.verify().view
    job.emit_result("PO2", "COMPLETED")
    report = job.verify()
    assert "what a replay gives, byte for byte, but for 1 result that the log has and the CSV not yet" == report.view
    assert () == report.findings


def test_results_behind_a_csv_that_cannot_be_read_wait_for_its_mending(job: EventCsv, csv_path: Path) -> None:
    """To compact would not help, so that is not advised; the empty CSV's own line tells the way back."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    job.emit_result("PO2", "COMPLETED")
    csv_path.write_text("")
    said = text(messages.progress_lines(job.progress()))
    assert "1 result behind the log\n" in f"{said}\n"
    assert "is empty" in said
    assert "eventcsv replay" in said
    with pytest.raises(InvalidCsv, match=r"is empty\..* Or have the CSV back as it was: eventcsv replay"):
        job.compact()
