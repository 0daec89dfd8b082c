"""EventCsv: one CSV, its log and its backups, from both sides.

The worker side is light. The operator side loads Polars: each method imports what it needs when it is called.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

from eventcsv.errors import BackupError
from eventcsv.event import DEFAULT_KEY, DONE, Event
from eventcsv.log.history import history
from eventcsv.storage.naming import check_name
from eventcsv.table.options import CsvOptions
from eventcsv.view.checkpoint import begin_to_check
from eventcsv.view.session_lock import SessionLock
from eventcsv.worker.recorder import Recorder, status_column_of
from eventcsv.worker.rules import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from eventcsv.formats.export import ExportResult, Format
    from eventcsv.formats.import_workbook import ImportResult
    from eventcsv.log.file_log import Durability
    from eventcsv.log.interface import ProgressCallback
    from eventcsv.log.types import Damage, Position
    from eventcsv.report.model import Report
    from eventcsv.run.plan import Planned
    from eventcsv.run.session import Session
    from eventcsv.view.backup import Backup
    from eventcsv.view.compact_result import CompactResult
    from eventcsv.view.compactor import Compactor
    from eventcsv.view.progress import Progress
    from eventcsv.view.prune import PruneResult
    from eventcsv.view.session_lock import Holder
    from eventcsv.view.verify import VerifyReport

BACKUP_DIR_VARIABLE = "EVENTCSV_BACKUP_DIR"


class EventCsv(Recorder):
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

    Raises:
        InvalidCsv: The CSV cannot be read without guessing, or is gone, and there is no backup (no log) of it.
        UnsupportedFormat: The log was made by a newer eventcsv or for another key column.
        LockTimeout: Another process compacts, or held another lock that is needed.
        ServerError: The log is on a server, which does not answer, or says no.
        OSError: The disk said no; the CSV is whole, the old one or already the new one.

    Any method can raise these; what else one raises it says itself.

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
        options = CsvOptions(delimiter, encoding, guard_formulas, settle_s, status_column_of(status_column, key))
        super().__init__(
            csv_path,
            key=key,
            durability=durability,
            lock_timeout_s=lock_timeout_s,
            log=log,
            job=job,
            options=options,
        )
        beside = os.path.join(os.path.dirname(self.csv_path), "backup")
        self.backup_dir = os.path.abspath(backup_dir or os.environ.get(BACKUP_DIR_VARIABLE) or beside)

    def __getstate__(self) -> dict[str, Any]:
        # What loads Polars stays behind: a worker gets the light side.
        return {name: value for name, value in self.__dict__.items() if name != "_compactor"}

    def __repr__(self) -> str:
        return f"EventCsv({self.csv_path!r})"

    @property
    def _session_lock(self) -> SessionLock:
        return SessionLock(self.log, self._storage)

    def _check_job(self) -> None:
        """Refuse a mistyped path, and a log that is another CSV's."""
        self._check_csv_exists()
        self.log.check_csv()

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
        """
        return self._compactor.replay(backup, on_progress=on_progress)

    def pending(self, *, done: Collection[str] = DONE) -> list[str]:
        """Return the POs that are not done, in the order of the CSV, by the log's present end. Writes nothing.

        Args:
            done: The STATUS words that count as done, case aside.
        """
        self._begin_to_check()
        from eventcsv.view.progress import pending_of

        return pending_of(self._compactor.project().table, done)

    def plan(
        self,
        *,
        only: Collection[str] | None = None,
        status: Collection[str] | None = None,
        order_by: str | None = None,
        limit: int | None = None,
        done: Collection[str] = DONE,
    ) -> list[Planned]:
        """Return the POs that `Session.run` would work on, in its order, with the attempts so far. Writes nothing.

        Args:
            only: These POs only, as far as they are pending.
            status: Only what has one of these STATUS words now; "" for none yet.
            order_by: The column that says the order; with "-" before its name the greatest first.
            limit: So many at most.
            done: The STATUS words that count as done, case aside.

        Raises:
            ValueError: An argument makes no sense: a PO is in no row, there is no such column.
        """
        from eventcsv.run.choice import Choice  # the operator side
        from eventcsv.run.plan import plan  # the same

        choice = Choice.of(only=only, status=status, order_by=order_by, limit=limit)
        return plan(self._compactor.project(), self.log, choice, done, csv_path=self.csv_path)

    def columns(self) -> list[str]:
        """Return the names of the columns of the CSV, by the log's present end. Writes nothing."""
        return list(self._compactor.project().table.names)

    def doubtful_statuses(self, *, done: Collection[str] = DONE) -> dict[str, int]:
        """Return what stands in STATUS of a list before its first run that is no word of ours, or says done.

        A list may have a STATUS that means something else. A run would write over it, and leave out what it calls done.

        Args:
            done: The STATUS words that count as done, case aside.

        Returns:
            How many POs have each such text; nothing once the log has a result that sets this column.
        """
        from eventcsv.view.first_run import doubtful_statuses, has_results

        if has_results(self.log, self.status_column):
            return {}
        return doubtful_statuses(self._compactor.project().table, done)

    def progress(self, *, done: Collection[str] = DONE) -> Progress:
        """Return how far the job is, by the log's present end. Writes nothing, and disturbs no session.

        Args:
            done: The STATUS words that count as done, case aside.
        """
        session = self.session_holder()
        self._begin_to_check()
        from eventcsv.view.progress import progress_of

        return progress_of(self._compactor, session, done)

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
        from eventcsv.run.session import Session as Made

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
        """Begin a new segment of the log, and seal the one before; return where it begins."""
        return self.log.new_segment()

    def backups(self) -> list[Backup]:
        """Return the backups, the newest first, without those whose metadata is damaged."""
        if not (known := self._compactor.backups()):
            self._check_csv_exists()
        return known

    def back_up(self) -> Backup:
        """Bring the CSV up to date and keep a copy of it, which is never removed automatically.

        Raises:
            BackupError: What is read back is not what was written.
        """
        from eventcsv.view.retention import ASKED

        made = self._compactor.back_up(ASKED).base
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
        """
        from eventcsv.view.verify import verify

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
            UnsafePath: `output` names what must not be replaced.
            OSError: The disk said no; the old page, if any, is whole.
        """
        from eventcsv.report.page import write_report

        return write_report(
            self._compactor,
            self.session_holder(),
            output,
            done=done,
            unmasked=unmasked,
            force=force,
            on_progress=on_progress,
        )

    def prune(self, *, dry_run: bool = False) -> PruneResult:
        """Remove the segments of the log that no kept backup needs. The history of POs gets shorter by them.

        Args:
            dry_run: Only tell what would be removed.

        Returns:
            What was removed, or would be.

        Raises:
            SessionActive: A session is at work.
            OSError: The disk said no; what was not removed is still there.
        """
        from eventcsv.view.prune import prune

        self._check_job()
        with nullcontext() if dry_run else self._session_lock.held("prune"):
            return prune(self._compactor, dry_run=dry_run)

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
            OSError: The disk said no; what was at `target` is still there.
        """
        from eventcsv.formats.export import export

        return export(self._compactor, target, file_format=file_format, force=force)

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
        from eventcsv.formats.import_workbook import import_workbook

        return import_workbook(
            os.path.abspath(workbook),
            self.csv_path,
            key=self.key,
            sheet=sheet,
            has_job=self._storage.exists(self.log_dir) or bool(self._compactor.backups()),
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
        """
        wanted = key_of(key)
        self._check_job()
        yield from history(self.log, wanted, since=since, on_damage=on_damage)

    def _begin_to_check(self) -> None:
        """Make use of the time that it takes to load Polars, unless it is loaded."""
        if "_compactor" not in self.__dict__:
            begin_to_check(self.log, self._storage)

    @cached_property
    def _compactor(self) -> Compactor:
        check_name(self.csv_path)
        from eventcsv.view.backup import BackupStore
        from eventcsv.view.compactor import Compactor
        from eventcsv.view.job_files import JobFiles

        backups = BackupStore(self.backup_dir, self.csv_path, self._storage)
        return Compactor(JobFiles(self.csv_path, self.log, backups, self._storage, self._options))
