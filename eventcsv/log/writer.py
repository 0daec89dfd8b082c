"""Who appends: the ids of its events begin with its name, and a forked child has a name of its own."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

from eventcsv.event import Event
from eventcsv.storage.forks import ForkAware

if TYPE_CHECKING:
    from eventcsv.event import Kind


class Writer(ForkAware):
    """Makes events; see `Log`."""

    def _begin(self) -> None:
        self.write_as(f"{os.urandom(6).hex()}-00")
        super()._begin()

    def write_as(self, writer: str) -> None:
        self._writer = writer
        self._numbers = itertools.count(1)

    def new_event(self, kind: Kind, key: str, cells: dict[str, str], ts: str) -> Event:
        self._notice_fork()
        return Event(f"{self._writer}-{next(self._numbers)}", ts, str.__str__(kind), key, cells)
