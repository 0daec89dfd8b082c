"""Made tests/data/v1 once, with eventcsv 0.1.0. Never run it for v1 again: what it made has to be readable for ever.

Another version of the format gets a folder of its own, v2, made by a script like this one, beside a v1 that stays.
"""

from __future__ import annotations

import sys
from pathlib import Path

from eventcsv import EventCsv

HEADER = "PO_NUMBER;STATUS;SUPPLIER;Bemerkung\n"


def main(folder: Path) -> None:
    """Make a job that has met most of what a job can meet."""
    folder.mkdir(parents=True)
    path = folder / "input.csv"
    keys = [f"PO15{number:06d}" for number in range(1, 9)]
    path.write_bytes(b"\xef\xbb\xbf" + (HEADER + "".join(f"{key};;007;\n" for key in keys)).encode())
    job = EventCsv(path, backup_dir=folder / "backup")
    job.emit_started(keys[0])
    job.emit_result(keys[0], "COMPLETED", supplier='Müller & Söhne "GmbH"; Köln', attachments_found=3)
    job.emit_result(keys[1], "ERROR", error_message="line one\nline two 💥 \u2028 end")
    job.emit_result("PO99", "PARTIAL", columns={"note": "its row comes late"})
    job.compact()
    segment = Path(job.log_dir) / "events-000001.jsonl"
    with segment.open("ab") as file:  # as kill -9 in mid-write leaves it; the next append heals it
        file.write(b'{"v":1,"id":"0123456789ab-00-1","ts":"2026-11-24T11:00:00.000000Z","kind":"result","key":"PO15')
    job.emit_result(keys[2], "COMPLETED", columns={"note": "=HYPERLINK(1)", "Größe": "+5"})
    with path.open("ab") as file:  # an operator adds the row, and edits another one
        file.write(b"PO99;;added;;;;\n")
    path.write_bytes(path.read_bytes().replace(f"{keys[7]};;007;".encode(), f"{keys[7]};;007;geändert".encode()))
    job.compact()
    with job.session(session_id="golden"):
        job.emit_started(keys[3])
        job.emit_result(keys[4], "COMPLETED", last_processed="2026-11-24T11:00:00Z")
    job.back_up()
    with (Path(job.log_dir) / "events-000002.jsonl").open("ab") as file:
        file.write(b'{"v":1,"id":"0123456789ab-00-2","ts":"2026-11-24T11:00')  # torn before the segment was sealed
    job.new_segment()
    job.emit_result(keys[1], "COMPLETED", error_message="")
    job.compact()
    job.emit_result(keys[5], "NOT_FOUND", columns={"note": "not folded yet"})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
