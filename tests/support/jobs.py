"""What the workers of the tests do, by what the row of a PO says in its column DO; and a script that runs a session.

Everything here is found by its name in worker processes and scripts, and loads nothing but the standard library.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from eventcsv import EventCsv

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from eventcsv import Session

PATIENCE_S: Final = 60.0
HERE: Final = Path(__file__).parent


def wait_for(path: Path) -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.002)


def note(path: Path, text: object) -> None:
    """Append a line to a file, whole even when several processes do so."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{text}\n".encode())
    os.close(fd)


class Mute(Exception):
    """An error that cannot be shown."""

    def __str__(self) -> str:
        raise ValueError


SLEEP: Final = f"import time; time.sleep({PATIENCE_S})"
LAUNCH: Final = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, "-S", "-c", {SLEEP!r}], stdout=-3, start_new_session=True).pid)
"""


def sleeper(what: str = "a child") -> int:
    """Start a program that a worker would leave behind; return its process."""
    if what == "an orphan":  # the program that started it has ended
        return int(subprocess.run([sys.executable, "-c", LAUNCH], stdout=-1, check=True).stdout)
    return subprocess.Popen([sys.executable, "-S", "-c", SLEEP], start_new_session=what == "a leader").pid


def work(key: str, row: dict[str, str]) -> Any:  # noqa: C901, PLR0911, PLR0912, PLR0915  # one mishap a case
    """Do what column DO says; the files that it takes are in the folder that column IN names."""
    folder = Path(row.get("IN") or ".")
    match row.get("DO", ""):
        case "":
            return {"ATTACHMENTS_FOUND": len(key), "SUPPLIER": f"supplier of {key}"}
        case "nothing":
            return None
        case "raise":
            raise RuntimeError("page not found\nsecond line \udc80")
        case "raise mute":
            raise Mute
        case "_exit":
            os._exit(3)
        case "exit":
            sys.exit(5)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            time.sleep(PATIENCE_S)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "memory":
            return {"SUPPLIER": "x" * (4 << 30)}
        case "list":
            return ["COMPLETED"]
        case "negative":
            return {"ATTACHMENTS_FOUND": -1}
        case "a key":
            return {"PO_NUMBER": "PO9"}
        case "column of bytes":
            return {b"x": 1}
        case "no page":
            return {"STATUS": "NO_ATTACHMENTS", "ERROR_MESSAGE": ""}
        case "pid":
            return {"PID": os.getpid()}
        case "modules":
            return {"MODULES": " ".join(sorted({"polars", "typer", "rich", "structlog"} & set(sys.modules)))}
        case "note":
            note(folder / "calls", f"{key} {os.getpid()}")
        case "gate":
            note(folder / "calls", f"{key} {os.getpid()}")
            wait_for(folder / "gate")
        case what if found := re.fullmatch("leave (a child|a leader|an orphan)( and die| and hang| and gate|)", what):
            note(folder / "children", sleeper(found[1]))
            note(folder / "calls", f"{key} {os.getpid()}")
            if what.endswith("gate"):
                wait_for(folder / "gate")
            if what.endswith("die"):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(PATIENCE_S if what.endswith("hang") else 0)
        case "fork and die":
            if os.fork() == 0:
                time.sleep(4)
                note(folder / "outlived", key)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        case "fork and return" | "fork and raise" as what:
            if os.fork() == 0 and what.endswith("raise"):
                raise RuntimeError("the child's")
        case "fork and terminate":
            hears, tells = os.pipe()
            child = os.fork()
            if child == 0:
                os.write(tells, b"here")
                time.sleep(PATIENCE_S)
            os.read(hears, 4)  # before that it has the handlers of its parent still
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
        case "close everything and hang":
            os.closerange(3, 256)
            time.sleep(PATIENCE_S)
        case "whole row":
            return row | {"SUPPLIER": "new"}
        case "no coroutine":
            raise asyncio.CancelledError("base")
        case "hold the interpreter":
            note(folder / "calls", f"{key} {os.getpid()}")
            re.match(r"(a+)+$", "a" * 40 + "b")  # no other thread gets a turn, for hours
        case "fill the disk":
            with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass
            return {"SUPPLIER": "y" * 9000}
        case "no large files":
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        case "short":
            note(folder / "calls", f"{key} {os.getpid()}")
            time.sleep(0.004)
        case what:
            raise AssertionError(what)
    return {}


def generator(_key: str, _row: dict[str, str]) -> Iterator[None]:
    """Is no function of which anything comes."""
    yield


async def generator_later(_key: str, _row: dict[str, str]) -> AsyncIterator[None]:
    """The same, asynchronously."""
    yield


# --- initializers ---


def limit_memory() -> None:
    """Allow 2 GiB of addresses."""
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))


def _starts() -> int:
    """Note that a worker starts; return how many did."""
    path = Path(os.environ["STARTS"])
    note(path, os.getpid())
    return len(path.read_text().split())


def count() -> None:
    """Note each start."""
    _starts()


def tell_end() -> None:
    """Note that a worker ends, and after how many POs."""
    note(Path(os.environ["STARTS"]).with_name("ends"), os.getpid())


def fail_at_end() -> None:
    """Fail at each end, after what was to be done."""
    tell_end()
    raise OSError("https://ana:hunter2@browser.example does not answer")


def never_end() -> None:
    """Take longer than anybody waits."""
    tell_end()
    time.sleep(PATIENCE_S)


@contextlib.contextmanager
def browser() -> Iterator[None]:
    """Note each start and each end."""
    _starts()
    yield
    tell_end()


class Browser:
    """The same as a class."""

    def __enter__(self) -> None:
        """Note a start."""
        _starts()

    def __exit__(self, *_: object) -> None:
        """Note an end."""
        tell_end()


def yields() -> Iterator[None]:
    """Lack what makes a context manager of it."""
    yield


async def yields_later() -> AsyncIterator[None]:
    """The same, asynchronously."""
    yield


@contextlib.asynccontextmanager
async def browser_later() -> AsyncIterator[None]:
    """Open and close nothing, asynchronously."""
    yield


def takes_one(_name: str) -> None:
    """Want what nobody gives."""


def fail() -> None:
    """Fail at each start."""
    raise OSError("no browser here")


def fail_second() -> None:
    """Fail at the second start only."""
    if _starts() == 2:
        fail()


def fail_later() -> None:
    """Fail at every start but the first."""
    if _starts() > 1:
        fail()


def _die(when: str, method: str, *, after: bool) -> None:
    """Be killed before or after a method of EventCsv records something of the PO `when`."""
    real = getattr(EventCsv, method)

    def deadly(self: EventCsv, key: str, *args: Any, **details: Any) -> Any:
        event = real(self, key, *args, **details) if after or key != when else None
        if key == when:
            os.kill(os.getpid(), signal.SIGKILL)
        return event

    setattr(EventCsv, method, deadly)


def die_after_recording() -> None:
    """Be killed after the result of PO2 is recorded and before anybody is told."""
    _die("PO2", "emit_result", after=True)


def die_before_recording() -> None:
    """Be killed after the work on PO2 and before its result is recorded."""
    _die("PO2", "emit_result", after=False)


def die_before_taking_up() -> None:
    """Be killed before PO2 is noted as taken up."""
    _die("PO2", "emit_started", after=False)


# --- a session as a script ---


def start(path: Path, **options: Any) -> subprocess.Popen[str]:
    """Start `main` in a process group of its own."""
    command = [sys.executable, "-c", "import jobs; jobs.main()", json.dumps({"csv": str(path), **options})]
    return subprocess.Popen(
        command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )


def main() -> None:
    """Run a session; print what came of it as JSON."""
    options = json.loads(sys.argv[1])
    path = Path(options["csv"])
    job = EventCsv(path, durability="process", settle_s=0)
    with job.session(session_id=options.get("session_id"), refresh_s=options.get("refresh_s", 0.05)) as session:
        threading.Thread(target=_tell_of_stop, args=(path.with_name("asked"), session), daemon=True).start()
        path.with_name("begun").touch()
        if options.get("fork") and os.fork() == 0:
            note(path.with_name("forked"), os.getpid())
            time.sleep(PATIENCE_S)
            os._exit(0)
        if "workers" in options:
            hooks = {name: globals()[options[name]] for name in ("initializer", "finalizer") if name in options}
            result = session.run(work, workers=options["workers"], **hooks)
            json.dump([result.stopped, result.processed, result.by_status, result.interrupted], sys.stdout)
        if options.get("emit"):
            job.emit_result("PO1", "COMPLETED")
        if options.get("wait"):
            path.with_name("waiting").touch()
            wait_for(path.with_name("gate"))
        if options.get("raise"):
            raise RuntimeError("the body failed")


def _tell_of_stop(told: Path, session: Session) -> None:
    """Make a file once `Session.run` has been asked to stop."""
    while not (session.stop and session.stop.is_set()):
        time.sleep(0.002)
    told.touch()
