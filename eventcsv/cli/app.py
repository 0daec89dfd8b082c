"""The commands together, in the order in which people need them, and what all of them take.

Results go to standard output, everything else to standard error. Exit codes: 0 fine (a torn last line after a crash is
fine, and said), 1 failed, 2 used wrongly, 3 finished but damage was found, 4 a lock or session is held by another.
"""

from __future__ import annotations

from collections import UserDict
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_group

import eventcsv
from eventcsv.cli.log_output import configure_logging
from eventcsv.cli.options import Debug, LogFile, LogLevel
from eventcsv.cli.output import Exit, fail
from eventcsv.version import __version__

_MODULES: Final = {
    "run": "run",
    "status": "status",
    "pending": "status",
    "history": "status",
    "report": "report",
    "emit": "emit",
    "compact": "compact",
    "replay": "compact",
    "backup": "backup",
    "verify": "verify",
    "prune": "verify",
    "export": "formats",
    "import": "formats",
    "log": "log",
}
"""The commands, and which module of `commands` has each of them."""


@cache
def _part(module: str) -> TyperGroup:
    return get_group(import_module(f"eventcsv.cli.commands.{module}").commands)


class _Loaded(UserDict[str, Any]):
    """Commands by name, loaded when they are asked for: all of them take longer than what most of them do."""

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401  # a command of typer's, which it does not export
        part = _part(self.data[name])
        return part.commands.get(name, part)


class _Commands(TyperGroup):
    """The commands; Ctrl-C in one of them says what it means, where typer would end without a word."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401  # whatever typer gives to a group
        super().__init__(**{**settings, "commands": _Loaded(_MODULES)})

    def invoke(self, ctx: Any) -> object:  # noqa: ANN401  # a context of typer's, which it does not export
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail("stopped; run it again to go on", Exit.FAILED)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Crash-proof results for long jobs over the rows of a CSV. "
    "Workers append results to an event log; these commands run the workers and keep the CSV up to date with the log.",
    epilog="Exit codes: 0 fine, 1 failed, 2 used wrongly, 3 finished but damage was found, 4 held by another process."
    f"\n\nDocuments: `{eventcsv.__path__[0]}/docs`",
)


@app.callback(invoke_without_command=True)
def _top(
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    log_level: LogLevel = None,
    log_file: LogFile = None,
    debug: Debug = False,  # noqa: ARG001  # its callback has turned it on
) -> None:
    if version:
        typer.echo(f"eventcsv {__version__}")
        raise typer.Exit
    configure_logging(log_level, log_file)
