"""Keys: who may do what, in which projects."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from eagleray.control.views import KeyView
from eagleray_serve import examples
from eagleray_serve.answers import Items, answer, answer_items, described
from eagleray_serve.auth import Admin, Reader
from eagleray_serve.bodies import CreateKey, Id
from eagleray_serve.parts import Shared

router = APIRouter(tags=["keys"])


class NewKey(KeyView):
    """`key` is the secret. It is shown this once; only its hash is kept."""

    key: str


class WhoAmI(BaseModel):
    """`projects` null: all of them."""

    name: str
    key_id: int | None = None
    user_id: int | None = None
    scopes: list[str]
    projects: list[str] | None = None


@router.get("/api/v1/whoami", response_model=WhoAmI, responses=described(examples.WHOAMI))
def who_am_i(caller: Reader) -> Response:
    """What the key of this request may do."""
    projects = None if caller.projects is None else sorted(caller.projects)
    return answer(
        WhoAmI(
            name=caller.name,
            key_id=caller.key_id,
            user_id=caller.user_id,
            scopes=sorted(caller.scopes),
            projects=projects,
        )
    )


@router.get("/api/v1/keys", response_model=Items[KeyView], responses=described({"items": [examples.KEY]}))
def list_keys(parts: Shared, caller: Admin) -> Response:
    """All keys, without their secrets."""
    return answer_items(parts.queries.keys(), paged=False)


@router.post(
    "/api/v1/keys",
    status_code=201,
    response_model=NewKey,
    responses=described(examples.NEW_KEY, 404, 409, status=201, what="Made."),
    openapi_extra=examples.body({"name": "anna-laptop", "scopes": ["read", "write"], "projects": ["orchard"]}),
)
def create_key(body: CreateKey, parts: Shared, caller: Admin) -> Response:
    """A new key. Its secret is in this answer and nowhere else."""
    made = parts.commands.create_key(
        caller,
        name=body.name,
        scopes=body.scopes,
        projects=body.projects,
        user_id=body.user_id,
        expires_at=body.expires_at.isoformat() if body.expires_at else None,
    )
    return answer(made, 201)


@router.delete("/api/v1/keys/{key_id}", response_model=KeyView, responses=described(examples.KEY, 404))
def revoke_key(key_id: Id, parts: Shared, caller: Admin) -> Response:
    """It is refused from now on; by other replicas within `key_cache_s`."""
    gone = parts.commands.revoke_key(caller, key_id)
    parts.authenticator.forget()
    return answer(gone)
