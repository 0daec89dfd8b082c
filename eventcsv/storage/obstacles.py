"""What keeps a file from being replaced although it can be read: found before hours of work, and named for what it is.

A file is replaced by a rename over its name. That takes the right to write to its folder, and not the right to write to
the file; a name on which something is mounted, a file or folder that is locked by a flag, and somebody else's file in a
folder like /tmp refuse it, each with an error of the system that says little.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import sys
from contextlib import suppress
from typing import Final

from eventcsv.storage.network import is_mount_point

_GET_FLAGS: Final = 0x80086601  # FS_IOC_GETFLAGS, see ioctl_iflags(2); where it is another number, nothing is found
_IMMUTABLE: Final = 0x10
_APPEND_ONLY: Final = 0x20


def obstacle_to(path: str) -> str | None:
    """Return why a file cannot be replaced, and what to do about it, or None when nothing is known to be in the way.

    Args:
        path: The file, absolute and without symbolic links; it need not be there.
    """
    if is_mount_point(path):
        return "is a mount point by itself, so it cannot be replaced. Mount its folder instead"
    folder = os.path.dirname(path)
    for place, what in ((path, "is"), (folder, f"its folder {folder} is")):
        if flag := _lock_of(place):
            return f"{what} {flag[0]}, so the CSV cannot be replaced. To let it be kept up to date: {flag[1]} {place}"
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return f"cannot be replaced, as its folder {folder} {_why_closed(folder)}"
    if _is_somebody_elses_in_sticky(path, folder):
        return (
            f"cannot be replaced, as it is another user's and its folder {folder} lets only owners replace their files "
            "(it is sticky, as /tmp is). Move the CSV to a folder of your own"
        )
    return None


def _lock_of(path: str) -> tuple[str, str] | None:
    """Return the flag that locks a file or folder, in words, and the command that takes it away; or None."""
    with suppress(OSError):
        flags = _flags(path)
        if sys.platform == "linux":
            found = {_IMMUTABLE: ("immutable", "chattr -i"), _APPEND_ONLY: ("append-only", "chattr -a")}
        else:
            found = {
                stat.UF_IMMUTABLE: ("locked", "chflags nouchg"),
                stat.SF_IMMUTABLE: ("locked by the system", "chflags noschg"),
                stat.UF_APPEND: ("append-only", "chflags nouappnd"),
                stat.SF_APPEND: ("append-only", "chflags nosappnd"),
            }
        return next((words for flag, words in found.items() if flags & flag), None)
    return None


def _flags(path: str) -> int:
    if sys.platform != "linux":
        return int(getattr(os.lstat(path), "st_flags", 0))
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return int(struct.unpack_from("=i", fcntl.ioctl(fd, _GET_FLAGS, bytes(8)))[0])
    finally:
        os.close(fd)


def _why_closed(folder: str) -> str:
    with suppress(OSError):
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return "is on a file system that is read-only. Move the CSV to one that is not, or mount it for writing"
    return (
        f"may not be written to by you, user {os.geteuid()} ({os.strerror(errno.EACCES)}). "
        "Let its owner give you that right (chmod, setfacl), or move the CSV to a folder of your own"
    )


def _is_somebody_elses_in_sticky(path: str, folder: str) -> bool:
    with suppress(OSError):
        above = os.stat(folder)
        return bool(above.st_mode & stat.S_ISVTX and os.geteuid() not in {0, above.st_uid, os.lstat(path).st_uid})
    return False
