"""What the workers of the tests of steered runs do, by the column DO: words, one for each attempt, the last one on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import note, wait_for

from eventcsv import EventCsv, Retry, Status, StopRun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventcsv.worker.messages import Returned


def attempt(key: str, row: dict[str, str]) -> Returned:
    """Note the attempt with its time and its worker, and do what its word says."""
    folder = Path(row["IN"])
    path = folder / f"tried {key}"
    tried = len(path.read_text().split()) if path.exists() else 0
    note(path, time.monotonic())
    note(folder / "calls", f"{key} {os.getpid()}")
    words = row["DO"].split()
    word = words[min(tried, len(words) - 1)]
    return _RESULTS[word] if word in _RESULTS else _act(word, key, folder)


class MuteRetry(Retry):
    """Fails to describe itself."""

    def __str__(self) -> str:
        raise RuntimeError


class MuteStop(StopRun):
    """Fails to describe itself."""

    def __str__(self) -> str:
        raise RuntimeError


_RESULTS: dict[str, Returned] = {
    "fine": {"SUPPLIER": "found"},
    "negative": False,
    "partial": {"STATUS": Status.ERROR, "SUPPLIER": "half", "ERROR_MESSAGE": "half of it"},
}


def _act(word: str, key: str, folder: Path) -> Returned:
    match word:
        case "fail":
            raise OSError(f"no page for {key}, password=hunter2")
        case "retry":
            raise Retry("rate limited")
        case "much-later":
            raise Retry("busy", after_s=5)
        case "mute":
            raise (MuteRetry if key == "PO1" else MuteStop)
        case "later":
            raise Retry("busy", after_s=0.7)
        case "stop":
            raise StopRun("login expired")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(60)
        case "gate":
            wait_for(folder / "gate")
        case what:
            raise AssertionError(what)
    return None


def login() -> None:
    """Find that there is no way in."""
    raise StopRun("login expired")


# --- asynchronous ones ---

_opened: dict[str, Any] = {}


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[None]:
    """Have something that lives on the loop as long as the worker does."""
    queue: asyncio.Queue[asyncio.Future[str]] = asyncio.Queue()

    async def serve() -> None:
        while True:
            (await queue.get()).set_result(f"page by {os.getpid()}")

    task = asyncio.create_task(serve())
    _opened.update(queue=queue, loop=asyncio.get_running_loop())
    yield
    task.cancel()
    note(Path(os.environ["NOTED_IN"]) / "closed", os.getpid())


async def open_later() -> None:
    """Open it without a context manager."""
    _opened["loop"] = asyncio.get_running_loop()


async def close_later() -> None:
    """Close it, on the same loop."""
    assert _opened["loop"] is asyncio.get_running_loop()
    note(Path(os.environ["NOTED_IN"]) / "closed", os.getpid())


async def visit(key: str, row: dict[str, str]) -> Returned:
    """Do what the word says, on the loop on which the browser was opened."""
    folder = Path(row["IN"])
    note(folder / "calls", f"{key} {os.getpid()}")
    match row["DO"]:
        case "page":
            assert _opened["loop"] is asyncio.get_running_loop()
            page: asyncio.Future[str] = asyncio.Future()
            await _opened["queue"].put(page)
            return {"SUPPLIER": await page}
        case "never awaits":
            return "COMPLETED"
        case "cancels itself":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(60)
        case "leaves a task":
            _opened["left"] = asyncio.create_task(asyncio.sleep(60))
        case "raises":
            await asyncio.sleep(0)
            raise OSError("no page")
        case "retry":
            raise Retry("rate limited")
        case "hang":
            await asyncio.sleep(60)
        case "block":
            time.sleep(60)  # noqa: ASYNC251  # that is the point
        case what:
            raise AssertionError(what)
    return None


# --- a session as a script ---


def main() -> None:
    """Run a session that tries each PO as often as told, and print why it stopped."""
    path, attempts, retry_after_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    job = EventCsv(path, durability="process", settle_s=0)
    with job.session(refresh_s=0.05) as session:
        result = session.run(attempt, workers=2, attempts=attempts, retry_after_s=retry_after_s)
    sys.stdout.write(f"{result.stopped} {len(result.waiting)}")
