"""Which other processes live, found out without eventcsv's help."""

from __future__ import annotations

import contextlib

import psutil  # type: ignore[import-untyped]


def is_alive(pid: int) -> bool:
    """Tell whether a process lives; one that nobody has asked after yet does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a session's process, dead ones that were not waited for included."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() == psutil.STATUS_ZOMBIE or "spawn_main" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found
