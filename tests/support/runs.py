"""A run over a CSV whose column DO says what befalls each PO, and ways to look at what came of it."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jobs
import pytest
from conftest import read_csv, wait_until

from eventcsv import EventCsv

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator


DEADLINE_S: Final = 60.0


def make_job(folder: Path, todo: dict[str, str]) -> EventCsv:
    """Make a CSV whose column DO tells the workers what to do with each PO."""
    path = folder / "input.csv"
    lines = [f"{key};;{what};{folder}\n" for key, what in todo.items()]
    path.write_text("PO_NUMBER;STATUS;DO;IN\n" + "".join(lines))
    return EventCsv(path, durability="process")


def rows_of(job: EventCsv) -> dict[str, dict[str, str]]:
    """Return the rows of the CSV by their key."""
    return {row["PO_NUMBER"]: row for row in read_csv(Path(job.csv_path))}


def by_po(job: EventCsv) -> dict[str, str]:
    """Return the STATUS of each PO."""
    return {key: row["STATUS"] for key, row in rows_of(job).items()}


def by_number(records: list[dict[str, Any]]) -> list[str]:
    """Return the POs of some lines of the log, in the order of their numbers."""
    return sorted([record["key"] for record in records], key=lambda key: int(key[2:]))


def calls(folder: Path) -> list[str]:
    """Return the POs that workers have noted, in their order."""
    path = folder / "calls"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def pids(folder: Path) -> list[int]:
    """Return the worker of each PO that was noted."""
    path = folder / "calls"
    return [int(line.split()[1]) for line in path.read_text().splitlines()] if path.exists() else []


def children(folder: Path) -> list[int]:
    """Return the programs that workers have started."""
    return [int(line) for line in (folder / "children").read_text().split()]


@contextlib.contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Do something while a run is going on; what goes wrong with it fails the test."""
    errors: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001  # it is raised where the test sees it
            errors.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join()
    if errors:
        raise errors[0]


ADOPTS: Final = sys.platform == "linux"


STARTED: Final = [
    "a child",
    "a leader",
    pytest.param("an orphan", marks=pytest.mark.skipif(not ADOPTS, reason="only Linux tells whose an orphan was")),
]


def noted(folder: Path, what: str) -> set[str]:
    """Return the workers that have noted a start or an end."""
    path = folder / what
    found = path.read_text().split() if path.exists() else []
    assert len(set(found)) == len(found)
    return set(found)


@contextlib.contextmanager
def session_elsewhere(path: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Hold a session in another process, killed at the end unless it has ended by itself."""
    for name in ("begun", "waiting", "gate"):
        path.with_name(name).unlink(missing_ok=True)
    script = jobs.start(path, wait=True, **options)
    try:
        wait_until(lambda: path.with_name("waiting").exists() or script.poll() is not None)
        yield script
    finally:
        script.kill()
        script.communicate()


def at_work(job: EventCsv, workers: int = 2, **options: Any) -> subprocess.Popen[str]:
    """Start a session in another process; return it when each of its workers is on a PO."""
    script = jobs.start(Path(job.csv_path), workers=workers, **options)
    wait_until(lambda: workers == len(calls(Path(job.csv_path).parent)))
    return script


def ask_to_stop(script: subprocess.Popen[str], number: int, folder: Path) -> None:
    """Send a session's process a signal, and wait until it has heard it."""
    script.send_signal(number)
    wait_until((folder / "asked").exists)
