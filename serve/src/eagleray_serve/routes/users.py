"""Users: names that keys belong to."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from eagleray.control.views import UserView
from eagleray_serve import examples
from eagleray_serve.answers import Items, answer, answer_items, described
from eagleray_serve.auth import Admin
from eagleray_serve.bodies import CreateUser, Id
from eagleray_serve.parts import Shared

router = APIRouter(prefix="/api/v1/users", tags=["users"])


@router.get("", response_model=Items[UserView], responses=described({"items": [examples.USER]}))
def list_users(parts: Shared, caller: Admin) -> Response:
    return answer_items(parts.queries.users(), paged=False)


@router.post(
    "",
    status_code=201,
    response_model=UserView,
    responses=described(examples.USER, 409, status=201, what="Made."),
    openapi_extra=examples.body({"name": "anna", "projects": ["orchard"]}),
)
def create_user(body: CreateUser, parts: Shared, caller: Admin) -> Response:
    return answer(parts.commands.create_user(caller, body.name, projects=body.projects), 201)


@router.delete("/{user_id}", response_model=dict[str, Any], responses=described({"id": 2, "deleted": True}, 404))
def delete_user(user_id: Id, parts: Shared, caller: Admin) -> Response:
    """Its keys are revoked, too."""
    gone = parts.commands.delete_user(caller, user_id)
    parts.authenticator.forget()
    return answer(gone)
