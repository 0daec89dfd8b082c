"""The promise: hosts that share a log share the work; a PO has one live host at a time, and no dead one keeps it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from command_line import COMMAND, Talk
from conftest import cannot, read_csv, wait_until
from servers import PgServer, programs, unused_name

from eventcsv import AppendError, EventCsv
from eventcsv.errors import ClaimLost
from eventcsv.log.interface import Refusal
from eventcsv.log.postgres.admin import init
from eventcsv.log.postgres.claims import PgClaims
from eventcsv.log.scan import events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventcsv.event import Event

DATA = Path(__file__).parents[2] / "data"
POS = [f"PO{number}" for number in range(24)]
JOBS = """
import os, time
def download(key, row):
    path = os.environ["TRACE"]
    with open(path, "a", buffering=1) as trace:
        trace.write(f"{os.environ['HOST']} {key}\\n")
    deadline = time.monotonic() + float(os.environ["WORK_S"])
    while time.monotonic() < deadline or os.path.exists(os.environ["HOLD"]):
        time.sleep(0.01)
    return {"SUPPLIER": os.environ["HOST"]}
"""


class Hosts:
    """Machines, each with a copy of the CSV and processes of its own."""

    def __init__(self, folder: Path, url: str, *, work_s: float = 0.05) -> None:
        self.folder = folder
        self.url = url
        self.job = unused_name("hosts")
        self.work_s = work_s
        self.running: list[subprocess.Popen[str]] = []
        (folder / "jobs.py").write_text(JOBS)

    def csv(self, host: str) -> Path:
        path = self.folder / host / "input.csv"
        if not path.exists():
            path.parent.mkdir()
            path.write_text("PO_NUMBER;STATUS;SUPPLIER\n" + "".join(f"{key};;\n" for key in POS))
        return path

    def start(self, host: str, *options: str, workers: int = 2, within: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "TRACE": str(self.folder / f"{host}.trace"),
            "HOST": host,
            "HOLD": str(self.folder / f"{host}.hold"),
            "WORK_S": str(self.work_s),
            "PYTHONPATH": str(self.folder),
        }
        command = [*COMMAND, "run", str(self.csv(host)), "jobs:download", "--log", self.url]
        command += ["--job", self.job, "--workers", str(workers), "--json", *options]
        log_file = ["--log-file", str(self.folder / f"{host}.log")]
        run = subprocess.Popen(
            [*within, *command, *log_file],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.running.append(run)
        return run

    def worked(self, host: str) -> list[list[str]]:
        with suppress(FileNotFoundError):
            return [line.split() for line in (self.folder / f"{host}.trace").read_text().splitlines()]
        return []

    def signal_all(self, run: subprocess.Popen[str], number: signal.Signals) -> None:
        """Send a signal to every process of a host; its workers and its guard lead groups of their own."""
        for pid in _family(run.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def results(self) -> list[Event]:
        job = EventCsv(self.csv("reader"), log=self.url, job=self.job)
        chunks = job.log.read(job.log.first(), job.log.end().position)
        return [event for chunk in chunks for event in events(chunk)[0] if event.kind == "result"]

    def end(self) -> None:
        for run in self.running:
            self.signal_all(run, signal.SIGKILL)
            run.communicate()


def _family(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for line in subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )[1:-1]:
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        queue += children.get(found[-1], [])
    return found


def result_of(run: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, out + err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture
def hosts(tmp_path: Path, pg_server: PgServer) -> Iterator[Hosts]:
    """Some hosts without work yet."""
    made = Hosts(tmp_path, pg_server.url)
    yield made
    made.end()


def test_hosts_take_different_pos(hosts: Hosts) -> None:
    """Three hosts work through one job: each PO is done once, and every host's CSV shows the same in the end."""
    runs = {host: hosts.start(host) for host in ("a", "b", "c")}
    done = {host: result_of(run) for host, run in runs.items()}
    assert len(POS) == sum(result["processed"] for result in done.values())
    assert dict.fromkeys(POS, 1) == Counter(line[1] for host in runs for line in hosts.worked(host))
    assert sorted(POS) == sorted(event.key for event in hosts.results())
    for host in runs:
        job = EventCsv(hosts.csv(host), log=hosts.url, job=hosts.job)
        job.compact()
        assert ([], 0) == (job.pending(), len(job.verify().findings))
    assert len({hosts.csv(host).read_bytes() for host in runs}) == 1


