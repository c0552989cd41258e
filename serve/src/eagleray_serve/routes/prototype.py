"""The addresses that clients of the prototype know, with its field names and its values of `status`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel

from eagleray.control.views import JobView
from eagleray.plugins.description import framework_summary, model_facts
from eagleray_serve import examples
from eagleray_serve.answers import answer, described
from eagleray_serve.auth import Reader, Writer
from eagleray_serve.bodies import IdempotencyKey, JobBody, JobId
from eagleray_serve.fields import check_fields
from eagleray_serve.parts import Shared
from eagleray_serve.routes.models import cards_of, model_list

router = APIRouter(tags=["prototype"])


class Status(BaseModel):
    """`status` is pending, running, completed, failed or cancelled; `phase` is finer. `progress` is in percent."""

    job_id: int
    status: str
    phase: str
    current_epoch: int
    total_epochs: int
    progress: float
    metrics: dict[str, float]
    output_dir: str
    error_message: str | None = None


class ModelList(BaseModel):
    models: list[dict[str, Any]]


class FrameworkNames(BaseModel):
    frameworks: list[dict[str, Any]]


def status_of(job: dict[str, Any]) -> dict[str, Any]:
    return {
        "job_id": job["id"],
        "status": job["status"],
        "phase": job["phase"],
        "current_epoch": job["epochs_done"],
        "total_epochs": job["epochs"],
        "progress": round(100 * job["epochs_done"] / job["epochs"], 1),
        "metrics": job["metrics"],
        "output_dir": job["output_dir"],
        "error_message": job["error_message"],
    }


@router.post(
    "/training/start",
    response_model=Status,
    responses=described(examples.PROTOTYPE_STATUS, 404, 409),
    openapi_extra=examples.body(examples.PROTOTYPE_START),
)
def start_training(body: JobBody, parts: Shared, caller: Writer, idempotency_key: IdempotencyKey = None) -> Response:
    """Make a job and put it into the queue."""
    check_fields(body, parts.catalogue)
    job = parts.commands.create_job(caller, body.given(), start=True, idempotency_key=idempotency_key)
    return answer(status_of(job))


@router.get("/training/status/{job_id}", response_model=Status, responses=described(examples.PROTOTYPE_STATUS, 404))
def training_status(job_id: JobId, parts: Shared, caller: Reader) -> Response:
    """How far a job is."""
    job: JobView = parts.queries.get_job(job_id, caller.projects)
    return answer(status_of(job.model_dump(mode="json")))


@router.get("/models/list", response_model=ModelList, responses=described({"models": [examples.MODEL]}))
def list_models(parts: Shared, caller: Reader) -> Response:
    """Every model that can be trained."""
    return answer({"models": model_list(parts.catalogue)})


@router.get("/models/{model_name:path}", response_model=dict[str, Any], responses=described(examples.MODEL, 404))
def get_model(
    model_name: Annotated[str, Path(max_length=300, examples=["yolo11n"])], parts: Shared, caller: Reader
) -> Response:
    """One model; where several frameworks or tasks have that name, the first, and all of them in `variants`."""
    found = [model_facts(owner, card) for owner, card in cards_of(parts.catalogue, model_name)]
    return answer(found[0] | {"variants": found})


@router.get(
    "/api/v1/trainer/frameworks",
    response_model=FrameworkNames,
    responses=described({"frameworks": [examples.FRAMEWORK]}),
)
def list_frameworks(parts: Shared, caller: Reader) -> Response:
    """Every framework that can be used."""
    return answer({"frameworks": [framework_summary(found) for found in parts.catalogue.frameworks.values()]})
