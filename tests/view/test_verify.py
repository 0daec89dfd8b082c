"""The promise: verify finds every kind of damage, names its place, goes on after it, and changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import KEYS, append_raw, checkpoint_of, flip, segment_of, tree
from faults import Recording, with_storage
from inside import compactor_of
from operations import compacting

from eventcsv import EventCsv, InvalidCsv
from eventcsv.log.line import sealed, unsealed
from eventcsv.storage.files import Storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventcsv.view.backup import Backup
    from eventcsv.view.verify import VerifyReport


@pytest.fixture
def sound(job: EventCsv) -> EventCsv:
    """A job with three segments, two of them sealed, two backups, and a CSV that is current but for one result."""
    job.emit_result("PO1", "PARTIAL", last_processed="1")
    job.emit_result("PO2", "PARTIAL", last_processed="2")
    job.compact()
    job.new_segment()
    job.emit_result("PO2", "COMPLETED", last_processed="3")
    job.emit_started("PO3")
    job.back_up()
    job.new_segment()
    job.emit_result("PO3", "ERROR", error_message="why", last_processed="4")
    job.emit_result("PO1", "COMPLETED", last_processed="5")
    job.compact()
    job.emit_result("PO2", "PARTIAL", last_processed="6")
    return job


def verified(job: EventCsv) -> VerifyReport:
    """Verify as somebody who comes by does, and see to it that nothing was changed."""
    folder = Path(job.csv_path).parent
    before = (tree(folder), sorted(folder.rglob("*")))
    report = EventCsv(job.csv_path).verify()
    assert before == (tree(folder), sorted(folder.rglob("*")))
    return report


def found(job: EventCsv) -> list[tuple[str, str]]:
    """Return the findings, with places below the job's folder."""
    folder = f"{Path(job.csv_path).parent}/"
    return [(item.place.removeprefix(folder), item.problem) for item in verified(job).findings]


# --- nothing wrong ---


def test_a_sound_job_has_no_findings(sound: EventCsv) -> None:
    """What was checked is counted, and the progress ends at the whole."""
    report = verified(sound)
    assert ((), ()) == (report.findings, report.torn)
    assert (3, 7, 2) == (report.segments, report.lines, report.backups)
    assert "what a replay gives, byte for byte, but for 1 result that the log has and the CSV not yet" == report.view
    steps: list[tuple[int, int]] = []
    sound.verify(on_progress=lambda done, total: steps.append((done, total)))
    assert report.size_bytes == sum(path.stat().st_size for path in Path(sound.log_dir).glob("*.jsonl"))
    assert report.size_bytes == steps[-1][1] >= steps[-1][0] > 0
    assert sorted(steps) == steps


def test_a_job_that_has_just_begun_is_sound(job: EventCsv) -> None:
    """Without a log there is nothing to find, and none is made; a path that leads nowhere is an error."""
    assert () == verified(job).findings
    with pytest.raises(InvalidCsv, match="Check the path"):
        EventCsv(f"{job.csv_path}.nope").verify()
    job.emit_result("PO1", "COMPLETED")
    assert ["there is no backup to replay from; the next compaction makes one"] == [
        problem for _, problem in found(job)
    ]
    job.compact()
    assert [] == found(job)


def test_late_rows_edits_and_restorations_are_no_damage(sound: EventCsv) -> None:
    """What operators do with a CSV and its backups leaves nothing to find."""
    path = Path(sound.csv_path)
    sound.emit_result("PO9", "ERROR", error_message="x", last_processed="7")
    sound.compact()
    path.write_bytes(path.read_bytes() + b"PO9;;late;;\n")
    sound.compact()
    assert [] == found(sound)
    for replay in (True, False):
        sound.restore(sound.backups()[-1].name, replay=replay)
        assert ([], "what a replay gives, byte for byte") == (found(sound), verified(sound).view)


def test_a_torn_line_is_told_but_is_no_finding(sound: EventCsv) -> None:
    """Half a line behind the log, or one that a seal or the next line ended, costs nothing; without a word it does."""
    half = b'{"v":1,"id":"half'
    append_raw(sound, half, 3)
    size = segment_of(sound, 3).stat().st_size - len(half)
    assert [("events-000003.jsonl", size)] == [(item.segment, item.offset_bytes) for item in verified(sound).torn]
    assert [] == found(sound)
    sound.new_segment()
    assert [("events-000003.jsonl", size)] == [(item.segment, item.offset_bytes) for item in verified(sound).torn]
    assert [] == found(sound)
    append_raw(sound, half, 4)
    size = segment_of(sound, 4).stat().st_size - len(half)
    sound.emit_result("PO1", "PARTIAL")
    assert [4, 3] == [int(item.segment[7:13]) for item in reversed(verified(sound).torn)]
    assert [] == found(sound)
    lines = segment_of(sound, 4).read_bytes().splitlines(keepends=True)
    segment_of(sound, 4).write_bytes(b"".join(line for line in lines if b'"kind":"torn"' not in line))
    assert [f"input.events/events-000004.jsonl, byte {size}"] == [place for place, _ in found(sound)]


