"""The promise: a result that has happened is recorded, whatever its values are."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import given
import numpy as np
import pandas as pd
import pytest
from conftest import lines_of, read_csv, segment_of
from given import GIVEN, MIB, RETURNED, UNREADABLE
from hypothesis import given as hypothesis_given
from hypothesis import settings
from hypothesis import strategies as st
from servers import unused_name

from eventcsv import EventCsv, InvalidEvent
from eventcsv.event import BLANKS, COLUMNS, LONGEST_CELL, Event
from eventcsv.log.line import decode
from eventcsv.table.fold import FORMULA_STARTS, unguarded_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import PgServer

MARK: Final = "... (2,097,152 characters, cut)"
JSON: Final = '{"a": 1, "b": [null, 2.5, "1.10", "2025-01-02"]}'


@pytest.fixture(autouse=True)
def _two_hours_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is two hours ahead of UTC."""
    monkeypatch.setenv("TZ", "EAST-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def cell_of(case: str) -> str | None:
    """Return the cell that a value becomes."""
    match case:
        case "mapping":
            return JSON
        case "long message":
            return "é" * (LONGEST_CELL - 1 - len(MARK)) + MARK
        case "LAST_PROCESSED at the end":
            return "9999-12-31T23:59:59.999999-05:00"
    return GIVEN[case].cell


def column_of(case: str) -> str:
    return COLUMNS[GIVEN[case].at]


def job_of(folder: Path, cases: list[str]) -> tuple[EventCsv, dict[str, str]]:
    """Make a CSV with a row for each value; return the job, and the key of each value."""
    path = folder / "input.csv"
    keys = {case: f"PO{number}" for number, case in enumerate(cases)}
    names = "".join(f";{name}" for name in COLUMNS.values())
    blanks = ";" * (len(COLUMNS) - 1)
    rows = [
        f'{key};"{case}";{column_of(case) if case in GIVEN else ""};PENDING{blanks}\n' for case, key in keys.items()
    ]
    path.write_text(f"PO_NUMBER;CASE;AT{names}\n" + "".join(rows))
    return EventCsv(path, durability="process"), keys


def recorded(job: EventCsv) -> dict[str, Event]:
    """Return the last result of each PO, as the lines of the log have it."""
    lines = [
        line for path in sorted(Path(job.log_dir).glob("events-*.jsonl")) for line in path.read_bytes().split(b"\n")
    ]
    results = [decode(line) for line in lines if b'"kind":"result"' in line]
    assert all([len(line) < MIB for line in lines])
    return {event.key: event for event in results}


def assert_recorded(job: EventCsv, keys: dict[str, str]) -> None:
    """The log has the cell of each value, and so has the CSV, guarded against formulas."""
    job.compact()
    rows = {row["PO_NUMBER"]: row for row in read_csv(Path(job.csv_path))}
    events = recorded(job)
    found = {case: events[key].cells.get(column_of(case)) for case, key in keys.items()}
    long = found.pop("long text", None) or ""
    assert {case: cell_of(case) for case in keys if case != "long text"} == found
    assert "long text" not in keys or (long.endswith(MARK) and MIB - 1000 < len(long) < MIB)
    for case, key in keys.items():
        cell = events[key].cells.get(column_of(case), "")
        assert (f"'{cell}" if cell[:1] in {*FORMULA_STARTS} else cell) == rows[key][column_of(case)].removeprefix(
            "" if cell else "PENDING"
        ), case
    assert () == job.verify().findings


def emit(job: EventCsv, key: str, case: str, *, as_column: bool) -> Event:
    """Record one value, as a keyword argument or among the columns."""
    at = GIVEN[case].at
    made = GIVEN[case].make()
    if at == "status":
        return job.emit_result(key, made)
    if as_column:
        return job.emit_result(key, "PARTIAL", columns={COLUMNS[at]: made})
    return job.emit_result(key, "PARTIAL", **{at: made})


@pytest.mark.parametrize("as_column", [False, True], ids=["keyword", "columns"])
def test_each_value_is_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture, *, as_column: bool) -> None:
    """None is refused; each becomes the cell that the table says, and what was mended is told, with its column."""
    job, keys = job_of(tmp_path, list(GIVEN))
    assert len(GIVEN) > 100
    with caplog.at_level(logging.WARNING, logger="eventcsv"):
        for case, key in keys.items():
            caplog.clear()
            event = emit(job, key, case, as_column=as_column)
            assert event == recorded_last(job), case
            told = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
            assert (GIVEN[case].told, GIVEN[case].told) == (bool(event.mended), bool(told)), (case, event.mended)
            assert all([("result.mended", key) == (fields["event"], fields["key"]) for fields in told])
            assert {f"{fields['column']}: {fields['done']}" for fields in told} == set(event.mended)
            assert all([text.startswith(f"{column_of(case)}: ") for text in event.mended]), case
    assert_recorded(job, keys)


