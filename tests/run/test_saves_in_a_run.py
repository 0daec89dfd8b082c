"""The promise at work: a run with the CSV open in a spreadsheet that is saved at bad moments, stopped and resumed."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import pytest
from command_line import COMMAND
from conftest import cannot, read_csv, wait_until

from eventcsv import EventCsv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OFFICE: Final = Path(__file__).parents[1] / "support/spreadsheet.py"
PYTHON_WITH_UNO: Final = "/usr/bin/python3"

WORK: Final = """
import os, time

def work(key, row):
    time.sleep({pause_s})
    fd = os.open({journal!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, (key + "\\n").encode())
    os.close(fd)
    number = int(key[2:])
    return {{"STATUS": "COMPLETED", "ATTACHMENTS_FOUND": number % 7, "SUPPLIER": f"Supplier, {{number}}"}}
"""


class Operator(Protocol):
    """Somebody with the CSV open."""

    def load(self) -> None:
        """Open the CSV as it is now."""

    def type(self, key: str, column: str, text: str) -> None:
        """Type into a cell of what was loaded."""

    def save(self) -> None:
        """Save what was loaded and typed."""


class ByHand:
    """An operator whose program writes cells as they were."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> None:
        self._rows = read_csv(self._path)

    def type(self, key: str, column: str, text: str) -> None:
        next(row for row in self._rows if row["PO_NUMBER"] == key)[column] = text

    def save(self) -> None:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, fieldnames=list(self._rows[0]), delimiter=";", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        self._path.write_bytes(out.getvalue().encode())


class InLibreOffice:
    """An operator with a real LibreOffice."""

    def __init__(self, path: Path, how: str) -> None:
        self._path = path
        command = [PYTHON_WITH_UNO, str(OFFICE), how]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert "ready" == json.loads(self._process.stdout.readline())

    def _ask(self, *command: object) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def load(self) -> None:
        self._ask("load", str(self._path))
        cells = self._ask("cells")
        assert isinstance(cells, list)
        self._columns = {name: index for index, name in enumerate(cells[0])}
        self._rows = {row[0]: index for index, row in enumerate(cells)}

    def type(self, key: str, column: str, text: str) -> None:
        self._ask("type", self._rows[key], self._columns[column], text)

    def save(self) -> None:
        self._ask("save")

    def close(self) -> None:
        assert self._process.stdin is not None
        with self._process:  # closes its input, which ends it
            pass


class AtWork:
    """A run of the real command over a CSV of some POs."""

    def __init__(self, folder: Path, count: int, pause_s: float) -> None:
        self.path = folder / "orders.csv"
        self.keys = [f"PO{number:06d}" for number in range(1, count + 1)]
        self.path.write_text("PO_NUMBER;STATUS;Comment\n" + "".join(f"{key};PENDING;\n" for key in self.keys))
        self._journal = folder / "journal"
        self._journal.touch()
        (folder / "portal.py").write_text(WORK.format(journal=str(self._journal), pause_s=pause_s))
        self._folder = folder
        self.told: list[dict[str, object]] = []
        self.said = ""

    def worked_on(self) -> Counter[str]:
        return Counter(self._journal.read_text().split())

    def start(self) -> None:
        command = [*COMMAND, "run", str(self.path), "portal:work", "--workers", "3", "--json"]
        self._run = subprocess.Popen(
            command, cwd=self._folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def wait_for(self, share: float) -> None:
        wait_until(lambda: len(self.worked_on()) >= share * len(self.keys), f"{share:.0%} of the POs")

    def stop(self) -> None:
        os.kill(self._run.pid, signal.SIGINT)
        self.end()

    def end(self) -> None:
        out, errors = self._run.communicate(timeout=300)
        record = json.loads(out)
        self.told += record["edits"]
        self.said += errors
        # Each save that was taken over while the run went on is told at once, or at its end.
        assert errors.count("a save was taken over") <= len(record["edits"])


def worked_through(job: AtWork, someone: Operator) -> dict[tuple[str, str], str]:
    """Go through a run with five saves at bad moments; return what was typed."""
    typed: dict[tuple[str, str], str] = {}

    def save(key: str, column: str, text: str) -> None:
        someone.type(key, column, text)
        typed[key, column] = text
        someone.save()

    def taken_over() -> None:
        key, column = list(typed)[-1]
        wait_until(
            lambda: any(event.cells.get(column) == typed[key, column] for event in EventCsv(job.path).history(key)),
            "the save in the log",
        )

    someone.load()
    job.start()
    job.wait_for(0.15)
    save(job.keys[0], "Comment", "typed in a copy from before the run")
    taken_over()
    save(job.keys[-1], "STATUS", "COMPLETED")  # by hand, in the same old copy
    taken_over()
    wait_until(lambda: "ATTACHMENTS_FOUND" in read_csv(job.path)[0], "a column of results")
    someone.load()
    job.wait_for(0.6)
    save(job.keys[-2], "Comment", "typed in a fresh copy; saved late")
    job.stop()
    save(job.keys[1], "Comment", "typed while nothing ran")
    job.start()
    job.wait_for(0.8)
    save(job.keys[2], "ATTACHMENTS_FOUND", "99")  # over a result
    job.end()
    return typed


def check(job: AtWork, typed: dict[tuple[str, str], str]) -> None:
    """No PO was done twice, no result is gone, what was typed is there, and every save is told."""
    eventcsv = EventCsv(job.path)
    result = eventcsv.compact()  # what was saved at the very end
    told = len(job.told) + len(result.edits)
    assert [] == [key for key, times in job.worked_on().items() if times > 1]
    by_hand = {key for (key, column), text in typed.items() if column == "STATUS"}
    assert set(job.keys) - by_hand == job.worked_on().keys() - by_hand
    rows = {row["PO_NUMBER"]: row for row in read_csv(job.path)}
    assert job.keys == list(rows)
    assert {"COMPLETED"} == {row["STATUS"] for row in rows.values()}
    for key in job.worked_on():
        expected = {"ATTACHMENTS_FOUND": str(int(key[2:]) % 7), "SUPPLIER": f"Supplier, {int(key[2:])}"}
        expected |= {column: text for (whose, column), text in typed.items() if whose == key}
        assert expected == {column: rows[key][column] for column in expected}
    for (key, column), text in typed.items():
        assert (key, column, text) == (key, column, rows[key][column])
        assert any(event.kind == "edit" and event.cells.get(column) == text for event in eventcsv.history(key))
    assert 5 == told
    assert "a save was taken over" in job.said
    assert not eventcsv.replay().changed
    assert () == eventcsv.verify().findings


def test_saved_at_bad_moments(tmp_path: Path) -> None:
    """By a program that writes every cell as it was."""
    job = AtWork(tmp_path, 120, 0.2)
    check(job, worked_through(job, ByHand(job.path)))


@pytest.fixture
def office() -> Iterator[Callable[[Path, str], InLibreOffice]]:
    """Start a LibreOffice for a CSV."""
    if not shutil.which("soffice"):
        cannot("there is no LibreOffice here")
    if subprocess.run([PYTHON_WITH_UNO, "-c", "import uno"], capture_output=True, check=False).returncode:
        cannot("there is no python3-uno here")
    made: list[InLibreOffice] = []

    def start(path: Path, how: str) -> InLibreOffice:
        made.append(InLibreOffice(path, how))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.mark.long
@pytest.mark.parametrize("how", ["text", "default"])
def test_saved_by_libreoffice(tmp_path: Path, office: Callable[[Path, str], InLibreOffice], how: str) -> None:
    """446 POs with the CSV open in a real LibreOffice, also as its import dialog proposes to split it."""
    job = AtWork(tmp_path, 446, 0.1)
    check(job, worked_through(job, office(job.path, how)))
