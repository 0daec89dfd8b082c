"""The storage of one process of a simulated computer: the calls of the system, on a disk in memory."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from faults import Killed
from simulated_disk import Directory, File, Node, os_error

from eventcsv.storage.files import Storage
from eventcsv.storage.system import NEW_DIRECTORY_MODE, NEW_FILE_MODE

if TYPE_CHECKING:
    from simulated import Process

    from eventcsv.storage.rights import Rights


@dataclass(eq=False, slots=True)
class Opened:
    """An open file description: where the lock belongs to, and which failed syncs it has been told of."""

    path: str
    node: Node
    flags: int
    errors: int
    offset: int = 0


class SimulatedStorage(Storage):
    """The storage of one process of a `Machine`; only the calls of the system are replaced."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._machine = process.machine

    def _step(self, call: str, path: str) -> None:
        self._machine.step(self._process, call, path)

    def _of(self, fd: int) -> Opened:
        if not self._process.is_alive:
            raise Killed(str(fd))
        if fd not in self._process.opened:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._process.opened[fd]

    def _changed(self, call: str, path: str, data: bytes = b"") -> None:
        self._machine.observe(self._process, call, path, data)

    def open(self, path: str, flags: int, mode: int = NEW_FILE_MODE) -> int:
        self._step("create" if flags & os.O_CREAT else "open", path)
        node = self._machine.find(path)
        if node is None:
            node = self._created(path, flags, mode)
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            raise os_error(errno.EEXIST, path)
        elif isinstance(node, Directory) and flags & (os.O_ACCMODE | os.O_CREAT):
            raise os_error(errno.EISDIR, path)
        elif flags & os.O_DIRECTORY and isinstance(node, File):
            raise os_error(errno.ENOTDIR, path)
        if flags & os.O_TRUNC and isinstance(node, File):
            node.write(-1, b"")
            node.mtime_s = self._machine.time_s()
        fd = next(self._machine.fds)
        self._process.opened[fd] = Opened(path, node, flags, node.errors)
        if flags & os.O_ACCMODE:
            self._changed("open", path)
        return fd

    def _created(self, path: str, flags: int, mode: int) -> File:
        directory, name = self._machine.above(path)
        if not flags & os.O_CREAT:
            raise os_error(errno.ENOENT, path)
        if self._machine.is_full(self._process):
            raise os_error(errno.ENOSPC, path)
        node = File(next(self._machine.numbers), stat.S_IFREG | mode, self._machine.time_s())
        directory.change(None, name, node)
        return node

    def close(self, fd: int) -> None:
        # No point at which anything may happen: the garbage collector calls it whenever it likes.
        self._process.close(fd)

    def write(self, fd: int, data: bytes) -> int:
        opened = self._of(fd)
        node = opened.node
        if isinstance(node, Directory) or not opened.flags & os.O_ACCMODE:
            raise os_error(errno.EBADF, opened.path)
        try:
            self._step("write", opened.path)
        except Killed:
            self._put(opened, node, data[: self._machine.rng.randint(0, len(data))])
            raise
        if self._machine.is_full(self._process):
            raise os_error(errno.ENOSPC, opened.path)
        if len(data) > 1 and self._machine.strikes(self._process, self._machine.odds.short_write, "short write"):
            data = data[: self._machine.rng.randrange(1, len(data))]
            self._changed("short write", opened.path)
        self._put(opened, node, data)
        self._changed("write", opened.path, bytes(data))
        return len(data)

    def _put(self, opened: Opened, node: File, data: bytes) -> None:
        if opened.flags & os.O_APPEND:
            opened.offset = len(node.data)
        node.write(opened.offset, data)
        node.mtime_s = self._machine.time_s()
        opened.offset += len(data)

    def pread(self, fd: int, size_bytes: int, offset_bytes: int) -> bytes:
        opened = self._of(fd)
        self._step("pread", opened.path)
        if opened.flags & os.O_ACCMODE == os.O_WRONLY:
            raise os_error(errno.EBADF, opened.path)
        if isinstance(opened.node, Directory):
            raise os_error(errno.EISDIR, opened.path)
        data = bytes(opened.node.data[offset_bytes : offset_bytes + size_bytes])
        self._changed("pread", opened.path, data)
        return data

    def fstat(self, fd: int) -> os.stat_result:
        opened = self._of(fd)
        self._step("fstat", opened.path)
        return _status(opened.node)

    def stat(self, path: str) -> os.stat_result | None:
        self._step("stat", path)
        node = self._machine.find(path)
        return None if node is None else _status(node)

    def exists(self, path: str) -> bool:
        self._step("exists", path)
        try:
            return self._machine.find(path) is not None
        except NotADirectoryError:
            return False

    def sync(self, fd: int) -> None:
        self._sync(fd, "sync")

    def datasync(self, fd: int) -> None:
        self._sync(fd, "datasync")

    def _sync(self, fd: int, call: str) -> None:
        opened = self._of(fd)
        self._step(call, opened.path)
        machine, node = self._machine, opened.node
        if machine.strikes(self._process, machine.odds.sync_error, f"{call} failed"):
            node.fail_sync(machine.rng)
            opened.errors = node.errors
            self._changed("failed sync", opened.path)
            raise os_error(errno.EIO, opened.path)
        if (
            opened.errors != node.errors
        ):  # somebody else's sync failed: Linux tells everyone who had the file open, once
            opened.errors = node.errors
            machine.hit(self._process, "somebody else's sync failed")
            raise os_error(errno.EIO, opened.path)
        node.sync()

    def try_lock(self, fd: int) -> bool:
        return self._try_lock(fd, exclusive=True)

    def try_lock_shared(self, fd: int) -> bool:
        return self._try_lock(fd, exclusive=False)

    def _try_lock(self, fd: int, *, exclusive: bool) -> bool:
        opened = self._of(fd)
        self._step("lock", opened.path)
        holders = opened.node.holders
        free = not any(other != fd and (exclusive or held) for other, held in holders.items())
        self._machine.met["lock contention"] += not free
        if free:
            holders[fd] = exclusive
        return free

    def unlock(self, fd: int) -> None:
        opened = self._of(fd)
        self._step("unlock", opened.path)
        opened.node.holders.pop(fd, None)

    def replace(self, source: str, target: str) -> None:
        self._step("replace", target)
        directory, old = self._machine.above(source)
        there, new = self._machine.above(target)
        node = directory.names.get(old)
        if node is None:
            raise os_error(errno.ENOENT, source)
        replaced = there.names.get(new)
        if isinstance(replaced, Directory) and isinstance(node, File):
            raise os_error(errno.EISDIR, target)
        if isinstance(replaced, Directory) and replaced.names and replaced is not node:
            raise os_error(errno.ENOTEMPTY, target)
        if isinstance(replaced, File) and isinstance(node, Directory):
            raise os_error(errno.ENOTDIR, target)
        if there is not directory:
            raise NotImplementedError(f"{source} -> {target}: a power cut could leave both names, or none")
        if self._machine.is_full(self._process):
            raise os_error(errno.ENOSPC, target)
        directory.change(old, new, node)
        if isinstance(replaced, File) and replaced is not node:
            replaced.links = 0
        self._changed("replace", source, target.encode())

    def unlink(self, path: str) -> None:
        self._step("unlink", path)
        directory, name = self._machine.above(path)
        node = directory.names.get(name)
        if node is None:
            raise os_error(errno.ENOENT, path)
        if isinstance(node, Directory):
            raise os_error(errno.EISDIR, path)
        self._changed("unlink", path)
        directory.change(name, None, node)
        node.links = 0

    def mkdir(self, path: str) -> None:
        self._step("mkdir", path)
        directory, name = self._machine.above(path)
        if name in directory.names:
            raise os_error(errno.EEXIST, path)
        if self._machine.is_full(self._process):
            raise os_error(errno.ENOSPC, path)
        mode = stat.S_IFDIR | NEW_DIRECTORY_MODE
        directory.change(None, name, Directory(next(self._machine.numbers), mode, self._machine.time_s()))

    def names(self, path: str) -> list[str]:
        self._step("names", path)
        node = self._machine.find(path)
        if node is None:
            raise os_error(errno.ENOENT, path)
        if isinstance(node, File):
            raise os_error(errno.ENOTDIR, path)
        return list(node.names)

    def obstacle(self, path: str) -> str | None:
        """Return what is in the way of replacing a file; here only something else in its place is."""
        node = self._machine.find(path)
        return "is a directory" if isinstance(node, Directory) else None

    def grant(self, fd: int, rights: Rights) -> tuple[str, ...]:
        opened = self._of(fd)
        self._step("own", opened.path)
        opened.node.mode = stat.S_IFMT(opened.node.mode) | rights.mode
        return ()


def _status(node: Node) -> os.stat_result:
    times = {"st_mtime": node.mtime_s, "st_mtime_ns": int(node.mtime_s * 1e9), "st_ctime_ns": int(node.mtime_s * 1e9)}
    ours = (os.geteuid(), os.getegid())
    return os.stat_result(
        (node.mode, node.number, 1, node.links, *ours, len(node.data), 0, int(node.mtime_s), 0), times
    )
