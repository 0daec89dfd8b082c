"""The command line: the only place that prints and that configures logging.

Results go to standard output, everything else to standard error. Exit codes: 0 fine (a torn last line after a crash is
fine, and said), 1 failed, 2 used wrongly, 3 finished but damage was found, 4 a lock or session is held by another.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path  # noqa: TC003  # typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

import orjson
import typer
from typer.core import TyperGroup

import eventcsv
from eventcsv.cli import messages as terminal
from eventcsv.cli import tracebacks as debugging
from eventcsv.cli.function_argument import named_function
from eventcsv.cli.live.inline import can_be_drawn_on, own_screen
from eventcsv.cli.log_output import configure_logging
from eventcsv.cli.options import (
    AcceptEdit,
    BackupDir,
    BackupName,
    CsvPath,
    Debug,
    Done,
    DurabilityOf,
    JobName,
    Json,
    Key,
    LockTimeoutS,
    LogFile,
    LogLevel,
    LogPlace,
    Po,
    StatusColumn,
    on_job,
    seconds_from,
)
from eventcsv.errors import EventCsvError, InvalidEvent, LockTimeout, SessionActive, reason_of
from eventcsv.event import DEFAULT_KEY, DONE
from eventcsv.job import EventCsv, init_server, is_url, open_log
from eventcsv.log.interface import LEASE_S
from eventcsv.masking import escaped, masked
from eventcsv.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import DataclassInstance

    from eventcsv.cli.live.watch import Looks
    from eventcsv.event import Event
    from eventcsv.log.interface import ProgressCallback
    from eventcsv.log.scan import Damage
    from eventcsv.view.compactor import CompactResult
    from eventcsv.worker.serve import Process

_LOOK_S: Final = 1.0
_WAYS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG})
"""What keeps from a file before anything of it is read or written."""

_LINES_AT_ONCE: Final = 1_000


class Exit(IntEnum):
    """What an exit code says."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    DAMAGE = 3
    HELD = 4


_ORDER: Final = ("run", "status", "pending", "history", "report", "emit", "compact", "replay", "backup", "verify")
"""The commands as people need them; the others follow."""


class _Commands(TyperGroup):
    """The commands; Ctrl-C in one of them says what it means, where typer would end without a word."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401  # a context of typer's, which it does not export
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))

    def invoke(self, ctx: Any) -> object:  # noqa: ANN401  # a context of typer's, which it does not export
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _fail("stopped; run it again to go on", Exit.FAILED)


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
backups = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="List, make and restore backups of the CSV.",
    epilog="A backup is a whole copy of the CSV. `eventcsv run` makes one each time and keeps the newest five.",
)
app.add_typer(backups, name="backup")
logs = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Make the event log on a PostgreSQL server, and copy one from there or to there.",
    epilog="With the log on a server, workers on many machines work on one job. Passwords belong into `~/.pgpass`, "
    "PGPASSWORD or a service file, as with every client of PostgreSQL.",
)
app.add_typer(logs, name="log")


@dataclass(frozen=True, slots=True)
class _Output:
    """Where a command's result goes."""

    as_json: bool

    def show(self, result: DataclassInstance | dict[str, Any], lines: Iterator[str]) -> None:
        """Print a result: as JSON, if that was asked for, else as lines."""
        try:
            if self.as_json:
                typer.echo(_json(result if isinstance(result, dict) else dataclasses.asdict(result)))
            else:
                for line in lines:
                    typer.echo(escaped(line))
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            _fail(f"standard output: {error.strerror}. The work itself was done, only its report is lost", Exit.FAILED)


def _json(record: dict[str, Any]) -> str:
    try:
        return orjson.dumps(record, default=str).decode()
    except TypeError:  # a path that is no UTF-8
        return json.dumps(record, default=str)


# --- compact and replay ------------------------------------------------------------------------------------------


@app.command(epilog="Example: `eventcsv compact data/input/input.csv --watch`")
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
    output = _Output(as_json)
    if watch:
        _keep_current(job, output, accept_edit=accept_edit)
    with _folding_bar() as on_progress:
        result = job.compact(accept_edit=accept_edit, on_progress=on_progress)
    _finish(result, output)


