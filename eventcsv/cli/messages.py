"""What the commands say: results as lines of a label and a text. Prints nothing itself; `dashboard` has the view."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from eventcsv.event import Status
from eventcsv.masking import masked
from eventcsv.report.grouping import pattern_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from eventcsv.event import Event, InFlight
    from eventcsv.formats.export import ExportResult
    from eventcsv.formats.import_workbook import ImportResult
    from eventcsv.log.copy import CopyResult
    from eventcsv.log.scan import Damage
    from eventcsv.report.collect import Report
    from eventcsv.run.run import RunResult
    from eventcsv.view.backup import Backup
    from eventcsv.view.compactor import CompactResult
    from eventcsv.view.edits import Edit
    from eventcsv.view.progress import Failure, Progress
    from eventcsv.view.prune import PruneResult
    from eventcsv.view.verify import VerifyReport
    from eventcsv.worker.serve import Outcome

SHOWN: Final = 10
STOPPING: Final = "stopping once what is in flight is finished; Ctrl-C again stops now"
_MEGABYTE: Final = 1_000_000
_KILOBYTE: Final = 1_000
_WIDEST_MESSAGE: Final = 160
_KEYS_SHOWN: Final = 5


# --- a compaction ------------------------------------------------------------------------------------------------


def compaction_lines(result: CompactResult) -> Iterator[str]:
    """Say what a compaction did, in lines of a label and a text."""
    state = "was brought up to date" if result.changed else "is up to date and was not touched"
    yield f"{near(result.csv_path)} {state}"
    events = result.events - sum(result.unknown.values())  # what is in no row is told of by itself
    yield _line("rows", f"{result.rows:,}, by status: {_statuses(result.by_status)}")
    place = f"the log's end (segment {result.position.segment}, byte {result.position.offset_bytes:,})"
    same = ", which the CSV shows already" if events and not result.changed else ""
    yield _line("folded", f"{events:,} {plural('event', events)}{same}, up to {place}")
    if result.rebuilt:
        yield _line("rebuilt", result.rebuilt)
    for edit in result.edits:
        yield from edit_lines(edit)
    if result.added_columns:
        yield _line("added", f"{plural('column', len(result.added_columns))} {', '.join(result.added_columns)}")
    yield from _log_lines(result)
    for note in result.notes:
        yield _line("note", note)
    if result.base:
        yield _line("backup", f"{near(result.base.path)} ({result.base.reason})")
    if result.kept:
        yield _line("backup", f"{near(result.kept.path)} (the CSV as it was before)")
    yield _line("took", f"{result.duration_s:.2f} s")


def _log_lines(result: CompactResult) -> Iterator[str]:
    """Say what the log holds beside what was folded."""
    if result.unknown:
        count = sum(result.unknown.values())
        keys = few(list(result.unknown))
        yield _line("unknown", f"{count:,} {plural('event', count)} for keys that are in no row: {keys}")
        yield _line("", "kept in the log, and folded once there is a row. A typo, blanks or lost leading zeros?")
    if result.over_long:
        yield _line(
            "long cells", f"more than a spreadsheet can hold, which would cut them: {few(list(result.over_long))}"
        )
    if result.late:
        yield _line("late", f"results recorded before their rows were added: {few(list(result.late))}")
    yield from _findings(result.torn, result.damage)


def _line(label: str, text: str) -> str:
    return f"  {label:<10} {text}"


def copy_lines(result: CopyResult) -> Iterator[str]:
    """Say what a copy of a log did."""
    yield f"{near(result.target)}: is the same log as {near(result.source)}, byte for byte"
    yield _line("segments", f"{result.segments:,}, {_size(result.size_bytes)}; {_size(result.copied_bytes)} copied now")
    yield _line("next", "use one of the two and move the other away: what they record apart does not merge")


def near(path: str) -> str:
    """Return a path as one would type it here: relative when it lies below the working directory."""
    if "://" in path:
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _statuses(by_status: dict[str, int]) -> str:
    return few([f"{status or '(none yet)'} {count:,}" for status, count in by_status.items()]) or "no rows"


def few(names: list[str], shown: int = SHOWN) -> str:
    """Name the first few of many."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")


