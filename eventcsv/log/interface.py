"""What the rest of eventcsv asks of an event log, wherever the log is, and what a run knows of claims on POs."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from eventcsv.event import Event, Kind
    from eventcsv.log.scan import Chunk
    from eventcsv.log.types import LogEnd, Position

ProgressCallback = Callable[[int, int], None]
"""Is told how many bytes of the log have been gone through, and how many there are."""

LEASE_S: Final = 30.0
"""How long a claim lasts without being renewed, in seconds."""


class Refusal(Enum):
    """Why a PO could not be claimed."""

    HELD = "another host works on it"
    TOO_LONG = "no claim can be made for so long a key"
    FINISHED = "another host has finished it since"
    INTERRUPTED = "another host had begun it and is gone, and such POs are to be held back"


def owner_of(writer: str) -> str:
    """Return what a run calls itself in its claims."""
    return f"{os.uname().nodename} process {os.getpid()} {writer}"


class Claims(Protocol):
    """The claims of one run on POs, which keep other hosts from them; see `postgres.claims`."""

    def claim(self, key: str, *, seen: Position | None = None) -> int | Refusal:
        """Claim a PO.

        Args:
            key: The PO.
            seen: How much of the log has been seen of it, if that is more than of the others.

        Returns:
            Its token, or why not.

        Raises:
            EventCsvError: The server does not answer.
        """

    def has_lapsed(self, key: str) -> bool:
        """Tell whether another host may have taken over a PO by now, by the clock of this host."""

    def is_taken_over(self, key: str) -> bool:
        """Tell whether another host has taken over a PO, by the server; no when it does not answer."""

    def forget(self, key: str) -> None:
        """Take note that a PO is finished."""

    def release(self, key: str) -> None:
        """Give a PO back that nobody works on; when that fails, its lease runs out."""

    def held(self) -> frozenset[str]:
        """Return the POs that are claimed now, by whomever."""

    def close(self) -> None:
        """Renew nothing any more, and give back what is left."""


class Log(Protocol):
    """An event log: segments of lines, to which any number of processes append.

    Attributes:
        directory: Where the lock files and the checkpoint of this machine's CSV are; those of a file log stand there
            beside its segments.
        key_column: The column that identifies a row.
        lock_timeout_s: How long to wait for a lock, or for a server, in seconds.
    """

    directory: str
    key_column: str
    lock_timeout_s: float

    @property
    def place(self) -> str:
        """Where the log is, for messages; without secrets."""

    # --- the worker side ---

    def write_as(self, writer: str) -> None:
        """Begin the ids of events to come with `writer`, which nobody else may use."""

    def new_event(self, kind: Kind, key: str, cells: dict[str, str], ts: str) -> Event:
        """Return an event with an id of this writer's."""

    def append(self, event: Event, *, token: int | None = None) -> None:
        """Append one event; once this returns, it is durable.

        Args:
            event: The event.
            token: That of the claim under which its PO is worked on; a result ends the claim, in the same transaction.

        Raises:
            ClaimLost: The claim is not ours any more; nothing was written.
            InvalidEvent: It cannot be a line of the log; nothing was written.
            AppendError: It could not be made durable, transient faults retried; the error carries the event.
        """

    def append_all(self, events: Sequence[Event]) -> None:
        """Append some events in one go; see `append`."""

    def close(self) -> None:
        """Close what is open; the next call opens it again. Nothing is lost when this is never called."""

    def connections_left(self) -> int | None:
        """Return how many more processes can connect to the server that keeps it, or None when they are not counted."""

    def claims(self, *, owner: str, lease_s: float, seen: Position) -> Claims | None:
        """Return what keeps other hosts from the POs that a run works on; None when the log is on one machine.

        Args:
            owner: Who claims, for people; unique to this run.
            lease_s: How long a claim lasts without being renewed, in seconds.
            seen: How much of the log the run has seen: what was finished after that is not done again.

        Raises:
            ServerError: There is no connection for it.
        """

    # --- segments ---

    def exists(self) -> bool:
        """Tell whether the log has been begun."""

    def is_there(self) -> bool:
        """Tell whether anything stands where the log does, so that no CSV is needed to begin it."""

    def check_csv(self) -> None:
        """Refuse a log that is another CSV's.

        Raises:
            UnsupportedFormat: It is.
        """

    def make_directory(self) -> None:
        """Make the directory, unless it is there; whoever may read the CSV may look into it, and nobody else."""

    def make(self) -> None:
        """Make the log with its first segment, unless it is there."""

    def check_key_column(self) -> None:
        """Refuse a log that was made for another key column, or by a newer eventcsv.

        Raises:
            UnsupportedFormat: It was.
        """

    def new_segment(self) -> Position:
        """Begin a new segment; return where it starts."""

    def finish_seals(self) -> None:
        """Finish what a crash had cut short when a segment was ended."""

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove segments, the oldest first, durably."""

    def segments(self) -> list[int]:
        """Return the numbers of the segments, in order; empty when there is no log yet."""

    def path(self, segment: int) -> str:
        """Return where a segment is, for messages."""

    def header(self, number: int) -> dict[str, Any] | None:
        """Return the record of a segment's header line, or None when there is no whole one."""

    def identity(self) -> str | None:
        """Return the uuid of this log, or None when no header tells."""

    # --- the operator side ---

    def first(self) -> Position:
        """Return where the log starts; later than segment 1 once old segments were pruned."""

    def end(self) -> LogEnd:
        """Return where the log ends at this moment. An empty log ends at the start of segment 1."""

    def sync(self, start: Position, end: Position) -> None:
        """Make durable what stands between two positions: nobody may rely on what a power cut could still take back."""

    def starts_line(self, position: Position) -> bool:
        """Tell whether a position of this log is the start of a line."""

    def read(self, start: Position, end: Position, *, crc: int = 0) -> Iterator[Chunk]:
        """Yield the lines between two positions, each checked, in pieces of bounded size.

        Args:
            start: Where to begin, at the start of a line.
            end: Where to stop, after a newline.
            crc: zlib.crc32 of what came before, to be continued over the bytes read.

        Raises:
            CorruptLog: The log does not go back that far any more.
            UnsupportedFormat: A line was made by a newer eventcsv.
            ServerError: The server does not answer.
        """

    def tail(self, end: Position, size_bytes: int) -> Iterator[Chunk]:
        """Yield the last lines before a position, about `size_bytes` of them, all from its own segment."""

    def crc(self, start: Position, end: Position, crc: int = 0) -> int | None:
        """Return zlib.crc32 of the bytes between two positions, continued from `crc`, or None when some are gone.

        Seals are left out, since they are no content.
        """

    def begin_crc(self, start: Position, end: Position, crc: int) -> None:
        """Begin to read what `crc` is going to be asked for, where that can go on beside other work."""

    def size_bytes(self, start: Position, end: Position) -> int:
        """Return how many bytes stand between two positions, about."""
