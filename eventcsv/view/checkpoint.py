"""The checkpoint: how far the view has folded.

A cache: when it is gone, damaged or foreign, a full replay takes its place. It is written before the CSV is replaced
and names the view that is there and the one that is coming, each with its SHA-256 and its position in the log:
whichever hash the CSV has, its position holds, so a kill between the two writes neither skips an event nor looks like
an operator's edit. Of an edit that comes after such a kill `edits` finds out what it has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventcsv.errors import UnsupportedFormat
from eventcsv.event import FORMAT_VERSION, InFlight, sealed, unsealed
from eventcsv.log.scan import Position

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventcsv.storage.files import Storage


@dataclass(frozen=True, slots=True)
class View:
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
    views: tuple[View, ...]

    @property
    def latest(self) -> View:
        """The newest view that got into place."""
        return self.views[-1]

    def stretches(self) -> Iterator[tuple[Position, Position, int, int]]:
        """Yield the parts of the log that the views rest on: start, end, and the checksum before and with each."""
        start, crc = self.since, 0
        for view in sorted(self.views, key=lambda view: view.position):
            yield start, view.position, crc, view.crc
            start, crc = view.position, view.crc

    def view(self, sha256: str) -> View | None:
        """Return the view with this hash, or None: then somebody edited the CSV."""
        return next((view for view in reversed(self.views) if view.sha256 == sha256), None)


def load(storage: Storage, path: str) -> Checkpoint | None:
    """Return the checkpoint, or None when there is none that can be believed.

    Raises:
        UnsupportedFormat: It was made by a newer eventcsv.
    """
    line = storage.read(path)
    if line is None:
        return None
    try:
        record = unsealed(line.removesuffix(b"\n"))
        views = tuple(_view(view) for view in record["views"])
        checkpoint = Checkpoint(
            record["log"],
            record["key_column"],
            record["guard_formulas"],
            record["delimiter"],
            record["base"],
            Position(**record["since"]),
            views,
        )
    except UnsupportedFormat as error:
        raise UnsupportedFormat(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError):
        return None
    return checkpoint if views else None


def save(storage: Storage, path: str, checkpoint: Checkpoint) -> None:
    """Write the checkpoint, atomically and durably."""
    record = {
        "v": FORMAT_VERSION,
        "log": checkpoint.log,
        "key_column": checkpoint.key_column,
        "guard_formulas": checkpoint.guard_formulas,
        "delimiter": checkpoint.delimiter,
        "base": checkpoint.base,
        "since": checkpoint.since,
        "views": [
            {
                "sha256": view.sha256,
                "position": view.position,
                "crc": view.crc,
                "unknown": view.unknown,
                "in_flight": view.in_flight,
                "encoding": view.encoding,
            }
            for view in checkpoint.views
        ],
    }
    storage.write_atomically(path, sealed(record))


def _view(record: dict[str, Any]) -> View:
    return View(
        record["sha256"],
        Position(**record["position"]),
        record["crc"],
        tuple(record["unknown"]),
        tuple(InFlight(**item) for item in record["in_flight"]),
        record["encoding"],
    )
