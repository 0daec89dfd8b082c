"""The promise: whatever uses a log cannot tell whether it is in files or on a server."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from conftest import read_csv
from events import logs
from hypothesis import HealthCheck, given, settings
from servers import unused_name

from eventcsv import EventCsv, InvalidEvent, UnsupportedFormat
from eventcsv.event import Event, Kind
from eventcsv.log.file_log import FileLog
from eventcsv.log.line import encode
from eventcsv.log.postgres.log import PgLog
from eventcsv.log.scan import events, placed_events
from eventcsv.log.types import Position

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from eventcsv.log.interface import Log

    Make = Callable[..., Log]


@pytest.fixture(params=["file", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """What makes the log of this test: always the same one, however often."""
    if request.param == "file":
        return lambda key="PO_NUMBER", name="": FileLog(str(tmp_path / f"input{name}.events"), key_column=key)
    url = request.getfixturevalue("pg_server").url
    job = unused_name(request.node.name)

    def made(key: str = "PO_NUMBER", name: str = "") -> Log:
        directory = str(tmp_path / f"input{name}.events")
        return PgLog(url, job=f"{job}{name}", directory=directory, key_column=key, lock_timeout_s=20)

    return made


def event(log: Log, text: str, key: str = "PO1") -> Event:
    return log.new_event(Kind.RESULT, key, {"STATUS": "COMPLETED", "note": text}, "2025-10-02T12:43:11.123456Z")


def appended(log: Log, *texts: str) -> list[Event]:
    made = [event(log, text) for text in texts]
    for item in made:
        log.append(item)
    return made


def all_of(log: Log) -> list[Event]:
    return [item for chunk in log.read(log.first(), log.end().position) for item in events(chunk)[0]]


def test_what_was_appended_is_read_in_its_order(make: Make) -> None:
    """Lines come back as the bytes that they are, in the order of their appends, behind a header."""
    log = make()
    assert not log.exists()
    made = appended(log, "a", "b", "\u2028 é 💥 \x00", "x" * 300_000)
    assert made == all_of(make())
    raw = b"".join(chunk.raw for chunk in log.read(log.first(), log.end().position))
    header, newline, rest = raw.partition(b"\n")
    assert b"".join(map(encode, made)) == rest
    assert (b"PO_NUMBER" in header, newline) == (True, b"\n")
    assert Position(1, len(raw)) == log.end().position


def test_any_events_come_back(make: Make) -> None:
    """Whatever an event says, it comes back as it was."""
    numbers = iter(range(10**6))

    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(logs)
    def check(found: list[Event]) -> None:
        log = make(name=str(next(numbers)))
        unique = {item.id: item for item in found}
        for item in unique.values():
            log.append(item)
        assert list(unique.values()) == all_of(log)

    check()


def test_a_retry_is_one_event(make: Make) -> None:
    """The same event appended again, as after an outcome that nobody knows, counts once in the history."""
    log = make()
    one = event(log, "a")
    log.append(one)
    log.append(one)
    assert {one.id} == {item.id for item in all_of(log)}


def test_positions_cut_the_log_anywhere(make: Make) -> None:
    """Reading from any position to any later one gives what lies between; checksums and places agree with that."""
    log = make()
    made = appended(log, *"abcdef")
    log.new_segment()
    made += appended(log, *"ghi")
    end = log.end().position
    places = [
        Position(chunk.number, end_bytes)
        for chunk in log.read(log.first(), end)
        for end_bytes, _ in placed_events(chunk)
    ]
    assert len(made) == len(places)
    assert end == places[-1]
    for start_at, start in enumerate(places):
        assert log.starts_line(start)
        for stop_at in range(start_at, len(places)):
            chunks = list(log.read(start, places[stop_at]))
            assert made[start_at + 1 : stop_at + 1] == [item for chunk in chunks for item in events(chunk)[0]]
            raw = b"".join(chunk.raw for chunk in chunks)
            assert crc32(raw) == log.crc(start, places[stop_at])
    assert log.crc(places[0], end) == log.crc(places[3], end, log.crc(places[0], places[3]) or 0)
    assert not log.starts_line(Position(1, places[0].offset_bytes + 1))


def test_segments_are_numbered_and_removed(make: Make) -> None:
    """New segments count up, each with a header of the same log; what is removed is gone, and nothing else."""
    log = make()
    appended(log, "a")
    assert Position(2, 0) == log.new_segment()
    kept = appended(log, "b")
    assert Position(3, 0) == make().new_segment()
    kept += appended(log, "c")
    assert [1, 2, 3] == log.segments()
    assert {log.identity()} == {(log.header(number) or {})["log"] for number in (1, 2, 3)}
    log.remove([1])
    assert ([2, 3], Position(2, 0)) == (log.segments(), log.first())
    assert kept == all_of(log)
    assert log.crc(Position(1, 0), log.end().position) is None
    assert log.header(1) is None
    assert log.size_bytes(log.first(), log.end().position) > sum(len(encode(item)) for item in kept)


def test_the_tail_is_the_last_lines(make: Make) -> None:
    """About so many bytes of the last segment, from the start of a line."""
    log = make()
    appended(log, "of another segment")
    log.new_segment()
    made = appended(log, *"abcdef")
    size = len(encode(made[-1]))
    for count in range(1, 5):
        tail = [item for chunk in log.tail(log.end().position, count * size + size // 2) for item in events(chunk)[0]]
        assert tail
        assert made[-len(tail) :] == tail
    assert made == [item for chunk in log.tail(log.end().position, 10**6) for item in events(chunk)[0]]


def test_another_key_column_is_refused(make: Make) -> None:
    """A log is for one key column; case and blanks aside."""
    appended(make(), "a")
    make(key=" po_number").check_key_column()
    with pytest.raises(UnsupportedFormat, match="key column 'PO_NUMBER'"):
        make(key="ORDER").check_key_column()


def test_what_is_no_line_is_refused(make: Make) -> None:
    """An event that is too long for a line is refused before anything is written."""
    log = make()
    with pytest.raises(InvalidEvent):
        log.append(event(log, "x" * (1 << 20)))
    assert Position(1, 0) == log.end().position


def test_threads_share_a_log(make: Make) -> None:
    """Threads append through one log, and nothing is lost or doubled."""
    log = make()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: appended(log, *[f"{n} {i}" for i in range(20)]), range(8)))
    found = all_of(log)
    assert 160 == len(found) == len({item.id for item in found})
    for n in range(8):
        assert [f"{n} {i}" for i in range(20)] == [
            text for item in found if (text := item.cells["note"]).startswith(f"{n} ")
        ]


def test_a_forked_child_writes_as_itself(make: Make) -> None:
    """A child that was forked appends under ids of its own, and neither disturbs the other."""
    log = make()
    appended(log, "parent")
    for _ in range(3):
        pid = os.fork()
        if not pid:
            appended(log, "child")
            os._exit(0)
        appended(log, "parent")
        assert (pid, 0) == os.waitpid(pid, 0)
    found = all_of(log)
    assert 7 == len({item.id for item in found})
    assert 4 == len({item.id.rpartition("-")[0] for item in found})


def test_a_copy_in_another_process_writes_as_itself(make: Make) -> None:
    """A pickled log goes on elsewhere."""
    log = make()
    appended(log, "here")
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=appended, args=(log, "there"))
    process.start()
    process.join()
    assert ["here", "there"] == [item.cells["note"] for item in all_of(pickle.loads(pickle.dumps(log)))]


def test_who_reads_on_misses_nothing(make: Make) -> None:
    """A reader that goes on from the last end that it saw meets every event of eight writers, in the log's order."""
    make().make()
    threads = [threading.Thread(target=appended, args=(make(), *[f"{n} {i}" for i in range(50)])) for n in range(8)]
    for thread in threads:
        thread.start()
    log, met = make(), []
    at = log.first()
    while True:
        busy = any(thread.is_alive() for thread in threads)
        end = log.end().position
        met += [item for chunk in log.read(at, end) for item in events(chunk)[0]]
        at = end
        if not busy:
            break
    assert met == all_of(log)
    assert 400 == len(met)


