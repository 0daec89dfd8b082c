"""What `run` says: how a session began, what came of it, what it would do. Prints nothing itself."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from eventcsv.cli.messages import edit_lines, findings, key_lines
from eventcsv.cli.wording import (
    SHOWN,
    counted,
    done_of,
    duration,
    edit_line,
    few,
    line,
    message_of,
    near,
    plural,
    statuses,
    time_of_day,
)
from eventcsv.event import Status, done_words
from eventcsv.masking import masked
from eventcsv.report.grouping import pattern_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from eventcsv.run.plan import Planned
    from eventcsv.run.run import RunResult
    from eventcsv.run.session import Session
    from eventcsv.view.backup import Backup
    from eventcsv.view.compact_result import CompactResult
    from eventcsv.view.progress import Progress
    from eventcsv.worker.messages import Outcome

_KEYS_SHOWN: Final = 5


def session_lines(begun: CompactResult, backup: Backup, session: str) -> Iterator[str]:
    """Say how a session began."""
    yield f"session {session}: the CSV as it is now was kept as {near(backup.path)}"
    if begun.events:
        yield f"  {counted(begun.events, 'event')} that an earlier run had left in the log came first"
    for edit in begun.edits:
        yield f"  {edit_line(edit)}"
    yield from findings(begun.torn, begun.damage)


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