def test_a_host_that_dies_gives_its_pos_back(hosts: Hosts) -> None:
    """After kill -9 of everything on a host another one does what that one had in flight, once its lease is over."""
    (hosts.folder / "a.hold").touch()
    first = hosts.start("a", "--lease", "2")
    wait_until(lambda: len(hosts.worked("a")) == 2, "two POs in flight")
    hosts.signal_all(first, signal.SIGKILL)
    result = result_of(hosts.start("b", "--lease", "2"))
    assert len(POS) == result["processed"]
    assert sorted(POS) == sorted(event.key for event in hosts.results())
    assert {"b"} == {row["SUPPLIER"] for row in read_csv(hosts.csv("b"))}


def test_a_host_that_was_frozen_is_refused(hosts: Hosts) -> None:
    """A host that was stopped past its lease and woken up again records nothing of what another one did meanwhile."""
    (hosts.folder / "a.hold").touch()
    frozen = hosts.start("a", "--lease", "2")
    wait_until(lambda: len(hosts.worked("a")) == 2, "two POs in flight")
    hosts.signal_all(frozen, signal.SIGSTOP)
    (hosts.folder / "a.hold").unlink()
    assert len(POS) == result_of(hosts.start("b", "--lease", "2"))["processed"]
    hosts.signal_all(frozen, signal.SIGCONT)
    result = result_of(frozen)
    assert (0, True) == (result["processed"], result["elsewhere"] >= 2)
    assert sorted(POS) == sorted(event.key for event in hosts.results())
    assert {"b"} == {row["SUPPLIER"] for row in read_csv(hosts.csv("a"))}


def test_a_host_that_is_cut_off_stops_its_workers(hosts: Hosts, pg_server: PgServer) -> None:
    """When a claim cannot be renewed its worker is stopped before another host may take the PO over."""
    (hosts.folder / "a.hold").touch()
    cut = hosts.start("a", "--lease", "3", "--lock-timeout", "2")
    wait_until(lambda: len(hosts.worked("a")) == 2, "two POs in flight")
    family = set(_family(cut.pid))
    pg_server.stop()
    try:
        wait_until(lambda: len(family & set(_family(cut.pid))) <= len(family) - 2, "workers that were stopped")
    finally:
        pg_server.start()
    (hosts.folder / "a.hold").unlink()
    cut.send_signal(signal.SIGINT)
    cut.communicate(timeout=60)
    assert "claim" in (hosts.folder / "a.log").read_text()
    assert len(POS) >= result_of(hosts.start("b"))["processed"] >= len(POS) - 2
    assert sorted(POS) == sorted({event.key for event in hosts.results()})


def test_a_run_outlives_a_server_that_is_away_for_long(hosts: Hosts, pg_server: PgServer) -> None:
    """What was in flight is given back, for nothing of it is wrong; once the server is back the run does all POs."""
    (hosts.folder / "a.hold").touch()
    run = hosts.start("a", "--lease", "2", "--lock-timeout", "1")
    wait_until(lambda: len(hosts.worked("a")) == 2, "two POs in flight")
    pg_server.stop()
    try:
        log = hosts.folder / "a.log"
        wait_until(lambda: log.read_text().count("po.given_back") == 2 or run.poll() is not None, "a notice")
    finally:
        pg_server.start()
    (hosts.folder / "a.hold").unlink()
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    result = json.loads(out)
    assert (len(POS), [], []) == (result["processed"], result["unrecorded"], result["failed"]), err


def connections_left(server: PgServer) -> int:
    """Return how many connections a server of a test's own has left."""
    with psycopg.connect(server.url) as admin:
        [[count]] = admin.execute(
            "select current_setting('max_connections')::int - count(*) + 1 from pg_stat_activity "
            "where backend_type = 'client backend'"
        ).fetchall()
        return int(count)


@pytest.fixture
def small_server() -> Iterator[PgServer]:
    """A server with few connections."""
    made = PgServer()
    try:
        init(made.create().url)
        made.restart({"max_connections": 9})
        yield made
    finally:
        made.remove()


