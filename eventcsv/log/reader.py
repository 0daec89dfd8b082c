"""The read side of the file log: segments, headers, and the lines between two positions. It never writes.

What follows the last newline of the active segment is not there yet. A finished segment is read whole; its seal, which
is no content, is checked and left out. One that ends in mid-line is read as if the newline stood there that its seal
will put there, so that sealing it changes nothing of what was read.

A segment in which each newline has got a CR before it is read as if it had none, so that every position, checksum and
seal holds as before; that is told, and nobody appends to it.

That half a line was never acknowledged is said by the line after it, by the seal, or by the header of the next segment.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from eventcsv.errors import UnsupportedFormat
from eventcsv.event import MAX_LINE_BYTES, Kind, is_whole, unsealed
from eventcsv.log import checksum as checksums
from eventcsv.log.scan import Chunk, Damage, Position, begins_note, crlf_damage, has_crlf, noted, torn_tail
from eventcsv.storage.files import READ_BYTES, Storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

_SEGMENT = re.compile(r"events-([0-9]{6}|[1-9][0-9]{6,})\.jsonl")
_TAIL_BYTES: Final = 64 << 10
_HEAD_BYTES: Final = 4 << 10
_WORTH_A_THREAD_BYTES: Final = 8 << 20
_CRC_BYTES: Final = 1 << 20  # fits the processor's cache, and memory for it is had without asking the system


def segment_name(number: int) -> str:
    """Return the file name of a segment."""
    return f"events-{number:06d}.jsonl"


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where the log ends: after its last newline.

    Attributes:
        position: The end.
        torn: What lies behind it: a line that was being written when its writer was stopped, or None.
    """

    position: Position
    torn: Damage | None


