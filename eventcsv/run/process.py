"""A process as multiprocessing spawns it, with a reaper before it that ends whatever it has started; see `reaper`.

For multiprocessing the reaper is the process: it ends when all is over, and as the process itself did.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from multiprocessing import popen_spawn_posix, reduction, resource_tracker, spawn, util
from multiprocessing.context import SpawnProcess, set_spawning_popen
from typing import TYPE_CHECKING, cast

from eventcsv.run import reaper

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess


class ReapedProcess(SpawnProcess):
    """Whatever it starts goes with it, and it goes with whoever has started it."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> _GuardedPopen:  # noqa: N802  # what multiprocessing calls
        return _GuardedPopen(process_obj)

    def end(self) -> None:
        """Have it and whatever it has started killed, without waiting for that."""
        if self.pid is not None and self.exitcode is None:  # else the number may be somebody else's by now
            with suppress(ProcessLookupError):
                os.kill(self.pid, reaper.END_SIGNAL)


class _GuardedPopen(popen_spawn_posix.Popen):
    _fds: list[int]

    def _launch(self, process_obj: BaseProcess) -> None:
        """Do what the class above does, with another command."""
        data = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(spawn.get_preparation_data(process_obj.name), data)
            reduction.dump(process_obj, data)  # which notes in _fds what it needs
        finally:
            set_spawning_popen(None)
        # The first one brings the data and stays open until the process is forgotten, by which the reaper knows that it
        # is not. Only the reaper has the other end of the second one, which tells that all is over.
        its_end, lifeline = os.pipe()
        self.sentinel, life = os.pipe()
        self.finalizer = util.Finalize(self, _close, (lifeline, self.sentinel))
        try:
            self.pid = self._start(its_end, life)
        finally:
            os.close(its_end)
            os.close(life)
        with suppress(BrokenPipeError), open(lifeline, "wb", closefd=False) as file:  # it has died, which will show
            file.write(data.getbuffer())

    def _start(self, its_end: int, life: int) -> int:
        tracker = cast("int", resource_tracker.getfd())
        theirs = [*self._fds, tracker]
        numbers = [str(os.getpid()), str(its_end), str(life), ",".join(map(str, theirs))]
        command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=its_end)
        before = [sys.executable, "-I", "-S", reaper.__file__, *numbers]
        return util.spawnv_passfds(os.fsencode(sys.executable), [*before, *command], [*theirs, its_end, life])


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)
