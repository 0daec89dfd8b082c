"""`run`: worker processes that do what a function of the caller's says."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from typing import TYPE_CHECKING

import typer

from eventcsv.cli import messages
from eventcsv.cli.function_argument import named_function
from eventcsv.cli.live.inline import own_screen
from eventcsv.cli.options import (
    AcceptEdit,
    Done,
    Finalizer,
    Function,
    Initializer,
    Interrupted,
    Json,
    LeaseS,
    RefreshS,
    SessionName,
    TimeoutS,
    Workers,
    Yes,
    checked,
    on_job,
)
from eventcsv.cli.output import Exit, Output, fail, say, say_damage
from eventcsv.cli.wording import near
from eventcsv.errors import EventCsvError, reason_of
from eventcsv.event import DONE
from eventcsv.job import EventCsv
from eventcsv.log.interface import LEASE_S
from eventcsv.masking import masked
from eventcsv.run.starting import check_callable, check_hook, workers_possible

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventcsv.cli.live.inline import Screen
    from eventcsv.cli.live.monitor import Monitor
    from eventcsv.run.run import RunResult
    from eventcsv.run.session import Session
    from eventcsv.worker.messages import Process

commands = typer.Typer()


@commands.command(epilog="Example: `eventcsv run data/input/input.csv jobs:download --workers 4 --timeout 300`")
@on_job
def run(
    job: EventCsv,
    function: Function,
    *,
    workers: Workers = 1,
    timeout_s: TimeoutS = None,
    interrupted: Interrupted = "retry",
    initializer: Initializer = None,
    finalizer: Finalizer = None,
    done: Done = list(DONE),  # noqa: B006  # typer copies it
    session_id: SessionName = None,
    lease_s: LeaseS = LEASE_S,
    refresh_s: RefreshS = 1.0,
    accept_edit: AcceptEdit = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Work through the POs that are not done, with worker processes. Run it again to go on after a crash.

    Each result is recorded before its worker takes up the next PO. A worker that dies or takes too long costs its own
    PO only (STATUS=ERROR, with what happened) and is replaced. CSV is current within a second, and a backup of it is
    made first. Ctrl-C once lets the workers finish what they are on, twice stops now.

    Exit code 0 means that every PO of this run was worked on and none ended in ERROR or FAILED.
    """
    from eventcsv.cli.live.monitor import Monitor  # noqa: PLC0415  # the operator side

    _ask_about_statuses(job, done, agreed=yes)
    with own_screen() as screen:
        process = _process(function)
        hooks = {"initializer": _hook(initializer, "initializer"), "finalizer": _hook(finalizer, "finalizer")}
        with checked("--session"):
            session = job.session(session_id=session_id, refresh_s=refresh_s, accept_edit=accept_edit)
        work = partial(session.run, process, timeout_s=timeout_s, interrupted=interrupted, done=done, lease_s=lease_s)
        enough = partial(workers_possible, job.log, workers)
        result, trouble = _work(session, partial(work, **hooks), enough, partial(Monitor, job, done), screen)
    progress = None if trouble else job.progress(done=done)
    lines = messages.run_lines(job.csv_path, result, progress, session.backup, trouble, done=done)
    Output(as_json).show(messages.run_record(session, result, progress, trouble), lines)
    say_damage(job.log_place, session.damage)
    if session.damage:
        raise typer.Exit(Exit.DAMAGE)
    failed = result.failed or result.unrecorded or result.refused or result.stopped or trouble
    raise typer.Exit(Exit.FAILED if failed else Exit.FINE)


def _work(
    session: Session,
    work: Callable[..., RunResult],
    enough: Callable[[], tuple[int, str]],
    watch: Callable[[], Monitor],
    screen: Screen | None,
) -> tuple[RunResult, str]:
    """Go through a session, and tell how it goes; return what came of it, and what its end met with, or ""."""
    from eventcsv.cli.live.watch import following  # noqa: PLC0415  # the operator side

    result, trouble = None, ""
    try:
        with session:
            monitor = watch()
            for line in messages.session_lines(session.begun, session.backup, session.id):
                say(line)
            for line in messages.key_lines(monitor.progress):
                say(line)
            workers, notice = enough()
            if notice:
                say(f"eventcsv: {notice}")
            with following(monitor, session, screen, say):
                result = work(workers=workers)
    except KeyboardInterrupt:
        fail("stopped at once: what was in flight stays pending; run it again to go on", Exit.FAILED)
    except (EventCsvError, OSError) as error:
        if result is None:
            raise
        trouble = masked(reason_of(error))
    # The end of the session may have met one more save.
    return dataclasses.replace(result, edits=tuple(session.edits)), trouble


def _process(function: str) -> Process:
    process = named_function(function, "MODULE:FUNCTION")
    try:
        check_callable(process)
    except EventCsvError as error:
        raise typer.BadParameter(f"{function}: {error}", param_hint="MODULE:FUNCTION") from None
    return process


def _hook(function: str | None, name: str) -> Callable[[], object] | None:
    hook = named_function(function, f"--{name}") if function else None
    try:
        check_hook(hook, name)
    except EventCsvError as error:
        raise typer.BadParameter(f"{function}: {error}", param_hint=f"--{name}") from None
    return hook


def _ask_about_statuses(job: EventCsv, done: list[str], *, agreed: bool) -> None:
    """Have it confirmed, before a first run, that STATUS is the job's to write, if it may mean something else."""
    doubtful = {} if agreed else job.doubtful_statuses(done=done)
    if not doubtful:
        return
    for line in messages.doubtful_lines(job.csv_path, doubtful, done, status_column=job.status_column):
        say(line)
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        fail(f"{near(job.csv_path)}: nothing was done. Say which it is: --yes or --status-column", Exit.USAGE)
    if not typer.confirm("Go on with it?", err=True):
        fail("nothing was done", Exit.FAILED)
