"""The promise under any sequence of what really happens: results, compactions, kills, edits, restores, lost files."""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from conftest import checkpoint_of, read_csv, tree
from faults import Dying, Killed, with_storage
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from inside import compactor_of
from servers import unused_name

from eventcsv import EventCsv
from eventcsv.log.types import Position
from eventcsv.view.retention import ASKED, EDITED, SESSION

if TYPE_CHECKING:
    import pytest
    from servers import PgServer

    from eventcsv.event import Event
    from eventcsv.view.backup import Backup

KEYS = [f"PO{number}" for number in range(5)]
Rows = list[dict[str, str]]


def applied(rows: Rows, events: list[Event]) -> Rows:
    """Fold events onto rows the slow way; columns come as they are set."""
    rows = [dict(row) for row in rows]
    for event in events:
        matching = [row for row in rows if row["PO_NUMBER"] == event.key]
        for column, cell in event.cells.items():
            if matching:
                for row in rows:
                    row.setdefault(column, "")
            for row in matching:
                row[column] = cell
    return rows


def occurrences(rows: Rows) -> dict[tuple[str, int], dict[str, str]]:
    """Return rows by their key and their place among the rows of that key."""
    times: Counter[str] = Counter()
    found = {}
    for row in rows:
        found[row["PO_NUMBER"], times[row["PO_NUMBER"]]] = row
        times[row["PO_NUMBER"]] += 1
    return found


class Save(NamedTuple):
    """What somebody saved: how many events were in what they had loaded, its rows, and which cells they typed."""

    folded: int
    rows: Rows
    typed: set[tuple[str, str]]


class State(NamedTuple):
    """What a CSV shows, how many results are in it, the keys of those without a row, how many do not count any more."""

    rows: Rows
    folded: int
    unknown: frozenset[str]
    beginning: int


