"""The description of a job: the same from YAML, JSON and the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from eagleray.contract.errors import ConfigError
from eagleray.contract.tasks import TASKS, normalise_task
from eagleray.contract.validation import validate


class Scaling(BaseModel):
    """Workers and what each of them gets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_workers: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = Field(
        default=1, description="Number of workers, or an inclusive range [min, max]."
    )
    gpus_per_worker: float = Field(default=0, ge=0, allow_inf_nan=False, description="GPUs that each worker gets.")
    cpus_per_worker: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="CPUs that each worker gets; default: 1 is reserved and threads are left to the framework.",
    )
    accelerator_type: str | None = Field(default=None, description="Ray's accelerator type, for example `A100`.")

    @field_validator("num_workers", mode="wrap")
    @classmethod
    def _number_or_range(cls, value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except ValidationError:
            # One sentence for all members of the union; a reader knows none of them.
            raise ValueError("must be a whole number from 1, or a range MIN-MAX (in a file: [min, max])") from None

    @model_validator(mode="after")
    def _range_is_ordered(self) -> Scaling:
        if isinstance(self.num_workers, tuple) and self.num_workers[0] > self.num_workers[1]:
            raise ValueError(f"num_workers {list(self.num_workers)} must be [min, max] with min ≤ max")
        return self

    @property
    def min_workers(self) -> int:
        return self.num_workers[0] if isinstance(self.num_workers, tuple) else self.num_workers

    @property
    def max_workers(self) -> int:
        return self.num_workers[1] if isinstance(self.num_workers, tuple) else self.num_workers


class JobSpec(BaseModel):
    """A training job. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    framework: str = Field(description="Name of an installed framework; `eagleray plugins list`.")
    model_name: str = Field(description="Name of a model of the framework; `eagleray models list`.")
    dataset_path: str = Field(
        description="The dataset: `NAME`, `NAME@VERSION` or an id (`eagleray datasets list`), a folder or the "
        "`data.yaml` in it, an https address, or `s3://bucket/prefix`."
    )
    task_type: str | None = Field(
        default=None, description=f"One of {', '.join(TASKS)}, or a short form; default: the model's first task."
    )
    dataset_format: str | None = Field(
        default=None, description="`dice`, `yolo`, `coco`, `voc`, `imagefolder`, `csv` or `jsonl`; default: recognised."
    )
    epochs: int = Field(default=100, ge=1, description="Epochs in all.")
    batch_size: int | Literal["auto"] = Field(
        default=16, description="Images per step over all workers, or `auto` where the framework can."
    )
    learning_rate: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Default: the framework's own."
    )
    advanced_config: dict[str, Any] = Field(
        default_factory=dict,
        description="The framework's own settings; their schema: `eagleray models show MODEL --schema`.",
    )
    project_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Project.")
    session_id: str | None = Field(default=None, description="Free text of the caller's.")
    created_by: str | None = Field(default=None, description="Who asked for it.")
    pretrained: bool | str = Field(
        default=True,
        description="Start from pretrained weights (true), from scratch (false), or from this weights file.",
    )
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Seed of all random numbers.")
    scaling: Scaling = Field(default_factory=Scaling, description="Workers and their resources.")
    checkpoint_every: int = Field(
        default=1, ge=1, description="Epochs between checkpoints; the last one always counts."
    )
    max_failures: int = Field(
        default=3, ge=0, description="How often a worker may die without a new checkpoint in between."
    )
    resume: int | None = Field(default=None, ge=1, description="Id of a job to continue.")

    @field_validator("task_type")
    @classmethod
    def _canonical_task(cls, task: str | None) -> str | None:
        if task is None:
            return None
        try:
            return normalise_task(task)
        except ConfigError as error:
            raise ValueError(f"{error}") from None

    @field_validator("batch_size")
    @classmethod
    def _positive_batch(cls, size: int | str) -> int | str:
        if isinstance(size, int) and size < 1:
            raise ValueError("must be at least 1, or 'auto'")
        return size

    def plain(self) -> dict[str, Any]:
        """The spec as plain data, defaults included."""
        return self.model_dump(mode="json")


HINT = "All keys: docs/job-spec.md."


def make_spec(values: Mapping[str, Any], *, what: str = "Job") -> JobSpec:
    """A spec from plain data.

    Raises:
        ConfigError: names every wrong key.
    """
    return validate(JobSpec, values, what=what, hint=HINT)


def read_spec(path: Path) -> dict[str, Any]:
    """The keys of a job file (YAML, of which JSON is a part), unchecked.

    Raises:
        ConfigError: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the job file '{path}': {error}.", "Try: eagleray run --help") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"The job file '{path}' is not valid YAML: {' '.join(str(error).split())}.", HINT) from None
    if not isinstance(values, dict):
        raise ConfigError(f"The job file '{path}' must hold keys and values, not {type(values).__name__}.", HINT)
    return {str(key): value for key, value in values.items()}


def parse_setting(text: str) -> tuple[str, Any]:
    """`key=value` of `--set`; the value is read as JSON where it is JSON, else as text.

    Raises:
        ConfigError: there is no `=`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set '{text}' is not key=value.", "Example: --set imgsz=320")
    try:
        return key.strip(), json.loads(value)
    except json.JSONDecodeError:
        return key.strip(), {"True": True, "False": False, "None": None}.get(value, value)
