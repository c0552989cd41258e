"""What a plugin says about its framework: plain data, importable without any heavy package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

CONTRACT_VERSION = 1


class ProcessGroup(StrEnum):
    """What the host does about `torch.distributed` before the adapter starts, where a job has several workers."""

    INIT = "init"  # MASTER_*, RANK… are set and `init_process_group` is called
    ENV_ONLY = "env-only"  # the variables are set; the framework makes the group itself
    NONE = "none"  # nothing is set


class ModelStatus(StrEnum):
    TRAINABLE = "trainable"
    NEEDS = "needs"  # trainable once `reason` is satisfied
    PREDICT_ONLY = "predict-only"


@dataclass(frozen=True)
class ModelCard:
    """A model of the catalogue, for one task.

    `weights` is the name (without suffix) under `pretrained_weights/{framework}/` in the store; empty: there are none.
    `further_weights` are names of the same kind that training cannot do without (a text encoder's, say): the host
    refuses a job for which the store lacks them. `reason` says why a model that is not `trainable` is not, or what it
    needs.
    """

    name: str
    task: str
    parameters: int | None = None
    weights: str = ""
    status: ModelStatus = ModelStatus.TRAINABLE
    reason: str = ""
    description: str = ""
    further_weights: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """The figure by which `best` is chosen. `mode` says whether more or less is better."""

    name: str
    mode: Literal["max", "min"] = "max"

    def improves(self, value: float, best: float | None) -> bool:
        """Whether `value` beats `best`. NaN never does."""
        if value != value:
            return False
        if best is None:
            return True
        return value > best if self.mode == "max" else value < best


@dataclass(frozen=True)
class OpenModels:
    """Names outside the catalogue that a job may give, for a framework that trains more than a list can hold.

    Attributes:
        pattern: regular expression for the whole name, narrow enough to leave out a misspelt name of the catalogue
            (`[^/]+/[^/]+`, say). A folder that exists is always accepted, and is named by its absolute path.
        note: where such a model comes from, as a clause; the job's plan shows it.
    """

    pattern: str
    note: str


@dataclass(frozen=True)
class Environment:
    """The plugin's own Python environment.

    Attributes:
        lock: `"package:path"` of a requirements list with `==` pins and hashes, shipped in the plugin's wheel.
        imports: modules that must import before the environment counts as ready.
        env_vars: set on the worker before the adapter's module is imported; `{work_dir}` is replaced by the attempt's
            work folder on that node.
    """

    lock: str
    imports: tuple[str, ...] = ()
    env_vars: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Absent:
    """A capability that is not there, and why."""

    reason: str


@dataclass(frozen=True)
class Capabilities:
    """What the framework can do; `None` means it can, `Absent(reason)` that it cannot."""

    several_workers: Absent | None = None
    resume: Absent | None = None
    auto_batch_size: Absent | None = None
    export_formats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Framework:
    """A training framework as its plugin describes it.

    Attributes:
        configs: task → `"module:Class"` of the pydantic model of `advanced_config` for that task.
        adapter: `"module:Class"` of the `TrainingAdapter`; imported on a worker only.
        portable_file: the one file of a checkpoint folder that becomes `best.pt` and `last.pt`.
        best_metrics: task → the metric that chooses `best`.
        dataset_formats: the forms that the adapter trains from, preferred first.
        open_models: which names outside `models` a job may give; None: none.
        learning_rate_keys: keys of the configs that say what the job's `learning_rate` says; a job that gives both is
            refused before it starts.
    """

    name: str
    version: str
    licence: str
    description: str
    tasks: tuple[str, ...]
    models: tuple[ModelCard, ...]
    configs: Mapping[str, str]
    adapter: str
    environment: Environment
    portable_file: str
    best_metrics: Mapping[str, Metric]
    dataset_formats: tuple[str, ...] = ("dice",)
    predictor: str = ""
    process_group: ProcessGroup = ProcessGroup.NONE
    capabilities: Capabilities = Capabilities()
    open_models: OpenModels | None = None
    learning_rate_keys: tuple[str, ...] = ()
    contract_version: int = CONTRACT_VERSION
