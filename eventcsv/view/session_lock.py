"""session.lock: only one session works on a CSV at a time, and everybody can see which.

The advisory lock decides, so that a session that was killed is no obstacle. What the file says beside is for people:
who took it last, and when.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from eventcsv.errors import LockTimeout, SessionActive
from eventcsv.event import utc_text
from eventcsv.log.line import FORMAT_VERSION, sealed, unsealed
from eventcsv.storage.locks import lock_holder, locked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventcsv.log.interface import Log
    from eventcsv.storage.files import Storage

_NAME: Final = "session.lock"
_RECORD_BYTES: Final = 256  # written in place, since the file may not be replaced and no rest may show
_TIMEOUT_S: Final = 0.5  # somebody who only looks holds it for a moment


@dataclass(frozen=True, slots=True)
class Holder:
    """A session that is at work.

    Attributes:
        session: Its id.
        pid: Its process.
        since: When it began, ISO 8601 in UTC.
    """

    session: str
    pid: int
    since: str


class SessionLock:
    """The session lock of one log.

    Args:
        log: The event log.
        storage: The seam to the file system.
    """

    def __init__(self, log: Log, storage: Storage) -> None:
        self._log = log
        self._path = os.path.join(log.directory, _NAME)
        self._storage = storage

    @contextmanager
    def held(self, session: str) -> Iterator[None]:
        """Be the only session.

        Args:
            session: Its id, for others to see.

        Raises:
            SessionActive: Another one is; the error says which, of whom, and since when.
        """
        self._log.make_directory()
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self._storage, self._path, _TIMEOUT_S))
            except LockTimeout:
                raise SessionActive(self._occupied()) from None
            self._sign(Holder(session, os.getpid(), utc_text(datetime.now(UTC), timespec="seconds")))
            yield

    def holder(self) -> Holder | None:
        """Return the session that is at work now, or None. Disturbs nobody and writes nothing."""
        if not self._storage.has_directory(os.path.dirname(self._path)) or not self._storage.check_regular(self._path):
            return None
        with self._storage.opened(self._path) as fd:
            if self._storage.try_lock_shared(fd):
                self._storage.unlock(fd)
                return None
            line = self._storage.pread(fd, _RECORD_BYTES, 0)
        try:
            record = unsealed(line.rstrip())
            return Holder(str(record["session"]), int(record["pid"]), str(record["since"]))
        except (ValueError, KeyError):
            return Holder("unknown", 0, "")

    def _sign(self, holder: Holder) -> None:
        record = sealed({"v": FORMAT_VERSION, "session": holder.session, "pid": holder.pid, "since": holder.since})
        folder = self._storage.rights(os.path.dirname(self._path))
        with self._storage.opened(self._path, os.O_RDWR) as fd:
            if folder:  # whoever may look at the job may see who works on it
                self._storage.grant(fd, folder.to_read(os.geteuid()))
            self._storage.write_all(fd, record[:-1].ljust(_RECORD_BYTES - 1) + b"\n")

    def _occupied(self) -> str:
        holder = self.holder()
        if holder is None:  # it ended just now
            return f"{self._path}: was held by another session that has just ended. Try again"
        with self._storage.opened(self._path) as fd:
            process = lock_holder(self._storage.fstat(fd))
        age = f" since {holder.since}" if holder.since else ""
        return (
            f"{self._path}: session {holder.session} works on this CSV{age}: {process}. "
            "Only one may at a time: wait for it to end, or stop it"
        )
