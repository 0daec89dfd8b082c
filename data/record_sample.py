"""Records the sample in data/sample: 446 made-up purchase orders, and the event log of a real run that was killed.

Four spawned workers pretend to download attachments and call emit_result(). After two thirds of the POs all of them are
killed with SIGKILL, one in the middle of writing a long line, which leaves a torn last line in the log. Run it again
with:

    python data/record_sample.py
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from eventcsv import EventCsv

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

SAMPLE: Final = Path(__file__).parent / "sample"
PO_COUNT: Final = 446
WORKERS: Final = 4
KILL_AFTER: Final = 297
SEED: Final = 20251002

COLUMNS: Final = [
    "PO_NUMBER",
    "STATUS",
    "SUPPLIER",
    "ATTACHMENTS_FOUND",
    "ATTACHMENTS_DOWNLOADED",
    "AttachmentName",
    "LAST_PROCESSED",
    "ERROR_MESSAGE",
    "DOWNLOAD_FOLDER",
    "COUPA_URL",
    "Priority",
    "Supplier Segment",
    "Spend Type",
    "L1 UU Supplier Name",
]
SUPPLIERS: Final = (
    "Almgren & Bratt AB",
    "Björkö Verktyg",
    'Castello "Il Vecchio" S.r.l.',
    "Dupré Frères; Outillage",
    "Ekström Hydraulik",
    "Fjordland Marine AS",
    "Grünwald Meßtechnik GmbH",
    "Halvorsen, Lie & Co",
    "Ibáñez Transportes",
    "Juniper Lane Catering",
    "Kōwa Precision",
    "Łódź Packaging Sp. z o.o.",
    "Märta's Laundry",
    "Nørregaard Tryk",
    "O'Hanlon Scaffolding",
    '12" Pipe & Valve Ltd',
)


def write_csv(path: Path, rng: random.Random) -> list[str]:
    """Write the CSV the way Excel's "CSV UTF-8" does and return its POs."""
    keys = sorted(f"PO{number}" for number in rng.sample(range(15_200_000, 15_900_000), PO_COUNT))
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=";", lineterminator="\r\n")
        writer.writerow(COLUMNS)
        for key in keys:
            segment = rng.choice(("Strategic", "Preferred", "Tail"))
            spend = rng.choice(("Direct", "Indirect", "Services; external"))
            described = [rng.choice(("1", "2", "3")), segment, spend, rng.choice(SUPPLIERS)]
            writer.writerow([key, "PENDING", *[""] * 8, *described])
    return keys


def work(job: EventCsv, todo: Queue[str], done: Queue[str], seed: int) -> None:
    """Pretend to download the attachments of one PO after another."""
    rng = random.Random(seed)
    while True:
        key = todo.get()
        time.sleep(rng.expovariate(1 / 0.004))
        process(job, key, rng)
        done.put(key)


def process(job: EventCsv, key: str, rng: random.Random) -> None:
    """Record what a real run would."""
    url = f"https://coupa.example/order_headers/{key.removeprefix('PO')}"
    supplier = rng.choice(SUPPLIERS)
    chance = rng.random()
    if chance < 0.05:
        job.emit_result(key, "RATE_LIMIT", error_message="429 Too Many Requests, tried again later", coupa_url=url)
    if chance < 0.70:
        names = [
            f"{key}_{name}"
            for name in rng.sample(("invoice.pdf", "order.pdf", "terms.docx", "drawing 3;2.dwg"), rng.randint(1, 3))
        ]
        job.emit_result(
            key,
            "COMPLETED",
            supplier=supplier,
            attachments_found=len(names),
            attachments_downloaded=len(names),
            attachment_names=names,
            download_folder=f"downloads/{supplier.split()[0]}/{key}",
            coupa_url=url,
            error_message="",  # clears what an earlier attempt may have left there
        )
    elif chance < 0.84:
        job.emit_result(key, "NO_ATTACHMENTS", supplier=supplier, attachments_found=0, coupa_url=url)
    elif chance < 0.90:
        job.emit_result(
            key,
            "PARTIAL",
            supplier=supplier,
            attachments_found=3,
            attachments_downloaded=2,
            attachment_names=["a.pdf", "b.pdf"],
            coupa_url=url,
            error_message="1 of 3 downloads timed out after 30 s",
        )
    elif chance < 0.97:
        job.emit_result(
            key, "ERROR", error_message="TimeoutException: no element #attachments after 30 s", coupa_url=url
        )
    else:
        job.emit_result(key, "PO_NOT_FOUND", error_message="404 Oops! We couldn't find what you wanted", coupa_url=url)


def run_and_kill(csv_path: Path, keys: list[str], rng: random.Random) -> str:
    """Work through the POs with several processes, kill them all in the middle, and return an unfinished PO."""
    context = multiprocessing.get_context("spawn")
    todo: Queue[str] = context.Queue()
    done: Queue[str] = context.Queue()
    for key in rng.sample(keys, len(keys)):
        todo.put(key)
    job = EventCsv(csv_path)
    workers = [context.Process(target=work, args=(job, todo, done, rng.random())) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    finished = {done.get() for _ in range(KILL_AFTER)}
    for worker in workers:
        worker.kill()
        worker.join()
    return next(key for key in keys if key not in finished and not any(job.history(key)))


def tear(csv_path: Path, key: str, rng: random.Random) -> None:
    """Kill a worker in the middle of a write, again and again until the kernel has taken only part of the line."""
    events = csv_path.with_suffix(".events")
    before = csv_path.with_suffix(".before")
    shutil.copytree(events, before)
    page = "<html>" + "".join(rng.choices(("<div class='row'>", "attachment", "</div>"), k=4_000))
    job = EventCsv(csv_path)
    for _ in range(20_000):
        pid = os.fork()
        if pid == 0:
            job.emit_result(key, "ERROR", error_message=f"unexpected page: {page}")
            time.sleep(10)
        time.sleep(rng.uniform(0, 0.002))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        log = (events / "events-000001.jsonl").read_bytes()
        if not log.endswith(b"\n") and len(log) - log.rfind(b"\n") < 10_000:
            shutil.rmtree(before)
            return
        shutil.rmtree(events)
        shutil.copytree(before, events)
    raise SystemExit("no line was torn in 20,000 kills; try again")


def main() -> None:
    """Record the sample."""
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory() as place:
        csv_path = Path(place) / "input.csv"
        keys = write_csv(csv_path, rng)
        unfinished = run_and_kill(csv_path, keys, rng)
        tear(csv_path, unfinished, rng)
        for lock in (Path(place) / "input.events").glob("*.lock"):
            lock.unlink()
        shutil.rmtree(SAMPLE, ignore_errors=True)
        shutil.copytree(place, SAMPLE)


if __name__ == "__main__":
    main()
