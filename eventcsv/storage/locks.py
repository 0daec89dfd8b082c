"""Sidecar locks: files that are there to be locked, and nothing else. They are never renamed, truncated or removed."""

from __future__ import annotations

import os
import random
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from eventcsv.errors import LockTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventcsv.storage.files import Storage

# A contender polls: at once, then after 50 us, doubling up to 2 ms, jittered so that no two stay in step. To yield the
# processor and try again before that gives a quarter more appends with 8 processes, and half as much to the unluckiest.
_FIRST_WAIT_S: Final = 50e-6
_LONGEST_WAIT_S: Final = 2e-3


def wait_for_lock(storage: Storage, fd: int, path: str, timeout_s: float) -> None:
    """Take the exclusive lock of an open file.

    Args:
        storage: The seam to the file system.
        fd: The open file.
        path: Its path, for the error and to see that nobody replaced the file.
        timeout_s: How long to wait, in seconds.

    Raises:
        LockTimeout: Somebody else held it until the deadline; the error names the holder where the system tells.
    """
    if storage.try_lock(fd):
        return
    deadline = time.monotonic() + timeout_s
    wait_s = _FIRST_WAIT_S
    while time.monotonic() < deadline:
        time.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, no secret
        if storage.try_lock(fd):
            return
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
    raise LockTimeout(
        f"{path}: still held after {timeout_s:g} s by {lock_holder(storage.fstat(fd))}. Wait for it to end, or stop it"
    )


def is_at(storage: Storage, fd: int, path: str) -> bool:
    """Tell whether `path` still names the open file `fd`: a lock file that was replaced excludes nobody."""
    there, ours = storage.stat(path), storage.fstat(fd)
    return there is not None and (there.st_ino, there.st_dev) == (ours.st_ino, ours.st_dev)


@contextmanager
def locked(storage: Storage, path: str, timeout_s: float) -> Iterator[None]:
    """Hold the exclusive lock of a sidecar file, which is created when missing and never removed.

    Raises:
        LockTimeout: Somebody else held it for `timeout_s` seconds.
        UnsafePath: It is not ours, or the folder that it is in is not.
    """
    storage.check_directory(os.path.dirname(path))
    while True:
        fd = storage.open_ours(path, os.O_RDWR | os.O_CREAT)
        _sidecars.add(fd)
        try:
            wait_for_lock(storage, fd, path, timeout_s)
            if is_at(storage, fd, path):
                try:
                    yield
                finally:
                    # Closing is not enough: a child that another thread is forking right now has the file open.
                    if fd in _sidecars:
                        storage.unlock(fd)
                return
        finally:
            if fd in _sidecars:
                _sidecars.discard(fd)
                storage.close(fd)


_sidecars: set[int] = set()
"""The open lock files of this process."""


def _after_fork_in_child() -> None:
    # The lock belongs to the open file that both share: a child that kept it would hold it beyond its parent's death,
    # and unlocking it would take it from the parent.
    while _sidecars:
        with suppress(OSError):
            os.close(_sidecars.pop())


os.register_at_fork(after_in_child=_after_fork_in_child)


def lock_holder(status: os.stat_result) -> str:
    """Return who holds the flock of a file, in words; Linux tells, in /proc/locks."""
    ident = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        pid = next(row[4] for row in rows if row[1] == "FLOCK" and row[5] == ident)
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (OSError, StopIteration, IndexError):
        return "another process"
    return f"process {pid} ({command[:80] or 'unknown command'})"