def plural(noun: str, count: int) -> str:
    """Return a noun as it stands after a count."""
    return noun if count == 1 else f"{noun}s"


def is_news(result: CompactResult) -> bool:
    """Tell whether a compaction did anything worth a line."""
    return bool(result.changed or result.damage or result.unknown or result.edited or result.rebuilt or result.base)


def summary(result: CompactResult) -> str:
    """Say what a compaction did in one line."""
    events = result.events - sum(result.unknown.values())
    parts = [f"+{events:,} {plural('event', events)}"]
    parts += [f"{len(result.damage)} damaged"] * bool(result.damage)
    parts += [f"for keys in no row: {few(list(result.unknown))}"] * bool(result.unknown)
    parts += map(edit_line, result.edits)
    parts += [f"rebuilt: {result.rebuilt}"] * bool(result.rebuilt)
    parts += [f"added {', '.join(result.added_columns)}"] * bool(result.added_columns)
    parts += result.notes
    return f"{time.strftime('%H:%M:%S')}  {'; '.join(parts)}  |  {_statuses(result.by_status)}"


def edit_line(edit: Edit) -> str:
    """Say in one line what a save of the CSV did."""
    parts = [f"{edit.cells:,} {plural('cell', edit.cells)}"] * bool(edit.cells)
    if edit.rewritten:
        parts[-1] += f" ({edit.rewritten:,} of them only rewritten by a program)"
    parts += [
        f"{len(keys):,} {plural(noun, len(keys))} {what}"
        for noun, what, keys in (
            ("row", "added", edit.added),
            ("row", "removed", edit.removed),
            ("row", "younger than what was saved stayed", edit.younger),
            ("column", "added", edit.new_columns),
            ("column", "removed", edit.gone_columns),
        )
        if keys
    ]
    told = [", ".join(parts) or "nothing that counts was changed"]
    if edit.stale:
        were = "row was older than its results" if edit.stale == 1 else "rows were older than their results"
        told.append(f"{edit.stale:,} {were} and kept them")
    if edit.doubtful:
        told.append(f"{edit.doubtful:,} of them are older than the oldest backup: nobody can tell what was typed there")
    if edit.returned:
        told.append(f"{plural('column', len(edit.returned))} of results came back: {few(list(edit.returned))}")
    if edit.delimiter:
        told.append(f"separated by {edit.delimiter!r}, written as before")
    if edit.copy:
        told.append(f"as it was saved: {edit.copy}")
    return f"{_clock(edit.saved_at)} a save was taken over: {'; '.join(told)}"


def edit_lines(edit: Edit) -> Iterator[str]:
    """Say what a save of the CSV did, and which results it met."""
    yield _line("edited", edit_line(edit))
    for met in edit.met[:SHOWN]:
        yield _line("", f"{met.key} {met.column}: {met.typed!r} was typed over the result {met.result!r}")
    if len(edit.met) > SHOWN:
        yield _line("", f"and {len(edit.met) - SHOWN:,} more results were typed over; --json lists them")


def _clock(moment: str) -> str:
    """Return the time of day of a moment, here."""
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%H:%M")
    except ValueError:
        return moment


def event_lines(event: Event) -> Iterator[str]:
    """Show one event of a PO's history."""
    yield f"{event.ts}  {event.kind}  {event.id}"
    for column, text in event.cells.items():
        yield f"    {column} = {text}"


# --- progress ----------------------------------------------------------------------------------------------------


def progress_lines(progress: Progress) -> Iterator[str]:
    """Say how far a job is."""
    yield f"{near(progress.csv_path)}: {done_of(progress)}, {progress.pending:,} pending"
    yield _line("by status", _statuses(progress.by_status))
    yield _line("rate", rate_of(progress))
    yield _line("session", _session(progress))
    if progress.trouble:
        yield _line("CSV", trouble_of(progress))
    if progress.last_edit:
        yield from edit_lines(progress.last_edit)
    if progress.in_flight:
        yield _line("in flight", _flights(progress, SHOWN))
    if progress.failures:
        yield _line("failed", f"{len(progress.failures):,}, the latest last:")
        for failure in progress.failures[-SHOWN:]:
            yield _line("", _failure(failure))
    if progress.behind:
        results = f"{progress.behind:,} {plural('result', progress.behind)} behind the log"
        yield _line("CSV", results if progress.trouble else f"{results}; eventcsv compact brings it up to date")
    yield from key_lines(progress)
    yield from _findings(progress.torn, progress.damage)


