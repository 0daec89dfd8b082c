"""One seed: a job on a simulated computer, what befalls it, and whether it kept its promises.

Workers, compactors, sessions, an operator and whoever makes and restores backups run side by side for some eras, each
of which ends in peace or in a power cut. What is promised is checked against plain Python: the log is read and folded
here without a line of eventcsv's.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zlib import crc32

from conftest import file_log
from faults import Killed, with_storage
from inside import compactor_of
from simulated import Machine, Odds, Process, Violation, running_on

from eventcsv import EventCsv, EventCsvError, InvalidCsv, LockTimeout, SessionActive
from eventcsv.errors import BackupError
from eventcsv.view.retention import EDITED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from eventcsv import CompactResult
    from eventcsv.view.backup import Backup

JOB: Final = "/job"
CSV: Final = f"{JOB}/input.csv"
LOG: Final = f"{JOB}/input.events"
BACKUPS: Final = f"{JOB}/backup"
OPERATOR_FILE: Final = ".~input.csv"
STRANGE_KEY: Final = "PO9"
_TEMPORARY: Final = f"{JOB}/.input.csv.eventcsv.tmp"
_SEGMENT: Final = re.compile(rf"{LOG}/events-(\d{{6}})\.jsonl")
_MOST_LIVES: Final = 4
_CONTENTION: Final = (LockTimeout, SessionActive)

Row = dict[str, str]


class Record(NamedTuple):
    """An event as it stands in the log."""

    id: str
    kind: str
    key: str
    cells: Row


@dataclass(slots=True)
class Intent:
    """What a worker meant to record: what, when it began and when it was told that it is safe, by a common clock."""

    kind: str
    key: str
    note: str
    began: int
    acknowledged: int | None = None
    retried: bool = False


@lru_cache(maxsize=50_000)
def _record(line: bytes) -> Record | None:
    body, mark, crc = line.rpartition(b',"crc":"')
    if not mark or crc != b'%08x"}' % crc32(body):
        return None
    found = json.loads(line)
    if found["kind"] not in {"result", "started"}:
        return None
    return Record(found["id"], found["kind"], found["key"], found["set"])


def records(raw: bytes, *, holed: bool) -> list[Record]:
    """Read a segment by the rule: whole lines whose checksum holds. Where there are holes a newline may be in one."""
    lines = [line[max(0, line.rfind(b'{"v":')) :] if holed or b"\0" in line else line for line in raw.split(b"\n")[:-1]]
    return [found for line in lines if (found := _record(line))]


def rows_of(content: bytes) -> list[Row]:
    """Read a CSV as Python's csv module does, and leave out what is empty."""
    found = list(csv.reader(io.StringIO(content.decode(), newline=""), delimiter=";", strict=True))
    names = found[0]
    if any(len(row) != len(names) for row in found):
        raise Violation(f"a ragged CSV: {content!r}")
    return [{name: cell for name, cell in zip(names, row, strict=True) if cell} for row in found[1:]]


def _check(holds: object, promise: str, *details: object) -> None:
    if not holds:
        raise Violation(f"{promise}: {'; '.join(map(str, details))}" if details else promise)


