"""What failed is tried again, after waits that grow and differ; and what is said when that did not help."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeVar

from eventcsv.errors import AppendError
from eventcsv.event import Event, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    import tenacity

FIRST_RETRY_S: Final = 0.05
LONGEST_RETRY_S: Final = 1.0

_NOUNS: Final = {Kind.STARTED.value: "start"}

Result = TypeVar("Result")


def try_again(
    call: Callable[[], Result],
    failure: Exception,
    *,
    again: Callable[[BaseException], bool],
    report: Callable[[int, str], None],
    tries: float = math.inf,
    timeout_s: float = math.inf,
) -> Result:
    """Repeat a call that has failed.

    Args:
        call: The call.
        failure: What it failed with the first time.
        again: Tells whether an error is one that may be gone the next time.
        report: Called before each wait, with how many tries there have been and what the last one failed with.
        tries: How many there may be, the failed one included.
        timeout_s: How long to go on, in seconds; no wait begins that would end later.

    Raises:
        Exception: What the last try failed with.
    """
    import tenacity  # noqa: PLC0415  # 40 ms that who succeeds at once does not pay

    failures = [failure]

    def attempt() -> Result:
        if failures:  # the first attempt is the one that has failed already
            raise failures.pop()
        return call()

    def before_sleep(state: tenacity.RetryCallState) -> None:
        report(state.attempt_number, str(state.outcome.exception() if state.outcome else None))

    return tenacity.Retrying(
        stop=tenacity.stop_any(tenacity.stop_after_attempt(tries), tenacity.stop_before_delay(timeout_s)),  # type: ignore[arg-type]  # any number compares
        wait=tenacity.wait_exponential(FIRST_RETRY_S, LONGEST_RETRY_S) + tenacity.wait_random(0, FIRST_RETRY_S),
        retry=tenacity.retry_if_exception(again),
        before_sleep=before_sleep,
        reraise=True,
    )(attempt)


def append_error(place: str, event: Event, reason: str, tries: str = "") -> AppendError:
    """Return the error of an append that failed, with the event."""
    what = _NOUNS.get(event.kind, event.kind)
    return AppendError(
        f"{place}: the {what} of {event.key} could not be recorded{tries}: {reason}. "
        "Treat it as not done; once the cause is gone, emit it again",
        event,
    )
