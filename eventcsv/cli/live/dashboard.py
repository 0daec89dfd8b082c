"""The live view of a job as lines of text that fit a terminal of any size. Pure: draws nothing itself.

Whatever the size, nothing scrolls and no line wraps. What does not fit is left out, the least important first; colours
only repeat what words say. `monitor` takes the snapshots, `inline` and `fullscreen` have the terminal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.text import Text

from eventcsv.cli.wording import (
    counted,
    done_of,
    duration,
    few,
    message_of,
    near,
    rate_of,
    stopping_by,
    unknown_of,
)
from eventcsv.event import Status, moment_of, seconds_since
from eventcsv.masking import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from eventcsv.cli.live.monitor import Snapshot
    from eventcsv.event import InFlight
    from eventcsv.log.types import Damage
    from eventcsv.view.progress import Failure, Progress

HINT: Final = "q or Ctrl-C ends this view; the job goes on"
_LABEL: Final = 11
_BAR: Final = 20
_NAME: Final = 24
_WORKER: Final = 34
_MOST_ROWS: Final = 12
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86400
_STYLES: Final = {
    Status.COMPLETED: "green",
    Status.NO_ATTACHMENTS: "cyan",
    Status.PARTIAL: "yellow",
    Status.ERROR: "red",
    Status.FAILED: "red",
    Status.PENDING: "dim",
    "": "dim",
}
# Rank 1 is the last to go when there is no room.
_DONE, _STOPPING, _PACE, _TROUBLE, _STATUSES, _FAILURES, _VIEW, _WORKERS, _HEAD, _WAITING, _UNKNOWN, _HINT = range(
    1, 13
)


@dataclass(frozen=True, slots=True)
class _Section:
    """A part of the view.

    Attributes:
        rank: What goes first when there is no room; 1 goes last.
        group: Sections of different groups have an empty line between them where there is room.
        most: How many rows it can make use of.
        draw: Draws it in as many rows as it is given, or fewer.
    """

    rank: int
    group: int
    most: int
    draw: Callable[[int], Sequence[Text]]


def frame(snapshot: Snapshot, *, width: int, height: int, hint: str = "") -> list[Text]:
    """Return the view as lines.

    Args:
        snapshot: What to show.
        width: How many cells a line may have.
        height: How many lines there may be.
        hint: What the reader can do, for the last line.
    """
    sections = list(_sections(snapshot, width, hint))
    rows, gaps = _fitted(sections, height)
    lines: list[Text] = []
    group = 0
    for number, section in enumerate(sections):
        if not rows[number]:
            continue
        if gaps and lines and section.group != group:
            lines.append(Text())
        group = section.group
        lines += section.draw(rows[number])
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines


def _fitted(sections: Sequence[_Section], height: int) -> tuple[list[int], bool]:
    """Return how many rows each section gets, and whether there is room for empty lines between groups."""
    rows = [0] * len(sections)
    by_rank = sorted(range(len(sections)), key=lambda number: sections[number].rank)
    for number in by_rank[:height]:
        rows[number] = 1
    left = height - sum(rows)
    between = len({section.group for section in sections}) - 1
    gaps = left >= 2 * between
    left -= between * gaps
    while left and (hungry := [number for number in by_rank if 0 < rows[number] < sections[number].most]):
        for number in hungry[:left]:
            rows[number] += 1
        left -= min(left, len(hungry))
    return rows, gaps


def _sections(snapshot: Snapshot, width: int, hint: str) -> Iterator[_Section]:
    progress = snapshot.progress

    def one(rank: int, group: int, line: Text) -> _Section:
        return _Section(rank, group, 1, lambda _: [line])

    yield one(_HEAD, 0, _head(snapshot, width))
    yield one(_DONE, 0, _done(progress, width))
    yield _Section(_STATUSES, 1, len(progress.by_status), lambda rows: _statuses(progress, rows, width))
    yield one(_PACE, 2, _row("rate", rate_of(progress)))
    yield one(_VIEW, 2, _row("CSV", _freshness(snapshot)))
    if progress.unknown:
        yield one(_UNKNOWN, 2, _row("unknown", unknown_of(progress)))
    if snapshot.trouble:
        trouble = _wrapped("trouble", snapshot.trouble, width, "bold red")
        yield _Section(_TROUBLE, 2, len(trouble), lambda rows: trouble[:rows])
    if snapshot.damage:
        yield _Section(_TROUBLE, 2, 1 + len(snapshot.damage[:3]), lambda rows: _damage(snapshot.damage, rows))
    if progress.in_flight:
        columns = max(1, (width - _LABEL) // _WORKER)
        most = 1 + min(_MOST_ROWS, -(-len(progress.in_flight) // columns))
        yield _Section(_WORKERS, 3, most, lambda rows: _workers(snapshot, rows, columns))
    if progress.waiting:
        yield one(_WAITING, 3, _row("waiting", _waiting(snapshot)))
    if progress.failures:
        most = 1 + min(_MOST_ROWS, len(progress.failures))
        yield _Section(_FAILURES, 4, most, lambda rows: _failures(snapshot, rows))
    if snapshot.stopping:
        yield one(_STOPPING, 5, Text(escaped(stopping_by(snapshot.stopping)), style="bold yellow"))
    elif hint:
        yield one(_HINT, 5, Text(hint, style="dim"))


# --- the sections ------------------------------------------------------------------------------------------------


def _row(label: str, text: str, style: str = "") -> Text:
    return Text.assemble((label.ljust(_LABEL), "dim"), (escaped(text), style))


def _head(snapshot: Snapshot, width: int) -> Text:
    name = Text(escaped(near(snapshot.progress.csv_path)), style="bold")
    holder = snapshot.progress.session
    if holder is None:
        right = "no session is at work"
    else:
        age_s = seconds_since(holder.since, snapshot.now)
        right = f"session {holder.session}" + ("" if age_s is None else f", for {duration(age_s)}")
    name.truncate(max(_BAR, width - cell_len(right) - 2), overflow="ellipsis")
    space = width - name.cell_len - cell_len(right)
    return name.append(" " * space + right, style="not bold dim") if space > 1 else name


def _done(progress: Progress, width: int) -> Text:
    line = Text(done_of(progress), style="bold")
    length = width - line.cell_len - 2
    if length >= _BAR // 2:
        filled = length * progress.done // max(1, progress.total)
        line.append("  ").append("━" * filled, style="not bold green").append("─" * (length - filled), "not bold dim")
    return line


def _statuses(progress: Progress, rows: int, width: int) -> list[Text]:
    """Show a status a row with its share as a bar; what has no row of its own stands in the last one."""
    counts = [(escaped(status) or "(none yet)", count) for status, count in progress.by_status.items()]
    if len(counts) > rows == 1:
        return [_row("by status", ", ".join(f"{status} {count:,}" for status, count in counts))]
    shown = counts if len(counts) <= rows else counts[: rows - 1]
    words = min(_NAME, max((cell_len(status) for status, _ in counts), default=0))
    digits = max((len(f"{count:,}") for _, count in counts), default=0)
    length = width - words - digits - 4
    total = max(1, sum(count for _, count in counts))
    lines = []
    for status, count in shown:
        style = _STYLES.get(status if status != "(none yet)" else "", "yellow")
        line = Text(status, style=style)
        line.truncate(words, overflow="ellipsis", pad=True)
        line.append(f"  {count:>{digits},}  ")
        lines.append(line.append("━" * max(1, length * count // total) if length > 0 else ""))
    if len(counts) > len(shown):
        rest = counts[len(shown) :]
        lines.append(Text(f"and {len(rest)} more: " + ", ".join(f"{status} {count:,}" for status, count in rest)))
    return lines


def _freshness(snapshot: Snapshot) -> str:
    progress = snapshot.progress
    behind = f"{counted(progress.behind, 'result')} behind the log" if progress.behind else "current"
    times = [("written", progress.csv_written_at), ("the log", progress.log_written_at)]
    ages = [f"{what} {ago(age_s)}" for what, at in times if (age_s := seconds_since(at, snapshot.now)) is not None]
    return "; ".join([behind, ", ".join(ages)] if ages else [behind])


def _wrapped(label: str, text: str, width: int, style: str) -> list[Text]:
    """Show a text that has to be read whole."""
    from rich.console import Console  # noqa: PLC0415  # a rare thing

    lines = Text(escaped(text)).wrap(Console(width=width), max(_BAR, width - _LABEL))
    return [_row(label if number == 0 else "", line.plain, style) for number, line in enumerate(lines)]


def _damage(damage: Sequence[Damage], rows: int) -> list[Text]:
    count = f"{counted(len(damage), 'place')} in the log"
    if rows == 1:
        return [_row("damage", f"{count}, at first {damage[0]}", "bold red")]
    head = _row("damage", f"{count}; eventcsv verify tells what it costs", "bold red")
    return [head, *(_row("", str(item), "red") for item in damage[: rows - 1])]


def _workers(snapshot: Snapshot, rows: int, columns: int) -> list[Text]:
    """Show what each worker is on, and for how long."""
    flights = snapshot.progress.in_flight
    label = "workers" if snapshot.progress.session else "in flight"
    if rows == 1:
        return [_row(label, f"{len(flights)} in flight: {few([item.key for item in flights], 3)}")]
    what = "at work" if snapshot.progress.session else "left so when the last run died"
    lines = [_row(label, f"{len(flights):,} {what}" + _more(len(flights), (rows - 1) * columns))]
    shown = sorted(flights[: (rows - 1) * columns], key=_writer)  # the oldest ones, each worker at its place
    for start in range(0, len(shown), columns):
        line = Text(" " * _LABEL)
        for item in shown[start : start + columns]:
            cell = Text(_worker(item, snapshot.now))
            cell.truncate(_WORKER - 2, overflow="ellipsis", pad=True)
            line.append_text(cell).append("  ")
        lines.append(line)
    return lines


def _waiting(snapshot: Snapshot) -> str:
    """Say how many wait for another attempt, which is next, and why."""
    waiting = snapshot.progress.waiting
    first = waiting[0]
    moment = moment_of(first.until)
    left_s = (moment - snapshot.now).total_seconds() if moment else 0.0
    when = f"in {duration(left_s)}" if left_s > 0 else "now, after the others"
    return f"{len(waiting):,} for another attempt, {first.key} {when}: {message_of(first.reason)}"


def _more(count: int, shown: int) -> str:
    return f" (the longest {shown:,} of them here)" if count > shown else ""


def _writer(item: InFlight) -> tuple[str, int]:
    """Return who took a PO up: what begins the id of the event, and the number of the worker, 0 if it is no run's."""
    writer, _, number = item.id.rpartition("-")[0].rpartition("-")
    return writer, int(number) if number.isdecimal() else 0


