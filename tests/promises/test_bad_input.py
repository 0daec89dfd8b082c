"""Bad input: refused with an error that says what, where and what next, and nothing on disk changes.

The tables run in this process; the last part runs the real command, for its exit codes and its standard error.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import read_csv, segment_of, tree

from eventcsv import (
    AppendError,
    BackupError,
    EventCsv,
    EventCsvError,
    InvalidCsv,
    InvalidEvent,
    Status,
    UnsafePath,
    UnsupportedFormat,
)
from eventcsv.errors import NoKeyColumn
from eventcsv.log.line import sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Action = Callable[[EventCsv], object]

GOOD = b"PO_NUMBER;STATUS;SUPPLIER\nPO1;;\nPO2;;\nPO3;;\n"
MIB = 1 << 20


def compact(job: EventCsv) -> object:
    return job.compact()


def replay(job: EventCsv) -> object:
    return job.replay()


def emit(job: EventCsv) -> object:
    return job.emit_result("PO3", Status.COMPLETED)


def history(job: EventCsv) -> object:
    return list(job.history("PO1"))


def named(action: Action) -> str:
    return str(getattr(action, "__name__", ""))


def job_on(path: Path, **options: Any) -> EventCsv:  # whatever EventCsv takes
    return EventCsv(path, durability="process", lock_timeout_s=10, **options)


def with_history(path: Path) -> EventCsv:
    """Make a CSV with a log, a backup and a checkpoint, and one result that is not folded yet."""
    path.write_bytes(GOOD)
    job = job_on(path)
    job.emit_result("PO1", Status.COMPLETED)
    job.compact()
    job.emit_result("PO2", Status.COMPLETED)
    job.close()
    return job_on(path)


def everything(folder: Path) -> dict[str, object]:
    """Return what stands in a folder: each name, what it is, and its content as far as it may be read."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            readable = os.access(path, os.R_OK)
            content = (status.st_mtime_ns, path.read_bytes() if readable else status.st_size)
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_ino, content)
    return found


def refused(folder: Path, error: type[Exception], action: Callable[[], object]) -> str:
    """Do what has to be refused; return the message, once it is clear that nothing changed."""
    before = everything(folder)
    with pytest.raises(error) as caught:
        action()
    assert type(caught.value) in {error, NoKeyColumn}
    assert before == everything(folder)
    return str(caught.value)


def assert_says(message: str, *parts: str) -> None:
    assert [] == [part for part in parts if part not in message], message


# --- CSVs that cannot be read without guessing -------------------------------------------------------------------

BAD_CSVS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "empty": (b"", ("is empty", "PO_NUMBER")),
    "blank": (b"\n  \n\r\n\t\n", ("is empty", "PO_NUMBER")),
    "byte order mark only": (b"\xef\xbb\xbf", ("is empty", "PO_NUMBER")),
    "no key column": (b"ORDER;STATUS\nPO1;\n", ("line 1", "no column 'PO_NUMBER'", "'ORDER', 'STATUS'", "--key")),
    "unknown delimiter": (b"PO_NUMBER^STATUS\nPO1^\n", ("line 1", "'PO_NUMBER^STATUS'", "--delimiter")),
    "no key column, all quoted": (
        b'"Bestellung";"Status"\nPO1;\n',
        ("line 1", "no column 'PO_NUMBER'", "'Bestellung', 'Status'", "--key"),
    ),
    "no key column, quotes broken further on": (b'"ORDER";"a" b;STATUS\nPO1;;\n', ("line 1", "closing quote", '"a" b')),
    "titles above the header": (b"Orders\n\n" + GOOD, ("line 1", "line 3 has it", "Remove the 2 lines above it")),
    "quoted title above a header with commas": (
        b'"Orders, ""May"""\n' + GOOD.replace(b";", b","),
        ("line 1", "line 2 has it", "Remove the line above it"),
    ),
    "blank line above the header": (b"\r\n" + GOOD, ("line 1", "is blank", "line 2 has it", "Remove the line")),
    "sep= of another delimiter": (b"sep=,\n" + GOOD, ("line 2", "no column 'PO_NUMBER'", "'PO_NUMBER;S", "--del")),
    "sep= and no more": (b"sep=;\n", ("line 2", "blank", "PO_NUMBER")),
    "sep= and titles": (b"sep=;\nOrders\n" + GOOD, ("line 2", "line 3 has it", "Remove the line above it")),
    "column twice": (b"PO_NUMBER;STATUS;STATUS\nPO1;;\n", ("line 1", "'STATUS' and 'STATUS'", "Rename")),
    "column twice, in another case": (b"PO_NUMBER;status; Status\nPO1;;\n", ("line 1", "'status' and ' Status'")),
    "key column twice": (b"PO_NUMBER;po_number\nPO1;\n", ("line 1", "'PO_NUMBER' and 'po_number'", "Rename")),
    "short row": (GOOD + b"PO4;\n", ("line 5", "2 instead of 3 cells", "PO4", "it lacks 1, which may be")),
    "long row": (GOOD + b"PO4;;a;b\n", ("line 5", "4 instead of 3 cells", "PO4", "quote the cell")),
    "short row after a cell of three lines": (GOOD + b'PO4;;"a\nb\nc"\nPO5\n', ("line 8", "1 instead of 3", "PO5")),
    "long row in CRLF": (GOOD.replace(b"\n", b"\r\n") + b"PO4;;;\r\n", ("line 5", "4 instead of 3 cells")),
    "unclosed quote": (GOOD + b'PO4;"open;\nPO5;;\n', ("line 5", "never closed", '"open;')),
    "unclosed quote in the header": (b'PO_NUMBER;"STATUS\nPO1;\n', ("line 1", "never closed", '"STATUS')),
    "text after a quote": (GOOD + b'PO4;"a" b;\n', ("line 5", "follows a closing quote", '"a" b', '""')),
    "lone carriage return": (GOOD + b"PO4;a\rb;\n", ("line 5", "carriage return", "quote the cell")),
    "UTF-16": (GOOD.decode().encode("utf-16"), ("UTF-16", "CSV UTF-8", "--encoding utf-16")),
    "UTF-16 without a mark": (GOOD.decode().encode("utf-16-le"), ("line 1", "UTF-16", "--encoding utf-16-le")),
    "UTF-16, high byte first": (GOOD.decode().encode("utf-16-be"), ("line 1", "UTF-16", "--encoding utf-16-be")),
    "cp1252": (GOOD + "PO4;;Dupré\n".encode("cp1252"), ("line 5", "0xe9", "UTF-8", "--encoding cp1252")),
    "several cells, one column": (b"PO_NUMBER\nPO1\nPO2,x\n", ("'PO2,x'", "one column", "--delimiter")),
}

