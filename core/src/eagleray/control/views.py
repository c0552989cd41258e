"""What clients see of jobs, attempts, events, metrics, logs, projects, users and keys."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from eagleray.jobs.phases import JobStatus, Phase
from eagleray.jobs.records import Artifacts, BestRecord

JOBS_PATH = "/api/v1/training/jobs"


class View(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings", protected_namespaces=())


class JobView(View):
    """A job. The names are `JobRecord`'s; what the queue knows stands beside them.

    Attributes:
        reason: why it waits, while it is queued; else why it is where it is, or empty.
        queue_position: 1 for the next one; None unless queued.
        estimated_start_at: a guess from the jobs before it; None where nothing is known.
        etag: changes with every change of the job; for `If-Match`.
        progress: of the current epoch: `epoch`, `step`, `steps`, `metrics`.
    """

    id: int
    session_id: str | None = None
    project_id: str | None = None
    created_by: str | None = None
    framework: str
    model_name: str
    task_type: str
    dataset_path: str
    dataset_format: str
    epochs: int
    batch_size: int | Literal["auto"]
    learning_rate: float | None = None
    output_dir: str = ""
    error_message: str | None = None
    hint: str | None = None
    failure_kind: str | None = None
    advanced_config: dict[str, Any] = Field(default_factory=dict)
    phase: Phase
    spec: dict[str, Any] = Field(default_factory=dict)
    dataset: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
    epochs_done: int = 0
    metrics: dict[str, float] = Field(default_factory=dict)
    best: BestRecord | None = None
    artifacts: Artifacts = Field(default_factory=Artifacts)
    resumable: bool = False
    warnings: list[str] = Field(default_factory=list)
    progress: dict[str, Any] | None = None
    tracking_url: str | None = None
    priority: int = 0
    reason: str = ""
    queue_position: int | None = None
    estimated_start_at: datetime | None = None
    parent: int | None = None
    attempt_count: int = 0
    failure_counts: dict[str, int] = Field(default_factory=dict)
    created_at: datetime
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    updated_at: datetime
    version: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def status(self) -> JobStatus:
        return self.phase.status

    @computed_field  # type: ignore[prop-decorator]
    @property
    def etag(self) -> str:
        return f'"{self.version}"'

    @computed_field  # type: ignore[prop-decorator]
    @property
    def links(self) -> dict[str, str]:
        own = f"{JOBS_PATH}/{self.id}"
        return {"self": own} | {name: f"{own}/{name}" for name in ("attempts", "events", "metrics", "logs")}


class AttemptView(View):
    """One run of a job as one Ray Job.

    Attributes:
        state: `registered` (a Ray Job that waits for admission), `submitting`, `submitted`, `running` or `ended`.
        outcome: `completed`, `stopped`, `cancelled`, or the kind of its failure; None until it has ended.
        last_seen_at: when its driver last said anything.
    """

    job_id: int
    number: int
    submission_id: str
    state: str
    outcome: str | None = None
    message: str = ""
    hint: str = ""
    node_id: str | None = None
    resumed_from_epoch: int | None = None
    created_at: datetime
    started_at: datetime | None = None
    last_seen_at: datetime | None = None
    ended_at: datetime | None = None


class EventView(View):
    """Something that happened; `seq` grows over all jobs and is what `Last-Event-ID` names."""

    seq: int
    job_id: int
    project_id: str | None = None
    attempt: int | None = None
    type: str
    time: datetime
    data: dict[str, Any] = Field(default_factory=dict)


class MetricPoint(View):
    key: str
    epoch: int
    value: float
    attempt: int
    time: datetime


class LogLine(View):
    """`id` grows with time over all ranks of a job; the cursor of `logs`."""

    id: int
    attempt: int
    rank: int
    time: datetime
    text: str


class ProjectView(View):
    """Quotas are over jobs that are admitted and not ended; None: no limit."""

    name: str
    quota_jobs: int | None = None
    quota_gpus: float | None = None
    created_at: datetime
    version: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def etag(self) -> str:
        return f'"{self.version}"'


class UserView(View):
    id: int
    name: str
    projects: list[str] | None = None
    created_at: datetime


class KeyView(View):
    """A key without its secret; `prefix` is what of it may be shown."""

    id: int
    name: str
    prefix: str
    scopes: list[str]
    projects: list[str] | None = None
    user_id: int | None = None
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
