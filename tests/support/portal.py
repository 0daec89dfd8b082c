"""The web server that the documents call portal.example: it has a file for each PO but two, and logins that expire."""

from __future__ import annotations

import http.server
import threading
from collections import Counter
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

MISSING: Final = frozenset({"PO15221977", "PO15348177"})
BUSY: Final = frozenset({"PO15202164", "PO15223509"})
EXPIRED: Final = "session=expired"


class Portal:
    """A server on this machine, as long as the block lasts.

    What is busy answers 503 for once, and what comes with an expired login 401.
    """

    def __init__(self) -> None:
        asked: Counter[str] = Counter()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # its name is the server's
                key = self.path.strip("/").removesuffix(".pdf")
                status = HTTPStatus.OK
                if EXPIRED in self.headers.get("Cookie", ""):
                    status = HTTPStatus.UNAUTHORIZED
                elif key in MISSING:
                    status = HTTPStatus.NOT_FOUND
                elif key in BUSY:
                    asked[key] += 1
                    status = HTTPStatus.SERVICE_UNAVAILABLE if asked[key] == 1 else status
                body = f"{key}\n".encode()
                self.send_response(status)
                self.send_header("Retry-After", "1")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name is the server's
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
