"""CSVs as people have them: results get in, and every byte that no result touches stays as it was.

The files are in tests/data/shapes. What they have to become is worked out here by a reader of its own, one character
after the other, and read back with Python's csv module; eventcsv's own reader judges nothing.
"""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import checkpoint_of, job_on

from eventcsv import CompactResult, EventCsv, Status

SHAPES = Path(__file__).parents[1] / "data" / "shapes"
WHEN = "2025-10-02T12:43:11Z"
BOM = b"\xef\xbb\xbf"
FIRST, SECOND, THIRD = "PO15262984", "PO15263325", "PO15264001"
MESSAGE = 'said "not found";\nretry, later\t| or ^never'

RESULTS: dict[str, dict[str, str]] = {
    FIRST: {
        "STATUS": "COMPLETED",
        "ATTACHMENTS_FOUND": "2",
        "ATTACHMENTS_DOWNLOADED": "2",
        "AttachmentName": "a.pdf;b, c.pdf",
        "LAST_PROCESSED": WHEN,
    },
    SECOND: {"STATUS": "FAILED", "LAST_PROCESSED": WHEN, "ERROR_MESSAGE": MESSAGE},
    THIRD: {
        "STATUS": "PARTIAL",
        "ATTACHMENTS_FOUND": "3",
        "ATTACHMENTS_DOWNLOADED": "1",
        "LAST_PROCESSED": WHEN,
        "Batch Note": "später",
    },
}
"""What `emit` records, as the text of cells. A CSV gets the columns that it lacks in this order."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A CSV under tests/data/shapes.

    Attributes:
        name: Of the file, without ".csv".
        delimiter: What stands between its cells.
        encoding: How to read it here.
        quotes_all: Whether results are quoted, needed or not, as the header is.
        options: What EventCsv has to be told on the first compaction.
    """

    name: str
    delimiter: str = ";"
    encoding: str = "utf-8"
    quotes_all: bool = False
    options: dict[str, str] = field(default_factory=dict)

    def copied_to(self, folder: Path) -> Path:
        """Return the path of a copy."""
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(SHAPES / f"{self.name}.csv", folder / "input.csv"))


PLAIN = [
    Shape("keys_only"),
    Shape("keys_only_crlf_no_final_newline"),
    Shape("keys_only_with_commas", options={"delimiter": ";"}),
    Shape("semicolon"),
    Shape("comma", delimiter=","),
    Shape("tab", delimiter="\t"),
    Shape("pipe", delimiter="|"),
    Shape("caret", delimiter="^", options={"delimiter": "^"}),
    Shape("bom"),
    Shape("bom_crlf_all_quoted", delimiter=",", quotes_all=True),
    Shape("crlf"),
    Shape("cr"),
    Shape("no_final_newline"),
    Shape("no_final_newline_last_row_touched"),
    Shape("last_cell_empty_and_no_final_newline"),
    Shape("lower_case_headers"),
    Shape("key_in_the_middle"),
    Shape("earlier_results"),
    Shape("one_po_on_several_rows"),
    Shape("keys_with_spaces"),
    Shape("supplier_names"),
    Shape("all_quoted", quotes_all=True),
    Shape("header_quoted_rows_not", quotes_all=True),
    Shape("quoted_without_need"),
    Shape("bare_quotes"),
    Shape("values_that_look_like_others"),
    Shape("odd_characters"),
    Shape("empty_quoted_and_bare"),
    Shape("blank_lines"),
    Shape("columns_without_a_name"),
    Shape("fourteen_columns"),
]
CONVERTED = [
    Shape("cp1252", encoding="cp1252", options={"encoding": "cp1252"}),
    Shape("utf16", encoding="utf-16", options={"encoding": "utf-16"}),
    Shape("utf16_no_bom", encoding="utf-16-le", options={"encoding": "utf-16-le"}),
]
EMPTY = [Shape("header_only"), Shape("header_only_no_newline")]

every_shape = pytest.mark.parametrize("shape", [*PLAIN, *CONVERTED], ids=lambda shape: shape.name)
plain_shapes = pytest.mark.parametrize("shape", [*PLAIN, *EMPTY], ids=lambda shape: shape.name)
converted_shapes = pytest.mark.parametrize("shape", CONVERTED, ids=lambda shape: shape.name)


# --- a job -------------------------------------------------------------------------------------------------------


def emit(job: EventCsv, key: str) -> None:
    """Record the result of one of the three POs of `RESULTS`."""
    if key == FIRST:
        names = ["a.pdf", "b, c.pdf"]
        job.emit_result(
            key,
            Status.COMPLETED,
            attachments_found=2,
            attachments_downloaded=2,
            attachment_names=names,
            last_processed=WHEN,
        )
    elif key == SECOND:
        job.emit_result(key, Status.FAILED, error_message=MESSAGE, last_processed=WHEN)
    else:
        job.emit_result(
            key,
            Status.PARTIAL,
            attachments_found=3,
            attachments_downloaded=1,
            last_processed=WHEN,
            columns={"Batch Note": "später"},
        )


