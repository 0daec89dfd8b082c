"""The promise: with the log on a server everything is done as with files, from one machine or from many."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest
from command_line import run as command
from conftest import append_raw, cannot, read_csv, tree
from servers import PgServer, unused_name

import eventcsv
from eventcsv import AppendError, EventCsv, EventCsvError
from eventcsv.errors import ServerError
from eventcsv.log.copy import copy_log
from eventcsv.log.file_log import FileLog
from eventcsv.log.postgres.admin import init
from eventcsv.log.postgres.log import PgLog
from eventcsv.log.types import Position

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "s3cret-and-long"


@pytest.fixture
def name() -> str:
    """A job's name."""
    return unused_name("job")


@pytest.fixture
def job(csv_path: Path, pg_server: PgServer, name: str) -> EventCsv:
    """A job with its log on a server."""
    return EventCsv(csv_path, log=pg_server.url, job=name, lock_timeout_s=20)


def test_every_command_takes_a_server(csv_path: Path, pg_server: PgServer, name: str) -> None:
    """Emit, compact, status, pending, history, verify, backup, replay and prune, by option or environment."""
    there = {"EVENTCSV_LOG": pg_server.url, "EVENTCSV_JOB": name}
    assert 0 == command("emit", csv_path, "PO1", "COMPLETED", "--log", pg_server.url, "--job", name).returncode
    for args, shown in (
        (["compact", csv_path], "COMPLETED 1"),
        (["status", csv_path], "1 of 3"),
        (["pending", csv_path], "PO2\nPO3\n"),
        (["history", csv_path, "PO1"], "STATUS = COMPLETED"),
        (["verify", csv_path], "nothing is wrong"),
        (["report", csv_path], "report.html"),
        (["backup", "list", csv_path], "before the first compaction"),
        (["replay", csv_path], "asked for"),
        (["prune", csv_path, "--dry-run"], f"job {name}: every segment is needed"),
    ):
        done = command(*args, **there)
        assert (0, True) == (done.returncode, shown in done.stdout), done.stdout + done.stderr
    assert "COMPLETED" == read_csv(csv_path)[0]["STATUS"]
    assert not list(csv_path.parent.glob("input.events/*.jsonl"))


def test_a_worker_needs_no_csv(csv_path: Path, pg_server: PgServer, name: str, tmp_path: Path) -> None:
    """A worker elsewhere names the server and the job, loads no Polars, and leaves nothing on its disk."""
    with EventCsv(csv_path, log=pg_server.url, job=name) as job:
        job.compact()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        script = (
            "import sys; from eventcsv import emit_result;"
            f"emit_result('PO2', 'COMPLETED', log={pg_server.url!r}, job={name!r});"
            "print('polars' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", script], cwd=elsewhere, capture_output=True, text=True, check=True)
        assert ("False\n", {}) == (done.stdout, tree(elsewhere))
        job.compact()
    assert "COMPLETED" == read_csv(csv_path)[1]["STATUS"]


def test_a_job_that_is_not_there_is_said(pg_server: PgServer, name: str) -> None:
    """A mistyped name makes no job; the error says what to do."""
    with pytest.raises(AppendError, match=f"has no job '{name}'.*eventcsv log init"):
        eventcsv.emit_result("PO2", "COMPLETED", log=pg_server.url, job=name)