def test_a_run_takes_as_many_workers_as_there_are_connections(small_server: PgServer, tmp_path: Path) -> None:
    """It says at the start how many it needs and how many there are, and no PO fails for want of one."""
    hosts = Hosts(tmp_path, small_server.url)
    others = [psycopg.connect(small_server.url) for _ in range(4)]  # of the five that are left the run takes one
    run = hosts.start("a", workers=8)
    out, err = run.communicate(timeout=120)
    for other in others:
        other.close()
    assert "8 workers need 9 connections besides the run's, and the server has 4 left; going on with 3" in err
    result = json.loads(out)
    assert (0, len(POS), [], []) == (run.returncode, result["processed"], result["failed"], result["unrecorded"]), err
    others = [psycopg.connect(small_server.url) for _ in range(7)]
    run = hosts.start("b", workers=8)
    _, err = run.communicate(timeout=120)
    for other in others:
        other.close()
    assert (1, True) == (run.returncode, "the server has 1 left. Raise max_connections" in err), err


def test_a_limit_of_the_role_counts_too(pg_server: PgServer, csv_path: Path) -> None:
    """As does one of the database; who may see little of others still sees how many they are."""
    role = unused_name("few")
    job = EventCsv(csv_path, log=pg_server.url.replace("postgres@", f"{role}@"), job=role)
    with psycopg.connect(pg_server.url, autocommit=True) as admin:
        admin.execute(f"create role {role} login connection limit 4".encode())
        init(pg_server.url, operators=[role])
        EventCsv(csv_path, log=pg_server.url, job=role).compact()
        assert 3 == job.log.connections_left()
        job.close()
        admin.execute(f"drop owned by {role}; drop role {role}".encode())


def test_claims_are_renewed_without_a_connection_of_their_own(small_server: PgServer, tmp_path: Path) -> None:
    """Somebody else takes what a lost connection leaves free: what is in flight goes on, and ends well."""
    hosts = Hosts(tmp_path, small_server.url)
    (hosts.folder / "a.hold").touch()
    run = hosts.start("a", "--lease", "5")
    wait_until(lambda: len(hosts.worked("a")) == 2, "two POs in flight")
    renewing = "select pid from pg_stat_activity where query like '%renew(%' and pid <> pg_backend_pid()"
    others = [psycopg.connect(small_server.url, autocommit=True)]
    wait_until(lambda: others[0].execute(renewing).fetchall(), "a renewal")
    others += [psycopg.connect(small_server.url) for _ in range(connections_left(small_server))]

    def take_it() -> bool:
        for (pid,) in others[0].execute(renewing).fetchall():
            others[0].execute("select pg_terminate_backend(%s)", [pid])
        with suppress(psycopg.OperationalError):
            others.append(psycopg.connect(small_server.url))
            return True
        return False

    wait_until(take_it, "the connection that is free now")
    time.sleep(7)  # longer than a lease
    (hosts.folder / "a.hold").unlink()
    out, err = run.communicate(timeout=120)
    for other in others:
        other.close()
    result = json.loads(out)
    assert (0, len(POS), [], 0) == (run.returncode, result["processed"], result["failed"], result["lost_workers"]), err


def test_what_a_host_leaves_behind_later_is_held_back_too(hosts: Hosts) -> None:
    """With --interrupted hold a PO in flight is not done again, though its lease was not over when the run began."""
    job = EventCsv(hosts.csv("dead"), log=hosts.url, job=hosts.job)
    job.compact()
    claims = job.log.claims(owner="dead", lease_s=60, seen=job.log.end().position)
    assert isinstance(claims, PgClaims)
    for key in ("PO0", "PO1"):
        token = claims.claim(key)
        assert isinstance(token, int)
        job.hold(key, token)
    job.emit_started("PO0")  # and PO1 is not begun
    run = hosts.start("a", "--interrupted", "hold")
    wait_until(lambda: len(hosts.worked("a")) == len(POS) - 2, "all but what another host has claimed")
    claims._end.set()
    with psycopg.connect(hosts.url) as admin:
        admin.execute("update eventcsv.claim set until = now() - interval '1 s' where owner = 'dead'")
    result = result_of(run)
    assert (len(POS) - 1, ["PO0"]) == (result["processed"], result["held"])
    assert "PO0" not in {event.key for event in hosts.results()}


