"""The promise: once emit_result() has returned, the event is in the log, on a line of its own, for good."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import file_log, lines_of, segment_of, split_healed
from faults import Recording, Refusing, with_storage

from eventcsv import AppendError, EventCsv, InvalidEvent, LockTimeout, UnsafePath
from eventcsv.event import Event, Kind
from eventcsv.log.line import decode, encode, is_whole
from eventcsv.storage.files import Storage
from eventcsv.storage.locks import locked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventcsv.log.file_log import Durability


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait milliseconds, since what is tested is that they happen, not how long they wait."""
    monkeypatch.setattr("eventcsv.log.retry.FIRST_RETRY_S", 0.001)
    monkeypatch.setattr("eventcsv.log.retry.LONGEST_RETRY_S", 0.002)


# --- one append ---


def test_a_result_is_one_line(job: EventCsv) -> None:
    """The line is the event, ends in a newline, and is returned as it stands."""
    event = job.emit_result(
        "PO1", "COMPLETED", attachments_found=2, attachments_downloaded=1, attachment_names=["a.pdf", "b.pdf"],
        supplier='Ácme; "Ltd"', columns={"Priority": 3, "Rate": 0.5, "Urgent": True},
    )  # fmt: skip
    assert [encode(event)[:-1]] == lines_of(job)
    assert {
        "STATUS": "COMPLETED",
        "SUPPLIER": 'Ácme; "Ltd"',
        "ATTACHMENTS_FOUND": "2",
        "ATTACHMENTS_DOWNLOADED": "1",
        "AttachmentName": "a.pdf;b.pdf",
        "LAST_PROCESSED": event.ts[:19] + "Z",
        "Priority": "3",
        "Rate": "0.5",
        "Urgent": "True",
    } == event.cells


def test_none_leaves_a_column_alone_and_empty_clears_it(job: EventCsv) -> None:
    """None is not in the event; "" is."""
    event = job.emit_result("PO1", "PENDING", supplier="", error_message=None, last_processed="", columns={"a": None})
    assert event.cells == {"STATUS": "PENDING", "SUPPLIER": "", "LAST_PROCESSED": ""}


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_the_order_of_an_append(csv_path: Path, durability: Durability) -> None:
    """Lock, one write, unlock, and only then the sync, if any: so that several processes can sync together."""
    storage = Recording()
    job = with_storage(EventCsv(csv_path, durability=durability), storage)
    job.emit_result("PO1", "COMPLETED")
    storage.steps.clear()
    job.emit_result("PO2", "COMPLETED")
    assert storage.steps == ["lock", "write", "unlock", *(["datasync"] if durability == "disk" else [])]


def test_a_new_log_is_durable_before_its_first_event(csv_path: Path) -> None:
    """The header, the segment's name and the log's own name are synced before an event is acknowledged."""
    storage = Recording()
    with_storage(EventCsv(csv_path), storage).emit_result("PO1", "COMPLETED")
    until_event = storage.steps[: len(storage.steps) - storage.steps[::-1].index("write")]
    assert until_event.count("sync") >= 4  # the log's folder, the header, the segment's folder, the folder above
    assert until_event.index("replace") > until_event.index("sync")
    assert storage.steps[-1] == "datasync"


def test_nothing_invalid_reaches_the_lock(csv_path: Path) -> None:
    """An event of no row or no column causes no step on the disk at all."""
    storage = Recording()
    job = with_storage(EventCsv(csv_path), storage)
    for key, status in (("", "COMPLETED"), ("PO1", " "), ("PO\n1", "ERROR")):
        with pytest.raises(InvalidEvent):
            job.emit_result(key, status)
    with pytest.raises(InvalidEvent, match="key column"):
        job.emit_result("PO1", "ERROR", columns={"PO_NUMBER": "PO2"})
    assert storage.steps == []


# --- torn tails ---


