"""Where a compaction starts: from the CSV that is there, from one that somebody edited, or from a base.

The choice is made here and nothing is written; `compactor` folds onto what is chosen and publishes the result.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from eventcsv import masking
from eventcsv.errors import BackupError, EditRefused, InvalidCsv, NoKeyColumn
from eventcsv.event import BLANKS, COLUMNS, InFlight, Kind, column_id, utc_text
from eventcsv.log.scan import Position, events
from eventcsv.table.merge import difference, merge
from eventcsv.table.read_ahead import Ahead
from eventcsv.table.table import parse
from eventcsv.view.backup import EDITED, FIRST
from eventcsv.view.edits import Edit, kept_rows, read_past, refusal
from eventcsv.view.projection import Folded, fold_onto

if TYPE_CHECKING:
    from eventcsv.log.interface import Log
    from eventcsv.log.reader import LogEnd
    from eventcsv.storage.files import Storage
    from eventcsv.table.frames import Parsed
    from eventcsv.table.table import Table
    from eventcsv.view.backup import Backup, BackupStore
    from eventcsv.view.checkpoint import Checkpoint, View

_LOOKS: Final = 10
_SEEN_BYTES: Final = 64 << 20  # so much of the log is kept parsed, some 300 MB, rather than parsed twice
NONE_LEFT: Final = "no backup was left to replay from"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a fold goes on from.

    Attributes:
        data: The bytes that `table` was read from.
        table: The CSV, or a base.
        position: The events before it are in `table`.
        since: The position of the base that `table` grew from.
        crc: zlib.crc32 of the log between the two.
        unknown: Keys of results before `position` that were in no row.
        in_flight: What was in flight at `position`, or later: what is folded again corrects it.
        current: The bytes of the CSV now, or None when it is gone.
        delimiter: The delimiter that had to be named.
        encoding: The encoding that had to be named to read `data`.
        base: The file name of the base that `table` grew from; "" when it becomes one itself.
        new_base: Why `data` has to be kept as a base, or None.
        rebuilt: Why the whole log is replayed, or None.
        beginning: What the log holds before this does not count any more; None when everything counts.
        exact: Whether the CSV becomes `data`, to the byte.
        edit: What a save did that `table` is the outcome of, or None.
        lines: What people changed by it, by key, which is to be recorded in the log.
        save: What the ids of those lines begin with.
        saved: The SHA-256 of the saved CSV.
        known: What the CSV was by the log before the save.
        session: What the new base is named after; by default something random.
        ahead: The log from `position` on, which is being parsed already, or None.
    """

    data: bytes
    table: Table
    position: Position
    since: Position
    crc: int
    unknown: frozenset[str]
    in_flight: tuple[InFlight, ...]
    current: bytes | None
    delimiter: str | None
    encoding: str | None = None
    base: str = ""
    new_base: str | None = None
    rebuilt: str | None = None
    beginning: Position | None = None
    exact: bool = False
    edit: Edit | None = None
    lines: dict[str, dict[str, str]] | None = None
    save: str = ""
    saved: str | None = None
    known: Folded | None = None
    session: str | None = None
    ahead: Ahead | None = None


class EditedMeanwhile(Exception):  # a signal between two methods, no error
    """The CSV changed under our hands."""


