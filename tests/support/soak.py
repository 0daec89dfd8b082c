"""Works for a long time: sessions, workers that are killed, edits, prunes; memory and open files have to stay flat.

    python tests/support/soak.py --minutes 10

Every ten seconds a line. The exit code is 1 when something was lost, or when this process, which keeps the CSV current
all the time, has grown from the first third of the time to the last one.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Final

import psutil  # type: ignore[import-untyped]  # it ships no types
from conftest import read_csv
from nursery import Nursery, acknowledged, parse

from eventcsv import EventCsv

WORKERS: Final = 4
POS: Final = 1_000
CYCLE_S: Final = 5.0
SAMPLE_S: Final = 10.0
PAUSE_S: Final = 0.05
MOST_GROWTH: Final = 1.05
MOST_MIB_MORE: Final = 10.0
MOST_FILES_MORE: Final = 3


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Soak:
    """One job, at work for a long time.

    Args:
        folder: Where it is.
        seconds: How long.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.met: Counter[str] = Counter()
        self.memory_mib: list[float] = []
        self.open_files: list[int] = []
        self._rng = Random(0)
        self._folder = folder
        self._path = folder / "input.csv"
        self._path.write_text("PO_NUMBER;STATUS;REMARK\n" + "".join(f"PO{number};;\n" for number in range(POS)))
        self._job = EventCsv(self._path, durability="process", settle_s=0.0)
        self._me = psutil.Process()
        self._begun = self._sampled = time.monotonic()
        with Nursery(most=1 << 30, pause_s=PAUSE_S) as nursery:
            while time.monotonic() < self._begun + seconds:
                self._cycle(nursery)

    def _cycle(self, nursery: Nursery) -> None:
        names: list[str] = []

        def spawn(key: str) -> int:
            names.append(f"worker{self.met['workers']}")
            self.met["workers"] += 1
            return nursery.spawn(self._path, names[-1], key, self._folder / names[-1])

        with self._job.session(refresh_s=0.2):
            keys = [f"PO{number}" for number in range(WORKERS)]  # the same ones: their long texts fill the CSV once
            pids = [spawn(key) for key in keys]
            end = time.monotonic() + CYCLE_S
            while time.monotonic() < end:
                time.sleep(self._rng.random() * 0.2)
                victim = self._rng.randrange(WORKERS)
                nursery.kill(pids[victim])
                self.met["kills"] += 1
                pids[victim] = spawn(keys[victim])
                self._sample()
            nursery.kill(*pids)
            rows = self._path.read_bytes()
            note = b"\\1edit %d" % self.met["edits"]
            self._path.write_bytes(re.sub(rb"^(PO9;[^;]*;)[^;\n]*", note, rows, flags=re.MULTILINE))
            self.met["edits"] += 1
        self._check(names)
        self.met["segments pruned"] += len(self._job.prune().removed)

    def _check(self, names: list[str]) -> None:
        paths = [Path(self._job.log.path(number)) for number in self._job.log.segments()]
        lines = (line for path in paths for line in path.read_bytes().split(b"\n"))
        found = {(sent.name, sent.n) for sent in map(parse, lines) if sent}
        for name in names:
            numbers = acknowledged(self._folder / name)
            self.met["acknowledged"] += len(numbers)
            self.met["lost"] += len([n for n in numbers if (name, n) not in found])
            (self._folder / name).unlink(missing_ok=True)
        self.met["rows lost"] += POS - len(read_csv(self._path))

    def _sample(self) -> None:
        if time.monotonic() < self._sampled + SAMPLE_S:
            return
        self._sampled = time.monotonic()
        self.memory_mib.append(self._me.memory_info().rss / (1 << 20))
        self.open_files.append(self._me.num_fds())
        own = f"{self.memory_mib[-1]:6.0f} MiB  {self.open_files[-1]:3} open files"
        done = f"{self.met['acknowledged']:,} results  {self.met['kills']:,} kills"
        say(f"{self._sampled - self._begun:6.0f} s  {own}  {done}")

    def faults(self) -> list[str]:
        """Return what went wrong, in words. The first third is for warming up: allocators keep what they once had."""
        found = [f"{self.met[what]} {what}" for what in ("lost", "rows lost") if self.met[what]]
        memory_mib, open_files = self.memory_mib, self.open_files
        third = len(memory_mib) // 3
        if third:
            before, after = (statistics.median(part) for part in (memory_mib[third:-third], memory_mib[-third:]))
            if after > max(before * MOST_GROWTH, before + MOST_MIB_MORE):
                found.append(f"memory grew from {before:.0f} to {after:.0f} MiB")
            files = [statistics.median(part) for part in (open_files[third:-third], open_files[-third:])]
            if files[1] > files[0] + MOST_FILES_MORE:
                found.append(f"open files grew from {files[0]:.0f} to {files[1]:.0f}")
        return found


def main() -> int:
    """Soak, and tell."""
    parser = argparse.ArgumentParser(description="Work for a long time, and see that nothing grows.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long")
    with tempfile.TemporaryDirectory(prefix="eventcsv-soak-") as folder:
        soak = Soak(Path(folder), parser.parse_args().minutes * 60)
    say(", ".join(f"{name} {count:,}" for name, count in soak.met.items()))
    for fault in soak.faults():
        say(f"FAILED: {fault}")
    return int(bool(soak.faults()))


if __name__ == "__main__":
    sys.exit(main())
