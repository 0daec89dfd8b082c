"""The read side of the file log: segments, headers, and the lines between two positions. It never writes.

What follows the last newline of the active segment is not there yet. A finished segment is read whole; its seal, which
is no content, is checked and left out. One that ends in mid-line is read as if the newline stood there that its seal
will put there, so that sealing it changes nothing of what was read.

A segment in which each newline has got a CR before it is read without, see `segment`; that is told, and nobody appends
to it.

That half a line was never acknowledged is said by the line after it, by the seal, or by the header of the next segment.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from eventcsv.log import checksum as checksums
from eventcsv.log.line import MAX_LINE_BYTES, is_whole, unsealed
from eventcsv.log.scan import Chunk, begins_note, crlf_damage, missing_segment, noted, torn_tail
from eventcsv.log.segment import TAIL_BYTES, Content, Segment, number_of, opened_segment, segment_name
from eventcsv.log.types import Damage, LogEnd, Position, segments_between

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from eventcsv.storage.files import Storage

_WORTH_A_THREAD_BYTES: Final = 8 << 20


class LogReader:
    """Reads the log in a directory; see `Log` for what its methods do.

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
        return self.directory

    def exists(self) -> bool:
        return bool(self.segments())

    def path(self, segment: int) -> str:
        return os.path.join(self.directory, segment_name(segment))

    def segments(self) -> list[int]:
        if not self.storage.has_directory(self.directory):
            return []
        names = self.storage.names(self.directory)
        numbers = sorted(number for name in names if (number := number_of(name)) is not None)
        if numbers and numbers[-1] - numbers[0] >= len(numbers):  # a gap: segments are gone, or strangers are there
            numbers = [number for number in numbers if (self.header(number) or {}).get("segment", number) == number]
        return numbers

    def opened(self, number: int) -> AbstractContextManager[Segment | None]:
        """Open a segment to read it, or give None when it is gone."""
        return opened_segment(self.storage, self.path(number))

    def has_crlf(self, number: int) -> bool:
        """Tell whether a program put a CR before each newline of a segment."""
        with self.opened(number) as segment:
            return segment is not None and segment.has_crlf

    def header(self, number: int) -> dict[str, Any] | None:
        with self.opened(number) as segment:
            return segment.header() if segment else None

    def identity(self) -> str | None:
        return next((str(header["log"]) for header in map(self.header, self.segments()) if header), None)

    def end(self) -> LogEnd:
        while number := max(self.segments(), default=0):
            end = self._end_of(number)
            # One that was finished between the two looks ends in a seal, which is no content.
            if end and (not self.storage.exists(self.path(number + 1)) or number == max(self.segments(), default=0)):
                return end
        return LogEnd(Position(1, 0), None)

    def _end_of(self, number: int) -> LogEnd | None:
        with self.opened(number) as segment:
            if segment is None:
                return None
            size_bytes = segment.size_bytes()
            end_bytes, tail = segment.last_line(size_bytes, TAIL_BYTES)
        torn = torn_tail(segment.name, end_bytes, tail, size_bytes - end_bytes)
        return LogEnd(Position(number, end_bytes), torn)

    def sync(self, start: Position, end: Position) -> None:
        for number in range(start.segment, end.segment + 1):
            with suppress(FileNotFoundError), self.storage.opened(self.path(number)) as fd:
                self.storage.datasync(fd)

    def starts_line(self, position: Position) -> bool:
        if not position.offset_bytes:
            return True
        with self.opened(position.segment) as segment:
            return segment is not None and segment.pread(1, position.offset_bytes - 1) == b"\n"

    def first(self) -> Position:
        return Position(min(self.segments(), default=1), 0)

    def read(self, start: Position, end: Position, *, crc: int = 0) -> Iterator[Chunk]:
        for number, offset_bytes in segments_between(start, end):
            with self._content(number, end) as content:
                if content is None:
                    yield missing_segment(self.path(number), crc)
                    continue
                before = crc
                for chunk in self._chunks(number, content, offset_bytes, crc):
                    crc = chunk.crc
                    yield chunk
                if content.seal and not offset_bytes:
                    found = checksums.of_rest(before, crc, content.size_bytes)
                    if broken := content.broken_seal(found):
                        yield Chunk(content.segment.path, content.size_bytes, b"", crc, (broken,))

    def tail(self, end: Position, size_bytes: int) -> Iterator[Chunk]:
        start = Position(end.segment, max(0, end.offset_bytes - size_bytes))
        if start.offset_bytes:
            with self.opened(end.segment) as segment:
                if segment is None:
                    return
                newline = segment.pread(MAX_LINE_BYTES, start.offset_bytes).find(b"\n")
            start = Position(end.segment, min(end.offset_bytes, start.offset_bytes + newline + 1))
        if end.offset_bytes:
            yield from self.read(start, end)

    def is_sealed(self, number: int) -> bool:
        """Tell whether a segment ends in a seal."""
        with self._content(number, Position(number + 1, 0)) as content:
            return content is not None and bool(content.seal)

    def crc(self, start: Position, end: Position, crc: int = 0) -> int | None:
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
        for number, offset_bytes in segments_between(start, end):
            with self._content(number, end) as content:
                if content is None:
                    return None
                if number == end.segment and content.segment.size_bytes() < end.offset_bytes:
                    return None
                crc = content.crc(offset_bytes, crc)
        return crc

    def size_bytes(self, start: Position, end: Position) -> int:
        total = end.offset_bytes - start.offset_bytes
        for number in range(start.segment, end.segment):
            status = self.storage.stat(self.path(number))
            total += status.st_size if status else 0
        return total

    @contextmanager
    def _content(self, number: int, end: Position) -> Iterator[Content | None]:
        """Open what is to be read of a segment, or give None when it is gone."""
        with self.opened(number) as segment:
            yield segment.content(end.offset_bytes if number == end.segment else None) if segment else None

    def _chunks(self, number: int, content: Content, offset_bytes: int, crc: int) -> Iterator[Chunk]:
        segment = content.segment
        gap = (crlf_damage(segment.name, content.size_bytes),) if segment.has_crlf else ()
        for raw, are_lines in content.whole_lines(offset_bytes):
            crc = crc32(raw, crc)
            if are_lines:
                torn_from = self._torn_from(number, content, offset_bytes, raw)
                yield Chunk(segment.path, offset_bytes, raw, crc, gap, torn_from)
            else:
                endless = Damage(segment.name, offset_bytes, len(raw), "no newline for longer than any line can be")
                yield Chunk(segment.path, offset_bytes, b"", crc, (*gap, endless))
            offset_bytes += len(raw)
            gap = ()

    def _torn_from(self, number: int, content: Content, offset_bytes: int, raw: bytes) -> int | None:
        """Return from which byte on there are half lines at the end of some lines, by what follows them, or None."""
        if is_whole(raw[raw.rfind(b"\n", 0, -1) + 1 : -1]):
            return None
        end_bytes = offset_bytes + len(raw)
        following = content.segment.pread(TAIL_BYTES, end_bytes)
        for line in following.split(b"\n"):
            if not begins_note(line):
                break
            if is_whole(line):
                return noted(line)
        else:  # the note was cut off as well
            return content.segment.torn_from(end_bytes + len(following))
        if end_bytes < content.size_bytes:
            return None
        known = (unsealed(content.seal) if content.seal else {}, self.header(number + 1) or {})
        # Where seals were cut off behind a half line, the last one knows of them, and the header of the line.
        return min((record["torn"] for record in known if "torn" in record), default=None)
