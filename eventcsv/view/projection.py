"""The CSV as the log says that it should be: the fold of the log's new part onto a starting point. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from eventcsv.event import Kind
from eventcsv.storage.files import READ_BYTES
from eventcsv.table.fold import Fold
from eventcsv.table.frames import parsed
from eventcsv.table.read_ahead import Ahead
from eventcsv.table.table import render

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventcsv.event import InFlight
    from eventcsv.log.interface import Log, ProgressCallback
    from eventcsv.log.types import Damage, LogEnd, Position
    from eventcsv.table.frames import Parsed
    from eventcsv.table.table import Table
    from eventcsv.view.edits import Edit


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """What a fold goes on from.

    Attributes:
        data: The bytes that `table` was read from.
        table: The CSV, or a base.
        position: The events before it are in `table`.
        since: The position of the base that `table` grew from.
        current: The bytes of the CSV now, or None when it is gone.
        delimiter: The delimiter that had to be named.
        crc: zlib.crc32 of the log between the two.
        unknown: Keys of results before `position` that were in no row.
        in_flight: What was in flight at `position`, or later: what is folded again corrects it.
        encoding: The encoding that had to be named to read `data`.
        base: The file name of the base that `table` grew from; "" when it becomes one itself.
        new_base: Why `data` has to be kept as a base, or None.
        rebuilt: Why the whole log is replayed, or None.
        beginning: What the log holds before this does not count any more; None when everything counts.
        exact: Whether the CSV becomes `data`, to the byte.
        edit: What a save did that `table` is the outcome of, or None.
        lines: What people changed by it, by key, which is to be recorded in the log.
        save: What the ids of those lines begin with.
        attempted: How many lines earlier attempts to take over the save have left in the log.
        saved: The SHA-256 of the saved CSV.
        known: What the CSV was by the log before the save.
        session: What the new base is named after; by default something random.
        ahead: The log from `position` on, which is being parsed already, or None.
        digest: The SHA-256 of `data`, in hex, where that is known.
    """

    data: bytes
    table: Table
    position: Position
    since: Position
    current: bytes | None
    delimiter: str | None
    crc: int = 0
    unknown: frozenset[str] = frozenset()
    in_flight: tuple[InFlight, ...] = ()
    encoding: str | None = None
    base: str = ""
    new_base: str | None = None
    rebuilt: str | None = None
    beginning: Position | None = None
    exact: bool = False
    edit: Edit | None = None
    lines: dict[str, dict[str, str]] | None = None
    save: str = ""
    attempted: int = 0
    saved: str | None = None
    known: Projection | None = None
    session: str | None = None
    ahead: Ahead | None = None
    digest: str | None = None

    @property
    def sha256(self) -> str:
        """The SHA-256 of `data`, in hex."""
        return self.digest or sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Projection:
    """The CSV as the log says that it should be.

    Attributes:
        start: Where the fold started.
        table: The result.
        end: The log's end, up to which was folded.
        crc: zlib.crc32 of the log from the start's `since` to there.
        events: How many results were folded.
        unknown: For each key that is in no row, how many of them.
        late: Keys whose rows were added after their results were recorded.
        in_flight: The POs that were taken up and have no result yet.
        damage: What is damaged in the part of the log that was read.
        torn: The lines in it, or behind it, that a crash had cut off.
        trouble: Why this is not what the CSV holds: it cannot be read, or was saved in a way that is not taken; or "".
    """

    start: StartingPoint
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

    @property
    def data(self) -> bytes:
        """The bytes of the CSV. One that nothing was folded onto stays as it is, however it is written."""
        start = self.start
        untouched = start.exact or (start.encoding is None and self.table is start.table)
        return start.data if untouched and not start.saved else render(self.table)

    @property
    def rowless(self) -> frozenset[str]:
        """Keys of results, whenever they were folded, that are in no row."""
        return (self.start.unknown - self.late).union(self.unknown)


def project(
    start: StartingPoint,
    end: LogEnd,
    log: Log,
    *,
    guard_formulas: bool,
    on_progress: ProgressCallback | None = None,
    seen: list[Parsed] | None = None,
    without: str | None = None,
) -> Projection:
    """Fold the log between a starting point and an end onto the starting point.

    Args:
        start: Where to start.
        end: Where to stop.
        log: The event log.
        guard_formulas: Put an apostrophe before text that a spreadsheet would take for a formula.
        on_progress: Called with the bytes of the log folded so far and those to fold.
        seen: What was read is added to it, for whoever needs it again.
        without: What the ids of edits begin with that are left out; None when every line counts.
    """
    late = start.unknown.intersection(start.table.keys()) if start.unknown else frozenset()
    before = _with_late(start, late, log, guard_formulas=guard_formulas) if late else start.table
    fold = Fold(before, guard_formulas=guard_formulas, in_flight=start.in_flight)
    damage: list[Damage] = []
    crc, done, total = start.crc, 0, log.size_bytes(start.position, end.position)
    for item in start.ahead or _parsed(start, end, log, total):
        damage += fold.add(item if without is None else _without(item, without))
        if seen is not None:
            seen.append(item)
        crc = item.chunk.crc
        done += len(item.chunk.raw)
        if on_progress:
            on_progress(done, total)
    projection = Projection(
        start=start,
        table=fold.result(),
        end=end,
        crc=crc,
        events=fold.events,
        unknown=fold.unknown,
        late=late,
        in_flight=tuple(fold.in_flight.values()),
        damage=tuple(item for item in damage if not item.torn),
        torn=(*(item for item in damage if item.torn), *([end.torn] if end.torn else [])),
    )
    return _after_known(projection, start.known) if start.known else projection


def _without(item: Parsed, save: str) -> Parsed:
    """Return lines of the log of which those that a save has left there count for nothing."""
    own = item.left_by(save)
    kinds = item.frame.get_column("kind").scatter(own, Kind.TORN.value)
    return replace(item, frame=item.frame.with_columns(kinds)) if own else item


def _after_known(projection: Projection, known: Projection) -> Projection:
    """Count what was folded before a save was merged, too."""
    keys = frozenset(projection.table.keys())
    return replace(
        projection,
        events=known.events + projection.events,
        unknown={key: count for key, count in {**known.unknown, **projection.unknown}.items() if key not in keys},
        late=(known.late | known.unknown.keys() | known.start.unknown).intersection(keys),
        damage=(*known.damage, *projection.damage),
        torn=tuple(dict.fromkeys((*known.torn, *projection.torn))),
    )


def _parsed(start: StartingPoint, end: LogEnd, log: Log, total_bytes: int) -> Iterable[Parsed]:
    chunks = log.read(start.position, end.position, crc=start.crc)
    return map(parsed, chunks) if total_bytes <= READ_BYTES else Ahead(chunks)


def _with_late(start: StartingPoint, late: frozenset[str], log: Log, *, guard_formulas: bool) -> Table:
    """Fold the results that were recorded before an operator added their rows."""
    fold = Fold(start.table, guard_formulas=guard_formulas, only=late)
    first = log.first()  # what counts may begin later, or have been pruned since
    for chunk in log.read(max(start.beginning or first, first), start.position):
        fold.add(parsed(chunk))  # its damage was reported when this part was folded first
    return fold.result()