# --- every kind of damage ---


def place_of(job: EventCsv, number: int, line: int) -> int:
    """Return the byte at which a line of a segment starts."""
    return sum(map(len, segment_of(job, number).read_bytes().splitlines(keepends=True)[:line]))


def oldest(job: EventCsv) -> Backup:
    """Return the first backup."""
    return job.backups()[-1]


def metadata(job: EventCsv) -> Path:
    """Return the metadata of the first backup."""
    return Path(oldest(job).path).with_suffix(".json")


def cut(path: Path, size_bytes: int) -> None:
    """Cut bytes off the end of a file."""
    path.write_bytes(path.read_bytes()[:-size_bytes])


def without_line(job: EventCsv, number: int, line: int) -> None:
    """Cut a whole line out of a segment."""
    lines = segment_of(job, number).read_bytes().splitlines(keepends=True)
    segment_of(job, number).write_bytes(b"".join(lines[:line] + lines[line + 1 :]))


def with_wrong_seal(job: EventCsv) -> None:
    """Give a segment a seal that is whole and of another content."""
    *lines, seal = segment_of(job, 2).read_bytes().splitlines(keepends=True)
    segment_of(job, 2).write_bytes(b"".join(lines) + sealed(unsealed(seal[:-1]) | {"crc32": "00000000"}))


def swapped(job: EventCsv) -> None:
    """Let two segments change places."""
    one, two = segment_of(job, 1), segment_of(job, 2)
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[EventCsv], object], list[tuple[str, str]]]] = {
    "flipped byte in a line": (
        lambda job: flip(segment_of(job, 2), place_of(job, 2, 1) + 30),
        [("events-000002.jsonl, byte {2:1}", "checksum"), ("events-000002.jsonl, byte {2:3}", "its seal")],
    ),
    "flipped byte in the active segment": (
        lambda job: flip(segment_of(job, 3), place_of(job, 3, 2) + 30),
        [
            ("events-000003.jsonl, byte {3:2}", "checksum"),
            ("input.csv", "2 cells differ: PO1 STATUS: 'COMPLETED', rep"),
        ],
    ),
    "NUL bytes": (
        lambda job: segment_of(job, 3).write_bytes(segment_of(job, 3).read_bytes() + b"\0" * 99 + b"\n"),
        [("events-000003.jsonl, byte {3:4}", "NUL bytes")],
    ),
    "segment cut in mid-line": (
        lambda job: cut(segment_of(job, 1), 250),
        [("events-000001.jsonl, byte {1:2}", "torn")],
    ),
    "missing segment": (
        lambda job: segment_of(job, 2).unlink(),
        [
            ("events-000002.jsonl, byte 0", "the segment is missing"),
            ("{newest}", "belongs to a place that is no line of this log"),
        ],
    ),
    "damaged header": (
        lambda job: flip(segment_of(job, 2), 20),
        [
            ("events-000002.jsonl", "its header, the first line, is damaged"),
            ("events-000002.jsonl, byte 0", "checksum"),
            ("events-000002.jsonl, byte {2:3}", "its seal"),
        ],
    ),
    "wrong seal": (with_wrong_seal, [("events-000002.jsonl, byte {2:3}", "does not match its seal")]),
    "line cut out of a sealed segment": (
        lambda job: without_line(job, 1, 1),
        [("events-000001.jsonl, byte {1:2}", "does not match its seal: 2 lines")],
    ),
    "damaged seal": (
        lambda job: flip(segment_of(job, 2), place_of(job, 2, 3) + 30),
        [("events-000002.jsonl, byte {2:3}", "checksum")],
    ),
    "segments swapped": (
        swapped,
        [
            ("events-000001.jsonl", "its header is that of segment 2 of log"),
            ("events-000002.jsonl", "its header is that of segment 1 of log"),
            ("{newest}", "belongs to a place that is no line of this log"),
        ],
    ),
    "damaged backup": (lambda job: flip(Path(oldest(job).path), 30), [("{oldest}", "the backup is damaged")]),
    "truncated backup": (lambda job: cut(Path(oldest(job).path), 1), [("{oldest}", "the backup is damaged")]),
    "missing backup": (lambda job: Path(oldest(job).path).unlink(), [("{oldest}", "the backup is gone")]),
    "damaged metadata": (lambda job: flip(metadata(job), 30), [("{metadata}", "the metadata of this backup is")]),
    "empty metadata": (lambda job: metadata(job).write_bytes(b""), [("{metadata}", "the metadata of this backup is")]),
    "damaged checkpoint": (
        lambda job: flip(checkpoint_of(job), 30),
        [("checkpoint.json", "the checkpoint is damaged")],
    ),
    "no csv": (
        lambda job: Path(job.csv_path).unlink(),
        [("input.csv", "the CSV is gone; eventcsv replay rebuilds it")],
    ),
}


