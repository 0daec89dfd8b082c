"""The words in which results and live views speak alike: counts, sizes, times, paths. Prints nothing."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final

from eventcsv.event import seconds_since
from eventcsv.masking import masked

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from eventcsv.event import InFlight
    from eventcsv.report.model import Report
    from eventcsv.view.compact_result import CompactResult
    from eventcsv.view.edits import Edit
    from eventcsv.view.progress import Progress

SHOWN: Final = 10
_MEGABYTE: Final = 1_000_000
_KILOBYTE: Final = 1_000
_WIDEST_MESSAGE: Final = 160


# --- parts of a sentence -----------------------------------------------------------------------------------------


def line(label: str, text: str) -> str:
    """Return a line of a result; one without a label goes on with the one before."""
    return f"  {label:<10} {text}"


def near(path: str) -> str:
    """Return a path as one would type it here: relative when it lies below the working directory."""
    if "://" in path:
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def few(names: Collection[str], shown: int = SHOWN) -> str:
    """Name the first few of many."""
    return ", ".join(islice(names, shown)) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")


def plural(noun: str, count: int) -> str:
    """Return a noun as it stands after a count."""
    return noun if count == 1 else f"{noun}s"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count:,} {plural(noun, count)}"


def with_rows(repeated: Mapping[str, int]) -> str:
    """Name keys that stand in several rows."""
    return few([f"{key} ({count:,} rows)" for key, count in repeated.items()])


def statuses(by_status: dict[str, int]) -> str:
    """Name the statuses that there are, with their counts."""
    return few([f"{status or '(none yet)'} {count:,}" for status, count in by_status.items()]) or "no rows"


def size(size_bytes: int) -> str:
    """Return a size in a unit that fits it."""
    if size_bytes >= _MEGABYTE:
        return f"{size_bytes / _MEGABYTE:,.1f} MB"
    return f"{size_bytes / _KILOBYTE:,.1f} kB" if size_bytes >= _KILOBYTE else f"{size_bytes} bytes"


def duration(seconds: float) -> str:
    """Return a time in hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def time_of_day(moment: str, *, seconds: bool = False) -> str:
    """Return the time of day of a moment, here."""
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%H:%M:%S" if seconds else "%H:%M")
    except ValueError:
        return moment


def message_of(text: str) -> str:
    """Return an ERROR_MESSAGE as it may be shown."""
    shown = masked(text)
    return shown if len(shown) <= _WIDEST_MESSAGE else f"{shown[: _WIDEST_MESSAGE - 3]}..."


# --- of progress -------------------------------------------------------------------------------------------------


def done_of(progress: Progress) -> str:
    """Say how many POs are done."""
    share = f" ({100 * progress.done // progress.total} %)" if progress.total else ""  # 100 % is for all of them
    return f"{progress.done:,} of {counted(progress.total, 'PO')} done{share}"


def rate_of(progress: Progress) -> str:
    """Say how fast it goes, and how long it will take."""
    if not progress.rate_per_min:
        return "no results in the last minute"
    rate = f"{progress.rate_per_min:,.0f} a minute"
    moves = progress.session and progress.pending and progress.eta_s is not None
    return f"{rate}, about {duration(progress.eta_s or 0.0)} left" if moves else rate


def session_of(progress: Progress) -> str:
    """Say who is at work."""
    holder = progress.session
    return f"{holder.session}, process {holder.pid}, since {holder.since}" if holder else "none is at work"


def in_flight_of(progress: Progress) -> str:
    """Name what is in flight, and for how long."""
    now = datetime.now(UTC)
    what = "" if progress.session else "when the last run died: "
    return what + few([f"{item.key} ({_attempt(item)}{_since(item, now)})" for item in progress.in_flight])


def waiting_of(progress: Progress) -> str:
    """Name what waits for another attempt, until when, and why."""
    named = [
        f"{item.key} ({item.attempt:,}x, next {time_of_day(item.until, seconds=True)}: {message_of(item.reason)})"
        for item in progress.waiting[:3]
    ]
    more = len(progress.waiting) - len(named)
    return f"{len(progress.waiting):,} for another attempt: {', '.join(named)}{f' and {more:,} more' if more else ''}"


