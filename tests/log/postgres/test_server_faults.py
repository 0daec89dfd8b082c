"""The promise: what was acknowledged is on the server once, whatever happens to the server and to the connection."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest
from conftest import wait_until
from servers import PgServer, unused_name

from eventcsv.errors import AppendError
from eventcsv.event import Event, Kind
from eventcsv.log.copy import copy_log
from eventcsv.log.file_log import FileLog
from eventcsv.log.postgres.admin import init
from eventcsv.log.postgres.log import PgLog
from eventcsv.log.scan import events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKER = """
import sys, os
from eventcsv import emit_result
url, job, name, path = sys.argv[1:]
ack = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
n = 0
while True:
    event = emit_result(f"PO{n % 7}", "PARTIAL", columns={"who": name, "n": n}, log=url, job=job)
    os.write(ack, event.id.encode() + b"\\n")
    n += 1
"""


@pytest.fixture
def server() -> Iterator[PgServer]:
    """A server that a test may kill."""
    made = PgServer()
    try:
        init(made.create().url)
        yield made
    finally:
        made.remove()


def log_of(url: str, job: str) -> PgLog:
    log = PgLog(url, job=job, directory="", key_column="PO_NUMBER", lock_timeout_s=60)
    log.make()
    return log


def stored(log: PgLog) -> list[Event]:
    return [event for chunk in log.read(log.first(), log.end().position) for event in events(chunk)[0]]


@contextmanager
def workers(url: str, job: str, folder: Path, count: int = 4) -> Iterator[list[Path]]:
    """Emit results in processes of their own, each of which notes what was acknowledged."""
    paths = [folder / f"{number}.ack" for number in range(count)]
    running = [
        subprocess.Popen([sys.executable, "-c", WORKER, url, job, str(number), str(path)], stderr=subprocess.PIPE)
        for number, path in enumerate(paths)
    ]
    try:
        yield paths
        assert [None] * count == [process.poll() for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()


def acknowledged(paths: list[Path]) -> list[str]:
    found: list[str] = []
    for path in paths:
        with suppress(FileNotFoundError):
            found += path.read_text().split()
    return found


def wait_for_more(paths: list[Path], count: int) -> None:
    before = [len(acknowledged([path])) for path in paths]
    wait_until(
        lambda: all(len(acknowledged([path])) >= had + count for path, had in zip(paths, before, strict=True)),
        "results of every worker",
    )


def kill_server(server: PgServer) -> None:
    """Kill every process of a server at once."""
    pid = server.pid
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    for number in [pid, *map(int, children.stdout.split())]:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def start_again(server: PgServer) -> None:
    def is_up() -> bool:
        with suppress(subprocess.CalledProcessError):
            server.start()
            return True
        return False

    wait_until(is_up, "a server that starts")


def check_all_stored_once(url: str, job: str, paths: list[Path]) -> int:
    """Check that every acknowledged result is in the log, and nothing twice; return how many there are."""
    found = Counter(event.id for event in stored(log_of(url, job)))
    acked = acknowledged(paths)
    assert set() == set(acked) - set(found)
    assert {1} == set(found.values())
    return len(acked)


def storm(server: PgServer, folder: Path, kills: int) -> int:
    job = unused_name("storm")
    log_of(server.url, job)
    with workers(server.url, job, folder) as paths:
        for _ in range(kills):
            wait_for_more(paths, 5)
            kill_server(server)
            start_again(server)
        wait_for_more(paths, 5)
    return check_all_stored_once(server.url, job, paths)


def test_workers_survive_a_server_that_is_killed(server: PgServer, tmp_path: Path) -> None:
    """Kill -9 of the whole server under load: workers wait and go on, nothing acknowledged is lost, nothing doubled."""
    assert storm(server, tmp_path, 2) >= 4 * 15


@pytest.mark.long
def test_workers_survive_a_server_that_is_killed_often(server: PgServer, tmp_path: Path) -> None:
    """The same, forty times."""
    assert storm(server, tmp_path, 40) >= 4 * 205


class Proxy:
    """A proxy on loopback that cuts its connections after so many more bytes in one direction."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.left: dict[str, int | None] = {"up": None, "down": None}
        self.passed = {"up": 0, "down": 0}
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                for source, target, direction in ((client, server, "up"), (server, client, "down")):
                    threading.Thread(target=self._pass, args=(source, target, direction), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                left = self.left[direction]
                self.passed[direction] += len(data)
                if left is not None and len(data) > left:
                    self.left[direction] = None
                    self.cuts += 1
                    target.sendall(data[:left])
                    break
                if left is not None:
                    self.left[direction] = left - len(data)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.close()


def cut_everywhere(server: PgServer, step: int) -> tuple[int, int]:
    """Cut an append at every so many bytes of what goes up and comes down; return how many cuts and how many events."""
    proxy = Proxy(server.port)
    log = log_of(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres", unused_name("cuts"))

    def event() -> Event:
        return log.new_event(Kind.RESULT, "PO1", {"STATUS": "COMPLETED"}, "2025-10-02T12:43:11.123456Z")

    log.append(event())
    log.append(event())
    made = []
    for direction in ("up", "down"):
        before = proxy.passed[direction]
        log.append(event())
        for count in range(0, proxy.passed[direction] - before, step):
            made.append(event())
            proxy.left[direction] = count
            log.append(made[-1])
    proxy.close()
    found = Counter(item.id for item in stored(log_of(server.url, log.job)))
    assert dict.fromkeys([item.id for item in made], 1) == {item.id: found[item.id] for item in made}
    assert len(found) == len(made) + 4
    return proxy.cuts, len(made)


def test_a_connection_may_be_cut_anywhere(server: PgServer) -> None:
    """Cut within the request or within its answer, an append is carried out once and acknowledged."""
    cuts, count = cut_everywhere(server, 13)
    assert cuts == count > 20


@pytest.mark.long
def test_a_connection_may_be_cut_at_every_byte(server: PgServer) -> None:
    """The same at every byte."""
    cuts, count = cut_everywhere(server, 1)
    assert cuts == count > 250


def test_a_copy_goes_on_when_its_connection_is_lost(server: PgServer, tmp_path: Path) -> None:
    """A piece that was stored, and whose answer was lost, is not taken for somebody else's."""
    source = FileLog(str(tmp_path / "input.events"), key_column="PO_NUMBER")
    for number in range(3):
        source.append(source.new_event(Kind.RESULT, "PO1", {"n": str(number)}, "2025-10-02T12:43:11.123456Z"))
    proxy = Proxy(server.port)
    target = PgLog(
        f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres",
        job=unused_name("copied"),
        directory="",
        key_column="PO_NUMBER",
    )
    assert not target.exists()  # now it is connected
    proxy.left["down"] = 0
    target.server.call("select 1")
    store = target.store

    def cut_store(segment: int, start_bytes: int, rows: list[tuple[int, str | None, bytes]]) -> None:
        proxy.left["down"] = 11  # the answer to its being prepared comes through
        store(segment, start_bytes, rows)

    target.store = cut_store  # type: ignore[method-assign]  # the answer to each piece is lost
    result = copy_log(source, target)
    proxy.close()
    assert 2 == proxy.cuts
    assert result.size_bytes == result.copied_bytes == source.end().position.offset_bytes


def test_a_server_that_hangs_is_waited_for_no_longer_than_one_that_is_away(server: PgServer) -> None:
    """When its processes stand still, an append raises in time; once they go on, the same event is recorded once."""
    log = log_of(server.url, unused_name("hangs"))
    log = PgLog(server.url, job=log.job, directory="", key_column="PO_NUMBER", lock_timeout_s=2)
    event = log.new_event(Kind.RESULT, "PO1", {"STATUS": "COMPLETED"}, "2025-10-02T12:43:11.123456Z")
    [[pid]] = log.server.call("select pg_backend_pid()")
    stopped = [server.pid, pid]
    failures: list[AppendError] = []

    def append() -> None:
        try:
            log.append(event)
        except AppendError as error:
            failures.append(error)

    for number in stopped:
        os.kill(number, signal.SIGSTOP)
    try:
        appending = threading.Thread(target=append, daemon=True)
        appending.start()
        appending.join(30)
        assert not appending.is_alive()
    finally:
        for number in stopped:
            os.kill(number, signal.SIGCONT)
    assert [event] == [failure.event for failure in failures]
    log.append(event)
    assert [event.id] == [item.id for item in stored(log)]


def test_an_answer_that_comes_late_is_still_the_answer(server: PgServer) -> None:
    """A busy server says after the time for a lock that the lock was held: that is reported, and no silence."""
    name = unused_name("late")
    log = log_of(server.url, name)
    log = PgLog(server.url, job=log.job, directory="", key_column="PO_NUMBER", lock_timeout_s=0.5)
    event = log.new_event(Kind.RESULT, "PO1", {"STATUS": "COMPLETED"}, "2025-10-02T12:43:11.123456Z")
    [[pid]] = log.server.call("select pg_backend_pid()")
    failures: list[AppendError] = []

    def append() -> None:
        try:
            log.append(event)
        except AppendError as error:
            failures.append(error)

    with psycopg.connect(server.url) as other:
        other.execute("select pg_advisory_xact_lock(1702257011, number) from eventcsv.job where name = %s", [name])
        os.kill(pid, signal.SIGSTOP)
        try:
            appending = threading.Thread(target=append, daemon=True)
            appending.start()
            appending.join(1.5)
        finally:
            os.kill(pid, signal.SIGCONT)
        appending.join(30)
    [failure] = failures
    assert "another append held the log for 0.5 s" in str(failure)


def standby_of(primary: PgServer) -> PgServer:
    """Make a standby, and let the primary wait for it with each commit."""
    standby = PgServer()
    source = ["-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres"]
    standby.run("pg_basebackup", "-D", str(standby.data), *source, "-R", "-X", "stream", "-c", "fast")
    standby.start()
    with psycopg.connect(primary.url, autocommit=True) as admin:
        admin.execute("alter system set synchronous_standby_names = 'ANY 1 (*)'")
        admin.execute("select pg_reload_conf()")
        wait_until(
            lambda: admin.execute("select 1 from pg_stat_replication where sync_state = 'quorum'").fetchall(),
            "a standby that follows",
        )
    return standby


def test_a_standby_takes_over(server: PgServer, tmp_path: Path) -> None:
    """The primary is killed under load and its standby promoted: workers find it, nothing acknowledged is lost."""
    standby = standby_of(server)
    job = unused_name("failover")
    log_of(server.url, job)
    url = f"postgresql://postgres@127.0.0.1:{server.port},127.0.0.1:{standby.port}/postgres"
    try:
        with workers(url, job, tmp_path) as paths:
            wait_for_more(paths, 10)
            kill_server(server)
            time.sleep(0.5)  # workers meet the standby before it is promoted
            standby.run("pg_ctl", "promote", "-w", "-D", str(standby.data))
            wait_for_more(paths, 10)
        assert check_all_stored_once(standby.url, job, paths) >= 4 * 20
    finally:
        standby.remove()


def test_a_commit_that_nobody_waited_for_is_not_acknowledged(server: PgServer) -> None:
    """While no standby confirms, an append goes on waiting, even when the wait is cancelled; then it is there once."""
    standby = standby_of(server)
    log = log_of(server.url, unused_name("cancelled"))
    event = log.new_event(Kind.RESULT, "PO1", {"STATUS": "COMPLETED"}, "2025-10-02T12:43:11.123456Z")
    try:
        standby.stop("immediate")
        appending = threading.Thread(target=log.append, args=(event,))
        appending.start()
        with psycopg.connect(server.url, autocommit=True) as admin:
            for _ in range(3):

                def waiting() -> list[tuple[int]]:
                    return admin.execute("select pid from pg_stat_activity where wait_event = 'SyncRep'").fetchall()

                wait_until(waiting, "an append that waits for the standby")
                for (pid,) in waiting():
                    admin.execute("select pg_cancel_backend(%s)", [pid])
                time.sleep(0.2)
                assert appending.is_alive()
        standby.start()
        appending.join()
        assert [event.id] == [item.id for item in stored(log_of(server.url, log.job))]
    finally:
        standby.remove()
