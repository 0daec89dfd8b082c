"""What the figures depend on: the machine, the versions, the load."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("eventcsv", "polars", "orjson", "duckdb", "pandas")


def described(directory: Path) -> dict[str, str]:
    """Return a description of the machine, for work in `directory`."""
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system": _file_system(directory),
        "load before": load(),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
    }
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def forget_settings() -> None:
    """Drop what only this environment sets: where backups go, and that what is loaded is compiled at each start."""
    for name in ("EVENTCSV_BACKUP_DIR", "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)


def load() -> str:
    """Return the load of the last 1, 5 and 15 minutes: on a busy machine only the ratios mean something."""
    return " ".join(f"{average:.2f}" for average in os.getloadavg())


def _processor() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def _file_system(directory: Path) -> str:
    """Return the type of the file system that a directory is on; Linux tells, in /proc/self/mounts."""
    with contextlib.suppress(OSError, IndexError):
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        around = [mount for mount in mounts if directory.resolve().is_relative_to(mount[1])]
        return max(reversed(around), key=lambda mount: len(mount[1]))[2]
    return "unknown"
