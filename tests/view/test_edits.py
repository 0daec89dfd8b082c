"""Case by case: a save becomes exactly what was typed in it, in however old a copy, and undoes no result."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import jobs
import pytest
from conftest import read_csv, wait_until
from faults import Dying, Killed, Recording, with_storage
from operations import edit
from plain import logged
from runs import calls, meanwhile
from servers import unused_name

from eventcsv import EventCsv, InvalidCsv
from eventcsv.errors import EditRefused
from eventcsv.table import merge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers import PgServer

    from eventcsv.view.edits import Edit


HEADER: Final = "PO_NUMBER;STATUS;FOUND;LAST_PROCESSED;note\n"


FIRST: Final = HEADER + "".join(f"PO{number};PENDING;;;\n" for number in range(1, 5))


AFTER: Final = HEADER + "PO1;COMPLETED;1;t1;\nPO2;COMPLETED;2;t2;\nPO3;PENDING;;;\nPO4;PENDING;;;\n"


@pytest.fixture
def job(tmp_path: Path) -> EventCsv:
    """A job of four POs, two of which are done."""
    return two_done(tmp_path / "input.csv")


@pytest.fixture(params=["file", "postgresql"])
def any_job(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EventCsv:
    """The same, wherever its log is."""
    if request.param == "postgresql":
        monkeypatch.setenv("EVENTCSV_LOG", request.getfixturevalue("pg_server").url)
        monkeypatch.setenv("EVENTCSV_JOB", unused_name("edits"))
    return two_done(tmp_path / "input.csv")


def two_done(path: Path) -> EventCsv:
    path.write_text(FIRST)
    made = EventCsv(path, durability="process", settle_s=0)
    made.compact()
    for number in (1, 2):
        made.emit_result(f"PO{number}", "COMPLETED", last_processed=f"t{number}", columns={"FOUND": number})
    made.compact()
    assert AFTER == Path(made.csv_path).read_text()
    return made


def swapped(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


CASES: Final[dict[str, tuple[str, str]]] = {
    "an old copy, nothing typed": (FIRST, AFTER),
    "a recorded value typed in an old copy": (swapped(FIRST, ("PO2;PENDING;;", "PO2;PENDING;2;")), AFTER),
    "done by hand in an old copy": (
        swapped(FIRST, ("PO3;PENDING", "PO3;COMPLETED")),
        swapped(AFTER, ("PO3;PENDING", "PO3;COMPLETED")),
    ),
    "a value that an unseen result sets differently": (
        swapped(FIRST, ("PO1;PENDING;;", "PO1;PENDING;9;")),
        swapped(AFTER, ("PO1;COMPLETED;1", "PO1;COMPLETED;9")),
    ),
    "set back in a fresh copy": (
        swapped(AFTER, ("PO1;COMPLETED", "PO1;PENDING")),
        swapped(AFTER, ("PO1;COMPLETED", "PO1;PENDING")),
    ),
    "filled down in a fresh copy": (AFTER.replace("PENDING", "COMPLETED"), AFTER.replace("PENDING", "COMPLETED")),
    "fresh rows pasted into an old copy": (
        swapped(FIRST, ("PO1;PENDING;;;", "PO1;COMPLETED;1;t1;")),
        AFTER,
    ),
    "sorted": (
        HEADER + "PO4;PENDING;;;\nPO3;PENDING;;;\nPO2;PENDING;;;\nPO1;PENDING;;;x\n",
        HEADER + "PO4;PENDING;;;\nPO3;PENDING;;;\nPO2;COMPLETED;2;t2;\nPO1;COMPLETED;1;t1;x\n",
    ),
    "a row removed and one added": (
        swapped(FIRST, ("PO3;PENDING;;;\n", ""), ("PO4;", "PO5;NEW;;;\nPO4;")),
        swapped(AFTER, ("PO3;PENDING;;;\n", ""), ("PO4;", "PO5;NEW;;;\nPO4;")),
    ),
    "separated by commas, with a byte order mark and other line ends": (
        "\ufeff" + swapped(FIRST, ("PO3;PENDING;;;", "PO3;PENDING;;;x")).replace(";", ",").replace("\n", "\r\n"),
        swapped(AFTER, ("PO3;PENDING;;;", "PO3;PENDING;;;x")),
    ),
    "every cell quoted": ('"' + AFTER[:-1].replace(";", '";"').replace("\n", '"\n"') + '"\n', AFTER),
    "a number as a program writes it": (swapped(AFTER, ("COMPLETED;1;", "COMPLETED;1.0;")),) * 2,
    "the same in an old copy": (
        swapped(FIRST, ("note\n", "note;more\n"), (";;;\n", ";;;;\n")),
        swapped(AFTER, ("note\n", "note;more\n"), (";\n", ";;\n")),
    ),
    "a column of people's removed": (
        "".join(line.rpartition(";")[0] + "\n" for line in AFTER.splitlines()),
        "".join(line.rpartition(";")[0] + "\n" for line in AFTER.splitlines()),
    ),
    "a column of results removed": (
        "".join(";".join(line.split(";")[:2] + line.split(";")[3:]) + "\n" for line in AFTER.splitlines()),
        "\n".join(";".join([*(row := line.split(";"))[:2], *row[3:], row[2]]) for line in AFTER.splitlines()) + "\n",
    ),
    "columns moved": (
        "".join(";".join([*line.split(";")[:1], *line.split(";")[:0:-1]]) + "\n" for line in FIRST.splitlines()),
        "".join(";".join([*line.split(";")[:1], *line.split(";")[:0:-1]]) + "\n" for line in AFTER.splitlines()),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_save_becomes(any_job: EventCsv, case: str) -> None:
    """The whole CSV, byte for byte; saved again it stays so, and so does a replay."""
    job, (saved, expected) = any_job, CASES[case]
    path = Path(job.csv_path)
    path.write_bytes(saved.encode())
    assert job.progress().by_status == EventCsv(path, settle_s=0).progress().by_status
    result = job.compact()
    assert result.edited == (saved != FIRST)  # which the checkpoint knows: it is what the CSV was before
    assert expected == path.read_bytes().decode()
    assert not job.replay().changed
    path.write_bytes(saved.encode())
    job.compact()
    assert expected == path.read_bytes().decode()
    assert () == job.verify().findings


def test_a_row_that_is_younger_than_the_copy_stays(job: EventCsv) -> None:
    """Somebody adds a row, somebody else saves a copy from before that: the row is still there, and that is told."""
    path = Path(job.csv_path)
    path.write_text(AFTER + "PO9;NEW;;;\n")
    job.compact()
    path.write_text(swapped(AFTER, ("t1;", "t1;x")))
    result = job.compact()
    assert result.edit is not None
    assert ("PO9",) == result.edit.younger
    assert swapped(AFTER, ("t1;", "t1;x")) + "PO9;NEW;;;\n" == path.read_text()


DOUBLE: Final = HEADER + "PO1;PENDING;;;a\nPO2;PENDING;;;\nPO1;PENDING;;;b\n"


def test_rows_that_share_a_key_are_matched_by_their_order(tmp_path: Path) -> None:
    """Each keeps what was typed into it, though a result is for both; what the two differ in is in the base alone."""
    path = tmp_path / "input.csv"
    path.write_text(DOUBLE)
    job = EventCsv(path, durability="process", settle_s=0)
    job.compact()
    job.emit_result("PO1", "COMPLETED", last_processed="t1", columns={"FOUND": 1})
    job.compact()
    path.write_text(swapped(DOUBLE, (";b\n", ";c\n"), ("PO2;PENDING", "PO2;COMPLETED")))
    job.compact()
    expected = HEADER + "PO1;COMPLETED;1;t1;a\nPO2;COMPLETED;;;\nPO1;COMPLETED;1;t1;c\n"
    assert expected == path.read_text()
    assert not job.replay().changed
    assert ["result"] == [event.kind for event in job.history("PO1")]
    # One of the two goes: the first one is matched with the first one.
    path.write_text(swapped(DOUBLE, ("PO1;PENDING;;;b\n", ""), ("PO2;PENDING", "PO2;COMPLETED")))
    job.compact()
    assert HEADER + "PO1;COMPLETED;1;t1;a\nPO2;COMPLETED;;;\n" == path.read_text()


@pytest.mark.parametrize("how", ["the oldest backups lost", "pruned"])
def test_a_copy_from_before_all_that_is_known(job: EventCsv, how: str) -> None:
    """In doubt the result stays; what people alone have is taken as ever, and what was not taken is told."""
    path = Path(job.csv_path)
    job.emit_result("PO1", "COMPLETED", last_processed="t3", columns={"FOUND": 7})
    job.new_segment()
    job.compact()
    job.back_up()
    for backup in job.backups()[1:]:
        for there in (Path(backup.path), Path(backup.path).with_suffix(".json")):
            there.unlink()
    if how == "pruned":
        assert job.prune().removed
    now = swapped(AFTER, ("PO1;COMPLETED;1;t1", "PO1;COMPLETED;7;t3"))
    assert now == path.read_text()
    path.write_text(swapped(AFTER, ("PO1;COMPLETED;1;t1;", "PO1;AGAIN;1;t1;x"), ("PO3;PENDING;", "PO3;PENDING;5")))
    edit = job.compact().edit
    expected = swapped(now, ("t3;", "t3;x"), ("PO3;PENDING;", "PO3;PENDING;5"))
    assert expected == path.read_text()
    assert edit is not None
    assert (2, 1, 1) == (edit.cells, edit.stale, edit.doubtful)
    assert not job.replay().changed


def test_a_save_reaches_the_csv_of_another_host(
    tmp_path: Path, pg_server: PgServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is typed on one machine is in the CSV of the other, as results are; a row that it lacks is not told."""
    monkeypatch.setenv("EVENTCSV_LOG", pg_server.url)
    monkeypatch.setenv("EVENTCSV_JOB", unused_name("two-hosts"))
    here, there = tmp_path / "here" / "input.csv", tmp_path / "there" / "input.csv"
    for path in (here, there):
        path.parent.mkdir()
    job = two_done(here)
    there.write_text(FIRST)
    other = EventCsv(there, durability="process", settle_s=0)
    other.compact()
    assert AFTER == there.read_text()
    here.write_text(swapped(AFTER, ("PO3;PENDING", "PO3;COMPLETED"), ("PO4;", "PO5;NEW;;;\nPO4;")))
    job.compact()
    result = other.compact()
    assert swapped(AFTER, ("PO3;PENDING", "PO3;COMPLETED")) == there.read_text()
    assert ({}, 0, None) == (result.unknown, result.events, result.edit)
    assert ["PO4"] == other.pending()


