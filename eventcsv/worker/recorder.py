"""Checks results and appends them to a job's log: all that a worker needs of a job. Light: loads no Polars."""

from __future__ import annotations

import itertools
import logging
import os
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

from eventcsv import masking
from eventcsv.errors import AppendError, InvalidCsv, InvalidEvent, NoKeyColumn, ServerError
from eventcsv.event import (
    ATTEMPT,
    BLANKS,
    COLUMNS,
    DEFAULT_KEY,
    REASON,
    UNTIL,
    Event,
    Kind,
    column_id,
    utc_text,
)
from eventcsv.log.opening import open_log
from eventcsv.masking import escaped
from eventcsv.storage.files import Storage
from eventcsv.storage.naming import check_name, log_of, stem_of, target_of
from eventcsv.table.cells import check_no_workbook, find_header
from eventcsv.table.options import CsvOptions
from eventcsv.worker.fitting import fitted
from eventcsv.worker.rules import cells_of, is_usual, key_of, pairs_in, usual_cells
from eventcsv.worker.values import LONGEST_MESSAGE, Note, cleaned, is_missing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from eventcsv.log.file_log import Durability
    from eventcsv.log.interface import Log

LOG_VARIABLE: Final = "EVENTCSV_LOG"
JOB_VARIABLE: Final = "EVENTCSV_JOB"
STATUS_VARIABLE: Final = "EVENTCSV_STATUS_COLUMN"
_LAST_PROCESSED: Final = COLUMNS["last_processed"]
_STATUS: Final = COLUMNS["status"]
_HEAD_BYTES: Final = 64 << 10
_SECONDS: Final = len("2025-10-02T12:43:11")