@app.command(epilog="Example: `eventcsv replay data/input/input.csv --backup input_20251002_124311_8f3a12c4.csv`")
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
    with _folding_bar() as on_progress:
        result = job.replay(backup=backup, on_progress=on_progress)
    _finish(result, _Output(as_json))


def _finish(result: CompactResult, output: _Output, *, damaged: bool = False) -> NoReturn:
    output.show(result, terminal.compaction_lines(result))
    raise typer.Exit(Exit.DAMAGE if result.damage or damaged else Exit.FINE)


def _keep_current(job: EventCsv, output: _Output, *, accept_edit: bool) -> NoReturn:
    """Compact whenever there is a reason to, until Ctrl-C or SIGTERM."""
    from eventcsv.signals import stop_signals  # noqa: PLC0415  # the same
    from eventcsv.view.refresh import keep_current  # noqa: PLC0415  # the operator side

    damaged = False

    def on_result(result: CompactResult) -> None:
        nonlocal damaged
        damaged |= bool(result.damage)
        if terminal.is_news(result):
            output.show(result, iter([terminal.summary(result)]))

    _say(f"watching {terminal.near(job.csv_path)}; Ctrl-C ends it")
    with stop_signals() as stop:
        first = job.compact(accept_edit=accept_edit)  # when it does not even work once, that is no trouble that passes
        damaged = bool(first.damage)
        output.show(first, iter([terminal.summary(first)]))
        keep_current(
            job,
            stop,
            refresh_s=_LOOK_S,
            on_result=on_result,
            on_trouble=lambda trouble: _say(f"eventcsv: {masked(trouble)}. Watching on"),
        )
    _say("stopped; the last state follows")
    _finish(job.compact(), output, damaged=damaged)


# --- run ---------------------------------------------------------------------------------------------------------