def key_lines(progress: Progress) -> Iterator[str]:
    """Say which keys are not what they should be."""
    if progress.mangled:
        yield _line("keys", f"numbers, of which a spreadsheet has lost the digits: {few(list(progress.mangled))}")
        yield _line("", "format that column as text there, and type or import the keys again")
    if progress.repeated:
        keys = few([f"{key} ({count:,} rows)" for key, count in progress.repeated.items()])
        yield _line("rows", f"{progress.rows:,} rows are {progress.total:,} {plural('PO', progress.total)}: {keys}")
    if progress.unknown:
        yield _line("unknown", unknown_of(progress))
        yield _line("", "kept in the log, and folded once there is a row. A typo, blanks or lost leading zeros?")


def unknown_of(progress: Progress) -> str:
    """Name the keys that have results and are in no row."""
    keys = f": {few(list(progress.unknown_keys))}" if progress.unknown_keys else ""
    return f"{progress.unknown:,} {plural('key', progress.unknown)} with results and no row{keys}"


def _findings(torn: Sequence[Damage], damage: Sequence[Damage]) -> Iterator[str]:
    for item in torn[:SHOWN]:
        yield _line("torn line", str(item))
    if torn:
        yield _line("", "no result was lost by it: it was never acknowledged. Results to come are appended behind it")
    for item in damage[:SHOWN]:
        yield _line("damage", str(item))
    if len(damage) > SHOWN:
        yield _line("", f"and {len(damage) - SHOWN:,} more; --json lists all")


def export_lines(result: ExportResult) -> Iterator[str]:
    """Say what an export wrote."""
    size = f"{result.rows:,} {plural('row', result.rows)}, {result.columns:,} {plural('column', result.columns)}"
    yield f"{near(result.path or '-')}: {size}, {result.size_bytes / _KILOBYTE:,.1f} kB"
    if result.cut:
        yield _line("cut", f"more than a cell of Excel can hold, and marked there: {few(list(result.cut))}")
        yield _line("", "the CSV has all of it, and so has an export to .parquet or .jsonl")
    yield from _findings(result.torn, result.damage)


def import_lines(result: ImportResult) -> Iterator[str]:
    """Say what an import wrote."""
    size = f"{result.rows:,} {plural('row', result.rows)}, {result.columns:,} {plural('column', result.columns)}"
    yield f"{near(result.csv_path)}: {size}"
    yield _line("from", f"{near(result.workbook)}, sheet {result.sheet!r}, header in row {result.header_row:,}")
    if result.other_sheets:
        yield _line("not read", f"{plural('sheet', len(result.other_sheets))} {few(list(result.other_sheets))}")
    if result.hidden:
        rows = f"{len(result.hidden):,} {plural('row', len(result.hidden))}"
        which = few([str(row) for row in result.hidden])
        what = "left out" if result.left_out else "in the CSV as well; --visible leaves them out"
        yield _line("hidden", f"{rows} of the sheet, {what}: {which}")
    if result.merged:
        yield _line("merged", f"{few(list(result.merged))}: each row that they cover has got their text")
    if result.without_key:
        yield _line("no key", f"in row {few([str(row) for row in result.without_key])}: no result can be theirs")
    if result.repeated:
        keys = [f"{key} ({count:,} rows)" for key, count in result.repeated.items()]
        yield _line("repeated", f"{few(keys)}: a result goes to each of the rows")
    if result.rounded:
        yield _line("rounded", f"{few(list(result.rounded))}: more than 15 digits, and Excel had kept 15 of them")
        yield _line("", "if they are numbers of orders, format the cells as text in Excel and type them again")