bad_csvs = pytest.mark.parametrize(("data", "parts"), BAD_CSVS.values(), ids=list(BAD_CSVS))


@bad_csvs
@pytest.mark.parametrize("action", [compact, replay], ids=named)
def test_a_bad_csv_is_refused_before_anything_is_made(
    tmp_path: Path, action: Action, data: bytes, parts: tuple[str, ...]
) -> None:
    """The first compaction or replay of a bad CSV names the line and the remedy, and leaves no log beside it."""
    path = tmp_path / "input.csv"
    path.write_bytes(data)

    message = refused(tmp_path, InvalidCsv, lambda: action(job_on(path)))

    assert_says(message, str(path), *parts)
    assert ["input.csv"] == os.listdir(tmp_path)


@bad_csvs
def test_a_bad_edit_is_refused_and_its_mending_accepted(tmp_path: Path, data: bytes, parts: tuple[str, ...]) -> None:
    """A CSV that somebody broke while a job ran is left as it is; once it is mended, no result is missing."""
    path = tmp_path / "input.csv"
    job = with_history(path)
    mended = path.read_bytes()
    path.write_bytes(data)

    message = refused(tmp_path, InvalidCsv, job.compact)
    if "has no column" in message:  # it had one, so what is advised is not to look for another one
        parts = tuple("name it back" if part.startswith("--") else part for part in parts)
    assert_says(message, str(path), *parts, "have the CSV back as it was: eventcsv replay")

    path.write_bytes(mended)
    assert {"COMPLETED": 2, "": 1} == job.compact().by_status


SEP_LINES = [
    pytest.param(b"sep=;\n", b";", b"\n", id="as Excel writes it"),
    pytest.param(b"sep=;\r\n", b";", b"\r\n", id="CRLF"),
    pytest.param(b"\xef\xbb\xbfSEP=,\n", b",", b"\n", id="in capitals, after a byte order mark"),
    pytest.param(b'"sep=;";;\n', b";", b"\n", id="as a program saves it that takes it for a row"),
    pytest.param(b"sep=\t\n", b"\t", b"\n", id="a tab"),
    pytest.param(b"sep=^\n", b"^", b"\n", id="a delimiter that nobody would guess"),
]


@pytest.mark.parametrize(("line", "delimiter", "newline"), SEP_LINES)
def test_a_line_that_names_the_delimiter_is_believed_and_kept(
    tmp_path: Path, line: bytes, delimiter: bytes, newline: bytes
) -> None:
    """`sep=;` above the header is taken as Excel means it, from the first result to the CSV, and stays where it is."""
    path = tmp_path / "input.csv"
    plain = GOOD.replace(b";", delimiter).replace(b"\n", newline)
    path.write_bytes(line + plain)
    job = job_on(path)
    job.emit_result("PO1", "COMPLETED", last_processed="")
    assert {"COMPLETED": 1, "": 2} == job.compact().by_status
    assert path.read_bytes().startswith(line + plain.partition(newline)[0])

    path.write_bytes(path.read_bytes() + delimiter.join([b"PO9", b"", b"ACME", b""]) + newline)  # what people do
    assert ("PO9",) == getattr(job.compact().edit, "added", None)
    assert path.read_bytes().startswith(line)
    assert () == job.verify().findings


