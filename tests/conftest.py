"""What the tests share: a job in an empty folder, and ways to look at its files without eventcsv's help."""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest
from hypothesis import settings
from living import workers_of

from eventcsv import EventCsv
from eventcsv.log.line import is_whole
from eventcsv.log.scan import noted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import PgServer

    from eventcsv.log.file_log import FileLog

# A shared machine may stall for a second in any test; time is measured in benchmarks, never asserted on.
settings.register_profile("eventcsv", deadline=None, print_blob=True)
settings.load_profile("eventcsv")

# A shell ignores Ctrl-C for what it starts in the background, as nohup does SIGHUP, and so would all that a test starts
# and interrupts.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

# As people have it: in a container output may be unbuffered and the terminal without a name, which hides faults, and
# each process that a test starts may have to compile what it loads.
for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(name, None)
os.environ["TERM"] = "xterm"

# Edits count at once in the tests, save those that are about waiting for an edit to settle.
EventCsv.__init__.__kwdefaults__ |= {"settle_s": 0.0}  # type: ignore[operator]  # it has keyword defaults

csv.field_size_limit(1 << 20)  # as long as a line of the log may be

KEYS = ("PO1", "PO2", "PO3")


@pytest.fixture
def csv_path(tmp_path: Path) -> Path:
    """A CSV of three POs."""
    path = tmp_path / "input.csv"
    path.write_text("PO_NUMBER;STATUS;SUPPLIER\n" + "".join(f"{key};;\n" for key in KEYS))
    return path


@pytest.fixture
def job(csv_path: Path) -> EventCsv:
    """A job over it."""
    return job_on(csv_path)


def job_on(path: Path, **options: Any) -> EventCsv:  # whatever EventCsv takes
    """Return a job over a CSV that waits for no disk."""
    return EventCsv(path, durability="process", lock_timeout_s=10, **options)


def wait_until(holds: Callable[[], object], what: str = "what has to come") -> None:
    """Wait for something that has to come; a wait that would never end is a failure, however slow the machine."""
    deadline = time.monotonic() + 60
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"never: {what}")
        time.sleep(0.005)


def cannot(reason: str) -> NoReturn:
    """Skip a test that cannot run here; where everything is said to be there (EVENTCSV_SKIP=no, as CI does), fail."""
    if os.environ.get("EVENTCSV_SKIP") == "no":
        pytest.fail(f"was to run everything here, but {reason}")
    pytest.skip(reason)


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 256 KiB, or as many as the test's parameter says."""
    size_kib = getattr(request, "param", 256)
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "eventcsv-test", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        cannot("there is no mount here")
    if done.returncode:
        cannot(f"mounting takes root: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # a test that failed may have files open


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may go to, as that of a test is not."""
    if os.geteuid() != 0:
        cannot("only root can be several users")
    made = Path(tempfile.mkdtemp(prefix="eventcsv-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def no_process_is_left() -> Iterator[None]:
    """After the test no worker is left, neither alive nor as a zombie."""
    before = set(workers_of(os.getpid()))
    yield
    assert set() == set(workers_of(os.getpid())) - before


@pytest.fixture(scope="session")
def pg_server() -> Iterator[PgServer]:
    """A PostgreSQL server with eventcsv's schema, one for all tests of a process."""
    from servers import PgServer as Made  # noqa: PLC0415  # it needs what is defined here

    from eventcsv.log.postgres.admin import init  # noqa: PLC0415  # only these tests load the client

    server = Made()
    try:
        init(server.create().url)
        yield server
    finally:
        server.remove()


def file_log(job: EventCsv) -> FileLog:
    """Return the log of a job that has it in files."""
    return cast("FileLog", job.log)


def segment_of(job: EventCsv, number: int = 1) -> Path:
    """Return the path of a segment."""
    return Path(job.log_dir) / f"events-{number:06d}.jsonl"


def checkpoint_of(job: EventCsv) -> Path:
    """Return the path of the checkpoint."""
    return Path(job.log_dir) / "checkpoint.json"


def append_raw(job: EventCsv, data: bytes, number: int = 1) -> None:
    """Write behind what a segment holds, as nobody should."""
    with segment_of(job, number).open("ab") as file:
        file.write(data)


def lines_of(job: EventCsv, number: int = 1) -> list[bytes]:
    """Return the lines of a segment after its header."""
    return segment_of(job, number).read_bytes().split(b"\n")[1:-1]


def split_healed(found: bytes, before: bytes, line: bytes) -> tuple[bytes, int | None]:
    """Take apart what stands between what a log was and its new last line.

    Returns:
        What ended the half line there, and the byte that the note behind it names, or None without one.
    """
    assert found.startswith(before)
    assert found.endswith(line)
    newline, mark, rest = found[len(before) : -len(line)].partition(b"\n")
    assert (b"\n" if rest else b"") == rest[-1:]
    return newline + mark, noted(rest[:-1]) if is_whole(rest[:-1]) else None


def read_csv(path: Path, *, delimiter: str = ";") -> list[dict[str, str]]:
    """Return the rows of a CSV as Python's csv module reads them."""
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), delimiter=delimiter))


def statuses(csv: EventCsv | Path) -> list[str]:
    """Return the STATUS of each row of a CSV, or of a job's."""
    return [row["STATUS"] for row in read_csv(csv if isinstance(csv, Path) else Path(csv.csv_path))]


def flip(path: Path, place: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def replays_to_itself(path: Path | str) -> bool:
    """Tell whether a replay says of a CSV that it is what it has to be, and leaves it so."""
    before = Path(path).read_bytes()
    return (False, before) == (EventCsv(path).replay().changed, Path(path).read_bytes())


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its content, so that two moments can be compared."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