def test_a_tail_torn_at_any_byte_never_swallows_the_next_line(job: EventCsv) -> None:
    """However much of a line a crash left, the next event stands on a line of its own."""
    job.emit_result("PO1", "COMPLETED")
    log = segment_of(job).read_bytes()
    line = log.splitlines(keepends=True)[1]
    for length in range(len(line)):
        segment_of(job).write_bytes(log + line[:length])
        event = job.emit_result("PO2", "COMPLETED")
        healed = split_healed(segment_of(job).read_bytes(), log + line[:length], encode(event))
        told = len(log) if 0 < length < len(line) - 1 else None  # without its newline only it counts
        assert (b"\n" if length else b"", told) == healed


def test_a_line_that_lacks_its_newline_only_counts(job: EventCsv) -> None:
    """It is no half line, and nobody says so: it has its checksum, and is an event once it has its newline."""
    first = job.emit_result("PO1", "COMPLETED")
    log = segment_of(job).read_bytes()
    segment_of(job).write_bytes(log[:-1])
    event = job.emit_result("PO2", "COMPLETED")
    assert log + encode(event) == segment_of(job).read_bytes()
    assert [first.id] == [item.id for item in job.history("PO1")]


def test_a_short_write_is_an_error_and_is_healed(csv_path: Path) -> None:
    """When the kernel takes part of a line, the event is appended again, whole, on a line of its own."""

    class Short(Recording):
        cut = 0

        def write(self, fd: int, data: bytes) -> int:
            if self.cut:
                data, self.cut = data[: self.cut], 0
            return super().write(fd, data)

    storage = Short()
    job = with_storage(EventCsv(csv_path), storage)
    first = job.emit_result("PO1", "COMPLETED")
    size = len(encode(first))
    for cut in range(1, size):
        before = segment_of(job).read_bytes()
        storage.cut = cut
        event = job.emit_result("PO2", "COMPLETED")
        left = encode(event)[:cut]
        healed = split_healed(segment_of(job).read_bytes(), before + left, encode(event))
        assert (b"\n", None if is_whole(left) else len(before)) == healed


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def events_at_the_limit(job: EventCsv) -> tuple[list[Event], list[Event]]:
    """Record an event for each byte of a line at which the system stops a write, and then one without such a limit.

    Returns:
        The events that were acknowledged in spite of the limit, and the others.
    """
    acknowledged, others, codes = [], [], set()
    size_bytes = len(encode(job.emit_result("PO1", "COMPLETED")))
    for cut in range(1, size_bytes):
        before = segment_of(job).read_bytes()
        try:
            with largest_file(len(before) + cut):
                acknowledged.append(job.emit_result("PO2", "COMPLETED"))
        except AppendError as error:
            codes.add(getattr(error.__cause__, "errno", None))
        event = job.emit_result("PO3", "COMPLETED")
        found = segment_of(job).read_bytes()
        left = found[len(before) : len(before) + cut]
        healed = split_healed(found, before + left, encode(event))
        assert (b"\n", None if is_whole(left) else len(before)) == healed, f"cut at byte {cut}"
        others.append(event)
    assert {errno.EFBIG} >= codes
    return acknowledged, others


def test_a_write_that_the_system_cuts_short_is_not_acknowledged(job: EventCsv) -> None:
    """At every byte of a line, for real: an AppendError, and the next event stands on a line of its own."""
    acknowledged, others = events_at_the_limit(job)
    assert [] == acknowledged
    assert len(others) > 100
    assert [event.id for event in others] == [event.id for event in job.history("PO3")]
    assert [] == list(job.history("PO2"))
    result = job.compact()
    assert ((), len(others)) == (result.damage, len(result.torn))


def test_a_toy_that_does_not_count_loses_what_was_cut_short(csv_path: Path) -> None:
    """Control: a writer that takes a short write for a whole one acknowledges what is not there."""

    class Careless(Storage):
        def write(self, fd: int, data: bytes) -> int:
            super().write(fd, data)
            return len(data)

    job = with_storage(EventCsv(csv_path, durability="process"), Careless())
    acknowledged, _ = events_at_the_limit(job)
    assert len(acknowledged) > 100
    assert [] == list(job.history("PO2"))


