"""The promise: `make compact` works on any CSV, and never touches a job that is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from conftest import cannot, tree

PROJECT: Final = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of what make needs, with what `make compact` would install."""
    if not Path(sys.prefix, "installed").exists():
        cannot("make did not install what these tests run with")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy2(PROJECT / name, tmp_path / name)
    shutil.copytree(PROJECT / "data/sample", tmp_path / "data/sample")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def make(place: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run make there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "EVENTCSV"))}
    return subprocess.run(["make", *args], cwd=place, env=environment, capture_output=True, text=True, check=False)


def test_the_sample_is_copied_once(place: Path) -> None:
    """The first run brings the sample, the second one finds it up to date."""
    assert "COMPLETED 202" in make(place, "compact").stdout
    before = tree(place / "data/input")
    assert "was not touched" in make(place, "compact").stdout
    assert before == tree(place / "data/input")


@pytest.mark.parametrize("lost", ["input.csv", "input.csv and backup"])
def test_a_job_whose_csv_is_gone_is_not_overwritten(place: Path, lost: str) -> None:
    """A log whose CSV was deleted is rebuilt, or refused; it never makes way for the sample."""
    make(place, "compact")
    (place / "data/input/input.csv").unlink()
    if "backup" in lost:
        shutil.rmtree(place / "data/input/backup")
    log = (place / "data/input/input.events/events-000001.jsonl").read_bytes()
    done = make(place, "compact")
    assert log == (place / "data/input/input.events/events-000001.jsonl").read_bytes()
    assert ("gone" in done.stdout, done.returncode) == (("backup" not in lost), 0 if "backup" not in lost else 2)


@pytest.mark.parametrize("name", ["my orders.csv", "it's mine.csv", "x'; touch pwned; echo 'y.csv", "Ärger.csv"])
def test_any_name_will_do(place: Path, name: str) -> None:
    """CSV=path takes a name as it is, whatever a shell would make of it."""
    (place / name).write_text("PO_NUMBER;STATUS\nPO1;\n")
    done = make(place, "compact", f"CSV={name}")
    assert (0, "") == (done.returncode, done.stderr)
    assert not (place / "pwned").exists()
    assert not (place / "data/input").exists()
