"""The file log: a directory of segments that any number of processes append to, one line at a time.

On disk, for data/input/input.csv:

    input.events/
        events-000001.jsonl     segments; the highest number is the active one, the only one that grows
        append.lock             held for each append; a sidecar, never renamed, truncated or removed. It grows by a byte
                                before a segment is made, so that one look at it tells whoever appends both that it
                                still is the lock and that the active segment still is that
        compact.lock            held by whoever writes the view
        session.lock            held by the session that is at work
        checkpoint.json         how far the view has folded; see `compactor`

A segment starts with a header line and, once finished, ends with a seal line:

    {"v":1,"ts":"...","kind":"header","log":"<uuid>","segment":1,"key_column":"PO_NUMBER","eventcsv":"0.1.0","crc":"..."}
    {"v":1,"ts":"...","kind":"seal","lines":447,"bytes":160313,"crc32":"<of what is before>","torn":160200,"crc":"..."}

between them stand the events, see `event`. A new segment appears whole, header synced, by a rename, before the old one
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
import itertools
import os
import threading
import weakref
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal
from zlib import crc32

from eventcsv import masking
from eventcsv.errors import AppendError, EventCsvError, LockTimeout, UnsupportedFormat, reason_of
from eventcsv.event import FORMAT_VERSION, Event, Kind, column_id, encode, sealed, unsealed, utc_text
from eventcsv.log.reader import LogReader
from eventcsv.log.scan import Position, note
from eventcsv.masking import escaped
from eventcsv.storage.files import Storage
from eventcsv.storage.locks import locked, wait_for_lock
from eventcsv.storage.naming import log_of, rival_of
from eventcsv.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from eventcsv.storage.rights import Rights

Durability = Literal["disk", "process"]

CHECKPOINT_NAME: Final = "checkpoint.json"
RETRIES: Final = 3
FIRST_RETRY_S: Final = 0.05
LONGEST_RETRY_S: Final = 1.0

_TRANSIENT: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN})


class FileLog(LogReader):
    """The event log in a directory.

    Safe for threads, for forked children and for any number of processes at once. Pickling keeps the settings only.

    Args:
        directory: Where the segments are; made by the first append.
        key_column: The column that identifies a row; it is noted in the headers and has to match them.
        durability: "disk": an appended event survives a power cut. "process": it survives the death of the process, not
            of the machine, and costs a tenth or less.
        lock_timeout_s: How long to wait for the lock, in seconds.
        storage: The seam to the file system.
        csv_path: The CSV; who may read it when the log is begun may read the log. By default only its owner may.
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
        super().__init__(directory, storage or Storage())
        self.key_column = key_column
        self.durability = durability
        self.lock_timeout_s = lock_timeout_s
        self.csv_path = csv_path
        self._lock_path = os.path.join(directory, "append.lock")
        self._begin()
        _all_logs.add(self)

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
        """Start with nothing open, as this process's own writer."""
        self._pid = os.getpid()
        self._writer = f"{os.urandom(6).hex()}-00"
        self._numbers = itertools.count(1)
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

    def _begin_again_after_fork(self) -> None:
        """Close what the parent opened, and never unlock it: the lock belongs to the open file that both share."""
        self._close_files()
        self._begin()

    # --- append ---

    def write_as(self, writer: str) -> None:
        """Begin the ids of events to come with `writer`, which nobody else may use."""
        self._writer = writer
        self._numbers = itertools.count(1)

    def new_event(self, kind: Kind, key: str, cells: dict[str, str], ts: str) -> Event:
        """Return an event with an id of this writer's."""
        if self._pid != os.getpid():
            self._begin_again_after_fork()
        return Event(f"{self._writer}-{next(self._numbers)}", ts, kind.value, key, cells)

    def append(self, event: Event, *, token: int | None = None) -> None:  # noqa: ARG002  # files have no claims
        """Append one event; once this returns, it is as durable as `durability` says.

        Raises:
            InvalidEvent: It cannot be a line of the log; nothing was written.
            AppendError: It could not be made durable, transient faults retried; the error carries the event.
        """
        self._append(encode(event), event)

    def append_all(self, events: Sequence[Event]) -> None:
        """Append some events in one write; see `append`."""
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
                raise AppendError(_append_failure(self.directory, event, last), event) from last

    def _append_again(self, line: bytes, failure: Exception) -> None:
        """Retry what failed with `failure`; the same id may then stand in the log twice."""
        import tenacity  # noqa: PLC0415  # 40 ms that a worker whose appends succeed does not pay

        failures = [failure]

        def attempt() -> None:
            if failures:  # the first attempt is the one that has failed already
                raise failures.pop()
            self._append_once(line)

        def report(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            masking.get_logger().warning(
                "append.retry", attempt=state.attempt_number, error=str(error), log=self.directory
            )

        tenacity.Retrying(
            stop=tenacity.stop_after_attempt(1 + RETRIES),
            wait=tenacity.wait_exponential(FIRST_RETRY_S, LONGEST_RETRY_S) + tenacity.wait_random(0, FIRST_RETRY_S),
            retry=tenacity.retry_if_exception(_is_transient),
            before_sleep=report,
            reraise=True,
        )(attempt)

    def _append_once(self, line: bytes) -> None:
        if self._pid != os.getpid():
            self._begin_again_after_fork()
        if self._mutex_is_mine():
            raise EventCsvError("append was called again from within an append, by a signal handler or a log handler")
        # Nested, and acquired within: wherever a Ctrl-C strikes, what was taken is given back.
        try:
            try:
                if not self._mutex.acquire(timeout=self.lock_timeout_s):
                    raise LockTimeout(f"{self._lock_path}: other threads kept it for {self.lock_timeout_s:g} s")
                self._write_locked(line)
                if self.durability == "disk":
                    self._sync()
            finally:
                if self._mutex_is_mine():
                    self._mutex.release()
        finally:
            if self._mutex_is_mine():
                self._mutex.release()

    def _mutex_is_mine(self) -> bool:
        # What threading.Condition asks, too: only the lock itself knows at every moment, as no flag beside it can.
        return bool(self._mutex._is_owned())  # type: ignore[attr-defined]  # noqa: SLF001  # see above

    def _write_locked(self, line: bytes) -> None:
        # Nested, so that a Ctrl-C that strikes the inner unlock does not leave the lock behind. `_holds_lock` is set
        # first: to unlock what one does not hold is harmless.
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

    def rights(self) -> Rights | None:
        """Return the rights to give the directory of the log; None when it is for its owner only."""
        return self.storage.rights_to_look(self.directory, self.csv_path) if self.csv_path else None

    def _make_directory(self) -> None:
        self.storage.make_directory(self.directory, like=self.rights)

    def _open_lock(self) -> None:
        self._make_directory()
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
        torn_from = self.torn_from(self._segment_fd, size_bytes)
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
        usable = is_sound and self._has_header(highest) and not self.has_crlf(highest)
        self._open_segment(highest if usable else self._create_segment(highest + 1))

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

    def _create_segment(self, number: int) -> int:
        header = {
            "v": FORMAT_VERSION,
            "ts": utc_text(datetime.now(UTC)),
            "kind": Kind.HEADER.value,
            "log": self.identity() or self._identity_in_checkpoint() or _new_uuid(),
            "segment": number,
            "key_column": self.key_column,
            "eventcsv": __version__,
        }
        if (torn_from := self._torn_end_of(number - 1)) is not None:
            header["torn"] = torn_from
        if self.csv_path:
            header["csv"] = escaped(os.path.basename(self.csv_path))
        self._announce_segment()
        self.storage.write_atomically(self.path(number), sealed(header))
        return number

    def _torn_end_of(self, number: int) -> int | None:
        try:
            fd, _ = self._open(number)
        except FileNotFoundError:
            return None
        try:
            return self.torn_from(fd, self.storage.fstat(fd).st_size)
        finally:
            self.storage.close(fd)

    def _announce_segment(self) -> None:
        """Let all who append look for a new segment, before it is there: its maker may die at any moment."""
        fd = self.storage.open_ours(self._lock_path, os.O_WRONLY | os.O_APPEND)
        try:
            self.storage.write_all(fd, b".")
            self._lock_size_bytes = self.storage.fstat(fd).st_size
        finally:
            self.storage.close(fd)

    def _has_header(self, number: int) -> bool:
        """Tell whether a segment has a header; one that was damaged is left alone, and a new segment begun."""
        return self._checked_header(number) is not None

    def check_key_column(self) -> None:
        """Refuse a log that was made for another key column.

        Raises:
            UnsupportedFormat: It was, or a newer eventcsv made it.
        """
        for number in self.segments():
            if self._checked_header(number):
                return

    def check_csv(self) -> None:
        """Refuse a log that is another CSV's, which is beside this one and whose log is called the same.

        Raises:
            UnsupportedFormat: It is.
        """
        if self._rival():
            for number in self.segments():
                if header := self.header(number):
                    self._check_csv(header)
                    return

    def _rival(self) -> str | None:
        """Return the other CSV whose log this could be."""
        is_usual = self.csv_path and os.path.realpath(self.directory) == log_of(self.csv_path)
        return rival_of(self.csv_path) if self.csv_path and is_usual else None

    def _check_csv(self, header: dict[str, Any]) -> None:
        if rival := self._rival():
            # Earlier versions did not note it; then it is the one's that is called .csv.
            owner = header.get("csv") or os.path.basename(max(rival, self.csv_path or "", key=len))
            if owner == os.path.basename(rival):
                raise UnsupportedFormat(
                    f"{self.directory}: is the log of {rival}, not of {self.csv_path}. "
                    "Give this CSV another name, or its log one of its own: log=... (--log on the command line)"
                )

    def _checked_header(self, number: int) -> dict[str, Any] | None:
        header = self.header(number)
        if header:
            self._check_csv(header)
        if header and column_id(header["key_column"]) != column_id(self.key_column):
            raise UnsupportedFormat(
                f"{self.path(number)}: is for the key column {header['key_column']!r}, not {self.key_column!r}. "
                f"Give key={header['key_column']!r} (--key on the command line)"
            )
        return header

    def _identity_in_checkpoint(self) -> str | None:
        """Return the uuid that the checkpoint knows, since a damaged header must not cost the log its backups."""
        line = self.storage.read(os.path.join(self.directory, CHECKPOINT_NAME))
        try:
            identity = unsealed((line or b"").removesuffix(b"\n"))["log"]
        except (ValueError, KeyError, UnsupportedFormat):
            return None
        return identity if isinstance(identity, str) else None

    def make(self) -> None:
        """Make the log with its first segment, unless it is there."""
        if not self.segments():
            with self.locked():
                if not self.segments():
                    self._create_segment(1)

    def new_segment(self) -> Position:
        """Begin a new segment and seal the one before; return where the new one starts.

        Raises:
            LockTimeout: The lock was held by somebody else.
            OSError: The disk said no.
        """
        with self.locked():
            highest = max(self.segments(), default=0)
            self._create_segment(highest + 1)
            self._seal_up_to(highest)
        return Position(highest + 1, 0)

    def finish_seals(self) -> None:
        """Seal the finished segments whose sealing a crash had cut short, so that nobody takes that for damage.

        Raises:
            LockTimeout: The lock was held by somebody else.
            OSError: The disk said no.
        """
        if len(self.segments()) > 1:
            with self.locked():
                self._seal_up_to(max(self.segments(), default=0) - 1)

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove segments, the oldest first, so that a kill leaves a log without gaps."""
        for number in sorted(numbers):
            self.storage.remove_ours(self.path(number))
        self.storage.sync_directory(self.directory)

    def _seal_up_to(self, number: int) -> None:
        """Seal a segment and those before it, down to one that is sealed."""
        if self.storage.exists(self.path(number)) and not self.is_sealed(number):
            # The maker of the one after it may have died: nothing must be sealed that could be the active one again.
            self.storage.sync_directory(self.directory)
        while self.storage.exists(self.path(number)) and not self.is_sealed(number):
            if not self.has_crlf(number):  # once it is as it was, it is sealed
                self._seal(number)
            number -= 1

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the append lock, on a descriptor of its own; the directory is made when it is missing.

        Raises:
            LockTimeout: Somebody else held it for `lock_timeout_s` seconds.
        """
        self._make_directory()
        with locked(self.storage, self._lock_path, self.lock_timeout_s):
            yield

    def _seal(self, number: int) -> None:
        fd = self.storage.open_ours(self.path(number), os.O_RDWR | os.O_APPEND)
        try:
            crc = lines = size_bytes = 0
            piece = b"\n"
            for piece in self.storage.pieces(fd, 0, self.storage.fstat(fd).st_size):
                crc, lines = crc32(piece, crc), lines + piece.count(b"\n")
                size_bytes += len(piece)
            heal = b"" if piece.endswith(b"\n") else b"\n"
            seal = {
                "v": FORMAT_VERSION,
                "ts": utc_text(datetime.now(UTC)),
                "kind": Kind.SEAL.value,
                "lines": lines + len(heal),
                "bytes": size_bytes + len(heal),
                "crc32": f"{crc32(heal, crc):08x}",
            }
            # Never acknowledged, and known here for certain: no damage to whoever reads it.
            if heal and (torn_from := self.torn_from(fd, size_bytes)) is not None:
                seal["torn"] = torn_from
            self.storage.write_all(fd, heal + sealed(seal))
            self.storage.sync(fd)
        finally:
            self.storage.close(fd)

    def connections_left(self) -> int | None:
        """Return None: any number of processes can open files."""
        return None

    def claims(self, *, owner: str, lease_s: float, seen: Position) -> None:
        """Return None: who works with files is on one machine, where the session lock keeps others away."""

    def is_there(self) -> bool:
        """Tell whether anything stands in its place; what that is an append finds out, and says so with its event."""
        return self.storage.exists(self.directory)

    def close(self) -> None:
        """Close the files; the next append opens them again. Nothing is lost when this is never called."""
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
        if getattr(self, "_pid", 0) == os.getpid():
            with suppress(OSError):
                self._close_files()


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, LockTimeout) or (isinstance(error, OSError) and error.errno in _TRANSIENT)


