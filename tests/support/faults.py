"""Storage that fails on purpose: one step of it dies, is refused, or is cut short. And what a toy would do instead."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from conftest import file_log

from eventcsv.storage.files import Storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from eventcsv import EventCsv
    from eventcsv.storage.rights import Rights


class Killed(BaseException):
    """The process was killed: no handler for ordinary errors may run, and nothing more reaches the disk."""


class Recording(Storage):
    """Notes the steps that change something, and lets a subclass meddle with each."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def before(self, step: str, *args: Any) -> None:
        """Meddle with a step."""

    def _step(self, step: str, *args: Any) -> None:
        self.before(step, *args)
        self.steps.append(step)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if flags & os.O_CREAT:
            self._step("create", path)
        return super().open(path, flags, mode)

    def write(self, fd: int, data: bytes) -> int:
        self._step("write", fd, data)
        return super().write(fd, data)

    def sync(self, fd: int) -> None:
        self._step("sync", fd)
        super().sync(fd)

    def datasync(self, fd: int) -> None:
        self._step("datasync", fd)
        super().datasync(fd)

    def replace(self, source: str, target: str) -> None:
        self._step("replace", source, target)
        super().replace(source, target)

    def unlink(self, path: str) -> None:
        self._step("unlink", path)
        super().unlink(path)

    def mkdir(self, path: str) -> None:
        self._step("mkdir", path)
        super().mkdir(path)

    def grant(self, fd: int, rights: Rights) -> tuple[str, ...]:
        self._step("own", fd)
        return super().grant(fd, rights)

    def try_lock(self, fd: int) -> bool:
        self._step("lock", fd)
        return super().try_lock(fd)

    def unlock(self, fd: int) -> None:
        self._step("unlock", fd)
        super().unlock(fd)


class Dying(Recording):
    """Dies at step `at`, counted from 0; every later step finds it dead.

    Args:
        at: The step.
        share: How much of a write is done when it dies in one.
    """

    def __init__(self, at: int, share: float = 0.5) -> None:
        super().__init__()
        self._at = at
        self._share = share

    def before(self, step: str, *args: Any) -> None:
        if len(self.steps) < self._at:
            return
        if step == "write" and len(self.steps) == self._at and args[1]:
            os.write(args[0], bytes(args[1])[: int(len(args[1]) * self._share)])
        self._at = -1  # dead for good
        raise Killed(step)


class Killing(Recording):
    """Is killed at the first step that `picks` picks."""

    def __init__(self, picks: Callable[[str, tuple[Any, ...]], bool]) -> None:
        super().__init__()
        self._picks = picks

    def before(self, step: str, *args: Any) -> None:
        if self._picks(step, args):
            raise Killed(step)


def killed_before_replacing(path: Path | str) -> Killing:
    """Return a storage that is killed at the moment when a file is about to be replaced."""
    return Killing(lambda step, args: step == "replace" and args[1] == str(path))


class Refusing(Recording):
    """Raises an OSError for each step that `refuses` picks."""

    def __init__(self, error: int, refuses: Callable[[Recording, str, tuple[Any, ...]], bool]) -> None:
        super().__init__()
        self._error = error
        self._refuses = refuses

    def before(self, step: str, *args: Any) -> None:
        if self._refuses(self, step, args):
            self.steps.append(f"refused {step}")
            raise OSError(self._error, os.strerror(self._error), str(args[0]))


class RefusingFrom(Refusing):
    """Refuses step `at`, counted from 0, and when it is `lasting` every step after it."""

    def __init__(self, error: int, at: int, *, lasting: bool = False) -> None:
        super().__init__(error, lambda self, _step, _args: len(self.steps) == at or (lasting and len(self.steps) > at))
        self.error = os.strerror(error)
        self.at = at
        self.lasting = lasting

    @property
    def refused(self) -> list[str]:
        """The steps that were refused."""
        return [step.removeprefix("refused ") for step in self.steps if step.startswith("refused ")]


class RefusingLooks(RefusingFrom):
    """Counts the steps that only look as well, and refuses one of all of them."""

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if not flags & os.O_CREAT:
            self._step("open", path)
        return super().open(path, flags, mode)

    def pread(self, fd: int, size_bytes: int, offset_bytes: int) -> bytes:
        self._step("read", fd)
        return super().pread(fd, size_bytes, offset_bytes)

    def fstat(self, fd: int) -> os.stat_result:
        self._step("fstat", fd)
        return super().fstat(fd)

    def stat(self, path: str) -> os.stat_result | None:
        self._step("stat", path)
        return super().stat(path)

    def names(self, path: str) -> list[str]:
        self._step("names", path)
        return super().names(path)


def with_storage(job: EventCsv, storage: Storage) -> EventCsv:
    """Put a storage under a job that has done nothing yet."""
    job._storage = storage
    file_log(job).storage = storage
    return job


# --- toys ---


def copying(self: Storage, source: str, target: str) -> None:
    """Replace a file as a toy does, by writing over it."""
    data = self.read_and_close(self.open_regular(source, os.O_RDONLY))
    fd = self.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    self.write_all(fd, data)
    self.close(fd)
    self.unlink(source)


def swallowing(method: Any) -> Callable[..., None]:
    """Make a method that says nothing when the disk said no."""

    def quiet(*args: Any, **options: Any) -> None:
        with suppress(OSError):
            method(*args, **options)

    return quiet
