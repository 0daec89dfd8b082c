"""A small process that outlives a session's by a moment: when that has died, it kills what the workers have started.

It is run as a script of its own, without the rest of eventcsv, and gets a line for each worker on standard input:
"+4711" for one that was started and leads the process group of that number, "-4711" for one that is buried. A worker
cannot do this for itself: it may be busy in code that lets no other thread of it run, and what it has started (a
browser) would live on.
"""

import contextlib
import os
import select
import signal
import sys

_LOOK_S = 0.5


def main() -> None:
    """Read until the session's process ends one way or the other."""
    session = int(sys.argv[1])
    workers: set[int] = set()
    rest = b""
    # Its end of the pipe may have been inherited by others, so its death need not end the input.
    while os.getppid() == session:
        if not select.select([0], [], [], _LOOK_S)[0]:
            continue
        read = os.read(0, 65536)
        if not read:
            break
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            (workers.add if line[:1] == b"+" else workers.discard)(int(line[1:]))
    for worker in workers:
        for kill in (os.killpg, os.kill):  # it may not lead a group yet
            with contextlib.suppress(OSError):
                kill(worker, signal.SIGKILL)


if __name__ == "__main__":
    main()