# --- failures ---


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN])
def test_a_transient_fault_is_retried(csv_path: Path, error: int) -> None:
    """A disk that is full twice and then has room costs nothing but time."""
    job = EventCsv(csv_path)
    job.emit_result("PO1", "COMPLETED")
    job.close()
    storage = Refusing(error, lambda self, step, _: step == "write" and self.steps.count("refused write") < 2)
    event = with_storage(job, storage).emit_result("PO2", "COMPLETED")
    assert encode(event)[:-1] == lines_of(job)[-1]
    assert storage.steps.count("refused write") == 2


@pytest.mark.parametrize(("error", "tries"), [(errno.ENOSPC, 4), (errno.EIO, 4), (errno.EACCES, 1), (errno.EROFS, 1)])
def test_a_lasting_fault_becomes_an_append_error(csv_path: Path, error: int, tries: int) -> None:
    """After the first try and three retries (one try when retrying cannot help) the error carries the event."""
    job = EventCsv(csv_path)
    job.emit_result("PO1", "COMPLETED")
    job.close()
    storage = Refusing(error, lambda _self, step, _args: step == "write")
    with pytest.raises(AppendError, match="PO2 could not be recorded") as caught:
        with_storage(job, storage).emit_result("PO2", "ERROR", error_message="the disk is full")
    assert tries == storage.steps.count("refused write")
    assert caught.value.event is not None
    assert caught.value.event.cells["ERROR_MESSAGE"] == "the disk is full"
    assert isinstance(caught.value.__cause__, OSError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(caught.value), caught.value.event) == (str(again), again.event)


def test_a_failed_sync_poisons_the_descriptor(csv_path: Path) -> None:
    """The event goes, with the same id, to a new segment; the descriptor whose sync failed is never synced again."""
    synced: list[int] = []

    def first_time(_self: Recording, step: str, args: tuple[Any, ...]) -> bool:
        if step != "datasync":
            return False
        synced.append(os.fstat(args[0]).st_ino)
        return len(synced) == 2

    job = EventCsv(csv_path)
    storage = Refusing(errno.EIO, first_time)
    with_storage(job, storage)
    job.emit_result("PO1", "COMPLETED")
    event = job.emit_result("PO2", "COMPLETED")
    job.emit_result("PO3", "COMPLETED")
    inodes = [segment_of(job, number).stat().st_ino for number in (1, 2)]
    assert [inodes[0], inodes[0], inodes[1], inodes[1]] == synced
    assert [event.id, event.id] == [decode(lines_of(job)[1]).id, decode(lines_of(job, 2)[0]).id]
    assert [job.compact().by_status["COMPLETED"] - 2, len(list(job.history("PO2"))), len(lines_of(job)) - 1] == [
        1,
        1,
        1,
    ]


def test_writers_follow_to_a_new_segment(job: EventCsv, csv_path: Path) -> None:
    """When somebody begins a new segment, every writer goes on there, and the old one is sealed and left alone."""
    other = EventCsv(csv_path, durability="process")
    job.emit_result("PO1", "COMPLETED")
    other.emit_result("PO2", "COMPLETED")
    other.log.new_segment()
    sealed = segment_of(job).read_bytes()
    event = job.emit_result("PO3", "COMPLETED")
    assert sealed == segment_of(job).read_bytes()
    assert b'"kind":"seal","lines":3,' in sealed
    assert [encode(event)[:-1]] == lines_of(job, 2)


def test_a_writer_whose_segment_was_removed_goes_on_in_the_active_one(job: EventCsv, csv_path: Path) -> None:
    """A segment that is pruned under a sleeping writer does not take its next result with it."""
    other = EventCsv(csv_path, durability="process")
    job.emit_result("PO1", "COMPLETED")
    for _ in range(2):
        other.log.new_segment()
    segment_of(job, 1).unlink()
    segment_of(job, 2).unlink()
    event = job.emit_result("PO2", "COMPLETED")
    assert [encode(event)[:-1]] == lines_of(job, 3)


# --- the lock ---


