"""What happened to a job, for whoever was not there: everything that a page about it shows. Reads only.

The CSV as the log says that it should be tells how it stands; one pass over the whole log tells how it got there. What
is collected is to be shown to others, so texts are masked (secrets, e-mail addresses, the queries of URLs) and bounded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from statistics import median
from typing import TYPE_CHECKING, Final

from eventcsv import masking
from eventcsv.event import COLUMNS, FAILED, Event, Status, utc_text
from eventcsv.log.scan import events
from eventcsv.report.history import Stories, Story
from eventcsv.report.timeline import Outcome, Timeline, timeline_of
from eventcsv.view.progress import done_words, work_of
from eventcsv.view.retention import EDITED, SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from eventcsv.log.interface import Log, ProgressCallback
    from eventcsv.log.scan import Damage, Position
    from eventcsv.view.backup import Backup
    from eventcsv.view.compactor import Compactor
    from eventcsv.view.projection import Projection
    from eventcsv.view.session_lock import Holder

LONGEST_TEXT: Final = 2_000
SLOWEST: Final = 10
_TENTHS: Final = 1_000
_WAITING: Final = frozenset({"", Status.PENDING.value})


class Category(StrEnum):
    """What a STATUS amounts to."""

    DONE = "done"
    OPEN = "open"
    FAILED = "failed"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class PoReport:
    """One PO and its history.

    Attributes:
        key: The PO, as in the key column; the one text that is never masked.
        status: Its STATUS.
        done: Whether that counts as done.
        failed: Whether it is not done and says why.
        supplier: Its SUPPLIER.
        message: Its ERROR_MESSAGE.
        at: Its LAST_PROCESSED.
        attempts: How often it was taken up; a result that no "started" came before is one too.
        interrupted: How many of those ended without a result.
        took_s: From the start to the result of its longest attempt, in seconds; None when the log does not tell.
        in_flight: Whether it was taken up and has no result yet.
        groups: Which `FailureGroup`s it was ever in, as places in `Report.failures`.
        events: Its history, the oldest first; the latest `stories.KEPT_EVENTS` of it.
        earlier: How many events come before those.
    """

    key: str
    status: str
    done: bool
    failed: bool
    supplier: str
    message: str
    at: str
    attempts: int
    interrupted: int
    took_s: float | None
    in_flight: bool
    groups: tuple[int, ...]
    events: tuple[Event, ...]
    earlier: int


class Ending(StrEnum):
    """How the last run ended."""

    AT_WORK = "at work"
    CUT_OFF = "cut off"
    SOME_LEFT = "some left"
    ALL_DONE = "all done"


@dataclass(frozen=True, slots=True)
class StatusCount:
    """How many POs have a STATUS, and what it amounts to.

    Attributes:
        status: The STATUS.
        category: What it amounts to.
        count: How many POs have it.
        share_percent: Their share, to one decimal; those of all together are 100.
    """

    status: str
    category: Category
    count: int
    share_percent: float = 0.0


@dataclass(frozen=True, slots=True)
class LastRun:
    """The last time that somebody worked on the job.

    Attributes:
        first_at: When its first event was, ISO 8601.
        last_at: When its last one was.
        took_s: The time between the two, in seconds; None when a clock was set back, or no time can be read.
        results: How many results it had.
        interrupted: How many POs it took up without a result.
        ending: How it ended.
    """

    first_at: str
    last_at: str
    took_s: float | None
    results: int
    interrupted: int
    ending: Ending


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures whose messages are alike.

    Attributes:
        pattern: What the messages have in common.
        example: The latest message.
        times: How many results failed so.
        pos: How many POs did, at least once.
        open: How many POs are not done with such a message.
        first_at: When the first of the results was, ISO 8601; "" when only the CSV tells of them.
        last_at: When the last one was.
    """

    pattern: str
    example: str
    times: int
    pos: int
    open: int
    first_at: str
    last_at: str


@dataclass(frozen=True, slots=True)
class Slow:
    """A PO that took long, in its longest attempt."""

    key: str
    took_s: float
    status: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """One segment of the log: a session, or what was recorded outside of one.

    Attributes:
        segment: Its number.
        session: The session that it belongs to, as far as the kept backups tell; "" when they do not.
        first_at: When its first event was, ISO 8601.
        last_at: When its last one was.
        results: How many results it has.
        failed: How many of them are failures.
        interrupted: How many POs were taken up in it and never got a result.
        writers: How many processes recorded results.
        timeline: Its results over time.
    """

    segment: int
    session: str
    first_at: str
    last_at: str
    results: int
    failed: int
    interrupted: int
    writers: int
    timeline: Timeline | None


