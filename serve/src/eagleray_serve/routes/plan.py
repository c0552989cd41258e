"""What a job would be, before it is one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from eagleray.control.views import JOBS_PATH
from eagleray.jobs.plan import describe, plan_job
from eagleray.jobs.spec import make_spec
from eagleray_serve import examples
from eagleray_serve.answers import answer, described
from eagleray_serve.auth import Writer
from eagleray_serve.bodies import PlanJob
from eagleray_serve.fields import check_fields
from eagleray_serve.parts import Shared

router = APIRouter(tags=["jobs"])


class Plan(BaseModel):
    """As `eagleray train --dry-run --json`, and whether it would wait, and for what.

    A dataset at an address is not fetched for a plan: `dataset` says where it would be imported from, without figures.
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
    found = plan_job(spec, parts.catalogue, parts.store, rules=parts.datasets.rules, import_addresses=False)
    return answer(describe(found, parts.settings) | {"would_wait": waits["would_wait"], "waiting": waits["reason"]})
