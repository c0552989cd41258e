"""A job's worker: runs in the plugin's own environment, one process per rank.

`training_loop` is what Ray Train starts; everything it is given is plain data.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import ray.train

from eagleray.contract.adapter import TrainingAdapter
from eagleray.contract.context import Dataset, Resume, TrainingContext
from eagleray.contract.errors import EaglerayError, PluginError, WeightsError
from eagleray.contract.framework import Metric, ModelCard, ModelStatus
from eagleray.environments.ready import in_use
from eagleray.execution.channel import WorkerChannel
from eagleray.execution.failures import WorkerRaised
from eagleray.execution.shared_store import require_shared
from eagleray.execution.uploads import Uploads, finish_others
from eagleray.execution.worker_data import dataset_of
from eagleray.execution.worker_log import capture_output
from eagleray.plugins.limit import TookTooLong, within
from eagleray.settings import Settings, load_settings
from eagleray.storage import weights as weights_store
from eagleray.storage.cache import NodeCache
from eagleray.storage.checkpoints import Checkpoints, Manifest
from eagleray.storage.opening import open_store
from eagleray.storage.store import Store

Payload = dict[str, Any]
# Their metrics travel in every manifest; bounded, so that a manifest stays small.
RECENT_EPOCHS = 32
# By how much the wish to stop may reach one worker later than another.
STOP_SKEW_S = 2.0


def training_loop(payload: Payload) -> dict[str, Any]:
    """Run one attempt on this worker.

    Returns:
        rank 0: `{"epoch", "stopped", "metrics", "warnings"}`.

    Raises:
        WorkerRaised: whatever went wrong, as text.
    """
    settings = load_settings()
    rank = ray.train.get_context().get_world_rank()
    work_dir = settings.work / f"job-{payload['job_id']}-{payload['attempt']}-{rank}"
    channel = WorkerChannel(payload["channel"])
    node = ray.get_runtime_context().get_node_id()
    log = capture_output(settings, payload["job_id"], payload["attempt"], rank, channel, node)
    try:
        # An earlier attempt that was killed could not clean up after itself.
        for old in settings.work.glob(f"job-{payload['job_id']}-*-{rank}"):
            shutil.rmtree(old, ignore_errors=True)
        work_dir.mkdir(parents=True)
        os.chdir(work_dir)
        # `eagleray envs prune` leaves alone what is held.
        with in_use(Path(sys.prefix)):
            return _attempt(payload, settings, work_dir, channel)
    except BaseException as error:
        raise _as_text(error) from None
    finally:
        os.chdir("/")
        shutil.rmtree(work_dir, ignore_errors=True)
        log.close()
        channel.close()


def _attempt(payload: Payload, settings: Settings, work_dir: Path, channel: WorkerChannel) -> dict[str, Any]:
    _set_environment(payload, work_dir)
    rank = ray.train.get_context().get_world_rank()
    store = open_store(payload["store"], payload["store_access"])
    require_shared(store, payload["store_id"])
    host = WorkerHost(payload, settings, channel, store, rank)
    try:
        with ExitStack() as held:
            dataset = dataset_of(payload, settings, work_dir, store, held)
            adapter_class = _load(payload["adapter"], settings)
            adapter: TrainingAdapter = adapter_class(_context(payload, settings, work_dir, host, store, dataset))
            channel.send({"type": "phase", "phase": "running", "message": "loading data and model"})
            adapter.load_data()
            adapter.load_model()
            adapter.train()
            if host.epoch < payload["epochs"] and ray.train.get_context().get_world_size() > 1:
                # Another worker may have been told to stop, and have told this one, before the driver's word is here.
                channel.stop_requested.wait(STOP_SKEW_S)
            stopped = channel.stop_requested.is_set() and host.epoch < payload["epochs"]
            metrics = {} if stopped else adapter.validate()
    finally:
        # Also what an adapter had saved that raises now.
        host.finish()
    return {
        "epoch": host.epoch,
        "stopped": stopped,
        "metrics": {name: float(value) for name, value in metrics.items()},
        "warnings": host.warnings,
    }


class WorkerHost:
    """The worker's side of a `TrainingContext`: checkpoints, reports, progress and files."""

    def __init__(
        self,
        payload: Payload,
        settings: Settings,
        channel: WorkerChannel,
        store: Store,
        rank: int,
    ) -> None:
        self._payload = payload
        self._channel = channel
        self._rank = rank
        self._metric = Metric(**payload["metric"])
        self._best: float | None = payload["best"]["value"]
        self._best_epoch: int = payload["best"]["epoch"]
        self._started = time.monotonic()
        self._last_progress = 0.0
        self._recent: dict[int, dict[str, float]] = {}
        # Whether epochs are finished that no checkpoint has.
        self._unsaved = False
        self.epoch: int = payload["resume"]["epoch"] if payload["resume"] else 0
        # One worker writes for all.
        self._uploads = Uploads(store, settings, payload, channel.send) if rank == 0 else None
        if self._uploads:
            finish_others(store, settings)

    @property
    def warnings(self) -> list[str]:
        return self._uploads.warnings if self._uploads else []

    def report(self, epoch: int, metrics: Mapping[str, float], save: Callable[[Path], None] | None) -> None:
        value = metrics.get(self._metric.name)
        improved = value is not None and self._metric.improves(value, self._best)
        if improved:
            self._best, self._best_epoch = value, epoch
        self.epoch = epoch
        self._recent[epoch] = dict(metrics)
        self._recent.pop(epoch - RECENT_EPOCHS, None)
        due = improved or epoch % self._payload["checkpoint_every"] == 0 or epoch >= self._payload["epochs"]
        if self._rank == 0:
            # Only here: the others hear of a wish to stop at other times, and go by what is due anyway.
            due |= self._channel.stop_requested.is_set()
        self._unsaved = save is not None and not due
        if self._uploads and save is not None and due:
            facts = {
                "metrics": dict(metrics),
                "best_value": self._best,
                "best_epoch": self._best_epoch,
                "recent": dict(self._recent),
            }
            self._uploads.checkpoint(save, epoch, improved, facts)
        seconds = time.monotonic() - self._started
        self._started = time.monotonic()
        ray.train.report(
            {
                "epoch": epoch,
                "metrics": dict(metrics),
                "seconds": seconds,
                "best": {"value": self._best, "epoch": self._best_epoch, "metric": self._metric.name},
            }
        )

    def progress(self, epoch: int, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        first = self._last_progress == 0.0
        if self._rank or (now - self._last_progress < 0.2 and step < steps and not first):
            return
        self._last_progress = now
        self._channel.send({"type": "progress", "epoch": epoch, "step": step, "steps": steps, "metrics": dict(metrics)})

    def should_stop(self) -> bool:
        """Not while finished epochs are in no checkpoint: the report at this epoch's end saves them."""
        return self._channel.stop_requested.is_set() and not self._unsaved

    def keep_weights(self, path: Path) -> None:
        if self._uploads:
            model = self._payload["model"]
            self._uploads.weights(path, self._payload["framework"], model["weights"] or model["name"])

    def keep_file(self, path: Path, name: str) -> None:
        if self._uploads:
            self._uploads.file(path, f"{self._prefix}/files/{name}")

    def publish_best(self, path: Path) -> None:
        if self._uploads:
            # In its turn, so after the checkpoints that were best before.
            self._uploads.file(path, f"{self._prefix}/best.pt")

    def warn(self, message: str) -> None:
        self._channel.send({"type": "warning", "message": message})

    def finish(self) -> None:
        """Wait until all is in the store, or kept aside."""
        if self._uploads:
            self._uploads.close()

    @property
    def _prefix(self) -> str:
        return str(self._payload["prefix"])


def _set_environment(payload: Payload, work_dir: Path) -> None:
    for name, value in payload["env_vars"].items():
        os.environ[name] = value.replace("{work_dir}", str(work_dir))
    if payload["cpus_per_worker"] is None:
        # Ray sets it to the one CPU that is reserved; the framework's own choice is what its users get without Ray.
        os.environ.pop("OMP_NUM_THREADS", None)


def _context(
    payload: Payload, settings: Settings, work_dir: Path, host: WorkerHost, store: Store, dataset: Dataset
) -> TrainingContext:
    ray_context = ray.train.get_context()
    card = dict(payload["model"])
    card["status"] = ModelStatus(card["status"])
    card["further_weights"] = tuple(card["further_weights"])
    return TrainingContext(
        job_id=payload["job_id"],
        attempt=payload["attempt"],
        task=payload["task"],
        model=ModelCard(**card),
        epochs=payload["epochs"],
        batch_size=payload["batch_size"],
        config=_load(payload["config_model"], settings).model_validate(payload["config"]),
        dataset=dataset,
        work_dir=work_dir,
        host=host,
        learning_rate=payload["learning_rate"],
        seed=payload["seed"],
        pretrained=payload["pretrained"],
        weights=_weights(payload, settings, work_dir, store),
        weights_location=payload["weights_location"],
        further_weights=_further_weights(payload, settings, work_dir, store),
        resume=_resume(payload, work_dir, store),
        rank=ray_context.get_world_rank(),
        world_size=ray_context.get_world_size(),
        local_rank=ray_context.get_local_rank(),
        device=_device(),
    )


def _device() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = ray.get_gpu_ids()
    if not gpus:
        return "cpu"
    index = visible.split(",").index(str(gpus[0])) if str(gpus[0]) in visible.split(",") else 0
    return f"cuda:{index}"


def _weights(payload: Payload, settings: Settings, work_dir: Path, store: Store) -> Path | None:
    """Pretrained weights as a file or folder of this attempt's own: a framework may rewrite what it loads."""
    if payload["resume"] or not payload["pretrained"]:
        return None
    name = payload["model"]["weights"] or payload["model"]["name"]
    if payload["weights_file"]:
        target = work_dir / "weights" / f"{name}.pt"
        target.parent.mkdir(parents=True)
        try:
            shutil.copyfile(payload["weights_file"], target)
        except FileNotFoundError as error:
            raise WeightsError(
                f"The weights file '{payload['weights_file']}' is not on node {ray.util.get_node_ip_address()}.",
                "Put it at the same path on every node, or into a folder that all nodes mount.",
            ) from error
        return target
    return _stored_weights(payload, name, settings, work_dir, store)


def _further_weights(payload: Payload, settings: Settings, work_dir: Path, store: Store) -> dict[str, Path]:
    """Also for a resumed attempt: what a model cannot train without is in no checkpoint."""
    names = payload["model"]["further_weights"]
    found = {name: _stored_weights(payload, name, settings, work_dir, store) for name in names}
    return {name: path for name, path in found.items() if path is not None}


def _stored_weights(payload: Payload, name: str, settings: Settings, work_dir: Path, store: Store) -> Path | None:
    with closing(NodeCache(settings.cache, settings.cache_max_bytes)) as cache:
        return weights_store.fetch_weights(store, payload["framework"], name, work_dir / "weights", cache)


def _resume(payload: Payload, work_dir: Path, store: Store) -> Resume | None:
    if not payload["resume"]:
        return None
    manifest = Manifest.model_validate(payload["resume"])
    folder = work_dir / "resume"
    Checkpoints(store, payload["prefix"]).fetch(manifest, folder)
    return Resume(path=folder, epoch=manifest.epoch, metrics=dict(manifest.metrics))


def _load(reference: str, settings: Settings) -> Any:
    module, _, name = reference.partition(":")
    environment = Path(sys.prefix).name
    limit_s = settings.adapter_import_timeout_s
    try:
        return getattr(within(limit_s, lambda: importlib.import_module(module)), name)
    except TookTooLong:
        raise PluginError(
            f"Importing '{reference}' in the plugin's environment {environment} took longer than {limit_s:g} s.",
            "On the node, `eagleray envs build FRAMEWORK` tries the framework's own import. If that is quick, the "
            "plugin's adapter hangs; if it is slow, start that node's Ray with "
            f"EAGLERAY_ADAPTER_IMPORT_TIMEOUT_S={3 * limit_s:g}.",
        ) from None
    except (ImportError, OSError, AttributeError) as error:
        raise PluginError(
            f"Cannot import '{reference}' in the plugin's environment {environment}: {error}.",
            "The plugin's lock lacks a package, or this node a system library that the error names; on the node, "
            "`eagleray envs build FRAMEWORK` tries the same.",
        ) from error


def _as_text(error: BaseException) -> WorkerRaised:
    known = isinstance(error, EaglerayError)
    return WorkerRaised.of(
        error=type(error).__name__,
        message=error.message if isinstance(error, EaglerayError) else f"{type(error).__name__}: {error}",
        hint=error.hint if isinstance(error, EaglerayError) else "",
        traceback="" if known else traceback.format_exc(),
        node=ray.get_runtime_context().get_node_id(),
    )
