"""What the bytes of a log say: which lines count, and where the damage is. Pure; `segment` reads the bytes.

A line counts when it ends in a newline, carries the checksum of its own bytes and parses. Anything else is damage: it
is reported with its place and read around, never repaired. Should the newline before a line be lost, the two run
together; the second one is found again, since `{"v":` with bare quotes can only be the start of a line (inside a JSON
text every quote is escaped).

Programs that exchange text between systems put a CR before each newline, as git does when it is told to. No line of
ours ends in one, so what is whole without it is read so, and told.

One kind of bytes that are no line is no damage: half a line of which a later line says that its writer was stopped
before it was acknowledged; see `note`. Nobody but whoever found it at the end of the log can know that.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final
from zlib import crc32

from eventcsv.errors import UnsupportedFormat
from eventcsv.event import Event, Kind
from eventcsv.log.line import CRC_BYTES, FORMAT_VERSION, decode, is_whole, sealed, unsealed
from eventcsv.log.types import Damage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LINE_START: Final = b'{"v":'
_OUR_VERSION: Final = b'{"v":%d,' % FORMAT_VERSION
_HEADER: Final = b',"kind":"%b",' % Kind.HEADER.encode()
_CRLF: Final = (
    "CR LF at the ends of lines, as git's core.autocrlf makes them; all was read without the CR. "
    "The way back, while nobody appends: sed -i 's/\\r$//' FILE, and a line '*.jsonl -text' in .gitattributes"
)
_NOTE: Final = b'{"v":%d,"kind":"%b",' % (FORMAT_VERSION, Kind.TORN.encode())
_NOTE_MARK: Final = _NOTE[: _NOTE.index(b"kind") + 1]  # events go on with "id", headers and seals with "ts"
_SEAL_MARK: Final = b'{"v":%d,"t' % FORMAT_VERSION


@dataclass(frozen=True)
class Chunk:
    """Whole lines of one segment, read at once. They are judged when somebody asks, since `frames` has a faster way.

    Attributes:
        path: The segment's file.
        offset_bytes: Where `raw` starts in it.
        raw: The bytes as they are.
        crc: zlib.crc32 of everything read so far, this chunk included.
        gap: Damage that is known already: a segment that is missing, or does not match its seal.
        torn_from: From which byte on what is no line is known to be half a line, by what follows the chunk; or None.
    """

    path: str
    offset_bytes: int
    raw: bytes
    crc: int
    gap: tuple[Damage, ...] = ()
    torn_from: int | None = None

    @property
    def segment(self) -> str:
        """The name of the segment's file."""
        return os.path.basename(self.path)

    @property
    def number(self) -> int:
        """The number of the segment."""
        return int(self.segment.removeprefix("events-").removesuffix(".jsonl"))

    @property
    def body(self) -> bytes:
        """The bytes without the segment's header.

        Raises:
            UnsupportedFormat: The segment was made by a newer eventcsv.
        """
        try:
            return self.raw[header_size_bytes(self.offset_bytes, self.raw) :]
        except UnsupportedFormat as error:
            raise UnsupportedFormat(f"{self.path}, {error}") from None

    @property
    def lines(self) -> bytes:
        """The lines whose checksum holds, header left out."""
        return self._scanned[0]

    @property
    def count(self) -> int:
        """How many those are."""
        return self._scanned[1]

    @property
    def damage(self) -> tuple[Damage, ...]:
        """What was read around."""
        return (*self.gap, *self._scanned[2])

    @cached_property
    def _scanned(self) -> tuple[bytes, int, tuple[Damage, ...]]:
        try:
            lines, count, damage = scan(self.segment, self.offset_bytes, self.raw)
        except UnsupportedFormat as error:
            raise UnsupportedFormat(f"{self.path}, {error}") from None
        return lines, count, damage if self.torn_from is None else tuple(_vouched(damage, self.torn_from))


def gap(path: str, offset_bytes: int, length_bytes: int, reason: str, crc: int) -> Chunk:
    """Return a chunk without lines, for bytes of a segment that are missing or no lines."""
    return Chunk(path, offset_bytes, b"", crc, (Damage(os.path.basename(path), offset_bytes, length_bytes, reason),))


