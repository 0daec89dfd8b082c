"""What is asked of a run, as one value."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from eventcsv.event import DONE
from eventcsv.log.interface import LEASE_S
from eventcsv.run.choice import Choice
from eventcsv.run.steering import Attempts, Brake, Pace

if TYPE_CHECKING:
    from collections.abc import Collection

Interrupted = Literal["retry", "hold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What is asked of a run; see `Session.run`.

    Raises:
        ValueError: An argument makes no sense.
    """

    workers: int = 1
    timeout_s: float | None = None
    interrupted: Interrupted = "retry"
    done: Collection[str] = DONE
    lease_s: float = LEASE_S
    attempts: Attempts = field(default_factory=Attempts)
    halt: int | str | None = None
    rate: str | None = None
    choice: Choice = field(default_factory=Choice)

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers: has to be 1 or more, not {self.workers}")
        if self.timeout_s is not None and not 0 < self.timeout_s <= threading.TIMEOUT_MAX:
            raise ValueError(f"timeout_s: has to be a number of seconds above 0, not {self.timeout_s}")
        if not 0 < self.lease_s <= threading.TIMEOUT_MAX:
            raise ValueError(f"lease_s: has to be a number of seconds above 0, not {self.lease_s}")
        if self.interrupted not in {"retry", "hold"}:
            raise ValueError(f'interrupted: has to be "retry" or "hold", not {self.interrupted!r}')
        Brake(self.halt)
        Pace(self.rate)