def test_the_core_does_not_load_the_client(csv_path: Path) -> None:
    """With the log in files nothing of PostgreSQL is imported, and none has to be installed."""
    script = (
        "import sys; sys.modules['psycopg'] = None; from eventcsv import EventCsv, EventCsvError;"
        f"job = EventCsv({str(csv_path)!r}); job.emit_result('PO1', 'COMPLETED'); job.compact(); job.verify();\n"
        "try: EventCsv('x.csv', log='postgresql://db/x')\n"
        "except EventCsvError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'eventcsv[postgres]'" in done.stdout


def test_two_machines_see_the_same(csv_path: Path, pg_server: PgServer, name: str, tmp_path: Path) -> None:
    """Two copies of a CSV, each on its machine, end in the same bytes."""
    other_path = tmp_path / "other" / "input.csv"
    other_path.parent.mkdir()
    other_path.write_bytes(csv_path.read_bytes())
    one, other = (EventCsv(path, log=pg_server.url, job=name) for path in (csv_path, other_path))
    one.emit_result("PO1", "COMPLETED", columns={"note": "x"})
    other.emit_result("PO2", "ERROR", error_message="y")
    one.compact()
    other.compact()
    assert csv_path.read_bytes() == other_path.read_bytes()
    assert ["PO2", "PO3"] == one.pending() == other.pending()


def test_a_checkpoint_survives_both_sides(csv_path: Path, pg_server: PgServer, job: EventCsv) -> None:
    """After both were restarted only what is new is folded."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    job.emit_result("PO2", "COMPLETED")
    pg_server.stop()
    pg_server.start()
    again = EventCsv(csv_path, log=job.log.server.url, job=job.log.job)  # type: ignore[attr-defined]  # a PgLog
    result = again.compact()
    assert (1, None) == (result.events, result.rebuilt)


def test_a_log_that_was_replaced_is_replayed(csv_path: Path, pg_server: PgServer, job: EventCsv, name: str) -> None:
    """A job of the same name and another identity, or one that is shorter, is no continuation: full replay."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    with psycopg.connect(pg_server.url) as admin:
        admin.execute("update eventcsv.job set name = name || ' of old' where name = %s", [name])
    again = EventCsv(csv_path, log=pg_server.url, job=name)
    again.emit_result("PO2", "COMPLETED")
    first = again.compact()
    assert (1, "before the first compaction") == (first.events, first.base and first.base.reason)
    again.emit_result("PO3", "COMPLETED")
    again.compact()
    with psycopg.connect(pg_server.url) as admin:
        admin.execute(
            "delete from eventcsv.line l using eventcsv.job j where j.number = l.job and j.name = %s"
            " and l.ends = (select max(ends) from eventcsv.line where job = l.job)",
            [name],
        )
    assert "shorter" in str(EventCsv(csv_path, log=pg_server.url, job=name).compact().rebuilt)


def test_a_row_that_is_gone_is_found(csv_path: Path, pg_server: PgServer, job: EventCsv, name: str) -> None:
    """Rows that somebody removed or changed are reported with their place; the others count."""
    for key in ("PO1", "PO2", "PO3"):
        job.emit_result(key, "COMPLETED")
    job.compact()
    with psycopg.connect(pg_server.url) as admin:
        rows = admin.execute(
            "select l.ends, octet_length(l.line), l.id from eventcsv.line l join eventcsv.job j on j.number = l.job"
            " where j.name = %s order by ends",
            [name],
        ).fetchall()
        admin.execute("delete from eventcsv.line where id = %s", [rows[2][2]])
        admin.execute("update eventcsv.line set line = set_byte(line, 9, 0) where id = %s", [rows[3][2]])
    report = EventCsv(csv_path, log=pg_server.url, job=name).verify()
    places = [finding.place for finding in report.findings]
    assert [f"byte {rows[1][0]}", f"byte {rows[2][0]}"] == [place.rpartition(", ")[2] for place in places[:2]]
    assert f"{rows[2][1]:,} bytes" not in report.findings[0].problem
    assert "rows were removed" in report.findings[0].problem


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_an_unsafe_server_is_refused(pg_server: PgServer, csv_path: Path, name: str, setting: str) -> None:
    """With fsync or full_page_writes off nothing is written, and the error names the setting."""
    pg_server.stop()
    pg_server.start({setting: "off"})
    try:
        job = EventCsv(csv_path, log=pg_server.url, job=name, lock_timeout_s=5)
        with pytest.raises(ServerError, match=f"{setting} is off"):
            job.compact()
        with pytest.raises(AppendError, match=f"{setting} is off"):
            job.emit_result("PO1", "COMPLETED")
    finally:
        pg_server.stop()
        pg_server.start()


def test_commit_waits_for_the_disk_whatever_the_server_says(pg_server: PgServer, job: EventCsv) -> None:
    """synchronous_commit is turned on where it is off, and left where it is stricter."""
    pg_server.stop()
    pg_server.start({"synchronous_commit": "off"})
    try:
        log = job.log
        assert isinstance(log, PgLog)
        assert [("on",)] == log.server.call("select current_setting('synchronous_commit')")
        log.server.close()
        with psycopg.connect(pg_server.url, autocommit=True) as admin:
            admin.execute("alter system set synchronous_commit = 'remote_apply'")
        pg_server.stop()
        pg_server.start()
        assert [("remote_apply",)] == log.server.call("select current_setting('synchronous_commit')")
    finally:
        with psycopg.connect(pg_server.url, autocommit=True) as admin:
            admin.execute("alter system reset synchronous_commit")
        pg_server.stop()
        pg_server.start()


def test_the_server_notices_soon_that_a_host_is_gone(job: EventCsv) -> None:
    """A host whose cable is pulled in the middle of an append holds the job's lock for seconds, not for hours."""
    log = job.log
    assert isinstance(log, PgLog)
    names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count")
    found = [log.server.call("select current_setting(%s)", (name,))[0][0] for name in names]
    assert ["10", "5", "3"] == found


def test_roles_can_do_what_they_need_and_no_more(csv_path: Path, pg_server: PgServer, name: str) -> None:
    """A worker's role appends, and reads and deletes nothing; an operator's role brings the CSV up to date."""
    worker, operator = unused_name("worker"), unused_name("operator")
    with psycopg.connect(pg_server.url, autocommit=True) as admin:
        for role in (worker, operator):
            admin.execute(f'create role "{role}" login'.encode())
    done = command("log", "init", pg_server.url, "--worker", worker, "--operator", operator)
    assert (0, "") == (done.returncode, done.stderr)
    as_operator = pg_server.url.replace("postgres@", f"{operator}@")
    as_worker = pg_server.url.replace("postgres@", f"{worker}@")
    job = EventCsv(csv_path, log=as_operator, job=name)
    job.compact()
    eventcsv.emit_result("PO1", "COMPLETED", log=as_worker, job=name)
    with job.session():
        job.emit_result("PO2", "COMPLETED")
    assert ["PO3"] == job.pending()
    job.prune()
    for statement in (
        "select * from eventcsv.line",
        "insert into eventcsv.job (name) values ('x')",
        "delete from eventcsv.claim",
        "select eventcsv.remove_segment(1, 1)",
        "select eventcsv.begin_segment('x', 1, 'x')",
    ):
        with psycopg.connect(as_worker) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())
    with psycopg.connect(as_operator) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("delete from eventcsv.line")
    with pytest.raises(ServerError, match=r"permission denied.*--operator"):
        EventCsv(csv_path, log=as_worker, job=name).compact()


