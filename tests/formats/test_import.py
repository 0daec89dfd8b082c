"""The promise: a list that lives in Excel becomes the CSV of a new job, with the texts that one sees there."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import xlsxwriter
from command_line import run
from conftest import read_csv, tree

from eventcsv import EventCsv, InvalidWorkbook, UnsafePath

TITLE: list[object] = ["PO_NUMBER", "NOTE"]


def workbook(
    path: Path, rows: list[list[object]], *, formats: dict[str, str] | None = None, sheet: str = "POs"
) -> Path:
    """Write a workbook with openpyxl; `formats` are number formats by cell."""
    book = openpyxl.Workbook()
    book.active.title = sheet
    for row in rows:
        book.active.append(row)
    for place, number_format in (formats or {}).items():
        book.active[place].number_format = number_format
    book.save(path)
    return path


@pytest.fixture
def target(tmp_path: Path) -> EventCsv:
    """A job that does not exist yet."""
    return EventCsv(tmp_path / "po.csv", durability="process")


@pytest.mark.parametrize(
    ("value", "number_format", "text"),
    [
        ("007", "General", "007"),
        ("=not a formula", "@", "=not a formula"),
        (" a\nb ", "General", " a\nb "),
        (4711, "General", "4711"),
        (4711.0, "0.00", "4711"),
        (123, "0000000", "0000123"),
        (4711, "[$-407]0000000000", "0000004711"),  # as LibreOffice writes it
        (4711, "0000000000;@", "0000004711"),
        (4711, "[Black]00000", "04711"),
        (4711, "00000_-", "04711"),
        (4711, '"PO"00000', "PO04711"),
        (4711, "000\\-0000", "000-4711"),
        (1234567890, "000\\-0000", "123456-7890"),
        (4711, '"PO-"0', "PO-4711"),
        (4711, "00000;-00000;00", "04711"),
        (-4711, "00000;-00000;00", "-04711"),
        (-4711, "00000", "-04711"),
        (0, "00000;-00000;00", "00"),
        (0, "000", "000"),
        (12, "##\\-00#", "-012"),
        (4711.5, "00000", "4711.5"),
        (4711, "000.00", "4711"),
        (5, "#,##0", "5"),
        (5, '0 "pcs"', "5"),
        (5, "[$EUR-407] 0.00;[Red]-[$EUR-407] 0.00", "5"),
        (5, "[>100]0;0.0", "5"),
        (0.1 + 0.2, "General", "0.3"),
        (-1.5, "General", "-1.5"),
        (1e-7, "General", "0.0000001"),
        (123456789012345, "General", "123456789012345"),
        (0.5, "0%", "0.5"),
        (True, "General", "TRUE"),
        (date(2025, 10, 2), "dd.mm.yyyy", "2025-10-02"),
        (date(2025, 10, 2), "DD.MM.YYYY", "2025-10-02"),  # as LibreOffice writes it
        (datetime(2025, 10, 2, 12, 43, 11, tzinfo=UTC).replace(tzinfo=None), "yyyy-mm-dd hh:mm", "2025-10-02T12:43:11"),
        (datetime(2025, 10, 2, tzinfo=UTC).replace(tzinfo=None), "yyyy-mm-dd hh:mm", "2025-10-02T00:00:00"),
        (time(12, 43), "hh:mm", "12:43:00"),
        (timedelta(hours=26, minutes=30), "[h]:mm", "26:30:00"),
        ("#N/A is a text", "General", "#N/A is a text"),
    ],
)
def test_a_cell_becomes_its_text(
    tmp_path: Path, target: EventCsv, value: object, number_format: str, text: str
) -> None:
    """Text stays, numbers have no needless digits, dates are ISO 8601, zeros that a format shows are there."""
    path = tmp_path / "in.xlsx"
    book = openpyxl.Workbook()
    book.active.append(TITLE)
    book.active.append(["PO1", value])
    book.active["B2"].number_format = number_format
    if isinstance(value, str):
        book.active["B2"].data_type = "s"
    book.save(path)
    target.import_workbook(path)
    assert [{"PO_NUMBER": "PO1", "NOTE": text}] == read_csv(tmp_path / "po.csv")


def test_the_csv_begins_a_job(tmp_path: Path) -> None:
    """It is what the other commands work on, and what Excel opens: semicolons, UTF-8, a byte order mark."""
    workbook(tmp_path / "in.xlsx", [TITLE, ["PO1", "Märta; 1"], [4711, None]])
    done = run("import", tmp_path / "in.xlsx", tmp_path / "po.csv", "--json")
    assert (0, "") == (done.returncode, done.stderr)
    assert (2, 2, "POs") == tuple(json.loads(done.stdout)[name] for name in ("rows", "columns", "sheet"))
    assert '\ufeffPO_NUMBER;NOTE\nPO1;"Märta; 1"\n4711;\n'.encode() == (tmp_path / "po.csv").read_bytes()
    assert 0 == run("emit", tmp_path / "po.csv", "4711", "COMPLETED").returncode
    assert 0 == run("compact", tmp_path / "po.csv").returncode
    assert "COMPLETED" == read_csv(tmp_path / "po.csv")[1]["STATUS"]


def test_the_header_is_found(tmp_path: Path, target: EventCsv) -> None:
    """A title above it, blank rows and columns and the case of the key's name do not matter."""
    rows: list[list[object]] = [["Open orders"], [], [None, "po_number ", "NOTE", None], [], [None, "PO1", "a", None]]
    result = target.import_workbook(workbook(tmp_path / "in.xlsx", rows))
    assert (3, 1) == (result.header_row, result.rows)
    assert [{"": "", "po_number ": "PO1", "NOTE": "a"}] == read_csv(tmp_path / "po.csv")


