"""The promise: `eventcsv report` tells what happened, on one page that loads nothing and gives no text a way out."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from command_line import run_in
from conftest import segment_of, tree
from hostile import hostile_job

from eventcsv import Event, EventCsv, UnsafePath
from eventcsv.cli.messages import report_lines
from eventcsv.event import Kind, utc_text
from eventcsv.report.collect import shares_of, shown_text
from eventcsv.report.grouping import pattern_of
from eventcsv.report.history import KEPT_EVENTS
from eventcsv.report.model import Ending
from eventcsv.report.page import render
from eventcsv.report.timeline import MOST_BARS, Category, Moment, timeline_of

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

BEGAN = datetime(2026, 5, 4, 6, 0, tzinfo=UTC)


def append(job: EventCsv, at_s: float, kind: str, key: str, cells: Mapping[str, str] | None = None) -> None:
    """Record an event at a time of one's own."""
    ts = utc_text(BEGAN + timedelta(seconds=at_s))
    job.log.append(job.log.new_event(Kind(kind), key, dict(cells or {}), ts))


def failed(message: str, status: str = "ERROR") -> dict[str, str]:
    """Return the cells of a failure."""
    return {"STATUS": status, "ERROR_MESSAGE": message}


DONE = {"STATUS": "COMPLETED", "ERROR_MESSAGE": ""}


# --- what is collected -------------------------------------------------------------------------------------------


def test_a_job_without_a_log_is_reported_as_it_stands(job: EventCsv, csv_path: Path) -> None:
    """Nothing happened yet: every PO waits, nothing is measured, and nothing is made."""
    before = tree(csv_path.parent)
    found = job.report()
    assert ([("", Category.WAITING, 3)], 0, 0) == (
        [(item.status, item.category, item.count) for item in found.by_status],
        found.done,
        found.results,
    )
    assert (None, None, (), ()) == (found.timeline, found.took_s, found.stretches, found.slowest)
    assert before == tree(csv_path.parent)


def test_attempts_retries_interruptions_and_times(job: EventCsv) -> None:
    """A PO that is taken up again without a result was interrupted; the time is that of its longest attempt."""
    append(job, 0, "started", "PO1")
    append(job, 9, "result", "PO1", failed("slow"))
    append(job, 10, "started", "PO1")
    append(job, 12, "result", "PO1", DONE)
    append(job, 20, "started", "PO2")
    append(job, 30, "started", "PO2")
    append(job, 34, "result", "PO2", DONE)
    append(job, 40, "started", "PO3")
    found = job.report()
    pos = {po.key: po for po in found.pos}
    assert [(2, 0, 9.0), (2, 1, 4.0), (1, 1, None)] == [(po.attempts, po.interrupted, po.took_s) for po in pos.values()]
    assert [("PO1", 9.0, "COMPLETED"), ("PO2", 4.0, "COMPLETED")] == [
        (slow.key, slow.took_s, slow.status) for slow in found.slowest
    ]
    assert (2, 2, 2, 6.5) == (found.retried, found.recovered, found.interrupted, found.took_s)
    assert [False, False, True] == [po.in_flight for po in pos.values()]


def test_what_was_put_back_was_not_interrupted(job: EventCsv) -> None:
    """Neither what waits for its next attempt, whatever came of the one before, nor what the end of its run left."""
    append(job, 0, "started", "PO1")
    append(job, 1, "deferred", "PO1", {"attempt": "1", "until": "2026-05-04T06:00:05Z", "reason": "busy"})
    append(job, 5, "started", "PO1", {"attempt": "2"})
    append(job, 6, "result", "PO1", failed("busy"))
    append(job, 6, "deferred", "PO1", {"attempt": "2", "until": "2026-05-04T06:00:15Z", "reason": "busy"})
    append(job, 7, "started", "PO2")
    append(job, 8, "deferred", "PO2", {"attempt": "1", "reason": "login expired"})
    append(job, 9, "stopped", "", {"reason": "login expired"})
    found = job.report()
    assert (0, [False] * 3, [2, 1, 0]) == (
        found.interrupted,
        [po.in_flight for po in found.pos],
        [po.attempts for po in found.pos],
    )
    assert found.last_run is not None
    assert Ending.SOME_LEFT == found.last_run.ending