def test_a_database_without_the_schema_is_said(csv_path: Path, pg_server: PgServer) -> None:
    """The error says how to make it; a newer schema is refused."""
    database = unused_name("db")
    with psycopg.connect(pg_server.url, autocommit=True) as admin:
        admin.execute(f'create database "{database}"'.encode())
    url = f"{pg_server.url.rpartition('/')[0]}/{database}"
    done = command("compact", csv_path, "--log", url)
    assert (1, True) == (done.returncode, "eventcsv log init" in done.stderr)
    init(url)
    assert 0 == command("compact", csv_path, "--log", url).returncode
    with psycopg.connect(url) as admin:
        admin.execute("insert into eventcsv.schema_version values (2)")
    done = command("compact", csv_path, "--log", url)
    assert (1, True) == (done.returncode, "schema version 2" in done.stderr)
    assert "schema version 2" in command("log", "init", url).stderr


def test_a_server_is_made_ready_by_several_at_once(pg_server: PgServer) -> None:
    """Whoever runs `log init` while others do, for the first time or again, waits for them."""
    database, role = unused_name("db"), unused_name("role")
    with psycopg.connect(pg_server.url, autocommit=True) as admin:
        admin.execute(f'create database "{database}"'.encode())
        admin.execute(f'create role "{role}"'.encode())
    url = f"{pg_server.url.rpartition('/')[0]}/{database}"
    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: init(url, workers=[role], operators=[role]), range(4)))


