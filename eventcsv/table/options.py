"""What a caller says of a CSV; whatever nobody says shows from it. Light: loads no Polars."""

from __future__ import annotations

from dataclasses import dataclass

from eventcsv.event import COLUMNS


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """How a CSV is read, and kept up to date.

    Attributes:
        delimiter: What stands between cells, one character; by default it shows from the header.
        encoding: How to read a CSV that is not UTF-8. It is written back as UTF-8 with a byte order mark.
        guard_formulas: Put an apostrophe before text of results that a spreadsheet would take for a formula.
        settle_s: How long an edited CSV must not have changed before it is taken for saved, in seconds.
        status_column: What the column is called that says what came of a row.
    """

    delimiter: str | None = None
    encoding: str | None = None
    guard_formulas: bool = True
    settle_s: float = 1.0
    status_column: str = COLUMNS["status"]