def names_in(job: EventCsv) -> dict[str, str]:
    """Return what stands for the names in the table, before anything is damaged."""
    names = {"{oldest}": oldest(job).name, "{newest}": job.backups()[0].name, "{metadata}": metadata(job).name}
    return names | {
        f"{{{number}:{line}}}": str(place_of(job, number, line)) for number in (1, 2, 3) for line in range(5)
    }


def assert_found(job: EventCsv, expected: list[tuple[str, str]], names: dict[str, str]) -> None:
    """Compare the findings with the file, or its place, and a part of the problem that each one has to have."""
    findings = found(job)
    places = []
    for place, _ in expected:
        for name, text in names.items():
            place = place.replace(name, text)  # noqa: PLW2901  # a template
        places.append(place)
    assert places == [where.rpartition("/")[2] for where, _ in findings]
    assert [True] * len(expected) == [
        part in problem for (_, part), (_, problem) in zip(expected, findings, strict=True)
    ], findings


@pytest.mark.parametrize("kind", DAMAGE)
def test_every_kind_of_damage_is_found_with_its_place(sound: EventCsv, kind: str) -> None:
    """One thing is wrong: it is named, with its file and byte, and nothing else is."""
    spoil, expected = DAMAGE[kind]
    names = names_in(sound)
    spoil(sound)
    assert_found(sound, expected, names)


def test_verify_goes_on_after_each_finding(sound: EventCsv) -> None:
    """Several kinds of damage at once are all found, in one pass, from the first segment to the CSV."""
    kinds = ["flipped byte in a line", "NUL bytes", "damaged backup", "flipped byte in the active segment", "no csv"]
    names = names_in(sound)
    place = place_of(sound, 3, 4)
    for kind in kinds:
        DAMAGE[kind][0](sound)
    flip(Path(sound.backups()[0].path).with_suffix(".json"), 30)
    assert_found(
        sound,
        [
            *DAMAGE["flipped byte in a line"][1],
            ("events-000003.jsonl, byte {3:2}", "checksum"),
            (f"events-000003.jsonl, byte {place}", "NUL bytes"),
            (names["{newest}"].replace(".csv", ".json"), "the metadata of this backup is damaged"),
            ("{oldest}", "the backup is damaged"),
            ("input.csv", "the CSV is gone"),
        ],
        names,
    )


def test_a_bit_that_flipped_in_the_csv_shows_as_an_edit_with_its_cell(sound: EventCsv) -> None:
    """Nobody can tell it from an operator's edit; so it is no finding, and the cell is named with both texts."""
    path = Path(sound.csv_path)
    place = path.read_bytes().find(b"COMPLETED")
    flip(path, place)
    report = verified(sound)
    assert () == report.findings
    assert (
        "edited since the last compaction, 1 cells differ: PO1 STATUS: 'BOMPLETED', replayed 'COMPLETED'" == report.view
    )


def test_a_csv_that_cannot_be_read_is_told_with_the_reason(sound: EventCsv) -> None:
    """Broken quoting does not stop verify."""
    path = Path(sound.csv_path)
    path.write_bytes(path.read_bytes().replace(b"PO2;", b'PO2;"'))
    report = verified(sound)
    assert "edited since the last compaction, and it cannot be read" == report.view
    assert ["line 3: a quote is opened and never closed" in finding.problem for finding in report.findings] == [True]


# --- what is not found yet ---


def replaced_log(job: EventCsv, text: str) -> None:
    """Put the log of another job, with one result, in the place of this one's."""
    folder = Path(job.csv_path).parent / "twin"
    folder.mkdir()
    (folder / "input.csv").write_text("PO_NUMBER;STATUS;SUPPLIER\nPO1;;\nPO2;;\nPO3;;\n")
    twin = EventCsv(folder / "input.csv", durability="process")
    twin.emit_result("PO1", "PARTIAL", last_processed=text)
    for number in (1, 2, 3):
        segment_of(job, number).unlink()
    shutil.copy(segment_of(twin), segment_of(job))
    shutil.rmtree(folder)


