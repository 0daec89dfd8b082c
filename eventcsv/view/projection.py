"""The CSV as the log says that it should be: a fold of the log's new part onto where it starts from. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from eventcsv.storage.files import READ_BYTES
from eventcsv.table.fold import Fold
from eventcsv.table.frames import parsed
from eventcsv.table.read_ahead import Ahead

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventcsv.event import InFlight
    from eventcsv.log.interface import Log, ProgressCallback
    from eventcsv.log.reader import LogEnd
    from eventcsv.log.scan import Damage
    from eventcsv.table.frames import Parsed
    from eventcsv.table.table import Table
    from eventcsv.view.starting_point import Origin


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
        trouble: Why this is not what the CSV holds: it cannot be read, or was saved in a way that is not taken; or "".
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
    trouble: str = ""


def fold_onto(
    origin: Origin,
    end: LogEnd,
    log: Log,
    *,
    guard_formulas: bool,
    on_progress: ProgressCallback | None = None,
    seen: list[Parsed] | None = None,
) -> Folded:
    """Fold the log between an origin and an end onto the origin.

    Args:
        origin: Where to start.
        end: Where to stop.
        log: The event log.
        guard_formulas: Put an apostrophe before text that a spreadsheet would take for a formula.
        on_progress: Called with the bytes of the log folded so far and those to fold.
        seen: What was read is added to it, for whoever needs it again.
    """
    late = origin.unknown.intersection(origin.table.keys()) if origin.unknown else frozenset()
    before = _with_late(origin, late, log, guard_formulas=guard_formulas) if late else origin.table
    fold = Fold(before, guard_formulas=guard_formulas, in_flight=origin.in_flight)
    damage: list[Damage] = []
    crc, done = origin.crc, 0
    total = log.size_bytes(origin.position, end.position)
    for item in origin.ahead or _parsed(origin, end, log, total):
        damage += fold.add(item)
        if seen is not None:
            seen.append(item)
        crc = item.chunk.crc
        done += len(item.chunk.raw)
        if on_progress:
            on_progress(done, total)
    tail = (end.torn,) if end.torn else ()
    folded = Folded(
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
    return _after_known(folded, origin.known) if origin.known else folded


def _after_known(folded: Folded, known: Folded) -> Folded:
    """Count what was folded before a save was merged, too."""
    keys = frozenset(folded.table.keys())
    return replace(
        folded,
        events=known.events + folded.events,
        unknown={key: count for key, count in {**known.unknown, **folded.unknown}.items() if key not in keys},
        late=(known.late | known.unknown.keys() | known.origin.unknown).intersection(keys),
        damage=(*known.damage, *folded.damage),
        torn=tuple(dict.fromkeys((*known.torn, *folded.torn))),
    )


def _parsed(origin: Origin, end: LogEnd, log: Log, total_bytes: int) -> Iterable[Parsed]:
    chunks = log.read(origin.position, end.position, crc=origin.crc)
    return map(parsed, chunks) if total_bytes <= READ_BYTES else Ahead(chunks)


def _with_late(origin: Origin, late: frozenset[str], log: Log, *, guard_formulas: bool) -> Table:
    """Fold the results that were recorded before an operator added their rows."""
    fold = Fold(origin.table, guard_formulas=guard_formulas, only=late)
    first = log.first()  # what counts may begin later, or have been pruned since
    for chunk in log.read(max(origin.beginning or first, first), origin.position):
        fold.add(parsed(chunk))  # its damage was reported when this part was folded first
    return fold.result()
