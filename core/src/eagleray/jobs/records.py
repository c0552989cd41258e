"""What is known of a job, kept in the store: one record per job, and the metrics of every epoch."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field, model_validator

from eagleray.contract.errors import ConfigError, StorageError, UnknownNameError
from eagleray.jobs import phases
from eagleray.jobs.phases import JobStatus, Phase
from eagleray.storage import layout
from eagleray.storage.failpoints import failpoint
from eagleray.storage.store import AlreadyExistsError, NotFoundError, Store

_log = logging.getLogger(__name__)
_CONFIG = ConfigDict(extra="forbid", validate_assignment=True, ser_json_inf_nan="strings", protected_namespaces=())


def _now() -> datetime:
    return datetime.now(UTC)


class AttemptRecord(BaseModel):
    """One run of a job; `number` counts from 1.

    Attributes:
        outcome: `completed`, `stopped`, `cancelled`, `failed`, the kind of its failure, or `lost` where its driver was
            killed; None while it runs.
    """

    model_config = _CONFIG

    number: int = Field(ge=1)
    started_at: datetime = Field(default_factory=_now)
    ended_at: datetime | None = None
    outcome: str | None = None
    message: str = ""
    resumed_from_epoch: int | None = None


class BestRecord(BaseModel):
    """The best epoch so far, by the task's metric."""

    model_config = _CONFIG

    epoch: int = Field(ge=0)
    value: float
    metric: str


class Artifacts(BaseModel):
    """Where the job's portable files are, to be shown; None until there is one."""

    model_config = _CONFIG

    best: str | None = None
    last: str | None = None


class JobRecord(BaseModel):
    """A job. `status` follows from `phase`.

    Attributes:
        spec: the job's description as plain data, enough to run it again.
        dataset: classes, and per split the counts of images, annotations and backgrounds.
        environment: name and hash of the environment the workers ran in.
        epochs_done: the last epoch that every worker reported.
        metrics: those of that epoch, or the final ones.
        resumable: whether a checkpoint is there to continue from.
        tracking_url: a page of an experiment tracker that shows the job.
    """

    model_config = _CONFIG

    id: int = Field(ge=1)
    session_id: str | None = None
    project_id: str | None = None
    created_by: str | None = None
    framework: str
    model_name: str
    task_type: str
    dataset_path: str
    dataset_format: str
    epochs: int = Field(ge=1)
    batch_size: int | Literal["auto"]
    learning_rate: float | None = None
    output_dir: str = ""
    error_message: str | None = None
    advanced_config: dict[str, Any] = Field(default_factory=dict)
    phase: Phase = Phase.CREATED
    spec: dict[str, Any] = Field(default_factory=dict)
    dataset: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
    attempts: list[AttemptRecord] = Field(default_factory=list)
    epochs_done: int = Field(default=0, ge=0)
    metrics: dict[str, float] = Field(default_factory=dict)
    best: BestRecord | None = None
    artifacts: Artifacts = Field(default_factory=Artifacts)
    resumable: bool = False
    tracking_url: str | None = None
    warnings: list[str] = Field(default_factory=list)
    created_at: datetime = Field(default_factory=_now)
    updated_at: datetime = Field(default_factory=_now)

    @model_validator(mode="before")
    @classmethod
    def _derive_status(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if name != "status"} if isinstance(data, dict) else data

    @computed_field  # type: ignore[prop-decorator]
    @property
    def status(self) -> JobStatus:
        return self.phase.status

    @property
    def prefix(self) -> str:
        """The job's folder in the store."""
        return layout.job_prefix(self.id, self.project_id)

    def advance(self, phase: Phase) -> None:
        """Enter `phase`. Raises IllegalPhaseError."""
        self.phase = phases.advance(self.phase, phase)

    def close_attempts(self, outcome: str, message: str, ended_at: datetime) -> None:
        """End the attempt that is still open, if one is."""
        for attempt in self.attempts:
            if attempt.outcome is None:
                attempt.outcome, attempt.message, attempt.ended_at = outcome, message, ended_at

    def resume(self) -> None:
        """Queue a finished job again. Raises IllegalPhaseError."""
        self.phase = phases.resume(self.phase)
        self.error_message = None


