"""Training frameworks: what the installed plugins offer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel

from eagleray.plugins.catalogue import config_schema
from eagleray.plugins.description import framework_details, framework_summary, quarantine_facts
from eagleray_serve import examples
from eagleray_serve.answers import answer, described
from eagleray_serve.auth import Reader
from eagleray_serve.parts import Shared

router = APIRouter(prefix="/api/v1/frameworks", tags=["frameworks"])
Name = Annotated[str, Path(max_length=100, examples=["ultralytics"])]


class FrameworkSummary(BaseModel):
    name: str
    version: str
    licence: str
    description: str
    tasks: list[str]
    num_models: int
    distribution: str
    distribution_version: str


class FrameworkDetails(FrameworkSummary):
    """`capabilities` that are not available say why."""

    models: list[str] = []
    dataset_formats: list[str]
    best_metrics: dict[str, dict[str, str]]
    capabilities: dict[str, dict[str, Any]]
    export_formats: list[str]


class Unusable(BaseModel):
    name: str
    distribution: str
    version: str
    reason: str
    hint: str


class FrameworkList(BaseModel):
    """`quarantined` are plugins that are installed and cannot be used."""

    items: list[FrameworkSummary]
    quarantined: list[Unusable] = []
    blocked: list[str] = []


@router.get("", response_model=FrameworkList, responses=described({"items": [examples.FRAMEWORK]}))
def list_frameworks(parts: Shared, caller: Reader) -> Response:
    catalogue = parts.catalogue
    return answer(
        {
            "items": [framework_summary(found) for found in catalogue.frameworks.values()],
            "quarantined": [quarantine_facts(found) for found in catalogue.quarantined],
            "blocked": list(catalogue.blocked),
        }
    )


@router.get("/{name}", response_model=FrameworkDetails, responses=described(examples.FRAMEWORK, 404))
def get_framework(name: Name, parts: Shared, caller: Reader) -> Response:
    return answer(FrameworkDetails.model_validate(framework_details(parts.catalogue.framework(name))))


@router.get("/{name}/tasks/{task}/schema", response_model=dict[str, Any], responses=described(examples.SCHEMA, 404))
def get_config_schema(
    name: Name, task: Annotated[str, Path(max_length=100, examples=["object-detection"])], parts: Shared, caller: Reader
) -> Response:
    """JSON Schema of `advanced_config` for a task: for forms."""
    return answer(config_schema(parts.catalogue.framework(name).framework, task))
