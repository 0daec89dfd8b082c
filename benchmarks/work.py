"""A PO's work that takes no time, and a pool that works on all of them and writes the CSV at the end."""

from __future__ import annotations

import csv
import multiprocessing
import sys
from pathlib import Path


def nothing(key: str, _row: dict[str, str]) -> dict[str, object]:
    """Return a typical result without working for it."""
    return {
        "ATTACHMENTS_FOUND": 2,
        "ATTACHMENTS_DOWNLOADED": 2,
        "AttachmentName": ["order.pdf", "terms.pdf"],
        "DOWNLOAD_FOLDER": f"downloads/{key}",
    }


def _named(row: dict[str, str]) -> dict[str, object]:
    return nothing(row["PO_NUMBER"], row)


def main() -> None:
    """Do what `eventcsv run CSV work:nothing --workers N` does, without any safety: all is lost if it is stopped."""
    path, workers = Path(sys.argv[1]), int(sys.argv[2])
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=";")
        names, rows = list(reader.fieldnames or ()), list(reader)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for row, result in zip(rows, pool.imap(_named, rows), strict=True):
            joined = {
                name: ";".join(value) if isinstance(value, list) else str(value) for name, value in result.items()
            }
            row.update({"STATUS": "COMPLETED", **joined})
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter=";", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
