"""How answers are made and described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.responses import Response

from eagleray_serve.errors import MEDIA_TYPE, Problem

Item = TypeVar("Item")
JSON = "application/json"
# What any route may answer: it is said once and not in each.
COMMON = (401, 403, 422, 429, 503)
WHY = {
    400: "The request is malformed.",
    401: "No key, or one that is unknown, revoked or expired.",
    403: "The key lacks the scope.",
    404: "It is not there, or not for this key.",
    409: "It contradicts what is there.",
    412: "It has changed since it was read.",
    413: "The body is too large.",
    416: "The file has no such range.",
    422: "Something in the request is wrong; `errors` names the fields.",
    429: "Too many requests; see Retry-After.",
    503: "A part that is needed does not answer; see Retry-After.",
}


class Page(BaseModel, Generic[Item]):
    items: list[Item]
    next: str | None = Field(
        default=None, description="Pass it on as `after` for the next page; null: this was the last."
    )


class Items(BaseModel, Generic[Item]):
    items: list[Item]


def described(
    example: Any, *errors: int, status: int = 200, media_type: str = JSON, what: str = "Done."
) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route: what it says on success, and its errors beside the common ones."""
    found: dict[int | str, dict[str, Any]] = {
        code: {"model": Problem, "description": WHY[code], "content": {MEDIA_TYPE: {"example": _problem(code)}}}
        for code in sorted({*COMMON, *errors})
    }
    found[status] = {"description": what, "content": {media_type: {"example": example}}}
    return found


def _problem(status: int) -> dict[str, Any]:
    return Problem(title="Error", status=status, code="error", message=WHY[status], request_id="9f2c61d0").model_dump()


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` (a model or plain data) as JSON; figures that are not finite become strings, as in all our JSON."""
    body = value.model_dump_json() if isinstance(value, BaseModel) else to_json(value, inf_nan_mode="strings")
    return Response(body, status, headers=dict(headers or {}), media_type=JSON)


def answer_items(items: Sequence[BaseModel], after: str | None = None, *, paged: bool = True) -> Response:
    body = b'{"items":[' + b",".join(item.model_dump_json().encode() for item in items) + b"]"
    body += (b',"next":' + to_json(after) if paged else b"") + b"}"
    return Response(body, media_type=JSON)


def tagged(request: Request, value: BaseModel, etag: str) -> Response:
    """With its ETag; 304 and nothing where the client has it already."""
    if etag in (part.strip() for part in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers={"ETag": etag})
    return answer(value, headers={"ETag": etag})
