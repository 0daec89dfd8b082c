"""`emit`: what a worker does, for a shell."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from eventcsv.cli import messages
from eventcsv.cli.options import (
    CsvPath,
    Debug,
    DurabilityOf,
    JobName,
    Json,
    Key,
    LockTimeoutS,
    LogPlace,
    StatusColumn,
    job_class,
)
from eventcsv.cli.output import Exit, Output, say, silence
from eventcsv.cli.wording import near
from eventcsv.event import DEFAULT_KEY
from eventcsv.masking import masked

if TYPE_CHECKING:
    from eventcsv.job import EventCsv

commands = typer.Typer(rich_markup_mode="markdown")
Po = Annotated[str | None, typer.Argument(metavar="KEY", help="The PO, as in the key column.", show_default=False)]
StatusOf = Annotated[
    str | None,
    typer.Argument(
        metavar="STATUS",
        help="COMPLETED, NO_ATTACHMENTS, PARTIAL, ERROR, FAILED, PENDING, or a word such as RATE_LIMIT.",
        show_default=False,
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="COLUMN=TEXT", help="Set another column; can be given several times."),
]
Started = Annotated[
    bool, typer.Option("--started", help="Record that KEY is taken up, before its work begins; without STATUS.")
]
FromStdin = Annotated[
    bool,
    typer.Option(
        "--stdin",
        help='Take results from standard input, one a line, as {"key": "PO1", "status": "COMPLETED", '
        '"columns": {"ATTACHMENTS_FOUND": 2}} or {"key": "PO1", "started": true}, and answer each on standard '
        "output with its id, or its error, as JSON.",
    ),
]


@commands.command(
    epilog="Example: `eventcsv emit data/input/input.csv PO15262984 ERROR --set ERROR_MESSAGE='page not found'`"
)
def emit(
    csv: CsvPath,
    po: Po = None,
    status: StatusOf = None,
    *,
    assignments: Assignments = None,
    started: Started = False,
    from_stdin: FromStdin = False,
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
    with job_class()(
        csv,
        key=key,
        status_column=status_column,
        durability=durability,
        lock_timeout_s=lock_timeout_s,
        log=log,
        job=job_name,
    ) as job:
        if note := job.link_note():
            say(note)
        if from_stdin:
            _emit_lines(job)
        event = job.emit_started(po or "") if started else job.emit_result(po or "", status or "", columns=columns)
        for mended in event.mended:
            say(f"eventcsv: {masked(mended)}")
        what = "as taken up," if started else event.cells.get(job.status_column, "")
        Output(as_json).show(messages.event_record(event), iter([f"recorded {event.key} {what} as {event.id}"]))
        if obstacle := job.obstacle():
            say(f"Warning: {near(job.csv_path)}: {obstacle}. What is recorded is not in it before that")


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
            silence(sys.stdout)
            say(f"eventcsv: standard output: {error.strerror}. What comes is recorded, but answered no more")

    if sys.stdin is None:
        raise typer.BadParameter("there is no standard input to read", param_hint="--stdin")
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