class OneJob(RuleBasedStateMachine):
    """A job on a real disk beside a model: the rows as they have to be, and the log as it has to be.

    `rows` is what the CSV shows, `folded` how many of `events` are in it, `unknown` the keys of those without a row;
    `bases` is the same for each backup that is a base, `base` for the newest, `listed` those that are there, and
    `position` the place of the CSV in the log; `flying` are the events of POs that were taken up, `waiting` of those
    that wait for another attempt, and `gone` is how many results were pruned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="eventcsv-"))
        self.path = self.folder / "input.csv"
        self.events: list[Event] = []
        self.rows: Rows = []
        self.folded = 0
        self.unknown: frozenset[str] = frozenset()
        self.base: State | None = None
        self.bases: dict[str, State] = {}
        self.listed: list[Backup] = []
        self.position = Position(1, 0)
        self.flying: dict[str, Event] = {}
        self.waiting: dict[str, Event] = {}
        self.gone = 0
        self.beginning = 0
        self.published: list[tuple[int, Rows]] = []
        self.unadopted: Save | None = None
        self.is_whole = True
        self.lost = False
        self.view = b""
        self.numbers = count(1)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(rows=st.integers(1, 5))
    def start(self, rows: int) -> None:
        """Begin with a CSV of some POs, one of them twice."""
        self.rows = [{"PO_NUMBER": key, "STATUS": "", "note": ""} for key in [*KEYS[:rows], KEYS[0]]]
        self.write(self.rows)
        self.job = EventCsv(self.path, durability="process", lock_timeout_s=1)

    def write(self, rows: Rows) -> None:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), delimiter=";", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.path.write_bytes(out.getvalue().encode())

    @rule(
        key=st.sampled_from(KEYS),
        text=st.sampled_from(["", "a", 'b"', "c;", "d\ne"]),
        column=st.sampled_from("xyz"),
        status=st.sampled_from(["PARTIAL", "COMPLETED"]),
    )
    def emit(self, key: str, text: str, column: str, status: str) -> None:
        """Record a result."""
        self.recorded(
            self.job.emit_result(key, status, last_processed=f"t{next(self.numbers)}", columns={column: text})
        )

    def recorded(self, *events: Event) -> None:
        for event in events:
            self.events.append(event)
            self.flying.pop(event.key, None)
            self.waiting.pop(event.key, None)

    @rule(key=st.sampled_from(KEYS), attempt=st.integers(1, 3))
    def take_up(self, key: str, attempt: int) -> None:
        """Record that a PO is taken up."""
        self.flying.pop(key, None)
        self.waiting.pop(key, None)
        self.flying[key] = self.job.emit_started(key, attempt=attempt)

    @rule(key=st.sampled_from(KEYS), attempt=st.integers(1, 3), waits=st.booleans())
    def put_back(self, key: str, attempt: int, waits: bool) -> None:  # noqa: FBT001  # drawn
        """Record that a PO was put back, to be tried again or not."""
        self.flying.pop(key, None)
        self.waiting.pop(key, None)
        wait_s = 60.0 * attempt if waits else None
        event = self.job.record_deferred(key, attempt=attempt, reason="busy", wait_s=wait_s)
        if waits:
            self.waiting[key] = event

    @rule()
    def compact(self) -> None:
        """Fold what is new; nothing is damaged, since of what kills left half the next one says so."""
        before = tree(self.folder)
        looked, progress = self.job.pending(), EventCsv(self.path).progress()
        assert before == tree(self.folder)
        result = self.job.compact()
        assert self.unadopted or not result.edited
        self.compacted()
        assert () == result.damage
        assert self.pending() == looked == self.job.pending()
        assert progress.by_status == self.job.progress().by_status
        assert (progress.total, progress.unknown) == (len({row["PO_NUMBER"] for row in self.rows}), len(self.unknown))
        assert [event.id for event in self.flying.values()] == [item.id for item in result.in_flight]
        for found, expected in ((progress.in_flight, self.flying), (progress.waiting, self.waiting)):
            assert sorted((item.id, item.attempt) for item in found) == sorted(
                (event.id, int(event.cells.get("attempt", "1"))) for event in expected.values() if event.key in looked
            )

    def pending(self) -> list[str]:
        return list(dict.fromkeys(row["PO_NUMBER"] for row in self.rows if row.get("STATUS") != "COMPLETED"))

    @precondition(lambda self: self.published and not self.lost and not self.unadopted)
    @rule(
        at=st.integers(0, 60),
        typed=st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(["STATUS", "note", "x", "y"])), max_size=3),
        added=st.sampled_from([None, *KEYS]),
        removed=st.sampled_from([None, None, *KEYS]),
        is_turned=st.booleans(),
    )
    def save(
        self, at: int, typed: list[tuple[str, str]], added: str | None, removed: str | None, *, is_turned: bool
    ) -> None:
        """Save a copy of any CSV that there ever was, with cells typed, and a row added, removed or moved."""
        folded, loaded = self.published[at % len(self.published)]
        texts = {place: f"TYPED {next(self.numbers)}" for place in typed}
        rows = [{column: texts.get((row["PO_NUMBER"], column), cell) for column, cell in row.items()} for row in loaded]
        if added and all(row["PO_NUMBER"] != added for row in rows):
            rows.append(dict.fromkeys(rows[0], "") | {"PO_NUMBER": added})
        if removed and sum(row["PO_NUMBER"] == removed for row in rows) == 1 < len(rows):
            rows = [row for row in rows if row["PO_NUMBER"] != removed]
        if is_turned:
            rows.reverse()
        self.write(rows)
        os.utime(self.path, (settled := time.time() - 60, settled))
        self.unadopted = Save(folded, rows, set(texts))

    @precondition(lambda self: self.published and not self.lost and not self.unadopted)
    @rule(at=st.integers(0, 60), keys=st.lists(st.sampled_from(KEYS), max_size=4), number=st.integers(0, 9))
    def save_what_was_open_for_long(self, at: int, keys: list[str], number: int) -> None:
        """Save a copy of before some results, with at most one cell typed."""
        for key in keys:
            self.emit(key, f"a {number}", "xyz"[number % 3], "COMPLETED")
        self.compact()
        typed = [(KEYS[number], "note")] if number < len(KEYS) else []
        self.save(at, typed, added=None, removed=None, is_turned=False)

    def adopt(self, save: Save) -> None:
        """Check what has become of a save, and go on with that: an oracle that knows what was loaded."""
        before = occurrences(applied(self.rows, self.events[self.folded :]))
        self.rows = read_csv(self.path)
        after, saved = occurrences(self.rows), occurrences(save.rows)
        assert saved.keys() <= after.keys() <= saved.keys() | before.keys()
        late = [event for event in self.events[save.folded :] if event.kind == "result"]
        for place, row in saved.items():
            for column, cell in row.items():
                is_typed = (place[0], column) in save.typed
                is_set = any(event.key == place[0] and column in event.cells for event in late)
                allowed = {cell} if is_typed and self.is_whole else {cell, before.get(place, {}).get(column, "")}
                if place not in before:  # a row that is new gets what results of its key have set
                    allowed |= {event.cells.get(column, "") for event in self.events if event.key == place[0]}
                elif is_set and not is_typed:
                    allowed = {before[place][column]}
                assert after[place].get(column, "") in allowed, (place, column, allowed)
        known = {event.id for event in self.events}
        results = {event.key for event in self.events[self.folded :] if event.kind == "result"}
        self.unknown = (self.unknown | results) - {key for key, _ in before.keys() | after.keys()}
        self.events += [
            event for key in KEYS for event in self.job.history(key) if event.kind == "edit" and event.id not in known
        ]
        self.folded = len(self.events)

    def fold(self) -> None:
        """Fold what is new into the model, and first what was recorded before its row was there."""
        keys = {row["PO_NUMBER"] for row in self.rows}
        late = [
            event
            for event in self.events[max(self.gone, self.beginning) : self.folded]
            if event.key in self.unknown & keys
        ]
        new = self.events[self.folded :]
        self.rows = applied(self.rows, late + new)
        # What people changed in rows that an older base lacks again is told nowhere.
        self.unknown = (self.unknown | {event.key for event in new if event.kind == "result"}) - keys
        self.folded = len(self.events)
        self.unadopted, self.lost = None, False
        self.published.append((self.folded, read_csv(self.path)))
        self.view = self.path.read_bytes()

    @property
    def state(self) -> State:
        return State(self.rows, self.folded, self.unknown, self.beginning)

    def compacted(self, restored: State | None = None, *, replay: bool = True) -> None:
        """Bring the model to where a compaction brings the job, and a restore after it."""
        if self.unadopted:
            self.adopt(self.unadopted)
        before = self.state
        self.fold()
        after = self.state
        if restored:
            self.rows, self.folded, self.unknown, self.beginning = restored
            if not replay:
                restored = State(self.rows, len(self.events), frozenset(), beginning=len(self.events))
                self.rows, self.folded, self.unknown, self.beginning = restored
            self.fold()
        self.note(before, after, restored)

    def note(self, before: State, after: State, restored: State | None = None) -> None:
        """Take note of the bases that are there now, and of what each one that is new holds."""
        self.listed = [backup for backup in self.job.backups() if backup.position]
        for backup in self.listed:
            if backup.reason.startswith(("replayed from", "restored from")):
                assert restored or backup.name in self.bases
                self.bases.setdefault(backup.name, restored or after)
            elif backup.reason in {ASKED, EDITED, SESSION} or backup.reason.startswith("before a restore"):
                self.bases.setdefault(backup.name, after)
            else:
                self.bases.setdefault(backup.name, before)
        self.base = self.bases[self.listed[0].name]
        saved = compactor_of(self.job).files.checkpoint.read()
        assert saved is not None
        self.position = saved.latest.position

    @rule(at=st.integers(0, 60))
    def killed_in_compact(self, at: int) -> None:
        """Die at a step of a compaction, then start again."""
        job = with_storage(EventCsv(self.path), Dying(at))
        try:
            job.compact()
        except Killed:
            job.close()  # as the system does for who is dead: it may have been appending what a person changed
            self.job = EventCsv(self.path, durability="process")
            self.job.compact()
        self.compacted()

    @rule(at=st.integers(0, 12), key=st.sampled_from(KEYS))
    def killed_in_emit(self, at: int, key: str) -> None:
        """Die at a step of an append: the event is there or not, and its half is healed by the next one."""
        job = with_storage(EventCsv(self.path), Dying(at))
        try:
            self.recorded(job.emit_result(key, "FAILED", error_message="?", last_processed=f"t{next(self.numbers)}"))
        except Killed:
            job.close()  # as the system does for who is dead
            known = {event.id for event in self.events}
            self.recorded(
                *(event for event in self.job.history(key) if event.kind == "result" and event.id not in known)
            )

    @rule()
    def reopen(self) -> None:
        """Go on in a new process, as far as memory is concerned."""
        self.job = EventCsv(self.path, durability="process")

    @precondition(lambda self: self.base is not None and not self.unadopted)
    @rule()
    def lose_the_checkpoint(self) -> None:
        """Remove the checkpoint; the next compaction replays from the newest base."""
        checkpoint_of(self.job).unlink(missing_ok=True)
        self.lost = True

    @precondition(lambda self: self.base is not None)
    @rule()
    def replay(self) -> None:
        """Rebuild from the newest base; an edit that nobody had adopted yet is kept aside."""
        edited = self.path.read_bytes()
        assert self.base is not None
        result = self.job.replay()
        was_unadopted = self.unadopted is not None
        self.rows, self.folded, self.unknown, self.beginning = self.base
        self.fold()
        self.note(self.base, self.state)
        if was_unadopted and result.changed:
            assert result.kept is not None
            assert edited == Path(result.kept.path).read_bytes()

    @rule()
    def replay_gives_the_same_bytes(self) -> None:
        """Bring the CSV up to date, and then rebuild it from the newest base."""
        self.compact()
        before = self.path.read_bytes()
        result = EventCsv(self.path).replay()
        assert (False, before) == (result.changed, self.path.read_bytes())
        self.note(self.state, self.state)

    @rule()
    def back_up(self) -> None:
        """Keep a copy because somebody asked for it."""
        backup = self.job.back_up()
        self.compacted()
        assert self.view == Path(backup.path).read_bytes()

    @rule()
    def session(self) -> None:
        """Begin a session and end it."""
        with self.job.session(refresh_s=1000) as session:
            pass
        self.compacted()
        assert self.view == Path(session.backup.path).read_bytes()
        assert [event.id for event in self.flying.values()] == [item.id for item in session.interrupted]

    @precondition(lambda self: self.base is not None)
    @rule(at=st.integers(0, 20), replay=st.booleans())
    def restore(self, at: int, replay: bool) -> None:  # noqa: FBT001  # drawn
        """Put a backup in the CSV's place, with the log after it or without."""
        if self.unadopted:
            self.compact()
        backup = self.listed[at % len(self.listed)]
        self.job.restore(backup.name, replay=replay)
        self.published.clear()  # what was dismissed is nothing that a copy could be measured against
        self.compacted(self.bases[backup.name], replay=replay)
        assert replay or Path(backup.path).read_bytes() == self.path.read_bytes()

    @precondition(lambda self: len(self.listed) > 2)
    @rule()
    def lose_old_backups(self) -> None:
        """Remove all backups but the newest two, as an operator does who needs the space."""
        for backup in self.listed[2:]:
            Path(backup.path).with_suffix(".json").unlink()
            Path(backup.path).unlink()
        del self.listed[2:]
        self.is_whole = False

    @precondition(lambda self: self.base is not None)
    @rule()
    def prune(self) -> None:
        """Remove the segments that nothing needs."""
        told = self.job.prune(dry_run=True)
        assert told.removed == self.job.prune().removed
        there = {backup.name for backup in self.job.backups()}
        self.is_whole = self.is_whole and there >= {backup.name for backup in self.listed}
        self.listed = [backup for backup in self.listed if backup.name in there]
        left = {event.id for key in KEYS for event in self.job.history(key)}
        self.gone = sum(event.id not in left for event in self.events)
        assert all(event.id in left for event in self.events[self.gone :])
        assert self.gone <= min(self.bases[backup.name].folded for backup in self.listed)

    @rule()
    def new_segment(self) -> None:
        """Begin a new segment, as a session does."""
        self.job.log.new_segment()

    @invariant()
    def the_csv_is_what_it_has_to_be(self) -> None:
        """At every moment the CSV is whole and shows what the model shows."""
        if self.rows and not self.unadopted:
            shown = read_csv(self.path)
            assert [{name: cell for name, cell in row.items() if cell} for row in self.rows] == [
                {name: cell for name, cell in row.items() if cell} for row in shown
            ]


OneJob.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestOneJob = OneJob.TestCase


def test_a_job_on_a_server(pg_server: PgServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with the log on a PostgreSQL server: whatever happens to this machine, the model holds."""
    monkeypatch.setenv("EVENTCSV_LOG", pg_server.url)

    class OnServer(OneJob):
        def __init__(self) -> None:
            super().__init__()
            monkeypatch.setenv("EVENTCSV_JOB", unused_name("machine"))

    run_state_machine_as_test(
        OnServer, settings=settings(OneJob.TestCase.settings, max_examples=12, stateful_step_count=20)
    )
