"""Rounds, turns, figures: what every measurement here is made with.

The contestants take turns within a round and another one begins each round, so that a machine whose speed drifts drifts
for all of them. A ratio is taken within each round; the median of those is what holds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from scales import Scale

T = TypeVar("T")

HERE: Final = Path(__file__).parent
STDERR: Final = Console(stderr=True, highlight=False)


class Name(NamedTuple):
    """What a series of figures is called.

    Attributes:
        what: What was measured.
        who: The contestant.
        metric: What of it.
    """

    what: str
    who: str
    metric: str = "time"


class Spread(NamedTuple):
    """The middle and the ends of some figures."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Return the middle and the ends of some figures."""
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(slots=True)
class Figures:
    """The figures of a run, one for each round: seconds unless the unit says otherwise.

    Attributes:
        rounds: The figures of each series, round by round.
        units: Their units.
    """

    rounds: dict[Name, list[float]] = field(default_factory=dict)
    units: dict[Name, str] = field(default_factory=dict)

    def add(self, name: Name, value: float, unit: str = "s") -> None:
        self.rounds.setdefault(name, []).append(value)
        self.units[name] = unit

    def spread(self, name: Name) -> Spread:
        return spread(self.rounds[name])

    def ratio(self, over: Name, under: Name) -> Spread:
        """Return the ratio of two series, taken round by round."""
        return spread([a / b for a, b in zip(self.rounds[over], self.rounds[under], strict=True) if b])

    def as_json(self) -> list[dict[str, object]]:
        return [{**name._asdict(), "unit": self.units[name], "rounds": rounds} for name, rounds in self.rounds.items()]

    @classmethod
    def from_json(cls, records: Sequence[Mapping[str, object]]) -> Figures:
        figures = cls()
        for record in records:
            name = Name(str(record["what"]), str(record["who"]), str(record["metric"]))
            figures.rounds[name] = list(record["rounds"])  # type: ignore[call-overload]  # it was written above
            figures.units[name] = str(record["unit"])
        return figures


@dataclass(slots=True)
class Bench:
    """One run of the suite.

    Attributes:
        scale: How much to measure.
        directory: Where to work; it is removed at the end.
        figures: What was measured.
        started_s: When the run began, by the monotonic clock.
    """

    scale: Scale
    directory: Path
    figures: Figures = field(default_factory=Figures)
    started_s: float = field(default_factory=time.monotonic)

    def rounds(self, count: int, what: str) -> Iterator[int]:
        """Yield the numbers of the rounds and tell on standard error how far it is."""
        for number in range(count):
            self.tell(f"{what}: round {number + 1} of {count}")
            yield number

    def tell(self, what: str) -> None:
        """Show what is being done: one line that changes on a terminal, a line each elsewhere."""
        line = f"{time.monotonic() - self.started_s:6.0f} s  {what}"
        STDERR.print(f"{line:<100}"[:100], end="\r" if STDERR.is_terminal else "\n", soft_wrap=True)

    def folder(self, name: str) -> Path:
        """Return a new empty folder."""
        path = self.directory / name
        path.mkdir()
        return path


def in_turn(contestants: Sequence[T], round_number: int) -> list[T]:
    """Return the contestants in the order of this round: whoever was first is last in the next one."""
    first = round_number % len(contestants)
    return [*contestants[first:], *contestants[:first]]


def timed_s(action: Callable[[], object]) -> float:
    """Return how long `action` takes, in seconds."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def settle(directory: Path) -> None:
    """Flush what the preparation wrote, so that nobody is charged for it."""
    for path in (path for path in directory.rglob("*") if path.is_file()):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


# --- fresh processes ---------------------------------------------------------------------------------------------


def run_process(*arguments: str | Path) -> str:
    """Run a command to its end and return what it printed; the modules of this suite can be imported there."""
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [str(part) for part in arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{arguments} ended in {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def run_code(code: str, *arguments: str | Path) -> str:
    """Run `code` in a fresh interpreter to its end and return what it printed."""
    return run_process(sys.executable, "-c", code, *arguments)


def command(*arguments: str | Path) -> list[str | Path]:
    """Return a command line of eventcsv as it is installed next to this interpreter."""
    script = Path(sys.executable).with_name("eventcsv")
    return [script, *arguments] if script.exists() else [sys.executable, "-m", "eventcsv", *arguments]


def print_json(value: object) -> None:
    """Hand a result to the process that started this one."""
    print(json.dumps(value))
