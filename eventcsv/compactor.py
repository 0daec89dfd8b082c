"""Compaction and replay: log + fold + view + checkpoint; `origin` finds where to start.

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
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import polars as pl

from eventcsv import checkpoint as checkpoints
from eventcsv import masking
from eventcsv.backup import SESSION
from eventcsv.checkpoint import Checkpoint, View
from eventcsv.errors import BackupError, CorruptLog, EventCsvError, InvalidCsv
from eventcsv.event import COLUMNS
from eventcsv.fold import Fold
from eventcsv.log import CHECKPOINT_NAME
from eventcsv.origin import EDITED, EditedMeanwhile, Origins
from eventcsv.view import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventcsv.backup import Backup
    from eventcsv.event import InFlight
    from eventcsv.origin import Origin
    from eventcsv.scan import Damage, Position
    from eventcsv.segments import LogEnd
    from eventcsv.view import Table

    ProgressCallback = Callable[[int, int], None]


_ATTEMPTS: Final = 10


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
        torn: Lines that a crash had cut off. Normal after one: they were never acknowledged.
        in_flight: The POs that were taken up and have no result yet.
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
    torn: tuple[Damage, ...]
    in_flight: tuple[InFlight, ...]
    position: Position
    base: Backup | None
    kept: Backup | None
    duration_s: float


@dataclass(frozen=True, slots=True)
class Folded:
    """The CSV as the log says that it should be.

    Attributes:
        origin: Where the fold started.
        table: The result.
        end: The log's end, up to which was folded.
        crc: zlib.crc32 of the log from the origin's `since` to there.
        events: How many results were folded.
        unknown: For each key that is in no row, how many of them.
        late: Keys whose rows were added after their results were recorded.
        in_flight: The POs that were taken up and have no result yet.
        damage: What is damaged in the part of the log that was read.
        torn: The lines in it, or behind it, that a crash had cut off.
    """

    origin: Origin
    table: Table
    end: LogEnd
    crc: int
    events: int
    unknown: dict[str, int]
    late: frozenset[str]
    in_flight: tuple[InFlight, ...]
    damage: tuple[Damage, ...]
    torn: tuple[Damage, ...]


class Compactor:
    """Keeps one CSV up to date with its log.

    Between calls it holds the CSV in memory, so that a live run parses it once. Safe for threads.

    Args:
        origins: What the CSV, its log and its backups are, and where to start from.

    Attributes:
        on_progress: Called with the bytes of the log folded so far and those to fold.
        origins: What it was given.
        checkpoint_path: The checkpoint.
    """

    def __init__(self, origins: Origins) -> None:
        self.on_progress: ProgressCallback | None = None
        self._mutex = threading.RLock()
        self.origins = origins
        self._csv_path = origins.csv_path
        self._log = origins.log
        self._backups = origins.backups
        self._storage = origins.storage
        self._guard_formulas = origins.guard_formulas
        directory, name = os.path.split(self._csv_path)
        self._temporary = os.path.join(directory, f".{name}.eventcsv.tmp")
        self.checkpoint_path = os.path.join(self._log.directory, CHECKPOINT_NAME)
        self._lock_path = os.path.join(self._log.directory, "compact.lock")

    def compact(self) -> CompactResult:
        """Bring the CSV up to the log's present end.

        Raises:
            InvalidCsv: The CSV cannot be read, is read-only, or is gone and has no backup; it was left as it is.
            LockTimeout: Another process compacts.
            OSError: The disk said no; the CSV is the old one.
        """
        self.check()
        result = self._exclusively(self.origins.of_compaction)
        if result.base:
            self._backups.retain(self.origins.identity())
        return result

    def keep(self, reason: str, session: str | None = None) -> CompactResult:
        """Bring the CSV up to date and keep a copy of it, as the base of later replays.

        Args:
            reason: Why, in words.
            session: What the copy is named after; by default something random.

        Returns:
            What was done, with the copy as `base`; `damage` and counts are those of bringing it up to date.

        Raises:
            BackupError: What was read back is not what was written.
            InvalidCsv: The CSV cannot be read, is read-only, or is gone and has no backup; it was left as it is.
            LockTimeout: Another process compacts.
            OSError: The disk said no.
        """

        def as_base(end: LogEnd) -> Origin:
            origin = self.origins.of_compaction(end)
            return replace(origin, since=origin.position, crc=0, new_base=reason, session=session)

        self.check()
        with self._mutex:
            before = self._exclusively(self.origins.of_compaction) if self._log.segments() else None
            result = self._exclusively(as_base)
            return replace(before, base=result.base, position=result.position) if before else result

    def load(self) -> Checkpoint | None:
        """Take note of the checkpoint as it is on disk, and return it."""
        self.origins.saved = self.saved()
        return self.origins.saved

    def has_checkpoint(self) -> bool:
        """Tell whether there is a checkpoint, damaged or not."""
        return self._storage.stat(self.checkpoint_path) is not None

    def folded_from(self, base: Backup, end: LogEnd) -> Folded:
        """Return what a replay from a base up to a place in the log gives. Writes nothing.

        Raises:
            BackupError: The base is damaged.
            InvalidCsv: The base cannot be read.
        """
        return self._fold(self.origins.from_backup(base, None, end, "verified"), end)

    @contextmanager
    def alone(self, *, dry_run: bool) -> Iterator[None]:
        """Keep other compactions away, unless nothing will be changed."""
        if dry_run or not self._log.segments():
            yield
            return
        with self._mutex, self._storage.locked(self._lock_path, self._log.lock_timeout_s):
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

    def begin(self, session: str) -> CompactResult:
        """Bring the CSV up to date and keep a copy of it for a session that begins; old copies go."""
        result = self.keep(SESSION, session)
        for removed in self._backups.retain(self.origins.identity()):
            masking.get_logger().info("backup.removed", backup=removed.path)
        return result

    def check(self) -> None:
        """Refuse a CSV that cannot be worked on before anything is made beside it.

        Raises:
            InvalidCsv: It cannot be read, is read-only, or is gone and has no backup.
        """
        self._check_writable()
        self._check_before_first()

    def fingerprint(self) -> tuple[object, ...]:
        """Return something that changes when the log grows or the CSV is edited, at the cost of some system calls."""
        status = self._storage.stat(self._csv_path)
        view = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) if status else ()
        return (self._log.end().position, *view)

    def peek(self) -> Folded:
        """Return what the CSV would be if it were brought up to date now. Writes nothing.

        Raises:
            InvalidCsv: The CSV cannot be read, or is gone and has no backup.
            UnsupportedFormat: The log was made by a newer eventcsv or for another key column.
        """
        with self._mutex:
            self._log.check_key_column()
            for _ in range(_ATTEMPTS):
                self.origins.saved = saved = self.saved()
                end = self._log.end()
                try:
                    folded = self._fold(self.origins.of_compaction(end), end)
                except EditedMeanwhile:
                    continue
                origin = folded.origin
                if saved and origin.new_base == EDITED and self.saved() != saved:
                    continue  # no edit: a compaction elsewhere came between the two looks
                if origin.data == origin.current:
                    self.origins.resident = (sha256(origin.data).hexdigest(), origin.table)
                return folded
        raise EventCsvError(f"{self._csv_path}: changes too often to be read. Wait, and try again")

    def restore(self, backup: str, *, replay: bool = True) -> CompactResult:
        """Put a backup in the CSV's place, what the CSV holds now being kept first.

        Args:
            backup: The name of the backup.
            replay: Whether to fold the log after it onto it. Without, it becomes a new base at the log's end.

        Returns:
            What was done, with the copy of what the CSV held before as `kept`.

        Raises:
            BackupError: There is no such backup, or it is damaged, or its place in the log is not known.
            InvalidCsv: The backup cannot be read as a CSV.
            LockTimeout: Another process compacts.
            OSError: The disk said no; the CSV is the old one.
        """
        with self._mutex:
            self._backups.read(self._backups.find(backup))  # one that is damaged is refused before anything is made
            kept = None
            in_flight: tuple[InFlight, ...] = ()
            with suppress(InvalidCsv):  # then it cannot be brought up to date, but is kept as it is all the same
                before = self.keep(f"before a restore of {os.path.basename(backup)}")
                kept, in_flight = before.base, before.in_flight
            if replay:
                result = self._exclusively(lambda end: self.origins.of_replay_from(backup, end))
            else:
                result = self._exclusively(lambda end: self.origins.of_restoration(backup, end, in_flight))
            return replace(result, kept=kept or result.kept)

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
        self.check()
        if backup is None:
            return self._exclusively(self.origins.of_replay)
        self._backups.find(backup)  # an unknown one is refused before anything is made
        return self._exclusively(lambda end: self.origins.of_replay_from(backup, end))

    def _exclusively(self, starting_point: Callable[[LogEnd], Origin]) -> CompactResult:
        clock = time.perf_counter()
        self._check_writable()
        self._log.make()
        self._log.check_key_column()
        with self._mutex, self._storage.locked(self._lock_path, self._log.lock_timeout_s):
            for _ in range(_ATTEMPTS):
                self._clear_interrupted()
                self.origins.saved = self.saved()
                end = self._log.end()
                try:
                    result = self._publish(self._fold(starting_point(end), end))
                except EditedMeanwhile:
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

    # --- fold and publish ---

    def _fold(self, origin: Origin, end: LogEnd) -> Folded:
        late = origin.unknown.intersection(origin.table.keys()) if origin.unknown else frozenset()
        before = self._fold_late(origin, late) if late else origin.table
        fold = Fold(before, guard_formulas=self._guard_formulas, in_flight=origin.in_flight)
        damage: list[Damage] = []
        crc, done = origin.crc, 0
        total = self._log.size_bytes(origin.position, end.position)
        for chunk in self._log.read(origin.position, end.position, crc=origin.crc):
            damage += fold.add(chunk)
            crc = chunk.crc
            done += len(chunk.raw)
            if self.on_progress:
                self.on_progress(done, total)
        tail = (end.torn,) if end.torn else ()
        return Folded(
            origin=origin,
            table=fold.result(),
            end=end,
            crc=crc,
            events=fold.events,
            unknown=fold.unknown,
            late=late,
            in_flight=tuple(fold.in_flight.values()),
            damage=tuple(item for item in damage if not item.torn),
            torn=(*(item for item in damage if item.torn), *tail),
        )

    def _publish(self, folded: Folded) -> CompactResult:
        """Make the CSV what the log says, and the checkpoint with it."""
        origin, table, end = folded.origin, folded.table, folded.end
        self._log.sync(origin.position, end.position)
        for item in folded.damage:
            masking.get_logger().warning("log.damage", place=str(item), log=self._log.directory)
        untouched = origin.encoding is None and table is origin.table
        data = origin.data if untouched else render(table)
        unknown = tuple(sorted((origin.unknown - folded.late).union(folded.unknown)))
        view = View(sha256(data).hexdigest(), end.position, folded.crc, unknown, folded.in_flight, encoding=None)
        base, kept = self._put_in_place(origin, data, view)
        self.origins.resident = (view.sha256, table)
        return CompactResult(
            csv_path=self._csv_path,
            events=folded.events,
            rows=table.rows.height,
            by_status=_by_status(table),
            changed=data != origin.current,
            edited=origin.new_base == EDITED,
            stale=origin.stale,
            rebuilt=origin.rebuilt,
            unknown=folded.unknown,
            late=tuple(sorted(folded.late)),
            added_columns=table.names[len(origin.table.names) :],
            damage=folded.damage,
            torn=folded.torn,
            in_flight=folded.in_flight,
            position=end.position,
            base=base,
            kept=kept,
            duration_s=0.0,
        )

    def _fold_late(self, origin: Origin, late: frozenset[str]) -> Table:
        """Fold the results that were recorded before an operator added their rows."""
        fold = Fold(origin.table, guard_formulas=self._guard_formulas, only=late)
        for chunk in self._log.read(self._log.first(), origin.position):
            fold.add(chunk)  # its damage was reported when this part was folded first
        return fold.result()

    def _put_in_place(self, origin: Origin, data: bytes, view: View) -> tuple[Backup | None, Backup | None]:
        """Put `data` in the CSV's place unless it is there; return the base and the kept copy made on the way."""
        base = kept = None
        if origin.new_base:
            base = self._keep(origin.data, origin.new_base, origin)
            origin = replace(origin, base=base.name)
        if data == origin.current:
            self._save((view,), origin)
            return base, kept
        if origin.rebuilt:
            kept = self._keep_replaced(origin.current)
        self._write_temporary(data)
        if origin.rebuilt:
            # The place of the CSV that is there is not known, so no checkpoint can name it: until the new one has
            # arrived there is none, and a run that is killed in between is a full replay again.
            self._forget()
            self._replace(origin)
            self._save((view,), origin)
        else:
            met = tuple(sorted(origin.unknown))
            digest = sha256(origin.data).hexdigest()
            present = View(digest, origin.position, origin.crc, met, origin.in_flight, origin.encoding)
            self._save((present, view), origin)
            self._replace(origin)
            if not origin.unknown.issubset(view.unknown):  # late ones are in now, and must not be folded once more
                self._store(replace(self._checkpoint(origin), views=(view,)))
        return base, kept

    def _replace(self, origin: Origin) -> None:
        if self.origins.current() != origin.current:
            raise EditedMeanwhile
        self._storage.replace(self._temporary, self._csv_path)
        self._storage.sync_directory(os.path.dirname(self._csv_path))

    def _forget(self) -> None:
        if self._storage.stat(self.checkpoint_path) is not None:
            self._storage.remove_ours(self.checkpoint_path)
            self._storage.sync_directory(self._log.directory)
        self.origins.saved = self.origins.verified = None

    def _save(self, views: tuple[View, ...], origin: Origin) -> None:
        """Write the checkpoint, unless the one that is there says the same."""
        checkpoint = replace(self._checkpoint(origin), views=views)
        saved = self.origins.saved
        if saved is None or checkpoint not in {saved, replace(saved, views=saved.views[-1:])}:
            self._store(checkpoint)
        self.origins.verified = self.origins.saved

    def _checkpoint(self, origin: Origin) -> Checkpoint:
        return Checkpoint(
            log=self.origins.identity(),
            key_column=self._log.key_column,
            guard_formulas=self._guard_formulas,
            delimiter=origin.delimiter,
            base=origin.base,
            since=origin.since,
            views=(),
        )

    def saved(self) -> Checkpoint | None:
        """Return the checkpoint as it is on disk, or None when there is none that can be believed."""
        return checkpoints.load(self._storage, self.checkpoint_path)

    def _store(self, checkpoint: Checkpoint) -> None:
        checkpoints.save(self._storage, self.checkpoint_path, checkpoint)
        self.origins.saved = self.origins.verified = checkpoint

    def _keep(self, data: bytes, reason: str, origin: Origin) -> Backup:
        return self._backups.create(
            data,
            reason=reason,
            record_count=origin.table.rows.height,
            log=self.origins.identity(),
            position=origin.position,
            session=origin.session,
            unknown=tuple(sorted(origin.unknown)),
            in_flight=origin.in_flight,
            delimiter=origin.delimiter,
            encoding=origin.encoding,
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
            count = self.origins.parse(current).rows.height
        except InvalidCsv:
            count = current.count(b"\n")  # it may be what the rebuild is to mend
        identity = self.origins.identity()
        return self._backups.create(current, reason="before a rebuild", record_count=count, log=identity, position=None)

    def _write_temporary(self, data: bytes) -> None:
        self._storage.write_new(self._temporary, data, like=self._storage.stat(self._csv_path))
        if self._storage.read_and_close(self._storage.open_regular(self._temporary, os.O_RDONLY)) != data:
            raise CorruptLog(
                f"{self._temporary}: reads back other than it was written; is the disk failing? The CSV is untouched"
            )

    def _clear_interrupted(self) -> None:
        """Remove what a compaction left that was killed."""
        for leftover in (f"{self.checkpoint_path}.tmp", self._temporary):
            self._storage.remove_ours(leftover)

    def _check_before_first(self) -> None:
        """Refuse a CSV that cannot be read before anything is made beside it."""
        if self._log.segments():
            return
        current = self.origins.current()
        if current is None:
            raise InvalidCsv(f"{self._csv_path}: there is no such file. Check the path")
        self.origins.parse(current)

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
