"""What eventcsv does to a job, each operation in a situation that gives it something to do, and what it promises.

Whoever stops one of them at some place, and in whatever way, asks here whether the promise was kept: the CSV is the old
one or the new one, and doing the same once more ends in the bytes of a clean run and leaves nothing lying around.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from conftest import checkpoint_of, job_on, statuses
from faults import Killed, Recording, with_storage
from inside import compactor_of

from eventcsv import EventCsv
from eventcsv.view.retention import EDITED, FIRST, KEPT, SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.process import BaseProcess
    from multiprocessing.synchronize import Event

    from eventcsv.storage.files import Storage

HEADER: Final = "PO_NUMBER;STATUS;SUPPLIER\n"
ROWS: Final = "PO1;;\nPO2;;\nPO3;;\n"
CHANGES: Final = frozenset({"create", "write", "replace", "unlink", "mkdir", "own"})
"""The steps that change what is on the disk. To die at any other one is to die at the change that comes next."""

_OURS: Final = re.compile(
    r"input\.csv|input\.events/(events-\d{6}\.jsonl|(append|compact|session)\.lock|checkpoint\.json)"
    r"|(backup/input_\d{8}_\d{6}_[0-9A-Za-z-]+)\.(csv|json)"
)


class Broken(AssertionError):
    """A promise was not kept."""


def check(holds: object, promise: str, place: object) -> None:
    """Raise Broken, with what is needed to see it again, unless a promise was kept."""
    if not holds:
        raise Broken(f"{promise}: {place}")


def _emit_and_compact(path: str, keys: list[str], stop: Event) -> None:
    job = job_on(Path(path))
    for number in count():
        if stop.is_set():
            break
        job.emit_result(keys[number % len(keys)], "COMPLETED", columns={"n": number})
        assert not job.compact().edited
        if number % 10 == 0:
            job.new_segment()


@contextmanager
def compacting(path: Path | str, keys: list[str]) -> Iterator[BaseProcess]:
    """Another process that completes PO after PO and brings the CSV up to date after each; it has to end well."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=_emit_and_compact, args=(str(path), keys, stop))
    process.start()
    try:
        yield process
    finally:
        stop.set()
        process.join(60)
    assert 0 == process.exitcode


# --- situations ---


def edit(csv: EventCsv | Path, old: str, new: str) -> None:
    """Change a CSV, or that of a job, as an editor does that writes in place."""
    path = csv if isinstance(csv, Path) else Path(csv.csv_path)
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))