def test_what_a_session_at_work_is_on_is_not_interrupted(job: EventCsv) -> None:
    """While somebody works on it, a PO without a result is in flight; once the session is over it was interrupted."""
    with job.session(session_id="mine"):
        append(job, 0, "started", "PO1")
        found = job.report()
        assert ("mine", 0, True) == (found.session, found.interrupted, found.pos[0].in_flight)
    found = job.report()
    assert ("", 1, True) == (found.session, found.interrupted, found.pos[0].in_flight)


def test_a_clock_that_was_set_back_gives_no_time(job: EventCsv) -> None:
    """A result that is older than its start, or whose time is no time, measures nothing and is counted."""
    append(job, 50, "started", "PO1")
    append(job, 10, "result", "PO1", DONE)
    job.log.append(Event("odd-1", "yesterday", "result", "PO2", DONE))
    found = job.report()
    assert (None, 2) == (found.took_s, found.results)
    assert 1 == sum(found.timeline.done if found.timeline else ())


def test_an_event_that_was_appended_twice_counts_once(job: EventCsv) -> None:
    """A retry repeats the id; history and counts know it as one."""
    event = job.emit_result("PO1", "COMPLETED")
    job.log.append(event)
    found = job.report()
    assert (1, 1) == (found.results, len(found.pos[0].events))


def test_failures_are_grouped_by_what_their_messages_have_in_common(job: EventCsv) -> None:
    """What is still open comes first; what was overcome counts as having been; what only the CSV tells counts too."""
    append(job, 0, "result", "PO1", failed("no answer after 30 s from https://coupa.example/1?token=abc"))
    append(job, 1, "result", "PO2", failed("no answer after 60 s from https://coupa.example/2"))
    append(job, 2, "result", "PO2", DONE)
    append(job, 3, "result", "PO3", failed("404 not found", "PO_NOT_FOUND"))
    append(
        job, 4, "result", "PO3", failed("404 not found", "PO_NOT_FOUND") | {"LAST_PROCESSED": "2026-05-04T06:00:04Z"}
    )
    found = job.report()
    assert [("404 not found", 1, 1, 2), ("no answer after [n] s from [URL]", 1, 2, 2)] == [
        (group.pattern, group.open, group.pos, group.times) for group in found.failures
    ]
    assert [(1,), (1,), (0,)] == [po.groups for po in found.pos]
    assert (2, 1) == (found.failed, found.done)
    path = Path(job.csv_path)
    job.compact()
    path.write_text(path.read_text().replace("404 not found", "edited by hand"))
    found = EventCsv(path).report()
    assert True is found.edited
    assert [("edited by hand", 1, 0)] == [(g.pattern, g.open, g.times) for g in found.failures if "hand" in g.pattern]


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        ("timed out after 30 s", "timed out after [n] s"),
        ("2 of 3 downloads timed out after 1.5 s", "[n] of [n] downloads timed out after [n] s"),
        ("HTTP 404 at https://x.example/a/1?q=2", "HTTP 404 at [URL]"),
        ("HTTP 500 at https://x.example/a/2", "HTTP 500 at [URL]"),
        ("429 Too Many Requests", "429 Too Many Requests"),
        ("killed by signal 11 (SIGSEGV)", "killed by signal 11 (SIGSEGV)"),
        ("PO PO15262984: no row 7", "PO [PO]: no row [n]"),
        ("invoice INV-2024117 is gone", "invoice [id] is gone"),
        ("session 8f3a12c4-1111-4222-8333-123456789abc ended", "session [id] ended"),
        ("object at 0x7f3a deadbeef99", "object at [id] [id]"),
        ("cannot write /home/ana/x.pdf: full", "cannot write [path]: full"),
        ("  two\n lines ", "two lines"),
        ("", "(no message)"),
    ],
)
def test_messages_that_differ_in_details_are_alike(message: str, pattern: str) -> None:
    """Numbers, ids, paths and URLs do not count; a code that says what happened does."""
    assert pattern == pattern_of(message, "PO15262984")


def test_a_long_message_is_grouped_quickly_enough_to_notice() -> None:
    """A message of a megabyte that resembles an id is cut before it is searched."""
    assert 300 >= len(pattern_of("a1" * 500_000))