def emit_all(job: EventCsv) -> None:
    for key in RESULTS:
        emit(job, key)


def compacted(path: Path, shape: Shape) -> CompactResult:
    """Record all results in a CSV of this shape and fold them."""
    with job_on(path, **shape.options) as job:
        emit_all(job)
        return job.compact()


# --- what it has to become ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in the file: the bytes of its cells, quotes included, and what ends it."""

    cells: tuple[str, ...]
    end: str


def rows_of(text: str, delimiter: str) -> list[Row]:
    """Cut a CSV into its rows and raw cells. Blank lines, which are no rows, are left out."""
    rows: list[Row] = []
    cells: list[str] = []
    cell = ""
    at = 0
    while at < len(text):
        if text[at] == '"' and not cell:
            end = at + 1
            while text[end : end + 2] == '""' or text[end] != '"':
                end += 2 if text[end] == '"' else 1
            cell, at = text[at : end + 1], end + 1
        elif text[at] == delimiter:
            cells.append(cell)
            cell, at = "", at + 1
        elif text[at] in "\r\n":
            end_of_row = "\r\n" if text[at : at + 2] == "\r\n" else text[at]
            rows.append(Row((*cells, cell), end_of_row))
            cells, cell, at = [], "", at + len(end_of_row)
        else:
            cell, at = cell + text[at], at + 1
    if cells or cell:
        rows.append(Row((*cells, cell), ""))
    return [row for row in rows if row.cells != ("",)]


def text_of(raw: str) -> str:
    return raw[1:-1].replace('""', '"') if raw.startswith('"') else raw


def raw_of(text: str, shape: Shape) -> str:
    if shape.quotes_all or any(mark in text for mark in (*";,\t|", shape.delimiter, '"', "\r", "\n")):
        return '"' + text.replace('"', '""') + '"'
    return text


def alike(name: str) -> str:
    """Return what two spellings of a column's name have in common."""
    return name.strip().lower()


def what_it_becomes(before: bytes, shape: Shape) -> bytes:
    """Return the bytes that a CSV has to have once all of `RESULTS` are folded onto it."""
    header, *rows = rows_of(before.decode(shape.encoding).removeprefix("\ufeff"), shape.delimiter)
    names = [alike(text_of(cell)) for cell in header.cells]
    set_names = dict.fromkeys(name for cells in RESULTS.values() for name in cells)
    added = [name for name in set_names if alike(name) not in names]
    names += [alike(name) for name in added]
    lines = [Row((*header.cells, *(raw_of(name, shape) for name in added)), header.end)]
    for row in rows:
        cells = [*row.cells, *([raw_of("", shape)] * len(added))]
        for name, text in RESULTS.get(text_of(cells[names.index("po_number")]).strip(), {}).items():
            cells[names.index(alike(name))] = raw_of(text, shape)
        lines.append(Row(tuple(cells), row.end))
    has_bom = before.startswith(BOM) or shape.encoding != "utf-8"
    text = "".join(shape.delimiter.join(line.cells) + line.end for line in lines)
    return (BOM if has_bom else b"") + text.encode()


def is_touched(row: Row) -> bool:
    return any(text_of(cell).strip() in RESULTS for cell in row.cells)


def table_of(data: bytes, delimiter: str) -> list[list[str]]:
    """Return a CSV as Python's csv module reads it, blank lines left out."""
    text = io.StringIO(data.decode("utf-8-sig"), newline="")
    return [row for row in csv.reader(text, delimiter=delimiter) if row]


# --- every shape -------------------------------------------------------------------------------------------------


@every_shape
def test_results_get_in_and_every_other_byte_stays(tmp_path: Path, shape: Shape) -> None:
    """The whole file is what it was, but for the cells of three POs and the columns that were missing."""
    path = shape.copied_to(tmp_path)
    before = path.read_bytes()

    result = compacted(path, shape)

    assert what_it_becomes(before, shape) == path.read_bytes()
    assert (3, {}, ()) == (result.events, result.unknown, result.damage)


