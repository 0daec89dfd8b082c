"""The promise that a run does not work for hours on a CSV that can never be brought up to date."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest
from command_line import python, run
from conftest import KEYS, cannot, read_csv, tree

from eventcsv import EventCsv, InvalidCsv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

SOMEBODY: Final = 1101


def _ran(*command: str | Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        cannot(f"there is no {command[0]} here")
    if done.returncode:
        cannot(f"{command[0]} does not work here: {done.stderr.strip()}")


@contextmanager
def mounted(path: Path) -> Iterator[tuple[str, ...]]:
    """A single file that is mounted, as into a container."""
    original = path.with_name("elsewhere.csv")
    shutil.copy(path, original)
    _ran("mount", "--bind", original, path)
    try:
        yield ("is a mount point by itself", "Mount its folder")
    finally:
        subprocess.run(["umount", str(path)], check=True)


@contextmanager
def flagged(path: Path, flag: str, *said: str) -> Iterator[tuple[str, ...]]:
    """A file or folder with a flag that keeps even root away."""
    _ran("chattr", f"+{flag}", path)
    try:
        yield (*said, f"chattr -{flag} {path}")
    finally:
        subprocess.run(["chattr", f"-{flag}", str(path)], check=True)


@contextmanager
def on_a_read_only_disk(path: Path) -> Iterator[tuple[str, ...]]:
    """A folder that is mounted for reading only."""
    _ran("mount", "--bind", path.parent, path.parent)
    try:
        _ran("mount", "-o", "remount,bind,ro", path.parent)
        yield ("its folder", "file system that is read-only")
    finally:
        subprocess.run(["umount", str(path.parent)], check=True)


OBSTACLES: Final[dict[str, Callable[[Path], AbstractContextManager[tuple[str, ...]]]]] = {
    "mount point": mounted,
    "immutable": lambda path: flagged(path, "i", "is immutable", "cannot be replaced"),
    "append-only": lambda path: flagged(path, "a", "is append-only", "cannot be replaced"),
    "immutable folder": lambda path: flagged(path.parent, "i", f"its folder {path.parent} is immutable"),
    "append-only folder": lambda path: flagged(path.parent, "a", f"its folder {path.parent} is append-only"),
    "read-only disk": on_a_read_only_disk,
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A CSV in a folder of its own, with a space and an umlaut in its path."""
    path = tmp_path / "Aufträge 1" / "in put.csv"
    path.parent.mkdir()
    path.write_text("PO_NUMBER;STATUS\n" + "".join(f"{key};\n" for key in KEYS))
    return path


def enter(job: EventCsv) -> None:
    """Begin a session."""
    with job.session():
        pytest.fail("it began")


@pytest.mark.parametrize("name", OBSTACLES)
def test_it_is_found_before_work_begins(place: Path, name: str) -> None:
    """A session and a compaction are refused with what is in the way by the CSV's name; nothing is made or changed."""
    with OBSTACLES[name](place) as said:
        before = tree(place.parent)
        for act in (enter, EventCsv.compact, EventCsv.replay):
            with pytest.raises(InvalidCsv) as caught:
                act(EventCsv(place))
            assert str(caught.value).startswith(f"{place}: ")
            assert not [part for part in said if part not in str(caught.value)]
            assert "tmp" not in str(caught.value).removeprefix(str(place)).replace(str(place.parent), "")
        assert before == tree(place.parent)
    with EventCsv(place).session():
        pass


@pytest.mark.parametrize("name", ["mount point", "immutable"])
def test_the_first_result_warns(place: Path, name: str) -> None:
    """It is recorded, as always, and whoever records it hears that it will not get into the CSV, and why."""
    with OBSTACLES[name](place) as said:
        done = run("emit", place, "PO1", "COMPLETED")
        assert 0 == done.returncode
        assert "recorded PO1" in done.stdout
        assert not [part for part in said if part not in done.stderr]
        watched = run("compact", "--watch", place)
        assert 1 == watched.returncode
        assert not [part for part in said if part not in watched.stderr]
    assert {"COMPLETED": 1, "": 2} == EventCsv(place).compact().by_status
    assert "COMPLETED" == read_csv(place)[0]["STATUS"]


def test_it_is_told_once_to_who_calls_the_library(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A worker logs a warning with its first result, and none with the others."""
    with OBSTACLES["mount point"](place):
        job = EventCsv(place, durability="process")
        for key in KEYS:
            job.emit_result(key, "COMPLETED")
    assert 1 == sum("view.cannot_be_replaced" in record.getMessage() for record in caplog.records)


AS_SOMEBODY: Final = """
import os, sys
from eventcsv.storage.obstacles import obstacle_to
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
print(obstacle_to(sys.argv[2]))
"""


def found(uid: int, path: Path) -> str:
    """Return what is in somebody's way."""
    done = python(AS_SOMEBODY, uid, path)
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


def test_a_folder_that_somebody_may_not_write_to(open_folder: Path) -> None:
    """The file is theirs, and that does not help: it is the folder that counts, and a sticky one lets only owners."""
    path = open_folder / "input.csv"
    path.write_text("PO_NUMBER;STATUS\nPO1;\n")
    os.chown(path, SOMEBODY, SOMEBODY)
    assert f"its folder {open_folder} may not be written to by you, user {SOMEBODY}" in found(SOMEBODY, path)
    open_folder.chmod(0o777)
    assert "None" == found(SOMEBODY, path)
    open_folder.chmod(0o1777)
    assert "None" == found(SOMEBODY, path)
    assert "None" == found(0, path)
    assert "it is sticky, as /tmp is" in found(SOMEBODY + 1, path)
