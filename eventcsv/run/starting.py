"""Whether worker processes can start: what they are given, how many there can be, and why one did not."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from eventcsv.errors import EventCsvError, ServerError

if TYPE_CHECKING:
    from eventcsv.log.interface import Log
    from eventcsv.worker.messages import Finalizer, Initializer, Process, Work

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


def check_callable(process: Process) -> None:
    """Refuse early what no worker could call.

    Raises:
        EventCsvError: It is a generator, or does not take a PO and its row.
    """
    if inspect.isgeneratorfunction(process) or inspect.isasyncgenfunction(process):
        raise EventCsvError("process: is a generator, which nobody would go through. Let it return what came of a PO")
    try:
        signature = inspect.signature(process)
    except ValueError:  # a function of C that does not tell
        return
    try:
        signature.bind("", {})
    except TypeError as error:
        raise EventCsvError(
            f"process: is called with a PO and its row, and does not take them: {error}. "
            "Define it as def download(key, row)"
        ) from None


def check_hook(hook: Initializer | Finalizer | None, name: str) -> None:
    """Refuse early an initializer or finalizer that no worker could call, or that would do nothing.

    Args:
        hook: It.
        name: What to call it in errors.

    Raises:
        EventCsvError: It is a generator that is no context manager, or it takes arguments.
    """
    if hook is None:
        return
    if inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
        manager = "asynccontextmanager" if inspect.isasyncgenfunction(hook) else "contextmanager"
        raise EventCsvError(f"{name}: is a generator. Put @contextlib.{manager} before it, and give it as initializer")
    inner = inspect.unwrap(hook)
    if name == "finalizer" and (inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner)):
        raise EventCsvError(f"{name}: is a context manager, which nobody would enter. Give it as initializer")
    with suppress(ValueError):  # a function of C that does not tell
        try:
            inspect.signature(hook).bind()
        except TypeError as error:
            raise EventCsvError(f"{name}: is called without arguments, and does not take that: {error}") from None


def check_importable(work: Work) -> None:
    """Refuse early what no worker could be given."""
    if is_from_nowhere(work.process) or is_from_nowhere(work.initializer):
        raise EventCsvError(
            "process: is defined where no worker process can import it from (a notebook, the REPL, python -c, standard "
            "input). Put it, and the initializer, in a module of its own, as jobs.py, and import it from there"
        )
    try:
        work.check()
    except Exception as error:
        raise EventCsvError(
            f"process: cannot be given to a worker process: {error}. "
            "Define it, the initializer and the finalizer at the top of a module, by name and not as a lambda"
        ) from error


def workers_possible(log: Log, workers: int) -> tuple[int, str]:
    """Tell how many workers a run can have: as many as wanted, unless the server of the log lacks connections.

    Args:
        log: The log that they record in.
        workers: How many are wanted.

    Returns:
        How many there will be, and why they are fewer, or "".

    Raises:
        ServerError: There is not even a connection for one.
    """
    left = log.connections_left()
    if left is None or left > workers:  # one more than workers: claims are renewed on a connection of their own
        return workers, ""
    who = "1 worker needs" if workers == 1 else f"{workers} workers need"
    needs = f"{who} {workers + 1} connections besides the run's"
    if left <= 1:
        raise ServerError(
            f"{log.place}: {needs}, and the server has {left} left. Raise max_connections there, or end what else "
            "is connected"
        )
    return left - 1, f"{needs}, and the server has {left} left; going on with {left - 1}"
