"""A CSV that cannot be read without guessing is refused with what, where and what next, and nothing on disk changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import job_on
from refusals import GOOD, assert_says, compact, emit, everything, named, refused, replay, run, with_history

from eventcsv import EventCsv, EventCsvError, InvalidCsv, UnsafePath
from eventcsv.errors import NoKeyColumn

if TYPE_CHECKING:
    from refusals import Action


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
@pytest.mark.parametrize("there", ["nothing", "a folder"])
def test_where_no_csv_is_no_log_is_made(tmp_path: Path, action: Action, there: str) -> None:
    """A mistyped path, or that of a folder, is named, and nothing is made beside it."""
    path = tmp_path / "inptu.csv"
    error, said = (InvalidCsv, "no such file") if there == "nothing" else (UnsafePath, "a directory")
    if there == "a folder":
        path.mkdir()

    message = refused(tmp_path, error, lambda: action(job_on(path)))

    assert_says(message, str(path), said)


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
