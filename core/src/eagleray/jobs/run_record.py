"""The record of a running job: its phases, epochs, warnings, logs and files, written as they happen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from eagleray.contract.errors import EaglerayError
from eagleray.environments.lock import environment_name, read_lock
from eagleray.jobs.phases import Phase
from eagleray.jobs.plan import JobPlan
from eagleray.jobs.records import (
    AttemptRecord,
    BestRecord,
    EpochMetrics,
    JobRecord,
    JobRecords,
    MetricsFile,
    artifacts_of,
    encode_metrics,
    encode_record,
)
from eagleray.settings import Settings
from eagleray.storage.checkpoints import Checkpoints, Manifest
from eagleray.storage.latest import LatestWriter
from eagleray.storage.pending import Kind, Outbox
from eagleray.storage.store import Store

Emit = Callable[[dict[str, Any]], None]


class RunRecord:
    """The driver is its only writer; reader threads of the channel call into it, hence the lock.

    A store that fails for a while must not end training: a failed save is said, and made up for by the next one.
    """

    def __init__(self, store: Store, record: JobRecord, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self._records = JobRecords(store)
        self._latest = LatestWriter(store, self._say_unsaved, lambda: not self.fenced and not self._is_superseded())
        self._lock = threading.RLock()
        self._saved: tuple[bytes, bytes] | None = None
        self.record = record
        self.prefix = record.prefix
        self._metrics = MetricsFile(store, self.prefix)
        self._rows = {row.epoch: row for row in self._metrics.read()}
        self._remote_logs: dict[int, Path] = {}
        # Set where a newer attempt of the job exists: what this one still has to say must not overwrite it.
        self.fenced = False
        self._only_attempt: int | None = None
        self._has_checkpoint = False

    @classmethod
    def start(cls, store: Store, plan: JobPlan, resumed: JobRecord | None, emit: Emit) -> RunRecord:
        """A new record under the next free id, or the one that is resumed."""
        environment = environment_name(read_lock(plan.framework.environment.lock))
        fields: dict[str, Any] = {
            "framework": plan.framework.name,
            "model_name": plan.model.name,
            "task_type": plan.task,
            "dataset_path": plan.spec.dataset_path,
            "dataset_format": plan.spec.dataset_format,
            "epochs": plan.spec.epochs,
            "batch_size": plan.spec.batch_size,
            "learning_rate": plan.spec.learning_rate,
            "advanced_config": plan.spec.advanced_config,
            "project_id": plan.spec.project_id,
            "session_id": plan.spec.session_id,
            "created_by": plan.spec.created_by,
            "spec": plan.spec.plain(),
            "dataset": plan.dataset.counts(),
            "environment": {"name": environment},
        }
        if resumed is None:
            record = JobRecords(store).create(fields)
        else:
            record = JobRecord.model_validate({**resumed.model_dump(), **fields, "project_id": resumed.project_id})
            if not record.phase.is_terminal:
                # Its driver ended without a word (killed, power lost); nobody else holds the job's lock.
                record.phase = Phase.FAILED
            record.close_attempts("lost", "Its driver ended without a word.", record.updated_at)
            record.resume()
        run = cls(store, record, emit)
        run.record.output_dir = run.location
        for warning in plan.warnings:
            run.warn(warning)
        run.advance(Phase.QUEUED, "starts at once: this process is the driver")
        emit(
            {
                "event": "job",
                "job_id": record.id,
                "framework": plan.framework.name,
                "model": plan.model.name,
                "task": plan.task,
                "epochs": plan.spec.epochs,
                "dataset": plan.dataset.counts(),
                "dataset_format": plan.spec.dataset_format,
                "output_dir": run.location,
                "resumed": resumed is not None,
            }
        )
        return run

    @property
    def location(self) -> str:
        return f"{self._store.location.rstrip('/')}/{self.prefix}"

    @property
    def attempt(self) -> int:
        return self.record.attempts[-1].number

    def advance(self, phase: Phase, message: str) -> None:
        """Enter `phase`; a message for the phase the job is in already is only said."""
        with self._lock:
            if phase is not self.record.phase:
                if self.record.phase is Phase.STOPPING and phase is Phase.RUNNING:
                    return
                self.record.advance(phase)
                self.save()
        self._emit({"event": "phase", "phase": phase.value, "status": phase.status, "message": message})

    def warn(self, message: str) -> None:
        with self._lock:
            if message in self.record.warnings:
                return
            self.record.warnings.append(message)
        self._emit({"event": "warning", "message": message})

    def set_tracking_url(self, url: str) -> None:
        with self._lock:
            self.record.tracking_url = url
        self._emit({"event": "facts", "tracking_url": url})

    def begin_attempt(self, manifest: Manifest | None, number: int | None = None) -> None:
        """Start the next attempt, or the one that a control plane has numbered: its own count every attempt."""
        self._only_attempt = number
        self._has_checkpoint = manifest is not None
        number = number or len(self.record.attempts) + 1
        resumed_from = manifest.epoch if manifest else None
        with self._lock:
            self.record.attempts.append(AttemptRecord(number=number, resumed_from_epoch=resumed_from))
            self._forget_epochs_after(manifest)
            if self.record.phase not in (Phase.PREPARING, Phase.STOPPING):
                self.record.advance(Phase.PREPARING)
            self.save()
        known = {} if manifest is None else {**manifest.recent, manifest.epoch: manifest.metrics}
        self._emit(
            {
                "event": "attempt",
                "attempt": number,
                "resumed_from_epoch": resumed_from,
                # Whoever listens may have missed what was saved just before the attempt before this one died.
                "saved": [{"epoch": epoch, "metrics": dict(metrics)} for epoch, metrics in sorted(known.items())],
                "saved_by_attempt": manifest.attempt if manifest else None,
            }
        )

    def note_checkpoint(self) -> None:
        """A worker says that the store has one."""
        self._has_checkpoint = True

    def _forget_epochs_after(self, manifest: Manifest | None) -> None:
        """Epochs that will be trained again go; one that was committed but never reported is made up for."""
        last = manifest.epoch if manifest else 0
        self._rows = {epoch: row for epoch, row in self._rows.items() if epoch <= last}
        if manifest:
            for epoch, metrics in {**manifest.recent, manifest.epoch: manifest.metrics}.items():
                row = EpochMetrics(epoch=epoch, attempt=manifest.attempt, metrics=dict(metrics))
                self._rows.setdefault(epoch, row)
        self.record.epochs_done = last

    def end_attempt(self, outcome: str, message: str) -> None:
        with self._lock:
            attempt = self.record.attempts[-1]
            attempt.ended_at, attempt.outcome, attempt.message = datetime.now(UTC), outcome, message
            self.save()

    def add_epoch(self, report: dict[str, Any]) -> None:
        with self._lock:
            epoch = int(report["epoch"])
            self._rows[epoch] = EpochMetrics(epoch=epoch, attempt=self.attempt, metrics=report["metrics"])
            self.record.epochs_done = epoch
            self.record.metrics = report["metrics"]
            if report["best"]["value"] is not None:
                self.record.best = BestRecord.model_validate(report["best"])
            self.save()

    def set_final(self, metrics: dict[str, float], warnings: list[str]) -> None:
        for warning in warnings:
            self.warn(warning)
        with self._lock:
            if metrics:
                self.record.metrics = {**self.record.metrics, **metrics}

    def finish(self, phase: Phase, message: str) -> None:
        with self._lock:
            self.record.error_message = message or None
            self.record.artifacts = artifacts_of(self._store, self.record)
            self.record.resumable = phase is not Phase.COMPLETED and self._is_checkpointed()
            self.record.close_attempts(phase.value, message, datetime.now(UTC))
            if phase is not self.record.phase:
                self.record.advance(phase)
            self.save()
        self._emit({"event": "phase", "phase": phase.value, "status": phase.status, "message": message})

    def _is_checkpointed(self) -> bool:
        try:
            return Checkpoints(self._store, self.prefix).any_committed()
        except EaglerayError:
            return self._has_checkpoint

    def way_on(self) -> str:
        """Where to look, and what to type, once the job has failed."""
        if not self.record.attempts:
            return ""
        logs = f"Job {self.record.id} is in {self.location}, its logs in {self.location}/logs."
        if not self.record.resumable:
            return logs
        return f"{logs} To go on from its newest checkpoint: eagleray train --resume {self.record.id}"

    def save(self) -> None:
        with self._lock:
            if self.fenced:
                return
            rows = encode_metrics(self._rows[epoch] for epoch in sorted(self._rows))
            saved = self.record.model_dump_json(exclude={"updated_at"}).encode(), rows
            if saved == self._saved:
                return
            self._saved = saved
            self._latest.put(self._metrics.key, rows)
            self._latest.put(*encode_record(self.record))

    def flush(self, settings: Settings) -> None:
        """Wait until the store has the record as it is now; one that takes nothing gets it by a later pass."""
        unsaved = self._latest.flush(settings.upload_grace_s)
        if not unsaved or self.fenced:
            return
        attempt = self.record.attempts[-1].number if self.record.attempts else 1
        try:
            outbox = Outbox(settings.pending, self._store.location, self.record.id, attempt, self.prefix, "driver")
            with closing(outbox):
                for key, data in unsaved.items():
                    kind: Kind = "file" if key == self._metrics.key else "record"
                    outbox.add(kind, partial(_write, data=data), {"key": key})
        except (EaglerayError, OSError) as error:
            self._say_unsaved(error)

    def _say_unsaved(self, error: Exception) -> None:
        # From the writer's thread, so without the lock: whoever holds it may be waiting for that thread.
        message = f"The job's record cannot be saved yet: {error}"
        if message not in self.record.warnings:
            self.record.warnings.append(message)
            self._emit({"event": "warning", "message": message})

    def _is_superseded(self) -> bool:
        """Whether a driver that was frozen, and has thawed, finds a newer attempt in the store."""
        if self._only_attempt is None:
            return False
        attempts = self._records.load(self.record.id).attempts
        self.fenced = bool(attempts) and attempts[-1].number > self._only_attempt
        return self.fenced

    def hello(self, message: dict[str, Any], settings: Settings) -> None:
        """A worker has started; where its log file is not in this home, its lines are written here as well."""
        path = Path(message["log"])
        try:
            stat = path.stat()
            same = [stat.st_dev, stat.st_ino] == message["inode"]
            here = same and path.parent == self._log_folder(settings)
        except OSError:
            here = False
        if not here:
            self._remote_logs[int(message["rank"])] = path
        self._emit({"event": "worker", **{name: message[name] for name in ("rank", "pid", "node")}})

    def log(self, rank: int, lines: list[str], settings: Settings) -> None:
        if rank in self._remote_logs:
            folder = self._log_folder(settings)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / f"attempt-{self.attempt}-worker-{rank}.log").open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)

    def collect_logs(self, settings: Settings) -> None:
        """Put the attempt's log files with the job."""
        for path in sorted(self._log_folder(settings).glob(f"attempt-{self.attempt}-worker-*.log")):
            try:
                self._store.put_file(f"{self.prefix}/logs/{path.name}", path)
            except (EaglerayError, OSError) as error:
                self.warn(f"The log stays at {path}: {error}")

    def keep_text(self, folder: str, name: str, text: str) -> None:
        try:
            self._store.put_bytes(f"{self.prefix}/{folder}/{name}", text.encode())
        except EaglerayError as error:
            self.warn(f"{name} could not be stored: {error}")

    def _log_folder(self, settings: Settings) -> Path:
        return settings.home / "logs" / f"job-{self.record.id}"


def _write(folder: Path, data: bytes) -> None:
    (folder / "object").write_bytes(data)
