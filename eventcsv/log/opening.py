"""Opens the log that a text names: a directory, or the URL of a PostgreSQL server, whose client only that loads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from eventcsv.errors import EventCsvError
from eventcsv.log.file_log import Durability, FileLog
from eventcsv.masking import escaped, masked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventcsv.log.postgres.log import PgLog
    from eventcsv.storage.files import Storage


def is_url(log: str | os.PathLike[str] | None) -> bool:
    """Tell whether a log is on a server, and not in a directory.

    Raises:
        EventCsvError: It is a URL of something else.
    """
    if not isinstance(log, str) or "://" not in log:
        return False
    scheme = log.partition("://")[0]
    if scheme not in {"postgresql", "postgres"}:  # a directory of that name would share nothing, and tell a password
        raise EventCsvError(
            f"the log: {masked(scheme)}:// is no URL of a log. It is postgresql://user@host:port/database"
        )
    return True


def open_log(
    place: str | os.PathLike[str],
    *,
    job: str,
    directory: str,
    key_column: str,
    durability: Durability = "disk",
    lock_timeout_s: float = 30.0,
    storage: Storage | None = None,
    csv_path: str | None = None,
) -> FileLog | PgLog:
    """Return the log in a directory or on a server.

    Args:
        place: The directory, or the URL.
        job: What the job is called on a server.
        directory: Where a log on a server has its lock files and the checkpoint; "" for none.
        key_column: The column that identifies a row.
        durability: What an append to a directory survives, see `FileLog`.
        lock_timeout_s: How long to wait for a lock, and for a server that does not answer, in seconds.
        storage: The seam to the file system.
        csv_path: The CSV, if it is here.

    Raises:
        ServerError: It is no URL that PostgreSQL's client reads.
        EventCsvError: It is a URL of something else, or the client is not installed.
    """
    if is_url(place):
        return _on_server(
            str(place),
            job=job,
            directory=directory,
            key_column=key_column,
            lock_timeout_s=lock_timeout_s,
            storage=storage,
            csv_path=csv_path,
        )
    return FileLog(
        os.path.abspath(place),
        key_column=key_column,
        durability=durability,
        lock_timeout_s=lock_timeout_s,
        storage=storage,
        csv_path=csv_path,
    )


def _on_server(url: str, *, job: str, **settings: Any) -> PgLog:  # noqa: ANN401  # as PgLog has them
    if escaped(job) != job:  # for instance of a file name that is not UTF-8
        raise EventCsvError(f"the job: {job!r} has characters that no name on a server can have. Name it: --job NAME")
    try:
        from eventcsv.log.postgres.log import PgLog as Made  # noqa: PLC0415  # most jobs have no server, and need no client
    except ModuleNotFoundError as error:
        raise EventCsvError(
            f"the log is in PostgreSQL, and its client is not installed ({error}): pip install 'eventcsv[postgres]'"
        ) from None
    return Made(url, job=job, **settings)


def open_to_copy(place: str, *, job: str | None, other: str, key: str, lock_timeout_s: float) -> FileLog | PgLog:
    """Return one of two logs; on a server it is named after the directory of the other unless a name is given.

    Raises:
        ServerError: It is no URL that PostgreSQL's client reads.
    """
    name = job or ("" if is_url(other) else os.path.basename(os.path.abspath(other)).removesuffix(".events"))
    if is_url(place) and not name:
        raise EventCsvError("log copy: which job? Give --job NAME")
    return open_log(place, job=name, directory="", key_column=key, lock_timeout_s=lock_timeout_s)


def init_server(
    url: str,
    *,
    job: str | None,
    key: str,
    workers: Sequence[str] | None,
    operators: Sequence[str] | None,
    timeout_s: float,
) -> tuple[str, list[str]]:
    """Make the schema on a server, and a job when it is named; return where, and what was done in words.

    Raises:
        ServerError: The server does not answer, or says no.
    """
    log = _on_server(url, job=job or "", directory="", key_column=key, lock_timeout_s=timeout_s)
    from eventcsv.log.postgres.admin import init  # noqa: PLC0415  # it needs the client, which is there as shown above

    place = init(url, workers=workers or (), operators=operators or (), timeout_s=timeout_s)
    lines = [f"{place}: is ready for logs"]
    lines += [f"  role {role} may append and claim" for role in workers or ()]
    lines += [f"  role {role} may read the log, run, copy and prune" for role in operators or ()]
    if job:
        log.make()
        lines.append(f"  job {job}, key column {key}")
    log.close()
    return place, lines
