"""Checks everything that a job has on disk, goes on after each finding, and changes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from eventcsv.errors import BackupError, EventCsvError, InvalidCsv, UnsupportedFormat
from eventcsv.log.segment import segment_name
from eventcsv.log.types import LogEnd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventcsv.log.interface import ProgressCallback
    from eventcsv.log.types import Damage, Position
    from eventcsv.table.table import Table
    from eventcsv.view.backup import Backup
    from eventcsv.view.checkpoint import Checkpoint
    from eventcsv.view.compactor import Compactor
    from eventcsv.view.projection import Projection

_SHOWN_CELLS: Final = 5
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong.

    Attributes:
        place: Where: a file, with the byte where there is one.
        problem: What, and what to do about it where that is not plain.
    """

    place: str
    problem: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked, and what was found.

    Attributes:
        csv_path: The CSV.
        segments: How many segments were read.
        lines: How many whole lines they hold, headers and seals aside.
        size_bytes: How large they are.
        backups: How many backups were checked.
        view: In words, how the CSV relates to a replay.
        findings: What is wrong, in the order in which it was met.
        torn: Lines that a crash had cut off; nothing was lost with them.
        duration_s: How long it took, in seconds.
    """

    csv_path: str
    segments: int
    lines: int
    size_bytes: int
    backups: int
    view: str
    findings: tuple[Finding, ...]
    torn: tuple[Damage, ...]
    duration_s: float


class _Verification:
    """One pass over everything."""

    def __init__(self, compactor: Compactor, on_progress: ProgressCallback | None) -> None:
        self.findings: list[Finding] = []
        self.torn: list[Damage] = []
        self.lines = 0
        self.view = ""
        self._compactor = compactor
        self._files = compactor.files
        self._log = compactor.log
        self._backups = compactor.files.backups
        self._checkpoint = compactor.files.checkpoint
        self._on_progress = on_progress
        self.known = self._backups.all()  # before the log's end, which none of them is beyond then
        self.end = self._log.end()
        self.segments = self._log.segments()
        self.size_bytes = self._log.size_bytes(self._log.first(), self.end.position)

    def _find(self, place: str, problem: str) -> None:
        self.findings.append(Finding(place, problem))

    def check_segments(self) -> None:
        identity = self._files.identity()
        for number in self.segments:
            try:
                header = self._log.header(number)
            except UnsupportedFormat:
                raise
            except (EventCsvError, OSError) as error:
                self._find(self._log.path(number), str(error))
                continue
            if header is None:
                if not self._is_pruned(number):
                    self._find(self._log.path(number), "its header, the first line, is damaged")
            elif header.get("segment") != number or header.get("log") != identity:
                self._find(
                    self._log.path(number),
                    f"its header is that of segment {header.get('segment')} of log {header.get('log')}",
                )

    def _is_pruned(self, number: int) -> bool:
        """Tell whether a segment was removed since they were listed, as nobody needs it any more."""
        return number < self._log.first().segment

    def check_lines(self) -> None:
        if not self.segments:
            return
        done = 0
        for chunk in self._log.read(self._log.first(), self.end.position):
            self.lines += chunk.count
            done += len(chunk.raw)
            for item in chunk.damage:
                if item.torn:
                    self.torn.append(item)
                elif not self._is_pruned(chunk.number):
                    self._find(f"{self._log.place}/{item.segment}, byte {item.offset_bytes}", item.reason)
            if self._on_progress:
                self._on_progress(done, self.size_bytes)
        if self.end.torn:
            self.torn.append(self.end.torn)

    def check_backups(self) -> None:
        for name in self._backups.damaged_metadata():
            self._find(name, "the metadata of this backup is damaged; the CSV beside it may be whole, nobody can tell")
        for backup in self.known:
            try:
                self._check_backup(backup)
            except (BackupError, InvalidCsv) as error:
                if backup not in self._backups.all():
                    continue  # removed since, as old ones are
                self._find(backup.path, str(error).removeprefix(f"{backup.path}: "))
            except OSError as error:
                self._find(backup.path, f"cannot be read: {error.strerror}")
        if self.segments and not self.known:
            self._find(self._backups.directory, "there is no backup to replay from; the next compaction makes one")

    def _check_backup(self, backup: Backup) -> None:
        data = self._backups.read(backup)
        rows = self._files.table_of(backup, data).rows.height if backup.position else backup.record_count
        if rows != backup.record_count:
            self._find(backup.path, f"has {rows} rows, and its metadata tells of {backup.record_count}")
        if self._backups.has_other_line_ends(backup):
            self._find(
                backup.path,
                "other line ends than it was made with, as git's core.autocrlf makes them; it is read as it was. "
                "For those to come: a line '*.csv -text' in .gitattributes",
            )
        if backup.log != self._files.identity() or backup.position is None:
            return
        if backup.position > self.end.position:
            self._find(backup.path, "belongs to a place that the log does not reach; was the log replaced?")
        elif backup.position >= self._log.first() and not self._log.starts_line(backup.position):
            self._find(backup.path, "belongs to a place that is no line of this log; was the log replaced?")

    def check_view(self) -> None:
        """Compare the CSV with a replay up to where the checkpoint says that it is."""
        for _ in range(_ATTEMPTS):
            saved = self._checkpoint.read()
            current = self._files.current()
            if self._checkpoint.read() == saved:  # else a compaction came in between
                break
        if saved is None:
            if self._checkpoint.exists() and self._checkpoint.read() is None:
                self._find(
                    self._checkpoint.path,
                    "the checkpoint is damaged; it is a cache, which the next compaction mends",
                )
            self.view = "not compared: there is no checkpoint that says how far it is"
            self._check_readable(current)
            return
        self._check_log_of(saved)
        if current is None:
            self._find(self._files.csv_path, "the CSV is gone; eventcsv replay rebuilds it")
            self.view = "gone"
            return
        version = saved.view(sha256(current).hexdigest())
        replayed = self._replayed(saved, version.position if version else saved.latest.position)
        if replayed is None:
            self.view = "not compared: the backup that it grew from is not usable"
        elif version is None:
            self.view = "edited since the last compaction, " + self._difference(current, replayed.table)
            if trouble := self._compactor.project().trouble:
                self._find(self._files.csv_path, trouble)
        elif replayed.data == current or version.encoding:
            self.view = f"what a replay gives, byte for byte{self._missing(version.position)}"
        else:
            self.view = "not what a replay gives: " + self._difference(current, replayed.table)
            self._find(self._files.csv_path, f"{self.view}. eventcsv replay rebuilds it")

    def _missing(self, position: Position) -> str:
        """Return, in words, what the CSV lacks of the log's present end."""
        if position >= self.end.position:
            return ""
        events = self._compactor.project().events
        results = f"{events:,} {'result' if events == 1 else 'results'}"
        return f", but for {results} that the log has and the CSV not yet" if events else ""

    def _check_readable(self, current: bytes | None) -> None:
        try:
            if current is not None:
                self._files.parse(current)
        except InvalidCsv as error:
            self._find(self._files.csv_path, str(error))

    def _check_log_of(self, saved: Checkpoint) -> None:
        """Check that the log is the one that was folded into the CSV."""
        place = self._log.place
        latest = saved.latest
        end = self._log.end().position  # which may have moved on since, and the checkpoint with it
        first = self._log.first()  # a prune looks at the backups before it removes segments, so here they come after
        bases = self._files.bases()
        needed = min([base.position for base in bases if base.position], default=saved.since)
        if None not in {saved.log, self._log.identity()} and saved.log != self._log.identity():
            self._find(place, "is another log than the one that was folded into the CSV")
        elif latest.position > end:
            self._find(place, f"ends before {latest.position}, up to where it was folded: its end is missing")
        elif first.segment > needed.segment:
            self._find(place, f"begins after {segment_name(needed.segment)}, from where a backup needs it")
        elif (
            not self.findings
            and self._log.crc(saved.since, latest.position) != latest.crc
            and self._checkpoint.read() == saved  # else a prune may have come after the next compaction
        ):
            self._find(place, f"differs from what was folded before, between {saved.since} and {latest.position}")

    def _replayed(self, saved: Checkpoint, position: Position) -> Projection | None:
        base = next((backup for backup in self.known if backup.name == saved.base), None)
        if base is None or position > self._log.end().position:
            return None
        try:
            return self._compactor.projected_from(base, LogEnd(position, None))
        except (BackupError, InvalidCsv):
            return None  # found before, among the backups

    def _difference(self, current: bytes, replayed: Table) -> str:
        """Return, in words, how the CSV differs from a replay."""
        try:
            table = self._files.parse_saved(current, replayed.dialect.delimiter)
        except InvalidCsv:  # why is what troubles whoever looks at the job
            return "and it cannot be read"
        if table.names != replayed.names or table.keys().to_list() != replayed.keys().to_list():
            sizes = [f"{one.rows.height} rows and {len(one.names)} columns" for one in (table, replayed)]
            return f"{sizes[0]}, a replay has {sizes[1]}, or the same in another order"
        cells = list(_differing(table, replayed))
        shown = "; ".join(cells[:_SHOWN_CELLS])
        return (
            f"{len(cells)} cells differ: {shown}{' ...' if len(cells) > _SHOWN_CELLS else ''}"
            if cells
            else "no cell differs, only how they are written"
        )


def _differing(table: Table, replayed: Table) -> Iterator[str]:
    keys = table.keys().to_list()
    for index, name in enumerate(table.names):
        mine, other = table.texts(index), replayed.texts(index)
        for row in (mine != other).arg_true():
            yield f"{keys[row]} {name}: {mine[row]!r}, replayed {other[row]!r}"


def verify(compactor: Compactor, *, on_progress: ProgressCallback | None = None) -> VerifyReport:
    """Check every segment, line, seal and backup, and the CSV against a replay; see `EventCsv.verify`.

    Raises:
        UnsupportedFormat: The log was made by a newer eventcsv.
    """
    clock = time.perf_counter()
    compactor.files.checkpoint.load()
    found = _Verification(compactor, on_progress)
    for check in (found.check_segments, found.check_lines, found.check_backups, found.check_view):
        check()
    return VerifyReport(
        csv_path=compactor.files.csv_path,
        segments=len(found.segments),
        lines=found.lines,
        size_bytes=found.size_bytes,
        backups=len(found.known),
        view=found.view,
        findings=tuple(found.findings),
        torn=tuple(found.torn),
        duration_s=time.perf_counter() - clock,
    )
