"""A command that is run for each PO, in place of a Python function: without a shell, so that no cell can be a command.

Its output goes on line by line. What it leaves running ends with it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import selectors
import signal
import subprocess
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import quote

import orjson

from eventcsv.errors import Retry, StopRun
from eventcsv.event import COLUMNS, Status, column_id
from eventcsv.worker.values import LONGEST_MESSAGE, cleaned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

KEY_VARIABLE: Final = "EVENTCSV_KEY"
TRY_AGAIN: Final = 75
"""The exit code that asks for another attempt: EX_TEMPFAIL of sysexits.h."""

_PART: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_GONE: Final = frozenset({errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR})
_READ_BYTES: Final = 64 << 10
_PIPE_BYTES: Final = 1 << 20  # what a pipe may hold, pipe(7)
_LONGEST_LINE_BYTES: Final = 1 << 20
_TAIL_BYTES: Final = 4_096
_SHOWN: Final = LONGEST_MESSAGE - 100
_LOOK_S: Final = 0.02
_LONGEST_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Column:
    """The place of a cell in an argument.

    Attributes:
        name: The column; "" for the key.
    """

    name: str


def argument(text: str) -> tuple[str | Column, ...]:
    """Return the parts of an argument of which `{COLUMN}` is a cell, `{}` the key and `{{` a brace.

    Raises:
        ValueError: A brace is left open.
    """
    parts: list[str | Column] = []
    for match in _PART.finditer(text):
        part = match[0]
        if match[1] is not None:
            parts.append(Column(match[1].strip()))
        elif part == "{":
            raise ValueError(f"{text!r}: a brace is left open. {{COLUMN}} is a cell, {{}} the key, {{{{ a brace")
        else:
            parts.append(part[0] if part in {"{{", "}}"} else part)
    return tuple(parts)


@dataclass(frozen=True, slots=True)
class Command:
    """What to run for a PO; a worker calls it as it calls a function.

    The row is on its standard input as a line of JSON, the key in EVENTCSV_KEY. Exit code 0 is COMPLETED, 75 asks for
    another attempt, all else is ERROR with the end of standard error. A JSON object on the last line of standard output
    has the columns.

    Attributes:
        arguments: The program, and its arguments in parts.
        output_dir: Where its output goes, a file a PO; by default to standard output and standard error, each line
            behind its PO.
    """

    arguments: tuple[tuple[str | Column, ...], ...]
    output_dir: str | None = None

    @staticmethod
    def of(words: Iterable[str], output_dir: str | os.PathLike[str] | None = None) -> Command:
        """Return the command of a command line.

        Raises:
            ValueError: There is none, or a cell would say which program is run.
        """
        arguments = tuple(map(argument, words))
        if not arguments or not arguments[0]:
            raise ValueError("no command is named")
        if any(isinstance(part, Column) for part in arguments[0]):
            raise ValueError("the program is the same for every PO; a cell can only be an argument of it")
        return Command(arguments, None if output_dir is None else os.path.abspath(output_dir))

    @property
    def program(self) -> str:
        """What is run."""
        return "".join(part for part in self.arguments[0] if isinstance(part, str))

    def unknown(self, names: Iterable[str]) -> list[str]:
        """Return the columns that it wants and a CSV does not have."""
        known = {"", *map(column_id, names)}
        wanted = [part.name for parts in self.arguments for part in parts if isinstance(part, Column)]
        return [name for name in dict.fromkeys(wanted) if column_id(name) not in known]

    def __call__(self, key: str, row: Mapping[str, str]) -> dict[str, object]:
        """Run it for a PO, and return the columns to set.

        Raises:
            Retry: It asks for another attempt.
            StopRun: It cannot be run at all.
            OSError: What it printed could not be kept.
            ValueError: A cell cannot be an argument.
        """
        words = list(self._words(key, row))
        with ExitStack() as stack:
            lost: list[OSError] = []
            sinks = self._sinks(key, stack, lost)
            told, errors = map(_Reader, sinks)
            code = _run(words, key, orjson.dumps(dict(row)) + b"\n", told, errors)
        if lost and code == 0:
            raise lost[0]
        columns = told.record()
        if code == 0:
            return columns
        message = _ending(code, errors.tail)
        if code == TRY_AGAIN:
            raise Retry(message)
        own = next((value for name, value in columns.items() if column_id(name) == column_id(_MESSAGE) and value), None)
        rest = {name: value for name, value in columns.items() if column_id(name) not in _OURS}
        return {**rest, COLUMNS["status"]: Status.ERROR, _MESSAGE: own or message}

    def _words(self, key: str, row: Mapping[str, str]) -> Iterator[str]:
        cells = {column_id(name): text for name, text in reversed(list(row.items()))} | {"": key}
        for parts in self.arguments:
            texts = [part if isinstance(part, str) else cells.get(column_id(part.name), "") for part in parts]
            if "\0" in (word := "".join(texts)):
                raise ValueError(f"a cell holds a NUL, which no argument of a program can: {word!r}")
            yield word

    def _sinks(
        self, key: str, stack: ExitStack, lost: list[OSError]
    ) -> tuple[Callable[[bytes], None], Callable[[bytes], None]]:
        """Return where lines of standard output and of standard error go; why a file did not take one is noted."""
        if self.output_dir is None:
            head = f"{key}: ".encode(errors="replace")
            return (lambda line: _write(1, head + line), lambda line: _write(2, head + line))
        path = os.path.join(self.output_dir, f"{_file_name(key)}.txt")
        file = stack.enter_context(open(path, "ab", buffering=0))  # noqa: SIM115  # the stack closes it

        def keep(line: bytes) -> None:
            try:
                while line:
                    line = line[file.write(line) :]
            except OSError as error:  # it runs on; nobody would read its pipes else
                lost[:] = lost or [OSError(error.errno, error.strerror, path)]

        return keep, keep


def _file_name(key: str) -> str:
    """Return what the file of a PO may be called, which no other one is."""
    name = quote(key, safe=" ()+,=@")
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}~{hashlib.sha256(key.encode()).hexdigest()[:16]}"


_MESSAGE: Final = COLUMNS["error_message"]
_OURS: Final = {column_id(_MESSAGE), column_id(COLUMNS["status"])}


class _Reader:
    """What a program prints: hands on each line, and remembers the end.

    Args:
        sink: Takes a line, its newline included.

    Attributes:
        tail: The last bytes.
    """

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self.tail = b""
        self._sink = sink
        self._rest = b""
        self._line = b""
        self._last = b""

    def feed(self, data: bytes) -> None:
        """Take what came; nothing is the end."""
        self.tail = (self.tail + data)[-_TAIL_BYTES:]
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._end_line(line)
        self._rest = rest
        if len(rest) >= _READ_BYTES or (not data and rest):  # one that does not end goes on in pieces
            self._sink(rest + b"\n")
            self._line = self._line + rest if len(self._line) < _LONGEST_LINE_BYTES else self._line
            self._rest = b""
        if not data and self._line.strip():
            self._last = self._line

    def _end_line(self, line: bytes) -> None:
        self._sink(line + b"\n")
        whole = self._line + line if len(self._line) < _LONGEST_LINE_BYTES else self._line
        self._line = b""
        if whole.strip():
            self._last = whole

    def record(self) -> dict[str, object]:
        """Return the columns that the last line names, if it is a JSON object."""
        try:
            found = json.loads(self._last)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def _run(words: list[str], key: str, row: bytes, told: _Reader, errors: _Reader) -> int:
    """Run a program to its end, and that of whatever it leaves behind in its group; return its exit code."""
    try:
        process = subprocess.Popen(  # noqa: S603  # it is what the caller asked for, and no shell
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            bufsize=0,
            env={**os.environ, KEY_VARIABLE: key},
        )
    except OSError as error:
        if error.errno in _GONE:
            raise StopRun(f"{words[0]}: cannot be run: {error.strerror}") from None
        raise
    with process, selectors.DefaultSelector() as ends:
        _Exchange(process, row, {process.stdout: told, process.stderr: errors}, ends).go_on()
        return process.wait()


class _Exchange:
    """Feeds a program and reads what it prints, until it ends.

    Args:
        process: The program.
        row: What it gets on standard input.
        readers: Who takes what it prints.
        ends: Watches all of them.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        row: bytes,
        readers: dict[IO[bytes] | None, _Reader],
        ends: selectors.BaseSelector,
    ) -> None:
        self._process = process
        self._row = memoryview(row)
        self._readers = {pipe: reader for pipe, reader in readers.items() if pipe}
        self._ends = ends

    def go_on(self) -> None:
        """Return once the program has ended and all that it has printed is read."""
        for pipe in self._readers:
            os.set_blocking(pipe.fileno(), False)
            self._ends.register(pipe, selectors.EVENT_READ)
        if stdin := self._process.stdin:
            os.set_blocking(stdin.fileno(), False)
            self._ends.register(stdin, selectors.EVENT_WRITE)
        with ExitStack() as stack:
            look_s = self._woken_at_end(stack)
            while not self._has_ended():
                for end, _ in self._ends.select(look_s):
                    if end.fileobj is stdin:
                        self._feed(stdin)
                    elif end.fileobj in self._readers:
                        self._read(end.fileobj)
        with suppress(OSError):  # what it has left running must neither hold its pipes nor outlive its PO
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe, reader in self._readers.items():
            left = _PIPE_BYTES  # who left the group may go on printing
            while left > 0 and (count := self._read(pipe)):
                left -= count
            reader.feed(b"")

    def _woken_at_end(self, stack: ExitStack) -> float | None:
        """Be woken up when it ends, where the system can; return after how many seconds to look, or None."""
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):
                fd = os.pidfd_open(self._process.pid)
                stack.callback(os.close, fd)
                self._ends.register(fd, selectors.EVENT_READ)
                stack.callback(self._ends.unregister, fd)
                return None
        return _LOOK_S

    def _has_ended(self) -> bool:
        # It stays a zombie until it is waited for, so that its group's number is nobody else's until then.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _feed(self, stdin: IO[bytes]) -> None:
        try:
            self._row = self._row[os.write(stdin.fileno(), self._row) :]
        except BlockingIOError:
            return
        except OSError:  # it does not want to know
            self._row = self._row[:0]
        if not self._row:
            self._ends.unregister(stdin)
            stdin.close()

    def _read(self, pipe: IO[bytes]) -> int:
        """Read what is there; return how many bytes that were, 0 at the end or when nothing is."""
        try:
            data = os.read(pipe.fileno(), _READ_BYTES)
        except BlockingIOError:
            return 0
        if data:
            self._readers[pipe].feed(data)
        elif pipe in self._ends.get_map():
            self._ends.unregister(pipe)
        return len(data)


def _write(fd: int, data: bytes) -> None:
    with suppress(OSError):  # nobody is there any more who would read it
        while data:
            data = data[os.write(fd, data) :]


def _ending(code: int, tail: bytes) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        how = f"killed by signal {-code} ({name})"
    else:
        how = f"exit code {code}"
    said = cleaned(tail.decode(errors="replace"), longest=_TAIL_BYTES)
    said = f"...{said[-_SHOWN:]}" if len(said) > _SHOWN else said
    return f"{how}: {said}" if said else how
