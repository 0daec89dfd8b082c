"""Every call that touches a file goes through a `Storage`: one seam, so that a test can fail any step of it.

The short methods are one system call each; the long ones (`read`, `write_atomically`, ...) are made of the short ones,
so a subclass that fails, counts or reorders the short ones governs everything.

Assumptions about the medium: a rename within a directory is atomic; data is on disk once fdatasync of its file has
returned 0, and a name once fsync of its directory has; a failed sync leaves the outcome unknown, and a second one on
the same descriptor proves nothing ("Can Applications Recover from fsync Failures?", USENIX ATC 2020).
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import stat
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from portalocker.portalocker import FlockLocker, LockFlags

from eventcsv.errors import EventCsvError, LockTimeout, UnsafePath
from eventcsv.storage.obstacles import obstacle_to
from eventcsv.storage.rights import LIST, LOOK, Rights, rights_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NEW_FILE_MODE: Final = 0o600
NEW_DIRECTORY_MODE: Final = 0o700
READ_BYTES: Final = 8 << 20

# Resolved once: portalocker.lock() looks its locker up on every call, which costs 8 us of the 10 that an append takes.
_flock = FlockLocker().locker
_TRY_EXCLUSIVE: Final = int(LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
_TRY_SHARED: Final = int(LockFlags.SHARED | LockFlags.NON_BLOCKING)
_UNLOCK: Final = int(LockFlags.UNBLOCK)

# A contender polls: at once, then after 50 us, doubling up to 2 ms, jittered so that no two stay in step. To yield the
# processor and try again before that gives a quarter more appends with 8 processes, and half as much to the unluckiest.
_FIRST_WAIT_S: Final = 50e-6
_LONGEST_WAIT_S: Final = 2e-3

# EINVAL: an id that a container's user namespace does not know.
_MAY_NOT: Final = frozenset({errno.EPERM, errno.EACCES, errno.EINVAL})
_NO_ATTRIBUTE: Final = frozenset({errno.ENOENT, errno.ENOTSUP, errno.ENOSYS, getattr(errno, "ENODATA", errno.ENOENT)})
_NOT_COPIED: Final = frozenset({LIST, "security.ima", "security.evm"})
"""The list goes with the rights, and the other two vouch for a content that is another one now."""

# O_NONBLOCK: a FIFO planted at one of our paths must be refused, not waited for. Regular files ignore it.
_SAFE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def _tell_where(error: OSError, fd: int) -> None:
    """Let the error of a call on an open file name it, as those on a path do by themselves."""
    if error.filename is None:
        error.filename = _path_of(fd)


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


class Storage:
    """The file system as it is."""

    # --- one system call each ---

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

    def pread(self, fd: int, size_bytes: int, offset_bytes: int) -> bytes:
        try:
            return os.pread(fd, size_bytes, offset_bytes)
        except OSError as error:
            _tell_where(error, fd)
            raise

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

    def sync(self, fd: int) -> None:
        """Make the file's data and status, or a directory's names, durable."""
        try:
            if sys.platform == "darwin":
                fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            else:
                os.fsync(fd)
        except OSError as error:
            _tell_where(error, fd)
            raise

    def datasync(self, fd: int) -> None:
        """Make the file's data durable, and of its status only what reading the data needs."""
        try:
            if sys.platform == "darwin":  # fsync there leaves the data in the drive's cache
                fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            else:
                os.fdatasync(fd)
        except OSError as error:
            _tell_where(error, fd)
            raise

    def try_lock(self, fd: int) -> bool:
        """Take the exclusive advisory lock of an open file, or return False when somebody else holds it."""
        try:
            _flock(fd, _TRY_EXCLUSIVE)
        except BlockingIOError:
            return False
        except OSError as error:
            _tell_where(error, fd)
            raise
        return True

    def try_lock_shared(self, fd: int) -> bool:
        """Take the advisory lock of an open file for readers, or return False when somebody holds it exclusively."""
        try:
            _flock(fd, _TRY_SHARED)
        except BlockingIOError:
            return False
        except OSError as error:
            _tell_where(error, fd)
            raise
        return True

    def unlock(self, fd: int) -> None:
        try:
            _flock(fd, _UNLOCK)
        except OSError as error:
            _tell_where(error, fd)
            raise

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def mkdir(self, path: str) -> None:
        os.mkdir(path, NEW_DIRECTORY_MODE)

    def names(self, path: str) -> list[str]:
        """Return the names in a directory."""
        return os.listdir(path)

    def rights(self, path: str) -> Rights | None:
        """Return the rights to what is at `path` itself, or None when nothing is there."""
        status = self.stat(path)
        if status is None:
            return None
        return rights_of(status.st_uid, status.st_gid, status.st_mode, _attribute(path, LIST))

    def grant(self, fd: int, rights: Rights) -> tuple[str, ...]:
        """Give an open file of ours the owner, the group and the rights of another, as far as the system lets us.

        What cannot be given never becomes more: owner and group that stay ours come with a list that names those they
        were to be, and where there can be no list, whoever it was to name goes without.

        Returns:
            What could not be given, in words.
        """
        try:
            status = _given_away(fd, rights)
            mine = rights.under(status.st_uid, status.st_gid)
            has_list = _set_attribute(fd, LIST, mine.as_list)
            if not has_list:
                os.fchmod(fd, mine.mode)
        except OSError as error:
            _tell_where(error, fd)
            raise
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

    def set_attributes(self, fd: int, attributes: Mapping[str, bytes]) -> tuple[str, ...]:
        """Give an open file extended attributes; return the names of those that the system does not take."""
        try:
            return tuple(name for name, value in attributes.items() if not _set_attribute(fd, name, value))
        except OSError as error:
            _tell_where(error, fd)
            raise

    # --- made of those ---

    def open_regular(self, path: str, flags: int) -> int:
        """Open a regular file, whoever made it.

        Raises:
            UnsafePath: A symbolic link, a directory, a FIFO or a device stands there.
        """
        try:
            fd = self.open(path, flags)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
                self.check_regular(path)
            raise
        try:
            _check_regular(path, self.fstat(fd))
        except UnsafePath:
            self.close(fd)
            raise
        return fd

    def check_regular(self, path: str) -> bool:
        """Tell whether a regular file is there, whoever made it.

        Raises:
            UnsafePath: Something else is: a symbolic link, a directory, a FIFO or a device.
        """
        status = self.stat(path)
        if status is not None:
            _check_regular(path, status)
        return status is not None

    def open_ours(self, path: str, flags: int) -> int:
        """Open a file that only eventcsv makes.

        Raises:
            UnsafePath: Something else stands there: what `open_regular` refuses, a hard link to another name, or
                somebody else's file.
        """
        fd = self.open_regular(path, flags)
        status = self.fstat(fd)
        if status.st_nlink > 1 or status.st_uid != os.geteuid():
            self.close(fd)
            raise UnsafePath(_unsafe(path, status))
        return fd

    def check_ours(self, path: str) -> None:
        """Refuse what `open_ours` would refuse."""
        self.close(self.open_ours(path, os.O_RDONLY))

    def open_to_read(self, path: str) -> int:
        """Open a file that only eventcsv makes, to look at it: of ours, or of whoever has the folder that it is in.

        Another name for it does no harm here, as what is read is not changed.

        Raises:
            UnsafePath: Something else stands there: what `open_regular` refuses, or a third party's file.
            EventCsvError: Its owner does not let us.
        """
        try:
            fd = self.open_regular(path, os.O_RDONLY)
        except PermissionError:
            self._check_open(path)
            raise
        status = self.fstat(fd)
        if status.st_uid != os.geteuid():
            folder = self.stat(os.path.dirname(path))
            if folder is None or folder.st_uid != status.st_uid:
                self.close(fd)
                raise UnsafePath(_unsafe(path, status))
        return fd

    def _check_open(self, path: str) -> None:
        """Say whose it is that may not be read, a file or the folder that it is in, unless it is ours."""
        try:
            status = self.stat(path)
        except PermissionError:
            path = os.path.dirname(path)
            status = self.stat(path)
        if status is not None and status.st_uid != os.geteuid():
            raise EventCsvError(_closed(path, status)) from None

    def read(self, path: str) -> bytes | None:
        """Return the whole of a file that only eventcsv makes, or None when there is none."""
        try:
            fd = self.open_to_read(path)
        except FileNotFoundError:
            return None
        return self.read_and_close(fd)

    def read_and_close(self, fd: int) -> bytes:
        try:
            size_bytes = self.fstat(fd).st_size
            return b"".join(self.pieces(fd, 0, size_bytes, most_bytes=size_bytes))  # in one piece nothing is copied
        finally:
            self.close(fd)

    def pieces(self, fd: int, start_bytes: int, end_bytes: int, *, most_bytes: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `start_bytes` to `end_bytes`, or to the end of the file when that comes first.

        Args:
            fd: The open file.
            start_bytes: Where to begin.
            end_bytes: Where to end.
            most_bytes: How large a piece may be; by default as large as makes sense for what is parsed.
        """
        most_bytes = most_bytes or READ_BYTES
        while start_bytes < end_bytes:
            piece = self.pread(fd, min(most_bytes, end_bytes - start_bytes), start_bytes)
            if not piece:
                return
            yield piece
            start_bytes += len(piece)

    def open_without_crs(self, fd: int) -> int:
        """Open a copy of an open file that nobody else sees and in which CR LF is LF."""
        from tempfile import TemporaryFile  # noqa: PLC0415  # only who meets such a file pays for it

        with TemporaryFile(buffering=0) as copy:
            left = b""
            for piece in self.pieces(fd, 0, self.fstat(fd).st_size):
                text = left + piece
                left = b"\r" if text.endswith(b"\r") else b""
                self.write_all(copy.fileno(), text.removesuffix(b"\r").replace(b"\r\n", b"\n"))
            self.write_all(copy.fileno(), left)
            return os.dup(copy.fileno())

    def check_folder(self, path: str) -> None:
        """Refuse a path for a new file whose folder is not there, before the long part that its content takes.

        Raises:
            UnsafePath: It is not.
        """
        folder = os.path.dirname(path)
        if not self.exists(os.path.join(folder, ".")):  # which a file has not
            raise UnsafePath(f"{folder}: there is no such folder. Make it, or name another file")

    def write_all(self, fd: int, data: bytes) -> None:
        """Write all of `data`, in as many writes as it takes."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.write(fd, rest) :]  # type: ignore[arg-type]  # any buffer will do for os.write

    def write_new(
        self, path: str, data: bytes, *, like: Rights | None = None, attributes: Mapping[str, bytes] | None = None
    ) -> tuple[str, ...]:
        """Create a file of ours, synced; one that is left over there from a crash is replaced.

        Args:
            path: Where; the caller holds the lock under which this name is used.
            data: The whole content.
            like: The rights that it gets; by default it is ours alone.
            attributes: Its extended attributes.

        Returns:
            What of the rights and attributes the system did not let us give, in words.
        """
        self.remove_ours(path, owner=like.uid if like else None)
        lost: tuple[str, ...] = ()
        fd = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            if like is not None:
                lost += self.grant(fd, like)
            if attributes:
                lost += self.set_attributes(fd, attributes)
            self.write_all(fd, data)
            self.sync(fd)
        finally:
            self.close(fd)
        return lost

    def write_atomically(self, path: str, data: bytes) -> None:
        """Put `data` at `path`, durably: whoever looks sees the old content or the new one, whole.

        Whoever may look into the folder may read it.
        """
        temporary = f"{path}.tmp"
        folder = self.rights(os.path.dirname(path))
        try:
            self.write_new(temporary, data, like=folder.to_read(os.geteuid()) if folder else None)
            self.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                self.remove_ours(temporary)
            raise
        self.sync_directory(os.path.dirname(path))

    def remove_ours(self, path: str, *, owner: int | None = None) -> None:
        """Remove a file that eventcsv made, if it is there.

        Args:
            path: Where.
            owner: Whom it may have been given to already, beside us.

        Raises:
            UnsafePath: What is there is not a regular file of ours.
        """
        status = self.stat(path)
        if status is None:
            return
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in {os.geteuid(), owner}:
            raise UnsafePath(_unsafe(path, status))
        self.unlink(path)

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable; a link to it will do, as the folder of an export may be."""
        fd = self.open(os.path.realpath(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sync(fd)
        finally:
            self.close(fd)

    def has_directory(self, path: str) -> bool:
        """Tell whether a directory is there that may be looked into, whoever made it.

        Raises:
            UnsafePath: Something else is: a symbolic link or a file.
            EventCsvError: Its owner does not let us.
        """
        status = self.stat(path)
        if status is None:
            return False
        if not stat.S_ISDIR(status.st_mode):
            raise UnsafePath(_unsafe(path, status, wanted="a directory of yours"))
        if status.st_uid != os.geteuid() and not os.access(path, os.R_OK | os.X_OK):
            raise EventCsvError(_closed(path, status))
        return True

    def make_directory(self, path: str, *, like: Callable[[], Rights | None] | None = None) -> None:
        """Make a directory, and those above it; its name is durable afterwards, new or not.

        Args:
            path: Where.
            like: Called for the rights to give a new one; by default it is for its owner only.

        Raises:
            UnsafePath: Something else is there: a symbolic link, a file, or somebody else's directory.
        """
        above = os.path.dirname(path)
        if not self.exists(above):
            self.make_directory(above, like=like)
        try:
            self.mkdir(path)
        except FileExistsError:
            self._check_directory(path)
        else:
            if rights := like and like():
                self._open_up(path, rights)
        self.sync_directory(above)

    def _check_directory(self, path: str) -> None:
        """Refuse to write into a directory that is none of ours."""
        status = self.stat(path)
        if status is not None and not (stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()):
            raise UnsafePath(_unsafe(path, status, wanted="a directory of yours")) from None

    def _open_up(self, path: str, rights: Rights) -> None:
        """Give a directory of ours rights; one that has been made and stays closed does no harm."""
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.grant(fd, rights)
        finally:
            self.close(fd)

    def rights_to_look(self, directory: str, file: str) -> Rights | None:
        """Return the rights to give a directory, so that whoever may read a file may look into it, and nobody else.

        Returns:
            None when it has to be for its owner only: the file is not there, or the folders that lead to it, and not
            to the directory, are closed to some.
        """
        rights = self.rights(file)
        if rights is None:
            return None
        place = os.path.dirname(file)
        top = os.path.commonpath([os.path.realpath(os.path.dirname(directory)), os.path.realpath(place)])
        place = os.path.realpath(place)
        while place != top:
            folder = self.rights(place)
            if folder is None or not folder.least & LOOK:
                return None
            place = os.path.dirname(place)
        return rights.to_look_into(os.geteuid())

    def wait_for_lock(self, fd: int, path: str, timeout_s: float) -> None:
        """Take the exclusive lock of an open file.

        Args:
            fd: The open file.
            path: Its path, for the error and to see that nobody replaced the file.
            timeout_s: How long to wait, in seconds.

        Raises:
            LockTimeout: Somebody else held it until the deadline; the error names the holder where the system tells.
        """
        if self.try_lock(fd):
            return
        deadline = time.monotonic() + timeout_s
        wait_s = _FIRST_WAIT_S
        while time.monotonic() < deadline:
            time.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311  # jitter, no secret
            if self.try_lock(fd):
                return
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        raise LockTimeout(
            f"{path}: still held after {timeout_s:g} s by {lock_holder(self.fstat(fd))}. Wait for it to end, or stop it"
        )

    def is_at(self, fd: int, path: str) -> bool:
        """Tell whether `path` still names the open file `fd`: a lock file that was replaced excludes nobody."""
        there, ours = self.stat(path), self.fstat(fd)
        return there is not None and (there.st_ino, there.st_dev) == (ours.st_ino, ours.st_dev)

    @contextmanager
    def locked(self, path: str, timeout_s: float) -> Iterator[None]:
        """Hold the exclusive lock of a sidecar file, which is created when missing and never removed.

        Raises:
            LockTimeout: Somebody else held it for `timeout_s` seconds.
            UnsafePath: It is not ours, or the folder that it is in is not.
        """
        self._check_directory(os.path.dirname(path))
        while True:
            fd = self.open_ours(path, os.O_RDWR | os.O_CREAT)
            _sidecars.add(fd)
            try:
                self.wait_for_lock(fd, path, timeout_s)
                if self.is_at(fd, path):
                    try:
                        yield
                    finally:
                        # Closing is not enough: a child that another thread is forking right now has the file open.
                        if fd in _sidecars:
                            self.unlock(fd)
                    return
            finally:
                if fd in _sidecars:
                    _sidecars.discard(fd)
                    self.close(fd)


_sidecars: set[int] = set()
"""The open lock files of this process."""


def _after_fork_in_child() -> None:
    # The lock belongs to the open file that both share: a child that kept it would hold it beyond its parent's death,
    # and unlocking it would take it from the parent.
    while _sidecars:
        with suppress(OSError):
            os.close(_sidecars.pop())


os.register_at_fork(after_in_child=_after_fork_in_child)


def _unsafe(path: str, status: os.stat_result, *, wanted: str = "a regular file of yours") -> str:
    untouched = f"{path}: is {_description(status)}, not {wanted}. It was left untouched: "
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return f"{untouched}see what it is and move it away"
    if status.st_uid != os.geteuid():
        return f"{untouched}only its owner works on it, so run as its owner. To look at a job, reading is enough"
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1 and wanted.startswith("a regular file"):
        folder, own = os.path.dirname(path), f"{os.path.dirname(path)}.own"
        return (
            f"{untouched}what is written here would show under its other names, too, as after cp -al. While nobody "
            f"works on it, give the job files of its own: cp -a {folder} {own} && rm -r {folder} && mv {own} {folder}"
        )
    return f"{untouched}see what it is and move it away"


def _closed(path: str, status: os.stat_result) -> str:
    return (
        f"{path}: belongs to user {status.st_uid}, and you, user {os.geteuid()}, may not read it. "
        f"Its owner can let you: setfacl -R -m u:{os.geteuid()}:rX, or chmod -R g+rX or o+rX"
    )


def _check_regular(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePath(f"{path}: is {_description(status)}. It was left untouched; give the path of the file itself")


def _description(status: os.stat_result) -> str:
    tests: tuple[tuple[Callable[[int], bool], str], ...] = (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    name = next((name for test, name in tests if test(status.st_mode)), "a file")
    if status.st_uid != os.geteuid():
        return f"{name} of user {status.st_uid}, and you are user {os.geteuid()}"
    if name != "a file":
        return name
    return f"a file with {status.st_nlink} names (hard links)" if status.st_nlink > 1 else "a file"


def lock_holder(status: os.stat_result) -> str:
    """Return who holds the flock of a file, in words; Linux tells, in /proc/locks."""
    ident = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        pid = next(row[4] for row in rows if row[1] == "FLOCK" and row[5] == ident)
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (OSError, StopIteration, IndexError):
        return "another process"
    return f"process {pid} ({command[:80] or 'unknown command'})"
