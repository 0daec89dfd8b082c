"""The promise about who may read: what eventcsv writes is open to whoever could read the CSV, and to nobody else."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from itertools import product
from pathlib import Path
from typing import Final

import pytest
from command_line import python
from conftest import KEYS, cannot, job_on, read_csv, tree
from faults import with_storage
from hypothesis import given
from hypothesis import strategies as st

from eventcsv import AppendError, EventCsv
from eventcsv.storage.files import Storage
from eventcsv.storage.rights import LIST, Rights, from_text, rights_of

ANA, BEN, CAY = 1101, 1105, 1106
TEAM, OTHERS = 2000, 2001
READABLE, WRITABLE = 0o4, 0o2

OWNER_OF, USER, GROUP_OF, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Return an access control list as Linux keeps it: entries of tag, permissions and id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY: Final = 0xFFFFFFFF
FOR_BEN_NOT_THE_GROUP: Final = acl(
    (OWNER_OF, 6, NOBODY), (USER, 6, BEN), (GROUP_OF, 0, NOBODY), (MASK, 6, NOBODY), (OTHER, 0, NOBODY)
)
"""What `chmod 600` and `setfacl -m u:1105:rw,g::---` make; the mode that it shows is 660."""


@pytest.fixture
def shared(open_folder: Path) -> Path:
    """A CSV of Ana's that her team may not read."""
    path = open_folder / "input.csv"
    path.write_text("PO_NUMBER;STATUS;SUPPLIER\n" + "".join(f"{key};;\n" for key in KEYS))
    os.chown(path, ANA, TEAM)
    path.chmod(0o600)
    return path


def set_list(path: Path, value: bytes) -> None:
    """Set an access control list, or skip where there is none."""
    try:
        os.setxattr(path, LIST, value)
    except OSError as error:
        cannot(f"this file system has no access control lists: {error}")


def as_user(uid: int, gid: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as somebody, who is in one group."""
    return subprocess.run(
        command, user=uid, group=gid, extra_groups=[gid], capture_output=True, errors="replace", check=False, cwd="/"
    )


def may(uid: int, gid: int, path: Path) -> str:
    """Return what somebody may really do with a file: "rw", "r", "w" or ""."""
    reads = as_user(uid, gid, "cat", str(path)).returncode == 0
    writes = as_user(uid, gid, "sh", "-c", ': 2>/dev/null >> "$0"', str(path)).returncode == 0
    return "r" * reads + "w" * writes


# Python and its modules may lie where other users may not look, so what is needed is loaded first, by using it once.
RUNNER: Final = """
import contextlib, os, sys, tempfile
from pathlib import Path
import rich.traceback, structlog, tenacity
from eventcsv import masking
from eventcsv.cli.main import app, main
uid, gid, umask, *arguments = sys.argv[1:]
ours = [os.dup(1), os.dup(2)]
for fd in (1, 2):
    os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "input.csv")
    path.write_text("PO_NUMBER;STATUS\\nPO1;\\n")
    for line in ("emit * PO1 COMPLETED", "compact *", "status *", "pending *", "history * PO1", "verify *", "report *",
                 "backup list *", "replay *", f"export * -o {folder}/out.jsonl", "prune * --dry-run", "nothing"):
        with contextlib.suppress(SystemExit):
            app(line.replace("*", str(path)).split())
masking.get_logger().error("loaded")
sys.stdout.flush()
for fd in (1, 2):
    os.dup2(ours[fd - 1], fd)
