"""The promise: what is set for a role, and what stands between, costs no result, or is refused by name at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from conftest import statuses
from pooler import Pooler
from servers import unused_name

from eventcsv import EventCsv
from eventcsv.errors import ServerError
from eventcsv.log.copy import copy_log
from eventcsv.log.file_log import FileLog
from eventcsv.log.postgres.log import PgLog
from eventcsv.log.postgres.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import PgServer

_WARNS = "create trigger warns before insert or update on eventcsv.line for each row execute function public.warns()"


@pytest.fixture
def role(pg_server: PgServer) -> Iterator[str]:
    """A role that may do everything, and for which a test may set what it likes."""
    name = unused_name("role")
    with psycopg.connect(pg_server.url, autocommit=True) as admin:
        admin.execute(f"create role {name} login superuser".encode())
        yield name
        admin.execute(f"drop role {name}".encode())


def url_of(pg_server: PgServer, role: str) -> str:
    return pg_server.url.replace("postgres@", f"{role}@")


@pytest.mark.parametrize(
    "setting",
    [
        "standard_conforming_strings = off",
        "escape_string_warning = on",
        "array_nulls = off",
        "transform_null_equals = on",
        "backslash_quote = off",
        "bytea_output = escape",
        "plpgsql.extra_warnings = 'all'",
        "synchronous_commit = off",
        "client_min_messages = debug5",
        "default_transaction_isolation = serializable",
        "quote_all_identifiers = on",
        "extra_float_digits = -15",
    ],
)
def test_what_is_set_for_a_role_does_no_harm(
    csv_path: Path, pg_server: PgServer, role: str, setting: str, tmp_path: Path
) -> None:
    """A job is recorded, folded, claimed and copied there and back as on any other server."""
    with psycopg.connect(pg_server.url, autocommit=True) as admin:
        admin.execute(f"alter role {role} set {setting}".encode())
        admin.execute(f"alter role {role} set escape_string_warning = on".encode())
    url = url_of(pg_server, role)
    job = EventCsv(csv_path, log=url, job=unused_name("set"), lock_timeout_s=3)
    job.emit_result("PO1", "ERROR", error_message="a \\ b 'c'")
    job.emit_result("PO2", "COMPLETED")
    job.compact()
    assert ["ERROR", "COMPLETED", ""] == statuses(csv_path)
    source = job.log
    assert isinstance(source, PgLog)
    claims = job.log.claims(owner="test", lease_s=30, seen=source.end().position)
    assert claims is not None
    assert 1 == claims.claim("PO3")
    claims.close()
    back = FileLog(str(tmp_path / "back.events"), key_column="PO_NUMBER")
    copy_log(source, back)
    again = PgLog(url, job=unused_name("again"), directory="", key_column="PO_NUMBER", lock_timeout_s=3)
    copy_log(back, again)
    ids = "select count(id) from eventcsv.line where job = %s"
    assert source.server.call(ids, (source.number(),)) == again.server.call(ids, (again.number(),))
    assert () == job.verify().findings


def test_a_warning_about_something_else_is_no_failure(csv_path: Path, pg_server: PgServer) -> None:
    """A trigger of somebody's that warns of each line does not keep it from being recorded, once."""
    job = EventCsv(csv_path, log=pg_server.url, job=unused_name("warned"), lock_timeout_s=3)
    job.emit_result("PO1", "COMPLETED")
    with psycopg.connect(pg_server.url, autocommit=True) as admin:
        admin.execute(
            "create function public.warns() returns trigger language plpgsql as "
            "$$ begin raise warning 'somebody looks'; return new; end $$"
        )
        admin.execute(_WARNS)
        try:
            job.emit_result("PO2", "COMPLETED")
        finally:
            admin.execute("drop function public.warns() cascade")
    assert 1 == len(list(job.history("PO2")))


@pytest.fixture(params=["session", "transaction"])
def pooler(pg_server: PgServer, request: pytest.FixtureRequest) -> Iterator[Pooler]:
    """A pooler before the server."""
    made = Pooler(pg_server.port, request.param)
    yield made
    made.close()


@pytest.mark.parametrize("pooler", ["transaction"], indirect=True)
def test_a_pooler_in_transaction_mode_is_refused_by_name(csv_path: Path, pg_server: PgServer, pooler: Pooler) -> None:
    """By the first connection already, before anything is written or set; it says what is needed."""
    name = unused_name("pooled")
    with psycopg.connect(pooler.url, autocommit=True) as other:
        before = other.execute("show lock_timeout").fetchall()
        with pytest.raises(ServerError, match=r"pooler in transaction mode.*session mode"):
            EventCsv(csv_path, log=pooler.url, job=name, lock_timeout_s=3).compact()
        assert before == other.execute("show lock_timeout").fetchall()
    assert not PgLog(pg_server.url, job=name, directory="", key_column="PO_NUMBER").exists()


@pytest.mark.parametrize("pooler", ["session"], indirect=True)
def test_a_pooler_in_session_mode_does_its_work(csv_path: Path, pooler: Pooler) -> None:
    """Several clients at once, each with a process of its own."""
    name = unused_name("pooled")
    jobs = [EventCsv(csv_path, log=pooler.url, job=name, lock_timeout_s=3) for _ in range(3)]
    for _ in range(3):
        for number, job in enumerate(jobs, 1):
            job.emit_result(f"PO{number}", "COMPLETED")
    jobs[0].compact()
    assert ["COMPLETED"] * 3 == statuses(csv_path)


def test_a_pooler_with_no_other_session_left_is_none_in_transaction_mode(csv_path: Path, pg_server: PgServer) -> None:
    """What is lent to one client for its session is not given to the next, who waits: that is no reason to refuse."""
    pooler = Pooler(pg_server.port, "session", size=1)
    job = EventCsv(csv_path, log=pooler.url, job=unused_name("full"), lock_timeout_s=3)
    job.emit_result("PO1", "COMPLETED")
    assert 1 == len(list(job.history("PO1")))
    pooler.close()


@pytest.mark.parametrize("name", ["_pg3_0", "_pg3_1"])
def test_what_another_client_has_prepared_is_named_too(pg_server: PgServer, name: str) -> None:
    """Should a pooler not show at first: a statement that is there already, or gone, can be nobody else's doing."""
    server = Server(pg_server.url, 3)
    server.call("select 1")
    assert server._connection
    server._connection.execute("do $$ begin execute 'deallocate all'; end $$")  # so that psycopg takes no note of it
    if name == "_pg3_1":
        server._connection.execute(f"prepare {name} as select 2".encode())
    with pytest.raises(ServerError, match="pooler in transaction mode"):
        server.call("select 1" if name == "_pg3_0" else "select 3")
    server.close()
