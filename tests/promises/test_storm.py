"""The promise to workers: once emit_result() has returned, kill -9 takes nothing back, however often and whenever."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

import pytest
from command_line import run
from conftest import cannot, segment_of
from nursery import Nursery, acknowledged, parse

from eventcsv import EventCsv

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

WORKERS: Final = 4
SEED: Final = 20_261_124
LONGEST_PAUSE_S: Final = 0.003
ROUND: Final = 12
"""So many kills hit one job; then its log is looked at and removed, since a thousand of them would fill a disk."""

MET: Final = ("acknowledged", "segment changes", "torn", "torn and healed by the next line", "torn and noted by a seal")
"""What a storm has to have met; how soon it does depends on the machine, so it goes on until then."""


def file_system_of(path: Path) -> str:
    """Return the type of the file system that a path is on."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    inside = [row for row in mounts if path.is_relative_to(row[1])]
    return max(inside, key=lambda row: len(row[1]))[2]


@contextmanager
def folder_on(file_system: str, tmp_path: Path) -> Iterator[Path]:
    """Give a folder on a file system."""
    for place in (tmp_path, Path("/dev/shm"), Path("/var/tmp"), Path.cwd()):
        if place.is_dir() and os.access(place, os.W_OK) and file_system_of(place.resolve()) == file_system:
            folder = Path(tempfile.mkdtemp(prefix="eventcsv-", dir=place))
            try:
                yield folder
            finally:
                shutil.rmtree(folder)
            return
    cannot(f"there is no {file_system} here to write to")


class Storm:
    """Kills workers at random moments, and looks at what is left.

    Args:
        place: Where the jobs are made, one for each round.
        kills: How many workers are killed one by one; besides, all of them at once now and then.
        until: What it goes on for, up to ten times as long.
        toy: What the workers lack; "" for nothing.

    Attributes:
        met: How often what has happened.
        lost: What was acknowledged and is not in the log.
        phantoms: What is in the log and was not sent, or not so.
        untold: Half lines that nobody vouches for, so that they count as damage.
    """

    def __init__(self, place: Path, kills: int, until: Collection[str] = (), toy: str = "") -> None:
        self.met: Counter[str] = Counter()
        self.lost: list[tuple[str, int]] = []
        self.phantoms: list[object] = []
        self.untold: list[object] = []
        self._rng = Random(SEED)
        with Nursery(toy) as nursery:
            for done in range(0, 10 * kills, ROUND):
                if done >= kills and all(self.met[what] for what in until):
                    break
                folder = place / str(done)
                job, names = self._rage(nursery, folder)
                halves = self._look(job, names, folder)
                if toy in {"", "no note"}:
                    self._check_told(job, halves)
                if not toy:
                    self._check_view(job)
                shutil.rmtree(folder)

    def _rage(self, nursery: Nursery, folder: Path) -> tuple[EventCsv, list[str]]:
        folder.mkdir()
        keys = [f"PO{number}" for number in range(WORKERS)]
        names: list[str] = []
        path = folder / "input.csv"
        path.write_text("PO_NUMBER;STATUS\n" + "".join(f"{key};\n" for key in keys))
        job = EventCsv(path, durability="process")

        def spawn(key: str) -> int:
            names.append(f"worker{len(names)}")
            return nursery.spawn(path, names[-1], key, folder / names[-1])

        pids = [spawn(key) for key in keys]
        for number in range(1, ROUND + 1):
            time.sleep(self._rng.random() * LONGEST_PAUSE_S)
            victim = self._rng.randrange(WORKERS)
            nursery.kill(pids[victim])
            pids[victim] = spawn(keys[victim])
            if number % 3 == 0:  # all at once, so that nobody heals a torn line before the segment is sealed
                nursery.kill(*pids)
                self.met["kills"] += WORKERS
                job.new_segment()
                pids = [spawn(key) for key in keys]
            if number == ROUND // 2:
                job.new_segment()
                job.compact()
        nursery.kill(*pids)
        self.met["kills"] += ROUND + WORKERS
        return job, names

    def _look(self, job: EventCsv, names: list[str], folder: Path) -> list[tuple[str, int]]:
        """Compare the log with what was sent and acknowledged, and return where half lines are in it."""
        found: dict[str, set[int]] = {name: set() for name in names}
        halves: list[tuple[str, int]] = []
        for number in job.log.segments():
            self.met["segment changes"] += number > 1
            *lines, tail = Path(job.log.path(number)).read_bytes().split(b"\n")
            starts = [0, *accumulate(len(line) + 1 for line in lines)]
            if tail:
                halves.append((segment_of(job, number).name, starts[-1]))
            for at, line in enumerate(lines):
                sent = parse(line)
                if sent and sent.is_as_sent:
                    found[sent.name].add(sent.n)
                elif sent:
                    self.phantoms.append(sent)
                elif not any(b'"kind":"%b"' % kind in line for kind in (b"header", b"seal", b"torn")):
                    halves.append((segment_of(job, number).name, starts[at]))
                    self.met["torn and healed by the next line"] += bool(at + 2 < len(lines) and parse(lines[at + 2]))
                self.met["torn and noted by a seal"] += b'"kind":"seal"' in line and b'"torn":' in line
        self.met["torn"] += len(halves)
        for name in names:
            numbers = acknowledged(folder / name)
            self.met["acknowledged"] += len(numbers)
            self.lost += [(name, n) for n in numbers if n not in found[name]]
            self.met["lost"] = len(self.lost)
            # What was being appended when it was killed may be there, and nothing beyond that.
            self.phantoms += [(name, n) for n in found[name] if n > len(numbers) + 1]
        return halves

    def _check_told(self, job: EventCsv, halves: list[tuple[str, int]]) -> None:
        """Look as people do: each half line is told as such, once, and the exit code says that nothing is wrong."""
        report = job.verify()
        told = [(item.segment, item.offset_bytes) for item in report.torn]
        self.untold += [half for half in halves if half not in told] + [item.problem for item in report.findings]
        assert len(told) == len(set(told))
        for command in ("status", "verify") if halves else ():
            done = run(command, job.csv_path)
            self.untold += [done.stdout + done.stderr] if done.returncode else []
            self.met[f"{command} ended with {done.returncode}"] += 1

    def _check_view(self, job: EventCsv) -> None:
        result = job.compact()
        assert {"PARTIAL": WORKERS} == result.by_status
        self.met["views"] += 1
        if self.met["views"] % 5 == 1:  # it reads as much again
            assert not job.replay().changed


