"""The log read without a line of eventcsv's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from eventcsv import EventCsv


def checked(line: bytes) -> dict[str, Any] | None:
    """Return what a line says, or None when its checksum does not hold."""
    body, mark, crc = line.rpartition(b',"crc":"')
    if not mark or crc != b'%08x"}' % crc32(body):
        return None
    found: dict[str, Any] = json.loads(line)
    return found


def logged(job: EventCsv, kind: str) -> list[dict[str, Any]]:
    """Return the whole lines of a job's log that are of one kind."""
    lines = [
        line for path in sorted(Path(job.log_dir).glob("events-*.jsonl")) for line in path.read_bytes().split(b"\n")
    ]
    return [found for line in lines if (found := checked(line)) and found["kind"] == kind]
