"""The reading side: straight from the database, in any process, without the control plane."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, func, select
from sqlalchemy.exc import DBAPIError

from eagleray.contract.errors import ConfigError, UnknownNameError
from eagleray.control.commands import Caller
from eagleray.control.database.opening import READING, explained
from eagleray.control.database.tables import (
    ApiKey,
    Attempt,
    DatasetRow,
    Event,
    LogRow,
    Metric,
    Project,
    TrainingJob,
    User,
)
from eagleray.control.views import (
    AttemptView,
    EventView,
    JobView,
    KeyView,
    LogLine,
    MetricPoint,
    ProjectView,
    UserView,
)
from eagleray.jobs.phases import Phase

Projects = frozenset[str] | None
FILTERS = (
    "status",
    "phase",
    "project_id",
    "framework",
    "model_name",
    "task_type",
    "created_by",
    "session_id",
    "parent",
    "created_after",
    "created_before",
)
_JOB_COLUMNS = [column for column in TrainingJob.__table__.columns if column.name in JobView.model_fields]
_ATTEMPT_COLUMNS = [column for column in Attempt.__table__.columns if column.name in AttemptView.model_fields]
_KEY_COLUMNS = [column for column in ApiKey.__table__.columns if column.name in KeyView.model_fields]


class Queries:
    """`projects` is what the caller may see: None for everything."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine.execution_options(**{READING: True})

    def get_job(self, job_id: int, projects: Projects = None) -> JobView:
        """Raises UnknownNameError, also for another project's job."""
        wanted = _visible(select(*_JOB_COLUMNS).where(TrainingJob.id == job_id), projects)
        with self.reading() as connection:
            row = connection.execute(wanted).one_or_none()
            if row is None:
                raise unknown_job(job_id)
            position = None
            if row.phase == Phase.QUEUED:
                position = 1 + connection.execute(_queued_before(row)).scalar_one()
            return job_view(row, position)

    def list_jobs(
        self,
        projects: Projects = None,
        filters: Mapping[str, Any] | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> tuple[list[JobView], str | None]:
        """A page of jobs, newest first, and the cursor of the next page, if there is one.

        Raises:
            ConfigError: a filter or the cursor is wrong.
        """
        wanted = _visible(select(*_JOB_COLUMNS), projects)
        for name, value in (filters or {}).items():
            wanted = _filtered(wanted, name, value)
        if after is not None:
            wanted = wanted.where(TrainingJob.id < _cursor(after))
        with self.reading() as connection:
            rows = connection.execute(wanted.order_by(TrainingJob.id.desc()).limit(limit + 1)).all()
            positions: dict[int, int] = {}
            if any(row.phase == Phase.QUEUED for row in rows):
                order = connection.execute(_queue_order()).scalars()
                positions = {job_id: number for number, job_id in enumerate(order, 1)}
        views = [job_view(row, positions.get(row.id)) for row in rows[:limit]]
        return views, str(views[-1].id) if len(rows) > limit else None

    def attempts(self, job_id: int, projects: Projects = None) -> list[AttemptView]:
        wanted = select(*_ATTEMPT_COLUMNS).where(Attempt.job_id == job_id).order_by(Attempt.number)
        with self.reading() as connection:
            self._check_visible(connection, job_id, projects)
            return [AttemptView.model_validate(dict(row._mapping)) for row in connection.execute(wanted)]

    def events(
        self, projects: Projects = None, job_id: int | None = None, after_seq: int = 0, limit: int = 500
    ) -> list[EventView]:
        """In order of `seq`, above `after_seq`."""
        wanted = select(*Event.__table__.columns).where(Event.seq > after_seq).order_by(Event.seq).limit(limit)
        if job_id is not None:
            wanted = wanted.where(Event.job_id == job_id)
        if projects is not None:
            wanted = wanted.where(Event.project_id.in_(sorted(projects)))
        with self.reading() as connection:
            return [EventView.model_validate(dict(row._mapping)) for row in connection.execute(wanted)]

    def newest_seq(self) -> int:
        with self.reading() as connection:
            return connection.execute(select(func.coalesce(func.max(Event.seq), 0))).scalar_one()

    def metrics(
        self,
        job_id: int,
        keys: Sequence[str] | None = None,
        first_epoch: int | None = None,
        last_epoch: int | None = None,
        max_points: int | None = None,
        projects: Projects = None,
    ) -> list[MetricPoint]:
        """By key, then epoch; with `max_points`, evenly thinned per key, first and last kept."""
        wanted = select(Metric.key, Metric.epoch, Metric.value, Metric.attempt, Metric.time)
        wanted = wanted.where(Metric.job_id == job_id)
        if keys:
            wanted = wanted.where(Metric.key.in_(keys))
        if first_epoch is not None:
            wanted = wanted.where(Metric.epoch >= first_epoch)
        if last_epoch is not None:
            wanted = wanted.where(Metric.epoch <= last_epoch)
        with self.reading() as connection:
            self._check_visible(connection, job_id, projects)
            rows = connection.execute(wanted.order_by(Metric.key, Metric.epoch)).all()
        by_key: dict[str, list[MetricPoint]] = {}
        for row in rows:
            value = math.nan if row.value is None else row.value
            by_key.setdefault(row.key, []).append(MetricPoint.model_validate({**row._mapping, "value": value}))
        return [point for points in by_key.values() for point in thinned(points, max_points)]

    def logs(
        self,
        job_id: int,
        attempt: int | None = None,
        rank: int | None = None,
        after: int | None = None,
        limit: int = 1000,
        tail: int | None = None,
        projects: Projects = None,
    ) -> list[LogLine]:
        """Lines after the cursor `after` (a line's `id`), or the last `tail` ones; in order either way."""
        wanted = select(LogRow.id, LogRow.attempt, LogRow.rank, LogRow.time, LogRow.text).where(LogRow.job_id == job_id)
        if attempt is not None:
            wanted = wanted.where(LogRow.attempt == attempt)
        if rank is not None:
            wanted = wanted.where(LogRow.rank == rank)
        if after is not None:
            wanted = wanted.where(LogRow.id > after)
        newest_first = tail is not None
        wanted = wanted.order_by(LogRow.id.desc() if newest_first else LogRow.id).limit(tail if newest_first else limit)
        with self.reading() as connection:
            self._check_visible(connection, job_id, projects)
            lines = [LogLine.model_validate(dict(row._mapping)) for row in connection.execute(wanted)]
        return lines[::-1] if newest_first else lines

    def projects(self, projects: Projects = None) -> list[ProjectView]:
        wanted = select(*Project.__table__.columns).order_by(Project.name)
        if projects is not None:
            wanted = wanted.where(Project.name.in_(sorted(projects)))
        with self.reading() as connection:
            return [ProjectView.model_validate(dict(row._mapping)) for row in connection.execute(wanted)]

    def dataset_ids(self) -> list[str]:
        """Those that the table of datasets has."""
        with self.reading() as connection:
            return list(connection.scalars(select(DatasetRow.id)))

    def users(self) -> list[UserView]:
        with self.reading() as connection:
            rows = connection.execute(select(*User.__table__.columns).order_by(User.id))
            return [UserView.model_validate(dict(row._mapping)) for row in rows]

    def keys(self) -> list[KeyView]:
        with self.reading() as connection:
            rows = connection.execute(select(*_KEY_COLUMNS).order_by(ApiKey.id))
            return [KeyView.model_validate(dict(row._mapping)) for row in rows]

    def key_by_hash(self, sha256: str) -> Caller | None:
        """Who holds the key with this hash; None where there is none, or it is revoked or past its time."""
        wanted = select(*_KEY_COLUMNS, User.projects.label("of_user"))
        wanted = wanted.join(User, User.id == ApiKey.user_id, isouter=True).where(ApiKey.sha256 == sha256)
        with self.reading() as connection:
            row = connection.execute(wanted).one_or_none()
        if row is None or row.revoked_at is not None:
            return None
        if row.expires_at is not None and row.expires_at <= datetime.now(UTC):
            return None
        return Caller(row.id, row.user_id, frozenset(row.scopes), _both(row.projects, row.of_user), row.name)

    def counts(self) -> dict[str, Any]:
        """For Prometheus: jobs by (phase, framework), attempts by outcome, `queued`, `oldest_queued_at`, `events`."""
        jobs = select(TrainingJob.phase, TrainingJob.framework, func.count()).where(TrainingJob.deleted_at.is_(None))
        attempts = select(Attempt.outcome, func.count()).where(Attempt.outcome.is_not(None)).group_by(Attempt.outcome)
        oldest = select(func.min(TrainingJob.queued_at), func.count()).where(TrainingJob.phase == Phase.QUEUED)
        with self.reading() as connection:
            by_phase = connection.execute(jobs.group_by(TrainingJob.phase, TrainingJob.framework)).all()
            since, queued = connection.execute(oldest).one()
            return {
                "jobs": {(phase, framework): count for phase, framework, count in by_phase},
                "attempts": {row[0]: row[1] for row in connection.execute(attempts)},
                "queued": queued,
                "oldest_queued_at": since,
                "events": connection.execute(select(func.coalesce(func.max(Event.seq), 0))).scalar_one(),
            }

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Raises DatabaseError where the database does not answer; never the driver's own errors."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise explained(error, self._engine.url) from error

    def _check_visible(self, connection: Any, job_id: int, projects: Projects) -> None:
        wanted = _visible(select(TrainingJob.id).where(TrainingJob.id == job_id), projects)
        if connection.execute(wanted).one_or_none() is None:
            raise unknown_job(job_id)


def unknown_job(job_id: int) -> UnknownNameError:
    return UnknownNameError(f"Unknown job '{job_id}'.", "Try: eagleray jobs list")


def job_view(row: Row[Any], position: int | None) -> JobView:
    values = dict(row._mapping)
    size = values["batch_size"]
    values["batch_size"] = size if size == "auto" else int(size)
    return JobView.model_validate({**values, "queue_position": position})


def thinned(points: list[MetricPoint], max_points: int | None) -> list[MetricPoint]:
    if max_points is None or len(points) <= max_points:
        return points
    if max_points < 2:
        return points[-1:]
    step = (len(points) - 1) / (max_points - 1)
    return [points[math.floor(number * step + 0.5)] for number in range(max_points)]


def _visible(wanted: Select[Any], projects: Projects) -> Select[Any]:
    wanted = wanted.where(TrainingJob.deleted_at.is_(None))
    return wanted if projects is None else wanted.where(TrainingJob.project_id.in_(sorted(projects)))


def _filtered(wanted: Select[Any], name: str, value: Any) -> Select[Any]:
    if name not in FILTERS:
        raise ConfigError(f"Jobs cannot be filtered by '{name}'.", f"Valid: {', '.join(FILTERS)}.")
    if name == "created_after":
        return wanted.where(TrainingJob.created_at > value)
    if name == "created_before":
        return wanted.where(TrainingJob.created_at < value)
    column = TrainingJob.__table__.columns[name]
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return wanted.where(column.in_(list(value)) if several else column == value)


def _cursor(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"'{text[:40]}' is not a cursor.", "Pass on the one that the last page gave.") from None


def _queued_before(row: Row[Any]) -> Select[Any]:
    """How many queued jobs come before `row`, by priority and time. Fair share may still change places."""
    earlier = (TrainingJob.queued_at < row.queued_at) | (
        (TrainingJob.queued_at == row.queued_at) & (TrainingJob.id < row.id)
    )
    ahead = (TrainingJob.priority > row.priority) | ((TrainingJob.priority == row.priority) & earlier)
    return select(func.count()).where(TrainingJob.phase == Phase.QUEUED, TrainingJob.deleted_at.is_(None), ahead)


def _queue_order() -> Select[Any]:
    queued = select(TrainingJob.id).where(TrainingJob.phase == Phase.QUEUED, TrainingJob.deleted_at.is_(None))
    return queued.order_by(TrainingJob.priority.desc(), TrainingJob.queued_at, TrainingJob.id)


def _both(of_key: list[str] | None, of_user: list[str] | None) -> Projects:
    """A key never reaches further than its user."""
    if of_key is None or of_user is None:
        found = of_user if of_key is None else of_key
        return None if found is None else frozenset(found)
    return frozenset(of_key) & frozenset(of_user)
