"""The real command line, pieces of Python in a process of their own, and what a terminal shows."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COMMAND: Final = [sys.executable, "-m", "eventcsv"]


def ran(
    command: Sequence[str | bytes], cwd: Path | str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with variables added to its environment; return what it said, whatever that was."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        timeout=300,
    )


def run(
    *args: object, cwd: Path | str | None = None, before: Sequence[str] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run eventcsv and return what it said.

    Args:
        args: Its arguments.
        cwd: In which folder; by default here.
        before: A program that starts it, with that one's arguments.
        variables: What is added to its environment.
    """
    words = [arg if isinstance(arg, bytes) else str(arg) for arg in args]
    return ran([*before, *COMMAND, *words], cwd, **variables)


def run_in(place: Path, *args: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run eventcsv in a folder and return what it said."""
    return run(*args, cwd=place, **variables)


def python(
    code: str, *args: object, cwd: Path | str | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a piece of Python in a process of its own and return what it said."""
    return ran([sys.executable, "-c", code, *map(str, args)], cwd, **variables)


class Talk:
    """A piece of Python in a process of its own that is talked with line by line; killed where a `with` ends."""

    def __init__(self, code: str, *args: object, **variables: str) -> None:
        command = [sys.executable, "-c", code, *map(str, args)]
        self.process = subprocess.Popen(command, env=os.environ | variables, stdin=-1, stdout=-1, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def hear(self) -> str:
        """Return the next line that it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def say(self, line: object) -> None:
        """Tell it something."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """Tell it no more, and return what it says until its end, which has to be a good one."""
        said, _ = self.process.communicate(timeout=120)
        assert 0 == self.process.returncode
        return said


def shown_on(terminal: int) -> bytes:
    """Return what is written to a pseudo-terminal until nobody has its other side open any more; close it."""
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            piece = b""
        if not piece:
            os.close(terminal)
            return shown
        shown += piece
