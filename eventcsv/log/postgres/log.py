"""The log on a PostgreSQL server, for workers on many machines; `pgschema` tells how it is kept there.

It is the file log line by line and byte by byte: a position is a segment and a byte in it, and a line is the same line.
Segments are not sealed, since nothing can be torn in a database; a row that is gone shows as bytes that are missing.
"""

from __future__ import annotations

import itertools
import os
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from eventcsv.errors import AppendError, ClaimLost, CorruptLog, EventCsvError, UnsupportedFormat
from eventcsv.event import BLANKS, FORMAT_VERSION, Event, Kind, column_id, encode, is_whole, sealed, unsealed, utc_text
from eventcsv.log.postgres.claims import PgClaims
from eventcsv.log.postgres.schema import VERSION
from eventcsv.log.postgres.server import NoSuchJob, Server
from eventcsv.log.reader import LogEnd, LogReader, segment_name
from eventcsv.log.scan import Chunk, Damage, Position, begins_note, noted
from eventcsv.storage.files import Storage
from eventcsv.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from eventcsv.storage.rights import Rights

PAGE_BYTES: Final = 4 << 20

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
_STORE: Final = "select eventcsv.store(%s::text, %s::int, %s::bigint, %s::bigint[], %s::text[], %s::bytea[])"
_CONNECTIONS_LEFT: Final = """
    with connected as (
        select usename, datname from pg_catalog.pg_stat_activity
        where datid is not null and coalesce(backend_type, 'client backend') = 'client backend'
    )
    select greatest(0, least(
        current_setting('max_connections')::int - (select count(*) from connected)
            - case when current_setting('is_superuser') = 'on' then 0
                else current_setting('superuser_reserved_connections')::int
                    + coalesce(current_setting('reserved_connections', true), '0')::int end,
        (select nullif(rolconnlimit, -1) from pg_catalog.pg_roles where rolname = session_user)
            - (select count(*) from connected where usename = session_user),
        (select nullif(datconnlimit, -1) from pg_catalog.pg_database where datname = current_database())
            - (select count(*) from connected where datname = current_database())
    ))
"""
_APPEND: Final = "select eventcsv.append(%s::int, %s::text, %s::bytea, %s::text, %s::bigint, %s::boolean)"


