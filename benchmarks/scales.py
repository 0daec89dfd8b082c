"""How much a run of the suite measures, from a smoke test of some seconds to everything there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Size:
    """A log and its CSV.

    Attributes:
        events: How many results the log holds.
        rows: How many POs the CSV has.
        rounds: How often it is measured.
    """

    events: int
    rows: int
    rounds: int

    def __str__(self) -> str:
        return f"{self.events:,} events, {self.rows:,} POs"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much to measure.

    Attributes:
        name: Its name on the command line.
        rows: The POs of the CSV wherever nothing else is said.
        workers: The processes that append at once, next to one alone.
        new_events: How many new results a compaction folds.
        emit_rounds: Rounds of emit_result().
        emit_s: How long each contestant appends in one round, in seconds.
        rounds: Rounds of whole processes.
        live: Live compactions: new events, the rows of the CSV.
        emits: How many results are recorded at once where the size of the log is what matters.
        long_log: The log that is compared with an empty one, and resumed from.
        visible_rounds: Runs whose results are watched until they show in the CSV.
        visible_s: How long such a run takes, in seconds.
        run_rounds: Whole runs.
        replays: The logs that are replayed.
        growth_rounds: Rounds at each size of the plots.
        growth_events: The sizes of the log in the plots, for a CSV of `rows`.
        growth_rows: The sizes of the CSV in the plots, for a log of `rows` results.
    """

    name: str
    rows: int
    workers: int
    new_events: int
    emit_rounds: int
    emit_s: float
    rounds: int
    live: tuple[Size, ...]
    emits: int
    long_log: Size
    visible_rounds: int
    visible_s: float
    run_rounds: int
    replays: tuple[Size, ...]
    growth_rounds: int
    growth_events: tuple[int, ...]
    growth_rows: tuple[int, ...]


SMOKE: Final = Scale(
    name="smoke",
    rows=100,
    workers=2,
    new_events=20,
    emit_rounds=2,
    emit_s=0.02,
    rounds=1,
    live=(Size(20, 100, 3),),
    emits=20,
    long_log=Size(500, 100, 1),
    visible_rounds=1,
    visible_s=0.5,
    run_rounds=1,
    replays=(Size(200, 100, 1), Size(500, 100, 1)),
    growth_rounds=1,
    growth_events=(100, 500),
    growth_rows=(50, 100),
)
QUICK: Final = Scale(
    name="quick",
    rows=10_000,
    workers=8,
    new_events=100,
    emit_rounds=3,
    emit_s=0.15,
    rounds=3,
    live=(Size(100, 10_000, 9),),
    emits=300,
    long_log=Size(100_000, 10_000, 3),
    visible_rounds=1,
    visible_s=4,
    run_rounds=1,
    replays=(Size(10_000, 10_000, 3), Size(100_000, 10_000, 2)),
    growth_rounds=2,
    growth_events=(1_000, 10_000, 100_000),
    growth_rows=(1_000, 10_000, 100_000),
)
NORMAL: Final = Scale(
    name="normal",
    rows=10_000,
    workers=8,
    new_events=100,
    emit_rounds=7,
    emit_s=0.4,
    rounds=9,
    live=(Size(100, 10_000, 27), Size(100, 1_000_000, 7)),
    emits=2_000,
    long_log=Size(1_000_000, 100_000, 7),
    visible_rounds=3,
    visible_s=8,
    run_rounds=3,
    replays=(Size(10_000, 10_000, 7), Size(100_000, 10_000, 5), Size(1_000_000, 100_000, 3)),
    growth_rounds=3,
    growth_events=(1_000, 10_000, 100_000, 1_000_000),
    growth_rows=(1_000, 10_000, 100_000, 1_000_000),
)
FULL: Final = Scale(
    name="full",
    rows=10_000,
    workers=8,
    new_events=100,
    emit_rounds=15,
    emit_s=0.5,
    rounds=21,
    live=(Size(100, 10_000, 63), Size(100, 1_000_000, 15)),
    emits=5_000,
    long_log=Size(1_000_000, 100_000, 11),
    visible_rounds=5,
    visible_s=20,
    run_rounds=5,
    replays=(
        Size(10_000, 10_000, 11),
        Size(100_000, 10_000, 9),
        Size(1_000_000, 100_000, 5),
        Size(10_000_000, 1_000_000, 3),
    ),
    growth_rounds=3,
    growth_events=(1_000, 10_000, 100_000, 1_000_000, 10_000_000),
    growth_rows=(1_000, 10_000, 100_000, 1_000_000),
)
SCALES: Final = {scale.name: scale for scale in (SMOKE, QUICK, NORMAL, FULL)}
