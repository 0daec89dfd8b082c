"""The command line: the only place that prints and that configures logging.

Results go to standard output, everything else to standard error. Exit codes: 0 fine (a torn last line after a crash is
fine, and said), 1 failed, 2 used wrongly, 3 finished but damage was found, 4 a lock or session is held by another.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

import orjson
import typer

from eventcsv import terminal
from eventcsv.errors import AppendError, EventCsvError, InvalidEvent, LockTimeout, SessionActive
from eventcsv.event import DEFAULT_KEY, DONE
from eventcsv.facade import EventCsv
from eventcsv.logs import configure_logging
from eventcsv.masking import escaped, masked
from eventcsv.options import (
    BackupDir,
    BackupName,
    CsvPath,
    Done,
    DurabilityOf,
    Json,
    Key,
    LockTimeoutS,
    LogFile,
    LogLevel,
    Po,
    on_job,
)
from eventcsv.screen import own_screen
from eventcsv.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventcsv.compactor import CompactResult
    from eventcsv.folded import ProgressCallback
    from eventcsv.progress import Progress
    from eventcsv.scan import Damage
    from eventcsv.screen import Screen
    from eventcsv.session import Session

_LOOK_S: Final = 1.0
_LINE_EVERY_S: Final = 10.0


class Exit(IntEnum):
    """What an exit code says."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    DAMAGE = 3
    HELD = 4


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Crash-proof results for long jobs over the rows of a CSV. "
    "Workers append results to an event log; these commands run the workers and keep the CSV up to date with the log.",
    epilog="Exit codes: 0 fine, 1 failed, 2 used wrongly, 3 finished but damage was found, 4 held by another process.",
)
backups = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="List, make and restore backups of the CSV.",
    epilog="A backup is a whole copy of the CSV. `eventcsv run` makes one each time and keeps the newest five.",
)
app.add_typer(backups, name="backup")


@dataclass(frozen=True, slots=True)
class _Output:
    """Where a command's result goes."""

    as_json: bool

    def show(self, record: dict[str, Any], lines: Iterator[str]) -> None:
        try:
            if self.as_json:
                typer.echo(_json(record))
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
    as_json: Json = False,
) -> None:
    """Bring the CSV up to date with its event log.

    Only results that are new are folded in. The CSV is replaced in one step: whoever opens it sees the old version or
    the new one. When nothing is new it is not touched. Edits are kept, and so is a copy of the edited version.
    """
    output = _Output(as_json)
    if watch:
        _keep_current(job, output)
    with _folding_bar() as on_progress:
        result = job.compact(on_progress=on_progress)
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
    output.show(dataclasses.asdict(result), terminal.compaction_lines(result))
    raise typer.Exit(Exit.DAMAGE if result.damage or damaged else Exit.FINE)