class Recorder:
    """Where the results of a job are recorded: its log, found from the path of its CSV.

    Args:
        csv_path: The CSV. A link means the file that it leads to, beside which the log and the backups are.
        key: The column that identifies a row.
        durability: What a result survives once it is recorded, the machine ("disk") or the process.
        lock_timeout_s: How long to wait for a lock, in seconds.
        log: The log's directory or URL; by default EVENTCSV_LOG, or the directory beside the CSV.
        job: What the job is called on a server; by default EVENTCSV_JOB, or the name of the CSV.
        options: What the caller says of the CSV; by default nothing but what `status_column_of` finds.

    Attributes:
        csv_path: The CSV itself, absolute.
        key: The column that identifies a row.
        status_column: The column that says what came of a PO.
        log: The event log.
    """

    def __init__(
        self,
        csv_path: str | os.PathLike[str],
        *,
        key: str = DEFAULT_KEY,
        durability: Durability = "disk",
        lock_timeout_s: float = 30.0,
        log: str | os.PathLike[str] | None = None,
        job: str | None = None,
        options: CsvOptions | None = None,
    ) -> None:
        if not key.strip(BLANKS):
            raise InvalidEvent("key", "the key column has to have a name")
        self.key = key
        self._key_is_usual = is_usual(key)
        self._options = options or CsvOptions(status_column=status_column_of(None, key))
        self.status_column = self._options.status_column
        self.csv_path = target_of(csv_path)
        self._link = os.fspath(csv_path) if os.path.islink(csv_path) else None
        self._storage = Storage()
        beside = log_of(self.csv_path)
        self.log: Log = open_log(
            log or os.environ.get(LOG_VARIABLE) or beside,
            job=job or os.environ.get(JOB_VARIABLE) or os.path.basename(stem_of(self.csv_path)),
            directory=beside,
            key_column=key,
            durability=durability,
            lock_timeout_s=lock_timeout_s,
            storage=self._storage,
            csv_path=self.csv_path,
        )
        self._csv_seen = False
        self._tokens: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def log_dir(self) -> str:
        """The directory of the event log; with a log on a server, that of the lock files and the checkpoint."""
        return self.log.directory

    @property
    def log_place(self) -> str:
        """Where the event log is, for messages: its directory, or a URL without user and password."""
        return self.log.place

    def emit_result(
        self,
        key: str,
        status: str,
        *,
        supplier: str | None = None,
        attachments_found: int | None = None,
        attachments_downloaded: int | None = None,
        attachment_names: Iterable[object] | None = None,
        error_message: str | BaseException | None = None,
        download_folder: str | os.PathLike[str] | None = None,
        coupa_url: str | None = None,
        last_processed: date | str | None = None,
        columns: Mapping[str, object] | Iterable[tuple[str, object]] | None = None,
    ) -> Event:
        """Record the result of one PO. Once this returns, the result survives whatever `durability` promises.

        For every column: None leaves it alone, and so does what NumPy and pandas mean by missing; "" clears it. Values
        of any other type than the usual one are recorded, too, as the guide's table says. What had to be mended is
        logged as `result.mended`.

        Args:
            key: The PO, as in the key column.
            status: What came of it; a `Status`, or another word of the field.
            supplier: SUPPLIER.
            attachments_found: ATTACHMENTS_FOUND.
            attachments_downloaded: ATTACHMENTS_DOWNLOADED; that they are more than were found is told.
            attachment_names: AttachmentName, joined with ";".
            error_message: ERROR_MESSAGE: text, or the exception, whose secrets are masked. ERROR and FAILED without one
                get "no message was given".
            download_folder: DOWNLOAD_FOLDER.
            coupa_url: COUPA_URL.
            last_processed: LAST_PROCESSED, as ISO 8601 in UTC; a datetime without a time zone is local time. By
                default now.
            columns: Any other columns: a mapping of names to values, or pairs. The CSV gets columns that it lacks at
                its right end.

        Returns:
            The event as it stands in the log; `Event.mended` tells what had to be mended.

        Raises:
            InvalidEvent: It belongs to no row (the key is missing, blank or holds a control character), to no column
                (a name is blank, no text, given twice, or the key column), or has no status; nothing was written.
            AppendError: The result could not be made durable, after three retries; the error carries the event.
        """
        notes: list[Note] = []
        ts = _now()
        is_dated = last_processed is not None and not is_missing(last_processed)
        given = (  # in the order of COLUMNS
            status,
            supplier,
            attachments_found,
            attachments_downloaded,
            attachment_names,
            last_processed if is_dated else f"{ts[:_SECONDS]}Z",
            error_message,
            download_folder,
            coupa_url,
        )
        cells = usual_cells(given) if columns is None and not self._key_is_usual else None
        if cells is None:
            values = _values(given, columns, notes, is_dated=is_dated)
            cells = cells_of(values, key_column=self.key, notes=notes)
        if self.status_column != _STATUS:
            cells = _renamed(cells, self.status_column)
        event = self.log.new_event(Kind.RESULT, key_of(key, key_column=self.key, notes=notes), cells, ts)
        event = self._record(event, notes)
        return _told(event, notes) if notes else event

    def emit_started(self, key: str, *, attempt: int = 1) -> Event:
        """Record that a PO is taken up, before its work begins, so that work that is cut short is known to have begun.

        `Session.run` does this by itself.

        Args:
            key: The PO, as in the key column.
            attempt: Which attempt at the PO this is, from 1.

        Returns:
            The event as it stands in the log.

        Raises:
            InvalidEvent: `key` cannot be the key of a row; nothing was written.
            AppendError: It could not be made durable, after three retries.
        """
        cells = {ATTEMPT: str(attempt)} if attempt > 1 else {}
        return self._record(self.log.new_event(Kind.STARTED, key_of(key), cells, _now()), [])

    def record_deferred(self, key: str, *, attempt: int, reason: str, wait_s: float | None) -> Event:
        """Record that a PO was put back; `Session.run` does this by itself.

        Args:
            key: The PO, as in the key column.
            attempt: Which attempt at the PO has ended so, from 1.
            reason: Why, for people.
            wait_s: After how many seconds the next attempt may begin; None when none is meant to follow.

        Raises:
            AppendError: It could not be made durable, after three retries.
        """
        moment = None if wait_s is None else datetime.now(UTC) + timedelta(seconds=wait_s)
        until = {} if moment is None else {UNTIL: utc_text(moment, timespec="milliseconds")}
        cells = {ATTEMPT: str(attempt), **until, REASON: cleaned(reason, longest=LONGEST_MESSAGE)}
        return self._record(self.log.new_event(Kind.DEFERRED, key_of(key), cells, _now()), [])

    def record_stopped(self, reason: str) -> Event:
        """Record why a run stops early; `Session.run` does this by itself.

        Args:
            reason: Why, for people.

        Raises:
            AppendError: It could not be made durable, after three retries.
        """
        cells = {REASON: cleaned(reason, longest=LONGEST_MESSAGE)}
        return self._record(self.log.new_event(Kind.STOPPED, "", cells, _now()), [])

    def _record(self, event: Event, notes: list[Note]) -> Event:
        """Append an event, and return it as it stands in the log."""
        try:
            if not self._csv_seen:
                self._check_csv_exists()
                if obstacle := self.obstacle():
                    masking.get_logger().warning("view.cannot_be_replaced", csv=self.csv_path, reason=obstacle)
        except ServerError as error:
            raise AppendError(
                f"{error}. Treat {event.key} as not done; once the cause is gone, emit it again", event
            ) from error
        token = self._tokens.get(event.key.strip(BLANKS)) if self._tokens else None
        try:
            self.log.append(event, token=token)
        except InvalidEvent:  # as it is it cannot be a line of the log, which is found before anything is written
            event = fitted(event, notes)
            self.log.append(event, token=token)
        return event

    def hold(self, key: str, token: int | None) -> None:
        """Record under a claim what comes of a PO, or without one any more; `Session.run` does this by itself."""
        if token is None:
            self._tokens.pop(key, None)
        else:
            self._tokens[key] = token

    def record_as(self, writer: str) -> None:
        """Begin the ids of this process's events with `writer`, which nobody else may use."""
        self.log.write_as(writer)

    def obstacle(self) -> str | None:
        """Return why the CSV cannot be replaced, so that results would not get into it, or None.

        Recording works all the same; `compact` and a session refuse with the same words.
        """
        return self._storage.obstacle(self.csv_path)

    def _check_csv_exists(self) -> None:
        """Refuse a mistyped path before the first append, instead of making a log beside nothing."""
        if self._csv_seen:
            return
        check_name(self.csv_path)
        csv_is_there = self._storage.check_regular(self.csv_path)
        if not self.log.is_there():
            if not csv_is_there:
                raise InvalidCsv(
                    f"{self.csv_path}: there is no such file, and no event log of it either. Check the path"
                )
            self._check_key_column()
            if note := self.link_note():
                masking.get_logger().info("csv.is_a_link", csv=self.csv_path, note=note)
        self._csv_seen = True

    def _check_key_column(self) -> None:
        """Refuse to begin a log for a key column that the CSV's first line does not hold; it could never be folded."""
        with self._storage.closing(self._storage.open_regular(self.csv_path, os.O_RDONLY)) as fd:
            head = self._storage.pread(fd, _HEAD_BYTES, 0)
        check_no_workbook(head, self.csv_path)
        text = head.decode(self._options.encoding or "utf-8-sig", errors="replace")
        try:
            find_header(text, source=self.csv_path, key=self.key, delimiter=self._options.delimiter)
        except NoKeyColumn as error:
            # A worker need not have been told the delimiter, nor the encoding: what else is wrong is for a compaction.
            first = "\n".join(text.splitlines()[:2])
            if error.line or not ("\0" in first or column_id(self.key) in first.casefold()):
                raise
        except InvalidCsv:
            pass

    def link_note(self) -> str | None:
        """Return what is to be told before a job is begun on a CSV that is a link, or None."""
        if self._link is None or self._storage.exists(self.log_dir):
            return None
        return f"{self._link} is a link to {self.csv_path}: the log and the backups lie beside that file"

    def leave_csv(self) -> None:
        """Be a worker on another machine than the CSV: look for none here, and make no job."""
        self._csv_seen = True
        self.log.directory = ""

    def close(self) -> None:
        """Close the log; the next result opens it again. One that is never closed loses nothing."""
        self.log.close()