def progress_line(progress: Progress) -> str:
    """Say how far a job is in one line, for logs."""
    parts = [done_of(progress), rate_of(progress)]
    parts += [f"{len(progress.failures):,} failed"] * bool(progress.failures)
    parts += [f"{len(progress.damage):,} damaged"] * bool(progress.damage)
    parts += [trouble_of(progress)] * bool(progress.trouble)
    return f"{time.strftime('%H:%M:%S')}  {'; '.join(parts)}"


def trouble_of(progress: Progress) -> str:
    """Say why the CSV is not kept current, and since when, or ""."""
    if not progress.trouble:
        return ""
    since = f" since {_clock(progress.trouble_since)}" if progress.trouble_since else ""
    return f"not kept current{since}: {masked(progress.trouble)}. All of this is counted from the log"


def done_of(progress: Progress) -> str:
    """Say how many POs are done."""
    share = f" ({100 * progress.done // progress.total} %)" if progress.total else ""  # 100 % is for all of them
    return f"{progress.done:,} of {progress.total:,} {plural('PO', progress.total)} done{share}"


def rate_of(progress: Progress) -> str:
    """Say how fast it goes, and how long it will take."""
    if not progress.rate_per_min:
        return "no results in the last minute"
    rate = f"{progress.rate_per_min:,.0f} a minute"
    moves = progress.session and progress.pending and progress.eta_s is not None
    return f"{rate}, about {duration(progress.eta_s or 0.0)} left" if moves else rate


