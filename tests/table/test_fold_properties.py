"""The promise: for each PO and column, the last event in log order wins, however the log is cut up on the way."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Literal
from zlib import crc32

import pytest
from events import an_event, logs, text
from hypothesis import given, settings
from hypothesis import strategies as st

from eventcsv.event import BLANKS, Event, Kind, column_id
from eventcsv.log.line import encode, sealed
from eventcsv.log.scan import Chunk
from eventcsv.table.fold import FORMULA_STARTS, Fold
from eventcsv.table.frames import parsed
from eventcsv.table.reader import parse
from eventcsv.table.table import Table, render

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True, params=[0, 500], ids=["at once", "one by one"])
def few_lines(request: pytest.FixtureRequest) -> Iterator[None]:
    """Few lines are read one by one; the promise is the same when they are not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eventcsv.table.frames.FEW_LINES", request.param)
        yield


HEADER = ("PO_NUMBER", "STATUS", "Supplier Segment", "note")
KEYS = ("PO1", "PO2", " PO3 ", "PO2")


def csv_bytes(rows: list[list[str]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=";", lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


BASE = csv_bytes([list(HEADER), *([key, "", "a;b", 'say "x"'] for key in KEYS)])


def table_of(data: bytes) -> Table:
    return parse(data, source="input.csv", key="PO_NUMBER")


def chunk_of(events: list[Event]) -> Chunk:
    raw = b"".join(map(encode, events))
    return Chunk("events-000001.jsonl", 1000, raw, crc32(raw))


def folded(data: bytes, events: list[Event], *, chunks: int = 1) -> bytes:
    """Fold events, in so many chunks, onto a CSV with the real thing."""
    table = table_of(data)
    fold = Fold(table)
    size = max(1, -(-len(events) // chunks))
    for start in range(0, len(events), size):
        assert fold.add(parsed(chunk_of(events[start : start + size]))) == ()
    result = fold.result()
    return data if result is table else render(result)


def cells_of(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=";"))


def oracle(data: bytes, events: list[Event]) -> list[list[str]]:
    """The fold in a dict and a loop."""
    header, *rows = cells_of(data)
    table = [dict(zip(map(column_id, header), row, strict=True)) for row in rows]
    names = {column_id(name): name for name in header}
    for event in events:
        matching = [row for row in table if row["po_number"].strip(BLANKS) == event.key.strip(BLANKS)]
        if event.kind in {Kind.RESULT, Kind.EDIT} and matching:
            for name in sorted(event.cells, key=lambda name: (["STATUS", "SUPPLIER", name].index(name), name)):
                names.setdefault(column_id(name), name.strip(BLANKS))
                for row in matching:
                    cell = event.cells[name]
                    is_risky = event.kind == Kind.RESULT and cell[:1] and cell[0] in FORMULA_STARTS
                    row[column_id(name)] = f"'{cell}" if is_risky else cell  # a person's formula is theirs
    return [list(names.values()), *([row.get(name, "") for name in names] for row in table)]


@given(logs, st.integers(1, 4))
def test_fold_equals_a_dict_and_a_loop(events: list[Event], chunks: int) -> None:
    """Whatever the events say, Polars folds them as ten lines of Python do."""
    assert oracle(BASE, events) == cells_of(folded(BASE, events, chunks=chunks))


@given(logs, st.data())
def test_any_partition_gives_the_same_bytes(events: list[Event], data: st.DataObject) -> None:
    """Compacting at any moments, through the file each time, ends in the bytes of one full fold."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4)))
    step = BASE
    for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True):
        step = folded(step, events[start:end])
    assert folded(BASE, events) == step


@given(logs, st.data())
def test_folding_again_changes_nothing(events: list[Event], data: st.DataObject) -> None:
    """What was folded may be folded once more, from any place on: a checkpoint that lags behind does no harm."""
    once = folded(BASE, events)
    assert once == folded(once, events)
    assert once == folded(once, events[data.draw(st.integers(0, len(events))) :])


@given(st.lists(an_event(), min_size=1, max_size=6), st.lists(an_event(), max_size=6))
def test_events_of_different_pos_commute(first: list[Event], second: list[Event]) -> None:
    """The order of events of different POs decides nothing about the cells."""
    ours = [replace(event, key="PO1") for event in first]
    theirs = [replace(event, key="PO2") for event in second]
    one, other = cells_of(folded(BASE, ours + theirs)), cells_of(folded(BASE, theirs + ours))
    by_name = [[dict(zip(table[0], row, strict=True)) for row in table[1:]] for table in (one, other)]
    spelled = [[{column_id(name): cell for name, cell in row.items()} for row in table] for table in by_name]
    assert spelled[0] == spelled[1]


def test_events_of_one_po_do_not_commute() -> None:
    """The order of events of one PO decides everything."""
    first = Event("t-00-1", "2025-10-02T12:43:11.000000Z", "result", "PO1", {"STATUS": "ERROR"})
    second = Event("t-00-2", "2025-10-02T12:43:12.000000Z", "result", "PO1", {"STATUS": "COMPLETED"})
    assert cells_of(folded(BASE, [first, second]))[1][1] == "COMPLETED"
    assert cells_of(folded(BASE, [second, first]))[1][1] == "ERROR"


@given(logs, st.randoms(use_true_random=False))
def test_timestamps_decide_nothing(events: list[Event], random: object) -> None:
    """With the timestamps shuffled, as after a clock that jumped, the bytes are the same."""
    stamps = [event.ts for event in events]
    random.shuffle(stamps)  # type: ignore[attr-defined]
    shuffled = [replace(event, ts=ts) for event, ts in zip(events, stamps, strict=True)]
    assert folded(BASE, events) == folded(BASE, shuffled)


@given(st.lists(st.lists(text, min_size=3, max_size=3), max_size=6), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_a_csv_is_written_as_it_was_read(rows: list[list[str]], newline: str, quotes_all: bool) -> None:  # noqa: FBT001
    """Reading and writing gives the same bytes, whatever stands in the cells."""
    if not quotes_all:  # the csv module leaves a lone carriage return unquoted, which nobody can read back
        rows = [[cell.replace("\r", "") for cell in row] for row in rows]
    out = io.StringIO(newline="")
    quoting: Literal[0, 1] = csv.QUOTE_ALL if quotes_all else csv.QUOTE_MINIMAL
    writer = csv.writer(out, delimiter=";", lineterminator=newline, quoting=quoting)
    writer.writerows([["PO_NUMBER", "b", "c"], *rows])
    data = out.getvalue().encode()
    table = table_of(data)
    assert data == render(table)
    assert [tuple(row) for row in rows] == table.rows_as_text().rows()


def test_a_line_of_another_writer_is_read_with_care() -> None:
    """Lines that hold what ours never do (a number, a name twice) are judged one by one, and the rest is folded."""
    good = Event("t-00-1", "2025-10-02T12:43:11.000000Z", "result", "PO1", {"STATUS": "COMPLETED", "Zulu": "1"})
    foreign = sealed({"v": 1, "id": "x", "ts": "t", "kind": "result", "key": "PO2", "set": {"STATUS": 5}})
    raw = encode(good) + foreign
    fold = Fold(table_of(BASE))
    found = fold.add(parsed(Chunk("events-000001.jsonl", 0, raw, 0)))
    assert [(len(encode(good)), len(foreign))] == [(item.offset_bytes, item.length_bytes) for item in found]
    assert cells_of(render(fold.result()))[1] == ["PO1", "COMPLETED", "a;b", 'say "x"', "1"]


@pytest.mark.parametrize("merge_rows", [1, 3])
@settings(max_examples=30)
@given(events=logs)
def test_merging_partial_folds_changes_nothing(merge_rows: int, events: list[Event]) -> None:
    """A fold of many chunks merges its parts on the way; when it does is not to be seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eventcsv.table.fold._MERGE_ROWS", merge_rows)
        assert folded(BASE, events) == folded(BASE, events, chunks=6)
