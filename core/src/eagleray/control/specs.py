"""What of a job can be known without its data and without a cluster: checked when it is created."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from eagleray.control.fitting import Gang
from eagleray.jobs.plan import check_capabilities
from eagleray.jobs.spec import JobSpec, make_spec
from eagleray.plugins.catalogue import resolve_model, validate_config
from eagleray.plugins.host import Catalogue

# Ray marks nodes with a resource of this name; a worker takes a sliver of it.
_ACCELERATOR = "accelerator_type:"


@dataclass(frozen=True)
class CheckedSpec:
    """A job's description, complete, and what its queue needs of it.

    Attributes:
        fields: columns of `training_jobs`, and fields of `JobRecord`.
        gang: see `gang_of`.
    """

    spec: dict[str, Any]
    fields: dict[str, Any]
    gang: dict[str, Any]


# Keys of a spec that are columns of their own.
_SAME = (
    "session_id",
    "project_id",
    "created_by",
    "framework",
    "model_name",
    "dataset_path",
    "epochs",
    "batch_size",
    "learning_rate",
    "advanced_config",
)
SpecCheck = Callable[[Mapping[str, Any]], CheckedSpec]


def checking(discover: Callable[[], Catalogue]) -> SpecCheck:
    """A check against the plugins that `discover` finds, anew each time: one may be installed while we run."""

    def check(values: Mapping[str, Any]) -> CheckedSpec:
        spec = make_spec({key: value for key, value in values.items() if key != "resume"})
        installed = discover().framework(spec.framework)
        model = resolve_model(installed.framework, spec.model_name, spec.task_type)
        validate_config(installed.framework, model.task, spec.advanced_config, learning_rate=spec.learning_rate)
        check_capabilities(spec, installed.framework)
        return described(spec.model_copy(update={"task_type": model.task}))

    return check


def described(spec: JobSpec) -> CheckedSpec:
    fields = {name: getattr(spec, name) for name in _SAME}
    # The format is detected when the data is read, by the attempt.
    fields |= {"task_type": spec.task_type or "", "dataset_format": spec.dataset_format or ""}
    each = {"CPU": spec.scaling.cpus_per_worker or 1.0}
    if spec.scaling.gpus_per_worker:
        each["GPU"] = spec.scaling.gpus_per_worker
    if spec.scaling.accelerator_type:
        each[f"{_ACCELERATOR}{spec.scaling.accelerator_type}"] = 0.001
    return CheckedSpec(spec.plain(), fields, {"workers": spec.scaling.min_workers, "each": each})


def gang_of(gang: Mapping[str, Any], avoid: list[str]) -> Gang:
    return Gang(int(gang["workers"]), tuple(sorted(gang["each"].items())), frozenset(avoid))
