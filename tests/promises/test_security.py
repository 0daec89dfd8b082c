"""The promise about strangers and secrets: what comes from data names no file, runs nothing and gives nothing away."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest
from command_line import run_in
from conftest import cannot, read_csv, segment_of, statuses, tree

from eventcsv import AppendError, EventCsv, EventCsvError, UnsafePath, masking

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Each says where the secret stands; all of them are told in an exception, one for each PO.
CANARIES: Final = (
    "password={}",
    "Password: {}",
    "passwd={}",
    "passphrase: '{}'",
    'db_password="{}"',
    '{{"password": "{}"}}',
    "PGPASSWORD={}",
    "secret={}",
    "client_secret={}&grant_type=code",
    "SECRET_KEY = '{}'",
    "token={}",
    "access_token={}",
    "refresh-token: {}",
    "csrf_token={};",
    "X-Auth-Token: {}",
    "id_token='{}'",
    "api_key={}",
    "api-key: {}",
    "apikey={}",
    "X-Api-Key: {}",
    "x-api-key={}, y=1",
    "access_key={}",
    "aws_secret_access_key = {}",
    "AccessKey={};EndpointSuffix=x",
    "private_token={}",
    "Cookie: sid={}",
    "Set-Cookie: sid={}",
    "cookie={}",
    "credential={}",
    "credentials: {}",
    "Authorization: Bearer {}",
    "authorization: bearer {}",
    "Authorization: Basic {}",
    "Proxy-Authorization: Basic {}",
    "Authorization: Negotiate {}",
    "Authorization: Digest {}",
    "https://user:{}@coupa.example/orders",
    "https://{}@coupa.example/orders",
    "postgresql://worker:{}@db.example/jobs",
    "amqp://guest:{}@queue:5672//",
    "https://coupa.example/orders?session={}",
    "GET https://coupa.example/a/b?x=1&signature={} failed",
    "https://coupa.example/callback#state={}",
    "s3://bucket/key?X-Amz-Signature={}",
    "mail {}@example.com bounced",
    "<{}@mail.example.org>",
    "eyJhbGciOiJIUzI1NiJ9.{}.sig",
    "ghp_{}",
    "xoxb-{}",
    "curl -H 'Authorization: Bearer {}' https://x.example",
)
WORKER: Final = """
from canaries import CANARIES

def work(key, row):
    text = CANARIES[int(key.removeprefix("PO"))]
    try:
        raise ValueError(text)
    except ValueError as error:
        raise RuntimeError(f"download failed: {text}") from error
"""


def canary(number: int) -> str:
    """Return the secret of one template; it has the length of a real one."""
    return f"Kanarienvogel{number:02}abcdefgh12345678"


def test_no_secret_is_told(tmp_path: Path) -> None:
    """Fifty secrets in exceptions and their causes: none is in any output, log file, CSV, event log or backup."""
    assert 50 == len(CANARIES)
    texts = [template.format(canary(number)) for number, template in enumerate(CANARIES)]
    (tmp_path / "canaries.py").write_text(f"CANARIES = {texts!r}\n")
    (tmp_path / "canary_jobs.py").write_text(WORKER)
    path = tmp_path / "job" / "input.csv"
    path.parent.mkdir()
    path.write_text("PO_NUMBER;STATUS\n" + "".join(f"PO{number};\n" for number in range(len(texts))))
    log_file = tmp_path / "log.json"
    told = ""
    for arguments in (
        ["run", path, "canary_jobs:work", "--workers", 2, "--log-file", log_file, "--log-level", "debug"],
        ["status", path],
        ["history", path, "PO1"],
        ["history", path, "PO1", "--json"],
        ["verify", path, "--json"],
        ["pending", path],
    ):
        done = run_in(tmp_path, *arguments)
        told += done.stdout + done.stderr
    files = b"".join(tree(path.parent).values()).decode()
    assert "download failed" in told
    assert "download failed" in files
    everything = told + log_file.read_text() + files
    assert [] == [text for number, text in enumerate(texts) if canary(number) in everything]


def test_without_masking_the_search_finds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: with the patterns taken out every canary is where the search looks."""
    texts = [template.format(canary(number)) for number, template in enumerate(CANARIES)]
    assert [] == [text for number, text in enumerate(texts) if canary(number) in masking.masked(text)]
    monkeypatch.setattr(masking, "_SECRETS_IN_TEXT", ())
    assert texts == [text for number, text in enumerate(texts) if canary(number) in masking.masked(text)]


STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
FORMULAS: Final = tuple(
    f"{start}{rest}"
    for start in STARTS
    for rest in (
        "1+1",
        "cmd|' /C calc'!A0",
        'HYPERLINK("http://x.example")',
        "SUM(A1:A9)",
        "x",
        "2+5+cmd|' /C calc'!A0",
    )
)


def test_no_text_of_an_event_is_a_formula(job: EventCsv, csv_path: Path) -> None:
    """Sixty texts that a spreadsheet would run: an apostrophe stands before each; the log keeps the text as it came."""
    assert 60 == len(set(FORMULAS))
    for number, text in enumerate(FORMULAS):
        job.emit_result("PO1", "COMPLETED", columns={f"c{number}": text})
    job.compact()
    row = read_csv(csv_path)[0]
    assert [f"'{text}" for text in FORMULAS] == [row[f"c{number}"] for number in range(60)]
    assert [*FORMULAS] == [event.cells[f"c{number}"] for number, event in enumerate(job.history("PO1"))]
    EventCsv(csv_path, guard_formulas=False).compact()
    row = read_csv(csv_path)[0]
    assert [*FORMULAS] == [row[f"c{number}"] for number in range(60)]


def test_no_name_of_a_column_is_a_formula(job: EventCsv, csv_path: Path) -> None:
    """The names of columns come from the web too; the column is found again under either name, and replayed alike."""
    for column in ("=1+1", "'=1+1", "@x"):
        job.emit_result("PO1", "COMPLETED", columns={column: f"of {column}"})
        job.compact()
    content = csv_path.read_bytes()
    assert ["'=1+1", "'@x"] == list(read_csv(csv_path)[0])[-2:]
    assert "of '=1+1" == read_csv(csv_path)[0]["'=1+1"]
    job.replay()
    assert content == csv_path.read_bytes()
    csv_path.write_bytes(content.replace(b"PO3;", b"PO3;by hand", 1))
    job.emit_result("PO2", "COMPLETED", columns={"=1+1": "late"})
    assert job.compact().edited
    assert ["of '=1+1", "late", ""] == [row["'=1+1"] for row in read_csv(csv_path)]


@pytest.mark.parametrize(
    "key",
    ["../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "a\\b", "~root", "$HOME", "`id`", "input.events", "x" * 5000],
)
def test_names_from_data_are_no_paths(job: EventCsv, csv_path: Path, tmp_path: Path, key: str) -> None:
    """A key or a column may be called anything: no file but the job's own is made, and none of them after it."""
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    job.emit_started(key)
    job.emit_result(key, "COMPLETED", columns={key: key, "DOWNLOAD_FOLDER": key})
    job.compact()
    job.back_up()
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()} - before
    assert {"input.csv", "input.events", "backup"} >= {path.parts[0] for path in made}
    assert all(path.name.startswith(("input", "events-", "append", "compact", "checkpoint")) for path in made)
    assert csv_path.is_file()


@pytest.mark.parametrize("session", ["../x", "a/b", "", "a b", "x" * 300, "a\0b"])
def test_a_session_is_no_path(job: EventCsv, session: str) -> None:
    """What a backup is named after is letters, digits and hyphens."""
    with pytest.raises((EventCsvError, ValueError)), job.session(session_id=session):
        pass


