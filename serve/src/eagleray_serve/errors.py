"""Errors as `application/problem+json` (RFC 9457): one envelope for all, and never a traceback."""

from __future__ import annotations

import logging
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from eagleray.contract.errors import EaglerayError, PluginError, nearest

logger = logging.getLogger(__name__)
DOCTOR = "eagleray plugins doctor"
MEDIA_TYPE = "application/problem+json"
MAX_INPUT_CHARACTERS = 100
# Behind a key pydantic names the member of a union that it tried, which means nothing to a reader.
UNION_MEMBER = re.compile(r"(function-|constrained-|literal\[|tuple\[|list\[|(int|float|str|bool|none)$)")


class UnauthenticatedError(EaglerayError):
    """No key, or one that is unknown, revoked or expired."""

    code = "unauthenticated"
    http_status = 401


class TooManyRequestsError(EaglerayError):
    """More requests than the limits allow; `retry_after_s` says when to come back."""

    code = "too-many-requests"
    http_status = 429

    def __init__(self, message: str, hint: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, retry_after_s)
        self.retry_after_s = retry_after_s


class UnavailableError(EaglerayError):
    """A part that this request needs does not answer."""

    code = "unavailable"
    http_status = 503


class InvalidFieldsError(EaglerayError):
    """The body has the right shape, and fields of it do not fit what is installed."""

    code = "invalid-request"
    http_status = 422

    def __init__(self, message: str, hint: str = "", fields: tuple[tuple[str, str, str], ...] = ()) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, fields)
        self.fields = fields


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    field: str = Field(description="Where: a path into the body, or `query.x`, `path.x`, `header.x`.")
    message: str
    code: str = Field(description="Kind of the error, such as `missing` or `extra_forbidden`.")


class Problem(BaseModel):
    """What every error looks like."""

    type: str = Field(default="about:blank", description="Identifies the kind of error.")
    title: str = Field(description="The status in words.")
    status: int
    code: str = Field(description="Stable; to be matched by programs.")
    message: str = Field(description="What happened, with the value.")
    hint: str = Field(default="", description="What would be valid, or what to do next.")
    request_id: str = Field(default="", description="Also in the header X-Request-ID and in the server's log.")
    errors: list[FieldError] = Field(default_factory=list)


def problem(
    request_id: str,
    status: int,
    code: str,
    message: str,
    hint: str = "",
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    body = Problem(
        type=f"urn:eagleray:error:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        code=code,
        message=message,
        hint=hint,
        request_id=request_id,
        errors=list(errors),
    )
    return JSONResponse(body.model_dump(), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def told(error: EaglerayError) -> tuple[int, str]:
    """The status and the hint that a client is given.

    A plugin that cannot be used is no fault of this server: the request contradicts what is installed.
    """
    if not isinstance(error, PluginError):
        return error.http_status, error.hint
    hint = error.hint if DOCTOR in error.hint else f"{error.hint} On the server: {DOCTOR}".strip()
    return HTTPStatus.CONFLICT, hint


def of_error(request_id: str, error: EaglerayError) -> JSONResponse:
    """The answer to an error of the family."""
    status, hint = told(error)
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is None and status == HTTPStatus.SERVICE_UNAVAILABLE:
        retry_after_s = 5.0
    if retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    if status >= 500:
        logger.warning("request %s: %s: %s", request_id, error.code, error)
    fields = [FieldError(field=where, message=what, code=kind) for where, what, kind in getattr(error, "fields", ())]
    return problem(request_id, status, error.code, error.message, hint, errors=fields, headers=headers)


def install(app: FastAPI) -> None:
    app.add_exception_handler(EaglerayError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def request_id_of(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EaglerayError)
    return of_error(request_id_of(request), error)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, EaglerayError):  # FastAPI wraps what is raised while it reads a body
        return of_error(request_id_of(request), error.__cause__)
    status = HTTPStatus(error.status_code)
    code = {404: "not-found", 405: "method-not-allowed"}.get(status, status.name.lower().replace("_", "-"))
    message = {404: "There is nothing at this address.", 405: f"{request.method} is not possible here."}.get(
        status, str(error.detail)
    )
    hint = "All addresses: GET /api/v1/openapi.json" if status in (404, 405) else ""
    return problem(request_id_of(request), status, code, message, hint, headers=error.headers)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    body = next((arg for arg in _body_models(request)), None)
    found = [_field_error(finding, body) for finding in error.errors()]
    message = "; ".join(f"{each.field}: {each.message}" for each in found[:5])
    hint = "The schema of every request: GET /api/v1/openapi.json"
    return problem(request_id_of(request), 422, "invalid-request", message, hint, errors=found)


def _body_models(request: Request) -> list[type[BaseModel]]:
    field = getattr(request.scope.get("route"), "body_field", None)
    annotation = getattr(getattr(field, "field_info", None), "annotation", None)
    return [found for found in _members(annotation) if isinstance(found, type) and issubclass(found, BaseModel)]


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _field_error(finding: Mapping[str, Any], body: type[BaseModel] | None) -> FieldError:
    where, *parts = (str(part) for part in finding["loc"])
    rest = [part for part in parts if not UNION_MEMBER.match(part)]
    kind = str(finding["type"])
    path = ".".join(rest)
    message = str(finding["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden" and body is not None and len(rest) == 1:
        guess = nearest(rest[0], body.model_fields)
        message = "unknown key" + (f"; did you mean '{guess}'?" if guess else "")
    elif kind == "missing":
        message = "is missing"
    elif kind == "json_invalid":
        path, message = "", "the body is not JSON"
    elif isinstance(finding.get("input"), str | int | float | bool):
        message = f"{message}; it is {str(finding['input'])[:MAX_INPUT_CHARACTERS]!r}"
    name = (path or "body") if where == "body" else f"{where}.{path}".rstrip(".")
    return FieldError(field=name, message=message, code=kind)
