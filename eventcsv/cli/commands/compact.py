"""`compact` and `replay`: the CSV as its event log says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from eventcsv.cli import messages
from eventcsv.cli.options import AcceptEdit, Json, on_job
from eventcsv.cli.output import Output, progress_bar, say
from eventcsv.cli.wording import near, summary
from eventcsv.masking import masked

if TYPE_CHECKING:
    from eventcsv.job import EventCsv  # noqa: TC004  # `on_job` evaluates what comes behind it
    from eventcsv.view.compact_result import CompactResult

_LOOK_S: Final = 1.0

commands = typer.Typer(rich_markup_mode="markdown")


@commands.command(epilog="Example: `eventcsv compact data/input/input.csv --watch`")
@on_job
def compact(
    job: EventCsv,
    *,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep going until Ctrl-C: fold what workers record within about a second."),
    ] = False,
    accept_edit: AcceptEdit = False,
    as_json: Json = False,
) -> None:
    """Bring the CSV up to date with its event log.

    Only results that are new are folded in. The CSV is replaced in one step: whoever opens it sees the old version or
    the new one. When nothing is new it is not touched. What people changed and saved, in however old a copy, is kept,
    and undoes no result that the copy does not hold.
    """
    output = Output(as_json)
    if watch:
        _keep_current(job, output, accept_edit=accept_edit)
    with progress_bar("folding") as on_progress:
        result = job.compact(accept_edit=accept_edit, on_progress=on_progress)
    output.finish(result, messages.compaction_lines(result), damaged=bool(result.damage))


@commands.command(epilog="Example: `eventcsv replay data/input/input.csv --backup input_20251002_124311_8f3a12c4.csv`")
@on_job
def replay(
    job: EventCsv,
    *,
    backup: Annotated[
        str | None,
        typer.Option("--backup", metavar="NAME", help="The backup to start from. [default: the newest valid one]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Rebuild the CSV from a backup and the event log after it.

    This is the way back from a CSV that was broken, deleted or edited by mistake. When the result differs from what it
    holds now, that is kept as a backup first.
    """
    with progress_bar("folding") as on_progress:
        result = job.replay(backup=backup, on_progress=on_progress)
    Output(as_json).finish(result, messages.compaction_lines(result), damaged=bool(result.damage))


def _keep_current(job: EventCsv, output: Output, *, accept_edit: bool) -> NoReturn:
    """Compact whenever there is a reason to, until Ctrl-C or SIGTERM."""
    from eventcsv.signals import stop_signals  # noqa: PLC0415  # other commands stop at once
    from eventcsv.view.refresh import keep_current  # noqa: PLC0415  # the operator side

    damaged = False

    def on_result(result: CompactResult) -> None:
        nonlocal damaged
        damaged |= bool(result.damage)
        if _is_news(result):
            output.show(result, iter([summary(result)]))

    say(f"watching {near(job.csv_path)}; Ctrl-C ends it")
    with stop_signals() as stop:
        first = job.compact(accept_edit=accept_edit)  # when it does not even work once, that is no trouble that passes
        damaged = bool(first.damage)
        output.show(first, iter([summary(first)]))
        keep_current(
            job,
            stop,
            refresh_s=_LOOK_S,
            on_result=on_result,
            on_trouble=lambda trouble: say(f"eventcsv: {masked(trouble)}. Watching on"),
        )
    say("stopped; the last state follows")
    last = job.compact()
    output.finish(last, messages.compaction_lines(last), damaged=damaged or bool(last.damage))


def _is_news(result: CompactResult) -> bool:
    """Tell whether a compaction did anything worth a line."""
    return bool(result.changed or result.damage or result.unknown or result.edited or result.rebuilt or result.base)