@dataclass(frozen=True, slots=True)
class Copy:
    """A backup: what happened to the CSV, as far as the backups that are still kept tell."""

    at: str
    reason: str
    rows: int
    name: str


@dataclass(frozen=True, slots=True)
class Report:
    """What happened to a job.

    Attributes:
        csv_name: The file name of the CSV; the folder is nobody else's business.
        made_at: When this was collected, ISO 8601 in UTC.
        done_words: The STATUS words that count as done.
        masked: Whether secrets, e-mail addresses and the queries of URLs were taken out.
        pos: The POs, in the order of the CSV.
        done: How many of them are done.
        failed: How many are not and say why.
        by_status: How many have which STATUS, the most frequent first.
        results: How many results the log holds.
        retried: How many POs were taken up more than once.
        recovered: How many of those are done.
        interrupted: How many attempts ended without a result.
        took_s: The median of the POs' longest attempts, in seconds; None when the log does not tell.
        slowest: The POs that took longest, the slowest first.
        failures: Failures by message, what is still open first.
        timeline: All results over time; None when there are none.
        stretches: The segments of the log, the oldest first.
        last_run: The last time that somebody worked on it; None when nobody did.
        copies: The backups, the newest first.
        session: The session that is at work, or "".
        edited: Whether the CSV was edited since the last compaction.
        behind: How many results are in the log and not yet in the CSV.
        unknown: Keys that have results and no row.
        damage: What is damaged in the log.
        torn: The lines in it, or behind it, that a crash had cut off.
    """

    csv_name: str
    made_at: str
    done_words: tuple[str, ...]
    masked: bool
    pos: tuple[PoReport, ...]
    done: int
    failed: int
    by_status: tuple[StatusCount, ...]
    results: int
    retried: int
    recovered: int
    interrupted: int
    took_s: float | None
    slowest: tuple[Slow, ...]
    failures: tuple[FailureGroup, ...]
    timeline: Timeline | None
    stretches: tuple[Stretch, ...]
    last_run: LastRun | None
    copies: tuple[Copy, ...]
    session: str
    edited: bool
    behind: int
    unknown: tuple[str, ...]
    damage: tuple[Damage, ...]
    torn: tuple[Damage, ...]


# --- together ----------------------------------------------------------------------------------------------------


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
    reading = Stories(words, shown, projection.table.status_column)
    damage = _read(compactor.log, projection.end.position, reading, on_progress)
    reading.finish(at_work=session is not None)
    pos = _pos(projection, reading, words, shown, unmasked=unmasked)
    failures, pos = _failures(reading, pos)
    took = sorted((po for po in pos if po.took_s is not None), key=lambda po: po.took_s or 0.0, reverse=True)
    moments = [moment for part in reading.parts.values() for moment in part.moments]
    known = {po.key for po in pos}
    tail = (projection.end.torn,) if projection.end.torn else ()
    stretches = _stretches(reading, copies)
    is_done = all(po.done for po in pos)
    return Report(
        csv_name=masking.escaped(compactor.files.csv_path.rpartition("/")[2]),
        made_at=utc_text(now, timespec="seconds"),
        done_words=words,
        masked=not unmasked,
        pos=pos,
        done=sum(po.done for po in pos),
        failed=sum(po.failed for po in pos),
        by_status=_by_status(pos),
        results=sum(story.results for story in reading.stories.values()),
        retried=sum(po.attempts > 1 for po in pos),
        recovered=sum(po.attempts > 1 and po.done for po in pos),
        interrupted=sum(part.interrupted for part in reading.parts.values()),
        took_s=median(po.took_s or 0.0 for po in took) if took else None,
        slowest=tuple(Slow(po.key, po.took_s or 0.0, po.status) for po in took[:SLOWEST]),
        failures=failures,
        timeline=timeline_of(moments),
        stretches=stretches,
        last_run=_last_run(stretches, at_work=session is not None, is_done=is_done),
        copies=tuple(Copy(copy.created_at, _reason(copy), copy.record_count, copy.name) for copy in copies),
        session=session.session if session else "",
        edited=projection.start.new_base == EDITED,
        behind=projection.events,
        unknown=tuple(sorted(key for key, story in reading.stories.items() if story.results and key not in known)),
        damage=tuple(item for item in damage if not item.torn),
        torn=(*(item for item in damage if item.torn), *tail),
    )


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


def _read(log: Log, end: Position, reading: Stories, on_progress: ProgressCallback | None) -> list[Damage]:
    """Read the whole log, and return its damage."""
    first = log.first()
    total, done = log.size_bytes(first, end), 0
    damage: list[Damage] = []
    for chunk in log.read(first, end):
        found, broken = events(chunk)
        damage += broken
        for event in found:
            reading.add(chunk.number, event)
        done += len(chunk.raw)
        if on_progress:
            on_progress(done, total)
    return damage