def test_what_was_exported_comes_in_again(tmp_path: Path) -> None:
    """Also a cell with a carriage return, which stands in the CSV between quotes."""
    first = EventCsv(tmp_path / "first.csv", durability="process")
    (tmp_path / "first.csv").write_text("PO_NUMBER;STATUS\nPO1;\n")
    first.emit_result("PO1", "COMPLETED", columns={"N": "a\rb", "M": 'say "x"; y'})
    first.compact()
    first.export(tmp_path / "out.xlsx")
    EventCsv(tmp_path / "second.csv").import_workbook(tmp_path / "out.xlsx")
    assert read_csv(tmp_path / "first.csv") == read_csv(tmp_path / "second.csv")


def test_odd_keys_are_told(tmp_path: Path) -> None:
    """Rows without a key, keys on several rows and numbers that Excel had rounded are named, with their places."""
    rows: list[list[object]] = [TITLE, ["PO1", "a"], ["PO1 ", "b"], [None, "sum"], [12345678901234567890, "c"]]
    workbook(tmp_path / "in.xlsx", rows)
    done = run("import", tmp_path / "in.xlsx", tmp_path / "po.csv")
    assert 0 == done.returncode
    assert "no key     in row 4" in done.stdout
    assert "repeated   PO1 (2 rows)" in done.stdout
    assert "rounded    A5" in done.stdout
    assert 4 == len(read_csv(tmp_path / "po.csv"))


def test_the_sheet_can_be_named(tmp_path: Path, target: EventCsv) -> None:
    """Without a name it is the first one in sight; the others are told, and a wrong name lists them."""
    book = openpyxl.Workbook()
    book.active.title = "hidden"
    book.active.sheet_state = "hidden"
    for name in ("one", "two"):
        book.create_sheet(name).append(["PO_NUMBER"])
        book[name].append([f"PO {name}"])
    book.save(tmp_path / "in.xlsx")
    assert ("one", ("hidden", "two")) == (
        (result := target.import_workbook(tmp_path / "in.xlsx")).sheet,
        result.other_sheets,
    )
    target.import_workbook(tmp_path / "in.xlsx", sheet="two", force=True)
    assert [{"PO_NUMBER": "PO two"}] == read_csv(tmp_path / "po.csv")
    with pytest.raises(InvalidWorkbook, match="no sheet 'three'; its sheets: 'hidden', 'one', 'two'"):
        target.import_workbook(tmp_path / "in.xlsx", sheet="three", force=True)


