"""The promise about power cuts, on real file systems: shut down under load without flushing anything, mounted again.

The ioctl stops the file system as a power cut does: what is not on the disk, journal included, is gone. What the disk
itself lies about is not in it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Final

import pytest
from conftest import cannot, read_csv, wait_until
from nursery import Nursery, Sent, acknowledged, parse

from eventcsv import EventCsv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKERS: Final = 4
SEED: Final = 20_261_124
SIZE_BYTES: Final = 600 << 20
MOST_RESULTS: Final = 800
PAUSE_S: Final = 3e-3
"""So that the disk does not fill up, however long the first compaction takes on a busy machine."""

MAKE: Final = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}
SHUTDOWN: Final = 0x8004587D
"""EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN, _IOR('X', 125, __u32), of the kernel's headers."""
WITHOUT_FLUSHING: Final = 2

# Compacts, begins sessions, makes backups and prunes, and notes each CSV that it has put in place.
COMPACTOR: Final = """
import sys
from hashlib import sha256
from itertools import count
from pathlib import Path
from eventcsv import EventCsv
from eventcsv.storage.files import Storage
path, notes, toy = sys.argv[1:]
if toy == "view not synced":
    sync = Storage.sync
    write_new = Storage.write_new
    def write(self, path, data, **like):
        Storage.sync = sync if not path.endswith(".eventcsv.tmp") else lambda self, fd: None
        lost = write_new(self, path, data, **like)
        Storage.sync = sync
        return lost
    Storage.write_new = write
job = EventCsv(path)
with open(notes, "ab", buffering=0) as file:
    for number in count():
        if number % 4 == 1:
            with job.session():
                pass
            job.prune()
        elif number % 4 == 3:
            job.back_up()
        else:
            job.compact()
        file.write(sha256(Path(path).read_bytes()).hexdigest().encode() + b"\\n")
"""


class Disk:
    """A file system in a file, that can lose its power.

    Args:
        kind: "ext4" or "xfs".
        folder: Where the file and the mount point are.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.place = folder / "mounted"
        self.place.mkdir()
        self._image = folder / "image"
        with self._image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        self._run(*MAKE[kind], str(self._image))
        self.mount()

    def _run(self, *command: str) -> None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            cannot(f"{command[0]} is not installed")
        if done.returncode:
            cannot(f"{command[0]} fails, which may take root: {done.stderr.strip()}")

    def mount(self) -> None:
        """Put it in place."""
        self._run("mount", "-o", "loop", str(self._image), str(self.place))

    def cut(self) -> None:
        """Cut its power."""
        fd = os.open(self.place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Take it away."""
        subprocess.run(["umount", str(self.place)], check=True)


@contextmanager
def disk_of(kind: str, folder: Path) -> Iterator[Disk]:
    """Give a file system of its own, gone afterwards whatever happens."""
    disk = Disk(kind, folder)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk.place)], capture_output=True, check=False)
        (folder / "image").unlink()


