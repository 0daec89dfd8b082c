"""Puts a folded CSV in the place of the one that is there: base, checkpoint, replacement.

They come in an order in which a kill between any two steps leaves the old CSV or the new one, and the next run ends in
the same bytes. What a process that was killed had put in place may have no durable name yet, so before anything is
built on it the name is made so: else a power cut could take it back and leave what was built on it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from eventcsv import masking
from eventcsv.errors import BackupError, CorruptLog, InvalidCsv
from eventcsv.log.file_log import CHECKPOINT_NAME
from eventcsv.storage.rights import from_text
from eventcsv.table.table import render
from eventcsv.view import checkpoint as checkpoints
from eventcsv.view.backup import AS_SAVED
from eventcsv.view.checkpoint import Checkpoint, View
from eventcsv.view.starting_point import EditedMeanwhile

if TYPE_CHECKING:
    from eventcsv.storage.rights import Rights
    from eventcsv.view.backup import Backup
    from eventcsv.view.projection import Folded
    from eventcsv.view.starting_point import Origin, Origins


def _rights_of(copy: Backup) -> Rights | None:
    return from_text(copy.rights)


class Publisher:
    """Publishes one CSV; its caller holds the lock against other compactions.

    Args:
        origins: What the CSV, its log and its backups are.

    Attributes:
        checkpoint_path: The checkpoint.
        notes: What else changed with the CSV when it was replaced last, in words.
    """

    def __init__(self, origins: Origins) -> None:
        self.origins = origins
        self._csv_path = origins.csv_path
        self._log = origins.log
        self._backups = origins.backups
        self._storage = origins.storage
        self._directory, name = os.path.split(self._csv_path)
        self._temporary = os.path.join(self._directory, f".{name}.eventcsv.tmp")
        self.checkpoint_path = os.path.join(self._log.directory, CHECKPOINT_NAME)
        self.notes: tuple[str, ...] = ()
        self._durable: dict[str, object] = {}

    def publish(self, folded: Folded) -> tuple[bool, Backup | None, Backup | None]:
        """Make the CSV what the log says, and the checkpoint with it.

        Returns:
            Whether the CSV was written, the base made on the way, and the kept copy of a CSV that was replaced.

        Raises:
            EditedMeanwhile: The CSV was edited since it was read; nothing was replaced.
            OSError: The disk said no; the CSV is whole, the old one or already the new one.
        """
        origin, table, end = folded.origin, folded.table, folded.end
        start = origin.known.origin.position if origin.known else origin.position
        self._log.sync(start, end.position)
        self._rely_on(self._log.directory, "segment", end.position.segment)
        untouched = origin.exact or (origin.encoding is None and table is origin.table)
        data = origin.data if untouched and not origin.saved else render(table)
        encoding = origin.encoding if origin.exact else None
        unknown = tuple(sorted((origin.unknown - folded.late).union(folded.unknown)))
        if origin.saved:
            origin = self._taken_over(folded, data, unknown)
            folded = replace(folded, crc=0)
        view = View(sha256(data).hexdigest(), end.position, folded.crc, unknown, folded.in_flight, encoding)
        base, kept = self._put_in_place(origin, data, view)
        self.origins.resident = (view.sha256, table)
        return data != origin.current, base, kept

    def _taken_over(self, folded: Folded, data: bytes, unknown: tuple[str, ...]) -> Origin:
        """Return the new base that a save becomes; the saved CSV is kept first, unless it is that, byte for byte."""
        origin, copy = folded.origin, None
        if origin.current is not None and data != origin.current:
            copy = self._keep_replaced(origin.current, AS_SAVED)
        return replace(
            origin,
            data=data,
            table=folded.table,
            position=folded.end.position,
            since=folded.end.position,
            unknown=frozenset(unknown),
            in_flight=folded.in_flight,
            edit=origin.edit and replace(origin.edit, copy=copy.name if copy else None),
        )

    def _put_in_place(self, origin: Origin, data: bytes, view: View) -> tuple[Backup | None, Backup | None]:
        """Put `data` in the CSV's place unless it is there; return the base and the kept copy made on the way."""
        if origin.base and not origin.new_base:
            self._rely_on(self._backups.directory, "base", origin.base)
        if origin.rebuilt and data != origin.current:
            return self._rebuild(origin, data, view)
        base = None
        if origin.new_base:
            base = self._keep(origin)
            origin = replace(origin, base=base.name)
        if data == origin.current:
            self._rely_on(self._directory, "CSV", view.sha256)
            self._save((view,), origin)
            return base, None
        digest = sha256(origin.data).hexdigest()
        self._rely_on(self._directory, "CSV", digest)
        self._write_temporary(data)
        met = tuple(sorted(origin.unknown))
        present = View(digest, origin.position, origin.crc, met, origin.in_flight, origin.encoding)
        self._save((view,) if present.sha256 == view.sha256 else (present, view), origin)
        self._replace(origin)
        self._rely_on(self._directory, "CSV", view.sha256)
        if not origin.unknown.issubset(view.unknown):  # late ones are in now, and must not be folded once more
            self._store(replace(self._checkpoint(origin), views=(view,)))
        return base, None

    def _rebuild(self, origin: Origin, data: bytes, view: View) -> tuple[Backup | None, Backup | None]:
        """Put `data` in the place of a CSV whose place in the log is not known, and which is kept first."""
        kept = self._keep_replaced(origin.current)
        self._write_temporary(data)
        base = None
        try:
            if origin.new_base:  # from here on a replay starts from it, so nothing may be left that can well fail
                base = self._keep(origin)
                origin = replace(origin, base=base.name)
            # No checkpoint can name the CSV that is there: until the new one has arrived there is none, and a run that
            # is killed in between is a full replay again.
            self._forget()
            self._replace(origin)
        except (OSError, EditedMeanwhile):
            if base:
                with suppress(OSError):
                    self._backups.remove(base)
            raise
        self._rely_on(self._directory, "CSV", view.sha256)
        self._save((view,), origin)
        return base, kept

    def _replace(self, origin: Origin) -> None:
        if self.origins.current() != origin.current:
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
        self._storage.remove_ours(self.checkpoint_path)
        self._storage.sync_directory(self._log.directory)  # even when nothing is there: who removed it may have died
        self._durable.pop("checkpoint", None)
        self.origins.saved = self.origins.verified = None

    def _save(self, views: tuple[View, ...], origin: Origin) -> None:
        """Write the checkpoint, unless the one that is there says the same."""
        checkpoint = replace(self._checkpoint(origin), views=views)
        saved = self.origins.saved
        if saved is None or checkpoint not in {saved, replace(saved, views=saved.views[-1:])}:
            self._store(checkpoint)
        else:
            self._rely_on(self._log.directory, "checkpoint", saved)
        self.origins.verified = self.origins.saved

    def _checkpoint(self, origin: Origin) -> Checkpoint:
        return Checkpoint(
            log=self.origins.identity(),
            key_column=self._log.key_column,
            guard_formulas=self.origins.guard_formulas,
            delimiter=origin.delimiter,
            base=origin.base,
            since=origin.since,
            views=(),
        )

    def saved(self) -> Checkpoint | None:
        """Return the checkpoint as it is on disk, or None when there is none that can be believed."""
        return checkpoints.load(self._storage, self.checkpoint_path)

    def load(self) -> Checkpoint | None:
        """Take note of the checkpoint as it is on disk, and return it."""
        self.origins.saved = self.saved()
        return self.origins.saved

    def has_checkpoint(self) -> bool:
        """Tell whether there is a checkpoint, damaged or not."""
        return self._storage.stat(self.checkpoint_path) is not None

    def _store(self, checkpoint: Checkpoint) -> None:
        checkpoints.save(self._storage, self.checkpoint_path, checkpoint)
        self.origins.saved = self.origins.verified = self._durable["checkpoint"] = checkpoint

    def _keep(self, origin: Origin) -> Backup:
        """Make the content that an origin starts from a base."""
        return self._backups.create(
            origin.data,
            reason=origin.new_base or "",
            record_count=origin.table.rows.height,
            log=self.origins.identity(),
            position=origin.position,
            session=origin.session,
            unknown=tuple(sorted(origin.unknown)),
            in_flight=origin.in_flight,
            beginning=origin.beginning,
            delimiter=origin.delimiter,
            encoding=origin.encoding,
            saved=origin.saved,
            edit=origin.edit,
            quotes_marks=origin.table.dialect.quotes_marks,
            rights=self._rights(),
        )

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
            count = self.origins.parse(current).rows.height
        except InvalidCsv:
            count = current.count(b"\n")  # it may be what the rebuild is to mend
        identity = self.origins.identity()
        return self._backups.create(
            current, reason=reason, record_count=count, log=identity, position=None, rights=self._rights()
        )

    def _rights(self) -> Rights | None:
        """Return the rights to the CSV, or those that the last copy of it tells of when it is gone."""
        return self._storage.rights(self._csv_path) or next(filter(None, map(_rights_of, self._backups.all())), None)

    def _write_temporary(self, data: bytes) -> None:
        like, attributes = self._rights(), self._storage.attributes(self._csv_path)
        lost = self._storage.write_new(self._temporary, data, like=like, attributes=attributes)
        there = self._storage.stat(self._csv_path)
        others = there.st_nlink - 1 if there else 0
        names = "1 other name (hard link)" if others == 1 else f"{others:,} other names (hard links)"
        stale = f"{names} of the CSV kept what it was; cp makes a copy, ln -s a name that follows"
        self.notes = (*[f"could not be kept: {', '.join(lost)}"] * bool(lost), *[stale] * bool(others))
        for note in self.notes:
            masking.get_logger().warning("view.note", csv=self._csv_path, note=note)
        if self._storage.read_and_close(self._storage.open_regular(self._temporary, os.O_RDONLY)) != data:
            raise CorruptLog(
                f"{self._temporary}: reads back other than it was written; is the disk failing? The CSV is untouched"
            )

    def clear_interrupted(self) -> None:
        """Remove what a compaction left that was killed."""
        self._storage.remove_ours(f"{self.checkpoint_path}.tmp")
        like = self._rights()
        self._storage.remove_ours(self._temporary, owner=like.uid if like else None)
