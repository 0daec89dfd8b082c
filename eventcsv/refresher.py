"""Keeps the CSV current while results come in: at most `refresh_s` behind, for at most a tenth of the time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from eventcsv.compactor import CompactResult

_SHARE_OF_TIME: Final = 0.1
_LOOKS_A_REFRESH: Final = 5


class Compactable(Protocol):
    """A CSV that can be brought up to date."""

    def compact(self) -> CompactResult:
        """Bring it up to date."""

    def fingerprint(self) -> tuple[object, ...]:
        """Return something that changes when there is a reason to."""


def keep_current(
    job: Compactable,
    stop: threading.Event,
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
        refresh_s: How far behind the CSV may be, in seconds, unless a compaction takes longer than a tenth of that.
        on_result: Called with what each compaction did.
        on_trouble: Called with what went wrong.
    """
    seen: object = None
    trouble = ""
    took_s = 0.0
    while not stop.wait(max(refresh_s / _LOOKS_A_REFRESH, took_s / _SHARE_OF_TIME - took_s)):
        clock = time.perf_counter()
        try:
            state = job.fingerprint()
            if state != seen or trouble:
                result = job.compact()
                seen = None if result.changed else state  # look once more after a change of our own
                trouble = ""
                on_result(result)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not end this in silence
            if str(error) != trouble:
                trouble = str(error)
                on_trouble(trouble)
        took_s = time.perf_counter() - clock
