"""Training jobs: made, listed, shown, and told what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from eagleray.control.views import JOBS_PATH, AttemptView, JobView
from eagleray.jobs.phases import JobStatus, Phase
from eagleray_serve import examples
from eagleray_serve.answers import Items, Page, answer, answer_items, described, tagged
from eagleray_serve.auth import Reader, Writer
from eagleray_serve.bodies import (
    After,
    CloneJob,
    CreateJob,
    EditJob,
    IdempotencyKey,
    IfMatch,
    JobId,
    Limit,
    Number,
    ResumeJob,
    Text,
)
from eagleray_serve.fields import check_changes, check_fields
from eagleray_serve.parts import Shared

router = APIRouter(prefix=JOBS_PATH, tags=["jobs"])
CHANGED: dict[str, Any] = {"response_model": JobView, "responses": described(examples.QUEUED, 404, 409)}
MADE: dict[str, Any] = {
    "status_code": 201,
    "response_model": JobView,
    "responses": described(examples.QUEUED, 404, 409, status=201, what="Made."),
}


def job_answer(job: dict[str, Any], status: int = 200) -> Response:
    headers = {"ETag": job["etag"]}
    if status == 201:
        headers["Location"] = f"{JOBS_PATH}/{job['id']}"
    return answer(job, status, headers)


@router.post("", **MADE, openapi_extra=examples.body(examples.CREATE))
def create_job(body: CreateJob, parts: Shared, caller: Writer, idempotency_key: IdempotencyKey = None) -> Response:
    """Make a job; with `start` it is queued at once."""
    check_fields(body, parts.catalogue)
    job = parts.commands.create_job(
        caller, body.given(), start=body.start, priority=body.priority, idempotency_key=idempotency_key
    )
    return job_answer(job, 201)


@router.get("", response_model=Page[JobView], responses=described(examples.page(examples.JOB, "7")))
def list_jobs(
    parts: Shared,
    caller: Reader,
    status: Annotated[list[JobStatus] | None, Query(max_length=5)] = None,
    phase: Annotated[list[Phase] | None, Query(max_length=8)] = None,
    framework: Text | None = None,
    model_name: Text | None = None,
    task_type: Text | None = None,
    project_id: Text | None = None,
    created_by: Text | None = None,
    session_id: Text | None = None,
    parent: Number | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    limit: Limit = 50,
    after: After = None,
) -> Response:
    """Jobs that this key sees, newest first. Filters are joined by *and*."""
    given = {
        "status": status,
        "phase": phase,
        "framework": framework,
        "model_name": model_name,
        "task_type": task_type,
        "project_id": project_id,
        "created_by": created_by,
        "session_id": session_id,
        "parent": parent,
        "created_after": with_offset(created_after),
        "created_before": with_offset(created_before),
    }
    filters = {name: value for name, value in given.items() if value is not None}
    jobs, following = parts.queries.list_jobs(caller.projects, filters, after, limit)
    return answer_items(jobs, following)


@router.get("/{job_id}", response_model=JobView, responses=described(examples.JOB, 404))
def get_job(job_id: JobId, request: Request, parts: Shared, caller: Reader) -> Response:
    """One job. With `If-None-Match` and nothing new the answer is 304."""
    job = parts.queries.get_job(job_id, caller.projects)
    return tagged(request, job, job.etag)


@router.patch(
    "/{job_id}",
    response_model=JobView,
    responses=described(examples.QUEUED, 404, 409, 412),
    openapi_extra=examples.body({"priority": 10}),
)
def edit_job(job_id: JobId, body: EditJob, parts: Shared, caller: Writer, if_match: IfMatch = None) -> Response:
    """Change the priority of a job that waits."""
    return job_answer(parts.commands.set_priority(caller, job_id, body.priority, if_match=if_match))


@router.delete("/{job_id}", response_model=dict[str, Any], responses=described(examples.DELETED, 404, 409))
def delete_job(job_id: JobId, parts: Shared, caller: Writer) -> Response:
    """Forget a finished job, with its files."""
    return answer(parts.commands.delete_job(caller, job_id))


@router.post("/{job_id}/start", **CHANGED)
def start_job(job_id: JobId, parts: Shared, caller: Writer) -> Response:
    """Put a created job into the queue."""
    return job_answer(parts.commands.start_job(caller, job_id))


@router.post("/{job_id}/stop", **CHANGED)
def stop_job(job_id: JobId, parts: Shared, caller: Writer) -> Response:
    """End it after a checkpoint; it can be resumed."""
    return job_answer(parts.commands.stop_job(caller, job_id))


@router.post("/{job_id}/cancel", **CHANGED)
def cancel_job(job_id: JobId, parts: Shared, caller: Writer) -> Response:
    """End it at once."""
    return job_answer(parts.commands.cancel_job(caller, job_id))


@router.post("/{job_id}/resume", **CHANGED, openapi_extra=examples.body({"epochs": 4}))
def resume_job(job_id: JobId, parts: Shared, caller: Writer, body: ResumeJob | None = None) -> Response:
    """Go on from the last checkpoint."""
    return job_answer(parts.commands.resume_job(caller, job_id, epochs=body.epochs if body else None))


@router.post("/{job_id}/retry", **CHANGED)
def retry_job(job_id: JobId, parts: Shared, caller: Writer) -> Response:
    """Run a failed job again, with fresh budgets for failures."""
    return job_answer(parts.commands.retry_job(caller, job_id))


@router.post(
    "/{job_id}/clone",
    **MADE,
    openapi_extra=examples.body({"changes": {"epochs": 10}, "start": True}),
)
def clone_job(
    job_id: JobId,
    parts: Shared,
    caller: Writer,
    body: CloneJob | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """A new job with the description of this one, changed."""
    wanted = body or CloneJob()
    check_changes(parts.queries.get_job(job_id, caller.projects).spec, wanted.changes, parts.catalogue)
    job = parts.commands.clone_job(
        caller, job_id, dict(wanted.changes), start=wanted.start, idempotency_key=idempotency_key
    )
    return job_answer(job, 201)


@router.get(
    "/{job_id}/attempts",
    response_model=Items[AttemptView],
    responses=described({"items": [examples.ATTEMPT]}, 404),
)
def list_attempts(job_id: JobId, parts: Shared, caller: Reader) -> Response:
    """Its runs, each one Ray Job."""
    return answer_items(parts.queries.attempts(job_id, caller.projects), paged=False)


def with_offset(moment: datetime | None) -> datetime | None:
    """A time without an offset is taken as UTC."""
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC)
