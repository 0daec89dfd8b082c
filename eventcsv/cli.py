"""The command line: the only place that prints and that configures logging.

Results go to standard output, everything else to standard error. Exit codes: 0 fine (a torn last line after a crash is
fine, and said), 1 failed, 2 used wrongly, 3 finished but damage was found, 4 a lock or session is held by another.
"""

from __future__ import annotations

import codecs
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import orjson
import typer

from eventcsv.errors import AppendError, EventCsvError, InvalidEvent, LockTimeout, SessionActive
from eventcsv.event import DEFAULT_KEY
from eventcsv.facade import EventCsv
from eventcsv.log import Durability  # noqa: TC001  # typer reads the annotations
from eventcsv.masking import escaped, masked
from eventcsv.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from eventcsv.compactor import CompactResult, ProgressCallback
    from eventcsv.event import Event
    from eventcsv.scan import Damage

_POLL_S: Final = 0.2
_SHARE_OF_TIME: Final = 0.1
_SHOWN: Final = 10


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
    "Workers append results to an event log; these commands keep the CSV up to date with it.",
    epilog="Exit codes: 0 fine, 1 failed, 2 used wrongly, 3 finished but damage was found, 4 held by another process.",
)

CsvPath = Annotated[Path, typer.Argument(metavar="CSV", help="The CSV file.", show_default=False, readable=False)]
Key = Annotated[str, typer.Option("--key", metavar="COLUMN", help="The column that identifies a row.")]
BackupDir = Annotated[
    Path | None,
    typer.Option(
        "--backup-dir",
        metavar="DIR",
        envvar="EVENTCSV_BACKUP_DIR",
        help='Where backups go. [default: "backup" beside CSV]',
    ),
]


def _one_character(text: str | None) -> str | None:
    """Check --delimiter; a tab is hard to type, so its name and its escape will do."""
    character = {"tab": "\t", "\\t": "\t"}.get(text or "", text)
    if character is not None and (len(character) != 1 or not character.isascii() or character in '"\r\n'):
        raise typer.BadParameter(f"has to be one ASCII character, no quote and no line end, or tab; not {text!r}")
    return character


def _known_encoding(name: str | None) -> str | None:
    """Check --encoding."""
    try:
        codecs.lookup(name or "utf-8")
    except LookupError:
        raise typer.BadParameter(f"there is no {name!r}; try cp1252, utf-16, latin-1 or utf-8") from None
    return name


Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter",
        metavar="CHAR",
        callback=_one_character,
        help="The delimiter between cells: one character, or tab. [default: detected from the header]",
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        metavar="NAME",
        callback=_known_encoding,
        help="How to read a CSV that is not UTF-8; it is written back as UTF-8 with a BOM.",
    ),
]
Formulas = Annotated[
    bool,
    typer.Option(
        "--guard-formulas/--allow-formulas",
        help="Put an apostrophe before text of results that a spreadsheet would take for a formula.",
    ),
]
LockTimeoutS = Annotated[
    float,
    typer.Option(
        "--lock-timeout",
        metavar="SECONDS",
        envvar="EVENTCSV_LOCK_TIMEOUT_S",
        min=0.0,
        help="How long to wait while another process holds the lock.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]


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
def compact(
    csv: CsvPath,
    *,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Keep going until Ctrl-C: fold what workers record within about a second.",
        ),
    ] = False,
    key: Key = DEFAULT_KEY,
    backup_dir: BackupDir = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    guard_formulas: Formulas = True,
    lock_timeout_s: LockTimeoutS = 30.0,
    as_json: Json = False,
) -> None:
    """Bring the CSV up to date with its event log.

    Only results that are new are folded in. The CSV is replaced in one step: whoever opens it sees the old version or
    the new one. When nothing is new it is not touched. Edits are kept, and so is a copy of the edited version.
    """
    job = EventCsv(
        csv,
        key=key,
        backup_dir=backup_dir,
        lock_timeout_s=lock_timeout_s,
        delimiter=delimiter,
        encoding=encoding,
        guard_formulas=guard_formulas,
    )
    output = _Output(as_json)
    if watch:
        _watch(job, output)
    with _progress_bar() as on_progress:
        result = job.compact(on_progress=on_progress)
    _finish(result, output)


