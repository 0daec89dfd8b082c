"""The promise: damage costs at most the line it strikes, and is reported with its place."""

from __future__ import annotations

import os
import random
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from conftest import append_raw, checkpoint_of, file_log, flip, lines_of, read_csv, segment_of, split_healed
from hypothesis import given
from hypothesis import strategies as st

from eventcsv import EventCsv, InvalidCsv
from eventcsv.log import checksum as crc
from eventcsv.log.line import decode, encode, sealed
from eventcsv.log.reader import LogReader
from eventcsv.log.scan import events, note, noted
from eventcsv.log.types import Damage, Position
from eventcsv.storage.files import Storage
from eventcsv.table.fold import Fold
from eventcsv.table.frames import parsed
from eventcsv.table.reader import parse
from eventcsv.table.table import render

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventcsv import VerifyReport
    from eventcsv.event import Event

MESSAGES = ("plain", 'with "quotes"; and\nnewlines', "emoji 💥", '{"v":1,"id":"x"}')


@pytest.fixture(autouse=True)
def _no_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read them at once, as many lines are; the way one by one is what that falls back on when there is damage."""
    monkeypatch.setattr("eventcsv.table.frames.FEW_LINES", 0)


@pytest.fixture
def log_of_six(job: EventCsv) -> bytes:
    """A log of a header and six events, as bytes; the job has it on disk."""
    for number, message in enumerate((*MESSAGES, *MESSAGES[:2])):
        job.emit_result(f"PO{number % 3 + 1}", "ERROR", error_message=message, columns={"note": f"n{number}"})
    return segment_of(job).read_bytes()


def read_back(folder: Path, log: bytes, *, fold: bool = True) -> tuple[list[Event], tuple[Damage, ...], Damage | None]:
    """Read a log that consists of these bytes, as a rule folding it too, and return what was found."""
    folder.mkdir(exist_ok=True)
    (folder / "events-000001.jsonl").write_bytes(log)
    reader = LogReader(str(folder), Storage())
    end = reader.end()
    table = parse(b"PO_NUMBER;STATUS\nPO1;\nPO2;\nPO3;\n", source="input.csv", key="PO_NUMBER") if fold else None
    folding = Fold(table) if table else None
    found: list[Event] = []
    damage: tuple[Damage, ...] = ()
    for chunk in reader.read(Position(1, 0), end.position):
        damage += folding.add(parsed(chunk)) if folding else events(chunk)[1]
        found += [decode(line) for line in chunk.lines.splitlines() if b'"kind":"header"' not in line]
    if folding:
        render(folding.result())
    return found, damage, end.torn


def events_in(log: bytes) -> list[Event]:
    """Return the events of an undamaged log."""
    return [decode(line) for line in log.split(b"\n")[1:-1]]


def test_truncated_at_any_byte_the_complete_lines_count(log_of_six: bytes, tmp_path: Path) -> None:
    """Whatever is cut off the end costs the lines it reaches and no other, and what is left of a line is reported."""
    for length in range(len(log_of_six)):
        kept = log_of_six[:length]
        complete = kept[: kept.rfind(b"\n") + 1]
        found, damage, torn = read_back(tmp_path / "log", kept, fold=length % 24 == 0)
        assert events_in(complete) == found
        assert damage == ()
        assert (
            (torn.offset_bytes, torn.length_bytes) == (len(complete), length - len(complete))
            if torn
            else kept == complete
        )


MUTATIONS: dict[str, Callable[[int], int]] = {
    "bit 0": lambda byte: byte ^ 1,
    "NUL": lambda _: 0,
    "newline": lambda _: 10,
    "bit 1": lambda byte: byte ^ 2,
    "bit 2": lambda byte: byte ^ 4,
    "bit 3": lambda byte: byte ^ 8,
    "bit 4": lambda byte: byte ^ 16,
    "bit 5": lambda byte: byte ^ 32,
    "bit 6": lambda byte: byte ^ 64,
    "bit 7": lambda byte: byte ^ 128,
    "0xff": lambda _: 255,
    "a quote": lambda _: 34,
    "a brace": lambda _: 123,
    "one more": lambda byte: (byte + 1) % 256,
}


@pytest.mark.parametrize(
    "mutate",
    [
        pytest.param(change, id=name, marks=[] if number < 3 else pytest.mark.long)
        for number, (name, change) in enumerate(MUTATIONS.items())
    ],
)
def test_any_flipped_byte_costs_at_most_its_line(
    log_of_six: bytes, tmp_path: Path, mutate: Callable[[int], int]
) -> None:
    """One changed byte loses at most the line it is in, a changed newline included, and is always reported."""
    lines = log_of_six.splitlines(keepends=True)
    for place, byte in enumerate(log_of_six):
        if mutate(byte) == byte:
            continue
        flipped = log_of_six[:place] + bytes([mutate(byte)]) + log_of_six[place + 1 :]
        line = log_of_six.count(b"\n", 0, place)
        left = [decode(other[:-1]) for number, other in enumerate(lines) if number not in {0, line}]
        found, damage, torn = read_back(tmp_path / "log", flipped, fold=place % 24 == 0)
        assert left == found
        start = sum(map(len, lines[:line]))
        reports = (*damage, *([torn] if torn else []))
        assert reports
        assert all(start <= report.offset_bytes <= start + len(lines[line]) for report in reports)


def test_without_the_checksum_a_wrong_value_is_taken_for_right(
    log_of_six: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: a reader that believes every line that parses is caught by the same comparison."""
    monkeypatch.setattr("eventcsv.log.scan.crc32", lambda _line: 0)
    monkeypatch.setattr("eventcsv.log.line.crc32", lambda _line: 0)
    believed = re.sub(rb',"crc":"[0-9a-f]{8}"}', b',"crc":"00000000"}', log_of_six)
    flipped = believed.replace(b"n4", b"n5")
    found, damage, torn = read_back(tmp_path / "log", flipped)
    assert ((), None) == (damage, torn)
    assert events_in(believed) != found


