"""The promise at every step: killed there or refused there, the CSV is old or new, and once more sets everything right.

A kill takes back nothing that was written, so nobody waits for the disk here: that is for power cuts.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from itertools import count, product
from typing import TYPE_CHECKING, Any, Final

import pytest
from faults import Dying, Recording, RefusingFrom, RefusingLooks, copying, swallowing
from operations import CHANGES, OPERATIONS, Broken, Operation, Trial, check

from eventcsv import EventCsvError
from eventcsv.storage.files import Storage
from eventcsv.view.backup import BackupStore
from eventcsv.view.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ERRORS: Final = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EINTR)
BY_NAME: Final = {operation.name: operation for operation in OPERATIONS}
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncs and retries take no time; that they happen is what counts here."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda _fd: None)
    monkeypatch.setattr("eventcsv.log.retry.FIRST_RETRY_S", 0.0001)
    monkeypatch.setattr("eventcsv.log.retry.LONGEST_RETRY_S", 0.0002)


# --- killed ---


class Killer:
    """Kills an operation at every step, and every `every`-th of its recoveries at a step of theirs.

    Args:
        trial: The operation.
        every: Of all pairs of a step of the operation and a step of its recovery, how many are one that is tried.

    Attributes:
        met: How often what has happened.
    """

    def __init__(self, trial: Trial, every: int) -> None:
        self.met: Counter[str] = Counter()
        self._trial = trial
        self._every = every
        self._pairs = count()
        self._shares = (0.5,) if every > 1 else (0.0, 0.5)

    def run(self) -> None:
        """Kill it everywhere."""
        for number, (at, step, share) in enumerate(self._deaths(self._trial.steps(Recording()))):
            self._trial.begin()
            place = f"{self._trial.operation.name}, killed at step {at} ({step}, {share:.0%} of it done)"
            self._kill(Dying(at, share), place)
            dead = self._trial.keep()
            recovery = Recording()
            self._trial.act(recovery)
            self._trial.check_done(place)
            if number % 8 == 0 or self._every == 1:
                self._trial.begin(dead)
                self._trial.check_another_comes_first(f"{place}, then a compaction")
            self._recover(dead, recovery.steps, place)

    def _recover(self, dead: Path, steps: list[str], place: str) -> None:
        for at, step, share in self._deaths(steps):
            if next(self._pairs) % self._every:
                continue
            self._trial.begin(dead)
            again = f"{place}, and while recovering at step {at} ({step}, {share:.0%} of it done)"
            self._kill(Dying(at, share), again)
            self._trial.act()
            self._trial.check_done(again)
            self.met["killed while recovering"] += 1

    def _deaths(self, steps: list[str]) -> Iterator[tuple[int, str, float]]:
        for at, step in enumerate(steps):
            if step in CHANGES or at == len(steps) - 1:
                for share in self._shares if step == "write" else (0.0,):
                    yield at, step, share

    def _kill(self, storage: Dying, place: str) -> None:
        check(self._trial.dies(storage), "it ended before", place)
        self._trial.check_whole(place)
        self.met["killed"] += 1
        self.met["the new CSV" if self._trial.is_new() else "the old CSV"] += 1
        self.met["something left lying around"] += bool(self._trial.litter())


@pytest.mark.parametrize("every", [180, pytest.param(1, marks=pytest.mark.long)])
@each_operation
def test_killed_at_any_step(operation: Operation, every: int, tmp_path: Path) -> None:
    """The CSV is old or new, also when the recovery is killed, and one more run ends as a clean one, without litter."""
    killer = Killer(Trial(operation, tmp_path), every)
    killer.run()
    trial, met = killer._trial, killer.met
    steps = trial.steps(Recording())
    assert met["killed"] > len([step for step in steps if step in CHANGES])
    assert met["killed while recovering"]
    assert met["the new CSV"]
    assert bool(met["the old CSV"]) == (len(trial.versions) > 1)
    assert bool(met["something left lying around"]) == ("replace" in steps)


def forgetting(save: Any) -> Callable[..., None]:
    """Make a checkpoint that names the coming CSV only, and not the one that is there until then."""
    return lambda self, views, start: save(self, views[-1:], start)


def clear_in_the_wrong_order(store: Any) -> None:
    """Remove an unfinished backup, but first what marks it as one."""
    for name in store._storage.names(store.directory):
        base = name.removesuffix(store._unfinished)
        if base != name:
            store._storage.remove_ours(os.path.join(store.directory, name))
            store._storage.remove_ours(os.path.join(store.directory, f"{base}{store._suffix}"))


@pytest.mark.parametrize(
    ("operation", "part", "toy", "complaint"),
    [
        ("compact: incremental", (Storage, "replace"), copying, "neither old nor new"),
        ("compact: incremental", (Publisher, "_save"), forgetting(Publisher._save), "no edit was taken for one"),
        ("backup: first", (BackupStore, "_clear_unfinished"), lambda _self: None, "left lying around"),
        ("backup: first", (BackupStore, "_clear_unfinished"), clear_in_the_wrong_order, "while recovering"),
    ],
)
def test_a_toy_does_not_survive_being_killed(
    operation: str, part: tuple[type, str], toy: object, complaint: str, tmp_path: Path
) -> None:
    """Control: with one precaution taken out, killing at every step shows what it was for."""
    killer = Killer(Trial(BY_NAME[operation], tmp_path), 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*part, toy)
        with pytest.raises(Broken, match=complaint):
            killer.run()


# --- refused ---


class Refuser:
    """Refuses steps of an operation, one or all from one on, and steps of the recovery of one that was killed.

    Args:
        trial: The operation.
        told: Returns what was logged since it was asked the last time.
        every: Of all combinations of step, error and duration, how many are one that is tried.

    Attributes:
        met: How often what has happened.
    """

    def __init__(self, trial: Trial, told: Callable[[], list[str]], every: int) -> None:
        self.met: Counter[str] = Counter()
        self._trial = trial
        self._told = told
        self._every = every
        self._name = trial.operation.name

    def run(self) -> None:
        """Refuse steps of a clean run."""
        for at, error, lasting in self._choose(len(self._trial.steps(Recording()))):
            self._trial.begin()
            self._refuse(RefusingFrom(error, at, lasting=lasting), self._name, is_clean=True)

    def run_with_looks(self) -> None:
        """Refuse steps of a clean run, those that only look too."""
        for at, error, lasting in self._choose(len(self._trial.steps(RefusingLooks(0, 1 << 30)))):
            self._trial.begin()
            self._refuse(RefusingLooks(error, at, lasting=lasting), self._name, is_clean=True)

    def run_while_recovering(self) -> None:
        """Kill it, and refuse steps of the next run."""
        for at, (again, error, lasting) in self._choose_pairs(self._trial.steps(Recording())):
            self._trial.begin()
            self._trial.dies(Dying(at))
            place = f"{self._name}, killed at step {at}, and while recovering"
            self._refuse(RefusingFrom(error, again, lasting=lasting), place, is_clean=False)

    def _choose(self, steps: int) -> Iterator[tuple[int, int, bool]]:
        choices = list(product(ERRORS, (False, True)))
        if self._every == 1:
            yield from ((at, *choice) for at in range(steps) for choice in choices)
        else:
            yield from ((at, *choices[at // self._every % len(choices)]) for at in range(0, steps, self._every))

    def _choose_pairs(self, steps: list[str]) -> Iterator[tuple[int, tuple[int, int, bool]]]:
        # A recovery has about as many steps as a clean run; what is beyond its end is a clean run, which does no harm.
        pairs = ((at, again) for at, step in enumerate(steps) if step in CHANGES for again in range(len(steps)))
        choices = list(product(ERRORS, (False, True)))
        for number, (at, again) in enumerate(pairs):
            if number % self._every == 0:
                yield at, (again, *choices[number // self._every % len(choices)])

    def _refuse(self, storage: RefusingFrom, place: str, *, is_clean: bool) -> None:
        self._told()
        try:
            self._trial.act(storage)
        except (OSError, EventCsvError):
            failed = True
        else:
            failed = False
        refused = storage.refused
        place = f"{place}, {refused[:1]} at step {storage.at} refused with {storage.error}, {storage.lasting=}"
        told = self._told()
        self._trial.check_whole(place)
        if not failed and refused:
            check(self._trial.is_new(), "was said to be done, and is not", place)
            check(told, f"{refused} passed over in silence", place)
        if failed and is_clean and not storage.lasting:
            check(not (left := self._trial.litter()), f"left lying around after a failure: {left}", place)
        self._trial.act()
        self._trial.check_done(place)
        self.met["refused"] += bool(refused)
        self.met["failed" if failed else "done all the same"] += 1
        self.met["refused for good"] += storage.lasting and failed


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return what was logged since the last time."""

    def drain() -> list[str]:
        names = [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]
        caplog.clear()
        return names

    return drain


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.long)])
@each_operation
def test_refused_at_any_step(operation: Operation, every: int, tmp_path: Path, told: Callable[[], list[str]]) -> None:
    """A typed error or a result that holds, once or for good: an old or new CSV, no litter, and then a clean run."""
    refuser = Refuser(Trial(operation, tmp_path), told, every)
    refuser.run()
    assert refuser.met["refused"] >= len(refuser._trial.steps(Recording())) // every
    assert refuser.met["failed"]
    assert refuser.met["refused for good"]


