"""What eventcsv is to reach: each a figure, or a ratio of two figures of the same rounds, and a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import emit
import folding
import live
import processes
import saves
import visible
from measuring import Name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from measuring import Figures, Spread
    from scales import Scale, Size


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to reach.

    Attributes:
        text: What it is about.
        figure: What was measured.
        against: What it is divided by, or None when the figure itself counts.
        sense: Whether it has to be at least or at most the limit.
        limit: The limit, in the figure's unit where it is no ratio.
        judged: Which of the rounds counts: the middle one, or the worst one for what must never happen.
        instead: Whether it is about what people would use in place of eventcsv; shown first.
    """

    text: str
    figure: Name
    against: Name | None
    sense: Literal[">=", "<="]
    limit: float
    judged: Literal["median", "worst"] = "median"
    instead: bool = False

    def names(self) -> list[Name]:
        return [self.figure, *([self.against] if self.against else [])]

    def result(self, figures: Figures) -> Spread:
        return figures.ratio(self.figure, self.against) if self.against else figures.spread(self.figure)

    def is_met(self, result: Spread) -> bool:
        worst = result.least if self.sense == ">=" else result.most
        value = result.median if self.judged == "median" else worst
        return value >= self.limit if self.sense == ">=" else value <= self.limit


def targets(scale: Scale) -> list[Target]:
    """Return every target that has a limit."""
    return [*_emit(scale), *_worker(), *_live(scale), *_replay(scale), *_saves(scale), *_commands(), *_resume(scale)]


def _emit(scale: Scale) -> Iterator[Target]:
    one, many = (emit.what("process", workers) for workers in (1, scale.workers))
    disk_one, disk_many = (emit.what("disk", workers) for workers in (1, scale.workers))
    for who, limits in ((emit.SQLITE_KEPT, (1.5, 1)), (emit.SQLITE_NEW, (50, 10))):
        for name, limit in zip((one, many), limits, strict=True):
            yield _faster(name, who, limit)
    yield _faster(one, emit.PANDAS, 1_000)
    yield _faster(disk_one, emit.WRITE_AND_SYNC, 0.8)
    yield _faster(disk_many, emit.SQLITE_KEPT, 2)
    for what, metric, who, limit in (
        (one, "p50", emit.SYSTEM_CALLS, 3.2),
        (many, "worst", emit.SQLITE_KEPT, 1 / 10),
        (disk_many, "p99.9", emit.SQLITE_KEPT, 1 / 20),
    ):
        names = Name(what, emit.OURS, metric), Name(what, who, metric)
        yield Target(f"{what}: {metric} against that of {who}", *names, "<=", limit)
    yield Target(
        f"{disk_many}: rate against 1 worker",
        Name(disk_many, emit.OURS, "rate"),
        Name(disk_one, emit.OURS, "rate"),
        ">=",
        1.6,
    )
    for name in (many, disk_many):
        yield Target(f"{name}: least against most appends", Name(name, emit.OURS, "least / most"), None, ">=", 0.6)
        yield Target(f"{name}: longest wait", Name(name, emit.OURS, "worst"), None, "<=", 0.1, judged="worst")
    yield Target(
        f"{emit.BY_LOG}: p50 with {scale.long_log.events:,} events against none",
        Name(emit.BY_LOG, emit.LONG, "p50"),
        Name(emit.BY_LOG, emit.EMPTY, "p50"),
        "<=",
        1.1,
    )


def _faster(what: str, who: str, limit: float) -> Target:
    names = Name(what, emit.OURS, "rate"), Name(what, who, "rate")
    return Target(f"{what}: rate against {who}", *names, ">=", limit, instead=who in {emit.SQLITE_KEPT, emit.PANDAS})


def _worker() -> Iterator[Target]:
    worker, polars = Name(processes.WORKER, processes.OURS), Name(processes.WORKER, processes.POLARS)
    yield Target(f"{processes.WORKER}: time against `import polars` alone", worker, polars, "<=", 0.6)
    memory = Name(processes.WORKER_MEMORY, processes.OVER_BARE, "peak memory")
    yield Target(f"{processes.WORKER_MEMORY} over a bare interpreter", memory, None, "<=", 12)


def _live(scale: Scale) -> Iterator[Target]:
    for size, limit in zip(scale.live, (6, 4), strict=False):
        what = live.what(size)
        yield Target(f"{what}: time against {live.FLOOR}", Name(what, live.OURS), Name(what, live.FLOOR), "<=", limit)
    where = f"{visible.WHAT}, {scale.workers} workers over {scale.rows:,} POs"
    yield Target(f"{where}: p99", Name(visible.WHAT, visible.WHO, "p99"), None, "<=", 1.2)
    yield Target(f"{where}: what compaction takes", Name(visible.WHAT, visible.WHO, "share of a core"), None, "<=", 10)


_AGAINST_DUCKDB: Final = (1.2, 1.2, 1.1, 1.2)
_AGAINST_PYTHON: Final = (0.8, 0.6, 0.35)


def _replay(scale: Scale) -> Iterator[Target]:
    for size, limit in zip(scale.replays, _AGAINST_DUCKDB, strict=False):
        yield _shorter(size, folding.DUCKDB, limit)
    for size, limit in zip(scale.replays, _AGAINST_PYTHON, strict=False):
        yield _shorter(size, folding.PYTHON, limit)
    for size in scale.replays[3:]:
        name = Name(folding.what(size), folding.OURS, "peak memory")
        yield Target(f"{folding.what(size)}: peak memory", name, None, "<=", 2 * 1024)


def _saves(scale: Scale) -> Iterator[Target]:
    what, replay = saves.what(scale), Name(saves.what(scale), saves.REPLAY)
    for who in (saves.FRESH, saves.OLD):
        yield Target(f"{what}, {who}: time against {saves.REPLAY}", Name(what, who), replay, "<=", 2)


def _shorter(size: Size, who: str, limit: float) -> Target:
    what = folding.what(size)
    names = Name(what, folding.OURS), Name(what, who)
    return Target(f"{what}: time against {who}", *names, "<=", limit, instead=True)


def _commands() -> Iterator[Target]:
    for who, against, limit in (
        (processes.EMIT, processes.WORKER, 1.15),
        (processes.HELP, processes.TYPER, 1.3),
        (processes.VERSION, processes.TYPER, 1),
        (processes.STATUS, processes.POLARS, 1.5),
    ):
        names = Name(processes.COMMANDS, who), Name(processes.COMMANDS, against)
        yield Target(f"{who}, whole process: time against {against}", *names, "<=", limit)


def _resume(scale: Scale) -> Iterator[Target]:
    for who in (processes.STATUS, processes.PENDING):
        yield Target(
            f"{who} of {scale.long_log} with a valid checkpoint: time against `import polars`",
            Name(processes.RESUME, who),
            Name(processes.RESUME, processes.POLARS),
            "<=",
            2,
        )
