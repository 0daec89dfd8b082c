"""One segment of the file log: its name, its header, its seal, and the lines between them.

A segment in which each newline has got a CR before it is read as if it had none, so that every position, checksum and
seal holds as before.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from eventcsv.errors import UnsupportedFormat
from eventcsv.event import Kind, column_id, utc_text
from eventcsv.log.line import FORMAT_VERSION, MAX_LINE_BYTES, is_whole, unsealed
from eventcsv.log.scan import begins_note, begins_seal, has_crlf
from eventcsv.log.types import Damage
from eventcsv.storage.files import READ_BYTES, Storage
from eventcsv.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

TAIL_BYTES: Final = 64 << 10
_HEAD_BYTES: Final = 4 << 10
_CRC_BYTES: Final = 1 << 20  # fits the processor's cache, and memory for it is had without asking the system
_NAME: Final = re.compile(r"events-([0-9]{6}|[1-9][0-9]{6,})\.jsonl")


def segment_name(number: int) -> str:
    """Return the file name of a segment."""
    return f"events-{number:06d}.jsonl"


def number_of(name: str) -> int | None:
    """Return the number of the segment that a file name is one of, or None."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def header_record(log: str, number: int, key_column: str) -> dict[str, Any]:
    """Return the record of the header line of a segment that begins now.

    Args:
        log: The uuid of the log.
        number: That of the segment.
        key_column: The column that identifies a row.
    """
    return {
        "v": FORMAT_VERSION,
        "ts": utc_text(datetime.now(UTC)),
        "kind": Kind.HEADER.value,
        "log": log,
        "segment": number,
        "key_column": key_column,
        "eventcsv": __version__,
    }


def header_of(line: bytes, path: str) -> dict[str, Any] | None:
    """Return the record of a header line, or None when it is none, or damaged.

    Args:
        line: The line.
        path: Where its segment is, for the error.

    Raises:
        UnsupportedFormat: It was made by a newer eventcsv.
    """
    try:
        record = unsealed(line)
    except UnsupportedFormat as error:
        raise UnsupportedFormat(f"{path}: {error}") from None
    except ValueError:
        return None
    return record if record.get("kind") == Kind.HEADER else None


def check_header(header: dict[str, Any] | None, key_column: str, place: str) -> None:
    """Refuse the header of a log that was made for another key column.

    Raises:
        UnsupportedFormat: It was.
    """
    if header and column_id(header["key_column"]) != column_id(key_column):
        raise UnsupportedFormat(
            f"{place}: is for the key column {header['key_column']!r}, not {key_column!r}. "
            f"Give key={header['key_column']!r} (--key on the command line)"
        )


def _without_crs(storage: Storage, fd: int) -> int:
    """Open a copy of an open file that nobody else sees and in which CR LF is LF."""
    from tempfile import TemporaryFile  # noqa: PLC0415  # only who meets such a file pays for it

    with TemporaryFile(buffering=0) as copy:
        left = b""
        for piece in storage.pieces(fd, 0, storage.fstat(fd).st_size):
            text = left + piece
            left = b"\r" if text.endswith(b"\r") else b""
            storage.write_all(copy.fileno(), text.removesuffix(b"\r").replace(b"\r\n", b"\n"))
        storage.write_all(copy.fileno(), left)
        return os.dup(copy.fileno())


@contextmanager
def opened_segment(storage: Storage, path: str) -> Iterator[Segment | None]:
    """Open a segment to read it as it was written, whoever put CRs into it since, or give None when it is gone."""
    try:
        fd = storage.open_to_read(path)
    except FileNotFoundError:
        yield None
        return
    with storage.closing(fd):
        if not has_crlf(storage.pread(fd, _HEAD_BYTES, 0)):
            yield Segment(storage, path, fd)
            return
        copy = _without_crs(storage, fd)
    with storage.closing(copy):
        yield Segment(storage, path, copy, has_crlf=True)