def _keep_current(job: EventCsv, output: _Output) -> NoReturn:
    """Compact whenever there is a reason to, until Ctrl-C or SIGTERM."""
    from eventcsv.refresher import keep_current  # noqa: PLC0415  # the operator side
    from eventcsv.stopping import stop_signals  # noqa: PLC0415  # the same

    damaged = False

    def on_result(result: CompactResult) -> None:
        nonlocal damaged
        damaged |= bool(result.damage)
        if terminal.is_news(result):
            output.show(dataclasses.asdict(result), iter([terminal.summary(result)]))

    _say(f"watching {terminal.near(job.csv_path)}; Ctrl-C ends it")
    with stop_signals() as stop:
        first = job.compact()  # when it does not even work once, that is no trouble that passes
        damaged = bool(first.damage)
        output.show(dataclasses.asdict(first), iter([terminal.summary(first)]))
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
            "mapping from column names to values; STATUS is COMPLETED when it names none.",
            show_default=False,
        ),
    ],
    *,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="How many worker processes.")] = 1,
    timeout_s: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", min=0.001, help="How long a PO may take. [default: no limit]"),
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
            help="Called once in each worker, before its first PO; opens a browser, for instance.",
        ),
    ] = None,
    done: Done = list(DONE),  # noqa: B006  # typer copies it
    session_id: Annotated[
        str | None, typer.Option("--session", metavar="NAME", help="The session's name. [default: a random one]")
    ] = None,
    refresh_s: Annotated[
        float, typer.Option("--refresh", metavar="SECONDS", min=0.01, help="How far CSV may be behind the log.")
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Work through the POs that are not done, with worker processes. Run it again to go on after a crash.

    Each result is recorded before its worker takes up the next PO. A worker that dies or takes too long costs its own
    PO only (STATUS=ERROR, with what happened) and is replaced. CSV is current within a second, and a backup of it is
    made first. Ctrl-C once lets the workers finish what they are on, twice stops now.

    Exit code 0 means that every PO of this run was worked on and none ended in ERROR or FAILED.
    """
    result, trouble = None, ""
    with own_screen() as screen:
        process = _function(function, "MODULE:FUNCTION")
        opening = _function(initializer, "--initializer") if initializer else None
        try:
            session = job.session(session_id=session_id, refresh_s=refresh_s)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        try:
            with session:
                for line in terminal.session_lines(session.begun, session.backup, session.id):
                    _say(line)
                with _following(job, session, done, screen):
                    result = session.run(
                        process,
                        workers=workers,
                        timeout_s=timeout_s,
                        interrupted=interrupted,
                        initializer=opening,
                        done=done,
                    )
        except KeyboardInterrupt:
            _fail("stopped at once: what was in flight stays pending; run it again to go on", Exit.FAILED)
        except (EventCsvError, OSError) as error:
            if result is None:
                raise
            trouble = masked(str(error))
    progress = None if trouble else job.progress(done=done)
    record = {
        "session": session.id,
        **dataclasses.asdict(result),
        "progress": progress and dataclasses.asdict(progress),
        "backup": session.backup,
        "damage": session.damage,
        "not_compacted": trouble or None,
    }
    _Output(as_json).show(record, terminal.run_lines(job.csv_path, result, progress, session.backup, trouble))
    for item in session.damage[: terminal.SHOWN]:
        _say(f"eventcsv: {job.log_dir}: damaged: {item}")
    if session.damage:
        raise typer.Exit(Exit.DAMAGE)
    failed = result.failed or result.unrecorded or result.refused or result.stopped or trouble
    raise typer.Exit(Exit.FAILED if failed else Exit.FINE)


def _function(name: str, option: str) -> Callable[..., Any]:
    """Import what MODULE:FUNCTION names."""
    module_name, colon, path = name.partition(":")
    if not colon or not path or not module_name:
        raise typer.BadParameter(
            f"has to be a module and a function, as jobs:download, not {name!r}", param_hint=option
        )
    if "/" in module_name or module_name.endswith(".py"):
        better = Path(module_name).stem
        raise typer.BadParameter(
            f"{module_name!r} is a file; give the name of the module, {better}:{path}, and run it from its folder",
            param_hint=option,
        )
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise typer.BadParameter(
                f"there is no module {module_name!r} in {os.getcwd()} or on Python's path", param_hint=option
            ) from None
        _fail(f"{module_name}: cannot be imported: {_blame(error)}", Exit.FAILED)
    except Exception as error:  # noqa: BLE001  # a module may raise anything
        _fail(f"{module_name}: cannot be imported: {_blame(error)}", Exit.FAILED)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise typer.BadParameter(f"{module_name} has no function {path!r}", param_hint=option)
    return found  # type: ignore[no-any-return]  # it is callable, which is all that is known of it


def _blame(error: Exception) -> str:
    """Return an error of the caller's code with its place there."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return masked(f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})")


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
    output = _Output(as_json)
    progress = job.progress(done=done)
    if watch:
        progress = _watch(job, progress, done, output)
    else:
        output.show(dataclasses.asdict(progress), terminal.progress_lines(progress))
    raise typer.Exit(Exit.DAMAGE if progress.damage else Exit.FINE)


def _watch(job: EventCsv, progress: Progress, done: list[str], output: _Output) -> Progress:
    from eventcsv.stopping import stop_signals  # noqa: PLC0415  # the operator side

    looks = _Looks(job, done, progress)
    with stop_signals() as stop:
        if sys.stdout.isatty() and not output.as_json:
            from rich.live import Live  # noqa: PLC0415  # only a terminal needs it

            with Live(terminal.progress_view(progress), auto_refresh=False) as live:
                while not stop.wait(_LOOK_S):
                    looks.again()
                    live.update(terminal.progress_view(looks.progress, trouble=looks.trouble), refresh=True)
        else:
            output.show(dataclasses.asdict(progress), iter([terminal.progress_line(progress)]))
            while not stop.wait(_LOOK_S if output.as_json else _LINE_EVERY_S):
                looks.again()
                line = terminal.progress_line(looks.progress)
                output.show(dataclasses.asdict(looks.progress), iter([looks.trouble or line]))
    return looks.progress


class _Looks:
    """How far a job is, look by look; what keeps the present one from answering is in `trouble`."""

    def __init__(self, job: EventCsv, done: list[str], progress: Progress) -> None:
        self.progress = progress
        self.trouble = ""
        self._job = job
        self._done = done

    def again(self) -> None:
        try:
            self.progress = self._job.progress(done=self._done)
            self.trouble = ""
        except (EventCsvError, OSError) as error:  # the operator will mend it
            self.trouble = f"{masked(str(error))}. Results go on into the log"


@contextmanager
def _following(job: EventCsv, session: Session, done: list[str], screen: Screen | None) -> Iterator[None]:
    """Show on standard error how far a run is: live on a terminal, otherwise a line now and then."""
    ended = threading.Event()
    looks = _Looks(job, done, job.progress(done=done))
    arguments = (looks, session, ended, screen)
    follower = threading.Thread(target=_follow_live if screen else _follow_in_lines, args=arguments, daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()


def _follow_live(looks: _Looks, session: Session, ended: threading.Event, screen: Screen) -> None:
    from rich.live import Live  # noqa: PLC0415  # only a terminal needs it

    # What is printed has its own way to the screen.
    redirected = False
    with Live(
        console=screen.console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=redirected,
        redirect_stderr=redirected,
    ) as live:
        while not ended.is_set():
            looks.again()
            view = terminal.progress_view(looks.progress, stopping=_is_stopping(session), trouble=looks.trouble)
            live.update(view, refresh=True)
            ended.wait(_LOOK_S)


def _follow_in_lines(looks: _Looks, session: Session, ended: threading.Event, _screen: None) -> None:
    said: set[str] = set()

    def say_once(text: str) -> None:
        if text not in said:
            said.add(text)
            _say(text)

    due_s = time.monotonic() + _LINE_EVERY_S
    while not ended.wait(_LOOK_S):
        if _is_stopping(session):
            say_once(terminal.STOPPING)
        if time.monotonic() > due_s:
            due_s += _LINE_EVERY_S
            looks.again()
            if looks.trouble:
                say_once(f"eventcsv: {looks.trouble}")
            else:
                _say(terminal.progress_line(looks.progress))


def _is_stopping(session: Session) -> bool:
    return bool(session.stop and session.stop.is_set())


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
        _Output(as_json).show(dataclasses.asdict(event), terminal.event_lines(event))
    damage = [item for item in damage if not item.torn]
    for item in damage:
        _say(f"eventcsv: {job.log_dir}: damaged, and perhaps about {po}: {item}")
    if damage:
        raise typer.Exit(Exit.DAMAGE)
    if not found:
        _fail(
            f"{terminal.near(job.log_dir)}: no events of {po!r}. If there is such a row, it has no result yet",
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
    from eventcsv.page import default_output, render, summary_of  # noqa: PLC0415  # the operator side

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
    po: Po,
    status: Annotated[
        str,
        typer.Argument(
            metavar="STATUS",
            help="COMPLETED, NO_ATTACHMENTS, PARTIAL, ERROR, FAILED, PENDING, or a word such as RATE_LIMIT.",
            show_default=False,
        ),
    ],
    *,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="COLUMN=TEXT", help="Set another column; can be given several times."),
    ] = None,
    durability: DurabilityOf = "disk",
    key: Key = DEFAULT_KEY,
    lock_timeout_s: LockTimeoutS = 30.0,
    as_json: Json = False,
) -> None:
    """Append one result to the event log of CSV. Once this returns 0, the result survives a power cut.

    CSV itself is brought up to date by `eventcsv compact`.
    """
    columns = _assigned(assignments or [])
    with EventCsv(csv, key=key, durability=durability, lock_timeout_s=lock_timeout_s) as job:
        event = job.emit_result(po, status, columns=columns)
    _Output(as_json).show(
        dataclasses.asdict(event), iter([f"recorded {event.key} {event.cells.get('STATUS', '')} as {event.id}"])
    )


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
    _Output(as_json).show(dataclasses.asdict(made), iter([f"{terminal.near(made.path)}: {made.record_count:,} rows"]))


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
    _Output(as_json).show(dataclasses.asdict(report), terminal.verify_lines(report))
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
    _Output(as_json).show(dataclasses.asdict(result), terminal.prune_lines(result))


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
        _Output(as_json).show(dataclasses.asdict(result), terminal.export_lines(result))
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
    force: Annotated[
        bool, typer.Option("--force", help="Replace a CSV that is there, as long as it has no event log.")
    ] = False,
    key: Key = DEFAULT_KEY,
    backup_dir: BackupDir = None,
    as_json: Json = False,
) -> None:
    """Make CSV, to begin a job with, of a sheet of an Excel workbook.

    The row that holds the key column is the header; what stands above it is left out. Text stays text, dates become
    2025-10-02, and numbers have no more digits than Excel keeps.
    """
    result = EventCsv(csv, key=key, backup_dir=backup_dir).import_workbook(workbook, sheet=sheet, force=force)
    _Output(as_json).show(dataclasses.asdict(result), terminal.import_lines(result))


