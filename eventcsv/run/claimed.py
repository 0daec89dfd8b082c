"""What a run has claimed for itself, where hosts share a log; on one machine there is nothing to claim."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from eventcsv import masking
from eventcsv.errors import EventCsvError
from eventcsv.log.interface import Refusal

if TYPE_CHECKING:
    from collections.abc import Collection

    from eventcsv.log.types import Position
    from eventcsv.run.options import RunOptions
    from eventcsv.view.compactor import Compactor
    from eventcsv.worker.messages import Task
    from eventcsv.worker.recorder import Recorder


class Claimed:
    """The claims of a run.

    Args:
        job: Whose POs are claimed.
        compactor: Knows the CSV at the log's present end.
        how: How the run is steered.
        owner: What the run calls itself in its claims.
        start: How much of the log was known when the run was planned.

    Attributes:
        is_shared: Whether there can be other hosts.
    """

    def __init__(self, job: Recorder, compactor: Compactor, how: RunOptions, *, owner: str, start: Position) -> None:
        self._log = job.log
        self._csv_path = job.csv_path
        self._compactor = compactor
        self._holds = how.interrupted == "hold"
        self._start = start
        self._seen: dict[str, Position] = {}
        self._tokens: dict[str, int] = {}
        self._waited_for: set[str] = set()
        self._claims = job.log.claims(owner=owner, lease_s=how.lease_s, seen=start)
        self.is_shared = self._claims is not None

    def by_anyone(self) -> Collection[str]:
        """Return the POs that are claimed now, by whomever."""
        return self._claims.held() if self._claims else ()

    def token(self, key: str) -> int | None:
        """Return the token under which a PO is worked on; None when it is not claimed."""
        return self._tokens.get(key)

    def claim(self, key: str) -> Refusal | None:
        """Claim a PO; return why that could not be, or None."""
        if self._claims is None or key in self._tokens:
            return None
        try:
            found = self._claims.claim(key, seen=self._seen.get(key))
        except EventCsvError as error:  # the server is away; what is in flight goes on
            masking.get_logger().warning("claims.not_made", error=str(error))
            found = Refusal.HELD
        if isinstance(found, int) and self._holds and key in self._waited_for:
            found = self._unless_interrupted(key, found)
        if isinstance(found, int):
            self._tokens[key] = found
            return None
        if found is Refusal.HELD:
            self._waited_for.add(key)
        return found

    def _unless_interrupted(self, key: str, token: int) -> int | Refusal:
        """Return the token of a PO that another host gave up, or why it is not to be worked on after all."""
        try:
            in_flight = {item.key for item in self._compactor.project().in_flight}
            refusal = Refusal.INTERRUPTED if key in in_flight else None
        except (EventCsvError, OSError) as error:  # it is looked at again
            masking.get_logger().warning("run.not_planned_again", csv=self._csv_path, error=str(error))
            refusal = Refusal.HELD
        if refusal and self._claims:
            self._claims.release(key)
        return refusal or token

    def release(self, key: str) -> None:
        """Give a PO back that nobody works on."""
        if self._claims:
            self._claims.release(key)
            self._tokens.pop(key, None)

    def put_aside(self, key: str) -> None:
        """Give a PO back that this run has worked on, and may work on again."""
        if self._claims:
            self.release(key)
            with suppress(EventCsvError):  # else what this run has recorded itself counts as another host's result
                self._seen[key] = self._log.end().position

    def forget(self, key: str) -> None:
        """Take note that a PO is finished."""
        if self._claims:
            self._claims.forget(key)
            self._tokens.pop(key, None)

    def has_lapsed(self, task: Task) -> bool:
        """Tell whether another host may have taken over a PO by now."""
        return self._claims is not None and self._claims.has_lapsed(task.key)

    def is_taken_over(self, task: Task) -> bool:
        """Tell whether another host has taken over a PO, by the server; no when it does not answer."""
        return self._claims is not None and self._claims.is_taken_over(task.key)

    def see(self, key: str, position: Position) -> None:
        """Take note of how much of the log was known of a PO when it was planned again."""
        self._seen[key] = position

    def seen(self, key: str) -> Position:
        """Return how much of the log was known of a PO when it was planned."""
        return self._seen.get(key, self._start)

    def close(self) -> None:
        """Give back what is claimed."""
        if self._claims:
            self._claims.close()
