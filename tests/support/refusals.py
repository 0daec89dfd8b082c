"""What has to be refused: a job with a history, what is done with it, and a look at whether anything changed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import command_line
import pytest
from conftest import job_on

from eventcsv import EventCsv, Status
from eventcsv.errors import NoKeyColumn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Action = Callable[[EventCsv], object]


GOOD = b"PO_NUMBER;STATUS;SUPPLIER\nPO1;;\nPO2;;\nPO3;;\n"


def compact(job: EventCsv) -> object:
    return job.compact()


def replay(job: EventCsv) -> object:
    return job.replay()


def emit(job: EventCsv) -> object:
    return job.emit_result("PO3", Status.COMPLETED)


def history(job: EventCsv) -> object:
    return list(job.history("PO1"))


def verify(job: EventCsv) -> object:
    return job.verify()


def named(action: Action) -> str:
    return str(getattr(action, "__name__", ""))


def with_history(path: Path) -> EventCsv:
    """Make a CSV with a log, a backup and a checkpoint, and one result that is not folded yet."""
    path.write_bytes(GOOD)
    job = job_on(path)
    job.emit_result("PO1", Status.COMPLETED)
    job.compact()
    job.emit_result("PO2", Status.COMPLETED)
    job.close()
    return job_on(path)


def everything(folder: Path) -> dict[str, object]:
    """Return what stands in a folder: each name, what it is, and its content as far as it may be read."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            readable = os.access(path, os.R_OK)
            content = (status.st_mtime_ns, path.read_bytes() if readable else status.st_size)
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_ino, content)
    return found


def refused(folder: Path, error: type[Exception], action: Callable[[], object]) -> str:
    """Do what has to be refused; return the message, once it is clear that nothing changed."""
    before = everything(folder)
    with pytest.raises(error) as caught:
        action()
    assert type(caught.value) in {error, NoKeyColumn}
    assert before == everything(folder)
    return str(caught.value)


def assert_says(message: str, *parts: str) -> None:
    assert [] == [part for part in parts if part not in message], message


def run(folder: Path, *args: str | bytes, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, on a wide terminal without colours."""
    done = command_line.run(*args, cwd=folder, before=before, COLUMNS="400", NO_COLOR="1", PYTHONIOENCODING="utf-8")
    assert "Traceback" not in done.stderr
    return done