def test_a_delimiter_that_was_named_outdoes_the_line(tmp_path: Path) -> None:
    """Whoever says --delimiter knows better than a line that another program wrote."""
    path = tmp_path / "input.csv"
    path.write_bytes(b"sep=,\n" + GOOD)
    assert 3 == EventCsv(path, delimiter=";").compact().rows
    assert path.read_bytes() == b"sep=,\n" + GOOD


@pytest.mark.parametrize("data", [b"Orders of May\n" + GOOD, b'"Bestellung";"Status"\n', b"sep=;\nORDER;STATUS\n"])
def test_a_first_result_is_refused_in_the_words_of_a_compaction(tmp_path: Path, data: bytes) -> None:
    """What can never be folded is told at once, and the same way."""
    path = tmp_path / "input.csv"
    path.write_bytes(data)
    told = {refused(tmp_path, NoKeyColumn, action) for action in (lambda: emit(job_on(path)), job_on(path).compact)}
    assert 1 == len(told), told


def test_a_job_whose_backups_are_gone_is_not_advised_to_name_another_key(tmp_path: Path) -> None:
    """The log tells which column it has to be."""
    path = tmp_path / "input.csv"
    job = job_on(path)
    path.write_bytes(GOOD)
    job.emit_result("PO1", "COMPLETED")
    path.write_bytes(GOOD.replace(b"PO_NUMBER", b"PO NUMBER"))
    message = refused(tmp_path, NoKeyColumn, job.progress)
    assert_says(message, "has no column 'PO_NUMBER'; it has 'PO NUMBER', 'STATUS'", "The log is of that column")
    assert "--key" not in message


@bad_csvs
def test_a_replay_mends_a_bad_csv_and_keeps_it(tmp_path: Path, data: bytes, parts: tuple[str, ...]) -> None:
    """With a backup to start from, a replay needs no readable CSV; the bad one is kept as it was."""
    path = tmp_path / "input.csv"
    job = with_history(path)
    path.write_bytes(data)

    result = job.replay()

    assert parts
    assert {"COMPLETED": 2, "": 1} == result.by_status
    assert result.kept is not None
    assert data == Path(result.kept.path).read_bytes()


def test_the_advice_for_a_lone_column_works(tmp_path: Path) -> None:
    """Whichever delimiter the message tells to name, naming it in these words is accepted."""
    path = tmp_path / "input.csv"
    path.write_bytes(b"PO_NUMBER\t\nPO1\tx\n")
    message = refused(tmp_path, InvalidCsv, job_on(path).compact)
    assert_says(message, r"--delimiter '\t'")

    done = run(tmp_path, "compact", "input.csv", "--delimiter", r"\t")

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("action", [compact, replay, emit], ids=named)
def test_a_missing_csv_is_refused(tmp_path: Path, action: Action) -> None:
    """A mistyped path makes no log beside nothing."""
    path = tmp_path / "inptu.csv"

    message = refused(tmp_path, InvalidCsv, lambda: action(job_on(path)))

    assert_says(message, str(path), "no such file")


@pytest.mark.parametrize("action", [compact, replay, emit], ids=named)
def test_a_folder_in_the_place_of_a_csv_is_refused(tmp_path: Path, action: Action) -> None:
    """A folder is no CSV, and no log is made beside it."""
    path = tmp_path / "input"
    path.mkdir()

    message = refused(tmp_path, UnsafePath, lambda: action(job_on(path)))

    assert_says(message, str(path), "a directory")


@pytest.mark.parametrize("delimiter", ["", ";;", "é", '"', "\n", "\r"])
def test_a_bad_delimiter_is_refused(csv_path: Path, delimiter: str) -> None:
    """A delimiter is one ASCII character that is neither a quote nor a line end."""
    message = refused(csv_path.parent, InvalidCsv, job_on(csv_path, delimiter=delimiter).compact)

    assert_says(message, "delimiter", "one ASCII character", repr(delimiter))


@pytest.mark.parametrize(
    ("encoding", "parts"),
    [
        ("utf-99", ("no encoding 'utf-99'", "cp1252")),
        ("base64", ("no encoding 'base64'",)),
        ("rot13", ("no encoding 'rot13'",)),
        ("", ("no encoding ''",)),
        ("ascii", ("is not ascii", "0xc3", "Name the encoding")),
        ("utf-16", ("--key",)),
        ("utf-32", ("is not utf-32", "Name the encoding")),
    ],
)
def test_a_wrong_encoding_is_refused(tmp_path: Path, encoding: str, parts: tuple[str, ...]) -> None:
    """An encoding that does not exist, or in which the file makes no sense, is named in the error."""
    path = tmp_path / "input.csv"
    path.write_bytes("PO_NUMBER;SUPPLIER\nPO1;é\n".encode())

    message = refused(tmp_path, InvalidCsv, job_on(path, encoding=encoding).compact)

    assert_says(message, str(path), *parts)


@pytest.mark.parametrize("key", ["", " ", "\t"])
@pytest.mark.parametrize("action", [compact, emit], ids=named)
def test_a_key_column_without_a_name_is_refused(tmp_path: Path, action: Action, key: str) -> None:
    """The key column has to have a name, even where the CSV has a column without one."""
    path = tmp_path / "input.csv"
    path.write_bytes(b"PO_NUMBER;STATUS;\nPO1;;\n")
    before = everything(tmp_path)

    with pytest.raises((EventCsvError, ValueError), match="key"):
        action(job_on(path, key=key))

    assert before == everything(tmp_path)


