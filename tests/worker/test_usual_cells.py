"""The promise: a result that is as nearly all are is recorded as it would be with the care that any value gets."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventcsv import EventCsv, EventCsvError, InvalidEvent, Status
from eventcsv.event import BLANKS, COLUMNS, LONGEST_CELL, Event
from eventcsv.log.line import MAX_LINE_BYTES
from eventcsv.worker import recorder
from eventcsv.worker.rules import cells_of, key_of, usual_cells

if TYPE_CHECKING:
    from pathlib import Path

    from eventcsv.worker.values import Note


class Word(str):  # noqa: SLOT000  # a class of a caller's own
    """Text that is none by its type."""


class Moody:
    """A value that answers nothing, as a caller's own may do."""

    def __bool__(self) -> bool:
        raise ValueError("neither")

    def __len__(self) -> int:
        raise ValueError("no length")

    def __eq__(self, other: object) -> bool:
        raise ValueError("no likeness")

    __hash__ = None  # type: ignore[assignment]  # as of an array


Values = tuple[object, ...]

TEXTS: Final = st.text(max_size=5) | st.sampled_from(["", " ", "3", "-1", "\udcff", Word("x"), Status.ERROR])
COUNTS: Final = st.integers(-2, 3) | st.sampled_from([10**17, 10**18 - 1, 10**18, -(10**18), 10**5000])
LISTS: Final = st.lists(TEXTS | st.none() | st.integers(0, 2), max_size=3)
ODD: Final = st.sampled_from(
    [True, False, 2.0, float("nan"), Decimal(1), date(2025, 1, 2), ValueError("x"), {}, b"x", Moody()]
)
ANY: Final = st.none() | TEXTS | COUNTS | LISTS | LISTS.map(tuple) | ODD
STATUSES: Final = st.sampled_from([*Status, *map(str, Status), "completed", "RATE_LIMIT", ["FAILED"], ("error",)]) | ANY
MESSAGES: Final = st.sampled_from(["x" * (LONGEST_CELL // 2), "é" * (LONGEST_CELL + 1)]) | ANY
USUAL: Final[list[Values]] = [
    ("COMPLETED", "ACME", 2, 2, ["a.pdf", "b.pdf"], "2025-10-02T12:43:11Z", None, "/data", "https://po"),
    (Status.PARTIAL, None, 2, 1, ("a.pdf",), "2025-10-02T12:43:11Z", "", None, None),
    ("ERROR", "", None, None, "a.pdf", "", "no answer", None, None),
]
UNUSUAL: Final[list[Values]] = [
    ("FAILED", None, None, None, None, "", " ", None, None),
    ("COMPLETED", None, 1, 2, None, "", None, None, None),
    ("COMPLETED", None, 2, -1, None, "", None, None, None),
    ("COMPLETED", None, 10**5000, 1, None, "", None, None, None),
    ("COMPLETED", None, "x", None, None, "", None, None, None),
    ("COMPLETED", None, None, None, None, "", "é" * (LONGEST_CELL + 1), None, None),
    ("RATE_LIMIT ", None, None, None, None, "", None, None, None),
    ("ERROR", Moody(), None, None, Moody(), Moody(), Moody(), None, None),
    ("COMPLETED", None, None, None, ("x" * MAX_LINE_BYTES, "x", "x"), "", None, None, None),
]

COLUMN: Final = (STATUSES, ANY, COUNTS | ANY, COUNTS | ANY, ANY, ANY, MESSAGES, ANY, ANY)
CHANGED: Final = st.integers(0, len(COLUMN) - 1).flatmap(lambda place: st.tuples(st.just(place), COLUMN[place]))


def changed(values: Values, changes: list[tuple[int, object]]) -> Values:
    """Return values with a few others among them."""
    return tuple(dict([*enumerate(values), *changes]).values())


GIVEN: Final = st.builds(changed, st.sampled_from(USUAL), st.lists(CHANGED, max_size=3))


def with_care(values: Values) -> tuple[list[tuple[str, str]], list[Note]] | str:
    """Return the cells, in their order, and the notes that careful looking makes of values, or the error."""
    notes: list[Note] = []
    try:
        return list(cells_of(zip(COLUMNS.values(), values, strict=True), notes=notes).items()), notes
    except InvalidEvent as error:
        return str(error)


def check_same(values: Values) -> None:
    """See that the straight way makes what careful looking does, where there is nothing to tell, or leaves it alone."""
    cells = usual_cells(values)
    if cells is not None:
        assert (list(cells.items()), []) == with_care(values)
        assert {str} == {type(text) for text in cells.values()}


@settings(max_examples=600)
@given(GIVEN)
def test_what_is_usual_needs_no_care(values: Values) -> None:
    """Among usual values there may be any others: the same cells in the same order, whichever way is taken."""
    check_same(values)


@pytest.mark.parametrize("values", UNUSUAL, ids=range(len(UNUSUAL)))
def test_what_has_to_be_told_is_not_usual(values: Values) -> None:
    """A result of which one thing is odd does not go the straight way."""
    check_same(values)
    assert usual_cells(values) is None


@pytest.mark.parametrize("values", USUAL)
def test_most_results_are_usual(values: Values) -> None:
    """A typical result goes the straight way."""
    assert usual_cells(values) is not None


@pytest.mark.parametrize("key", ["PO_NUMBER", "SUPPLIER", "Attachment_names", "ID"])
@pytest.mark.parametrize("status_column", ["STATUS", "RESULT"])
def test_both_ways_record_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, status_column: str
) -> None:
    """Whatever the columns are called: the same cells, what was mended, and errors."""
    path = tmp_path / "input.csv"
    path.write_text(f"{key};CASE\nPO1;\n")
    job = EventCsv(path, key=key, status_column=status_column, durability="process")

    def recorded(values: Values) -> tuple[Event, tuple[str, ...]] | str:
        try:
            event = job.emit_result("PO1", **dict(zip(COLUMNS, values, strict=True)))  # type: ignore[arg-type]  # any
        except EventCsvError as error:
            return str(error)
        return Event("", "", event.kind, event.key, list(event.cells.items())), event.mended  # type: ignore[arg-type]  # ordered

    given_values = [*USUAL, *UNUSUAL[:-1]]  # how much of the last one has room depends on the length of its id
    straight = [recorded(values) for values in given_values]
    monkeypatch.setattr(recorder, "usual_cells", lambda _values: None)
    assert straight == [recorded(values) for values in given_values]


@settings(max_examples=600)
@given(st.text(max_size=4) | st.text(f"{BLANKS}PO1\x00\x7f", max_size=4))
def test_a_usual_key_needs_no_care(key: str) -> None:
    """A key of text that goes the straight way is the one that comes of the same text with care."""

    def found(key: object) -> tuple[str, list[Note]] | str:
        notes: list[Note] = []
        try:
            return key_of(key, notes=notes), notes
        except InvalidEvent as error:
            return str(error)

    assert found(key) == found(Word(key))
