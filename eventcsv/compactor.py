"""Compaction and replay: log + fold + view + checkpoint.

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
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import polars as pl

from eventcsv import checkpoint as checkpoints
from eventcsv import masking
from eventcsv.checkpoint import Checkpoint, View
from eventcsv.edits import seen
from eventcsv.errors import BackupError, CorruptLog, EventCsvError, InvalidCsv
from eventcsv.event import COLUMNS, column_id
from eventcsv.fold import Fold
from eventcsv.log import CHECKPOINT_NAME
from eventcsv.view import parse, render

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventcsv.backup import Backup, BackupStore
    from eventcsv.log import FileLog
    from eventcsv.scan import Damage, Position
    from eventcsv.segments import LogEnd
    from eventcsv.storage import Storage
    from eventcsv.view import Table

    ProgressCallback = Callable[[int, int], None]

_ATTEMPTS: Final = 10
_FIRST: Final = "before the first compaction"
_EDITED: Final = "the CSV was edited"
_NONE_LEFT: Final = "no backup was left to replay from"


@dataclass(frozen=True, slots=True)
class CompactResult:
    """What a compaction or replay did.

    Attributes:
        csv_path: The CSV.
        events: How many results were folded this time.
        rows: How many rows the CSV has.
        by_status: How many of them have which STATUS, the most frequent first; "" for none yet.
        changed: Whether the CSV was written; it is not touched when nothing is new.
        edited: Whether somebody had edited the CSV; their version is the new base, kept in `base`.
        stale: How many results that version did not show, as its editor had loaded the CSV before they were recorded;
            they were folded again.
        rebuilt: Why the whole log was replayed, or None when only what was new was folded.
        unknown: Keys that are in no row, with the number of their results folded this time. They stay in the log.
        late: Keys whose rows were added to the CSV after their results were recorded; those results are in it now.
        added_columns: Columns that the CSV lacked.
        damage: What is damaged in the part of the log that was read.
        torn: An unfinished line at the log's end, or None. Normal after a crash: it was never acknowledged.
        position: How far the log is in the CSV.
        base: The backup made as the base of later replays, or None.
        kept: The backup of a CSV that a rebuild replaced, or None.
        duration_s: How long it took, in seconds.
    """

    csv_path: str
    events: int
    rows: int
    by_status: dict[str, int]
    changed: bool
    edited: bool
    stale: int
    rebuilt: str | None
    unknown: dict[str, int]
    late: tuple[str, ...]
    added_columns: tuple[str, ...]
    damage: tuple[Damage, ...]
    torn: Damage | None
    position: Position
    base: Backup | None
    kept: Backup | None
    duration_s: float


@dataclass(frozen=True, slots=True)
class _Start:
    """What a fold goes on from.

    Attributes:
        data: The bytes that `table` was read from.
        table: The CSV, or a base.
        position: The events before it are in `table`.
        since: The position of the base that `table` grew from.
        crc: zlib.crc32 of the log between the two.
        unknown: Keys of results before `position` that were in no row.
        current: The bytes of the CSV now, or None when it is gone.
        delimiter: The delimiter that had to be named.
        encoding: The encoding that had to be named to read `data`.
        base: The file name of the base that `table` grew from; "" when it becomes one itself.
        new_base: Why `data` has to be kept as a base, or None.
        rebuilt: Why the whole log is replayed, or None.
        stale: How many results the edited CSV does not show because it was loaded before they were recorded.
    """

    data: bytes
    table: Table
    position: Position
    since: Position
    crc: int
    unknown: frozenset[str]
    current: bytes | None
    delimiter: str | None
    encoding: str | None = None
    base: str = ""
    new_base: str | None = None
    rebuilt: str | None = None
    stale: int = 0


class _EditedMeanwhile(Exception):  # a signal between two methods, no error
    """The CSV changed under our hands."""


class Compactor:
    """Keeps one CSV up to date with its log.

    Between calls it holds the CSV in memory, so that a live run parses it once.

    Args:
        csv_path: The CSV, absolute.
        log: The event log.
        backups: Where bases are kept.
        storage: The seam to the file system.
        delimiter: Between cells; by default it shows.
        encoding: How to read a CSV that is not UTF-8; it is written back as UTF-8 with a byte order mark.
        guard_formulas: Put an apostrophe before text of events that a spreadsheet would take for a formula.
        settle_s: How long an edited CSV must not have changed before it is taken for saved, in seconds.
        on_progress: Called with the bytes of the log folded so far and those to fold.
    """

    def __init__(
        self,
        csv_path: str,
        log: FileLog,
        backups: BackupStore,
        storage: Storage,
        *,
        delimiter: str | None = None,
        encoding: str | None = None,
        guard_formulas: bool = True,
        settle_s: float = 1.0,
        on_progress: ProgressCallback | None = None,
    ) -> None:
        self.on_progress = on_progress
        self._csv_path = csv_path
        self._log = log
        self._backups = backups
        self._storage = storage
        self._delimiter = delimiter
        self._encoding = encoding
        self._guard_formulas = guard_formulas
        self._settle_s = settle_s
        directory, name = os.path.split(csv_path)
        self._temporary = os.path.join(directory, f".{name}.eventcsv.tmp")
        self._rebuilt = os.path.join(directory, f".{name}.eventcsv.rebuilt.tmp")
        self._checkpoint_path = os.path.join(log.directory, CHECKPOINT_NAME)
        self._lock_path = os.path.join(log.directory, "compact.lock")
        self._saved: Checkpoint | None = None  # what the file holds
        self._verified: Checkpoint | None = None  # the last one whose place in the log was checked
        self._resident: tuple[str, Table] | None = None

    def compact(self) -> CompactResult:
        """Bring the CSV up to the log's present end.

        Raises:
            InvalidCsv: The CSV cannot be read, is read-only, or is gone and has no backup; it was left as it is.
            LockTimeout: Another process compacts.
            OSError: The disk said no; the CSV is the old one.
        """
        return self._exclusively(self._starting_point)

    def replay(self, backup: str | None = None) -> CompactResult:
        """Rebuild the CSV from a base and the log after it, whatever the CSV holds now.

        Args:
            backup: The name of the backup to start from; by default the newest valid base.

        Raises:
            BackupError: There is no such backup, or it is damaged, or it is no base.
            InvalidCsv: There is no base, and the CSV cannot serve as one.
            LockTimeout: Another process compacts.
            OSError: The disk said no; the CSV is the old one.
        """
        if backup is None:
            return self._exclusively(self._from_newest_base)
        self._backups.find(backup)  # an unknown one is refused before anything is made
        return self._exclusively(lambda end: self._from_named(backup, end))

    def _exclusively(self, starting_point: Callable[[LogEnd], _Start]) -> CompactResult:
        clock = time.perf_counter()
        self._check_writable()
        self._check_before_first()
        self._log.make()
        self._log.check_key_column()
        with self._storage.locked(self._lock_path, self._log.lock_timeout_s):
            for _ in range(_ATTEMPTS):
                self._clear_interrupted()
                self._saved = checkpoints.load(self._storage, self._checkpoint_path)
                end = self._log.end()
                try:
                    result = self._fold_onto(starting_point(end), end)
                except _EditedMeanwhile:
                    masking.get_logger().info("view.edited_meanwhile", csv=self._csv_path)
                except (OSError, EventCsvError):
                    with suppress(OSError, EventCsvError):
                        self._clear_interrupted()
                    raise
                else:
                    return replace(result, duration_s=time.perf_counter() - clock)
        raise EventCsvError(
            f"{self._csv_path}: was edited each of the {_ATTEMPTS} times that it was about to be replaced. "
            "Save it less often, or wait"
        )

    # --- where to start ---

    def _starting_point(self, end: LogEnd) -> _Start:
        current = self._current()
        checkpoint, flaw = self._valid_checkpoint(end)
        if checkpoint is None or current is None:
            return self._from_base(current, end, flaw if current is not None else "the CSV was gone")
        delimiter = self._delimiter or checkpoint.delimiter
        digest = sha256(current).hexdigest()
        view = checkpoint.view(digest)
        if view is None:
            return self._from_edited(self._settled(), checkpoint, delimiter)
        if checkpoint.guard_formulas != self._guard_formulas:
            return self._from_base(current, end, "the guard against formulas was turned on or off")
        table = (
            self._resident[1]
            if self._resident and self._resident[0] == digest
            else self._parse(current, delimiter, view.encoding)
        )
        newest = self._newest_base()
        if newest and newest.name == checkpoint.base and self._backups.is_there(newest):
            since, crc, new_base = checkpoint.since, view.crc, None
        else:  # a replay would start from another base than this view grew from
            since, crc, new_base = view.position, 0, _NONE_LEFT
        return _Start(
            data=current,
            table=table,
            position=view.position,
            since=since,
            crc=crc,
            unknown=frozenset(checkpoint.unknown),
            current=current,
            delimiter=delimiter,
            encoding=view.encoding,
            base=checkpoint.base,
            new_base=new_base,
        )

    def _settled(self) -> bytes:
        """Return the CSV once it has not changed for a while: half a file that is being saved is no edit."""
        for _ in range(_ATTEMPTS):
            status = self._storage.stat(self._csv_path)
            age_s = time.time() - status.st_mtime if status else 0.0
            if not 0 <= age_s < self._settle_s:
                break
            time.sleep(self._settle_s - age_s)
        current = self._current()
        if current is None:
            raise _EditedMeanwhile
        return current

    def _from_edited(self, current: bytes, checkpoint: Checkpoint, delimiter: str | None) -> _Start:
        """Start from a CSV that somebody edited, at the place in the log that it shows it has seen."""
        masking.get_logger().info("view.edited", csv=self._csv_path)
        table = self._parse(current, delimiter, self._encoding)
        position, stale = self._seen_until(table, checkpoint.latest.position)
        return _Start(
            data=current,
            table=table,
            position=position,
            since=position,
            crc=0,
            unknown=frozenset(checkpoint.unknown),
            current=current,
            delimiter=delimiter,
            encoding=self._encoding,
            new_base=_EDITED,
            stale=stale,
        )

    def _seen_until(self, edited: Table, latest: Position) -> tuple[Position, int]:
        """Return the place in the log that an edited CSV has seen, and how many results for its rows come after it."""
        for base in reversed(list(filter(self._is_base, self._backups.all()))):
            if base.position is None or base.position >= latest:
                continue
            try:
                first = self._table_of(base, self._backups.read(base))
            except (BackupError, InvalidCsv):
                continue  # damaged; a later one will do
            found = seen(edited, first, self._log.read(base.position, latest), guard_formulas=self._guard_formulas)
            return (found.position or base.position, found.unseen) if found.unseen else (latest, 0)
        return latest, 0

    def _valid_checkpoint(self, end: LogEnd) -> tuple[Checkpoint | None, str]:
        """Return the checkpoint when it can be believed, else None and why not."""
        found = self._saved
        if found is None:
            return None, "there was no valid checkpoint"
        flaw = self._flaw(found, end)
        if flaw:
            return None, flaw
        self._verified = found
        return found, ""

    def _flaw(self, found: Checkpoint, end: LogEnd) -> str:
        newest = self._newest_base()
        if found.log != self._identity() or column_id(found.key_column) != column_id(self._log.key_column):
            return "the checkpoint was of another log"
        if any(view.position > end.position for view in found.views):
            return "the log is shorter than it was"
        if newest and newest.position and newest.position > found.latest.position:
            return "the checkpoint was older than the newest backup"
        if found != self._verified and not self._agrees(found):
            return "the log differs from what was folded before"
        return ""

    def _agrees(self, checkpoint: Checkpoint) -> bool:
        """Tell whether the log still is, byte for byte, what was folded into the views of a checkpoint."""
        return all(self._log.crc(checkpoint.since, view.position) == view.crc for view in checkpoint.views)

    def _is_base(self, backup: Backup) -> bool:
        """Tell whether a backup's place is in this log; one without a whole header is taken for the right one."""
        return backup.position is not None and self._identity() in {backup.log, None}

    def _newest_base(self) -> Backup | None:
        return next(filter(self._is_base, self._backups.all()), None)

    def _identity(self) -> str | None:
        """Return the uuid of the log, which the checkpoint knows too, should every header be damaged."""
        return self._log.identity() or (self._saved.log if self._saved else None)

    def _from_base(self, current: bytes | None, end: LogEnd, reason: str) -> _Start:
        """Start from the newest valid base; a CSV that has none becomes one itself."""
        for base in filter(self._is_base, self._backups.all()):
            try:
                return self._from_backup(base, current, end, reason)
            except (BackupError, InvalidCsv) as error:
                masking.get_logger().warning("backup.damaged", backup=base.path, error=str(error))
        if current is None:
            raise InvalidCsv(
                f"{self._csv_path}: there is no such file, and no backup in {self._backups.directory} to rebuild it"
            )
        table = self._parse(current, self._delimiter, self._encoding)
        first = self._log.first()
        return _Start(
            data=current,
            table=table,
            position=first,
            since=first,
            crc=0,
            unknown=frozenset(),
            current=current,
            delimiter=self._delimiter,
            encoding=self._encoding,
            new_base=_FIRST,
        )

    def _from_newest_base(self, end: LogEnd) -> _Start:
        if self._saved is not None and self._newest_base() is None:
            raise BackupError(
                f"{self._backups.directory}: has no backup of this log to replay from, though there was one. "
                "Name its directory: --backup-dir, or EVENTCSV_BACKUP_DIR"
            )
        return self._from_base(self._current(), end, "asked for")

    def _from_named(self, name: str, end: LogEnd) -> _Start:
        """Start from the backup that was asked for; unless it is the newest base, it becomes that for later replays."""
        backup = self._backups.find(name)
        start = self._from_backup(backup, self._current(), end, "asked for")
        return start if backup == self._newest_base() else replace(start, new_base=f"replayed from {backup.name}")

    def _from_backup(self, base: Backup, current: bytes | None, end: LogEnd, reason: str) -> _Start:
        if base.position is None:
            raise BackupError(
                f"{base.path}: keeps a CSV whose place in the log is not known; it can be restored, not replayed"
            )
        if base.position > end.position:
            raise BackupError(f"{base.path}: belongs to a place that the log does not reach")
        if not self._log.starts_line(base.position):
            raise BackupError(f"{base.path}: belongs to a place that is no line of this log; was the log replaced?")
        data = self._backups.read(base)
        table = self._table_of(base, data)
        return _Start(
            data=data,
            table=table,
            position=base.position,
            since=base.position,
            crc=0,
            unknown=frozenset(base.unknown),
            current=current,
            delimiter=base.delimiter,
            encoding=base.encoding,
            base=base.name,
            rebuilt=f"from {base.name} and the log after it: {reason}",
        )

    def _table_of(self, base: Backup, data: bytes) -> Table:
        """Return the table of a backup."""
        key = self._log.key_column
        return parse(data, source=base.path, key=key, delimiter=base.delimiter, encoding=base.encoding)

    # --- fold and publish ---

    def _fold_onto(self, start: _Start, end: LogEnd) -> CompactResult:
        self._log.sync(start.position, end.position)
        late = start.unknown.intersection(start.table.keys()) if start.unknown else frozenset()
        before = self._fold_late(start, late) if late else start.table
        fold = Fold(before, guard_formulas=self._guard_formulas)
        damage: list[Damage] = []
        crc, done = start.crc, 0
        total = self._log.size_bytes(start.position, end.position)
        for chunk in self._log.read(start.position, end.position, crc=start.crc):
            damage += fold.add(chunk)
            crc = chunk.crc
            done += len(chunk.raw)
            if self.on_progress:
                self.on_progress(done, total)
        table = fold.result()
        for item in damage:
            masking.get_logger().warning("log.damage", place=str(item), log=self._log.directory)
        untouched = start.encoding is None and table is start.table
        data = start.data if untouched else render(table)
        view = View(sha256(data).hexdigest(), end.position, crc)
        base, kept = self._publish(start, data, view, tuple(sorted((start.unknown - late).union(fold.unknown))))
        self._resident = (view.sha256, table)
        return CompactResult(
            csv_path=self._csv_path,
            events=fold.events,
            rows=table.rows.height,
            by_status=_by_status(table),
            changed=data != start.current,
            edited=start.new_base == _EDITED,
            stale=start.stale,
            rebuilt=start.rebuilt,
            unknown=fold.unknown,
            late=tuple(sorted(late)),
            added_columns=table.names[len(start.table.names) :],
            damage=tuple(damage),
            torn=end.torn,
            position=end.position,
            base=base,
            kept=kept,
            duration_s=0.0,
        )

    def _fold_late(self, start: _Start, late: frozenset[str]) -> Table:
        """Fold the results that were recorded before an operator added their rows."""
        fold = Fold(start.table, guard_formulas=self._guard_formulas, only=late)
        for chunk in self._log.read(self._log.first(), start.position):
            fold.add(chunk)  # its damage was reported when this part was folded first
        return fold.result()

    def _publish(
        self, start: _Start, data: bytes, view: View, unknown: tuple[str, ...]
    ) -> tuple[Backup | None, Backup | None]:
        """Put `data` in the CSV's place unless it is there; return the base and the kept copy made on the way."""
        base = kept = None
        if start.new_base:
            base = self._keep(start.data, start.new_base, start)
            start = replace(start, base=base.name)
        if data == start.current:
            self._save((view,), start, unknown)
            return base, kept
        if start.rebuilt:
            kept = self._keep_replaced(start.current)
            self._write_temporary(self._rebuilt, data)
            # The place of the CSV that is there is not known, so no checkpoint can name it: until the new one has
            # arrived there is none, and a run that is killed in between is a full replay again.
            self._forget()
            self._replace(self._rebuilt, start)
            self._save((view,), start, unknown)
        else:
            self._write_temporary(self._temporary, data)
            # Its name has to be as durable as the checkpoint, which is read in its light.
            self._storage.sync_directory(os.path.dirname(self._csv_path))
            self._save(
                (View(sha256(start.data).hexdigest(), start.position, start.crc, start.encoding), view), start, unknown
            )
            self._replace(self._temporary, start)
        return base, kept

    def _replace(self, temporary: str, start: _Start) -> None:
        if self._current() != start.current:
            raise _EditedMeanwhile
        self._storage.replace(temporary, self._csv_path)
        self._storage.sync_directory(os.path.dirname(self._csv_path))

    def _forget(self) -> None:
        if self._storage.stat(self._checkpoint_path) is not None:
            self._storage.remove_ours(self._checkpoint_path)
            self._storage.sync_directory(self._log.directory)
        self._saved = self._verified = None

    def _save(self, views: tuple[View, ...], start: _Start, unknown: tuple[str, ...]) -> None:
        checkpoint = Checkpoint(
            log=self._identity(),
            key_column=self._log.key_column,
            guard_formulas=self._guard_formulas,
            delimiter=start.delimiter,
            base=start.base,
            since=start.since,
            unknown=unknown,
            views=views,
        )
        if self._saved is None or checkpoint not in {self._saved, replace(self._saved, views=self._saved.views[-1:])}:
            checkpoints.save(self._storage, self._checkpoint_path, checkpoint)
            self._saved = checkpoint
        self._verified = self._saved

    def _keep(self, data: bytes, reason: str, start: _Start) -> Backup:
        return self._backups.create(
            data,
            reason=reason,
            record_count=start.table.rows.height,
            log=self._identity(),
            position=start.position,
            unknown=tuple(sorted(start.unknown)),
            delimiter=start.delimiter,
            encoding=start.encoding,
        )

    def _keep_replaced(self, current: bytes | None) -> Backup | None:
        """Keep the CSV that a rebuild is going to replace, unless a backup has the same bytes."""
        if current is None:
            return None
        digest = sha256(current).hexdigest()
        for known in self._backups.all():
            with suppress(BackupError):  # a copy that is damaged is none
                if known.sha256 == digest and self._backups.read(known) == current:
                    return known
        try:
            count = self._parse(current, self._delimiter, None).rows.height
        except InvalidCsv:
            count = current.count(b"\n")  # it may be what the rebuild is to mend
        return self._backups.create(current, reason="before a rebuild", record_count=count, log=None, position=None)

    def _write_temporary(self, path: str, data: bytes) -> None:
        self._storage.write_new(path, data, like=self._storage.stat(self._csv_path))
        if self._storage.read_and_close(self._storage.open_regular(path, os.O_RDONLY)) != data:
            raise CorruptLog(f"{path}: reads back other than it was written; is the disk failing? The CSV is untouched")

    def _clear_interrupted(self) -> None:
        """Settle what a compaction left that was killed: first which view is in place, then its temporary file."""
        self._storage.remove_ours(f"{self._checkpoint_path}.tmp")
        self._storage.remove_ours(self._rebuilt)
        if not self._storage.check_regular(self._temporary):
            return
        found = checkpoints.load(self._storage, self._checkpoint_path)
        if found is not None:
            fd = self._storage.open_regular(self._temporary, os.O_RDONLY)
            resolved = found.without(sha256(self._storage.read_and_close(fd)).hexdigest())
            if resolved != found:
                checkpoints.save(self._storage, self._checkpoint_path, resolved)
        self._storage.remove_ours(self._temporary)

    def _current(self) -> bytes | None:
        try:
            fd = self._storage.open_regular(self._csv_path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        return self._storage.read_and_close(fd)

    def _parse(self, data: bytes, delimiter: str | None, encoding: str | None) -> Table:
        return parse(data, source=self._csv_path, key=self._log.key_column, delimiter=delimiter, encoding=encoding)

    def _check_before_first(self) -> None:
        """Refuse a CSV that cannot be read before anything is made beside it."""
        if self._log.segments():
            return
        current = self._current()
        if current is None:
            raise InvalidCsv(f"{self._csv_path}: there is no such file. Check the path")
        self._parse(current, self._delimiter, self._encoding)

    def _check_writable(self) -> None:
        status = self._storage.stat(self._csv_path)
        if status is not None and not status.st_mode & 0o666:
            raise InvalidCsv(f"{self._csv_path}: permission denied to everybody. To let it be read: chmod u+rw")
        if status is not None and not status.st_mode & 0o222:
            raise InvalidCsv(
                f"{self._csv_path}: is read-only, so it was left as it is. To let it be kept up to date: chmod u+w"
            )


def _by_status(table: Table) -> dict[str, int]:
    column = table.index_of(COLUMNS["status"])
    if column is None:
        return {"": table.rows.height}
    counts = table.texts(column).alias("status").value_counts().sort(["count", "status"], descending=[True, False])
    return {str(status): int(count) for status, count in counts.select(pl.col("status"), pl.col("count")).iter_rows()}