def missing_segment(path: str, crc: int) -> Chunk:
    """Return a chunk without lines, for a segment that is not there."""
    return gap(path, 0, 0, "the segment is missing", crc)


def scan(segment: str, offset_bytes: int, raw: bytes) -> tuple[bytes, int, tuple[Damage, ...]]:
    """Return the lines in `raw` whose checksum holds, how many they are, and the damage between them.

    Args:
        segment: The name of the segment's file, for reports.
        offset_bytes: Where `raw` starts in it. A header is only looked for at 0, where it is left out.
        raw: Whole lines: empty, or ending in a newline.

    Raises:
        UnsupportedFormat: A line is whole and was made by a newer eventcsv.
    """
    header_bytes = header_size_bytes(offset_bytes, raw)
    offset_bytes, raw = offset_bytes + header_bytes, raw[header_bytes:]
    if not raw:
        return b"", 0, ()
    lines = raw.split(b"\n")
    lines.pop()
    all_whole = all([line[-CRC_BYTES:] == b',"crc":"%08x"}' % crc32(line[:-CRC_BYTES]) for line in lines])
    if all_whole and raw.count(_OUR_VERSION) == len(lines):
        return raw, len(lines), ()
    good: list[bytes] = []
    damage: list[Damage] = []
    for start, size_bytes, line, reason in _judged(offset_bytes, lines):
        if line is not None:
            good.append(line + b"\n")
            if damage and (torn_from := noted(line)) is not None:
                damage = list(_vouched(damage, torn_from))
        if reason:
            _add(damage, Damage(segment, start, size_bytes, reason))
    return b"".join(good), len(good), tuple(damage)


def _add(damage: list[Damage], item: Damage) -> None:
    """Add a damaged stretch; lines with a CR that follow each other are one."""
    last = damage[-1] if damage else None
    if last and last.reason == item.reason == _CRLF and last.offset_bytes + last.length_bytes == item.offset_bytes:
        damage[-1] = replace(last, length_bytes=last.length_bytes + item.length_bytes)
    else:
        damage.append(item)


def note(torn_from: int, *, id: str, ts: str) -> bytes:  # noqa: A002  # as the field is called
    """Return the line that says that half a line stands before it, never acknowledged.

    Args:
        torn_from: The byte at which it begins. Should a note itself have been cut off before, what stands between is
            half lines, too.
        id: That of the line.
        ts: When it is written.
    """
    # "kind" first, so that half a note is known for one. The rest is what readers that know no notes want of an event.
    return sealed(
        {
            "v": FORMAT_VERSION,
            "kind": Kind.TORN.value,
            "torn": torn_from,
            "id": id,
            "ts": ts,
            "key": "",
            "set": {},
        }
    )


def noted(whole: bytes) -> int | None:
    """Return the byte that a note names, or None when a line, whose checksum holds, is none."""
    if not whole.startswith(_NOTE):
        return None
    try:
        torn_from = unsealed(whole).get("torn")
    except ValueError:
        return None
    return torn_from if isinstance(torn_from, int) else None


def begins_note(line: bytes) -> bool:
    """Tell whether a line, perhaps cut off, is a note of half a line."""
    return line.startswith(_NOTE_MARK)


def begins_seal(line: bytes) -> bool:
    """Tell whether a line, perhaps cut off, is a seal; or a header, which stands at the start only."""
    return line.startswith(_SEAL_MARK)


def _vouched(damage: Iterable[Damage], torn_from: int) -> Iterator[Damage]:
    """Take what is no line, from a byte on, for half lines."""
    for item in damage:
        if item.offset_bytes >= torn_from:
            what = "NUL bytes" if "NUL" in item.reason else "half a line"
            yield replace(item, torn=True, reason=f"{what}; its writer was stopped in mid-write")
        else:
            yield item


def header_size_bytes(offset_bytes: int, raw: bytes) -> int:
    """Return how long the header at the start of a segment is, newline included; 0 when there is none here.

    Raises:
        UnsupportedFormat: It is whole and was made by a newer eventcsv.
    """
    if offset_bytes:
        return 0
    first = raw[: raw.find(b"\n")]
    if _HEADER not in first or not is_whole(first.removesuffix(b"\r")):
        return 0
    _foreign(first, 0)
    return len(first) + 1