def test_results_over_time_fall_into_bars_of_a_round_width() -> None:
    """Up to sixty bars, whatever the time; nothing is lost, and the three kinds stay apart."""
    assert None is timeline_of([])
    kinds = [Category.DONE, Category.OPEN, Category.FAILED]
    for span_s in (0, 1, 59, 60, 3_600, 30_000, 86_400 * 3, 86_400 * 400):
        moments = [Moment(BEGAN + timedelta(seconds=span_s * part / 9), kinds[part % 3]) for part in range(10)]
        found = timeline_of(moments)
        assert found is not None
        assert MOST_BARS >= len(found.done) == len(found.other) == len(found.failed)
        assert (4, 3, 3) == (sum(found.done), sum(found.other), sum(found.failed))
        assert datetime.fromisoformat(found.start) <= BEGAN
    minute = timeline_of([Moment(BEGAN, Category.DONE), Moment(BEGAN + timedelta(seconds=59), Category.FAILED)])
    assert minute is not None
    assert (1, 60, 1, 1) == (minute.width_s, len(minute.done), minute.done[0], minute.failed[59])


def test_sessions_damage_edits_and_restores_are_told(job: EventCsv, csv_path: Path) -> None:
    """Sessions by name, copies with their reasons, a torn line as no loss, damage as one, keys without a row."""
    with job.session(session_id="first"):
        append(job, 0, "result", "PO1", DONE)
        append(job, 1, "result", "PO9", DONE)
    job.compact()
    csv_path.write_text(csv_path.read_text().replace("PO3;;", "PO3;;Acme"))
    job.compact()
    backup = next(copy.name for copy in job.backups() if copy.reason == "the CSV was edited")
    job.restore(backup)
    with job.session(session_id="second"):
        append(job, 5, "result", "PO2", DONE)
        append(job, 6, "result", "PO2", failed("why"))
    path = segment_of(job, max(job.log.segments()))
    path.write_bytes(path.read_bytes().replace(b'"key":"PO2"', b'"key":"PO7"', 1) + b'{"v":1,"id":"half')
    found = job.report()
    assert ["first", "second"] == [stretch.session for stretch in found.stretches]
    assert [2, 1] == [stretch.results for stretch in found.stretches]
    reasons = [copy.reason for copy in found.copies]
    assert {"a session began", "the CSV was edited", f"before a restore of {backup}"} <= {
        reason.partition(" (")[0] for reason in reasons
    }
    assert (("PO9",), 1, 1) == (found.unknown, len(found.damage), len(found.torn))


def test_a_long_history_is_cut_at_its_beginning_and_a_long_text_at_its_end(job: EventCsv) -> None:
    """A PO that was tried without end does not make the page endless; how much is missing is told."""
    for number in range(KEPT_EVENTS + 7):
        append(job, number, "result", "PO1", failed(f"try {number} " + "x" * 5_000))
    po = job.report().pos[0]
    assert (KEPT_EVENTS, 7, KEPT_EVENTS + 7) == (len(po.events), po.earlier, po.attempts)
    assert po.events[-1].cells["ERROR_MESSAGE"].endswith(" ... (5,007 characters in all)")


def test_what_counts_as_done_is_the_callers_to_say(job: EventCsv) -> None:
    """`done` is what it is elsewhere, and colours the timeline too."""
    append(job, 0, "result", "PO1", {"STATUS": "NO_ATTACHMENTS"})
    assert (0, 1) == ((found := job.report()).done, sum(found.timeline.other if found.timeline else ()))
    found = job.report(done=["completed", " no_attachments"])
    assert (1, 1) == (found.done, sum(found.timeline.done if found.timeline else ()))


# --- the page ----------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """A page as a browser would take it apart."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self._open = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag in {"script", "style"}:
            self.inside.setdefault(tag, []).append("")

    def handle_data(self, data: str) -> None:
        if self._open in {"script", "style"}:
            self.inside[self._open][-1] += data

    def handle_endtag(self, _tag: str) -> None:
        self._open = ""

    @property
    def data(self) -> Any:
        return orjson.loads(self.inside["script"][0])


