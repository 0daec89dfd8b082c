"""The promise with real processes: kill -9, or an error, at any system call of a command that changes something.

strace does both to the command line as it is. What the steps inside a process leave out is covered here.
"""

from __future__ import annotations

import signal
from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Final

import pytest
from operations import OPERATIONS, Broken, Operation, Trial, check
from traced import Commands

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from traced import Call, Ended

COMMANDS: Final = [operation for operation in OPERATIONS if operation.command]
ERRORS: Final = ("EIO", "ENOSPC", "EACCES", "EINTR")
EVER_AGAIN: Final = {"flock", "openat", "write"}
"""To refuse these for good would also keep Python from loading its modules, and the command from saying what failed."""

SOME: Final = {"compact: edited", "replay", "backup", "restore", "restore: no replay", "prune"}

each_command = pytest.mark.parametrize(
    ("operation", "most"),
    [
        *(pytest.param(operation, 1, id=operation.name) for operation in COMMANDS if operation.name in SOME),
        *(pytest.param(operation, 1000, id=f"{operation.name}-all", marks=pytest.mark.long) for operation in COMMANDS),
    ],
)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Run commands under strace."""
    made = Commands(tmp_path_factory.mktemp("commands"))
    yield made
    made.close()


class Attack:
    """A command that is run again and again, each time from the same state.

    Args:
        trial: What it does.
        commands: Runs it.
        toy: What is broken in it.

    Attributes:
        met: How often what has happened.
    """

    def __init__(self, trial: Trial, commands: Commands, toy: str = "") -> None:
        self.met: Counter[str] = Counter()
        self._trial = trial
        self._commands = commands
        self._toy = toy

    def calls(self) -> list[Call]:
        """Return the calls of a clean run that change something of the job."""
        ended = self._run()
        check(ended.code == 0, f"a clean run ended with {ended}", self._trial.operation.name)
        folder = str(self._trial.path.parent)
        return [call for call in ended.calls if call.changes and folder in call.arguments]

    def kill(self, call: Call, *, after: bool) -> None:
        """Kill it when it makes a call: before the call is done, or right after."""
        fault = "delay_exit=600s" if after else "signal=KILL"
        place = f"{self._trial.operation.name}, {'after' if after else 'before'} {call}"
        ended = self._run(f"{call.name}:{fault}:when={call.number}", kill_after=after)
        check(ended.code == -signal.SIGKILL, f"was not killed but ended with {ended}", place)
        self.met[f"killed {'after' if after else 'before'}"] += 1
        self._check(place)

    def refuse(self, call: Call, error: str, *, lasting: bool) -> None:
        """Let a call fail, once or for good."""
        place = f"{self._trial.operation.name}, {error} {'for good ' if lasting else ''}at {call}"
        ended = self._run(f"{call.name}:error={error}:when={call.number}{'+' if lasting else ''}")
        if ended.code:
            check(ended.code > 0, f"ended with {ended.code}", place)
            check(is_one_line(ended.output), f"said {ended.output!r}", place)
            check(str(self._trial.path.parent) in ended.output, f"named no place, but said {ended.output!r}", place)
        else:
            check(self._trial.is_new(), "was said to be done, and is not", place)
        self.met["failed" if ended.code else "done all the same"] += 1
        self._check(place)

    def _run(self, *inject: str, kill_after: bool = False) -> Ended:
        self._trial.begin()
        return self._commands.run(self._trial.command(), *inject, kill_after=kill_after, toy=self._toy)

    def _check(self, place: str) -> None:
        self._trial.check_whole(place)
        self.met["the new CSV" if self._trial.is_new() else "the old CSV"] += 1
        self.met["something left lying around"] += bool(self._trial.litter())
        self._trial.act()
        self._trial.check_done(place)


def is_one_line(output: str) -> bool:
    """Tell whether that is one line that says what failed."""
    return output.startswith("eventcsv: ") and output.endswith("\n") and output.count("\n") == 1


def spread(calls: list[Call], most: int, *, first: int) -> list[Call]:
    """Return at most so many of the calls, evenly spread."""
    every = max(1, len(calls) // most)
    return calls[first % every :: every][:most]


@each_command
def test_killed_at_a_system_call(operation: Operation, most: int, tmp_path: Path, commands: Commands) -> None:
    """Killed when it enters the call and when it returns from it: old or new, and one more run ends as a clean one."""
    attack = Attack(Trial(operation, tmp_path), commands)
    for call in spread(attack.calls(), most, first=5 * COMMANDS.index(operation)):
        for after in (False, True):
            attack.kill(call, after=after)
    assert 0 < attack.met["killed before"] == attack.met["killed after"]
    if most > 1:
        assert attack.met["the new CSV"]
        assert attack.met["something left lying around"]


@each_command
def test_a_system_call_that_fails(operation: Operation, most: int, tmp_path: Path, commands: Commands) -> None:
    """One clear line and an exit code, or a result that holds; the CSV is old or new, and the next run is as ever."""
    attack = Attack(Trial(operation, tmp_path), commands)
    for number, call in enumerate(spread(attack.calls(), most, first=3 * COMMANDS.index(operation))):
        choices = list(product(ERRORS, (False, True)))
        turn = (number + COMMANDS.index(operation)) % len(ERRORS)
        for error, lasting in choices if most > 1 else choices[2 * turn : 2 * turn + 2]:
            if not lasting or (call.name not in EVER_AGAIN and error != "EINTR"):  # which Python would try for ever
                attack.refuse(call, error, lasting=lasting)
    assert attack.met.total()
    if most > 1:
        assert attack.met["failed"]


def test_a_toy_does_not_survive_a_kill(tmp_path: Path, commands: Commands) -> None:
    """Control: a command that writes over the CSV in place is caught with half a CSV, or none."""
    attack = Attack(Trial(COMMANDS[1], tmp_path), commands, "copying")
    calls = attack.calls()
    writes = [call for call in calls if call.name == "write" and "input.csv>" in call.arguments]
    assert 1 == len(writes)
    with pytest.raises(Broken, match="neither old nor new"):
        attack.kill(writes[0], after=False)


def test_a_toy_does_not_survive_an_error(tmp_path: Path, commands: Commands) -> None:
    """Control: a command that swallows an error is caught with an exit code of 0 and the old CSV."""
    attack = Attack(Trial(COMMANDS[1], tmp_path), commands, "swallowing")
    renames = [call for call in attack.calls() if call.name.startswith("rename")]
    with pytest.raises(Broken, match="was said to be done, and is not"):
        attack.refuse(renames[-1], "EIO", lasting=False)
