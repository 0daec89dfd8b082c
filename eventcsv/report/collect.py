"""What happened to a job, for whoever was not there: everything that a page about it shows. Reads only.

The CSV as the log says that it should be tells how it stands; one pass over the whole log tells how it got there. What
is collected is to be shown to others, so texts are masked (secrets, e-mail addresses, the queries of URLs) and bounded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache, partial
from statistics import median
from typing import TYPE_CHECKING, Final

from eventcsv import masking
from eventcsv.event import COLUMNS, Event, Status, done_words, is_failure, utc_text
from eventcsv.log.scan import events
from eventcsv.report.history import History, PoHistory
from eventcsv.report.model import (
    Copy,
    Ending,
    FailureGroup,
    LastRun,
    PoReport,
    Report,
    SegmentReport,
    Slow,
    StatusCount,
)
from eventcsv.report.timeline import Category, timeline_of
from eventcsv.view.progress import work_of
from eventcsv.view.retention import EDITED, SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from eventcsv.log.interface import Log, ProgressCallback
    from eventcsv.log.types import Damage, Position
    from eventcsv.view.backup import Backup
    from eventcsv.view.compactor import Compactor
    from eventcsv.view.projection import Projection
    from eventcsv.view.session_lock import Holder

LONGEST_TEXT: Final = 2_000
SLOWEST: Final = 10
_TENTHS: Final = 1_000
_WAITING: Final = frozenset({"", Status.PENDING.value})


def collect(
    compactor: Compactor,
    session: Holder | None,
    *,
    done: Collection[str] | str,
    now: datetime,
    unmasked: bool = False,
    on_progress: ProgressCallback | None = None,
) -> Report:
    """Collect what happened to a job, up to the log's present end.

    Args:
        compactor: The job.
        session: The session that is at work, or None.
        done: The STATUS words that count as done, case aside.
        now: The time, with its time zone.
        unmasked: Leave secrets, e-mail addresses and the queries of URLs in.
        on_progress: Called with the bytes of the log read so far and those to read.

    Raises:
        InvalidCsv: The CSV cannot be read, or is gone and has no backup.
        UnsupportedFormat: The log was made by a newer eventcsv or for another key column.
    """
    words = done_words(done)
    shown = cache(lambda text: shown_text(text, unmasked=unmasked))
    copies = compactor.backups()  # before the log's end, which none of them is beyond then
    projection = compactor.project()
    history = History(words, shown, projection.table.status_column)
    damage = _read(compactor.log, projection.end.position, history, on_progress)
    history.finish(at_work=session is not None)
    draft = partial(
        Report,
        csv_name=masking.escaped(compactor.files.csv_path.rpartition("/")[2]),
        made_at=utc_text(now, timespec="seconds"),
        done_words=words,
        masked=not unmasked,
        copies=tuple(Copy(copy.created_at, _reason(copy), copy.record_count, copy.name) for copy in copies),
        session=session.session if session else "",
        edited=projection.start.new_base == EDITED,
        behind=projection.events,
        damage=tuple(item for item in damage if not item.torn),
        torn=(*(item for item in damage if item.torn), *([projection.end.torn] if projection.end.torn else [])),
    )
    pos = _pos(projection, history, words, shown, unmasked=unmasked)
    return _counted(draft, pos, history, _segments(history, copies))


def _counted(
    draft: Callable[..., Report], pos: tuple[PoReport, ...], history: History, segments: tuple[SegmentReport, ...]
) -> Report:
    """Return a report with what POs and log come to."""
    failures, pos = _failures(history, pos)
    took = sorted((po for po in pos if po.took_s is not None), key=lambda po: po.took_s or 0.0, reverse=True)
    report = draft(
        pos=pos,
        done=sum(po.done for po in pos),
        failed=sum(po.failed for po in pos),
        by_status=_by_status(pos),
        results=sum(po.results for po in history.pos.values()),
        retried=sum(po.attempts > 1 for po in pos),
        recovered=sum(po.attempts > 1 and po.done for po in pos),
        interrupted=sum(segment.interrupted for segment in history.segments.values()),
        took_s=median(po.took_s or 0.0 for po in took) if took else None,
        slowest=tuple(Slow(po.key, po.took_s or 0.0, po.status) for po in took[:SLOWEST]),
        failures=failures,
        timeline=timeline_of([moment for segment in history.segments.values() for moment in segment.moments]),
        stretches=segments,
        last_run=None,
        unknown=tuple(sorted({key for key, po in history.pos.items() if po.results} - {po.key for po in pos})),
    )
    if not segments:
        return report
    return replace(report, last_run=_last_run(report, stopped=history.segments[segments[-1].segment].stopped))


def _reason(copy: Backup) -> str:
    edit = copy.edit
    if edit is None:
        return copy.reason
    counts = f"{edit.cells:,} cells, {len(edit.added):,} rows added, {len(edit.removed):,} removed"
    return f"{copy.reason} ({counts}; {edit.stale:,} rows older than their results kept them)"


def shown_text(text: str, *, unmasked: bool = False) -> str:
    """Return a text as a page may show it: masked unless told otherwise, not too long, newlines its only controls."""
    # Masked before it is cut: half an address is no address to the masking, but one to a reader.
    lines = text[: 2 * LONGEST_TEXT].replace("\r\n", "\n").split("\n")
    shown = "\n".join(map(masking.escaped if unmasked else masking.masked, lines))
    return shown if len(shown) <= LONGEST_TEXT else f"{shown[:LONGEST_TEXT]} ... ({len(text):,} characters in all)"


def _read(log: Log, end: Position, history: History, on_progress: ProgressCallback | None) -> list[Damage]:
    """Read the whole log, and return its damage."""
    first = log.first()
    total, done = log.size_bytes(first, end), 0
    damage: list[Damage] = []
    for chunk in log.read(first, end):
        found, broken = events(chunk)
        damage += broken
        for event in found:
            history.add(chunk.number, event)
        done += len(chunk.raw)
        if on_progress:
            on_progress(done, total)
    return damage


def _pos(
    projection: Projection, history: History, done: Collection[str], shown: Callable[[str], str], *, unmasked: bool
) -> tuple[PoReport, ...]:
    table = projection.table
    work = work_of(table, done)

    def texts(keyword: str) -> list[str]:
        column = table.index_of(COLUMNS[keyword])
        return [""] * work.height if column is None else table.texts(column).gather(work.get_column("row")).to_list()

    unfinished = {item.key: item for item in projection.in_flight}
    columns = (texts("supplier"), texts("error_message"), texts("last_processed"))
    rows = zip(work.select("key", "status", "done").iter_rows(), *columns, strict=True)
    pos = []
    for (key, status, is_done), supplier, message, at in rows:
        failed = not is_done and is_failure(status, message)
        if failed:
            history.group(key, message).open += 1
        past = history.pos.get(key) or PoHistory()
        pos.append(
            PoReport(
                key=key,
                status=shown(status),
                done=is_done,
                failed=failed,
                supplier=shown(supplier),
                message=shown(message),
                at=shown(at),
                attempts=past.started + past.unannounced,
                interrupted=past.interrupted,
                took_s=past.took_s,
                in_flight=key in unfinished and not unfinished[key].waits,
                waits_until=unfinished[key].until if key in unfinished else "",
                groups=(),
                events=tuple(_shown_event(event, shown, unmasked=unmasked) for event in past.events),
                earlier=past.started + past.results + past.edits + past.deferred - len(past.events),
            )
        )
    return tuple(pos)


def _shown_event(event: Event, shown: Callable[[str], str], *, unmasked: bool) -> Event:
    def cell(name: str, text: str) -> str:
        is_secret = bool(text) and not unmasked and masking.masked_value(name, "") == masking.MASK
        return masking.MASK if is_secret else shown(text)

    cells = {shown(name): cell(name, text) for name, text in event.cells.items()}
    return Event(event.id, event.ts, event.kind, event.key, cells)


def _failures(history: History, pos: tuple[PoReport, ...]) -> tuple[tuple[FailureGroup, ...], tuple[PoReport, ...]]:
    """Return the groups of failures, what is open first, and the POs with their places among them."""
    ordered = sorted(history.groups.items(), key=lambda item: (-item[1].open, -item[1].times, item[0]))
    place = {pattern: number for number, (pattern, _) in enumerate(ordered)}
    groups = tuple(
        FailureGroup(pattern, it.example, it.times, len(it.pos), it.open, it.first_at, it.last_at)
        for pattern, it in ordered
    )
    return groups, tuple(
        replace(po, groups=tuple(sorted(place[pattern] for pattern in history.pos[po.key].patterns)))
        if po.key in history.pos and history.pos[po.key].patterns
        else po
        for po in pos
    )


def category_of(status: str, *, done: bool) -> Category:
    """Return what a STATUS amounts to."""
    if done:
        return Category.DONE
    if is_failure(status):
        return Category.FAILED
    return Category.WAITING if status.upper() in _WAITING else Category.OPEN


def _by_status(pos: Iterable[PoReport]) -> tuple[StatusCount, ...]:
    counts = Counter((po.status, po.done) for po in pos)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shares = shares_of([count for _, count in ordered])
    return tuple(
        StatusCount(status, category_of(status, done=done), count, share)
        for ((status, done), count), share in zip(ordered, shares, strict=True)
    )


def shares_of(counts: Sequence[int]) -> list[float]:
    """Return the shares of counts in percent, to one decimal: they add up to 100, and nothing that is there is 0.

    What floors leave over goes to the largest remainders (Hamilton's method); what was raised to 0.1 is taken from the
    largest.
    """
    total = sum(counts)
    if not total:
        return [0.0] * len(counts)
    tenths = [max(_TENTHS * count // total, 1 if count else 0) for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda place: -(_TENTHS * counts[place] % total))
    left = _TENTHS - sum(tenths)
    for place in by_remainder[: max(0, left)]:
        tenths[place] += 1
    for _ in range(-left):
        tenths[tenths.index(max(tenths))] -= 1
    return [part / 10 for part in tenths]


def _last_run(report: Report, *, stopped: str) -> LastRun:
    last = report.stretches[-1]
    try:
        span = datetime.fromisoformat(last.last_at) - datetime.fromisoformat(last.first_at)
    except (ValueError, TypeError):
        span = timedelta(seconds=-1)
    if report.session:
        ending = Ending.AT_WORK
    elif last.interrupted:
        ending = Ending.CUT_OFF
    else:
        ending = Ending.ALL_DONE if report.done == len(report.pos) else Ending.SOME_LEFT
    took_s = span.total_seconds() if span >= timedelta() else None
    stopped = "" if report.session else stopped
    return LastRun(last.first_at, last.last_at, took_s, last.results, last.interrupted, ending, stopped)


def _segments(history: History, copies: Iterable[Backup]) -> tuple[SegmentReport, ...]:
    # A session keeps a copy at the log's end and then begins a segment of its own.
    names = {
        copy.position.segment + 1: copy.session
        for copy in copies
        if copy.reason == SESSION and copy.position is not None
    }
    return tuple(
        SegmentReport(
            segment=number,
            session=names.get(number, ""),
            first_at=segment.first_at,
            last_at=segment.last_at,
            results=len(segment.moments),
            failed=sum(moment.category is Category.FAILED for moment in segment.moments),
            interrupted=segment.interrupted,
            writers=len(segment.writers),
            timeline=timeline_of(segment.moments),
        )
        for number, segment in sorted(history.segments.items())
    )
