"""Something else in the place of a file is neither followed, read, written nor replaced, and the error names it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from conftest import job_on, statuses
from refusals import assert_says, compact, emit, history, named, refused, replay, with_history

from eventcsv import AppendError, UnsafePath

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from refusals import Action


def plant_symlink(path: Path, original: Path) -> str:
    path.symlink_to(original)
    return "a symbolic link"


def plant_directory(path: Path, _original: Path) -> str:
    path.mkdir()
    (path / "precious.txt").write_text("somebody's work")
    return "a directory"


def plant_fifo(path: Path, _original: Path) -> str:
    os.mkfifo(path)
    return "a FIFO"


def plant_hard_link(path: Path, original: Path) -> str:
    path.hardlink_to(original)
    return "hard links"


@dataclass(frozen=True, slots=True)
class Place:
    """A path that eventcsv reads or writes, and who does.

    Attributes:
        name: Below the folder of the CSV.
        actions: What has to refuse a stranger there.
        exceptions: Strangers that may stand there.
    """

    name: str
    actions: tuple[Action, ...]
    exceptions: tuple[object, ...] = field(default=())


PLACES = (
    Place("input.csv", (compact, replay), exceptions=(plant_hard_link,)),
    Place(".input.csv.eventcsv.tmp", (compact, replay), exceptions=(plant_hard_link,)),
    Place("input.events", (compact, replay, emit, history), exceptions=(plant_directory, plant_hard_link)),
    Place("input.events/events-000001.jsonl", (compact, replay, history), exceptions=(plant_hard_link,)),
    Place("input.events/events-000001.jsonl", (emit,)),
    Place("input.events/events-000002.jsonl", (compact, replay, history), exceptions=(plant_hard_link,)),
    Place("input.events/events-000002.jsonl", (emit,)),
    Place("input.events/append.lock", (emit,)),
    Place("input.events/compact.lock", (compact, replay)),
    Place("input.events/checkpoint.json", (compact, replay), exceptions=(plant_hard_link,)),
    Place("input.events/checkpoint.json.tmp", (compact, replay), exceptions=(plant_hard_link,)),
)


PLANTS = (plant_symlink, plant_directory, plant_fifo, plant_hard_link)


PLANTED = [
    pytest.param(place.name, plant, action, id=f"{named(action)}-{place.name}-{plant.__name__.removeprefix('plant_')}")
    for place in PLACES
    for plant in PLANTS
    if plant not in place.exceptions
    for action in place.actions
]


@pytest.mark.parametrize(("name", "plant", "action"), PLANTED)
def test_a_stranger_in_the_place_of_a_file_is_refused(
    tmp_path: Path, name: str, plant: Callable[[Path, Path], str], action: Action
) -> None:
    """What eventcsv did not make is not followed, read, written or replaced; once it is gone, the work goes on."""
    folder, victims = tmp_path / "job", tmp_path / "victims"
    folder.mkdir()
    victims.mkdir()
    job = with_history(folder / "input.csv")
    path, original = folder / name, victims / "original"
    was_there = path.exists()
    if was_there:
        path.rename(original)
    else:
        original.write_text("somebody's work")
    what = plant(path, original)

    message = refused(tmp_path, AppendError if action is emit else UnsafePath, lambda: action(job))
    assert_says(message, str(path), what, "untouched")

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    if was_there:
        original.rename(path)
    action(job_on(folder / "input.csv"))
    assert 2 == job_on(folder / "input.csv").compact().by_status["COMPLETED"] - (action is emit)


def test_a_second_name_of_the_csv_keeps_the_old_content(tmp_path: Path) -> None:
    """A hard link to the CSV is somebody's copy of that moment: the CSV is replaced, never written into."""
    path = tmp_path / "input.csv"
    job = with_history(path)
    copy = tmp_path / "copy.csv"
    copy.hardlink_to(path)
    before = copy.read_bytes()

    assert job.compact().changed

    assert before == copy.read_bytes()
    assert ["COMPLETED", "COMPLETED", ""] == statuses(path)


def test_a_second_name_of_the_temporary_file_keeps_its_content(tmp_path: Path) -> None:
    """The name of the temporary file is ours, but what else its file is known by is not written into."""
    path = tmp_path / "input.csv"
    job = with_history(path)
    victim = tmp_path / "victim.txt"
    victim.write_text("somebody's work")
    (tmp_path / ".input.csv.eventcsv.tmp").hardlink_to(victim)

    job.compact()

    assert "somebody's work" == victim.read_text()
    assert ["COMPLETED", "COMPLETED", ""] == statuses(path)


@pytest.mark.parametrize("action", [compact, replay, emit], ids=named)
@pytest.mark.parametrize("there", ["symlink", "dangling symlink", "file"])
def test_a_first_log_is_not_made_through_a_stranger(csv_path: Path, action: Action, there: str) -> None:
    """Where the log's directory belongs, a link or a file is refused before anything is made."""
    folder = csv_path.parent
    log_dir = folder / "input.events"
    if there == "symlink":
        (folder / "elsewhere").mkdir()
    if there == "file":
        log_dir.write_text("somebody's work")
    else:
        log_dir.symlink_to(folder / "elsewhere")

    error = AppendError if action is emit else UnsafePath
    message = refused(folder, error, lambda: action(job_on(csv_path)))

    assert_says(message, str(log_dir), "untouched")
