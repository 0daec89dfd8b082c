"""What people would use instead: SQLite, pandas, DuckDB, plain Python; and the floors, which do as little as can be.

The folds take a log and a CSV and put the folded CSV durably in its place, as a replay does. None of them checks a
checksum or keeps a checkpoint. pandas and DuckDB are imported where they are used: who does not have them measures
without.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import importlib.util
import os
import shutil
import sqlite3
import time
from itertools import islice
from typing import TYPE_CHECKING, Final

import orjson
from fixtures import FOLDER, HEADER, NAMES, SUPPLIER

from eventcsv.storage.files import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Operation = Callable[[str, int], object]

TIMEOUT_S: Final = 60.0
STORAGE: Final = Storage()  # knows how each platform flushes a file

_SET: Final = (
    "STATUS",
    "SUPPLIER",
    "ATTACHMENTS_FOUND",
    "ATTACHMENTS_DOWNLOADED",
    "AttachmentName",
    "LAST_PROCESSED",
    "ERROR_MESSAGE",
    "DOWNLOAD_FOLDER",
)
_UPDATE: Final = f"UPDATE po SET {'=?,'.join(_SET)}=? WHERE PO_NUMBER=?"


def is_installed(package: str) -> bool:
    """Tell whether a package of the extra `bench` is here."""
    return importlib.util.find_spec(package) is not None


def _values(number: int) -> tuple[str, ...]:
    """Return the cells of a result. Its counts make every update differ: SQLite skips one that changes nothing."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return ("COMPLETED", SUPPLIER, str(number), str(number), ";".join(NAMES), now, "", FOLDER)


