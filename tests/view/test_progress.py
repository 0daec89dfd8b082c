"""The promise: pending() and progress() tell how the job stands by the log's present end, and touch nothing."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import Talk
from conftest import KEYS, append_raw, checkpoint_of, segment_of, tree
from hypothesis import given, settings
from hypothesis import strategies as st
from inside import compactor_of
from operations import compacting

from eventcsv import Event, EventCsv, InvalidCsv, Status
from eventcsv.event import DONE, InFlight, Kind, utc_text
from eventcsv.log.line import decode, encode, sealed
from eventcsv.view.progress import Progress, measure
from eventcsv.view.retention import EDITED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def emit(job: EventCsv, key: str, status: str = "COMPLETED") -> Event:
    """Record a result that needs nothing else."""
    return job.emit_result(key, status, error_message="why" if status in {"ERROR", "FAILED"} else None)


# --- pending ---


def test_pending_is_what_is_not_completed_in_the_order_of_the_csv(csv_path: Path) -> None:
    """Whatever STATUS says but COMPLETED is pending; case and blanks around it do not matter."""
    words = ["COMPLETED", "", "completed", "ERROR", " Completed\u00a0", "COMPLETED?", "PENDING", "NO_ATTACHMENTS"]
    rows = [f"PO{9 - number};{word}\n" for number, word in enumerate(words)]
    csv_path.write_text("PO_NUMBER;STATUS\n" + "".join(rows), encoding="utf-8")
    assert ["PO8", "PO6", "PO4", "PO3", "PO2"] == EventCsv(csv_path).pending()


@pytest.mark.parametrize(
    ("done", "pending"),
    [
        (["COMPLETED", "NO_ATTACHMENTS"], ["PO3"]),
        ("no_attachments", ["PO1", "PO3"]),
        ({" error "}, ["PO1", "PO2"]),
        ((), ["PO1", "PO2", "PO3"]),
        (Status.COMPLETED, ["PO2", "PO3"]),
    ],
)
def test_what_counts_as_done_is_for_the_caller_to_say(
    csv_path: Path, done: tuple[str, ...] | str, pending: list[str]
) -> None:
    """`done` takes any collection of words, or a lone one, in any case."""
    csv_path.write_text("PO_NUMBER;STATUS\nPO1;COMPLETED\nPO2;No_Attachments\nPO3;ERROR\n")
    job = EventCsv(csv_path)
    assert pending == job.pending(done=done)
    assert (len(pending), 3 - len(pending)) == ((found := job.progress(done=done)).pending, found.done)


def test_a_po_on_several_rows_is_listed_once_and_one_without_a_key_never(csv_path: Path) -> None:
    """A PO is pending as long as one of its rows is, at the place of the first such row; no key, no PO."""
    csv_path.write_text("PO_NUMBER;STATUS\nA;COMPLETED\nB;\n;\nA;ERROR\n B ;COMPLETED\n  ;\nC;COMPLETED\nC;COMPLETED\n")
    job = EventCsv(csv_path)
    assert ["B", "A"] == job.pending()
    found = job.progress()
    assert (3, 1, 2) == (found.total, found.done, found.pending)
    assert {"": 1, "COMPLETED": 1, "ERROR": 1} == found.by_status


def test_without_a_status_column_everything_is_pending(csv_path: Path) -> None:
    """A CSV that knows no STATUS yet is all work to do."""
    csv_path.write_text("PO_NUMBER;SUPPLIER\nPO2;\nPO1;\n")
    job = EventCsv(csv_path, durability="process")
    assert ["PO2", "PO1"] == job.pending()
    assert ({"": 2}, ()) == ((found := job.progress()).by_status, found.failures)
    emit(job, "PO2")
    assert ["PO1"] == job.pending()


def test_pending_is_by_the_present_end_of_the_log(job: EventCsv) -> None:
    """A result counts from the moment on when it is recorded, without a compaction, the last one of a PO only."""
    assert list(KEYS) == job.pending()
    emit(job, "PO2")
    assert ["PO1", "PO3"] == job.pending()
    emit(job, "PO2", "PENDING")
    emit(job, " PO3 ")
    assert ["PO1", "PO2"] == job.pending()
    job.compact()
    emit(job, "PO1")
    assert ["PO2"] == EventCsv(job.csv_path).pending()


def torn(job: EventCsv) -> None:
    """Leave half a line behind the log."""
    emit(job, "PO1")
    append_raw(job, b'{"v":1,"id":"half')


def edited(job: EventCsv) -> None:
    """Reset a PO in the CSV as an operator does."""
    emit(job, "PO1")
    emit(job, "PO2")
    job.compact()
    path = Path(job.csv_path)
    path.write_bytes(path.read_bytes().replace(b"PO2;COMPLETED", b"PO2;PENDING"))


def without_checkpoint(job: EventCsv) -> None:
    """Lose the checkpoint."""
    emit(job, "PO1")
    job.compact()
    checkpoint_of(job).unlink()


def without_csv(job: EventCsv) -> None:
    """Lose the CSV, which the newest backup and the log can give back."""
    emit(job, "PO1")
    job.compact()
    Path(job.csv_path).unlink()


def behind(job: EventCsv) -> None:
    """Record what no compaction has folded, over a segment's end."""
    job.compact()
    job.new_segment()
    emit(job, "PO1")


