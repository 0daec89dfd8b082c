"""What is measured on: a CSV in the shape of data/sample/input.csv, and logs of any length, written in big pieces."""

from __future__ import annotations

import csv
import os
import shutil
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from measuring import settle

from eventcsv import EventCsv
from eventcsv.event import COLUMNS, Event, Kind
from eventcsv.log.line import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER: Final = ("PO_NUMBER", *COLUMNS.values(), "Priority", "Supplier Segment", "Spend Type", "L1 UU Supplier Name")
SUPPLIER: Final = "Ekström Hydraulik"
NAMES: Final = ("invoice.pdf", "terms.docx")
FOLDER: Final = "downloads/Ekström/PO15262984"

_SPREAD: Final = 7919  # a prime, so that consecutive results are of POs far apart and each PO has its turn
_PIECE: Final = 50_000  # lines a write
_SESSIONS: Final = 4  # segments of a long log: it grew in as many sessions
_LONG: Final = 100_000


@cache
def keys(rows: int) -> list[str]:
    """Return the POs of a CSV."""
    return [f"PO{15_200_000 + number}" for number in range(rows)]


def write_csv(path: Path, rows: int) -> None:
    """Write a CSV in which nothing is done yet."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=";", lineterminator="\r\n")
        writer.writerow(HEADER)
        writer.writerows(
            [key, "PENDING", *[""] * 8, "3", "Tail", "Services; external", '12" Pipe & Valve Ltd'] for key in keys(rows)
        )


def emit(job: EventCsv, key: str, number: int) -> None:
    """Record a typical result, whose counts tell it from every other."""
    job.emit_result(
        key,
        "COMPLETED",
        supplier=SUPPLIER,
        attachments_found=number,
        attachments_downloaded=number,
        attachment_names=NAMES,
        download_folder=FOLDER,
    )


def lines(count: int, rows: int, *, first: int = 0) -> Iterator[bytes]:
    """Yield lines as `emit` has them written; one in ten is a failure, so that columns come and go."""
    known = keys(rows)
    names = ";".join(NAMES)
    for number in range(first, first + count):
        cells = {
            "STATUS": "COMPLETED",
            "SUPPLIER": SUPPLIER,
            "ATTACHMENTS_FOUND": str(number),
            "ATTACHMENTS_DOWNLOADED": str(number),
            "AttachmentName": names,
            "LAST_PROCESSED": "2025-10-02T12:43:11Z",
            "DOWNLOAD_FOLDER": FOLDER,
        }
        if number % 10 == 7:
            cells |= {"STATUS": "ERROR", "ERROR_MESSAGE": f"TimeoutError: no answer within 30 s, try {number}"}
        ts = f"2025-10-02T12:43:11.{number % 1_000_000:06d}Z"
        yield encode(Event(f"8f3a12c4-03-{number}", ts, Kind.RESULT.value, known[number * _SPREAD % rows], cells))


def append_raw(path: Path, found: Iterator[bytes]) -> None:
    """Append lines to a segment that nobody has open, in big writes."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    while piece := b"".join(islice(found, _PIECE)):
        os.write(fd, piece)
    os.close(fd)


def last_segment(log_dir: Path) -> Path:
    """Return the active segment of a log."""
    return max(log_dir.glob("events-*.jsonl"))


@dataclass(frozen=True, slots=True)
class Fixture:
    """A CSV that was compacted once, before its log got any results.

    Attributes:
        csv_path: The CSV.
        log_dir: Its log.
        events: How many results are in the log.
        rows: How many POs are in the CSV.
        size_bytes: How long the active segment is.
    """

    csv_path: Path
    log_dir: Path
    events: int
    rows: int
    size_bytes: int

    def job(self) -> EventCsv:
        return EventCsv(self.csv_path, durability="process")

    def keep(self, state: str) -> None:
        """Keep the CSV and its checkpoint as they are now, to come back to."""
        folder = self.csv_path.parent / "states" / state
        folder.mkdir(parents=True)
        shutil.copyfile(self.csv_path, folder / "csv")
        shutil.copyfile(self.log_dir / "checkpoint.json", folder / "checkpoint.json")

    def reset(self, state: str = "base") -> None:
        """Come back to a state, with the log as it was made."""
        folder = self.csv_path.parent / "states" / state
        os.truncate(last_segment(self.log_dir), self.size_bytes)
        for kept, path in (("csv", self.csv_path), ("checkpoint.json", self.log_dir / "checkpoint.json")):
            shutil.copyfile(folder / kept, path)
        settle(self.csv_path.parent)

    def fold(self) -> None:
        """Fold the log into the CSV and keep that as the state "folded"."""
        self.reset()
        job = self.job()
        if job.compact().events != self.events:
            raise SystemExit(f"{self.csv_path}: not all of the log was folded")
        job.close()
        self.keep("folded")

    def remove(self) -> None:
        shutil.rmtree(self.csv_path.parent)


def make(directory: Path, events: int, rows: int) -> Fixture:
    """Make a CSV and a log in a folder that is not there yet."""
    directory.mkdir()
    csv_path = directory / "input.csv"
    write_csv(csv_path, rows)
    with EventCsv(csv_path, durability="process") as job:
        job.compact()
        log_dir = Path(job.log_dir)
        parts = _SESSIONS if events >= _LONG else 1
        for part in range(parts):
            if part:
                job.new_segment()
            append_raw(last_segment(log_dir), lines(events // parts, rows, first=part * (events // parts)))
    made = Fixture(csv_path, log_dir, events, rows, last_segment(log_dir).stat().st_size)
    made.keep("base")
    settle(directory)
    return made
