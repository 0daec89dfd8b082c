"""What goes between a pool and its workers: what to do, what to do next, and what came of it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from _typeshed import DataclassInstance

    from eventcsv.event import Event
    from eventcsv.worker.recorder import Recorder

    Row = dict[str, str]
    Returned = Mapping[str, object] | Iterable[tuple[str, object]] | DataclassInstance | str | bool | None
    Process = Callable[[str, Row], Returned | Awaitable[Returned]]
    Initializer = Callable[[], object]
    Finalizer = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Task:
    """A PO to be worked on.

    Attributes:
        key: The PO.
        row: Its row: column name to text.
        token: That of the claim under which it is worked on; None when there is no other host.
        attempt: Which attempt at it this is, from 1.
        retry_s: After how many seconds it may be tried again should this attempt fail; None when this is the last one.
    """

    key: str
    row: Row
    token: int | None = None
    attempt: int = 1
    retry_s: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a PO.

    Attributes:
        key: The PO.
        status: Its STATUS, or "" when nothing could be recorded.
        message: Its ERROR_MESSAGE, or why nothing could be recorded.
        details: The traceback of what `process` raised, or "".
        unrecorded: The event that could not be recorded, or None.
        taken_over: Whether another host has taken the PO over, so that nothing was recorded here.
        attempt: Which attempt at it this was, from 1.
        wait_s: After how many seconds it is to be tried again, or None.
        stop: Why the run is to stop, or "".
    """

    key: str
    status: str
    message: str = ""
    details: str = ""
    unrecorded: Event | None = None
    taken_over: bool = False
    attempt: int = 1
    wait_s: float | None = None
    stop: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has started.

    Attributes:
        pid: Its process; the one that the session has started is its reaper.
    """

    pid: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The worker could not start.

    Attributes:
        reason: What its initializer raised.
        is_stop: Whether that asks the whole run to stop.
    """

    reason: str
    is_stop: bool = False


@dataclass(frozen=True, slots=True)
class Leave:
    """There is nothing left to do: the worker may end in peace."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The worker has taken up its task."""


@dataclass(frozen=True, slots=True)
class Logged:
    """The worker has something for the log output.

    Attributes:
        level: Its level, as the logging module numbers them.
        fields: The event with its fields.
    """

    level: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What every worker is given. It is pickled, so the functions have to be importable ones.

    Attributes:
        job: Where to record results.
        process: Called with each PO and its row.
        initializer: Called once, before the first PO. A context manager that it returns is entered, and left
            at the end.
        finalizer: Called once, when the worker ends in peace.
    """

    job: Recorder
    process: Process
    initializer: Initializer | None
    finalizer: Finalizer | None = None

    def check(self) -> None:
        """Raise whatever keeps this from being pickled."""
        pickle.dumps(self)