# --- events of no row or no column -------------------------------------------------------------------------------

BAD_EVENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "status none": ({"status": None}, "status", "is required"),
    "status empty": ({"status": ""}, "status", "is required"),
    "status blank": ({"status": " \t\u00a0"}, "status", "is required"),
    "status NaN": ({"status": float("nan")}, "status", "is required"),
    "key none": ({"key": None}, "key", "missing, as None is"),
    "key NaN": ({"key": float("nan")}, "key", "missing, as nan is"),
    "key empty": ({"key": ""}, "key", "empty"),
    "key blank": ({"key": " \t\u00a0"}, "key", "empty"),
    "key of no bytes": ({"key": b""}, "key", "empty"),
    "key an empty list": ({"key": []}, "key", "empty"),
    "key with a newline": ({"key": "PO1\nPO2"}, "key", "U+000A at position 3"),
    "key with NUL": ({"key": "PO1\0"}, "key", "U+0000"),
    "key with an escape": ({"key": "\x1b[31mPO1"}, "key", "U+001B at position 0"),
    "key with DEL": ({"key": "PO\x7f1"}, "key", "U+007F"),
    "key with NEL": ({"key": "PO\x851"}, "key", "U+0085"),
    "key with a line separator": ({"key": "PO\u20281"}, "key", "U+2028"),
    "column's name empty": ({"columns": {"": "x"}}, "columns", "empty"),
    "column's name blank": ({"columns": {" \t": "x"}}, "columns", "empty"),
    "column's name a number": ({"columns": {7: "x"}}, "columns", "not 7, a int"),
    "column's name of bytes": ({"columns": {b"x": "x"}}, "columns", "not b'x'"),
    "column twice": ({"columns": {"STATUS": "ERROR"}}, "columns", "STATUS"),
    "column twice, in another case": ({"columns": {"Status": "ERROR"}}, "columns", "Status"),
    "column twice, other spaces": ({"columns": {"Note": "a", "note ": "b"}}, "columns", "note "),
    "column twice, by its keyword": (
        {"columns": {"attachment_names": "a", "AttachmentName": "b"}},
        "columns",
        "AttachmentName",
    ),
    "column twice, in pairs": ({"columns": [("Note", "a"), ("Note", "b")]}, "columns", "Note"),
    "key column": ({"columns": {"PO_NUMBER": "PO9"}}, "PO_NUMBER", "key column"),
    "key column in another case": ({"columns": {" po_number ": "PO9"}}, " po_number ", "key column"),
}

bad_events = pytest.mark.parametrize(("change", "at", "rule"), BAD_EVENTS.values(), ids=list(BAD_EVENTS))


def emitted(job: EventCsv, change: Mapping[str, Any]) -> object:
    """Emit a good result with something changed."""
    return job.emit_result(**{"key": "PO1", "status": "COMPLETED", **change})


@bad_events
def test_a_bad_event_is_refused_before_a_log_is_made(
    csv_path: Path, change: dict[str, Any], at: str, rule: str
) -> None:
    """The error names the field and the rule, and is short; there is not even an empty log afterwards."""
    job = job_on(csv_path)
    before = everything(csv_path.parent)

    with pytest.raises(InvalidEvent) as caught:
        emitted(job, change)

    assert before == everything(csv_path.parent)
    assert at == caught.value.field
    assert_says(caught.value.rule, rule)
    assert 500 > len(str(caught.value))


@bad_events
def test_a_job_goes_on_after_a_bad_event(tmp_path: Path, change: dict[str, Any], at: str, rule: str) -> None:
    """A refused event leaves no trace in a log that is there, and the next good one is recorded and folded."""
    path = tmp_path / "input.csv"
    job = with_history(path)

    message = refused(tmp_path, InvalidEvent, lambda: emitted(job, change))
    assert_says(message, at[:80], rule)

    job.emit_result("PO3", Status.ERROR, error_message="no such page")
    assert {"COMPLETED": 2, "ERROR": 1} == job.compact().by_status


# --- something else in the place of a file -----------------------------------------------------------------------


def plant_symlink(path: Path, original: Path) -> str:
    path.symlink_to(original)
    return "a symbolic link"


def plant_directory(path: Path, _original: Path) -> str:
    path.mkdir()
    (path / "precious.txt").write_text("somebody's work")
    return "a directory"


def plant_fifo(path: Path, _original: Path) -> str:
    os.mkfifo(path)
    return "a FIFO"


def plant_hard_link(path: Path, original: Path) -> str:
    path.hardlink_to(original)
    return "hard links"


@dataclass(frozen=True, slots=True)
class Place:
    """A path that eventcsv reads or writes, and who does.

    Attributes:
        name: Below the folder of the CSV.
        actions: What has to refuse a stranger there.
        exceptions: Strangers that may stand there.
    """

    name: str
    actions: tuple[Action, ...]
    exceptions: tuple[object, ...] = field(default=())