def test_versions_begin_where_a_restore_without_the_log_has_begun_anew(job: EventCsv) -> None:
    """What the CSV was just before it, at the same place of the log, is none of them."""
    path = Path(job.csv_path)
    first = next(backup for backup in job.backups() if backup.position)
    path.write_text(swapped(AFTER, ("PO1;COMPLETED;", "PO1;AGAIN;")))
    job.compact()
    job.restore(first.name, replay=False)
    assert FIRST == path.read_text()
    job.emit_result("PO1", "COMPLETED", last_processed="t4", columns={"FOUND": 4})
    job.compact()
    path.write_text(swapped(FIRST, ("PO1;PENDING;;;", "PO1;PENDING;;;x")))
    job.compact()
    assert swapped(FIRST, ("PO1;PENDING;;;", "PO1;COMPLETED;4;t4;x")) == path.read_text()


class SavesAgain(Recording):
    """Somebody saves once more while a save is taken over."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__()
        self._path, self._text = path, text

    def before(self, step: str, *args: object) -> None:
        if step == "create" and str(args[0]).endswith(".eventcsv.tmp") and self._text:
            self._path.write_text(self._text)
            self._text = ""


def test_a_save_that_is_saved_over_at_once_is_told_as_well(job: EventCsv) -> None:
    """Both are in the log and in the CSV, and both are told."""
    path = Path(job.csv_path)
    path.write_text(swapped(FIRST, ("PO1;PENDING;;;", "PO1;PENDING;;;x")))
    second = swapped(FIRST, ("PO1;PENDING;;;", "PO1;PENDING;;;x"), ("PO3;PENDING;;;", "PO3;PENDING;;;y"))
    result = with_storage(EventCsv(path, settle_s=0), SavesAgain(path, second)).compact()
    assert swapped(AFTER, ("t1;", "t1;x"), ("PO3;PENDING;;;", "PO3;PENDING;;;y")) == path.read_text()
    assert [1, 1] == [edit.cells for edit in result.edits]
    assert (result.edit, 1) == (result.edits[-1], len(result.overtaken))
    assert None not in {edit.copy for edit in result.edits}
    assert ["result", "edit"] == [event.kind for event in job.history("PO1")]


def test_what_met_a_result_is_told_with_both_values(job: EventCsv) -> None:
    """And what a save did stands in the history, in the backup, and in how far the job is."""
    path = Path(job.csv_path)
    path.write_text(swapped(FIRST, ("PO1;PENDING;;", "PO1;PENDING;9;")))
    edit = job.compact().edit
    assert edit is not None
    assert [merge.Met("PO1", "FOUND", "9", "1")] == list(edit.met)
    assert (1, 2) == (edit.cells, edit.stale)
    assert ["result", "edit"] == [event.kind for event in job.history("PO1")]
    assert edit == job.progress().last_edit
    copy = next(backup for backup in job.backups() if backup.name == edit.copy)
    assert swapped(FIRST, ("PO1;PENDING;;", "PO1;PENDING;9;")) == Path(copy.path).read_text()


def respelled(change: Callable[[str], str]) -> Callable[[str], str]:
    """Return what changes the keys of a CSV."""

    def changed(text: str) -> str:
        header, *rows = text.splitlines(keepends=True)
        cells = [row.partition(";") for row in rows]
        return "".join([header, *(f"{change(key)};{rest}" for key, _, rest in cells)])

    return changed


REFUSED: Final[dict[str, Callable[[str], str]]] = {
    "leading zeros lost": respelled(lambda key: key.lstrip("0")),
    "floats": respelled(lambda key: f"{int(key)}.0"),
    "quoted once more": respelled(lambda key: f'"""{key}"""'),
    "scientific": respelled(lambda key: "4,5E+09" if key.startswith("45") else key),
    "STATUS gone": lambda text: text.replace("STATUS", "State"),
    "half of the rows gone": lambda text: "".join(text.splitlines(keepends=True)[:13]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_save_that_would_do_away_with_much_is_refused(tmp_path: Path, case: str) -> None:
    """Nothing is changed, everything is counted from the log, and both ways on work."""
    path = tmp_path / "input.csv"
    keys = [f"00{number:04}" for number in range(7, 20)] + [f"45000{number:05}" for number in range(12)]
    path.write_text("PO_NUMBER;STATUS\n" + "".join(f"{key};PENDING\n" for key in keys))
    job = EventCsv(path, durability="process", settle_s=0)
    for key in keys:
        job.emit_result(key, "COMPLETED")
    job.compact()
    good = path.read_text()
    bad = REFUSED[case](good)
    assert good != bad
    path.write_text(bad)
    with pytest.raises(EditRefused, match="--accept-edit"):
        job.compact()
    assert bad == path.read_text()
    progress = job.progress()
    assert (25, 0, True) == (progress.done, progress.pending, "not taken" in progress.trouble)
    assert [] == job.pending()
    copy = shutil.copytree(tmp_path, tmp_path.parent / "other")
    assert job.replay().changed
    assert good == path.read_text()
    other = EventCsv(copy / "input.csv", settle_s=0)
    assert other.compact(accept_edit=True).edit
    assert not other.compact().changed
    shutil.rmtree(copy)


@pytest.mark.parametrize("in_commas", [False, True])
def test_verify_finds_what_is_not_taken_and_nothing_else(job: EventCsv, in_commas: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """A save that waits to be taken over is no finding, whatever it is separated by; one that is refused is one."""
    path = Path(job.csv_path)
    saved = swapped(AFTER, ("t1;", "t1;x"))
    path.write_text(saved.replace(";", ",") if in_commas else saved)
    assert () == job.verify().findings
    assert "1 cells differ" in job.verify().view
    path.write_text(AFTER.replace("STATUS", "State"))
    assert ["STATUS is gone" in finding.problem for finding in job.verify().findings] == [True]
    path.write_text(AFTER.replace("PO_NUMBER", "PO NUMBER"))
    assert ["name it back" in finding.problem for finding in job.verify().findings] == [True]


def test_a_run_works_again_on_what_is_set_back(tmp_path: Path) -> None:
    """A PO that the run had done is done again, once; the result says so, and what the save did."""
    path = tmp_path / "input.csv"
    rows = [f"PO1;;note;{tmp_path}", f"PO2;;gate;{tmp_path}", f"PO3;;note;{tmp_path}"]
    path.write_text("\n".join(["PO_NUMBER;STATUS;DO;IN", *rows, ""]))
    job = EventCsv(path, durability="process", settle_s=0)

    def set_back() -> None:
        wait_until(lambda: "PO1;COMPLETED" in path.read_text() and "PO2" in calls(tmp_path))
        edit(path, "PO1;COMPLETED", "PO1;PENDING")
        wait_until(lambda: logged(job, "edit"))
        (tmp_path / "gate").touch()

    with meanwhile(set_back), job.session(refresh_s=0.05) as session:
        result = session.run(jobs.work)
    assert (["PO1", "PO1", "PO2", "PO3"], ("PO1",)) == (sorted(calls(tmp_path)), result.again)
    assert [1] == [edit.cells for edit in result.edits] == [edit.cells for edit in session.edits]
    assert [] == job.pending()


def test_a_csv_that_cannot_be_read_stops_no_counting(job: EventCsv) -> None:
    """The key column was renamed: progress goes on by the log and says so; the advice is to name it back."""
    path = Path(job.csv_path)
    path.write_text(AFTER.replace("PO_NUMBER", "PO NUMBER"))
    job.emit_result("PO3", "COMPLETED")
    progress = job.progress()
    assert 3 == progress.done
    assert "name it back" in progress.trouble
    assert progress.trouble_since is not None
    with pytest.raises(InvalidCsv, match="name it back"):
        job.compact()


def test_killed_anywhere_on_the_way_it_ends_in_the_same_bytes(job: EventCsv, tmp_path: Path) -> None:
    """The next compaction does the same again; what is in the log already is not recorded once more."""
    saved = swapped(FIRST, ("PO1;PENDING;;;", "PO1;AGAIN;;;x"), ("PO4;PENDING", "PO5;NEW"))
    at = 0
    while True:
        others = shutil.ignore_patterns("at *")
        folder = shutil.copytree(Path(job.csv_path).parent, tmp_path / f"at {at}", ignore=others)
        path = folder / "input.csv"
        path.write_text(saved)
        dying = with_storage(EventCsv(path, durability="process", settle_s=0), Dying(at))
        try:
            dying.compact()
        except Killed:
            dying.close()  # as the system does for who is dead: it may have been appending
        else:
            break
        EventCsv(path, durability="process", settle_s=0).compact()
        expected = swapped(AFTER, ("PO1;COMPLETED;1;t1;", "PO1;AGAIN;1;t1;x"), ("PO4;PENDING", "PO5;NEW"))
        assert expected == path.read_text(), at
        assert not EventCsv(path).replay().changed
        edits = [event for key in ("PO1", "PO5") for event in EventCsv(path).history(key) if event.kind == "edit"]
        assert 2 == len(edits)
        at += 1
    assert at > 8


def formulas(job: EventCsv) -> Iterator[str]:
    for row in read_csv(Path(job.csv_path)):
        yield row["note"]


def test_a_formula_that_a_person_types_stays_one(job: EventCsv) -> None:
    """What results set is guarded before and after it, in a compaction and in a replay of several segments."""
    job.emit_result("PO1", "COMPLETED", last_processed="t3", columns={"note": "=1"})
    job.compact()
    job.log.new_segment()
    path = Path(job.csv_path)
    path.write_text(path.read_text().replace("PO3;PENDING;;;", "PO3;PENDING;;;=2"))
    job.compact()
    job.emit_result("PO4", "COMPLETED", last_processed="t4", columns={"note": "=3"})
    job.compact()
    assert ["'=1", "", "=2", "'=3"] == list(formulas(job))
    job.replay(backup=job.backups()[-1].name)
    assert ["'=1", "", "=2", "'=3"] == list(formulas(job))


def test_what_was_typed_meets_a_result_that_came_between_two_attempts(job: EventCsv) -> None:
    """It holds, is told, and stands in the log behind that result, so that a replay from any backup gives the same."""
    path = Path(job.csv_path)
    path.write_text(swapped(FIRST, ("PO4;PENDING", "PO4;LATER")))
    at = 0
    while not logged(job, "edit"):  # up to the first death that leaves the line in the log
        dying = with_storage(EventCsv(path, durability="process", settle_s=0), Dying(at))
        with pytest.raises(Killed):
            dying.compact()
        dying.close()
        at += 1
    job.emit_result("PO4", "COMPLETED", last_processed="t4")
    result = EventCsv(path, durability="process", settle_s=0).compact()
    assert result.edit
    assert [("PO4", "LATER", "COMPLETED")] == [(met.key, met.typed, met.result) for met in result.edit.met]
    merged = path.read_bytes()
    assert b"PO4;LATER" in merged
    for backup in job.backups():
        if backup.position is not None:
            job.replay(backup=backup.name)
            assert merged == path.read_bytes(), backup.reason


SAVES: Final = {  # what there was first, what was saved before the result of PO9, and what was saved after it
    "an old copy, in which a row with results is not yet": (
        "PO_NUMBER;STATUS;Note\nPO1;;\n",
        "PO_NUMBER;STATUS;Note\nPO1;;\nPO9;;by a colleague\n",
        "PO_NUMBER;STATUS;Note\nPO1;;typed\n",
    ),
    "two rows of a key": (
        "PO_NUMBER;STATUS;Note;Item\nPO1;;;\nPO1;;;\nPO9;;;\n",
        "",
        "PO_NUMBER;STATUS;Note;Item\nPO1;;same;first\nPO1;;same;second\nPO9;;;\n",
    ),
    "a third row of a key": (
        "PO_NUMBER;STATUS;Note\nPO1;;\nPO1;;\nPO9;;\n",
        "",
        "PO_NUMBER;STATUS;Note\nPO1;;one\nPO1;;two\nPO1;;three\nPO9;;\n",
    ),
    "a column without a name": (
        "PO_NUMBER;STATUS;Note;\nPO1;;;\nPO9;;;\n",
        "",
        "PO_NUMBER;STATUS;Note;\nPO1;;typed;also\nPO9;;;\n",
    ),
    "a key that is spelled otherwise": (
        "PO_NUMBER;STATUS;Note\n PO1;;\nPO9;;\n",
        "",
        "PO_NUMBER;STATUS;Note\nPO1;;typed\nPO9;;\n",
    ),
}


@pytest.mark.parametrize(("first", "before", "saved"), SAVES.values(), ids=SAVES)
def test_killed_anywhere_a_save_does_what_it_does_else(tmp_path: Path, first: str, before: str, saved: str) -> None:
    """The bytes and what is told are those of a save that nothing came in the way of."""

    def begun(name: str) -> EventCsv:
        path = tmp_path / name / "input.csv"
        path.parent.mkdir()
        path.write_text(first)
        job = EventCsv(path, durability="process", settle_s=0)
        job.compact()
        if before:
            path.write_text(before)
            job.compact()
        job.emit_result("PO9", "COMPLETED", last_processed="t9")
        job.compact()
        path.write_text(saved)
        return job

    def ended(job: EventCsv) -> tuple[bytes, Edit | None]:
        told = job.compact().edit
        assert not job.replay().changed
        return Path(job.csv_path).read_bytes(), told and replace(told, saved_at="", copy=None)

    expected = ended(begun("whole"))
    at = 0
    while True:
        job = begun(f"at {at}")
        dying = with_storage(EventCsv(job.csv_path, durability="process", settle_s=0), Dying(at))
        try:
            dying.compact()
        except Killed:
            dying.close()
        else:
            break
        found, told = ended(EventCsv(job.csv_path, durability="process", settle_s=0))
        assert (expected[0], True) == (found, told in {expected[1], None}), at
        at += 1
    assert at > 8
