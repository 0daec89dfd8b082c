"""The log on a PostgreSQL server, for workers on many machines; `schema` tells how it is kept there.

It is the file log line by line and byte by byte: a position is a segment and a byte in it, and a line is the same line.
Segments are not sealed, since nothing can be torn in a database; a row that is gone shows as bytes that are missing.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from eventcsv.errors import ClaimLost, EventCsvError
from eventcsv.event import BLANKS, Kind
from eventcsv.log.line import encode, sealed
from eventcsv.log.postgres.claims import PgClaims
from eventcsv.log.postgres.reader import PgReader
from eventcsv.log.reader import LogReader
from eventcsv.log.retry import append_error
from eventcsv.log.segment import header_record
from eventcsv.log.types import Position
from eventcsv.log.writer import Writer
from eventcsv.storage.files import Storage, rights_to_look

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eventcsv.event import Event

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


class PgLog(PgReader, Writer):
    """The event log of one job on a server.

    Args:
        url: As of a `PgReader`. So are the others that are not named here.
        directory: Where the lock files and the checkpoint of this machine's CSV are; "" for a worker without a CSV.
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
        super().__init__(url, job=job, key_column=key_column, lock_timeout_s=lock_timeout_s)
        self.directory = directory
        self.csv_path = csv_path
        self.storage = storage or Storage()
        self._begin()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_numbers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._begin()  # a copy writes under a name of its own, as a forked child does

    # --- append ---

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
            raise append_error(self.place, event, str(error)) from error

    def append_all(self, events: Sequence[Event]) -> None:
        """Append some events, one after the other; what is there already is not appended again."""
        for event in events:
            self.append(event)

    def claims(self, *, owner: str, lease_s: float, seen: Position) -> PgClaims:
        return PgClaims(self, owner=owner, lease_s=lease_s, seen=seen)

    def connections_left(self) -> int | None:
        """Return how many more processes can connect to the server as this role, as far as this role can see."""
        return int(self.server.call(_CONNECTIONS_LEFT)[0][0])

    def close(self) -> None:
        self.server.close()

    # --- the job ---

    def _number_to_append_to(self) -> int:
        """Return the number of the job; the first append of a job that has a CSV makes it, as with files."""
        if self._number is None and self.directory and not self.exists():
            self.make()
        return self.number()

    def is_there(self) -> bool:
        """Tell whether the job has been begun, by whichever host."""
        return self.exists()

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
            self.make_directory()

    def make_directory(self) -> None:
        self.storage.make_directory(
            self.directory, like=lambda: rights_to_look(self.storage, self.directory, self.csv_path)
        )

    def _check_no_other_log(self) -> None:
        """Refuse to go on beside a file log that this one does not continue: its results would be lost from the CSV."""
        files = LogReader(self.directory, self.storage) if self.directory else None
        if files and files.exists() and files.identity() not in {None, self.identity()}:
            raise EventCsvError(
                f"{self.directory}: holds a log of its own, whose results are not in {self.place}. "
                "Copy it there (eventcsv log copy FROM TO), or move its segments away"
            )

    def _begin_segment(self, number: int) -> bool:
        header = header_record(self.identity() or str(uuid.uuid4()), number, self.key_column)
        arguments = (self.job, number, sealed(header))
        rows = self.server.call("select eventcsv.begin_segment(%s::text, %s::int, %s::bytea)", arguments)
        return bool(rows[0][0])

    def new_segment(self) -> Position:
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
        for number in sorted(numbers):
            self.server.call("select eventcsv.remove_segment(%s::int, %s::int)", (self.number(), number))
