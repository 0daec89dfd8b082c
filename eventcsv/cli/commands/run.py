"""`run`: worker processes that do what a function of the caller's says, or a command."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperCommand

from eventcsv.cli import messages, run_messages
from eventcsv.cli.function_argument import named_function
from eventcsv.cli.live.inline import own_screen
from eventcsv.cli.options import (
    AcceptEdit,
    Done,
    Json,
    checked,
    on_job,
)
from eventcsv.cli.output import Exit, Output, fail, say, say_damage
from eventcsv.cli.run_options import (
    AttemptsOf,
    DryRun,
    Finalizer,
    Function,
    Halt,
    Initializer,
    Interrupted,
    LeaseS,
    Limit,
    Only,
    OnlyStatus,
    OrderBy,
    OutputDir,
    RateOf,
    RefreshS,
    RetryAfterS,
    SessionName,
    TimeoutS,
    Workers,
    Yes,
)
from eventcsv.cli.wording import near
from eventcsv.errors import EventCsvError, reason_of
from eventcsv.event import DONE
from eventcsv.log.interface import LEASE_S
from eventcsv.masking import masked
from eventcsv.run.starting import check_callable, check_hook, workers_possible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventcsv.cli.live.inline import Screen
    from eventcsv.cli.live.monitor import Monitor
    from eventcsv.job import EventCsv  # noqa: TC004  # `on_job` evaluates what comes behind it
    from eventcsv.run.plan import Planned
    from eventcsv.run.run import RunResult
    from eventcsv.run.session import Session
    from eventcsv.worker.messages import Process

_COMMAND: Final = "eventcsv.command"
_FUNCTION: Final = "MODULE:FUNCTION"
_OUTPUT_DIR: Final = "--output-dir"
_DASHES: Final = "--"

commands = typer.Typer(rich_markup_mode="markdown")


class _WithCommand(TyperCommand):
    """A command line of which all that stands behind the first -- is a command of the caller's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401  # of typer's, which it does not export
        if _DASHES in args:
            place = args.index(_DASHES)
            args, ctx.meta[_COMMAND] = args[:place], args[place + 1 :]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401  # the same
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND [ARG]...]"]


