"""What a CSV's log and backups are called, and which CSV a path means.

A link to a CSV means the file that it leads to: the log and the backups lie beside that, so that a job is the same one
by whatever way it is reached.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from eventcsv.errors import InvalidCsv

SESSION_LENGTH: Final = 8
"""Of the random names of sessions, in characters."""
_MOMENT: Final = "_YYYYMMDD_HHMMSS_"
_UNFINISHED: Final = ".{}.json.tmp"
_DIGITS: Final = 8
_LONGEST_NAME_BYTES: Final = 255


def target_of(csv_path: str | os.PathLike[str]) -> str:
    """Return the path of the file itself: absolute, as a worker may change its directory, and without links."""
    return os.path.realpath(csv_path)


def stem_of(csv_path: str) -> str:
    """Return what the log and the job on a server are named after: the path without ".csv"."""
    return csv_path.removesuffix(".csv") if os.path.splitext(csv_path)[1] == ".csv" else csv_path


def log_of(csv_path: str) -> str:
    """Return the directory of a CSV's log when nobody names another one."""
    return f"{stem_of(csv_path)}.events"


def rival_of(csv_path: str) -> str | None:
    """Return the CSV whose log would be called the same, as those of "input" and of "input.csv" are, if it is there."""
    stem = stem_of(csv_path)
    rival = f"{csv_path}.csv" if stem == csv_path else stem
    return rival if log_of(rival) == log_of(csv_path) and os.path.isfile(rival) else None


def unfinished(csv_path: str) -> str:
    """Return what the metadata of a backup of a CSV ends in while the backup is being made."""
    from hashlib import sha256  # noqa: PLC0415  # 3 MB that no worker needs

    return _UNFINISHED.format(sha256(os.fsencode(csv_path)).hexdigest()[:_DIGITS])


def check_name(csv_path: str, session: str | None = None) -> None:
    """Refuse a CSV of whose name no names can be made, before anything is recorded that could not get into it.

    Args:
        csv_path: The CSV.
        session: What a backup will be named after; by default something random.

    Raises:
        InvalidCsv: Its name is no text in UTF-8, or too long for its backups.
    """
    folder, name = os.path.split(csv_path)
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidCsv(
            f"{csv_path}: its name is not UTF-8, and its backups are named after it. Rename it (mv)"
        ) from None
    most_bytes = _LONGEST_NAME_BYTES
    with suppress(OSError, ValueError):
        most_bytes = os.pathconf(folder, "PC_NAME_MAX")
    stem, suffix = os.path.splitext(name)
    named = f"{_MOMENT}{session or SESSION_LENGTH * 'x'}"
    unfinished_bytes = len(f"{named}{_UNFINISHED.format(_DIGITS * 'x')}")
    added = max(unfinished_bytes, len(f"{named}{suffix}".encode()), len(f"..eventcsv.tmp{suffix}"))
    if len(stem.encode()) + added > most_bytes:
        raise InvalidCsv(
            f"{csv_path}: its name is too long for backups, which are named after it with {added} characters more: "
            f"{len(name.encode())} bytes, of which {most_bytes - added + len(suffix.encode())} would do. Rename it"
        )
