"""The segments of the file log: how one begins, is sealed, and goes. `file_log` has the format, and appends."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from eventcsv.errors import UnsupportedFormat
from eventcsv.event import Kind, utc_text
from eventcsv.log.line import FORMAT_VERSION, sealed, unsealed
from eventcsv.log.reader import LogReader
from eventcsv.log.segment import Segment, check_header, header_record
from eventcsv.log.types import Position
from eventcsv.masking import escaped
from eventcsv.storage.files import rights_to_look
from eventcsv.storage.locks import locked
from eventcsv.storage.naming import log_of, rival_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from eventcsv.storage.files import Storage

CHECKPOINT_NAME: Final = "checkpoint.json"


class RotatedLog(LogReader):
    """A log in a directory, as far as whole segments of it are made, sealed and removed.

    Args:
        directory: Where the segments are.
        storage: The seam to the file system.
        key_column: The column that identifies a row; it is noted in the headers and has to match them.
        lock_timeout_s: How long to wait for the lock, in seconds.
        csv_path: The CSV; who may read it when the log is begun may read the log. By default only its owner may.
    """

    def __init__(
        self, directory: str, storage: Storage, *, key_column: str, lock_timeout_s: float, csv_path: str | None
    ) -> None:
        super().__init__(directory, storage)
        self.key_column = key_column
        self.lock_timeout_s = lock_timeout_s
        self.csv_path = csv_path
        self._lock_path = os.path.join(directory, "append.lock")

    def make_directory(self) -> None:
        self.storage.make_directory(
            self.directory, like=lambda: rights_to_look(self.storage, self.directory, self.csv_path)
        )

    def begin_segment(self, number: int) -> int:
        """Begin a segment; return how large the lock file is by now. The caller holds the lock."""
        header = header_record(
            self.identity() or self._identity_in_checkpoint() or _new_uuid(), number, self.key_column
        )
        if (torn_from := self._torn_end_of(number - 1)) is not None:
            header["torn"] = torn_from
        if self.csv_path:
            header["csv"] = escaped(os.path.basename(self.csv_path))
        announced_bytes = self._announce_segment()
        self.storage.write_atomically(self.path(number), sealed(header))
        return announced_bytes

    def _torn_end_of(self, number: int) -> int | None:
        with self.opened(number) as segment:
            return segment.torn_from(segment.size_bytes()) if segment else None

    def _announce_segment(self) -> int:
        """Let all who append look for a new segment, before it is there: its maker may die at any moment."""
        with self.storage.opened(self._lock_path, os.O_WRONLY | os.O_APPEND) as fd:
            self.storage.write_all(fd, b".")
            return self.storage.fstat(fd).st_size

    def check_key_column(self) -> None:
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
        """Return the header of a segment, or None when it is damaged: such a segment is left alone."""
        header = self.header(number)
        if header:
            self._check_csv(header)
        check_header(header, self.key_column, self.path(number))
        return header

    def _identity_in_checkpoint(self) -> str | None:
        """Return the uuid that the checkpoint knows, since a damaged header must not cost the log its backups."""
        line = self.storage.read(os.path.join(self.directory, CHECKPOINT_NAME))
        try:
            identity = unsealed(line or b"")["log"]
        except (ValueError, KeyError, UnsupportedFormat):
            return None
        return identity if isinstance(identity, str) else None

    def make(self) -> None:
        if not self.segments():
            with self.locked():
                if not self.segments():
                    self.begin_segment(1)

    def new_segment(self) -> Position:
        """Begin a new segment and seal the one before; return where the new one starts."""
        with self.locked():
            highest = max(self.segments(), default=0)
            self.begin_segment(highest + 1)
            self._seal_up_to(highest)
        return Position(highest + 1, 0)

    def finish_seals(self) -> None:
        """Seal the finished segments whose sealing a crash had cut short, so that nobody takes that for damage."""
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
        self.make_directory()
        with locked(self.storage, self._lock_path, self.lock_timeout_s):
            yield

    def _seal(self, number: int) -> None:
        path = self.path(number)
        with self.storage.opened(path, os.O_RDWR | os.O_APPEND) as fd:
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
            if heal and (torn_from := Segment(self.storage, path, fd).torn_from(size_bytes)) is not None:
                seal["torn"] = torn_from
            self.storage.write_all(fd, heal + sealed(seal))
            self.storage.sync(fd)


def _new_uuid() -> str:
    """Return a random UUID; the module that makes them takes 10 ms to import."""
    hexes = os.urandom(16).hex()
    return f"{hexes[:8]}-{hexes[8:12]}-4{hexes[13:16]}-{'89ab'[int(hexes[16], 16) % 4]}{hexes[17:20]}-{hexes[20:]}"