def test_a_job_works_through_its_life(make: Make, csv_path: Path) -> None:
    """Results, compaction, session, edit, verify, restore and prune do the same."""
    job = EventCsv(csv_path, lock_timeout_s=20)
    job.log = make()
    job.emit_result("PO1", "COMPLETED", columns={"note": "=1"})
    first = job.compact()
    assert (1, True) == (first.events, first.changed)
    with job.session(session_id="one"):
        job.emit_result("PO2", "ERROR", error_message="gone")
    csv_path.write_bytes(csv_path.read_bytes() + b"PO9;;;;;\n")
    assert job.compact().edited
    assert ["PO2", "PO3", "PO9"] == job.pending()
    assert [] == list(job.verify().findings)
    assert {"COMPLETED": 1, "ERROR": 1, "": 2} == job.progress().by_status
    assert ["gone"] == [failure.message for failure in job.progress().failures]
    assert ["COMPLETED"] == [item.cells["STATUS"] for item in job.history("PO1")]
    before = csv_path.read_bytes()
    csv_path.unlink()
    assert "was gone" in str(job.compact().rebuilt)
    assert before == csv_path.read_bytes()
    assert "'=1" == read_csv(csv_path)[0]["note"]
    job.restore(job.backups()[-1].name, replay=False)
    assert ["PO1", "PO2", "PO3"] == job.pending()
