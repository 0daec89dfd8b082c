"""The promise: lines read many at once say what they say read one by one, and no doubtful one is taken for good."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fold_properties import logs

from eventcsv import EventCsv, bulk
from eventcsv.event import Event, decode, encode, sealed
from eventcsv.scan import Chunk

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

PATH = "input.events/events-000001.jsonl"
TS = "2025-10-02T12:43:11.000000Z"


def parsed(raw: bytes) -> pl.DataFrame | None:
    return bulk.parsed(bulk.bulk_of(Chunk(PATH, 1000, raw, 0)))


def events_of(frame: pl.DataFrame) -> list[tuple[str, str, dict[str, str]]]:
    """Return kind, key and cells of each row."""
    return [
        (
            row["kind"],
            row["key"],
            {
                name.removeprefix(bulk.SET): text
                for name, text in row.items()
                if name.startswith(bulk.SET) and text is not None
            },
        )
        for row in frame.iter_rows(named=True)
    ]


@settings(max_examples=200)
@given(events=logs.filter(bool), sample=st.sampled_from([1, 3, 256]))
def test_lines_read_at_once_say_what_each_one_says(events: list[Event], sample: int) -> None:
    """Whatever the texts, the columns and their order are, and whichever of them a sample of the lines shows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "_SAMPLE", sample)
        frame = parsed(b"".join(map(encode, events)))
    assert frame is not None
    assert [(event.kind, event.key, dict(event.cells)) for event in events] == events_of(frame)


FOREIGN = [
    {"v": 1, "id": "x", "ts": TS, "kind": "result", "key": "PO2", "set": {"STATUS": 5}},
    {"v": 1, "id": "x", "ts": TS, "kind": "result", "key": "PO2", "set": {"A": 5, "B": 6}},
    {"v": 1, "id": "x", "ts": TS, "kind": "result", "key": "PO2", "set": {"STATUS": {"crc": "00000000"}}},
    {"v": 1, "id": "x", "ts": TS, "kind": "result", "key": None, "set": {"STATUS": "COMPLETED"}},
    {"v": 1, "id": "x", "ts": TS, "kind": "result", "set": {"STATUS": "COMPLETED"}},
    {"v": 2, "id": "x", "ts": TS, "kind": "result", "key": "PO2", "set": {"STATUS": "COMPLETED"}},
    {"id": "x", "ts": TS, "kind": "result", "key": "PO2", "set": {"STATUS": "COMPLETED"}},
]


@pytest.mark.parametrize("record", FOREIGN)
def test_a_line_that_is_no_event_of_ours_is_left_to_be_judged(record: dict[str, object]) -> None:
    """Its checksum holds, and yet it is none: nothing of it may be taken for a text that it does not hold."""
    good = encode(Event("t-00-1", TS, "result", "PO1", {"STATUS": "COMPLETED"}))
    assert parsed(good + sealed(record)) is None


def test_other_orders_of_fields_are_read_with_care() -> None:
    """Another program may write its fields otherwise; what they say counts."""
    line = sealed({"v": 1, "kind": "result", "set": {"B": "2", "A": "1"}, "key": "PO2", "ts": TS, "id": "x"})
    good = encode(Event("t-00-1", TS, "result", "PO1", {"A": "0"}))
    frame = parsed(good + line + good)
    assert frame is not None
    assert [
        ("result", "PO1", {"A": "0"}),
        ("result", "PO2", {"A": "1", "B": "2"}),
        ("result", "PO1", {"A": "0"}),
    ] == events_of(frame)


def test_a_changed_byte_is_never_taken_for_good() -> None:
    """Control of the checksum: one byte changed anywhere in many lines, and they are not read at once."""
    rng = Random(20261124)
    lines = [encode(Event(f"t-00-{n}", TS, "result", f"PO{n}", {"STATUS": "DONE", "n": str(n)})) for n in range(50)]
    raw = b"".join(lines)
    for at in rng.sample(range(len(raw)), 400):
        changed = raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :]
        assert parsed(changed) is None


def test_the_tables_give_the_checksum_of_any_whole_line() -> None:
    """What four tables add up to is zlib.crc32 of the line."""
    rng = Random(1)
    for _ in range(300):
        line = encode(Event("t", TS, "result", "PO1", {"text": rng.randbytes(20).hex()}))
        decode(line[:-1])
        assert bulk._crc_of_line(int(line[-11:-3], 16)) == crc32(line)


def test_reading_ahead_changes_nothing(csv_path: Path, job: EventCsv, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of many pieces, read by a thread, gives the same CSV as one that is folded as it comes."""
    for number in range(60):
        job.emit_result(f"PO{number % 3 + 1}", "PARTIAL", columns={f"c{number % 4}": f'"{number}"'})
        if number % 7 == 0:
            job.compact()
    job.compact()
    expected = csv_path.read_bytes()
    monkeypatch.setattr("eventcsv.fold.FEW_LINES", 0)
    for piece_bytes in (200, 1000, 5000):
        monkeypatch.setattr("eventcsv.storage.READ_BYTES", piece_bytes)
        monkeypatch.setattr("eventcsv.folded.READ_BYTES", piece_bytes)
        result = EventCsv(csv_path).replay()
        assert (60, expected) == (result.events, csv_path.read_bytes())
