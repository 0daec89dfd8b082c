"""What the first process of a container owes to the others, when nobody else is there to do it.

Its children are all orphans, also those of a `docker exec`: it buries them. And the system keeps from it each signal
for which it has no handler, so that nothing would stop it but a SIGKILL. So the command runs in a child, as any program
does, and the first process does these two things and nothing else.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from eventcsv.signals import BY_SIGNAL, STOP_SIGNALS

_FROM_TERMINAL = 0x80  # SI_KERNEL, sigaction(2): whole groups get such a signal, and the child has it already


def leave_the_first_process() -> None:
    """Go on in a child, when this is the first process; that one ends when, and as, its child does."""
    if os.getpid() != 1:
        return
    passed_on = {*STOP_SIGNALS, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would bury them by itself, and lose how they ended
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*passed_on, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while True:
        arrived = signal.sigwaitinfo({*passed_on, signal.SIGCHLD})
        if arrived.si_signo == signal.SIGCHLD:
            _bury(child)
        elif arrived.si_code != _FROM_TERMINAL:
            with suppress(ProcessLookupError):
                os.kill(child, arrived.si_signo)


def _bury(child: int) -> None:
    """Wait for all who have died; end when `child` is among them."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else BY_SIGNAL - code)