PLACES = (
    Place("input.csv", (compact, replay), exceptions=(plant_hard_link,)),
    Place(".input.csv.eventcsv.tmp", (compact, replay), exceptions=(plant_hard_link,)),
    Place("input.events", (compact, replay, emit, history), exceptions=(plant_directory, plant_hard_link)),
    Place("input.events/events-000001.jsonl", (compact, replay, history), exceptions=(plant_hard_link,)),
    Place("input.events/events-000001.jsonl", (emit,)),
    Place("input.events/events-000002.jsonl", (compact, replay, history), exceptions=(plant_hard_link,)),
    Place("input.events/events-000002.jsonl", (emit,)),
    Place("input.events/append.lock", (emit,)),
    Place("input.events/compact.lock", (compact, replay)),
    Place("input.events/checkpoint.json", (compact, replay), exceptions=(plant_hard_link,)),
    Place("input.events/checkpoint.json.tmp", (compact, replay), exceptions=(plant_hard_link,)),
)
PLANTS = (plant_symlink, plant_directory, plant_fifo, plant_hard_link)
PLANTED = [
    pytest.param(place.name, plant, action, id=f"{named(action)}-{place.name}-{plant.__name__.removeprefix('plant_')}")
    for place in PLACES
    for plant in PLANTS
    if plant not in place.exceptions
    for action in place.actions
]


@pytest.mark.parametrize(("name", "plant", "action"), PLANTED)
def test_a_stranger_in_the_place_of_a_file_is_refused(
    tmp_path: Path, name: str, plant: Callable[[Path, Path], str], action: Action
) -> None:
    """What eventcsv did not make is not followed, read, written or replaced; once it is gone, the work goes on."""
    folder, victims = tmp_path / "job", tmp_path / "victims"
    folder.mkdir()
    victims.mkdir()
    job = with_history(folder / "input.csv")
    path, original = folder / name, victims / "original"
    was_there = path.exists()
    if was_there:
        path.rename(original)
    else:
        original.write_text("somebody's work")
    what = plant(path, original)

    message = refused(tmp_path, AppendError if action is emit else UnsafePath, lambda: action(job))
    assert_says(message, str(path), what, "untouched")

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    if was_there:
        original.rename(path)
    action(job_on(folder / "input.csv"))
    assert 2 == job_on(folder / "input.csv").compact().by_status["COMPLETED"] - (action is emit)


def test_a_second_name_of_the_csv_keeps_the_old_content(tmp_path: Path) -> None:
    """A hard link to the CSV is somebody's copy of that moment: the CSV is replaced, never written into."""
    path = tmp_path / "input.csv"
    job = with_history(path)
    copy = tmp_path / "copy.csv"
    copy.hardlink_to(path)
    before = copy.read_bytes()

    assert job.compact().changed

    assert before == copy.read_bytes()
    assert ["COMPLETED", "COMPLETED", ""] == [row["STATUS"] for row in read_csv(path)]


def test_a_second_name_of_the_temporary_file_keeps_its_content(tmp_path: Path) -> None:
    """The name of the temporary file is ours, but what else its file is known by is not written into."""
    path = tmp_path / "input.csv"
    job = with_history(path)
    victim = tmp_path / "victim.txt"
    victim.write_text("somebody's work")
    (tmp_path / ".input.csv.eventcsv.tmp").hardlink_to(victim)

    job.compact()

    assert "somebody's work" == victim.read_text()
    assert ["COMPLETED", "COMPLETED", ""] == [row["STATUS"] for row in read_csv(path)]


@pytest.mark.parametrize("action", [compact, replay, emit], ids=named)
@pytest.mark.parametrize("there", ["symlink", "dangling symlink", "file"])
def test_a_first_log_is_not_made_through_a_stranger(csv_path: Path, action: Action, there: str) -> None:
    """Where the log's directory belongs, a link or a file is refused before anything is made."""
    folder = csv_path.parent
    log_dir = folder / "input.events"
    if there == "symlink":
        (folder / "elsewhere").mkdir()
    if there == "file":
        log_dir.write_text("somebody's work")
    else:
        log_dir.symlink_to(folder / "elsewhere")

    error = AppendError if action is emit else UnsafePath
    message = refused(folder, error, lambda: action(job_on(csv_path)))

    assert_says(message, str(log_dir), "untouched")


# --- logs and backups of another kind ----------------------------------------------------------------------------


def append_raw(job: EventCsv, line: bytes) -> None:
    with segment_of(job).open("ab") as file:
        file.write(line)


@pytest.mark.parametrize("action", [compact, replay, history], ids=named)
def test_a_line_of_a_newer_eventcsv_stops_the_work(tmp_path: Path, action: Action) -> None:
    """A line with a valid checksum and a higher version is no damage: the error says who made it, and where it is."""
    job = with_history(tmp_path / "input.csv")
    append_raw(
        job, sealed({"v": 2, "id": "x-00-1", "ts": "", "kind": "result", "key": "PO1", "set": {"STATUS": "COMPLETED"}})
    )

    message = refused(tmp_path, UnsupportedFormat, lambda: action(job))

    assert_says(message, "made by a newer eventcsv", "version 2", "Upgrade", "events-000001.jsonl")


