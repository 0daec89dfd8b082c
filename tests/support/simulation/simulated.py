"""A computer in memory, governed by one seed: a disk that forgets, a clock, and processes that take turns.

Processes are threads of which exactly one runs. Every call of their storage is a point at which another one may go on,
at which this one may be killed, or the power cut; so is every sleep, which takes no time.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

from faults import Killed
from simulated_disk import Directory, File, Node, os_error
from simulated_storage import Opened, SimulatedStorage

from eventcsv.storage.system import NEW_DIRECTORY_MODE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

STEP_S: Final = 100e-6
MOST_STEPS: Final = 100_000
SLOW_SYNC_S: Final = 0.05
SYNC_WEIGHT: Final = 4
"""How much likelier death is just before a sync: that is when the most is at stake."""

_SYNCS: Final = frozenset({"sync", "datasync"})
EPOCH_S: Final = 1_760_000_000
_FIRST_FD: Final = 1_000_000  # far above those of the process that simulates, so that no mix-up goes unnoticed
_CHANGES: Final = frozenset(
    {"create", "write", "sync", "datasync", "replace", "unlink", "mkdir", "lock", "unlock", "own"}
)


class Violation(AssertionError):
    """A promise was broken."""


class Process:
    """A process: its descriptors, and whether it lives.

    Attributes:
        faults: How many faults it has met; whoever expects none resets it before.
    """

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.name = name
        self.is_alive = True
        self.faults = 0
        self.opened: dict[int, Opened] = {}
        self.storage = SimulatedStorage(self)

    def end(self) -> None:
        """Close what is open, and with it give up the locks."""
        self.is_alive = False
        for fd in list(self.opened):
            self.close(fd)

    def close(self, fd: int) -> None:
        opened = self.opened.pop(fd, None)
        if opened:
            opened.node.holders.pop(fd, None)

    @property
    def holds_lock(self) -> bool:
        return any(fd in opened.node.holders for fd, opened in self.opened.items())


class Actor:
    """A thread that runs when it is its turn."""

    def __init__(self, machine: Machine, name: str, script: Callable[[], None]) -> None:
        self.name = name
        self.wake_at_s = 0.0
        self.is_done = False
        self.turn = threading.Lock()
        self.turn.acquire()
        self._machine = machine
        self._script = script
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        self.turn.acquire()
        try:
            if not self._machine.is_down:
                self._script()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001  # whatever it is, the seed that did it is told
            self._machine.fail(error)
        self.is_done = True
        self._machine.pass_on()


@dataclass(frozen=True, slots=True)
class Odds:
    """How likely things are, at a call (a switch) or at a call that changes something (the others)."""

    switch: float = 0.1
    kill: float = 0.0
    cut: float = 0.0
    sync_error: float = 0.0
    full: float = 0.0
    short_write: float = 0.0
    slow_sync: float = 0.0
    any_order: bool = False


class Machine:
    """The computer.

    Args:
        rng: Decides everything.
        odds: How likely things are.
        trace: Called with a line for every step.

    Attributes:
        now_s: The clock that only moves on; what processes see has an epoch and may be set back.
        met: How often what has happened.
        observe: Called after a change or a read, and before a name goes, with the process, the call, the
            path and the data, or the path that a rename gives.
        before_death: Called with the processes that are about to die, and of what.
    """

    def __init__(self, rng: Random, odds: Odds, trace: Callable[[str], object] | None = None) -> None:
        self.rng = rng
        self.odds = odds
        self.trace = trace
        self.now_s = 0.0
        self.skew_s = 0.0
        self.met: Counter[str] = Counter()
        self.steps = 0
        self.is_down = False
        self.numbers = count(1)
        self.fds = count(_FIRST_FD)
        self.root = Directory(next(self.numbers), stat.S_IFDIR | NEW_DIRECTORY_MODE, 0.0)
        self.observe: Callable[[Process, str, str, bytes], None] = lambda *_: None
        self.before_death: Callable[[list[Process], str], None] = lambda *_: None
        self._failure: BaseException | None = None
        self._full_until_s = 0.0
        self._processes: list[Process] = []
        self._actors: list[Actor] = []
        self._current: Actor | None = None
        self._idle = threading.Lock()
        self._idle.acquire()

    # --- taking turns ---

    def process(self, name: str) -> Process:
        made = Process(self, name)
        self._processes = [known for known in self._processes if known.is_alive] + [made]
        return made

    def run(self, scripts: dict[str, Callable[[], None]]) -> None:
        """Run scripts side by side until all have ended, or the power was cut."""
        self._actors = [Actor(self, name, script) for name, script in scripts.items()]
        if self._actors:
            self.pass_on()
            self._idle.acquire()
        for process in self._processes:
            process.end()
        self._processes.clear()
        if self._failure:
            raise self._failure

    def pass_on(self) -> None:
        """Let somebody else go on, since the one whose turn it was has ended."""
        self._current = self._next()
        (self._current.turn if self._current else self._idle).release()

    def _next(self) -> Actor | None:
        left = [actor for actor in self._actors if not actor.is_done]
        if not left:
            return None
        if self.is_down:
            return left[0]
        self.now_s = max(self.now_s, min(actor.wake_at_s for actor in left))
        return self.rng.choice([actor for actor in left if actor.wake_at_s <= self.now_s])

    def _switch(self) -> None:
        me, chosen = self._current, self._next()
        if me and chosen and chosen is not me:
            self._current = chosen
            chosen.turn.release()
            me.turn.acquire()

    def sleep(self, duration_s: float) -> None:
        if self._current is None:
            self.now_s += duration_s
            return
        self._current.wake_at_s = self.now_s + duration_s
        self._switch()
        if self.is_down:
            raise Killed("sleep")

    def time_s(self) -> float:
        return self.now_s + EPOCH_S + self.skew_s

    def fail(self, error: BaseException) -> None:
        """Stop everything because of a violation."""
        self._failure = self._failure or error
        self._go_down()

    def _go_down(self) -> None:
        self.is_down = True
        for process in self._processes:
            process.end()

    def boot(self) -> None:
        """Come up again after a power cut, with what the disk has kept and a clock that may be wrong."""
        self.root.lose_power(self.rng, self.met, any_order=self.odds.any_order)
        self.is_down = False
        self._full_until_s = 0.0
        self.skew_s = self.rng.choice((0.0, 3_600.0, -86_400.0))

    # --- what may happen at a call ---

    def step(self, process: Process, call: str, path: str) -> None:
        """Let happen what is to happen before a call.

        Raises:
            Killed: The process is dead, or has just been killed, alone or with all others.
        """
        if not process.is_alive:
            raise Killed(call)
        self.steps += 1
        if self._current is None:
            self.now_s += STEP_S
            self._note(process, call, path)
            return
        self.now_s += self.rng.random() * STEP_S
        if self.steps > MOST_STEPS:
            raise Violation("nobody gets anywhere")
        if self.rng.random() < self.odds.switch:
            self._switch()
        if call in _SYNCS and self.rng.random() < self.odds.slow_sync:
            self.sleep(self.rng.random() * SLOW_SYNC_S)
        if not process.is_alive:
            raise Killed(call)
        self._note(process, call, path)
        if call in _CHANGES:
            self._maybe_die(process, call)

    def _note(self, process: Process, call: str, path: str) -> None:
        if self.trace:
            self.trace(f"{self.steps:6} {self.now_s:10.6f} {process.name:14} {call:10} {path}")

    def _maybe_die(self, process: Process, call: str) -> None:
        chance = self.rng.random() / (SYNC_WEIGHT if call in _SYNCS else 1)
        if chance < self.odds.cut:
            self.before_death(self._processes, "power cut")
            self._go_down()
        elif chance < self.odds.cut + self.odds.kill:
            self.before_death([process], "killed")
            process.end()
        else:
            return
        if self.trace:
            self.trace(f"       {'the power is cut' if self.is_down else f'{process.name} is killed'}")
        raise Killed(call)

    def strikes(self, process: Process, chance: float, name: str) -> bool:
        """Tell whether a fault strikes now, and count it."""
        strikes = self._current is not None and self.rng.random() < chance
        if strikes:
            self.hit(process, name)
        return strikes

    def hit(self, process: Process, name: str) -> None:
        process.faults += 1
        self.met[name] += 1
        if self.trace:
            self.trace(f"       {process.name} meets: {name}")

    def is_full(self, process: Process) -> bool:
        """Tell whether the disk is full, which it stays for a while."""
        if self._current is not None and self.now_s < self._full_until_s:
            self.hit(process, "disk full")
            return True
        if self.strikes(process, self.odds.full, "disk full"):
            self._full_until_s = self.now_s + self.rng.choice((0.0, 0.1, 3.0))
            return True
        return False

    # --- paths ---

    def find(self, path: str) -> Node | None:
        node: Node = self.root
        for name in filter(None, path.split("/")):
            if not isinstance(node, Directory):
                raise os_error(errno.ENOTDIR, path)
            if name not in node.names:
                return None
            node = node.names[name]
        return node

    def above(self, path: str) -> tuple[Directory, str]:
        head, name = os.path.split(path)
        node = self.find(head)
        if node is None:
            raise os_error(errno.ENOENT, path)
        if not isinstance(node, Directory):
            raise os_error(errno.ENOTDIR, path)
        return node, name

    def content(self, path: str) -> bytes | None:
        """Return what a reader sees now, or None when nothing is there."""
        node = self.find(path)
        return bytes(node.data) if isinstance(node, File) else None

    def files(self) -> dict[str, File]:
        """Return every file by its path."""

        def walk(path: str, node: Node) -> Iterator[tuple[str, File]]:
            if isinstance(node, File):
                yield path, node
            else:
                for name, below in node.names.items():
                    yield from walk(f"{path}/{name}", below)

        return dict(walk("", self.root))


@contextmanager
def running_on(machine: Machine) -> Iterator[None]:
    """Give eventcsv the clock and the randomness of a machine."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls.fromtimestamp(machine.time_s(), tz or UTC)

    time = SimpleNamespace(sleep=machine.sleep, monotonic=lambda: machine.now_s, time=machine.time_s)
    with ExitStack() as stack:
        stack.enter_context(patch("os.urandom", machine.rng.randbytes))
        for name in (
            "log.file_log",
            "log.rotation",
            "log.segment",
            "view.backup",
            "view.progress",
            "view.session_lock",
        ):
            stack.enter_context(patch(f"eventcsv.{name}.datetime", Clock))
        for name in ("eventcsv.storage.locks", "eventcsv.view.job_files", "tenacity.nap"):
            stack.enter_context(patch(f"{name}.time", time))
        for name in ("eventcsv.storage.locks", "tenacity.wait"):
            stack.enter_context(patch(f"{name}.random", machine.rng))
        # What is logged is not checked here, and would cost a tenth of the time.
        stack.enter_context(patch.object(logging.getLogger("eventcsv"), "disabled", True))
        yield