def test_an_id_that_is_taken_is_no_acknowledgement(job: EventCsv) -> None:
    """Another event with an id that is there already is refused, since only a retry may be answered with nothing."""
    event = job.emit_result("PO1", "COMPLETED")
    job.log.append(event)
    with pytest.raises(AppendError, match=f"another event has the id {event.id}"):
        job.log.append(replace(event, key="PO2"))


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_of_another_encoding_is_used_whole_or_not_at_all(
    csv_path: Path, pg_server: PgServer, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where text is bytes every key has its claim; where text cannot be every key, there is no log."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    database = unused_name("db")
    make = f"create database \"{database}\" encoding '{encoding}' template template0 lc_collate 'C' lc_ctype 'C'"
    with psycopg.connect(pg_server.url, autocommit=True) as admin:
        admin.execute(make.encode())
    url = f"{pg_server.url.rpartition('/')[0]}/{database}"
    if encoding == "LATIN1":
        with pytest.raises(ServerError, match="the database is in LATIN1"):
            init(url)
        return
    init(url)
    job = EventCsv(csv_path, log=url, job="jöb 💥")
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    claims = job.log.claims(owner="é", lease_s=60, seen=job.log.end().position)
    assert claims is not None
    assert (1, frozenset({"💥"})) == (claims.claim("💥"), claims.held())
    claims.close()


def test_a_url_of_something_else_is_no_directory(csv_path: Path) -> None:
    """A URL that is nearly right makes no log beside the CSV, and its password is not shown."""
    url = f"postgresql+psycopg://ana:{SECRET}@db/work"
    done = command("emit", csv_path, "PO1", "COMPLETED", "--log", url)
    assert (1, True) == (done.returncode, "postgresql+psycopg:// is no URL of a log" in done.stderr)
    assert SECRET not in done.stdout + done.stderr
    assert [csv_path.name] == [path.name for path in csv_path.parent.iterdir()]


def test_a_name_that_is_no_text_is_said(csv_path: Path, pg_server: PgServer) -> None:
    """A job that would be named after a file whose name is not UTF-8 is refused, and no mistake of ours."""
    odd = csv_path.rename(csv_path.parent / os.fsdecode(b"caf\xe9.csv"))
    done = command("compact", odd, "--log", pg_server.url)
    assert (1, True) == (done.returncode, "Name it: --job NAME" in done.stderr), done.stderr


def test_passwords_are_never_shown(csv_path: Path, pg_server: PgServer, tmp_path: Path) -> None:
    """Neither a wrong password, nor a URL that cannot be read, nor a server that is gone gives one away."""
    secret = "hunter2canary"
    urls = [
        pg_server.url.replace("postgres@", f"postgres:{secret}@"),
        f"postgresql://ana:{secret}@127.0.0.1:1/x",
        f"postgresql://ana:{secret}%zz@127.0.0.1/x",
        f"postgresql://127.0.0.1:1/x?user=ana&password={secret}",
    ]
    said = ""
    for url in urls:
        log_file = tmp_path / "log.jsonl"
        for args in (["compact"], ["status", "--json"], ["verify"]):
            options = ["--log", url, "--lock-timeout", "0.2", "--log-file", log_file, "--log-level", "debug"]
            done = command(args[0], csv_path, *args[1:], *options)
            said += done.stdout + done.stderr
        said += log_file.read_text() if log_file.exists() else ""
        try:
            said += repr(EventCsv(csv_path, log=url)) + EventCsv(csv_path, log=url).log_place
        except EventCsvError as error:
            said += str(error)
    assert secret not in said
    assert "127.0.0.1:1" in said


def test_a_host_that_misses_what_another_one_pruned_goes_no_further(
    csv_path: Path, pg_server: PgServer, name: str, tmp_path: Path
) -> None:
    """A prune knows the backups of its own host only: another one that was not current stops, its CSV untouched."""
    elsewhere = tmp_path / "elsewhere" / "input.csv"
    elsewhere.parent.mkdir()
    shutil.copy(csv_path, elsewhere)
    here, there = (EventCsv(path, log=pg_server.url, job=name) for path in (csv_path, elsewhere))
    there.compact()
    here.emit_result("PO1", "COMPLETED")
    for number in range(7):
        with here.session():
            here.emit_result("PO2", "PARTIAL", columns={"n": number})
    assert here.prune().removed
    before = elsewhere.read_bytes()
    for act in (there.compact, there.replay, there.pending, there.session().__enter__):
        with pytest.raises(EventCsvError, match="is pruned"):
            act()
    assert before == elsewhere.read_bytes()
    for part in ("input.csv", "input.events", "backup"):
        whole = csv_path.parent / part
        if whole.is_dir():
            shutil.rmtree(elsewhere.parent / part)
            shutil.copytree(whole, elsewhere.parent / part)
        else:
            shutil.copy2(whole, elsewhere)
    again = EventCsv(elsewhere, log=pg_server.url, job=name)
    assert ("PO3",) == tuple(key for key in again.pending() if key == "PO3")
    assert "PO1" not in again.pending()
    assert csv_path.read_bytes() == elsewhere.read_bytes()


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PgServer, Path]]:
    """A server that takes only connections by TLS and with a password; the certificate that it shows."""
    if not shutil.which("openssl"):
        cannot("openssl is not installed, with which a certificate is made")
    server = PgServer().create()
    try:
        key, certificate = tmp_path_factory.mktemp("tls") / "key.pem", server.folder / "server.crt"
        make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=db -addext subjectAltName=IP:127.0.0.1"
        subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
        shutil.copy(key, server.data / "server.key")
        shutil.chown(server.data / "server.key", server.data.owner(), server.data.group())
        (server.data / "server.key").chmod(0o600)
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"create role ana superuser login password '{SECRET}'")
        (server.data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        server.restart({"ssl": "on", "ssl_cert_file": certificate})
        yield server, certificate
    finally:
        server.remove()


def test_a_server_is_reached_by_tls_and_password_or_not_at_all(
    csv_path: Path, tls_server: tuple[PgServer, Path], tmp_path: Path
) -> None:
    """The ways of libpq do it; a wrong certificate, no TLS and a wrong password are refused, and nothing is printed."""
    server, certificate = tls_server
    url = f"postgresql://ana@127.0.0.1:{server.port}/postgres"
    passwords = tmp_path / "passwords"
    passwords.write_text(f"127.0.0.1:{server.port}:postgres:ana:{SECRET}\n")
    passwords.chmod(0o600)
    good = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(certificate), "PGPASSFILE": str(passwords)}
    for args in (["log", "init", url], ["emit", csv_path, "PO1", "COMPLETED", "--log", url], ["compact", csv_path]):
        done = command(*args, **good, EVENTCSV_LOG=url)
        assert 0 == done.returncode, done.stderr
    assert "COMPLETED" == read_csv(csv_path)[0]["STATUS"]

    stranger = tmp_path / "stranger.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=x",
        "-keyout",
        str(tmp_path / "key"),
    ]
    subprocess.run([*make, "-out", str(stranger)], check=True, capture_output=True)
    for bad, why in (
        ({"PGSSLROOTCERT": str(stranger)}, "certificate verify failed"),
        ({"PGSSLMODE": "disable"}, "no encryption"),
        ({"PGPASSFILE": "/dev/null", "PGPASSWORD": f"{SECRET}-not"}, "password authentication failed"),
    ):
        done = command("emit", csv_path, "PO2", "PARTIAL", "--log", url, "--lock-timeout", "1", **(good | bad))
        assert (1, True) == (done.returncode, why in done.stderr), done.stderr
        assert SECRET not in done.stdout + done.stderr


