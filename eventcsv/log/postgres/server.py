"""A connection to a PostgreSQL server that keeps a log: made when needed, checked, and made again when it was lost.

Every call is one statement in a transaction of its own, and safe to repeat: when the connection is lost, nobody knows
whether the statement was carried out, so it is sent again until the server answers or the time is up.
"""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from eventcsv import masking
from eventcsv.errors import ClaimLost, EventCsvError, LockTimeout, ServerError
from eventcsv.log.postgres.schema import CLAIM_LOST, NO_JOB, UNSAFE
from eventcsv.log.retry import try_again
from eventcsv.storage.forks import ForkAware

if TYPE_CHECKING:
    from collections.abc import Generator

    from psycopg import sql

Row = tuple[Any, ...]

# How much longer than for a lock an answer is waited for: the server gives up the lock first, and says so.
_ANSWER_S: Final = 5.0
_DEFAULTS: Final = {
    "application_name": "eventcsv",
    "connect_timeout": 5,
    "target_session_attrs": "read-write",  # of several hosts the one that is the primary now
    # A host that vanishes says nothing: without these a call would wait for its answer for hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_SETTINGS: Final = (
    "set default_transaction_isolation = 'read committed'; set lock_timeout = {timeout_ms}; "
    "set client_min_messages = warning; "
    # How the server reads what it is sent, and the bodies of the schema's functions, whatever is set for the role.
    "set standard_conforming_strings = on; set array_nulls = on; set transform_null_equals = off; "
    # Nor may the server wait for a host that vanished in the middle of an append, whose lock it holds.
    "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3; "
    "select set_config('synchronous_commit', 'on', false) "
    "where current_setting('synchronous_commit') in ('off', 'local', 'remote_write'); "
    "select current_setting('fsync'), current_setting('full_page_writes')"
)
_PID: Final = b"select pg_backend_pid()"
_PROBES: Final = 3
_PROBE_S: Final = 2.0
# Where the server says that it did not wait for a standby; the text of that is in its language, and this is not.
_NOT_WAITED_FOR: Final = "SyncRepWaitForLSN"
# What no waiting mends, in connections that never came about; the server gives their reason as text only.
_HOPELESS: Final = re.compile(r"authentication failed|no password supplied|no pg_hba\.conf entry|does not exist")


