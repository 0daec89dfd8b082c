"""The taking over of a save: a starting point from what the CSV is by the log, with what somebody changed in it."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from eventcsv import masking
from eventcsv.errors import BackupError, EditRefused, InvalidCsv, InvalidEvent
from eventcsv.event import Event, Kind, utc_text
from eventcsv.log.line import encode
from eventcsv.log.types import Position
from eventcsv.table.difference import difference
from eventcsv.table.merge import merge
from eventcsv.view.edits import Edit, kept_rows, read_past, refusal
from eventcsv.view.projection import StartingPoint
from eventcsv.view.retention import EDITED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventcsv.log.interface import Log
    from eventcsv.log.types import LogEnd
    from eventcsv.table.difference import Difference
    from eventcsv.table.frames import Parsed
    from eventcsv.table.merge import Merged
    from eventcsv.table.table import Table
    from eventcsv.view.backup import Backup
    from eventcsv.view.job_files import JobFiles
    from eventcsv.view.projection import Projection

NONE_LEFT: Final = "no backup was left to replay from"
_REFUSED: Final = (
    "{csv}: was saved and is not taken: {why}. "
    "Save it again with that mended (the key column as text); or take it: eventcsv compact CSV "
    "--accept-edit; or have the CSV back as it was: eventcsv replay CSV"
)


def start_from_save(
    files: JobFiles,
    current: bytes,
    end: LogEnd,
    known: Projection | None,
    seen: Sequence[Parsed],
    *,
    save: str,
    delimiter: str | None,
    accept_edit: bool,
) -> StartingPoint:
    """Start from a CSV that somebody saved.

    What an earlier attempt to take it over has left in the log is as if it were not there: so this one ends in the same
    bytes, and tells the same.

    Args:
        files: The files of the job.
        current: The bytes of the CSV.
        end: The log's end.
        known: What the CSV is by the log alone, `save` left out; None when there is no base to tell.
        seen: What was read of the log for that.
        save: What the ids of the lines begin with that this save leaves in the log.
        delimiter: The delimiter that had to be named, so far.
        accept_edit: Take it even if it does away with many results.

    Raises:
        EditRefused: It is not to be taken before somebody says so.
        InvalidCsv: It cannot be read.
    """
    try:
        saved = files.parse_saved(current, delimiter)
    except InvalidCsv as error:
        if known is None:
            raise
        raise InvalidCsv(f"{error}. Or have the CSV back as it was: eventcsv replay CSV") from None
    bases = _bases(files, end)
    if known is None or not bases:  # in doubt a result stays: all of them are folded onto what was saved
        return _without_base(files, current, saved, delimiter)
    return _merged(files, known, bases, current=current, saved=saved, seen=seen, save=save, accept_edit=accept_edit)


def _merged(
    files: JobFiles,
    known: Projection,
    bases: Sequence[tuple[Position, Table]],
    *,
    current: bytes,
    saved: Table,
    seen: Sequence[Parsed],
    save: str,
    accept_edit: bool,
) -> StartingPoint:
    end = known.end.position
    found = difference(saved, known.table)
    facts = read_past(
        found,
        bases,
        files.log,
        end,
        save=save,
        seen=(known.start.position, seen),
        is_whole=bases[0][0] <= (files.beginning() or Position(1, 0)),
        guard_formulas=files.options.guard_formulas,
    )
    kept = kept_rows(found, facts.past)
    removed = found.gone.join(kept, on="row", how="anti", maintain_order="left").get_column("key").to_list()
    if not accept_edit and (why := refusal(found, facts, removed)):
        raise EditRefused(_REFUSED.format(csv=files.csv_path, why=why))
    merged = merge(found, facts.past, kept=kept)
    return StartingPoint(
        data=current,
        table=merged.table,
        position=end,
        since=end,
        unknown=known.rowless.difference(merged.table.keys()),
        in_flight=known.in_flight,
        current=current,
        delimiter=known.start.delimiter,
        new_base=EDITED,
        beginning=files.beginning(),
        edit=_edit(files, found, merged, removed, tuple(kept.get_column("key"))),
        lines={key: cells for key, cells in merged.edits.items() if facts.standing.get(key) != cells},
        save=save,
        attempted=facts.attempted,
        saved=sha256(current).hexdigest(),
        known=known,
    )


def _edit(files: JobFiles, found: Difference, merged: Merged, removed: Sequence[str], younger: tuple[str, ...]) -> Edit:
    saved, current = found.saved, found.current
    status = files.storage.stat(files.csv_path)
    moment = datetime.fromtimestamp(status.st_mtime, UTC) if status else datetime.now(UTC)
    lost = [current.names[index] for index in found.lost_columns()]
    delimiter = saved.dialect.delimiter
    return Edit(
        saved_at=utc_text(moment, timespec="seconds"),
        cells=merged.cells,
        rewritten=merged.rewritten,
        met=merged.met,
        added=tuple(found.new_keys()),
        removed=tuple(removed),
        younger=younger,
        stale=merged.stale,
        doubtful=merged.doubtful,
        new_columns=tuple(name for name, twin in zip(saved.names, found.twins, strict=True) if twin is None),
        gone_columns=tuple(name for name in lost if name not in merged.returned),
        returned=merged.returned,
        delimiter=delimiter if delimiter != current.dialect.delimiter else None,
    )


def save_id(files: JobFiles, current: bytes) -> str:
    """Return what the ids of a save's lines begin with: the same when it is taken over once more after a crash."""
    newest = files.newest_base()
    place = f"{sha256(current).hexdigest()} {newest.number if newest else 0} {files.csv_path} {os.uname().nodename}"
    return f"{sha256(os.fsencode(place)).hexdigest()[:12]}-00-"