def recorded_last(job: EventCsv) -> Event:
    return decode(segment_of(job).read_bytes().split(b"\n")[-2])


def test_each_value_is_recorded_by_a_run(tmp_path: Path) -> None:
    """A function that returns any of them loses none of its columns."""
    job, keys = job_of(tmp_path, list(GIVEN))
    with job.session() as session:
        result = session.run(given.give, workers=2)
    statuses = Counter(cell_of(case) if GIVEN[case].at == "status" else "COMPLETED" for case in GIVEN)
    assert dict(statuses) == result.by_status
    assert (0, ()) == (result.lost_workers, result.unrecorded)
    assert_recorded(job, keys)


def test_each_value_is_recorded_on_a_server(tmp_path: Path, pg_server: PgServer) -> None:
    """A log on a server takes the same, and the CSV is the same."""
    job, keys = job_of(tmp_path, list(GIVEN))
    job = EventCsv(job.csv_path, log=pg_server.url, job=unused_name("values"), lock_timeout_s=20)
    found = {}
    for case, key in keys.items():
        event = emit(job, key, case, as_column=True)
        assert [event] == list(job.history(key)), case
        found[case] = event.cells.get(column_of(case))
    assert (found.pop("long text") or "").endswith(MARK)
    assert {case: cell_of(case) for case in keys if case != "long text"} == found
    job.compact()
    assert () == job.verify().findings


def test_what_a_function_of_a_run_may_return(tmp_path: Path) -> None:
    """Columns in any shape, a status, a truth or nothing; of everything else what can be read is kept."""
    job, keys = job_of(tmp_path, [*RETURNED, *(case for case in UNREADABLE if case not in RETURNED)])
    with job.session() as session:
        result = session.run(given.give_back, workers=2)
    events = recorded(job)
    found = {
        case: {name: text for name, text in events[key].cells.items() if name != "LAST_PROCESSED"}
        for case, key in keys.items()
    }
    assert {case: cells for case, (_, cells) in RETURNED.items()} == {case: found[case] for case in RETURNED}
    for case, (_, says, kept) in UNREADABLE.items():
        message = found[case].pop("ERROR_MESSAGE")
        assert {"STATUS": "ERROR"} | kept == found[case], case
        assert says in message, case
    assert 0 == result.lost_workers
    assert () == job.verify().findings


COMMAND_LINE: Final[dict[str, tuple[list[bytes], dict[str, str], str]]] = {
    "in order": ([b"COMPLETED"], {"STATUS": "COMPLETED"}, ""),
    "status in words": ([b"no attachments"], {"STATUS": "NO_ATTACHMENTS"}, "STATUS: 'no attachments' was taken for"),
    "status of one's own": ([b"done "], {"STATUS": "done"}, "STATUS: "),
    "no message": ([b"error"], {"STATUS": "ERROR", "ERROR_MESSAGE": "no message was given"}, "without a message"),
    "negative": ([b"PARTIAL", b"ATTACHMENTS_FOUND=-1"], {"STATUS": "PARTIAL", "ATTACHMENTS_FOUND": "-1"}, "no count"),
    "more than found": (
        [b"PARTIAL", b"attachments_found=1", b"attachments_downloaded=2"],
        {"STATUS": "PARTIAL", "ATTACHMENTS_FOUND": "1", "ATTACHMENTS_DOWNLOADED": "2"},
        "more than the 1 found",
    ),
    "no UTF-8": ([b"PARTIAL", b"Note=\xff"], {"STATUS": "PARTIAL", "Note": r"\udcff"}, "surrogate"),
    "keyword": ([b"PARTIAL", b"attachment_names=a;b"], {"STATUS": "PARTIAL", "AttachmentName": "a;b"}, ""),
    "line break in a name": ([b"PARTIAL", b"A\nB=1"], {"STATUS": "PARTIAL", "A\nB": "1"}, ""),
    "long": ([b"PARTIAL", b"ERROR_MESSAGE=" + b"x" * 100_000], {}, "100,000 characters were cut"),
}


