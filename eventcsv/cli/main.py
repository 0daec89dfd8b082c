"""Runs the command line: every error becomes one line on standard error and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Any, Final, NoReturn

import typer

from eventcsv.cli import tracebacks
from eventcsv.cli.app import app
from eventcsv.cli.output import Exit, flushed, say, silence
from eventcsv.errors import EventCsvError, InvalidEvent, LockTimeout, SessionActive, reason_of
from eventcsv.masking import masked

_WAYS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG})
"""What keeps from a file before anything of it is read or written."""


def main() -> None:
    """Run the command line; every error becomes one line on standard error and an exit code."""
    try:
        _run_command()
    finally:
        _end_output()


def _run_command() -> None:
    try:
        try:
            _mend_streams()
            _check_folder()
            sys.exit(app(standalone_mode=False))
        except BrokenPipeError:
            sys.exit(Exit.FAILED)
        except typer.Abort:
            _exit("stopped", Exit.FAILED)
        except Exception as error:  # noqa: BLE001  # nobody may be left with a traceback that did not ask for one
            if hasattr(error, "format_message"):  # of typer, or of the click that earlier versions of it use
                _exit_usage(error)
            for line in tracebacks.details(error):
                say(line)
            _exit(*_told(error))
    except KeyboardInterrupt:
        _exit("stopped; run it again to go on", Exit.FAILED)


def _end_output() -> None:
    """Write what is left in the streams; what cannot be must not fail once more, and aloud, when Python ends."""
    try:
        if not flushed(sys.stderr):
            silence(sys.stderr)  # what was to be said is lost, what was done is not
        if not flushed(sys.stdout):  # which was told when it was met first
            silence(sys.stdout)
            sys.exit(Exit.FAILED)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is done: while Python ends, it would be a traceback


def _told(error: Exception) -> tuple[str, Exit]:
    """Return what to say of an error, and its exit code."""
    match error:
        case InvalidEvent():
            return f"{_sentence(str(error))} Nothing was written", Exit.USAGE
        case EventCsvError():
            held = isinstance(error, (LockTimeout, SessionActive)) or isinstance(error.__cause__, LockTimeout)
            return str(error), Exit.HELD if held else Exit.FAILED
    return _trouble_of_the_system(error) or tracebacks.unforeseen(error), Exit.FAILED


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _trouble_of_the_system(error: Exception) -> str:
    """Return what to say of an error that is nobody's mistake here, or ""."""
    match error:
        case OSError(errno=number) if number in _WAYS:
            return f"{reason_of(error)}. Mend that, and run it again"
        case OSError():
            return f"{reason_of(error)}. Nothing was half-written; mend the cause and run it again"
        case RuntimeError() if "start new thread" in str(error):
            what = "the system gives no more threads, or no memory for them (ulimit -a shows the limits)"
            return f"{what}. Nothing was half-written; close something, or raise them, and run it again"
        case MemoryError():
            return "there is not enough memory. Nothing was half-written; close something and run it again"
    return ""


def _check_folder() -> None:
    """Refuse to work from a folder that is gone: no relative path means anything there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        _exit("the folder that this was called from is gone. Change to one that is there: cd", Exit.FAILED)


def _mend_streams() -> None:
    """Make closed streams harmless, and characters that a terminal's encoding lacks visible."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:  # whatever is opened next would be taken for a stream, and written into
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # for as long as the process lives
        else:
            stream.reconfigure(errors="backslashreplace")


def _exit_usage(error: Any) -> NoReturn:  # noqa: ANN401  # of a class that typer does not export
    """Say how a command was called wrongly, in one line as every other error; no command at all is shown the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        message = _sentence(masked(error.format_message().strip()))
        command = error.ctx.command_path if error.ctx else "eventcsv"
        say(f"eventcsv: {message} How it is used: {command} -h")
    sys.exit(error.exit_code)


def _exit(text: str, code: Exit) -> NoReturn:
    say(f"eventcsv: {masked(text)}")
    sys.exit(code)
