"""How far a job is: which POs are done, which are pending, how fast it goes, and what failed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import polars as pl

from eventcsv.event import BLANKS, COLUMNS, FAILED, REASON, InFlight, Kind, done_words, seconds_since, utc_text
from eventcsv.log.scan import placed_events
from eventcsv.table.table import text_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from eventcsv.log.interface import Log
    from eventcsv.log.types import Damage
    from eventcsv.storage.files import Storage
    from eventcsv.table.table import Table
    from eventcsv.view.compactor import Compactor
    from eventcsv.view.edits import Edit
    from eventcsv.view.projection import Projection
    from eventcsv.view.session_lock import Holder

WINDOW_S: Final = 60.0
_FIRST_TAIL_BYTES: Final = 256 << 10
_LONGEST_TAIL_BYTES: Final = 16 << 20
_MANGLED: Final = r"^[+-]?\d([.,]\d+)?[eE]\+\d+$"


@dataclass(frozen=True, slots=True)
class Failure:
    """A PO that is not done and says why.

    Attributes:
        key: The PO.
        status: Its STATUS.
        message: Its ERROR_MESSAGE.
        at: Its LAST_PROCESSED.
    """

    key: str
    status: str
    message: str
    at: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is, at the log's present end. A PO on several rows counts once.

    Attributes:
        csv_path: The CSV.
        total: How many POs there are.
        done: How many of them are done.
        pending: How many are not.
        by_status: How many have which STATUS, the most frequent first; "" for none yet.
        rate_per_min: How many POs got a result in the last minute, or per minute since the log's last segment began
            when that is less than a minute ago.
        eta_s: How long the pending ones take at that rate, in seconds; None when nothing moves.
        failures: The POs that are not done and say why, by LAST_PROCESSED, the latest last.
        session: The session that is at work, or None.
        in_flight: What its workers are on; without a session, what a run that died left in flight.
        unknown: How many keys that have results are in no row.
        behind: How many results are in the log and not yet in the CSV.
        damage: What is damaged in that part of the log.
        torn: The lines in it, or behind it, that a crash had cut off.
        csv_written_at: When the CSV was last written, by whomever, ISO 8601 in UTC; None when it is gone.
        log_written_at: The same of the log; None without one.
        trouble: Why the CSV is not kept current: it cannot be read, or was saved in a way that is not taken; or "".
        trouble_since: When the CSV was saved like that, ISO 8601 in UTC.
        last_edit: What the last save of the CSV did that was taken over, or None.
        unknown_keys: The keys that have results and are in no row, in order.
        rows: How many rows with a key there are; more than POs when keys are on several rows.
        repeated: Keys that are on several rows, with how many; each of those rows gets the results of the key.
        mangled: Keys that a spreadsheet has made numbers of, as 4,5E+15, so that their digits are lost.
        waiting: The POs that wait to be tried again, the next one first.
        stopped: Why the last run stopped early, or "".
    """

    csv_path: str
    total: int
    done: int
    pending: int
    by_status: dict[str, int]
    rate_per_min: float
    eta_s: float | None
    failures: tuple[Failure, ...]
    session: Holder | None
    in_flight: tuple[InFlight, ...]
    unknown: int
    behind: int
    damage: tuple[Damage, ...]
    torn: tuple[Damage, ...]
    csv_written_at: str | None = None
    log_written_at: str | None = None
    trouble: str = ""
    trouble_since: str | None = None
    last_edit: Edit | None = None
    unknown_keys: tuple[str, ...] = ()
    rows: int = 0
    repeated: Mapping[str, int] = field(default_factory=dict)
    mangled: tuple[str, ...] = ()
    waiting: tuple[InFlight, ...] = ()
    stopped: str = ""


def work_of(table: Table, done: Collection[str] | str) -> pl.DataFrame:
    """Return what there is to do, one line a PO in the order of the CSV.

    Args:
        table: The CSV.
        done: The STATUS words that count as done, case aside.

    Returns:
        Columns `row`, `key`, `status` and `done`. Of a key on several rows the first that is not done speaks.
    """
    words = done_words(done)
    column = table.status_index()
    status = pl.Series([""] * table.rows.height, dtype=pl.String) if column is None else table.texts(column)
    is_done = pl.col("status").str.to_uppercase().is_in(words)
    rows = (
        pl.DataFrame({"key": table.keys(), "status": status.str.strip_chars(BLANKS)})
        .with_row_index("row")
        .filter(pl.col("key") != "")
        .with_columns(is_done.alias("done"))
    )
    if rows.get_column("key").n_unique() == rows.height:
        return rows
    return rows.sort("done", "row").unique("key", keep="first", maintain_order=True).sort("row")


def pending_of(table: Table, done: Collection[str] | str) -> list[str]:
    """Return the POs that are not done, in the order of the CSV."""
    return work_of(table, done).filter(~pl.col("done")).get_column("key").to_list()