def test_a_log_moves_to_a_server_and_back(csv_path: Path, pg_server: PgServer, name: str, tmp_path: Path) -> None:
    """A copy has the same bytes and positions, so that backups and the checkpoint go on, in both directions."""
    job = EventCsv(csv_path)
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    with job.session():
        event = job.emit_result("PO2", "PARTIAL", columns={"note": "x"})
        job.log.append(event)
    args = ["log", "copy", job.log_dir, pg_server.url, "--job", name]
    first = json.loads(command(*args, "--json").stdout)
    assert (2, True) == (first["segments"], first["copied_bytes"] > 500)
    assert 0 == json.loads(command(*args, "--json").stdout)["copied_bytes"]
    moved = EventCsv(csv_path, log=pg_server.url, job=name)
    assert job.log.end() == moved.log.end()
    result = moved.compact()
    assert (0, None, False) == (result.events, result.rebuilt, result.changed)
    assert [] == list(moved.verify().findings)
    moved.emit_result("PO3", "COMPLETED")
    moved.compact()
    assert command(*args).returncode == 1  # the two have gone apart

    back = tmp_path / "back.events"
    done = command("log", "copy", pg_server.url, back, "--job", name)
    assert (0, "") == (done.returncode, done.stderr)
    home = EventCsv(csv_path, log=back)
    assert (False, True) == (home.compact().changed, home.verify().findings == ())
    raw = b"".join(chunk.raw for chunk in home.log.read(home.log.first(), home.log.end().position))
    assert raw == b"".join(chunk.raw for chunk in moved.log.read(Position(1, 0), moved.log.end().position))
    moved.emit_result("PO3", "ERROR", error_message="later")
    assert 0 == command("log", "copy", pg_server.url, back, "--job", name).returncode
    assert "ERROR" == [item for item in home.history("PO3") if item.kind == "result"][-1].cells["STATUS"]