@pytest.mark.parametrize("every", [131, pytest.param(1, marks=pytest.mark.long)])
@each_operation
def test_refused_a_look(operation: Operation, every: int, tmp_path: Path, told: Callable[[], list[str]]) -> None:
    """The same when a step is refused that only reads, or looks what is there."""
    refuser = Refuser(Trial(operation, tmp_path), told, every)
    refuser.run_with_looks()
    assert refuser.met["refused"]


@pytest.mark.parametrize("every", [301, pytest.param(1, marks=pytest.mark.long)])
@each_operation
def test_refused_while_recovering(
    operation: Operation, every: int, tmp_path: Path, told: Callable[[], list[str]]
) -> None:
    """The same for the run that follows a kill."""
    refuser = Refuser(Trial(operation, tmp_path), told, every)
    refuser.run_while_recovering()
    assert refuser.met["refused"]


@pytest.mark.parametrize(
    ("part", "toy", "complaint"),
    [
        ((Publisher, "_replace"), swallowing(Publisher._replace), "was said to be done, and is not"),
        ((Storage, "sync_directory"), swallowing(Storage.sync_directory), "passed over in silence"),
        ((Publisher, "clear_interrupted"), lambda _self: None, "left lying around after a failure"),
        ((Storage, "replace"), copying, "neither old nor new"),
    ],
)
def test_a_toy_does_not_survive_a_refusal(
    part: tuple[type, str], toy: object, complaint: str, tmp_path: Path, told: Callable[[], list[str]]
) -> None:
    """Control: a product that swallows errors, does not clear up or writes in place is found out."""
    refuser = Refuser(Trial(BY_NAME["compact: incremental"], tmp_path), told, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*part, toy)
        patch.setitem(globals(), "ERRORS", (errno.EIO,))
        with pytest.raises(Broken, match=complaint):
            refuser.run()
