"""What is made of a stored version in the background: asked for, looked at, fetched."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from eagleray_serve import dataset_examples as examples
from eagleray_serve.answers import answer, described
from eagleray_serve.auth import Reader
from eagleray_serve.dataset_tasks import PATH, TaskView
from eagleray_serve.files import BYTES, send_object
from eagleray_serve.parts import Shared

router = APIRouter(prefix=PATH, tags=["dataset-tasks"])
TaskId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="The task's id.", examples=[examples.IMPORT_ID])]


@router.get("/{task_id}", response_model=TaskView, responses=described(examples.TASK, 404))
def get_task(task_id: TaskId, parts: Shared, caller: Reader) -> Response:
    """How far a validation, a preview, a conversion or a deletion is."""
    return answer(parts.datasets.tasks.show(task_id).model_copy(update={"created_by": ""}))


@router.get(
    "/{task_id}/result",
    response_class=Response,
    responses=described("…", 404, 416, media_type=BYTES, what="A report, a picture or an archive."),
)
async def get_result(task_id: TaskId, parts: Shared, caller: Reader, request: Request) -> Response:
    """What it made: a report as JSON, a PNG, or a zip archive; for a day. One range of it, if asked for."""
    view, key = await asyncio.to_thread(parts.datasets.tasks.result_of, task_id)
    return await send_object(parts.store, key, view.filename, request)
