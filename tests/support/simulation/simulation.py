"""One seed: a job on a simulated computer, what befalls it, and whether it kept its promises.

Workers, compactors, sessions, an operator and whoever makes and restores backups run side by side for some eras, each
of which ends in peace or in a power cut. What is promised is checked by `witness.py` in plain Python: the log is read
and folded there without a line of eventcsv's.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Final

from conftest import file_log
from faults import Killed, with_storage
from inside import compactor_of
from simulated import Machine, Odds, Process, Violation, running_on
from witness import BACKUPS, CSV, JOB, OPERATOR_FILE, Intent, Witness, check, rows_of

from eventcsv import EventCsv, EventCsvError, InvalidCsv, LockTimeout, SessionActive
from eventcsv.errors import BackupError

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventcsv import CompactResult, Event
    from eventcsv.view.backup import Backup

STRANGE_KEY: Final = "PO9"
_MOST_LIVES: Final = 4
_CONTENTION: Final = (LockTimeout, SessionActive)


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
        self.met = self._machine.met
        # What the operator does to event columns is nothing here, so results have to be in the CSV whatever he does to
        # the rest; a restore without the log makes it hard to say which ones, so there only some checks are made.
        self._style = rng.choices(("plain", "edited", "dismissed"), (6, 3, 1))[0]
        self._keys = [f"PO{number}" for number in range(1, rng.randint(2, 4))]
        self._settle_s = rng.choice((0.0, 1.0))
        self._lock_timeout_s = rng.choice((30.0, 30.0, 30.0, 0.003))
        self._witness = Witness(self._machine, self._style, self._keys, self._settle_s)
        self._machine.observe = self._witness.observe
        self._machine.before_death = self._witness.before_death
        self._clock = count()
        self._names = count(1)
        self._jobs: dict[str, EventCsv] = {}
        self._emitted: Counter[str] = Counter()
        self._loaded: list[bytes] = []

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
                    self._witness.after_power_cut()
                self._witness.check_log()
                if self._rng.random() < 0.3:
                    self._recover()
            self._recover()

    def _prepare(self) -> None:
        storage = self._machine.process("installer").storage
        storage.mkdir(JOB)
        self._witness.view = "".join(
            ["PO_NUMBER;STATUS;note;REMARK\n", *(f"{key};;;\n" for key in self._keys)]
        ).encode()
        storage.write_new(CSV, self._witness.view)
        self._machine.root.sync_all()
        self._witness.versions.add(self._witness.view)

    # --- who is at work ---

    def _scripts(self) -> dict[str, Callable[[], None]]:
        rng = self._rng
        lives = {f"worker{number}": (self._work, rng.randint(2, 6)) for number in range(rng.randint(1, 3))}
        lives |= {f"compactor{number}": (self._compact, rng.randint(1, 3)) for number in range(rng.randint(1, 2))}
        for name, life, odds in (
            ("session", self._session, 0.4),
            ("keeper", self._keep, 0.5),
            ("auditor", self._audit, 0.15),
            ("operator", self._operate, 0.9 if self._witness.edited else 0.0),
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
        if self._witness.edited:  # half a file that is being saved is refused, and so is one that is saved all the time
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
        if self._rng.random() < 0.1:
            self._emit(process, "deferred", key)

    def _emit(self, process: Process, kind: str, key: str) -> None:
        job = self._job(process)
        writer = file_log(job)._writer
        self._emitted[writer] += 1
        number = self._emitted[writer]
        note = f"{process.name}-{number}" if kind == "result" else ""
        intent = self._witness.intents[f"{writer}-{number}"] = Intent(kind, key, note, next(self._clock))
        columns = {"note": note} | ({f"extra{number % 2}": note} if number % 3 == 0 else {})
        actions: dict[str, Callable[[], Event]] = {
            "started": lambda: job.emit_started(key, attempt=1 + number % 3),
            "deferred": lambda: job.record_deferred(key, attempt=1 + number % 3, reason="busy", wait_s=number % 90),
            "result": lambda: job.emit_result(key, self._rng.choice(("PARTIAL", "COMPLETED")), columns=columns),
        }
        try:
            event = self._attempt(process, actions[kind])
        finally:
            intent.retried = process.faults > 0
        if event:
            check(event.id == f"{writer}-{number}", "another id than foreseen", event)
            intent.acknowledged = next(self._clock)
            self.met["acknowledged"] += 1
            self.met["acknowledged after a fault"] += intent.retried

    def _compact(self, process: Process) -> None:
        job = self._job(process)
        self._folded(self._attempt(process, job.replay if self._rng.random() < 0.1 else job.compact))

    def _folded(self, result: CompactResult | None) -> None:
        if result:
            check(
                self._witness.edited or not result.edited,
                "what a compaction wrote was taken for an operator's edit",
                result,
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
        if report and not self._witness.edited:
            wrong = [
                item
                for item in report.findings
                if not self._witness.blames(item.problem)
                and "there is no backup" not in item.problem  # before the first one
            ]
            check(not wrong, "verify finds something beside those at work", *wrong)
        self.met["verified beside others"] += report is not None

    def _operate(self, process: Process) -> None:
        """Change a remark, add a row, or change the order, often in an old copy; save by renaming, or in place."""
        if self._witness.is_half:
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
                self._witness.by_operator.add(data)
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
        self._witness.is_half = True  # and stays so when this is as far as it gets
        fd = process.storage.open(CSV, os.O_WRONLY | os.O_TRUNC)
        process.storage.write_all(fd, data[: len(data) // 2])
        process.storage.write_all(fd, data[len(data) // 2 :])
        process.storage.sync(fd)
        process.storage.close(fd)
        self._witness.by_operator.add(data)
        self._witness.is_half = False

    # --- who goes on ---

    def _recover(self) -> None:
        """Begin a session, as whoever goes on after a crash does; then check everything."""
        if self._witness.is_half:
            return
        name = f"recovery-{next(self._names)}"
        process = self._machine.process(name)
        fresh = self._machine.process(f"fresh-{name}")
        job = self._job(process)
        job._options = replace(job._options, settle_s=0.0)
        try:
            with job._session_lock.held(name):
                result = compactor_of(job).begin_session(name)
                job.new_segment()
            self._folded(result)
            self._folded(job.compact())  # a line of which only the newline was missing has got it with the seal
            self._witness.check_log()
            self._witness.check_rows()
            self._witness.check_tidy()
            before = self._machine.content(CSV)
            replayed = self._job(fresh).replay()
            report = self._job(fresh).verify()
        except (OSError, EventCsvError) as error:
            raise Violation(f"recovery fails: {error!r}") from error
        check((False, before) == (replayed.changed, self._machine.content(CSV)), "a replay gives another CSV", before)
        wrong = [item for item in report.findings if not self._witness.blames(item.problem)]
        check(not wrong, "verify finds something", *wrong)
        self.met["recovered"] += 1
