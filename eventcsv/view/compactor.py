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
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import polars as pl

from eventcsv import masking
from eventcsv.errors import EventCsvError, InvalidCsv, InvalidEvent
from eventcsv.event import LONGEST_CELL, Event, Kind, encode, utc_text
from eventcsv.storage.network import network_file_system_of
from eventcsv.table.cells import cell_text
from eventcsv.view.backup import EDITED, SESSION
from eventcsv.view.projection import fold_onto
from eventcsv.view.publisher import Publisher
from eventcsv.view.starting_point import EditedMeanwhile, Origins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventcsv.event import InFlight
    from eventcsv.log.interface import ProgressCallback
    from eventcsv.log.reader import LogEnd
    from eventcsv.log.scan import Damage, Position
    from eventcsv.table.table import Table
    from eventcsv.view.backup import Backup
    from eventcsv.view.edits import Edit
    from eventcsv.view.projection import Folded
    from eventcsv.view.starting_point import Origin


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
        edited: Whether somebody had saved the CSV; what became of that is the new base, kept in `base`.
        stale: How many rows of what was saved were older than their results, which they kept.
        rebuilt: Why the whole log was replayed, or None when only what was new was folded.
        unknown: Keys that are in no row, with the number of their results folded this time. They stay in the log.
        late: Keys whose rows were added to the CSV after their results were recorded; those results are in it now.
        added_columns: Columns that the CSV lacked.
        over_long: Cells, as "key column", with more characters than a spreadsheet takes: it would cut them when it
            saves. Told when the CSV was written.
        damage: What is damaged in the part of the log that was read.
        torn: Lines that a crash had cut off. Normal after one: they were never acknowledged.
        in_flight: The POs that were taken up and have no result yet.
        position: How far the log is in the CSV.
        base: The backup made as the base of later replays, or None.
        kept: The backup of a CSV that a rebuild replaced, or None.
        duration_s: How long it took, in seconds.
        edit: What the save did that was taken over, or None.
        overtaken: What saves before it did, as the CSV was saved once more while they were taken over.
        notes: What else changed with the CSV when it was replaced, in words: rights that could not be kept, names
            that went stale.
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
    over_long: tuple[str, ...]
    damage: tuple[Damage, ...]
    torn: tuple[Damage, ...]
    in_flight: tuple[InFlight, ...]
    position: Position
    base: Backup | None
    kept: Backup | None
    duration_s: float
    edit: Edit | None = None
    overtaken: tuple[Edit, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def edits(self) -> tuple[Edit, ...]:
        """What all the saves did that were taken over, in their order."""
        return (*self.overtaken, *([self.edit] if self.edit else []))


class Compactor:
    """Keeps one CSV up to date with its log.

    Between calls it holds the CSV in memory, so that a live run parses it once. Safe for threads.

    Args:
        origins: What the CSV, its log and its backups are, and where to start from.

    Attributes:
        origins: What it was given.
        publisher: Puts the CSV in place.
    """

    def __init__(self, origins: Origins) -> None:
        self._mutex = threading.RLock()
        self._is_medium_known = False
        self.origins = origins
        self._csv_path = origins.csv_path
        self._log = origins.log
        self._backups = origins.backups
        self._storage = origins.storage
        self.publisher = Publisher(origins)
        self._lock_path = os.path.join(self._log.directory, "compact.lock")

    def compact(self, *, accept_edit: bool = False, on_progress: ProgressCallback | None = None) -> CompactResult:
        """Bring the CSV up to the log's present end.

        Args:
            accept_edit: Take a save over even if it does away with many results.
            on_progress: Called with the bytes of the log folded so far and those to fold.

        Raises:
            InvalidCsv: The CSV cannot be read or replaced, or is gone and has no backup; it was left as it is.
            LockTimeout: Another process compacts.
            OSError: The disk said no; the CSV is whole, the old one or already the new one.
        """
        self.check()
        result = self._exclusively(lambda end: self.origins.of_compaction(end, accept_edit=accept_edit), on_progress)
        if result.base:
            self._retain()
        return result

    def _retain(self) -> None:
        """Remove old backups; what they were for has been done, so trouble with them is no failure of that."""
        try:
            with self.alone(dry_run=False):
                for removed in self._backups.retain(self.origins.identity(), self._log.first()):
                    masking.get_logger().info("backup.removed", backup=removed.path)
        except (OSError, EventCsvError) as error:
            masking.get_logger().warning("backup.not_removed", directory=self._backups.directory, error=str(error))

    def keep(self, reason: str, session: str | None = None, *, accept_edit: bool = False) -> CompactResult:
        """Bring the CSV up to date and keep a copy of it, as the base of later replays.

        Args:
            reason: Why, in words.
            session: What the copy is named after; by default something random.
            accept_edit: Take a save over even if it does away with many results.

        Returns:
            What was done, with the copy as `base`; `damage` and counts are those of bringing it up to date.

        Raises:
            BackupError: What was read back is not what was written.
            InvalidCsv: The CSV cannot be read or replaced, or is gone and has no backup; it was left as it is.
            LockTimeout: Another process compacts.
            OSError: The disk said no.
        """

        def as_base(end: LogEnd) -> Origin:
            origin = self.origins.of_compaction(end)
            return replace(origin, since=origin.position, crc=0, new_base=reason, session=session)

        self.check()
        with self._mutex:
            before = None
            if self._log.exists():
                before = self._exclusively(lambda end: self.origins.of_compaction(end, accept_edit=accept_edit))
            result = self._exclusively(as_base)
            return replace(before, base=result.base, position=result.position) if before else result

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
        if dry_run or not self._log.exists():
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

    def begin(self, session: str, *, accept_edit: bool = False) -> CompactResult:
        """Bring the CSV up to date and keep a copy of it for a session that begins; old copies go."""
        self._log.finish_seals()
        self._retain()  # sessions that were killed early may have left more
        result = self.keep(SESSION, session, accept_edit=accept_edit)
        self._retain()
        return result

    def check(self) -> None:
        """Refuse a CSV that cannot be worked on before anything is made beside it.

        Raises:
            InvalidCsv: It cannot be read or replaced, or is gone and has no backup.
        """
        self._check_writable()
        self._check_before_first()
        if not self._is_medium_known:
            self._is_medium_known = True
            if kind := network_file_system_of(self._log.directory):
                masking.get_logger().warning("log.network_file_system", log=self._log.directory, type=kind)

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
                saved = self.publisher.load()
                end = self._log.end()
                try:
                    folded = self._fold(self.origins.of_compaction(end), end)
                except EditedMeanwhile:
                    continue
                except InvalidCsv as error:
                    known = self.origins.known(end) if saved else None
                    if known is None or self.publisher.saved() != saved:
                        raise
                    return replace(known, trouble=str(error))
                origin = folded.origin
                if saved and origin.new_base == EDITED and self.publisher.saved() != saved:
                    continue  # no edit: a compaction elsewhere came between the two looks
                resident = self.origins.resident
                if origin.data == origin.current and not (resident and resident[1] is origin.table):
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
            InvalidCsv: The backup cannot be read as a CSV: it keeps what somebody had broken.
            LockTimeout: Another process compacts.
            OSError: The disk said no; the CSV is whole, the old one or already the new one.
        """
        with self._mutex:
            self._backups.read(self._backups.find(backup))  # one that is damaged is refused before anything is made
            kept = None
            with suppress(InvalidCsv):  # then it cannot be brought up to date, but is kept as it is all the same
                kept = self.keep(f"before a restore of {os.path.basename(backup)}").base
            if replay:
                result = self._exclusively(lambda end: self.origins.of_replay_from(backup, end))
            else:
                result = self._exclusively(lambda end: self.origins.of_restoration(backup, end))
            return replace(result, kept=kept or result.kept)

    def replay(self, backup: str | None = None, *, on_progress: ProgressCallback | None = None) -> CompactResult:
        """Rebuild the CSV from a base and the log after it, whatever the CSV holds now.

        Args:
            backup: The name of the backup to start from; by default the newest valid base.
            on_progress: Called with the bytes of the log folded so far and those to fold.

        Raises:
            BackupError: There is no such backup, or it is damaged, or it is no base.
            InvalidCsv: There is no base, and the CSV cannot serve as one.
            LockTimeout: Another process compacts.
            OSError: The disk said no; the CSV is whole, the old one or already the new one.
        """
        self.check()
        if backup is None:
            return self._exclusively(self.origins.of_replay, on_progress)
        self._backups.find(backup)  # an unknown one is refused before anything is made
        return self._exclusively(lambda end: self.origins.of_replay_from(backup, end), on_progress)

    def _exclusively(
        self, starting_point: Callable[[LogEnd], Origin], on_progress: ProgressCallback | None = None
    ) -> CompactResult:
        clock = time.perf_counter()
        overtaken: list[Edit] = []
        self._check_writable()
        self._log.make()
        self._log.check_key_column()
        with self._mutex, self._storage.locked(self._lock_path, self._log.lock_timeout_s):
            for _ in range(_ATTEMPTS):
                self.publisher.clear_interrupted()
                self._backups.clear_interrupted()
                self.publisher.load()
                end, origin = self._log.end(), None
                try:
                    origin = starting_point(end)
                    if origin.lines:
                        self._record(origin)
                        end = self._log.end()
                    result = self._publish(self._fold(origin, end, on_progress))
                except EditedMeanwhile:
                    if origin and origin.edit:
                        overtaken.append(self._told(origin.edit, self.origins.base_of_save(origin.saved)))
                    masking.get_logger().info("view.edited_meanwhile", csv=self._csv_path)
                except (OSError, EventCsvError):
                    with suppress(OSError, EventCsvError):
                        self.publisher.clear_interrupted()
                    raise
                else:
                    return replace(result, overtaken=tuple(overtaken), duration_s=time.perf_counter() - clock)
        raise EventCsvError(
            f"{self._csv_path}: was edited each of the {_ATTEMPTS} times that it was about to be replaced. "
            "Save it less often, or wait"
        )

    def _record(self, origin: Origin) -> None:
        """Append what people changed to the log: a line for each row, which a crash leaves whole or out."""
        ts = utc_text(datetime.now(UTC))
        events = [
            Event(f"{origin.save}{number}", ts, Kind.EDIT.value, key, cells)
            for number, (key, cells) in enumerate((origin.lines or {}).items(), 1)
        ]
        self._log.append_all([event for event in events if _fits(event)])

    def _fold(self, origin: Origin, end: LogEnd, on_progress: ProgressCallback | None = None) -> Folded:
        return fold_onto(origin, end, self._log, guard_formulas=self.origins.guard_formulas, on_progress=on_progress)

    def _publish(self, folded: Folded) -> CompactResult:
        for item in folded.damage:
            masking.get_logger().warning("log.damage", place=str(item), log=self._log.place)
        for item in folded.torn:
            if item != folded.end.torn:  # that one may be a line that is being written now
                masking.get_logger().info("log.torn", place=str(item), log=self._log.place)
        changed, base, kept = self.publisher.publish(folded)
        origin, table = folded.origin, folded.table
        edit = origin.edit and self._told(origin.edit, base)
        return CompactResult(
            csv_path=self._csv_path,
            events=folded.events,
            rows=table.rows.height,
            by_status=_by_status(table),
            changed=changed,
            edited=edit is not None,
            stale=edit.stale if edit else 0,
            rebuilt=origin.rebuilt,
            unknown=folded.unknown,
            late=tuple(sorted(folded.late)),
            added_columns=table.names[len((origin.known or origin).table.names) :] if not edit else (),
            over_long=tuple(_over_long(table)) if changed else (),
            damage=folded.damage,
            torn=folded.torn,
            in_flight=folded.in_flight,
            position=folded.end.position,
            base=base,
            kept=kept,
            duration_s=0.0,
            edit=edit,
            notes=self.publisher.notes if changed else (),
        )

    def _told(self, edit: Edit, base: Backup | None) -> Edit:
        """Log what a save did, and return it with the name of what keeps it as it was saved."""
        told = replace(edit, copy=base.edit.copy if base and base.edit else edit.copy)
        masking.get_logger().info(
            "view.edited",
            csv=self._csv_path,
            cells=told.cells,
            met=len(told.met),
            added=len(told.added),
            removed=len(told.removed),
            stale=told.stale,
            copy=told.copy,
        )
        return told

    def _check_before_first(self) -> None:
        """Refuse a CSV that cannot be read before anything is made beside it."""
        if self._log.exists():
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
        if obstacle := self._storage.obstacle(self._csv_path):
            raise InvalidCsv(f"{self._csv_path}: {obstacle}")


def _fits(event: Event) -> bool:
    """Tell whether an edit can be a line of the log; what cannot is in the base that follows."""
    try:
        encode(event)
    except InvalidEvent as error:
        masking.get_logger().warning("edit.not_in_log", key=event.key, reason=str(error))
        return False
    return True


def _over_long(table: Table) -> Iterator[str]:
    longest_bytes = table.rows.select(pl.max_horizontal(pl.all().str.len_bytes().max())).item()
    if longest_bytes is None or longest_bytes <= LONGEST_CELL:  # as nearly always, and told at once
        return
    lengths = table.rows_as_text().select(pl.all().str.len_chars())
    for index, name in enumerate(table.names):
        if (lengths[:, index].max() or 0) > LONGEST_CELL:  # type: ignore[operator]  # a number, or None
            for row in (lengths[:, index] > LONGEST_CELL).arg_true():
                yield f"{table.keys()[row]} {name}"


def _by_status(table: Table) -> dict[str, int]:
    column = table.status_index()
    if column is None:
        return {"": table.rows.height}
    counts: Counter[str] = Counter()
    for raw, count in table.rows.get_column(str(column)).value_counts().iter_rows():
        counts[cell_text(raw)] += count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
