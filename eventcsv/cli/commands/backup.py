"""`backup list`, `create` and `restore`: whole copies of the CSV."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from eventcsv.cli import messages
from eventcsv.cli.options import BackupName, Json, on_job
from eventcsv.cli.output import Output
from eventcsv.cli.wording import near

if TYPE_CHECKING:
    from eventcsv.job import EventCsv  # noqa: TC004  # `on_job` evaluates what comes behind it

commands = typer.Typer(
    name="backup",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="List, make and restore backups of the CSV.",
    epilog="A backup is a whole copy of the CSV. `eventcsv run` makes one each time and keeps the newest five.",
)


@commands.command("list", epilog="Example: `eventcsv backup list data/input/input.csv`")
@on_job
def list_backups(job: EventCsv, *, as_json: Json = False) -> None:
    """List the backups, the newest first."""
    known = job.backups()
    record = {"directory": job.backup_dir, "backups": [dataclasses.asdict(backup) for backup in known]}
    Output(as_json).show(record, messages.backup_lines(known, job.backup_dir))


@commands.command(epilog="Example: `eventcsv backup create data/input/input.csv`")
@on_job
def create(job: EventCsv, *, as_json: Json = False) -> None:
    """Bring the CSV up to date and keep a copy of it. One that was made like this is never removed by itself."""
    made = job.back_up()
    Output(as_json).show(made, iter([f"{near(made.path)}: {made.record_count:,} rows"]))


@commands.command(
    epilog="Example: `eventcsv backup restore data/input/input.csv input_20251002_124311_8f3a12c4.csv --no-replay`"
)
@on_job
def restore(
    job: EventCsv,
    backup: BackupName,
    *,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay/--no-replay",
            help="Fold the log after the backup onto it. Without, CSV becomes exactly the backup, and what was "
            "recorded since stays in the log only.",
        ),
    ] = True,
    as_json: Json = False,
) -> None:
    """Put a backup in the place of CSV. What CSV holds now is kept as a backup first."""
    result = job.restore(backup, replay=replay)
    Output(as_json).finish(result, messages.compaction_lines(result), damaged=bool(result.damage))
