"""The arguments and options that commands share, and how a command gets its job from them."""

from __future__ import annotations

import codecs
import inspect
import threading
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from eventcsv.cli import tracebacks
from eventcsv.cli.log_output import configure_logging
from eventcsv.cli.output import say
from eventcsv.errors import EventCsvError
from eventcsv.event import DEFAULT_KEY
from eventcsv.signals import while_loading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from eventcsv.job import EventCsv


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


def seconds_from(least_s: float) -> Callable[[float | None], float | None]:
    """Return a check of a time; nan and inf are numbers to a parser."""

    def check(seconds: float | None) -> float | None:
        if seconds is not None and not least_s <= seconds <= threading.TIMEOUT_MAX:
            raise typer.BadParameter(
                f"has to be a number of seconds from {least_s:g} to {threading.TIMEOUT_MAX:.0f}, not {seconds}"
            )
        return seconds

    return check


@contextmanager
def checked(option: str) -> Iterator[None]:
    """Blame an option for a value that the library finds to be none."""
    try:
        yield
    except EventCsvError:
        raise
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


_PANEL: Final = "Which CSV, and how to read it"
CsvPath = Annotated[Path, typer.Argument(metavar="CSV", help="The CSV file.", show_default=False, readable=False)]
Key = Annotated[
    str,
    typer.Option("--key", metavar="COLUMN", help="The column that identifies a row.", rich_help_panel=_PANEL),
]
StatusColumn = Annotated[
    str | None,
    typer.Option(
        "--status-column",
        metavar="COLUMN",
        envvar="EVENTCSV_STATUS_COLUMN",
        help="The column that says what came of a row, if STATUS of the list means something else. [default: STATUS]",
        rich_help_panel=_PANEL,
    ),
]
BackupDir = Annotated[
    Path | None,
    typer.Option(
        "--backup-dir",
        metavar="DIR",
        envvar="EVENTCSV_BACKUP_DIR",
        help='Where backups go. [default: "backup" beside CSV]',
        rich_help_panel=_PANEL,
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter",
        metavar="CHAR",
        callback=_one_character,
        help="The delimiter between cells: one character, or tab. [default: detected from the header]",
        rich_help_panel=_PANEL,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        metavar="NAME",
        callback=_known_encoding,
        help="How to read a CSV that is not UTF-8; it is written back as UTF-8 with a BOM.",
        rich_help_panel=_PANEL,
    ),
]
Formulas = Annotated[
    bool,
    typer.Option(
        "--guard-formulas/--allow-formulas",
        help="Put an apostrophe before text of results that a spreadsheet would take for a formula.",
        rich_help_panel=_PANEL,
    ),
]
LockTimeoutS = Annotated[
    float,
    typer.Option(
        "--lock-timeout",
        metavar="SECONDS",
        envvar="EVENTCSV_LOCK_TIMEOUT_S",
        callback=seconds_from(0),
        help="How long to wait while another process holds the lock.",
        rich_help_panel=_PANEL,
    ),
]
LogPlace = Annotated[
    str | None,
    typer.Option(
        "--log",
        metavar="URL|DIR",
        envvar="EVENTCSV_LOG",
        show_envvar=True,
        help="The event log: postgresql://host/database, or a directory. [default: .events beside CSV]",
        rich_help_panel=_PANEL,
    ),
]
JobName = Annotated[
    str | None,
    typer.Option(
        "--job",
        metavar="NAME",
        envvar="EVENTCSV_JOB",
        help="What the job is called on the server. [default: the name of CSV, without .csv]",
        rich_help_panel=_PANEL,
    ),
]
DurabilityOf = Annotated[
    Literal["disk", "process"],
    typer.Option("--durability", help="What a recorded result survives: a power cut, or a crash only."),
]
Done = Annotated[
    list[str],
    typer.Option("--done", metavar="STATUS", help="What counts as done; can be given several times."),
]
Po = Annotated[str, typer.Argument(metavar="KEY", help="The PO, as in the key column.", show_default=False)]
BackupName = Annotated[str, typer.Argument(metavar="BACKUP", help="The file name of the backup.", show_default=False)]
LogLevel = Annotated[
    str | None,
    typer.Option(
        "--log-level",
        metavar="LEVEL",
        help="What to log: debug, info, warning or error. [default: error, info with --log-file]",
    ),
]
LogFile = Annotated[
    Path | None,
    typer.Option("--log-file", metavar="FILE", help="Log as JSON, to the end of FILE instead of standard error."),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        envvar=tracebacks.VARIABLE,
        callback=tracebacks.turn_on,
        help="Show the traceback of an error, too, with secrets masked.",
    ),
]
AcceptEdit = Annotated[
    bool, typer.Option("--accept-edit", help="Take over a saved CSV even if it does away with many results.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]

# --- a command's job ---------------------------------------------------------------------------------------------


def _job(
    csv: CsvPath,
    *,
    log: LogPlace = None,
    job: JobName = None,
    log_level: LogLevel = None,
    log_file: LogFile = None,
    key: Key = DEFAULT_KEY,
    status_column: StatusColumn = None,
    backup_dir: BackupDir = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    guard_formulas: Formulas = True,
    lock_timeout_s: LockTimeoutS = 30.0,
    debug: Debug = False,  # noqa: ARG001  # its callback has turned it on
) -> EventCsv:
    if log_level or log_file:
        configure_logging(log_level, log_file)
    return job_class()(
        csv,
        log=log,
        job=job,
        key=key,
        status_column=status_column,
        backup_dir=backup_dir,
        lock_timeout_s=lock_timeout_s,
        delimiter=delimiter,
        encoding=encoding,
        guard_formulas=guard_formulas,
    )


def job_class() -> type[EventCsv]:
    """Return `EventCsv`, which --help has no need of."""
    with while_loading():
        from eventcsv.job import EventCsv  # noqa: PLC0415  # not before a command needs it
    return EventCsv


@cache
def _shared_parameters() -> Mapping[str, inspect.Parameter]:
    return {item.name: _evaluated(item, _job) for item in inspect.signature(_job).parameters.values()}


def _evaluated(parameter: inspect.Parameter, function: Callable[..., object]) -> inspect.Parameter:
    """Return a parameter of a function with its annotation instead of the text of it."""
    return parameter.replace(annotation=eval(parameter.annotation, function.__globals__))  # noqa: S307  # our own text


def on_job(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the arguments of `_job`, the CSV first, and call it with the job that they make."""
    shared = _shared_parameters()
    _, *parts = inspect.signature(command).parameters.values()  # without the job
    own = [_evaluated(item, command) for item in parts]

    @wraps(command)
    def wrapper(**arguments: Any) -> None:  # noqa: ANN401  # whatever the signature below says
        from eventcsv.storage.network import network_file_system_of  # noqa: PLC0415  # the same

        job = _job(**{name: arguments.pop(name) for name in shared})
        if kind := network_file_system_of(job.log_dir):
            say(
                f"Warning: {job.log_dir} is on a network file system ({kind}), where locks and syncs may not hold. "
                "Keep the CSV and its log on a local disk, and all workers on one machine"
            )
        if note := job.link_note():
            say(note)
        command(job, **arguments)

    csv, *options = shared.values()
    positional = [item for item in own if item.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    parameters = [csv, *positional, *(item for item in own if item not in positional), *options]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect looks at first
    wrapper.__annotations__ = {item.name: item.annotation for item in parameters}
    return wrapper
