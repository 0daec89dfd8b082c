"""`python -m eventcsv` is the command `eventcsv`."""

from __future__ import annotations

import sys
from contextlib import suppress

from eventcsv.cli.first_process import leave_the_first_process
from eventcsv.signals import while_loading
from eventcsv.version import __version__


def main() -> None:
    """Run the command line."""
    leave_the_first_process()
    if sys.argv[1:] == ["--version"]:  # which needs nothing of what a command has to load
        with suppress(OSError):  # which is told below, as for any command
            print(f"eventcsv {__version__}", flush=True)  # noqa: T201  # that is all it does
            return
    with while_loading():
        from eventcsv.cli.main import main as run  # noqa: PLC0415  # a spawned worker imports this module, too
    run()


if __name__ == "__main__":
    main()