def eventcsv(folder: Path, *arguments: str | bytes) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("eventcsv"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("case", COMMAND_LINE)
def test_each_text_is_recorded_by_the_command_line(csv_path: Path, case: str) -> None:
    """`eventcsv emit` ends with 0, tells on standard error what was mended, and the CSV gets it."""
    (status, *assignments), expected, says = COMMAND_LINE[case]
    options = [part for assignment in assignments for part in (b"--set", assignment)]

    done = eventcsv(csv_path.parent, "emit", "input.csv", "PO1", status, *options, "--durability", "process", "--json")

    assert 0 == done.returncode, done.stderr
    told = json.loads(done.stdout)
    event = recorded_last(EventCsv(csv_path))
    assert event.cells == told["cells"]
    assert (says in done.stderr, bool(says)) == (True, bool(done.stderr))
    assert [f"eventcsv: {text}" for text in told.get("mended", [])] == done.stderr.splitlines()
    if expected:
        assert expected == {name: text for name, text in event.cells.items() if name != "LAST_PROCESSED"}
    assert "mended" not in json.loads(eventcsv(csv_path.parent, "history", "input.csv", "PO1", "--json").stdout)
    assert {"COMPLETED", "PARTIAL", "NO_ATTACHMENTS", "ERROR", "done"} >= set(
        EventCsv(csv_path).compact().by_status
    ) - {""}


KEYS: Final[dict[str, tuple[Any, str]]] = {
    "int": (4711, "4711"),
    "NumPy's int": (np.int64(4711), "4711"),
    "float": (4711.0, "4711"),
    "Decimal": (Decimal(4711), "4711"),
    "bytes": (b"4711", "4711"),
    "NumPy's text": (np.str_("4711"), "4711"),
    "line of a file": ("4711\n", "4711"),
    "in a tuple": (("4711",), "4711"),
    "half": (4711.5, "4711.5"),
    "surrogate": ("PO\udcff", r"PO\udcff"),
    "Path": (Path("PO1"), "PO1"),
    "of 2 MiB": ("P" * (2 * MIB), ""),
}


@pytest.mark.parametrize("case", KEYS)
def test_each_key_is_recorded(tmp_path: Path, case: str) -> None:
    """A number becomes its digits and meets its row; a key of no row is reported when the CSV is brought up to date."""
    key, text = KEYS[case]
    path = tmp_path / "input.csv"
    path.write_text("PO_NUMBER;STATUS\n4711;\n")
    job = EventCsv(path, durability="process")
    if len(str(key)) < 100:
        assert (text, "started") == (job.emit_started(key).key, recorded_last(job).kind)

    event = job.emit_result(key, "COMPLETED")

    assert event == recorded_last(job)
    assert event.key == text or (event.key.startswith("PPP") and event.key.endswith(MARK))
    assert bool(event.mended) == (case != "NumPy's text")
    result = job.compact()
    assert ("4711" == text) == (result.by_status.get("COMPLETED") == 1) == (not result.unknown)
    if len(str(key)) < 100:
        assert event == list(job.history(key))[-1]


def test_a_row_of_pandas_may_be_the_columns(csv_path: Path) -> None:
    """What a pool over pandas' rows has in hand is recorded: cells that are missing leave their column alone."""
    frame = pd.DataFrame(
        {"SUPPLIER": ["A", None], "Amount": [1.5, np.nan], "When": pd.to_datetime(["2025-10-02", None])}
    )
    job = EventCsv(csv_path, durability="process")

    events = [job.emit_result(f"PO{number + 1}", "COMPLETED", columns=row) for number, row in frame.iterrows()]
    events += [job.emit_result("PO3", "COMPLETED", columns=row._asdict()) for row in frame.itertuples(index=False)]

    cells = [
        {name: text for name, text in event.cells.items() if name not in {"STATUS", "LAST_PROCESSED"}}
        for event in events
    ]
    assert [{"SUPPLIER": "A", "Amount": "1.5", "When": "2025-10-02T00:00:00"}, {}] * 2 == cells


@pytest.mark.parametrize(
    ("columns", "told"),
    [(None, 0), ({}, 0), ([], 0), ((), 0), (pd.NA, 0), (5, 1), ("Amount", 1), (["Amount"], 1), (object(), 1)],
    ids=["none", "no mapping", "no pairs", "an empty tuple", "NA", "a number", "a text", "a list", "an object"],
)
def test_columns_that_are_none_cost_no_result(job: EventCsv, columns: Any, told: int) -> None:
    """What came of the PO is recorded; that the columns could not be read is told."""
    event = job.emit_result("PO1", "COMPLETED", columns=columns)
    assert ["STATUS", "LAST_PROCESSED"] == list(event.cells)
    assert told == len(event.mended)


def test_the_longest_texts_are_cut_until_the_line_fits(job: EventCsv) -> None:
    """Short cells stay whole, several long ones share the place; names and keys, too."""
    name = "N" * (2 * MIB)
    event = job.emit_result(
        "PO1", "COMPLETED", supplier="short", columns={"A": "x" * MIB, "B": "\x00" * MIB, name: "y"}
    )
    cells = event.cells
    assert event == recorded_last(job)
    assert ("short", "COMPLETED") == (cells["SUPPLIER"], cells["STATUS"])
    assert all([cells[at].endswith("... (1,048,576 characters, cut)") for at in "AB"])
    assert cells[next(at for at in cells if at.startswith("NN"))] == "y"
    assert MIB - 200 < len(segment_of(job).read_bytes().split(b"\n")[-2]) < MIB

    event = job.emit_result("PO2", "COMPLETED", columns={f"column {number}": "x" for number in range(100_000)})
    assert "COMPLETED" == event.cells["STATUS"]
    assert 10_000 < len(event.cells) < 100_000
    assert "no place left" in event.mended[-1]


@pytest.mark.parametrize(("name", "column"), [("A\nB", "A\nB"), ("A\x00B", r"A\x00B"), ("\x1b[1m", r"\x1b[1m")])
def test_a_name_with_control_characters_makes_no_csv_that_cannot_be_read(job: EventCsv, name: str, column: str) -> None:
    """A line break is no rarity in a header; what would make the next save of the CSV unreadable becomes an escape."""
    event = job.emit_result("PO1", "COMPLETED", columns={name: "x"})
    assert ("x", column != name) == (event.cells[column], bool(event.mended))
    job.compact()
    path = Path(job.csv_path)
    path.write_bytes(path.read_bytes().replace(b"COMPLETED", b"PARTIAL"))
    assert {"PARTIAL": 1, "": 2} == job.compact().by_status
    assert "x" == read_csv(path)[0][column]


def test_two_names_that_become_one_are_refused(job: EventCsv) -> None:
    """Neither of two columns whose names a line can only hold as one is lost in silence."""
    for names in (("\udcff", r"\udcff"), ("N" * (2 * MIB), "N" * (2 * MIB - 1) + "M")):
        with pytest.raises(InvalidEvent, match="twice"):
            job.emit_result("PO1", "COMPLETED", columns=dict.fromkeys(names, "x"))


def test_a_key_column_of_a_usual_name_is_not_set(tmp_path: Path) -> None:
    """Where SUPPLIER identifies the rows no result sets it, however it is given."""
    path = tmp_path / "input.csv"
    path.write_text("SUPPLIER;STATUS\nA;\n")
    job = EventCsv(path, key="Supplier", durability="process")
    for arguments in ({"supplier": "B"}, {"columns": {"SUPPLIER": "B"}}, {"columns": {"supplier ": "B"}}):
        with pytest.raises(InvalidEvent, match="key column"):
            job.emit_result("A", "COMPLETED", **arguments)
    assert not Path(job.log_dir).exists()


def test_who_mends_nothing_loads_no_structlog(tmp_path: Path) -> None:
    """A worker without a log handler pays nothing for what is mended, and NumPy and pandas are never loaded."""
    script = (
        "import sys; from eventcsv import EventCsv; "
        f"job = EventCsv({str(tmp_path / 'input.csv')!r}, durability='process'); "
        "event = job.emit_result(4711, 'completed', attachments_found=2.5); "
        "print(len(event.mended), {'structlog', 'numpy', 'pandas', 'polars', 'decimal'} & set(sys.modules))"
    )
    (tmp_path / "input.csv").write_text("PO_NUMBER;STATUS\n4711;\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ("3 set()\n", "") == (done.stdout, done.stderr)


# --- whatever it is ----------------------------------------------------------------------------------------------

scalars = (
    st.sampled_from([case for case in GIVEN if not any([word in case for word in ("long", "5000", "unbound")])]).map(
        lambda case: GIVEN[case].make()
    )
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.fractions()
    | st.complex_numbers()
    | st.text(st.characters(), max_size=8)
    | st.binary(max_size=8)
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.builds(np.float32, st.floats(width=32))
    | st.builds(np.int64, st.integers(-(2**63), 2**63 - 1))
    | st.builds(
        pd.Timestamp, st.datetimes(date_from := pd.Timestamp(date(1700, 1, 1)).to_pydatetime(), date_from.replace(2200))
    )
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.lists(inner, max_size=3).map(iter)
    ),
    max_leaves=4,
)
names = st.sampled_from(
    [
        *COLUMNS.values(),
        *COLUMNS,
        "Note",
        "note ",
        "A\nB",
        "A\rB",
        "A\x00B",
        "\x1b[1m",
        "=x",
        "\udcff",
        "Ä",
        'q";',
        "PO_NUMBER",
        "",
        7,
        None,
    ]
) | st.text(st.characters(), max_size=3)
keys = st.sampled_from(
    ["PO1", "PO2", " PO1", "PO2\n", 4711, 4711.0, np.int64(4711), "", None, "a\nb", float("nan"), "PO\udcff"]
)
statuses = (
    st.sampled_from(["COMPLETED", "error", "FAILED", "no page", "No-Attachments", "", " ", None, True, 5]) | values
)
results = st.tuples(keys, statuses, st.dictionaries(names, values, max_size=4))
REFUSED: Final = (
    ("key", "missing"),
    ("key", "empty"),
    ("key", "control character"),
    ("status", "is required"),
    ("columns", "has to be text"),
    ("columns", "must not be empty"),
    ("columns", "twice"),
    ("", "is the key column"),
)


@pytest.mark.parametrize("few_lines", [0, 500], ids=["at once", "one by one"])
@settings(max_examples=40)
@hypothesis_given(given_results=st.lists(results, max_size=8))
def test_any_result_is_recorded_or_refused_for_a_reason(
    few_lines: int, given_results: list[tuple[Any, Any, dict[Any, Any]]]
) -> None:
    """Nothing is lost, nothing but InvalidEvent is raised, and the CSV is what a dict and a loop make of the log."""
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder,
    ):
        patch.setattr("eventcsv.table.frames.FEW_LINES", few_lines)
        path = Path(folder) / "input.csv"
        path.write_text("PO_NUMBER;STATUS;Note\nPO1;;\nPO2;;\n4711;;\n")
        job = EventCsv(path, durability="process")
        made = []
        for key, status, columns in given_results:
            with suppress(InvalidEvent):
                made.append(recorded_or_refused(job, key, status, columns))
        if not made:
            assert not Path(job.log_dir).exists()
            return
        lines = lines_of(job)
        assert made == [decode(line) for line in lines]
        job.compact()
        assert expected_rows(made) == rows_by_id(path)
        assert () == job.verify().findings


def recorded_or_refused(job: EventCsv, key: Any, status: Any, columns: Any) -> Event:
    """Record a result; refused it may be for one of the reasons only."""
    try:
        return job.emit_result(key, status, columns=columns)
    except InvalidEvent as error:
        if len(str(error)) > 500 or not any([at in error.field and why in error.rule for at, why in REFUSED]):
            raise AssertionError(f"refused: {error}") from error
        raise


def expected_rows(events: list[Event]) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {key: {} for key in ("PO1", "PO2", "4711")}
    for event in events:
        key = event.key.strip(BLANKS)
        if key in rows:
            for name, text in event.cells.items():
                rows[key][unguarded_id(name)] = f"'{text}" if text[:1] in {*FORMULA_STARTS} else text
    return {key: {ident: text for ident, text in row.items() if text} for key, row in rows.items()}


def rows_by_id(path: Path) -> dict[str, dict[str, str]]:
    found = {}
    for row in read_csv(path):
        key = row.pop("PO_NUMBER")
        by_id = {unguarded_id(name): text for name, text in row.items()}
        found[key] = {ident: text for ident, text in by_id.items() if text}
    return found
