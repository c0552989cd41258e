"""Checkpoints of a job: listed, and fetched whole or in part."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel

from eagleray.contract.errors import UnknownNameError
from eagleray.control.commands import Caller
from eagleray.control.errors import ConflictError
from eagleray.control.views import JOBS_PATH, JobView
from eagleray.storage import layout
from eagleray.storage.checkpoints import Checkpoints
from eagleray_serve import examples
from eagleray_serve.answers import answer, described
from eagleray_serve.auth import Reader
from eagleray_serve.bodies import JobId
from eagleray_serve.files import send_object
from eagleray_serve.parts import Parts, Shared

router = APIRouter(prefix=JOBS_PATH, tags=["checkpoints"])
Portable = Annotated[Literal["best.pt", "last.pt"], Path(description="The best epoch's file, or the last one's.")]
BYTES = "application/octet-stream"


class CheckpointFile(BaseModel):
    name: str
    size_bytes: int
    sha256: str


class CheckpointView(BaseModel):
    """A committed checkpoint; `best`: it was the best one when it was written."""

    attempt: int
    epoch: int
    best: bool
    metrics: dict[str, float]
    size_bytes: int
    files: list[CheckpointFile]
    created_at: datetime


class Artifact(BaseModel):
    name: str
    links: dict[str, str]


class CheckpointList(BaseModel):
    """`artifacts` are the portable files that are there now."""

    items: list[CheckpointView]
    artifacts: list[Artifact]


class Presigned(BaseModel):
    url: str
    expires_at: datetime


@router.get(
    "/{job_id}/checkpoints",
    response_model=CheckpointList,
    responses=described({"items": [examples.CHECKPOINT], "artifacts": [examples.ARTIFACT]}, 404),
)
def list_checkpoints(job_id: JobId, parts: Shared, caller: Reader) -> Response:
    """Newest first."""
    prefix = _prefix(parts.queries.get_job(job_id, caller.projects))
    items = [
        CheckpointView(
            attempt=manifest.attempt,
            epoch=manifest.epoch,
            best=manifest.best,
            metrics=manifest.metrics,
            size_bytes=manifest.size_bytes,
            files=[
                CheckpointFile(name=name, size_bytes=entry.size_bytes, sha256=entry.sha256)
                for name, entry in sorted(manifest.files.items())
            ],
            created_at=manifest.created_at,
        ).model_dump(mode="json")
        for manifest in Checkpoints(parts.store, prefix).all()
    ]
    artifacts = [
        {"name": name, "links": {"self": f"{JOBS_PATH}/{job_id}/checkpoints/{name}"}}
        for name in ("best.pt", "last.pt")
        if parts.store.exists(f"{prefix}/{name}")
    ]
    return answer({"items": items, "artifacts": artifacts})


@router.get(
    "/{job_id}/checkpoints/{name}",
    response_class=Response,
    responses=described("…", 404, 416, media_type=BYTES, what="The file."),
)
async def download_artifact(job_id: JobId, name: Portable, request: Request, parts: Shared, caller: Reader) -> Response:
    """Fetch `best.pt` or `last.pt`. `Range` with one range is honoured."""
    key = await asyncio.to_thread(_artifact_of, parts, caller, job_id, name)
    return await send_object(parts.store, key, f"job-{job_id}-{name}", request)


@router.get(
    "/{job_id}/checkpoints/{name}/url",
    response_model=Presigned,
    responses=described(examples.PRESIGNED, 404, 409),
)
def presign_artifact(
    job_id: JobId,
    name: Portable,
    parts: Shared,
    caller: Reader,
    expires_s: Annotated[int, Query(ge=60, le=7 * 24 * 3600, description="Life of the address in seconds.")] = 3600,
) -> Response:
    """An address in the bucket that needs no key, for a while; 409 where the store is a folder."""
    key = _artifact_of(parts, caller, job_id, name)
    url = parts.store.presign(key, expires_s)
    if url is None:
        raise ConflictError(
            "The store is a folder, which has no addresses of its own.",
            f"Fetch it from {JOBS_PATH}/{job_id}/checkpoints/{name}",
        )
    return answer(Presigned(url=url, expires_at=datetime.now(UTC) + timedelta(seconds=expires_s)))


@router.get(
    "/{job_id}/checkpoints/{attempt}/{epoch}/{name:path}",
    response_class=Response,
    responses=described("…", 404, 416, media_type=BYTES, what="The file."),
)
async def download_file(
    job_id: JobId,
    attempt: Annotated[int, Path(ge=1, le=10**6, examples=[1])],
    epoch: Annotated[int, Path(ge=0, le=10**9, examples=[1])],
    name: Annotated[str, Path(max_length=300, description="One of the checkpoint's `files`.", examples=["weights.pt"])],
    request: Request,
    parts: Shared,
    caller: Reader,
) -> Response:
    """Fetch one file of a checkpoint."""
    key = await asyncio.to_thread(_file_of, parts, caller, job_id, attempt, epoch, name)
    return await send_object(parts.store, key, name.rpartition("/")[2], request)


def _file_of(parts: Parts, caller: Caller, job_id: int, attempt: int, epoch: int, name: str) -> str:
    prefix = _prefix(parts.queries.get_job(job_id, caller.projects))
    for manifest in Checkpoints(parts.store, prefix).all():
        # Only names that the manifest lists, so no name can lead anywhere else.
        if (manifest.attempt, manifest.epoch) == (attempt, epoch) and name in manifest.files:
            return f"{layout.checkpoint_prefix(prefix, attempt, epoch)}/{name}"
    raise UnknownNameError(
        f"Job {job_id} has no such file of epoch {epoch} (attempt {attempt}).",
        f"What there is: GET {JOBS_PATH}/{job_id}/checkpoints",
    )


def _prefix(job: JobView) -> str:
    return layout.job_prefix(job.id, job.project_id)


def _artifact_of(parts: Parts, caller: Caller, job_id: int, name: str) -> str:
    key = f"{_prefix(parts.queries.get_job(job_id, caller.projects))}/{name}"
    if not parts.store.exists(key):
        raise UnknownNameError(
            f"Job {job_id} has no {name} yet.", f"What there is: GET {JOBS_PATH}/{job_id}/checkpoints"
        )
    return key