class Origins:
    """Finds where to start from, for one CSV with its log and its backups.

    Args:
        csv_path: The CSV, absolute.
        log: The event log.
        backups: Where bases are kept.
        storage: The seam to the file system.
        delimiter: Between cells; by default it shows.
        encoding: How to read a CSV that is not UTF-8; it is written back as UTF-8 with a byte order mark.
        guard_formulas: Put an apostrophe before text of events that a spreadsheet would take for a formula.
        settle_s: How long an edited CSV must not have changed before it is taken for saved, in seconds.
        status_column: What the column is called that says what came of a row.

    Attributes:
        saved: What the checkpoint's file holds.
        verified: The last checkpoint that was found to agree with the log.
        resident: The SHA-256 and the table of the last view, so that a live run parses the CSV once.
    """

    def __init__(
        self,
        csv_path: str,
        log: Log,
        backups: BackupStore,
        storage: Storage,
        *,
        delimiter: str | None,
        encoding: str | None,
        guard_formulas: bool,
        settle_s: float,
        status_column: str = COLUMNS["status"],
    ) -> None:
        self.saved: Checkpoint | None = None
        self.verified: Checkpoint | None = None
        self.resident: tuple[str, Table] | None = None
        self.csv_path = csv_path
        self.log = log
        self.backups = backups
        self.storage = storage
        self._delimiter = delimiter
        self._encoding = encoding
        self.guard_formulas = guard_formulas
        self._settle_s = settle_s
        self._status_column = status_column

    def of_compaction(self, end: LogEnd, *, accept_edit: bool = False) -> Origin:
        current = self.current()
        digest = sha256(current).hexdigest() if current is not None else ""
        newest = self._newest_base()
        if newest and newest.saved == digest and newest.sha256 != digest:
            # This save was taken over, and whoever did it was stopped before the outcome was in its place.
            return replace(self.from_backup(newest, current, end, ""), rebuilt=None, edit=newest.edit)
        table = None
        if current is not None and self.saved and (view := self.saved.view(digest)):
            with suppress(InvalidCsv):  # it is told below, unless a rebuild takes its place
                # Before the check, whose part of the log a thread may be reading; of no effect when that fails.
                table = self._table_of(current, digest, view)
        checkpoint, flaw = self._valid_checkpoint(end)
        if checkpoint is None or current is None:
            return self._from_base(current, end, flaw if current is not None else "the CSV was gone")
        delimiter = self._delimiter or checkpoint.delimiter
        view = checkpoint.view(digest)
        if view is None:
            return self._from_edited(self._settled(), end, delimiter, accept_edit=accept_edit)
        if checkpoint.guard_formulas != self.guard_formulas:
            return self._from_base(current, end, "the guard against formulas was turned on or off")
        base, since, crc, new_base = checkpoint.base, checkpoint.since, view.crc, None
        if newest is None or newest.name != checkpoint.base or not self.backups.is_there(newest):
            # A replay would start from another base than this view grew from, unless a kill came between that base
            # and its checkpoint: then it is this very view.
            since, crc = view.position, 0
            if newest and newest.position == view.position and newest.sha256 == digest:
                base = newest.name
            else:
                new_base = NONE_LEFT
        return Origin(
            data=current,
            table=table or self._table_of(current, digest, view),
            position=view.position,
            since=since,
            crc=crc,
            unknown=frozenset(view.unknown),
            in_flight=view.in_flight,
            current=current,
            delimiter=delimiter,
            encoding=view.encoding,
            base=base,
            new_base=new_base,
            beginning=newest.beginning if newest else None,
        )

    def _table_of(self, data: bytes, digest: str, view: View) -> Table:
        """Return the table of a view by the checkpoint, which may prove to be none to go by."""
        if self.resident and self.resident[0] == digest:
            return self.resident[1]
        delimiter = self._delimiter or (self.saved.delimiter if self.saved else None)
        return self._parse_as(data, delimiter, view.encoding)

    def _settled(self) -> bytes:
        """Return the CSV once it has not changed for a while: half a file that is being saved is no edit."""
        seen = None
        for _ in range(_LOOKS):
            status = self.storage.stat(self.csv_path)
            if status is None:
                break
            age_s = time.time() - status.st_mtime
            # A time to come, from a server whose clock is ahead, tells no age: then it is two looks that must agree.
            if age_s >= self._settle_s or (age_s < 0 and seen == (status.st_mtime_ns, status.st_size)):
                break
            seen = status.st_mtime_ns, status.st_size
            time.sleep(self._settle_s - max(age_s, 0.0))
        current = self.current()
        if current is None:
            raise EditedMeanwhile
        return current

    def _from_edited(self, current: bytes, end: LogEnd, delimiter: str | None, *, accept_edit: bool) -> Origin:
        """Start from what the CSV is by the log, with what somebody changed who saved it."""
        seen: list[Parsed] = []
        known = self.known(end, seen)
        try:
            saved = self.parse_saved(current, delimiter)
        except InvalidCsv as error:
            if known is None:
                raise
            raise InvalidCsv(f"{error}. Or have the CSV back as it was: eventcsv replay CSV") from None
        bases = self._job_bases(end)
        if known is None or not bases:  # in doubt a result stays: all of them are folded onto what was saved
            return self._without_base(current, saved, delimiter)
        digest = sha256(current).hexdigest()
        newest = self._newest_base()
        save = self._save_id(digest, newest.number if newest else 0)
        found = difference(saved, known.table)
        begins = self._beginning() or Position(1, 0)
        facts = read_past(
            found,
            bases,
            self.log,
            end.position,
            save=save,
            seen=(known.origin.position, seen),
            is_whole=bases[0][0] <= begins,
            guard_formulas=self.guard_formulas,
        )
        kept = kept_rows(found, facts.past)
        removed = found.gone.join(kept, on="row", how="anti", maintain_order="left").get_column("key").to_list()
        if not accept_edit and (why := refusal(found, facts, removed)):
            raise EditRefused(
                f"{self.csv_path}: was saved and is not taken: {why}. "
                "Save it again with that mended (the key column as text); or take it: eventcsv compact CSV "
                "--accept-edit; or have the CSV back as it was: eventcsv replay CSV"
            )
        merged = merge(found, facts.past, kept=kept, done=facts.done)
        before = (known.origin.unknown - known.late).union(known.unknown)
        lost = [known.table.names[index] for index in found.lost_columns()]
        own = known.table.dialect.delimiter
        edit = Edit(
            saved_at=self._saved_at(),
            cells=merged.cells,
            rewritten=merged.rewritten,
            met=merged.met,
            added=tuple(found.new_keys()),
            removed=tuple(removed),
            younger=tuple(kept.get_column("key")),
            stale=merged.stale,
            doubtful=merged.doubtful,
            new_columns=tuple(name for name, twin in zip(saved.names, found.twins, strict=True) if twin is None),
            gone_columns=tuple(name for name in lost if name not in merged.returned),
            returned=merged.returned,
            delimiter=saved.dialect.delimiter if saved.dialect.delimiter != own else None,
        )
        return Origin(
            data=current,
            table=merged.table,
            position=end.position,
            since=end.position,
            crc=0,
            unknown=before.difference(merged.table.keys()),
            in_flight=known.in_flight,
            current=current,
            delimiter=known.origin.delimiter,
            new_base=EDITED,
            beginning=self._beginning(),
            edit=edit,
            lines=merged.edits,
            save=save,
            saved=digest,
            known=known,
        )

    def _save_id(self, digest: str, number: int) -> str:
        """Return what the ids of a save's lines begin with: the same when it is taken over once more after a crash."""
        place = f"{digest} {number} {self.csv_path} {os.uname().nodename}"
        return f"{sha256(os.fsencode(place)).hexdigest()[:12]}-00-"

    def _saved_at(self) -> str:
        status = self.storage.stat(self.csv_path)
        moment = datetime.fromtimestamp(status.st_mtime, UTC) if status else datetime.now(UTC)
        return utc_text(moment, timespec="seconds")

    def parse_saved(self, data: bytes, delimiter: str | None) -> Table:
        """Return the table of a saved CSV, which may be separated by something else than the CSV was."""
        try:
            return self._parse_as(data, delimiter, self._encoding)
        except InvalidCsv:
            if delimiter is None or self._delimiter is not None:
                raise
            with suppress(InvalidCsv):
                return self._parse_as(data, None, self._encoding)
            raise

    def known(self, end: LogEnd, seen: list[Parsed] | None = None) -> Folded | None:
        """Return what the CSV is by the log alone, whatever it holds; None when there is no base to tell.

        Args:
            end: The log's end.
            seen: What was read of the log for it is added, unless that is too much to keep.
        """
        saved, origin = self.saved, None
        if saved and saved == self.verified and saved.guard_formulas == self.guard_formulas and self.resident:
            latest = saved.latest
            if self.resident[0] == latest.sha256 and latest.encoding is None and latest.position <= end.position:
                origin = self._resident_origin(saved, self.resident[1])
        if origin is None:
            for base in filter(self.is_base, self.backups.all()):
                with suppress(BackupError, InvalidCsv):
                    origin = self.from_backup(base, None, end, "")
                    break
        if origin is None:
            return None
        if self.log.size_bytes(origin.position, end.position) > _SEEN_BYTES:
            seen = None
        return fold_onto(origin, end, self.log, guard_formulas=self.guard_formulas, seen=seen)

    def _resident_origin(self, saved: Checkpoint, table: Table) -> Origin:
        latest = saved.latest
        return Origin(
            data=b"",
            table=table,
            position=latest.position,
            since=saved.since,
            crc=latest.crc,
            unknown=frozenset(latest.unknown),
            in_flight=latest.in_flight,
            current=None,
            delimiter=saved.delimiter,
        )

    def _job_bases(self, end: LogEnd) -> list[tuple[Position, Table]]:
        """Return the bases of the job, the oldest first, each with its place; one that is damaged is left out.

        What a restore dismissed stays so: of before it are those that begin elsewhere, if not further back.
        """
        beginning, found = self._beginning(), []
        start = beginning or self.log.first()
        for base in reversed(list(filter(self.is_base, self.backups.all()))):
            if base.beginning == beginning and base.position is not None and start <= base.position <= end.position:
                with suppress(BackupError, InvalidCsv):
                    found.append((base.position, self.table_of(base, self.backups.read(base))))
        return sorted(found, key=lambda item: item[0])

    def _without_base(self, current: bytes, saved: Table, delimiter: str | None) -> Origin:
        position = self._beginning() or self.log.first()
        return Origin(
            data=current,
            table=saved,
            position=position,
            since=position,
            crc=0,
            unknown=frozenset(),
            in_flight=(),
            current=current,
            delimiter=delimiter,
            encoding=self._encoding,
            new_base=NONE_LEFT,
            beginning=self._beginning(),
        )

    def _valid_checkpoint(self, end: LogEnd) -> tuple[Checkpoint | None, str]:
        """Return the checkpoint when it can be believed, else None and why not."""
        found = self.saved
        if found is None:
            return None, "there was no valid checkpoint"
        flaw = self._flaw(found, end)
        if flaw:
            return None, flaw
        self.verified = found
        return found, ""

    def _flaw(self, found: Checkpoint, end: LogEnd) -> str:
        newest = self._newest_base()
        if found.log != self.identity() or column_id(found.key_column) != column_id(self.log.key_column):
            return "the checkpoint was of another log"
        if any(view.position > end.position for view in found.views):
            return "the log is shorter than it was"
        if newest and newest.position and newest.position > found.latest.position:
            return "the checkpoint was older than the newest backup"
        if found != self.verified and not self._agrees(found):
            return "the log differs from what was folded before"
        return ""

    def _agrees(self, checkpoint: Checkpoint) -> bool:
        """Tell whether the log still is, byte for byte, what was folded into the views of a checkpoint."""
        return all(self.log.crc(start, end, before) == crc for start, end, before, crc in checkpoint.stretches())

    def is_base(self, backup: Backup) -> bool:
        """Tell whether a backup's place is in this log; one without a whole header is taken for the right one."""
        return backup.position is not None and self.log.exists() and self.identity() in {backup.log, None}

    def _newest_base(self) -> Backup | None:
        return next(filter(self.is_base, self.backups.all()), None)

    def base_of_save(self, saved: str | None) -> Backup | None:
        """Return the base that a save became, by the SHA-256 of what was saved."""
        newest = self._newest_base()
        return newest if newest and newest.saved == saved else None

    def _beginning(self) -> Position | None:
        newest = self._newest_base()
        return newest.beginning if newest else None

    def identity(self) -> str | None:
        """Return the uuid of the log, which the checkpoint knows too, should every header be damaged."""
        return self.log.identity() or (self.saved.log if self.saved else None)

    def _from_base(self, current: bytes | None, end: LogEnd, reason: str) -> Origin:
        """Start from the newest valid base; a CSV that has none becomes one itself."""
        for base in filter(self.is_base, self.backups.all()):
            try:
                return self.from_backup(base, current, end, reason)
            except (BackupError, InvalidCsv) as error:
                masking.get_logger().error("backup.damaged", backup=base.path, error=str(error))
        if current is None:
            raise InvalidCsv(
                f"{self.csv_path}: there is no such file, and no backup in {self.backups.directory} to rebuild it"
            )
        table = self.parse(current)
        first = self.log.first()
        return Origin(
            data=current,
            table=table,
            position=first,
            since=first,
            crc=0,
            unknown=frozenset(),
            in_flight=(),
            current=current,
            delimiter=self._delimiter,
            encoding=self._encoding,
            new_base=FIRST,
        )

    def of_replay(self, end: LogEnd) -> Origin:
        if self.saved is not None and self._newest_base() is None:
            raise BackupError(
                f"{self.backups.directory}: has no backup of this log to replay from, though there was one. "
                "Name its directory: --backup-dir, or EVENTCSV_BACKUP_DIR"
            )
        return self._from_base(self.current(), end, "asked for")

    def of_replay_from(self, name: str, end: LogEnd) -> Origin:
        """Start from the backup that was asked for; unless it is the newest base, it becomes that for later replays."""
        backup = self.backups.find(name)
        if backup.log not in {self.identity(), None}:
            raise BackupError(
                f"{backup.path}: is of another log, so nothing here can be folded onto it; "
                "it can be restored as it is (backup restore --no-replay)"
            )
        origin = self.from_backup(backup, self.current(), end, "asked for")
        return origin if backup == self._newest_base() else replace(origin, new_base=f"replayed from {backup.name}")

    def of_restoration(self, name: str, end: LogEnd) -> Origin:
        """Start from exactly a backup, as if the log ended where it came from."""
        backup = self.backups.find(name)
        data = self.backups.read(backup)
        return Origin(
            data=data,
            table=self.table_of(backup, data),
            position=end.position,
            since=end.position,
            crc=0,
            unknown=frozenset(),
            in_flight=self._in_flight(end),
            current=self.current(),
            delimiter=backup.delimiter,
            encoding=backup.encoding,
            beginning=end.position,
            exact=True,
            new_base=f"restored from {backup.name}",
            rebuilt=f"restored from {backup.name} without the log after it",
        )

    def _in_flight(self, end: LogEnd) -> tuple[InFlight, ...]:
        """Return what is in flight at the log's end, whatever state the CSV is in."""
        checkpoint, _ = self._valid_checkpoint(end)
        start, known = self.log.first(), tuple[InFlight, ...]()
        if checkpoint:
            start, known = checkpoint.latest.position, checkpoint.latest.in_flight
        in_flight = {item.key: item for item in known}
        for chunk in self.log.read(start, end.position):
            for event in events(chunk)[0]:
                key = event.key.strip(BLANKS)
                if event.kind == Kind.STARTED:
                    in_flight[key] = InFlight(key, event.id, event.ts)
                elif event.kind == Kind.RESULT:
                    in_flight.pop(key, None)
        return tuple(in_flight.values())

    def from_backup(self, base: Backup, current: bytes | None, end: LogEnd, reason: str) -> Origin:
        if base.position is None:
            raise BackupError(
                f"{base.path}: keeps a CSV whose place in the log is not known; "
                "it can be restored as it is (backup restore --no-replay), not replayed"
            )
        if base.position > end.position:
            raise BackupError(f"{base.path}: belongs to a place that the log does not reach")
        if not self.log.starts_line(base.position):
            raise BackupError(f"{base.path}: belongs to a place that is no line of this log; was the log replaced?")
        try:
            data = self.backups.read(base)
        except OSError as error:
            if error.errno != errno.EIO:  # the others can be mended; a sector that went bad cannot
                raise
            raise BackupError(f"{base.path}: cannot be read: {error.strerror}. Is the disk failing?") from error
        ahead = Ahead(self.log.read(base.position, end.position))
        try:
            table = self.table_of(base, data)
        except InvalidCsv:
            ahead.close()
            raise
        return Origin(
            data=data,
            table=table,
            ahead=ahead,
            position=base.position,
            since=base.position,
            crc=0,
            unknown=frozenset(base.unknown),
            in_flight=base.in_flight,
            current=current,
            delimiter=base.delimiter,
            encoding=base.encoding,
            base=base.name,
            beginning=base.beginning,
            rebuilt=f"from {base.name} and the log after it: {reason}",
        )

    def table_of(self, base: Backup, data: bytes) -> Table:
        """Return the table of a backup."""
        return parse(
            data,
            source=base.path,
            key=self.log.key_column,
            delimiter=base.delimiter,
            encoding=base.encoding,
            quotes_marks=base.quotes_marks,
            status_column=self._status_column,
        )

    def current(self) -> bytes | None:
        try:
            fd = self.storage.open_regular(self.csv_path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        return self.storage.read_and_close(fd)

    def parse(self, data: bytes) -> Table:
        """Return the table of a CSV that nothing is known of but what was named."""
        return self._parse_as(data, self._delimiter, self._encoding)

    def _parse_as(self, data: bytes, delimiter: str | None, encoding: str | None) -> Table:
        newest = self._newest_base()
        try:
            return parse(
                data,
                source=self.csv_path,
                key=self.log.key_column,
                delimiter=delimiter,
                encoding=encoding,
                quotes_marks=newest.quotes_marks if newest else True,
                status_column=self._status_column,
            )
        except NoKeyColumn as error:
            if error.line or not self.log.exists():
                raise
            # Results are in the log by this column, so what is advised is not to look for another one.
            advice = "It was there before: name it back" if newest else "The log is of that column: name one so"
            raise NoKeyColumn(error.found, advice) from None
