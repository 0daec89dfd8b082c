"""A job done with a real browser by asynchronous code, spoken to over the pipe of its DevTools protocol."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import json
import os
import shutil
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHROMIUM: Final = shutil.which("chromium")
_AS_3_AND_4: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_open: dict[str, Browser] = {}


class Browser:
    """One browser, of which a task on the loop hears the answers as long as it lives."""

    def __init__(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, to_it: int) -> None:
        self.process = process
        self._to_it = to_it
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._hearing = asyncio.create_task(self._hear(reader))

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        while True:
            answer = json.loads((await reader.readuntil(b"\0"))[:-1])
            if asked := self._asked.pop(answer.get("id"), None):
                asked.set_result(answer["result"])

    async def ask(self, method: str, session: str | None = None, **params: object) -> dict[str, Any]:
        """Have something done, and return the answer."""
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._to_it, json.dumps(message).encode() + b"\0")
        return await self._asked[number]


def _pipe() -> tuple[int, int]:
    """Return the ends of a pipe, away from 3 and 4, which the browser has for itself."""
    low = os.pipe()
    high = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in low)
    for fd in low:
        os.close(fd)
    return high[0], high[1]


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[None]:
    """Open a browser for the life of a worker."""
    (its_in, to_it), (from_it, its_out) = _pipe(), _pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-S",
            "-c",
            _AS_3_AND_4,
            str(its_in),
            str(its_out),
            CHROMIUM or "",
            *flags,
            f"--user-data-dir={profile}",
            pass_fds=(its_in, its_out),
            stderr=asyncio.subprocess.DEVNULL,
        )
        os.close(its_in)
        os.close(its_out)
        reader, pipe = asyncio.StreamReader(), os.fdopen(from_it, "rb")
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        _open["it"] = Browser(process, reader, to_it)
        try:
            yield
        finally:
            process.terminate()
            await process.wait()


async def download(key: str, row: dict[str, str]) -> dict[str, str]:
    """Open the page of a PO, and return what it shows."""
    page = await _open["it"].ask("Target.createTarget", url=f"data:text/html,<p id=s>{row['DO']} {key}</p>")
    attached = await _open["it"].ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)
    for _ in range(100):
        shown = await _open["it"].ask(
            "Runtime.evaluate", attached["sessionId"], expression="document.getElementById('s')?.textContent ?? ''"
        )
        if text := shown["result"]["value"]:
            return {"SUPPLIER": text, "PID": str(_open["it"].process.pid)}
        await asyncio.sleep(0.05)
    raise TimeoutError(key)
