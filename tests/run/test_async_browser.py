"""A real headless browser, opened by an asynchronous initializer, and there for every PO of its worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import browsing
import pytest
from conftest import cannot, wait_until
from runs import make_job, rows_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_process_is_left")


def test_one_browser_serves_all_pos_of_its_worker(tmp_path: Path) -> None:
    """It is opened once, serves each PO, and is gone after the run."""
    if browsing.CHROMIUM is None:
        cannot("there is no chromium here")
    job = make_job(tmp_path, {f"PO{number}": "supplier of" for number in range(6)})
    with job.session() as session:
        result = session.run(browsing.download, workers=2, initializer=browsing.browser, timeout_s=60)
    assert {"COMPLETED": 6} == result.by_status, result.failed
    rows = rows_of(job)
    assert all(row["SUPPLIER"] == f"supplier of {key}" for key, row in rows.items())
    pids = {int(row["PID"]) for row in rows.values()}
    assert 1 <= len(pids) <= 2
    wait_until(lambda: not any(_is_alive(pid) for pid in pids))


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