os.chdir("/")
os.setgroups([int(gid)])
os.setgid(int(gid))
os.setuid(int(uid))
os.umask(int(umask, 8))
sys.argv = ["eventcsv", *arguments]
main()
"""


def eventcsv(uid: int, gid: int, *arguments: object, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    """Run the command line as somebody, who is in one group."""
    return python(RUNNER, uid, gid, f"{umask:o}", *arguments)


# --- the rights to the CSV -------------------------------------------------------------------------------------------


def test_an_access_control_list_gives_access_to_nobody_new(shared: Path) -> None:
    """Ben is named and the group is not to read: so it stays when the CSV is replaced, and for an export of it."""
    set_list(shared, FOR_BEN_NOT_THE_GROUP)
    before = {who: may(*who, shared) for who in product((ANA, BEN, CAY), (TEAM, OTHERS))}
    assert ("rw", "rw", "") == (before[ANA, TEAM], before[BEN, TEAM], before[CAY, TEAM])
    job = job_on(shared)
    job.emit_result("PO1", "COMPLETED")

    assert job.compact().changed
    job.export(shared.with_suffix(".xlsx"))

    for made in (shared, shared.with_suffix(".xlsx")):
        assert before == {who: may(*who, made) for who in before}
        assert FOR_BEN_NOT_THE_GROUP == os.getxattr(made, LIST)
        assert (ANA, TEAM) == (made.stat().st_uid, made.stat().st_gid)


def test_a_list_that_the_folder_hands_down_is_not_opened_by_a_mode(shared: Path) -> None:
    """A folder's default list names Ben in all that is made in it: the CSV never was his, and is not after a save."""
    shared.chmod(0o660)
    default = acl((OWNER_OF, 7, NOBODY), (USER, 7, BEN), (GROUP_OF, 5, NOBODY), (MASK, 7, NOBODY), (OTHER, 5, NOBODY))
    try:
        os.setxattr(shared.parent, "system.posix_acl_default", default)
    except OSError as error:
        cannot(f"this file system has no access control lists: {error}")
    job = job_on(shared)
    job.emit_result("PO1", "COMPLETED")

    assert job.compact().changed
    job.export(shared.with_suffix(".jsonl"))
    job.report(shared.with_suffix(".html"))

    for made in (shared, shared.with_suffix(".jsonl"), shared.with_suffix(".html")):
        assert "" == may(BEN, OTHERS, made), made
    assert "rw" == may(CAY, TEAM, shared)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, 0o664])
def test_an_owner_and_a_group_that_cannot_be_given_back(shared: Path, mode: int) -> None:
    """Ben, of another group, brings Ana's CSV up to date: who could read or write it still can, and nobody else."""
    shared.chmod(mode)
    shared.parent.chmod(0o777)
    set_list(shared, rights_of(ANA, TEAM, mode, None).under(ANA, OTHERS).as_list)  # there are lists here
    os.removexattr(shared, LIST)
    shared.chmod(mode)
    if "rw" != may(BEN, OTHERS, shared):
        os.setxattr(shared, LIST, _named(mode, BEN))
    everybody = [(ANA, TEAM), (ANA, OTHERS), (CAY, TEAM), (CAY, OTHERS), (1107, TEAM), (1107, 2002)]
    before = {who: may(*who, shared) for who in everybody}
    assert 0 == eventcsv(BEN, OTHERS, "emit", shared, "PO1", "COMPLETED").returncode

    done = eventcsv(BEN, OTHERS, "compact", shared)

    assert 0 == done.returncode, done.stderr
    assert (BEN, OTHERS) == (shared.stat().st_uid, shared.stat().st_gid)
    after = {who: may(*who, shared) for who in everybody}
    if mode == 0o604:  # a group that may less than everybody: whoever is in the new one, too, may be in the old one
        before[CAY, OTHERS] = ""
    assert before == after
    assert f"could not be kept: user {ANA} as its owner, group {TEAM}" in done.stdout
    assert "COMPLETED" == read_csv(shared)[0]["STATUS"]


def _named(mode: int, uid: int) -> bytes:
    own, group, other = mode >> 6, mode >> 3 & 7, mode & 7
    return acl(
        (OWNER_OF, own, NOBODY),
        (USER, 6, uid),
        (GROUP_OF, group, NOBODY),
        (MASK, 6 | group, NOBODY),
        (OTHER, other, NOBODY),
    )


def test_where_there_are_no_lists_nobody_gets_more() -> None:
    """A mode that stands for a list leaves out whoever the list had told apart."""
    listed = rights_of(ANA, TEAM, 0o660, FOR_BEN_NOT_THE_GROUP)
    assert 0o600 == listed.mode
    assert 0o600 == rights_of(ANA, TEAM, 0o660, None).under(ANA, OTHERS).mode
    assert 0o644 == rights_of(ANA, TEAM, 0o664, None).under(BEN, OTHERS).mode
    assert 0o660 == rights_of(ANA, TEAM, 0o660, None).under(BEN, TEAM).mode


