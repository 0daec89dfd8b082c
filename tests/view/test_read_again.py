"""The promise: what a compaction writes is what the next process reads, however odd the CSV has become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from eventcsv import EventCsv

if TYPE_CHECKING:
    from pathlib import Path


def job_on(path: Path, data: bytes, key: str = "PO_NUMBER") -> EventCsv:
    """Return a job over a CSV that it has looked at once."""
    path.write_bytes(data)
    job = fresh(path, key)
    job.compact()
    return job


def fresh(path: Path, key: str = "PO_NUMBER") -> EventCsv:
    """Return the job as a process that has just started finds it."""
    return EventCsv(path, key=key, durability="process", settle_s=0)


@pytest.mark.parametrize(
    ("csv", "column"),
    [(b"PO_NUMBER,STATUS\n1,\n2,\n", "x;PO_NUMBER;y"), (b"PO_NUMBER\tA\n1\t\n2\t\n", "a,PO_NUMBER,b")],
)
def test_a_column_that_hides_the_delimiter_hides_it_from_nobody(tmp_path: Path, csv: bytes, column: str) -> None:
    """Of a header that a result made ambiguous it is known how it was written."""
    path = tmp_path / "input.csv"
    job_on(path, csv).emit_result("1", "COMPLETED", columns={column: "v"})
    fresh(path).compact()
    fresh(path).emit_result("2", "COMPLETED")
    assert fresh(path).compact().changed
    assert [] == fresh(path).pending()
    assert not fresh(path).replay().changed


@pytest.mark.parametrize(
    ("first", "saved", "key"),
    [
        pytest.param(
            b"PO_NUMBER;X\nPO,1;a\nPO2;b\n", b'PO_NUMBER\n"PO,1"\n"PO2"\n', "PO_NUMBER", id="cells that could be two"
        ),
        pytest.param(b"PO_NUMBER;X\nPO2;a\n;b\n", b'PO_NUMBER\nPO2\n""\n', "PO_NUMBER", id="a blank cell alone"),
        pytest.param(b'"my;key";X\nPO2;a\n', b'"my;key"\nPO2\n', "my;key", id="a header that is all quoted now"),
    ],
)
def test_a_save_that_leaves_one_column_is_read_again(tmp_path: Path, first: bytes, saved: bytes, key: str) -> None:
    """In the process that took it over, in the next one, and by a replay it is the same."""
    path = tmp_path / "input.csv"
    job = job_on(path, first, key)
    path.write_bytes(saved)
    job.compact()
    rows = fresh(path, key).progress().rows
    assert not fresh(path, key).compact().changed
    job.emit_result("PO2", "COMPLETED")
    job.compact()
    assert not fresh(path, key).replay().changed
    assert (rows, ()) == (fresh(path, key).progress().rows, fresh(path, key).verify().findings)


@pytest.mark.parametrize("csv", [b"PO_NUMBER;A\nPO1;\n\n", b"PO_NUMBER;A\nPO1;\r\nPO2;\n", b"PO_NUMBER;A\n\nPO1;\n"])
def test_a_csv_that_nothing_has_touched_is_no_finding(tmp_path: Path, csv: bytes) -> None:
    """It stays as it is, blank lines and mixed line ends included, and that is what a replay gives."""
    job = job_on(tmp_path / "input.csv", csv)
    assert ((), False) == (job.verify().findings, job.replay().changed)
    assert csv == (tmp_path / "input.csv").read_bytes()


def test_a_column_whose_guard_is_removed_stays_one(tmp_path: Path) -> None:
    """The apostrophe before a name that looks like a formula may go; results and edits still mean that column."""
    path = tmp_path / "input.csv"
    job = job_on(path, b"PO_NUMBER;STATUS\nPO1;\nPO2;\n")
    job.emit_result("PO1", "COMPLETED", columns={"-B": "r"}, last_processed="t1")
    job.compact()
    path.write_bytes(path.read_bytes().replace(b"'-B", b"-B"))
    job.compact()
    path.write_bytes(path.read_bytes().replace(b"PO2;;;", b"PO2;;;typed"))
    job.compact()
    job.emit_result("PO1", "COMPLETED", columns={"-B": "later"}, last_processed="t2")
    job.compact()
    expected = "PO_NUMBER;STATUS;LAST_PROCESSED;-B\nPO1;COMPLETED;t2;later\nPO2;;;typed\n"
    assert expected == path.read_text()
    assert not job.replay().changed