class Simulation:
    """A job on a computer.

    Args:
        seed: Decides everything.
        trace: Called with a line for every step.

    Attributes:
        met: How often what has happened.
    """

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        rng = self._rng = Random(seed)
        faulty = rng.random() < 0.4
        self._machine = Machine(
            rng,
            Odds(
                switch=rng.choice((0.02, 0.1, 0.3)),
                kill=rng.choice((0.0, 0.003, 0.01)),
                cut=rng.choice((0.0, 0.001, 0.003, 0.01)),
                sync_error=rng.choice((0.0, 0.05)) if faulty else 0.0,
                full=rng.choice((0.0, 0.01)) if faulty else 0.0,
                short_write=rng.choice((0.0, 0.03)) if faulty else 0.0,
                slow_sync=rng.choice((0.0, 0.1, 0.5)),
                any_order=rng.random() < 0.2,
            ),
            trace,
        )
        self._machine.observe = self._observe
        self._machine.before_death = self._before_death
        self.met = self._machine.met
        # What the operator does to event columns is nothing here, so results have to be in the CSV whatever he does to
        # the rest; a restore without the log makes it hard to say which ones, so there only some checks are made.
        self._style = rng.choices(("plain", "edited", "dismissed"), (6, 3, 1))[0]
        self._keys = [f"PO{number}" for number in range(1, rng.randint(2, 4))]
        self._settle_s = rng.choice((0.0, 1.0))
        self._lock_timeout_s = rng.choice((30.0, 30.0, 30.0, 0.003))
        self._clock = count()
        self._names = count(1)
        self._jobs: dict[str, EventCsv] = {}
        self._intents: dict[str, Intent] = {}
        self._emitted: Counter[str] = Counter()
        self._pruned: dict[int, bytes] = {}
        self._cut_short: set[str] = set()
        self._versions: set[bytes] = set()
        self._by_operator: set[bytes] = set()
        self._loaded: list[bytes] = []
        self._looks: dict[str, bytes] = {}
        self._view = b""
        self._is_half = False
        # Whether the sync of a segment has failed, so that readers may have seen what a power cut then took back.
        self._holed = False

    @property
    def _edited(self) -> bool:
        return self._style == "edited"

    def run(self) -> None:
        """Let it all happen.

        Raises:
            Violation: A promise was broken.
        """
        with running_on(self._machine):
            self._prepare()
            for _ in range(self._rng.randint(1, 3)):
                self._machine.run(self._scripts())
                if self._machine.is_down:
                    self._machine.boot()
                    self._after_power_cut()
                self._check_log()
                if self._rng.random() < 0.3:
                    self._recover()
            self._recover()

    def _prepare(self) -> None:
        storage = self._machine.process("installer").storage
        storage.mkdir(JOB)
        self._view = "".join(["PO_NUMBER;STATUS;note;REMARK\n", *(f"{key};;;\n" for key in self._keys)]).encode()
        storage.write_new(CSV, self._view)
        self._machine.root.sync_all()
        self._versions.add(self._view)

    # --- who is at work ---

    def _scripts(self) -> dict[str, Callable[[], None]]:
        rng = self._rng
        lives = {f"worker{number}": (self._work, rng.randint(2, 6)) for number in range(rng.randint(1, 3))}
        lives |= {f"compactor{number}": (self._compact, rng.randint(1, 3)) for number in range(rng.randint(1, 2))}
        for name, life, odds in (
            ("session", self._session, 0.4),
            ("keeper", self._keep, 0.5),
            ("auditor", self._audit, 0.15),
            ("operator", self._operate, 0.9 if self._edited else 0.0),
        ):
            if rng.random() < odds:
                lives[name] = (life, rng.randint(1, 2))
        return {name: self._living(name, *life) for name, life in lives.items()}

    def _living(self, name: str, life: Callable[[Process], None], times: int) -> Callable[[], None]:
        """Return the script of somebody who does something some times, and starts again when killed."""

        def script() -> None:
            left = times
            for _ in range(_MOST_LIVES):
                process = self._machine.process(f"{name}.{next(self._names)}")
                try:
                    while left:
                        left -= 1
                        life(process)
                        if self._rng.random() < 0.5:
                            self._machine.sleep(self._rng.random() * 0.05)
                    process.end()
                except Killed:
                    if self._machine.is_down:
                        raise
                else:
                    return

        return script

    def _job(self, process: Process) -> EventCsv:
        """Return the job of a process, which keeps it in memory as long as it lives."""
        if process.name not in self._jobs:
            job = EventCsv(CSV, backup_dir=BACKUPS, settle_s=self._settle_s, lock_timeout_s=self._lock_timeout_s)
            self._jobs[process.name] = with_storage(job, process.storage)
        return self._jobs[process.name]

    def _attempt(
        self, process: Process, action: Callable[[], Any], *, tolerated: tuple[type[Exception], ...] = ()
    ) -> Any:
        """Do something that may fail, but only for a reason."""
        process.faults = 0
        if self._edited:  # half a file that is being saved is refused, and so is one that is saved all the time
            tolerated += (InvalidCsv,)
        try:
            return action()
        except (OSError, EventCsvError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, _CONTENTION):
                self.met["lock timeout"] += 1
            elif process.faults:
                self.met["failed for good"] += 1
            elif not isinstance(error, tolerated) and "Save it less often" not in str(error):
                raise Violation(f"{process.name} failed without a fault: {error!r}") from error
            return None

    def _work(self, process: Process) -> None:
        key = self._rng.choice([*self._keys, *self._keys, STRANGE_KEY])
        if self._rng.random() < 0.3:
            self._emit(process, "started", key)
        self._emit(process, "result", key)

    def _emit(self, process: Process, kind: str, key: str) -> None:
        job = self._job(process)
        writer = file_log(job)._writer
        self._emitted[writer] += 1
        number = self._emitted[writer]
        note = f"{process.name}-{number}" if kind == "result" else ""
        intent = self._intents[f"{writer}-{number}"] = Intent(kind, key, note, next(self._clock))
        columns = {"note": note} | ({f"extra{number % 2}": note} if number % 3 == 0 else {})
        action = (
            (lambda: job.emit_started(key))
            if kind == "started"
            else (lambda: job.emit_result(key, self._rng.choice(("PARTIAL", "COMPLETED")), columns=columns))
        )
        try:
            event = self._attempt(process, action)
        finally:
            intent.retried = process.faults > 0
        if event:
            _check(event.id == f"{writer}-{number}", "another id than foreseen", event)
            intent.acknowledged = next(self._clock)
            self.met["acknowledged"] += 1
            self.met["acknowledged after a fault"] += intent.retried

    def _compact(self, process: Process) -> None:
        job = self._job(process)
        self._folded(self._attempt(process, job.replay if self._rng.random() < 0.1 else job.compact))

    def _folded(self, result: CompactResult | None) -> None:
        if result:
            _check(
                self._edited or not result.edited, "what a compaction wrote was taken for an operator's edit", result
            )
            self.met["edit adopted"] += result.edited
            self.met["stale edit"] += result.stale > 0
            self.met["late results folded"] += bool(result.late)
            self.met["rebuilt from a base"] += result.rebuilt is not None
            self.met["rebuilt without being asked"] += result.rebuilt is not None and "asked for" not in result.rebuilt

    def _session(self, process: Process) -> None:
        job = self._job(process)

        def begin() -> None:
            with job._session_lock.held(process.name.replace(".", "-")):
                self._folded(compactor_of(job).begin_session(process.name.replace(".", "-")))
                job.new_segment()
                self._machine.sleep(self._rng.random() * 0.1)
                self._folded(job.compact())

        self._attempt(process, begin)

    def _keep(self, process: Process) -> None:
        job = self._job(process)
        known = self._attempt(process, job.backups, tolerated=(InvalidCsv,)) or []
        action = self._rng.choice(("back up", "prune", "prune", "restore"))
        if action == "restore" and known:
            name = self._rng.choice(known).name
            replay = self._style != "dismissed" or self._rng.random() < 0.5
            # It may be gone by now, or keep a CSV whose place in the log nobody knows.
            self._folded(self._attempt(process, lambda: job.restore(name, replay=replay), tolerated=(BackupError,)))
            self.met["restored"] += 1
        elif action == "prune":
            if self._rng.random() < 0.5:  # so that there is something to prune
                self._attempt(process, job.new_segment)
                self._attempt(process, job.back_up)
                known = self._attempt(process, job.backups, tolerated=(InvalidCsv,)) or []
            if self._style == "plain":  # what an edit has seen is found out with the help of old backups
                bases = [backup for backup in known if backup.position]
                self._attempt(process, lambda: self._remove(job, bases[1:]))
            pruned = self._attempt(process, job.prune)
            self.met["segment pruned"] += bool(pruned and pruned.removed)
        else:
            self._attempt(process, job.back_up)

    @staticmethod
    def _remove(job: EventCsv, backups: list[Backup]) -> None:
        """Remove backups, as retention does some day."""
        with compactor_of(job).locked(dry_run=False):
            store = compactor_of(job).files.backups
            for backup in store.all():
                if backup in backups:
                    store.remove(backup)

    def _audit(self, process: Process) -> None:
        job = self._job(process)
        self._attempt(process, job.progress)
        report = self._attempt(process, job.verify)
        if report and not self._edited:
            wrong = [
                item
                for item in report.findings
                if not self._blames(item.problem) and "there is no backup" not in item.problem  # before the first one
            ]
            _check(not wrong, "verify finds something beside those at work", *wrong)
        self.met["verified beside others"] += report is not None

    def _operate(self, process: Process) -> None:
        """Change a remark, add a row, or change the order, often in an old copy; save by renaming, or in place."""
        if self._is_half:
            return
        storage, rng = process.storage, self._rng
        self._loaded.append(storage.read(CSV) or b"")
        loaded = rng.choice(self._loaded) if rng.random() < 0.5 else self._loaded[-1]
        self.met["an old copy saved"] += loaded != self._loaded[-1]
        rows = rows_of(loaded)
        names = loaded.decode().partition("\n")[0].split(";")
        self._machine.sleep(rng.choice((0.0, 0.05, 0.2)) * rng.random())
        rng.choice(rows)["REMARK"] = f"{process.name}-{next(self._clock)}"
        if rng.random() < 0.3 and STRANGE_KEY not in {row["PO_NUMBER"] for row in rows}:
            rows.append({"PO_NUMBER": STRANGE_KEY})
        if rng.random() < 0.2:
            rows.reverse()
        lines = [";".join(row.get(name, "") for name in names) for row in rows]
        data = "\n".join([";".join(names), *lines, ""]).encode()
        process.faults = 0
        try:
            if rng.random() < 0.7:
                self._by_operator.add(data)
                storage.write_atomically(f"{JOB}/{OPERATOR_FILE}", data)
                storage.replace(f"{JOB}/{OPERATOR_FILE}", CSV)
                storage.sync_directory(JOB)
            else:
                self._save_in_place(process, data)
        except OSError:
            if not process.faults:
                raise
        self.met["edit"] += 1

    def _save_in_place(self, process: Process, data: bytes) -> None:
        self._is_half = True  # and stays so when this is as far as it gets
        fd = process.storage.open(CSV, os.O_WRONLY | os.O_TRUNC)
        process.storage.write_all(fd, data[: len(data) // 2])
        process.storage.write_all(fd, data[len(data) // 2 :])
        process.storage.sync(fd)
        process.storage.close(fd)
        self._by_operator.add(data)
        self._is_half = False

    # --- what is seen to happen ---

    def _observe(self, process: Process, call: str, path: str, data: bytes) -> None:
        target = data.decode() if call == "replace" else path
        if target == CSV:
            self._observe_csv(process, call, data)
        elif found := _SEGMENT.fullmatch(target):
            self._observe_segment(process, call, path, data, int(found[1]))
        elif target.startswith(BACKUPS):
            self.met["backup made"] += call == "replace" and target.endswith(".json")
            self.met["backup removed"] += call == "unlink" and target.endswith(".csv")

    def _observe_segment(self, process: Process, call: str, path: str, data: bytes, number: int) -> None:
        if call == "replace":
            self.met["segment change"] += number > 1
        elif call == "unlink":
            self._pruned[number] = self._machine.content(path) or b""
        elif call == "short write":
            self._cut_short.add(path)
        elif call == "write" and data.startswith(b"\n"):
            self.met["torn tail healed"] += 1
            self.met["short write healed"] += path in self._cut_short
            self._cut_short.discard(path)
        elif call == "failed sync":
            self._holed = True
            self.met["descriptor poisoned"] += process.name.startswith("worker")

    def _observe_csv(self, process: Process, call: str, data: bytes) -> None:
        if call == "pread":
            self._looks[process.name] = data
        elif call == "replace":
            self._replaced(process)
        else:
            _check(process.name.startswith(("operator", "installer")), "the CSV is written in place", process.name)
            self._view = self._machine.content(CSV) or b""
            self._versions.add(self._view)

    def _replaced(self, process: Process) -> None:
        before, self._view = self._view, self._machine.content(CSV) or b""
        self._versions.add(self._view)
        self.met["CSV replaced"] += 1
        if process.name.startswith("operator"):
            return
        self._check_shown(self._view, "the CSV was replaced")
        if not set(self._keys) <= {row["PO_NUMBER"] for row in rows_of(self._view)}:
            # Half a file was taken for an edit, as it may be when nothing is waited for, or restored on purpose.
            _check(self._settle_s == 0 or process.name.startswith("keeper"), "rows were lost", process.name, before)
            self._is_half = True
        if before not in self._by_operator:
            return
        reasons = [json.loads(meta)["reason"] for meta, copy in self._kept() if copy == before]
        if self._looks.get(process.name) != before:
            self.met["edit lost between the look and the replacement"] += 1
        else:
            _check(reasons, "an edit was replaced and not kept", process.name, before)
        if reasons == [EDITED] and not process.name.startswith("keeper"):
            saved, now = (
                {row["PO_NUMBER"]: row.get("REMARK") for row in rows_of(data)} for data in (before, self._view)
            )
            # A row that came in after the copy was loaded stays.
            _check(saved.items() <= now.items(), "an edit was not respected", process.name, saved, now)

    def _kept(self) -> list[tuple[bytes, bytes]]:
        files = self._machine.files()
        return [
            (bytes(file.data), bytes(files[copy].data))
            for path, file in files.items()
            if path.startswith(BACKUPS) and path.endswith(".json") and (copy := f"{path[:-5]}.csv") in files
        ]

    def _before_death(self, processes: list[Process], how: str) -> None:
        paths = list(self._machine.files())
        held = {
            opened.path.rpartition("/")[2]
            for process in processes
            for fd, opened in process.opened.items()
            if fd in opened.node.holders
        }
        self.met[how] += 1
        self.met[f"{how}: while a lock was held"] += bool(held)
        if "compact.lock" in held:
            self.met[f"{how}: in a compaction"] += _TEMPORARY in paths
            self.met[f"{how}: while the checkpoint was written"] += f"{LOG}/checkpoint.json.tmp" in paths
            self.met[f"{how}: in a backup"] += any(p.startswith(BACKUPS) and p.endswith(".tmp") for p in paths)
        if "append.lock" in held:
            self.met[f"{how}: in a segment change"] += any(p.startswith(LOG) and p.endswith("l.tmp") for p in paths)

    # --- what has to hold ---

    def _history(self) -> list[Record]:
        """Return the events of the log, in order, those included that were pruned since."""
        segments = dict(self._pruned)
        for path, file in self._machine.files().items():
            if found := _SEGMENT.fullmatch(path):
                segments[int(found[1])] = bytes(file.data)
        return [item for number in sorted(segments) for item in records(segments[number], holed=self._holed)]

    def _check_log(self) -> None:
        """Check that what was acknowledged is there, once and in order, and that nobody invented anything."""
        history = self._history()
        times = Counter(item.id for item in history)
        newest = -1
        for item in history:
            intent = self._intents.get(item.id)
            _check(
                intent and (intent.kind, intent.key, intent.note) == (item.kind, item.key, item.cells.get("note", "")),
                "the log has an event that nobody emitted",
                item,
                intent,
            )
            assert intent is not None
            _check(
                intent.acknowledged is None or intent.acknowledged > newest,
                "an event stands behind one that was begun after it was acknowledged",
                item,
            )
            _check(times[item.id] == 1 or intent.retried, "an event is in the log twice without a fault", item)
            newest = max(newest, intent.began)
        lost = [name for name, intent in self._intents.items() if intent.acknowledged is not None and not times[name]]
        _check(not lost, "an acknowledged event is not in the log", *lost)
        self.met["an event twice in the log"] += any(several > 1 for several in times.values())

    def _after_power_cut(self) -> None:
        """Check what the disk has kept, before anything has repaired it."""
        content = self._machine.content(CSV)
        self._view = content or b""
        if not self._is_half:
            _check(content in self._versions, "a power cut left half a CSV", content)
            self._check_shown(self._view, "a power cut")

    def _check_shown(self, content: bytes, when: str) -> None:
        """Check that a CSV shows what some beginning of the log gives, or at least nothing that is not in it."""
        history = self._history()
        try:
            rows = rows_of(content)
        except (UnicodeDecodeError, csv.Error, IndexError) as error:
            raise Violation(f"{when}: the CSV cannot be read: {content!r}") from error
        if self._holed:
            return
        known = {item.cells.get("note") for item in history}
        strange = [row for row in rows if row.get("note") and row["note"] not in known]
        _check(not strange, f"{when}: the CSV shows what is not in the log", *strange)
        if self._style == "plain":
            folded: dict[str, Row] = {key: {"PO_NUMBER": key} for key in self._keys}
            if rows == list(folded.values()):
                return
            for item in history:
                if item.key in folded:
                    folded[item.key] |= item.cells
                    if rows == list(folded.values()):
                        return
            raise Violation(f"{when}: the CSV is no fold of the log: {rows}; {history}")

    def _recover(self) -> None:
        """Begin a session, as whoever goes on after a crash does; then check everything."""
        if self._is_half:
            return
        name = f"recovery-{next(self._names)}"
        process = self._machine.process(name)
        fresh = self._machine.process(f"fresh-{name}")
        job = self._job(process)
        job._settle_s = 0.0
        try:
            with job._session_lock.held(name):
                result = compactor_of(job).begin_session(name)
                job.new_segment()
            self._folded(result)
            self._folded(job.compact())  # a line of which only the newline was missing has got it with the seal
            self._check_log()
            self._check_rows()
            self._check_tidy()
            before = self._machine.content(CSV)
            replayed = self._job(fresh).replay()
            report = self._job(fresh).verify()
        except (OSError, EventCsvError) as error:
            raise Violation(f"recovery fails: {error!r}") from error
        _check((False, before) == (replayed.changed, self._machine.content(CSV)), "a replay gives another CSV", before)
        wrong = [item for item in report.findings if not self._blames(item.problem)]
        _check(not wrong, "verify finds something", *wrong)
        self.met["recovered"] += 1

    def _blames(self, problem: str) -> bool:
        """Tell whether what verify found is what a fault explains: a line cut off, or a hole where a sync failed."""
        # What kills and short writes leave half is said to be so by whoever ends it. A power cut may take back what
        # stood before a line that it keeps, and then nobody knows.
        if problem.startswith(("torn", "NUL bytes", "the checksum does not match", "an empty line")):
            return self.met["power cut"] > 0
        if "the backup is gone; its metadata is still there" in problem:
            return self._machine.odds.any_order
        holes = (
            "seal",
            "header",
            "differs from what was folded",
            "not what a replay gives",
            "belongs to a place that is no line",
        )
        return self._holed and any(words in problem for words in holes)

    def _check_rows(self) -> None:
        """Check that in the CSV the last event wins, for every key and column, in the order of the log."""
        rows = rows_of(self._machine.content(CSV) or b"")
        if not self._edited:
            _check([row["PO_NUMBER"] for row in rows] == self._keys, "rows are not as they were", rows)
        if self._style == "dismissed":
            return
        history = self._history()
        wanted: dict[str, Row] = {}
        for item in history:
            wanted.setdefault(item.key, {}).update(item.cells)
        ids = {item.id for item in history}
        # Read and folded while it was there, though its sync had failed, and taken back by a power cut. Nobody was told
        # that it is safe, and no second sync could have shown that it is not.
        taken_back = (
            {intent.note for name, intent in self._intents.items() if name not in ids} if self._holed else set()
        )
        for row in rows:
            shown = {name: cell for name, cell in row.items() if name not in {"PO_NUMBER", "REMARK"}}
            expected = wanted.get(row["PO_NUMBER"], {})
            if taken_back.isdisjoint(shown.values()):
                _check(shown == expected, "the CSV is not what the log says", row, expected)

    def _check_tidy(self) -> None:
        known = {"append.lock", "compact.lock", "session.lock", "checkpoint.json", "input.csv", OPERATOR_FILE}
        known.add(f"{OPERATOR_FILE}.tmp")
        files = self._machine.files()
        left = [
            path
            for path in files
            if os.path.basename(path) not in known and not _SEGMENT.fullmatch(path) and not self._is_backup(path, files)
        ]
        _check(not left, "something is left lying around", *left)

    def _is_backup(self, path: str, files: Collection[str]) -> bool:
        stem, _ = os.path.splitext(path)
        # The names of a backup are made in an order that tells what is unfinished; a disk that keeps only the last of
        # them costs a file that nobody clears away, and nothing else.
        whole = self._machine.odds.any_order or {f"{stem}.csv", f"{stem}.json"} <= set(files)
        return whole and path.startswith(BACKUPS) and path.endswith((".csv", ".json"))
