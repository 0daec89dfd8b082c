"""The whole public API, used as it is meant to be: mypy checks that its types are what is said here. Never run."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, assert_type

import eventcsv
from eventcsv import (
    AppendError,
    Backup,
    BackupError,
    ClaimLost,
    CompactResult,
    CorruptLog,
    Event,
    EventCsv,
    EventCsvError,
    ExportResult,
    ImportResult,
    InvalidCsv,
    InvalidEvent,
    InvalidWorkbook,
    LockTimeout,
    Progress,
    PruneResult,
    Report,
    Retry,
    RunResult,
    ServerError,
    Session,
    SessionActive,
    Status,
    StopRun,
    UnsafePath,
    UnsupportedFormat,
    VerifyReport,
    emit_result,
)
from eventcsv.view.session_lock import Holder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ERRORS: tuple[type[EventCsvError], ...] = (
    *(AppendError, BackupError, CorruptLog, InvalidCsv, InvalidEvent, InvalidWorkbook, LockTimeout, SessionActive),
    *(UnsafePath, UnsupportedFormat, ServerError, ClaimLost),
)


def download(key: str, row: Mapping[str, str]) -> dict[str, object]:
    """Work on one PO."""
    return {"ATTACHMENTS_FOUND": 1, "NOTE": row.get("NOTE", key)}


def of_a_worker(job: EventCsv) -> None:
    """Record results."""
    assert_type(eventcsv.__version__, str)
    assert_type(emit_result("PO1", Status.COMPLETED, csv="po.csv", attachments_found=1), Event)
    assert_type(job.emit_started("PO1"), Event)
    event = job.emit_result(
        "PO1",
        Status.ERROR,
        supplier="A",
        attachments_found=2,
        attachments_downloaded=1,
        attachment_names=["a.pdf"],
        error_message="no",
        download_folder="d",
        coupa_url="u",
        columns={"Extra": 1},
    )
    assert_type(event, Event)
    assert_type(event.key, str)
    job.close()


def of_an_operator(path: Path) -> None:
    """Keep the CSV current, and look at it."""
    with EventCsv(path, key="PO", backup_dir=path.parent, durability="process", lock_timeout_s=1, log=None) as job:
        assert_type(job, EventCsv)
        assert_type(job.compact(), CompactResult)
        assert_type(job.compact().by_status, dict[str, int])
        assert_type(job.report(path.with_suffix(".html")), Report)
        assert_type(job.session_holder(), Holder | None)
        assert_type(job.replay(backup="b.csv"), CompactResult)
        assert_type(job.restore("b.csv", replay=False), CompactResult)
        assert_type(job.pending(done=("COMPLETED",)), list[str])
        assert_type(job.doubtful_statuses(), dict[str, int])
        assert_type(job.obstacle(), str | None)
        assert_type(job.progress(), Progress)
        assert_type(job.verify(), VerifyReport)
        assert_type(job.backups(), list[Backup])
        assert_type(job.back_up(), Backup)
        assert_type(job.prune(dry_run=True), PruneResult)
        assert_type(job.export("out.xlsx", force=True), ExportResult)
        assert_type(job.export(io.BytesIO(), file_format="jsonl").cut, tuple[str, ...])
        assert_type(job.import_workbook(path, sheet="POs"), ImportResult)
        events: Iterator[Event] = job.history("PO1")
        assert_type(next(events), Event)
        assert_type(job.csv_path, str)


async def visit(key: str, row: dict[str, str]) -> dict[str, str]:
    """Work on a PO, or ask for another attempt, or for the end of the run."""
    if not row:
        raise Retry("busy", after_s=60)
    if not key:
        raise StopRun("login expired")
    return row


def of_a_run(job: EventCsv) -> None:
    """Work through the POs."""
    with job.session(session_id="a", refresh_s=1.0) as session:
        assert_type(session, Session)
        result = session.run(download, workers=2, timeout_s=5, interrupted="hold")
        result = session.run(visit, attempts=3, retry_after_s=30, halt="30%", rate="30/min")
        result = session.run(visit, limit=10, only=["PO1"], status=["ERROR"], order_by="-Priority", halt=20)
        assert_type(session.stopping, str)
    assert_type(result, RunResult)
    assert_type(result.by_status, dict[str, int])
    assert_type(result.waiting, tuple[str, ...])
    assert_type([item.attempts for item in job.plan(limit=3)], list[int])
