"""Copies a job's log from one place to another, byte for byte, so that backups and checkpoints fit both.

What is there already is compared first, and then gone on from; at the end the two are compared as a whole.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from eventcsv.errors import CorruptLog, EventCsvError
from eventcsv.event import Kind
from eventcsv.log.file_log import FileLog
from eventcsv.log.line import unsealed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventcsv.log.interface import Log, ProgressCallback
    from eventcsv.log.postgres.log import PgLog
    from eventcsv.log.scan import Chunk
    from eventcsv.log.types import Position

_PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What was copied.

    Attributes:
        source: Where from.
        target: Where to.
        segments: How many segments the two have.
        size_bytes: How large they are.
        copied_bytes: How much of that was copied now.
    """

    source: str
    target: str
    segments: int
    size_bytes: int
    copied_bytes: int


def copy_log(
    source: FileLog | PgLog, target: FileLog | PgLog, *, on_progress: ProgressCallback | None = None
) -> CopyResult:
    """Make the target the same log as the source, up to the source's present end.

    Args:
        source: Where from.
        target: Where to: nothing yet, or the beginning of the same log.
        on_progress: Called with the bytes copied so far and those to copy.

    Raises:
        EventCsvError: There is no source, or the target is another log.
        CorruptLog: A part of the source is missing, or what was written reads back differently.
        OSError: The disk said no.
    """
    if not source.exists():
        raise EventCsvError(f"{source.place}: there is no log. Check the path, or the name of the job")
    end = source.end().position
    start = _common_end(source, target, end)
    total, copied = source.size_bytes(start, end), 0
    pieces = (_to_files if isinstance(target, FileLog) else _to_server)(source, target, start, end)  # type: ignore[arg-type]  # each takes its own
    for piece in pieces:
        copied += piece
        if on_progress:
            on_progress(copied, total)
    target.finish_seals()
    first = source.first()
    if target.crc(first, end) != source.crc(first, end):
        raise CorruptLog(f"{target.place}: differs from {source.place} after it was copied. Remove it, and copy again")
    size = source.size_bytes(first, end)
    return CopyResult(source.place, target.place, len(target.segments()), size, copied)


def _common_end(source: Log, target: Log, end: Position) -> Position:
    """Return up to where the target is the same log as the source already."""
    if not target.exists():
        return source.first()
    there = target.end().position
    first = source.first()
    same = source.identity() == target.identity() and first == target.first() and there <= end
    if not same or source.crc(first, there) != target.crc(first, there):
        raise EventCsvError(
            f"{target.place}: holds another log, or went its own way since it was copied from {source.place}. "
            "It was left as it is: name another job or directory"
        )
    return there


def _whole(source: Log, start: Position, end: Position) -> Iterator[Chunk]:
    for chunk in source.read(start, end):
        if not chunk.raw:
            raise CorruptLog(
                f"{source.place}/{chunk.damage[0]}. It cannot be copied whole; "
                "bring the CSV up to date and begin a log of its own at the target"
            )
        yield chunk


def _to_server(source: Log, target: PgLog, start: Position, end: Position) -> Iterator[int]:
    for chunk in _whole(source, start, end):
        at = chunk.offset_bytes
        rows: list[tuple[int, str | None, bytes]] = []
        begin = at
        for line in _lines(chunk.raw):
            at += len(line)
            rows.append((at, _id_of(line), line))
            if at - begin > _PIECE_BYTES:
                target.store(chunk.number, begin, rows)
                yield at - begin
                rows, begin = [], at
        if rows:
            target.store(chunk.number, begin, rows)
            yield at - begin


def _lines(raw: bytes) -> list[bytes]:
    return [line + b"\n" for line in raw.split(b"\n")[:-1]]


def _id_of(line: bytes) -> str | None:
    """Return the id of an event, by which a retry is known; what is damaged or no event has none."""
    try:
        record = unsealed(line)
    except ValueError:
        return None
    found = record.get("id")
    return found if isinstance(found, str) and record.get("kind") != Kind.HEADER else None


def _to_files(source: Log, target: FileLog, start: Position, end: Position) -> Iterator[int]:
    torn = target.end().torn if target.exists() else None
    begun = target.exists()
    with target.locked():
        if target.exists() != begun or (begun and target.end().position != start):
            raise EventCsvError(f"{target.place}: somebody else appends to it. Stop whoever does, and copy again")
        for chunk in _whole(source, start, end):
            path = target.path(chunk.number)
            skipped = torn.length_bytes if torn and chunk.offset_bytes == torn.offset_bytes else 0
            torn = None
            if not chunk.offset_bytes:  # whole with its header, as every segment appears
                target.storage.write_atomically(path, chunk.raw)
            else:
                _append(target, path, chunk.raw[skipped:])
            yield len(chunk.raw)


def _append(target: FileLog, path: str, data: bytes) -> None:
    with target.storage.opened(path, os.O_RDWR | os.O_APPEND) as fd:
        target.storage.write_all(fd, data)
        target.storage.sync(fd)
