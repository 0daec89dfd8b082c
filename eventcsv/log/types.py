"""Where something is in a log, and what is wrong there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the log, always at the start of a line: the segment's number and the byte within it."""

    segment: int
    offset_bytes: int

    def __str__(self) -> str:
        return f"segment {self.segment}, byte {self.offset_bytes:,}"


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of the log that are not a line.

    Attributes:
        segment: The name of the segment's file.
        offset_bytes: Where they start in it.
        length_bytes: How many they are, newline included.
        reason: What is wrong with them.
        torn: Whether they are known to be half a line that was never acknowledged, so that nothing is lost with them.
    """

    segment: str
    offset_bytes: int
    length_bytes: int
    reason: str
    torn: bool = False

    def __str__(self) -> str:
        return f"{self.segment}, byte {self.offset_bytes:,}, {self.length_bytes:,} bytes: {self.reason}"


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where the log ends: after its last newline.

    Attributes:
        position: The end.
        torn: What lies behind it: a line that was being written when its writer was stopped, or None.
    """

    position: Position
    torn: Damage | None


def segments_between(start: Position, end: Position) -> Iterator[tuple[int, int]]:
    """Yield the number of each segment from one position to another, and the byte in it at which to begin."""
    for number in range(start.segment, end.segment + bool(end.offset_bytes)):
        yield number, start.offset_bytes if number == start.segment else 0