@commands.command(
    cls=_WithCommand,
    epilog="Example: `eventcsv run data/input/input.csv jobs:download --workers 4 --timeout 300`\n\n"
    "With any command: `eventcsv run orders.csv --rate 30/min --attempts 3 -- curl -fsS -o {PO_NUMBER}.pdf {URL}`",
)
@on_job
def run(
    job: EventCsv,
    ctx: typer.Context,
    function: Function = None,
    *,
    workers: Workers = 1,
    timeout_s: TimeoutS = None,
    interrupted: Interrupted = "retry",
    initializer: Initializer = None,
    finalizer: Finalizer = None,
    output_dir: OutputDir = None,
    done: Done = list(DONE),  # noqa: B006  # typer copies it
    only: Only = None,
    status: OnlyStatus = None,
    order_by: OrderBy = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    attempts: AttemptsOf = 1,
    retry_after_s: RetryAfterS = 30.0,
    halt: Halt = None,
    rate: RateOf = None,
    session_id: SessionName = None,
    lease_s: LeaseS = LEASE_S,
    refresh_s: RefreshS = 1.0,
    accept_edit: AcceptEdit = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Work through the POs that are not done, with worker processes. Run it again to go on after a crash.

    What to do with a PO is a Python function, or any command behind `--`, which is run without a shell: in its
    arguments `{COLUMN}` is a cell, `{}` the key, `{{` a brace. Its exit code 0 is COMPLETED, 75 asks for another
    attempt (see `--attempts`), all else is ERROR with the end of standard error; a JSON object on the last line of its
    standard output has columns. The row is on standard input as JSON, the key in EVENTCSV_KEY.

    Each result is recorded before its worker takes up the next PO. A worker that dies or takes too long costs its own
    PO only (STATUS=ERROR, with what happened) and is replaced. CSV is current within a second, and a backup of it is
    made first. Ctrl-C once lets the workers finish what they are on, twice stops now.

    Exit code 0 of the run means that every PO of it was worked on and none ended in ERROR or FAILED.
    """
    choice = {"only": _keys(only), "status": status, "order_by": order_by, "limit": limit}
    how = {"attempts": attempts, "retry_after_s": retry_after_s, "halt": halt, "rate": rate}
    words = ctx.meta.get(_COMMAND)
    _check(choice, how)
    if dry_run:
        _show_plan(job, choice, done, words, Output(as_json))
        return
    from eventcsv.cli.live.monitor import Monitor  # noqa: PLC0415  # the operator side

    _ask_about_statuses(job, done, agreed=yes)
    if only or status or order_by:
        _plan(job, choice, done)  # so that a key that is in no row is told before anything is done
    with own_screen() as screen:
        process = _process(job, function, words, output_dir)
        hooks = {"initializer": _hook(initializer, "initializer"), "finalizer": _hook(finalizer, "finalizer")}
        with checked("--session"):
            session = job.session(session_id=session_id, refresh_s=refresh_s, accept_edit=accept_edit)
        work = partial(session.run, process, timeout_s=timeout_s, interrupted=interrupted, done=done, lease_s=lease_s)
        work = partial(work, **hooks, **choice, **how)
        enough = partial(workers_possible, job.log, workers)
        result, trouble = _work(session, work, enough, partial(Monitor, job, done), screen)
    raise typer.Exit(_tell(job, session, result, trouble, done=done, output=Output(as_json)))


def _tell(job: EventCsv, session: Session, result: RunResult, trouble: str, *, done: list[str], output: Output) -> Exit:
    """Say what came of a run; return the exit code."""
    progress = None if trouble else job.progress(done=done)
    lines = run_messages.run_lines(job.csv_path, result, progress, session.backup, trouble, done=done)
    output.show(run_messages.run_record(session, result, progress, trouble), lines)
    say_damage(job.log_place, session.damage)
    if session.damage:
        return Exit.DAMAGE
    failed = result.failed or result.unrecorded or result.refused or result.stopped or trouble
    return Exit.FAILED if failed else Exit.FINE


def _keys(only: list[str] | None) -> list[str] | None:
    """Return the keys that are named, those on standard input included."""
    if only is None or "-" not in only:
        return only
    lines = [line.strip() for line in sys.stdin] if sys.stdin else []
    return [key for key in only if key != "-"] + [key for key in lines if key]


def _check(choice: dict[str, Any], how: dict[str, Any]) -> None:
    """Refuse what makes no sense before anything is done."""
    from eventcsv.run.choice import Choice  # noqa: PLC0415  # the operator side
    from eventcsv.run.steering import Attempts, Brake, Pace  # noqa: PLC0415  # the same

    with _blamed():
        Choice.of(**choice)
        Attempts(how["attempts"], how["retry_after_s"])
        Brake(how["halt"])
        Pace(how["rate"])


@contextmanager
def _blamed() -> Iterator[None]:
    """Blame the option whose name in Python an error begins with."""
    try:
        yield
    except EventCsvError:
        raise
    except ValueError as error:
        name, _, said = str(error).partition(": ")
        raise typer.BadParameter(said, param_hint=f"--{name.removesuffix('_s').replace('_', '-')}") from None


def _plan(job: EventCsv, choice: dict[str, Any], done: list[str]) -> list[Planned]:
    with _blamed():
        return job.plan(**choice, done=done)


def _show_plan(job: EventCsv, choice: dict[str, Any], done: list[str], words: list[str] | None, output: Output) -> None:
    if words is not None:
        _command(job, words, None)
    planned = _plan(job, choice, done)
    record = {"csv_path": job.csv_path, "planned": [dataclasses.asdict(item) for item in planned]}
    output.show(record, run_messages.plan_lines(job.csv_path, planned))


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
            for line in run_messages.session_lines(session.begun, session.backup, session.id):
                say(line)
            for line in messages.key_lines(monitor.progress):
                say(line)
            workers, notice = enough()
            if notice:
                say(f"eventcsv: {notice}")
            with following(monitor, session, screen, say):
                result = work(workers=workers)
    except KeyboardInterrupt:
        if result is None:
            fail("stopped at once: what was in flight stays pending; run it again to go on", Exit.FAILED)
        trouble = "stopped as it was brought up to date for the last time"
    except (EventCsvError, OSError) as error:
        if result is None:
            raise
        trouble = masked(reason_of(error))
    # The end of the session may have met one more save.
    return dataclasses.replace(result, edits=tuple(session.edits)), trouble


def _process(
    job: EventCsv, function: str | None, words: list[str] | None, output_dir: os.PathLike[str] | None
) -> Process:
    """Return what is to be done with a PO: a function, or a command."""
    if words is not None:
        if function:
            raise typer.BadParameter("either a function or a command behind --, not both", param_hint=function)
        return _command(job, words, output_dir)
    if not function:
        raise typer.BadParameter("name a function, as jobs:download, or a command behind --", param_hint=_FUNCTION)
    if output_dir is not None:
        raise typer.BadParameter("is for a command behind --; a function writes where it likes", param_hint=_OUTPUT_DIR)
    process = named_function(function, _FUNCTION)
    try:
        check_callable(process)
    except EventCsvError as error:
        raise typer.BadParameter(f"{function}: {error}", param_hint=_FUNCTION) from None
    return process


def _command(job: EventCsv, words: list[str], output_dir: os.PathLike[str] | None) -> Process:
    from eventcsv.worker.command import Command  # noqa: PLC0415  # only who has one pays for it

    try:
        command = Command.of(words, output_dir)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=_DASHES) from None
    if shutil.which(command.program) is None:
        there = os.path.exists(command.program)
        why = "is no program that can be run; chmod +x makes one of a script" if there else "there is no such program"
        raise typer.BadParameter(f"{command.program}: {why}", param_hint=_DASHES)
    names = job.columns()
    if unknown := command.unknown(names):
        raise typer.BadParameter(
            f"{near(job.csv_path)} has no column {{{unknown[0]}}}; it has {', '.join(names)}. {{{{ is a brace",
            param_hint=_DASHES,
        )
    if output_dir is not None:
        os.makedirs(output_dir, exist_ok=True)
    return command


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
    for line in run_messages.doubtful_lines(job.csv_path, doubtful, done, status_column=job.status_column):
        say(line)
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        fail(f"{near(job.csv_path)}: nothing was done. Say which it is: --yes or --status-column", Exit.USAGE)
    signal.siginterrupt(signal.SIGINT, True)  # Polars has a handler that would have the question go on
    if not typer.confirm("Go on with it?", err=True):
        fail("nothing was done", Exit.FAILED)