def test_formulas_give_their_results(tmp_path: Path, target: EventCsv) -> None:
    """What Excel has calculated counts."""
    book = xlsxwriter.Workbook(tmp_path / "in.xlsx")
    sheet = book.add_worksheet()
    sheet.write_row(0, 0, TITLE)
    sheet.write_formula(1, 0, '="PO"&1', None, "PO1")
    sheet.write_formula(1, 1, "=1+1", None, 2)
    book.close()
    target.import_workbook(tmp_path / "in.xlsx")
    assert [{"PO_NUMBER": "PO1", "NOTE": "2"}] == read_csv(tmp_path / "po.csv")


@pytest.mark.parametrize(
    ("value", "number_format"), [(5, "00.00"), (4711, "000,000"), (5, "[<100]0000;00000000"), (5, "00%")]
)
def test_zeros_that_nobody_can_tell_are_refused_with_their_place(
    tmp_path: Path, target: EventCsv, value: int, number_format: str
) -> None:
    """A key that loses its zeros meets no row any more, so it is not guessed."""
    path = workbook(tmp_path / "in.xlsx", [TITLE, [value, "a"]], formats={"A2": number_format})
    with pytest.raises(InvalidWorkbook, match=r"'POs': A2 \(.* as .*\): nobody can tell"):
        target.import_workbook(path)


@pytest.mark.parametrize("visible", [False, True])
def test_hidden_rows_are_told_and_left_out_when_asked(tmp_path: Path, visible: bool) -> None:  # noqa: FBT001  # parameter
    """A filter means "only these" to some; which rows it hides is said either way."""
    path = workbook(tmp_path / "in.xlsx", [TITLE, ["PO1", "a"], ["PO2", "a"], ["PO3", "a"], ["PO4", "a"]])
    book = openpyxl.load_workbook(path)
    for row in (3, 5):
        book.active.row_dimensions[row].hidden = True
    book.save(path)
    done = run("import", path, tmp_path / "po.csv", *["--visible"] * visible)
    assert (0, "") == (done.returncode, done.stderr)
    keys = [row["PO_NUMBER"] for row in read_csv(tmp_path / "po.csv")]
    assert (["PO1", "PO3"] if visible else ["PO1", "PO2", "PO3", "PO4"]) == keys
    what = "left out" if visible else "in the CSV as well; --visible leaves them out"
    assert f"hidden     2 rows of the sheet, {what}: 3, 5\n" in done.stdout


def test_merged_cells_give_their_text_to_all_that_they_cover(tmp_path: Path) -> None:
    """Three rows of one PO whose key is written once; names of columns are left as they are, as they have to differ."""
    rows: list[list[object]] = [["Orders", None, None], ["PO_NUMBER", "NOTE", None], [1, "a", "x"], [None, "b", None]]
    path = workbook(tmp_path / "in.xlsx", [*rows, [None, "c", "y"], ["PO2", "d", None]], formats={"A3": "0000"})
    book = openpyxl.load_workbook(path)
    for place in ("A1:C1", "B2:C2", "A3:A5", "B6:F6"):
        book.active.merge_cells(place)
    book.save(path)
    done = run("import", path, tmp_path / "po.csv")
    assert (0, "") == (done.returncode, done.stderr)
    assert "merged     A3:A5, B6:F6: each row that they cover has got their text" in done.stdout
    lines = (tmp_path / "po.csv").read_text(encoding="utf-8-sig").splitlines()
    assert ["PO_NUMBER;NOTE;", "0001;a;x", "0001;b;", "0001;c;y", "PO2;d;d"] == lines


def test_cells_without_a_value_are_refused_with_their_place(tmp_path: Path, target: EventCsv) -> None:
    """An error, or a formula that no program has calculated yet, is not taken for an empty cell."""
    path = workbook(tmp_path / "in.xlsx", [TITLE, ["PO1", "#N/A"], ["PO2", "=1+1"]])
    book = openpyxl.load_workbook(path)
    book.active["B2"].data_type = "e"
    book.save(path)
    with pytest.raises(InvalidWorkbook, match=r"'POs': B2 \(#N/A\), B3 \(a formula without a result\)"):
        target.import_workbook(path)
    assert not (tmp_path / "po.csv").exists()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([["ORDER", "NOTE"], ["PO1", "a"]], "has no column 'PO_NUMBER'; .* has 'ORDER', 'NOTE'. .*--key"),
        ([], "has nothing"),
        ([["PO_NUMBER", "Note", "NOTE "], ["PO1", "a", "b"]], "'Note' and 'NOTE ' have the same name"),
    ],
)
def test_a_sheet_without_a_sound_header_is_refused(
    tmp_path: Path, target: EventCsv, rows: list[list[Any]], reason: str
) -> None:
    """The error names what was found, and what to say."""
    with pytest.raises(InvalidWorkbook, match=reason):
        target.import_workbook(workbook(tmp_path / "in.xlsx", rows))


