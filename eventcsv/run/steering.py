"""How an operator steers a run: how often a PO is tried, when to stop, how fast to go. Pure.

What is asked for at the command line and in Python is the same text or number; whatever makes no sense is a ValueError
that begins with the name of the argument.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import Final

from eventcsv.errors import MOST_WAIT_S

LONGEST_WAIT_S: Final = 3_600.0
"""How long a PO waits at most for its next attempt, in seconds, unless it asks for longer itself."""

_UNITS_S: Final = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3_600.0, "hour": 3_600.0}
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:/|per)\s*([a-z]+)")
_SHARE_OF: Final = 100
_LEAST: Final = 20


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often a PO is tried in a run.

    Attributes:
        most: How often at most.
        retry_after_s: How long the second attempt waits, in seconds; each further one waits twice as long.
    """

    most: int = 1
    retry_after_s: float = 30.0

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"attempts: has to be 1 or more, not {self.most!r}")
        if not 0 <= self.retry_after_s <= MOST_WAIT_S:
            raise ValueError(
                f"retry_after_s: has to be a number of seconds from 0 to {MOST_WAIT_S:.0f}, not {self.retry_after_s!r}"
            )

    def wait_s(self, attempt: int) -> float | None:
        """Return how long a PO waits after a failed attempt, in seconds; None when that was the last one.

        Args:
            attempt: Which attempt it was, from 1.
        """
        if attempt >= self.most:
            return None
        import tenacity  # noqa: PLC0415  # 40 ms that a run with one attempt does not pay

        state = tenacity.RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # only the number of the attempt counts
        state.attempt_number = attempt
        # The jitter only adds: never before the time that was asked for.
        most_s = max(LONGEST_WAIT_S, self.retry_after_s)
        wait = tenacity.wait_exponential(multiplier=self.retry_after_s, max=most_s)
        return float((wait + tenacity.wait_random(0, self.retry_after_s / 4))(state))


class Brake:
    """Says when so much has failed that a run has to stop.

    Args:
        halt: A number of POs that failed in a row, or a share of the last 100, as "30%"; None for never.

    Attributes:
        reason: Why the run has to stop, or "".
        failed_at_first: How many failed before the first one that did not.
    """

    def __init__(self, halt: int | str | None) -> None:
        self.reason = ""
        self.failed_at_first = 0
        self._in_a_row, self._percent = _halt(halt)
        self._failing: set[str] = set()
        self._recent: deque[bool] = deque(maxlen=_SHARE_OF)
        self._has_succeeded = False

    def note(self, key: str, *, failed: bool) -> None:
        """Take note of an attempt at a PO that has ended, one that is tried again included."""
        self._recent.append(failed)
        if failed:
            self._failing.add(key)
        else:
            self._failing.clear()
            self._has_succeeded = True
        if not self._has_succeeded:
            self.failed_at_first = len(self._failing)
        if self._in_a_row and len(self._failing) >= self._in_a_row:
            self.reason = self.reason or f"{len(self._failing):,} POs in a row failed"
        count, of = sum(self._recent), len(self._recent)
        if self._percent and of >= _LEAST and 100 * count >= self._percent * of:
            self.reason = self.reason or f"{count:,} of the last {of:,} POs failed"


def _halt(text: int | str | None) -> tuple[int, float]:
    """Return how many failures in a row stop a run, and which share of the last ones does, in percent; 0 for none."""
    if text is None:
        return 0, 0.0
    word = str(text).strip()
    number = word.removesuffix("%").strip()
    try:
        value = float(number) if word.endswith("%") else int(number)
    except ValueError:
        value = 0
    if isinstance(text, bool) or not 0 < value < float("inf") or (word.endswith("%") and value > _SHARE_OF):
        raise ValueError(f"halt: has to be a number of POs in a row, as 20, or a share of them, as 30%, not {text!r}")
    return (0, float(value)) if word.endswith("%") else (int(value), 0.0)


class Pace:
    """Says when the next PO may begin, so that never more begin than asked for, and evenly.

    Args:
        rate: How many a second, a minute or an hour, as "30/min", "2/s", "500/h"; None for as fast as possible.
    """

    def __init__(self, rate: str | None) -> None:
        self._period_s = _period_s(rate)
        self._next_at = float("-inf")

    def wait_s(self, now: float) -> float:
        """Return how long the next PO has to wait, by a monotonic clock, in seconds."""
        return max(0.0, self._next_at - now)

    def begin(self, now: float) -> None:
        """Take note that a PO begins."""
        self._next_at = now + self._period_s


def _period_s(rate: str | None) -> float:
    if rate is None:
        return 0.0
    match = _RATE.fullmatch(str(rate).strip().lower())
    number, unit = (float(match[1]), match[2]) if match else (0.0, "")
    if not number or unit not in _UNITS_S:
        raise ValueError(f"rate: has to be a number of POs a second, a minute or an hour, as 30/min, not {rate!r}")
    return _UNITS_S[unit] / number
