"""What a job's workers are told."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from eagleray.execution.shared_store import store_id
from eagleray.jobs.plan import JobPlan
from eagleray.jobs.run_record import RunRecord
from eagleray.storage.checkpoints import Manifest
from eagleray.storage.opening import store_access
from eagleray.storage.store import Store


def worker_payload(
    plan: JobPlan, run: RunRecord, manifest: Manifest | None, store: Store, channel: dict[str, Any]
) -> dict[str, Any]:
    """Everything a worker needs, as plain data."""
    spec = plan.spec
    dataset = asdict(plan.dataset.dataset)
    version = plan.dataset_version
    dataset["path"] = str(plan.dataset.dataset.path.resolve())
    return {
        "job_id": run.record.id,
        "attempt": run.attempt,
        "framework": plan.framework.name,
        "adapter": plan.framework.adapter,
        "config_model": plan.framework.configs[plan.task],
        "config": plan.config.model_dump(mode="json", exclude_unset=True),
        "dataset": dataset,
        "dataset_version": version.model_dump(include={"dataset_id", "number", "digest"}) if version else None,
        "dataset_formats": list(plan.framework.dataset_formats),
        "model": {**asdict(plan.model), "status": plan.model.status.value},
        "task": plan.task,
        "epochs": spec.epochs,
        "batch_size": spec.batch_size,
        "learning_rate": spec.learning_rate,
        "seed": spec.seed,
        "pretrained": bool(spec.pretrained),
        "weights_file": plan.weights_file,
        "weights_location": plan.weights_location,
        "store": store.location,
        # May hold a secret: the payload travels as an argument of a remote call only.
        "store_access": store_access(store),
        "store_id": store_id(store),
        "prefix": run.prefix,
        "checkpoint_every": spec.checkpoint_every,
        "metric": {"name": plan.metric.name, "mode": plan.metric.mode},
        "best": {
            "value": manifest.best_value if manifest else None,
            "epoch": manifest.best_epoch if manifest else 0,
        },
        "portable_file": plan.framework.portable_file,
        "env_vars": dict(plan.framework.environment.env_vars),
        "cpus_per_worker": spec.scaling.cpus_per_worker,
        "channel": channel,
        "resume": manifest.model_dump(mode="json") if manifest else None,
    }
