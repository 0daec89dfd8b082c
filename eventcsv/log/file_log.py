"""The file log: a directory of segments that any number of processes append to, one line at a time.

On disk, for data/input/input.csv:

    input.events/
        events-000001.jsonl     segments; the highest number is the active one, the only one that grows
        append.lock             held for each append; a sidecar, never renamed, truncated or removed. It grows by a byte
                                before a segment is made, so that one look at it tells whoever appends both that it
                                still is the lock and that the active segment still is that
        compact.lock            held by whoever writes the view
        session.lock            held by the session that is at work
        checkpoint.json         how far the view has folded; see `checkpoint`

A segment starts with a header line and, once finished, ends with a seal line:

    {"v":1,"ts":"...","kind":"header","log":"<uuid>","segment":1,"key_column":"PO_NUMBER","eventcsv":"0.1.0","crc":"..."}
    {"v":1,"ts":"...","kind":"seal","lines":447,"bytes":160313,"crc32":"<of what is before>","torn":160200,"crc":"..."}

between them stand the events, see `line`. A new segment appears whole, header synced, by a rename, before the old one
is sealed; so a missing seal is normal after a crash, and nobody appends behind one. `torn` is the byte of a last line
that a crash had cut off and that the seal had to end; without it there was none. The header of the next segment says it
as well, since a log that is copied to a server has no seals.

To append is to hold the lock for one write: when the last byte is no newline, prefix one (a line torn by a crash must
not swallow the next one) and a line which says that what was ended so is half a line, never acknowledged; write,
unlock, and only then sync, since the kernel commits the syncs of several processes together. What follows the last
newline of the active segment is not there yet.

    {"v":1,"kind":"torn","torn":160200,"id":"8f3a12c4d5e6-00-torn-1-160200","ts":"...","key":"","set":{},"crc":"..."}
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from eventcsv import masking
from eventcsv.errors import AppendError, EventCsvError, LockTimeout, reason_of
from eventcsv.event import utc_text
from eventcsv.log.line import encode
from eventcsv.log.retry import append_error, try_again
from eventcsv.log.rotation import RotatedLog
from eventcsv.log.scan import note
from eventcsv.log.segment import Segment
from eventcsv.log.writer import Writer
from eventcsv.storage.files import Storage
from eventcsv.storage.locks import wait_for_lock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventcsv.event import Event
    from eventcsv.log.types import Position

Durability = Literal["disk", "process"]

RETRIES: Final = 3

_TRANSIENT: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN})


class FileLog(RotatedLog, Writer):
    """The event log in a directory.

    Safe for threads, for forked children and for any number of processes at once. Pickling keeps the settings only.

    Args:
        directory: As of a `RotatedLog`; it is made by the first append. So are the others that are not named here.
        durability: "disk": an appended event survives a power cut. "process": it survives the death of the process, not
            of the machine, and costs a tenth or less.
    """

    def __init__(
        self,
        directory: str,
        *,
        key_column: str,
        durability: Durability = "disk",
        lock_timeout_s: float = 30.0,
        storage: Storage | None = None,
        csv_path: str | None = None,
    ) -> None:
        if durability not in {"disk", "process"}:
            raise ValueError(f'durability: has to be "disk" or "process", not {durability!r}')
        if not 0 <= lock_timeout_s <= threading.TIMEOUT_MAX:
            raise ValueError(f"lock_timeout_s: has to be a number of seconds from 0 on, not {lock_timeout_s}")
        storage = storage or Storage()
        super().__init__(directory, storage, key_column=key_column, lock_timeout_s=lock_timeout_s, csv_path=csv_path)
        self.durability = durability
        self._begin()

    def __reduce__(self) -> tuple[Any, ...]:
        settings = partial(
            FileLog,
            key_column=self.key_column,
            durability=self.durability,
            lock_timeout_s=self.lock_timeout_s,
            storage=self.storage,
            csv_path=self.csv_path,
        )
        return settings, (self.directory,)

    def _begin(self) -> None:
        self._mutex = threading.RLock()
        self._lock_fd = -1
        self._lock_file = (0, 0)
        self._lock_size_bytes = 0
        self._holds_lock = False
        self._segment_fd = -1
        self._segment = 0
        self._segments_made = -1
        self._end_bytes = -1
        self._poisoned = False
        super()._begin()

    def begin_again_after_fork(self) -> None:
        """Close what the parent opened, and never unlock it: the lock belongs to the open file that both share."""
        self._close_files()
        self._begin()

    # --- append ---

    def append(self, event: Event, *, token: int | None = None) -> None:  # noqa: ARG002  # files have no claims
        self._append(encode(event), event)

    def append_all(self, events: Sequence[Event]) -> None:
        if events:
            self._append(b"".join(map(encode, events)), events[0])

    def _append(self, line: bytes, event: Event) -> None:
        try:
            self._append_once(line)
        except (OSError, EventCsvError) as error:
            try:
                if not _is_transient(error):
                    raise
                self._append_again(line, error)
            except (OSError, EventCsvError) as last:
                raise _append_failure(self.directory, event, last) from last

    def _append_again(self, line: bytes, failure: Exception) -> None:
        """Retry what failed with `failure`; the same id may then stand in the log twice."""

        def report(attempt: int, error: str) -> None:
            masking.get_logger().warning("append.retry", attempt=attempt, error=error, log=self.directory)

        try_again(lambda: self._append_once(line), failure, again=_is_transient, report=report, tries=1 + RETRIES)

    def _append_once(self, line: bytes) -> None:
        self._notice_fork()
        mutex: Any = self._mutex
        if mutex._is_owned():  # noqa: SLF001  # what threading.Condition asks, too: no flag beside it can tell at every moment
            raise EventCsvError("append was called again from within an append, by a signal handler or a log handler")
        # Nested, and acquired within: wherever a Ctrl-C strikes, in giving back as well, what was taken is given back.
        try:
            try:
                if not (mutex.acquire(blocking=False) or mutex.acquire(timeout=self.lock_timeout_s)):
                    raise LockTimeout(f"{self._lock_path}: other threads kept it for {self.lock_timeout_s:g} s")
                self._write_locked(line)
                if self.durability == "disk":
                    self._sync()
            finally:
                if mutex._is_owned():  # noqa: SLF001
                    mutex.release()
        finally:
            if mutex._is_owned():  # noqa: SLF001
                mutex.release()

    def _write_locked(self, line: bytes) -> None:
        # Nested for the same reason. `_holds_lock` is set first: to unlock what one does not hold is harmless.
        try:
            try:
                self._lock()
                self._write(line)
            finally:
                self._unlock()
        finally:
            if self._holds_lock:
                self._unlock()

    def _lock(self) -> None:
        while True:
            if self._lock_fd < 0:
                self._open_lock()
            self._holds_lock = True
            wait_for_lock(self.storage, self._lock_fd, self._lock_path, self.lock_timeout_s)
            there = self.storage.stat(self._lock_path)
            if there is not None and (there.st_ino, there.st_dev) == self._lock_file:
                self._lock_size_bytes = there.st_size
                return
            self._close_files()  # the segment too: its folder may have been moved away with the lock

    def _unlock(self) -> None:
        if self._lock_fd >= 0:
            self.storage.unlock(self._lock_fd)
        self._holds_lock = False

    def _open_lock(self) -> None:
        self.make_directory()
        self._lock_fd = self.storage.open_ours(self._lock_path, os.O_RDWR | os.O_CREAT)
        status = self.storage.fstat(self._lock_fd)
        self._lock_file = (status.st_ino, status.st_dev)

    def _write(self, line: bytes) -> None:
        """Write one line at the end of the active segment; the caller holds the lock."""
        if self._segment_fd < 0 or self._poisoned or self._segments_made != self._lock_size_bytes:
            self._to_active_segment()
        status = self.storage.fstat(self._segment_fd)
        if not status.st_nlink or not status.st_size:  # pruned or emptied while this writer slept
            self._to_active_segment()
            status = self.storage.fstat(self._segment_fd)
        size_bytes = status.st_size
        if size_bytes != self._end_bytes and self.storage.pread(self._segment_fd, 1, size_bytes - 1) != b"\n":
            line = self._healing(size_bytes) + line
        self._end_bytes = -1
        written = self.storage.write(self._segment_fd, line)
        if written != len(line):
            raise OSError(errno.EIO, f"only {written} of {len(line)} bytes could be written", self.path(self._segment))
        self._end_bytes = size_bytes + written

    def _healing(self, size_bytes: int) -> bytes:
        """Return what ends the half line at the end of the active segment, and says that it is one.

        Only who holds the lock and finds it there knows that nobody can have been told that it is recorded.
        """
        torn_from = Segment(self.storage, self.path(self._segment), self._segment_fd).torn_from(size_bytes)
        if torn_from is None:  # nothing but the newline was lacking
            return b"\n"
        name = f"{self._writer}-torn-{self._segment}-{torn_from}"
        return b"\n" + note(torn_from, id=name, ts=utc_text(datetime.now(UTC)))

    def _sync(self) -> None:
        try:
            self.storage.datasync(self._segment_fd)
        except OSError:
            # The kernel reports a lost write once and then forgets it, so this descriptor can prove nothing any more.
            self._poisoned = True
            raise

    # --- segments ---

    def _to_active_segment(self) -> None:
        """Open the segment with the highest number for appending, or begin a new one when none will do."""
        highest = max(self.segments(), default=0)
        if highest:
            self.storage.check_ours(self.path(highest))
        is_sound = highest and not (self._poisoned and highest == self._segment)
        if not (is_sound and self._checked_header(highest) and not self.has_crlf(highest)):
            highest += 1
            self._lock_size_bytes = self.begin_segment(highest)
        self._open_segment(highest)

    def _open_segment(self, number: int) -> None:
        if self._segment_fd >= 0:
            stale, self._segment_fd = self._segment_fd, -1
            self.storage.close(stale)
        # Its maker may have died between making a name and syncing it, so whoever appends makes sure.
        if self.durability == "disk":
            self.storage.sync_directory(self.directory)
        self._segment_fd = self.storage.open_ours(self.path(number), os.O_RDWR | os.O_APPEND)
        self._segment = number
        self._segments_made = self._lock_size_bytes
        self._end_bytes = -1
        self._poisoned = False

    def connections_left(self) -> int | None:
        return None  # any number of processes can open files

    def claims(self, *, owner: str, lease_s: float, seen: Position) -> None:
        """Return None: who works with files is on one machine, where the session lock keeps others away."""

    def is_there(self) -> bool:
        """Tell whether anything stands in its place; what that is an append finds out, and says so with its event."""
        return self.storage.exists(self.directory)

    def close(self) -> None:
        with self._mutex:
            self._close_files()

    def _close_files(self) -> None:
        # Forgotten first, closed then: a descriptor whose number somebody else got must never be written to.
        stale = (self._lock_fd, self._segment_fd)
        self._lock_fd = self._segment_fd = -1
        for fd in stale:
            if fd >= 0:
                self.storage.close(fd)

    def __del__(self) -> None:
        if self._pid == os.getpid():
            with suppress(OSError):
                self._close_files()


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, LockTimeout) or (isinstance(error, OSError) and error.errno in _TRANSIENT)


def _append_failure(directory: str, event: Event, error: Exception) -> AppendError:
    tries = f" ({1 + RETRIES} tries)" if _is_transient(error) else " (1 try)"
    reason = reason_of(error)
    if isinstance(error, OSError):  # which says no more of its file than where it is, as this does
        reason = reason.removeprefix(f"{directory}/")
    return append_error(directory, event, reason, tries)