class PgLog:
    """The event log of one job on a server.

    Args:
        url: The server and its database, as libpq reads it.
        job: The job's name there.
        directory: Where the lock files and the checkpoint of this machine's CSV are; "" for a worker without a CSV.
        key_column: The column that identifies a row.
        lock_timeout_s: How long to wait for a lock, and for a server that does not answer, in seconds.
        storage: The seam to the file system.
        csv_path: The CSV; who may read it when the directory is made may look into that. By default only its owner may.
    """

    def __init__(
        self,
        url: str,
        *,
        job: str,
        directory: str,
        key_column: str,
        lock_timeout_s: float = 30.0,
        storage: Storage | None = None,
        csv_path: str | None = None,
    ) -> None:
        self.directory = directory
        self.csv_path = csv_path
        self.key_column = key_column
        self.lock_timeout_s = lock_timeout_s
        self.job = job
        self.server = Server(url, lock_timeout_s)
        self.storage = storage or Storage()
        self.write_as(f"{os.urandom(6).hex()}-00")
        self._number: int | None = None
        self._identity: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "_numbers"}
        return state | {"_pid": 0}  # a copy writes under a name of its own, as a forked child does

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state

    @property
    def place(self) -> str:
        """Where the log is, for messages; without user and password."""
        return f"{self.server.place} job {self.job}"

    # --- append ---

    def write_as(self, writer: str) -> None:
        """Begin the ids of events to come with `writer`, which nobody else may use."""
        self._pid = os.getpid()
        self._writer = writer
        self._numbers = itertools.count(1)

    def new_event(self, kind: Kind, key: str, cells: dict[str, str], ts: str) -> Event:
        """Return an event with an id of this writer's."""
        if self._pid != os.getpid():
            self.write_as(f"{os.urandom(6).hex()}-00")
        return Event(f"{self._writer}-{next(self._numbers)}", ts, kind.value, key, cells)

    def append(self, event: Event, *, token: int | None = None) -> None:
        """Append one event; once this returns, the server and its synchronous standbys have it on disk.

        A server that does not answer is waited for, for `lock_timeout_s` seconds.
        """
        line = encode(event)
        key = event.key.strip(BLANKS)
        is_done = token is not None and event.kind == Kind.RESULT
        try:
            self.server.call(_APPEND, (self._number_to_append_to(), event.id, line, key, token, is_done))
        except ClaimLost:
            raise
        except EventCsvError as error:
            raise AppendError(
                f"{self.place}: the {event.kind} of {event.key} could not be recorded: {error}. "
                "Treat it as not done; once the cause is gone, emit it again",
                event,
            ) from error

    def append_all(self, events: Sequence[Event]) -> None:
        """Append some events, one after the other; what is there already is not appended again."""
        for event in events:
            self.append(event)

    def claims(self, *, owner: str, lease_s: float, seen: Position) -> PgClaims:
        """Return the claims of a run."""
        return PgClaims(self, owner=owner, lease_s=lease_s, seen=seen)

    def connections_left(self) -> int | None:
        """Return how many more processes can connect to the server as this role, as far as this role can see."""
        return int(self.server.call(_CONNECTIONS_LEFT)[0][0])

    def close(self) -> None:
        """Close the connection; the next call makes another one. Nothing is lost when this is never called."""
        self.server.close()

    # --- the job ---

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

    def _number_to_append_to(self) -> int:
        """Return the number of the job; the first append of a job that has a CSV makes it, as with files."""
        if self._number is None and self.directory and not self.exists():
            self.make()
        return self.number()

    def _open(self) -> None:
        version, number, header = self.server.call("select * from eventcsv.open(%s::text)", (self.job,))[0]
        if version != VERSION:
            raise UnsupportedFormat(
                f"{self.server.place}: schema version {version}; this eventcsv knows version {VERSION}. "
                "Upgrade the older one of the two: pip install --upgrade eventcsv, or eventcsv log init URL"
            )
        if number is not None and header is not None:
            self._check_header(self._record(header, 1), "")
            self._number = number

    def _record(self, line: bytes, number: int) -> dict[str, Any] | None:
        try:
            record = unsealed(line.removesuffix(b"\n"))
        except UnsupportedFormat as error:
            raise UnsupportedFormat(f"{self.path(number)}: {error}") from None
        except ValueError:
            return None
        return record if record.get("kind") == Kind.HEADER else None

    def _check_header(self, header: dict[str, Any] | None, where: str) -> None:
        if header and column_id(header["key_column"]) != column_id(self.key_column):
            raise UnsupportedFormat(
                f"{where or self.place}: is for the key column {header['key_column']!r}, not {self.key_column!r}. "
                f"Give key={header['key_column']!r} (--key on the command line)"
            )

    def check_key_column(self) -> None:
        """Refuse a log that was made for another key column, or by a newer eventcsv.

        Raises:
            UnsupportedFormat: It was.
        """
        if self._number is None:
            self._open()

    def exists(self) -> bool:
        """Tell whether the log has been begun."""
        if self._number is None:
            self._open()
        return self._number is not None

    is_there = exists

    def check_csv(self) -> None:
        """Do nothing: a job's name is its CSV's."""

    def make(self) -> None:
        """Make the job with its first segment, unless it is there, and the directory for the checkpoint.

        Raises:
            EventCsvError: A file log of another job is in that directory.
        """
        self._check_no_other_log()
        if not self.exists():
            self._begin_segment(1)
            self._open()
        if self.directory:
            self.storage.make_directory(self.directory, like=self._rights)

    def _rights(self) -> Rights | None:
        return self.storage.rights_to_look(self.directory, self.csv_path) if self.csv_path else None

    def _check_no_other_log(self) -> None:
        """Refuse to go on beside a file log that this one does not continue: its results would be lost from the CSV."""
        files = LogReader(self.directory, self.storage) if self.directory else None
        if files and files.exists() and files.identity() not in {None, self.identity()}:
            raise EventCsvError(
                f"{self.directory}: holds a log of its own, whose results are not in {self.place}. "
                "Copy it there (eventcsv log copy FROM TO), or move its segments away"
            )

    def _begin_segment(self, number: int) -> bool:
        header = {
            "v": FORMAT_VERSION,
            "ts": utc_text(datetime.now(UTC)),
            "kind": Kind.HEADER.value,
            "log": self.identity() or str(uuid.uuid4()),
            "segment": number,
            "key_column": self.key_column,
            "eventcsv": __version__,
        }
        arguments = (self.job, number, sealed(header))
        rows = self.server.call("select eventcsv.begin_segment(%s::text, %s::int, %s::bytea)", arguments)
        return bool(rows[0][0])

    def new_segment(self) -> Position:
        """Begin a new segment; return where it starts."""
        self.make()
        number = self.end().position.segment + 1
        while not self._begin_segment(number):  # another machine was faster
            number += 1
        return Position(number, 0)

    def store(self, segment: int, start_bytes: int, rows: list[tuple[int, str | None, bytes]]) -> None:
        """Put lines of another log at the end of this one, in one transaction.

        Args:
            segment: The number of the segment.
            start_bytes: Where in it they begin, which has to be its end.
            rows: The byte at which each line ends, its id, and the line.

        Raises:
            EventCsvError: This log does not end there.
        """
        ends, ids, lines = zip(*rows, strict=True)
        arguments = (self.job, segment, start_bytes, list(ends), list(ids), list(lines))
        try:
            self.server.call(_STORE, arguments)
        except ClaimLost as error:
            raise EventCsvError(f"{error}. Stop whoever does, and copy again") from None

    def finish_seals(self) -> None:
        """Do nothing: a database has no segments that a crash can leave half done."""

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove segments, the oldest first."""
        for number in sorted(numbers):
            self.server.call("select eventcsv.remove_segment(%s::int, %s::int)", (self.number(), number))

    # --- read ---

    def path(self, segment: int) -> str:
        """Return where a segment is, for messages."""
        return f"{self.place}/{segment_name(segment)}"

    def segments(self) -> list[int]:
        """Return the numbers of the segments, in order; empty when there is no log yet."""
        return list(self._segments_from(0)) if self.exists() else []

    def _segments_from(self, number: int) -> Iterator[int]:
        while rows := self.server.call(_NEXT_SEGMENT, (self.number(), number)):
            number = rows[0][0]
            yield number

    def header(self, number: int) -> dict[str, Any] | None:
        """Return the record of a segment's header line, or None when there is no whole one."""
        rows = self.server.call(_HEADER, (self.number(), number)) if self.exists() else []
        return self._record(rows[0][0], number) if rows else None

    def identity(self) -> str | None:
        """Return the uuid of this log, or None when no header tells."""
        if self._identity is None:
            for number in self._segments_from(0) if self.exists() else ():
                if header := self.header(number):
                    self._identity = str(header["log"])
                    break
        return self._identity

    def first(self) -> Position:
        """Return where the log starts; later than segment 1 once old segments were pruned."""
        rows = self.server.call(_FIRST, (self.number(),)) if self.exists() else []
        return Position(rows[0][0] if rows else 1, 0)

    def end(self) -> LogEnd:
        """Return where the log ends at this moment. An empty log ends at the start of segment 1."""
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
        """Tell whether a position of this log is the start of a line."""
        if not position.offset_bytes:
            return True
        one = (self.number(), position.segment, position.offset_bytes - 1, position.offset_bytes)
        return bool(self.server.call(_ROWS, one))

    def read(self, start: Position, end: Position, *, crc: int = 0) -> Iterator[Chunk]:
        """Yield the lines between two positions, each checked, in pieces of bounded size.

        Args:
            start: Where to begin, at the start of a line.
            end: Where to stop, after a newline.
            crc: zlib.crc32 of what came before, to be continued over the bytes read.

        Raises:
            CorruptLog: The log does not go back that far any more.
            UnsupportedFormat: A line was made by a newer eventcsv.
            ServerError: The server does not answer.
        """
        if start < (first := self.first()):  # each host has a CSV and backups of its own; a prune looks at one host's
            raise CorruptLog(
                f"{self.place}: begins at segment {first.segment}: what was before is pruned, and this CSV and its "
                "backups lack some of it. Copy CSV, .events and backup folders from the host that pruned"
            )
        for number in range(start.segment, end.segment + bool(end.offset_bytes)):
            offset_bytes = start.offset_bytes if number == start.segment else 0
            stop_bytes = end.offset_bytes if number == end.segment else self._size_bytes(number)
            if not stop_bytes:
                missing = Damage(segment_name(number), 0, 0, "the segment is missing")
                yield Chunk(self.path(number), 0, b"", crc, (missing,))
            for chunk in self._chunks(number, offset_bytes, stop_bytes, crc):
                crc = chunk.crc
                yield chunk

    def _chunks(self, number: int, at: int, stop: int, crc: int) -> Iterator[Chunk]:
        path = self.path(number)
        for start, raw in self._runs(number, at, stop):
            if start > at:
                yield _gap(path, at, start, crc)
            crc = crc32(raw, crc)
            yield Chunk(path, start, raw, crc, torn_from=self._torn_from(number, start, raw))
            at = start + len(raw)
        if at < stop:
            yield _gap(path, at, stop, crc)

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
        """Yield the last lines before a position, about `size_bytes` of them, all from its own segment."""
        start_bytes = max(0, end.offset_bytes - size_bytes)
        if start_bytes:
            rows = self.server.call(_ROW_AFTER, (self.number(), end.segment, start_bytes - 1))
            start_bytes = min(end.offset_bytes, rows[0][0]) if rows else end.offset_bytes
        if end.offset_bytes:
            yield from self.read(Position(end.segment, start_bytes), end)

    def crc(self, start: Position, end: Position, crc: int = 0) -> int | None:
        """Return zlib.crc32 of the bytes between two positions, continued from `crc`, or None when some are gone."""
        for number in range(start.segment, end.segment + bool(end.offset_bytes)):
            at = start.offset_bytes if number == start.segment else 0
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
        """Return how many bytes stand between two positions; for a progress bar."""
        before = sum(map(self._size_bytes, range(start.segment, end.segment)))
        return before + end.offset_bytes - start.offset_bytes

    def _size_bytes(self, number: int) -> int:
        return int(self.server.call(_SIZE, (self.number(), number))[0][0] or 0) if self.exists() else 0


def _gap(path: str, start: int, end: int, crc: int) -> Chunk:
    reason = "lines are missing: their rows were removed from the table"
    missing = Damage(os.path.basename(path), start, end - start, reason)
    return Chunk(path, start, b"", crc, (missing,))


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
