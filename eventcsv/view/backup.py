"""Backups: whole copies of the CSV, each beside its metadata.

One that knows its place in the log is a base: a replay starts from it. For the backup directory data/backup and
data/input/input.csv:

    data/backup/input_YYYYMMDD_HHMMSS_<session>.csv      the CSV, byte for byte as it was found
    data/backup/input_YYYYMMDD_HHMMSS_<session>.json     one line of metadata with its own checksum; its name comes
                                                         last, so that a backup is whole or is not there
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from eventcsv import masking
from eventcsv.errors import BackupError, EventCsvError, UnsupportedFormat
from eventcsv.event import InFlight, utc_text
from eventcsv.log.line import FORMAT_VERSION, sealed, unsealed
from eventcsv.log.types import Position
from eventcsv.storage.files import rights_to_look
from eventcsv.storage.naming import unfinished
from eventcsv.table.merge import Met
from eventcsv.view import retention
from eventcsv.view.edits import Edit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from eventcsv.storage.files import Storage
    from eventcsv.storage.rights import Rights

_ATTEMPTS: Final = 5
MOST_MET: Final = 100
"""So many of the results that a save met are told of with its base."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the CSV.

    Attributes:
        path: The CSV copy.
        session: What made it: a session's id, or a random one.
        reason: Why, in words.
        number: Counts up, whatever the clock does; the newest backup has the highest.
        created_at: When, ISO 8601 in UTC.
        record_count: How many rows it has.
        file_size_bytes: Its size.
        sha256: Of its bytes, in hex.
        log: The uuid of the log that `position` is a place in.
        position: The events before it are in this copy; a replay goes on there. None for a copy that only keeps
            something safe.
        unknown: Keys of results before `position` that were in no row; see `CsvVersion.unknown`.
        in_flight: What was in flight at `position`.
        beginning: What the log holds before this does not count any more, since a restore without the log dismissed
            it; None when everything counts.
        delimiter: How to read it when the CSV's delimiter had to be named; None when it shows.
        encoding: How to read it when the CSV's encoding had to be named; None for UTF-8.
        saved: The SHA-256 of the CSV that somebody saved and that became this one; None for others.
        edit: What that save did, with the first hundred of the results that it met; None for others.
        quotes_marks: How texts are written that become cells of it, see `Dialect`.
        rights: The rights to the CSV when this was made, as `Rights` writes them, which a CSV that is gone gets back;
            None when nobody knows.
    """

    path: str
    session: str
    reason: str
    number: int
    created_at: str
    record_count: int
    file_size_bytes: int
    sha256: str
    log: str | None
    position: Position | None
    unknown: tuple[str, ...] = ()
    in_flight: tuple[InFlight, ...] = ()
    beginning: Position | None = None
    delimiter: str | None = None
    encoding: str | None = None
    saved: str | None = None
    edit: Edit | None = None
    quotes_marks: bool = False
    rights: str | None = None

    @property
    def name(self) -> str:
        """The file name."""
        return os.path.basename(self.path)


class BackupStore:
    """The backups of one CSV in a directory.

    Args:
        directory: Where they are; made on first use.
        csv_path: The CSV they are of.
        storage: The seam to the file system.
    """

    def __init__(self, directory: str, csv_path: str, storage: Storage) -> None:
        self.directory = directory
        self._storage = storage
        self._unfinished = unfinished(csv_path)
        self._csv_path = csv_path
        self._stem, self._suffix = os.path.splitext(os.path.basename(csv_path))
        stem = re.escape(self._stem)
        self._pattern = re.compile(rf"({stem}_\d{{8}}_\d{{6}}_[0-9A-Za-z-]+)\.json")

    def create(
        self, data: bytes, draft: Callable[..., Backup], *, session: str | None = None, rights: Rights | None = None
    ) -> Backup:
        """Keep a copy of the CSV; it is durable, read back and compared when this returns.

        Args:
            data: The bytes of the CSV.
            draft: Makes the metadata, given what the copy adds to what it knows: a partial `Backup`.
            session: What its name ends in; by default something random.
            rights: The rights to the CSV; whoever may read it may read the copy.

        Raises:
            BackupError: What was read back is not what was written.
            OSError: The disk said no.
        """
        looks = rights_to_look(self._storage, self.directory, self._csv_path)
        self._storage.make_directory(self.directory, like=lambda: looks)
        reads = looks and looks.to_read(os.geteuid())
        self.clear_interrupted()
        now = datetime.now(UTC)
        session, base = self._free_name(now, session)
        backup = draft(
            path=f"{base}{self._suffix}",
            session=session,
            number=max((known.number for known in self.all()), default=0) + 1,
            created_at=utc_text(now),
            file_size_bytes=len(data),
            sha256=sha256(data).hexdigest(),
            rights=str(rights) if rights else None,
        )
        try:
            # The metadata's temporary name stands first and goes last: it marks the CSV beside it as one of ours,
            # unfinished.
            self._storage.write_new(f"{base}{self._unfinished}", sealed(_metadata(backup)), like=reads)
            self._storage.write_new(backup.path, data, like=reads)
            self.read(backup)
            self._storage.replace(f"{base}{self._unfinished}", f"{base}.json")
        except OSError:
            with suppress(OSError):
                self._clear_unfinished()
            raise
        self._storage.sync_directory(self.directory)
        return backup

    def retain(self, log: str | None, first: Position | None = None) -> list[Backup]:
        """Remove the backups of one log that are not worth keeping, see `retention`.

        Args:
            log: The uuid of the log; the backups of any other are nobody's to remove.
            first: Where the log begins.

        Returns:
            Those that were removed.
        """
        kept = self.kept(log, first)
        removed = [backup for backup in self.all() if log and backup.log == log and backup.number not in kept]
        if removed:
            self._storage.sync_directory(self.directory)  # those that stay may have been made by a process that died
        for backup in removed:
            self.remove(backup)
        return removed

    def kept(self, log: str | None, first: Position | None = None) -> set[int]:
        """Return the numbers of the backups that `retain` keeps."""
        known = [backup for backup in self.all() if log and backup.log == log]
        return retention.kept(known, first, self._is_whole)

    def _is_whole(self, backup: Backup) -> bool:
        try:
            self.read(backup)
        except BackupError:
            return False
        return True

    def remove(self, backup: Backup) -> None:
        """Remove a backup."""
        # Marked as unfinished first, so that a kill in between leaves nothing that nobody clears away.
        base = os.path.splitext(backup.path)[0]
        self._storage.replace(f"{base}.json", f"{base}{self._unfinished}")
        try:
            self._storage.remove_ours(backup.path)
            self._storage.remove_ours(f"{base}{self._unfinished}")
        except OSError:
            self.clear_interrupted()
            raise
        self._storage.sync_directory(self.directory)

    def clear_interrupted(self) -> None:
        """Remove what is left of a backup whose making or removal was cut short; what cannot go goes another time."""
        try:
            if self._storage.has_directory(self.directory):
                self._clear_unfinished()
        except (OSError, EventCsvError) as error:
            masking.get_logger().warning("backup.not_cleared", directory=self.directory, error=str(error))

    def _clear_unfinished(self) -> None:
        """Remove what a crash left of a backup that was being made of this CSV; others may share the directory."""
        for name in self._storage.names(self.directory):
            base = name.removesuffix(self._unfinished)
            if base != name and self._pattern.fullmatch(f"{base}.json"):
                self._storage.remove_ours(os.path.join(self.directory, f"{base}{self._suffix}"))
                self._storage.remove_ours(os.path.join(self.directory, name))

    def _free_name(self, now: datetime, wanted: str | None) -> tuple[str, str]:
        for attempt in range(_ATTEMPTS):
            random = os.urandom(4).hex()
            session = random if wanted is None else f"{wanted}-{random}" if attempt else wanted
            base = os.path.join(self.directory, f"{self._stem}_{now:%Y%m%d_%H%M%S}_{session}")
            if not any(self._storage.exists(base + suffix) for suffix in (self._suffix, ".json")):
                return session, base
        raise BackupError(f"{self.directory}: no free name for a backup")

    def read(self, backup: Backup) -> bytes:
        """Return the CSV of a backup.

        Raises:
            BackupError: It is gone, or not the bytes that its metadata tells of.
        """
        data = self._storage.read(backup.path)
        if data is None:
            raise BackupError(
                f"{backup.path}: the backup is gone; its metadata is still there. "
                "Take another one: eventcsv backup list"
            )
        if (as_written := _as_written(data, backup.sha256)) is None:
            raise BackupError(
                f"{backup.path}: the backup is damaged: its SHA-256 is not that of its metadata. "
                "Take another one: eventcsv backup list"
            )
        return as_written

    def has_other_line_ends(self, backup: Backup) -> bool:
        """Tell whether a program has changed the ends of the lines of a backup, which `read` then takes back."""
        data = self._storage.read(backup.path) or b""
        return sha256(data).hexdigest() != backup.sha256 and _as_written(data, backup.sha256) is not None

    def is_there(self, backup: Backup) -> bool:
        """Tell, without reading it, whether the CSV of a backup is there, with its size."""
        status = self._storage.stat(backup.path)
        return status is not None and status.st_size == backup.file_size_bytes

    def all(self) -> list[Backup]:
        """Return the finished backups, the newest first, without those whose metadata is damaged."""
        found = [backup for name in self._metadata_names() if (backup := self._load(name))]
        return sorted(found, key=lambda backup: (backup.number, backup.created_at), reverse=True)

    def damaged_metadata(self) -> list[str]:
        """Return the paths of metadata that cannot be believed."""
        paths = [os.path.join(self.directory, name) for name in self._metadata_names() if self._load(name) is None]
        return [path for path in paths if self._storage.exists(path)]  # others were removed between two looks

    def find(self, name: str) -> Backup:
        """Return the backup that a path or file name means.

        Raises:
            BackupError: There is none.
        """
        folder = os.path.dirname(name)
        elsewhere = folder and os.path.realpath(folder) != os.path.realpath(self.directory)
        for backup in [] if elsewhere else self.all():
            if os.path.basename(name) in {backup.name, f"{os.path.splitext(backup.name)[0]}.json"}:
                return backup
        known = ", ".join(backup.name for backup in self.all()) or "none"
        raise BackupError(f"{self.directory}: no backup {name!r}; there are: {known}")

    def _metadata_names(self) -> list[str]:
        if not self._storage.has_directory(self.directory):
            return []
        names = self._storage.names(self.directory)
        copies = {self._base_of(name): name for name in names if not name.endswith((".json", ".tmp"))}
        return sorted(name for name in names if self._pattern.fullmatch(name) and self._is_of_this_csv(name, copies))

    def _base_of(self, copy: str) -> str:
        has_no_suffix = self._pattern.fullmatch(f"{copy}.json")  # as its CSV has none
        return copy if has_no_suffix else os.path.splitext(copy)[0]

    def _is_of_this_csv(self, name: str, copies: Mapping[str, str]) -> bool:
        """Tell whether metadata is of a backup of this CSV: that of input.tsv beside input.csv is called alike."""
        base = name.removesuffix(".json")
        if base in copies:
            return copies[base] == base + self._suffix
        try:  # a copy that is gone
            return bool(self._record(name).get("suffix", self._suffix) == self._suffix)
        except (ValueError, UnsupportedFormat):
            return True

    def _record(self, name: str) -> dict[str, Any]:
        line = self._storage.read(os.path.join(self.directory, name))
        return unsealed(line or b"")

    def _load(self, name: str) -> Backup | None:
        try:
            path = os.path.join(self.directory, name.removesuffix(".json") + self._suffix)
            record = {**self._record(name), "path": path}
            known = [field.name for field in fields(Backup) if field.name in record]
            return Backup(**{field: _read(field, record[field]) for field in known})
        except UnsupportedFormat as error:
            raise UnsupportedFormat(f"{self.directory}/{name}: {error}") from None
        except (ValueError, KeyError, TypeError):
            return None


def _read(field: str, value: Any) -> Any:  # noqa: ANN401  # what JSON makes of any field, and what the field is
    match field:
        case "position" | "beginning":
            return Position(**value) if value else None
        case "unknown":
            return tuple(value)
        case "in_flight":
            return tuple(InFlight(**item) for item in value)
        case "edit" if value is not None:
            return _edit(value)
    return value


def _edit(record: dict[str, Any]) -> Edit:
    lists = {name: tuple(value) for name, value in record.items() if isinstance(value, list)}
    return Edit(**{**record, **lists, "met": tuple(Met(**met) for met in record["met"])})


def _as_written(data: bytes, digest: str) -> bytes | None:
    """Return the bytes with a SHA-256: these, or these with other line ends, as git may make them; else None."""
    with_lf = data.replace(b"\r\n", b"\n")
    spellings = (data, with_lf, with_lf.replace(b"\n", b"\r\n"))
    return next((one for one in spellings if sha256(one).hexdigest() == digest), None)


def _metadata(backup: Backup) -> dict[str, Any]:
    told = {field.name: getattr(backup, field.name) for field in fields(backup) if field.name != "path"}
    return {"v": FORMAT_VERSION, **told, "suffix": os.path.splitext(backup.path)[1]}
