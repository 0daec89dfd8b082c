"""`log init` and `copy`: an event log on a PostgreSQL server, and the way there and back."""

from __future__ import annotations

from typing import Annotated

import typer

from eventcsv.cli import messages
from eventcsv.cli.options import Debug, Json, Key, LockTimeoutS
from eventcsv.cli.output import Output, progress_bar
from eventcsv.event import DEFAULT_KEY

commands = typer.Typer(
    name="log",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Make the event log on a PostgreSQL server, and copy one from there or to there.",
    epilog="With the log on a server, workers on many machines work on one job. Passwords belong into `~/.pgpass`, "
    "PGPASSWORD or a service file, as with every client of PostgreSQL.",
)


@commands.command(
    epilog="Example: `eventcsv log init postgresql://owner@db.example/work --worker scraper --operator ana`"
)
def init(
    url: Annotated[str, typer.Argument(metavar="URL", help="The server and its database.", show_default=False)],
    *,
    job: Annotated[
        str | None, typer.Option("--job", metavar="NAME", help="Begin this job, too, for workers that have no CSV.")
    ] = None,
    key: Key = DEFAULT_KEY,
    workers: Annotated[
        list[str] | None,
        typer.Option("--worker", metavar="ROLE", help="Let this role append and claim; can be given several times."),
    ] = None,
    operators: Annotated[
        list[str] | None,
        typer.Option("--operator", metavar="ROLE", help="Let this role read the log, run, copy and prune, too."),
    ] = None,
    lock_timeout_s: LockTimeoutS = 30.0,
    debug: Debug = False,  # noqa: ARG001  # its callback has turned it on
    as_json: Json = False,
) -> None:
    """Make eventcsv's schema in a database, unless it is there. It takes a role that may create a schema."""
    from eventcsv.log.opening import init_server, is_url  # noqa: PLC0415  # --help has no need of them

    if not is_url(url):
        raise typer.BadParameter("has to be postgresql://host/database", param_hint="URL")
    place, lines = init_server(url, job=job, key=key, workers=workers, operators=operators, timeout_s=lock_timeout_s)
    Output(as_json).show({"log": place, "job": job}, iter(lines))


@commands.command(
    epilog="Example: `eventcsv log copy data/input/input.events postgresql://db.example/work --job input`"
)
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A directory or a URL.", show_default=False)],
    target: Annotated[str, typer.Argument(metavar="TO", help="A directory or a URL.", show_default=False)],
    *,
    job: Annotated[
        str | None,
        typer.Option("--job", metavar="NAME", help="The job on the server. [default: the directory's name]"),
    ] = None,
    key: Key = DEFAULT_KEY,
    lock_timeout_s: LockTimeoutS = 30.0,
    debug: Debug = False,  # noqa: ARG001  # its callback has turned it on
    as_json: Json = False,
) -> None:
    """Copy a job's log between a directory and a server, and compare the two. Run it again to go on where it stopped.

    Nobody may append meanwhile. Afterwards use one of the two only: backups and the checkpoint fit both.
    """
    from eventcsv.log.copy import copy_log  # noqa: PLC0415  # most commands copy nothing
    from eventcsv.log.opening import open_to_copy  # noqa: PLC0415  # the same

    with progress_bar("copying") as on_progress:
        result = copy_log(
            open_to_copy(source, job=job, other=target, key=key, lock_timeout_s=lock_timeout_s),
            open_to_copy(target, job=job, other=source, key=key, lock_timeout_s=lock_timeout_s),
            on_progress=on_progress,
        )
    Output(as_json).show(result, messages.copy_lines(result))