def _bases(files: JobFiles, end: LogEnd) -> list[tuple[Position, Table]]:
    """Return the bases of the job, the oldest first, each with its place; one that is damaged is left out.

    What a restore dismissed stays so: of before it are those that begin elsewhere, if not further back.
    """
    beginning, found = files.beginning(), []
    start = beginning or files.log.first()
    for base in reversed(list(files.bases())):
        if base.beginning == beginning and base.position is not None and start <= base.position <= end.position:
            try:
                found.append((base.position, files.table_of(base, files.backups.read(base))))
            except (BackupError, InvalidCsv) as error:
                masking.get_logger().error("backup.damaged", backup=base.path, error=str(error))
    return sorted(found, key=lambda item: item[0])


def _without_base(files: JobFiles, current: bytes, saved: Table, delimiter: str | None) -> StartingPoint:
    beginning = files.beginning()
    position = beginning or files.log.first()
    return StartingPoint(
        data=current,
        table=saved,
        position=position,
        since=position,
        current=current,
        delimiter=delimiter,
        encoding=files.options.encoding,
        new_base=NONE_LEFT,
        beginning=beginning,
    )


# --- what is left of it in the log, and told ---------------------------------------------------------------------


def record(start: StartingPoint, log: Log) -> None:
    """Append what people changed to the log: a line for each row, which a crash leaves whole or out."""
    ts = utc_text(datetime.now(UTC))
    events = [
        Event(f"{start.save}{number}", ts, Kind.EDIT.value, key, cells)
        for number, (key, cells) in enumerate((start.lines or {}).items(), start.attempted + 1)
    ]
    log.append_all([event for event in events if _fits(event)])


def _fits(event: Event) -> bool:
    """Tell whether an edit can be a line of the log; what cannot is in the base that follows."""
    try:
        encode(event)
    except InvalidEvent as error:
        masking.get_logger().warning("edit.not_in_log", key=event.key, reason=str(error))
        return False
    return True


def told(edit: Edit, base: Backup | None, csv_path: str) -> Edit:
    """Log what a save did, and return it with the name of what keeps it as it was saved."""
    edit = replace(edit, copy=base.edit.copy if base and base.edit else edit.copy)
    masking.get_logger().info(
        "view.edited",
        csv=csv_path,
        cells=edit.cells,
        met=len(edit.met),
        added=len(edit.added),
        removed=len(edit.removed),
        stale=edit.stale,
        copy=edit.copy,
    )
    return edit
