"""What a job is continued with: its own spec, and the little that may change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eagleray.contract.errors import ConfigError
from eagleray.jobs.phases import Phase
from eagleray.jobs.records import JobRecord
from eagleray.jobs.spec import JobSpec, make_spec

CHANGEABLE_ON_RESUME = ("epochs", "scaling", "max_failures", "checkpoint_every")


def resumed_spec(record: JobRecord, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The spec to continue `record` with. What `changes` only repeats, in whatever form, is no change.

    Raises:
        ConfigError: `changes` holds what cannot change any more, or there is nothing left to train.
    """
    changes = {key: value for key, value in changes.items() if key != "resume"}
    for key in ("scaling", "advanced_config"):
        # A part of them leaves the rest as it was.
        if isinstance(part := changes.get(key), Mapping):
            changes[key] = {**record.spec.get(key, {}), **part}
    changes = _differing(record, changes)
    refused = {key: value for key, value in changes.items() if key not in CHANGEABLE_ON_RESUME}
    if refused:
        asked = ", ".join(f"{key} ('{value}' instead of '{record.spec.get(key)}')" for key, value in refused.items())
        raise ConfigError(
            f"Job {record.id} cannot change {asked} when it is resumed.",
            f"Only {', '.join(CHANGEABLE_ON_RESUME)} may change; start a new job for anything else.",
        )
    spec = {**record.spec, **changes, "resume": record.id}
    if record.phase is Phase.COMPLETED and record.epochs_done >= spec["epochs"]:
        raise ConfigError(
            f"Job {record.id} is complete: all {record.epochs_done} epochs are trained.",
            f"To train on, ask for more: eagleray train --resume {record.id} --epochs {2 * record.epochs_done}",
        )
    return spec


def _differing(record: JobRecord, changes: Mapping[str, Any]) -> dict[str, Any]:
    differing = {key: value for key, value in changes.items() if record.spec.get(key) != value}
    if not differing:
        return {}
    old = {"framework": record.framework, "model_name": record.model_name, "dataset_path": record.dataset_path}
    before = make_spec({**old, **record.spec}).plain()
    # A wrong value is named before a wrong change; task names, numbers and tuples take their one form.
    after = make_spec({**before, **differing}).plain()
    same = {"dataset_path": _is_its_dataset, "pretrained": _is_its_weights}
    return {
        key: after[key]
        for key in differing
        if key in JobSpec.model_fields
        and after[key] != before[key]
        and not (key in same and same[key](record, after[key], before[key]))
    }


def _is_its_dataset(record: JobRecord, given: str, recorded: str) -> bool:
    """Whether `given` is how the job's dataset, recorded by its folder or version, may have been named."""
    facts = record.dataset
    if "version" in facts:
        names = {facts.get("id"), facts.get("name")}
        return given in names | {f"{name}@{facts['version']}" for name in names}
    path = _absolute(given)
    # A dataset may be named by the `data.yaml` in its folder.
    return recorded in (str(path), str(path.parent) if path.suffix in (".yaml", ".yml") else "")


def _is_its_weights(record: JobRecord, given: bool | str, recorded: bool | str) -> bool:
    return isinstance(given, str) and isinstance(recorded, str) and str(_absolute(given)) == recorded


def _absolute(path: str) -> Path:
    return Path(path).expanduser().resolve()