def test_what_is_no_workbook_is_refused(tmp_path: Path, csv_path: Path) -> None:
    """A CSV, an old .xls or one with a password, another ZIP, half a workbook, nothing: no traceback."""
    whole = workbook(tmp_path / "in.xlsx", [TITLE, ["PO1", "a"]]).read_bytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "a")
    others = {
        "OpenDocument spreadsheet (.ods)": "mimetype",
        "(.xlsb)": "xl/workbook.bin",
        "Numbers": "Index/Tables.iwa",
    }
    packed = {kind: io.BytesIO() for kind in others}
    for kind, name in others.items():
        with zipfile.ZipFile(packed[kind], "w") as file:
            file.writestr(name, "application/vnd.oasis.opendocument.spreadsheet")
    cases = {kind: data.getvalue() for kind, data in packed.items()} | {
        "use it as it is": csv_path.read_bytes(),
        "password": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "save it again": archive.getvalue(),
        "File is not a zip": whole[: len(whole) // 2],
        "no Excel workbook": b"",
    }
    for reason, data in cases.items():
        (tmp_path / "odd.xlsx").write_bytes(data)
        done = run("import", tmp_path / "odd.xlsx", tmp_path / "po.csv")
        assert (1, True, False) == (done.returncode, reason in done.stderr, "Traceback" in done.stderr), done.stderr
    assert 1 == run("import", tmp_path / "none.xlsx", tmp_path / "po.csv").returncode
    assert not (tmp_path / "po.csv").exists()


def test_damage_within_a_workbook_is_no_traceback(tmp_path: Path, target: EventCsv) -> None:
    """Whichever byte of a workbook is changed, it is read or refused as what it is."""
    whole = workbook(tmp_path / "in.xlsx", [TITLE, ["PO1", "a"]]).read_bytes()
    for place in range(4, len(whole), len(whole) // 100):
        (tmp_path / "odd.xlsx").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with suppress(InvalidWorkbook):  # anything else would be a traceback
            target.import_workbook(tmp_path / "odd.xlsx", force=True)


def test_a_csv_that_is_there_is_kept(tmp_path: Path, csv_path: Path, target: EventCsv) -> None:
    """It is replaced by force only, and a link not even then."""
    path = workbook(tmp_path / "in.xlsx", [TITLE, ["PO9", "a"]])
    before = csv_path.read_bytes()
    nowhere = run("import", path, tmp_path / "no" / "po.csv")
    assert (1, True) == (nowhere.returncode, "/no: there is no such folder. Make it" in nowhere.stderr)
    done = run("import", path, csv_path)
    assert (1, True, before) == (done.returncode, "--force" in done.stderr, csv_path.read_bytes())
    (tmp_path / "po.csv").symlink_to(csv_path)
    with pytest.raises(UnsafePath):
        target.import_workbook(path, force=True)
    assert before == csv_path.read_bytes()
    assert 0 == run("import", path, csv_path, "--force").returncode
    assert "PO9" == read_csv(csv_path)[0]["PO_NUMBER"]


@pytest.mark.parametrize("lost", ["nothing", "input.csv", "input.csv and its log"])
def test_a_job_is_never_imported_over(tmp_path: Path, job: EventCsv, csv_path: Path, lost: str) -> None:
    """Once there is a log or a backup, not even force replaces the CSV; the error says where edits go."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    path = workbook(tmp_path / "in.xlsx", [TITLE, ["PO9", "a"]])
    if lost != "nothing":
        csv_path.unlink()
    if "log" in lost:
        Path(job.log_dir).rename(tmp_path / "elsewhere")
    before = tree(tmp_path)
    done = run("import", path, csv_path, "--force")
    assert (1, True) == (done.returncode, "to the CSV itself" in done.stderr)
    assert before == tree(tmp_path)