@app.command(epilog="Example: `eventcsv replay data/input/input.csv --backup input_20251002_124311_8f3a12c4.csv`")
def replay(
    csv: CsvPath,
    *,
    backup: Annotated[
        str | None,
        typer.Option("--backup", metavar="NAME", help="The backup to start from. [default: the newest valid one]"),
    ] = None,
    key: Key = DEFAULT_KEY,
    backup_dir: BackupDir = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    guard_formulas: Formulas = True,
    lock_timeout_s: LockTimeoutS = 30.0,
    as_json: Json = False,
) -> None:
    """Rebuild the CSV from a backup and the event log after it.

    This is the way back from a CSV that was broken, deleted or edited by mistake. When the result differs from what it
    holds now, that is kept as a backup first.
    """
    job = EventCsv(
        csv,
        key=key,
        backup_dir=backup_dir,
        lock_timeout_s=lock_timeout_s,
        delimiter=delimiter,
        encoding=encoding,
        guard_formulas=guard_formulas,
    )
    with _progress_bar() as on_progress:
        result = job.replay(backup=backup, on_progress=on_progress)
    _finish(result, _Output(as_json))


def _finish(result: CompactResult, output: _Output, *, damaged: bool = False) -> NoReturn:
    output.show(_record(result), _report(result))
    raise typer.Exit(Exit.DAMAGE if result.damage or damaged else Exit.FINE)


def _record(result: CompactResult) -> dict[str, Any]:
    return dataclasses.asdict(result)


def _report(result: CompactResult) -> Iterator[str]:
    """Say what a compaction did, in lines of a label and a text."""
    state = "was brought up to date" if result.changed else "is up to date and was not touched"
    yield f"{_near(result.csv_path)} {state}"
    yield _line("rows", f"{result.rows:,}, by status: {_statuses(result.by_status)}")
    place = f"the log's end (segment {result.position.segment}, byte {result.position.offset_bytes:,})"
    yield _line("folded", f"{result.events:,} {_plural('event', result.events)}, up to {place}")
    if result.rebuilt:
        yield _line("rebuilt", result.rebuilt)
    if result.edited:
        yield _line("edited", "the CSV was edited since the last time; the edits were kept, and a copy as a backup")
    if result.stale:
        count = f"{result.stale:,} {_plural('event', result.stale)}"
        yield _line("", f"{count} that the edited version did not show were folded again: an editor does not reload")
    if result.added_columns:
        yield _line("added", f"{_plural('column', len(result.added_columns))} {', '.join(result.added_columns)}")
    yield from _report_log(result)
    if result.base:
        yield _line("backup", f"{_near(result.base.path)} ({result.base.reason})")
    if result.kept:
        yield _line("backup", f"{_near(result.kept.path)} (the CSV as it was before)")
    yield _line("took", f"{result.duration_s:.2f} s")


def _report_log(result: CompactResult) -> Iterator[str]:
    """Say what the log holds beside what was folded."""
    if result.unknown:
        count = sum(result.unknown.values())
        keys = _few(list(result.unknown))
        yield _line("unknown", f"{count:,} {_plural('event', count)} for keys that are in no row: {keys}")
        yield _line("", "kept in the log, and folded once there is a row. A typo, blanks or lost leading zeros?")
    if result.late:
        yield _line("late", f"results recorded before their rows were added: {_few(list(result.late))}")
    for item in result.torn[:_SHOWN]:
        yield _line("torn line", str(item))
    if result.torn:
        yield _line("", "no result was lost by it: it was never acknowledged. Results to come are appended behind it")
    for item in result.damage[:_SHOWN]:
        yield _line("damage", str(item))
    if len(result.damage) > _SHOWN:
        yield _line("", f"and {len(result.damage) - _SHOWN:,} more; --json lists all")


def _line(label: str, text: str) -> str:
    return f"  {label:<10} {text}"


