"""The promise: an export holds the texts of the CSV by the log's present end, whole, and replaces nothing of value."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import openpyxl
import polars as pl
import pytest
from command_line import run
from conftest import read_csv, segment_of, tree
from hypothesis import given
from hypothesis import strategies as st

from eventcsv import EventCsv, EventCsvError, UnsafePath
from eventcsv.formats.xlsx_writer import workbook_of
from eventcsv.table.reader import parse

if TYPE_CHECKING:
    from eventcsv.formats.export import Format
    from eventcsv.table.table import Table

TRICKY: Final = (
    *(
        "007",
        "12345678901234567890",
        "1.50",
        "1e5",
        "=1+1",
        "+49 123",
        "-",
        "@SUM(A1)",
        "{=A1}",
        "TRUE",
        "#N/A",
        "NULL",
    ),
    *(
        "https://example.com/a?b=c",
        "mailto:a@b.c",
        "internal:Sheet1!A1",
        "2025-10-02",
        " a ",
        'say "hi"',
        "a;b",
        "a\nb",
    ),
    *("Märta 漢字 😀", "_x000D_", "\x01\x1f", "\ufffe\uffff", "<&>'", "a\r\nb"),
)


def grid(path: Path) -> list[list[str]]:
    """Return the cells of a workbook as openpyxl reads them, each of which has to be a text or empty."""
    sheet = openpyxl.load_workbook(path).active
    assert {"s", "n"} >= {cell.data_type for row in sheet.iter_rows() for cell in row if cell.value is not None}
    assert all(isinstance(cell.value, str | None) for row in sheet.iter_rows() for cell in row)
    return [["" if cell.value is None else cell.value for cell in row] for row in sheet.iter_rows()]


def texts_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of an export."""
    if path.suffix == ".xlsx":
        head, *rows = grid(path)
        return [dict(zip(head, row, strict=True)) for row in rows]
    if path.suffix == ".parquet":
        frame = pl.read_parquet(path)
        assert {pl.String} == set(frame.schema.values())
        return frame.to_dicts()
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


@pytest.mark.parametrize("suffix", ["xlsx", "parquet", "jsonl"])
def test_it_holds_what_the_csv_would(job: EventCsv, csv_path: Path, tmp_path: Path, suffix: str) -> None:
    """Results that no compaction has folded yet are in it, and neither the CSV nor its log is touched."""
    job.compact()
    job.emit_result("PO2", "COMPLETED", supplier="Märta's; Laundry", columns={"Extra": "007"})
    before = tree(tmp_path)
    out = tmp_path / f"out.{suffix}"
    done = run("export", csv_path, "-o", out, "--json")
    assert (0, "") == (done.returncode, done.stderr)
    assert (3, suffix, str(out)) == tuple(json.loads(done.stdout)[name] for name in ("rows", "file_format", "path"))
    shown = texts_of(out)
    out_of_the_way = {name: data for name, data in tree(tmp_path).items() if name != out.name}
    assert before == out_of_the_way
    job.compact()
    assert read_csv(csv_path) == shown


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_every_text_comes_through(job: EventCsv, csv_path: Path, tmp_path: Path, suffix: str) -> None:
    """Leading zeros, long numbers, formulas, URLs, blanks, line ends, odd characters: the same text."""
    csv_path.write_bytes(a_csv(TRICKY))
    job.export(tmp_path / f"out.{suffix}")
    assert list(TRICKY) == [row["TEXT"] for row in texts_of(tmp_path / f"out.{suffix}")]


def test_every_text_comes_through_excel_and_back(job: EventCsv, csv_path: Path, tmp_path: Path) -> None:
    """A workbook, imported again, is the same CSV; no cell became a number, a formula, a link or a date."""
    texts = tuple(text for text in TRICKY if text != "_x000D_")  # which is how Excel itself writes a carriage return
    csv_path.write_bytes(a_csv(texts))
    job.export(tmp_path / "out.xlsx")
    sheet = openpyxl.load_workbook(tmp_path / "out.xlsx").active
    assert {"s"} == {cell.data_type for row in sheet.iter_rows() for cell in row}
    assert [] == [cell for row in sheet.iter_rows() for cell in row if cell.hyperlink]
    again = EventCsv(tmp_path / "again.csv")
    again.import_workbook(tmp_path / "out.xlsx")
    assert list(texts) == [row["TEXT"] for row in read_csv(tmp_path / "again.csv")]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20), min_size=1, max_size=5))
