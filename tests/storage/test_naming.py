"""The promise that a job is one job: by whatever way its CSV is reached, and whatever else lies beside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from command_line import run_in
from conftest import KEYS, statuses, tree

from eventcsv import EventCsv, InvalidCsv, UnsafePath, UnsupportedFormat

if TYPE_CHECKING:
    import subprocess

GOOD: Final = "PO_NUMBER;STATUS\n" + "".join(f"{key};\n" for key in KEYS)
COMMANDS: Final = (
    "emit * PO1 COMPLETED",
    "compact *",
    "emit * PO2 ERROR --set ERROR_MESSAGE=x",
    "status *",
    "pending *",
    "history * PO1",
    "run * work:work --workers 1",
    "backup create *",
    "backup list *",
    "replay *",
    "verify *",
    "report * -o @report.html",
    "export * -o @out.jsonl",
    "export * -o @out.xlsx",
    "prune *",
    "compact *",
)


def run(folder: Path, *arguments: str | Path | bytes) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder."""
    (folder / "work.py").write_text("def work(key, row):\n    return None\n")
    return run_in(folder, *arguments)


def run_all(folder: Path, csv: str, beside: str) -> str:
    """Run every command on a CSV; return what was said on standard error."""
    said = ""
    for line in COMMANDS:
        done = run(folder, *[part.replace("*", csv).replace("@", beside) for part in line.split()])
        assert 0 == done.returncode, (line, done.stderr)
        said += done.stderr
    assert ["COMPLETED"] * len(KEYS) == statuses(Path(folder, csv))
    return said