def _near(path: str) -> str:
    """Return a path as one would type it here: relative when it lies below the working directory."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _statuses(by_status: dict[str, int]) -> str:
    return _few([f"{status or '(none yet)'} {count:,}" for status, count in by_status.items()]) or "no rows"


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _watch(job: EventCsv, output: _Output) -> NoReturn:
    """Compact whenever the log grew or the CSV was edited, until Ctrl-C or SIGTERM.

    What an operator can mend (a CSV saved with broken quoting, a full disk) is said once, and tried again.
    """
    damaged = False
    seen: object = None
    trouble = ""
    rounds = 0
    _say(f"watching {_near(job.csv_path)}; Ctrl-C ends it")
    with _stop_signals() as stop:
        while not stop.is_set():
            clock = time.perf_counter()
            try:
                state = job.fingerprint()
                if state != seen or trouble:
                    result = job.compact()
                    seen = None if result.changed else state  # look once more after a change of our own
                    damaged |= bool(result.damage)
                    if not rounds or _is_news(result):
                        output.show(_record(result), iter([_summary(result)]))
                    trouble = ""
                    rounds += 1
            except (EventCsvError, OSError) as error:
                if not rounds:  # it never worked: rather a mistyped path than something that passes
                    raise
                if str(error) != trouble:
                    trouble = str(error)
                    _say(f"eventcsv: {masked(trouble)}. Watching on")
            # The first round may have had hours to catch up with, which says nothing about the next.
            took_s = time.perf_counter() - clock if rounds > 1 else 0.0
            stop.wait(max(_POLL_S, took_s / _SHARE_OF_TIME - took_s))
    _say("stopped; the last state follows")
    _finish(job.compact(), output, damaged=damaged)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C or SIGTERM sets; the second one strikes as ever."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        restore()

    for number in numbers:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        restore()


def _is_news(result: CompactResult) -> bool:
    return bool(result.changed or result.damage or result.unknown or result.edited or result.rebuilt or result.base)


def _summary(result: CompactResult) -> str:
    parts = [f"+{result.events:,} {_plural('event', result.events)}"]
    parts += [f"{len(result.damage)} damaged"] * bool(result.damage)
    parts += [f"for keys in no row: {_few(list(result.unknown))}"] * bool(result.unknown)
    parts += ["edits kept"] * result.edited
    parts += [f"{result.stale:,} folded again, not in the edited version"] * bool(result.stale)
    parts += [f"rebuilt: {result.rebuilt}"] * bool(result.rebuilt)
    parts += [f"added {', '.join(result.added_columns)}"] * bool(result.added_columns)
    return f"{time.strftime('%H:%M:%S')}  {'; '.join(parts)}  |  {_statuses(result.by_status)}"


# --- emit and history --------------------------------------------------------------------------------------------


@app.command(
    epilog="Example: `eventcsv emit data/input/input.csv PO15262984 ERROR --set ERROR_MESSAGE='page not found'`"
)
def emit(
    csv: CsvPath,
    po: Annotated[str, typer.Argument(metavar="KEY", help="The PO, as in the key column.", show_default=False)],
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
        typer.Option(
            "--set",
            metavar="COLUMN=TEXT",
            help="Set another column; can be given several times.",
        ),
    ] = None,
    durability: Annotated[
        Durability, typer.Option("--durability", help="What a recorded result survives: a power cut, or a crash only.")
    ] = "disk",
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


@app.command(epilog="Example: `eventcsv history data/input/input.csv PO15262984`")
def history(
    csv: CsvPath,
    po: Annotated[str, typer.Argument(metavar="KEY", help="The PO, as in the key column.", show_default=False)],
    *,
    key: Key = DEFAULT_KEY,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON an event, for programs.")] = False,
) -> None:
    """Show what the event log says of one PO, from the oldest event to the newest. Writes nothing."""
    job = EventCsv(csv, key=key)
    found = 0
    damage: list[Damage] = []
    for event in job.history(po, on_damage=damage.append):
        found += 1
        _Output(as_json).show(dataclasses.asdict(event), _event_lines(event))
    for item in damage:
        _say(f"eventcsv: {job.log_dir}: damaged, and perhaps about {po}: {item}")
    if damage:
        raise typer.Exit(Exit.DAMAGE)
    if not found:
        _fail(f"{_near(job.log_dir)}: no events of {po!r}. If there is such a row, it has no result yet", Exit.FAILED)


def _event_lines(event: Event) -> Iterator[str]:
    yield f"{event.ts}  {event.kind}  {event.id}"
    for column, text in event.cells.items():
        yield f"    {column} = {text}"


# --- around every command ----------------------------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def _top(
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    log_level: Annotated[
        str,
        typer.Option(
            "--log-level", metavar="LEVEL", help="What to log to standard error: debug, info, warning or error."
        ),
    ] = "error",
) -> None:
    if version:
        typer.echo(f"eventcsv {__version__}")
        raise typer.Exit
    _configure_logging(log_level)


def _configure_logging(level: str) -> None:
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise typer.BadParameter(f"has to be debug, info, warning or error, not {level!r}", param_hint="--log-level")
    logger = logging.getLogger("eventcsv")
    logger.setLevel(number)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LazyFormatter())
    logger.handlers = [handler]
    logger.propagate = False


class _LazyFormatter(logging.Formatter):
    """structlog's formatter: readable on a terminal, JSON elsewhere; imported with the first record."""

    def format(self, record: logging.LogRecord) -> str:
        import structlog  # noqa: PLC0415  # most commands log nothing

        renderer: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
        return structlog.stdlib.ProcessorFormatter(processor=renderer).format(record)


@contextmanager
def _progress_bar() -> Iterator[ProgressCallback | None]:
    """Show a bar on a terminal once the work takes long enough to wonder."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415  # only a terminal needs it
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415  # the same

    columns = (TextColumn("folding"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("folding", total=None)
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