def test_any_text_is_a_text(texts: list[str]) -> None:
    """Whatever stands in a cell, openpyxl finds the same text there."""
    data, _ = workbook_of(a_table(a_csv(tuple(texts))))
    sheet = openpyxl.load_workbook(io.BytesIO(data)).active
    found = [sheet.cell(row, 2).value or "" for row in range(2, len(texts) + 2)]
    assert texts == [text.replace("_xFFFE_", "\ufffe").replace("_xFFFF_", "\uffff") for text in found]


def test_a_workbook_is_made_to_be_looked_at(job: EventCsv, csv_path: Path, tmp_path: Path) -> None:
    """The header and the key stay in sight, there are filters, widths that fit, and colours by STATUS."""
    csv_path.write_text(f"PO_NUMBER;STATUS;NOTE\nPO1;COMPLETED;{'x' * 500}\nPO2;ERROR;\n")
    job.export(tmp_path / "out.xlsx")
    sheet = openpyxl.load_workbook(tmp_path / "out.xlsx").active
    assert ("B2", "A1:C3") == (sheet.freeze_panes, sheet.auto_filter.ref)
    assert [13, 11, 61] == [round(sheet.column_dimensions[column].width) for column in "ABC"]
    assert "@" == sheet["A2"].number_format
    (place,) = sheet.conditional_formatting
    assert "A2:C3" == str(place.sqref)
    assert 'TRIM($B2)="COMPLETED"' == place.rules[0].formula[0]
    assert 5 == len({rule.dxf.fill.bgColor.rgb for rule in place.rules})


def test_a_cell_that_excel_cannot_hold_is_cut_with_a_note(job: EventCsv, csv_path: Path, tmp_path: Path) -> None:
    """It is named, ends in a note, and counts as Excel counts: an emoji is two; Parquet has all of it."""
    whole = "😀" * 16_384
    csv_path.write_text(f"PO_NUMBER;STATUS;NOTE\nPO1;;{whole}\nPO2;;{'x' * 32_767}\n")
    assert ("PO1 NOTE",) == job.export(tmp_path / "out.xlsx").cut
    first, second = (row["NOTE"] for row in texts_of(tmp_path / "out.xlsx"))
    assert first.endswith(" [cut here; the CSV has all 16,384 characters]")
    assert 32_766 <= len(first.encode("utf-16-le")) // 2 <= 32_767
    assert "x" * 32_767 == second
    assert "PO1 NOTE" in run("export", csv_path, "-o", tmp_path / "out.xlsx").stdout
    job.export(tmp_path / "out.parquet")
    assert whole == texts_of(tmp_path / "out.parquet")[0]["NOTE"]


def test_more_rows_than_excel_takes_are_refused() -> None:
    """A sheet ends at row 1,048,576; the error names the formats that do not."""
    table = a_table(b"PO_NUMBER;STATUS\n" + b"PO1;\n" * 1_048_576)
    with pytest.raises(EventCsvError, match=r"Export to \.parquet"):
        workbook_of(table)


@pytest.mark.parametrize("suffix", ["xlsx", "parquet", "jsonl"])
def test_columns_without_a_name_get_one_where_they_need_it(job: EventCsv, csv_path: Path, suffix: str) -> None:
    """Two columns may have no name in a CSV; their texts are there in any format."""
    csv_path.write_text("PO_NUMBER;;;column 2\nPO1;a;b;c\n")
    out = csv_path.with_name(f"out.{suffix}")
    job.export(out)
    if suffix == "xlsx":
        assert [["PO_NUMBER", "", "", "column 2"], ["PO1", "a", "b", "c"]] == grid(out)
    else:
        assert [{"PO_NUMBER": "PO1", "column 2_": "a", "column 3": "b", "column 2": "c"}] == texts_of(out)


