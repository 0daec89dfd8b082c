"""The schema of a PostgreSQL log, version 1: what `schema.sql` makes, and who may do what.

A job's log is a table of lines, byte for byte those of a file log, headers included. `ends` is the byte of its segment
at which a line ends, so positions, checksums and damage are those of the file log too, and a row that is gone shows.

Workers reach the tables through functions only, which belong to whoever ran `eventcsv log init`. The order trap (a
later row that commits before an earlier one is missed by whoever reads on from the last) is closed in `append`: it
takes the job's lock first and looks for the end of the log after that, in one statement that is a transaction of its
own. So no worker that waits can hold the lock, and what is visible is all that there will ever be before it.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 1

CLAIM_LOST: Final = "EV001"
NO_JOB: Final = "EV002"
UNSAFE: Final = "EV003"

_WORKER: Final = (
    "eventcsv.open(text)",
    "eventcsv.append(int, text, bytea, text, bigint, boolean)",
    "eventcsv.claim(int, text, text, double precision, int, bigint)",
    "eventcsv.renew(int, text[], bigint[], double precision)",
    "eventcsv.release(int, text, bigint)",
    "eventcsv.held(int)",
)
_OPERATOR: Final = (
    *_WORKER,
    "eventcsv.begin_segment(text, int, bytea)",
    "eventcsv.store(text, int, bigint, bigint[], text[], bytea[])",
    "eventcsv.remove_segment(int, int)",
)

WORKER_GRANTS: Final = (
    "grant usage on schema eventcsv to {}",
    *(f"grant execute on function {name} to {{}}" for name in _WORKER),
)
"""A worker can append and claim, and read nothing."""

OPERATOR_GRANTS: Final = (
    "grant usage on schema eventcsv to {}",
    *(f"grant execute on function {name} to {{}}" for name in _OPERATOR),
    "grant select on eventcsv.line, eventcsv.job to {}",
)
"""An operator can read the log besides, begin segments, copy and prune."""
