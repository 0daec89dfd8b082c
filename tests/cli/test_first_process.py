"""The promise: as the first process of a container eventcsv buries the dead, and ends when it is asked to."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import pytest
from command_line import COMMAND
from conftest import cannot, statuses, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_A_NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
JOBS = '''
import os, pathlib, time

def download(key, row):
    """Take a while, and tell."""
    pathlib.Path(f"taken-{key}").write_text(str(os.getpid()))
    while not os.path.exists("gate"):
        time.sleep(0.01)
'''


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a CSV of three POs and a module that works on them."""
    try:
        tried = subprocess.run([*IN_A_NAMESPACE, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        cannot("there is no unshare here")
    if tried.returncode:
        cannot(f"a namespace takes root: {tried.stderr.strip()}")
    (tmp_path / "input.csv").write_text("PO_NUMBER;STATUS\nPO1;\nPO2;\nPO3;\n")
    (tmp_path / "jobs.py").write_text(JOBS)
    return tmp_path


@contextlib.contextmanager
def first(place: Path, *args: str, terminal: int | None = None) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start eventcsv as a first process; give what was started and the process, as it is called outside."""
    owns = [] if terminal is None else ["--ctty"]  # then its Ctrl-C is for us
    process = subprocess.Popen(
        ["setsid", *owns, *IN_A_NAMESPACE, *COMMAND, *args],
        cwd=place,
        stdin=terminal,
        stdout=-1,
        stderr=-1,
    )
    try:
        wait_until((place / "taken-PO1").exists, "the first PO")
        yield process, psutil.Process(process.pid).children()[0].pid
    finally:
        process.kill()
        process.communicate(timeout=60)


def zombies(pid: int) -> list[int]:
    """Return the children of a process that it has not buried."""
    return [child.pid for child in psutil.Process(pid).children() if child.status() == psutil.STATUS_ZOMBIE]


def test_orphans_are_buried(place: Path) -> None:
    """Whatever somebody starts in the container and leaves behind is no zombie once it has ended."""
    with first(place, "run", "input.csv", "jobs:download") as (process, pid):
        for _ in range(3):
            subprocess.run(["nsenter", "--target", str(pid), "--pid", "sh", "-c", "sleep 0.2 &"], check=True)
        wait_until(lambda: len(psutil.Process(pid).children()) > 1, "an orphan")
        wait_until(lambda: len(psutil.Process(pid).children()) == 1, "its end")
        assert [] == zombies(pid)
        (place / "gate").touch()
        _, err = process.communicate(timeout=60)
    assert (0, ["COMPLETED"] * 3) == (process.returncode, statuses(place / "input.csv")), err


def see_taken(pid: int, number: int) -> None:
    """Wait until neither a process nor its child has a signal waiting for it, and the one has had time to tell."""
    processes = [pid, *(child.pid for child in psutil.Process(pid).children())]

    def is_taken() -> bool:
        masks = re.findall(
            "(?:Sig|Shd)Pnd:\t(.*)", "".join(Path(f"/proc/{one}/status").read_text() for one in processes)
        )
        return not any(int(mask, 16) >> (number - 1) & 1 for mask in masks)

    for _ in range(2):
        wait_until(is_taken, "the signal is taken")
        time.sleep(0.2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_run(place: Path, number: int) -> None:
    """What stops a container lets the worker finish what it is on, and the exit code is the run's."""
    with first(place, "run", "input.csv", "jobs:download") as (process, pid):
        os.kill(pid, number)
        see_taken(pid, number)
        (place / "gate").touch()
        out, err = process.communicate(timeout=60)
    assert (1, True) == (process.returncode, f"by {signal.Signals(number).name}".encode() in out), (out, err)
    assert ["COMPLETED", "", ""] == statuses(place / "input.csv")


def test_ctrl_c_in_the_terminal_counts_once(place: Path) -> None:
    """It reaches the run by itself; to pass it on, too, would stop what is in flight at once."""
    master, terminal = pty.openpty()
    with first(place, "run", "input.csv", "jobs:download", terminal=terminal) as (process, pid):
        os.write(master, b"\x03")
        see_taken(pid, signal.SIGINT)
        (place / "gate").touch()
        out, err = process.communicate(timeout=60)
    os.close(master)
    os.close(terminal)
    assert (1, True) == (process.returncode, b"by SIGINT" in out), (out, err)
    assert ["COMPLETED", "", ""] == statuses(place / "input.csv")


def test_its_end_is_the_containers(place: Path) -> None:
    """Killed, it ends as a program that a shell tells of: with 128 and the signal."""
    with first(place, "run", "input.csv", "jobs:download") as (process, pid):
        (child,) = psutil.Process(pid).children()
        child.kill()
        process.communicate(timeout=60)
    assert 128 + signal.SIGKILL == process.returncode