def progress_of(compactor: Compactor, session: Holder | None, done: Collection[str] | str) -> Progress:
    """Return how far a job is, whose session somebody may hold; see `EventCsv.progress`."""
    projection, files = compactor.project(), compactor.files
    written_at = _written_at(files.csv_path, files.storage)
    return replace(
        measure(projection, files.log, session, csv_path=files.csv_path, done=done, now=datetime.now(UTC)),
        trouble=projection.trouble,
        trouble_since=written_at if projection.trouble else None,
        last_edit=next((copy.edit for copy in compactor.backups() if copy.edit), None),
        csv_written_at=written_at,
        log_written_at=_written_at(files.log.path(projection.end.position.segment), files.storage),
    )


def _written_at(path: str, storage: Storage) -> str | None:
    status = storage.stat(path)
    return utc_text(datetime.fromtimestamp(status.st_mtime, UTC), timespec="seconds") if status else None


def measure(
    projection: Projection,
    log: Log,
    session: Holder | None,
    *,
    csv_path: str,
    done: Collection[str] | str,
    now: datetime,
) -> Progress:
    """Return how far a job is.

    Args:
        projection: The CSV at the log's present end.
        log: The event log.
        session: The session that is at work, or None.
        csv_path: The CSV.
        done: The STATUS words that count as done.
        now: The time, with its time zone.
    """
    work = work_of(projection.table, done)
    finished = int(work.get_column("done").sum())
    pending = work.height - finished
    tail = _Tail(log, projection, now)
    rate_per_min = tail.rate_per_min()
    keys = (every := projection.table.keys()).filter(every != "")
    open_keys = set(work.filter(~pl.col("done")).get_column("key")) if projection.in_flight else set()
    still = [item for item in projection.in_flight if item.key in open_keys]
    return Progress(
        csv_path=csv_path,
        total=work.height,
        done=finished,
        pending=pending,
        by_status=_counted(work.get_column("status")),
        rate_per_min=rate_per_min,
        eta_s=60.0 * pending / rate_per_min if rate_per_min else None,
        failures=_failures(projection.table, work),
        session=session,
        in_flight=tuple(item for item in still if not item.waits),
        unknown=len(projection.rowless),
        behind=projection.events,
        damage=projection.damage,
        torn=projection.torn,
        unknown_keys=tuple(sorted(projection.rowless)),
        rows=keys.len(),
        repeated=_counted(keys.filter(keys.is_duplicated())) if work.height < keys.len() else {},
        mangled=tuple(keys.filter(keys.str.contains(_MANGLED)).unique(maintain_order=True)),
        waiting=tuple(sorted((item for item in still if item.waits), key=lambda item: item.until)),
        stopped=tail.stopped() if session is None else "",
    )


def _counted(texts: pl.Series) -> dict[str, int]:
    """Return how often there is which text, the most frequent first."""
    counts = texts.alias("text").value_counts().sort("count", "text", descending=[True, False])
    return {str(text): int(count) for text, count in counts.iter_rows()}


def _failures(table: Table, work: pl.DataFrame) -> tuple[Failure, ...]:
    left = work.filter(~pl.col("done"))
    for name, column in (("message", COLUMNS["error_message"]), ("at", COLUMNS["last_processed"])):
        index = table.index_of(column)  # of few rows; to take the quotes off all of them takes a while
        cells = pl.lit("") if index is None else table.rows.get_column(str(index))[left.get_column("row")]
        left = left.with_columns(cells.alias(name)).with_columns(text_of(pl.col(name)))
    failed = left.filter(pl.col("status").str.to_uppercase().is_in(list(FAILED)) | (pl.col("message") != ""))
    ordered = failed.sort("at", maintain_order=True).select("key", "status", "message", "at")
    return tuple(Failure(*row) for row in ordered.iter_rows())


class _Tail:
    """What was recorded lately, by the tail of the active segment.

    Args:
        log: The event log.
        projection: The CSV at the log's present end.
        now: The time, with its time zone.
    """

    def __init__(self, log: Log, projection: Projection, now: datetime) -> None:
        self._log = log
        self._now = now
        self._since = utc_text(now - timedelta(seconds=WINDOW_S))
        self._end = projection.end.position
        size_bytes = _FIRST_TAIL_BYTES
        while True:
            self._events = [event for chunk in log.tail(self._end, size_bytes) for _, event in placed_events(chunk)]
            self._is_whole = size_bytes >= self._end.offset_bytes
            reaches_back = self._is_whole or bool(self._events and self._events[0].ts < self._since)
            if reaches_back or size_bytes >= _LONGEST_TAIL_BYTES:
                break
            size_bytes *= 4

    def stopped(self) -> str:
        """Return why the run stopped early that was the last one to do anything, or ""."""
        for event in reversed(self._events):
            if event.kind == Kind.STOPPED:
                return event.cells.get(REASON, "")
            if event.kind == Kind.STARTED:
                break
        return ""

    def rate_per_min(self) -> float:
        """Count the POs that got a result in the last minute."""
        recent = {event.key for event in self._events if event.ts >= self._since and event.kind == Kind.RESULT}
        return 60.0 * len(recent) / self._span_s() if recent else 0.0

    def _span_s(self) -> float:
        """Return the time over which the rate is counted: the window, or what the segment covers of it."""
        header = self._log.header(self._end.segment) if self._is_whole else None
        began = str((header or {}).get("ts", "")) if self._is_whole else self._events[0].ts
        age_s = seconds_since(began, self._now)
        return WINDOW_S if age_s is None else min(WINDOW_S, max(1.0, age_s))
