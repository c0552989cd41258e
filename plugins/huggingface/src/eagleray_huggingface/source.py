"""Where a model comes from: a folder with its description, and perhaps with weights.

The order: a checkpoint to resume, weights that the host found in the store (a folder, or one portable file), a folder
that the job names, the catalogue's own description, the hub.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from eagleray.contract import CheckpointError, TrainingContext, WeightsError
from eagleray_huggingface import hub, portable
from eagleray_huggingface.framework import read_models
from eagleray_huggingface.remote_code import refuse_remote_code

CONFIG = "config.json"


@dataclass(frozen=True)
class Source:
    """A model before it is built.

    Attributes:
        folder: holds `config.json` and the processor's files, and the weights where `state` is None and `trained`.
        trained: whether there are weights at all.
        state: tensors by name, exactly those of the model to be built (a checkpoint's).
        kept: what else a portable file says (classes, adapters), empty for a folder.
    """

    folder: Path
    trained: bool
    state: Mapping[str, Any] | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)


def find_source(context: TrainingContext) -> Source:
    """The model's source, copied or linked into the work folder, with `config_overrides` applied.

    Raises:
        WeightsError: pretrained weights are wanted and not to be had, or the model brings code of its own.
        CheckpointError: the checkpoint to resume cannot be read.
    """
    target = context.work_dir / "model"
    target.mkdir()
    overrides = context.config.config_overrides
    if context.resume is not None:
        return _portable(context.resume.path / portable.NAME, target, {}, CheckpointError)
    if context.weights is not None and context.weights.is_file():
        return _portable(context.weights, target, overrides, WeightsError)
    named = Path(context.model.name)
    folder = context.weights or (named if named.is_absolute() and named.is_dir() else None)
    if folder is None and not context.pretrained and _describe(context, target):
        return _finish(context, target, overrides, trained=False)
    trained = context.pretrained
    if folder is None:
        # The other workers get the weights when the group is made: the first one's are given to all.
        trained = trained and context.rank == 0
        folder = hub.fetch(context, with_weights=trained)
    refuse_remote_code(folder, context.model.name)
    for file in sorted(folder.iterdir()):
        if file.is_file():
            (target / file.name).symlink_to(file.absolute())
    return _finish(context, target, overrides, trained=trained)


def _portable(
    file: Path, target: Path, overrides: Mapping[str, Any], error: type[WeightsError | CheckpointError]
) -> Source:
    kept = portable.read(file, error)
    portable.unpack(kept, target)
    refuse_remote_code(target, file.name)
    _override(target / CONFIG, overrides)
    return Source(target, True, kept["state_dict"], kept)


def _describe(context: TrainingContext, target: Path) -> bool:
    """Write the catalogue's description of the model into `target`; False where it has none."""
    rows = (row for row in read_models() if (row["name"], row["task"]) == (context.model.name, context.task))
    described = dict(next(rows, {}).get("config", {}))
    if not described:
        return False
    kind = described.pop("model_type")
    merged = _merged(described, context.config.config_overrides)
    AutoConfig.for_model(kind, **merged).to_json_file(target / CONFIG, use_diff=False)
    return True


def _finish(context: TrainingContext, target: Path, overrides: Mapping[str, Any], *, trained: bool) -> Source:
    if not (target / CONFIG).is_file():
        raise WeightsError(
            f"The model {context.model.name} has no {CONFIG}.", "Give a folder as `save_pretrained` writes it."
        )
    _override(target / CONFIG, overrides)
    portable.complete(target)
    return Source(target, trained)


def _override(path: Path, overrides: Mapping[str, Any]) -> None:
    if overrides:
        described = _merged(json.loads(path.read_text(encoding="utf-8")), overrides)
        path.unlink()
        path.write_text(json.dumps(described), encoding="utf-8")


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes`, which may be nested as deeply as they are."""
    merged = dict(values)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return merged