@pytest.mark.parametrize("what", ["zeroed", "swapped with the next"])
def test_each_damaged_sector_costs_the_lines_it_touches(job: EventCsv, tmp_path: Path, what: str) -> None:
    """Sectors of 512 bytes: the lines in one are lost and reported, every other line is read."""
    for number in range(40):
        job.emit_result(f"PO{number % 3 + 1}", "PARTIAL", columns={"note": f"{number} " * (number % 7)})
    whole = segment_of(job).read_bytes()
    lines = whole.splitlines(keepends=True)
    starts = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]
    for at in range(0, len(whole) - 512, 512):
        size = 512 if what == "zeroed" else 1024
        sector = whole[at : at + size]
        other = b"\0" * len(sector) if what == "zeroed" else sector[512:] + sector[:512]
        found, damage, torn = read_back(tmp_path / "log", whole[:at] + other + whole[at + size :])
        untouched = [n for n in range(1, len(lines)) if starts[n + 1] <= at or starts[n] >= at + len(sector)]
        assert {decode(lines[n][:-1]).id for n in untouched} <= {event.id for event in found}
        assert all(event in events_in(whole) for event in found)
        reports = (*damage, *([torn] if torn else []))
        assert reports
        assert all(report.offset_bytes < at + len(sector) for report in reports)
        assert all(report.offset_bytes + report.length_bytes > at - 1024 for report in reports)