def test_a_folder_that_is_a_link(tmp_path: Path) -> None:
    """Every command works on a CSV in it, and what it writes beside it is in the folder itself."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.csv").write_text(GOOD)
    (tmp_path / "l").symlink_to("real")

    run_all(tmp_path, "l/a.csv", "l/")

    assert {"a.csv", "a.events", "backup", "out.jsonl", "out.xlsx", "report.html"} == {
        path.name for path in (tmp_path / "real").iterdir()
    }
    for name, option in (("log", "--log"), ("copies", "--backup-dir")):
        assert 0 == run(tmp_path, "compact", "l/a.csv", option, f"l/{name}").returncode


def test_a_csv_that_is_a_link(tmp_path: Path) -> None:
    """The CSV is the file that it leads to: log and backups lie beside that, which is said, and the link stays."""
    for name in ("data", "here"):
        (tmp_path / name).mkdir()
    real, link = tmp_path / "data/in put.csv", tmp_path / "here/in.csv"
    real.write_text(GOOD)
    link.symlink_to("../data/in put.csv")

    said = run_all(tmp_path / "here", "in.csv", "")

    note = f"in.csv is a link to {real}: the log and the backups lie beside that file"
    assert 1 == said.count(note), said
    assert said.startswith(note)
    assert link.is_symlink()
    assert {"in put.csv", "in put.events", "backup"} == {path.name for path in (tmp_path / "data").iterdir()}
    assert EventCsv(real).log_dir == EventCsv(link).log_dir
    assert real.read_text() == link.read_text()


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    """It is told by the name of what is missing, and nothing is made there."""
    (tmp_path / "in.csv").symlink_to("gone.csv")
    for act in (EventCsv.compact, lambda job: job.emit_result("PO1", "COMPLETED")):
        with pytest.raises(InvalidCsv, match=r"gone\.csv: there is no such file"):
            act(EventCsv(tmp_path / "in.csv"))
    assert ["in.csv"] == os.listdir(tmp_path)


def test_our_own_files_stay_unlinked(tmp_path: Path) -> None:
    """A link in the place of the log or of the backups is refused, as ever."""
    (tmp_path / "real.csv").write_text(GOOD)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in.csv").symlink_to("real.csv")
    (tmp_path / "backup").symlink_to("elsewhere")
    with pytest.raises(UnsafePath, match="backup: is a symbolic link"):
        EventCsv(tmp_path / "in.csv").compact()
    (tmp_path / "backup").unlink()
    job = EventCsv(tmp_path / "in.csv")
    Path(job.log_dir).symlink_to("elsewhere")
    with pytest.raises(UnsafePath, match=r"real\.events: is a symbolic link"):
        EventCsv(tmp_path / "in.csv").compact()
    assert [] == os.listdir(tmp_path / "elsewhere")


@pytest.mark.parametrize("command", ["emit", "compact", "status", "run", "replay", "verify", "report", "history"])
def test_a_name_that_is_no_text_is_refused_at_the_first_call(tmp_path: Path, command: str) -> None:
    """Whichever that is: no backup could be named in a checkpoint. Nothing is made, and nothing is a traceback."""
    name = "M\udce4rz.csv"
    Path(tmp_path, name).write_text(GOOD)
    rest = {"emit": ("PO1", "COMPLETED"), "run": ("work:work",), "history": ("PO1",)}.get(command, ())

    done = run(tmp_path, command, os.fsencode(name), *rest)

    assert 1 == done.returncode
    assert "its name is not UTF-8, and its backups are named after it. Rename it" in done.stderr
    assert {name, "work.py"} == set(os.listdir(tmp_path))


def test_a_folder_whose_name_is_no_text_is_none_of_our_business(tmp_path: Path) -> None:
    """Every command works on a CSV in it."""
    folder = Path(tmp_path, "M\udce4rz")
    folder.mkdir()
    (folder / "a.csv").write_text(GOOD)
    run_all(folder, "a.csv", "")
    other = Path(tmp_path, "elsewhere")
    other.mkdir()
    for line in ("status *", "status * --json", "verify * --json", "compact *", "report * --json", "backup list *"):
        done = run(other, *[part.replace("*", str(folder / "a.csv")) for part in line.split()])
        assert 0 == done.returncode, (line, done.stderr)


DONE_OF_NO_TEXT: Final = tuple(
    (*command, "--done", b"D\xff")
    for command in (("status", "a.csv"), ("pending", "a.csv"), ("report", "a.csv"), ("run", "a.csv", "work:work"))
)


def test_a_key_and_a_status_that_are_no_text_are_no_mistake_of_ours(tmp_path: Path) -> None:
    """They meet nothing, or are refused; there is no traceback and no exit code of another kind."""
    (tmp_path / "a.csv").write_text(GOOD)
    assert 0 == run(tmp_path, "emit", "a.csv", "PO1", "COMPLETED").returncode
    for arguments in (("history", "a.csv", b"PO\xff"), *DONE_OF_NO_TEXT):
        done = run(tmp_path, *arguments)
        assert done.returncode in {0, 1, 2}, done.stderr
        assert "a mistake in eventcsv" not in done.stderr


@pytest.mark.parametrize("suffix", [".csv", "", ".a-very-long-suffix"])
def test_a_name_that_is_too_long_is_refused_at_the_first_call(tmp_path: Path, suffix: str) -> None:
    """The longest name that is taken works with every command; a byte more is refused before anything is made."""

    def accepted(size: int) -> bool:
        path = tmp_path / f"{'ü' * (size // 2)}{'x' * (size % 2)}{suffix}"
        path.write_text(GOOD)
        try:
            EventCsv(path, durability="process").emit_result("PO1", "COMPLETED")
        except InvalidCsv:
            assert not Path(EventCsv(path).log_dir).exists()
            with pytest.raises(InvalidCsv, match="its name is too long for backups"):
                EventCsv(path).compact()
            return False
        with EventCsv(path).session():
            pass
        EventCsv(path).replay()
        EventCsv(path).back_up()
        with pytest.raises(InvalidCsv, match="too long"):
            EventCsv(path).session(session_id="s" * 64)
        return True

    sizes = range(208, 228)
    taken = [accepted(size) for size in sizes]
    assert True in taken
    assert False in taken
    assert sorted(taken, reverse=True) == taken


@pytest.mark.parametrize("names", [("a.csv", "a.tsv"), ("a.csv", "a"), ("a", "a.tsv"), ("a.csv", "a.CSV")])
def test_two_csvs_whose_names_begin_alike_share_no_backup(tmp_path: Path, names: tuple[str, str]) -> None:
    """Each sees its own, with logs of their own; a copy that is gone is missed by its own CSV only."""
    jobs = []
    for number, name in enumerate(names):
        (tmp_path / name).write_text(GOOD)
        jobs.append(EventCsv(tmp_path / name, log=tmp_path / f"log{number}", durability="process"))
        jobs[number].emit_result(f"PO{number + 1}", "COMPLETED")
        jobs[number].compact()
    for number, job in enumerate(jobs):
        assert [os.path.splitext(names[number])[1]] == [os.path.splitext(copy.name)[1] for copy in job.backups()]
        assert () == job.verify().findings
        assert [1, 0] == [len(list(job.history(key))) for key in ("PO1", "PO2")][:: 1 - 2 * number]
    Path(jobs[0].backups()[0].path).unlink()
    assert () == jobs[1].verify().findings
    assert ["the backup is gone"] == [finding.problem[:18] for finding in jobs[0].verify().findings[:1]]


@pytest.mark.parametrize("names", [("a.csv", "a"), ("a", "a.csv"), ("b.tsv", "b.tsv.csv")])
def test_a_log_is_of_one_csv(tmp_path: Path, names: tuple[str, str]) -> None:
    """Two CSVs whose logs would be called the same: the one that came first has it, the other is told and has none."""
    first, second = (tmp_path / name for name in names)
    first.write_text(GOOD)
    job = EventCsv(first)
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    second.write_text(GOOD)
    before = tree(tmp_path)

    assert 1 == EventCsv(first).progress().done
    for act in (
        EventCsv.progress,
        EventCsv.pending,
        EventCsv.compact,
        EventCsv.verify,
        lambda other: list(other.history("PO1")),
    ):
        with pytest.raises(UnsupportedFormat, match=r"is the log of .* Give this CSV another name"):
            act(EventCsv(second))
    done = run(tmp_path, "emit", second, "PO2", "COMPLETED")
    assert 1 == done.returncode
    assert f"is the log of {first}, not of {second}" in done.stderr
    (tmp_path / "work.py").unlink()
    assert before == {name: data for name, data in tree(tmp_path).items() if not name.endswith("compact.lock")} | {
        name: data for name, data in before.items() if name.endswith("compact.lock")
    }

    other = EventCsv(second, log=tmp_path / "other.events")
    other.emit_result("PO2", "COMPLETED")
    assert {"": 2, "COMPLETED": 1} == other.compact().by_status
    assert () == EventCsv(first).verify().findings
    assert () == other.verify().findings


def test_a_job_that_is_moved_or_copied_is_still_one(tmp_path: Path) -> None:
    """The log tells the name of its CSV, which may have changed since: only a CSV that is there claims it."""
    (tmp_path / "a.csv").write_text(GOOD)
    EventCsv(tmp_path / "a.csv").emit_result("PO1", "COMPLETED")
    shutil.copy(tmp_path / "a.csv", tmp_path / "b.csv")
    shutil.copytree(tmp_path / "a.events", tmp_path / "b.events")
    assert {"": 2, "COMPLETED": 1} == EventCsv(tmp_path / "b.csv").compact().by_status
    (tmp_path / "a.csv").rename(tmp_path / "c")
    (tmp_path / "a.events").rename(tmp_path / "c.events")
    for name in ("b.csv", "c"):
        assert {"": 2, "COMPLETED": 1} == EventCsv(tmp_path / name).compact().by_status
