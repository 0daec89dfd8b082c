"""The files of one job, the CSV, its log, its backups and its checkpoint, and what is known of them between calls."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from eventcsv.errors import InvalidCsv, NoKeyColumn, UnsafePath
from eventcsv.event import column_id
from eventcsv.storage.output import check_output
from eventcsv.table.reader import parse
from eventcsv.view.checkpoint import checkpoint_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventcsv.log.interface import Log
    from eventcsv.log.types import LogEnd, Position
    from eventcsv.storage.files import Storage
    from eventcsv.table.options import CsvOptions
    from eventcsv.table.table import Table
    from eventcsv.view.backup import Backup, BackupStore
    from eventcsv.view.checkpoint import Checkpoint, CsvVersion

_LOOKS: Final = 10


class EditedMeanwhile(Exception):  # a signal between two methods, no error
    """The CSV changed under our hands."""


class JobFiles:
    """The files of one job.

    Args:
        csv_path: The CSV, absolute.
        log: The event log.
        backups: Where bases are kept.
        storage: The seam to the file system.
        options: What the caller says of the CSV.

    Attributes:
        checkpoint: The checkpoint, with what its file holds and whether that was checked.
    """

    def __init__(
        self,
        csv_path: str,
        log: Log,
        backups: BackupStore,
        storage: Storage,
        options: CsvOptions,
    ) -> None:
        self.csv_path = csv_path
        self.log = log
        self.backups = backups
        self.storage = storage
        self.checkpoint = checkpoint_of(log, storage)
        self.options = options
        self._held: tuple[str, Table] | None = None

    # --- the CSV -----------------------------------------------------------------------------------------------------

    def current(self) -> bytes | None:
        """Return the bytes of the CSV now, or None when it is gone."""
        try:
            fd = self.storage.open_regular(self.csv_path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        return self.storage.read_and_close(fd)

    def settled(self) -> bytes:
        """Return the CSV once it has not changed for a while: half a file that is being saved is no edit.

        Raises:
            EditedMeanwhile: It is gone now.
        """
        seen = None
        for _ in range(_LOOKS):
            status = self.storage.stat(self.csv_path)
            if status is None:
                break
            age_s = time.time() - status.st_mtime
            # A time to come, from a server whose clock is ahead, tells no age: then it is two looks that must agree.
            if age_s >= self.options.settle_s or (age_s < 0 and seen == (status.st_mtime_ns, status.st_size)):
                break
            seen = status.st_mtime_ns, status.st_size
            time.sleep(self.options.settle_s - max(age_s, 0.0))
        current = self.current()
        if current is None:
            raise EditedMeanwhile
        return current

    def check_before_first(self) -> None:
        """Refuse a CSV that cannot be read before anything is made beside it."""
        if self.log.exists():
            return
        current = self.current()
        if current is None:
            raise InvalidCsv(f"{self.csv_path}: there is no such file. Check the path")
        self.parse(current)

    def check_writable(self) -> None:
        """Refuse a CSV that cannot be replaced."""
        status = self.storage.stat(self.csv_path)
        if status is not None and not status.st_mode & 0o666:
            raise InvalidCsv(f"{self.csv_path}: permission denied to everybody. To let it be read: chmod u+rw")
        if status is not None and not status.st_mode & 0o222:
            raise InvalidCsv(
                f"{self.csv_path}: is read-only, so it was left as it is. To let it be kept up to date: chmod u+w"
            )
        if obstacle := self.storage.obstacle(self.csv_path):
            raise InvalidCsv(f"{self.csv_path}: {obstacle}")

    def check_output(self, path: str, *, force: bool, refusal: str, is_earlier: Callable[[str], bool]) -> None:
        """Refuse a path for a file that people ask for; none takes the place of the job's own, not even by force.

        Args:
            path: Where the file would go; the others are those of `output.check_output`.
            force: Replace whatever file is there.
            refusal: What to say of a file that is there and stays.
            is_earlier: Tells whether it is an earlier one of the kind, which may be replaced.

        Raises:
            UnsafePath: It must not go there.
        """
        if what := self._own(os.path.realpath(path)):
            raise UnsafePath(f"{path}: {what}. Nothing was written; name another file")
        check_output(self.storage, path, force=force, refusal=refusal, is_earlier=is_earlier)

    def _own(self, path: str) -> str:
        """Return which of the job's own files are at a path without links, or ""."""
        if _is_same(path, self.csv_path):
            return "is the CSV itself"
        if any(_is_same(place, self.log.directory) for place in (path, *map(str, Path(path).parents))):
            return "is in the folder of the event log"
        folder, name = os.path.split(path)
        of_backups = {".json", ".csv", os.path.splitext(self.csv_path)[1]}
        if os.path.splitext(name)[1] in of_backups and os.path.exists(path):
            return "is among the backups" if _is_same(folder, self.backups.directory) else ""
        return ""

    # --- its table ---------------------------------------------------------------------------------------------------

    def parse(self, data: bytes) -> Table:
        """Return the table of a CSV that nothing is known of but what was named."""
        return self._parse_as(data, self.options.delimiter, self.options.encoding)

    def parse_saved(self, data: bytes, delimiter: str | None) -> Table:
        """Return the table of a saved CSV, which may be separated by something else than the CSV was."""
        try:
            return self._parse_as(data, delimiter, self.options.encoding)
        except InvalidCsv:
            if delimiter is None or self.options.delimiter is not None:
                raise
            with suppress(InvalidCsv):
                return self._parse_as(data, None, self.options.encoding)
            raise

    def table_of_version(self, data: bytes, version: CsvVersion) -> Table:
        """Return the table of a version by the checkpoint, which may prove to be none to go by."""
        if held := self.held(version.sha256):
            return held
        saved = self.checkpoint.saved
        return self._parse_as(data, self.options.delimiter or (saved.delimiter if saved else None), version.encoding)

    def table_of(self, base: Backup, data: bytes) -> Table:
        """Return the table of a backup."""
        return parse(
            data,
            source=base.path,
            key=self.log.key_column,
            delimiter=base.delimiter,
            encoding=base.encoding,
            quotes_marks=base.quotes_marks,
            status_column=self.options.status_column,
        )

    def _parse_as(self, data: bytes, delimiter: str | None, encoding: str | None) -> Table:
        newest = self.newest_base()
        try:
            return parse(
                data,
                source=self.csv_path,
                key=self.log.key_column,
                delimiter=delimiter,
                encoding=encoding,
                quotes_marks=newest.quotes_marks if newest else True,
                status_column=self.options.status_column,
            )
        except NoKeyColumn as error:
            if error.line or not self.log.exists():
                raise
            # Results are in the log by this column, so what is advised is not to look for another one.
            advice = "It was there before: name it back" if newest else "The log is of that column: name one so"
            raise NoKeyColumn(error.found, advice) from None

    def hold(self, sha256: str, table: Table) -> None:
        """Keep the table of one content of the CSV, so that a live run parses it once."""
        self._held = sha256, table

    def held(self, sha256: str) -> Table | None:
        """Return the table that is kept of a content of the CSV."""
        return self._held[1] if self._held and self._held[0] == sha256 else None

    def holds(self, table: Table) -> bool:
        """Tell whether a table is the one that is kept."""
        return self._held is not None and self._held[1] is table

    # --- its bases ---------------------------------------------------------------------------------------------------

    def identity(self) -> str | None:
        """Return the uuid of the log, which the checkpoint knows too, should every header be damaged."""
        saved = self.checkpoint.saved
        return self.log.identity() or (saved.log if saved else None)

    def bases(self) -> Iterator[Backup]:
        """Yield the backups whose place is in this log, the newest first."""
        return filter(self.is_base, self.backups.all())

    def is_base(self, backup: Backup) -> bool:
        """Tell whether a backup's place is in this log; one without a whole header is taken for the right one."""
        return backup.position is not None and self.log.exists() and self.identity() in {backup.log, None}

    def newest_base(self) -> Backup | None:
        """Return the base that a replay starts from, if it is whole."""
        return next(self.bases(), None)

    def base_of_save(self, saved: str | None) -> Backup | None:
        """Return the base that a save became, by the SHA-256 of what was saved."""
        newest = self.newest_base()
        return newest if newest and newest.saved == saved else None

    def beginning(self) -> Position | None:
        """Return where what counts of the log begins; None when everything counts."""
        newest = self.newest_base()
        return newest.beginning if newest else None

    # --- its checkpoint ----------------------------------------------------------------------------------------------

    def valid_checkpoint(self, end: LogEnd) -> tuple[Checkpoint | None, str]:
        """Return the checkpoint when it can be believed, else None and why not."""
        found = self.checkpoint.saved
        if found is None:
            return None, "there was no valid checkpoint"
        flaw = self._flaw(found, end)
        if flaw:
            return None, flaw
        self.checkpoint.confirm()
        return found, ""

    def _flaw(self, found: Checkpoint, end: LogEnd) -> str:
        newest = self.newest_base()
        if found.log != self.identity() or column_id(found.key_column) != column_id(self.log.key_column):
            return "the checkpoint was of another log"
        if any(version.position > end.position for version in found.views):
            return "the log is shorter than it was"
        if newest and newest.position and newest.position > found.latest.position:
            return "the checkpoint was older than the newest backup"
        if found != self.checkpoint.verified and not self._agrees(found):
            return "the log differs from what was folded before"
        return ""

    def _agrees(self, checkpoint: Checkpoint) -> bool:
        """Tell whether the log still is, byte for byte, what was folded into the versions of a checkpoint."""
        return all(self.log.crc(start, end, before) == crc for start, end, before, crc in checkpoint.stretches())


def _is_same(path: str, other: str) -> bool:
    """Tell whether two paths name one file, as on a disk that ignores case; the first one has no links."""
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them is not there
        return path == os.path.realpath(other)