@dataclass(frozen=True, slots=True)
class Segment:
    """An open segment.

    Attributes:
        storage: The seam to the file system.
        path: Its file.
        fd: The open file, or a copy of it without CRs.
        has_crlf: Whether a program put a CR before each newline.
    """

    storage: Storage
    path: str
    fd: int
    has_crlf: bool = False

    @property
    def name(self) -> str:
        """The name of its file."""
        return os.path.basename(self.path)

    def size_bytes(self) -> int:
        """Return how large it is at this moment."""
        return self.storage.fstat(self.fd).st_size

    def pread(self, size_bytes: int, offset_bytes: int) -> bytes:
        return self.storage.pread(self.fd, size_bytes, offset_bytes)

    def header(self) -> dict[str, Any] | None:
        """Return the record of its header line, or None when there is no whole one.

        Raises:
            UnsupportedFormat: It was made by a newer eventcsv.
        """
        line, newline, _ = self.pread(TAIL_BYTES, 0).partition(b"\n")
        return header_of(line, self.path) if newline else None

    def last_line(self, end_bytes: int, most_bytes: int) -> tuple[int, bytes]:
        """Return where the line starts that ends at a byte of a segment, and its bytes, or the first ones of many."""
        at, cut = end_bytes, -1
        block = b""
        while at > 0 and cut < 0:
            start = max(0, at - TAIL_BYTES)
            block = self.pread(at - start, start)
            cut = block.rfind(b"\n")
            at = start
        at += cut + 1
        size_bytes = min(end_bytes - at, most_bytes)
        line = block[cut + 1 :]
        return at, line if len(line) >= size_bytes else self.pread(size_bytes, at)

    def torn_from(self, size_bytes: int) -> int | None:
        """Return where what is cut off at the end of an open segment begins, or None when nothing is.

        A line that lacks its newline only is none: it will count. Where a note of half a line was cut off itself, that
        half line is the beginning; where seals were, one after the other, the first of them. What stands before a seal
        the header of the next segment tells: it may have been whole.
        """
        at, line = self.last_line(size_bytes, MAX_LINE_BYTES)
        if at == size_bytes or is_whole(line):
            return None
        while at and (begins_note(line) or begins_seal(line)):
            last = line
            before, line = self.last_line(at - 1, MAX_LINE_BYTES)
            if is_whole(line) or (begins_seal(last) and not begins_seal(line)):
                break
            at = before
        return at

    def content(self, end_bytes: int | None) -> Content:
        """Return what is to be read of it: up to a byte, or, of a finished one, all but its seal."""
        if end_bytes is not None:
            return Content(self, end_bytes, b"")
        size_bytes = self.size_bytes()
        tail_bytes = min(size_bytes, TAIL_BYTES)
        seal = _seal_at_end(self.pread(tail_bytes, size_bytes - tail_bytes))
        return Content(self, size_bytes - len(seal), seal)


@dataclass(frozen=True, slots=True)
class Content:
    """What is to be read of an open segment: without its seal, and not beyond the end that was asked for."""

    segment: Segment
    size_bytes: int
    seal: bytes

    def whole_lines(self, offset_bytes: int) -> Iterator[tuple[bytes, bool]]:
        """Read in pieces that end where a line does: yield whole lines, True, or part of an endless one, False."""
        most_bytes = READ_BYTES
        while offset_bytes < self.size_bytes:
            raw = self._piece(offset_bytes, most_bytes)
            cut, most = raw.rfind(b"\n") + 1, most_bytes
            most_bytes = READ_BYTES
            if cut:
                yield (raw := raw[:cut]), True
            elif len(raw) < most:  # the end of the segment
                if not raw:
                    return
                yield raw + b"\n", True
            elif most <= 2 * MAX_LINE_BYTES:
                raw, most_bytes = b"", 2 * most
            else:  # no line is that long; keep only what may be the start of the next one
                yield (raw := raw[:-MAX_LINE_BYTES]), False
            offset_bytes += len(raw)

    def _piece(self, offset_bytes: int, most_bytes: int) -> bytes:
        """Read so much at most; where there is more, up to the end of a line: to cut one off is to copy the rest."""
        stop = offset_bytes + most_bytes
        if stop > self.size_bytes:
            stop = self.size_bytes
        elif most_bytes > TAIL_BYTES:
            tail = self.segment.pread(TAIL_BYTES, stop - TAIL_BYTES)
            if (newline := tail.rfind(b"\n")) >= 0:
                stop += newline + 1 - TAIL_BYTES
        return self.segment.pread(stop - offset_bytes, offset_bytes)

    def crc(self, offset_bytes: int, crc: int) -> int:
        """Return zlib.crc32 from a byte on, continued, as if the last line ended in a newline."""
        piece = b"\n"
        pieces = self.segment.storage.pieces(self.segment.fd, offset_bytes, self.size_bytes, most_bytes=_CRC_BYTES)
        for piece in pieces:  # the last
            crc = crc32(piece, crc)
        return crc if piece.endswith(b"\n") else crc32(b"\n", crc)

    def broken_seal(self, crc: int) -> Damage | None:
        """Check what was read of a finished segment against its seal, which alone shows that whole lines are gone."""
        seal = unsealed(self.seal)
        found = f"{crc:08x}"
        if (seal.get("bytes"), seal.get("crc32")) == (self.size_bytes, found):
            return None
        lines = sum(raw.count(b"\n") for raw, _ in self.whole_lines(0))
        reason = f"the segment does not match its seal: {lines} lines, {self.size_bytes} bytes, crc32 {found}"
        return Damage(self.segment.name, self.size_bytes, len(self.seal), f"{reason} against {seal}")


def _seal_at_end(tail: bytes) -> bytes:
    """Return the seal line that ends a segment, newline included, or b"" when there is none."""
    line = tail[tail.rfind(b"\n", 0, -1) + 1 :]
    try:
        is_seal = line.endswith(b"\n") and unsealed(line).get("kind") == Kind.SEAL
    except ValueError:
        return b""
    return line if is_seal else b""