# --- one result, durable ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def write(path: Path, line: bytes, *, sync: bool) -> Iterator[Operation]:
    """Append the same bytes to the same kind of file, without a lock, a check or a thought."""
    fd = os.open(path.with_suffix(".floor"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write_and_sync(_key: str, _number: int) -> None:
        os.write(fd, line)
        STORAGE.datasync(fd)

    yield write_and_sync if sync else lambda _key, _number: os.write(fd, line)
    os.close(fd)


@contextlib.contextmanager
def locked_write(path: Path, line: bytes) -> Iterator[Operation]:
    """Do the same under an advisory lock on a descriptor that stays open."""
    fd = os.open(path.with_suffix(".floor"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def operation(_key: str, _number: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.write(fd, line)
        fcntl.flock(fd, fcntl.LOCK_UN)

    yield operation
    os.close(fd)


@contextlib.contextmanager
def system_calls(path: Path, line: bytes) -> Iterator[Operation]:
    """Lock, look, write, unlock: what no append to a log that others append to can do without."""
    log, lock = path.with_suffix(".floor"), path.with_suffix(".lock")
    fd, lock_fd = (os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT) for file in (log, lock))

    def operation(_key: str, _number: int) -> None:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fstat(fd)
        os.write(fd, line)
        fcntl.flock(lock_fd, fcntl.LOCK_UN)

    yield operation
    os.close(fd)
    os.close(lock_fd)


def make_sqlite(path: Path) -> None:
    """Load a CSV into a table."""
    with contextlib.closing(sqlite3.connect(path.with_suffix(".sqlite"))) as database, database:
        database.execute("PRAGMA journal_mode=WAL")
        columns = ",".join(f'"{name}" TEXT' for name in HEADER[1:])
        database.execute(f"CREATE TABLE po (PO_NUMBER TEXT PRIMARY KEY,{columns}) WITHOUT ROWID")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = islice(csv.reader(file, delimiter=";"), 1, None)
            database.executemany(f"INSERT INTO po VALUES ({','.join('?' * len(HEADER))})", rows)


def _connected(path: Path, *, sync: bool) -> sqlite3.Connection:
    database = sqlite3.connect(path.with_suffix(".sqlite"), timeout=TIMEOUT_S, isolation_level=None)
    database.execute(f"PRAGMA synchronous={'FULL' if sync else 'NORMAL'}")
    database.execute(f"PRAGMA fullfsync={int(sync)}")  # matters on macOS only
    return database


@contextlib.contextmanager
def sqlite_kept(path: Path, *, sync: bool) -> Iterator[Operation]:
    """Update one row in a transaction of its own, on a connection that stays open."""
    with contextlib.closing(_connected(path, sync=sync)) as database:
        yield lambda key, number: database.execute(_UPDATE, (*_values(number), key))


@contextlib.contextmanager
def sqlite_new(path: Path, *, sync: bool) -> Iterator[Operation]:
    """Do the same on a new connection for each update, as the PO tool does."""

    def operation(key: str, number: int) -> None:
        with contextlib.closing(_connected(path, sync=sync)) as database:
            database.execute(_UPDATE, (*_values(number), key))

    yield operation


@contextlib.contextmanager
def pandas_rewrite(path: Path) -> Iterator[Operation]:
    """Set the cells of one row and write the whole CSV anew, in place, as the PO tool did before."""
    import pandas as pd  # noqa: PLC0415  # only the process that uses it

    frame = pd.read_csv(path, sep=";", dtype=str, keep_default_na=False).set_index("PO_NUMBER")

    def operation(key: str, number: int) -> None:
        frame.loc[key, list(_SET)] = list(_values(number))
        frame.to_csv(path, sep=";")

    yield operation


# --- the whole log ----------------------------------------------------------------------------------------------


def _put_in_place(temporary: Path, csv_path: Path) -> None:
    fd = os.open(temporary, os.O_RDONLY)
    STORAGE.sync(fd)
    os.close(fd)
    temporary.replace(csv_path)


def copy(csv_path: Path, log_dir: Path) -> None:
    """Read the log, and write the CSV anew as it is: the floor."""
    for segment in sorted(log_dir.glob("events-*.jsonl")):
        with segment.open("rb", buffering=0) as file:
            while file.read(8 << 20):
                pass
    temporary = csv_path.with_suffix(".tmp")
    shutil.copyfile(csv_path, temporary)
    _put_in_place(temporary, csv_path)


def fold_in_python(csv_path: Path, log_dir: Path) -> None:
    """Fold with orjson, a dict and the csv module."""
    with csv_path.open(encoding="utf-8-sig", newline="") as file:
        names, *rows = csv.reader(file, delimiter=";")
    row_of = {row[0]: row for row in rows}
    column_of = {name: index for index, name in enumerate(names)}
    for segment in sorted(log_dir.glob("events-*.jsonl")):
        with segment.open("rb") as log:
            for line in log:
                event = orjson.loads(line)
                if event["kind"] == "result" and (row := row_of.get(event["key"])):
                    for column, text in event["set"].items():
                        row[column_of[column]] = text
    temporary = csv_path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";", lineterminator="\r\n").writerows([names, *rows])
    _put_in_place(temporary, csv_path)


def fold_in_duckdb(csv_path: Path, log_dir: Path) -> None:
    """Fold with DuckDB: for each column the text with the highest number of a line, joined onto the CSV."""
    import duckdb  # noqa: PLC0415  # only the process that uses it

    segments = [str(path) for path in sorted(log_dir.glob("events-*.jsonl"))]
    cells = ", ".join(f'"{name}" VARCHAR' for name in _SET)
    fields = f"{{kind: 'VARCHAR', key: 'VARCHAR', set: 'STRUCT({cells})'}}"
    last = ", ".join(f'arg_max("set"."{name}", line) AS "{name}"' for name in _SET)
    columns = ", ".join(
        f'coalesce(last."{name}", base."{name}") AS "{name}"' if name in _SET else f'base."{name}"' for name in HEADER
    )
    temporary = csv_path.with_suffix(".tmp")
    with duckdb.connect() as database:
        database.execute(f"""
            COPY (
              WITH events AS (
                SELECT kind, key, "set", row_number() OVER () AS line
                FROM read_json({segments}, format='newline_delimited', columns={fields})
              ), last AS (
                SELECT key, {last} FROM events WHERE kind = 'result' GROUP BY key
              ), base AS (
                SELECT *, row_number() OVER () AS place
                FROM read_csv('{csv_path}', delim=';', quote='"', header=true, all_varchar=true)
              )
              SELECT {columns} FROM base LEFT JOIN last ON last.key = base.PO_NUMBER ORDER BY place
            ) TO '{temporary}' (FORMAT csv, DELIMITER ';', HEADER)
        """)
    _put_in_place(temporary, csv_path)
