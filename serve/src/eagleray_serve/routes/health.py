"""Whether the server lives, whether each of its parts does, and figures for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from eagleray import __version__
from eagleray.contract.errors import EaglerayError
from eagleray.control.errors import ForbiddenError
from eagleray_serve import examples
from eagleray_serve.answers import answer, described
from eagleray_serve.auth import Reader
from eagleray_serve.parts import Parts, Shared

router = APIRouter(tags=["health"])
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Health(BaseModel):
    status: str
    service: str
    version: str


class Ready(BaseModel):
    """`status` is `ok`, or `degraded` where a part is not ok; then the answer is 503."""

    status: str
    version: str
    parts: dict[str, dict[str, Any]]


@router.get("/health", response_model=Health, responses={200: described(examples.HEALTH)[200]})
async def health() -> Response:
    """The server lives. Needs no key, and says nothing else."""
    return answer({"status": "healthy", "service": "eagleray", "version": __version__})


@router.get("/api/v1/health", response_model=Ready, responses=described(examples.READY))
def ready(parts: Shared, caller: Reader) -> Response:
    """Each part's state."""
    found = {
        "database": _state(parts.queries.newest_seq),
        "storage": _state(parts.store.check),
        "frameworks": _frameworks(parts),
        "control": _state(parts.commands.health),
    }
    control = found["control"].pop("found", None) or {}
    found |= {f"control.{name}": dict(state) for name, state in control.get("parts", {}).items()}
    for state in found.values():
        state.pop("found", None)
    good = all(state["ok"] for state in found.values())
    body = {"status": "ok" if good else "degraded", "version": __version__, "parts": found}
    return answer(body, 200 if good else 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses=described(examples.PROMETHEUS, media_type="text/plain", what="Prometheus' text format."),
)
def prometheus(parts: Shared, caller: Reader) -> Response:
    """Figures of this replica's requests, and of all jobs. A key that is bound to projects may not read them."""
    if caller.projects is not None:
        raise ForbiddenError("This key is bound to projects, and these figures are of all.", "Use another key.")
    return Response(parts.meter.text(), media_type=PROMETHEUS)


@router.get("/api/v1/openapi.json", response_model=dict[str, Any], responses=described({"openapi": "3.1.0"}))
def openapi(request: Request, caller: Reader) -> Response:
    """This document."""
    return answer(request.app.openapi())


def _state(ask: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"ok": True, "message": "", "found": ask()}
    except EaglerayError as error:
        return {"ok": False, "message": error.message}
    except Exception as error:
        return {"ok": False, "message": type(error).__name__}


def _frameworks(parts: Parts) -> dict[str, Any]:
    names = ", ".join(parts.catalogue.frameworks)
    faulty = ", ".join(found.name for found in parts.catalogue.quarantined)
    return {"ok": bool(names), "message": f"{names or 'none'}" + (f"; not usable: {faulty}" if faulty else "")}
