"""The promise to many at once: nobody starves, nobody waits for ever, and whoever holds a lock is named."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest
from command_line import Talk
from conftest import read_csv
from nursery import Nursery, acknowledged, parse

from eventcsv import AppendError, EventCsv

WORKERS: Final = 8

# Appends until told to stop, and says how many it got through and how long the longest took.
CONTENDER: Final = """
import sys, time
from eventcsv import EventCsv
from eventcsv.storage import locks
path, seconds, polling_s = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
if polling_s:
    locks._FIRST_WAIT_S = locks._LONGEST_WAIT_S = polling_s
job = EventCsv(path, durability="process")
job.emit_result("PO1", "PARTIAL")
print("ready", flush=True)
sys.stdin.readline()
count, longest_s, end = 0, 0.0, time.monotonic() + seconds
while (begun := time.monotonic()) < end:
    job.emit_result("PO1", "PARTIAL", columns={"n": count})
    count, longest_s = count + 1, max(longest_s, time.monotonic() - begun)
print(count, longest_s)
"""


def contend(path: Path, seconds: float, polling_s: float) -> tuple[float, float]:
    """Let eight processes append as fast as they can; return least against most appends, and the longest wait in s."""
    talks = [Talk(CONTENDER, path, seconds, polling_s) for _ in range(WORKERS)]
    assert {"ready"} == {talk.hear() for talk in talks}
    for talk in talks:
        talk.say("go")
    told = [talk.end().split() for talk in talks]
    counts = [int(count) for count, _ in told]
    return min(counts) / max(counts), max(float(longest_s) for _, longest_s in told)


@pytest.mark.long
def test_the_lock_is_fair(csv_path: Path) -> None:
    """Eight writers that do nothing else get about as much each. Control: polling at 250 ms starves some for long."""
    fair, longest_s = contend(csv_path, 5.0, 0.0)
    unfair, starved_s = contend(csv_path, 5.0, 0.25)
    print(f"least/most {fair:.2f}, {longest_s:.3f} s; at 250 ms {unfair:.2f}, {starved_s:.2f} s")  # noqa: T201  # quoted
    assert fair > 0.3
    assert longest_s < starved_s / 3


HOLDER: Final = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(("held_s", "timeout_s"), [(60.0, 0.05), pytest.param(60.0, 12.0, marks=pytest.mark.long)])
@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_lock_that_is_held_names_its_holder(
    job: EventCsv,
    csv_path: Path,
    held_s: float,
    timeout_s: float,
    is_stopped: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    """Held for long, its holder stopped or not: an error that names it; once it is killed, all goes on."""
    job.emit_result("PO1", "PARTIAL")
    with Talk(HOLDER, Path(job.log_dir) / "append.lock", held_s) as holder:
        assert "held" == holder.hear()
        if is_stopped:
            holder.process.send_signal(signal.SIGSTOP)
        with pytest.raises(AppendError, match=f"process {holder.process.pid} ") as caught:
            EventCsv(csv_path, durability="process", lock_timeout_s=timeout_s).emit_result("PO2", "COMPLETED")
        assert caught.value.event
        assert "PO2" == caught.value.event.key
    job.emit_result("PO2", "COMPLETED")
    assert {"PARTIAL": 1, "COMPLETED": 1, "": 1} == job.compact().by_status


COMPACTOR: Final = """
import sys
from eventcsv import EventCsv
job = EventCsv(sys.argv[1], durability="process", lock_timeout_s=60)
for number in range(int(sys.argv[2])):
    job.emit_result(sys.argv[3], "PARTIAL", columns={"n": number})
    result = job.compact()
    assert not result.edited and not result.rebuilt, result
"""


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.long)])
def test_two_compactors_at_once(job: EventCsv, csv_path: Path, times: int) -> None:
    """Neither takes the other's CSV for an edit, or undoes what it did."""
    job.compact()
    processes = [
        subprocess.Popen([sys.executable, "-c", COMPACTOR, str(csv_path), str(times), key]) for key in ("PO1", "PO2")
    ]
    looks = 0
    while any(process.poll() is None for process in processes):
        assert ["PO1", "PO2", "PO3"] == [row["PO_NUMBER"] for row in read_csv(csv_path)]
        looks += 1
    assert [0, 0] == [process.wait() for process in processes]
    assert looks
    assert not job.compact().changed
    assert [str(times - 1)] * 2 == [row["n"] for row in read_csv(csv_path)][:2]
    assert not job.replay().changed


@pytest.mark.parametrize("way", ["deleted", "replaced"])
def test_a_lock_file_that_goes_under_its_holders_costs_nothing(tmp_path: Path, way: str) -> None:
    """Writers notice and take the new one; whatever they acknowledge meanwhile is there, whole."""
    path = tmp_path / "input.csv"
    path.write_text("PO_NUMBER;STATUS\nPO1;\n")
    job = EventCsv(path, durability="process")
    job.emit_started("PO1")
    lock = Path(job.log_dir) / "append.lock"
    with Nursery(most=300) as nursery:
        names = [f"worker{number}" for number in range(4)]
        for name in names:
            nursery.spawn(path, name, "PO1", tmp_path / name)
        gone = 0
        while any(len(acknowledged(tmp_path / name)) < 300 for name in names):
            if way == "deleted":
                lock.unlink(missing_ok=True)
            else:
                lock.with_suffix(".new").touch(mode=0o600)
                lock.with_suffix(".new").replace(lock)
            gone += 1
            time.sleep(0.01)
    assert gone > 2
    lines = b"".join(Path(job.log.path(number)).read_bytes() for number in job.log.segments()).split(b"\n")[1:-1]
    found = [sent for line in lines if (sent := parse(line))]
    assert all(sent.is_as_sent for sent in found)
    assert {(name, n) for name in names for n in range(1, 301)} == {(sent.name, sent.n) for sent in found}
    # Two at once may both end the same line, or think that the other's half is a torn one; the rest is as ever.
    assert {"an empty line"} >= {item.reason for item in job.compact().damage if not item.torn}
