"""The calls of the system that touch a file, one a method: one seam, so that a test can fail any step.

Assumptions about the medium: a rename within a directory is atomic; data is on disk once fdatasync of its file has
returned 0, and a name once fsync of its directory has; a failed sync leaves the outcome unknown, and a second one on
the same descriptor proves nothing ("Can Applications Recover from fsync Failures?", USENIX ATC 2020).
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

from eventcsv.storage.obstacles import obstacle_to
from eventcsv.storage.rights import LIST, Rights, rights_of

if TYPE_CHECKING:
    from collections.abc import Mapping

NEW_FILE_MODE: Final = 0o600
NEW_DIRECTORY_MODE: Final = 0o700

# flock(2) itself, as portalocker calls it too where there is fcntl. Loading that package took a third of the time of a
# worker's first result: it asks importlib.metadata for its own version, and 6 MB of code for mail and archives with it.
_TRY_EXCLUSIVE: Final = fcntl.LOCK_EX | fcntl.LOCK_NB
_TRY_SHARED: Final = fcntl.LOCK_SH | fcntl.LOCK_NB

# EINVAL: an id that a container's user namespace does not know.
_MAY_NOT: Final = frozenset({errno.EPERM, errno.EACCES, errno.EINVAL})
_NO_ATTRIBUTE: Final = frozenset({errno.ENOENT, errno.ENOTSUP, errno.ENOSYS, getattr(errno, "ENODATA", errno.ENOENT)})
_NOT_COPIED: Final = frozenset({LIST, "security.ima", "security.evm"})
"""The list goes with the rights, and the other two vouch for a content that is another one now."""

# O_NONBLOCK: a FIFO planted at one of our paths must be refused, not waited for. Regular files ignore it.
_SAFE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

_Call = TypeVar("_Call", bound=Callable[..., Any])


def _tell_where(error: OSError, fd: int) -> None:
    """Let the error of a call on an open file name it, as those on a path do by themselves."""
    if error.filename is None:
        error.filename = _path_of(fd)


def _telling_where(call: _Call) -> _Call:
    """Let the errors of a call name its file. What each append calls does so itself, as this costs 0.1 us a time."""

    @wraps(call)
    def told(self: System, fd: int, *arguments: Any) -> Any:  # noqa: ANN401  # whatever the call takes and returns
        try:
            return call(self, fd, *arguments)
        except OSError as error:
            _tell_where(error, fd)
            raise

    return told  # type: ignore[return-value]  # it has the signature of the call


def _path_of(fd: int) -> str | None:
    """Return the path of an open file where the system tells, or None."""
    with suppress(OSError):
        if sys.platform == "darwin":
            return os.fsdecode(fcntl.fcntl(fd, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
        return os.readlink(f"/proc/self/fd/{fd}")
    return None


def _attribute(path: str, name: str) -> bytes | None:
    """Return an extended attribute of a file, or None when it has none of that name."""
    if sys.platform != "linux":
        return None
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_ATTRIBUTE:
            return None
        raise


def _set_attribute(fd: int, name: str, value: bytes) -> bool:
    """Set an extended attribute of an open file, or return False when the system does not take it."""
    if sys.platform != "linux":
        return False
    try:
        if name == LIST or _attribute_of_open(fd, name) != value:
            os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno in _NO_ATTRIBUTE | _MAY_NOT:
            return False
        raise
    return True


def _attribute_of_open(fd: int, name: str) -> bytes | None:
    try:
        return os.getxattr(fd, name)
    except OSError:
        return None


def _given_away(fd: int, rights: Rights) -> os.stat_result:
    """Give an open file the owner and the group of another, or the group alone; return what it is then.

    It comes before the rights: until then nobody but us has any, so that no other group holds them for a moment.
    """
    status = os.fstat(fd)
    for uid in (rights.uid, -1):
        if (status.st_uid, status.st_gid) == (uid if uid >= 0 else status.st_uid, rights.gid):
            return status
        try:
            os.fchown(fd, uid, rights.gid)
        except OSError as error:
            if error.errno not in _MAY_NOT:
                raise
        else:
            return os.fstat(fd)
    return status


class System:
    """The file system as it is, one call at a time."""

    def open(self, path: str, flags: int, mode: int = NEW_FILE_MODE) -> int:
        """Open `path` without following a symbolic link and return the descriptor."""
        return os.open(path, flags | _SAFE, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def write(self, fd: int, data: bytes) -> int:
        """Write once and return how many bytes were taken, which may be fewer than given."""
        try:
            return os.write(fd, data)
        except OSError as error:
            _tell_where(error, fd)
            raise

    @_telling_where
    def pread(self, fd: int, size_bytes: int, offset_bytes: int) -> bytes:
        return os.pread(fd, size_bytes, offset_bytes)

    def set_mode(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    def fstat(self, fd: int) -> os.stat_result:
        try:
            return os.fstat(fd)
        except OSError as error:
            _tell_where(error, fd)
            raise

    def stat(self, path: str) -> os.stat_result | None:
        """Return the status of `path` itself, not of what a link points to, or None when nothing is there."""
        try:
            return os.lstat(path)
        except FileNotFoundError:
            return None

    def exists(self, path: str) -> bool:
        return os.access(path, os.F_OK)

    @_telling_where
    def sync(self, fd: int) -> None:
        """Make the file's data and status, or a directory's names, durable."""
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fsync(fd)

    @_telling_where
    def datasync(self, fd: int) -> None:
        """Make the file's data durable, and of its status only what reading the data needs."""
        if sys.platform == "darwin":  # fsync there leaves the data in the drive's cache
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def try_lock(self, fd: int) -> bool:
        """Take the exclusive advisory lock of an open file, or return False when somebody else holds it."""
        try:
            fcntl.flock(fd, _TRY_EXCLUSIVE)
        except BlockingIOError:
            return False
        except OSError as error:
            _tell_where(error, fd)
            raise
        return True

    @_telling_where
    def try_lock_shared(self, fd: int) -> bool:
        """Take the advisory lock of an open file for readers, or return False when somebody holds it exclusively."""
        try:
            fcntl.flock(fd, _TRY_SHARED)
        except BlockingIOError:
            return False
        return True

    def unlock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_UN)
        except OSError as error:
            _tell_where(error, fd)
            raise

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def mkdir(self, path: str) -> None:
        os.mkdir(path, NEW_DIRECTORY_MODE)
        if os.lstat(path).st_mode & NEW_DIRECTORY_MODE != NEW_DIRECTORY_MODE:
            os.chmod(path, NEW_DIRECTORY_MODE)  # a umask that takes everything would keep even us out

    def names(self, path: str) -> list[str]:
        """Return the names in a directory."""
        return os.listdir(path)

    def rights(self, path: str) -> Rights | None:
        """Return the rights to what is at `path` itself, or None when nothing is there."""
        status = self.stat(path)
        if status is None:
            return None
        return rights_of(status.st_uid, status.st_gid, status.st_mode, _attribute(path, LIST))

    @_telling_where
    def grant(self, fd: int, rights: Rights) -> tuple[str, ...]:
        """Give an open file of ours the owner, the group and the rights of another, as far as the system lets us.

        What cannot be given never becomes more: owner and group that stay ours come with a list that names those they
        were to be, and where there can be no list, whoever it was to name goes without.

        Returns:
            What could not be given, in words.
        """
        status = _given_away(fd, rights)
        mine = rights.under(status.st_uid, status.st_gid)
        has_list = _set_attribute(fd, LIST, mine.as_list)
        if not has_list:
            os.fchmod(fd, mine.mode)
        lost = [f"user {rights.uid} as its owner"] * (status.st_uid != rights.uid)
        lost += [f"group {rights.gid}"] * (status.st_gid != rights.gid)
        lost += ["its access control list"] * (not has_list and bool(mine.users or mine.groups))
        return tuple(lost)

    def obstacle(self, path: str) -> str | None:
        """Return why a file cannot be replaced, and what to do about it, or None; see `obstacles`."""
        return obstacle_to(path)

    def attributes(self, path: str) -> dict[str, bytes]:
        """Return the extended attributes of a file that go with its content, its access control list aside."""
        if sys.platform != "linux":
            return {}
        try:
            names = os.listxattr(path, follow_symlinks=False)
        except OSError:  # none there, or on this file system
            return {}
        values = {name: _attribute(path, name) for name in names if name not in _NOT_COPIED}
        return {name: value for name, value in values.items() if value is not None}

    @_telling_where
    def set_attributes(self, fd: int, attributes: Mapping[str, bytes]) -> tuple[str, ...]:
        """Give an open file extended attributes; return the names of those that the system does not take."""
        return tuple(name for name, value in attributes.items() if not _set_attribute(fd, name, value))