_NOUNS: Final = {Kind.STARTED.value: "start"}


def _append_failure(directory: str, event: Event, error: Exception) -> str:
    tries = f"{1 + RETRIES} tries" if _is_transient(error) else "1 try"
    what = _NOUNS.get(event.kind, event.kind)
    reason = reason_of(error)
    if isinstance(error, OSError):  # which says no more of its file than where it is, as this does
        reason = reason.removeprefix(f"{directory}/")
    return (
        f"{directory}: the {what} of {event.key} could not be recorded ({tries}): {reason}. "
        "Treat it as not done; once the cause is gone, emit it again"
    )


def _new_uuid() -> str:
    """Return a random UUID; the module that makes them takes 10 ms to import."""
    hexes = os.urandom(16).hex()
    return f"{hexes[:8]}-{hexes[8:12]}-4{hexes[13:16]}-{'89ab'[int(hexes[16], 16) % 4]}{hexes[17:20]}-{hexes[20:]}"


_all_logs: weakref.WeakSet[FileLog] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    # At once, not at the next append: while a child keeps the inherited lock file open, a parent that is killed in
    # mid-append leaves the lock held.
    for log in list(_all_logs):
        log._begin_again_after_fork()  # noqa: SLF001  # its own module


os.register_at_fork(after_in_child=_after_fork_in_child)
