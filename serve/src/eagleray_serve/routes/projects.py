"""Projects and their quotas. A key sees only its own; making and changing them takes an admin."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from eagleray.control.views import ProjectView
from eagleray_serve import examples
from eagleray_serve.answers import Items, answer, answer_items, described
from eagleray_serve.auth import Admin, Reader
from eagleray_serve.bodies import NAME_PATTERN, CreateProject, IfMatch, Quotas
from eagleray_serve.parts import Shared

router = APIRouter(prefix="/api/v1/projects", tags=["projects"])
Name = Annotated[str, Path(pattern=NAME_PATTERN, examples=["orchard"])]


@router.get("", response_model=Items[ProjectView], responses=described({"items": [examples.PROJECT]}))
def list_projects(parts: Shared, caller: Reader) -> Response:
    return answer_items(parts.queries.projects(caller.projects), paged=False)


@router.post(
    "",
    status_code=201,
    response_model=ProjectView,
    responses=described(examples.PROJECT, 409, status=201, what="Made."),
    openapi_extra=examples.body({"name": "orchard", "quota_jobs": 4, "quota_gpus": 8}),
)
def create_project(body: CreateProject, parts: Shared, caller: Admin) -> Response:
    made = parts.commands.create_project(caller, body.name, quota_jobs=body.quota_jobs, quota_gpus=body.quota_gpus)
    return answer(made, 201, {"Location": f"/api/v1/projects/{body.name}", "ETag": made["etag"]})


@router.patch(
    "/{name}",
    response_model=ProjectView,
    responses=described(examples.PROJECT, 404, 412),
    openapi_extra=examples.body({"quota_jobs": 4, "quota_gpus": 8}),
)
def edit_project(name: Name, body: Quotas, parts: Shared, caller: Admin, if_match: IfMatch = None) -> Response:
    """Set both quotas; one that is left out has no limit."""
    changed = parts.commands.update_project(
        caller, name, quota_jobs=body.quota_jobs, quota_gpus=body.quota_gpus, if_match=if_match
    )
    return answer(changed, headers={"ETag": changed["etag"]})


@router.delete(
    "/{name}", response_model=dict[str, Any], responses=described({"name": "orchard", "deleted": True}, 404, 409)
)
def delete_project(name: Name, parts: Shared, caller: Admin) -> Response:
    """Refused (409) while it has jobs."""
    return answer(parts.commands.delete_project(caller, name))
