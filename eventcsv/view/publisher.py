"""Puts a folded CSV in the place of the one that is there: base, checkpoint, replacement.

They come in an order in which a kill between any two steps leaves the old CSV or the new one, and the next run ends in
the same bytes. What a process that was killed had put in place may have no durable name yet, so before anything is
built on it the name is made so: else a power cut could take it back and leave what was built on it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

from eventcsv import masking
from eventcsv.errors import BackupError, CorruptLog, InvalidCsv
from eventcsv.storage.rights import from_text
from eventcsv.table.reader import shows_delimiter
from eventcsv.view.backup import MOST_MET, Backup
from eventcsv.view.checkpoint import Checkpoint, CsvVersion
from eventcsv.view.job_files import EditedMeanwhile
from eventcsv.view.retention import AS_SAVED

if TYPE_CHECKING:
    from eventcsv.storage.rights import Rights
    from eventcsv.view.job_files import JobFiles
    from eventcsv.view.projection import Projection, StartingPoint


@dataclass(frozen=True, slots=True)
class Published:
    """What it took to publish a CSV.

    Attributes:
        changed: Whether the CSV was written.
        base: The base made on the way, or None.
        kept: The kept copy of a CSV that was replaced, or None.
        notes: What else changed with the CSV when it was replaced, in words.
    """

    changed: bool
    base: Backup | None
    kept: Backup | None
    notes: tuple[str, ...]


class Publisher:
    """Publishes one CSV; its caller holds the lock against other compactions.

    Args:
        files: The files of the job.
    """

    def __init__(self, files: JobFiles) -> None:
        self._files = files
        self._csv_path = files.csv_path
        self._log = files.log
        self._backups = files.backups
        self._storage = files.storage
        self._checkpoint = files.checkpoint
        self._directory, name = os.path.split(self._csv_path)
        self._temporary = os.path.join(self._directory, f".{name}.eventcsv.tmp")
        self._notes: tuple[str, ...] = ()
        self._durable: dict[str, object] = {}

    def publish(self, projection: Projection) -> Published:
        """Make the CSV what the log says, and the checkpoint with it.

        Raises:
            EditedMeanwhile: The CSV was edited since it was read; nothing was replaced.
            OSError: The disk said no; the CSV is whole, the old one or already the new one.
        """
        start, table, end = projection.start, projection.table, projection.end
        begun = (start.known.start if start.known else start).position
        self._log.sync(begun, end.position)
        self._rely_on(self._log.directory, "segment", end.position.segment)
        data = projection.data
        encoding = start.encoding if start.exact else None
        unknown = tuple(sorted(projection.rowless))
        crc = 0 if start.saved else projection.crc
        if start.saved:
            start = self._taken_over(projection, data, unknown)
        if start.delimiter is None and not shows_delimiter(table):  # a column that a result added can hide it
            start = replace(start, delimiter=table.dialect.delimiter)
        version = CsvVersion(sha256(data).hexdigest(), end.position, crc, unknown, projection.in_flight, encoding)
        base, kept = self._put_in_place(start, data, version)
        self._files.hold(version.sha256, table)
        changed = data != start.current
        return Published(changed, base, kept, self._notes if changed else ())

    def _taken_over(self, projection: Projection, data: bytes, unknown: tuple[str, ...]) -> StartingPoint:
        """Return the new base that a save becomes; the saved CSV is kept first, unless it is that, byte for byte."""
        start, copy = projection.start, None
        if start.current is not None and data != start.current:
            copy = self._keep_replaced(start.current, AS_SAVED)
        return replace(
            start,
            data=data,
            digest=None,
            table=projection.table,
            position=projection.end.position,
            since=projection.end.position,
            unknown=frozenset(unknown),
            in_flight=projection.in_flight,
            edit=start.edit and replace(start.edit, copy=copy.name if copy else None, met=start.edit.met[:MOST_MET]),
        )

    def _put_in_place(
        self, start: StartingPoint, data: bytes, version: CsvVersion
    ) -> tuple[Backup | None, Backup | None]:
        """Put `data` in the CSV's place unless it is there; return the base and the kept copy made on the way."""
        if start.base and not start.new_base:
            self._rely_on(self._backups.directory, "base", start.base)
        if start.rebuilt and data != start.current:
            return self._rebuild(start, data, version)
        base = None
        if start.new_base:
            base = self._keep(start)
            start = replace(start, base=base.name)
        if data == start.current:
            self._rely_on(self._directory, "CSV", version.sha256)
            self._save((version,), start)
            return base, None
        digest = start.sha256
        self._rely_on(self._directory, "CSV", digest)
        self._write_temporary(data)
        met = tuple(sorted(start.unknown))
        present = CsvVersion(digest, start.position, start.crc, met, start.in_flight, start.encoding)
        self._save((version,) if present.sha256 == version.sha256 else (present, version), start)
        self._replace(start)
        self._rely_on(self._directory, "CSV", version.sha256)
        if not start.unknown.issubset(version.unknown):  # late ones are in now, and must not be folded once more
            self._store(self._checkpoint_of((version,), start))
        return base, None

    def _rebuild(self, start: StartingPoint, data: bytes, version: CsvVersion) -> tuple[Backup | None, Backup | None]:
        """Put `data` in the place of a CSV whose place in the log is not known, and which is kept first."""
        kept = self._keep_replaced(start.current)
        self._write_temporary(data)
        base = None
        try:
            if start.new_base:  # from here on a replay starts from it, so nothing may be left that can well fail
                base = self._keep(start)
                start = replace(start, base=base.name)
            # No checkpoint can name the CSV that is there: until the new one has arrived there is none, and a run that
            # is killed in between is a full replay again.
            self._forget()
            self._replace(start)
        except (OSError, EditedMeanwhile):
            if base:
                with suppress(OSError):
                    self._backups.remove(base)
            raise
        self._rely_on(self._directory, "CSV", version.sha256)
        self._save((version,), start)
        return base, kept

    def _replace(self, start: StartingPoint) -> None:
        if self._files.current() != start.current:
            raise EditedMeanwhile
        try:
            self._storage.replace(self._temporary, self._csv_path)
        except OSError as error:
            error.filename, error.filename2 = self._csv_path, None  # the temporary file is nobody's concern
            raise
        self._durable.pop("CSV", None)

    def _rely_on(self, directory: str, what: str, which: object) -> None:
        """Make the name of a file durable, which whoever put it there may not have lived to do; once for each file."""
        if self._durable.get(what) != which:
            self._storage.sync_directory(directory)
            self._durable[what] = which

    def _forget(self) -> None:
        self._checkpoint.forget()
        self._durable.pop("checkpoint", None)

    def _save(self, versions: tuple[CsvVersion, ...], start: StartingPoint) -> None:
        """Write the checkpoint, unless the one that is there says the same."""
        checkpoint = self._checkpoint_of(versions, start)
        saved = self._checkpoint.saved
        if saved is None or checkpoint not in {saved, replace(saved, views=saved.views[-1:])}:
            self._store(checkpoint)
        else:
            self._rely_on(self._log.directory, "checkpoint", saved)
            self._checkpoint.confirm()

    def _checkpoint_of(self, versions: tuple[CsvVersion, ...], start: StartingPoint) -> Checkpoint:
        return Checkpoint(
            log=self._files.identity(),
            key_column=self._log.key_column,
            guard_formulas=self._files.options.guard_formulas,
            delimiter=start.delimiter,
            base=start.base,
            since=start.since,
            views=versions,
        )

    def _store(self, checkpoint: Checkpoint) -> None:
        self._checkpoint.write(checkpoint)
        self._durable["checkpoint"] = checkpoint

    def _keep(self, start: StartingPoint) -> Backup:
        """Make the content that a fold starts from a base."""
        draft = partial(
            Backup,
            reason=start.new_base or "",
            record_count=start.table.rows.height,
            log=self._files.identity(),
            position=start.position,
            unknown=tuple(sorted(start.unknown)),
            in_flight=start.in_flight,
            beginning=start.beginning,
            delimiter=start.delimiter,
            encoding=start.encoding,
            saved=start.saved,
            edit=start.edit,
            quotes_marks=start.table.dialect.quotes_marks,
        )
        return self._backups.create(start.data, draft, session=start.session, rights=self._rights())

    def _keep_replaced(self, current: bytes | None, reason: str = "before a rebuild") -> Backup | None:
        """Keep the CSV that is going to be replaced, unless a backup has the same bytes."""
        if current is None:
            return None
        digest = sha256(current).hexdigest()
        for known in self._backups.all():
            with suppress(BackupError):  # a copy that is damaged is none
                if known.sha256 == digest and self._backups.read(known) == current:
                    self._storage.sync_directory(self._backups.directory)
                    return known
        try:
            count = self._files.parse(current).rows.height
        except InvalidCsv:
            count = current.count(b"\n")  # it may be what the rebuild is to mend
        draft = partial(Backup, reason=reason, record_count=count, log=self._files.identity(), position=None)
        return self._backups.create(current, draft, rights=self._rights())

    def _rights(self) -> Rights | None:
        """Return the rights to the CSV, or those that the last copy of it tells of when it is gone."""
        told = filter(None, (from_text(copy.rights) for copy in self._backups.all()))
        return self._storage.rights(self._csv_path) or next(told, None)

    def _write_temporary(self, data: bytes) -> None:
        like, attributes = self._rights(), self._storage.attributes(self._csv_path)
        lost = self._storage.write_new(self._temporary, data, like=like, attributes=attributes)
        there = self._storage.stat(self._csv_path)
        others = there.st_nlink - 1 if there else 0
        names = "1 other name (hard link)" if others == 1 else f"{others:,} other names (hard links)"
        stale = f"{names} of the CSV kept what it was; cp makes a copy, ln -s a name that follows"
        self._notes = (*[f"could not be kept: {', '.join(lost)}"] * bool(lost), *[stale] * bool(others))
        for note in self._notes:
            masking.get_logger().warning("view.note", csv=self._csv_path, note=note)
        if self._storage.read_and_close(self._storage.open_regular(self._temporary, os.O_RDONLY)) != data:
            raise CorruptLog(
                f"{self._temporary}: reads back other than it was written; is the disk failing? The CSV is untouched"
            )

    def clear_interrupted(self) -> None:
        """Remove what a compaction left that was killed."""
        self._checkpoint.clear_interrupted()
        like = self._rights()
        self._storage.remove_ours(self._temporary, owner=like.uid if like else None)
