"""What is inside of a job, for the promises that are about it: the one place where tests reach for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventcsv import EventCsv
    from eventcsv.view.compactor import Compactor


def compactor_of(job: EventCsv) -> Compactor:
    """Return what keeps the CSV of a job."""
    return job._compactor
