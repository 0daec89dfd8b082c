"""The peak of a process's memory, read without importing anything that would add to it."""

from __future__ import annotations

import sys


def peak_mib() -> float:
    """Return the peak of this process's resident memory, in MiB.

    VmHWM where there is one, because what getrusage tells on Linux includes the peak of the process that started this.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return int(next(line.split()[1] for line in file if line.startswith("VmHWM"))) / 1024
    except FileNotFoundError:
        import resource  # noqa: PLC0415  # only where it is needed

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
