"""Two hosts and one log in one command: a host is killed hard in the middle, the other one does its POs too.

`make demo-hosts` runs it, in data/demo_hosts. The hosts are folders of this machine, each with its copy of the CSV, and
the server is a PostgreSQL that is started for this and removed at the end. Everything else is as on two machines.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA: Final = Path(__file__).parent
FOLDER: Final = DATA / "demo_hosts"
KILL_AFTER: Final = 150
DONE: Final = "--done COMPLETED --done NO_ATTACHMENTS"
RUN: Final = f"run po.csv demo:download --workers 2 --timeout 10 --lease 3 {DONE}"


@contextmanager
def server() -> Iterator[str]:
    """Start a PostgreSQL of our own on a free port; give its URL."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = str(programs[-1] / "initdb") if programs else shutil.which("initdb")
    if not found:
        sys.exit("demo-hosts: PostgreSQL is not installed here (Debian: apt-get install postgresql)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = tempfile.mkdtemp(prefix="eventcsv-demo-")
    control = str(Path(found).with_name("pg_ctl"))
    options = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={place}"
    try:
        if os.geteuid() == 0:
            os.chown(place, pwd.getpwnam("postgres").pw_uid, -1)
        as_server(place, found, "-k", "-D", "data", "-A", "trust", "-U", "ana")
        as_server(place, control, "start", "-w", "-D", "data", "-l", "log", "-o", options)
        yield f"postgresql://ana@127.0.0.1:{port}/postgres"
    finally:
        with suppress(subprocess.CalledProcessError):
            as_server(place, control, "stop", "-m", "immediate", "-D", "data")
        shutil.rmtree(place)


def as_server(place: str, *command: str) -> None:
    """Run a program of PostgreSQL, as its own user when we are root, as which it refuses to run."""
    user = "postgres" if os.geteuid() == 0 else None
    quiet = subprocess.DEVNULL
    subprocess.run(command, cwd=place, check=True, stdout=quiet, stderr=quiet, user=user)


def eventcsv(host: str, arguments: str, log: str, *, quiet: bool = False) -> subprocess.Popen[bytes]:
    """Start a command of eventcsv on a host, as one would type it there."""
    print(f"{host}$ eventcsv {arguments}", flush=True)
    return subprocess.Popen(
        [sys.executable, "-m", "eventcsv", *arguments.split()],
        cwd=FOLDER / host,
        env={**os.environ, "EVENTCSV_LOG": log, "PYTHONPATH": os.pathsep.join([str(DATA), str(DATA.parent)])},
        stdout=subprocess.DEVNULL if quiet else None,
        stderr=subprocess.DEVNULL if quiet else subprocess.STDOUT,
        start_new_session=True,
    )


def done(host: str, log: str) -> int:
    """Return how many POs are done, as a host sees it."""
    status = [sys.executable, "-m", "eventcsv", "status", "po.csv", *DONE.split()]
    environment = {**os.environ, "EVENTCSV_LOG": log, "PYTHONPATH": str(DATA.parent)}
    shown = subprocess.run(status, cwd=FOLDER / host, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"(\d+) of \d+ POs done", shown.stdout)
    return int(found[1]) if found else 0


def main() -> None:
    """Tell the story."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    for host in ("host1", "host2"):
        (FOLDER / host).mkdir(parents=True)
        shutil.copy(DATA / "sample/input.csv", FOLDER / host / "po.csv")
    with server() as log:
        print(f"host1$ export EVENTCSV_LOG={log}; the same on host2")
        eventcsv("host1", f"log init {log}", log).wait()
        first = eventcsv("host1", RUN, log, quiet=True)
        second = eventcsv("host2", RUN, log)
        while done("host1", log) < KILL_AFTER and first.poll() is None:
            time.sleep(0.1)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        print(f"... and after {KILL_AFTER} POs and some: kill -9 of all that runs on host1", flush=True)
        second.wait()
        for host, arguments in (("host1", "compact po.csv"), ("host1", "verify po.csv")):
            eventcsv(host, arguments, log).wait()
        same = len({(FOLDER / host / "po.csv").read_bytes() for host in ("host1", "host2")}) == 1
        print(f"the CSVs of the two hosts are {'the same, byte for byte' if same else 'different'}")


if __name__ == "__main__":
    main()