def _judged(offset_bytes: int, lines: list[bytes]) -> Iterator[tuple[int, int, bytes | None, str]]:
    """Yield each whole line and each damaged stretch: its offset, its length, the line or None, and what is wrong."""
    for raw in lines:
        line = raw.removesuffix(b"\r")
        start = 0 if is_whole(line) else _next_start(line)
        if start:
            is_all = start == len(line)
            yield offset_bytes, len(raw) + 1 if is_all else start, None, _reason(line[:start])
        if start < len(line) or not line:
            whole = line[start:]
            size_bytes = len(raw) + 1 - start
            if not whole:
                yield offset_bytes, size_bytes, None, "an empty line"
            elif not whole.startswith(_OUR_VERSION) and (reason := _foreign(whole, offset_bytes + start)):
                yield offset_bytes + start, size_bytes, None, reason
            else:
                yield offset_bytes + start, size_bytes, whole, "" if len(line) == len(raw) else _CRLF
        offset_bytes += len(raw) + 1


def _next_start(line: bytes) -> int:
    """Return where in a damaged line a whole one starts, or its length when none does."""
    start = line.find(LINE_START, 1)
    while start > 0 and not is_whole(line[start:]):
        start = line.find(LINE_START, start + 1)
    return start if start > 0 else len(line)


def _foreign(whole: bytes, offset_bytes: int) -> str:
    """Return why a line whose checksum holds is none of ours, or "" when it is."""
    try:
        unsealed(whole)
    except UnsupportedFormat as error:
        raise UnsupportedFormat(f"byte {offset_bytes:,}: {error}") from None
    except ValueError:
        return "the checksum holds, but it is not a line of eventcsv"
    return ""


def _reason(damaged: bytes) -> str:
    if not damaged.strip(b"\0"):
        return "NUL bytes" if damaged else "an empty line"
    if b"\0" in damaged:
        return "NUL bytes within the line"
    if damaged.startswith(LINE_START) and b',"crc":"' not in damaged[-CRC_BYTES - 1 :]:
        return "torn: the line was cut off, most likely by a crash"
    return "the checksum does not match"


def has_crlf(beginning: bytes) -> bool:
    """Tell whether the first line of a segment ends in CR LF, as then all do that were there when it was changed."""
    newline = beginning.find(b"\n")
    return newline > 0 and beginning[newline - 1 : newline] == b"\r"


def crlf_damage(segment: str, size_bytes: int) -> Damage:
    """Return the report of a segment whose lines end in CR LF."""
    return Damage(segment, 0, size_bytes, _CRLF)


def torn_tail(segment: str, offset_bytes: int, tail: bytes, length_bytes: int) -> Damage | None:
    """Return the report of what follows the last newline of the log, or None when nothing does."""
    if not length_bytes:
        return None
    what = "NUL bytes" if not tail.strip(b"\0") else "half a line"
    reason = f"{what}; its writer was stopped in mid-write, or is writing right now"
    return Damage(segment, offset_bytes, length_bytes, reason, torn=True)


def events(chunk: Chunk) -> tuple[list[Event], tuple[Damage, ...]]:
    """Return the events of a chunk, each one parsed, and its damage, lines that do not parse included.

    This is the careful way, at some microseconds a line; `frames` takes it when a chunk does not add up.
    """
    damage = list(chunk.damage)
    found = [event for _, event in _placed(chunk, damage)]
    return found, tuple(sorted(damage, key=lambda item: item.offset_bytes))


def placed_events(chunk: Chunk) -> Iterator[tuple[int, Event]]:
    """Yield the events of a chunk, each with the byte of its segment at which its line ends."""
    return _placed(chunk, [])


def _placed(chunk: Chunk, damage: list[Damage]) -> Iterator[tuple[int, Event]]:
    lines = chunk.raw.split(b"\n")
    lines.pop()
    for start, size_bytes, line, _ in _judged(chunk.offset_bytes, lines):
        if line is None or (start == 0 and _HEADER in line):
            continue
        try:
            yield start + size_bytes, decode(line)
        except UnsupportedFormat:
            raise
        except ValueError:
            reason = "the checksum holds, but it is not an event"
            damage.append(Damage(chunk.segment, start, size_bytes, reason))
