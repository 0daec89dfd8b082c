"""Results that a pipe brings, a JSON object a line, each answered once it is durable.

For a loop in a shell, or a pool in another language, which would otherwise pay for a process with each result.
"""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any, Final

from eventcsv.errors import AppendError, InvalidEvent
from eventcsv.event import COLUMNS
from eventcsv.masking import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventcsv.event import Event
    from eventcsv.job import EventCsv

_LONGEST_BYTES: Final = 64 << 20
_FIELDS: Final = ("key", "status", "started", "columns", *list(COLUMNS)[1:])


def record_lines(job: EventCsv, lines: IO[bytes], answer: Callable[[dict[str, object]], None]) -> int:
    """Record what each line says, and answer each, in their order.

    Args:
        job: Where to record.
        lines: Objects with `key` and `status`, and `columns` or any other argument of `EventCsv.emit_result`; or with
            `key` and `"started": true` for a PO that is taken up.
        answer: Called with the number of a line, from 1 on, and the id and key of its event once that is durable; or
            with the number and the error of a line that was not recorded.

    Returns:
        How many lines were not recorded.

    Raises:
        EventCsvError: None can be, for instance as there is no such CSV.
    """
    failures = 0
    for number, line in enumerate(_bounded(lines), 1):
        try:
            event = _record(job, line)
        except (InvalidEvent, AppendError) as error:
            failures += 1
            answer({"line": number, "error": masked(str(error))})
        else:
            answer({"line": number, "id": event.id, "key": event.key})
    return failures


def _bounded(lines: IO[bytes]) -> Iterator[bytes]:
    """Yield each line, of one that is too long a part that is so, too."""
    while line := lines.readline(_LONGEST_BYTES + 1):
        rest = line
        while len(rest) > _LONGEST_BYTES and not rest.endswith(b"\n"):
            rest = lines.readline(_LONGEST_BYTES + 1)
        yield line


def _record(job: EventCsv, line: bytes) -> Event:
    fields = _parsed(line)
    key, started = fields.pop("key", None), fields.pop("started", False)
    if started is False:
        return job.emit_result(key, fields.pop("status", None), **fields)
    if started is not True:
        raise InvalidEvent("started", "has to be true or false")
    if fields:
        raise InvalidEvent(next(iter(fields)), "has no place beside started, which is no result")
    return job.emit_started(key)


def _parsed(line: bytes) -> dict[str, Any]:
    if len(line) > _LONGEST_BYTES:
        raise InvalidEvent("line", f"has more than {_LONGEST_BYTES >> 20} MiB. Shorten it")
    try:
        # A byte that is no UTF-8 is for the rules of an event to judge, like any text.
        fields = json.loads(
            line.decode(errors="surrogateescape").lstrip("\ufeff"), object_pairs_hook=_without_repetition
        )
    except InvalidEvent:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidEvent("line", f'is no JSON ({error}). One is {{"key": "PO1", "status": "COMPLETED"}}') from None
    if not isinstance(fields, dict):
        raise InvalidEvent(
            "line", f'has to be an object, as {{"key": ..., "status": ...}}, not {type(fields).__name__}'
        )
    if unknown := [name for name in fields if name not in _FIELDS]:
        raise InvalidEvent(
            unknown[0], f"is none of {', '.join(_FIELDS)}. What the CSV has besides belongs into columns"
        )
    return fields


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise InvalidEvent(next(name for name in names if names.count(name) > 1), "is given twice")
    return fields