def as_its_twin(job: EventCsv) -> None:
    """Put a log in the place of this one's that says the same, byte for byte as long."""
    path = Path(job.csv_path)
    shutil.rmtree(job.log_dir)
    shutil.rmtree(job.backup_dir)
    path.write_text("PO_NUMBER;STATUS;SUPPLIER\nPO1;;\nPO2;;\nPO3;;\n")
    fresh = EventCsv(path, durability="process")
    fresh.emit_result("PO1", "PARTIAL", last_processed="1")
    fresh.compact()
    for number in (2, 3):
        shutil.copy(segment_of(fresh), segment_of(fresh, number))
    replaced_log(fresh, "1")


def without_last_result(job: EventCsv) -> None:
    """Cut the last result that is in the CSV, and the one behind it, off the log."""
    lines = segment_of(job, 3).read_bytes().splitlines(keepends=True)
    segment_of(job, 3).write_bytes(b"".join(lines[:2]))


REPLACED: dict[str, Callable[[EventCsv], object]] = {
    "active segment cut at a line": without_last_result,
    "active segment missing": lambda job: segment_of(job, 3).unlink(),
    "first segment missing, which a backup needs": lambda job: segment_of(job, 1).unlink(),
    "log replaced by another": lambda job: replaced_log(job, "8" * 2000),
    "log replaced by one that says the same": as_its_twin,
}


@pytest.mark.parametrize("kind", REPLACED)
def test_a_log_that_is_not_what_was_folded_is_found(sound: EventCsv, kind: str) -> None:
    """What makes the next compaction rebuild the CSV, or what a restore would lack, is a finding."""
    REPLACED[kind](sound)
    assert [] != found(sound)


# --- others at work ---


def test_verify_during_compactions_has_no_false_finding(job: EventCsv) -> None:
    """Whatever moment of another process's compactions is met, what is sound is called sound."""
    job.compact()
    passes = 0
    with compacting(job.csv_path, list(KEYS)) as theirs:
        while theirs.is_alive() and (passes < 50 or not job.verify().lines):
            assert () == job.verify().findings
            passes += 1
    assert [] == found(job)


class Busy(Storage):
    """Lets something happen elsewhere the first time that the backups are listed."""

    def __init__(self, directory: str, meanwhile: Callable[[], object]) -> None:
        self._directory = directory
        self._meanwhile: Callable[[], object] | None = meanwhile

    def names(self, path: str) -> list[str]:
        names = super().names(path)
        if path == self._directory and self._meanwhile:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()
            names = super().names(path)
        return names


def test_a_backup_that_is_made_meanwhile_is_no_false_finding(job: EventCsv) -> None:
    """A backup may be of a place that the log reached after verify had begun."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()

    def meanwhile() -> None:
        job.emit_result("PO2", "COMPLETED")
        job.back_up()

    report = with_storage(EventCsv(job.csv_path), Busy(job.backup_dir, meanwhile)).verify()
    assert () == report.findings


def test_a_backup_that_retention_removes_meanwhile_is_no_false_finding(job: EventCsv) -> None:
    """A session that begins elsewhere may remove an old backup at any moment; that is no damage."""
    for number in range(5):
        compactor_of(job).begin_session(f"s{number}")

    class Removing(Busy):
        def read(self, path: str) -> bytes | None:
            if path.endswith(".csv") and self._meanwhile:
                meanwhile, self._meanwhile = self._meanwhile, None
                meanwhile()
            return super().read(path)

    storage = Removing("", lambda: [compactor_of(job).begin_session(f"t{number}") for number in range(5)])
    assert () == with_storage(EventCsv(job.csv_path), storage).verify().findings


def test_segments_that_are_pruned_meanwhile_are_no_false_finding(job: EventCsv) -> None:
    """What sessions, retention and a prune elsewhere remove at any moment while verify looks is no damage."""
    at = reads = 1

    def work(name: str) -> None:
        for number in range(6):
            job.emit_result("PO1", "PARTIAL", last_processed=f"{name}{number}")
            job.new_segment()
            compactor_of(job).begin_session(f"{name}{number}")

    class At(Recording):
        """Lets it happen at one of the reads of a file."""

        def pread(self, fd: int, size_bytes: int, offset_bytes: int) -> bytes:
            nonlocal reads
            reads += 1
            if reads == at:
                work(f"t{at}-")
                assert job.prune().removed
            return super().pread(fd, size_bytes, offset_bytes)

    work("s")
    while reads >= at:
        reads = 0
        assert () == with_storage(EventCsv(job.csv_path), At()).verify().findings
        at += 5
    assert at > 50