bits = st.integers(0, 7)
named = st.dictionaries(st.sampled_from([11, 12, 13]), bits).map(lambda found: tuple(found.items()))
some_rights = st.builds(Rights, st.sampled_from([11, 12]), st.sampled_from([11, 12]), bits, bits, bits, named, named)


def granted(rights: Rights, uid: int, gids: set[int]) -> int:
    """Return what somebody may by a list, as acl(5) says."""
    if uid == rights.uid:
        return rights.owner
    if uid in dict(rights.users):
        return dict(rights.users)[uid]
    matching = [rights.group] * (rights.gid in gids) + [bits for gid, bits in rights.groups if gid in gids]
    total = 0
    for one in matching:
        total |= one
    return total if matching else rights.other


@given(rights=some_rights, uid=st.sampled_from([11, 12, 13]), gid=st.sampled_from([11, 12, 13]))
def test_nobody_ever_gets_more(rights: Rights, uid: int, gid: int) -> None:
    """Whoever the file goes to, with a list or without one, and for reading only: but for its new owner, nobody."""
    memberships = ({11}, {12}, {13}, {14}, {11, 12, 13})
    moved = rights.under(uid, gid)
    plain = rights_of(uid, gid, moved.mode, None)
    looking = rights.to_look_into(uid)
    for who, groups in product((11, 12, 13, 14), memberships):
        before = granted(rights, who, groups)
        if who == uid:
            continue
        assert not granted(moved, who, groups) & ~before
        assert not granted(plain, who, groups) & ~before
        assert not granted(rights.to_read(uid), who, groups) & ~(before & 4)
        assert bool(granted(looking, who, groups)) <= bool(before & 4)
    assert rights.uid == uid or rights.owner == granted(moved, rights.uid, set())


@given(rights=some_rights)
def test_rights_are_what_their_list_and_their_text_say(rights: Rights) -> None:
    """A list that is written is read as the same rights, and so is the text in the metadata of a backup."""
    read = rights_of(rights.uid, rights.gid, rights.owner << 6 | rights.other, rights.as_list)
    again = from_text(str(rights))
    assert again is not None
    for one in (read, again):
        assert (rights.group, sorted(rights.users), sorted(rights.groups)) == (
            one.group,
            sorted(one.users),
            sorted(one.groups),
        )


def test_what_a_backup_tells_of_rights_may_be_anything() -> None:
    """A text that is none is no rights."""
    texts: tuple[object, ...] = (None, "", "1", "a:b:c:d", "1:2:999:", "1:2:600:zz", "1:2:600:02000000aa", 600, {})
    for text in texts:
        assert from_text(text) is None


def test_an_export_that_was_closed_to_others_stays_closed(job: EventCsv, csv_path: Path, tmp_path: Path) -> None:
    """`chmod 600` on an export, an import or a report is kept by the next one."""
    csv_path.chmod(0o644)
    for name in ("out.jsonl", "out.xlsx", "out.parquet"):
        job.export(tmp_path / name)
        (tmp_path / name).chmod(0o600)
        job.export(tmp_path / name)
        assert 0o600 == (tmp_path / name).stat().st_mode & 0o777


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o664])
def test_a_csv_that_was_deleted_gets_its_rights_back(shared: Path, mode: int) -> None:
    """The last backup tells what they were: owner, group, mode and list."""
    shared.chmod(mode)
    set_list(shared, _named(mode, BEN))
    before = (os.getxattr(shared, LIST), shared.stat().st_uid, shared.stat().st_gid, shared.stat().st_mode)
    job = job_on(shared)
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    shared.unlink()

    job_on(shared).replay()

    assert before == (os.getxattr(shared, LIST), shared.stat().st_uid, shared.stat().st_gid, shared.stat().st_mode)


def test_a_compaction_that_was_killed_behind_the_gift_is_gone_on_with(shared: Path) -> None:
    """The temporary file belongs to the CSV's owner already when root is killed: it is cleared, as one of ours is."""
    job = job_on(shared)
    job.emit_result("PO1", "COMPLETED")
    left = shared.parent / ".input.csv.eventcsv.tmp"
    left.write_text("half")
    os.chown(left, ANA, TEAM)

    assert job.compact().changed

    assert not left.exists()