@pytest.mark.parametrize(
    ("file_system", "kills", "until"),
    [
        ("ext4", 12, MET[:2]),  # where lines are hardly ever torn
        ("tmpfs", 36, MET[:3]),
        pytest.param("ext4", 1000, MET, marks=pytest.mark.long),
        pytest.param("tmpfs", 1000, MET, marks=pytest.mark.long),
    ],
)
def test_nothing_acknowledged_is_lost(tmp_path: Path, file_system: str, kills: int, until: tuple[str, ...]) -> None:
    """Four workers, lines of 130 B to 300 KB, killed at random moments and replaced, and the log changes segments."""
    with folder_on(file_system, tmp_path) as folder:
        storm = Storm(folder, kills, until)
        print(file_system, dict(storm.met))  # noqa: T201  # what tests/README.md quotes
        assert ([], [], []) == (storm.lost, storm.phantoms, storm.untold)
        assert storm.met["torn"] <= storm.met["kills"]
        assert [] == [what for what in until if not storm.met[what]]


@pytest.mark.parametrize("toy", ["no healing", "too early"])
def test_a_toy_loses_results_in_the_storm(tmp_path: Path, toy: str) -> None:
    """Control: without the newline before the next line, or acknowledging before the write, results are lost."""
    with folder_on("tmpfs", tmp_path) as folder:
        assert [] != Storm(folder, 36, ["lost"], toy).lost  # up to 360 kills: few of them tear a line


def test_without_the_note_a_half_line_is_taken_for_damage(tmp_path: Path) -> None:
    """Control: whoever heals says nothing, and every command ends as if something were lost."""
    for _ in range(4):  # each of up to 360 kills, few of which tear a line
        with folder_on("tmpfs", tmp_path) as folder:
            storm = Storm(folder, 36, ["status ended with 3"], "no note")
        assert [] == storm.lost
        if storm.met["status ended with 3"]:
            return
    pytest.fail("no half line was taken for damage")