class LogReader:
    """Reads the log in a directory.

    Args:
        directory: Where the segments are; it may not be there yet.
        storage: The seam to the file system.
    """

    def __init__(self, directory: str, storage: Storage) -> None:
        self.directory = directory
        self.storage = storage
        self._coming: dict[tuple[Position, Position, int], Future[int | None]] = {}

    @property
    def place(self) -> str:
        """Where the log is, for messages."""
        return self.directory

    def exists(self) -> bool:
        """Tell whether the log has been begun."""
        return bool(self.segments())

    def path(self, segment: int) -> str:
        return os.path.join(self.directory, segment_name(segment))

    def segments(self) -> list[int]:
        """Return the numbers of the segments, in order; empty when there is no log yet."""
        if not self.storage.has_directory(self.directory):
            return []
        names = self.storage.names(self.directory)
        numbers = sorted(int(found[1]) for name in names if (found := _SEGMENT.fullmatch(name)))
        if numbers and numbers[-1] - numbers[0] >= len(numbers):  # a gap: segments are gone, or strangers are there
            numbers = [number for number in numbers if (self.header(number) or {}).get("segment", number) == number]
        return numbers

    def has_crlf(self, number: int) -> bool:
        """Tell whether a program put a CR before each newline of a segment."""
        fd, is_changed = self._open(number)
        self.storage.close(fd)
        return is_changed

    def _open(self, number: int) -> tuple[int, bool]:
        """Open a segment to read it as it was written, and tell whether somebody put CRs into it since."""
        fd = self.storage.open_to_read(self.path(number))
        is_changed = True
        try:
            is_changed = has_crlf(self.storage.pread(fd, _HEAD_BYTES, 0))
            return (self.storage.open_without_crs(fd), True) if is_changed else (fd, False)
        finally:
            if is_changed:
                self.storage.close(fd)

    def header(self, number: int) -> dict[str, Any] | None:
        """Return the record of a segment's header line, or None when there is no whole one.

        Raises:
            UnsupportedFormat: The segment was made by a newer eventcsv.
        """
        path = self.path(number)
        try:
            fd, _ = self._open(number)
        except FileNotFoundError:
            return None
        try:
            line, newline, _ = self.storage.pread(fd, _TAIL_BYTES, 0).partition(b"\n")
            record = unsealed(line)
        except UnsupportedFormat as error:
            raise UnsupportedFormat(f"{path}: {error}") from None
        except ValueError:
            return None
        finally:
            self.storage.close(fd)
        return record if newline and record.get("kind") == Kind.HEADER else None

    def identity(self) -> str | None:
        """Return the uuid of this log, or None when no header tells."""
        for number in self.segments():
            if header := self.header(number):
                return str(header["log"])
        return None

    def end(self) -> LogEnd:
        """Return where the log ends at this moment. An empty log ends at the start of segment 1."""
        while number := max(self.segments(), default=0):
            end = self._end_of(number)
            # One that was finished between the two looks ends in a seal, which is no content.
            if not self.storage.exists(self.path(number + 1)) or number == max(self.segments(), default=0):
                return end
        return LogEnd(Position(1, 0), None)

    def _end_of(self, number: int) -> LogEnd:
        fd, _ = self._open(number)
        try:
            size_bytes = self.storage.fstat(fd).st_size
            end_bytes, tail = self._last_line(fd, size_bytes, _TAIL_BYTES)
        finally:
            self.storage.close(fd)
        torn = torn_tail(segment_name(number), end_bytes, tail, size_bytes - end_bytes)
        return LogEnd(Position(number, end_bytes), torn)

    def _last_line(self, fd: int, end_bytes: int, most_bytes: int) -> tuple[int, bytes]:
        """Return where the line starts that ends at a byte of a segment, and its bytes, or the first ones of many."""
        at, cut = end_bytes, -1
        block = b""
        while at > 0 and cut < 0:
            start = max(0, at - _TAIL_BYTES)
            block = self.storage.pread(fd, at - start, start)
            cut = block.rfind(b"\n")
            at = start
        at += cut + 1
        size_bytes = min(end_bytes - at, most_bytes)
        line = block[cut + 1 :]
        return at, line if len(line) >= size_bytes else self.storage.pread(fd, size_bytes, at)

    def torn_from(self, fd: int, size_bytes: int) -> int | None:
        """Return where what is cut off at the end of an open segment begins, or None when nothing is.

        A line that lacks its newline only is none: it will count. Where a note of half a line was cut off itself, that
        half line is the beginning.
        """
        at, line = self._last_line(fd, size_bytes, MAX_LINE_BYTES)
        if at == size_bytes or is_whole(line):
            return None
        while at and begins_note(line):
            before, line = self._last_line(fd, at - 1, MAX_LINE_BYTES)
            if is_whole(line):
                break
            at = before
        return at

    def sync(self, start: Position, end: Position) -> None:
        """Make durable what stands between two positions: nobody may rely on what a power cut could still take back."""
        for number in range(start.segment, end.segment + 1):
            try:
                fd = self.storage.open_to_read(self.path(number))
            except FileNotFoundError:
                continue
            try:
                self.storage.datasync(fd)
            finally:
                self.storage.close(fd)

    def starts_line(self, position: Position) -> bool:
        """Tell whether a position of this log is the start of a line, as every position was when it was noted."""
        if not position.offset_bytes:
            return True
        try:
            fd, _ = self._open(position.segment)
        except FileNotFoundError:
            return False
        try:
            return self.storage.pread(fd, 1, position.offset_bytes - 1) == b"\n"
        finally:
            self.storage.close(fd)

    def first(self) -> Position:
        """Return where the log starts; later than segment 1 once old segments were pruned."""
        return Position(min(self.segments(), default=1), 0)

    def read(self, start: Position, end: Position, *, crc: int = 0) -> Iterator[Chunk]:
        """Yield the lines between two positions, each checked, in pieces of bounded size.

        Args:
            start: Where to begin, at the start of a line.
            end: Where to stop, after a newline.
            crc: zlib.crc32 of what came before, to be continued over the bytes read.

        Raises:
            UnsupportedFormat: A line was made by a newer eventcsv.
        """
        for number in range(start.segment, end.segment + bool(end.offset_bytes)):
            with self._open_content(number, end) as content:
                offset_bytes = start.offset_bytes if number == start.segment else 0
                if content is None:
                    missing = Damage(segment_name(number), 0, 0, "the segment is missing")
                    yield Chunk(self.path(number), 0, b"", crc, (missing,))
                    continue
                before, lines = crc, 0
                has_seal = content.seal and not offset_bytes
                for chunk in self._chunks(content, offset_bytes, crc):
                    crc = chunk.crc
                    lines += chunk.raw.count(b"\n") if has_seal else 0
                    yield chunk
                if has_seal:
                    size_bytes = content.size_bytes
                    found = (lines, size_bytes, f"{checksums.of_rest(before, crc, size_bytes):08x}")
                    if broken := _broken_seal(content, found):
                        yield Chunk(content.path, content.size_bytes, b"", crc, (broken,))

    def tail(self, end: Position, size_bytes: int) -> Iterator[Chunk]:
        """Yield the last lines before a position, about `size_bytes` of them, all from its own segment."""
        start = Position(end.segment, max(0, end.offset_bytes - size_bytes))
        if start.offset_bytes:
            try:
                fd, _ = self._open(end.segment)
            except FileNotFoundError:
                return
            try:
                newline = self.storage.pread(fd, MAX_LINE_BYTES, start.offset_bytes).find(b"\n")
            finally:
                self.storage.close(fd)
            start = Position(end.segment, min(end.offset_bytes, start.offset_bytes + newline + 1))
        if end.offset_bytes:
            yield from self.read(start, end)

    def is_sealed(self, number: int) -> bool:
        """Tell whether a segment ends in a seal."""
        with self._open_content(number, Position(number + 1, 0)) as content:
            return content is not None and bool(content.seal)

    def crc(self, start: Position, end: Position, crc: int = 0) -> int | None:
        """Return zlib.crc32 of the bytes between two positions, seals left out, or None when some of them are gone.

        Args:
            start: Where to begin.
            end: Where to stop.
            crc: That of what came before, to be continued.
        """
        if coming := self._coming.pop((start, end, crc), None):
            return coming.result()
        return self._crc(start, end, crc)

    def begin_crc(self, start: Position, end: Position, crc: int) -> None:
        """Compute the `crc` that will be asked for soon in a thread, where that is worth it."""
        if self.size_bytes(start, end) > _WORTH_A_THREAD_BYTES:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # 14 ms that no worker has to pay

            pool = ThreadPoolExecutor(1)
            self._coming[start, end, crc] = pool.submit(self._crc, start, end, crc)
            pool.shutdown(wait=False)

    def _crc(self, start: Position, end: Position, crc: int) -> int | None:
        for number in range(start.segment, end.segment + bool(end.offset_bytes)):
            with self._open_content(number, end) as content:
                if content is None:
                    return None
                offset_bytes = start.offset_bytes if number == start.segment else 0
                if number == end.segment and self.storage.fstat(content.fd).st_size < end.offset_bytes:
                    return None
                piece = b"\n"
                pieces = self.storage.pieces(content.fd, offset_bytes, content.size_bytes, most_bytes=_CRC_BYTES)
                for piece in pieces:  # the last
                    crc = crc32(piece, crc)
                if not piece.endswith(b"\n"):
                    crc = crc32(b"\n", crc)
        return crc

    def size_bytes(self, start: Position, end: Position) -> int:
        """Return how many bytes stand between two positions, about; for a progress bar."""
        total = end.offset_bytes - start.offset_bytes
        for number in range(start.segment, end.segment):
            status = self.storage.stat(self.path(number))
            total += status.st_size if status else 0
        return total

    @contextmanager
    def _open_content(self, number: int, end: Position) -> Iterator[_Content | None]:
        """Open what is to be read of a segment, or give None when it is gone."""
        try:
            fd, is_changed = self._open(number)
        except FileNotFoundError:
            yield None
            return
        try:
            if number == end.segment:
                yield _Content(number, self.path(number), fd, end.offset_bytes, b"", is_changed)
            else:
                size_bytes = self.storage.fstat(fd).st_size
                tail_bytes = min(size_bytes, _TAIL_BYTES)
                seal = _seal_at_end(self.storage.pread(fd, tail_bytes, size_bytes - tail_bytes))
                yield _Content(number, self.path(number), fd, size_bytes - len(seal), seal, is_changed)
        finally:
            self.storage.close(fd)

    def _chunks(self, content: _Content, offset_bytes: int, crc: int) -> Iterator[Chunk]:
        gap = (crlf_damage(content.name, content.size_bytes),) if content.has_crlf else ()
        for raw, are_lines in self._whole_lines(content, offset_bytes):
            crc = crc32(raw, crc)
            if are_lines:
                torn_from = self._torn_from(content, offset_bytes, raw)
                yield Chunk(content.path, offset_bytes, raw, crc, gap, torn_from)
            else:
                endless = Damage(content.name, offset_bytes, len(raw), "no newline for longer than any line can be")
                yield Chunk(content.path, offset_bytes, b"", crc, (*gap, endless))
            offset_bytes += len(raw)
            gap = ()

    def _torn_from(self, content: _Content, offset_bytes: int, raw: bytes) -> int | None:
        """Return from which byte on there are half lines at the end of some lines, by what follows them, or None."""
        if is_whole(raw[raw.rfind(b"\n", 0, -1) + 1 : -1]):
            return None
        end_bytes = offset_bytes + len(raw)
        following = self.storage.pread(content.fd, _TAIL_BYTES, end_bytes)
        for line in following.split(b"\n"):
            if not begins_note(line):
                break
            if is_whole(line):
                return noted(line)
        else:  # the note was cut off as well
            return self.torn_from(content.fd, end_bytes + len(following))
        if end_bytes < content.size_bytes:
            return None
        known = (unsealed(content.seal[:-1]) if content.seal else {}, self.header(content.number + 1) or {})
        return next((record["torn"] for record in known if "torn" in record), None)

    def _whole_lines(self, content: _Content, offset_bytes: int) -> Iterator[tuple[bytes, bool]]:
        """Read in pieces that end where a line does: yield whole lines, True, or part of an endless one, False."""
        most_bytes = READ_BYTES
        while offset_bytes < content.size_bytes:
            raw = self._piece(content, offset_bytes, most_bytes)
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

    def _piece(self, content: _Content, offset_bytes: int, most_bytes: int) -> bytes:
        """Read so much at most; where there is more, up to the end of a line: to cut one off is to copy the rest."""
        stop = offset_bytes + most_bytes
        if stop > content.size_bytes:
            stop = content.size_bytes
        elif most_bytes > _TAIL_BYTES:
            tail = self.storage.pread(content.fd, _TAIL_BYTES, stop - _TAIL_BYTES)
            if (newline := tail.rfind(b"\n")) >= 0:
                stop += newline + 1 - _TAIL_BYTES
        return self.storage.pread(content.fd, stop - offset_bytes, offset_bytes)


