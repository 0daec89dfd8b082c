"""Claims: who works on which PO, when several hosts share a log on a server.

A host claims a PO before it hands it to a worker, for as long as a lease lasts, and renews its leases while it lives.
One that dies, or is cut off, gives its POs back when they run out. Each claim has a token that counts up, and an event
of a claimed PO is appended only while its token is the last one given: who was frozen past its lease and woken up again
is refused, and learns so. A result ends its claim in the transaction that appends it.

A PO is done once for each host that knew it as pending: whoever had not seen a result when its run began is told that
there is one, and does not do the PO again.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from eventcsv import masking
from eventcsv.errors import EventCsvError, ServerError
from eventcsv.log.interface import Refusal
from eventcsv.log.postgres.server import Server

if TYPE_CHECKING:
    from eventcsv.log.postgres.reader import PgReader
    from eventcsv.log.types import Position

_RENEWALS_A_LEASE: Final = 4
_SHARE_LEFT: Final = 0.1
_LAPSED: Final = 0.0  # by no clock; who was told so has stopped the worker, and no late renewal makes that undone
_LONGEST_KEY_BYTES: Final = 2_000  # what fits into an index of the server

_CLAIM: Final = "select * from eventcsv.claim(%s::int, %s::text, %s::text, %s::float8, %s::int, %s::bigint)"
_RENEW: Final = "select eventcsv.renew(%s::int, %s::text[], %s::bigint[], %s::float8)"
_RELEASE: Final = "select eventcsv.release(%s::int, %s::text, %s::bigint)"
_HELD: Final = "select key from eventcsv.held(%s::int)"


class PgClaims:
    """The claims of one run, made by `PgLog.claims`; see `Claims` for what its methods do."""

    def __init__(self, log: PgReader, *, owner: str, lease_s: float, seen: Position) -> None:
        self._log = log
        self._owner = owner
        self._lease_s = lease_s
        self._seen = seen
        self._mutex = threading.Lock()
        self._tokens: dict[str, int] = {}
        self._safe_until: dict[str, float] = {}
        self._end = threading.Event()
        # A connection of its own, and no waiting: a renewal must neither queue behind a long read nor come too late.
        self._server = Server(log.server.url, lease_s / _RENEWALS_A_LEASE)
        self._server.call("select 1")  # before the workers take the connections that are left
        self._thread = threading.Thread(target=self._keep_renewing, name="eventcsv-claims", daemon=True)
        self._thread.start()

    def claim(self, key: str, *, seen: Position | None = None) -> int | Refusal:
        if len(key.encode()) > _LONGEST_KEY_BYTES:
            return Refusal.TOO_LONG
        clock = time.monotonic()
        place = seen or self._seen
        arguments = (self._log.number(), key, self._owner, self._lease_s, place.segment, place.offset_bytes)
        token, is_finished = self._log.server.call(_CLAIM, arguments)[0]
        if token is None:
            return Refusal.FINISHED if is_finished else Refusal.HELD
        with self._mutex:
            self._tokens[key] = token
            self._safe_until[key] = clock + self._lease_s * (1 - _SHARE_LEFT)
        return int(token)

    def has_lapsed(self, key: str) -> bool:
        with self._mutex:
            if self._safe_until.get(key, float("inf")) >= time.monotonic():
                return False
            self._safe_until[key] = _LAPSED
            return True

    def is_taken_over(self, key: str) -> bool:
        with self._mutex:
            token = self._tokens.get(key)
        try:
            held = self._log.server.call_at_once(_RENEW, (self._log.number(), [key], [token], self._lease_s))
        except EventCsvError:
            return False
        return not held

    def forget(self, key: str) -> None:
        with self._mutex:
            self._tokens.pop(key, None)
            self._safe_until.pop(key, None)

    def release(self, key: str) -> None:
        with self._mutex:
            token = self._tokens.get(key)
        self.forget(key)
        if token is not None:
            with suppress(EventCsvError):
                self._server.call(_RELEASE, (self._log.number(), key, token))

    def held(self) -> frozenset[str]:
        return frozenset(row[0] for row in self._log.server.call(_HELD, (self._log.number(),)))

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        for key in list(self._tokens):
            self.release(key)
        self._server.close()

    def _keep_renewing(self) -> None:
        while not self._end.wait(self._lease_s / _RENEWALS_A_LEASE):
            try:
                self._renew()
            except EventCsvError as error:  # it is tried again; what lapses meanwhile is stopped
                masking.get_logger().warning("claims.not_renewed", error=str(error))

    def _renew(self) -> None:
        with self._mutex:
            held = dict(self._tokens)
        if not held:
            return
        clock = time.monotonic()
        arguments = (self._log.number(), list(held), list(held.values()), self._lease_s)
        try:
            rows = self._server.call(_RENEW, arguments)
        except ServerError:  # perhaps it has lost its connection, and there is none left; the log's may be there still
            rows = self._log.server.call_at_once(_RENEW, arguments)
        renewed = {row[0] for row in rows}
        with self._mutex:
            for key, token in held.items():
                if self._tokens.get(key) == token and self._safe_until[key] != _LAPSED:
                    is_ours = key in renewed
                    self._safe_until[key] = clock + self._lease_s * (1 - _SHARE_LEFT) if is_ours else _LAPSED
