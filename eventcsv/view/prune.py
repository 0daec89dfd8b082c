"""Removes the segments at the beginning of the log that no kept backup needs. Only when asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventcsv.log.segment import segment_name
from eventcsv.log.types import Position

if TYPE_CHECKING:
    from eventcsv.view.backup import Backup
    from eventcsv.view.compactor import Compactor


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What was pruned, or would be.

    Attributes:
        log: The directory of the log, or where on a server it is.
        removed: The names of the segments, the oldest first.
        size_bytes: How large they are together.
        kept: How many segments stay.
        needed_by: The oldest backup that a replay may start from, which needs the first of those; None without one,
            and then everything stays.
        unknown: How many keys have results and no row: should rows for them be added later, results in segments that
            were removed are gone.
        dry_run: Whether nothing was removed.
    """

    log: str
    removed: tuple[str, ...]
    size_bytes: int
    kept: int
    needed_by: Backup | None
    unknown: int
    dry_run: bool


def prune(compactor: Compactor, *, dry_run: bool) -> PruneResult:
    """Remove what no kept backup needs; see `EventCsv.prune`."""
    with compactor.locked(dry_run=dry_run):
        files, log = compactor.files, compactor.log
        backups = files.backups
        if not dry_run:
            backups.clear_interrupted()
        saved = files.checkpoint.load()
        identity = files.identity()
        # The first base of all is there for whoever saves a copy as old as it is, and gives way to a prune.
        kept = backups.kept(identity)
        bases = [base for base in files.bases() if base.number in kept or base.log is None]
        oldest = min(bases, key=_position, default=None)
        needed = min([_position(base) for base in bases] + ([saved.since] if saved else []), default=log.first())
        segments = log.segments()
        # The active segment stays, whatever the backups say; without a checkpoint nobody knows what is needed.
        unneeded = [number for number in segments[:-1] if number < needed.segment] if oldest and saved else []
        size_bytes = sum(log.size_bytes(Position(number, 0), Position(number + 1, 0)) for number in unneeded)
        if unneeded and not dry_run:
            # What they are not needed for must not be taken back by a power cut once they are gone.
            files.storage.sync_directory(backups.directory)
            files.storage.sync_directory(log.directory)  # the checkpoint
            backups.retain(identity)
            log.remove(unneeded)
    return PruneResult(
        log=log.place,
        removed=tuple(map(segment_name, unneeded)),
        size_bytes=size_bytes,
        kept=len(segments) - len(unneeded),
        needed_by=oldest,
        unknown=len(saved.latest.unknown) if saved else 0,
        dry_run=dry_run,
    )


def _position(backup: Backup) -> Position:
    if backup.position is None:
        raise ValueError(f"{backup.name} is no base")
    return backup.position