@pytest.mark.parametrize("suffix", ["xlsx", "parquet", "jsonl"])
def test_an_empty_csv_is_exported(job: EventCsv, csv_path: Path, suffix: str) -> None:
    """A header and no rows is no error."""
    csv_path.write_text("PO_NUMBER;STATUS\n")
    assert 0 == job.export(csv_path.with_name(f"out.{suffix}")).rows
    assert [] == texts_of(csv_path.with_name(f"out.{suffix}"))


@pytest.mark.parametrize("suffix", ["xlsx", "parquet", "jsonl"])
def test_the_last_export_is_replaced_and_nothing_else(job: EventCsv, csv_path: Path, suffix: str) -> None:
    """Today's export takes the place of yesterday's; of any other file only with --force."""
    out = csv_path.with_name(f"out.{suffix}")
    job.export(out)
    job.emit_result("PO1", "COMPLETED")
    assert 0 == run("export", csv_path, "-o", out).returncode
    assert "COMPLETED" == texts_of(out)[0]["STATUS"]
    out.write_text("my notes\n")
    done = run("export", csv_path, "-o", out)
    assert (1, True, "my notes\n") == (done.returncode, "--force" in done.stderr, out.read_text())
    assert 0 == run("export", csv_path, "-o", out, "--force").returncode
    out.write_bytes(b"")  # as mktemp makes it
    assert 0 == run("export", csv_path, "-o", out).returncode


def test_a_workbook_that_somebody_has_worked_on_is_kept(job: EventCsv, csv_path: Path) -> None:
    """Comments that were saved into the last export are not lost to the next one."""
    out = csv_path.with_name("out.xlsx")
    job.export(out)
    book = openpyxl.load_workbook(out)
    book.active["C2"] = "call them"
    book.save(out)
    with pytest.raises(UnsafePath, match="changed since"):
        job.export(out)
    assert "call them" == openpyxl.load_workbook(out).active["C2"].value


@pytest.mark.parametrize("suffix", ["xlsx", "parquet", "jsonl"])
def test_foreign_files_of_the_same_format_are_kept(job: EventCsv, csv_path: Path, suffix: str) -> None:
    """A workbook, a Parquet file or a log that eventcsv's export did not write is no earlier export."""
    out = csv_path.with_name(f"out.{suffix}")
    if suffix == "xlsx":
        openpyxl.Workbook().save(out)
    elif suffix == "parquet":
        pl.DataFrame({"PO_NUMBER": ["PO1"]}).write_parquet(out)
    else:
        job.emit_result("PO1", "COMPLETED")
        out.write_bytes(segment_of(job).read_bytes())
    before = out.read_bytes()
    with pytest.raises(UnsafePath):
        job.export(out)
    assert before == out.read_bytes()


