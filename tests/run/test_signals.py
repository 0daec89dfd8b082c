"""The promise: the first signal asks to stop, wherever it strikes, and only the second one insists."""

from __future__ import annotations

import os
import signal

import pytest
from command_line import python

from eventcsv.signals import stop_signals


def test_only_the_second_signal_insists() -> None:
    """Whoever is ending workers is not struck by a third one: else those that come after would live on."""
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert ("SIGINT", True) == (stop.reason, stop.is_set())
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_in_the_middle_of_polars_only_asks_to_stop() -> None:
    """Polars answers a SIGINT by an exception of its own, unless it was loaded before our handler was put in force."""
    code = (
        "import os, signal, threading\n"
        "from eventcsv.signals import stop_signals\n"
        "with stop_signals() as stop:\n"
        "    import polars as pl\n"
        "    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    while not stop.is_set():\n"
        "        pl.LazyFrame({'a': range(300_000)}).group_by('a').agg(pl.len()).collect()\n"
        "print(stop.reason)\n"
    )
    done = python(code)
    assert (0, "SIGINT\n") == (done.returncode, done.stdout), done.stderr


def test_a_signal_in_the_middle_of_a_wait_ends_it() -> None:
    """The handler runs in the thread that waits, at whatever step of the wait: it must not need what the wait holds."""
    code = (
        "import signal, sys\n"
        "from eventcsv.signals import stop_signals\n"
        "for step in range(12):\n"
        "    calls = iter(range(step + 1))\n"
        "    with stop_signals() as stop:\n"
        "        sys.setprofile(lambda *_: next(calls, None) == step and signal.raise_signal(signal.SIGTERM))\n"
        "        stop.wait(0.01)\n"
        "        sys.setprofile(None)\n"
        "        assert stop.is_set()\n"
    )
    done = python(code)
    assert 0 == done.returncode, done.stderr