@every_shape
def test_the_csv_module_reads_each_result_in_its_row(tmp_path: Path, shape: Shape) -> None:
    """For another reader of CSVs, each cell of a result holds its exact text, on each row of its PO."""
    path = shape.copied_to(tmp_path)

    compacted(path, shape)

    header, *rows = table_of(path.read_bytes(), shape.delimiter)
    names = [alike(name) for name in header]
    key_at = names.index("po_number")
    assert {len(header)} == {len(row) for row in rows}
    found = [(row[key_at].strip(), row) for row in rows if row[key_at].strip() in RESULTS]
    for key, row in found:
        assert RESULTS[key] == {name: row[names.index(alike(name))] for name in RESULTS[key]}
    assert RESULTS.keys() == {key for key, _ in found}


@every_shape
def test_untouched_rows_are_the_same_line_by_line(tmp_path: Path, shape: Shape) -> None:
    """Each row of the other POs is in the new file as the very bytes that it was, then its new empty cells."""
    path = shape.copied_to(tmp_path)
    before = rows_of(path.read_bytes().decode(shape.encoding).removeprefix("\ufeff"), shape.delimiter)

    result = compacted(path, shape)

    after = rows_of(path.read_bytes().decode("utf-8-sig"), shape.delimiter)
    new_cells = ('""' if shape.quotes_all else "",) * len(result.added_columns)
    untouched = [Row((*row.cells, *new_cells), row.end) for row in before[1:] if not is_touched(row)]
    assert untouched
    assert untouched == [row for row in after[1:] if not is_touched(row)]


@every_shape
def test_replay_gives_the_same_bytes(tmp_path: Path, shape: Shape) -> None:
    """A replay needs no options and ends in the bytes of the compaction; so does a compaction after any loss."""
    path = shape.copied_to(tmp_path)
    compacted(path, shape)
    expected = path.read_bytes()

    with job_on(path) as job:
        assert not job.replay().changed
        assert expected == path.read_bytes()

        path.unlink()
        job.compact()
        assert expected == path.read_bytes()

        checkpoint_of(job).unlink()
        path.unlink()
        job.replay()
        assert expected == path.read_bytes()


@every_shape
def test_compacting_after_each_result_gives_the_same_bytes(tmp_path: Path, shape: Shape) -> None:
    """The CSV does not depend on when it was compacted: not on how often, nor by how many processes."""
    at_once, step_by_step = shape.copied_to(tmp_path / "once"), shape.copied_to(tmp_path / "steps")
    compacted(at_once, shape)

    job_on(step_by_step, **shape.options).compact()
    for key in RESULTS:
        with job_on(step_by_step) as job:
            emit(job, key)
            job.compact()

    assert at_once.read_bytes() == step_by_step.read_bytes()


@plain_shapes
def test_nothing_to_fold_leaves_the_very_file(tmp_path: Path, shape: Shape) -> None:
    """A compaction or a replay without results does not write the CSV, however it is written."""
    path = shape.copied_to(tmp_path)
    before, inode = path.read_bytes(), path.stat().st_ino

    with job_on(path, **shape.options) as job:
        assert not job.compact().changed
        assert not job.compact().changed
        assert not job.replay().changed

    assert (before, inode) == (path.read_bytes(), path.stat().st_ino)


@every_shape
def test_setting_a_cell_to_what_it_held_gives_back_the_same_rows(tmp_path: Path, shape: Shape) -> None:
    """Results that are folded twice change nothing the second time."""
    path = shape.copied_to(tmp_path)
    compacted(path, shape)
    expected = path.read_bytes()

    with job_on(path) as job:
        emit_all(job)
        result = job.compact()

    assert (3, False) == (result.events, result.changed)
    assert expected == path.read_bytes()


# --- shapes spelled out ------------------------------------------------------------------------------------------


def test_a_csv_of_keys_gets_its_columns_at_the_right(tmp_path: Path) -> None:
    """One column grows by what the results set, with semicolons, and rows without a result get empty cells."""
    path = tmp_path / "input.csv"
    path.write_bytes(b"PO_NUMBER\nPO1\nPO2\nPO3\n")

    with job_on(path) as job:
        job.emit_result("PO3", Status.ERROR, error_message="no page", last_processed=WHEN)
        job.emit_result("PO1", Status.COMPLETED, attachments_found=0, last_processed=WHEN, columns={"Z": "1", "A": "2"})
        result = job.compact()

    added = ("STATUS", "LAST_PROCESSED", "ERROR_MESSAGE", "ATTACHMENTS_FOUND", "A", "Z")
    assert added == result.added_columns
    assert (
        b"PO_NUMBER;STATUS;LAST_PROCESSED;ERROR_MESSAGE;ATTACHMENTS_FOUND;A;Z\n"
        b"PO1;COMPLETED;2025-10-02T12:43:11Z;;0;2;1\n"
        b"PO2;;;;;;\n"
        b"PO3;ERROR;2025-10-02T12:43:11Z;no page;;;\n"
    ) == path.read_bytes()