def leftovers(folder: Path) -> list[str]:
    """Return what no finished run leaves behind: temporary files, and backups without their metadata or CSV."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    alone = [
        name
        for name in names
        if name.parent.name == "backup"
        and not all([(folder / name.with_suffix(suffix)).exists() for suffix in (".json", ".csv")])
    ]
    return [str(name) for name in names if ".tmp" in name.name] + [str(name) for name in alone]


def view(job: EventCsv) -> bytes:
    """Return the CSV."""
    return Path(job.csv_path).read_bytes()


def copied(job: EventCsv, name: str) -> EventCsv:
    """Return a job on a copy of everything that another one has."""
    folder = Path(job.csv_path).parent
    target = folder.with_name(f"{folder.name}-{name}")
    shutil.copytree(folder, target)
    return job_on(target / "input.csv")


def begun(folder: Path) -> EventCsv:
    """Return a job with a CSV and nothing else."""
    folder.mkdir()
    (folder / "input.csv").write_text(HEADER + ROWS)
    return job_on(folder / "input.csv")


def one_result(folder: Path) -> EventCsv:
    """Return a job whose log has a result, and that was never compacted."""
    job = begun(folder)
    job.emit_result("PO1", "COMPLETED", last_processed="1")
    return job


def compacted(folder: Path) -> EventCsv:
    """Return a job with a result that is not folded yet, after one that is."""
    job = one_result(folder)
    job.compact()
    job.emit_result("PO2", "PARTIAL", last_processed="2")
    return job


def edited(folder: Path) -> EventCsv:
    """Return such a job whose CSV was edited."""
    job = compacted(folder)
    edit(job, "PO3;", "PO3;EDITED")
    return job


def late(folder: Path) -> EventCsv:
    """Return such a job to which the row of a result was added late."""
    job = one_result(folder)
    job.emit_result("PO9", "COMPLETED", last_processed="9")
    job.compact()
    job.emit_result("PO2", "PARTIAL", last_processed="2")
    with Path(job.csv_path).open("ab") as file:
        file.write(b"PO9;;;\n")
    return job


def without_checkpoint(folder: Path) -> EventCsv:
    """Return such a job that has lost its checkpoint."""
    job = compacted(folder)
    checkpoint_of(job).unlink()
    return job


def without_csv(folder: Path) -> EventCsv:
    """Return such a job that has lost its CSV."""
    job = compacted(folder)
    Path(job.csv_path).unlink()
    return job


def torn(folder: Path) -> EventCsv:
    """Return such a job whose log ends in half a line."""
    job = compacted(folder)
    with (Path(job.log_dir) / "events-000001.jsonl").open("ab") as file:
        file.write(b'{"v":1,"id":"half')
    return job


def long_job(folder: Path) -> EventCsv:
    """Return a job of some sessions and segments, with backups of each kind, an adopted edit, a result not folded."""
    job = begun(folder)
    job.emit_result("PO1", "PARTIAL", last_processed="1")
    job.compact()
    compactor_of(job).begin_session("first")
    job.new_segment()
    job.emit_result("PO2", "ERROR", error_message="why", last_processed="2", columns={"extra": "x"})
    job.back_up()
    edit(job, "PO3;", "PO3;EDITED")
    job.emit_result("PO9", "PARTIAL", last_processed="3")
    job.compact()
    compactor_of(job).begin_session("second")
    job.new_segment()
    job.emit_started("PO2")
    job.emit_result("PO1", "COMPLETED", last_processed="4")
    job.compact()
    job.emit_result("PO2", "COMPLETED", last_processed="5")
    return job


def broken(folder: Path) -> EventCsv:
    """Return such a job whose CSV was broken by an editor."""
    job = long_job(folder)
    edit(job, "PO2;", 'PO2;"')
    return job


def old_job(folder: Path) -> EventCsv:
    """Return a job of so many sessions that retention has removed its first backups."""
    job = begun(folder)
    for number in range(KEPT + 3):
        job.emit_result(f"PO{number % 3 + 1}", "PARTIAL", last_processed=f"{number}", columns={"n": number})
        job.new_segment()
        job.emit_result("PO3", "PARTIAL", last_processed=f"{number}.5")
        compactor_of(job).begin_session(f"s{number}")
    job.emit_result("PO1", "COMPLETED", last_processed="9")
    job.compact()
    job.emit_result("PO2", "COMPLETED", last_processed="10")
    return job


def after_sessions(folder: Path) -> EventCsv:
    """Return a job with a backup that was asked for, those of KEPT sessions, and a result that nobody has folded."""
    job = one_result(folder)
    job.back_up()
    for number in range(KEPT + 1):
        with job.session(session_id=f"s{number}"):
            job.emit_result("PO2", "PARTIAL", last_processed=str(number))
    job.emit_result("PO3", "COMPLETED", last_processed="3")
    return job


# --- operations ---


def first_backup(job: EventCsv) -> str:
    """Return the name of the oldest backup."""
    return job.backups()[-1].name


def whole_session(job: EventCsv) -> None:
    """Begin a session, and end it without having done anything in it."""
    with job.session(refresh_s=3600):
        pass


def keeps_enough_backups(job: EventCsv) -> bool:
    """Tell whether there are the newest KEPT of sessions that could be verified, and the one that was asked for."""
    kept = [backup.reason for backup in job.backups() if compactor_of(job).files.backups.read(backup)]
    return [*[SESSION] * KEPT, "asked for"] == [reason for reason in kept if reason != FIRST]


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that is done to a job in a situation.

    Attributes:
        name: What it is called.
        situation: Brings a job in a new folder there.
        act: Does it.
        command: What the command line calls it, and its arguments after the CSV, given the job; None when there is no
            command that does just that.
        can_compact: Whether a compaction can come before it.
        statuses: The STATUS of each row once everything is folded.
        holds: What has to be true besides when it has been done, however often it was stopped before.
    """

    name: str
    situation: Callable[[Path], EventCsv]
    act: Callable[[EventCsv], object]
    command: Callable[[EventCsv], Sequence[str]] | None = None
    can_compact: bool = True
    statuses: tuple[str, ...] = ("COMPLETED", "PARTIAL", "")
    holds: Callable[[EventCsv], bool] = lambda _: True