# --- around every command ----------------------------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def _top(
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    log_level: LogLevel = None,
    log_file: LogFile = None,
) -> None:
    if version:
        typer.echo(f"eventcsv {__version__}")
        raise typer.Exit
    configure_logging(log_level, log_file)


@contextmanager
def _folding_bar(what: str = "folding") -> Iterator[ProgressCallback | None]:
    """Show a bar on a terminal once the work takes long enough to wonder."""
    if not sys.stderr.isatty():
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
    """Run the command line; every foreseeable error becomes one line on standard error and an exit code."""
    try:
        try:
            _mend_streams()
            app(standalone_mode=True)
        except (LockTimeout, SessionActive) as error:
            _exit(str(error), Exit.HELD)
        except AppendError as error:
            _exit(str(error), Exit.HELD if isinstance(error.__cause__, LockTimeout) else Exit.FAILED)
        except InvalidEvent as error:
            _exit(f"{error}. Nothing was written", Exit.USAGE)
        except EventCsvError as error:
            _exit(str(error), Exit.FAILED)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(Exit.FAILED)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _exit(
                f"{where}{error.strerror or error}. Nothing was half-written; mend the cause and run it again",
                Exit.FAILED,
            )
    except KeyboardInterrupt:
        _exit("stopped; run it again to go on", Exit.FAILED)


def _mend_streams() -> None:
    """Make closed streams harmless, and characters that a terminal's encoding lacks visible."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # for as long as the process lives
        else:
            stream.reconfigure(errors="backslashreplace")


def _exit(text: str, code: Exit) -> NoReturn:
    _say(f"eventcsv: {masked(text)}")
    sys.exit(code)
