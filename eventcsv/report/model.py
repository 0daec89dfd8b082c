"""What happened to a job, as values: everything that a page about it shows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventcsv.event import Event
    from eventcsv.log.types import Damage
    from eventcsv.report.timeline import Category, Timeline


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
        waits_until: When its next attempt may begin, ISO 8601; "" when it waits for none.
        groups: Which `FailureGroup`s it was ever in, as places in `Report.failures`.
        events: Its history, the oldest first; the latest `history.KEPT_EVENTS` of it.
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
    waits_until: str
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
        stopped: Why it stopped early, or "".
    """

    first_at: str
    last_at: str
    took_s: float | None
    results: int
    interrupted: int
    ending: Ending
    stopped: str = ""


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
class SegmentReport:
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
    stretches: tuple[SegmentReport, ...]
    last_run: LastRun | None
    copies: tuple[Copy, ...]
    session: str
    edited: bool
    behind: int
    unknown: tuple[str, ...]
    damage: tuple[Damage, ...]
    torn: tuple[Damage, ...]