@dataclass(frozen=True)
class _Content:
    """An open segment, up to where it is to be read: without its seal, and not beyond the end that was asked for."""

    number: int
    path: str
    fd: int
    size_bytes: int
    seal: bytes
    has_crlf: bool

    @property
    def name(self) -> str:
        """The name of its file."""
        return os.path.basename(self.path)


def _seal_at_end(tail: bytes) -> bytes:
    """Return the seal line that ends a segment, newline included, or b"" when there is none."""
    line = tail[tail.rfind(b"\n", 0, -1) + 1 :]
    try:
        is_seal = line.endswith(b"\n") and unsealed(line[:-1]).get("kind") == Kind.SEAL
    except ValueError:
        return b""
    return line if is_seal else b""


def _broken_seal(content: _Content, found: tuple[int, int, str]) -> Damage | None:
    """Check what was read of a finished segment against its seal, which alone shows that whole lines are gone."""
    seal = unsealed(content.seal[:-1])
    if (seal.get("lines"), seal.get("bytes"), seal.get("crc32")) == found:
        return None
    lines, size_bytes, crc = found
    reason = f"the segment does not match its seal: {lines} lines, {size_bytes} bytes, crc32 {crc}"
    return Damage(content.name, content.size_bytes, len(content.seal), f"{reason} against {seal}")
