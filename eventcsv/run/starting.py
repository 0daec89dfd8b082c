"""Why a worker process may not start: what Python cannot import again there. Light."""

from __future__ import annotations

import functools
import os
import sys
from typing import Final

_COMMAND: Final = "eventcsv.cli.app"


def is_from_nowhere(function: object) -> bool:
    """Tell whether a function is defined where no other process can import it from: a notebook, `python -c`."""
    while isinstance(function, functools.partial):
        function = function.func
    module = getattr(function, "__module__", None)
    return module == "__main__" and not os.path.isfile(getattr(sys.modules["__main__"], "__file__", None) or "")


def hiding_files(folder: str) -> list[str]:
    """Return the files and packages in a folder that have the name of a module of Python's own, which they hide."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if _module_of(entry) in sys.stdlib_module_names]
    except OSError:
        return []
    return sorted(found)


def _module_of(entry: os.DirEntry[str]) -> str:
    if entry.name.endswith(".py"):
        return entry.name.removesuffix(".py")
    return entry.name if os.path.isfile(os.path.join(entry.path, "__init__.py")) else ""


def advice() -> str:
    """Return what to say of a worker that ended before it was ready."""
    folder = os.getcwd()
    if hiding := hiding_files(folder):
        names = ", ".join(hiding)
        one = len(hiding) == 1
        whose = "hides Python's own module of that name" if one else "hide Python's own modules of those names"
        return f" before it was ready: {names} in {folder} {whose}. Rename {'it' if one else 'them'}"
    said = " before it was ready; what it printed stands above"
    if _COMMAND in sys.modules:
        return said
    return f'{said}. A script that starts a session needs its calls below if __name__ == "__main__":'