class Cuts:
    """Cuts the power of a job at work, again and again, and looks at what is left.

    Args:
        disk: Where the jobs are.
        outside: A folder whose power stays on.
        cuts: How many.
        durability: Of the workers.
        toy: What the compactor lacks; "none" for no compactor, "" for nothing.

    Attributes:
        met: How often what has happened.
        lost: What was acknowledged before a cut and is not in the log.
        torn_views: CSVs that are neither an old one nor a new one.
    """

    def __init__(self, disk: Disk, outside: Path, cuts: int, durability: str = "disk", toy: str = "") -> None:
        self.met: Counter[str] = Counter()
        self.lost: list[tuple[int, str, int]] = []
        self.torn_views: list[bytes] = []
        self._disk = disk
        self._outside = outside
        self._toy = toy
        self._rng = Random(SEED)
        with Nursery(durability=durability, most=MOST_RESULTS, pause_s=PAUSE_S) as nursery:
            for number in range(cuts):
                self._cut(nursery, number)
                if toy and self.torn_views:
                    break

    def _cut(self, nursery: Nursery, number: int) -> None:
        folder = self._disk.place / str(number)
        folder.mkdir()
        path = folder / "input.csv"
        keys = [f"PO{worker}" for worker in range(WORKERS)]
        path.write_text("PO_NUMBER;STATUS;who;n;text\n" + "".join(f"{key};;;;\n" for key in keys))
        os.sync()
        notes = self._outside / f"views{number}"
        notes.write_bytes(sha256(path.read_bytes()).hexdigest().encode() + b"\n")
        acks = {f"{number}-{key}": self._outside / f"{number}-{key}" for key in keys}
        pids = [nursery.spawn(path, name, key, acks[name]) for key, name in zip(keys, acks, strict=True)]
        complaint = self._outside / "compactor"
        with (
            complaint.open("wb") as errors,
            subprocess.Popen(
                [sys.executable, "-c", COMPACTOR if self._toy != "none" else "", str(path), str(notes), self._toy],
                stderr=errors,
            ) as compactor,
        ):
            wait_until(lambda: all(ack.exists() for ack in acks.values()), "results")
            if self._toy != "none":
                wait_until(lambda: notes.read_bytes().count(b"\n") > 2 or compactor.poll() is not None, "some CSVs")
                assert compactor.poll() is None, complaint.read_text()
            time.sleep(self._rng.random() * 0.3)
            sizes = {name: ack.stat().st_size for name, ack in acks.items()}
            views = notes.read_bytes().split(b"\n")[:-1]
            self._disk.cut()
            nursery.kill(*pids)
            compactor.kill()
        self._disk.unmount()
        self._disk.mount()
        self.met["cuts"] += 1
        self._look_at_log(number, {name: acknowledged(acks[name], size) for name, size in sizes.items()}, folder)
        if self._toy != "none":
            self._look_at_view(path, views, notes.read_bytes())
        if not self._toy and not self.lost:
            self._recover(path)
        shutil.rmtree(folder)

    def _look_at_log(self, number: int, promised: dict[str, list[int]], folder: Path) -> None:
        found: set[tuple[str, int]] = set()
        paths = sorted((folder / "input.events").glob("events-*.jsonl"))
        self.met["segment changes"] += len(paths) - 1
        for sent in self._sent(paths):
            assert sent.is_as_sent, sent
            found.add((sent.name, sent.n))
        for name, numbers in promised.items():
            self.met["acknowledged"] += len(numbers)
            # What no backup needs any more was pruned: the beginning of what each worker sent.
            pruned = not paths[0].name.endswith("000001.jsonl")
            first = min((n for other, n in found if other == name), default=1) if pruned else 1
            self.lost += [(number, name, n) for n in numbers if n >= first and (name, n) not in found]

    def _sent(self, paths: list[Path]) -> Iterator[Sent]:
        for path in paths:
            *lines, tail = path.read_bytes().split(b"\n")
            self.met["torn"] += bool(tail) + sum(b"\0" in line for line in lines)
            yield from filter(None, map(parse, lines))

    def _look_at_view(self, path: Path, before: list[bytes], after: bytes) -> None:
        data = path.read_bytes()
        digest = sha256(data).hexdigest().encode()
        # The last that was noted before the cut, or one that came during it, which perhaps nobody lived to note.
        if digest in before and digest != before[-1]:
            self.torn_views.append(b"older than what a compaction had put in place: " + data[:200])
        self.met["an old CSV" if digest == before[-1] else "a new CSV"] += 1
        known = digest in after.split(b"\n")
        if not known and (data[-1:] != b"\n" or [f"PO{n}" for n in range(WORKERS)] != self._keys(path)):
            self.torn_views.append(data[:200])

    def _keys(self, path: Path) -> list[str]:
        try:
            rows = read_csv(path)
        except ValueError:
            return []
        whole = all(not row["n"] or Sent(row["who"], int(row["n"]), row["text"]).is_as_sent for row in rows)
        return [row["PO_NUMBER"] for row in rows] if whole else []

    def _recover(self, path: Path) -> None:
        job = EventCsv(path)
        result = job.compact()
        assert not result.edited
        assert not job.replay().changed
        with job.session():
            pass
        assert sum(result.by_status.values()) == WORKERS
        findings = [found.problem for found in job.verify().findings]
        # What was cut in mid-line and is no longer the last one cannot be told from damage.
        assert all(found.startswith(("torn", "NUL", "the checksum")) for found in findings), findings
        self.met["recovered"] += 1


@pytest.mark.parametrize(
    ("kind", "cuts"),
    [
        ("ext4", 3),
        ("xfs", 1),
        pytest.param("ext4", 250, marks=pytest.mark.long),
        pytest.param("xfs", 120, marks=pytest.mark.long),
    ],
)
def test_a_power_cut_takes_nothing_acknowledged(tmp_path: Path, kind: str, cuts: int) -> None:
    """Amid compactions, backups, sessions and prunes: whatever was acknowledged is there, and the CSV is whole."""
    with disk_of(kind, tmp_path) as disk:
        found = Cuts(disk, tmp_path, cuts)
        print(kind, dict(found.met))  # noqa: T201  # what tests/README.md quotes
        assert ([], []) == (found.lost, found.torn_views)
        assert (cuts, cuts) == (found.met["cuts"], found.met["recovered"])
        assert found.met["acknowledged"] > cuts


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_without_the_sync_a_power_cut_takes_results(tmp_path: Path, kind: str) -> None:
    """Control: with the fdatasync of an append left out the same harness loses what was acknowledged."""
    with disk_of(kind, tmp_path) as disk:
        found = Cuts(disk, tmp_path, 2, durability="process", toy="none")
        print(kind, dict(found.met), len(found.lost))  # noqa: T201  # what tests/README.md quotes
        assert found.lost


def test_a_csv_that_was_not_synced_is_half_a_csv(tmp_path: Path) -> None:
    """Control: with the fsync of the new CSV left out the same harness finds a CSV that is neither old nor new."""
    with disk_of("xfs", tmp_path) as disk:
        assert Cuts(disk, tmp_path, 5, toy="view not synced").torn_views
