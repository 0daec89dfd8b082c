"""The promise: lines read many at once say what they say read one by one, and no doubtful one is taken for good."""

from __future__ import annotations

from array import array
from io import BytesIO
from random import Random
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from events import logs
from hypothesis import given, settings
from hypothesis import strategies as st

from eventcsv import EventCsv
from eventcsv.event import Event
from eventcsv.log.line import CRC_BYTES, decode, encode, sealed
from eventcsv.table import frames as bulk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import polars as pl

TS = "2025-10-02T12:43:11.000000Z"


@pytest.fixture(scope="module", autouse=True)
def _at_once() -> Iterator[None]:
    """Few lines would be read one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "FEW_LINES", 0)
        yield


def parsed(raw: bytes) -> pl.DataFrame | None:
    return bulk.framed_at_once(raw, array("I", map(crc32, BytesIO(raw))))


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


GOOD = encode(Event("t-00-1", TS, "result", "PO1", {"A": "1", "B": "2"}))


def resealed(old: bytes, new: bytes) -> bytes:
    """Return a line that says something else than a good one, with the checksum that it then has."""
    body = GOOD[: -CRC_BYTES - 1].replace(old, new)
    assert new in body
    return body + b',"crc":"%08x"}\n' % crc32(body)


@pytest.mark.parametrize("copies", [1, 200])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"A":"1",', b'"A":"1";'),
        (b'"A":"1"', b'"A";"1"'),
        (b'"A":"1"', b'"A""1"'),
        (b'"set":{', b'"set":['),
        (b'"PO1",', b'"PO1"'),
        (b'"1"', b'"\x01"'),
        (b'"1"', b'"\x1a"'),
        (b'"1"', b'"\t"'),
        (b"t-00-1", b"t-\x1f-1"),
        (b'"1"', b'"1\r"'),
        (b'"1"', b'"\xff"'),
        (b'"2"}', b'"2"},'),
    ],
)
def test_what_is_no_json_is_never_taken_for_an_event(old: bytes, new: bytes, copies: int) -> None:
    """Its checksum holds, and what it says seems plain: the line is none all the same, also where most are like it."""
    assert parsed(GOOD + resealed(old, new) * copies + GOOD) is None


@pytest.mark.parametrize("end", [b"\r\n", b" \n", b"\x01\n", b"\x01more\n", b'"\n', b"\n\n", b"\n\r\n"])
@pytest.mark.parametrize("copies", [1, 200])
@pytest.mark.parametrize("line", [GOOD, encode(Event("t-00-1", TS, "result", "PO1", {"A": '5" pipe'}))])
def test_nothing_behind_a_line_is_overlooked(line: bytes, end: bytes, copies: int) -> None:
    """A line that is whole but for what follows it is damaged, though a reader of CSV files may leave that out."""
    assert parsed(GOOD + line) is not None
    assert parsed(GOOD + (line[:-1] + end) * copies + GOOD) is None


@pytest.mark.parametrize("copies", [1, 200])
def test_of_a_column_that_a_line_sets_twice_the_last_text_counts(copies: int) -> None:
    """JSON allows it, and whatever reads one line says so."""
    frame = parsed(resealed(b'"B"', b'"A"') * copies)
    assert frame is not None
    assert events_of(frame) == [("result", "PO1", {"A": "2"})] * copies


def test_many_kinds_of_lines_are_all_read() -> None:
    """Columns that come in turns, rarely, late, or only once; texts with what JSON escapes among them."""
    rng = Random(20261125)
    events = []
    for number in range(3_000):
        names = [f"c{at}" for at in range(12) if rng.random() < 0.5] if number % 3 == 0 else ["A", "B"][: number % 3]
        text = '5" pipe\n' if number % 50 == 7 else str(number)
        events.append(Event(f"t-00-{number}", TS, "result", f"PO{number % 40}", dict.fromkeys(names, text)))
    frame = parsed(b"".join(map(encode, events)))
    assert frame is not None
    assert [(event.kind, event.key, dict(event.cells)) for event in events] == events_of(frame)


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
    monkeypatch.setattr("eventcsv.table.frames.FEW_LINES", 0)
    for piece_bytes in (200, 1000, 5000):
        monkeypatch.setattr("eventcsv.log.segment.READ_BYTES", piece_bytes)
        monkeypatch.setattr("eventcsv.view.projection.READ_BYTES", piece_bytes)
        result = EventCsv(csv_path).replay()
        assert (60, expected) == (result.events, csv_path.read_bytes())
