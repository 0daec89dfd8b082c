"""Keeps the CSV current while results come in: at most `refresh_s` behind, for at most a tenth of a processor.

Nor for more than half of the time: a compaction that waits for a slow disk leaves it to the workers for as long.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

from eventcsv.errors import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventcsv.view.compact_result import CompactResult

_SHARE_OF_PROCESSOR: Final = 0.1
_LOOKS_A_REFRESH: Final = 5


class Stoppable(Protocol):
    """Tells when to end: a `threading.Event`, or what signals set."""

    def wait(self, timeout: float, /) -> bool:
        """Wait for the end, `timeout` seconds at most, and return whether it has come."""


class Compactable(Protocol):
    """A CSV that can be brought up to date."""

    def compact(self) -> CompactResult:
        """Bring it up to date."""

    def fingerprint(self) -> tuple[object, ...]:
        """Return something that changes when there is a reason to."""


def keep_current(
    job: Compactable,
    stop: Stoppable,
    *,
    refresh_s: float,
    on_result: Callable[[CompactResult], object],
    on_trouble: Callable[[str], object],
) -> None:
    """Compact whenever the log grew or the CSV was edited, until `stop` is set.

    What an operator can mend (a CSV saved with broken quoting, a full disk) is told once, and tried again.

    Args:
        job: What to keep current.
        stop: Ends it.
        refresh_s: How far behind the CSV may be, in seconds, unless a compaction takes a processor for longer than a
            tenth of that.
        on_result: Called with what each compaction did.
        on_trouble: Called with what went wrong.
    """
    seen: object = None
    trouble = ""
    took_s = worked_s = 0.0
    while not stop.wait(max(refresh_s / _LOOKS_A_REFRESH, worked_s / _SHARE_OF_PROCESSOR - took_s, took_s)):
        clock, processor = time.perf_counter(), time.process_time()
        try:
            state = job.fingerprint()
            if state != seen or trouble:
                result = job.compact()
                seen = None if result.changed else state  # look once more after a change of our own
                trouble = ""
                on_result(result)
        except KeyboardInterrupt:
            # Python gives it to the main thread only. Elsewhere it is Polars that was struck by a signal which somebody
            # else answers (https://github.com/pola-rs/polars/pull/20961), and what it was doing has to be done again.
            if threading.current_thread() is threading.main_thread():
                raise
            seen = None
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not end this in silence
            if reason_of(error) != trouble:
                trouble = reason_of(error)
                on_trouble(trouble)
        took_s = time.perf_counter() - clock
        worked_s = min(took_s, time.process_time() - processor)  # of which other threads may have had a part