@pytest.mark.parametrize("every", [23, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("change", ["flipped", "cut off here"])
def test_a_checkpoint_damaged_at_any_byte_is_only_a_cache(tmp_path: Path, change: str, every: int) -> None:
    """The same CSV as with a whole one, nothing taken for an edit; and verify names it."""
    job = _compacted(tmp_path / "job")
    path = checkpoint_of(job)
    whole, view = path.read_bytes(), Path(job.csv_path).read_bytes()
    for at in range(0, len(whole) - 1, every):
        path.write_bytes(_damaged(whole, at, change))
        again = EventCsv(job.csv_path)
        assert ["the checkpoint is damaged"] == [
            finding.problem.partition(";")[0] for finding in again.verify().findings
        ], at
        result = again.compact()
        assert result.rebuilt, at
        assert (False, False, view) == (result.edited, result.changed, Path(job.csv_path).read_bytes()), at
        assert whole == path.read_bytes() or not EventCsv(job.csv_path).verify().findings, at


@pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize("change", ["flipped", "cut off here"])
def test_a_backup_damaged_at_any_byte_gives_way_to_the_one_before(
    tmp_path: Path, change: str, suffix: str, every: int
) -> None:
    """The newest base is damaged: verify names it, and a replay starts from the one before, with the same results."""
    job = _compacted(tmp_path / "job")
    newest = Path(job.back_up().path).with_suffix(suffix)
    job.emit_result("PO3", "COMPLETED", last_processed="3")
    job.compact()
    whole, view = newest.read_bytes(), Path(job.csv_path).read_bytes()
    for at in range(0, len(whole) - (suffix == ".json"), every):
        newest.write_bytes(_damaged(whole, at, change))
        again = EventCsv(job.csv_path)
        places = [finding.place for finding in again.verify().findings]
        assert places[:1] == [str(newest)], at
        again.replay()
        assert view == Path(job.csv_path).read_bytes(), at
        assert not again.compact().edited


def _compacted(folder: Path) -> EventCsv:
    """Return a job that has folded some results."""
    folder.mkdir()
    (folder / "input.csv").write_text("PO_NUMBER;STATUS\nPO1;\nPO2;\nPO3;\n")
    job = EventCsv(folder / "input.csv", durability="process")
    job.emit_result("PO1", "COMPLETED", last_processed="1")
    job.compact()
    job.emit_result("PO2", "PARTIAL", columns={"note": "x"}, last_processed="2")
    job.compact()
    return job


def _damaged(whole: bytes, at: int, change: str) -> bytes:
    return whole[:at] if change == "cut off here" else whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]


@pytest.mark.parametrize("length", [1, 17, 511, 4096, 65536, 40 << 20])
@pytest.mark.parametrize("where", ["start", "middle", "end"])
def test_a_run_of_nul_bytes_is_read_around(log_of_six: bytes, tmp_path: Path, length: int, where: str) -> None:
    """NUL bytes, as a power cut leaves them, cost the line they fuse with at most, wherever they are."""
    lines = log_of_six.splitlines(keepends=True)
    place = {"start": 0, "middle": sum(map(len, lines[:3])), "end": len(log_of_six)}[where]
    found, damage, torn = read_back(tmp_path / "log", log_of_six[:place] + b"\0" * length + log_of_six[place:])
    assert events_in(log_of_six) == found
    assert any("NUL" in report.reason for report in (*damage, *([torn] if torn else [])))


def test_a_torn_line_in_the_middle_is_reported_and_the_rest_folded(job: EventCsv, log_of_six: bytes) -> None:
    """What a crash left half is healed by the next append, stays as evidence, and costs no other line."""
    torn = log_of_six.splitlines(keepends=True)[-1][:50]
    segment_of(job).write_bytes(log_of_six + torn)
    event = job.emit_result("PO1", "COMPLETED")
    healed = split_healed(segment_of(job).read_bytes(), log_of_six + torn, encode(event))
    assert (b"\n", len(log_of_six)) == healed
    result = job.compact()
    assert result.events == 7
    assert () == result.damage
    assert [("events-000001.jsonl", len(log_of_six), 51, "half a line; its writer was stopped in mid-write")] == [
        (item.segment, item.offset_bytes, item.length_bytes, item.reason) for item in result.torn
    ]
    assert () == job.compact().torn  # told once


def without_notes(log: bytes) -> bytes:
    """Take out of a log what says that a line before it is half a line."""
    return b"".join(line for line in log.splitlines(keepends=True) if b'"kind":"torn"' not in line)


def test_half_a_line_that_nobody_vouches_for_is_damage(log_of_six: bytes, job: EventCsv) -> None:
    """A note is about the half line before it alone, and one that is itself damaged says nothing."""
    half = log_of_six.splitlines(keepends=True)[-1][:50]
    segment_of(job).write_bytes(log_of_six + half)
    job.emit_result("PO1", "COMPLETED")
    healed = segment_of(job).read_bytes()
    note_at = len(log_of_six) + len(half) + 1

    def verified(log: bytes) -> tuple[list[str], list[int]]:
        segment_of(job).write_bytes(log)
        report = EventCsv(job.csv_path).verify()
        places = [item.place.rpartition(" ")[2] for item in report.findings if "byte" in item.place]
        return places, [item.offset_bytes for item in report.torn]

    assert ([], [len(log_of_six)]) == verified(healed)
    assert ([str(len(log_of_six))], []) == verified(without_notes(healed))
    for at in (note_at, note_at + 20, note_at + 30, note_at + 60):
        assert ([str(len(log_of_six)), str(note_at)], []) == verified(_damaged(healed, at, "flipped"))
    line_at = log_of_six.rfind(b"\n", 0, -1) + 1
    assert ([str(line_at)], [len(log_of_six)]) == verified(_damaged(healed, line_at + 20, "flipped"))
    assert ([str(line_at)], []) == verified(_damaged(healed, len(log_of_six) - 1, "flipped"))  # its newline


def test_a_note_that_was_cut_off_is_written_again(log_of_six: bytes, job: EventCsv) -> None:
    """Whoever heals may be killed in it, and again: all of the halves are told, by whoever looks and by the next one.

    Of the first bytes of a note nobody can tell what they are, so there the first half stays damage.
    """
    half = log_of_six.splitlines(keepends=True)[-1][:50]
    segment_of(job).write_bytes(log_of_six + half)
    event = job.emit_result("PO1", "COMPLETED")
    heal = segment_of(job).read_bytes()[len(log_of_six + half) :]
    unclear = len(b'\n{"v":1,"k')
    first, second = len(log_of_six), len(log_of_six + half) + 1
    for cut in range(unclear, len(heal) - len(encode(event)) - 1):
        segment_of(job).write_bytes(log_of_six + half + heal[:cut])
        report = EventCsv(job.csv_path).verify()
        assert ([first, second], []) == ([item.offset_bytes for item in report.torn], _places(report)), cut
        job.emit_result("PO1", "PARTIAL")
        whole = segment_of(job).read_bytes()
        report = EventCsv(job.csv_path).verify()
        assert ([first, second], []) == ([item.offset_bytes for item in report.torn], _places(report)), cut
        again = whole[len(log_of_six + half) + cut :]
        for cut_again in (unclear, 60):
            segment_of(job).write_bytes(log_of_six + half + heal[:cut] + again[:cut_again])
            third = len(log_of_six + half) + cut + 1
            for finish in (job.new_segment, lambda: job.emit_result("PO2", "PARTIAL")):
                report = EventCsv(job.csv_path).verify()
                told = [item.offset_bytes for item in report.torn if item.segment == "events-000001.jsonl"]
                assert ([first, second, third], []) == (told, _places(report)), (cut, cut_again)
                finish()
            for number in job.log.segments()[1:]:
                segment_of(job, number).unlink()
    segment_of(job).write_bytes(log_of_six + half + heal[: unclear - 1])
    job.emit_result("PO1", "PARTIAL")
    report = EventCsv(job.csv_path).verify()
    assert ([second], 1) == ([item.offset_bytes for item in report.torn], len(_places(report)))


def _places(report: VerifyReport) -> list[str]:
    return [item.place for item in report.findings if "byte" in item.place]


def test_a_reader_that_knows_no_notes_takes_one_for_an_event_of_a_kind_that_it_does_not_know() -> None:
    """What version 1 asked of every line that is neither header nor seal, a note has."""
    line = note(359, id="8f3a12c4d5e6-00-torn-1-359", ts="2026-11-24T21:00:00.000000Z")
    event = decode(line[:-1])
    assert ("torn", "", {}) == (event.kind, event.key, event.cells)
    assert 359 == noted(line[:-1])


@pytest.mark.parametrize("missing_bytes", [1, 2, 100])
def test_a_seal_that_comes_late_changes_nothing_of_what_was_read(
    job: EventCsv, csv_path: Path, missing_bytes: int
) -> None:
    """A segment change killed before the seal leaves a last line in mid-line; ending it later is no change of the log.

    A line of which only the newline is missing is an event before as after.
    """
    job.emit_result("PO1", "COMPLETED")
    segment = segment_of(job)
    segment.write_bytes(segment.read_bytes()[:-missing_bytes])
    file_log(job).begin_segment(2)
    job.emit_result("PO2", "COMPLETED")
    first = job.compact()
    assert (["COMPLETED", "COMPLETED", ""] if missing_bytes == 1 else ["", "COMPLETED", ""]) == [
        row["STATUS"] for row in read_csv(csv_path)
    ]
    assert ((), missing_bytes > 1) == (first.damage, bool(first.torn))
    view = csv_path.read_bytes()
    job.log.finish_seals()
    result = EventCsv(csv_path).compact()
    assert (None, False, view) == (result.rebuilt, result.changed, csv_path.read_bytes())
    assert () == job.verify().findings
    assert view == csv_path.read_bytes()
    assert not job.replay().changed


def test_every_damaged_line_is_reported_with_its_place(job: EventCsv, csv_path: Path, log_of_six: bytes) -> None:
    """Several kinds of damage at once: each has its own report, and the view has the rest."""
    lines = log_of_six.splitlines(keepends=True)
    lines[1] = lines[1].replace(b"plain", b"plane")
    lines[3] = b"\0" * (len(lines[3]) - 1) + b"\n"
    lines[4] = b"\n"
    segment_of(job).write_bytes(b"".join(lines))
    result = job.compact()
    starts = [sum(map(len, lines[:number])) for number in range(len(lines))]
    assert [starts[1], starts[3], starts[4]] == [item.offset_bytes for item in result.damage]
    assert [next(word for word in ("checksum", "NUL", "empty") if word in item.reason) for item in result.damage] == [
        "checksum",
        "NUL",
        "empty",
    ]
    assert read_csv(csv_path)[1]["note"] == "n4"


def test_a_missing_segment_is_reported(job: EventCsv) -> None:
    """A segment that is gone is named; what the others say is folded."""
    job.emit_result("PO1", "COMPLETED")
    job.log.new_segment()
    job.emit_result("PO2", "COMPLETED")
    job.log.new_segment()
    job.emit_result("PO3", "COMPLETED")
    segment_of(job, 2).unlink()
    result = EventCsv(job.csv_path).compact()
    assert [(d.segment, d.reason) for d in result.damage] == [("events-000002.jsonl", "the segment is missing")]
    assert result.by_status["COMPLETED"] == 2


@pytest.mark.parametrize("is_cut", [True, False])
@pytest.mark.parametrize("deaths", [1, 2, 3])
def test_half_seals_are_no_damage(job: EventCsv, deaths: int, *, is_cut: bool) -> None:
    """Behind a half line, too: the last seal knows of those before it; of that line the next segment's header does."""
    job.emit_result("PO1", "COMPLETED")
    if is_cut:
        append_raw(job, lines_of(job)[-1][:40])
    job.log.new_segment()
    path = segment_of(job)
    for _ in range(deaths):
        seal = path.read_bytes().splitlines()[-1]
        os.truncate(path, path.stat().st_size - 1 - len(seal) // 2)
        job.log.finish_seals()
    assert deaths == path.read_bytes().count(b"\n") - 3 - is_cut
    assert () == job.compact().damage
    assert () == job.verify().findings


def test_a_damaged_line_before_half_a_seal_is_damage(job: EventCsv) -> None:
    """That a seal was cut off says nothing of the line before it, which was acknowledged."""
    job.emit_result("PO1", "COMPLETED")
    job.log.new_segment()
    path = segment_of(job)
    os.truncate(path, path.stat().st_size - 60)
    flip(path, path.read_bytes().index(b"PO1"))
    job.log.finish_seals()
    assert ["the checksum does not match"] == [item.reason for item in job.compact().damage]


def test_a_seal_shows_that_whole_lines_are_gone(job: EventCsv) -> None:
    """A line cut out cleanly leaves no bad checksum; the segment's seal tells."""
    job.emit_result("PO1", "COMPLETED")
    job.emit_result("PO2", "COMPLETED")
    job.log.new_segment()
    lines = segment_of(job).read_bytes().splitlines(keepends=True)
    assert EventCsv(job.csv_path).compact().damage == ()
    segment_of(job).write_bytes(b"".join([lines[0], *lines[2:]]))
    result = EventCsv(job.csv_path).replay()
    assert ["seal" in item.reason for item in result.damage] == [True]


@pytest.mark.parametrize("piece_bytes", [100, 700, 70_000])
def test_pieces_of_any_size_hold_the_same_lines(
    job: EventCsv, log_of_six: bytes, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines longer than a piece, a torn end and a garbled middle included; and the seal is checked all the same."""
    path = segment_of(job)
    job.emit_result("PO1", "COMPLETED", columns={"note": "x" * 200_000})
    with path.open("ab") as file:
        file.write(b"garbage\n" + log_of_six[: log_of_six.rfind(b"{") + 20])
    job.emit_result("PO2", "COMPLETED")
    with path.open("ab") as file:
        file.write(log_of_six[log_of_six.rfind(b"{") :][:20])
    job.new_segment()
    job.close()
    end = LogReader(job.log_dir, Storage()).end().position

    def found() -> tuple[bytes, int, list[Damage]]:
        chunks = list(LogReader(job.log_dir, Storage()).read(Position(1, 0), end))
        damage = [item for chunk in chunks for item in chunk.damage]
        return b"".join(chunk.raw for chunk in chunks), chunks[-1].crc, damage

    expected = found()
    assert [False, True, True] == [item.torn for item in expected[2]]
    monkeypatch.setattr("eventcsv.log.segment.READ_BYTES", piece_bytes)
    assert found() == expected
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"garbage\n", b""))
    assert any("does not match its seal" in str(item) for item in found()[2])


@given(before=st.binary(), rest=st.binary())
def test_the_checksum_of_a_part_follows_from_those_of_the_whole(before: bytes, rest: bytes) -> None:
    """Control of the seal's: it is what zlib says."""
    assert crc.of_rest(crc32(before), crc32(before + rest), len(rest)) == crc32(rest)


def test_an_unknown_kind_is_passed_over(job: EventCsv) -> None:
    """A kind that only a newer eventcsv knows sets nothing and is no damage."""
    job.emit_result("PO1", "COMPLETED")
    with segment_of(job).open("ab") as file:
        file.write(
            sealed({"v": 1, "id": "x", "ts": "t", "kind": "claimed", "key": "PO2", "set": {"STATUS": "X"}, "by": "me"})
        )
    result = job.compact()
    assert (result.damage, result.events) == ((), 1)
    assert result.by_status == {"": 2, "COMPLETED": 1}


def test_random_garbage_never_crashes_the_reader(log_of_six: bytes, tmp_path: Path) -> None:
    """Bytes of any kind between the lines are reported, and every whole line is found."""
    rng = random.Random(7)
    lines = log_of_six.splitlines(keepends=True)
    for _ in range(200):
        garbage = [rng.randbytes(rng.randrange(60)).replace(b"\n", b"") + b"\n" for _ in lines]
        mixed = b"".join(part for pair in zip(lines, garbage, strict=True) for part in pair)
        found, damage, _ = read_back(tmp_path / "log", mixed)
        assert events_in(log_of_six) == found
        assert len(garbage) == len(damage)


@pytest.mark.parametrize("name", ["events-0000002.jsonl", "events-00002.jsonl", "events-٠٠٠٠٠٢.jsonl"])
def test_a_name_that_no_segment_has_is_a_strangers(job: EventCsv, name: str) -> None:
    """Only the one name that a number has is a segment's; else two files would be one, and one of them never read."""
    job.emit_result("PO1", "COMPLETED")
    shutil.copy(segment_of(job), Path(job.log_dir) / name)
    assert [1] == file_log(job).segments()
    assert 1 == job.compact().events


def test_a_damaged_header_costs_neither_events_nor_backups(job: EventCsv, csv_path: Path) -> None:
    """Without the header of its only segment the log keeps its identity, and goes on in a segment with a good one."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    log = segment_of(job).read_bytes()
    segment_of(job).write_bytes(b"x" + log[1:])
    fresh = EventCsv(csv_path, durability="process")
    fresh.emit_result("PO2", "COMPLETED")
    result = fresh.compact()
    assert "newer" not in str(result.rebuilt)
    assert result.rebuilt is not None
    assert result.by_status["COMPLETED"] == 2
    assert [(item.segment, item.offset_bytes) for item in result.damage] == [("events-000001.jsonl", 0)]


def test_a_log_in_a_lost_folder_is_no_reason_to_touch_the_csv(job: EventCsv, csv_path: Path) -> None:
    """With log and backups gone, the CSV is what there is: it stays, and becomes a new base."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    before = csv_path.read_bytes()
    shutil.rmtree(job.log_dir)
    shutil.rmtree(job.backup_dir)
    result = EventCsv(csv_path).compact()
    assert before == csv_path.read_bytes()
    assert result.base is not None


def test_with_csv_and_backups_gone_the_error_says_so(job: EventCsv, csv_path: Path) -> None:
    """A log alone cannot give the CSV back; the error names both things that are missing."""
    job.emit_result("PO1", "COMPLETED")
    csv_path.unlink()
    with pytest.raises(InvalidCsv, match="no backup"):
        job.compact()
