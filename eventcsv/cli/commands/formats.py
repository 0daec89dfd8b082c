"""`export` and `import`: the CSV as another kind of file, and a CSV from one."""

from __future__ import annotations

import sys
from pathlib import Path  # typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eventcsv.cli import messages
from eventcsv.cli.options import BackupDir, CsvPath, Debug, Json, Key, checked, job_class, on_job
from eventcsv.cli.output import Exit, Output, say_damage
from eventcsv.event import DEFAULT_KEY

if TYPE_CHECKING:
    from eventcsv.job import EventCsv  # noqa: TC004  # `on_job` evaluates what comes behind it

commands = typer.Typer(rich_markup_mode="markdown")


@commands.command(epilog="Example: `eventcsv export data/input/input.csv -o results.xlsx`")
@on_job
def export(
    job: EventCsv,
    *,
    target: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="FILE", help="A .xlsx, .parquet or .jsonl file; `-` for JSON Lines on stdout."
        ),
    ],
    file_format: Annotated[
        Literal["xlsx", "parquet", "jsonl"] | None,
        typer.Option("--format", help="The format. [default: by the suffix of FILE]", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a FILE that is no earlier export, or was changed since.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the CSV, by the log's present end, as an Excel workbook, Parquet or JSON Lines. CSV is not touched.

    Every cell stays the text that it is: leading zeros, long numbers, what looks like a formula or a date.
    """
    on_stdout = target == "-"
    if on_stdout and (as_json or file_format not in {None, "jsonl"}):
        raise typer.BadParameter("takes JSON Lines only, and no --json beside them", param_hint="-o -")
    with checked("-o"):
        result = job.export(
            sys.stdout.buffer if on_stdout else target, file_format="jsonl" if on_stdout else file_format, force=force
        )
    if on_stdout:
        sys.stdout.flush()
    else:
        Output(as_json).show(result, messages.export_lines(result))
    say_damage(job.log_dir, result.damage)
    raise typer.Exit(Exit.DAMAGE if result.damage else Exit.FINE)


@commands.command("import", epilog="Example: `eventcsv import orders.xlsx data/input/input.csv --sheet Open`")
def import_(
    workbook: Annotated[
        Path, typer.Argument(metavar="WORKBOOK", help="The .xlsx file.", show_default=False, readable=False)
    ],
    csv: CsvPath,
    *,
    sheet: Annotated[
        str | None, typer.Option("--sheet", metavar="NAME", help="The sheet. [default: the first one in sight]")
    ] = None,
    visible: Annotated[
        bool, typer.Option("--visible", help="Leave out rows that are hidden, by a filter for instance.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a CSV that is there, as long as it has no event log.")
    ] = False,
    key: Key = DEFAULT_KEY,
    backup_dir: BackupDir = None,
    debug: Debug = False,  # noqa: ARG001  # its callback has turned it on
    as_json: Json = False,
) -> None:
    """Make CSV, to begin a job with, of a sheet of an Excel workbook.

    The row that holds the key column is the header; what stands above it is left out. Text stays text, dates become
    2025-10-02, and numbers have no more digits than Excel keeps. Merged cells give their text to all that they cover.
    """
    job = job_class()(csv, key=key, backup_dir=backup_dir)
    result = job.import_workbook(workbook, sheet=sheet, force=force, visible=visible)
    Output(as_json).show(result, messages.import_lines(result))