def test_a_held_lock_is_waited_for_and_its_holder_named(csv_path: Path) -> None:
    """A writer that never gets the lock gives up after its timeout and names the process in its way."""
    EventCsv(csv_path).emit_result("PO1", "COMPLETED")
    holder = EventCsv(csv_path)
    waiting = EventCsv(csv_path, lock_timeout_s=0.05)
    with (
        locked(holder._storage, os.path.join(holder.log_dir, "append.lock"), 1),
        pytest.raises(AppendError, match=rf"held after 0.05 s by process {os.getpid()} ") as caught,
    ):
        waiting.emit_result("PO2", "COMPLETED")
    assert isinstance(caught.value.__cause__, LockTimeout)
    waiting.emit_result("PO2", "COMPLETED")


def test_a_replaced_lock_file_is_noticed(job: EventCsv, csv_path: Path) -> None:
    """A lock file that was removed and made anew excludes again: a writer compares what it holds with what is there."""
    job.emit_result("PO1", "COMPLETED")
    lock = Path(job.log_dir) / "append.lock"
    lock.unlink()
    other = EventCsv(csv_path, durability="process")
    other.emit_result("PO2", "COMPLETED")
    job.emit_result("PO3", "COMPLETED")
    assert lock.stat().st_ino == os.fstat(file_log(job)._lock_fd).st_ino


@pytest.mark.parametrize("plant", ["symlink", "hardlink", "fifo", "directory"])
@pytest.mark.parametrize("name", ["append.lock", "events-000001.jsonl"])
def test_what_is_not_ours_is_refused(job: EventCsv, tmp_path: Path, plant: str, name: str) -> None:
    """A link, FIFO or folder in the place of one of our files is named and left as it was."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    place = Path(job.log_dir) / name
    place.parent.mkdir()
    {"symlink": lambda: place.symlink_to(victim), "hardlink": lambda: os.link(victim, place)}.get(
        plant, lambda: os.mkfifo(place) if plant == "fifo" else place.mkdir()
    )()
    with pytest.raises(AppendError, match=name) as caught:
        job.emit_result("PO1", "COMPLETED")
    assert isinstance(caught.value.__cause__, UnsafePath)
    assert victim.read_bytes() == b"precious"


def test_a_log_that_was_moved_away_is_not_written_to(job: EventCsv) -> None:
    """A writer whose log folder was replaced by a copy goes on in the copy, where everybody reads."""
    job.emit_result("PO1", "COMPLETED")
    folder = Path(job.log_dir)
    moved = folder.rename(folder.with_name("moved"))
    shutil.copytree(moved, folder)
    event = job.emit_result("PO2", "COMPLETED")
    assert encode(event)[:-1] == lines_of(job)[-1]


def test_descriptors_are_given_back(csv_path: Path) -> None:
    """A job that nobody closes leaves nothing open once it is gone, and close() can be interrupted."""
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(50):
        EventCsv(csv_path, durability="process").emit_result("PO1", "COMPLETED")
    assert before >= (len(os.listdir("/proc/self/fd")) if before else 0) - 2

    class Interrupted(Recording):
        def close(self, fd: int) -> None:
            super().close(fd)
            raise KeyboardInterrupt

    job = EventCsv(csv_path, durability="process")
    job.emit_result("PO1", "COMPLETED")
    file_log(job).storage = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        job.close()
    assert (-1, -1) == (file_log(job)._lock_fd, file_log(job)._segment_fd)


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_a_timeout_is_a_number_of_seconds(csv_path: Path, seconds: float) -> None:
    """A timeout that no clock can wait for is refused at once."""
    with pytest.raises(ValueError, match="lock_timeout_s"):
        EventCsv(csv_path, lock_timeout_s=seconds)


def test_history_counts_a_retried_event_once(job: EventCsv) -> None:
    """An id that stands in the log twice, after a retry, is one event."""
    event = job.log.new_event(Kind.RESULT, "PO1", {"STATUS": "COMPLETED"}, "2025-10-02T12:43:11.000000Z")
    job.log.append(event)
    job.log.append(event)
    assert [event] == list(job.history(" PO1 "))