@pytest.mark.parametrize("action", [compact, replay, emit, history], ids=named)
def test_a_segment_of_a_newer_eventcsv_stops_the_work(tmp_path: Path, action: Action) -> None:
    """The header of a newer eventcsv stops writers too: who knows what its readers expect."""
    path = tmp_path / "input.csv"
    job = with_history(path)
    segment = segment_of(job, 2)
    segment.write_bytes(
        sealed({"v": 2, "ts": "", "kind": "header", "log": "x", "segment": 2, "key_column": "PO_NUMBER"})
    )

    error = AppendError if action is emit else UnsupportedFormat
    message = refused(tmp_path, error, lambda: action(job))

    assert_says(message, "events-000002.jsonl", "made by a newer eventcsv", "version 2", "Upgrade")


def test_a_checkpoint_of_a_newer_eventcsv_stops_the_work(tmp_path: Path) -> None:
    """A checkpoint that may mean something else is not overwritten by an older eventcsv."""
    job = with_history(tmp_path / "input.csv")
    checkpoint = Path(job.log_dir) / "checkpoint.json"
    checkpoint.write_bytes(sealed({"v": 2}))

    message = refused(tmp_path, UnsupportedFormat, job.compact)

    assert_says(message, str(checkpoint), "made by a newer eventcsv", "Upgrade")


@pytest.mark.parametrize("action", [compact, replay, emit], ids=named)
def test_a_log_for_another_key_column_is_refused(tmp_path: Path, action: Action) -> None:
    """Results by PO mean nothing to rows that go by supplier; the error names the key column to give."""
    path = tmp_path / "input.csv"
    with_history(path)

    error = AppendError if action is emit else UnsupportedFormat
    message = refused(tmp_path, error, lambda: action(job_on(path, key="SUPPLIER")))

    assert_says(message, "events-000001.jsonl", "'PO_NUMBER'", "'SUPPLIER'", "--key")


def test_a_log_for_the_key_column_in_another_case_is_accepted(tmp_path: Path) -> None:
    """`po_number` is the column `PO_NUMBER` here as in the CSV."""
    path = tmp_path / "input.csv"
    with_history(path)

    with job_on(path, key=" po_number ") as job:
        emit(job)
        assert {"COMPLETED": 3} == job.compact().by_status


