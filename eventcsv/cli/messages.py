"""What the commands say: results as lines of a label and a text. Prints nothing itself; `dashboard` has the view."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from eventcsv.cli.wording import (
    SHOWN,
    counted,
    done_of,
    edit_line,
    few,
    in_flight_of,
    last_run_of,
    line,
    message_of,
    near,
    plural,
    rate_of,
    session_of,
    size,
    statuses,
    trouble_of,
    unknown_of,
    waiting_of,
    with_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eventcsv.event import Event
    from eventcsv.formats.export import ExportResult
    from eventcsv.formats.import_workbook import ImportResult
    from eventcsv.log.copy import CopyResult
    from eventcsv.log.types import Damage
    from eventcsv.report.model import Report
    from eventcsv.view.backup import Backup
    from eventcsv.view.compact_result import CompactResult
    from eventcsv.view.edits import Edit
    from eventcsv.view.progress import Progress
    from eventcsv.view.prune import PruneResult
    from eventcsv.view.verify import VerifyReport


# --- a compaction ------------------------------------------------------------------------------------------------


def compaction_lines(result: CompactResult) -> Iterator[str]:
    """Say what a compaction did, in lines of a label and a text."""
    state = "was brought up to date" if result.changed else "is up to date and was not touched"
    yield f"{near(result.csv_path)} {state}"
    events = result.events - sum(result.unknown.values())  # what is in no row is told of by itself
    yield line("rows", f"{result.rows:,}, by status: {statuses(result.by_status)}")
    place = f"the log's end (segment {result.position.segment}, byte {result.position.offset_bytes:,})"
    same = ", which the CSV shows already" if events and not result.changed else ""
    yield line("folded", f"{counted(events, 'event')}{same}, up to {place}")
    if result.rebuilt:
        yield line("rebuilt", result.rebuilt)
    for edit in result.edits:
        yield from edit_lines(edit)
    if result.added_columns:
        yield line("added", f"{plural('column', len(result.added_columns))} {', '.join(result.added_columns)}")
    yield from _log_lines(result)
    for note in result.notes:
        yield line("note", note)
    if result.base:
        yield line("backup", f"{near(result.base.path)} ({result.base.reason})")
    if result.kept:
        yield line("backup", f"{near(result.kept.path)} (the CSV as it was before)")
    yield line("took", f"{result.duration_s:.2f} s")


def _log_lines(result: CompactResult) -> Iterator[str]:
    """Say what the log holds beside what was folded."""
    if result.unknown:
        events = counted(sum(result.unknown.values()), "event")
        yield from _unknown_lines(f"{events} for keys that are in no row: {few(result.unknown)}")
    if result.over_long:
        yield line("long cells", f"more than a spreadsheet can hold, which would cut them: {few(result.over_long)}")
    if result.late:
        yield line("late", f"results recorded before their rows were added: {few(result.late)}")
    yield from findings(result.torn, result.damage)


def _unknown_lines(text: str) -> Iterator[str]:
    """Say which results have no row, and what becomes of them."""
    yield line("unknown", text)
    yield line("", "kept in the log, and folded once there is a row. A typo, blanks or lost leading zeros?")


def findings(torn: Sequence[Damage], damage: Sequence[Damage]) -> Iterator[str]:
    """Say what is torn, and what is damaged."""
    for item in torn[:SHOWN]:
        yield line("torn line", str(item))
    if torn:
        yield line("", "no result was lost by it: it was never acknowledged. Results to come are appended behind it")
    for item in damage[:SHOWN]:
        yield line("damage", str(item))
    if len(damage) > SHOWN:
        yield line("", f"and {len(damage) - SHOWN:,} more; --json lists all")


def edit_lines(edit: Edit) -> Iterator[str]:
    """Say what a save of the CSV did, and which results it met."""
    yield line("edited", edit_line(edit))
    for met in edit.met[:SHOWN]:
        yield line("", f"{met.key} {met.column}: {met.typed!r} was typed over the result {met.result!r}")
    if len(edit.met) > SHOWN:
        yield line("", f"and {len(edit.met) - SHOWN:,} more results were typed over; --json lists them")


# --- a PO, and how far all are -----------------------------------------------------------------------------------


def event_lines(event: Event) -> Iterator[str]:
    """Show one event of a PO's history."""
    yield f"{event.ts}  {event.kind}  {event.id}"
    for column, text in event.cells.items():
        yield f"    {column} = {text}"