def _compaction(name: str, situation: Callable[[Path], EventCsv], **options: Any) -> Operation:
    return Operation(f"compact: {name}", situation, EventCsv.compact, lambda _: ["compact"], **options)


_LONG: Final = ("COMPLETED", "COMPLETED", "EDITED")

OPERATIONS: Final = (
    _compaction("first", one_result, statuses=("COMPLETED", "", "")),
    _compaction("incremental", compacted),
    _compaction("edited", edited, statuses=("COMPLETED", "PARTIAL", "EDITED")),
    _compaction("late", late, statuses=("COMPLETED", "PARTIAL", "", "COMPLETED")),
    _compaction("no checkpoint", without_checkpoint),
    _compaction("gone", without_csv),
    Operation("replay", long_job, EventCsv.replay, lambda _: ["replay"], statuses=_LONG),
    Operation("replay: broken", broken, EventCsv.replay, lambda _: ["replay"], can_compact=False, statuses=_LONG),
    Operation("backup: first", begun, EventCsv.back_up, lambda _: ["backup", "create"], statuses=("", "", "")),
    Operation("backup", long_job, EventCsv.back_up, lambda _: ["backup", "create"], statuses=_LONG),
    Operation(
        "restore",
        long_job,
        lambda job: job.restore(first_backup(job)),
        lambda job: ["backup", "restore", first_backup(job)],
        statuses=("COMPLETED", "COMPLETED", "EDITED"),
    ),
    Operation(
        "restore: no replay",
        long_job,
        lambda job: job.restore(first_backup(job), replay=False),
        lambda job: ["backup", "restore", first_backup(job), "--no-replay"],
        statuses=("", "", ""),
    ),
    Operation("prune", old_job, EventCsv.prune, lambda _: ["prune"], statuses=("COMPLETED", "COMPLETED", "PARTIAL")),
    Operation("segment", compacted, EventCsv.new_segment),
    Operation("segment: torn", torn, EventCsv.new_segment),
    Operation(
        "session",
        after_sessions,
        whole_session,
        statuses=("COMPLETED", "PARTIAL", "COMPLETED"),
        holds=keeps_enough_backups,
    ),
    Operation("session: first", begun, whole_session, statuses=("", "", "")),
    Operation(
        "append: first",
        begun,
        lambda job: job.emit_result("PO1", "COMPLETED", last_processed="1"),
        statuses=("COMPLETED", "", ""),
    ),
)


# --- promises ---


def litter(folder: Path) -> list[str]:
    """Return whatever is no file of a job at rest: temporary files, and halves of backups."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    found = {name for name in names if not _OURS.fullmatch(name)}
    for name in names:
        base, suffix = os.path.splitext(name)
        if base.startswith("backup/") and f"{base}{'.json' if suffix == '.csv' else '.csv'}" not in names:
            found.add(name)
    return sorted(found)


def content(path: Path) -> bytes | None:
    """Return the CSV, or None when there is none."""
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return None


class Watching(Recording):
    """Notes every version of the CSV that there is between two steps."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.versions: set[bytes | None] = set()

    def before(self, step: str, *_args: Any) -> None:
        """Look at the CSV before a step."""
        if step in CHANGES:
            self.versions.add(content(self._path))