@pytest.mark.parametrize("missing_bytes", [0, 1, 30, 200, 500])
def test_a_copy_that_was_cut_short_goes_on(
    csv_path: Path, pg_server: PgServer, name: str, tmp_path: Path, missing_bytes: int
) -> None:
    """A copy to files that was killed in mid-line, or one to a server between two pieces, is completed."""
    job = EventCsv(csv_path, log=pg_server.url, job=name)
    for number in range(8):
        job.emit_result("PO1", "PARTIAL", columns={"n": number})
    back = tmp_path / "back.events"
    command("log", "copy", pg_server.url, back, "--job", name)
    segment = back / "events-000001.jsonl"
    whole = segment.read_bytes()
    segment.write_bytes(whole[: len(whole) - missing_bytes])
    assert 0 == command("log", "copy", pg_server.url, back, "--job", name).returncode
    assert whole == segment.read_bytes()


def test_half_lines_are_told_by_the_copies_too(csv_path: Path, pg_server: PgServer, name: str, tmp_path: Path) -> None:
    """What kills left half, ended by the next result or the end of its segment, is no damage there and back again."""
    half = b'{"v":1,"id":"half'
    files = EventCsv(csv_path)
    for end in (lambda: files.emit_result("PO2", "COMPLETED"), files.new_segment, files.new_segment):
        files.emit_result("PO1", "COMPLETED")
        append_raw(files, half, max(files.log.segments()))
        end()
    files.compact()
    expected = [(item.segment, item.offset_bytes, item.torn) for item in files.verify().torn]
    assert 3 == len(expected)
    back = tmp_path / "back.events"
    assert 0 == command("log", "copy", files.log_dir, pg_server.url, "--job", name).returncode
    assert 0 == command("log", "copy", pg_server.url, back, "--job", name).returncode
    on_server = EventCsv(csv_path, log=pg_server.url, job=name)
    copied = EventCsv(csv_path)
    copied.log = FileLog(str(back), key_column="PO_NUMBER")
    for job in (on_server, copied):
        report = job.verify()
        assert ((), expected) == (
            report.findings,
            [(item.segment, item.offset_bytes, item.torn) for item in report.torn],
        )


@pytest.mark.parametrize("is_there", [True, False])
def test_two_copies_at_once_do_not_mix(job: EventCsv, tmp_path: Path, *, is_there: bool) -> None:
    """Of two that copy to the same files from the same place on, one is refused, and the files are the log's."""
    back = FileLog(str(tmp_path / "back.events"), key_column="PO_NUMBER")
    job.emit_result("PO1", "PARTIAL")
    source = job.log
    assert isinstance(source, PgLog)
    if is_there:
        copy_log(source, back)
        job.emit_result("PO1", "COMPLETED")
    locked = back.locked

    @contextmanager
    def late() -> Iterator[None]:
        copy_log(source, FileLog(back.directory, key_column="PO_NUMBER"))  # another one was faster
        with locked():
            yield

    back.locked = late  # type: ignore[method-assign]  # between the comparison and the lock
    with pytest.raises(EventCsvError, match="somebody else"):
        copy_log(source, back)
    assert source.end() == back.end()


def test_a_log_of_its_own_beside_the_csv_is_not_left_behind(job: EventCsv, csv_path: Path) -> None:
    """Results in files that are not on the server are not dropped from the CSV in silence."""
    EventCsv(csv_path).emit_result("PO1", "COMPLETED")
    with pytest.raises(EventCsvError, match="eventcsv log copy"):
        job.compact()
