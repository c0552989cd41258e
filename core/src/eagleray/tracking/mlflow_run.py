"""One job as one MLflow run. All of it happens in a thread of its own, so that an MLflow that is away costs no step."""

from __future__ import annotations

import os
import queue
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from eagleray.contract.callbacks import RunInfo, TrainingCallbacks
from eagleray.storage.opening import open_store

# At the end of a job, how long entries that MLflow has not taken yet are offered to it.
DRAIN_S = 30.0
RETRY_AFTER_S = (0.5, 1.0, 2.0, 5.0, 15.0)
MAX_WAITING = 100_000
MAX_ARTIFACT_BYTES = 32 << 20
STATUSES = {"completed": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
# MLflow's server refuses longer values, and any other character in a name.
MAX_VALUE_CHARACTERS = 6000
PARAMETERS_A_CALL = 100

Step = Callable[[], None]


class MlflowTracking(TrainingCallbacks):
    """Parameters, metrics by epoch, plots and the checkpoints' addresses of a job; a resumed job goes on in its run.

    Args:
        address: the tracking server's, or whatever else MLflow takes for one.
    """

    def __init__(self, address: str, *, drain_s: float = DRAIN_S) -> None:
        self._address = address
        self._drain_s = drain_s
        self._steps: queue.Queue[Step | None] = queue.Queue(MAX_WAITING)
        self._deadline: float | None = None
        self._thread: threading.Thread | None = None
        self._client: Any = None
        self._run_id = ""

    def on_train_begin(self, run: RunInfo) -> None:
        self._put(lambda: self._begin(run))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, args=(run,), name="eagleray-mlflow", daemon=True)
            self._thread.start()

    def on_epoch_end(self, run: RunInfo, epoch: int, metrics: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        self._put(lambda: self._record(metrics, epoch, now_ms))

    def on_train_end(self, run: RunInfo, phase: str, metrics: Mapping[str, float]) -> None:
        if self._thread is None:
            return
        self._put(lambda: self._finish(run, phase))
        self._put(None)
        self._deadline = time.monotonic() + self._drain_s
        self._thread.join(self._drain_s + 1)

    def _put(self, step: Step | None) -> None:
        # A full queue means that MLflow has been away for a hundred thousand epochs.
        self._steps.put_nowait(step)

    def _work(self, run: RunInfo) -> None:
        """Take every step until MLflow has it, in order; give up where the job has ended and time is over."""
        lost = 0
        while (step := self._steps.get()) is not None:
            error = self._take(step, run)
            if error is not None:
                lost += 1
                if lost == 1:
                    run.warn(
                        f"MLflow at {_shown(self._address)} did not take an entry of this run: {error}. "
                        f"The job's own metrics are whole, in {run.location}/metrics.jsonl."
                    )

    def _take(self, step: Step, run: RunInfo) -> str | None:
        """None once `step` is done; else why it never will be."""
        waits_s = chain(RETRY_AFTER_S, repeat(RETRY_AFTER_S[-1]))
        while True:
            try:
                self._connect()
                step()
                return None
            except ImportError:
                return "the package mlflow is not installed (pip install 'eagleray[mlflow]')"
            except Exception as error:
                if _is_refusal(error) or (self._deadline is not None and time.monotonic() >= self._deadline):
                    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                self._pause(next(waits_s))

    def _pause(self, seconds: float) -> None:
        """Sleep, but not past the deadline, which the job's end may set meanwhile."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < min(until, self._deadline or until):
            time.sleep(min(0.2, until - now))

    def _connect(self) -> None:
        if self._client is None:
            # MLflow's own retries would hold the thread for minutes, and the job's end with it.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds, here in a thread of its own

            self._client = MlflowClient(tracking_uri=self._address)

    def _begin(self, run: RunInfo) -> None:
        experiment = self._experiment(run)
        known = self._client.search_runs(
            [experiment],
            filter_string=f"tags.`eagleray.job` = '{run.job_id}' and tags.`eagleray.location` = '{run.location}'",
            max_results=1,
        )
        if known:
            found = known[0]
            self._client.update_run(found.info.run_id, status="RUNNING")
        else:
            tags = {"eagleray.job": str(run.job_id), "eagleray.location": run.location}
            found = self._client.create_run(experiment, run_name=f"job-{run.job_id}", tags=tags)
        self._run_id = found.info.run_id
        from mlflow.entities import Param, RunTag  # noqa: PLC0415 - as above

        # What a run was begun with cannot be changed in MLflow; a resumed job's new values stand in the attempt's tag.
        new = [Param(name, value) for name, value in sorted(_parameters(run.spec)) if name not in found.data.params]
        for first in range(0, len(new), PARAMETERS_A_CALL):
            self._client.log_batch(self._run_id, params=new[first : first + PARAMETERS_A_CALL])
        addresses = {f"eagleray.{name}": f"{run.location}/{name}.pt" for name in ("best", "last")}
        tags = addresses | {"eagleray.attempt": str(run.attempt), "eagleray.epochs": str(run.spec.get("epochs", ""))}
        self._client.log_batch(self._run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        if self._address.startswith(("http://", "https://")):
            run.tracked_at(f"{_shown(self._address)}/#/experiments/{experiment}/runs/{self._run_id}")

    def _experiment(self, run: RunInfo) -> str:
        """`MLFLOW_EXPERIMENT_NAME`, else the job's project, else `eagleray`; made where it is not there."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or str(run.spec.get("project_id") or "eagleray")
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _record(self, metrics: Mapping[str, float], epoch: int, now_ms: int) -> None:
        from mlflow.entities import Metric  # noqa: PLC0415 - as above

        rows = [Metric(_name(name), float(value), now_ms, epoch) for name, value in metrics.items()]
        self._client.log_batch(self._run_id, metrics=rows)

    def _finish(self, run: RunInfo, phase: str) -> None:
        store = open_store(run.location)
        with tempfile.TemporaryDirectory(prefix="eagleray-mlflow-") as folder:
            for info in store.list("files"):
                if info.size_bytes <= MAX_ARTIFACT_BYTES:
                    path = Path(folder) / Path(info.key).name
                    store.fetch_file(info.key, path, sha256=None)
                    self._client.log_artifact(self._run_id, str(path), Path(info.key).parent.as_posix())
                    path.unlink()
        self._client.set_terminated(self._run_id, status=STATUSES.get(phase, "FAILED"))


def _parameters(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A spec as MLflow's flat parameters: `scaling.num_workers`, `advanced_config.lr0`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _parameters(value, f"{prefix}{key}.")
        elif value is not None:
            yield _name(f"{prefix}{key}"), str(value)[:MAX_VALUE_CHARACTERS]


def _name(name: str) -> str:
    """`metrics/mAP50(B)` → `metrics/mAP50_B_`: MLflow takes letters, digits, `_`, `-`, `.`, space, `:` and `/`."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)


def _is_refusal(error: Exception) -> bool:
    """Whether trying again would be answered alike."""
    code = getattr(error, "error_code", "")
    return code in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED", "UNAUTHENTICATED"}


def _shown(address: str) -> str:
    """The address without a user's name and password."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