def event_record(event: Event) -> dict[str, Any]:
    """Return an event as it stands in the log, with what was done to values of it when it has just been recorded."""
    record = dataclasses.asdict(event)
    return record if event.mended else {name: value for name, value in record.items() if name != "mended"}


def progress_lines(progress: Progress) -> Iterator[str]:
    """Say how far a job is."""
    yield f"{near(progress.csv_path)}: {done_of(progress)}, {progress.pending:,} pending"
    yield line("by status", statuses(progress.by_status))
    yield line("rate", rate_of(progress))
    yield line("session", session_of(progress))
    if progress.trouble:
        yield line("CSV", trouble_of(progress))
    if progress.last_edit:
        yield from edit_lines(progress.last_edit)
    if progress.stopped:
        yield line("stopped", f"the last run, by {progress.stopped}")
    if progress.in_flight:
        yield line("in flight", in_flight_of(progress))
    if progress.waiting:
        yield line("waiting", waiting_of(progress))
    if progress.failures:
        yield line("failed", f"{len(progress.failures):,}, the latest last:")
        for failure in progress.failures[-SHOWN:]:
            status = failure.status or "(none yet)"
            yield line("", f"{failure.key}: {status}  {message_of(failure.message)}")
    if progress.behind:
        results = f"{counted(progress.behind, 'result')} behind the log"
        yield line("CSV", results if progress.trouble else f"{results}; eventcsv compact brings it up to date")
    yield from key_lines(progress)
    yield from findings(progress.torn, progress.damage)


def key_lines(progress: Progress) -> Iterator[str]:
    """Say which keys are not what they should be."""
    if progress.mangled:
        yield line("keys", f"numbers, of which a spreadsheet has lost the digits: {few(progress.mangled)}")
        yield line("", "format that column as text there, and type or import the keys again")
    if progress.repeated:
        keys = with_rows(progress.repeated)
        yield line("rows", f"{progress.rows:,} rows are {counted(progress.total, 'PO')}: {keys}")
    if progress.unknown:
        yield from _unknown_lines(unknown_of(progress))


# --- the log and the backups -------------------------------------------------------------------------------------


def backup_lines(backups: list[Backup], directory: str) -> Iterator[str]:
    """List backups."""
    if not backups:
        yield f"{near(directory)}: no backups yet"
    for backup in backups:
        base = "" if backup.position else ", its place in the log is not known"
        yield f"{backup.name}  {backup.record_count:,} rows, {size(backup.file_size_bytes)}  {backup.reason}{base}"


def verify_lines(report: VerifyReport) -> Iterator[str]:
    """Say what was checked, and what was found."""
    count = len(report.findings)
    state = counted(count, "finding") if count else "nothing is wrong"
    yield f"{near(report.csv_path)}: {state}"
    segments = counted(report.segments, "segment")
    yield line("log", f"{segments}, {counted(report.lines, 'line')}, {size(report.size_bytes)}")
    yield line("backups", f"{report.backups:,}")
    yield line("CSV", report.view)
    yield from findings(report.torn, ())
    for finding in report.findings:
        yield line("finding", f"{near(finding.place)}: {finding.problem}")
    yield line("took", f"{report.duration_s:.2f} s")