def test_no_text_leaves_its_element(tmp_path: Path) -> None:
    """Whatever messages, keys, columns and file names hold, the page has the elements of its template and no more."""
    page = Page(render(hostile_job(tmp_path).report()))
    plain = tmp_path / "plain.csv"
    plain.write_text("PO_NUMBER\nPO1\n")
    assert [tag for tag, _ in Page(render(EventCsv(plain).report())).tags] == [tag for tag, _ in page.tags]
    raw = page.inside["script"][0]
    assert not set("<>&\u2028\u2029") & set(raw)
    assert "</script><b>" == page.data["pos"]["key"][0]
    assert "{{script}}" in page.data["texts"]
    assert "{{script}}" not in page.inside["script"][1]
    assert "\\u202egpj.exe" in next(text for text in page.data["texts"] if "gpj.exe" in text)


def test_the_policy_allows_this_script_and_this_style_and_nothing_else(job: EventCsv) -> None:
    """The hashes are those of what is in the page; nothing is loaded, and no attribute runs or styles anything."""
    page = Page(render(job.report()))
    policy = next(a["content"] or "" for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    for kind, text in (("script", page.inside["script"][1]), ("style", page.inside["style"][0])):
        digest = base64.b64encode(sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for _, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on") or name in {"src", "style", "srcdoc"}}
        assert (attributes.get("href") or "#").startswith("#")
    whole = render(job.report()).decode()
    assert {"http://www.w3.org/2000/svg"} == set(re.findall(r"https?://[^\s\"'`)]+", whole))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", whole)


def test_secrets_stay_at_home_unless_asked_for(job: EventCsv, tmp_path: Path) -> None:
    """Queries, addresses, passwords, secret columns and the CSV's folder are not on it; unmasked, secrets are."""
    job.emit_result(
        "PO1",
        "ERROR",
        error_message="no answer from https://ana:hunter2@coupa.example/x?token=s3cr3t, ask ana@coupa.example",
        coupa_url="https://coupa.example/x?sig=s1gned",
        columns={"api_key": "k3y"},
    )
    job.compact()
    secrets = {"hunter2", "s3cr3t", "ana@coupa", "s1gned", "k3y"}
    page = render(job.report()).decode()
    assert set() == {secret for secret in secrets if secret in page}
    assert str(tmp_path) not in page
    assert "coupa.example/x?***" in page
    page = render(job.report(unmasked=True)).decode()
    assert secrets == {secret for secret in secrets if secret in page}


def test_a_cut_gives_no_half_of_a_secret_away() -> None:
    """A text is masked before it is cut, wherever the secret stands."""
    for before in range(1_960, 2_010):
        assert "ana@coup" not in shown_text("x" * before + " ana@coupa.example.org and more " + "y" * 99)


def test_the_parts_of_the_page_are_in_the_wheel() -> None:
    """What is installed from the project holds the template, the style and the script."""
    project = Path(__file__).parents[2]
    patterns = re.findall(r"^packages = \[(.*)\]$", (project / "pyproject.toml").read_text(), re.MULTILINE)
    assert ['"eventcsv"'] == patterns
    assert {"page.html", "page.css", "page.js"} <= {path.name for path in (project / "eventcsv/report").iterdir()}


# --- the file ----------------------------------------------------------------------------------------------------


def run(place: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """Run `eventcsv report` in a folder and return what it said."""
    return run_in(place, "report", *args)


def test_the_command_writes_one_file_and_touches_nothing_else(job: EventCsv, csv_path: Path) -> None:
    """A page for its owner only, said with its place; a second run replaces it; a default name beside the CSV."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    before = tree(csv_path.parent)
    for _ in range(2):
        done = run(csv_path.parent, "input.csv", "-o", "page.html")
        assert (0, "") == (done.returncode, done.stderr)
        assert "page.html: 1 of 3 POs done; open it in a browser" == done.stdout.splitlines()[0]
    page = csv_path.with_name("page.html")
    assert before | {"page.html": page.read_bytes()} == tree(csv_path.parent)
    assert 0o600 == page.stat().st_mode & 0o777
    page.unlink()
    assert "input.report.html: 1 of 3" in run(csv_path.parent, "input.csv").stdout
    assert {*before, "input.report.html"} == set(tree(csv_path.parent))


def test_standard_output_and_json(job: EventCsv, csv_path: Path) -> None:
    """`-o -` gives the page alone; --json the figures without the POs, and never both on one stream."""
    job.emit_result("PO1", "ERROR", error_message="why")
    before = tree(csv_path.parent)
    done = run(csv_path.parent, "input.csv", "-o", "-")
    assert (0, "") == (done.returncode, done.stderr)
    assert ["PO1", "PO2", "PO3"] == Page(done.stdout.encode()).data["pos"]["key"]
    assert before == tree(csv_path.parent)
    record = orjson.loads(run(csv_path.parent, "input.csv", "-o", "page.html", "--json").stdout)
    assert (str(csv_path.with_name("page.html")), 3, 1) == (record["output"], record["total"], record["failed"])
    assert "why" == record["failures"][0]["pattern"]
    assert "pos" not in record
    assert 2 == run(csv_path.parent, "input.csv", "-o", "-", "--json").returncode


def test_damage_is_an_exit_code_and_on_the_page(job: EventCsv, csv_path: Path) -> None:
    """The page is written all the same, and 3 says that something in the log is lost; a torn line is no damage."""
    job.emit_result("PO1", "COMPLETED")
    path = segment_of(job)
    path.write_bytes(path.read_bytes() + b'{"v":1,"id":"half')
    assert 0 == run(csv_path.parent, "input.csv", "-o", "page.html").returncode
    path.write_bytes(path.read_bytes().replace(b"COMPLETED", b"COMPLETEX"))
    done = run(csv_path.parent, "input.csv", "-o", "page.html")
    assert (3, True) == (done.returncode, "damage" in done.stdout)
    assert 1 == len(Page(csv_path.with_name("page.html").read_bytes()).data["damage"])


@pytest.mark.parametrize("forced", [False, True], ids=["", "--force"])
def test_what_must_not_be_overwritten_is_not(
    job: EventCsv, csv_path: Path, monkeypatch: pytest.MonkeyPatch, *, forced: bool
) -> None:
    """The CSV, its log and its backups are refused whatever is said, by any name; so is what is no file."""
    job.emit_result("PO1", "COMPLETED")
    job.compact()
    place = csv_path.parent
    monkeypatch.chdir(place)
    (place / "folder").mkdir()
    (place / "victim").write_text("precious")
    (place / "link.html").symlink_to("victim")
    (place / "link.csv").symlink_to("input.csv")
    (place / "other name.csv").hardlink_to("input.csv")
    backup = Path(job.backups()[0].path)
    log = ("input.events", "input.events/events-000001.jsonl", "input.events/new.html")
    copies = (backup, backup.with_suffix(".json"))
    others = ("link.csv", "other name.csv", "folder", "link.html", "no such folder/page.html", "victim/page.html")
    before = tree(place)
    for output in (csv_path, "input.csv", "folder/../input.csv", *log, *copies, *others):
        with pytest.raises(UnsafePath, match=r"name another file|left untouched"):
            job.report(output, force=forced)
        assert before == tree(place)


def test_a_refusal_is_one_line(csv_path: Path) -> None:
    """The command says what is wrong in a line, and writes nothing."""
    before = tree(csv_path.parent)
    done = run(csv_path.parent, "input.csv", "-o", "input.csv", "--force")
    assert (1, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert before == tree(csv_path.parent)


def test_a_file_that_is_no_report_is_replaced_only_by_force(job: EventCsv, csv_path: Path) -> None:
    """Somebody's page keeps its place, and --force is named as the way; the CSV that is gone keeps its name."""
    page = csv_path.with_name("page.html")
    page.write_text("<!doctype html><title>mine</title>")
    done = run(csv_path.parent, "input.csv", "-o", "page.html")
    assert (1, True) == (done.returncode, "--force" in done.stderr)
    assert "mine" in page.read_text()
    assert 0 == run(csv_path.parent, "input.csv", "-o", "page.html", "--force").returncode
    assert b"eventcsv" in page.read_bytes()
    job.compact()
    csv_path.unlink()
    with pytest.raises(UnsafePath, match="the CSV itself"):
        job.report(csv_path, force=True)


def test_a_page_that_cannot_be_written_leaves_the_old_one(
    job: EventCsv, csv_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk says no, the earlier page is whole and nothing is left beside it."""
    page = csv_path.with_name("page.html")
    job.report(page)
    before = tree(csv_path.parent)

    def no_space(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job._storage, "write", no_space)
    with pytest.raises(OSError, match="No space"):
        job.report(page)
    assert before == tree(csv_path.parent)


# --- shares, and how the last run ended ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "shares"),
    [
        ((), []),
        ((0, 0), [0.0, 0.0]),
        ((5,), [100.0]),
        ((1, 1, 1), [33.4, 33.3, 33.3]),
        ((2, 1), [66.7, 33.3]),
        ((445, 1), [99.8, 0.2]),
        ((9_999, 1), [99.9, 0.1]),
        ((999_990, 5, 5), [99.8, 0.1, 0.1]),
    ],
)
def test_shares_add_up(counts: tuple[int, ...], shares: list[float]) -> None:
    """To 100, to one decimal; what is there is never 0, and what is not all of them never 100."""
    found = shares_of(counts)
    assert shares == found
    assert (1_000 if any(counts) else 0) == round(10 * sum(found))


def test_the_shares_of_a_report_add_up(job: EventCsv) -> None:
    """Three POs of three kinds are 100 % together."""
    append(job, 0, "result", "PO1", DONE)
    append(job, 1, "result", "PO2", failed("no answer"))
    assert 100.0 == pytest.approx(sum(item.share_percent for item in job.report().by_status))


def test_how_the_last_run_ended_is_told(job: EventCsv) -> None:
    """From its first event to its last; cut off, with some left, with all done, or still at work."""
    assert None is job.report().last_run
    append(job, 0, "started", "PO1")
    append(job, 60, "result", "PO1", DONE)
    append(job, 61, "started", "PO2")
    assert (61.0, 1, 1, Ending.CUT_OFF) == ended(job)
    append(job, 90, "result", "PO2", DONE)
    assert (90.0, 2, 0, Ending.SOME_LEFT) == ended(job)
    assert "2 results in 0:01:30; ended with 1 PO not done" in "\n".join(report_lines(job.report(), "r.html", 1))
    append(job, 120, "result", "PO3", DONE)
    assert (120.0, 3, 0, Ending.ALL_DONE) == ended(job)
    with job.session():
        append(job, 180, "result", "PO3", DONE)
        assert (0.0, 1, 0, Ending.AT_WORK) == ended(job)
    append(job, 100, "result", "PO3", DONE)  # by a clock that was set back
    assert (None, 2, 0, Ending.ALL_DONE) == ended(job)


def ended(job: EventCsv) -> tuple[float | None, int, int, Ending]:
    last = job.report().last_run
    assert last is not None
    return last.took_s, last.results, last.interrupted, last.ending


def test_what_waits_for_another_attempt_is_told(job: EventCsv) -> None:
    """Neither in flight nor interrupted; and why the run stopped, until another one begins."""
    append(job, 0, "started", "PO1")
    append(job, 1, "deferred", "PO1", {"attempt": "1", "until": "2026-01-01T00:01:00Z", "reason": "busy"})
    append(job, 2, "started", "PO2")
    append(job, 3, "deferred", "PO2", {"attempt": "1", "reason": "login expired"})
    append(job, 4, "stopped", "", {"reason": "the job itself: login expired"})
    report = job.report()
    assert [("2026-01-01T00:01:00Z", False, 0, 1), ("", False, 0, 1), ("", False, 0, 0)] == [
        (po.waits_until, po.in_flight, po.interrupted, po.attempts) for po in report.pos
    ]
    assert report.last_run is not None
    assert report.last_run.stopped == "the job itself: login expired"
    assert "not done, stopped by the job itself: login expired" in "\n".join(report_lines(report, "r.html", 1))
    assert (2, [], 0) == (len(report.pos[0].events), [po for po in report.pos if po.earlier], report.interrupted)
    append(job, 5, "started", "PO2")
    last = job.report().last_run
    assert last is not None
    assert not last.stopped


def test_an_edit_is_no_attempt_on_the_page(job: EventCsv) -> None:
    """Whoever set a cell by hand did not take the PO up."""
    append(job, 0, "started", "PO1")
    append(job, 1, "result", "PO1", DONE)
    append(job, 2, "edit", "PO1", {"SUPPLIER": "Acme"})
    page = render(job.report()).decode()
    record = orjson.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert [[0, 1, 2]] == [[event[1] for event in events] for events in record["pos"]["events"] if events]
