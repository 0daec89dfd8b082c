"""`report`: what happened, on a page for whoever was not there."""

from __future__ import annotations

import os
import sys
from pathlib import Path  # typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated

import typer

from eventcsv.cli import messages
from eventcsv.cli.options import Done, Json, on_job
from eventcsv.cli.output import Exit, Output, fail, progress_bar
from eventcsv.event import DONE

if TYPE_CHECKING:
    from eventcsv.job import EventCsv  # noqa: TC004  # `on_job` evaluates what comes behind it

commands = typer.Typer(rich_markup_mode="markdown")


@commands.command(epilog="Example: `eventcsv report data/input/input.csv -o report.html`")
@on_job
def report(
    job: EventCsv,
    *,
    page: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help='The page; "-" for standard output. [default: CSV.report.html]'
        ),
    ] = None,
    done: Done = list(DONE),  # noqa: B006  # typer copies it
    unmasked: Annotated[
        bool, typer.Option("--unmasked", help="Show secrets, e-mail addresses and queries of URLs as they are.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace FILE though it is no earlier report. CSV, log and backups never are."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell what happened, on one page of HTML for whoever was not there. Changes nothing but the page.

    It shows what is done, throughput, failures by message, the slowest POs, retries, what the log saw, and the history
    of each PO. It is one file and loads nothing, so it can be mailed around. Whoever gets it sees the POs, suppliers,
    file names, folders and error messages of the CSV. Passwords, tokens, e-mail addresses and what follows the ? in a
    URL are replaced by `***`, as far as they can be told; a name in a message is not. Look at it before you send it.
    """
    from eventcsv.report.page import default_output, render, summary_of  # noqa: PLC0415  # the operator side

    to_stdout = str(page) == "-"
    if to_stdout and as_json:
        raise typer.BadParameter("the page and --json cannot both go to standard output", param_hint="--output")
    path = None if to_stdout else str(page or default_output(job.csv_path))
    with progress_bar("reading") as on_progress:
        found = job.report(path, done=done, unmasked=unmasked, force=force, on_progress=on_progress)
    if path is not None:
        record, lines = (
            summary_of(found, os.path.abspath(path)),
            messages.report_lines(found, path, os.path.getsize(path)),
        )
        Output(as_json).finish(record, lines, damaged=bool(found.damage))
    _to_stdout(render(found))
    raise typer.Exit(Exit.DAMAGE if found.damage else Exit.FINE)


def _to_stdout(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        fail(f"standard output: {error.strerror}. The page is not whole", Exit.FAILED)