class JobRecords:
    """The job records of a store. Each job has one writer at a time; ids never collide, whoever shares the store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def create(self, fields: Mapping[str, Any], *, first_id: int | None = None) -> JobRecord:
        """Store a new job under the next free id.

        Args:
            first_id: the first one to try, by someone who knows which are taken; None: the store is listed.

        Raises:
            ConfigError: a field is unknown, missing or wrong.
        """
        job_id = first_id or max(self._ids(), default=0) + 1
        while True:
            try:
                record = JobRecord.model_validate({**fields, "id": job_id})
            except ValidationError as error:
                raise ConfigError(f"A job cannot be made of these fields: {_reason(error)}.") from error
            try:
                self.store.put_bytes(layout.job_record_key(job_id), _dump(record), if_absent=True)
            except AlreadyExistsError:
                # Somebody else's jobs: one step is free of a listing, more of them may be thousands.
                job_id = job_id + 1 if job_id == first_id else max(max(self._ids(), default=0), job_id) + 1
                continue
            failpoint("job.after_create")
            return record

    def load(self, job_id: int) -> JobRecord:
        """The job `job_id`.

        Raises:
            UnknownNameError: there is none.
            StorageError: its record cannot be read.
        """
        key = layout.job_record_key(job_id)
        try:
            data = self.store.get_bytes(key)
        except NotFoundError:
            raise self._unknown(job_id) from None
        try:
            record = JobRecord.model_validate_json(data)
        except ValidationError as error:
            raise StorageError(
                f"The record of job {job_id} cannot be read: {_reason(error)}.",
                f"Look at {self.store.location}/{key}; a newer eagleray may have written it.",
            ) from error
        if record.id != job_id:
            raise StorageError(f"The record {self.store.location}/{key} is of job {record.id}.", "Move it back.")
        return record

    def save(self, record: JobRecord) -> None:
        """Write the record, whole or not at all, and set its `updated_at`."""
        self.store.put_bytes(*encode_record(record))

    def list(self) -> Iterable[JobRecord]:
        """All jobs, newest first. One that cannot be read is logged and left out, so that it hides no other."""
        for job_id in sorted(self._ids(), reverse=True):
            try:
                yield self.load(job_id)
            except UnknownNameError:
                continue
            except StorageError as error:
                _log.warning("%s", error)

    def _ids(self) -> Iterable[int]:
        for info in self.store.list(layout.JOBS):
            found = re.fullmatch(rf"{layout.JOBS}/([1-9]\d*)\.json", info.key)
            if found:
                yield int(found[1])

    def _unknown(self, job_id: int) -> UnknownNameError:
        recent = sorted(self._ids(), reverse=True)[:10]
        known = f"Recent jobs: {', '.join(map(str, recent))}." if recent else "There is no job there yet."
        return UnknownNameError(
            f"Unknown job '{job_id}' in {self.store.location}.", f"{known} EAGLERAY_STORAGE names another store."
        )


def artifacts_of(store: Store, record: JobRecord) -> Artifacts:
    """The portable files that are in the store now; none where it does not answer."""

    def found(name: str) -> str | None:
        try:
            return f"{store.location}/{record.prefix}/{name}.pt" if store.exists(f"{record.prefix}/{name}.pt") else None
        except StorageError:
            return None

    return Artifacts(best=found("best"), last=found("last"))


def note_artifacts(store: Store, job_id: int) -> None:
    """Name the files in the record of an ended job that came into the store after its end."""
    records = JobRecords(store)
    try:
        record = records.load(job_id)
    except UnknownNameError:
        return
    artifacts = artifacts_of(store, record)
    if record.phase.is_terminal and artifacts != record.artifacts:
        record.artifacts = artifacts
        # A `last.pt` is the copy of a committed checkpoint.
        record.resumable = record.phase is not Phase.COMPLETED and artifacts.last is not None
        records.save(record)


class EpochMetrics(BaseModel):
    """One row of `metrics.jsonl`."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    epoch: int = Field(ge=0)
    attempt: int = Field(ge=1)
    metrics: dict[str, float]
    time: datetime = Field(default_factory=_now)


class MetricsFile:
    """`metrics.jsonl` below a job's prefix: one row per epoch, where the newest attempt wins. One writer at a time."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.store = store
        self.key = layout.metrics_key(prefix)

    def read(self) -> list[EpochMetrics]:
        """The rows, by epoch; none where there is no file. Raises StorageError where it cannot be read."""
        try:
            lines = self.store.get_bytes(self.key).splitlines()
        except NotFoundError:
            return []
        try:
            return _newest(EpochMetrics.model_validate_json(line) for line in lines if line.strip())
        except ValidationError as error:
            raise StorageError(
                f"The metrics {self.store.location}/{self.key} cannot be read: {_reason(error)}.",
                "Remove the broken line.",
            ) from error

    def append(self, row: EpochMetrics) -> None:
        self.merge([row])

    def merge(self, rows: Iterable[EpochMetrics]) -> None:
        """Add rows; of two for one epoch the newer attempt's stays, and of one attempt's the one given last."""
        self.replace(_newest([*self.read(), *rows]))

    def replace(self, rows: Iterable[EpochMetrics]) -> None:
        """Write exactly `rows`, whole or not at all."""
        self.store.put_bytes(self.key, encode_metrics(rows))


def encode_record(record: JobRecord) -> tuple[str, bytes]:
    """The key of `record` and its bytes, as of now: its `updated_at` is set."""
    record.updated_at = _now()
    return layout.job_record_key(record.id), _dump(record)


def encode_metrics(rows: Iterable[EpochMetrics]) -> bytes:
    return b"".join(row.model_dump_json().encode() + b"\n" for row in rows)


def _newest(rows: Iterable[EpochMetrics]) -> list[EpochMetrics]:
    by_epoch: dict[int, EpochMetrics] = {}
    for row in rows:
        old = by_epoch.get(row.epoch)
        if old is None or row.attempt >= old.attempt:
            by_epoch[row.epoch] = row
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def _dump(record: JobRecord) -> bytes:
    return record.model_dump_json(indent=1).encode()


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
