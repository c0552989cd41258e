"""One job from its plan to its end: attempts, events, signals, callbacks, and the job's record."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from filelock import FileLock, Timeout

from eagleray.contract.callbacks import RunInfo, TrainingCallbacks
from eagleray.contract.errors import CheckpointError, ConfigError, EaglerayError
from eagleray.contract.failures import FailureKind, FailureRule
from eagleray.execution import cluster as ray_cluster
from eagleray.execution.channel import DriverChannel, Message, check_port
from eagleray.execution.failures import Failure, classify, error_of
from eagleray.execution.payload import worker_payload
from eagleray.execution.pending_uploads import settle
from eagleray.execution.prepare import prepare_nodes
from eagleray.execution.retries import ALONE, RetryAfter, after_failure
from eagleray.execution.room import Gang
from eagleray.execution.runtime_env import FIELD, field_value, is_switched_on
from eagleray.execution.shared_store import check_nodes
from eagleray.execution.signals import StopSignals
from eagleray.execution.torch_backend import TorchGroupConfig
from eagleray.execution.trainer import WorkerGroupSpec, fit
from eagleray.execution.worker import training_loop
from eagleray.jobs.phases import IllegalPhaseError, Phase
from eagleray.jobs.plan import JobPlan
from eagleray.jobs.records import JobRecord
from eagleray.jobs.run_record import RunRecord
from eagleray.settings import Settings
from eagleray.storage.checkpoints import Checkpoints, Manifest
from eagleray.storage.store import Store
from eagleray.threads import run_aside

Emit = Callable[[Message], None]
# For how long the line of a worker that has ended is read on. Only one whose node is lost takes so long.
LAST_WORDS_S = 5.0
# For how long an attempt that is left may still speak to Ray, which is shut down next.
ABANDON_S = 5.0
_STOPPED: dict[str, Any] = {"stopped": True, "metrics": {}, "warnings": [], "epoch": 0}
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
        self._show = emit
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
        self._run: RunRecord | None = None
        self._worker_is_there = False
        scaling = plan.spec.scaling
        self._gang = Gang(scaling.min_workers, plan.resources_per_worker, scaling.accelerator_type)

    def run(self) -> JobRecord:
        """Train to the end.

        Returns:
            The record of a job that is `completed` or, after a stop, `cancelled`.

        Raises:
            EaglerayError: the job could not start (no record is made), or has failed (the record says so too).
        """
        with contextlib.ExitStack() as held:
            locks = held.enter_context(contextlib.ExitStack())
            # Attempts are fenced by their number instead: one that is frozen must not keep its successor out.
            if self._resumed is not None and self._only_attempt is None:
                locks.enter_context(self._sole_driver(self._resumed.id))
            held.enter_context(self._signals)
            check_port()
            # Entered before Ray, so left after Ray has ended the workers: one that was killed leaves its folder.
            held.callback(self._remove_work_folders)
            cluster = self._cluster or held.enter_context(ray_cluster.connect(self._plan.packages))
            cluster.check_room(self._gang)
            self._run = run = RunRecord.start(self._store, self._plan, self._resumed, self._emit)
            if self._resumed is None:
                locks.enter_context(self._sole_driver(run.record.id))
            return self._run_to_its_end(run, cluster)

    def _run_to_its_end(self, run: RunRecord, cluster: ray_cluster.Cluster) -> JobRecord:
        try:
            return self._run_recorded(run, cluster)
        except KeyboardInterrupt:
            return self._end(run, Phase.CANCELLED, "cancelled")
        except EaglerayError as error:
            self._end(run, Phase.FAILED, str(error))
            if self._only_attempt is None:
                _add_to_hint(error, run.way_on())
            raise
        except Exception as error:
            self._end(run, Phase.FAILED, f"{type(error).__name__}: {error}")
            raise

    def cancel(self, *, fenced: bool = False) -> None:
        """End at once, from any thread; `fenced`: and write nothing more, for the job has moved on without this one."""
        if fenced and self._run is not None:
            self._run.fenced = True
        self._signals.cancel()

    def _remove_work_folders(self) -> None:
        for folder in self._settings.work.glob(f"job-{self._run.record.id}-*") if self._run else ():
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
            self._gang,
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
            self._settle(run, cluster)
        while not self._signals.stop_requested:
            manifest = self._newest(checkpoints, run)
            run.begin_attempt(manifest, self._only_attempt)
            checkpoints.sweep(run.attempt)
            self._call("on_train_begin", self._info(run))
            result = self._attempt(run, cluster, manifest)
            if self._signals.cancelled.is_set():
                break
            if not isinstance(result, Failure):
                run.end_attempt("stopped" if result["stopped"] else "completed", "")
                return result
            run.end_attempt(result.kind.value, result.message)
            if self._signals.stop_requested:
                break
            self.failure = result
            if self._only_attempt is not None:
                raise error_of(result, result.message)
            self._settle(run, cluster)
            if self._signals.stop_requested:
                break
            newest = checkpoints.newest_valid(lambda _: None)
            counts = {} if newest and newest.epoch > (manifest.epoch if manifest else 0) else counts
            counts[result.kind.value] = counts.get(result.kind.value, 0) + 1
            self._wait(self._retry(run, cluster, result, counts))
        if self._signals.cancelled.is_set():
            raise KeyboardInterrupt
        return _STOPPED

    def _settle(self, run: RunRecord, cluster: ray_cluster.Cluster) -> None:
        settle(
            cluster,
            self._store,
            self._settings,
            run.record.id,
            run.warn,
            stopping=lambda: self._signals.stop_requested,
        )

    def _retry(
        self, run: RunRecord, cluster: ray_cluster.Cluster, failure: Failure, counts: Mapping[str, int]
    ) -> float:
        """Seconds until the next attempt. Raises what `failure` is where there is none."""
        # A worker names its node by Ray's id, Ray by its address.
        named = [node for node in cluster.nodes() if failure.node in (node.node_id, node.address)]
        left_out = self._avoid_nodes | {node.node_id for node in named[:1]}
        decision = after_failure(
            failure,
            counts,
            max_failures=self._plan.spec.max_failures,
            seed=f"{run.record.id}/{run.attempt}",
            budgets=ALONE,
            other_nodes=bool(named) and cluster.fits_without(left_out, self._gang),
        )
        if not isinstance(decision, RetryAfter):
            raise error_of(failure, decision.reason)
        run.warn(f"Attempt {run.attempt} ended: {decision.reason} It starts again from the newest checkpoint.")
        if decision.avoid_node:
            self._avoid_nodes = left_out
            run.warn(f"Node {named[0].address} is left out from now on. {failure.hint}".strip())
        return decision.after_s

    def _newest(self, checkpoints: Checkpoints, run: RunRecord) -> Manifest | None:
        """Where to continue. Checkpoints that are there but all damaged are never silently trained over."""
        manifest = checkpoints.newest_valid(run.warn)
        if manifest is None and checkpoints.any_committed():
            raise CheckpointError(
                f"None of the checkpoints of job {run.record.id} can be read; the warnings name what is wrong.",
                f"Restore the files under {run.location}/attempts, or start a new job.",
            )
        checkpoints.republish()
        return manifest

    def _attempt(
        self, run: RunRecord, cluster: ray_cluster.Cluster, manifest: Manifest | None
    ) -> dict[str, Any] | Failure:
        """One attempt: Ray Train in a thread of its own, since the main thread owns the signals."""
        abandoned = threading.Event()
        self._worker_is_there = False
        if waits := cluster.waits_for(self._gang):
            run.advance(Phase.PREPARING, waits)
        thread, outcome = run_aside(lambda: self._fit(run, manifest, abandoned), "eagleray-fit")
        while thread.is_alive():
            # Where no worker is there yet, nothing is trained that could be saved, and room may be an hour away.
            if self._signals.cancelled.is_set() or (self._signals.stop_requested and not self._worker_is_there):
                abandoned.set()
                thread.join(ABANDON_S)
                run.collect_logs(self._settings)
                return _STOPPED
            thread.join(0.1)
        if self._channel is not None:
            # Ray tells of a worker's end before its last lines are read.
            self._channel.drain(LAST_WORDS_S)
        run.collect_logs(self._settings)
        if error := outcome.exception():
            failure = classify(error, self._rules)
            if failure.traceback:
                run.keep_text("logs", f"attempt-{run.attempt}-error.txt", failure.traceback)
            return failure
        return outcome.result() or Failure(FailureKind.PLUGIN, "The worker ended without a result.")

    def _fit(self, run: RunRecord, manifest: Manifest | None, abandoned: threading.Event) -> dict[str, Any]:
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
            abandoned=abandoned,
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
                self._worker_is_there = True
                run.hello(message, self._settings)
            elif kind == "phase":
                run.advance(Phase.RUNNING, message["message"])
            elif kind == "warning":
                run.warn(message["message"])
            elif kind == "log":
                run.log(message["rank"], message["lines"], self._settings)
                self._emit({"event": "log", **message})
            elif kind in {"progress", "checkpoint"}:
                if kind == "checkpoint":
                    run.note_checkpoint()
                self._emit({"event": kind, "epochs": self._plan.spec.epochs, **message})

    def _emit(self, message: Message) -> None:
        """Show something. A display whose reader or terminal is gone is no reason to end a job."""
        try:
            self._show(message)
        except Exception:
            logger.debug("An event could not be shown.", exc_info=True)

    def _on_report(self, run: RunRecord, report: dict[str, Any]) -> None:
        # An exception out of a Ray Train callback would end the run.
        try:
            run.add_epoch(report)
        except Exception:
            logger.exception("An epoch's report could not be recorded.")
        self._emit({"event": "epoch", "epochs": self._plan.spec.epochs, **report})
        self._call("on_epoch_end", self._info(run), report["epoch"], report["metrics"])

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
        try:
            try:
                run.finish(phase, message)
                self._call("on_train_end", self._info(run), phase.value, run.record.metrics)
            finally:
                run.save()
                run.flush(self._settings)
        except KeyboardInterrupt:
            # A job that has ended stays what it is: only what followed is cut short.
            if not run.record.phase.is_terminal:
                raise
        return run.record

    def _request_stop(self) -> None:
        later = (
            " at this epoch's end, if earlier ones are not saved yet" if self._plan.spec.checkpoint_every > 1 else ""
        )
        # It may have ended just now.
        with contextlib.suppress(IllegalPhaseError):
            if self._run is not None:
                self._run.advance(Phase.STOPPING, f"saving, then stopping{later}; press Ctrl-C again to end at once")
        if self._channel is not None:
            self._channel.stop()

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._signals.stop_requested:
            time.sleep(0.1)


def _add_to_hint(error: EaglerayError, text: str) -> None:
    error.hint = f"{error.hint} {text}".strip()
    error.args = (error.message, error.hint)
