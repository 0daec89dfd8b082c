"""Files, made of the calls of the system: opening what is ours and nothing else, reading, writing whole, directories.

A subclass of `Storage` that fails, counts or reorders the methods of `System` governs everything.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from eventcsv.errors import EventCsvError, UnsafePath
from eventcsv.storage.rights import LOOK, Rights
from eventcsv.storage.system import NEW_FILE_MODE, System

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

READ_BYTES: Final = 8 << 20


class Storage(System):
    """The file system, with what is made of its calls."""

    @contextmanager
    def opened(self, path: str, flags: int = os.O_RDONLY) -> Iterator[int]:
        """Open a file that only eventcsv makes for a while: to look at it, or to change it; see the two that do so."""
        fd = self.open_ours(path, flags) if flags & os.O_ACCMODE else self.open_to_read(path)
        with self.closing(fd):
            yield fd

    @contextmanager
    def closing(self, fd: int) -> Iterator[int]:
        """Close an open file at the end of a block, however that ends."""
        try:
            yield fd
        finally:
            self.close(fd)

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
        if flags & os.O_CREAT and status.st_mode & NEW_FILE_MODE != NEW_FILE_MODE:
            self.set_mode(fd, NEW_FILE_MODE)  # a umask that takes everything would keep even us from it the next time
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
        with self.closing(fd):
            size_bytes = self.fstat(fd).st_size
            return b"".join(self.pieces(fd, 0, size_bytes, most_bytes=size_bytes))  # in one piece nothing is copied

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
        with self.closing(self.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)) as fd:
            if like is not None:
                lost += self.grant(fd, like)
            if attributes:
                lost += self.set_attributes(fd, attributes)
            self.write_all(fd, data)
            self.sync(fd)
        return lost

    def write_atomically(self, path: str, data: bytes) -> None:
        """Put `data` at `path`, durably: whoever looks sees the old content or the new one, whole.

        Whoever may look into the folder may read it.
        """
        folder = self.rights(os.path.dirname(path))
        self.put(path, data, by_way_of=f"{path}.tmp", like=folder.to_read(os.geteuid()) if folder else None)

    def put(self, path: str, data: bytes, *, by_way_of: str, like: Rights | None) -> tuple[str, ...]:
        """Put `data` at `path`, durably and in one step, by way of a name beside it; else as `write_new` does."""
        try:
            lost = self.write_new(by_way_of, data, like=like)
            self.replace(by_way_of, path)
        except OSError:
            with suppress(OSError):
                self.remove_ours(by_way_of, owner=like.uid if like else None)
            raise
        self.sync_directory(os.path.dirname(path))
        return lost

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
        with self.closing(self.open(os.path.realpath(path), os.O_RDONLY | os.O_DIRECTORY)) as fd:
            self.sync(fd)

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
            self.check_directory(path)
        else:
            if rights := like and like():
                self._open_up(path, rights)
        self.sync_directory(above)

    def check_directory(self, path: str) -> None:
        """Refuse to write into a directory that is none of ours."""
        status = self.stat(path)
        if status is not None and not (stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()):
            raise UnsafePath(_unsafe(path, status, wanted="a directory of yours")) from None

    def _open_up(self, path: str, rights: Rights) -> None:
        """Give a directory of ours rights; one that has been made and stays closed does no harm."""
        with self.closing(self.open(path, os.O_RDONLY | os.O_DIRECTORY)) as fd:
            self.grant(fd, rights)


def rights_to_look(storage: Storage, directory: str, file: str | None) -> Rights | None:
    """Return the rights to give a directory, so that whoever may read a file may look into it, and nobody else.

    Returns:
        None when it has to be for its owner only: there is no such file, or the folders that lead to it, and not
        to the directory, are closed to some.
    """
    rights = storage.rights(file) if file else None
    if file is None or rights is None:
        return None
    place = os.path.dirname(file)
    top = os.path.commonpath([os.path.realpath(os.path.dirname(directory)), os.path.realpath(place)])
    place = os.path.realpath(place)
    while place != top:
        folder = storage.rights(place)
        if folder is None or not folder.least & LOOK:
            return None
        place = os.path.dirname(place)
    return rights.to_look_into(os.geteuid())


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
