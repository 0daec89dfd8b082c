"""The promise: the public API is typed, so that a wrong use of it is found before it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import eventcsv

PROJECT: Final = Path(__file__).parents[2]
EXAMPLE: Final = PROJECT / "tests/typing/public_api.py"
ALL_WRONG: Final = """\
import eventcsv
from eventcsv import EventCsv, Status

job = EventCsv("po.csv", durability="disc")
job.emit_result(1, Status.COMPLETED)
job.emit_result("PO1", Status.COMPLETED, attachments_found="two")
job.emit_result("PO1", Status.DONE)
job.compact().changes
job.export("out.docx", file_format="docx")
with job.session() as session:
    session.run(lambda key: None, workers=1)
eventcsv.compact
"""


def test_mypy_knows_right_from_wrong(tmp_path: Path) -> None:
    """Each line of a wrong use is an error; the right use, which `make check` checks too, has none."""
    (tmp_path / "wrong.py").write_text(ALL_WRONG)
    (tmp_path / "right.py").write_text(EXAMPLE.read_text())
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}/cache", "."]
    environment = os.environ | {"MYPYPATH": str(PROJECT)}
    done = subprocess.run(mypy, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    found = re.findall(r"^(?:\./)?(\w+\.py):(\d+): error", done.stdout, re.MULTILINE)
    assert {("wrong.py", str(line)) for line in (4, 5, 6, 7, 8, 9, 11, 12)} == set(found), done.stdout


def test_the_example_uses_every_public_name() -> None:
    """A new name of the face, or a new method, cannot be forgotten there."""
    text = EXAMPLE.read_text()
    used = set(re.findall(r"\w+", text))
    methods = {name for name in dir(eventcsv.EventCsv) if not name.startswith("_")}
    only_within = {
        "fingerprint",
        "hold",
        "leave_csv",
        "link_note",
        "log_dir",
        "log_place",
        "new_segment",
        "record_as",
        "record_deferred",
        "record_stopped",
    }
    assert set() == (set(eventcsv.__all__) | methods) - used - only_within