# --- colleagues ------------------------------------------------------------------------------------------------------

LOOKING: Final = (
    "status {}",
    "pending {}",
    "history {} PO1",
    "verify {}",
    "backup list {}",
    "prune {} --dry-run",
    "report {} -o -",
    "export {} -o -",
)


def test_a_umask_that_takes_everything_keeps_nobody_from_their_own_job(shared: Path) -> None:
    """Not even from the lock files, which the next process has to open again."""
    shared.parent.chmod(0o777)
    for line in ("emit {} PO1 COMPLETED", "compact {}", "emit {} PO2 COMPLETED", "compact {}", "status {}"):
        done = eventcsv(ANA, TEAM, *line.format(shared).split(), umask=0o777)
        assert 0 == done.returncode, (line, done.stderr)


@pytest.mark.parametrize("how", ["group", "list"])
def test_a_colleague_may_look(shared: Path, how: str) -> None:
    """Whoever may read the CSV may ask how far the job is, with an account of their own, and disturbs nothing."""
    colleague, stranger = ((CAY, TEAM), (CAY, OTHERS)) if how == "group" else ((BEN, OTHERS), (CAY, TEAM))
    if how == "group":
        shared.chmod(0o640)
    else:
        set_list(shared, FOR_BEN_NOT_THE_GROUP)
    shared.parent.chmod(0o777)
    for line in ("emit {} PO1 COMPLETED", "compact {}", "backup create {}", "emit {} PO2 COMPLETED"):
        done = eventcsv(ANA, TEAM, *line.format(shared).split())
        assert 0 == done.returncode, done.stderr
    shared.parent.chmod(0o755)
    before = tree(shared.parent)

    for line in LOOKING:
        done = eventcsv(*colleague, *line.format(shared).split())
        assert 0 == done.returncode, (line, done.stderr)

    assert before == tree(shared.parent)
    for path in shared.parent.rglob("*"):
        if path.is_file():
            reads = path == shared or path.name not in {"append.lock", "compact.lock"}
            assert ("r" if reads else "") == may(*colleague, path).removesuffix("w" * (path == shared)), path
            assert "" == may(*stranger, path), path
    done = eventcsv(*stranger, "status", shared)
    assert 1 == done.returncode
    done = eventcsv(*colleague, "emit", shared, "PO3", "COMPLETED")
    assert 1 == done.returncode
    assert "run as its owner" in done.stderr
    assert "move it away" not in done.stderr


def test_a_log_from_before_that_is_closed_says_so(shared: Path) -> None:
    """Logs were for their owner only: whoever may not look is told whose it is, and how they would be let in."""
    shared.chmod(0o644)
    job = job_on(shared)
    job.emit_result("PO1", "COMPLETED")
    Path(job.log_dir).chmod(0o700)
    for line in ("status {}", "history {} PO1", "verify {}"):
        done = eventcsv(CAY, TEAM, *line.format(shared).split())
        assert 1 == done.returncode
        assert f"{job.log_dir}: belongs to user 0, and you, user {CAY}, may not read it" in done.stderr
        assert f"setfacl -R -m u:{CAY}:rX" in done.stderr


def test_what_a_third_party_put_into_a_log_is_not_read(shared: Path) -> None:
    """Only what belongs to whoever has the log's folder, or to oneself, is taken for a part of it."""
    shared.chmod(0o644)
    job = job_on(shared)
    job.emit_result("PO1", "COMPLETED")
    os.chown(Path(job.log_dir, "events-000001.jsonl"), BEN, OTHERS)
    done = eventcsv(CAY, TEAM, "history", shared, "PO1")
    assert 1 == done.returncode
    assert f"is a file of user {BEN}" in done.stderr


def test_a_log_elsewhere_is_not_more_open_than_the_way_to_the_csv(open_folder: Path) -> None:
    """A CSV that all may read in a folder that is closed to them: a log and backups outside of it are closed, too."""
    folder = open_folder
    (folder / "private").mkdir(mode=0o700)
    (folder / "public").mkdir()
    path = folder / "private" / "input.csv"
    path.write_text("PO_NUMBER;STATUS\nPO1;\n")
    path.chmod(0o644)
    job = EventCsv(path, log=folder / "public/log", backup_dir=folder / "public/backup", durability="process")
    with job.session():
        job.emit_result("PO1", "COMPLETED")
    for made in (folder / "public").rglob("*"):
        assert made.is_dir() or "" == may(CAY, TEAM, made), made
    assert path.exists()


