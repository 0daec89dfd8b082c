"""The real command line."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

COMMAND: Final = [sys.executable, "-m", "eventcsv"]


def run(*args: object, cwd: Path | str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run eventcsv and return what it said.

    Args:
        args: Its arguments.
        cwd: In which folder; by default here.
        variables: What is added to its environment.
    """
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def run_in(place: Path, *args: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run eventcsv in a folder and return what it said."""
    return run(*args, cwd=place, **variables)