class Server(ForkAware):
    """A server, as one database of it. Safe for threads and forked children; pickling keeps the settings only.

    Args:
        url: A URL as libpq reads it.
        timeout_s: How long to wait for a lock, and to try when the server does not answer, in seconds. One that hangs
            is noticed 5 s later than that.

    Raises:
        ServerError: It is no such URL.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url = url
        self.timeout_s = timeout_s
        try:
            self._options = _DEFAULTS | conninfo_to_dict(url) | {"client_encoding": "UTF8"}
        except psycopg.Error:
            # What libpq says repeats a part of it, which may be the password.
            raise ServerError(
                "the log: not a URL that PostgreSQL's client reads. It is postgresql://user@host:port/database; "
                "in a user or password, %, /, @ and : are written %25, %2F, %40 and %3A"
            ) from None
        self._begin()

    def __reduce__(self) -> tuple[Any, ...]:
        return Server, (self.url, self.timeout_s)

    def _begin(self) -> None:
        self._mutex = threading.RLock()
        self._connection: psycopg.Connection[Row] | None = None
        self._warning = ""
        super()._begin()

    @property
    def place(self) -> str:
        """Host, port and database, without user and password."""
        hosts = str(self._options.get("host") or os.environ.get("PGHOST") or "localhost").split(",")
        ports = str(self._options.get("port") or os.environ.get("PGPORT") or "5432").split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        places = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False))
        return f"postgresql://{places}/{self._options.get('dbname') or os.environ.get('PGDATABASE') or ''}"

    def call(self, statement: str, arguments: tuple[object, ...] = ()) -> list[Row]:
        """Carry out one statement, again when nobody knows whether it was.

        Raises:
            ClaimLost: The claim that it was to be done under is another's.
            LockTimeout: A lock was held for `timeout_s` seconds.
            ServerError: The server did not answer for that long, or it refuses, or is not fit to keep a log.
        """
        begun_s = time.monotonic()
        try:
            return self._call_once(statement, arguments)
        except _Unanswered as failure:
            return self._call_again(statement, arguments, failure, begun_s)

    def call_at_once(self, statement: str, arguments: tuple[object, ...] = ()) -> list[Row]:
        """Carry out one statement as `call` does, and wait for no server that does not answer.

        Raises:
            ServerError: It was not carried out, or nobody knows.
        """
        try:
            return self._call_once(statement, arguments)
        except _Unanswered as error:
            raise ServerError(f"{self.place}: {error}") from error

    def run_script(self, script: sql.Composed) -> None:
        """Carry out several statements in one transaction; what they make has to be made only where it lacks."""
        with self._mutex:
            try:
                connection = self._open()
                with connection.transaction():
                    connection.execute(script)
            except psycopg.Error as error:
                raise ServerError(f"{self.place}: {' '.join(str(error).split())}") from error

    def _call_again(
        self, statement: str, arguments: tuple[object, ...], failure: Exception, begun_s: float
    ) -> list[Row]:
        def report(attempt: int, error: str) -> None:
            masking.get_logger().warning("server.retry", attempt=attempt, error=error, server=self.place)

        def again(error: BaseException) -> bool:
            return isinstance(error, _Unanswered)

        try:
            return try_again(
                lambda: self._call_once(statement, arguments),
                failure,
                again=again,
                report=report,
                timeout_s=self.timeout_s,
            )
        except _Unanswered as error:
            raise ServerError(f"{self.place}: {error} (for {time.monotonic() - begun_s:.1f} s)") from error

    def _call_once(self, statement: str, arguments: tuple[object, ...]) -> list[Row]:
        self._notice_fork()
        if self._mutex._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001  # only the lock itself knows at every moment
            raise EventCsvError("the log was called again from within a call, by a signal handler or a log handler")
        with self._mutex:
            try:
                return self._execute(statement, arguments)
            except psycopg.Error as error:
                if self._connection is None or self._connection.broken:
                    self._drop()
                raise self._meaning(error) from error
            except BaseException:
                self._drop()  # whatever answer is still to come, it is not for the next call
                raise

    def _execute(self, statement: str, arguments: tuple[object, ...]) -> list[Row]:
        connection = self._open()
        self._warning = ""
        cursor = connection.execute(statement.encode(), arguments, prepare=True, binary=True)
        rows: list[Row] = cursor.fetchall() if cursor.description else []
        if self._warning:  # nobody waited for the standby: then it may be lost with this server
            raise _Unanswered(f"the server carried it out with a warning: {self._warning}")
        return rows

    def _open(self) -> psycopg.Connection[Row]:
        if self._connection is None or self._connection.closed:
            self._connection = self._connected()
        return self._connection

    def _connected(self) -> psycopg.Connection[Row]:
        connection = _Connection.connect(**self._options, autocommit=True)  # type: ignore[arg-type]  # as libpq takes them
        connection.timeout_s = self.timeout_s + _ANSWER_S
        connection.add_notice_handler(self._note)
        try:
            self._check_own(connection)
            settings = _SETTINGS.format(timeout_ms=max(1, int(self.timeout_s * 1000)))
            cursor = connection.execute(settings.encode())
            while cursor.nextset():
                pass
            self._check_safe(*cursor.fetchall()[0])
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_own(self, connection: _Connection) -> None:
        """Refuse a pooler that lends a process of the server for one transaction only.

        What is set for a session there, and what is prepared in it, is the next client's. A pooler shows by giving its
        connections numbers of its own. One in transaction mode lends what is idle to whoever asks next; in session mode
        the second connection gets another process, or none while there is none.
        """
        pid = _pid_of(connection)
        if pid == connection.info.backend_pid:
            return
        with suppress(psycopg.OperationalError, _Unanswered):
            options = self._options | {"connect_timeout": int(_PROBE_S)}
            other = _Connection.connect(**options, autocommit=True)  # type: ignore[arg-type]  # as libpq takes them
            other.timeout_s = _PROBE_S
            try:
                for _ in range(_PROBES):
                    if _pid_of(other) == pid or _pid_of(connection) != pid:
                        raise self._pooled()
            finally:
                other.close()

    def _pooled(self) -> ServerError:
        return ServerError(
            f"{self.place}: is a pooler in transaction mode, which lends its connections for one transaction; eventcsv "
            "needs session mode. Set pool_mode = session there (PgBouncer), or name the server itself"
        )

    def _check_safe(self, fsync: str, full_page_writes: str) -> None:
        for name, value in (("fsync", fsync), ("full_page_writes", full_page_writes)):
            if value != "on":
                raise ServerError(
                    f"{self.place}: {name} is {value} on this server, so that a power cut could take back what it has "
                    f"acknowledged. Nothing was written; set {name} = on in postgresql.conf"
                )

    def _note(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized != "WARNING":
            return
        warning = diagnostic.message_primary or "a warning"
        if diagnostic.source_function in {_NOT_WAITED_FOR, None}:
            self._warning = warning
        else:  # whatever it is about, what was committed is on disk
            masking.get_logger().debug("server.warning", warning=warning, server=self.place)

    def _meaning(self, error: psycopg.Error) -> Exception:
        """Return what an error of the server means here."""
        text = " ".join(str(error).split())
        state = error.sqlstate or ""
        if state in _MEANINGS:
            kind, meaning = _MEANINGS[state]
            return kind(f"{self.place}: {meaning.format(text=error.diag.message_primary, timeout_s=self.timeout_s)}")
        if state in _NOT_OUR_SESSION:
            return self._pooled()
        passes = isinstance(error, psycopg.OperationalError) or state == "25006"  # a standby, not yet promoted
        if passes and not (not state and _HOPELESS.search(text)):
            return _Unanswered(text or "the connection was lost")
        return ServerError(f"{self.place}: {text}")

    def close(self) -> None:
        """Close the connection; the next call makes another one."""
        with self._mutex:
            self._drop()

    def _drop(self) -> None:
        stale, self._connection = self._connection, None
        if stale is not None:
            with suppress(psycopg.Error, OSError):
                stale.close()

    def __del__(self) -> None:
        if self._pid == os.getpid():
            self._drop()

    def begin_again_after_fork(self) -> None:
        """Forget the parent's connection, without a word to the server, which would end it for both."""
        if self._connection is not None:
            _inherited.append(self._connection)
            with suppress(psycopg.Error, OSError):
                os.close(self._connection.fileno())
        self._begin()


