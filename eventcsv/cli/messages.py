"""What the commands say: results as lines of a label and a text. Prints nothing itself; `dashboard` has the view."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any, Final

from eventcsv.cli.wording import (
    SHOWN,
    counted,
    done_of,
    duration,
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
    time_of_day,
    trouble_of,
    unknown_of,
    waiting_of,
    with_rows,
)
from eventcsv.event import Status, done_words
from eventcsv.masking import masked
from eventcsv.report.grouping import pattern_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from eventcsv.event import Event
    from eventcsv.formats.export import ExportResult
    from eventcsv.formats.import_workbook import ImportResult
    from eventcsv.log.copy import CopyResult
    from eventcsv.log.types import Damage
    from eventcsv.report.model import Report
    from eventcsv.run.plan import Planned
    from eventcsv.run.run import RunResult
    from eventcsv.run.session import Session
    from eventcsv.view.backup import Backup
    from eventcsv.view.compact_result import CompactResult
    from eventcsv.view.edits import Edit
    from eventcsv.view.progress import Progress
    from eventcsv.view.prune import PruneResult
    from eventcsv.view.verify import VerifyReport
    from eventcsv.worker.messages import Outcome

_KEYS_SHOWN: Final = 5


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
    yield from _findings(result.torn, result.damage)


def _unknown_lines(text: str) -> Iterator[str]:
    """Say which results have no row, and what becomes of them."""
    yield line("unknown", text)
    yield line("", "kept in the log, and folded once there is a row. A typo, blanks or lost leading zeros?")


def _findings(torn: Sequence[Damage], damage: Sequence[Damage]) -> Iterator[str]:
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
    yield from _findings(progress.torn, progress.damage)


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


# --- a run -------------------------------------------------------------------------------------------------------


def session_lines(begun: CompactResult, backup: Backup, session: str) -> Iterator[str]:
    """Say how a session began."""
    yield f"session {session}: the CSV as it is now was kept as {near(backup.path)}"
    if begun.events:
        yield f"  {counted(begun.events, 'event')} that an earlier run had left in the log came first"
    for edit in begun.edits:
        yield f"  {edit_line(edit)}"
    yield from _findings(begun.torn, begun.damage)


def doubtful_lines(
    csv_path: str, doubtful: dict[str, int], done: Collection[str], *, status_column: str
) -> Iterator[str]:
    """Say what a first run would make of a STATUS that may mean something else."""
    yield f"{near(csv_path)}: no result has been written to {status_column} yet, and it says {statuses(doubtful)}"
    words = done_words(done)
    finished = {text: count for text, count in doubtful.items() if text.upper() in words}
    if finished:
        count = sum(finished.values())
        yield line("done", f"{counted(count, 'PO')} would count as done, and not be worked on")
    if len(finished) < len(doubtful):
        yield line("lost", "the words of the others would be written over with COMPLETED, ERROR and the like")
    yield line("if not so", f"keep {status_column} as it is, and write to another column: --status-column RESULT")
    yield line("if so", "go on: --yes")


def run_lines(
    csv_path: str,
    result: RunResult,
    progress: Progress | None,
    backup: Backup,
    trouble: str,
    *,
    done: Collection[str],
) -> Iterator[str]:
    """Say what a run did; without progress, the trouble with the CSV that keeps it from being known."""
    state = f"{done_of(progress)}, {progress.pending:,} pending" if progress else "could not be brought up to date"
    yield f"{near(csv_path)}: {state}"
    counts = f": {statuses(result.by_status)}" if result.processed else ""
    yield line("processed", f"{result.processed:,} in {duration(result.duration_s)}{counts}")
    if progress:
        yield line("by status", statuses(progress.by_status))
        yield from key_lines(progress)
    if trouble:
        yield line("CSV", trouble)
        yield line("", "every result is safe in the log: mend it, and run eventcsv compact")
    if result.elsewhere:
        yield line("elsewhere", f"{result.elsewhere:,} finished or taken over by other hosts meanwhile")
    for edit in result.edits:
        yield from edit_lines(edit)
    yield from _again_lines(result)
    yield from _left_over_lines(result)
    yield from _failed_lines(result)
    if result.by_status.get(Status.NO_ATTACHMENTS) and Status.NO_ATTACHMENTS not in done_words(done):
        yield line("pending", "NO_ATTACHMENTS counts as pending: the next run does it again, unless both words are")
        yield line("", "named as done: --done COMPLETED --done NO_ATTACHMENTS")
    yield line("backup", f"{near(backup.path)} (the CSV as the run found it)")
    yield from _stopped_lines(result)


def _stopped_lines(result: RunResult) -> Iterator[str]:
    """Say why a run stopped, and what most failures had in common: the last lines may be all that is read."""
    if result.notice:
        yield line("note", result.notice)
    if result.stopped:
        by_signal = result.stopped.startswith("SIG")
        what_next = "run it again to go on" if by_signal else "once that is mended, run it again to go on"
        yield line("stopped", f"by {result.stopped}; {what_next}")
        if result.failed and not by_signal:
            yield line("", most_frequent(result.failed))


def most_frequent(outcomes: Sequence[Outcome]) -> str:
    """Name what most failures say."""
    groups: dict[str, list[str]] = {}
    for outcome in outcomes:
        message = message_of(outcome.message)
        groups.setdefault(pattern_of(message, outcome.key), []).append(message)
    pattern, alike = max(groups.items(), key=lambda item: len(item[1]))
    message = alike[0] if len(set(alike)) == 1 else pattern
    return f"{len(alike):,} of {counted(len(outcomes), 'failure')} said: {message}"


def plan_lines(csv_path: str, planned: Sequence[Planned]) -> Iterator[str]:
    """Say what a run would work on."""
    yield f"{near(csv_path)}: {counted(len(planned), 'PO')} would be worked on, in this order"
    for item in planned:
        tried = f"tried {item.attempts:,} {'time' if item.attempts == 1 else 'times'}" if item.attempts else "not tried"
        until = f", waits until {time_of_day(item.until)}" if item.until else ""
        yield f"  {item.key}  {item.status or '(none yet)'}  {tried}{until}"


def run_record(session: Session, result: RunResult, progress: Progress | None, trouble: str) -> dict[str, Any]:
    """Return what a run did, for programs."""
    return {
        "session": session.id,
        **dataclasses.asdict(result),
        "progress": progress and dataclasses.asdict(progress),
        "backup": session.backup,
        "damage": session.damage,
        "not_compacted": trouble or None,
    }


def _again_lines(result: RunResult) -> Iterator[str]:
    """Say what was done more than once, and what is to be."""
    if result.again:
        yield line("again", f"{len(result.again):,} set back by hand after this run had done them: {few(result.again)}")
    if result.retried:
        yield line("attempts", f"{result.retried:,} beyond the first ones")
    if result.waiting:
        yield line("waiting", f"{len(result.waiting):,} to be tried again: {few(result.waiting)}")


def _left_over_lines(result: RunResult) -> Iterator[str]:
    """Say what became of the POs that an earlier run had left in flight."""
    again = [key for key in result.interrupted if key not in result.held]
    if again:
        yield line("retried", f"{len(again):,} in flight when the last run died: {few(again)}")
    if result.held:
        yield line("held", f"{len(result.held):,} in flight when the last run died: {few(result.held)}")
        yield line("", "see whether their work was done, and set STATUS; or run with --interrupted retry")


def _failed_lines(result: RunResult) -> Iterator[str]:
    """Say what failed."""
    if result.refused:
        keys = few([repr(key) for key in result.refused])
        yield line("refused", f"{len(result.refused):,} with control characters in the key; mend them: {keys}")
    if result.lost_workers:
        yield line("lost", f"{counted(result.lost_workers, 'worker')}, each with its own PO only")
    yield from _grouped_lines("failed", result.failed, pattern_of)
    yield from _grouped_lines("unrecorded", result.unrecorded, lambda message, key: message.replace(key, "[PO]"))
    if result.unrecorded:
        yield line("", "all of them stay pending, and are done again by the next run")


def _grouped_lines(label: str, outcomes: Sequence[Outcome], alike_in: Callable[[str, str], str]) -> Iterator[str]:
    """Say what became of POs: one by one as long as they are few, else what they have in common, the most first."""
    if len(outcomes) <= SHOWN:
        for outcome in outcomes:
            yield line(label, f"{outcome.key}: {_said(outcome, outcome.message)}")
        return
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        group = outcome.status, alike_in(masked(outcome.message), outcome.key)
        groups.setdefault(group, []).append(outcome)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    for (_, pattern), alike in ordered[:SHOWN]:
        message = message_of(alike[0].message) if len({outcome.message for outcome in alike}) == 1 else pattern
        yield line(label, f"{len(alike):,} x {_said(alike[0], message)}")
        yield line("", few([outcome.key for outcome in alike], _KEYS_SHOWN))
    if len(ordered) > SHOWN:
        left = sum(len(alike) for _, alike in ordered[SHOWN:])
        more = len(ordered) - SHOWN
        yield line("", f"and {left:,} more with {more:,} other {plural('message', more)}; --json lists all")


def _said(outcome: Outcome, message: str) -> str:
    return f"{outcome.status}  {message_of(message)}" if outcome.status else message_of(message)


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
    yield from _findings(report.torn, ())
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
    yield from _findings(result.torn, result.damage)


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
    yield from _findings(report.torn, report.damage)
