"""A checked job: everything that can be known without a cluster, decided before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from eagleray.contract.errors import ConfigError, WeightsError
from eagleray.contract.framework import Framework, Metric, ModelCard, ModelStatus
from eagleray.datasets import DatasetReport
from eagleray.environments.lock import read_lock
from eagleray.environments.ready import is_ready
from eagleray.jobs.data import VersionReport, address_of, read_data
from eagleray.jobs.records import JobRecords
from eagleray.jobs.spec import JobSpec
from eagleray.plugins.catalogue import resolve_model, validate_config
from eagleray.plugins.host import Catalogue
from eagleray.registry import DatasetVersion, Progress, SourceRules
from eagleray.registry.progress import quiet
from eagleray.settings import Settings
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.opening import open_store
from eagleray.storage.store import Store
from eagleray.storage.weights import find_weights, weights_location


@dataclass(frozen=True)
class JobPlan:
    """What will run.

    Attributes:
        spec: the spec with its task filled in and paths made absolute.
        packages: import names whose code travels to the workers.
    """

    spec: JobSpec
    framework: Framework
    packages: tuple[str, ...]
    model: ModelCard
    task: str
    config: BaseModel
    dataset: DatasetReport
    metric: Metric
    weights_key: str | None
    weights_location: str
    weights_file: str | None
    warnings: tuple[str, ...]

    @property
    def dataset_version(self) -> DatasetVersion | None:
        """The version to train from; None where the dataset is a folder."""
        return self.dataset.version if isinstance(self.dataset, VersionReport) else None

    @property
    def resources_per_worker(self) -> dict[str, float]:
        scaling = self.spec.scaling
        resources = {"CPU": scaling.cpus_per_worker or 1.0}
        if scaling.gpus_per_worker:
            resources["GPU"] = scaling.gpus_per_worker
        return resources


def plan_job(
    spec: JobSpec,
    catalogue: Catalogue,
    store: Store,
    *,
    rules: SourceRules | None = None,
    progress: Progress = quiet,
    import_addresses: bool = True,
) -> JobPlan:
    """Check `spec` against what is installed and stored. A dataset at an address is imported.

    Args:
        rules: what datasets may be taken from; default: all that this process may.
        import_addresses: False, for a plan that is only shown: a dataset at an address is left where it is.

    Raises:
        EaglerayError: one of the family, naming the value and what would be valid.
    """
    installed = catalogue.framework(spec.framework)
    framework = installed.framework
    model = resolve_model(framework, spec.model_name, spec.task_type)
    config = validate_config(framework, model.task, spec.advanced_config, learning_rate=spec.learning_rate)
    check_capabilities(spec, framework)
    dataset = read_data(
        spec,
        model.task,
        framework.dataset_formats,
        store,
        rules=rules,
        progress=progress,
        import_addresses=import_addresses,
    )
    _require_further_weights(store, framework, model)
    weights_file = _weights_file(spec)
    weights_name = model.weights or model.name
    return JobPlan(
        spec=spec.model_copy(
            update={
                "task_type": model.task,
                "dataset_path": address_of(dataset),
                "dataset_format": dataset.dataset.format or None,
                "pretrained": weights_file or spec.pretrained,
            }
        ),
        framework=framework,
        packages=packages_of(framework),
        model=model,
        task=model.task,
        config=config,
        dataset=dataset,
        metric=framework.best_metrics[model.task],
        weights_key=find_weights(store, framework.name, weights_name),
        weights_location=weights_location(store, framework.name, weights_name),
        weights_file=weights_file,
        warnings=(*dataset.warnings, *_needs(model), *_outside_the_catalogue(framework, model)),
    )


def packages_of(framework: Framework) -> tuple[str, ...]:
    """Import names of the code that a job's processes need; known before its data is."""
    return "eagleray", framework.adapter.partition(":")[0].partition(".")[0]