def _pid_of(connection: _Connection) -> int:
    """Return the process that answers on a connection."""
    [[pid]] = connection.execute(_PID, prepare=False).fetchall()
    return int(pid)


class _Connection(psycopg.Connection[Row]):
    """A connection that may be left to itself, and on which nothing is waited for longer than `timeout_s`.

    One that is never closed loses nothing. A server that hangs keeps its connections, and says nothing on them.
    """

    timeout_s = float("inf")

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # as psycopg has it
        """Wait for what a call is about.

        Raises:
            _Unanswered: It took too long.
        """
        return super().wait(_limited(gen, time.monotonic() + self.timeout_s), *args, **kwargs)

    def __del__(self) -> None:  # type: ignore[override]  # nobody gives it an argument
        """Say nothing, where psycopg would warn; the socket is closed with the rest."""


def _limited(waiting: Generator[Any, Any, Any], deadline: float) -> Generator[Any, Any, Any]:
    """Wait as `waiting` does, until a deadline."""
    try:
        wanted = next(waiting)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise _Unanswered("the server is there, and does not answer")
            wanted = waiting.send(ready)
    except StopIteration as done:
        return done.value


class _Unanswered(Exception):  # a signal between two methods, no error
    """The server did not answer; nobody knows whether it carried out what it was asked."""


class NoSuchJob(ServerError):
    """The server has no such job."""


_NOT_OUR_SESSION: Final = frozenset({"42P05", "26000"})
"""SQLSTATEs of a prepared statement that somebody else has made, or that is not there though we have made it."""

_NO_SCHEMA: Final = (ServerError, "has no log of eventcsv. Make it: eventcsv log init URL")
_MEANINGS: Final[dict[str, tuple[type[EventCsvError], str]]] = {
    CLAIM_LOST: (ClaimLost, "{text}"),
    NO_JOB: (NoSuchJob, "{text}"),
    UNSAFE: (ServerError, "{text}. Nothing was written"),
    "55P03": (LockTimeout, "another append held the log for {timeout_s:g} s"),
    "3F000": _NO_SCHEMA,
    "42883": _NO_SCHEMA,
    "42P01": _NO_SCHEMA,
    "42501": (ServerError, "{text}. Grant it: eventcsv log init URL --worker ROLE, or --operator ROLE"),
}
"""What a SQLSTATE means here."""


_inherited: list[object] = []
"""Connections of the parent process, whose end must not come here."""
