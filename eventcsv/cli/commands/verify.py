"""`verify` and `prune`: whether the log is whole, and what of it nobody needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from eventcsv.cli import messages
from eventcsv.cli.options import Json, on_job
from eventcsv.cli.output import Output, progress_bar

if TYPE_CHECKING:
    from eventcsv.job import EventCsv  # noqa: TC004  # `on_job` evaluates what comes behind it

commands = typer.Typer(rich_markup_mode="markdown")


@commands.command(epilog="Example: `eventcsv verify data/input/input.csv`")
@on_job
def verify(job: EventCsv, *, as_json: Json = False) -> None:
    """Check every segment, line, seal and backup, and CSV against a replay. Writes nothing.

    It goes on after the first finding; exit code 3 says that there were any.
    """
    with progress_bar("checking") as on_progress:
        report = job.verify(on_progress=on_progress)
    Output(as_json).finish(report, messages.verify_lines(report), damaged=bool(report.findings))


@commands.command(epilog="Example: `eventcsv prune data/input/input.csv --dry-run`")
@on_job
def prune(
    job: EventCsv,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove the segments of the event log that no kept backup needs.

    The history of POs is shorter afterwards. Nothing else ever removes a part of the log.
    """
    result = job.prune(dry_run=dry_run)
    Output(as_json).show(result, messages.prune_lines(result))
