"""The checkpoint: how far the view has folded.

A cache: when it is gone, damaged or foreign, a full replay takes its place. It is written before the CSV is replaced
and names the view that is there and the one that is coming, each with its SHA-256 and its position in the log:
whichever hash the CSV has, its position holds, so a kill between the two writes neither skips an event nor looks like
an operator's edit. Of an edit that comes after such a kill `edits` finds out what it has seen.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from eventcsv.errors import EventCsvError, UnsupportedFormat
from eventcsv.event import InFlight
from eventcsv.log.line import FORMAT_VERSION, sealed, unsealed
from eventcsv.log.rotation import CHECKPOINT_NAME
from eventcsv.log.types import Position

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventcsv.log.interface import Log
    from eventcsv.storage.files import Storage


@dataclass(frozen=True, slots=True)
class CsvVersion:
    """One content of the CSV.

    Attributes:
        sha256: Of its bytes, in hex.
        position: The events before it are in this content.
        crc: zlib.crc32 of the log from the checkpoint's `since` to `position`.
        unknown: Keys of results before `position` that are in none of its rows; should an operator add such a row, they
            are folded after all.
        in_flight: What was in flight at `position`.
        encoding: How to read it when it is not yet in UTF-8.
    """

    sha256: str
    position: Position
    crc: int
    unknown: tuple[str, ...]
    in_flight: tuple[InFlight, ...]
    encoding: str | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far the view has folded.

    Attributes:
        log: The uuid of the log.
        key_column: The column that identifies a row.
        guard_formulas: Whether the cells were guarded against formulas.
        delimiter: The delimiter that had to be named to read the CSV; None when it shows.
        base: The file name of the base that the view grew from.
        since: Its position.
        views: The content of the CSV; while it is being replaced, the old one and the new one.
    """

    log: str | None
    key_column: str
    guard_formulas: bool
    delimiter: str | None
    base: str
    since: Position
    views: tuple[CsvVersion, ...]

    @property
    def latest(self) -> CsvVersion:
        """The newest view that got into place."""
        return self.views[-1]

    def stretches(self) -> Iterator[tuple[Position, Position, int, int]]:
        """Yield the parts of the log that the views rest on: start, end, and the checksum before and with each."""
        start, crc = self.since, 0
        for view in sorted(self.views, key=lambda view: view.position):
            yield start, view.position, crc, view.crc
            start, crc = view.position, view.crc

    def view(self, sha256: str) -> CsvVersion | None:
        """Return the view with this hash, or None: then somebody edited the CSV."""
        return next((view for view in reversed(self.views) if view.sha256 == sha256), None)


class CheckpointFile:
    """The checkpoint on disk, and what is known of it.

    Args:
        path: The file.
        storage: The seam to the file system.

    Attributes:
        saved: What the file held when it was looked at last, or what it was given since.
        verified: The last checkpoint that was found to agree with the log.
    """

    def __init__(self, path: str, storage: Storage) -> None:
        self.path = path
        self.saved: Checkpoint | None = None
        self.verified: Checkpoint | None = None
        self._storage = storage

    def exists(self) -> bool:
        """Tell whether there is one, damaged or not."""
        return self._storage.stat(self.path) is not None

    def read(self) -> Checkpoint | None:
        """Return the checkpoint as it is on disk, or None when there is none that can be believed.

        Raises:
            UnsupportedFormat: It was made by a newer eventcsv.
        """
        line = self._storage.read(self.path)
        if line is None:
            return None
        try:
            return _checkpoint(unsealed(line))
        except UnsupportedFormat as error:
            raise UnsupportedFormat(f"{self.path}: {error}") from None
        except (ValueError, KeyError, TypeError):
            return None

    def load(self) -> Checkpoint | None:
        """Take note of the checkpoint as it is on disk, and return it."""
        self.saved = self.read()
        return self.saved

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint that agrees with the log, atomically and durably."""
        record = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
        self._storage.write_atomically(self.path, sealed({"v": FORMAT_VERSION, **record}))
        self.saved = self.verified = checkpoint

    def confirm(self) -> None:
        """Take note that what it holds agrees with the log."""
        self.verified = self.saved

    def forget(self) -> None:
        """Remove it."""
        self._storage.remove_ours(self.path)
        self._storage.sync_directory(os.path.dirname(self.path))  # even when it is gone: who removed it may have died
        self.saved = self.verified = None

    def clear_interrupted(self) -> None:
        """Remove what was left of one that was being written."""
        self._storage.remove_ours(f"{self.path}.tmp")


def checkpoint_of(log: Log, storage: Storage) -> CheckpointFile:
    """Return the checkpoint of the CSV that a log is of."""
    return CheckpointFile(os.path.join(log.directory, CHECKPOINT_NAME), storage)


def begin_to_check(log: Log, storage: Storage) -> None:
    """Let a thread read what the checkpoint is about, while its reader loads Polars."""
    with suppress(EventCsvError, OSError):  # whatever is wrong is found, and told, by who goes by the checkpoint
        if saved := checkpoint_of(log, storage).read():
            for start, end, before, _ in saved.stretches():
                log.begin_crc(start, end, before)


def _checkpoint(record: dict[str, Any]) -> Checkpoint | None:
    known = {field.name: record[field.name] for field in fields(Checkpoint)}
    views = tuple(map(_version, record["views"]))
    return Checkpoint(**{**known, "since": Position(**record["since"]), "views": views}) if views else None


def _version(record: dict[str, Any]) -> CsvVersion:
    known = {field.name: record[field.name] for field in fields(CsvVersion)}
    position, flights = Position(**record["position"]), tuple(InFlight(**item) for item in record["in_flight"])
    return CsvVersion(**{**known, "position": position, "unknown": tuple(record["unknown"]), "in_flight": flights})
