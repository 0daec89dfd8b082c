"""A job whose every text is hostile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventcsv import EventCsv

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--<script>",
    "{{script}}",
    "&lt;b&gt;\u2028\u2029\u202egpj.exe",
    "'\"`;javascript:alert(1)",
    "\x1b[31m\tred\x07",
)


def hostile_job(place: Path) -> EventCsv:
    """Return a job whose every text is hostile, as far as a log takes it."""
    folder = place / "hostile"
    folder.mkdir()
    path = folder / "<img src=x onerror=alert(1)>&.csv"
    rows = [
        f'"{text}";;"{text}";"{text}"'.replace('"\'""', '"\'""""')
        for text in ("</script><b>", "<script>alert(1)</script>")
    ]
    path.write_text("PO_NUMBER;STATUS;SUPPLIER;ERROR_MESSAGE\n" + "\n".join(rows) + "\nPO3;;;\n", encoding="utf-8")
    job = EventCsv(path, durability="process")
    for number, text in enumerate(HOSTILE):
        name = "".join(filter(str.isprintable, text))
        job.emit_result("PO3", "ERROR", error_message=text, columns={f"{name} {number}": text})
        job.emit_result("</script><b>", "ERROR", error_message=text)
    return job
