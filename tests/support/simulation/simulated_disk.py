"""A disk in memory that forgets: what was synced stays, and of the rest a power cut leaves what it likes.

Of a file's unsynced writes any sectors may survive, one of them torn, or NUL bytes under the new size; of a directory's
changes the first few, as the journals of ext4 and xfs do. A sync that failed may have dropped the data, tells everybody
who has the file open once, and is silent from then on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator
    from random import Random

_ODD_SECTORS: Final = (64, 512)  # lines are short: with small sectors one write is several


@dataclass(eq=False, slots=True)
class File:
    """A regular file: what everybody reads, and what of it is on disk.

    Attributes:
        data: As every process sees it.
        disk: What is synced.
        dirty: What was written since, in order: the offset and the bytes; a truncation is an offset of -1.
        errors: How many syncs of it have failed.
        holders: The descriptors that hold its lock, each with whether it is exclusive.
    """

    number: int
    mode: int
    mtime_s: float
    links: int = 1
    data: bytearray = field(default_factory=bytearray)
    disk: bytearray = field(default_factory=bytearray)
    dirty: list[tuple[int, bytes]] = field(default_factory=list)
    errors: int = 0
    holders: dict[int, bool] = field(default_factory=dict)

    def write(self, offset: int, data: bytes) -> None:
        self.dirty.append((offset, bytes(data)))
        _put(self.data, offset, bytes(data))

    def sync(self) -> None:
        for offset, data in self.dirty:
            _put(self.disk, offset, data)
        self.dirty.clear()

    sync_all = sync

    def fail_sync(self, rng: Random) -> None:
        """Lose any of the unsynced writes while every reader still sees them; no later sync writes them."""
        self.dirty = [write for write in self.dirty if rng.random() < 0.5]
        self.sync()
        self.errors += 1

    def lose_power(self, rng: Random, met: Counter[str]) -> None:
        kept = bytearray(self.disk)
        mode = rng.choice(("nothing", "first", "any", "any", "everything"))
        pieces = [piece for write in self.dirty for piece in _sectors(*write, rng.choice(_ODD_SECTORS))]
        if mode == "first" and pieces:
            del pieces[rng.randrange(len(pieces)) :]
        elif mode != "everything":
            pieces = [piece for piece in pieces if mode == "any" and rng.random() < 0.5]
        if pieces and rng.random() < 0.5:  # within one sector: disks promise that whole ones are written, cells do not
            offset, data = pieces[-1]
            pieces[-1] = (offset, data[: rng.randint(0, len(data))])
            met["a sector torn by a power cut"] += offset >= 0
        for piece in pieces:
            _put(kept, *piece)
        if len(kept) < len(self.data) and rng.random() < 0.3:
            _put(kept, rng.randint(len(kept), len(self.data)), b"")
        met["unsynced data lost"] += kept != self.data
        met["NUL bytes after a power cut"] += kept.count(0) > self.data.count(0)
        self.data, self.disk = kept, bytearray(kept)
        self.dirty.clear()
        self.holders.clear()
        self.links = 1


def _put(data: bytearray, offset: int, new: bytes) -> None:
    if offset < 0:
        data.clear()
        return
    data.extend(bytes(max(0, offset - len(data))))
    data[offset : offset + len(new)] = new


def _sectors(offset: int, data: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    if offset < 0:
        yield offset, data
    start = max(0, offset)
    while data:
        cut = size - start % size
        yield start, data[:cut]
        start, data = start + len(data[:cut]), data[cut:]


@dataclass(eq=False, slots=True)
class Directory:
    """A directory: the names that everybody sees, those on disk, and the changes between the two, in order.

    A change takes one name away and gives another one, or does only one of both.
    """

    number: int
    mode: int
    mtime_s: float
    links: int = 2
    names: dict[str, Node] = field(default_factory=dict)
    disk: dict[str, Node] = field(default_factory=dict)
    dirty: list[tuple[str | None, str | None, Node]] = field(default_factory=list)
    holders: dict[int, bool] = field(default_factory=dict)
    data: bytes = b""
    errors: int = 0

    def change(self, old: str | None, new: str | None, node: Node) -> None:
        self.dirty.append((old, new, node))
        _rename(self.names, old, new, node)

    def sync(self) -> None:
        self.disk = dict(self.names)
        self.dirty.clear()

    def sync_all(self) -> None:
        self.sync()
        for node in self.names.values():
            node.sync_all()

    def fail_sync(self, _rng: Random) -> None:
        """Change nothing: a journal that cannot be written stops the file system, it does not go on and lie."""

    def lose_power(self, rng: Random, met: Counter[str], *, any_order: bool = False) -> None:
        kept = self.dirty[: rng.randint(0, len(self.dirty))]
        if any_order:
            kept = [change for change in self.dirty if rng.random() < 0.5]
        met["names lost at a power cut"] += len(kept) < len(self.dirty)
        for change in kept:
            _rename(self.disk, *change)
        self.names = dict(self.disk)
        self.dirty.clear()
        for node in self.names.values():
            if isinstance(node, Directory):
                node.lose_power(rng, met, any_order=any_order)
            else:
                node.lose_power(rng, met)


Node = File | Directory


def _rename(names: dict[str, Node], old: str | None, new: str | None, node: Node) -> None:
    if old is not None:
        names.pop(old, None)
    if new is not None:
        names[new] = node


def os_error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
