"""What is done once for a database: its schema and who may do what. Run by whoever owns it."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from psycopg import sql

from eventcsv.errors import ServerError, UnsupportedFormat
from eventcsv.log.postgres.schema import OPERATOR_GRANTS, VERSION, WORKER_GRANTS
from eventcsv.log.postgres.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterable


def init(url: str, *, workers: Iterable[str] = (), operators: Iterable[str] = (), timeout_s: float = 30.0) -> str:
    """Make the schema in a database, unless it is there, and let roles use it.

    Args:
        url: The server and its database, with a role that may create a schema there.
        workers: Roles that may append and claim, and nothing else.
        operators: Roles that may read the log, begin segments, copy and prune besides.
        timeout_s: How long to try when the server does not answer, in seconds.

    Returns:
        Where it is, without user and password.

    Raises:
        UnsupportedFormat: A newer eventcsv made the schema that is there.
        ServerError: The server does not answer, or says no.
    """
    server = Server(url, timeout_s)
    encoding = server.call("select current_setting('server_encoding')")[0][0]
    if encoding not in {"UTF8", "SQL_ASCII"}:
        raise ServerError(
            f"{server.place}: the database is in {encoding}, which has not every character that a key may have. "
            "Make one in UTF8: create database NAME encoding 'UTF8' template template0"
        )
    there = server.call("select to_regclass('eventcsv.schema_version') is not null")[0][0]
    version = server.call("select max(version) from eventcsv.schema_version")[0][0] if there else VERSION
    if version != VERSION:
        raise UnsupportedFormat(f"{server.place}: schema version {version}; this eventcsv knows version {VERSION}")
    schema = resources.files(__package__).joinpath("schema.sql").read_text("utf-8")
    script: list[sql.Composable] = [sql.SQL(schema)]
    for roles, grants in ((workers, WORKER_GRANTS), (operators, OPERATOR_GRANTS)):
        script += [sql.SQL(f"{grant};").format(sql.Identifier(role)) for role in roles for grant in grants]
    server.run_script(sql.Composed(script))
    place = server.place
    server.close()
    return place