def test_a_key_too_long_to_be_claimed_is_refused(hosts: Hosts) -> None:
    """A key that no index of the server takes does not keep a run waiting for ever."""
    long = os.urandom(3_000).hex()
    path = hosts.csv("a")
    path.write_text(f"PO_NUMBER;STATUS;SUPPLIER\nPO0;;\n{long};;\n")
    result = json.loads(hosts.start("a", "--lock-timeout", "1").communicate(timeout=60)[0])
    assert (1, [long]) == (result["processed"], result["refused"])


def test_claims_keep_their_rules(csv_path: Path, pg_server: PgServer) -> None:
    """One holder at a time; a token that was superseded is refused; what was finished unseen is not done again."""
    job, other = (EventCsv(csv_path, log=pg_server.url, job=f"rules {csv_path}") for _ in range(2))
    job.compact()
    seen = job.log.end().position
    mine = job.log.claims(owner="mine", lease_s=1.0, seen=seen)
    theirs = other.log.claims(owner="theirs", lease_s=60.0, seen=seen)
    assert isinstance(mine, PgClaims)
    assert theirs is not None
    try:
        token = mine.claim("PO1")
        assert token == 1
        assert Refusal.HELD == theirs.claim("PO1")
        time.sleep(1.5)
        assert Refusal.HELD == theirs.claim("PO1")  # it was renewed
        mine._end.set()
        wait_until(lambda: theirs.claim("PO1") == 2, "a lease that runs out")
        assert mine.has_lapsed("PO1")
        job.hold("PO1", token)
        with pytest.raises(ClaimLost):
            job.emit_result("PO1", "COMPLETED")
        other.hold("PO1", 2)
        event = other.emit_result("PO1", "ERROR", error_message="x")
        assert [event.id] == [item.id for item in job.history("PO1")]
        assert Refusal.FINISHED == mine.claim("PO1")
        later = job.log.claims(owner="later", lease_s=60, seen=job.log.end().position)
        assert later is not None
        assert later.claim("PO1") == 3
        later.close()
    finally:
        mine.close()
        theirs.close()


def test_a_claimed_po_that_cannot_be_recorded_is_said_like_any_other(csv_path: Path, pg_server: PgServer) -> None:
    """When the log stays locked the error carries the event, so that a worker reports it and lives on."""
    job = EventCsv(csv_path, log=pg_server.url, job=f"locked {csv_path}", lock_timeout_s=0.5)
    job.compact()
    job.hold("PO1", 1)
    with psycopg.connect(pg_server.url) as other:
        other.execute("select pg_advisory_xact_lock(1702257011, number) from eventcsv.job where name like 'locked %'")
        with pytest.raises(AppendError, match="another append held the log") as caught:
            job.emit_result("PO1", "COMPLETED")
    assert caught.value.event
    assert "PO1" == caught.value.event.key


@contextmanager
def claiming(csv_path: Path, pg_server: PgServer, *, lease_s: float) -> Iterator[tuple[EventCsv, PgClaims]]:
    """Begin a job on the server, and claim POs of it."""
    job = EventCsv(csv_path, log=pg_server.url, job=f"claiming {csv_path}")
    job.compact()
    claims = job.log.claims(owner="one", lease_s=lease_s, seen=job.log.end().position)
    assert isinstance(claims, PgClaims)
    try:
        yield job, claims
    finally:
        claims.close()


def test_a_po_that_was_just_finished_is_not_taken_for_lost(csv_path: Path, pg_server: PgServer) -> None:
    """A renewal between a result and its notice lets the worker live, and does not take up the claim again."""
    with claiming(csv_path, pg_server, lease_s=60) as (job, claims):
        token = claims.claim("PO1")
        assert isinstance(token, int)
        job.hold("PO1", token)
        job.emit_result("PO1", "COMPLETED")
        claims._renew()
        assert not claims.has_lapsed("PO1")
        assert frozenset() == claims.held()


def test_a_renewal_that_comes_too_late_undoes_no_lapse(csv_path: Path, pg_server: PgServer) -> None:
    """Else the death of a worker that was stopped for it would be taken for a failure of its PO."""
    with claiming(csv_path, pg_server, lease_s=1.0) as (_, claims):
        claims.claim("PO1")
        claims._end.set()
        wait_until(lambda: claims.has_lapsed("PO1"), "a lease that runs out")
        claims._renew()
        assert frozenset({"PO1"}) == claims.held()  # nobody has taken it over
        assert claims.has_lapsed("PO1")
        claims.release("PO1")
        claims.claim("PO1")
        assert not claims.has_lapsed("PO1")


