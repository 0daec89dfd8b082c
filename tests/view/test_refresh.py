"""The promise: the CSV is kept current at a price that its work decides, whatever strikes in the middle of it."""

from __future__ import annotations

import functools
import itertools
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from eventcsv.view.refresh import keep_current

if TYPE_CHECKING:
    from eventcsv.view.compact_result import CompactResult


class Job:
    """Has something new each time that it is looked at."""

    def compact(self) -> CompactResult:
        return cast("CompactResult", SimpleNamespace(changed=True))

    def fingerprint(self) -> tuple[object, ...]:
        return (1,)


@pytest.mark.parametrize(
    ("took_s", "worked_s", "pause_s"),
    [
        pytest.param(0.01, 0.01, 0.2, id="quick"),
        pytest.param(0.1, 0.1, 0.9, id="busy: a tenth of a processor"),
        pytest.param(0.5, 0.02, 0.5, id="waited for the disk: half of the time"),
        pytest.param(0.1, 0.4, 0.9, id="other threads were busy, too"),
    ],
)
def test_a_pause_is_as_long_as_the_work_before_it_asks_for(
    took_s: float, worked_s: float, pause_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for a slow disk is no work, and must not keep the CSV back for nine times as long."""
    wall, processor, pauses = itertools.count(0, took_s), itertools.count(0, worked_s), list[float]()
    clocks = SimpleNamespace(perf_counter=wall.__next__, process_time=processor.__next__)
    monkeypatch.setattr("eventcsv.view.refresh.time", clocks)

    class Stop:
        def wait(self, timeout: float, /) -> bool:
            pauses.append(timeout)
            return len(pauses) > 1

    keep_current(Job(), Stop(), refresh_s=1.0, on_result=repr, on_trouble=print)
    assert [0.2, pytest.approx(pause_s)] == pauses


def test_the_view_is_kept_current_after_a_signal_in_the_middle_of_polars() -> None:
    """In a thread, KeyboardInterrupt is Polars' own doing: what it was at is done again."""
    end, outcomes = threading.Event(), [KeyboardInterrupt(), None]
    done: list[CompactResult] = []

    class Struck(Job):
        def compact(self) -> CompactResult:
            if outcome := outcomes.pop(0):
                raise outcome
            end.set()
            return super().compact()

    keep = functools.partial(keep_current, Struck(), end, refresh_s=0.001, on_result=done.append, on_trouble=print)
    thread = threading.Thread(target=keep)
    thread.start()
    thread.join(60)
    assert ([], 1) == (outcomes, len(done))
    outcomes.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        keep_current(Struck(), threading.Event(), refresh_s=0.001, on_result=done.append, on_trouble=print)
