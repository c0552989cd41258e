"""What a job's workers printed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from eagleray.control.views import JOBS_PATH, LogLine
from eagleray_serve import examples
from eagleray_serve.answers import Page, answer_items, described
from eagleray_serve.auth import Reader
from eagleray_serve.bodies import After, JobId
from eagleray_serve.parts import Shared

router = APIRouter(prefix=JOBS_PATH, tags=["logs"])
MAX_LINES = 5000


@router.get(
    "/{job_id}/logs", response_model=Page[LogLine], responses=described(examples.page(examples.LINE, "900"), 404)
)
def list_lines(
    job_id: JobId,
    parts: Shared,
    caller: Reader,
    attempt: Annotated[int | None, Query(ge=1, le=10**6, description="Of this attempt only.")] = None,
    rank: Annotated[int | None, Query(ge=-1, le=10**6, description="Of this worker only; -1: the driver.")] = None,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LINES, description="Lines of a page.")] = 1000,
    tail: Annotated[int | None, Query(ge=1, le=MAX_LINES, description="Only the last so many.")] = None,
) -> Response:
    """Log lines in their order. To follow, ask again with `after` = the `id` of the last line."""
    lines = parts.queries.logs(
        job_id, attempt, rank, int(after) if after else None, limit, tail, projects=caller.projects
    )
    full = tail is None and len(lines) == limit
    return answer_items(lines, str(lines[-1].id) if full else None)