def status_column_of(named: str | None, key: str) -> str:
    """Return what the column is called that says what came of a PO; by default EVENTCSV_STATUS_COLUMN, or STATUS.

    Raises:
        InvalidEvent: Results cannot have a column of this name, or have it for something else.
    """
    name = named or os.environ.get(STATUS_VARIABLE) or _STATUS
    others = {column_id(column) for column in COLUMNS.values()} - {column_id(_STATUS)}
    if not name.strip(BLANKS) or escaped(name) != name:
        raise InvalidEvent("status_column", f"has to be the name of a column, not {name!r}")
    if column_id(name) in others | {column_id(key)}:
        raise InvalidEvent("status_column", f"{name!r} is a column for something else. Name one of its own, as RESULT")
    return name.strip(BLANKS)


def _renamed(cells: dict[str, str], status_column: str) -> dict[str, str]:
    """Return the cells of a result with its STATUS in another column."""
    if any(column_id(name) == column_id(status_column) for name in cells if name != _STATUS):
        raise InvalidEvent("columns", f"{status_column!r} is given twice: it is what the status is written to")
    return {status_column if name == _STATUS else name: text for name, text in cells.items()}


def _now() -> str:
    """Return the time as `utc_text` writes it, without spelling a second more than once."""
    digits = str(time.time_ns())
    return f"{_spelled(digits[:-9])}.{digits[-9:-3]}Z"


@lru_cache(maxsize=1)
def _spelled(second: str) -> str:
    return utc_text(datetime.fromtimestamp(int(second), UTC), timespec="seconds")[:-1]


def _values(
    given: tuple[object, ...], columns: object, notes: list[Note], *, is_dated: bool
) -> Iterable[tuple[object, object]]:
    """Return what is given for the usual columns and for any others; a date among these goes before the usual one."""
    values: Iterable[tuple[object, object]] = zip(COLUMNS.values(), given, strict=True)
    if columns is None:
        return values
    others = _others(columns, notes)
    if not is_dated and any(column_id(str(name)) == column_id(_LAST_PROCESSED) for name, _ in others):
        values = (pair for pair in values if pair[0] != _LAST_PROCESSED)
    return itertools.chain(values, others)


def _others(columns: object, notes: list[Note]) -> Collection[tuple[object, object]]:
    if type(columns) is dict:
        return columns.items()
    if is_missing(columns):
        return ()
    pairs, unread = pairs_in(columns)
    if unread:
        notes.append(Note("columns", f"pairs of a column and a value were looked for in {unread}"))
    return pairs


def _told(event: Event, notes: list[Note]) -> Event:
    """Tell what was done to the values of a result; whoever listens to no log pays nothing for that."""
    logger = logging.getLogger("eventcsv")
    if logger.hasHandlers() and logger.isEnabledFor(logging.WARNING):
        for column, done in notes:
            masking.get_logger().warning("result.mended", key=event.key, column=column, done=done)
    return replace(event, mended=tuple(f"{column}: {done}" for column, done in notes))
