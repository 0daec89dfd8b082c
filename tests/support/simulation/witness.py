"""What is promised of a job on a simulated computer, checked in plain Python without a line of eventcsv's."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from plain import checked
from simulated import Machine, Process, Violation

from eventcsv.view.retention import EDITED

if TYPE_CHECKING:
    from collections.abc import Collection


JOB: Final = "/job"
CSV: Final = f"{JOB}/input.csv"
LOG: Final = f"{JOB}/input.events"
BACKUPS: Final = f"{JOB}/backup"
OPERATOR_FILE: Final = ".~input.csv"
_TEMPORARY: Final = f"{JOB}/.input.csv.eventcsv.tmp"
_SEGMENT: Final = re.compile(rf"{LOG}/events-(\d{{6}})\.jsonl")

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
    found = checked(line)
    if not found or found["kind"] not in {"result", "started", "deferred"}:
        return None
    cells = found["set"] if found["kind"] == "result" else {}  # what the others say of a PO is no cell of its row
    return Record(found["id"], found["kind"], found["key"], cells)


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


def check(holds: object, promise: str, *details: object) -> None:
    if not holds:
        raise Violation(f"{promise}: {'; '.join(map(str, details))}" if details else promise)


class Witness:
    """Sees what happens to a job on a computer, and says what has to hold.

    Args:
        machine: The computer.
        style: What the operator does: "plain" is nothing, and so the results are in the CSV; "dismissed" is a restore
            without the log, which makes it hard to say which ones; "edited" is to save.
        keys: The POs of the CSV.
        settle_s: How long an edit has to be left alone to count.

    Attributes:
        intents: What workers meant to record, by the id that the event gets.
        versions: Whatever the CSV has been.
        by_operator: Those of them that the operator saved.
        view: The CSV as it is now.
        is_half: Whether half a file stands there, or was taken for an edit, so that no more can be said.
    """

    def __init__(self, machine: Machine, style: str, keys: list[str], settle_s: float) -> None:
        self._machine = machine
        self.met = machine.met
        self._style = style
        self._keys = keys
        self._settle_s = settle_s
        self.intents: dict[str, Intent] = {}
        self.versions: set[bytes] = set()
        self.by_operator: set[bytes] = set()
        self.view = b""
        self.is_half = False
        self._pruned: dict[int, bytes] = {}
        self._cut_short: set[str] = set()
        self._looks: dict[str, bytes] = {}
        # Whether the sync of a segment has failed, so that readers may have seen what a power cut then took back.
        self._holed = False

    @property
    def edited(self) -> bool:
        """Whether the operator saves."""
        return self._style == "edited"

    # --- what is seen to happen ---

    def observe(self, process: Process, call: str, path: str, data: bytes) -> None:
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
            check(process.name.startswith(("operator", "installer")), "the CSV is written in place", process.name)
            self.view = self._machine.content(CSV) or b""
            self.versions.add(self.view)

    def _replaced(self, process: Process) -> None:
        before, self.view = self.view, self._machine.content(CSV) or b""
        self.versions.add(self.view)
        self.met["CSV replaced"] += 1
        if process.name.startswith("operator"):
            return
        self._check_shown(self.view, "the CSV was replaced")
        if not set(self._keys) <= {row["PO_NUMBER"] for row in rows_of(self.view)}:
            # Half a file was taken for an edit, as it may be when nothing is waited for, or restored on purpose.
            check(self._settle_s == 0 or process.name.startswith("keeper"), "rows were lost", process.name, before)
            self.is_half = True
        if before not in self.by_operator:
            return
        reasons = [json.loads(meta)["reason"] for meta, copy in self._kept() if copy == before]
        if self._looks.get(process.name) != before:
            self.met["edit lost between the look and the replacement"] += 1
        else:
            check(reasons, "an edit was replaced and not kept", process.name, before)
        if reasons == [EDITED] and not process.name.startswith("keeper"):
            saved, now = (
                {row["PO_NUMBER"]: row.get("REMARK") for row in rows_of(data)} for data in (before, self.view)
            )
            # A row that came in after the copy was loaded stays.
            check(saved.items() <= now.items(), "an edit was not respected", process.name, saved, now)

    def _kept(self) -> list[tuple[bytes, bytes]]:
        files = self._machine.files()
        return [
            (bytes(file.data), bytes(files[copy].data))
            for path, file in files.items()
            if path.startswith(BACKUPS) and path.endswith(".json") and (copy := f"{path[:-5]}.csv") in files
        ]

    def before_death(self, processes: list[Process], how: str) -> None:
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

    def check_log(self) -> None:
        """Check that what was acknowledged is there, once and in order, and that nobody invented anything."""
        history = self._history()
        times = Counter(item.id for item in history)
        newest = -1
        for item in history:
            intent = self.intents.get(item.id)
            check(
                intent and (intent.kind, intent.key, intent.note) == (item.kind, item.key, item.cells.get("note", "")),
                "the log has an event that nobody emitted",
                item,
                intent,
            )
            assert intent is not None
            check(
                intent.acknowledged is None or intent.acknowledged > newest,
                "an event stands behind one that was begun after it was acknowledged",
                item,
            )
            check(times[item.id] == 1 or intent.retried, "an event is in the log twice without a fault", item)
            newest = max(newest, intent.began)
        lost = [name for name, intent in self.intents.items() if intent.acknowledged is not None and not times[name]]
        check(not lost, "an acknowledged event is not in the log", *lost)
        self.met["an event twice in the log"] += any(several > 1 for several in times.values())

    def after_power_cut(self) -> None:
        """Check what the disk has kept, before anything has repaired it."""
        content = self._machine.content(CSV)
        self.view = content or b""
        if not self.is_half:
            check(content in self.versions, "a power cut left half a CSV", content)
            self._check_shown(self.view, "a power cut")

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
        check(not strange, f"{when}: the CSV shows what is not in the log", *strange)
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

    def blames(self, problem: str) -> bool:
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

    def check_rows(self) -> None:
        """Check that in the CSV the last event wins, for every key and column, in the order of the log."""
        rows = rows_of(self._machine.content(CSV) or b"")
        if not self.edited:
            check([row["PO_NUMBER"] for row in rows] == self._keys, "rows are not as they were", rows)
        if self._style == "dismissed":
            return
        history = self._history()
        wanted: dict[str, Row] = {}
        for item in history:
            wanted.setdefault(item.key, {}).update(item.cells)
        ids = {item.id for item in history}
        # Read and folded while it was there, though its sync had failed, and taken back by a power cut. Nobody was told
        # that it is safe, and no second sync could have shown that it is not.
        taken_back = {intent.note for name, intent in self.intents.items() if name not in ids} if self._holed else set()
        for row in rows:
            shown = {name: cell for name, cell in row.items() if name not in {"PO_NUMBER", "REMARK"}}
            expected = wanted.get(row["PO_NUMBER"], {})
            if taken_back.isdisjoint(shown.values()):
                check(shown == expected, "the CSV is not what the log says", row, expected)

    def check_tidy(self) -> None:
        known = {"append.lock", "compact.lock", "session.lock", "checkpoint.json", "input.csv", OPERATOR_FILE}
        known.add(f"{OPERATOR_FILE}.tmp")
        files = self._machine.files()
        left = [
            path
            for path in files
            if os.path.basename(path) not in known and not _SEGMENT.fullmatch(path) and not self._is_backup(path, files)
        ]
        check(not left, "something is left lying around", *left)

    def _is_backup(self, path: str, files: Collection[str]) -> bool:
        stem, _ = os.path.splitext(path)
        # The names of a backup are made in an order that tells what is unfinished; a disk that keeps only the last of
        # them costs a file that nobody clears away, and nothing else.
        whole = self._machine.odds.any_order or {f"{stem}.csv", f"{stem}.json"} <= set(files)
        return whole and path.startswith(BACKUPS) and path.endswith((".csv", ".json"))
