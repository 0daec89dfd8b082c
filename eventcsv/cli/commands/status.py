"""`status`, `pending` and `history`: how far a job is. They write nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from eventcsv.cli import messages
from eventcsv.cli.options import Done, Json, Po, on_job
from eventcsv.cli.output import Exit, Output, fail, say
from eventcsv.cli.wording import near
from eventcsv.event import DONE

if TYPE_CHECKING:
    from eventcsv.cli.live.monitor import Monitor
    from eventcsv.job import EventCsv  # noqa: TC004  # `on_job` evaluates what comes behind it
    from eventcsv.log.types import Damage

commands = typer.Typer(rich_markup_mode="markdown")


@commands.command(epilog="Example: `eventcsv status data/input/input.csv --watch`")
@on_job
def status(
    job: EventCsv,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Follow a run from another terminal, until Ctrl-C.")] = False,
    done: Done = list(DONE),  # noqa: B006  # typer copies it
    as_json: Json = False,
) -> None:
    """Show how far the job is: POs done and pending, rate, time left, failures. Writes nothing, disturbs no run."""
    from eventcsv.cli.live.monitor import Monitor  # noqa: PLC0415  # the operator side

    output = Output(as_json)
    monitor = Monitor(job, done)
    if not watch:
        output.finish(monitor.progress, messages.progress_lines(monitor.progress), damaged=bool(monitor.damage))
    _watch(monitor, output)
    raise typer.Exit(Exit.DAMAGE if monitor.damage else Exit.FINE)


def _watch(monitor: Monitor, output: Output) -> None:
    from eventcsv.cli.live.fullscreen import has_full_screen  # noqa: PLC0415  # only a terminal needs rich
    from eventcsv.cli.live.watch import LINE_EVERY_S, LOOK_S, watch_in_full_screen, watch_in_lines  # noqa: PLC0415  # with Polars

    if output.as_json:
        watch_in_lines(monitor, lambda line: _show_progress(monitor, output, line), every_s=LOOK_S)
    elif has_full_screen():
        watch_in_full_screen(monitor)
        output.show({}, messages.progress_lines(monitor.progress))
    else:
        watch_in_lines(monitor, lambda line: _show_progress(monitor, output, line), every_s=LINE_EVERY_S)


def _show_progress(monitor: Monitor, output: Output, line: str) -> None:
    output.show(monitor.progress, iter([line]))


@commands.command(epilog="Example: `eventcsv pending data/input/input.csv | xargs -n 1 ./download.sh`")
@on_job
def pending(
    job: EventCsv,
    *,
    done: Done = list(DONE),  # noqa: B006  # typer copies it
    as_json: Json = False,
) -> None:
    """List the POs that are not done, one a line, in the order of the CSV. Writes nothing."""
    keys = job.pending(done=done)
    Output(as_json).show({"csv_path": job.csv_path, "pending": keys}, iter(keys))


@commands.command(epilog="Example: `eventcsv history data/input/input.csv PO15262984`")
@on_job
def history(
    job: EventCsv,
    po: Po,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON an event, for programs.")] = False,
) -> None:
    """Show what the event log says of one PO, from the oldest event to the newest. Writes nothing."""
    found = 0
    damage: list[Damage] = []
    for event in job.history(po, on_damage=damage.append):
        found += 1
        Output(as_json).show(messages.event_record(event), messages.event_lines(event))
    damage = [item for item in damage if not item.torn]
    for item in damage:
        say(f"eventcsv: {job.log_place}: damaged, and perhaps about {po}: {item}")
    if damage:
        raise typer.Exit(Exit.DAMAGE)
    if not found:
        fail(
            f"{near(job.log_place)}: no events of {po!r}. If there is such a row, it has no result yet",
            Exit.FAILED,
        )
