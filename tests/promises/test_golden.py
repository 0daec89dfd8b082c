"""The promise for ever: what version 1 of the format wrote is read, resumed, replayed and restored by later ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from conftest import checkpoint_of, read_csv, tree

from eventcsv import EventCsv, UnsupportedFormat
from eventcsv.log.line import sealed, unsealed

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN: Final = Path(__file__).parents[1] / "data" / "v1"
BACKUPS: Final = tuple(sorted(path.name for path in GOLDEN.glob("backup/*.csv")))


@pytest.fixture
def golden(tmp_path: Path) -> EventCsv:
    """The job in another folder; nothing in it depends on where it was made."""
    shutil.copytree(GOLDEN, tmp_path / "job")
    for path in (tmp_path / "job").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return EventCsv(tmp_path / "job/input.csv", backup_dir=tmp_path / "job/backup")


def test_it_is_resumed(golden: EventCsv) -> None:
    """The checkpoint is believed: only what was not folded is, and nothing is taken for an edit."""
    result = golden.compact()
    assert (None, False, 1, ()) == (result.rebuilt, result.edited, result.events, result.damage)
    rows = {row["PO_NUMBER"]: row for row in read_csv(Path(golden.csv_path))}
    assert ("NOT_FOUND", "not folded yet", "007") == (
        rows["PO15000006"]["STATUS"],
        rows["PO15000006"]["note"],
        rows["PO15000006"]["SUPPLIER"],
    )
    assert ("PARTIAL", "its row comes late", "added") == tuple(
        rows["PO99"][name] for name in ("STATUS", "note", "SUPPLIER")
    )
    assert ("COMPLETED", "") == (rows["PO15000002"]["STATUS"], rows["PO15000002"]["ERROR_MESSAGE"])
    assert ("'=HYPERLINK(1)", "'+5") == (rows["PO15000003"]["note"], rows["PO15000003"]["Größe"])
    assert 'Müller & Söhne "GmbH"; Köln' == rows["PO15000001"]["SUPPLIER"]
    assert "geändert" == rows["PO15000008"]["Bemerkung"]
    assert ["PO15000004"] == [item.key for item in result.in_flight]


def test_it_is_replayed_to_the_same_bytes(golden: EventCsv) -> None:
    """With and without the checkpoint, and with the CSV gone."""
    golden.compact()
    view = Path(golden.csv_path).read_bytes()
    assert view.startswith(b"\xef\xbb\xbf")
    assert not golden.replay().changed
    checkpoint_of(golden).unlink()
    Path(golden.csv_path).unlink()
    assert EventCsv(golden.csv_path, backup_dir=golden.backup_dir).compact().rebuilt
    assert view == Path(golden.csv_path).read_bytes()


def test_what_the_log_saw_is_told(golden: EventCsv) -> None:
    """The history, and the two torn lines: one was healed by an append, one is noted by a seal."""
    events = [(event.kind, event.cells.get("STATUS")) for event in golden.history("PO15000002")]
    assert [("result", "ERROR"), ("result", "COMPLETED")] == events
    report = golden.verify()
    assert ["events-000001.jsonl"] == [
        finding.place.rpartition("/")[2].partition(",")[0] for finding in report.findings
    ]
    assert ["events-000002.jsonl"] == [item.segment for item in report.torn]
    assert (len(BACKUPS), 3) == (report.backups, report.segments)


@pytest.mark.parametrize("name", BACKUPS)
@pytest.mark.parametrize("replay", [True, False])
def test_every_backup_can_be_restored(golden: EventCsv, name: str, replay: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """With the log after it, which gives the results of today, and without."""
    golden.compact()
    today = {row["PO_NUMBER"]: row["STATUS"] for row in read_csv(Path(golden.csv_path))}
    golden.restore(name, replay=replay)
    if replay:
        rows = read_csv(Path(golden.csv_path))
        assert len(rows) >= 8
        assert [today[row["PO_NUMBER"]] for row in rows] == [row["STATUS"] for row in rows]
    else:
        assert (GOLDEN / "backup" / name).read_bytes() == Path(golden.csv_path).read_bytes()


def _newer(path: Path) -> None:
    first, newline, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(sealed({**_without_crc(unsealed(first)), "v": 2}).rstrip(b"\n") + newline + rest)


def _without_crc(record: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in record.items() if name != "crc"}


@pytest.mark.parametrize(
    "action", [EventCsv.compact, EventCsv.replay, EventCsv.pending, EventCsv.verify, EventCsv.back_up, EventCsv.prune]
)
@pytest.mark.parametrize(
    "pattern", ["input.events/events-000001.jsonl", "input.events/checkpoint.json", "backup/*.json"]
)
def test_a_newer_format_is_refused(golden: EventCsv, pattern: str, action: Callable[[EventCsv], object]) -> None:
    """The file is named, and nothing is changed."""
    folder = Path(golden.csv_path).parent
    newer = max(folder.glob(pattern))
    _newer(newer)
    before = {name: data for name, data in tree(folder).items() if not name.endswith(".lock")}
    with pytest.raises(UnsupportedFormat, match=newer.name):
        action(golden)
    assert before == {name: data for name, data in tree(folder).items() if not name.endswith(".lock")}
