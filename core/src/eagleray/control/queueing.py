"""One scheduling pass: rows in, decisions, rows out, all in one transaction."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from eagleray.control import lifecycle
from eagleray.control.database.tables import Attempt, Project, TrainingJob
from eagleray.control.fitting import Capacity
from eagleray.control.lifecycle import REGISTERED, RUNNING
from eagleray.control.rows import AttemptRow, JobRow
from eagleray.control.scheduling import Admit, AdmittedJob, QueuedJob, Quota, ScheduleState, Wait, schedule
from eagleray.control.settings import ControlSettings
from eagleray.control.specs import gang_of
from eagleray.control.writing import Transaction, is_connections, rejected
from eagleray.jobs.phases import Phase

# An estimate that moves by less is not worth a write.
_ESTIMATE_STEP_S = 60.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pass:
    """What a pass left: how many wait, and in how many seconds a back-off ends (None: there is none)."""

    waiting: int
    next_s: float | None


def run_pass(transaction: Transaction, capacity: Capacity | None, settings: ControlSettings) -> Pass:
    now = transaction.now.timestamp()
    queued = _queued(transaction.connection)
    state = _state(transaction.connection, queued, now, capacity, settings)
    rows = {row.id: row for row in queued}
    changes = []
    waiting = len(queued) - len(state.queued)
    for decision in schedule(state):
        if isinstance(decision, Admit):
            if refused := _admit(transaction, decision.job_id):
                waiting += 1
                changes += _explained(rows[decision.job_id], Wait(decision.job_id, refused))
        elif isinstance(decision, Wait):
            waiting += 1
            changes += _explained(rows[decision.job_id], decision)
    if changes:
        explain = update(TrainingJob).where(TrainingJob.id == bindparam("of"))
        explain = explain.values(reason=bindparam("why"), estimated_start_at=bindparam("start"))
        transaction.connection.execute(explain, changes)
    pauses = [row.not_before.timestamp() - now for row in queued if row.not_before is not None]
    return Pass(waiting, min((pause for pause in pauses if pause > 0), default=None))


def waiting_reason(connection: Connection, job: QueuedJob, capacity: Capacity | None, settings: ControlSettings) -> str:
    """Why `job`, which is queued nowhere, would wait if it were; nothing: it would start at once."""
    state = _state(connection, _queued(connection), job.queued_at, capacity, settings)
    for decision in schedule(replace(state, queued=[*state.queued, job])):
        if isinstance(decision, Wait) and decision.job_id == job.id:
            return decision.reason
    return ""


def _state(
    connection: Connection,
    queued: list[Row[Any]],
    now: float,
    capacity: Capacity | None,
    settings: ControlSettings,
) -> ScheduleState:
    held = _attempts(connection)
    unreleased = {row.job_id for row in held if row.state != REGISTERED}
    registered = {row.job_id for row in held if row.state == REGISTERED}
    return ScheduleState(
        now=now,
        queued=[_queued_job(row, row.id in registered) for row in queued if row.id not in unreleased],
        admitted=[_admitted_job(row, now) for row in held if row.state != REGISTERED],
        capacity=capacity,
        quotas=_quotas(connection),
        max_drivers=settings.drivers,
        reserve_after_s=settings.reserve_after_s,
    )


def _queued(connection: Connection) -> list[Row[Any]]:
    columns = (
        TrainingJob.id,
        TrainingJob.project_id,
        TrainingJob.priority,
        TrainingJob.queued_at,
        TrainingJob.not_before,
        TrainingJob.gang,
        TrainingJob.excluded_nodes,
        TrainingJob.reason,
        TrainingJob.estimated_start_at,
    )
    wanted = select(*columns).where(TrainingJob.phase == Phase.QUEUED, TrainingJob.deleted_at.is_(None))
    return list(connection.execute(wanted))


def _attempts(connection: Connection) -> list[Row[Any]]:
    columns = (
        Attempt.job_id,
        Attempt.state,
        Attempt.started_at,
        Attempt.resumed_from_epoch,
        TrainingJob.project_id,
        TrainingJob.gang,
        TrainingJob.phase,
        TrainingJob.epochs,
        TrainingJob.epochs_done,
    )
    wanted = select(*columns).join(TrainingJob, TrainingJob.id == Attempt.job_id).where(Attempt.released.is_(False))
    return list(connection.execute(wanted))


def _quotas(connection: Connection) -> dict[str, Quota]:
    rows = connection.execute(select(Project.name, Project.quota_jobs, Project.quota_gpus))
    return {row.name: Quota(row.quota_jobs, row.quota_gpus) for row in rows}


def _queued_job(row: Row[Any], holds_driver: bool) -> QueuedJob:
    return QueuedJob(
        row.id,
        row.project_id,
        row.priority,
        row.queued_at.timestamp(),
        gang_of(row.gang, row.excluded_nodes),
        row.not_before.timestamp() if row.not_before else 0.0,
        holds_driver,
    )


def _admitted_job(row: Row[Any], now: float) -> AdmittedJob:
    placed = row.state != RUNNING or row.phase != Phase.PREPARING
    if row.state in (lifecycle.SUBMITTING, lifecycle.SUBMITTED):
        placed = False
    return AdmittedJob(row.job_id, row.project_id, gang_of(row.gang, []), placed, _ends_at(row, now))


def _ends_at(row: Row[Any], now: float) -> float | None:
    """As fast as so far: the epochs of this attempt over its time."""
    done = row.epochs_done - (row.resumed_from_epoch or 0)
    if row.started_at is None or done <= 0:
        return None
    spent = now - row.started_at.timestamp()
    return float(now + spent / done * (row.epochs - row.epochs_done))


def _admit(transaction: Transaction, job_id: int) -> str:
    """Why it could not be admitted after all, or nothing; no job's fault stops the pass for the others."""
    try:
        with transaction.savepoint():
            _start_attempt(transaction, job_id)
    except Exception as error:
        if is_connections(error):
            raise
        logger.exception("Job %s could not be admitted.", job_id)
        return f"it cannot be started: {rejected(error).message}"
    return ""


def _start_attempt(transaction: Transaction, job_id: int) -> None:
    job = JobRow.load(transaction, job_id)
    registered = None
    if job["current_attempt"]:
        attempt = AttemptRow.load(transaction, job_id, job["current_attempt"])
        registered = attempt if attempt["state"] == REGISTERED else None
    lifecycle.admit(job, registered)
    job.save()


def _explained(row: Row[Any], wait: Wait) -> list[dict[str, Any]]:
    """The row's update, where the reason is another one or the estimate has moved."""
    start = datetime.fromtimestamp(wait.estimated_start, UTC) if wait.estimated_start is not None else None
    old = row.estimated_start_at
    if start is not None and old is not None and abs((start - old).total_seconds()) < _ESTIMATE_STEP_S:
        start = old
    if start == old and row.reason == wait.reason:
        return []
    return [{"of": row.id, "why": wait.reason, "start": start}]
