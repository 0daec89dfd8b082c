"""EventCsv: one CSV, its log and its backups, from both sides.

The worker side is light; the operator side loads Polars on first use.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cached_property, lru_cache
from typing import IO, TYPE_CHECKING, Any, Self, cast

import orjson

from eventcsv import masking
from eventcsv.errors import (
    AppendError,
    BackupError,
    ClaimLost,
    EventCsvError,
    InvalidCsv,
    InvalidEvent,
    NoKeyColumn,
    ServerError,
)
from eventcsv.event import (
    BLANKS,
    COLUMNS,
    DEFAULT_KEY,
    DONE,
    WORKBOOKS,
    Event,
    Kind,
    Status,
    column_id,
    utc_text,
)
from eventcsv.log.file_log import CHECKPOINT_NAME, Durability, FileLog
from eventcsv.log.scan import events
from eventcsv.masking import escaped, masked
from eventcsv.storage.files import Storage
from eventcsv.storage.naming import check_name, log_of, stem_of, target_of
from eventcsv.table.cells import find_header
from eventcsv.view import checkpoint
from eventcsv.view.session_lock import SessionLock
from eventcsv.worker.rules import Note, cells_of, fitted, key_of, pairs_in
from eventcsv.worker.values import is_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from eventcsv.formats.export import ExportResult, Format
    from eventcsv.formats.import_workbook import ImportResult
    from eventcsv.log.interface import Log, ProgressCallback
    from eventcsv.log.postgres.claims import Claims
    from eventcsv.log.postgres.log import PgLog
    from eventcsv.log.scan import Damage, Position
    from eventcsv.report.collect import Report
    from eventcsv.run.session import Session
    from eventcsv.view.backup import Backup
    from eventcsv.view.compactor import Compactor, CompactResult
    from eventcsv.view.progress import Progress
    from eventcsv.view.prune import PruneResult
    from eventcsv.view.session_lock import Holder
    from eventcsv.view.verify import VerifyReport

CSV_VARIABLE = "EVENTCSV_CSV"
BACKUP_DIR_VARIABLE = "EVENTCSV_BACKUP_DIR"
LOG_VARIABLE = "EVENTCSV_LOG"
JOB_VARIABLE = "EVENTCSV_JOB"
STATUS_VARIABLE = "EVENTCSV_STATUS_COLUMN"
_LAST_PROCESSED = COLUMNS["last_processed"]
_STATUS = COLUMNS["status"]
_HEAD_BYTES = 64 << 10
_SECONDS = len("2025-10-02T12:43:11")
_NS_PER_S = 1_000_000_000


class EventCsv:
    """A CSV whose rows a long job works through, and the event log that keeps the job's results.

    Any number of threads and processes may use the same CSV at once, each with an EventCsv of its own or with a copy:
    it can be pickled, and goes on working in a forked child.

    Args:
        csv_path: The CSV. A link means the file that it leads to, beside which the log and the backups are.
        key: The column that identifies a row, case and surrounding blanks aside.
        backup_dir: Where backups go; by default EVENTCSV_BACKUP_DIR, or "backup" beside the CSV.
        durability: "disk": a result survives a power cut once emit_result() has returned. "process": it survives the
            death of its process only, and costs a tenth or less.
        lock_timeout_s: How long to wait for a lock, in seconds.
        log: The event log: its directory, or the URL of a PostgreSQL server (postgresql://host/database) for workers on
            many machines; by default EVENTCSV_LOG, or "input.events" beside "input.csv". With a URL that directory
            still has the lock files and the checkpoint of this CSV.
        job: What the job is called on the server; by default EVENTCSV_JOB, or "input" for "input.csv".
        delimiter: What stands between cells, one character; by default it shows from the header.
        encoding: How to read a CSV that is not UTF-8. It is written back as UTF-8 with a byte order mark.
        guard_formulas: Put an apostrophe before text of results that a spreadsheet would take for a formula.
        settle_s: How long the CSV must not have changed before a new version of it is taken for saved, in seconds.
        status_column: The column that says what came of a PO, for a list whose own STATUS means something else; by
            default EVENTCSV_STATUS_COLUMN, or STATUS. Like `key` it is said each time.

    Example:
        >>> job = EventCsv("data/input/input.csv")
        >>> job.emit_result("PO15262984", Status.COMPLETED, attachments_found=2, attachments_downloaded=2)
        >>> job.compact().by_status
        {'': 445, 'COMPLETED': 1}
    """

    __module__ = "eventcsv"  # as users import it, so that no traceback and no pickle knows the layout

    def __init__(
        self,
        csv_path: str | os.PathLike[str],
        *,
        key: str = DEFAULT_KEY,
        backup_dir: str | os.PathLike[str] | None = None,
        durability: Durability = "disk",
        lock_timeout_s: float = 30.0,
        log: str | os.PathLike[str] | None = None,
        job: str | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        guard_formulas: bool = True,
        settle_s: float = 1.0,
        status_column: str | None = None,
    ) -> None:
        if not key.strip(BLANKS):
            raise InvalidEvent("key", "the key column has to have a name")
        self.status_column = _checked_status(status_column or os.environ.get(STATUS_VARIABLE) or _STATUS, key)
        self.csv_path = target_of(csv_path)
        self._link = os.fspath(csv_path) if os.path.islink(csv_path) else None
        stem = stem_of(self.csv_path)
        log = log or os.environ.get(LOG_VARIABLE)
        beside = os.path.join(os.path.dirname(self.csv_path), "backup")
        self.backup_dir = os.path.abspath(backup_dir or os.environ.get(BACKUP_DIR_VARIABLE) or beside)
        self.key = key
        self._delimiter = delimiter
        self._encoding = encoding
        self._guard_formulas = guard_formulas
        self._settle_s = settle_s
        self._storage = Storage()
        if is_url(log):
            name = job or os.environ.get(JOB_VARIABLE) or os.path.basename(stem)
            self._log: Log = _log_on_server(
                str(log),
                job=name,
                directory=log_of(self.csv_path),
                key_column=key,
                lock_timeout_s=lock_timeout_s,
                storage=self._storage,
                csv_path=self.csv_path,
            )
        else:
            self._log = FileLog(
                os.path.abspath(log or log_of(self.csv_path)),
                key_column=key,
                durability=durability,
                lock_timeout_s=lock_timeout_s,
                storage=self._storage,
                csv_path=self.csv_path,
            )
        self._csv_seen = False
        self._tokens: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        # What loads Polars stays behind: a worker gets the light side.
        return {name: value for name, value in self.__dict__.items() if name != "_compactor"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EventCsv({self.csv_path!r})"

    @property
    def log_dir(self) -> str:
        """The directory of the event log; with a log on a server, that of the lock files and the checkpoint."""
        return self._log.directory

    @property
    def log_place(self) -> str:
        """Where the event log is, for messages: its directory, or a URL without user and password."""
        return self._log.place

    @property
    def _session_lock(self) -> SessionLock:
        return SessionLock(
            self._log.directory,
            self._storage,
            rights=lambda: self._storage.rights_to_look(self._log.directory, self.csv_path),
        )

    # --- the worker side ---

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
        of any other type than the usual one are recorded, too, as the README's table says. What had to be mended is
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
        values: Iterable[tuple[object, object]] = zip(COLUMNS.values(), given, strict=True)
        if columns is not None:
            others = _others(columns, notes)
            if not is_dated and any(column_id(str(name)) == column_id(_LAST_PROCESSED) for name, _ in others):
                values = (pair for pair in values if pair[0] != _LAST_PROCESSED)
            values = itertools.chain(values, others)
        cells = cells_of(values, key_column=self.key, notes=notes)
        if self.status_column != _STATUS:
            cells = _renamed(cells, self.status_column)
        event = self._log.new_event(Kind.RESULT, key_of(key, key_column=self.key, notes=notes), cells, ts)
        event = self._record(event, notes)
        return _told(event, notes) if notes else event

    def emit_started(self, key: str) -> Event:
        """Record that a PO is taken up, before its work begins, so that work that is cut short is known to have begun.

        `Session.run` does this by itself.

        Args:
            key: The PO, as in the key column.

        Returns:
            The event as it stands in the log.

        Raises:
            InvalidEvent: `key` cannot be the key of a row; nothing was written.
            AppendError: It could not be made durable, after three retries.
        """
        return self._record(self._log.new_event(Kind.STARTED, key_of(key), {}, _now()), [])

    def obstacle(self) -> str | None:
        """Return why the CSV cannot be replaced, so that results would not get into it, or None.

        Recording works all the same; `compact` and a session refuse with the same words.
        """
        return self._storage.obstacle(self.csv_path)

    def _record(self, event: Event, notes: list[Note]) -> Event:
        """Append an event, and return it as it stands in the log."""
        try:
            if not self._csv_seen:
                self._check_csv_exists()
                self._warn_of_obstacle()
        except ServerError as error:
            raise AppendError(
                f"{error}. Treat {event.key} as not done; once the cause is gone, emit it again", event
            ) from error
        try:
            self._append(event)
        except InvalidEvent:  # as it is it cannot be a line of the log, which is found before anything is written
            event = fitted(event, notes)
            self._append(event)
        return event

    def _append(self, event: Event) -> None:
        token = self._tokens.get(event.key.strip(BLANKS)) if self._tokens else None
        if token is None:
            self._log.append(event)
        else:
            self._append_claimed(event, token)

    def _warn_of_obstacle(self) -> None:
        if obstacle := self.obstacle():
            masking.get_logger().warning("view.cannot_be_replaced", csv=self.csv_path, reason=obstacle)

    def _append_claimed(self, event: Event, token: int) -> None:
        log = cast("PgLog", self._log)  # nothing else gives tokens
        try:
            log.append_claimed(event, event.key.strip(BLANKS), token)
        except (ClaimLost, InvalidEvent):
            raise
        except EventCsvError as error:
            raise log.failure(event, error) from error

    def hold(self, key: str, token: int | None) -> None:
        """Record under a claim what comes of a PO, or without one any more; `Session.run` does this by itself."""
        if token is None:
            self._tokens.pop(key, None)
        else:
            self._tokens[key] = token

    def claims(self, *, owner: str, lease_s: float, seen: Position) -> Claims | None:
        """Return what keeps other hosts from the POs that a run works on; None when the log is in files.

        Args:
            owner: Who claims, for people; unique to this run.
            lease_s: How long a claim lasts without being renewed, in seconds.
            seen: How much of the log the run has seen.
        """
        if isinstance(self._log, FileLog):
            return None
        from eventcsv.log.postgres.claims import Claims as Made  # noqa: PLC0415  # it needs the client, which is there now

        return Made(cast("PgLog", self._log), owner=owner, lease_s=lease_s, seen=seen)

    def record_as(self, writer: str) -> None:
        """Begin the ids of this process's events with `writer`, which nobody else may use."""
        self._log.write_as(writer)

    def _check_csv_exists(self) -> None:
        """Refuse a mistyped path before the first append, instead of making a log beside nothing."""
        if self._csv_seen:
            return
        check_name(self.csv_path)
        csv_is_there = self._storage.check_regular(self.csv_path)
        # What stands in the place of a file log is looked at by the append itself, which says so with the event.
        is_file = isinstance(self._log, FileLog)
        if not (self._storage.exists(self.log_dir) if is_file else self._log.exists()):
            if not csv_is_there:
                raise InvalidCsv(
                    f"{self.csv_path}: there is no such file, and no event log of it either. Check the path"
                )
            self._check_key_column()
            if note := self.link_note():
                masking.get_logger().info("csv.is_a_link", csv=self.csv_path, note=note)
        self._csv_seen = True

    def link_note(self) -> str | None:
        """Return what is to be told before a job is begun on a CSV that is a link, or None."""
        if self._link is None or self._storage.exists(self.log_dir):
            return None
        return f"{self._link} is a link to {self.csv_path}: the log and the backups lie beside that file"

    def _check_job(self) -> None:
        """Refuse a mistyped path, and a log that is another CSV's."""
        self._check_csv_exists()
        if isinstance(self._log, FileLog):
            self._log.check_csv()

    def _check_key_column(self) -> None:
        """Refuse to begin a log for a key column that the CSV's first line does not hold; it could never be folded."""
        fd = self._storage.open_regular(self.csv_path, os.O_RDONLY)
        try:
            head = self._storage.pread(fd, _HEAD_BYTES, 0)
        finally:
            self._storage.close(fd)
        if head.startswith(WORKBOOKS):
            raise InvalidCsv(
                f"{self.csv_path}: is an Excel workbook or another ZIP file. Save it as 'CSV UTF-8', "
                "or make a CSV of an .xlsx with eventcsv import"
            )
        text = head.decode(self._encoding or "utf-8-sig", errors="replace")
        try:
            find_header(text, source=self.csv_path, key=self.key, delimiter=self._delimiter)
        except NoKeyColumn as error:
            # A worker need not have been told the delimiter, nor the encoding: what else is wrong is for a compaction.
            first = "\n".join(text.splitlines()[:2])
            if error.line or not ("\0" in first or column_id(self.key) in first.casefold()):
                raise
        except InvalidCsv:
            pass

    def leave_csv(self) -> None:
        """Be a worker on another machine than the CSV: look for none here, and make no job."""
        self._csv_seen = True
        self._log.directory = ""

    def close(self) -> None:
        """Close the log; the next result opens it again. One that is never closed loses nothing."""
        self._log.close()

    # --- the operator side ---

    def compact(self, *, accept_edit: bool = False, on_progress: ProgressCallback | None = None) -> CompactResult:
        """Bring the CSV up to date with the log.

        Args:
            accept_edit: Take over a save of the CSV even if it does away with many results.
            on_progress: Called with the bytes of the log folded so far and the bytes to fold.

        Returns:
            What was done.

        Raises:
            InvalidCsv: The CSV cannot be read without guessing, cannot be replaced, or was saved in a way that would do
                away with many results; it was left as it is.
            LockTimeout: Another process compacts.
            UnsupportedFormat: The log was made by a newer eventcsv or for another key column.
            OSError: The disk said no; the CSV is whole, the old one or already the new one.
        """
        return self._compactor.compact(accept_edit=accept_edit, on_progress=on_progress)

    def replay(self, *, backup: str | None = None, on_progress: ProgressCallback | None = None) -> CompactResult:
        """Rebuild the CSV from a base backup and the log after it.

        What the CSV holds now is kept as a backup if it differs.

        Args:
            backup: The file name of the backup to start from; by default the newest valid base.
            on_progress: Called with the bytes of the log folded so far and the bytes to fold.

        Returns:
            What was done.

        Raises:
            BackupError: There is no such backup, or it is damaged.
            InvalidCsv: There is no base, and the CSV cannot serve as one.
            LockTimeout: Another process compacts.
            UnsupportedFormat: The log was made by a newer eventcsv or for another key column.
            OSError: The disk said no; the CSV is whole, the old one or already the new one.
        """
        return self._compactor.replay(backup, on_progress=on_progress)

    def pending(self, *, done: Collection[str] = DONE) -> list[str]:
        """Return the POs that are not done, in the order of the CSV, by the log's present end. Writes nothing.

        Args:
            done: The STATUS words that count as done, case aside.

        Raises:
            InvalidCsv: The CSV cannot be read, or is gone and has no backup.
            UnsupportedFormat: The log was made by a newer eventcsv or for another key column.
        """
        self._begin_to_check()
        folded = self._compactor.peek()
        from eventcsv.view.progress import pending_of  # noqa: PLC0415  # the operator side

        return pending_of(folded.table, done)

    def doubtful_statuses(self, *, done: Collection[str] = DONE) -> dict[str, int]:
        """Return what stands in STATUS of a list before its first run that is no word of ours, or says done.

        A list may have a STATUS that means something else. A run would write over it, and leave out what it calls done.

        Args:
            done: The STATUS words that count as done, case aside.

        Returns:
            How many POs have each such text; nothing once the log has a result that sets this column.

        Raises:
            InvalidCsv: The CSV cannot be read.
        """
        from eventcsv.view.first_run import doubtful_statuses, has_results  # noqa: PLC0415  # the operator side

        if has_results(self._log, self.status_column):
            return {}
        return doubtful_statuses(self._compactor.peek().table, done)

    def progress(self, *, done: Collection[str] = DONE) -> Progress:
        """Return how far the job is, by the log's present end. Writes nothing, and disturbs no session.

        Args:
            done: The STATUS words that count as done, case aside.

        Raises:
            InvalidCsv: The CSV cannot be read, or is gone and has no backup.
            UnsupportedFormat: The log was made by a newer eventcsv or for another key column.
        """
        session = self.session_holder()
        self._begin_to_check()
        folded = self._compactor.peek()
        from eventcsv.view.progress import measure  # noqa: PLC0415  # the operator side

        now = datetime.now(UTC)
        progress = measure(folded, self._log, session, csv_path=self.csv_path, done=done, now=now)
        active = self._log.path(folded.end.position.segment)
        trouble = folded.trouble
        if trouble:
            progress = replace(progress, trouble=trouble, trouble_since=self._written_at(self.csv_path))
        return replace(
            progress,
            last_edit=next((copy.edit for copy in self._compactor.backups() if copy.edit), None),
            csv_written_at=self._written_at(self.csv_path),
            log_written_at=self._written_at(active),
        )

    def _written_at(self, path: str) -> str | None:
        status = self._storage.stat(path)
        return utc_text(datetime.fromtimestamp(status.st_mtime, UTC), timespec="seconds") if status else None

    def session(self, *, session_id: str | None = None, refresh_s: float = 1.0, accept_edit: bool = False) -> Session:
        """Return a session, a context manager: a backup, a CSV that is kept current, and `Session.run`.

        Args:
            session_id: Its name, in backups and log output; by default something random.
            refresh_s: How far the CSV may be behind the log, in seconds, unless it takes a processor for longer than
                a tenth of that to bring it up to date, or the disk for longer than half of it.
            accept_edit: Take over what was saved before it began even if that does away with many results.

        Raises:
            ValueError: An argument makes no sense.
            InvalidCsv: No backup can be named after the CSV and the session.

        Entering it raises what `compact` raises, and SessionActive when another one is at work.
        """
        from eventcsv.run.session import Session as Made  # noqa: PLC0415  # the operator side

        made = Made(
            self,
            self._compactor,
            self._session_lock,
            session_id=session_id,
            refresh_s=refresh_s,
            accept_edit=accept_edit,
        )
        check_name(self.csv_path, made.id)
        return made

    def new_segment(self) -> Position:
        """Begin a new segment of the log, and seal the one before.

        Returns:
            Where it begins.

        Raises:
            LockTimeout: The lock was held by somebody else.
            OSError: The disk said no.
        """
        return self._log.new_segment()

    def backups(self) -> list[Backup]:
        """Return the backups, the newest first, without those whose metadata is damaged.

        Raises:
            InvalidCsv: There is neither such a CSV, nor a log of it, nor a backup.
        """
        known = self._compactor.backups()
        if not known:
            self._check_csv_exists()
        return known

    def back_up(self) -> Backup:
        """Bring the CSV up to date and keep a copy of it, which is never removed automatically.

        Raises:
            As `compact` does, and BackupError when what is read back is not what was written.
        """
        from eventcsv.view.backup import ASKED  # noqa: PLC0415  # the operator side

        made = self._compactor.keep(ASKED).base
        if made is None:
            raise BackupError(f"{self.backup_dir}: no backup was made")
        return made

    def restore(self, backup: str, *, replay: bool = True) -> CompactResult:
        """Put a backup in the CSV's place. What the CSV holds now is kept as a backup first.

        Args:
            backup: The file name of the backup.
            replay: Fold the log after the backup onto it. Without, the CSV is exactly the backup and a new base: what
                was recorded since stays in the log, and out of the CSV.

        Returns:
            What was done; `kept` is the backup of what the CSV held before.

        Raises:
            BackupError: There is no such backup, or it is damaged, or its place in the log is not known.
            InvalidCsv: The backup cannot be read as a CSV: it keeps what somebody had broken.
            SessionActive: A session is at work.
            LockTimeout: Another process compacts.
            OSError: The disk said no; the CSV is whole, the old one or already the new one.
        """
        self._compactor.find(backup)  # before the lock makes a folder beside a mistyped path
        with self._session_lock.held("restore"):
            return self._compactor.restore(backup, replay=replay)

    def verify(self, *, on_progress: ProgressCallback | None = None) -> VerifyReport:
        """Check every segment, line, seal and backup, and the CSV against a replay. Writes nothing.

        Args:
            on_progress: Called with the bytes of the log checked so far and the bytes to check.

        Returns:
            What was checked, and every finding.

        Raises:
            InvalidCsv: There is neither such a CSV nor a log of it.
            UnsupportedFormat: The log was made by a newer eventcsv.
        """
        from eventcsv.view.verify import verify  # noqa: PLC0415  # the operator side

        self._check_job()
        return verify(self._compactor, on_progress=on_progress)

    def report(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        done: Collection[str] = DONE,
        unmasked: bool = False,
        force: bool = False,
        on_progress: ProgressCallback | None = None,
    ) -> Report:
        """Collect what happened to the job, and write it as one page of HTML that needs nothing else.

        Secrets, e-mail addresses and the queries of URLs are masked, since such a page is sent around; POs, suppliers,
        file names and folders are on it.

        Args:
            output: The page; an earlier report is replaced. By default nothing is written.
            done: The STATUS words that count as done, case aside.
            unmasked: Show texts as they are in the log.
            force: Replace a file that is no earlier report. The CSV, its log and its backups are never replaced.
            on_progress: Called with the bytes of the log read so far and the bytes to read.

        Raises:
            InvalidCsv: The CSV cannot be read, or is gone and has no backup.
            UnsafePath: `output` names what must not be replaced.
            UnsupportedFormat: The log was made by a newer eventcsv or for another key column.
            OSError: The disk said no; the old page, if any, is whole.
        """
        from eventcsv.report.collect import collect  # noqa: PLC0415  # the same
        from eventcsv.report.page import check_output, render, write  # noqa: PLC0415  # the operator side

        path = None if output is None else os.path.abspath(output)
        if path is not None:
            copies = [copy.path for copy in self._compactor.backups()]
            metadata = [f"{os.path.splitext(copy)[0]}.json" for copy in copies]
            precious = (self.csv_path, self.log_dir, *copies, *metadata)
            check_output(self._storage, path, precious, force=force)  # before the long part
        session = self._session_lock.holder()
        now = datetime.now(UTC)
        found = collect(self._compactor, session, done=done, now=now, unmasked=unmasked, on_progress=on_progress)
        if path is not None:
            write(self._storage, path, render(found))
        return found

    def prune(self, *, dry_run: bool = False) -> PruneResult:
        """Remove the segments of the log that no kept backup needs. The history of POs gets shorter by them.

        Args:
            dry_run: Only tell what would be removed.

        Returns:
            What was removed, or would be.

        Raises:
            SessionActive: A session is at work.
            LockTimeout: Another process compacts.
            OSError: The disk said no; what was not removed is still there.
        """
        from eventcsv.view.prune import prune  # noqa: PLC0415  # the operator side

        self._check_job()
        if dry_run:
            return prune(self._compactor, dry_run=True)
        with self._session_lock.held("prune"):
            return prune(self._compactor, dry_run=False)

    def export(
        self,
        target: str | os.PathLike[str] | IO[bytes],
        *,
        file_format: Format | None = None,
        force: bool = False,
    ) -> ExportResult:
        """Write what the CSV is by the log's present end to a file of another format. The CSV itself is not touched.

        Every cell is text, as in the CSV. A file appears whole, in one step, or not at all.

        Args:
            target: The file, or a binary stream.
            file_format: "xlsx", "parquet" or "jsonl"; by default what the file's suffix says.
            force: Replace a file that is no earlier export, or was changed since. The CSV, its log and its backups are
                never replaced.

        Raises:
            ValueError: The format is not known.
            UnsafePath: Something else is at `target`; it was left as it is.
            InvalidCsv: The CSV cannot be read, or is gone and has no backup.
            UnsupportedFormat: The log was made by a newer eventcsv or for another key column.
            OSError: The disk said no; what was at `target` is still there.
        """
        from eventcsv.formats.export import Forbidden, export, format_of  # noqa: PLC0415  # the operator side

        path = os.path.abspath(target) if isinstance(target, str | os.PathLike) else ""
        return export(
            self._compactor.peek(),
            path or target,  # type: ignore[arg-type]  # a stream, when there is no path
            file_format=format_of(path, file_format),
            forbidden=Forbidden(self.csv_path, self.log_dir, self.backup_dir),
            storage=self._storage,
            force=force,
        )

    def import_workbook(
        self,
        workbook: str | os.PathLike[str],
        *,
        sheet: str | None = None,
        force: bool = False,
        visible: bool = False,
    ) -> ImportResult:
        """Make the CSV of an Excel workbook, to begin a job with: separated by ";", in UTF-8 with a byte order mark.

        Args:
            workbook: The .xlsx or .xlsm file.
            sheet: The name of the sheet; by default the first one that is not hidden.
            force: Replace a CSV that is there, as long as there is neither a log nor a backup of it.
            visible: Leave out rows that are hidden, by a filter for instance.

        Raises:
            InvalidWorkbook: The workbook cannot be read without guessing; the error names the sheet and the cell.
            UnsafePath: There is such a CSV already, or a job of it.
            OSError: The disk said no; nothing was half-written.
        """
        from eventcsv.formats.import_workbook import import_workbook  # noqa: PLC0415  # the operator side

        has_job = self._storage.exists(self.log_dir) or bool(self._compactor.backups())
        return import_workbook(
            os.path.abspath(workbook),
            self.csv_path,
            key=self.key,
            sheet=sheet,
            has_job=has_job,
            force=force,
            storage=self._storage,
            visible=visible,
        )

    def session_holder(self) -> Holder | None:
        """Return the session that is at work now, or None. Disturbs nobody and writes nothing."""
        return self._session_lock.holder()

    def fingerprint(self) -> tuple[object, ...]:
        """Return something that changes when the log grows or the CSV is edited, at the cost of some system calls."""
        return self._compactor.fingerprint()

    def history(
        self, key: str, *, since: Position | None = None, on_damage: Callable[[Damage], object] | None = None
    ) -> Iterator[Event]:
        """Yield the events of one PO in the order of the log, an event that was appended twice by a retry only once.

        Args:
            key: The PO.
            since: The place in the log to begin at; by default its first.
            on_damage: Called with each damaged stretch of the log, which may have been about this PO.

        Raises:
            InvalidEvent: `key` cannot be the key of a row.
            InvalidCsv: There is neither such a CSV nor a log of it.
            UnsupportedFormat: The log was made by a newer eventcsv.
        """
        wanted = key_of(key).strip(BLANKS)
        self._check_job()
        needle = orjson.dumps(wanted)[1:-1]
        seen: set[str] = set()
        for chunk in self._log.read(since or self._log.first(), self._log.end().position):
            if on_damage:
                for damage in chunk.damage:
                    on_damage(damage)
            if needle not in chunk.lines:
                continue
            for event in events(chunk)[0]:
                if event.key.strip(BLANKS) == wanted and event.id not in seen:
                    seen.add(event.id)
                    yield event

    def _begin_to_check(self) -> None:
        """Let a thread read what the checkpoint is about, while Polars is loaded."""
        if "_compactor" in self.__dict__:
            return
        with suppress(EventCsvError, OSError):  # whatever is wrong is found, and told, by who goes by the checkpoint
            saved = checkpoint.load(self._storage, os.path.join(self.log_dir, CHECKPOINT_NAME))
            if saved:
                for start, end, before, _ in saved.stretches():
                    self._log.begin_crc(start, end, before)

    @cached_property
    def _compactor(self) -> Compactor:
        check_name(self.csv_path)
        from eventcsv.view.backup import BackupStore  # noqa: PLC0415  # the operator side loads Polars, a worker must not
        from eventcsv.view.compactor import Compactor  # noqa: PLC0415  # the same
        from eventcsv.view.starting_point import Origins  # noqa: PLC0415  # the same

        origins = Origins(
            self.csv_path,
            self._log,
            BackupStore(self.backup_dir, self.csv_path, self._storage),
            self._storage,
            delimiter=self._delimiter,
            encoding=self._encoding,
            guard_formulas=self._guard_formulas,
            settle_s=self._settle_s,
            status_column=self.status_column,
        )
        return Compactor(origins)


def _checked_status(name: str, key: str) -> str:
    """Return the name of the column for STATUS when results can have it."""
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
    second, fraction_ns = divmod(time.time_ns(), _NS_PER_S)
    return f"{_spelled(second)}.{fraction_ns // 1000:06d}Z"


@lru_cache(maxsize=1)
def _spelled(second: int) -> str:
    return utc_text(datetime.fromtimestamp(second, UTC), timespec="seconds")[:-1]


def is_url(log: str | os.PathLike[str] | None) -> bool:
    """Tell whether a log is on a server, and not in a directory.

    Raises:
        EventCsvError: It is a URL of something else.
    """
    if not isinstance(log, str) or "://" not in log:
        return False
    scheme = log.partition("://")[0]
    if scheme not in {"postgresql", "postgres"}:  # a directory of that name would share nothing, and tell a password
        raise EventCsvError(
            f"the log: {masked(scheme)}:// is no URL of a log. It is postgresql://user@host:port/database"
        )
    return True


def _log_on_server(
    url: str,
    *,
    job: str,
    directory: str,
    key_column: str,
    lock_timeout_s: float,
    storage: Storage,
    csv_path: str | None = None,
) -> PgLog:
    if escaped(job) != job:  # for instance of a file name that is not UTF-8
        raise EventCsvError(f"the job: {job!r} has characters that no name on a server can have. Name it: --job NAME")
    try:
        from eventcsv.log.postgres.log import PgLog as Made  # noqa: PLC0415  # most jobs have no server, and need no client
    except ModuleNotFoundError as error:
        raise EventCsvError(
            f"the log is in PostgreSQL, and its client is not installed ({error}): pip install 'eventcsv[postgres]'"
        ) from None
    return Made(
        url,
        job=job,
        directory=directory,
        key_column=key_column,
        lock_timeout_s=lock_timeout_s,
        storage=storage,
        csv_path=csv_path,
    )


def open_log(place: str, *, job: str | None, other: str, key: str, lock_timeout_s: float) -> FileLog | PgLog:
    """Return the log in a directory or on a server, which is named after the directory unless a name is given.

    Raises:
        ServerError: It is no URL that PostgreSQL's client reads.
    """
    if not is_url(place):
        return FileLog(os.path.abspath(place), key_column=key, lock_timeout_s=lock_timeout_s)
    name = job or ("" if is_url(other) else os.path.basename(os.path.abspath(other)).removesuffix(".events"))
    if not name:
        raise EventCsvError("log copy: which job? Give --job NAME")
    return _log_on_server(
        place, job=name, directory="", key_column=key, lock_timeout_s=lock_timeout_s, storage=Storage()
    )


def init_server(
    url: str,
    *,
    job: str | None,
    key: str,
    workers: Sequence[str] | None,
    operators: Sequence[str] | None,
    timeout_s: float,
) -> tuple[str, list[str]]:
    """Make the schema on a server, and a job when it is named; return where, and what was done in words.

    Raises:
        ServerError: The server does not answer, or says no.
    """
    name = job or ""
    log = _log_on_server(url, job=name, directory="", key_column=key, lock_timeout_s=timeout_s, storage=Storage())
    from eventcsv.log.postgres.admin import init  # noqa: PLC0415  # it needs the client, which is there as shown above

    place = init(url, workers=workers or (), operators=operators or (), timeout_s=timeout_s)
    lines = [f"{place}: is ready for logs"]
    lines += [f"  role {role} may append and claim" for role in workers or ()]
    lines += [f"  role {role} may read the log, run, copy and prune" for role in operators or ()]
    if job:
        log.make()
        lines.append(f"  job {job}, key column {key}")
    log.close()
    return place, lines


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


_jobs: dict[tuple[str, str, str, str | None], EventCsv] = {}


def emit_result(  # the details are those of the method, which checks them
    key: str,
    status: str | Status,
    *,
    csv: str | os.PathLike[str] | None = None,
    log: str | os.PathLike[str] | None = None,
    job: str | None = None,
    key_column: str = DEFAULT_KEY,
    **details: Any,  # noqa: ANN401
) -> Event:
    """Record the result of one PO, from wherever a worker is: `EventCsv.emit_result` without an EventCsv at hand.

    Args:
        key: The PO.
        status: What came of it.
        csv: The CSV; by default the one that EVENTCSV_CSV names. A worker on another machine than the CSV needs none.
        log: The event log, as for `EventCsv`; by default EVENTCSV_LOG, or the one beside the CSV.
        job: What the job is called on the server; by default EVENTCSV_JOB, or the name of the CSV without ".csv".
        key_column: The column that identifies a row.
        details: The keyword arguments of `EventCsv.emit_result`.

    Returns:
        The event as it stands in the log.

    Raises:
        EventCsvError: Nothing names a CSV, nor a server and a job on it.
        InvalidEvent: It belongs to no row or to no column, or has no status; nothing was written.
        AppendError: The result could not be made durable.
    """
    path = csv or os.environ.get(CSV_VARIABLE)
    place = log or os.environ.get(LOG_VARIABLE)
    called = job or os.environ.get(JOB_VARIABLE)
    if not path and not (is_url(place) and called):
        raise EventCsvError(
            f"emit_result: which CSV? Give csv=..., or set {CSV_VARIABLE}. Without a CSV, on another machine, name the "
            f"log on its server and the job there: log=... and job=..., or {LOG_VARIABLE} and {JOB_VARIABLE}"
        )
    name = (os.path.abspath(path) if path else "", key_column, str(place), called)
    known = _jobs.get(name)
    if known is None:
        made = EventCsv(path or f"{called}.csv", key=key_column, log=place, job=called)
        if not path:
            made.leave_csv()
        known = _jobs.setdefault(name, made)
    return known.emit_result(key, status, **details)
