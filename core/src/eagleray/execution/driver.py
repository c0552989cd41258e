"""One job from its plan to its end: attempts, events, signals, callbacks, and the job's record."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from filelock import FileLock, Timeout

from eagleray.contract.callbacks import RunInfo, TrainingCallbacks
from eagleray.contract.errors import CheckpointError, ConfigError, EaglerayError
from eagleray.contract.failures import FailureKind, FailureRule
from eagleray.execution import cluster as ray_cluster
from eagleray.execution.channel import DriverChannel, Message
from eagleray.execution.failures import Failure, classify, error_of
from eagleray.execution.payload import worker_payload
from eagleray.execution.pending_uploads import settle
from eagleray.execution.prepare import prepare_nodes
from eagleray.execution.retries import ALONE, RetryAfter, after_failure
from eagleray.execution.runtime_env import FIELD, field_value, is_switched_on
from eagleray.execution.shared_store import check_nodes
from eagleray.execution.signals import StopSignals
from eagleray.execution.torch_backend import TorchGroupConfig
from eagleray.execution.trainer import WorkerGroupSpec, fit
from eagleray.execution.worker import training_loop
from eagleray.jobs.phases import Phase
from eagleray.jobs.plan import JobPlan
from eagleray.jobs.records import JobRecord
from eagleray.jobs.run_record import RunRecord
from eagleray.settings import Settings
from eagleray.storage.checkpoints import Checkpoints, Manifest
from eagleray.storage.store import Store

Emit = Callable[[Message], None]
# For how long the line of a worker that has ended is read on. Only one whose node is lost takes so long.
LAST_WORDS_S = 5.0
logger = logging.getLogger("eagleray")


class JobDriver:
    """Runs one job in this process. Use `run()` once, in the main thread.

    Args:
        resumed: the record to continue; None: a new job.
        attempt: run only this attempt; what follows its failure is the caller's decision. None: as many as are due.
        cluster: a connection that is the caller's; None: one of its own.
        rules: what the plugin says of its errors.
        avoid_nodes: Ray node ids that get no worker.
    """

    def __init__(
        self,
        plan: JobPlan,
        store: Store,
        settings: Settings,
        emit: Emit,
        *,
        callbacks: Sequence[TrainingCallbacks] = (),
        resumed: JobRecord | None = None,
        attempt: int | None = None,
        cluster: ray_cluster.Cluster | None = None,
        rules: Sequence[FailureRule] = (),
        avoid_nodes: Sequence[str] = (),
    ) -> None:
        self._plan = plan
        self._store = store
        self._settings = settings
        self._emit = emit
        self._callbacks = callbacks
        self._resumed = resumed
        self._only_attempt = attempt
        self._cluster = cluster
        self._rules = rules
        self._avoid_nodes = set(avoid_nodes)
        self.failure: Failure | None = None
        self._channel: DriverChannel | None = None
        self._signals = StopSignals(self._request_stop)
        self._python = ""
        self._committed_epoch = 0
        self._run: RunRecord | None = None

    def run(self) -> JobRecord:
        """Train to the end.

        Returns:
            The record of a job that is `completed` or, after a stop, `cancelled`.

        Raises:
            EaglerayError: the job could not start (no record is made), or has failed (the record says so too).
        """
        with contextlib.ExitStack() as held:
            # Attempts are fenced by their number instead: one that is frozen must not keep its successor out.
            if self._resumed is not None and self._only_attempt is None:
                held.enter_context(self._sole_driver(self._resumed.id))
            held.enter_context(self._signals)
            cluster = self._cluster or held.enter_context(ray_cluster.connect(self._plan.packages))
            cluster.check_room(self._plan.resources_per_worker, self._plan.spec.scaling.min_workers)
            self._run = run = RunRecord.start(self._store, self._plan, self._resumed, self._emit)
            if self._resumed is None:
                held.enter_context(self._sole_driver(run.record.id))
            # Last of all, once Ray has ended the workers: one that was killed leaves its work folder.
            held.callback(self._remove_work_folders, run.record.id)
            try:
                return self._run_recorded(run, cluster)
            except KeyboardInterrupt:
                return self._end(run, Phase.CANCELLED, "cancelled")
            except EaglerayError as error:
                self._end(run, Phase.FAILED, str(error))
                raise
            except Exception as error:
                self._end(run, Phase.FAILED, f"{type(error).__name__}: {error}")
                raise

    def cancel(self, *, fenced: bool = False) -> None:
        """End at once, from any thread; `fenced`: and write nothing more, for the job has moved on without this one."""
        if fenced and self._run is not None:
            self._run.fenced = True
        self._signals.cancel()

    def _remove_work_folders(self, job_id: int) -> None:
        for folder in self._settings.work.glob(f"job-{job_id}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _sole_driver(self, job_id: int) -> FileLock:
        """Refuse a job that another process of this machine is training; the lock dies with its holder."""
        path = self._settings.home / "locks" / f"job-{job_id}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise ConfigError(
                f"Job {job_id} is being trained by another process.", "Wait for its end, or stop it first."
            ) from None
        return lock

    def _run_recorded(self, run: RunRecord, cluster: ray_cluster.Cluster) -> JobRecord:
        run.advance(Phase.PREPARING, "environment")
        check_nodes(cluster, self._store, self._plan.resources_per_worker)
        self._python = prepare_nodes(
            cluster,
            self._plan.framework.environment,
            self._plan.resources_per_worker,
            lambda line: self._emit({"event": "environment", "line": line}),
        )
        self._channel = DriverChannel(cluster.driver_address, self._receive)
        try:
            self._signals.graceful = True
            outcome = self._attempts(run, cluster)
        finally:
            self._signals.graceful = False
            self._channel.close()
        run.set_final(outcome["metrics"], outcome["warnings"])
        if outcome["stopped"]:
            return self._end(run, Phase.CANCELLED, "stopped")
        return self._end(run, Phase.COMPLETED, "")

    def _attempts(self, run: RunRecord, cluster: ray_cluster.Cluster) -> dict[str, Any]:
        """Attempts until one ends by itself; each continues from the newest valid checkpoint."""
        checkpoints = Checkpoints(self._store, run.prefix)
        counts: dict[str, int] = {}
        if run.record.attempts:
            settle(cluster, self._store, self._settings, run.record.id, run.warn)
        while True:
            manifest = self._newest(checkpoints, run)
            progress_before = manifest.epoch if manifest else 0
            run.begin_attempt(manifest, self._only_attempt)
            checkpoints.sweep(run.attempt)
            self._call("on_train_begin", self._info(run))
            result = self._attempt(run, manifest)
            if self._signals.cancelled.is_set():
                raise KeyboardInterrupt
            if not isinstance(result, Failure):
                run.end_attempt("stopped" if result["stopped"] else "completed", "")
                return result
            run.end_attempt(result.kind.value, result.message)
            if self._signals.stop_requested:
                return {"stopped": True, "metrics": {}, "warnings": [], "epoch": 0}
            self.failure = result
            if self._only_attempt is not None:
                raise error_of(result, result.message)
            settle(cluster, self._store, self._settings, run.record.id, run.warn)
            newest = checkpoints.newest_valid(lambda _: None)
            counts = {} if newest and newest.epoch > progress_before else counts
            counts[result.kind.value] = counts.get(result.kind.value, 0) + 1
            decision = after_failure(
                result,
                counts,
                max_failures=self._plan.spec.max_failures,
                seed=f"{run.record.id}/{run.attempt}",
                budgets=ALONE,
            )
            if not isinstance(decision, RetryAfter):
                raise error_of(result, decision.reason)
            if decision.avoid_node:
                self._avoid_nodes |= {node.node_id for node in cluster.nodes() if node.address == decision.avoid_node}
            run.warn(f"Attempt {run.attempt} ended: {decision.reason} It starts again from the newest checkpoint.")
            self._wait(decision.after_s)

    def _newest(self, checkpoints: Checkpoints, run: RunRecord) -> Manifest | None:
        """Where to continue. Checkpoints that are there but all damaged are never silently trained over."""
        manifest = checkpoints.newest_valid(run.warn)
        checkpoints.republish()
        if manifest is None and checkpoints.all():
            raise CheckpointError(
                f"None of the checkpoints of job {run.record.id} can be read; the warnings name what is wrong.",
                f"Restore the files under {run.location}/attempts, or start a new job.",
            )
        return manifest

    def _attempt(self, run: RunRecord, manifest: Manifest | None) -> dict[str, Any] | Failure:
        """One attempt: Ray Train in a thread of its own, since the main thread owns the signals."""
        outcome: dict[str, Any] = {}

        def target() -> None:
            try:
                outcome["result"] = self._fit(run, manifest)
            except BaseException as error:
                outcome["error"] = error

        thread = threading.Thread(target=target, name="eagleray-fit", daemon=True)
        thread.start()
        while thread.is_alive() and not self._signals.cancelled.is_set():
            thread.join(0.1)
        if self._channel is not None and not self._signals.cancelled.is_set():
            # Ray tells of a worker's end before its last lines are read.
            self._channel.drain(LAST_WORDS_S)
        run.collect_logs(self._settings)
        if "error" in outcome:
            failure = classify(outcome["error"], self._rules)
            if failure.traceback:
                run.keep_text("logs", f"attempt-{run.attempt}-error.txt", failure.traceback)
            return failure
        return outcome.get("result") or Failure(FailureKind.PLUGIN, "The worker ended without a result.")

    def _fit(self, run: RunRecord, manifest: Manifest | None) -> dict[str, Any]:
        plan, scaling = self._plan, self._plan.spec.scaling
        assert self._channel is not None
        workers = WorkerGroupSpec(
            scaling.num_workers,
            plan.resources_per_worker["CPU"],
            scaling.gpus_per_worker,
            scaling.accelerator_type,
            tuple(sorted(self._avoid_nodes)),
        )
        runtime_env: dict[str, Any] = {"py_executable": self._python}
        if is_switched_on():
            runtime_env[FIELD] = field_value(plan.framework.environment)
        result = fit(
            training_loop,
            worker_payload(plan, run, manifest, self._store, self._channel.address),
            name=f"job-{run.record.id}-{run.attempt}-{uuid.uuid4().hex[:8]}",
            workers=workers,
            worker_runtime_env=runtime_env,
            backend=TorchGroupConfig(policy=plan.framework.process_group),
            scratch=str(self._settings.work / f"job-{run.record.id}-{run.attempt}-train"),
            on_report=lambda report: self._on_report(run, dict(report)),
        )
        return dict(result)

    def _receive(self, message: Message) -> None:
        """A worker's message, in a reader thread of the channel."""
        run = self._run
        if run is None:
            return
        with contextlib.suppress(Exception):
            kind = message.pop("type")
            if kind == "hello":
                run.hello(message)
            elif kind == "phase":
                run.advance(Phase.RUNNING, message["message"])
            elif kind == "warning":
                run.warn(message["message"])
            elif kind == "log":
                run.log(message["rank"], message["lines"], self._settings)
                self._emit({"event": "log", **message})
            elif kind in {"progress", "checkpoint"}:
                self._emit({"event": kind, "epochs": self._plan.spec.epochs, **message})

    def _on_report(self, run: RunRecord, report: dict[str, Any]) -> None:
        # An exception out of a Ray Train callback would end the run.
        try:
            run.add_epoch(report)
            self._emit({"event": "epoch", "epochs": self._plan.spec.epochs, **report})
            self._call("on_epoch_end", self._info(run), report["epoch"], report["metrics"])
        except Exception:
            logger.exception("An epoch's report could not be recorded.")

    def _call(self, hook: str, *args: Any) -> None:
        for callbacks in self._callbacks:
            try:
                getattr(callbacks, hook)(*args)
            except Exception as error:
                logger.debug("callback failed", exc_info=True)
                if self._run is not None:
                    self._run.warn(f"{type(callbacks).__name__}.{hook} raised {type(error).__name__}: {error}")

    def _info(self, run: RunRecord) -> RunInfo:
        return RunInfo(
            run.record.id, run.attempt, self._plan.spec.plain(), run.location, run.set_tracking_url, run.warn
        )

    def _end(self, run: RunRecord, phase: Phase, message: str) -> JobRecord:
        run.finish(phase, message)
        self._call("on_train_end", self._info(run), phase.value, run.record.metrics)
        run.save()
        run.flush(self._settings)
        return run.record

    def _request_stop(self) -> None:
        if self._run is not None:
            self._run.advance(Phase.STOPPING, "saving, then stopping; press Ctrl-C again to end at once")
        if self._channel is not None:
            self._channel.stop()

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._signals.stop_requested:
            time.sleep(0.1)