@app.command(epilog="Example: `eventcsv run data/input/input.csv jobs:download --workers 4 --timeout 300`")
@on_job
def run(
    job: EventCsv,
    function: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FUNCTION",
            help="What to do with a PO, as `jobs:download` for `def download(key, row)` in jobs.py. It returns a "
            "mapping from column names to values, or a STATUS; STATUS is COMPLETED when it names none.",
            show_default=False,
        ),
    ],
    *,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="How many worker processes.")] = 1,
    timeout_s: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            callback=seconds_from(0.001),
            help="How long a PO may take. [default: no limit]",
        ),
    ] = None,
    interrupted: Annotated[
        Literal["retry", "hold"],
        typer.Option("--interrupted", help="What to do with POs that were in flight when an earlier run died."),
    ] = "retry",
    initializer: Annotated[
        str | None,
        typer.Option(
            "--initializer",
            metavar="MODULE:FUNCTION",
            help="Called once in each worker, before its first PO; opens a browser, for instance. It may be a context "
            "manager, which is left when the worker ends.",
        ),
    ] = None,
    finalizer: Annotated[
        str | None,
        typer.Option(
            "--finalizer",
            metavar="MODULE:FUNCTION",
            help="Called once in each worker that ends in peace; closes the browser.",
        ),
    ] = None,
    done: Done = list(DONE),  # noqa: B006  # typer copies it
    session_id: Annotated[
        str | None, typer.Option("--session", metavar="NAME", help="The session's name. [default: a random one]")
    ] = None,
    lease_s: Annotated[
        float,
        typer.Option(
            "--lease",
            metavar="SECONDS",
            callback=seconds_from(0.1),
            help="With --log URL: how long other hosts wait before they take over the POs of one that died.",
        ),
    ] = LEASE_S,
    refresh_s: Annotated[
        float,
        typer.Option(
            "--refresh", metavar="SECONDS", callback=seconds_from(0.01), help="How far CSV may be behind the log."
        ),
    ] = 1.0,
    accept_edit: AcceptEdit = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing: STATUS of the list is what a run writes, and goes by.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Work through the POs that are not done, with worker processes. Run it again to go on after a crash.

    Each result is recorded before its worker takes up the next PO. A worker that dies or takes too long costs its own
    PO only (STATUS=ERROR, with what happened) and is replaced. CSV is current within a second, and a backup of it is
    made first. Ctrl-C once lets the workers finish what they are on, twice stops now.

    Exit code 0 means that every PO of this run was worked on and none ended in ERROR or FAILED.
    """
    from eventcsv.cli.live.watch import Looks, following  # noqa: PLC0415  # the operator side

    _ask_about_statuses(job, done, agreed=yes)
    result, trouble = None, ""
    with own_screen() as screen:
        process = _process(function)
        opening, closing = _hook(initializer, "initializer"), _hook(finalizer, "finalizer")
        try:
            session = job.session(session_id=session_id, refresh_s=refresh_s, accept_edit=accept_edit)
        except ValueError as error:
            if isinstance(error, EventCsvError):
                raise
            raise typer.BadParameter(str(error), param_hint="--session") from None
        try:
            with session:
                looks = Looks(job, done)
                for line in (
                    *terminal.session_lines(session.begun, session.backup, session.id),
                    *terminal.key_lines(looks.progress),
                ):
                    _say(line)
                workers, notice = session.workers_possible(workers)
                if notice:
                    _say(f"eventcsv: {notice}")
                with following(looks, session, screen, _say):
                    result = session.run(
                        process,
                        workers=workers,
                        timeout_s=timeout_s,
                        interrupted=interrupted,
                        initializer=opening,
                        finalizer=closing,
                        done=done,
                        lease_s=lease_s,
                    )
        except KeyboardInterrupt:
            _fail("stopped at once: what was in flight stays pending; run it again to go on", Exit.FAILED)
        except (EventCsvError, OSError) as error:
            if result is None:
                raise
            trouble = masked(reason_of(error))
    result = dataclasses.replace(result, edits=tuple(session.edits))  # the end of the session may have met one more
    progress = None if trouble else job.progress(done=done)
    record = {
        "session": session.id,
        **dataclasses.asdict(result),
        "progress": progress and dataclasses.asdict(progress),
        "backup": session.backup,
        "damage": session.damage,
        "not_compacted": trouble or None,
    }
    lines = terminal.run_lines(job.csv_path, result, progress, session.backup, trouble, done=done)
    _Output(as_json).show(record, lines)
    for item in session.damage[: terminal.SHOWN]:
        _say(f"eventcsv: {job.log_place}: damaged: {item}")
    if session.damage:
        raise typer.Exit(Exit.DAMAGE)
    failed = result.failed or result.unrecorded or result.refused or result.stopped or trouble
    raise typer.Exit(Exit.FAILED if failed else Exit.FINE)


def _process(function: str) -> Process:
    from eventcsv.run.session import check_callable  # noqa: PLC0415  # the operator side

    process = named_function(function, "MODULE:FUNCTION")
    try:
        check_callable(process)
    except EventCsvError as error:
        raise typer.BadParameter(f"{function}: {error}", param_hint="MODULE:FUNCTION") from None
    return process


def _hook(function: str | None, name: str) -> Callable[[], object] | None:
    from eventcsv.run.session import check_hook  # noqa: PLC0415  # the operator side

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
    for line in terminal.doubtful_lines(job.csv_path, doubtful, done, status_column=job.status_column):
        _say(line)
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        _fail(f"{terminal.near(job.csv_path)}: nothing was done. Say which it is: --yes or --status-column", Exit.USAGE)
    if not typer.confirm("Go on with it?", err=True):
        _fail("nothing was done", Exit.FAILED)


# --- status, pending, history ------------------------------------------------------------------------------------


@app.command(epilog="Example: `eventcsv status data/input/input.csv --watch`")
@on_job
def status(
    job: EventCsv,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Follow a run from another terminal, until Ctrl-C.")] = False,
    done: Done = list(DONE),  # noqa: B006  # typer copies it
    as_json: Json = False,
) -> None:
    """Show how far the job is: POs done and pending, rate, time left, failures. Writes nothing, disturbs no run."""
    from eventcsv.cli.live.watch import Looks  # noqa: PLC0415  # the operator side

    output = _Output(as_json)
    looks = Looks(job, done)
    if watch:
        _watch(looks, output)
    else:
        output.show(looks.progress, terminal.progress_lines(looks.progress))
    raise typer.Exit(Exit.DAMAGE if looks.damage else Exit.FINE)


def _watch(looks: Looks, output: _Output) -> None:
    from eventcsv.cli.live.fullscreen import has_full_screen  # noqa: PLC0415  # only a terminal needs rich
    from eventcsv.cli.live.watch import LINE_EVERY_S, LOOK_S, watch_in_full_screen, watch_in_lines  # noqa: PLC0415  # with Polars

    if output.as_json:
        watch_in_lines(looks, lambda line: _show_progress(looks, output, line), every_s=LOOK_S)
    elif has_full_screen():
        watch_in_full_screen(looks)
        output.show({}, terminal.progress_lines(looks.progress))
    else:
        watch_in_lines(looks, lambda line: _show_progress(looks, output, line), every_s=LINE_EVERY_S)


def _show_progress(looks: Looks, output: _Output, line: str) -> None:
    output.show(looks.progress, iter([line]))


@app.command(epilog="Example: `eventcsv pending data/input/input.csv | xargs -n 1 ./download.sh`")
@on_job
def pending(
    job: EventCsv,
    *,
    done: Done = list(DONE),  # noqa: B006  # typer copies it
    as_json: Json = False,
) -> None:
    """List the POs that are not done, one a line, in the order of the CSV. Writes nothing."""
    keys = job.pending(done=done)
    _Output(as_json).show({"csv_path": job.csv_path, "pending": keys}, iter(keys))


@app.command(epilog="Example: `eventcsv history data/input/input.csv PO15262984`")
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
        _Output(as_json).show(_recorded(event), terminal.event_lines(event))
    damage = [item for item in damage if not item.torn]
    for item in damage:
        _say(f"eventcsv: {job.log_place}: damaged, and perhaps about {po}: {item}")
    if damage:
        raise typer.Exit(Exit.DAMAGE)
    if not found:
        _fail(
            f"{terminal.near(job.log_place)}: no events of {po!r}. If there is such a row, it has no result yet",
            Exit.FAILED,
        )


# --- report ------------------------------------------------------------------------------------------------------


@app.command(epilog="Example: `eventcsv report data/input/input.csv -o report.html`")
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
    with _folding_bar("reading") as on_progress:
        found = job.report(path, done=done, unmasked=unmasked, force=force, on_progress=on_progress)
    if path is None:
        _to_stdout(render(found))
    else:
        record = summary_of(found, os.path.abspath(path))
        _Output(as_json).show(record, terminal.report_lines(found, path, os.path.getsize(path)))
    raise typer.Exit(Exit.DAMAGE if found.damage else Exit.FINE)


def _to_stdout(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _fail(f"standard output: {error.strerror}. The page is not whole", Exit.FAILED)


# --- emit --------------------------------------------------------------------------------------------------------


@app.command(
    epilog="Example: `eventcsv emit data/input/input.csv PO15262984 ERROR --set ERROR_MESSAGE='page not found'`"
)
def emit(
    csv: CsvPath,
    po: Annotated[
        str | None, typer.Argument(metavar="KEY", help="The PO, as in the key column.", show_default=False)
    ] = None,
    status: Annotated[
        str | None,
        typer.Argument(
            metavar="STATUS",
            help="COMPLETED, NO_ATTACHMENTS, PARTIAL, ERROR, FAILED, PENDING, or a word such as RATE_LIMIT.",
            show_default=False,
        ),
    ] = None,
    *,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COLUMN=TEXT", help="Set another column; can be given several times."),
    ] = None,
    started: Annotated[
        bool, typer.Option("--started", help="Record that KEY is taken up, before its work begins; without STATUS.")
    ] = False,
    from_stdin: Annotated[
        bool,
        typer.Option(
            "--stdin",
            help='Take results from standard input, one a line, as {"key": "PO1", "status": "COMPLETED", '
            '"columns": {"ATTACHMENTS_FOUND": 2}} or {"key": "PO1", "started": true}, and answer each on standard '
            "output with its id, or its error, as JSON.",
        ),
    ] = False,
    durability: DurabilityOf = "disk",
    log: LogPlace = None,
    job_name: JobName = None,
    key: Key = DEFAULT_KEY,
    status_column: StatusColumn = None,
    lock_timeout_s: LockTimeoutS = 30.0,
    debug: Debug = False,  # noqa: ARG001  # its callback has turned it on
    as_json: Json = False,
) -> None:
    """Append one result to the event log of CSV. Once this returns 0, the result survives a power cut.

    CSV itself is brought up to date by `eventcsv compact`. With --stdin one process records any number of results; a
    line that is refused costs itself only, and the exit code is 1 then.
    """
    _check_form(po, status, assignments, started=started, from_stdin=from_stdin)
    columns = _assigned(assignments or [])
    with EventCsv(
        csv,
        key=key,
        status_column=status_column,
        durability=durability,
        lock_timeout_s=lock_timeout_s,
        log=log,
        job=job_name,
    ) as job:
        if note := job.link_note():
            _say(note)
        if from_stdin:
            _emit_lines(job)
        elif started:
            event = job.emit_started(po or "")
            _show_recorded(event, "as taken up,", as_json=as_json)
        else:
            event = job.emit_result(po or "", status or "", columns=columns)
            _show_recorded(event, event.cells.get(job.status_column, ""), as_json=as_json)
        if obstacle := job.obstacle():
            _say(f"Warning: {terminal.near(job.csv_path)}: {obstacle}. What is recorded is not in it before that")


def _show_recorded(event: Event, what: str, *, as_json: bool) -> None:
    for mended in event.mended:
        _say(f"eventcsv: {masked(mended)}")
    _Output(as_json).show(_recorded(event), iter([f"recorded {event.key} {what} as {event.id}"]))


def _recorded(event: Event) -> dict[str, Any]:
    """Return an event as it stands in the log, with what was done to values of it when it has just been recorded."""
    record = dataclasses.asdict(event)
    return record if event.mended else {name: value for name, value in record.items() if name != "mended"}


def _check_form(
    po: str | None, status: str | None, assignments: list[str] | None, *, started: bool, from_stdin: bool
) -> None:
    """Refuse what belongs to another form of the command than the one that was asked for."""
    if from_stdin:
        unfit, reason = (
            {"KEY": po is not None, "--set": assignments, "--started": started},
            "--stdin, whose lines say it",
        )
    elif started:
        unfit, reason = {"STATUS": status is not None, "--set": assignments}, "--started, which is no result"
    else:
        unfit, reason = {}, ""
    for name in [name for name, is_given in unfit.items() if is_given]:
        raise typer.BadParameter(f"has no place beside {reason}", param_hint=name)
    if po is None and not from_stdin:
        raise typer.BadParameter("is missing: which PO? Or let --stdin bring them", param_hint="KEY")
    if status is None and not (from_stdin or started):
        raise typer.BadParameter("is missing: what came of the PO? Or say --started", param_hint="STATUS")


def _emit_lines(job: EventCsv) -> NoReturn:
    from eventcsv.cli.piped import record_lines  # noqa: PLC0415  # other commands read no lines

    is_heard = True

    def answer(record: dict[str, object]) -> None:
        nonlocal is_heard
        if not is_heard:
            return
        try:
            sys.stdout.write(f"{json.dumps(record)}\n")
            sys.stdout.flush()
        except OSError as error:  # whoever does not listen any more may well have sent results that count
            is_heard = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            _say(f"eventcsv: standard output: {error.strerror}. What comes is recorded, but answered no more")

    failures = record_lines(job, sys.stdin.buffer, answer)
    raise typer.Exit(Exit.FINE if is_heard and not failures else Exit.FAILED)


def _assigned(assignments: list[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for assignment in assignments:
        column, equals, text = assignment.partition("=")
        if not equals:
            raise typer.BadParameter(f"has to be COLUMN=TEXT, not {assignment!r}", param_hint="--set")
        if column in columns:
            raise typer.BadParameter(f"{column!r} is given twice", param_hint="--set")
        columns[column] = text
    return columns


# --- backup, verify, prune ---------------------------------------------------------------------------------------


@backups.command("list", epilog="Example: `eventcsv backup list data/input/input.csv`")
@on_job
def list_backups(job: EventCsv, *, as_json: Json = False) -> None:
    """List the backups, the newest first."""
    known = job.backups()
    record = {"directory": job.backup_dir, "backups": [dataclasses.asdict(backup) for backup in known]}
    _Output(as_json).show(record, terminal.backup_lines(known, job.backup_dir))


@backups.command(epilog="Example: `eventcsv backup create data/input/input.csv`")
@on_job
def create(job: EventCsv, *, as_json: Json = False) -> None:
    """Bring the CSV up to date and keep a copy of it. One that was made like this is never removed by itself."""
    made = job.back_up()
    _Output(as_json).show(made, iter([f"{terminal.near(made.path)}: {made.record_count:,} rows"]))


@backups.command(
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
    _finish(job.restore(backup, replay=replay), _Output(as_json))


@app.command(epilog="Example: `eventcsv verify data/input/input.csv`")
@on_job
def verify(job: EventCsv, *, as_json: Json = False) -> None:
    """Check every segment, line, seal and backup, and CSV against a replay. Writes nothing.

    It goes on after the first finding; exit code 3 says that there were any.
    """
    with _folding_bar("checking") as on_progress:
        report = job.verify(on_progress=on_progress)
    _Output(as_json).show(report, terminal.verify_lines(report))
    raise typer.Exit(Exit.DAMAGE if report.findings else Exit.FINE)


@app.command(epilog="Example: `eventcsv prune data/input/input.csv --dry-run`")
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
    _Output(as_json).show(result, terminal.prune_lines(result))


# --- export, import ----------------------------------------------------------------------------------------------


@app.command(epilog="Example: `eventcsv export data/input/input.csv -o results.xlsx`")
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
    try:
        result = job.export(
            sys.stdout.buffer if on_stdout else target, file_format="jsonl" if on_stdout else file_format, force=force
        )
    except ValueError as error:
        if isinstance(error, EventCsvError):
            raise
        raise typer.BadParameter(str(error), param_hint="-o") from None
    if on_stdout:
        sys.stdout.flush()
    else:
        _Output(as_json).show(result, terminal.export_lines(result))
    for item in result.damage[: terminal.SHOWN]:
        _say(f"eventcsv: {job.log_dir}: damaged: {item}")
    raise typer.Exit(Exit.DAMAGE if result.damage else Exit.FINE)


@app.command("import", epilog="Example: `eventcsv import orders.xlsx data/input/input.csv --sheet Open`")
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
    job = EventCsv(csv, key=key, backup_dir=backup_dir)
    result = job.import_workbook(workbook, sheet=sheet, force=force, visible=visible)
    _Output(as_json).show(result, terminal.import_lines(result))


# --- log -----------------------------------------------------------------------------------------------------------


@logs.command(epilog="Example: `eventcsv log init postgresql://owner@db.example/work --worker scraper --operator ana`")
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
    if not is_url(url):
        raise typer.BadParameter("has to be postgresql://host/database", param_hint="URL")
    place, lines = init_server(url, job=job, key=key, workers=workers, operators=operators, timeout_s=lock_timeout_s)
    _Output(as_json).show({"log": place, "job": job}, iter(lines))


@logs.command(epilog="Example: `eventcsv log copy data/input/input.events postgresql://db.example/work --job input`")
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

    with _folding_bar("copying") as on_progress:
        result = copy_log(
            open_log(source, job=job, other=target, key=key, lock_timeout_s=lock_timeout_s),
            open_log(target, job=job, other=source, key=key, lock_timeout_s=lock_timeout_s),
            on_progress=on_progress,
        )
    _Output(as_json).show(result, terminal.copy_lines(result))


# --- around every command ----------------------------------------------------------------------------------------


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


@contextmanager
def _folding_bar(what: str = "folding") -> Iterator[ProgressCallback | None]:
    """Show a bar on a terminal once the work takes long enough to wonder."""
    if not can_be_drawn_on(sys.stderr.fileno()):
        yield None
        return
    from rich.console import Console  # noqa: PLC0415  # only a terminal needs it
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415  # the same

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _say(text: str) -> None:
    typer.echo(escaped(text), err=True)


def _fail(text: str, code: Exit) -> NoReturn:
    _say(f"eventcsv: {text}")
    raise typer.Exit(code)


def main() -> None:
    """Run the command line; every error becomes one line on standard error and an exit code."""
    _mend_streams()
    try:
        _run_command()
    finally:
        _end_output()


def _run_command() -> None:
    try:
        try:
            _check_folder()
            sys.exit(app(standalone_mode=False))
        except BrokenPipeError:
            sys.exit(Exit.FAILED)
        except typer.Abort:
            _exit("stopped", Exit.FAILED)
        except Exception as error:  # noqa: BLE001  # nobody may be left with a traceback that did not ask for one
            if hasattr(error, "format_message"):  # of typer, or of the click that earlier versions of it use
                _exit_usage(error)
            for line in debugging.details(error):
                _say(line)
            _exit(*_told(error))
    except KeyboardInterrupt:
        _exit("stopped; run it again to go on", Exit.FAILED)


def _end_output() -> None:
    """Write what is left of standard output; what cannot be must not fail once more, and aloud, when Python ends."""
    try:
        sys.stdout.flush()
    except OSError:  # which was told when it was met first
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILED)


def _told(error: Exception) -> tuple[str, Exit]:
    """Return what to say of an error, and its exit code."""
    match error:
        case InvalidEvent():
            return f"{error}. Nothing was written", Exit.USAGE
        case EventCsvError():
            held = isinstance(error, (LockTimeout, SessionActive)) or isinstance(error.__cause__, LockTimeout)
            return str(error), Exit.HELD if held else Exit.FAILED
    return _trouble_of_the_system(error) or debugging.unforeseen(error), Exit.FAILED


def _trouble_of_the_system(error: Exception) -> str:
    """Return what to say of an error that is nobody's mistake here, or ""."""
    match error:
        case OSError(errno=number) if number in _WAYS:
            return f"{reason_of(error)}. Mend that, and run it again"
        case OSError():
            return f"{reason_of(error)}. Nothing was half-written; mend the cause and run it again"
        case RuntimeError() if "start new thread" in str(error):
            what = "the system gives no more threads, or no memory for them (ulimit -a shows the limits)"
            return f"{what}. Nothing was half-written; close something, or raise them, and run it again"
        case MemoryError():
            return "there is not enough memory. Nothing was half-written; close something and run it again"
    return ""


def _check_folder() -> None:
    """Refuse to work from a folder that is gone: no relative path means anything there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        _exit("the folder that this was called from is gone. Change to one that is there: cd", Exit.FAILED)


def _mend_streams() -> None:
    """Make closed streams harmless, and characters that a terminal's encoding lacks visible."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # for as long as the process lives
        else:
            stream.reconfigure(errors="backslashreplace")


def _exit_usage(error: Any) -> NoReturn:  # noqa: ANN401  # of a class that typer does not export
    """Say how a command was called wrongly, in one line as every other error; no command at all is shown the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        message = error.format_message().strip()
        stop = "" if message.endswith((".", "?", "!")) else "."
        command = error.ctx.command_path if error.ctx else "eventcsv"
        _say(f"eventcsv: {masked(message)}{stop} How it is used: {command} -h")
    sys.exit(error.exit_code)


def _exit(text: str, code: Exit) -> NoReturn:
    _say(f"eventcsv: {masked(text)}")
    sys.exit(code)