def _worker(item: InFlight, now: datetime) -> str:
    age_s = seconds_since(item.ts, now)
    age = "" if age_s is None else duration(age_s)
    writer, number = _writer(item)
    who = f"{number:>3}" if number else escaped(writer[:8])
    attempt = f"  attempt {item.attempt:,}" if item.attempt > 1 else ""
    return f"{who}  {escaped(item.key)}  {age}{attempt}"


def _failures(snapshot: Snapshot, rows: int) -> list[Text]:
    """Show the last failures, the latest first."""
    failures = snapshot.progress.failures
    if rows == 1:
        last = failures[-1]
        return [_row("failed", f"{len(failures):,}, the last {last.key}: {message_of(last.message)}", "red")]
    return [
        _row("failed", f"{len(failures):,}, the latest first", "red"),
        *(_failure(failure, snapshot.now) for failure in failures[::-1][: rows - 1]),
    ]


def _failure(failure: Failure, now: datetime) -> Text:
    age_s = seconds_since(failure.at, now)
    line = Text(("" if age_s is None else ago(age_s)).ljust(_LABEL - 1) + " ", style="dim")
    status = escaped(failure.status) or "(none yet)"
    line.append(escaped(failure.key), "not dim").append(
        f"  {status}  ", style=f"not dim {_STYLES.get(status, 'yellow')}"
    )
    return line.append(escaped(message_of(failure.message)), "not dim")


# --- times -------------------------------------------------------------------------------------------------------


def ago(seconds: float) -> str:
    """Return how long ago something is, roughly, in words."""
    if seconds < 2:  # noqa: PLR2004  # there is a look a second
        return "just now"
    for limit, unit_s, unit in ((_MINUTE_S, 1, "s"), (_HOUR_S, _MINUTE_S, "min"), (_DAY_S, _HOUR_S, "h")):
        if seconds < limit:
            return f"{seconds / unit_s:.0f} {unit} ago" if unit == "s" else f"{int(seconds // unit_s)} {unit} ago"
    days = int(seconds // _DAY_S)
    return f"{counted(days, 'day')} ago"
