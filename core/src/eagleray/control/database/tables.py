"""The tables. Migrations are written for them (`migrations/versions`); a test holds the two together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, ForeignKey, Index, Integer, MetaData, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

# Names for what databases would name themselves, so that migrations can refer to them.
_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
# Only a plain INTEGER key counts by itself in SQLite.
_Serial = BigInteger().with_variant(Integer, "sqlite")


class Moment(TypeDecorator[datetime]):
    """A time with its zone, always UTC. SQLite forgets zones, so they are put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=_NAMING)
    type_annotation_map = {dict[str, Any]: JSON, list[str]: JSON, datetime: Moment, str: Text}


class TrainingJob(Base):
    """A job and its place in the queue.

    Attributes:
        current_attempt: the newest attempt's number; what any other attempt says is refused.
        failure_counts: failures by kind since the last new checkpoint; the budgets are counted against it.
        not_before: a back-off's end.
        excluded_nodes: Ray node ids that this job shall not use again.
        gang: workers and what each needs, as `scheduling.Gang` reads it.
        deleted_at: invisible from then on; its files and rows go afterwards.
    """

    __tablename__ = "training_jobs"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    session_id: Mapped[str | None]
    project_id: Mapped[str | None]
    created_by: Mapped[str | None]
    framework: Mapped[str]
    model_name: Mapped[str]
    task_type: Mapped[str]
    dataset_path: Mapped[str]
    dataset_format: Mapped[str]
    epochs: Mapped[int]
    batch_size: Mapped[str]
    learning_rate: Mapped[float | None]
    status: Mapped[str]
    phase: Mapped[str]
    output_dir: Mapped[str] = mapped_column(default="")
    error_message: Mapped[str | None]
    hint: Mapped[str | None]
    failure_kind: Mapped[str | None]
    advanced_config: Mapped[dict[str, Any]]
    spec: Mapped[dict[str, Any]]
    dataset: Mapped[dict[str, Any]]
    environment: Mapped[dict[str, Any]]
    epochs_done: Mapped[int] = mapped_column(default=0)
    metrics: Mapped[dict[str, Any]]
    best: Mapped[dict[str, Any] | None]
    artifacts: Mapped[dict[str, Any]]
    resumable: Mapped[bool] = mapped_column(default=False)
    warnings: Mapped[list[str]]
    progress: Mapped[dict[str, Any] | None]
    tracking_url: Mapped[str | None]
    priority: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str] = mapped_column(default="")
    estimated_start_at: Mapped[datetime | None]
    parent: Mapped[int | None] = mapped_column(BigInteger)
    gang: Mapped[dict[str, Any]]
    current_attempt: Mapped[int] = mapped_column(default=0)
    attempt_count: Mapped[int] = mapped_column(default=0)
    failure_counts: Mapped[dict[str, Any]]
    excluded_nodes: Mapped[list[str]]
    not_before: Mapped[datetime | None]
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=1)

    __table_args__ = (
        Index("ix_training_jobs_queue", "phase", "priority", "queued_at", "id"),
        Index("ix_training_jobs_project_id", "project_id", "id"),
        Index("ix_training_jobs_status", "status", "id"),
        Index("ix_training_jobs_deleted_at", "deleted_at"),
    )


class Attempt(Base):
    """One run of a job as one Ray Job.

    Attributes:
        last_seq: the highest `seq` of its driver's events that is kept.
        lease_until: when its driver counts as silent; never by itself a failure.
        stop_sent_at: when Ray was asked to stop it.
        ray_ended_at: when Ray first called it ended.
        released: Ray says that it has ended, so it holds nothing of the cluster any more.
    """

    __tablename__ = "attempts"

    job_id: Mapped[int] = mapped_column(ForeignKey("training_jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    submission_id: Mapped[str] = mapped_column(unique=True)
    state: Mapped[str]
    outcome: Mapped[str | None]
    message: Mapped[str] = mapped_column(default="")
    hint: Mapped[str] = mapped_column(default="")
    node_id: Mapped[str | None]
    resumed_from_epoch: Mapped[int | None]
    last_seq: Mapped[int] = mapped_column(default=0)
    log_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    last_seen_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    stop_sent_at: Mapped[datetime | None]
    ray_ended_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    released: Mapped[bool] = mapped_column(default=False)

    __table_args__ = (Index("ix_attempts_released", "released", "state"),)


class Event(Base):
    """What happened, in the order of `seq`; of `progress` and `log` only a job's newest is kept."""

    __tablename__ = "events"

    seq: Mapped[int] = mapped_column(_Serial, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigInteger)
    project_id: Mapped[str | None]
    attempt: Mapped[int | None]
    type: Mapped[str]
    time: Mapped[datetime]
    data: Mapped[dict[str, Any]]

    __table_args__ = (
        Index("ix_events_job_id", "job_id", "seq"),
        Index("ix_events_project_id", "project_id", "seq"),
        # A `seq` that was given out is never given out again, or a reconnecting reader would miss events.
        {"sqlite_autoincrement": True},
    )


class Metric(Base):
    """One value of one epoch; of two attempts the newer one's stays. SQLite keeps no NaN, so it is NULL."""

    __tablename__ = "metrics"

    job_id: Mapped[int] = mapped_column(ForeignKey("training_jobs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float | None]
    attempt: Mapped[int]
    time: Mapped[datetime]


class LogRow(Base):
    """A line that a worker printed. Beyond a limit per attempt only the whole file in the store has it."""

    __tablename__ = "log_lines"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigInteger)
    attempt: Mapped[int]
    rank: Mapped[int]
    time: Mapped[datetime]
    text: Mapped[str]

    __table_args__ = (Index("ix_log_lines_job_id", "job_id", "id"), {"sqlite_autoincrement": True})


class DatasetRow(Base):
    """What a dataset's record in the store says; that record is the truth, and this its index.

    Attributes:
        project_id: none so far: datasets are shared by all keys of a server.
        version: the newest version's number.
    """

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str | None]
    name: Mapped[str]
    format: Mapped[str]
    storage_path: Mapped[str]
    num_images: Mapped[int] = mapped_column(default=0)
    num_annotations: Mapped[int] = mapped_column(default=0)
    classes: Mapped[list[str]]
    source_type: Mapped[str]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)

    __table_args__ = (Index("ix_datasets_project_id", "project_id", "id"),)


class Project(Base):
    __tablename__ = "projects"

    name: Mapped[str] = mapped_column(primary_key=True)
    quota_jobs: Mapped[int | None]
    quota_gpus: Mapped[float | None]
    created_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    projects: Mapped[list[str] | None]
    created_at: Mapped[datetime]


class ApiKey(Base):
    """A key; only the sha256 of its secret is kept, in lower-case hex."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True)
    name: Mapped[str]
    prefix: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    projects: Mapped[list[str] | None]
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Counter(Base):
    """The highest id that a table of this name has given out, rows that are gone included."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class IdempotencyKey(Base):
    """Which job a create with this key made, and for which body (sha256)."""

    __tablename__ = "idempotency_keys"

    id: Mapped[int] = mapped_column(_Serial, primary_key=True)
    scope: Mapped[str]
    key: Mapped[str]
    body_sha256: Mapped[str]
    job_id: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("scope", "key"), Index("ix_idempotency_keys_created_at", "created_at"))
