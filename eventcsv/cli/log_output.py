"""Where log output of the command line goes, and how it looks: for people on a terminal, as JSON elsewhere."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pathlib import Path


def configure_logging(level: str | None, path: Path | None) -> None:
    """Send what the library logs, from a level on, to standard error or to a file.

    Args:
        level: The level; by default "error", or "info" with a file.
        path: The file, or None for standard error.

    Raises:
        typer.BadParameter: There is no such level, or the file cannot be written.
    """
    level = level or ("info" if path else "error")
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise typer.BadParameter(f"has to be debug, info, warning or error, not {level!r}", param_hint="--log-level")
    logger = logging.getLogger("eventcsv")
    logger.setLevel(number)
    handler: logging.Handler = _StderrHandler() if path is None else logging.StreamHandler(_opened(path))
    handler.setFormatter(_LazyFormatter(colors=path is None and sys.stderr.isatty()))
    logger.handlers = [handler]
    logger.propagate = False


def _opened(path: Path) -> Any:  # noqa: ANN401  # a text file
    """Open a log file for appending, readable by its owner only."""
    from eventcsv.log.scan import LINE_START  # noqa: PLC0415  # few have such a file
    from eventcsv.storage.system import NEW_FILE_MODE  # noqa: PLC0415  # few have such a file

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, NEW_FILE_MODE)

    try:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                if (begins := file.read(len(LINE_START))) and (begins[:1] != b"{" or begins == LINE_START):
                    refusal = f"{path}: is no such log, and would be damaged. Name another file"
                    raise typer.BadParameter(refusal, param_hint="--log-file")
        return open(path, "a", encoding="utf-8", opener=opener)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="--log-file") from None


class _StderrHandler(logging.Handler):
    """Writes to what standard error is at the moment: above a live view there is one of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            print(self.format(record), file=sys.stderr, flush=True)  # noqa: T201  # this is the place that prints


class _LazyFormatter(logging.Formatter):
    """structlog's formatter: readable on a terminal, JSON elsewhere; imported with the first record."""

    def __init__(self, *, colors: bool) -> None:
        super().__init__()
        self._colors = colors

    def format(self, record: logging.LogRecord) -> str:
        import structlog  # noqa: PLC0415  # most commands log nothing

        renderer: Any = structlog.dev.ConsoleRenderer() if self._colors else structlog.processors.JSONRenderer()
        return structlog.stdlib.ProcessorFormatter(processor=renderer).format(record)
