"""An event of no row or no column is refused with the field and the rule, and leaves no trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from conftest import job_on
from refusals import assert_says, everything, refused, with_history

from eventcsv import EventCsv, InvalidEvent, Status

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


BAD_EVENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "status none": ({"status": None}, "status", "is required"),
    "status empty": ({"status": ""}, "status", "is required"),
    "status blank": ({"status": " \t\u00a0"}, "status", "is required"),
    "status NaN": ({"status": float("nan")}, "status", "is required"),
    "key none": ({"key": None}, "key", "missing, as None is"),
    "key NaN": ({"key": float("nan")}, "key", "missing, as nan is"),
    "key empty": ({"key": ""}, "key", "empty"),
    "key blank": ({"key": " \t\u00a0"}, "key", "empty"),
    "key of no bytes": ({"key": b""}, "key", "empty"),
    "key an empty list": ({"key": []}, "key", "empty"),
    "key with a newline": ({"key": "PO1\nPO2"}, "key", "U+000A at position 3"),
    "key with NUL": ({"key": "PO1\0"}, "key", "U+0000"),
    "key with an escape": ({"key": "\x1b[31mPO1"}, "key", "U+001B at position 0"),
    "key with DEL": ({"key": "PO\x7f1"}, "key", "U+007F"),
    "key with NEL": ({"key": "PO\x851"}, "key", "U+0085"),
    "key with a line separator": ({"key": "PO\u20281"}, "key", "U+2028"),
    "column's name empty": ({"columns": {"": "x"}}, "columns", "empty"),
    "column's name blank": ({"columns": {" \t": "x"}}, "columns", "empty"),
    "column's name a number": ({"columns": {7: "x"}}, "columns", "not 7, a int"),
    "column's name of bytes": ({"columns": {b"x": "x"}}, "columns", "not b'x'"),
    "column twice": ({"columns": {"STATUS": "ERROR"}}, "columns", "STATUS"),
    "column twice, in another case": ({"columns": {"Status": "ERROR"}}, "columns", "Status"),
    "column twice, other spaces": ({"columns": {"Note": "a", "note ": "b"}}, "columns", "note "),
    "column twice, by its keyword": (
        {"columns": {"attachment_names": "a", "AttachmentName": "b"}},
        "columns",
        "AttachmentName",
    ),
    "column twice, in pairs": ({"columns": [("Note", "a"), ("Note", "b")]}, "columns", "Note"),
    "key column": ({"columns": {"PO_NUMBER": "PO9"}}, "PO_NUMBER", "key column"),
    "key column in another case": ({"columns": {" po_number ": "PO9"}}, " po_number ", "key column"),
}


bad_events = pytest.mark.parametrize(("change", "at", "rule"), BAD_EVENTS.values(), ids=list(BAD_EVENTS))


def emitted(job: EventCsv, change: Mapping[str, Any]) -> object:
    """Emit a good result with something changed."""
    return job.emit_result(**{"key": "PO1", "status": "COMPLETED", **change})


@bad_events
def test_a_bad_event_is_refused_before_a_log_is_made(
    csv_path: Path, change: dict[str, Any], at: str, rule: str
) -> None:
    """The error names the field and the rule, and is short; there is not even an empty log afterwards."""
    job = job_on(csv_path)
    before = everything(csv_path.parent)

    with pytest.raises(InvalidEvent) as caught:
        emitted(job, change)

    assert before == everything(csv_path.parent)
    assert at == caught.value.field
    assert_says(caught.value.rule, rule)
    assert 500 > len(str(caught.value))


@bad_events
def test_a_job_goes_on_after_a_bad_event(tmp_path: Path, change: dict[str, Any], at: str, rule: str) -> None:
    """A refused event leaves no trace in a log that is there, and the next good one is recorded and folded."""
    path = tmp_path / "input.csv"
    job = with_history(path)

    message = refused(tmp_path, InvalidEvent, lambda: emitted(job, change))
    assert_says(message, at[:80], rule)

    job.emit_result("PO3", Status.ERROR, error_message="no such page")
    assert {"COMPLETED": 2, "ERROR": 1} == job.compact().by_status
