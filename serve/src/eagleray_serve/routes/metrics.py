"""Figures of a job, by key and epoch."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from eagleray.control.views import JOBS_PATH, MetricPoint
from eagleray_serve import examples
from eagleray_serve.answers import Items, answer_items, described
from eagleray_serve.auth import Reader
from eagleray_serve.bodies import MAX_INTEGER, JobId, Text
from eagleray_serve.parts import Shared

router = APIRouter(prefix=JOBS_PATH, tags=["metrics"])
Epoch = Annotated[int | None, Query(ge=0, le=MAX_INTEGER)]


@router.get(
    "/{job_id}/metrics",
    response_model=Items[MetricPoint],
    responses=described({"items": [examples.METRIC]}, 404),
)
def list_metrics(
    job_id: JobId,
    parts: Shared,
    caller: Reader,
    keys: Annotated[list[Text] | None, Query(max_length=200, description="Only these.")] = None,
    first_epoch: Epoch = None,
    last_epoch: Epoch = None,
    max_points: Annotated[
        int, Query(ge=1, le=10_000, description="Points per key; of more epochs they are spread evenly.")
    ] = 1000,
) -> Response:
    """Figures by key, then epoch."""
    points = parts.queries.metrics(job_id, keys, first_epoch, last_epoch, max_points, caller.projects)
    return answer_items(points, paged=False)