def check_capabilities(spec: JobSpec, framework: Framework) -> None:
    """Raises ConfigError where the framework cannot do what `spec` asks for."""
    absent = framework.capabilities.several_workers
    if spec.scaling.min_workers > 1 and absent:
        raise ConfigError(
            f"{framework.name} cannot train with {spec.scaling.min_workers} workers: {absent.reason}",
            "Use --workers 1.",
        )
    absent = framework.capabilities.resume
    if spec.resume and absent:
        raise ConfigError(f"{framework.name} cannot resume job {spec.resume}: {absent.reason}", "Start a new job.")
    absent = framework.capabilities.auto_batch_size
    if spec.batch_size == "auto" and absent:
        raise ConfigError(
            f"{framework.name} cannot choose batch_size by itself: {absent.reason}", "Example: --batch-size 16"
        )


def _require_further_weights(store: Store, framework: Framework, model: ModelCard) -> None:
    for name in model.further_weights:
        if find_weights(store, framework.name, name) is None:
            where = weights_location(store, framework.name, name)
            raise WeightsError(
                f"{model.name} cannot train without the weights {name}, and there is no {where}.",
                "Put the file there, or choose another model.",
            )


def _weights_file(spec: JobSpec) -> str | None:
    if isinstance(spec.pretrained, bool):
        return None
    path = Path(spec.pretrained).expanduser()
    # A resumed worker goes on from the job's own checkpoint; one that has none says what is missing.
    if not path.is_file() and not spec.resume:
        raise WeightsError(
            f"The weights file '{spec.pretrained}' does not exist.",
            "Give an existing file, or --pretrained (the model's own weights), or --no-pretrained.",
        )
    return str(path.resolve())


def _needs(model: ModelCard) -> list[str]:
    return [f"{model.name} needs: {model.reason}"] if model.status is ModelStatus.NEEDS else []


def _outside_the_catalogue(framework: Framework, model: ModelCard) -> list[str]:
    if framework.open_models is None or model in framework.models:
        return []
    return [f"{model.name} is not in {framework.name}'s catalogue: {framework.open_models.note}."]


def describe(plan: JobPlan, settings: Settings) -> dict[str, Any]:
    """The plan as plain data, for `--dry-run`."""
    lock = read_lock(plan.framework.environment.lock)
    ready = is_ready(lock, root=settings.environments)
    return {
        "framework": plan.framework.name,
        "framework_version": plan.framework.version,
        "licence": plan.framework.licence,
        "model": plan.model.name,
        "task": plan.task,
        "parameters": plan.model.parameters,
        "epochs": plan.spec.epochs,
        "batch_size": plan.spec.batch_size,
        "dataset": plan.dataset.counts(),
        "weights": _resumes_from(plan, settings) or _weights(plan),
        "environment": {"ready": ready is not None, "path": str(ready.path) if ready else None},
        "workers": plan.spec.scaling.num_workers,
        "resources_per_worker": plan.resources_per_worker,
        "best_by": f"{plan.metric.name} ({plan.metric.mode})",
        "storage": settings.storage,
        "warnings": list(plan.warnings),
        "spec": plan.spec.plain(),
    }


def _resumes_from(plan: JobPlan, settings: Settings) -> str | None:
    """The checkpoint that a resumed job would go on from, read and verified as the job would."""
    if not plan.spec.resume:
        return None
    store = open_store(settings.storage)
    record = JobRecords(store).load(plan.spec.resume)
    manifest = Checkpoints(store, record.prefix).newest_valid(lambda _: None)
    if manifest is None:
        return None
    return f"the checkpoint of epoch {manifest.epoch} (attempt {manifest.attempt}) of job {record.id}"


def _weights(plan: JobPlan) -> str:
    if plan.weights_file:
        return plan.weights_file
    if not plan.spec.pretrained:
        return "none: training from scratch"
    if plan.weights_key:
        return plan.weights_location
    return f"not in the store: {plan.framework.name} downloads them, then they are kept at {plan.weights_location}"
