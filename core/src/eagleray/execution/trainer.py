"""Ray Train V2 with its controller in the driver's own process.

Ray Train starts a controller actor, a placement-group cleaner, a dataset manager, a preemption watcher and an
autoscaling coordinator for every run. None has work to do here: the driver lives exactly as long as the run, Ray drops
a placement group together with the driver that made it, datasets do not pass through Ray Data, and admission is not
Ray's (docs/decisions.md, "The controller runs in the driver").

This module, `resources` and `runtime_env` are the only ones that touch Ray's private modules; Ray is pinned.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.train import FailureConfig, Result, RunConfig, ScalingConfig
from ray.train.backend import BackendConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.metrics import ControllerMetricsCallback, WorkerMetricsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.train.v2.api.callback import RayTrainCallback, UserCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

# An attempt keeps its size: Ray would end a group in the middle of an epoch to begin one with more workers.
NEVER_S = 10.0 * 365 * 86_400

_UNUSED = (DatasetsCallback, PlacementGroupCleanerCallback, ControllerMetricsCallback, WorkerMetricsCallback)


class _FixedWorkers(FixedScalingPolicy):
    """A fixed number of workers, without asking Ray's autoscaling coordinator (an actor of its own)."""

    def after_controller_start(self, train_run_context: Any) -> None:
        return None

    def _maybe_send_resource_request(self) -> None:
        return None


class _Workers(WorkerGroup):
    def _init_train_context_on_workers(self, workers: Any, sync_actor: Any, train_context_args: Any) -> None:
        """Ray's own, with no controller actor to hand over: workers use it only to list Ray Train checkpoints."""
        ray.get(
            [
                worker.actor.init_train_context.remote(
                    train_run_context=self._train_run_context,
                    distributed_context=worker.distributed_context,
                    synchronization_actor=sync_actor,
                    storage_context=self._storage_context,
                    worker_callbacks=self._worker_callbacks_to_propagate,
                    controller_actor=None,
                    **{name: values[index] for name, values in train_context_args.items()},
                )
                for index, worker in enumerate(workers)
            ]
        )


class _Controller(TrainController):
    worker_group_cls = _Workers


async def until_abandoned(work: Coroutine[Any, Any, Any], abandoned: threading.Event) -> None:
    """Run `work`, or cancel it where it next waits once `abandoned` is set. Raises asyncio.CancelledError then."""
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.wait({task}, timeout=0.1)
        if abandoned.is_set():
            task.cancel()
    task.result()


class InProcessTrainer(DataParallelTrainer):
    """`DataParallelTrainer` whose controller runs in the thread that calls `fit()`, until `abandoned` is set."""

    abandoned: threading.Event

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, _UNUSED)]

    def _initialize_and_run_controller(self, **kwargs: Any) -> Result:
        if not isinstance(kwargs["scaling_policy"], ElasticScalingPolicy):
            kwargs["scaling_policy"] = _FixedWorkers(self.scaling_config)
        controller = _Controller(**kwargs)
        asyncio.run(until_abandoned(controller.run(), self.abandoned))
        return controller.get_result()


class _Reports(UserCallback):
    """Ray Train hands copies of the callbacks to the workers, which never call them: what they hold stays here."""

    def __init__(self, on_report: Callable[[Mapping[str, Any]], None]) -> None:
        self._on_report = on_report

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        self._on_report(metrics[0])


def _avoiding(nodes: tuple[str, ...]) -> dict[str, str] | None:
    """Ray's label selector for "anywhere but there"."""
    return {"ray.io/node-id": f"!in({','.join(nodes)})"} if nodes else None


@dataclass(frozen=True)
class WorkerGroupSpec:
    """How many workers with what; `num_workers` is a number or an inclusive range.

    Attributes:
        avoid_nodes: Ray node ids that get none.
    """

    num_workers: int | tuple[int, int]
    cpus_per_worker: float
    gpus_per_worker: float
    accelerator_type: str | None = None
    avoid_nodes: tuple[str, ...] = ()

    @property
    def resources_per_worker(self) -> dict[str, float]:
        resources = {"CPU": self.cpus_per_worker}
        if self.gpus_per_worker:
            resources["GPU"] = self.gpus_per_worker
        return resources


def fit(
    loop: Callable[[dict[str, Any]], Any],
    config: dict[str, Any],
    *,
    name: str,
    workers: WorkerGroupSpec,
    worker_runtime_env: dict[str, Any],
    backend: BackendConfig,
    scratch: str,
    on_report: Callable[[Mapping[str, Any]], None],
    abandoned: threading.Event,
) -> Any:
    """Run `loop(config)` once on every worker; what rank 0 returns is returned.

    Once `abandoned` is set, from another thread, the call ends and leaves the workers to whoever shuts Ray down: a
    call into Ray after its shutdown would end the process.

    Restarts are the caller's: the first failure ends the call. `name` must be new for every call, since Ray Train
    resumes a known name from its own snapshot.

    Raises:
        ray.train.TrainingFailedError: a worker failed, or the group could not be started.
        asyncio.CancelledError: it was abandoned.
    """
    trainer = InProcessTrainer(
        # Not as `train_loop_config`, which Ray Train shows in its errors and states: `config` holds a secret.
        functools.partial(loop, config),
        backend_config=backend,
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=workers.gpus_per_worker > 0,
            resources_per_worker=workers.resources_per_worker,
            accelerator_type=workers.accelerator_type,
            label_selector=_avoiding(workers.avoid_nodes),
            elastic_resize_monitor_interval_s=NEVER_S,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            callbacks=[_Reports(on_report)],
            worker_runtime_env=worker_runtime_env,
        ),
    )
    trainer.abandoned = abandoned
    return trainer.fit().return_value
