"""Compaction and replay, under a lock: where to start, the log folded onto it, the outcome put in the CSV's place.

To compact is to read the CSV, fold what the log has since the checkpoint, and put the result in the CSV's place:

    the log's end noted and synced          the view never shows what a power cut could still take back
    a base kept                             when this is the CSV's first compaction, or somebody edited it
    the new view written beside the CSV     synced, read back, compared
    the checkpoint written                  it names the old view and the new one
    the CSV looked at once more             edited meanwhile: start over
    the CSV replaced, its directory synced

Killed anywhere, the CSV is the old one or the new one, and the next run ends in the same bytes.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from eventcsv import masking
from eventcsv.errors import EventCsvError, InvalidCsv
from eventcsv.storage.locks import locked
from eventcsv.storage.network import network_file_system_of
from eventcsv.view.compact_result import result_of
from eventcsv.view.job_files import EditedMeanwhile
from eventcsv.view.projection import project
from eventcsv.view.publisher import Publisher
from eventcsv.view.retention import EDITED, SESSION
from eventcsv.view.saves import record, told
from eventcsv.view.starting_point import StartingPoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventcsv.log.interface import ProgressCallback
    from eventcsv.log.types import LogEnd
    from eventcsv.view.backup import Backup
    from eventcsv.view.compact_result import CompactResult
    from eventcsv.view.edits import Edit
    from eventcsv.view.job_files import JobFiles
    from eventcsv.view.projection import Projection, StartingPoint

_ATTEMPTS: Final = 10


class Compactor:
    """Keeps one CSV up to date with its log.

    Between calls it holds the CSV in memory, so that a live run parses it once. Safe for threads.

    Args:
        files: The files of the job.

    Attributes:
        files: What it was given.
        log: The event log.

    Raises:
        InvalidCsv: By whatever changes the CSV, when it cannot be read or replaced, or is gone and has no backup; it
            was left as it is.
        LockTimeout: By the same, when another process compacts.
        OSError: The disk said no; the CSV is whole, the old one or already the new one.
    """

    def __init__(self, files: JobFiles) -> None:
        self._mutex = threading.RLock()
        self._is_medium_known = False
        self.files = files
        self.log = files.log
        self._checkpoint = files.checkpoint
        self._backups = files.backups
        self._storage = files.storage
        self._starts = StartingPoints(files)
        self._publisher = Publisher(files)
        self._lock_path = os.path.join(self.log.directory, "compact.lock")

    def compact(self, *, accept_edit: bool = False, on_progress: ProgressCallback | None = None) -> CompactResult:
        """Bring the CSV up to the log's present end; see `EventCsv.compact`."""
        self.check()
        result = self._exclusively(lambda end: self._starts.of_compaction(end, accept_edit=accept_edit), on_progress)
        if result.base:
            self._retain()
        return result

    def _retain(self) -> None:
        """Remove old backups; what they were for has been done, so trouble with them is no failure of that."""
        try:
            with self.locked(dry_run=False):
                for removed in self._backups.retain(self.files.identity(), self.log.first()):
                    masking.get_logger().info("backup.removed", backup=removed.path)
        except (OSError, EventCsvError) as error:
            masking.get_logger().warning("backup.not_removed", directory=self._backups.directory, error=str(error))

    def back_up(self, reason: str, session: str | None = None, *, accept_edit: bool = False) -> CompactResult:
        """Bring the CSV up to date and keep a copy of it, as the base of later replays.

        Args:
            reason: Why, in words.
            session: What the copy is named after; by default something random.
            accept_edit: Take a save over even if it does away with many results.

        Returns:
            What was done, with the copy as `base`; `damage` and counts are those of bringing it up to date.

        Raises:
            BackupError: What was read back is not what was written.
        """

        def as_base(end: LogEnd) -> StartingPoint:
            start = self._starts.of_compaction(end)
            return replace(start, since=start.position, crc=0, new_base=reason, session=session)

        self.check()
        with self._mutex:
            before = None
            if self.log.exists():
                before = self._exclusively(lambda end: self._starts.of_compaction(end, accept_edit=accept_edit))
            result = self._exclusively(as_base)
            return replace(before, base=result.base, position=result.position) if before else result

    def projected_from(self, base: Backup, end: LogEnd) -> Projection:
        """Return what a replay from a base up to a place in the log gives. Writes nothing.

        Raises:
            BackupError: The base is damaged.
            InvalidCsv: The base cannot be read.
        """
        return self._project(self._starts.from_backup(base, None, end, "verified"), end)

    @contextmanager
    def locked(self, *, dry_run: bool) -> Iterator[None]:
        """Keep other compactions away, unless nothing will be changed."""
        if dry_run or not self.log.exists():
            yield
            return
        with self._mutex, locked(self._storage, self._lock_path, self.log.lock_timeout_s):
            yield

    def backups(self) -> list[Backup]:
        """Return the backups, the newest first."""
        return self._backups.all()

    def find(self, backup: str) -> Backup:
        """Return the backup of this name.

        Raises:
            BackupError: There is none.
        """
        return self._backups.find(backup)

    def begin_session(self, session: str, *, accept_edit: bool = False) -> CompactResult:
        """Bring the CSV up to date and keep a copy of it for a session that begins; old copies go."""
        self.log.finish_seals()
        self._retain()  # sessions that were killed early may have left more
        result = self.back_up(SESSION, session, accept_edit=accept_edit)
        self._retain()
        return result

    def check(self) -> None:
        """Refuse a CSV that cannot be worked on before anything is made beside it."""
        self.files.check_writable()
        self.files.check_before_first()
        if not self._is_medium_known:
            self._is_medium_known = True
            if kind := network_file_system_of(self.log.directory):
                masking.get_logger().warning("log.network_file_system", log=self.log.directory, type=kind)

    def fingerprint(self) -> tuple[object, ...]:
        """Return something that changes when the log grows or the CSV is edited; see `EventCsv.fingerprint`."""
        status = self._storage.stat(self.files.csv_path)
        view = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) if status else ()
        return (self.log.end().position, *view)

    def project(self) -> Projection:
        """Return what the CSV would be if it were brought up to date now. Writes nothing.

        Raises:
            InvalidCsv: The CSV cannot be read, or is gone and has no backup.
            UnsupportedFormat: The log was made by a newer eventcsv or for another key column.
        """
        with self._mutex:
            self.log.check_key_column()
            for _ in range(_ATTEMPTS):
                saved = self._checkpoint.load()
                end = self.log.end()
                try:
                    projection = self._project(self._starts.of_compaction(end), end)
                except EditedMeanwhile:
                    continue
                except InvalidCsv as error:
                    known = self._starts.known(end) if saved else None
                    if known is None or self._checkpoint.read() != saved:
                        raise
                    return replace(known, trouble=str(error))
                start = projection.start
                if saved and start.new_base == EDITED and self._checkpoint.read() != saved:
                    continue  # no edit: a compaction elsewhere came between the two looks
                if start.data == start.current and not self.files.holds(start.table):
                    self.files.hold(start.sha256, start.table)
                return projection
        raise EventCsvError(f"{self.files.csv_path}: changes too often to be read. Wait, and try again")

    def restore(self, backup: str, *, replay: bool = True) -> CompactResult:
        """Put a backup in the CSV's place, what the CSV holds now being kept first; see `EventCsv.restore`."""
        with self._mutex:
            self._backups.read(self._backups.find(backup))  # one that is damaged is refused before anything is made
            kept = None
            with suppress(InvalidCsv):  # then it cannot be brought up to date, but is kept as it is all the same
                kept = self.back_up(f"before a restore of {os.path.basename(backup)}").base
            starting_point = self._starts.of_replay_from if replay else self._starts.of_restoration
            result = self._exclusively(partial(starting_point, backup))
            return replace(result, kept=kept or result.kept)

    def replay(self, backup: str | None = None, *, on_progress: ProgressCallback | None = None) -> CompactResult:
        """Rebuild the CSV from a base and the log after it, whatever it holds now; see `EventCsv.replay`."""
        self.check()
        if backup is None:
            return self._exclusively(self._starts.of_replay, on_progress)
        self._backups.find(backup)  # an unknown one is refused before anything is made
        return self._exclusively(partial(self._starts.of_replay_from, backup), on_progress)

    def _exclusively(
        self, starting_point: Callable[[LogEnd], StartingPoint], on_progress: ProgressCallback | None = None
    ) -> CompactResult:
        clock = time.perf_counter()
        overtaken: list[Edit] = []
        self.files.check_writable()
        self.log.make()
        self.log.check_key_column()
        with self._mutex, locked(self._storage, self._lock_path, self.log.lock_timeout_s):
            for _ in range(_ATTEMPTS):
                self._publisher.clear_interrupted()
                self._backups.clear_interrupted()
                self._checkpoint.load()
                end, start = self.log.end(), None
                try:
                    start = starting_point(end)
                    if start.lines:
                        record(start, self.log)
                        end = self.log.end()
                    result = self._publish(self._project(start, end, on_progress))
                except EditedMeanwhile:
                    if start and start.edit:
                        overtaken.append(told(start.edit, self.files.base_of_save(start.saved), self.files.csv_path))
                    masking.get_logger().info("view.edited_meanwhile", csv=self.files.csv_path)
                except (OSError, EventCsvError):
                    with suppress(OSError, EventCsvError):
                        self._publisher.clear_interrupted()
                    raise
                else:
                    return replace(result, overtaken=tuple(overtaken), duration_s=time.perf_counter() - clock)
        raise EventCsvError(
            f"{self.files.csv_path}: was edited each of the {_ATTEMPTS} times that it was about to be replaced. "
            "Save it less often, or wait"
        )

    def _project(self, start: StartingPoint, end: LogEnd, on_progress: ProgressCallback | None = None) -> Projection:
        return project(start, end, self.log, guard_formulas=self.files.options.guard_formulas, on_progress=on_progress)

    def _publish(self, projection: Projection) -> CompactResult:
        for item in projection.damage:
            masking.get_logger().warning("log.damage", place=str(item), log=self.log.place)
        for item in projection.torn:
            if item != projection.end.torn:  # that one may be a line that is being written now
                masking.get_logger().info("log.torn", place=str(item), log=self.log.place)
        published = self._publisher.publish(projection)
        edit = projection.start.edit and told(projection.start.edit, published.base, self.files.csv_path)
        return result_of(self.files.csv_path, projection, published, edit)