def _pos(
    projection: Projection, reading: Stories, done: Collection[str], shown: Callable[[str], str], *, unmasked: bool
) -> tuple[PoReport, ...]:
    table = projection.table
    work = work_of(table, done)

    def texts(keyword: str) -> list[str]:
        column = table.index_of(COLUMNS[keyword])
        return [""] * work.height if column is None else table.texts(column).gather(work.get_column("row")).to_list()

    flying = {item.key for item in projection.in_flight}
    columns = (texts("supplier"), texts("error_message"), texts("last_processed"))
    rows = zip(work.select("key", "status", "done").iter_rows(), *columns, strict=True)
    pos = []
    for (key, status, is_done), supplier, message, at in rows:
        failed = not is_done and (status in FAILED or message != "")
        if failed:
            reading.group(key, message).open += 1
        story = reading.stories.get(key) or Story()
        pos.append(
            PoReport(
                key=key,
                status=shown(status),
                done=is_done,
                failed=failed,
                supplier=shown(supplier),
                message=shown(message),
                at=shown(at),
                attempts=story.started + story.unannounced,
                interrupted=story.interrupted,
                took_s=story.took_s,
                in_flight=key in flying,
                groups=(),
                events=tuple(_shown_event(event, shown, unmasked=unmasked) for event in story.events),
                earlier=story.started + story.results + story.edits - len(story.events),
            )
        )
    return tuple(pos)


def _shown_event(event: Event, shown: Callable[[str], str], *, unmasked: bool) -> Event:
    def cell(name: str, text: str) -> str:
        is_secret = bool(text) and not unmasked and masking.masked_value(name, "") == masking.MASK
        return masking.MASK if is_secret else shown(text)

    cells = {shown(name): cell(name, text) for name, text in event.cells.items()}
    return Event(event.id, event.ts, event.kind, event.key, cells)


def _failures(reading: Stories, pos: tuple[PoReport, ...]) -> tuple[tuple[FailureGroup, ...], tuple[PoReport, ...]]:
    """Return the groups of failures, what is open first, and the POs with their places among them."""
    ordered = sorted(reading.alike.items(), key=lambda item: (-item[1].open, -item[1].times, item[0]))
    place = {pattern: number for number, (pattern, _) in enumerate(ordered)}
    groups = tuple(
        FailureGroup(pattern, it.example, it.times, len(it.pos), it.open, it.first_at, it.last_at)
        for pattern, it in ordered
    )
    stories = reading.stories
    return groups, tuple(
        replace(po, groups=tuple(sorted(place[pattern] for pattern in stories[po.key].patterns)))
        if po.key in stories and stories[po.key].patterns
        else po
        for po in pos
    )


def category_of(status: str, *, done: bool) -> Category:
    """Return what a STATUS amounts to."""
    if done:
        return Category.DONE
    word = status.upper()
    if word in FAILED:
        return Category.FAILED
    return Category.WAITING if word in _WAITING else Category.OPEN


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


def _last_run(stretches: Sequence[Stretch], *, at_work: bool, is_done: bool) -> LastRun | None:
    if not stretches:
        return None
    last = stretches[-1]
    try:
        span = datetime.fromisoformat(last.last_at) - datetime.fromisoformat(last.first_at)
    except (ValueError, TypeError):
        span = timedelta(seconds=-1)
    if at_work:
        ending = Ending.AT_WORK
    elif last.interrupted:
        ending = Ending.CUT_OFF
    else:
        ending = Ending.ALL_DONE if is_done else Ending.SOME_LEFT
    took_s = span.total_seconds() if span >= timedelta() else None
    return LastRun(last.first_at, last.last_at, took_s, last.results, last.interrupted, ending)


def _stretches(reading: Stories, copies: Iterable[Backup]) -> tuple[Stretch, ...]:
    # A session keeps a copy at the log's end and then begins a segment of its own.
    names = {
        copy.position.segment + 1: copy.session
        for copy in copies
        if copy.reason == SESSION and copy.position is not None
    }
    return tuple(
        Stretch(
            segment=number,
            session=names.get(number, ""),
            first_at=part.first_at,
            last_at=part.last_at,
            results=len(part.moments),
            failed=sum(moment.outcome is Outcome.FAILED for moment in part.moments),
            interrupted=part.interrupted,
            writers=len(part.writers),
            timeline=timeline_of(part.moments),
        )
        for number, part in sorted(reading.parts.items())
    )
