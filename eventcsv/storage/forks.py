"""What a forked child begins again, since it is its parent's: open files, a connection, a name."""

from __future__ import annotations

import os
import weakref


class ForkAware:
    """What holds something that a forked child must not use.

    It begins again at once in the child, not when it is used next: while a child keeps the inherited lock file open, a
    parent that is killed in mid-append leaves the lock held.
    """

    _pid = 0

    def _begin(self) -> None:
        """Start with nothing that another process has; a subclass does so first, as it may be asked from here on."""
        self._pid = os.getpid()
        _living.add(self)

    def begin_again_after_fork(self) -> None:
        """Let go of what is the parent's, without harm to it, and start."""
        self._begin()

    def _notice_fork(self) -> None:
        """Begin again after a fork that Python knows nothing of."""
        if self._pid != os.getpid():
            self.begin_again_after_fork()


_living: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for one in list(_living):
        one.begin_again_after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