def _attempt(item: InFlight) -> str:
    return f"attempt {item.attempt:,} " if item.attempt > 1 else ""


def _since(item: InFlight, now: datetime) -> str:
    """Say for how long a PO has been in flight."""
    age_s = seconds_since(item.ts, now)
    return item.ts if age_s is None else f"for {duration(age_s)}"


def unknown_of(progress: Progress) -> str:
    """Name the keys that have results and are in no row."""
    keys = f": {few(progress.unknown_keys)}" if progress.unknown_keys else ""
    return f"{counted(progress.unknown, 'key')} with results and no row{keys}"


def trouble_of(progress: Progress) -> str:
    """Say why the CSV is not kept current, and since when, or ""."""
    if not progress.trouble:
        return ""
    since = f" since {time_of_day(progress.trouble_since)}" if progress.trouble_since else ""
    return f"not kept current{since}: {masked(progress.trouble)}. All of this is counted from the log"


def stopping_by(reason: str) -> str:
    """Say that a run is coming to its end, and why unless somebody has just asked for it."""
    why = "" if reason.startswith("SIG") else f"by {reason}: "
    return f"{why}stopping once what is in flight is finished; Ctrl-C again stops now"


# --- each in one line --------------------------------------------------------------------------------------------


def progress_line(progress: Progress) -> str:
    """Say how far a job is in one line, for logs."""
    parts = [done_of(progress), rate_of(progress)]
    parts += [f"{len(progress.failures):,} failed"] * bool(progress.failures)
    parts += [f"{len(progress.waiting):,} waiting to be tried again"] * bool(progress.waiting)
    parts += [f"{len(progress.damage):,} damaged"] * bool(progress.damage)
    parts += [trouble_of(progress)] * bool(progress.trouble)
    return f"{time.strftime('%H:%M:%S')}  {'; '.join(parts)}"


def summary(result: CompactResult) -> str:
    """Say what a compaction did in one line."""
    events = result.events - sum(result.unknown.values())
    parts = [f"+{counted(events, 'event')}"]
    parts += [f"{len(result.damage)} damaged"] * bool(result.damage)
    parts += [f"for keys in no row: {few(result.unknown)}"] * bool(result.unknown)
    parts += map(edit_line, result.edits)
    parts += [f"rebuilt: {result.rebuilt}"] * bool(result.rebuilt)
    parts += [f"added {', '.join(result.added_columns)}"] * bool(result.added_columns)
    parts += result.notes
    return f"{time.strftime('%H:%M:%S')}  {'; '.join(parts)}  |  {statuses(result.by_status)}"


def edit_line(edit: Edit) -> str:
    """Say in one line what a save of the CSV did."""
    parts = [counted(edit.cells, "cell")] * bool(edit.cells)
    if edit.rewritten:
        parts[-1] += f" ({edit.rewritten:,} of them only rewritten by a program)"
    parts += [
        f"{counted(len(keys), noun)} {what}"
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
        told.append(f"{plural('column', len(edit.returned))} of results came back: {few(edit.returned)}")
    if edit.delimiter:
        told.append(f"separated by {edit.delimiter!r}, written as before")
    if edit.copy:
        told.append(f"as it was saved: {edit.copy}")
    return f"{time_of_day(edit.saved_at)} a save was taken over: {'; '.join(told)}"


def last_run_of(report: Report) -> str:
    """Say how long the last run took, and how it ended."""
    last = report.last_run
    if last is None:
        return "nobody has worked on it yet"
    pending = len(report.pos) - report.done
    ending = {
        "at work": "is at work",
        "cut off": f"was cut off with {counted(last.interrupted, 'PO')} in flight",
        "some left": f"ended with {counted(pending, 'PO')} not done",
        "all done": "ended with all POs done",
    }[last.ending]
    took = "" if last.took_s is None else f" in {duration(last.took_s)}"
    stopped = f", stopped by {last.stopped}" if last.stopped else ""
    return f"{counted(last.results, 'result')}{took}; {ending}{stopped}"
