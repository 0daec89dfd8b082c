"""PostgreSQL servers for the tests: real ones, on a free port of the loopback interface, as durable as in earnest."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from conftest import cannot

if TYPE_CHECKING:
    from collections.abc import Mapping

# fsync stays on: what is promised is tested with what the promise stands on.
SETTINGS: Final = {"max_connections": 60, "shared_buffers": "16MB", "wal_level": "replica", "max_wal_senders": 4}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def programs() -> Path:
    """Return where PostgreSQL's programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        cannot("PostgreSQL is not installed (apt-get install postgresql)")
    return found[-1].parent if found else Path(str(on_path)).parent


class PgServer:
    """A server of its own, with its data in a temporary folder."""

    def __init__(self) -> None:
        self._bin = programs()
        self._user = self._server_user()
        self.folder = Path(tempfile.mkdtemp(prefix="eventcsv-pg-"))
        self.port = free_port()
        if self._user:
            shutil.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self.folder.chmod(0o755)
        self.data = self.folder / "data"

    @staticmethod
    def _server_user() -> pwd.struct_passwd | None:
        """Return whom the server runs as: it refuses to run as root."""
        if os.geteuid():
            return None
        try:
            return pwd.getpwnam("postgres")
        except KeyError:
            cannot("PostgreSQL does not run as root, and there is no user postgres")

    def run(self, program: str, *args: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run one of PostgreSQL's programs as the server's user."""
        user: dict[str, Any] = (
            {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []} if self._user else {}
        )
        done: subprocess.CompletedProcess[bytes] = subprocess.run(
            [str(self._bin / program), *args],
            check=check,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **user,
        )
        return done

    def create(self) -> PgServer:
        """Make an empty one and start it."""
        self.run("initdb", "-k", "-D", str(self.data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C")
        self.start()
        return self

    def start(self, settings: Mapping[str, object] | None = None) -> None:
        """Start it, with other settings for this time."""
        every = {**SETTINGS, "port": self.port, "listen_addresses": "127.0.0.1", **(settings or {})}
        options = " ".join(
            f"-c {name}='{value}'" for name, value in (every | {"unix_socket_directories": self.folder}).items()
        )
        log = str(self.folder / "server.log")
        self.run("pg_ctl", "start", "-w", "-D", str(self.data), "-l", log, "-o", options)

    def restart(self, settings: Mapping[str, object] | None = None) -> None:
        """Stop it and start it, with other settings from now on."""
        self.stop()
        self.start(settings)

    def stop(self, mode: str = "fast") -> None:
        """Stop it."""
        self.run("pg_ctl", "stop", "-w", "-D", str(self.data), "-m", mode, check=False)

    @property
    def pid(self) -> int:
        """The process of the server that all others come from."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    @property
    def url(self) -> str:
        """Its URL, with a user that may do everything."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def remove(self) -> None:
        """Stop it, and leave nothing."""
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)


def unused_name(stem: str) -> str:
    """Return a name that no other test uses for its job."""
    return re.sub(r"\W", "_", stem)[:40] + "_" + os.urandom(4).hex()
