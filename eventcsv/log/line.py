"""An event as one line of bytes, and back. Pure: nothing here touches a file or a clock.

A line is UTF-8 JSON that ends in a newline:

    {"v":1,"id":"8f3a12c4-03-42","ts":"...Z","kind":"result","key":"PO15262984","set":{"STATUS":"COMPLETED"},"crc":"10ac5d14"}

`crc` always comes last and holds zlib.crc32 of the bytes before `,"crc":"`, so that it can be checked on the raw line,
before any parser has had its say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import orjson

from eventcsv.errors import InvalidEvent, UnsupportedFormat
from eventcsv.event import Event

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT_VERSION: Final = 1
MAX_LINE_BYTES: Final = 1 << 20
CRC_BYTES: Final = len(b',"crc":"00000000"}')


def encode(event: Event) -> bytes:
    """Return the line of `event`, newline included.

    Raises:
        InvalidEvent: It holds a lone surrogate, or the line would be longer than 1 MiB.
    """
    try:
        line = line_of(event)
    except TypeError:
        raise InvalidEvent("event", "holds a lone surrogate, which no UTF-8 file can hold. Replace it") from None
    if len(line) > MAX_LINE_BYTES:
        raise InvalidEvent(
            "event", f"makes a line of {len(line):,} bytes; at most {MAX_LINE_BYTES:,} (1 MiB) are allowed. Shorten it"
        )
    return line


def line_of(event: Event) -> bytes:
    """Return the line of `event`, however long.

    Raises:
        TypeError: It holds what JSON in UTF-8 cannot.
    """
    return sealed(
        {"v": FORMAT_VERSION, "id": event.id, "ts": event.ts, "kind": event.kind, "key": event.key, "set": event.cells}
    )


def sealed(record: Mapping[str, Any]) -> bytes:
    """Return `record` as a line of JSON with its checksum as the last field."""
    body = orjson.dumps(record)[:-1]
    return b'%b,"crc":"%08x"}\n' % (body, crc32(body))


def is_whole(line: bytes) -> bool:
    """Tell whether `line`, without its newline, carries the checksum of its own bytes."""
    return line[-CRC_BYTES:] == b',"crc":"%08x"}' % crc32(line[:-CRC_BYTES])


def unsealed(line: bytes) -> dict[str, Any]:
    """Return the record of a `line` of ours, with its newline or without, and read without a CR before that.

    Raises:
        ValueError: The checksum does not hold, or it is not a record of ours.
        UnsupportedFormat: It is whole and was made by a newer eventcsv.
    """
    line = line.removesuffix(b"\n").removesuffix(b"\r")
    if not is_whole(line):
        raise ValueError("checksum does not match")
    record = orjson.loads(line)
    version = record.get("v") if isinstance(record, dict) else None
    if not isinstance(version, int) or version < 1:
        raise ValueError("not a line of eventcsv")
    if version > FORMAT_VERSION:
        raise UnsupportedFormat(
            f"format version {version}: made by a newer eventcsv; this one reads up to version {FORMAT_VERSION}. "
            "Upgrade: pip install --upgrade eventcsv"
        )
    del record["crc"]
    return dict(record)


def decode(line: bytes) -> Event:
    """Return the event of a `line`, given without its newline.

    Raises:
        ValueError: The line is damaged or not an event.
        UnsupportedFormat: It was made by a newer eventcsv.
    """
    record = unsealed(line)
    key, cells = record.get("key"), record.get("set", {})
    texts = [record.get("id"), record.get("ts"), record.get("kind"), key]
    if not isinstance(cells, dict) or not all(isinstance(text, str) for text in (*texts, *cells.values())):
        raise ValueError("not an event: a field is missing or not text")
    return Event(record["id"], record["ts"], record["kind"], record["key"], cells)
