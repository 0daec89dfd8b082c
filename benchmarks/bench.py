"""Measures eventcsv next to floors and peers in one run, and builds benchmarks/README.md from it.

    python benchmarks/bench.py [--scale smoke|quick|normal|full] [--only NAME ...] [--out FOLDER]

A floor is the least work that could do the job at all; a peer is another way of doing it. The absolute figures are this
machine's at that moment; the ratios, taken within each round, are what holds.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import emit
import folding
import growth
import live
import machine
import page
import peers
import processes
import saves
import visible
import whole_run
from measuring import HERE, Bench
from scales import SCALES

if TYPE_CHECKING:
    from collections.abc import Callable

MEASUREMENTS: Final[dict[str, Callable[[Bench], None]]] = {
    "emit": emit.measure,
    "emit-log": emit.measure_by_log,
    "worker": processes.measure_worker,
    "commands": processes.measure_commands,
    "live": live.measure,
    "visible": visible.measure,
    "run": whole_run.measure,
    "replay": folding.measure,
    "saves": saves.measure,
    "resume": processes.measure_resume,
    "compact": processes.measure_compact,
    "growth": growth.measure,
}


def arguments() -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(description="Measure eventcsv next to floors and peers.")
    parser.add_argument("--scale", choices=SCALES, default="normal", help="how much to measure (default: normal)")
    parser.add_argument(
        "--quick", action="store_const", const="quick", dest="scale", help="--scale quick: rough figures"
    )
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, metavar="NAME", help=f"of {', '.join(MEASUREMENTS)}")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where results.json, README.md and the plots go (default: benchmarks for a whole normal or full run, "
        "else nowhere: the tables are printed)",
    )
    return parser.parse_args()


def measured(scale_name: str, only: list[str]) -> dict[str, Any]:
    """Measure, and return everything as one report."""
    # Beside the work, because /tmp is often memory; the directory hides itself from git.
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=".") as name:
        directory = Path(name).resolve()
        (directory / ".gitignore").write_text("*\n")
        bench = Bench(SCALES[scale_name], directory)
        described = machine.described(directory)
        for what in only:
            MEASUREMENTS[what](bench)
        took_s = time.monotonic() - bench.started_s
        bench.tell("done")
        return {
            "machine": {**described, "load after": machine.load()},
            "scale": asdict(bench.scale),
            "took_s": took_s,
            "figures": bench.figures.as_json(),
        }


def _stop(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)  # so that what was made is removed


def main() -> None:
    """Measure, and write or print the page."""
    options = arguments()
    signal.signal(signal.SIGTERM, _stop)
    machine.forget_settings()
    for package in ("duckdb", "pandas"):
        if not peers.is_installed(package):
            print(f"{package} is not installed, so it does not take part: pip install -e '.[bench]'", file=sys.stderr)
    report = measured(options.scale, options.only or list(MEASUREMENTS))
    is_whole = not options.only and options.scale in {"normal", "full"}
    with tempfile.TemporaryDirectory() as nowhere:
        folder = options.out or (HERE if is_whole else Path(nowhere))
        folder.mkdir(exist_ok=True)
        (folder / "results.json").write_text(json.dumps(report, indent=1) + "\n")
        print(page.build(report, folder))


if __name__ == "__main__":
    main()
