"""Tracebacks are for those who ask for them: with --debug, or EVENTCSV_DEBUG=1."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING, Final

from eventcsv.masking import masked

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE: Final = "EVENTCSV_DEBUG"
_HERE: Final = os.path.dirname(os.path.dirname(__file__))


def turn_on(wanted: bool) -> bool:  # noqa: FBT001  # a callback of typer
    """Ask for tracebacks from now on, here and in the workers to come."""
    if wanted:
        os.environ[VARIABLE] = "1"
    return wanted


def is_on() -> bool:
    """Tell whether tracebacks are asked for."""
    return os.environ.get(VARIABLE, "").lower() in {"1", "true", "t", "yes", "y", "on"}


def details(error: BaseException) -> Iterator[str]:
    """Yield the lines of the traceback, secrets masked, if anybody asked for it."""
    if is_on():
        for text in traceback.format_exception(error):
            yield from masked(text).splitlines()


def unforeseen(error: Exception) -> str:
    """Return what to say of an error that nobody foresaw."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(_HERE)] or frames
    place = f" ({os.path.basename(ours[-1].filename)}, line {ours[-1].lineno})" if ours else ""
    how = "what stands above" if is_on() else "what the same command prints with --debug"
    return (
        f"a mistake in eventcsv: {type(error).__name__}: {error}{place}. What was recorded is safe in the log. "
        f"Please report it to its authors, with {how}"
    )
