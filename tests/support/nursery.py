"""Workers that emit results until they are killed: real processes, forked in no time from one that has imported enough.

What worker `name` sends with its n-th result follows from the two, so that whoever reads the log can tell whether it is
exactly that; and it acknowledges n in a file of its own only when emit_result() has returned.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from plain import checked

from eventcsv import EventCsv
from eventcsv.log.file_log import FileLog
from eventcsv.storage.files import Storage

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

# Most results are small; of the large ones many are torn, since a write of many pages can be stopped between two.
SIZES_BYTES: Final = (0, 0, 0, 10, 10, 40, 40, 200, 200, 1_000, 1_000, 100_000, 300_000, 300_000)


def text_of(name: str, n: int) -> str:
    """Return the text that worker `name` sends with its n-th result."""
    size_bytes = Random(f"{name} {n}").choice(SIZES_BYTES)
    return (f"{name} {n} " * (1 + size_bytes // 4))[:size_bytes]


class Sent(NamedTuple):
    """A result as it stands in the log."""

    name: str
    n: int
    text: str

    @property
    def is_as_sent(self) -> bool:
        """Whether its worker would send just that."""
        return self.text == text_of(self.name, self.n)


def parse(line: bytes) -> Sent | None:
    """Read a line of the log without eventcsv's help; None when its checksum does not hold, or it is no result."""
    found = checked(line)
    if not found or found["kind"] != "result":
        return None
    return Sent(found["set"]["who"], int(found["set"]["n"]), found["set"]["text"])


def acknowledged(path: Path, size_bytes: int | None = None) -> list[int]:
    """Return the numbers that a worker has acknowledged, up to a size of its file."""
    with suppress(FileNotFoundError):
        return [int(line) for line in path.read_bytes()[:size_bytes].split(b"\n")[:-1]]
    return []


# --- in the worker processes ---


def _newline_never(_storage: Storage, fd: int, size_bytes: int, offset_bytes: int) -> bytes:
    return b"\n" if size_bytes == 1 else os.pread(fd, size_bytes, offset_bytes)


def _newline_without_a_word(_log: FileLog, _size_bytes: int) -> bytes:
    return b"\n"


def work(
    *, csv_path: str, name: str, key: str, ack_path: str, durability: str, toy: str, most: int, pause_s: float
) -> None:
    """Emit results until killed, until the disk is gone, or until there are enough."""
    if toy == "no healing":
        Storage.pread = _newline_never  # type: ignore[method-assign,assignment]  # that is what makes it a toy
    if toy == "no note":
        FileLog._healing = _newline_without_a_word  # type: ignore[method-assign,assignment]  # the same
    job = EventCsv(csv_path, durability="disk" if durability == "disk" else "process")
    ack = os.open(ack_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for n in range(1, 1 + most):
        if toy == "too early":
            os.write(ack, b"%d\n" % n)
        job.emit_result(key, "PARTIAL", columns={"who": name, "n": n, "text": text_of(name, n)})
        if toy != "too early":
            os.write(ack, b"%d\n" % n)
        if pause_s:
            time.sleep(pause_s)
    signal.pause()


def main() -> None:
    """Fork a worker for each line of stdin and print its process id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that were killed
    for line in sys.stdin:
        if pid := os.fork():
            sys.stdout.write(f"{pid}\n")
            sys.stdout.flush()
            continue
        try:
            work(**json.loads(line))
        except BaseException:  # noqa: BLE001  # the disk is gone, as it may be; a traceback would be noise
            os._exit(1)


# --- in the test ---


class Nursery:
    """Makes workers on demand.

    Args:
        toy: What they lack, to show that it is missed; "" for nothing.
        durability: As for EventCsv.
        most: How many results each emits at most, so that the disk does not fill up.
        pause_s: How long each waits after a result, in seconds.
    """

    def __init__(self, toy: str = "", durability: str = "process", most: int = 100, pause_s: float = 0.0) -> None:
        self._how = {"toy": toy, "durability": durability, "most": most, "pause_s": pause_s}
        self._alive: set[int] = set()
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill(*self._alive)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def spawn(self, csv_path: Path, name: str, key: str, ack_path: Path) -> int:
        """Begin a worker and return its process id."""
        assert self._process.stdin
        assert self._process.stdout
        arguments = {"csv_path": str(csv_path), "name": name, "key": key, "ack_path": str(ack_path)}
        self._process.stdin.write(f"{json.dumps(arguments | self._how)}\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        self._alive.add(pid)
        return pid

    def kill(self, *pids: int) -> None:
        """SIGKILL workers, all at once, and see them gone."""
        self._alive -= set(pids)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            with suppress(ProcessLookupError):
                for _ in range(60_000):  # until it is reaped it may still be in the middle of a system call
                    os.kill(pid, 0)
                    time.sleep(1e-3)


if __name__ == "__main__":
    main()