def duration(seconds: float) -> str:
    """Return a time in hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def _session(progress: Progress) -> str:
    holder = progress.session
    return f"{holder.session}, process {holder.pid}, since {holder.since}" if holder else "none is at work"


def _flights(progress: Progress, shown: int) -> str:
    now = datetime.now(UTC)
    flights = [f"{item.key} ({_since(item, now)})" for item in progress.in_flight]
    what = "" if progress.session else "when the last run died: "
    return what + few(flights, shown)


def _since(item: InFlight, now: datetime) -> str:
    try:
        age_s = (now - datetime.fromisoformat(item.ts)).total_seconds()
    except (ValueError, TypeError):
        return item.ts
    return f"for {duration(max(0.0, age_s))}"


def _failure(failure: Failure) -> str:
    return f"{failure.key}: {failure.status or '(none yet)'}  {message_of(failure.message)}"


def message_of(text: str) -> str:
    """Return an ERROR_MESSAGE as it may be shown."""
    shown = masked(text)
    return shown if len(shown) <= _WIDEST_MESSAGE else f"{shown[: _WIDEST_MESSAGE - 3]}..."


# --- a run, backups, verify, prune -------------------------------------------------------------------------------


def session_lines(begun: CompactResult, backup: Backup, session: str) -> Iterator[str]:
    """Say how a session began."""
    yield f"session {session}: the CSV as it is now was kept as {near(backup.path)}"
    if begun.events:
        yield f"  {begun.events:,} {plural('event', begun.events)} that an earlier run had left in the log came first"
    for edit in begun.edits:
        yield f"  {edit_line(edit)}"
    yield from _findings(begun.torn, begun.damage)


def doubtful_lines(
    csv_path: str, doubtful: dict[str, int], done: Collection[str], *, status_column: str
) -> Iterator[str]:
    """Say what a first run would make of a STATUS that may mean something else."""
    yield f"{near(csv_path)}: no result has been written to {status_column} yet, and it says {_statuses(doubtful)}"
    words = {word.upper() for word in done}
    finished = {text: count for text, count in doubtful.items() if text.upper() in words}
    if finished:
        count = sum(finished.values())
        yield _line("done", f"{count:,} {plural('PO', count)} would count as done, and not be worked on")
    if len(finished) < len(doubtful):
        yield _line("lost", "the words of the others would be written over with COMPLETED, ERROR and the like")
    yield _line("if not so", f"keep {status_column} as it is, and write to another column: --status-column RESULT")
    yield _line("if so", "go on: --yes")


def run_lines(
    csv_path: str, result: RunResult, progress: Progress | None, backup: Backup, trouble: str, *, done: Collection[str]
) -> Iterator[str]:
    """Say what a run did; without progress, the trouble with the CSV that keeps it from being known."""
    state = f"{done_of(progress)}, {progress.pending:,} pending" if progress else "could not be brought up to date"
    yield f"{near(csv_path)}: {state}"
    counts = f": {_statuses(result.by_status)}" if result.processed else ""
    yield _line("processed", f"{result.processed:,} in {duration(result.duration_s)}{counts}")
    if progress:
        yield _line("by status", _statuses(progress.by_status))
        yield from key_lines(progress)
    if trouble:
        yield _line("CSV", trouble)
        yield _line("", "every result is safe in the log: mend it, and run eventcsv compact")
    if result.elsewhere:
        yield _line("elsewhere", f"{result.elsewhere:,} finished or taken over by other hosts meanwhile")
    for edit in result.edits:
        yield from edit_lines(edit)
    if result.again:
        keys = few(list(result.again))
        yield _line("again", f"{len(result.again):,} set back by hand after this run had done them: {keys}")
    yield from _left_over_lines(result)
    yield from _failed_lines(result)
    if result.by_status.get(Status.NO_ATTACHMENTS) and Status.NO_ATTACHMENTS not in {word.upper() for word in done}:
        yield _line("pending", "NO_ATTACHMENTS counts as pending: the next run does it again, unless both words are")
        yield _line("", "named as done: --done COMPLETED --done NO_ATTACHMENTS")
    if result.stopped:
        yield _line("stopped", f"by {result.stopped}; run it again to go on")
    yield _line("backup", f"{near(backup.path)} (the CSV as the run found it)")


def _left_over_lines(result: RunResult) -> Iterator[str]:
    """Say what became of the POs that an earlier run had left in flight."""
    again = [key for key in result.interrupted if key not in result.held]
    if again:
        yield _line("retried", f"{len(again):,} in flight when the last run died: {few(again)}")
    if result.held:
        yield _line("held", f"{len(result.held):,} in flight when the last run died: {few(list(result.held))}")
        yield _line("", "see whether their work was done, and set STATUS; or run with --interrupted retry")


def _failed_lines(result: RunResult) -> Iterator[str]:
    """Say what failed."""
    if result.refused:
        keys = few([repr(key) for key in result.refused])
        yield _line("refused", f"{len(result.refused):,} with control characters in the key; mend them: {keys}")
    if result.lost_workers:
        lost = f"{result.lost_workers:,} {plural('worker', result.lost_workers)}"
        yield _line("lost", f"{lost}, each with its own PO only")
    yield from _grouped_lines("failed", result.failed, pattern_of)
    yield from _grouped_lines("unrecorded", result.unrecorded, lambda message, key: message.replace(key, "[PO]"))
    if result.unrecorded:
        yield _line("", "all of them stay pending, and are done again by the next run")


def _grouped_lines(label: str, outcomes: Sequence[Outcome], alike_in: Callable[[str, str], str]) -> Iterator[str]:
    """Say what became of POs: one by one as long as they are few, else what they have in common, the most first."""
    if len(outcomes) <= SHOWN:
        for outcome in outcomes:
            yield _line(label, f"{outcome.key}: {_said(outcome, outcome.message)}")
        return
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        group = outcome.status, alike_in(masked(outcome.message), outcome.key)
        groups.setdefault(group, []).append(outcome)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    for (_, pattern), alike in ordered[:SHOWN]:
        message = message_of(alike[0].message) if len({outcome.message for outcome in alike}) == 1 else pattern
        yield _line(label, f"{len(alike):,} x {_said(alike[0], message)}")
        yield _line("", few([outcome.key for outcome in alike], _KEYS_SHOWN))
    if len(ordered) > SHOWN:
        left = sum(len(alike) for _, alike in ordered[SHOWN:])
        more = len(ordered) - SHOWN
        yield _line("", f"and {left:,} more with {more:,} other {plural('message', more)}; --json lists all")


def _said(outcome: Outcome, message: str) -> str:
    return f"{outcome.status}  {message_of(message)}" if outcome.status else message_of(message)


def backup_lines(backups: list[Backup], directory: str) -> Iterator[str]:
    """List backups."""
    if not backups:
        yield f"{near(directory)}: no backups yet"
    for backup in backups:
        base = "" if backup.position else ", its place in the log is not known"
        yield f"{backup.name}  {backup.record_count:,} rows, {_size(backup.file_size_bytes)}  {backup.reason}{base}"


def verify_lines(report: VerifyReport) -> Iterator[str]:
    """Say what was checked, and what was found."""
    count = len(report.findings)
    state = f"{count:,} {plural('finding', count)}" if count else "nothing is wrong"
    yield f"{near(report.csv_path)}: {state}"
    segments = f"{report.segments:,} {plural('segment', report.segments)}"
    yield _line("log", f"{segments}, {report.lines:,} {plural('line', report.lines)}, {_size(report.size_bytes)}")
    yield _line("backups", f"{report.backups:,}")
    yield _line("CSV", report.view)
    yield from _findings(report.torn, ())
    for finding in report.findings:
        yield _line("finding", f"{near(finding.place)}: {finding.problem}")
    yield _line("took", f"{report.duration_s:.2f} s")


def report_lines(report: Report, path: str, size_bytes: int) -> Iterator[str]:
    """Say what a report holds, and where it is."""
    total = len(report.pos)
    done = f"{report.done:,} of {total:,} {plural('PO', total)} done"
    yield f"{near(os.path.abspath(path))}: {done}; open it in a browser"
    alike = len(report.failures)
    groups = f"; {alike:,} {plural('message', alike)} in all, retried ones included" if alike else ""
    if report.last_run:
        yield _line("last run", last_run_of(report))
    yield _line("failed", f"{report.failed:,} {plural('PO', report.failed)}{groups}")
    yield _line("retried", f"{report.retried:,}, of which {report.recovered:,} are done")
    yield _line("size", f"{_size(size_bytes)}, with the history of each PO")
    if report.masked:
        yield _line("masked", "passwords, tokens, e-mail addresses and queries of URLs, as far as they can be told")
    else:
        yield _line("unmasked", "passwords, tokens, e-mail addresses and queries of URLs may be on it")
    yield from _findings(report.torn, report.damage)


def last_run_of(report: Report) -> str:
    """Say how long the last run took, and how it ended."""
    last = report.last_run
    if last is None:
        return "nobody has worked on it yet"
    pending = len(report.pos) - report.done
    ending = {
        "at work": "is at work",
        "cut off": f"was cut off with {last.interrupted:,} {plural('PO', last.interrupted)} in flight",
        "some left": f"ended with {pending:,} {plural('PO', pending)} not done",
        "all done": "ended with all POs done",
    }[last.ending]
    took = "" if last.took_s is None else f" in {duration(last.took_s)}"
    return f"{last.results:,} {plural('result', last.results)}{took}; {ending}"


def prune_lines(result: PruneResult) -> Iterator[str]:
    """Say what was pruned, or would be."""
    count = len(result.removed)
    verb = "would be removed" if result.dry_run else "removed"
    if not count:
        yield f"{near(result.log)}: every segment is needed, nothing {verb}"
    else:
        yield f"{near(result.log)}: {count:,} {plural('segment', count)}, {_size(result.size_bytes)}, {verb}"
        yield _line("segments", few(list(result.removed)))
    if result.needed_by:
        yield _line("kept", f"{result.kept:,}, from where {result.needed_by.name} goes on")
    else:
        yield _line("kept", f"{result.kept:,}, as there is no backup yet that a replay could start from")
    if count and result.unknown:
        keys = f"{result.unknown:,} {plural('key', result.unknown)} with results and no row"
        yield _line("unknown", f"{keys}: what is removed of them does not come back when rows are added")


def _size(size_bytes: int) -> str:
    if size_bytes >= _MEGABYTE:
        return f"{size_bytes / _MEGABYTE:,.1f} MB"
    return f"{size_bytes / _KILOBYTE:,.1f} kB" if size_bytes >= _KILOBYTE else f"{size_bytes} bytes"