def test_a_column_keeps_its_spelling_and_is_not_added_again(tmp_path: Path) -> None:
    """The columns ` po_number `, `status` and `Last_Processed` are those that a result means."""
    path = tmp_path / "input.csv"
    path.write_bytes(b" po_number ;status;Last_Processed\nPO1;pending;2025-07-28 12:43:11\nPO2;;\n")

    with job_on(path) as job:
        job.emit_result("PO1", Status.COMPLETED, last_processed=WHEN)
        result = job.compact()

    assert () == result.added_columns
    assert {"": 1, "COMPLETED": 1} == result.by_status
    assert b" po_number ;status;Last_Processed\nPO1;COMPLETED;2025-10-02T12:43:11Z\nPO2;;\n" == path.read_bytes()


def test_a_key_with_spaces_is_found_from_either_side(tmp_path: Path) -> None:
    """Spaces around a key count neither in the CSV, whose cell keeps them, nor in a result."""
    path = tmp_path / "input.csv"
    path.write_bytes(b'PO_NUMBER;STATUS\n PO1 ;\n"  PO2";\nPO3;\nPO 4;\n')

    with job_on(path) as job:
        for key in ("PO1", "PO2 ", "  PO3 ", "PO 4"):
            job.emit_result(key, "TIMEOUT", last_processed="")
        result = job.compact()

    assert {} == result.unknown
    assert (
        b'PO_NUMBER;STATUS;LAST_PROCESSED\n PO1 ;TIMEOUT;\n"  PO2";TIMEOUT;\nPO3;TIMEOUT;\nPO 4;TIMEOUT;\n'
        == path.read_bytes()
    )


def test_leading_zeros_of_a_key_count(tmp_path: Path) -> None:
    """7, 07 and 007 are three POs; 7.0 is none of them."""
    path = tmp_path / "input.csv"
    path.write_bytes(b"PO_NUMBER;STATUS\n7;\n07;\n007;\n")

    with job_on(path) as job:
        job.emit_result("07", Status.COMPLETED, last_processed="")
        job.emit_result("7.0", Status.COMPLETED, last_processed="")
        result = job.compact()

    assert {"7.0": 1} == result.unknown
    assert b"PO_NUMBER;STATUS;LAST_PROCESSED\n7;;\n07;COMPLETED;\n007;;\n" == path.read_bytes()


@pytest.mark.parametrize("shape", EMPTY, ids=lambda shape: shape.name)
def test_a_header_without_rows_stays_and_results_are_reported(tmp_path: Path, shape: Shape) -> None:
    """Results for a CSV without rows are counted and reported, and the CSV stays; rows that come later take results."""
    path = shape.copied_to(tmp_path)
    before = path.read_bytes()

    with job_on(path) as job:
        emit_all(job)
        result = job.compact()
        assert dict.fromkeys(sorted(RESULTS), 1) == result.unknown
        assert (0, {}, False) == (result.rows, result.by_status, result.changed)
        assert before == path.read_bytes()

        path.write_bytes(before.rstrip(b"\n") + f"\n{FIRST};;Alder\n".encode())
        emit(job, FIRST)
        assert {"COMPLETED": 1} == job.compact().by_status


@converted_shapes
def test_a_converted_csv_needs_its_encoding_only_once(tmp_path: Path, shape: Shape) -> None:
    """The CSV becomes UTF-8 with a byte order mark at the first compaction, and every later one reads it as such."""
    path = shape.copied_to(tmp_path)
    text = path.read_bytes().decode(shape.encoding).removeprefix("\ufeff")

    assert job_on(path, **shape.options).compact().changed
    assert BOM + text.encode() == path.read_bytes()

    with job_on(path) as job:
        emit_all(job)
        job.compact()
    assert what_it_becomes((SHAPES / f"{shape.name}.csv").read_bytes(), shape) == path.read_bytes()

    assert not job_on(path, **shape.options).compact().changed  # still told so, as a script would


def test_a_delimiter_is_remembered(tmp_path: Path) -> None:
    """A delimiter that was named once is known to later compactions and replays, the CSV edited or gone included."""
    shape = next(shape for shape in PLAIN if shape.name == "caret")
    path = shape.copied_to(tmp_path)
    job_on(path, delimiter="^").compact()

    with job_on(path) as job:
        emit(job, FIRST)
        job.compact()
        edited = path.read_bytes() + b"PO15264300^^Elm^^^^\n"
        path.write_bytes(edited)
        assert job.compact().edited
        emit(job, SECOND)
        job.compact()
        by_hand = path.read_bytes()

        path.unlink()
        job.compact()
        assert by_hand == path.read_bytes()

        assert not job.replay().changed
    assert b"^COMPLETED^" in by_hand
    assert b"PO15264300^^Elm^^" in by_hand