PEAK: Final = """
import resource, sys
from eventcsv import EventCsv
job = EventCsv(sys.argv[1])
begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
import polars
result = job.compact()
found = [item.reason for item in result.damage]
progress = job.progress()
events = len(list(job.history("PO3", on_damage=lambda item: None)))
report = job.verify()
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun
print(grown // 1024, events, len(report.findings) > 0, *found, sep=";")
"""


@pytest.mark.parametrize("size_bytes", [256 << 20, pytest.param(1 << 30, marks=pytest.mark.long)])
def test_an_endless_line_takes_no_memory(job: EventCsv, csv_path: Path, size_bytes: int) -> None:
    """It is reported as damage with its place, and read in pieces by every command; what follows is folded."""
    job.emit_result("PO1", "COMPLETED")
    place = segment_of(job).stat().st_size
    with segment_of(job).open("ab") as file:
        for _ in range(size_bytes >> 20):
            file.write(b"x" * (1 << 20))
        file.write(b"\n")
    job.emit_result("PO3", "COMPLETED")
    done = subprocess.run([sys.executable, "-c", PEAK, str(csv_path)], capture_output=True, text=True, check=True)
    grown, events, is_found, *reasons = done.stdout.strip().split(";")
    assert ("1", "True") == (events, is_found)
    assert reasons
    assert all("newline" in reason or "checksum" in reason for reason in reasons)
    assert ["COMPLETED", "", "COMPLETED"] == statuses(csv_path)
    assert int(grown) < 200, f"{grown} MiB for a line of {size_bytes >> 20} MiB"
    assert place == job.compact().position.offset_bytes - size_bytes - 1 - _last_line(job)


def _last_line(job: EventCsv) -> int:
    with segment_of(job).open("rb") as file:
        file.seek(-4096, os.SEEK_END)
        return len(file.read().rstrip(b"\n").rpartition(b"\n")[2]) + 1


NOBODY: Final = 65534
OURS: Final = (
    "input.events",
    "input.events/events-000001.jsonl",
    "input.events/events-000003.jsonl",
    "input.events/events-000004.jsonl.tmp",
    "input.events/append.lock",
    "input.events/compact.lock",
    "input.events/session.lock",
    "input.events/checkpoint.json",
    "input.events/checkpoint.json.tmp",
    "backup",
    "backup/*.csv",
    "backup/*.json",
    ".input.csv.eventcsv.tmp",
)


def _run_a_session(job: EventCsv) -> None:
    with job.session():
        pass


EVERYTHING: Final[tuple[Callable[[EventCsv], object], ...]] = (
    lambda job: job.emit_result("PO2", "COMPLETED"),
    EventCsv.compact,
    EventCsv.new_segment,
    EventCsv.back_up,
    EventCsv.replay,
    EventCsv.verify,
    EventCsv.progress,
    EventCsv.prune,
    _run_a_session,
    lambda job: job.restore(job.backups()[-1].name, replay=False),
)


@pytest.mark.parametrize("place", OURS)
def test_what_somebody_else_owns_is_left_alone(job: EventCsv, csv_path: Path, place: str) -> None:
    """At each of our paths, a file or folder of another user: refused by whoever needs it, untouched by everybody."""
    if os.geteuid() != 0:
        cannot("only root can give a file to somebody else")
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    job.new_segment()
    _run_a_session(job)
    job.close()
    victim = next(csv_path.parent.glob(place), csv_path.parent / place)
    if not victim.exists():
        victim.write_text("not ours")
    os.chown(victim, NOBODY, NOBODY)
    before = (victim.stat().st_ino, victim.stat().st_uid, tree(victim) or victim.read_bytes())
    refused = 0
    for act in EVERYTHING:
        try:
            act(EventCsv(csv_path, durability="process", lock_timeout_s=1))
        except UnsafePath:
            refused += 1
        except AppendError as error:
            refused += isinstance(error.__cause__, UnsafePath)
        except EventCsvError:  # a backup that is not there for it
            continue
    assert refused
    assert before == (victim.stat().st_ino, victim.stat().st_uid, tree(victim) or victim.read_bytes())