def test_the_job_itself_is_never_replaced(job: EventCsv, csv_path: Path, tmp_path: Path) -> None:
    """Neither the CSV, nor its log, nor a backup, nor a link, not even by force and on a way round."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    (tmp_path / "link.jsonl").symlink_to(csv_path)
    (tmp_path / "around").symlink_to(tmp_path)
    before = tree(tmp_path)
    for target in (
        *(csv_path, tmp_path / "around/input.csv", segment_of(job), Path(job.log_dir) / "new.jsonl"),
        *(Path(job.backups()[0].path), Path(job.backups()[0].path).with_suffix(".json"), tmp_path / "link.jsonl"),
    ):
        with pytest.raises(UnsafePath):
            job.export(target, file_format="jsonl", force=True)
    assert before == tree(tmp_path)


def test_a_backup_of_a_csv_with_another_suffix_is_never_replaced(csv_path: Path) -> None:
    """A backup ends in what its CSV ends in."""
    job = EventCsv(csv_path.rename(csv_path.with_suffix(".txt")))
    backup = Path(job.back_up().path)
    before = backup.read_bytes()
    with pytest.raises(UnsafePath, match="among the backups"):
        job.export(backup, file_format="jsonl", force=True)
    assert (".txt", before) == (backup.suffix, backup.read_bytes())


def test_a_disk_that_says_no_leaves_the_last_export(
    job: EventCsv, csv_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a step of writing fails, the last export is whole and nothing is left beside it."""
    out = tmp_path / "out.jsonl"
    job.export(out)
    csv_path.write_text("PO_NUMBER;STATUS\nPO9;\n")
    before = tree(tmp_path)

    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in ("write", "sync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(job._storage, step, fails)
            with pytest.raises(OSError, match="No space"):
                job.export(out)
        assert before == tree(tmp_path)
    job.export(out)
    assert "PO9" in out.read_text()


def test_an_export_is_as_open_as_the_csv(job: EventCsv, csv_path: Path, tmp_path: Path) -> None:
    """Who may read the CSV may read its export, and nobody else."""
    for mode in (0o600, 0o644):
        csv_path.chmod(mode)
        job.export(tmp_path / f"{mode}.jsonl")
        assert mode == (tmp_path / f"{mode}.jsonl").stat().st_mode & 0o777


def test_stdout_takes_json_lines(job: EventCsv, csv_path: Path) -> None:
    """`-o -` prints rows and nothing else; what cannot be printed is a wrong use."""
    job.emit_result("PO1", "COMPLETED")
    done = run("export", csv_path, "-o", "-")
    assert ["COMPLETED", "", ""] == [json.loads(line)["STATUS"] for line in done.stdout.splitlines()]
    assert 2 == run("export", csv_path, "-o", "-", "--format", "xlsx").returncode
    assert 2 == run("export", csv_path, "-o", "-", "--json").returncode
    assert 2 == run("export", csv_path, "-o", "out.docx").returncode
    stream = io.BytesIO()
    assert None is job.export(stream, file_format="jsonl").path
    assert done.stdout == stream.getvalue().decode()


@pytest.mark.parametrize(("named", "suffix"), [("jsonl", "ndjson"), ("parquet", "dat"), ("xlsx", "tmp")])
def test_the_format_can_be_named(job: EventCsv, tmp_path: Path, named: Format, suffix: str) -> None:
    """--format decides whatever the suffix; .ndjson is JSON Lines by another name."""
    job.export(tmp_path / f"a.{named}")
    job.export(tmp_path / f"b.{suffix}", file_format=None if suffix == "ndjson" else named)
    os.rename(tmp_path / f"b.{suffix}", tmp_path / f"b.{named}")
    assert texts_of(tmp_path / f"a.{named}") == texts_of(tmp_path / f"b.{named}")


def test_damage_has_its_exit_code(job: EventCsv, csv_path: Path, tmp_path: Path) -> None:
    """What could be read is exported, and exit code 3 says that there is more."""
    job.emit_result("PO1", "ERROR", error_message="first")
    job.emit_result("PO2", "COMPLETED")
    segment_of(job).write_bytes(segment_of(job).read_bytes().replace(b"first", b"worst"))
    done = run("export", csv_path, "-o", tmp_path / "out.jsonl")
    assert (3, True) == (done.returncode, "checksum" in done.stderr)
    assert ["", "COMPLETED", ""] == [row["STATUS"] for row in texts_of(tmp_path / "out.jsonl")]


def a_csv(texts: tuple[str, ...]) -> bytes:
    """Return a CSV with a row for each text."""
    rows = "".join(f'PO{number};"{text.replace(chr(34), chr(34) * 2)}"\n' for number, text in enumerate(texts))
    return f"PO_NUMBER;TEXT\n{rows}".encode()


def a_table(data: bytes) -> Table:
    """Return the table of a CSV."""
    return parse(data, source="input.csv", key="PO_NUMBER", delimiter=";")
