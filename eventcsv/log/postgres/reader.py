"""Reads the log of a job on a server; see `log`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from eventcsv.errors import CorruptLog, UnsupportedFormat
from eventcsv.log.line import is_whole
from eventcsv.log.postgres.schema import VERSION
from eventcsv.log.postgres.server import NoSuchJob, Server
from eventcsv.log.scan import Chunk, begins_note, gap, missing_segment, noted
from eventcsv.log.segment import check_header, header_of, segment_name
from eventcsv.log.types import LogEnd, Position, segments_between

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE_BYTES: Final = 4 << 20
_REMOVED: Final = "lines are missing: their rows were removed from the table"

_LAST: Final = "select segment, ends from eventcsv.line where job = %s order by segment desc, ends desc limit 1"
_FIRST: Final = "select segment from eventcsv.line where job = %s order by segment limit 1"
_NEXT_SEGMENT: Final = "select segment from eventcsv.line where job = %s and segment > %s order by segment limit 1"
_HEADER: Final = "select line from eventcsv.line where job = %s and segment = %s order by ends limit 1"
_SIZE: Final = "select max(ends) from eventcsv.line where job = %s and segment = %s"
_PAGE: Final = (
    "select string_agg(line, ''::bytea order by ends), max(ends) from eventcsv.line "
    "where job = %s and segment = %s and ends > %s::bigint and ends <= %s::bigint"
)
_ROWS: Final = (
    "select line, ends from eventcsv.line "
    "where job = %s and segment = %s and ends > %s::bigint and ends <= %s::bigint order by ends"
)
_LINE_AFTER: Final = (
    "select line, ends from eventcsv.line where job = %s and segment = %s and ends > %s::bigint order by ends limit 1"
)
_ROW_AFTER: Final = (
    "select ends from eventcsv.line where job = %s and segment = %s and ends > %s::bigint order by ends limit 1"
)


class PgReader:
    """The log of one job on a server, as who only reads it sees it.

    Args:
        url: The server and its database, as libpq reads it.
        job: The job's name there.
        key_column: The column that identifies a row.
        lock_timeout_s: How long to wait for a lock, and for a server that does not answer, in seconds.
    """

    def __init__(self, url: str, *, job: str, key_column: str, lock_timeout_s: float) -> None:
        self.job = job
        self.key_column = key_column
        self.lock_timeout_s = lock_timeout_s
        self.server = Server(url, lock_timeout_s)
        self._number: int | None = None
        self._identity: str | None = None

    @property
    def place(self) -> str:
        return f"{self.server.place} job {self.job}"

    def number(self) -> int:
        """Return the number of the job on its server.

        Raises:
            NoSuchJob: There is none of this name.
        """
        if self._number is None:
            self._open()
        if self._number is None:
            raise NoSuchJob(
                f"{self.server.place}: has no job {self.job!r}. Check the name, or begin it: "
                f"eventcsv log init URL --job {self.job}, or any command that brings its CSV up to date"
            )
        return self._number

    def _open(self) -> None:
        version, number, header = self.server.call("select * from eventcsv.open(%s::text)", (self.job,))[0]
        if version != VERSION:
            raise UnsupportedFormat(
                f"{self.server.place}: schema version {version}; this eventcsv knows version {VERSION}. "
                "Upgrade the older one of the two: pip install --upgrade eventcsv, or eventcsv log init URL"
            )
        if number is not None and header is not None:
            check_header(header_of(header, self.path(1)), self.key_column, self.place)
            self._number = number

    def check_key_column(self) -> None:
        if self._number is None:
            self._open()

    def exists(self) -> bool:
        if self._number is None:
            self._open()
        return self._number is not None

    def path(self, segment: int) -> str:
        return f"{self.place}/{segment_name(segment)}"

    def segments(self) -> list[int]:
        return list(self._segments_from(0)) if self.exists() else []

    def _segments_from(self, number: int) -> Iterator[int]:
        while rows := self.server.call(_NEXT_SEGMENT, (self.number(), number)):
            number = rows[0][0]
            yield number

    def header(self, number: int) -> dict[str, Any] | None:
        rows = self.server.call(_HEADER, (self.number(), number)) if self.exists() else []
        return header_of(rows[0][0], self.path(number)) if rows else None

    def identity(self) -> str | None:
        if self._identity is None:
            numbers = self._segments_from(0) if self.exists() else ()
            self._identity = next((str(header["log"]) for header in map(self.header, numbers) if header), None)
        return self._identity

    def first(self) -> Position:
        rows = self.server.call(_FIRST, (self.number(),)) if self.exists() else []
        return Position(rows[0][0] if rows else 1, 0)

    def end(self) -> LogEnd:
        rows = self.server.call(_LAST, (self.number(),)) if self.exists() else []
        return LogEnd(Position(*rows[0]) if rows else Position(1, 0), None)

    def sync(self, start: Position, end: Position) -> None:  # noqa: ARG002  # it is all or nothing here
        """Make sure that what can be seen is on the disks of the synchronous standbys, too.

        What was committed is on the server's disk before it can be seen. Only a wait for the standbys can have been
        cut short; this transaction's own comes after it in the same order.
        """
        if self.exists():
            self.server.call("select pg_logical_emit_message(true, 'eventcsv', '') is not null")

    def starts_line(self, position: Position) -> bool:
        if not position.offset_bytes:
            return True
        one = (self.number(), position.segment, position.offset_bytes - 1, position.offset_bytes)
        return bool(self.server.call(_ROWS, one))

    def read(self, start: Position, end: Position, *, crc: int = 0) -> Iterator[Chunk]:
        if start < (first := self.first()):  # each host has a CSV and backups of its own; a prune looks at one host's
            raise CorruptLog(
                f"{self.place}: begins at segment {first.segment}: what was before is pruned, and this CSV and its "
                "backups lack some of it. Copy CSV, .events and backup folders from the host that pruned"
            )
        for number, offset_bytes in segments_between(start, end):
            stop_bytes = end.offset_bytes if number == end.segment else self._size_bytes(number)
            if not stop_bytes:
                yield missing_segment(self.path(number), crc)
            for chunk in self._chunks(number, offset_bytes, stop_bytes, crc):
                crc = chunk.crc
                yield chunk

    def _chunks(self, number: int, at: int, stop: int, crc: int) -> Iterator[Chunk]:
        path = self.path(number)
        for start, raw in self._runs(number, at, stop):
            if start > at:
                yield gap(path, at, start - at, _REMOVED, crc)
            crc = crc32(raw, crc)
            yield Chunk(path, start, raw, crc, torn_from=self._torn_from(number, start, raw))
            at = start + len(raw)
        if at < stop:
            yield gap(path, at, stop - at, _REMOVED, crc)

    def _torn_from(self, number: int, start: int, raw: bytes) -> int | None:
        """Return from which byte on there are half lines at the end of some lines of a log that was copied here."""
        if is_whole(raw[raw.rfind(b"\n", 0, -1) + 1 : -1]):
            return None
        at = start + len(raw)
        while rows := self.server.call(_LINE_AFTER, (self.number(), number, at)):
            line, at = rows[0]
            if is_whole(line[:-1]):
                return noted(line[:-1])
            if not begins_note(line):
                return None
        torn: int | None = (self.header(number + 1) or {}).get("torn")
        return torn

    def _runs(self, number: int, at: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield the bytes of a segment between two places, in pieces without gaps, each with its start."""
        while at < stop:
            page = (self.number(), number, at, min(stop, at + PAGE_BYTES))
            raw, ends = self.server.call(_PAGE, page)[0]
            if raw is None:  # a line longer than a page, or a hole
                rows = self.server.call(_ROW_AFTER, page[:3])
                if not rows or rows[0][0] > stop:
                    return
                page = (*page[:3], rows[0][0])
                raw, ends = self.server.call(_PAGE, page)[0]
            if len(raw) == ends - at:
                yield at, raw
            else:
                yield from _joined(self.server.call(_ROWS, page))
            at = ends

    def tail(self, end: Position, size_bytes: int) -> Iterator[Chunk]:
        start_bytes = max(0, end.offset_bytes - size_bytes)
        if start_bytes:
            rows = self.server.call(_ROW_AFTER, (self.number(), end.segment, start_bytes - 1))
            start_bytes = min(end.offset_bytes, rows[0][0]) if rows else end.offset_bytes
        if end.offset_bytes:
            yield from self.read(Position(end.segment, start_bytes), end)

    def crc(self, start: Position, end: Position, crc: int = 0) -> int | None:
        for number, offset_bytes in segments_between(start, end):
            at = offset_bytes
            stop = end.offset_bytes if number == end.segment else self._size_bytes(number)
            for place, raw in self._runs(number, at, stop):
                if place != at:
                    return None
                crc, at = crc32(raw, crc), place + len(raw)
            if at != stop or not stop:
                return None
        return crc

    def begin_crc(self, start: Position, end: Position, crc: int) -> None:
        """Do nothing: a call that waits for the server would keep other calls from it."""

    def size_bytes(self, start: Position, end: Position) -> int:
        before = sum(map(self._size_bytes, range(start.segment, end.segment)))
        return before + end.offset_bytes - start.offset_bytes

    def _size_bytes(self, number: int) -> int:
        return int(self.server.call(_SIZE, (self.number(), number))[0][0] or 0) if self.exists() else 0


def _joined(rows: list[tuple[bytes, int]]) -> Iterator[tuple[int, bytes]]:
    """Join the lines that follow each other without a gap; yield each run with its start."""
    run: list[bytes] = []
    start = at = -1
    for line, ends in rows:
        if ends - len(line) != at and run:
            yield start, b"".join(run)
            run = []
        if not run:
            start = ends - len(line)
        run.append(line)
        at = ends
    if run:
        yield start, b"".join(run)
