"""A report as one page of HTML: the data as JSON, the style and the script in the page, nothing loaded from anywhere.

The script builds everything that shows from the data, as text and never as HTML. A content security policy allows this
very script and style, by their hashes, and nothing else: no request, no other script, whatever a message may hold.
"""

from __future__ import annotations

import base64
import html
import os
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache, partial
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import orjson

from eventcsv.report.collect import category_of, collect
from eventcsv.report.history import KINDS
from eventcsv.storage.output import write_output
from eventcsv.version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from eventcsv.log.interface import ProgressCallback
    from eventcsv.report.model import PoReport, Report
    from eventcsv.storage.files import Storage
    from eventcsv.view.compactor import Compactor
    from eventcsv.view.session_lock import Holder

_MARK: Final = b'<meta name="generator" content="eventcsv '
_MARKED_BYTES: Final = 1_000
_REFUSAL: Final = " and is no report of eventcsv. It was left untouched; name another file, or replace it with --force"
_ESCAPES: Final = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def default_output(csv_path: str) -> str:
    """Return where the page of a CSV goes when nobody says: beside it."""
    stem, suffix = os.path.splitext(csv_path)
    return f"{stem if suffix == '.csv' else csv_path}.report.html"


def write_report(
    compactor: Compactor,
    holder: Holder | None,
    output: str | os.PathLike[str] | None,
    *,
    done: Collection[str],
    unmasked: bool,
    force: bool,
    on_progress: ProgressCallback | None,
) -> Report:
    """Collect what happened to a job, and write the page of it; see `EventCsv.report`."""
    storage = compactor.files.storage
    path = None if output is None else os.path.abspath(output)
    if path is not None:  # before the long part
        is_earlier = partial(_is_report, storage)
        compactor.files.check_output(path, force=force, refusal=_REFUSAL, is_earlier=is_earlier)
    now = datetime.now(UTC)
    report = collect(compactor, holder, done=done, now=now, unmasked=unmasked, on_progress=on_progress)
    if path is not None:
        like = storage.rights(path) if storage.check_regular(path) else None
        write_output(storage, path, render(report), like=like)
    return report


def render(report: Report) -> bytes:
    """Return the page."""
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    filled = {
        "policy": policy,
        "version": html.escape(__version__),
        "title": html.escape(_utf8(report.csv_name)),
        "style": style,
        "data": _json_for_html(_record(report)),
        "script": script,
    }
    # In one pass over the template, so that nothing in the data is taken for a place to fill.
    parts = _asset("page.html").split("{{")
    page = [parts[0]]
    for part in parts[1:]:
        name, _, rest = part.partition("}}")
        page += [filled[name], rest]
    return "".join(page).encode()


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


def _utf8(text: str) -> str:
    return os.fsencode(text).decode(errors="replace")


def _json_for_html(record: dict[str, Any]) -> str:
    """Return JSON that cannot end the element that it stands in, whatever its texts are."""
    return orjson.dumps(record).decode().translate(_ESCAPES)


# --- the data ----------------------------------------------------------------------------------------------------


class _Texts:
    """Every text of the page once; elsewhere stand their numbers."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.numbers.setdefault(text, len(self.numbers))


def summary_of(report: Report, output: str) -> dict[str, Any]:
    """Return a report without its POs, for programs."""
    record = asdict(report) | {"output": output, "total": len(report.pos)}
    return {name: value for name, value in record.items() if name != "pos"}


def _record(report: Report) -> dict[str, Any]:
    """Return the data of the page: for 10,000 POs in columns, since the same names 10,000 times cost twice the size."""
    text = _Texts()
    pos = report.pos
    columns = {
        "key": [po.key for po in pos],
        "status": [text(po.status) for po in pos],
        "category": [category_of(po.status, done=po.done) for po in pos],
        "failed": [int(po.failed) for po in pos],
        "supplier": [text(po.supplier) for po in pos],
        "message": [text(po.message) for po in pos],
        "at": [po.at for po in pos],
        "attempts": [po.attempts for po in pos],
        "interrupted": [po.interrupted for po in pos],
        "took_s": [po.took_s for po in pos],
        "in_flight": [int(po.in_flight) for po in pos],
        "waits_until": [po.waits_until for po in pos],
        "groups": [po.groups for po in pos],
        "events": [list(_events(po, text)) for po in pos],
        "earlier": [po.earlier for po in pos],
    }
    return {
        **_small(report),
        "csv_name": _utf8(report.csv_name),
        "version": __version__,
        "pos": columns,
        "texts": list(text.numbers),
    }


def _small(report: Report) -> dict[str, Any]:
    """Return a report without its POs, which are many."""
    return {name: getattr(report, name) for name in report.__slots__ if name != "pos"}


def _events(po: PoReport, text: _Texts) -> Iterable[list[str | int]]:
    """Return a PO's history: each event as its time, its kind by number, its writer, and its columns and texts."""
    for event in po.events:
        cells = [text(part) for cell in event.cells.items() for part in cell]
        yield [event.ts, KINDS.index(event.kind), text(event.id.rpartition("-")[0]), *cells]


# --- the file ----------------------------------------------------------------------------------------------------


def _is_report(storage: Storage, path: str) -> bool:
    with storage.closing(storage.open_regular(path, os.O_RDONLY)) as fd:
        return _MARK in storage.pread(fd, _MARKED_BYTES, 0)
