"""Models that can be trained: the cards of all installed frameworks."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel

from eagleray.contract.errors import unknown_name
from eagleray.contract.framework import Framework, ModelCard
from eagleray.plugins.catalogue import find_models
from eagleray.plugins.description import model_facts
from eagleray.plugins.host import Catalogue
from eagleray_serve import examples
from eagleray_serve.answers import Items, answer, described
from eagleray_serve.auth import Reader
from eagleray_serve.bodies import Text
from eagleray_serve.parts import Shared

router = APIRouter(prefix="/api/v1/models", tags=["models"])
ModelName = Annotated[
    str, Path(max_length=300, description="Of its framework; it may hold slashes.", examples=["yolo11n"])
]


class ModelView(BaseModel):
    """`status` is `trainable`, `needs` or `predict-only`; `reason` says what it needs, or why."""

    name: str
    framework: str
    task: str
    parameters: int | None = None
    status: str
    reason: str
    weights: str
    description: str
    licence: str


@router.get("", response_model=Items[ModelView], responses=described({"items": [examples.MODEL]}, 404))
def list_models(
    parts: Shared, caller: Reader, framework: Text | None = None, task: Text | None = None, name: Text | None = None
) -> Response:
    """All of them, or those of a framework, for a task, or with `name` in their name (or a pattern with `*`)."""
    return answer({"items": model_list(parts.catalogue, framework, task, name)})


@router.get(
    "/{framework}/{model_name:path}",
    response_model=Items[ModelView],
    responses=described({"items": [examples.MODEL]}, 404),
)
def get_model(
    framework: Annotated[str, Path(max_length=100, examples=["ultralytics"])],
    model_name: ModelName,
    parts: Shared,
    caller: Reader,
) -> Response:
    """One model: an item for each task that it can be trained for."""
    found = cards_of(parts.catalogue, model_name, framework)
    return answer({"items": [model_facts(owner, card) for owner, card in found]})


def model_list(
    catalogue: Catalogue, framework: str | None = None, task: str | None = None, name: str | None = None
) -> list[dict[str, Any]]:
    return [model_facts(owner, card) for owner, card in find_models(catalogue, framework, task, name)]


def cards_of(catalogue: Catalogue, model_name: str, framework: str | None = None) -> list[tuple[Framework, ModelCard]]:
    """Raises UnknownNameError."""
    found = find_models(catalogue, framework)
    plain = model_name.removesuffix(".pt")
    wanted = [(owner, card) for owner, card in found if card.name in (model_name, plain) or card.weights == plain]
    if not wanted:
        raise unknown_name("model", model_name[:100], {card.name for _, card in found})
    return wanted