def prune_lines(result: PruneResult) -> Iterator[str]:
    """Say what was pruned, or would be."""
    count = len(result.removed)
    verb = "would be removed" if result.dry_run else "removed"
    if not count:
        yield f"{near(result.log)}: every segment is needed, nothing {verb}"
    else:
        yield f"{near(result.log)}: {counted(count, 'segment')}, {size(result.size_bytes)}, {verb}"
        yield line("segments", few(result.removed))
    if result.needed_by:
        yield line("kept", f"{result.kept:,}, from where {result.needed_by.name} goes on")
    else:
        yield line("kept", f"{result.kept:,}, as there is no backup yet that a replay could start from")
    if count and result.unknown:
        keys = f"{counted(result.unknown, 'key')} with results and no row"
        yield line("unknown", f"{keys}: what is removed of them does not come back when rows are added")


def copy_lines(result: CopyResult) -> Iterator[str]:
    """Say what a copy of a log did."""
    yield f"{near(result.target)}: is the same log as {near(result.source)}, byte for byte"
    yield line("segments", f"{result.segments:,}, {size(result.size_bytes)}; {size(result.copied_bytes)} copied now")
    yield line("next", "use one of the two and move the other away: what they record apart does not merge")


# --- other files -------------------------------------------------------------------------------------------------


def export_lines(result: ExportResult) -> Iterator[str]:
    """Say what an export wrote."""
    extent = f"{counted(result.rows, 'row')}, {counted(result.columns, 'column')}"
    yield f"{near(result.path or '-')}: {extent}, {result.size_bytes / 1_000:,.1f} kB"
    if result.cut:
        yield line("cut", f"more than a cell of Excel can hold, and marked there: {few(result.cut)}")
        yield line("", "the CSV has all of it, and so has an export to .parquet or .jsonl")
    yield from findings(result.torn, result.damage)


def import_lines(result: ImportResult) -> Iterator[str]:
    """Say what an import wrote."""
    extent = f"{counted(result.rows, 'row')}, {counted(result.columns, 'column')}"
    yield f"{near(result.csv_path)}: {extent}"
    yield line("from", f"{near(result.workbook)}, sheet {result.sheet!r}, header in row {result.header_row:,}")
    if result.other_sheets:
        yield line("not read", f"{plural('sheet', len(result.other_sheets))} {few(result.other_sheets)}")
    if result.hidden:
        rows = counted(len(result.hidden), "row")
        which = few(list(map(str, result.hidden)))
        what = "left out" if result.left_out else "in the CSV as well; --visible leaves them out"
        yield line("hidden", f"{rows} of the sheet, {what}: {which}")
    if result.merged:
        yield line("merged", f"{few(result.merged)}: each row that they cover has got their text")
    if result.without_key:
        yield line("no key", f"in row {few([str(row) for row in result.without_key])}: no result can be theirs")
    if result.repeated:
        yield line("repeated", f"{with_rows(result.repeated)}: a result goes to each of the rows")
    if result.rounded:
        yield line("rounded", f"{few(result.rounded)}: more than 15 digits, and Excel had kept 15 of them")
        yield line("", "if they are numbers of orders, format the cells as text in Excel and type them again")


def report_lines(report: Report, path: str, size_bytes: int) -> Iterator[str]:
    """Say what a report holds, and where it is."""
    total = len(report.pos)
    done = f"{report.done:,} of {counted(total, 'PO')} done"
    yield f"{near(os.path.abspath(path))}: {done}; open it in a browser"
    alike = len(report.failures)
    groups = f"; {counted(alike, 'message')} in all, retried ones included" if alike else ""
    if report.last_run:
        yield line("last run", last_run_of(report))
    yield line("failed", f"{counted(report.failed, 'PO')}{groups}")
    yield line("retried", f"{report.retried:,}, of which {report.recovered:,} are done")
    yield line("size", f"{size(size_bytes)}, with the history of each PO")
    if report.masked:
        yield line("masked", "passwords, tokens, e-mail addresses and queries of URLs, as far as they can be told")
    else:
        yield line("unmasked", "passwords, tokens, e-mail addresses and queries of URLs may be on it")
    yield from findings(report.torn, report.damage)
