"""A pooler between clients and a PostgreSQL server, as small as can be: it speaks as much of the protocol as it must.

What it does is what PgBouncer does in its two modes: a client has a server's process for its session, or for one
transaction at a time, the one that was given back last; and it gives its clients numbers of its own.
"""

from __future__ import annotations

import itertools
import selectors
import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_SSL: Final = 80877103
_GSS: Final = 80877104
_OWN_NUMBERS: Final = 1_000_000_000


def _exactly(source: socket.socket, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes:
        if not (piece := source.recv(size_bytes - len(data))):
            raise ConnectionError
        data += piece
    return data


def _message(source: socket.socket) -> bytes:
    """Return one message of the protocol, its type and length included."""
    head = _exactly(source, 5)
    return head + _exactly(source, struct.unpack("!I", head[1:])[0] - 4)


class Pooler:
    """A pooler on a port of its own.

    Args:
        port: That of the server, which has to trust whoever connects.
        mode: "session" or "transaction".
        size: How many sessions it serves at a time; other clients wait.
    """

    def __init__(self, port: int, mode: str, size: int = 20) -> None:
        self._server_port = port
        self._mode = mode
        self._size = threading.Semaphore(size)
        self._idle: list[socket.socket] = []
        self._mutex = threading.Lock()
        self._is_closed = False
        self._numbers = itertools.count(_OWN_NUMBERS)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def close(self) -> None:
        """Take no more clients."""
        self._listener.close()
        with self._mutex:
            self._is_closed = True
            while self._idle:
                self._idle.pop().close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            startup = self._startup(client)
            if self._mode == "transaction":
                server, greeting = self._connected(startup)
                self._give_back(server)
                self._greet(client, greeting)
                self._relay(client, None, startup)
                return
            with self._size:
                server, greeting = self._connected(startup)
                with server:
                    self._greet(client, greeting)
                    self._relay(client, server, startup)

    def _greet(self, client: socket.socket, greeting: list[bytes]) -> None:
        number = struct.pack("!cIII", b"K", 12, next(self._numbers), 1)
        for message in greeting:
            client.sendall(number if message[:1] == b"K" else message)

    @staticmethod
    def _startup(client: socket.socket) -> bytes:
        while True:
            head = _exactly(client, 8)
            size_bytes, code = struct.unpack("!II", head)
            if code not in {_SSL, _GSS}:
                return head + _exactly(client, size_bytes - 8)
            client.sendall(b"N")

    def _connected(self, startup: bytes) -> tuple[socket.socket, list[bytes]]:
        server = socket.create_connection(("127.0.0.1", self._server_port))
        try:
            server.sendall(startup)
            return server, list(self._until_ready(server))
        except BaseException:
            server.close()
            raise

    @staticmethod
    def _until_ready(server: socket.socket) -> Iterator[bytes]:
        while True:
            yield (message := _message(server))
            if message[:1] == b"Z":
                return

    def _give_back(self, server: socket.socket) -> None:
        with self._mutex:
            if self._is_closed:
                server.close()
            else:
                self._idle.append(server)

    def _lent(self, startup: bytes) -> socket.socket:
        with self._mutex:
            if self._idle:
                return self._idle.pop()
        return self._connected(startup)[0]

    def _relay(self, client: socket.socket, held: socket.socket | None, startup: bytes) -> None:
        with selectors.DefaultSelector() as ready, suppress(OSError):
            ready.register(client, selectors.EVENT_READ)
            if held:
                ready.register(held, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if key.fileobj is client:
                        message = _message(client)
                        if message[:1] == b"X":
                            break
                        if held is None:
                            held = self._lent(startup)
                            ready.register(held, selectors.EVENT_READ)
                        held.sendall(message)
                    elif held:
                        message = _message(held)
                        client.sendall(message)
                        if message[:1] == b"Z" and message[5:] == b"I" and self._mode == "transaction":
                            ready.unregister(held)
                            self._give_back(held)
                            held = None
                else:
                    continue
                break
        if held:
            held.close()