def damage_byte(backup: Path) -> None:
    data = bytearray(backup.read_bytes())
    data[len(data) // 2] ^= 1
    backup.write_bytes(data)


def cut_short(backup: Path) -> None:
    backup.write_bytes(backup.read_bytes()[:-1])


def remove(backup: Path) -> None:
    backup.unlink()


def damage_metadata(backup: Path) -> None:
    damage_byte(backup.with_suffix(".json"))


@pytest.mark.parametrize(
    ("damage", "what"),
    [(damage_byte, "damaged"), (cut_short, "damaged"), (remove, "gone"), (damage_metadata, "")],
    ids=["byte", "cut", "gone", "metadata"],
)
def test_a_replay_from_a_damaged_backup_is_refused(tmp_path: Path, damage: Callable[[Path], None], what: str) -> None:
    """A backup that is not what its metadata tells of is named and not used."""
    job = with_history(tmp_path / "input.csv")
    (backup,) = (tmp_path / "backup").glob("*.csv")
    damage(backup)

    message = refused(tmp_path, BackupError, lambda: job.replay(backup=backup.name))

    assert_says(message, backup.name, what)


@pytest.mark.parametrize("name", ["", "input.csv", "../input.csv", "input_20250101_000000_00000000.csv", "\ud800"])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
def test_a_replay_from_an_unknown_backup_is_refused(tmp_path: Path, *, name: str, is_first: bool) -> None:
    """The error names the backups that there are, and nothing is made for a name that is none."""
    path = tmp_path / "input.csv"
    path.write_bytes(GOOD)
    job = job_on(path) if is_first else with_history(path)
    known = [backup.name for backup in (tmp_path / "backup").glob("*.csv")] or ["none"]

    message = refused(tmp_path, BackupError, lambda: job.replay(backup=name))

    assert_says(message, str(tmp_path / "backup"), repr(name), *known)


# --- the real command --------------------------------------------------------------------------------------------

DROP_CAPABILITIES = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
for capability in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what makes root pass over permission bits
    libc.prctl(24, capability, 0, 0, 0)  # 24: PR_CAPBSET_DROP, which holds from the next exec on
os.execv(sys.argv[1], sys.argv[1:])
"""


def command(*args: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-m", "eventcsv", *args]


def started(folder: Path, line: list[str | bytes]) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("EVENTCSV_")}
    done = subprocess.run(
        line,
        cwd=folder,
        env={**plain, "COLUMNS": "400", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


def run(folder: Path, *args: str | bytes) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder."""
    return started(folder, command(*args))


@pytest.fixture
def run_bound(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command as somebody whom permission bits bind: as oneself, or as root without its powers."""
    prefix: list[str | bytes] = [sys.executable, "-c", DROP_CAPABILITIES] if os.geteuid() == 0 else []
    if prefix and sys.platform != "linux":
        pytest.skip("runs as root, whom permission bits do not bind here")
    probe = tmp_path / "probe"
    probe.touch(mode=0)
    reading = subprocess.run([*prefix, sys.executable, "-c", f"open({str(probe)!r})"], capture_output=True, check=False)
    probe.unlink()
    if reading.returncode == 0:
        pytest.skip("permission bits do not bind this user on this file system")
    return lambda folder, *args: started(folder, [*prefix, *command(*args)])


@dataclass(frozen=True, slots=True)
class Refusal:
    """A command line that has to be refused.

    Attributes:
        args: The command, the CSV and the rest.
        code: The exit code.
        parts: What standard error has to say.
        data: The CSV, or None when there is none.
    """

    args: tuple[str | bytes, ...]
    code: int
    parts: tuple[str, ...]
    data: bytes | None = GOOD


def emit_line(*rest: str | bytes, key: str | bytes = "PO1", status: str = "COMPLETED") -> tuple[str | bytes, ...]:
    return ("emit", "input.csv", key, status, *rest)


REFUSALS: dict[str, Refusal] = {
    "compact missing": Refusal(("compact", "input.csv"), 1, ("input.csv", "no such file"), data=None),
    "replay missing": Refusal(("replay", "input.csv"), 1, ("input.csv", "no such file"), data=None),
    "emit missing": Refusal(emit_line(), 1, ("input.csv", "no such file", "Check the path"), data=None),
    "history missing": Refusal(("history", "input.csv", "PO1"), 1, ("input.csv", "no such file"), data=None),
    "history of nothing": Refusal(("history", "input.csv", "PO9"), 1, ("input.events", "'PO9'")),
    "compact a folder": Refusal(("compact", "."), 1, ("a directory",), data=None),
    "compact empty": Refusal(("compact", "input.csv"), 1, ("input.csv", "is empty"), data=b""),
    "compact ragged": Refusal(("compact", "input.csv"), 1, ("line 5", "Mend the line"), data=GOOD + b"PO4\n"),
    "replay unclosed quote": Refusal(("replay", "input.csv"), 1, ("line 5", "never closed"), data=GOOD + b'PO4;"a;\n'),
    "compact UTF-16": Refusal(
        ("compact", "input.csv"), 1, ("UTF-16", "--encoding utf-16"), data=GOOD.decode().encode("utf-16")
    ),
    "compact cp1252": Refusal(("compact", "input.csv"), 1, ("line 5", "0xe9"), data=GOOD + b"PO4;;\xe9\n"),
    "compact other key": Refusal(("compact", "input.csv", "--key", "ORDER"), 1, ("line 1", "'ORDER'", "--key")),
    "compact no key": Refusal(("compact", "input.csv", "--key", ""), 2, ("key",), data=b"PO_NUMBER;\nPO1;\n"),
    "bad delimiter": Refusal(("compact", "input.csv", "--delimiter", ";;"), 2, ("delimiter", "one ASCII character")),
    "bad encoding": Refusal(("compact", "input.csv", "--encoding", "utf-99"), 2, ("utf-99", "cp1252")),
    "unknown backup": Refusal(("replay", "input.csv", "--backup", "b.csv"), 1, ("no backup", "b.csv", "none")),
    "unknown option": Refusal(("compact", "input.csv", "--fast"), 2, ("--fast",)),
    "unknown command": Refusal(("compress", "input.csv"), 2, ("compress",)),
    "no CSV": Refusal(("compact",), 2, ("CSV",)),
    "no status": Refusal(("emit", "input.csv", "PO1"), 2, ("STATUS",)),
    "bad log level": Refusal(("--log-level", "loud", "compact", "input.csv"), 2, ("--log-level", "loud")),
    "bad durability": Refusal(emit_line("--durability", "paper"), 2, ("--durability", "paper")),
    "status empty": Refusal(emit_line(status=""), 2, ("status", "is required", "Nothing was written")),
    "set without equals": Refusal(emit_line("--set", "SUPPLIER"), 2, ("--set", "COLUMN=TEXT", "SUPPLIER")),
    "set without column": Refusal(emit_line("--set", "=x"), 2, ("column", "empty")),
    "set the key column": Refusal(emit_line("--set", "PO_NUMBER=PO2"), 2, ("PO_NUMBER", "key column")),
    "set a column twice": Refusal(emit_line("--set", "Note=a", "--set", "Note=b"), 2, ("Note", "twice")),
    "key empty": Refusal(emit_line(key=""), 2, ("key", "empty")),
    "key with an escape": Refusal(emit_line(key="\x1b[31mPO1"), 2, ("key", "U+001B")),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=list(REFUSALS))
def test_the_command_refuses_and_changes_nothing(tmp_path: Path, refusal: Refusal) -> None:
    """The exit code tells used wrongly from failed, the reason is on standard error, and no traceback is."""
    if refusal.data is not None:
        (tmp_path / "input.csv").write_bytes(refusal.data)
    before = everything(tmp_path)

    done = run(tmp_path, *refusal.args)

    assert before == everything(tmp_path)
    assert (refusal.code, "") == (done.returncode, done.stdout)
    assert_says(done.stderr, *refusal.parts)
    assert not any(mark in done.stderr for mark in "\x1b\0\r")


def test_the_command_accepts_what_was_mended(tmp_path: Path) -> None:
    """After each refusal the right command works at once: nothing is left in the way."""
    path = tmp_path / "input.csv"
    path.write_bytes(GOOD + b"PO4\n")
    assert 1 == run(tmp_path, "compact", "input.csv").returncode
    path.write_bytes(GOOD + b"PO4;;\n")
    assert 2 == run(tmp_path, *emit_line(status=" ")).returncode
    assert 0 == run(tmp_path, *emit_line("--set", "ERROR_MESSAGE=no page", status="FAILED")).returncode

    done = run(tmp_path, "compact", "input.csv")

    assert (0, "") == (done.returncode, done.stderr)
    assert ["FAILED", "", "", ""] == [row["STATUS"] for row in read_csv(path)]


@pytest.mark.parametrize("args", [("compact", "input.csv"), ("replay", "input.csv")], ids=["compact", "replay"])
@pytest.mark.parametrize(
    ("mode", "parts"),
    [(0o000, ("input.csv", "ermission")), (0o444, ("input.csv", "read-only", "chmod u+w"))],
    ids=["unreadable", "read-only"],
)
def test_a_csv_that_may_not_be_read_or_written_is_left_alone(
    tmp_path: Path,
    run_bound: Callable[..., subprocess.CompletedProcess[str]],
    args: tuple[str, ...],
    mode: int,
    parts: tuple[str, ...],
) -> None:
    """Whoever took the permission from the CSV meant it; given back, the same command works."""
    path = tmp_path / "input.csv"
    path.write_bytes(GOOD)
    path.chmod(mode)
    before = everything(tmp_path)

    done = run_bound(tmp_path, *args)

    assert before == everything(tmp_path)
    assert (1, "") == (done.returncode, done.stdout)
    assert_says(done.stderr, *parts)

    path.chmod(0o600)
    assert GOOD == path.read_bytes()
    assert 0 == run_bound(tmp_path, *args).returncode


@pytest.mark.parametrize(
    "args", [("compact", "input.csv"), ("replay", "input.csv"), emit_line()], ids=["compact", "replay", "emit"]
)
def test_a_folder_that_may_not_be_written_is_left_alone(
    tmp_path: Path, run_bound: Callable[..., subprocess.CompletedProcess[str]], args: tuple[str, ...]
) -> None:
    """Where no log can be made, the command says which folder it is, and a result is not called recorded."""
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "input.csv").write_bytes(GOOD)
    folder.chmod(0o555)
    before = everything(folder)

    done = run_bound(folder, *args)

    assert before == everything(folder)
    assert (1, "") == (done.returncode, done.stdout)
    assert_says(done.stderr, str(folder), "Permission denied")
    folder.chmod(0o700)
    assert 0 == run_bound(folder, *args).returncode


def test_a_log_that_may_not_be_written_leaves_nothing_half_done(
    tmp_path: Path, run_bound: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """When the checkpoint cannot be written, the CSV stays the old one, and no temporary file stays beside it."""
    job = with_history(tmp_path / "input.csv")
    Path(job.log_dir).chmod(0o500)
    before = everything(tmp_path)

    done = run_bound(tmp_path, "compact", "input.csv")

    assert before == everything(tmp_path)
    assert (1, "") == (done.returncode, done.stdout)
    assert_says(done.stderr, "input.events", "Permission denied")
    Path(job.log_dir).chmod(0o700)
    assert 0 == run_bound(tmp_path, "compact", "input.csv").returncode


def test_the_command_names_a_stranger_and_leaves_it(tmp_path: Path) -> None:
    """A link in the place of the temporary file is refused with exit code 1, and what it points to stays."""
    with_history(tmp_path / "input.csv")
    victim = tmp_path / "victim.txt"
    victim.write_text("somebody's work")
    (tmp_path / ".input.csv.eventcsv.tmp").symlink_to(victim)
    before = tree(tmp_path)

    done = run(tmp_path, "compact", "input.csv")

    assert before == tree(tmp_path)
    assert (1, "") == (done.returncode, done.stdout)
    assert_says(done.stderr, ".input.csv.eventcsv.tmp", "a symbolic link", "untouched")


def test_the_command_names_a_newer_eventcsv(tmp_path: Path) -> None:
    """A log of a newer eventcsv is exit code 1 with the remedy, never exit code 3 for damage."""
    job = with_history(tmp_path / "input.csv")
    append_raw(job, sealed({"v": 2, "id": "x-00-1", "ts": "", "kind": "result", "key": "PO1", "set": {}}))
    before = everything(tmp_path)

    done = run(tmp_path, "compact", "input.csv")

    assert before == everything(tmp_path)
    assert (1, "") == (done.returncode, done.stdout)
    assert_says(done.stderr, "made by a newer eventcsv", "Upgrade")
