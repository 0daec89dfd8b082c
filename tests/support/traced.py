"""Real processes under strace: which system calls they make, and what happens when one of them is the last or fails.

A command of eventcsv runs in a child of a process that has loaded everything and used nothing, which saves half a
second a run. strace is attached to the child before it begins. A signal that strace injects strikes before the call is
done; to strike after it, strace holds the child there, which its output tells, and then the child is killed from here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from conftest import cannot, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

CHANGING: Final = (
    "openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat",
    "mkdir", "mkdirat", "fchmod", "fchown", "flock", "ftruncate",
)  # fmt: skip
_CALL: Final = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>.*)")

_SERVER: Final = """
import json, os, sys
sys.path[:0] = sys.argv[1:]
import faults
from eventcsv import EventCsv, masking
from eventcsv.view import backup
from eventcsv.cli.main import main
from eventcsv.view import compactor
from eventcsv.view import prune
from eventcsv.view import publisher
from eventcsv.run import session
from eventcsv.storage import files as storage
masking.get_logger()
EventCsv.__init__.__kwdefaults__["settle_s"] = 0.0
while line := sys.stdin.buffer.raw.readline():
    request = json.loads(line)
    pid = os.fork()
    if pid:
        os.write(1, b"%d\\n" % pid)
        os.write(1, b"%d\\n" % os.waitpid(pid, 0)[1])
        continue
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    if request["toy"] == "copying":
        storage.Storage.replace = faults.copying
    if request["toy"] == "swallowing":
        publisher.Publisher._replace = faults.swallowing(publisher.Publisher._replace)
    os.read(0, 1)  # by now it is traced
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv[:] = ["eventcsv", *request["arguments"]]
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    sys.stdout.flush()
    os._exit(code)
"""


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that a process made.

    Attributes:
        name: Its name.
        number: Which one of that name it is, from 1 on.
        arguments: As strace shows them, descriptors with their paths.
        result: The same, "?" when it was the last.
    """

    name: str
    number: int
    arguments: str
    result: str

    @property
    def changes(self) -> bool:
        """Whether it may change something."""
        return self.name != "openat" or "O_CREAT" in self.arguments


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code or minus the signal, what it printed, and the calls that it made."""

    code: int
    output: str
    calls: tuple[Call, ...]


def strace() -> str:
    """Return the path of strace; skip the test where it is not, or may not do its work."""
    path = shutil.which("strace")
    if path is None:
        cannot("strace is not installed")
    if subprocess.run([path, "-o", os.devnull, "true"], capture_output=True, check=False).returncode:
        cannot("strace may not trace here")
    return path


def parsed(lines: Iterable[str]) -> Iterator[Call]:
    """Read what strace prints of one thread: calls, not signals."""
    counts: dict[str, int] = {}
    for line in lines:
        found = _CALL.match(line)
        if found:
            counts[found["name"]] = counts.get(found["name"], 0) + 1
            yield Call(found["name"], counts[found["name"]], found["arguments"], found["result"])


class Commands:
    """Runs commands of eventcsv, traced."""

    def __init__(self, folder: Path) -> None:
        self._strace = strace()
        self._output = folder / "output"
        command = [sys.executable, "-c", _SERVER, str(Path(__file__).parent), str(Path(__file__).parents[1])]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def close(self) -> None:
        """End the process that runs them."""
        self._server.kill()
        self._server.communicate()

    def run(self, arguments: Sequence[str], *inject: str, kill_after: bool = False, toy: str = "") -> Ended:
        """Run a command.

        Args:
            arguments: What follows "eventcsv" on the command line.
            inject: What strace is to do to its calls, as its option -e takes it.
            kill_after: Whether to kill it once `inject` has delayed the return of a call.
            toy: What to break in it first.
        """
        request = {"arguments": arguments, "output": str(self._output), "toy": toy}
        self._tell(json.dumps(request).encode() + b"\n")
        pid = self._told()
        options = [part for one in inject for part in ("-e", f"inject={one}")]
        traced = ",".join(f"?{name}" for name in CHANGING)
        command = [self._strace, "-y", "-s", "0", "-e", f"trace={traced}", *options, "-p", str(pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            wait_until(lambda: is_traced(pid) or tracer.poll() is not None, "strace attaches itself")
            self._tell(b".")
            lines = list(self._watch(tracer.stderr, pid, kill_after=kill_after))
            tracer.kill()  # it may be waiting for the end of a delay, and until then nobody else learns of a death
            code = os.waitstatus_to_exitcode(self._told())
        return Ended(code, self._output.read_text(), tuple(parsed(lines)))

    def _watch(self, output: IO[str] | None, pid: int, *, kill_after: bool) -> Iterator[str]:
        for line in output or ():
            yield line
            if kill_after and "(DELAYED)" in line:
                os.kill(pid, signal.SIGKILL)
                return

    def _tell(self, data: bytes) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(data)

    def _told(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())


def is_traced(pid: int) -> bool:
    """Tell whether somebody traces a process."""
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()