class Trial:
    """An operation that is done again and again to the same job, at the same path.

    Args:
        operation: What is done.
        folder: An empty one.

    Attributes:
        path: The CSV.
        versions: The CSVs that there may be at any moment.
        wanted: The CSV that there has to be afterwards.
        folded: The CSV that there has to be once it is compacted after that.
    """

    def __init__(self, operation: Operation, folder: Path) -> None:
        self.operation = operation
        self.path = folder / "job" / "input.csv"
        self._model = folder / "model"
        operation.situation(self.path.parent).close()
        shutil.copytree(self.path.parent, self._model)
        watching = Watching(self.path)
        self.act(watching)
        self.wanted = content(self.path)
        self.versions = {*watching.versions, self.wanted}
        job = EventCsv(self.path)
        self._segments = job.log.segments()
        job.compact()
        self.folded = content(self.path)
        shown = statuses(self.path)
        self._edits = self._adopted(job)
        check(list(operation.statuses) == shown, f"after a clean run STATUS is {shown}", operation.name)

    def begin(self, state: Path | None = None) -> None:
        """Put the job into the situation, or into a state that was kept."""
        shutil.rmtree(self.path.parent)
        shutil.copytree(state or self._model, self.path.parent)

    def keep(self) -> Path:
        """Keep the state of the job as it is now, the last one that is kept."""
        state = self._model.with_name("kept")
        shutil.rmtree(state, ignore_errors=True)
        return shutil.copytree(self.path.parent, state)

    def act(self, storage: Storage | None = None) -> None:
        """Do it, with a fresh job, as a new process would; on a storage that fails, when one is given."""
        job = EventCsv(self.path, durability="process")
        if storage:
            with_storage(job, storage)
        try:
            self.operation.act(job)
        finally:
            job.close()  # as the system does for who is dead

    def steps(self, storage: Recording) -> list[str]:
        """Return the steps that a storage counts when nothing goes wrong."""
        self.begin()
        self.act(storage)
        return storage.steps

    def dies(self, storage: Storage) -> bool:
        """Do it on a storage that dies; return whether it got that far."""
        try:
            self.act(storage)
        except Killed:
            return True
        return False

    def command(self) -> list[str]:
        """Return the arguments with which the command line does it."""
        assert self.operation.command
        words = list(self.operation.command(EventCsv(self.path)))
        place = 2 if words[0] == "backup" else 1
        return [*words[:place], str(self.path), *words[place:]]

    def litter(self) -> list[str]:
        """Return what is lying around; see `litter`."""
        return litter(self.path.parent)

    def is_new(self) -> bool:
        """Tell whether the CSV is the new one."""
        return content(self.path) == self.wanted

    def check_whole(self, place: object) -> None:
        """Check that the CSV is the old one or the new one."""
        present = content(self.path)
        check(present in self.versions, f"neither old nor new is {present!r}", place)

    def check_done(self, place: object) -> None:
        """Check that everything is as after a clean run, and stays so."""
        check(self.is_new(), f"not as after a clean run: {content(self.path)!r}", place)
        self._check_at_rest(place)

    def check_another_comes_first(self, place: object) -> None:
        """Check that a look and a compaction do no harm to what was stopped, which is done once more after them."""
        if not self.operation.can_compact:
            return
        looked = EventCsv(self.path).pending()
        EventCsv(self.path).compact()
        check(looked == (after := EventCsv(self.path).pending()), f"looked {looked}, and {after} after it", place)
        check(not EventCsv(self.path).replay().changed, "a replay gives other bytes", place)
        self.act()
        check(content(self.path) in {self.wanted, self.folded}, f"not as wanted: {content(self.path)!r}", place)
        self._check_at_rest(place)
        found = EventCsv(self.path).verify().findings
        check(not found, f"verify finds {found}", place)

    def _adopted(self, job: EventCsv) -> set[str]:
        return {backup.sha256 for backup in job.backups() if backup.reason == EDITED}

    def _check_at_rest(self, place: object) -> None:
        check(not (left := self.litter()), f"left lying around: {left}", place)
        job = EventCsv(self.path)
        segments = job.log.segments()
        check(self._segments[:1] == segments[:1], f"other segments than after a clean run: {segments}", place)
        check(list(range(segments[0], segments[-1] + 1)) == segments, f"a gap in the log: {segments}", place)
        check(self.operation.holds(job), "not all as it has to be", place)
        job.compact()
        check(self._adopted(job) == self._edits, "what was no edit was taken for one", place)
        check(self.folded == content(self.path), f"not what the log says: {content(self.path)!r}", place)
        check(not EventCsv(self.path).replay().changed, "a replay gives other bytes", place)
