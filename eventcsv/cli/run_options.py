"""The arguments and options of `run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from eventcsv.cli.options import seconds_from

Function = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODULE:FUNCTION]",
        help="What to do with a PO, as `jobs:download` for `def download(key, row)` in jobs.py, which may be async. It "
        "returns a mapping from column names to values, or a STATUS; STATUS is COMPLETED when it names none.",
        show_default=False,
    ),
]
Workers = Annotated[int, typer.Option("--workers", "-w", min=1, help="How many worker processes.")]
TimeoutS = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        callback=seconds_from(0.001),
        help="How long a PO may take. [default: no limit]",
    ),
]
Interrupted = Annotated[
    Literal["retry", "hold"],
    typer.Option("--interrupted", help="What to do with POs that were in flight when an earlier run died."),
]
Initializer = Annotated[
    str | None,
    typer.Option(
        "--initializer",
        metavar="MODULE:FUNCTION",
        help="Called once in each worker, before its first PO; opens a browser, for instance. It may be a context "
        "manager, which is left when the worker ends.",
    ),
]
Finalizer = Annotated[
    str | None,
    typer.Option(
        "--finalizer",
        metavar="MODULE:FUNCTION",
        help="Called once in each worker that ends in peace; closes the browser.",
    ),
]
SessionName = Annotated[
    str | None, typer.Option("--session", metavar="NAME", help="The session's name. [default: a random one]")
]
LeaseS = Annotated[
    float,
    typer.Option(
        "--lease",
        metavar="SECONDS",
        callback=seconds_from(0.1),
        help="With --log URL: how long other hosts wait before they take over the POs of one that died.",
    ),
]
RefreshS = Annotated[
    float,
    typer.Option(
        "--refresh", metavar="SECONDS", callback=seconds_from(0.01), help="How far CSV may be behind the log."
    ),
]
_CHOICE: Final = "Which POs"
_STEERING: Final = "Attempts, pace and brake"
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="KEY",
        help="Work on this PO only; can be given several times. - reads keys from standard input, one a line.",
        rich_help_panel=_CHOICE,
    ),
]
OnlyStatus = Annotated[
    list[str] | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help="Work only on what stands so now, as ERROR; can be given several times. '' is none yet.",
        rich_help_panel=_CHOICE,
    ),
]
OrderBy = Annotated[
    str | None,
    typer.Option(
        "--order-by",
        metavar="COLUMN",
        help="Begin with the least in this column: numbers, then texts, empty ones last. -COLUMN begins with the "
        "greatest. [default: the order of CSV]",
        rich_help_panel=_CHOICE,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", metavar="COUNT", min=1, help="Work on so many POs at most.", rich_help_panel=_CHOICE),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only show which POs would be worked on, in their order, and how often they were tried. Writes nothing, "
        "and needs no function or command.",
        rich_help_panel=_CHOICE,
    ),
]
AttemptsOf = Annotated[
    int,
    typer.Option(
        "--attempts",
        metavar="COUNT",
        min=1,
        help="How often a PO that fails is tried in all, each time after the others.",
        rich_help_panel=_STEERING,
    ),
]
RetryAfterS = Annotated[
    float,
    typer.Option(
        "--retry-after",
        metavar="SECONDS",
        callback=seconds_from(0),
        help="With --attempts: how long the second one waits; each further one twice as long, up to an hour.",
        rich_help_panel=_STEERING,
    ),
]
Halt = Annotated[
    str | None,
    typer.Option(
        "--halt",
        metavar="COUNT|SHARE",
        help="End the run when so many POs in a row failed, as 20, or such a share of the last 100, as 30%.",
        rich_help_panel=_STEERING,
    ),
]
RateOf = Annotated[
    str | None,
    typer.Option(
        "--rate",
        metavar="COUNT/UNIT",
        help="Begin no more POs than that, all workers together: 30/min, 2/s, 500/h.",
        rich_help_panel=_STEERING,
    ),
]
OutputDir = Annotated[
    Path | None,
    typer.Option(
        "--output-dir",
        metavar="DIR",
        file_okay=False,
        help="With a command behind --: keep what it prints in this directory, a file a PO, instead of showing it.",
    ),
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Ask nothing: STATUS of the list is what a run writes, and goes by.")
]
