"""`advanced_config` of each task: Ultralytics' training hyperparameters, typed, with its defaults and bounds.

The fields come from `hyperparameters.json`, which `scripts/generate.py` writes from Ultralytics itself.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

Ratio = Annotated[float, Field(gt=0.0, le=1.0)]
Count = Annotated[int, Field(gt=1)]
UnitFloat = Annotated[float, Field(ge=0.0, le=1.0)]
# Ultralytics' own words for keys that take more than one kind of value.
UNIONS: dict[str, Any] = {
    "fraction": Ratio | Count,
    "scale": UnitFloat | Annotated[list[float], Field(min_length=2, max_length=2)],
    "freeze": Annotated[int, Field(ge=0)] | list[int | str] | None,
}
SCALARS: dict[str, Any] = {"int": int, "float": float, "bool": bool}


class Hyperparameters(BaseModel):
    """What every task's configuration has in common: unknown keys are errors, values are not silently converted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sync_batch_norm: bool = Field(
        default=False, description="Batch norm over the batch of all workers; a single worker does not need it."
    )


def read_hyperparameters() -> dict[str, dict[str, Any]]:
    """The fields of `hyperparameters.json` by name."""
    text = files("eagleray_ultralytics").joinpath("hyperparameters.json").read_text(encoding="utf-8")
    fields: dict[str, dict[str, Any]] = json.loads(text)["fields"]
    return fields


def annotation(row: dict[str, Any]) -> Any:
    """The Python type of one field, without its bounds."""
    kind = row["type"]
    if kind in UNIONS:
        return UNIONS[kind]
    if kind == "choice":
        base: Any = Literal[tuple(row["choices"])]
    elif kind == "bool-or-choice":
        base = bool | Literal[tuple(row["choices"])]
    else:
        base = SCALARS[kind]
    return base | None if row.get("optional") else base


def build(name: str, task: str) -> type[Hyperparameters]:
    """The configuration class of `task`."""
    fields: dict[str, Any] = {}
    for key, row in read_hyperparameters().items():
        if task not in row["tasks"]:
            continue
        # A key of several kinds carries its bounds in its type.
        bounds = {bound: row[bound] for bound in ("ge", "le") if bound in row and row["type"] not in UNIONS}
        default = row.get("task_defaults", {}).get(task, row["default"])
        fields[key] = (annotation(row), Field(default, description=row["description"], **bounds))
    model: type[Hyperparameters] = create_model(
        name, __base__=Hyperparameters, __module__=__name__, __doc__=f"Hyperparameters of {task}.", **fields
    )
    return model


DetectionConfig = build("DetectionConfig", "object-detection")
SegmentationConfig = build("SegmentationConfig", "image-segmentation")
PoseConfig = build("PoseConfig", "keypoint-detection")
ClassificationConfig = build("ClassificationConfig", "image-classification")
