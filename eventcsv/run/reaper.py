"""A small process between a session and one worker of it: when either ends, it ends whatever that worker has started.

It is run as a script of its own, without the rest of eventcsv, and starts the worker. On Linux orphans below it become
its children instead of the system's, so nothing that a worker starts gets away: no session and no process group of
its own helps a browser, nor that the program which started it has ended. Elsewhere those get away that lost their
parent and left the worker's process group. A worker cannot do this for itself: it may be busy in code that lets no
other thread of it run, or be killed.

`END_SIGNAL` asks to end all now. The end of the worker, a signal or an exit code, becomes its own.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
import time

TYPE_CHECKING = False  # typing would take as long to load as the rest
if TYPE_CHECKING:
    from typing import Any

END_SIGNAL = signal.SIGUSR1

_LOOK_S = 0.5
_AGAIN_S = 0.002
_PATIENCE_S = 5.0  # what the kernel itself does not let go of, for instance in a read of a dead server, may take longer
_SET_CHILD_SUBREAPER = 36  # prctl(2)
_SET_DEATH_SIGNAL = 1


class _Reaper:
    """One worker, and all that comes of it."""

    def __init__(self) -> None:
        self.worker = 0
        self.status: int | None = None
        self.asked = False

    def ask(self, *_: object) -> None:
        """Take note that all is to end."""
        self.asked = True

    def reap(self) -> bool:
        """Bury who has died; tell whether any child is left."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self.worker:
                    self.status = status
        return False

    def end_all(self, *, adopts: bool) -> None:
        """Kill the worker and whatever it has started, and see them gone."""
        deadline = time.monotonic() + _PATIENCE_S
        # What is started while one looks shows in the next look, as its parent is dead by then.
        while (self.reap() or not adopts) and time.monotonic() < deadline:
            alive = [pid for pid in _descendants() if _kill(pid)]
            if not adopts:  # only now, as whoever has lost its parent is not below us any more
                _kill(self.worker, of_group=True)
            if not alive:
                self.reap()  # whoever died since the look above, perhaps the worker
                return
            time.sleep(_AGAIN_S)


def main() -> None:
    """Start the worker, and end what there is when it ends, when the session does, or when asked.

    The arguments: the session's process; the descriptors of a pipe that ends with it, of one that only this process
    may hold, and, separated by commas, of those that only the worker may hold; the worker's command.
    """
    session, lifeline, life, passed, *command = sys.argv[1:]
    os.set_inheritable(int(life), False)
    os.setpgrp()  # Ctrl-C is for the session
    adopts = _prctl(_SET_CHILD_SUBREAPER, 1)
    reaper = _Reaper()
    heeded = {END_SIGNAL: reaper.ask, signal.SIGCHLD: lambda *_: None}
    before = {number: signal.signal(number, handler) for number, handler in heeded.items()}
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, heeded)
    reaper.worker = os.fork()
    if reaper.worker == 0:
        _become(command, before, mask)
    for fd in map(int, passed.split(",")):
        os.close(fd)
    os.set_inheritable(int(lifeline), False)
    silence = os.open(os.devnull, os.O_RDWR)
    # Else whoever reads what the session prints would wait for this process, too.
    for fd in {0, 1, 2} - {int(lifeline), int(life)}:
        os.dup2(silence, fd)
    _wait(reaper, int(session), int(lifeline))
    reaper.end_all(adopts=adopts)
    _end_like(reaper.status)


def _wait(reaper: _Reaper, session: int, lifeline: int) -> None:
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    ends = select.poll()
    ends.register(woken, select.POLLIN)
    ends.register(lifeline, 0)  # the worker reads it; only its end is of interest
    # The session's end of the pipe may have been inherited by others, so its death need not end the pipe.
    while reaper.reap() and reaper.status is None and not reaper.asked and os.getppid() == session:
        for fd, _ in ends.poll(_LOOK_S * 1000):
            if fd == lifeline:
                return
            os.read(woken, 4096)


def _become(command: list[str], before: dict[signal.Signals, Any], mask: set[Any]) -> None:
    """Be the worker from here on."""
    reaper = os.getppid()
    try:
        _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)  # without its reaper it would outlive what it was to end with
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if os.getppid() == reaper:
            os.execv(command[0], command)  # noqa: S606  # as multiprocessing would
    finally:
        os._exit(127)


def _prctl(option: int, value: int) -> bool:
    """Ask something of Linux; tell whether it was done."""
    try:
        import ctypes  # noqa: PLC0415  # not every Python has it

        return sys.platform == "linux" and bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False


def _kill(pid: int, *, of_group: bool = False) -> bool:
    """Tell whether there was such a process, and one that may be killed."""
    try:
        (os.killpg if of_group else os.kill)(pid, signal.SIGKILL)
    except OSError:
        return False
    return True


def _descendants() -> list[int]:
    """Return whoever lives below this process, by what the system's table of processes says."""
    children: dict[int, list[int]] = {}
    alive = set()
    for pid, parent, state in _processes():
        children.setdefault(parent, []).append(pid)
        if not state.startswith("Z"):
            alive.add(pid)
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return [pid for pid in found[1:] if pid in alive]


def _processes() -> list[tuple[int, int, str]]:
    """Return each process with its parent and its state."""
    found = []
    for name in os.listdir("/proc") if os.path.exists("/proc/self/stat") else []:
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()  # the name before may hold anything
                found.append((int(name), int(fields[1]), fields[0].decode()))
    if found:
        return found
    with os.popen("ps -A -o pid=,ppid=,state=") as listed:  # noqa: S605, S607  # where there is no such file
        for line in listed:
            pid, parent, state = line.split()[:3]
            found.append((int(pid), int(parent), state))
    return found


def _end_like(status: int | None) -> None:
    """End as the worker did: the session asks only this process."""
    code = 1 if status is None else os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError, ValueError):
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
