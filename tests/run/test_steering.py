"""How a run is steered, by itself: attempts, brake, pace, and the choice of POs."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventcsv import EventCsv, Retry, StopRun
from eventcsv.run.choice import Choice
from eventcsv.run.steering import LONGEST_WAIT_S, Attempts, Brake, Pace

if TYPE_CHECKING:
    from pathlib import Path


@given(st.floats(0, 100), st.integers(1, 20), st.integers(1, 20))
def test_each_wait_is_twice_as_long_and_never_shorter_than_asked(retry_after_s: float, most: int, attempt: int) -> None:
    """Up to an hour, and up to a quarter of the first one longer; the last attempt waits for none."""
    wait_s = Attempts(most, retry_after_s).wait_s(attempt)
    if attempt >= most:
        assert wait_s is None
    else:
        assert wait_s is not None
        least = min(LONGEST_WAIT_S, retry_after_s * 2 ** (attempt - 1))
        assert least <= wait_s <= least + retry_after_s / 4


def noted(brake: Brake, results: str) -> str:
    """Let a brake take note of results, a letter a PO: F for a failure; capitals and others for what did not."""
    for number, result in enumerate(results):
        brake.note(f"PO{number}", failed=result == "F")
    return brake.reason


@pytest.mark.parametrize(
    ("halt", "results", "reason"),
    [
        (3, "FF.FF.FF", ""),
        (3, "FF.FFF", "3 POs in a row failed"),
        ("3", "FFF", "3 POs in a row failed"),
        ("30%", "F" * 19, ""),
        ("30%", "F" * 20, "20 of the last 20 POs failed"),
        ("30%", "..F" * 7, "6 of the last 20 POs failed"),
        ("35%", "..F" * 40, ""),
        ("50%", "." * 100 + "F" * 50, "50 of the last 100 POs failed"),
        ("50%", "." * 100 + "F" * 49, ""),
        (None, "F" * 500, ""),
    ],
)
def test_the_brake_strikes_when_it_has_to(halt: int | str | None, results: str, reason: str) -> None:
    """At so many in a row, or at such a share of the last hundred, of twenty at least."""
    assert reason == noted(Brake(halt), results)


def test_one_po_that_fails_again_and_again_is_not_many() -> None:
    """In a row are different POs."""
    brake = Brake(2)
    for _ in range(10):
        brake.note("PO1", failed=True)
    before = brake.reason
    brake.note("PO2", failed=True)
    assert ("", "2 POs in a row failed") == (before, brake.reason)


def test_the_brake_counts_what_failed_at_first() -> None:
    """Up to the first one that did not fail."""
    brake = Brake(None)
    noted(brake, "FFF.FFFF")
    assert 3 == brake.failed_at_first


@given(st.lists(st.floats(0, 10), max_size=30), st.sampled_from(["30/min", "2/s", "500/h", "1.5 per s"]))
def test_no_more_begin_than_the_pace_allows(pauses: list[float], rate: str) -> None:
    """However long it takes in between, two of them are a period apart."""
    period_s = {"30/min": 2, "2/s": 0.5, "500/h": 7.2, "1.5 per s": 1 / 1.5}[rate]
    pace, now, begun = Pace(rate), 100.0, list[float]()
    for pause_s in pauses:
        now += pause_s
        wait_s = pace.wait_s(now)
        assert 0 <= wait_s <= period_s + 1e-9
        if not wait_s:
            pace.begin(now)
            begun.append(now)
    assert all(later - sooner >= period_s - 1e-9 for sooner, later in pairwise(begun))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Attempts(0), "attempts"),
        (lambda: Attempts(2, -1.0), "retry_after_s"),
        (lambda: Attempts(2, float("nan")), "retry_after_s"),
        (lambda: Brake("0"), "halt"),
        (lambda: Brake("-3"), "halt"),
        (lambda: Brake("101%"), "halt"),
        (lambda: Brake("0%"), "halt"),
        (lambda: Brake("many"), "halt"),
        (lambda: Brake("nan%"), "halt"),
        (lambda: Pace("30"), "rate"),
        (lambda: Pace("0/min"), "rate"),
        (lambda: Pace("3/week"), "rate"),
        (lambda: Pace("-3/min"), "rate"),
        (lambda: Choice.of(limit=0), "limit"),
        (lambda: Retry(after_s=-1), "after_s"),
        (lambda: Retry(after_s=float("nan")), "after_s"),
        (lambda: Retry(after_s=1e12), "after_s"),
        (lambda: Attempts(2, 1e12), "retry_after_s"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, name: str) -> None:
    """By the name of its argument."""
    with pytest.raises(ValueError, match=f"^{name}: "):
        make()


def test_what_a_function_asks_for_survives_pickling() -> None:
    """With all that it says."""
    retry, stop = (pickle.loads(pickle.dumps(error)) for error in (Retry("busy", after_s=3), StopRun("expired")))
    assert ("busy", 3, "busy") == (retry.reason, retry.after_s, str(retry))
    assert ("expired", "expired") == (stop.reason, str(stop))
    assert ("to be tried again", "asked for by the job") == (str(Retry()), str(StopRun()))


# --- the choice ---


@pytest.fixture
def chosen(tmp_path: Path) -> EventCsv:
    """A job over POs of several priorities and statuses."""
    rows = ["PO1;;2", "PO2;ERROR;10", "PO3;RATE_LIMIT;", "PO4;COMPLETED;1", "PO5;error;high", "PO6;;9,5", "PO7;;-1"]
    (tmp_path / "input.csv").write_text("PO_NUMBER;STATUS;Priority\n" + "".join(f"{row}\n" for row in rows))
    return EventCsv(tmp_path / "input.csv")


@pytest.mark.parametrize(
    ("choice", "keys"),
    [
        ({}, "PO1 PO2 PO3 PO5 PO6 PO7"),
        ({"limit": 2}, "PO1 PO2"),
        ({"only": ["PO6", " PO1 ", "PO4"]}, "PO1 PO6"),
        ({"only": "PO6"}, "PO6"),
        ({"status": ["ERROR"]}, "PO2 PO5"),
        ({"status": "rate_limit"}, "PO3"),
        ({"status": [""]}, "PO1 PO6 PO7"),
        ({"order_by": "priority"}, "PO7 PO1 PO6 PO2 PO5 PO3"),
        ({"order_by": "-Priority"}, "PO2 PO6 PO1 PO7 PO5 PO3"),
        ({"order_by": "-Priority", "status": ["ERROR", "RATE_LIMIT"], "limit": 2}, "PO2 PO5"),
    ],
)
def test_a_choice_is_what_a_plan_shows(chosen: EventCsv, choice: dict[str, Any], keys: str) -> None:
    """Numbers as numbers, with a comma, too, then texts; empty ones last, whichever way it goes."""
    assert keys.split() == [item.key for item in chosen.plan(**choice)]


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"only": ["PO1", "PO8"]}, "only: 'PO8' is in no row of .*input.csv"),
        ({"only": []}, "only: names no PO"),
        ({"status": ["COMPLETED"]}, "status: COMPLETED counts as done"),
        ({"order_by": "Prio"}, "order_by: .* has no column 'Prio'; it has PO_NUMBER, STATUS, Priority"),
        ({"order_by": "-"}, "order_by: .* has no column '-'"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_refused(chosen: EventCsv, choice: dict[str, Any], said: str) -> None:
    """Instead of a run that does nothing."""
    with pytest.raises(ValueError, match=said):
        chosen.plan(**choice)


def test_a_column_with_a_minus_before_its_name_is_found(tmp_path: Path) -> None:
    """It is meant before the other way round of the one without."""
    (tmp_path / "input.csv").write_text("PO_NUMBER;STATUS;-rank;rank\nPO1;;2;1\nPO2;;1;2\n")
    job = EventCsv(tmp_path / "input.csv")
    assert ["PO2", "PO1"] == [item.key for item in job.plan(order_by="-rank")]
    assert ["PO1", "PO2"] == [item.key for item in job.plan(order_by="rank")]
