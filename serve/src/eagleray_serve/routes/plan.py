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
from eagleray_serve.bodies import JobBody
from eagleray_serve.fields import check_fields
from eagleray_serve.parts import Parts, Shared

router = APIRouter(tags=["jobs"])


class Plan(BaseModel):
    """As `eagleray train --dry-run --json`, and whether it would wait."""

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
def plan(body: JobBody, parts: Shared, caller: Writer) -> Response:
    """Check everything, the dataset included, and say what would run and why it would wait. Nothing is made."""
    check_fields(body, parts.catalogue)
    rules = parts.datasets.rules
    found = describe(plan_job(make_spec(body.given()), parts.catalogue, parts.store, rules=rules), parts.settings)
    return answer(found | _waiting(parts))


def _waiting(parts: Parts) -> dict[str, Any]:
    queued = parts.queries.counts()["queued"]
    reason = f"{queued} job{'s are' if queued != 1 else ' is'} queued already" if queued else ""
    return {"would_wait": bool(queued), "waiting": reason}