SITUATIONS: dict[str, tuple[Callable[[EventCsv], object], list[str]]] = {
    "no log yet": (lambda _: None, ["PO1", "PO2", "PO3"]),
    "torn tail": (torn, ["PO2", "PO3"]),
    "edited": (edited, ["PO2", "PO3"]),
    "no checkpoint": (without_checkpoint, ["PO2", "PO3"]),
    "no csv": (without_csv, ["PO2", "PO3"]),
    "behind": (behind, ["PO2", "PO3"]),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_looking_writes_nothing_and_tells_what_a_compaction_would(job: EventCsv, situation: str) -> None:
    """Not one file changes, appears or goes, whatever state the job is in, and the next compaction agrees."""
    prepare, pending = SITUATIONS[situation]
    prepare(job)
    folder = Path(job.csv_path).parent
    before = (tree(folder), sorted(folder.rglob("*")))
    looks = [found for fresh in (job, EventCsv(job.csv_path)) for found in (fresh.pending(), fresh.pending())]
    progress = EventCsv(job.csv_path).progress()
    assert before == (tree(folder), sorted(folder.rglob("*")))
    assert [pending] * 4 == looks
    assert (3, len(pending), 3 - len(pending)) == (progress.total, progress.pending, progress.done)
    assert (situation == "torn tail") == bool(progress.torn)
    result = EventCsv(job.csv_path).compact()
    assert (progress.by_status, progress.in_flight, progress.damage) == (result.by_status, (), ())
    assert pending == job.pending()
    assert (0, 0) == ((after := job.progress()).behind, after.unknown)


def test_without_a_csv_and_backups_it_says_so(job: EventCsv, csv_path: Path) -> None:
    """There is nothing to answer from, and the error names both things that are missing; nothing is made."""
    csv_path.unlink()
    for look in (job.pending, job.progress):
        with pytest.raises(InvalidCsv, match="no backup"):
            look()
    assert [] == list(csv_path.parent.iterdir())


def test_a_log_that_was_moved_away_to_start_over_leaves_the_csv_as_it_is(job: EventCsv, csv_path: Path) -> None:
    """Without a log, the CSV alone says what is done, and no backup of the log that was moved away."""
    emit(job, "PO1")
    job.compact()
    shutil.move(job.log_dir, csv_path.with_name("old.events"))
    fresh = EventCsv(csv_path, durability="process")
    looked = fresh.pending()
    fresh.compact()
    assert ["PO2", "PO3"] == fresh.pending() == looked


# --- progress ---


def test_progress_counts_what_there_is(job: EventCsv) -> None:
    """Totals, statuses, what the CSV lags behind, and keys without a row, before and after a compaction."""
    emit(job, "PO1")
    emit(job, "PO9")
    emit(job, "PO9", "PARTIAL")
    found = job.progress()
    assert (3, 1, 2, 1, 3) == (found.total, found.done, found.pending, found.unknown, found.behind)
    assert {"": 2, "COMPLETED": 1} == found.by_status
    assert job.csv_path == found.csv_path
    job.compact()
    emit(job, "PO2", "ERROR")
    found = EventCsv(job.csv_path).progress()
    assert (1, 1, {"": 1, "COMPLETED": 1, "ERROR": 1}) == (found.unknown, found.behind, found.by_status)


def test_failures_are_what_is_not_done_and_says_why_the_latest_last(csv_path: Path) -> None:
    """ERROR and FAILED, or a message with anything that is not done; ordered by LAST_PROCESSED."""
    csv_path.write_text(
        "PO_NUMBER;STATUS;ERROR_MESSAGE;LAST_PROCESSED\n"
        "A;ERROR;late;2026-03-01T00:00:00Z\nB;COMPLETED;was slow;2026-01-01T00:00:00Z\n"
        "C;PARTIAL;one missing;2026-01-01T00:00:00Z\nD;FAILED;;2026-02-01T00:00:00Z\nE;PENDING;;\nF;;;\n"
    )
    failures = EventCsv(csv_path).progress().failures
    assert [
        ("C", "PARTIAL", "one missing"),
        ("D", "FAILED", ""),
        ("A", "ERROR", "late"),
    ] == [(item.key, item.status, item.message) for item in failures]
    assert "2026-03-01T00:00:00Z" == failures[-1].at


def test_a_failure_is_one_in_whatever_case_and_everywhere(csv_path: Path) -> None:
    """A person may write a STATUS in small letters: progress and report call it what its words call it."""
    csv_path.write_text("PO_NUMBER;STATUS\nPO1;error\nPO2;Failed\nPO3;waiting\n")
    job = EventCsv(csv_path)
    assert ["PO1", "PO2"] == [item.key for item in job.progress().failures]
    assert ["PO1", "PO2"] == [po.key for po in job.report().pos if po.failed]


def test_damage_in_what_is_new_is_reported(job: EventCsv) -> None:
    """A line that was damaged after it was recorded shows in `damage`, and costs no other."""
    emit(job, "PO1")
    emit(job, "PO2")
    log = segment_of(job).read_bytes()
    segment_of(job).write_bytes(log.replace(b'"key":"PO1"', b'"key":"PO7"'))
    found = job.progress()
    assert [log.find(b"\n") + 1] == [item.offset_bytes for item in found.damage]
    assert ["PO1", "PO3"] == job.pending()


# --- the rate ---


def log_by_hand(
    job: EventCsv, began: datetime | str, events: Iterable[tuple[datetime, str]], *, kind: str = "result"
) -> None:
    """Write a segment whose header and results have the times that are given."""
    Path(job.log_dir).mkdir(mode=0o700, exist_ok=True)
    header = {
        "v": 1,
        "ts": began if isinstance(began, str) else utc_text(began),
        "kind": Kind.HEADER.value,
        "log": "00000000-0000-4000-8000-000000000000",
        "segment": 1,
        "key_column": "PO_NUMBER",
        "eventcsv": "0",
    }
    lines = [
        encode(Event(f"hand-{number}", utc_text(ts), kind, key, {"STATUS": "PARTIAL"} if kind == "result" else {}))
        for number, (ts, key) in enumerate(events)
    ]
    segment_of(job).write_bytes(sealed(header) + b"".join(lines))
    segment_of(job).chmod(0o600)


def measured(job: EventCsv, now: datetime = NOW) -> Progress:
    """Return the progress at a given time."""
    return measure(compactor_of(job).project(), job.log, None, csv_path=job.csv_path, done=DONE, now=now)


def ago(seconds: float) -> datetime:
    """Return the time that long before NOW."""
    return NOW - timedelta(seconds=seconds)


def test_the_rate_counts_the_pos_of_the_last_minute(job: EventCsv) -> None:
    """Results older than a minute do not count, a PO counts once, and the rest follows from the rate."""
    log_by_hand(job, ago(3600), [(ago(3000), "A"), (ago(61), "B"), (ago(59), "PO1"), (ago(30), "PO2"), (ago(1), "PO1")])
    found = measured(job)
    assert (2.0, 90.0) == (found.rate_per_min, found.eta_s)
    assert (1.0, 180.0) == ((later := measured(job, NOW + timedelta(seconds=40))).rate_per_min, later.eta_s)
    assert (0.0, None) == ((still := measured(job, NOW + timedelta(hours=1))).rate_per_min, still.eta_s)


def test_a_session_younger_than_a_minute_divides_by_its_age(job: EventCsv) -> None:
    """Ten seconds after a segment began, two results make twelve a minute; a moment after, no rate is absurd."""
    log_by_hand(job, ago(10), [(ago(8), "PO1"), (ago(2), "PO2")])
    assert 12.0 == measured(job).rate_per_min
    log_by_hand(job, ago(0.01), [(NOW, "PO1")])
    assert 60.0 == measured(job).rate_per_min


def test_what_was_taken_up_is_no_result(job: EventCsv) -> None:
    """Only results move the rate."""
    log_by_hand(job, ago(10), [(ago(8), "PO1")], kind="started")
    assert (0.0, None) == ((found := measured(job)).rate_per_min, found.eta_s)


@pytest.mark.parametrize(
    "began", [NOW + timedelta(days=400), ago(1e9), "", "yesterday", "2026-05-04T11:59:50", "9999-12-31T23:59:59Z"]
)
@pytest.mark.parametrize("offset_s", [-1e9, -60, 0, 60, 1e9])
def test_a_clock_that_jumps_costs_the_rate_at_most(
    job: EventCsv, csv_path: Path, began: datetime | str, offset_s: float
) -> None:
    """Times from the future, from long ago or from nowhere give a rate that is a number, and no error."""
    log_by_hand(job, began, [(NOW + timedelta(seconds=offset_s), "PO1"), (NOW, "PO2"), (ago(offset_s), "PO3")])
    found = measured(job)
    assert 1.0 <= found.rate_per_min <= 180.0
    assert found.eta_s is not None
    assert 3 == EventCsv(csv_path).progress().behind


@pytest.mark.parametrize("size", [1_000, 500_000])
def test_a_log_of_many_megabytes_has_a_rate_from_its_tail(job: EventCsv, size: int) -> None:
    """The tail is read as far back as a minute goes, and no farther than it has to be; lines of any length."""
    count = 24_000_000 // size
    filler = "x" * size
    log_by_hand(job, ago(7200), [])
    with segment_of(job).open("ab") as file:
        for number in range(count):
            ts = utc_text(ago(40 * (count - number) / count))
            file.write(encode(Event(f"n-{number}", ts, "result", f"K{number}", {"ERROR_MESSAGE": filler})))
    found = measured(job)
    assert count * 1.5 == pytest.approx(found.rate_per_min, rel=0.06)
    assert count == found.unknown


# --- in flight ---


def whole(job: EventCsv) -> tuple[InFlight, ...]:
    """Return what is in flight by every line of the log that is whole."""
    found: dict[str, InFlight] = {}
    for path in sorted(Path(job.log_dir).glob("events-*.jsonl")):
        for line in path.read_bytes().split(b"\n")[:-1]:
            if b'"key":' not in line:
                continue
            event = decode(line)
            key = event.key.strip()
            if event.kind == Kind.EDIT:  # what a person types ends no work
                continue
            found.pop(key, None)
            if event.kind == Kind.STARTED:
                found[key] = InFlight(key, event.id, event.ts)
    return tuple(found.values())


def test_a_po_is_in_flight_from_its_start_to_its_result(job: EventCsv) -> None:
    """In every order, twice, with blanks around its key, before and after compactions."""
    first = job.emit_started(" PO1 ")
    assert (InFlight("PO1", first.id, first.ts),) == job.progress().in_flight
    job.compact()
    second = job.emit_started("PO2")
    again = job.emit_started("PO1")
    assert [second.id, again.id] == [item.id for item in job.progress().in_flight]
    emit(job, "PO1\u00a0", "PARTIAL")
    assert ["PO2"] == [item.key for item in job.compact().in_flight]
    emit(job, "PO2", "PARTIAL")
    emit(job, "PO3", "PARTIAL")
    assert () == job.compact().in_flight == job.progress().in_flight
    assert 0 == job.progress().behind


def test_progress_shows_in_flight_only_what_is_to_be_done(job: EventCsv) -> None:
    """A PO that the CSV has as done, or does not have, is nobody's work; the compaction tells of it all the same."""
    emit(job, "PO1")
    for key in ("PO1", "PO2", "PO9"):
        job.emit_started(key)
    assert ["PO2"] == [item.key for item in job.progress().in_flight]
    assert ["PO1", "PO2"] == [item.key for item in job.progress(done=()).in_flight]
    assert ["PO1", "PO2", "PO9"] == [item.key for item in job.compact().in_flight]


STEPS = st.one_of(
    st.tuples(st.sampled_from(["started", "result", "started", "result"]), st.integers(0, 4)),
    st.tuples(
        st.sampled_from(
            ["compact", "segment", "replay", "edit", "stale", "forget", "keep", "restore", "undo", "reopen", "killed"]
        ),
        st.integers(0, 4),
    ),
)


@settings(max_examples=25)
@given(steps=st.lists(STEPS, min_size=4, max_size=16), piece_bytes=st.sampled_from([150, 700, 1 << 20]))
def test_in_flight_is_the_same_however_it_was_computed(steps: list[tuple[str, int]], piece_bytes: int) -> None:
    """Bit by bit, over chunks, segments, replays, edits, restorations and lost checkpoints: what the whole log says."""
    with tempfile.TemporaryDirectory(prefix="eventcsv-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("eventcsv.log.segment.READ_BYTES", piece_bytes)
        path = Path(folder) / "input.csv"
        path.write_text("PO_NUMBER;STATUS;note\n" + "".join(f"PO{number};;\n" for number in range(4)))
        job = EventCsv(path, durability="process")
        job.compact()
        loaded = path.read_bytes()
        for number, (step, at) in enumerate(steps):
            key = f"{' ' * (number % 2)}PO{at}"
            if step == "started":
                job.emit_started(key)
            elif step == "result":
                emit(job, key, "PARTIAL")
            elif step in {"edit", "stale"}:
                text = loaded if step == "stale" else path.read_bytes()
                path.write_bytes(text.replace(b"PO3;", b"PO3;E", 1))
            elif step == "forget":
                checkpoint_of(job).unlink(missing_ok=True)
            elif step in {"restore", "undo"}:
                known = [backup for backup in job.backups() if backup.position or step == "undo"]
                job.restore(known[at % len(known)].name, replay=step == "restore")
            elif step == "killed":
                append_raw(job, b'{"v":1,"id":"half of a started', max(job.log.segments()))
                job.emit_started(key)
            elif step == "reopen":
                job = EventCsv(path, durability="process")
            else:
                actions: dict[str, Callable[[], object]] = {
                    "compact": job.compact,
                    "segment": job.new_segment,
                    "replay": job.replay,
                    "keep": job.back_up,
                }
                actions[step]()
            expected = whole(job)
            assert expected == compactor_of(job).project().in_flight
            if number % 5 == 4:
                assert expected == job.compact().in_flight
        assert whole(job) == job.compact().in_flight
        checkpoint_of(job).unlink()
        assert whole(job) == EventCsv(path).compact().in_flight


# --- others at work ---

SESSION = """
import sys
import eventcsv
job = eventcsv.EventCsv(sys.argv[1], durability="process", settle_s=0)
with job.session(session_id="theirs", refresh_s=0.01) as session:
    print("ready", flush=True)
    for line in sys.stdin:
        job.emit_result("PO1", "PARTIAL", columns={"n": line.strip()})
print("changed" if session.ended.by_status.get("PARTIAL") else "lost", session.ended.edited, len(session.damage))
"""


def test_a_session_elsewhere_shows_and_is_not_disturbed(csv_path: Path) -> None:
    """200 looks see the session of another process, with its name and pid, and cost it nothing."""
    with Talk(SESSION, csv_path) as theirs:
        assert "ready" == theirs.hear()
        job = EventCsv(csv_path)
        seen = set()
        for number in range(200):
            theirs.say(number)
            found = job.progress()
            seen.add((found.session.session, found.session.pid) if found.session else None)
            assert (3, ()) == (found.total, found.damage)
        assert "changed False 0\n" == theirs.end()
    assert {("theirs", theirs.process.pid)} == seen
    assert job.progress().session is None
    assert 200 == len(list(job.history("PO1")))


def test_looks_during_compactions_elsewhere_never_fail_and_never_claim_an_edit(tmp_path: Path) -> None:
    """Whatever moment of another process's compaction is looked at, the answer is right and nothing looks edited."""
    path = tmp_path / "input.csv"
    keys = [f"PO{number:04d}" for number in range(400)]
    path.write_text("PO_NUMBER;STATUS\n" + "".join(f"{key};\n" for key in keys))
    done = looks = 0
    job = EventCsv(path)
    with compacting(path, keys) as theirs:
        while theirs.is_alive() and (looks < 150 or not done) and looks < 20_000:
            found = job.progress()
            assert (400, (), 0) == (found.total, found.damage, found.unknown)
            assert done <= found.done
            done = found.done
            folded = compactor_of(job).project()
            assert (EDITED != folded.start.new_base, None) == (True, folded.start.edit)
            looks += 1
    assert done > 0
