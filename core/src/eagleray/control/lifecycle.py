"""A job's way through its phases: every arrow of docs/control-plane.md is one function here, inside a transaction."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import insert

from eagleray.contract.errors import ConfigError
from eagleray.contract.failures import FailureKind
from eagleray.control.database.tables import Attempt
from eagleray.control.rows import AttemptRow, JobRow
from eagleray.execution.failures import Failure
from eagleray.execution.retries import GiveUp, after_failure
from eagleray.jobs.phases import IllegalPhaseError, Phase

REGISTERED, SUBMITTING, SUBMITTED, RUNNING, ENDED = "registered", "submitting", "submitted", "running", "ended"


@dataclass(frozen=True)
class Ending:
    """How an attempt ended.

    Attributes:
        outcome: `completed`, `stopped`, `cancelled` or `failed`.
        facts: columns of the job that are known now: metrics, best, artifacts, epochs_done, resumable.
    """

    outcome: str
    failure: Failure | None = None
    facts: dict[str, Any] = field(default_factory=dict)


FACTS = frozenset(
    {
        "metrics",
        "best",
        "artifacts",
        "epochs_done",
        "resumable",
        "dataset",
        "dataset_format",
        "environment",
        "output_dir",
        "tracking_url",
    }
)


_OWN = re.compile(r"\d+-\d+")


def submission_id(job_id: int, attempt: int) -> str:
    """The same for every try to submit an attempt, so that Ray runs it once."""
    return f"{job_id}-{attempt}"


def queue(job: JobRow, message: str) -> None:
    """Ask for a start: created → queued, or a finished job again."""
    if job.phase.is_terminal:
        job.resume(message)
    else:
        job.advance(Phase.QUEUED, message)
    job["queued_at"], job["not_before"] = job.transaction.now, None
    job["failure_counts"] = {}


def register(job: JobRow, submission: str) -> None:
    """Attempt 1 is a Ray Job that runs already and waits for its turn.

    Raises:
        ConfigError: its name is one that an attempt of some job will have.
    """
    if _OWN.fullmatch(submission):
        raise ConfigError(
            f"A Ray Job named '{submission}' cannot be a job of eagleray's: it names attempts so.",
            "Submit it with another --submission-id, or without one.",
        )
    _add_attempt(job, 1, submission, REGISTERED)


def admit(job: JobRow, registered: AttemptRow | None) -> None:
    """queued → preparing: its gang is its own from now on."""
    if registered is not None:
        registered["state"], registered["lease_until"] = SUBMITTED, None
        registered.save()
    else:
        number = job["current_attempt"] + 1
        _add_attempt(job, number, submission_id(job["id"], number), SUBMITTING)
    job.advance(Phase.PREPARING, "admitted")
    job["not_before"] = None


def _add_attempt(job: JobRow, number: int, submission: str, state: str) -> None:
    job["current_attempt"], job["attempt_count"] = number, job["attempt_count"] + 1
    job.transaction.connection.execute(
        insert(Attempt).values(
            job_id=job["id"],
            number=number,
            submission_id=submission,
            state=state,
            message="",
            hint="",
            last_seq=0,
            log_bytes=0,
            created_at=job.transaction.now,
            released=False,
        )
    )
    # Its driver tells of the same attempt by `attempt`, with what only it knows.
    job.event("submission", {"number": number, "submission_id": submission, "state": state}, number)


def stop(job: JobRow) -> None:
    """Gracefully: what runs saves first; what waits ends now."""
    if job.phase in (Phase.CREATED, Phase.QUEUED):
        cancel(job, "stopped before it started")
    elif job.phase.is_terminal:
        raise IllegalPhaseError(f"Job {job['id']} is {job.phase} already.", f"Try: eagleray jobs show {job['id']}")
    elif job.phase is not Phase.STOPPING:
        job.advance(Phase.STOPPING, "saving, then stopping")


def cancel(job: JobRow, message: str) -> None:
    """At once: whatever the attempt still says is refused from here on."""
    if job.phase is Phase.CANCELLED:
        return
    if job.phase.is_terminal:
        raise IllegalPhaseError(f"Job {job['id']} is {job.phase} already.", f"Try: eagleray jobs show {job['id']}")
    if job["current_attempt"]:
        attempt = AttemptRow.load(job.transaction, job["id"], job["current_attempt"])
        if attempt["state"] != ENDED:
            _end_attempt(attempt, "cancelled", message)
    job.advance(Phase.CANCELLED, message)
    job["error_message"] = message


def finish(job: JobRow, attempt: AttemptRow, ending: Ending) -> None:
    """What the end of the newest attempt means for its job."""
    for name, value in ending.facts.items():
        if name in FACTS and value is not None:
            job[name] = value
    failure = ending.failure
    if ending.outcome != "failed" or failure is None:
        _end_attempt(attempt, ending.outcome, "")
        _end_job(job, ending.outcome)
        return
    _end_attempt(attempt, failure.kind.value, failure.message, failure.hint)
    if job.phase is Phase.STOPPING:
        job.advance(Phase.CANCELLED, "stopped")
        job.warn(f"It failed while it was stopping: {failure.message}")
        return
    _retry_or_fail(job, attempt, failure)


def _end_job(job: JobRow, outcome: str) -> None:
    if outcome == "completed":
        if job.phase is Phase.PREPARING:  # its own word on running was lost with its driver
            job.advance(Phase.RUNNING, "")
        job.advance(Phase.COMPLETED, "")
        job["resumable"] = False
        return
    job.advance(Phase.CANCELLED, outcome)
    job["error_message"] = outcome


def _retry_or_fail(job: JobRow, attempt: AttemptRow, failure: Failure) -> None:
    counts = dict(job["failure_counts"])
    counts[failure.kind.value] = counts.get(failure.kind.value, 0) + 1
    decision = after_failure(
        failure,
        counts,
        max_failures=int(job["spec"].get("max_failures", 3)),
        seed=f"{job['id']}/{attempt['number']}",
    )
    if isinstance(decision, GiveUp):
        job["error_message"], job["hint"] = decision.reason, decision.hint or None
        job["failure_kind"] = failure.kind.value
        job.advance(Phase.FAILED, decision.reason)
        return
    if decision.counts:
        job["failure_counts"] = counts
    node = decision.avoid_node
    if node and node not in job["excluded_nodes"]:
        job["excluded_nodes"] = [*job["excluded_nodes"], node]
    job.warn(f"Attempt {attempt['number']} ended: {failure.message} It starts again from the newest checkpoint.")
    if job.phase is not Phase.QUEUED:  # it may have failed while it waited for admission
        job.advance(Phase.QUEUED, f"attempt {attempt['number']} failed: {failure.message}")
    # Its place in the queue stays the one it had: `queued_at` is not touched.
    job["not_before"] = job.transaction.now + timedelta(seconds=decision.after_s) if decision.after_s else None


def _end_attempt(attempt: AttemptRow, outcome: str, message: str, hint: str = "") -> None:
    attempt["state"], attempt["outcome"], attempt["message"], attempt["hint"] = ENDED, outcome, message, hint
    attempt["ended_at"] = attempt.transaction.now
    attempt.save()


def lost(message: str, kind: FailureKind = FailureKind.WORKER_LOST) -> Ending:
    """The end of an attempt that said nothing about it."""
    return Ending("failed", Failure(kind, message))
