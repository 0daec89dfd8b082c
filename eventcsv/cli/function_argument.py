"""Finds the function that a command line names as MODULE:FUNCTION; whatever is wrong with it is told plainly."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from eventcsv.errors import EventCsvError
from eventcsv.masking import masked
from eventcsv.run.starting import hiding_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_SHOWN: Final = 8


def named_function(name: str, option: str) -> Callable[..., Any]:
    """Import what MODULE:FUNCTION names.

    Args:
        name: The name, as in `jobs:download`.
        option: What the command line calls it, for errors.

    Raises:
        typer.BadParameter: There is no such thing.
        EventCsvError: The module cannot be imported.
    """
    module_name, colon, path = name.partition(":")
    if not colon or not path or not module_name:
        raise typer.BadParameter(
            f"has to be a module and a function, as jobs:download, not {name!r}", param_hint=option
        )
    if "/" in module_name or module_name.endswith(".py"):
        better = Path(module_name).stem
        raise typer.BadParameter(
            f"{module_name!r} is a file; give the name of the module, {better}:{path}, and run it from its folder",
            param_hint=option,
        )
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise typer.BadParameter(f"{module_name!r} cannot be the name of a module; jobs is one", param_hint=option)
    return _function_in(_imported(module_name, option), path, option)


def _imported(module_name: str, option: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise typer.BadParameter(
                f"there is no module {module_name!r} in {os.getcwd()} or on Python's path. "
                f"Run it from the folder that holds {error.name}.py",
                param_hint=option,
            ) from None
        raise EventCsvError(f"{module_name}: cannot be imported: {_blame(error)}. Is it installed here?") from error
    except SystemExit as error:
        raise EventCsvError(
            f"{module_name}: cannot be imported: it ends Python as it is imported. "
            'Put what only a script does below if __name__ == "__main__":'
        ) from error
    except Exception as error:
        raise EventCsvError(f"{module_name}: cannot be imported: {_blame(error)}. {_remedy()}") from error


def _remedy() -> str:
    hiding = hiding_files(os.getcwd())
    return f"Mend it there{f'; {hiding[0]} here hides a module of Python itself, too: rename it' if hiding else ''}"


def _function_in(module: ModuleType, path: str, option: str) -> Callable[..., Any]:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is None:
        own = [name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")]
        there = f"; it has {', '.join(own[:_SHOWN])}" if own else ""
        raise typer.BadParameter(f"{module.__name__} has no function {path!r}{there}", param_hint=option)
    if not callable(found):
        raise typer.BadParameter(
            f"{module.__name__} has no function {path!r}, that is of type {type(found).__name__}", param_hint=option
        )
    return found  # type: ignore[no-any-return]  # it is callable, which is all that is known of it


def _blame(error: Exception) -> str:
    """Return an error of the caller's code with its place there."""
    what = f"{type(error).__name__}: {error}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    if isinstance(error, SyntaxError) or not frames:  # a SyntaxError names its place itself
        return masked(what)
    return masked(f"{what} ({frames[-1].filename}, line {frames[-1].lineno})")
