"""What a job would be, before it is one."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from eagleray.control.views import JOBS_PATH
from eagleray.environments.lock import read_lock
from eagleray.environments.ready import is_ready
from eagleray.jobs.plan import check_capabilities, describe, plan_job
from eagleray.jobs.spec import JobSpec, make_spec
from eagleray.plugins.catalogue import resolve_model
from eagleray_serve import examples
from eagleray_serve.answers import answer, described
from eagleray_serve.auth import Writer
from eagleray_serve.bodies import PlanJob
from eagleray_serve.fields import check_fields
from eagleray_serve.parts import Parts, Shared

router = APIRouter(tags=["jobs"])


class Plan(BaseModel):
    """As `eagleray train --dry-run --json`, and whether it would wait, and for what.

    Of a dataset at an address, which is not fetched for a plan, `dataset` says only where it would be imported from.
    """

    model_config = ConfigDict(extra="allow")

    framework: str
    model: str
    task: str
    dataset: dict[str, Any]
    environment: dict[str, Any]
    would_wait: bool
    waiting: str
    spec: dict[str, Any]


@router.post(
    f"{JOBS_PATH}:plan",
    response_model=Plan,
    responses=described(examples.PLAN, 404),
    openapi_extra=examples.body(examples.SPEC),
)
def plan(body: PlanJob, parts: Shared, caller: Writer) -> Response:
    """Check everything, the dataset included, and say what would run and why it would wait. Nothing is made."""
    check_fields(body, parts.catalogue)
    spec = make_spec(body.given())
    waits = parts.commands.would_wait(caller, body.given(), body.priority)
    found = _before_its_import(spec, parts) if "://" in spec.dataset_path else _whole(spec, parts)
    return answer(found | {"would_wait": waits["would_wait"], "waiting": waits["reason"]})


def _whole(spec: JobSpec, parts: Parts) -> dict[str, Any]:
    return describe(plan_job(spec, parts.catalogue, parts.store, rules=parts.datasets.rules), parts.settings)


def _before_its_import(spec: JobSpec, parts: Parts) -> dict[str, Any]:
    """What is known before the dataset is here."""
    framework = parts.catalogue.framework(spec.framework).framework
    model = resolve_model(framework, spec.model_name, spec.task_type)
    check_capabilities(spec, framework)
    ready = is_ready(read_lock(framework.environment.lock), root=parts.settings.environments)
    address = urlsplit(spec.dataset_path)
    # Neither a password nor a token of the address is repeated.
    source = f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"
    return {
        "framework": framework.name,
        "model": model.name,
        "task": model.task,
        "dataset": {"source": source, "note": f"would be imported from {source}, and is checked then"},
        "environment": {"ready": ready is not None, "path": str(ready.path) if ready else None},
        "spec": spec.model_copy(update={"task_type": model.task}).plain(),
    }