def test_many_claim_at_once_and_none_twice(csv_path: Path, pg_server: PgServer) -> None:
    """Eight hosts claim the same 40 POs; each PO has one holder."""
    job = EventCsv(csv_path, log=pg_server.url, job=f"claims {csv_path}")
    job.compact()
    script = (
        "import sys; from eventcsv import EventCsv\n"
        f"job = EventCsv({str(csv_path)!r}, log={pg_server.url!r}, job={f'claims {csv_path}'!r})\n"
        "claims = job.log.claims(owner=sys.argv[1], lease_s=60, seen=job.log.end().position)\n"
        "print([key for key in range(40) if isinstance(claims.claim(f'PO{key}'), int)], flush=True); input()\n"
    )
    talks = [Talk(script, number) for number in range(8)]
    taken = [key for talk in talks for key in json.loads(talk.hear())]
    for talk in talks:
        talk.say("")
        talk.end()
    assert list(range(40)) == sorted(taken)


NETWORK = "10.213.77"


def ip(*args: str) -> None:
    """Change the network, as root."""
    done = subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
    if done.returncode:
        cannot(f"network namespaces take root: ip {' '.join(args)}: {done.stderr.strip()}")


@pytest.fixture
def network() -> Iterator[list[str]]:
    """Eight network namespaces on a bridge, at whose own address this machine is."""
    if not shutil.which("ip"):
        cannot("there is no ip here")
    names = [f"ec{os.getpid() % 10_000}n{number}" for number in range(8)]
    bridge = f"ec{os.getpid() % 10_000}br"
    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("addr", "add", f"{NETWORK}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for number, name in enumerate(names):
            ip("netns", "add", name)
            ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", name, "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{NETWORK}.{number + 10}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)


@pytest.mark.long
def test_eight_hosts_with_networks_of_their_own(network: list[str], tmp_path: Path) -> None:
    """Eight hosts share a job; the cable of one is pulled for longer than its lease, and put back."""
    server = PgServer()
    hosts = Hosts(tmp_path, server.url.replace("127.0.0.1", f"{NETWORK}.1"), work_s=0.3)
    try:
        init(server.create().url)
        with (server.data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {NETWORK}.0/24 trust\n")
        server.restart({"listen_addresses": f"127.0.0.1,{NETWORK}.1"})
        (tmp_path / f"{network[0]}.hold").touch()
        runs = {
            name: hosts.start(name, "--lease", "4", "--lock-timeout", "60", within=("ip", "netns", "exec", name))
            for name in network
        }
        wait_until(lambda: len(hosts.worked(network[0])) == 2, "two POs in flight on the host that is cut off")
        ip("link", "set", network[0], "down")
        results = {name: result_of(run) for name, run in runs.items() if name != network[0]}
        assert len(POS) == sum(result["processed"] for result in results.values()) + len(hosts.worked(network[0])) - 2
        (tmp_path / f"{network[0]}.hold").unlink()
        ip("link", "set", network[0], "up")
        assert result_of(runs[network[0]])["elsewhere"] >= 2
        assert sorted(POS) == sorted(event.key for event in hosts.results())
    finally:
        hosts.end()
        server.remove()


def test_the_demo_ends_with_every_po_done_and_the_same_csv_twice(tmp_path: Path) -> None:
    """`make demo-hosts`: one of two hosts is killed hard, the other one does its POs too."""
    programs()  # a skip with its reason where there is no PostgreSQL
    shutil.copytree(DATA / "sample", tmp_path / "sample")
    for script in ("demo.py", "demo_hosts.py"):
        shutil.copy(DATA / script, tmp_path)
    command = [sys.executable, str(tmp_path / "demo_hosts.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "kill -9 of all that runs on host1" in done.stdout
    assert "by status  COMPLETED 394, NO_ATTACHMENTS 47, ERROR 5" in done.stdout
    assert "po.csv: nothing is wrong" in done.stdout
    assert "the same, byte for byte" in done.stdout.splitlines()[-1]
