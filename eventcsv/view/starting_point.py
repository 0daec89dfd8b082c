"""Where a compaction starts: from the CSV that is there, from one that somebody edited, or from a base.

The choice is made here and nothing is written; `compactor` projects onto what is chosen and publishes the result.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from eventcsv import masking
from eventcsv.errors import BackupError, InvalidCsv
from eventcsv.event import BLANKS, MOVES, InFlight, in_flight_after
from eventcsv.log.scan import events
from eventcsv.table.read_ahead import Ahead
from eventcsv.view.projection import StartingPoint, project
from eventcsv.view.retention import FIRST
from eventcsv.view.saves import NONE_LEFT, save_id, start_from_save

if TYPE_CHECKING:
    from eventcsv.log.types import LogEnd
    from eventcsv.table.frames import Parsed
    from eventcsv.table.table import Table
    from eventcsv.view.backup import Backup
    from eventcsv.view.checkpoint import Checkpoint, CsvVersion
    from eventcsv.view.job_files import JobFiles
    from eventcsv.view.projection import Projection

_SEEN_BYTES: Final = 64 << 20  # so much of the log is kept parsed, some 300 MB, rather than parsed twice


class StartingPoints:
    """Finds where to start from, for one job.

    Args:
        files: The files of the job; nothing is written to them.
    """

    def __init__(self, files: JobFiles) -> None:
        self._files = files
        self._log = files.log
        self._backups = files.backups

    def of_compaction(self, end: LogEnd, *, accept_edit: bool = False) -> StartingPoint:
        """Start from the CSV that is there, as far as it can be told what is in it."""
        files = self._files
        current = files.current()
        digest = sha256(current).hexdigest() if current is not None else ""
        newest, saved = files.newest_base(), files.checkpoint.saved
        if newest and newest.saved == digest and newest.sha256 != digest:
            # This save was taken over, and whoever did it was stopped before the outcome was in its place.
            return replace(self.from_backup(newest, current, end, ""), rebuilt=None, edit=newest.edit)
        table = None
        if current is not None and saved and (version := saved.view(digest)):
            with suppress(InvalidCsv):  # it is told below, unless a rebuild takes its place
                # Before the check, whose part of the log a thread may be reading; of no effect when that fails.
                table = files.table_of_version(current, version)
        checkpoint, flaw = files.valid_checkpoint(end)
        if checkpoint is None or current is None:
            return self._from_base(current, end, flaw if current is not None else "the CSV was gone")
        version = checkpoint.view(digest)
        if version is None:
            return self._from_save(end, files.options.delimiter or checkpoint.delimiter, accept_edit=accept_edit)
        if checkpoint.guard_formulas != files.options.guard_formulas:
            return self._from_base(current, end, "the guard against formulas was turned on or off")
        return self._from_version(version, checkpoint, newest, current, table)

    def _from_version(
        self, version: CsvVersion, checkpoint: Checkpoint, newest: Backup | None, current: bytes, table: Table | None
    ) -> StartingPoint:
        """Start from the CSV, which the checkpoint knows."""
        base, since, crc, new_base = checkpoint.base, checkpoint.since, version.crc, None
        if newest is None or newest.name != checkpoint.base or not self._backups.is_there(newest):
            # A replay would start from another base than this version grew from, unless a kill came between that base
            # and its checkpoint: then it is this very version.
            since, crc = version.position, 0
            if newest and newest.position == version.position and newest.sha256 == version.sha256:
                base = newest.name
            else:
                new_base = NONE_LEFT
        return StartingPoint(
            data=current,
            digest=version.sha256,
            table=table or self._files.table_of_version(current, version),
            position=version.position,
            since=since,
            crc=crc,
            unknown=frozenset(version.unknown),
            in_flight=version.in_flight,
            current=current,
            delimiter=self._files.options.delimiter or checkpoint.delimiter,
            encoding=version.encoding,
            base=base,
            new_base=new_base,
            beginning=newest.beginning if newest else None,
        )

    def _from_save(self, end: LogEnd, delimiter: str | None, *, accept_edit: bool) -> StartingPoint:
        """Start from what the CSV is by the log, with what somebody changed who saved it."""
        current = self._files.settled()
        seen: list[Parsed] = []
        save = save_id(self._files, current)
        known = self.known(end, seen, without=save)
        return start_from_save(
            self._files, current, end, known, seen, save=save, delimiter=delimiter, accept_edit=accept_edit
        )

    def known(self, end: LogEnd, seen: list[Parsed] | None = None, *, without: str | None = None) -> Projection | None:
        """Return what the CSV is by the log alone, whatever it holds; None when there is no base to tell.

        Args:
            end: The log's end.
            seen: What was read of the log for it is added, unless that is too much to keep.
            without: What the ids of edits begin with that are left out.
        """
        start = self._held(end) or self._from_newest(None, end, "", has_to_be_read=True)
        if start is None:
            return None
        if self._log.size_bytes(start.position, end.position) > _SEEN_BYTES:
            seen = None
        guard = self._files.options.guard_formulas
        return project(start, end, self._log, guard_formulas=guard, seen=seen, without=without)

    def _held(self, end: LogEnd) -> StartingPoint | None:
        """Start from the table that is kept, when it is known to be the newest version."""
        files, saved = self._files, self._files.checkpoint.saved
        if saved is None or saved != files.checkpoint.verified or saved.guard_formulas != files.options.guard_formulas:
            return None
        latest = saved.latest
        table = files.held(latest.sha256)
        if table is None or latest.encoding is not None or latest.position > end.position:
            return None
        return StartingPoint(
            data=b"",
            table=table,
            position=latest.position,
            since=saved.since,
            crc=latest.crc,
            unknown=frozenset(latest.unknown),
            in_flight=latest.in_flight,
            current=None,
            delimiter=saved.delimiter,
        )

    def _from_newest(
        self, current: bytes | None, end: LogEnd, reason: str, *, has_to_be_read: bool = False
    ) -> StartingPoint | None:
        """Start from the newest base that is whole; of the others it is told that they are not.

        When there is none, and one could not even be read, that is raised if it has to be: it may be read yet.
        """
        unread = None
        for base in self._files.bases():
            try:
                return self.from_backup(base, current, end, reason)
            except (BackupError, InvalidCsv) as error:
                masking.get_logger().error("backup.damaged", backup=base.path, error=str(error))
                unread = error if isinstance(error.__cause__, OSError) else unread
        if unread and has_to_be_read:
            raise unread
        return None

    def _from_base(self, current: bytes | None, end: LogEnd, reason: str) -> StartingPoint:
        """Start from the newest valid base; a CSV that has none becomes one itself."""
        if start := self._from_newest(current, end, reason):
            return start
        if current is None:
            raise InvalidCsv(
                f"{self._files.csv_path}: there is no such file, "
                f"and no backup in {self._backups.directory} to rebuild it"
            )
        table = self._files.parse(current)
        first = self._log.first()
        return StartingPoint(
            data=current,
            table=table,
            position=first,
            since=first,
            current=current,
            delimiter=self._files.options.delimiter,
            encoding=self._files.options.encoding,
            new_base=FIRST,
        )

    def of_replay(self, end: LogEnd) -> StartingPoint:
        if self._files.checkpoint.saved is not None and self._files.newest_base() is None:
            raise BackupError(
                f"{self._backups.directory}: has no backup of this log to replay from, though there was one. "
                "Name its directory: --backup-dir, or EVENTCSV_BACKUP_DIR"
            )
        return self._from_base(self._files.current(), end, "asked for")

    def of_replay_from(self, name: str, end: LogEnd) -> StartingPoint:
        """Start from the backup that was asked for; unless it is the newest base, it becomes that for later replays."""
        backup = self._backups.find(name)
        if backup.log not in {self._files.identity(), None}:
            raise BackupError(
                f"{backup.path}: is of another log, so nothing here can be folded onto it; "
                "it can be restored as it is (backup restore --no-replay)"
            )
        start = self.from_backup(backup, self._files.current(), end, "asked for")
        return start if backup == self._files.newest_base() else replace(start, new_base=f"replayed from {backup.name}")

    def of_restoration(self, name: str, end: LogEnd) -> StartingPoint:
        """Start from exactly a backup, as if the log ended where it came from."""
        backup = self._backups.find(name)
        data = self._backups.read(backup)
        return StartingPoint(
            data=data,
            table=self._files.table_of(backup, data),
            position=end.position,
            since=end.position,
            in_flight=self._in_flight(end),
            current=self._files.current(),
            delimiter=backup.delimiter,
            encoding=backup.encoding,
            beginning=end.position,
            exact=True,
            new_base=f"restored from {backup.name}",
            rebuilt=f"restored from {backup.name} without the log after it",
        )

    def _in_flight(self, end: LogEnd) -> tuple[InFlight, ...]:
        """Return what is in flight at the log's end, whatever state the CSV is in."""
        checkpoint, _ = self._files.valid_checkpoint(end)
        start, known = self._log.first(), tuple[InFlight, ...]()
        if checkpoint:
            start, known = checkpoint.latest.position, checkpoint.latest.in_flight
        in_flight = {item.key: item for item in known}
        for chunk in self._log.read(start, end.position):
            for event in events(chunk)[0]:
                key = event.key.strip(BLANKS)
                if event.kind not in MOVES:
                    continue
                in_flight.pop(key, None)
                if item := in_flight_after(event, key):
                    in_flight[key] = item
        return tuple(in_flight.values())

    def from_backup(self, base: Backup, current: bytes | None, end: LogEnd, reason: str) -> StartingPoint:
        if base.position is None:
            raise BackupError(
                f"{base.path}: keeps a CSV whose place in the log is not known; "
                "it can be restored as it is (backup restore --no-replay), not replayed"
            )
        if base.position > end.position:
            raise BackupError(f"{base.path}: belongs to a place that the log does not reach")
        if not self._log.starts_line(base.position):
            raise BackupError(f"{base.path}: belongs to a place that is no line of this log; was the log replaced?")
        try:
            data = self._backups.read(base)
        except OSError as error:
            if error.errno != errno.EIO:  # the others can be mended; a sector that went bad cannot
                raise
            raise BackupError(f"{base.path}: cannot be read: {error.strerror}. Is the disk failing?") from error
        ahead = Ahead(self._log.read(base.position, end.position))
        try:
            table = self._files.table_of(base, data)
        except InvalidCsv:
            ahead.close()
            raise
        return StartingPoint(
            data=data,
            table=table,
            ahead=ahead,
            position=base.position,
            since=base.position,
            unknown=frozenset(base.unknown),
            in_flight=base.in_flight,
            current=current,
            delimiter=base.delimiter,
            encoding=base.encoding,
            base=base.name,
            beginning=base.beginning,
            rebuilt=f"from {base.name} and the log after it: {reason}",
        )