def test_after_a_save_by_somebody_else_they_can_save_again(shared: Path) -> None:
    """Ben's editor puts a file of his in the place of Ana's: brought up to date by her, he may still write it."""
    shared.parent.chmod(0o777)
    shared.chmod(0o644)
    assert 0 == eventcsv(ANA, TEAM, "emit", shared, "PO1", "COMPLETED").returncode
    os.chown(shared, BEN, OTHERS)

    done = eventcsv(ANA, TEAM, "compact", shared)

    assert 0 == done.returncode, done.stderr
    assert ANA == shared.stat().st_uid
    assert ("rw", "rw", "r") == (may(ANA, TEAM, shared), may(BEN, OTHERS, shared), may(CAY, OTHERS, shared))


def test_a_job_that_was_copied_with_links_can_be_read(job: EventCsv, csv_path: Path, tmp_path: Path) -> None:
    """After `cp -al` all files have two names: looking works in both, and what writes says what to do."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    job.emit_result("PO2", "COMPLETED")
    job.close()
    subprocess.run(["cp", "-al", str(tmp_path), f"{tmp_path}-copy"], check=True)
    copy = Path(f"{tmp_path}-copy", csv_path.name)
    before = tree(tmp_path), tree(copy.parent)
    for path in (csv_path, copy):
        other = job_on(path)
        assert 2 == other.progress().done
        assert ["PO3"] == other.pending()
        assert 1 == len(list(other.history("PO2")))
        assert () == other.verify().findings
        assert before == (tree(tmp_path), tree(copy.parent))
    other = job_on(csv_path)
    with pytest.raises(AppendError, match="its other names, too, as after cp -al") as caught:
        other.emit_result("PO3", "COMPLETED")
    advice = str(caught.value).partition("files of its own: ")[2].partition(". Treat")[0]
    subprocess.run(advice, shell=True, check=True)  # as a person would
    for path in (csv_path, copy):
        other = job_on(path)
        other.emit_result("PO3", "COMPLETED")
        assert {"COMPLETED": 3} == other.compact().by_status
    shutil.rmtree(copy.parent)


def test_another_name_of_the_csv_that_goes_stale_is_told(job: EventCsv, csv_path: Path, tmp_path: Path) -> None:
    """The CSV is replaced, so a hard link keeps what it was; that is said when it happens, and only then."""
    os.link(csv_path, tmp_path / "other.csv")
    job.emit_result("PO1", "COMPLETED")
    assert [note for note in job.compact().notes if "1 other name (hard link)" in note and "cp" in note]
    job.emit_result("PO2", "COMPLETED")
    assert () == job.compact().notes


# --- attributes ------------------------------------------------------------------------------------------------------


def test_attributes_of_the_csv_are_kept(job: EventCsv, csv_path: Path) -> None:
    """What people or programs noted of the file is still noted after it was replaced."""
    notes = {"user.note": b"hi", "user.xdg.tags": "März".encode(), "user.empty": b""}
    try:
        for name, value in notes.items():
            os.setxattr(csv_path, name, value)
    except OSError as error:
        cannot(f"this file system has no extended attributes: {error}")
    inode = csv_path.stat().st_ino
    for key in KEYS:
        job.emit_result(key, "COMPLETED")
        assert job.compact().changed
    assert inode != csv_path.stat().st_ino
    assert notes == {name: os.getxattr(csv_path, name) for name in os.listxattr(csv_path) if name.startswith("user.")}


def test_attributes_that_the_system_does_not_take_are_told(job: EventCsv, csv_path: Path) -> None:
    """The CSV is brought up to date all the same, and what it lost is named."""

    class Forgetful(Storage):
        def attributes(self, path: str) -> dict[str, bytes]:
            return {"unknown.note": b"hi", **super().attributes(path)}

    with_storage(job, Forgetful())
    job.emit_result("PO1", "COMPLETED")
    assert ("could not be kept: unknown.note",) == job.compact().notes
    assert "COMPLETED" == read_csv(csv_path)[0]["STATUS"]
