"""The commands together, in the order in which people need them, and what all of them take.

Results go to standard output, everything else to standard error. Exit codes: 0 fine (a torn last line after a crash is
fine, and said), 1 failed, 2 used wrongly, 3 finished but damage was found, 4 a lock or session is held by another.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import eventcsv
from eventcsv.cli.commands import backup, compact, emit, formats, log, report, run, status, verify
from eventcsv.cli.log_output import configure_logging
from eventcsv.cli.options import Debug, LogFile, LogLevel
from eventcsv.cli.output import Exit, fail
from eventcsv.version import __version__


class _Commands(TyperGroup):
    """The commands; Ctrl-C in one of them says what it means, where typer would end without a word."""

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
for part in (run, status, report, emit, compact):
    app.add_typer(part.commands)
app.add_typer(backup.commands, name="backup")
for part in (verify, formats):
    app.add_typer(part.commands)
app.add_typer(log.commands, name="log")


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
