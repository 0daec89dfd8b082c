"""What a command has to say: its result on standard output, all else on standard error, and its exit code."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import orjson
import typer

from eventcsv.cli.live.inline import can_be_drawn_on
from eventcsv.cli.wording import SHOWN
from eventcsv.masking import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from _typeshed import DataclassInstance

    from eventcsv.log.interface import ProgressCallback
    from eventcsv.log.types import Damage


class Exit(IntEnum):
    """What an exit code says."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    DAMAGE = 3
    HELD = 4


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's result goes."""

    as_json: bool

    def show(self, result: DataclassInstance | dict[str, Any], lines: Iterator[str]) -> None:
        """Print a result: as JSON, if that was asked for, else as lines."""
        try:
            if self.as_json:
                typer.echo(_json(result if isinstance(result, dict) else dataclasses.asdict(result)))
            else:
                for line in lines:
                    typer.echo(escaped(line))
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            fail(f"standard output: {error.strerror}. The work itself was done, only its report is lost", Exit.FAILED)

    def finish(self, result: DataclassInstance | dict[str, Any], lines: Iterator[str], *, damaged: bool) -> NoReturn:
        """Print a result, and end; the exit code says whether damage was found."""
        self.show(result, lines)
        raise typer.Exit(Exit.DAMAGE if damaged else Exit.FINE)


def _json(record: dict[str, Any]) -> str:
    try:
        return orjson.dumps(record, default=str).decode()
    except TypeError:  # a path that is no UTF-8
        return json.dumps(record, default=str)


@contextmanager
def progress_bar(what: str) -> Iterator[ProgressCallback | None]:
    """Show a bar on a terminal once the work takes long enough to wonder."""
    if not can_be_drawn_on(sys.stderr.fileno()):
        yield None
        return
    from rich.console import Console  # noqa: PLC0415  # only a terminal needs it
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415  # no pipe has one

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def say(text: str) -> None:
    """Print a line on standard error. When it cannot be written, the work is not the worse for it."""
    try:
        typer.echo(escaped(text), err=True)
    except OSError:
        silence(sys.stderr)


def flushed(stream: TextIO) -> bool:
    """Write what is left in a stream; tell whether it could be."""
    try:
        stream.flush()
    except OSError:
        return False
    return True


def silence(stream: TextIO) -> None:
    """Let what is left in a stream, and whatever comes, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say_damage(place: str, damage: Sequence[Damage]) -> None:
    """Name what is damaged in a log, as far as anybody reads on."""
    for item in damage[:SHOWN]:
        say(f"eventcsv: {place}: damaged: {item}")


def fail(text: str, code: Exit) -> NoReturn:
    """Say why there is no result, and end."""
    say(f"eventcsv: {text}")
    raise typer.Exit(code)
