"""The story of eventcsv in one command: a run over 446 POs is killed hard in the middle, resumes, and finishes.

`make demo` runs it, in data/demo, on a copy of the sample. The downloads are simulated: they take some milliseconds,
some find nothing, some fail, and one of them takes its worker down with it. Everything else is real: the processes, the
SIGKILL, the log and the CSV.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

DATA: Final = Path(__file__).parent
FOLDER: Final = DATA / "demo"
KILL_AFTER: Final = 200
CRASHES: Final = "PO15671283"
DONE: Final = "--done COMPLETED --done NO_ATTACHMENTS"
RUN: Final = f"run po.csv demo:download --workers 4 --timeout 10 {DONE}"


def download(key: str, _row: dict[str, str]) -> dict[str, object]:
    """Pretend to download the attachments of a PO; what comes of it depends on the PO alone."""
    number = int(key.removeprefix("PO"))
    time.sleep(0.015 + number % 20 / 1_000)
    if number % 89 == 1:
        raise TimeoutError("no element #attachments after 30 s at https://coupa.example/orders?token=abc")
    if key == CRASHES:
        os.kill(os.getpid(), signal.SIGSEGV)  # what a browser's library does now and then
    if number % 9 == 1:
        return {"STATUS": "NO_ATTACHMENTS", "ATTACHMENTS_FOUND": 0}
    names = [f"{key}_order.pdf", f"{key}_terms.pdf"]
    return {
        "ATTACHMENTS_FOUND": len(names),
        "ATTACHMENTS_DOWNLOADED": len(names),
        "AttachmentName": names,
        "DOWNLOAD_FOLDER": f"downloads/{key}",
    }


def eventcsv(arguments: str) -> subprocess.Popen[bytes]:
    """Start a command of eventcsv in the demo's folder, as one would type it."""
    print(f"$ eventcsv {arguments}", flush=True)
    return subprocess.Popen(
        [sys.executable, "-m", "eventcsv", *arguments.split()],
        cwd=FOLDER,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(DATA), str(DATA.parent)])},
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def recorded() -> int:
    """Return how many results are in the log."""
    return sum(path.read_bytes().count(b'"kind":"result"') for path in FOLDER.glob("po.events/*.jsonl"))


def main() -> None:
    """Tell the story."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    shutil.copy(DATA / "sample/input.csv", FOLDER / "po.csv")

    run = eventcsv(RUN)
    while recorded() < KILL_AFTER and run.poll() is None:
        time.sleep(0.005)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    print(f"... and after {recorded()} results: kill -9, no warning, no clean-up", flush=True)

    for arguments in (f"status po.csv {DONE}", RUN, "verify po.csv"):
        eventcsv(arguments).wait()


if __name__ == "__main__":
    main()
