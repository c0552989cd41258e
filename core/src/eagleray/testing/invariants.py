"""What must hold after every fault, checked on what a client has seen.

A test records a `History` while it kills things, and hands it to `check` with the database and the store at the end:

    I1  every acknowledged submit ends in exactly one terminal state, and one run of it counts
    I2  every visible checkpoint has the bytes whose sha256 is recorded
    I3  a resume starts at the last committed checkpoint, and the epochs are exact
    I4  nothing half-written is visible
    I5  no process, lease, upload in parts or temporary file is left behind
    I6  every request is answered in its time, with a stable code and a request id
    I7  metrics and log lines that were acknowledged are there, once each
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError
from sqlalchemy import Engine, func, select

from eagleray.contract.errors import StorageError, UnknownNameError
from eagleray.control.database.tables import Attempt, Metric
from eagleray.control.queries import Queries
from eagleray.control.views import AttemptView, EventView, JobView
from eagleray.jobs.records import JobRecord
from eagleray.storage import layout
from eagleray.storage.checkpoints import Checkpoints, Manifest
from eagleray.storage.store import TEMPORARY_PREFIX, NotFoundError, Store

# Of a stopped writer: younger ones may belong to somebody.
TEMPORARY_TTL_S = 24 * 3600.0
_CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_FOLDER = re.compile(r"attempts/(\d+)/epoch-(\d+)/")


@dataclass(frozen=True)
class Submit:
    """A create that was acknowledged; `key` is its Idempotency-Key."""

    job_id: int
    key: str = ""


@dataclass(frozen=True)
class Answer:
    """What a client got for one request.

    Attributes:
        status: 0: no answer at all.
        code: of a problem's body; empty where the request succeeded.
        limit_s: how long it may have taken.
        at: when it was sent, by `time.monotonic()`.
    """

    request: str
    status: int
    seconds: float
    limit_s: float
    code: str = ""
    request_id: str = ""
    at: float = 0.0


@dataclass
class History:
    """What a client did and saw, in order. Every method may be called from any thread."""

    submits: list[Submit] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    # (job, phase) of every terminal phase that was seen.
    endings: list[tuple[int, str]] = field(default_factory=list)
    # Jobs that were asked to go on after their end: each may end once more.
    resumed: list[int] = field(default_factory=list)
    deleted: set[int] = field(default_factory=set)
    metrics: set[tuple[int, str, int]] = field(default_factory=set)
    lines: dict[tuple[int, int], str] = field(default_factory=dict)
    # (what, when) of everything that was killed or started again.
    marks: list[tuple[str, float]] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)

    def submitted(self, job_id: int, key: str = "") -> None:
        self.submits.append(Submit(job_id, key))

    def answered(self, answer: Answer) -> None:
        self.answers.append(answer)

    def saw_end(self, job_id: int, phase: str) -> None:
        self.endings.append((job_id, phase))

    def saw_metric(self, job_id: int, key: str, epoch: int) -> None:
        self.metrics.add((job_id, key, epoch))

    def saw_line(self, job_id: int, line_id: int, text: str) -> None:
        self.lines[(job_id, line_id)] = text

    def mark(self, what: str) -> None:
        self.marks.append((what, time.monotonic()))

    def outage(self, began: float, ended: float) -> None:
        """From when to when the whole server was away, by `time.monotonic()`: nobody can answer then."""
        self.outages.append((began, ended))


@dataclass(frozen=True)
class World:
    """What is looked at beside the history.

    Attributes:
        processes: command lines of processes of jobs that have ended.
    """

    engine: Engine
    store: Store
    processes: Callable[[], Sequence[str]] = tuple
    temporary_ttl_s: float = TEMPORARY_TTL_S


def check(history: History, world: World, *, patience_s: float = 0.0) -> None:
    """Raises AssertionError with every violation. Leases and processes may take `patience_s` to go."""
    deadline = time.monotonic() + patience_s
    while found := violations(history, world):
        if time.monotonic() > deadline:
            told = "\n  ".join(found)
            raise AssertionError(f"{len(found)} violations:\n  {told}\nmarks: {history.marks}")
        time.sleep(0.5)


def violations(history: History, world: World) -> list[str]:
    """Each as a sentence that begins with the invariant's name."""
    found = [*_of_answers(history), *_of_client(history)]
    queries = Queries(world.engine)
    for job_id in sorted({submit.job_id for submit in history.submits} - history.deleted):
        try:
            job = queries.get_job(job_id)
        except UnknownNameError:
            found.append(f"I1: job {job_id} was acknowledged and is not there.")
            continue
        attempts, events = queries.attempts(job_id), _events(queries, job_id)
        found += _of_endings(history, job, attempts, events)
        found += _of_resumes(job, attempts, events)
        found += _of_epochs(job, events, queries)
        found += _of_store(job, world.store)
    return [*found, *_of_acknowledged(history, queries, world.engine), *_of_leftovers(world)]


def _events(queries: Queries, job_id: int) -> list[EventView]:
    found: list[EventView] = []
    while page := queries.events(job_id=job_id, after_seq=found[-1].seq if found else 0):
        found += page
    return found


def _of_client(history: History) -> Iterator[str]:
    """I1, as far as the client alone can tell."""
    jobs: dict[str, set[int]] = {}
    for submit in history.submits:
        if submit.key:
            jobs.setdefault(submit.key, set()).add(submit.job_id)
    for key, made in jobs.items():
        if len(made) > 1:
            yield f"I1: one Idempotency-Key '{key}' made jobs {sorted(made)}."
    endings: dict[int, set[str]] = {}
    for job_id, phase in history.endings:
        endings.setdefault(job_id, set()).add(phase)
    for job_id, phases in endings.items():
        if len(phases) > 1 and job_id not in history.resumed:
            yield f"I1: job {job_id} was seen to end as {' and '.join(sorted(phases))}."


def _of_endings(
    history: History, job: JobView, attempts: Sequence[AttemptView], events: Sequence[EventView]
) -> Iterator[str]:
    """I1: once terminal, and as often as it was asked to go on."""
    if not job.phase.is_terminal:
        yield f"I1: job {job.id} is {job.phase.value}, which is no end ({job.reason})."
        return
    ends = [event for event in events if event.type == "phase" and event.data.get("phase") in _TERMINAL]
    allowed = 1 + history.resumed.count(job.id)
    if not 1 <= len(ends) <= allowed:
        yield f"I1: job {job.id} has ended {len(ends)} times."
    completed = [attempt.number for attempt in attempts if attempt.outcome == "completed"]
    wanted = int(job.phase.value == "completed")
    if not wanted <= len(completed) <= allowed:
        yield f"I1: job {job.id} is {job.phase.value}, and {len(completed)} runs count as completed: {completed}."
    for number, times in Counter(attempt.submission_id for attempt in attempts).items():
        if times > 1:
            yield f"I1: two attempts of job {job.id} are the one Ray Job {number}."


_TERMINAL = frozenset({"completed", "failed", "cancelled"})


def _of_resumes(job: JobView, attempts: Sequence[AttemptView], events: Sequence[EventView]) -> Iterator[str]:
    """I3: an attempt goes on behind the last checkpoint that was told before it began, or a later one."""
    committed = 0
    for event in events:
        if event.type == "checkpoint":
            committed = max(committed, int(event.data["epoch"]))
        elif event.type == "attempt" and "resumed_from_epoch" in event.data:
            resumed = event.data["resumed_from_epoch"] or 0
            if not committed <= resumed <= job.epochs:
                yield (
                    f"I3: attempt {event.attempt} of job {job.id} resumed from epoch {resumed}; "
                    f"the checkpoint of epoch {committed} was committed."
                )
    said = {event.attempt: event.data["resumed_from_epoch"] for event in events if "resumed_from_epoch" in event.data}
    for attempt in attempts:
        if attempt.number in said and attempt.resumed_from_epoch != said[attempt.number]:
            yield f"I3: attempt {attempt.number} of job {job.id} says two things of where it resumed."


def _of_epochs(job: JobView, events: Sequence[EventView], queries: Queries) -> Iterator[str]:
    """I3: every attempt trains one epoch after the other from where it resumed; a completed job has them all.

    I7: the figures of an epoch that a driver was heard to tell are there.
    """
    last: dict[int | None, int] = {}
    there = {(point.key, point.epoch) for point in queries.metrics(job.id)}
    for event in events:
        if event.type == "attempt" and "resumed_from_epoch" in event.data:
            last[event.attempt] = event.data["resumed_from_epoch"] or 0
        elif event.type == "epoch":
            epoch, before = int(event.data["epoch"]), last.get(event.attempt, 0)
            if epoch != before + 1:
                yield f"I3: attempt {event.attempt} of job {job.id} went from epoch {before} to {epoch}."
            last[event.attempt] = epoch
            if missing := sorted({(key, epoch) for key in event.data["metrics"]} - there):
                yield f"I7: job {job.id} was told {missing} and does not have it."
    if job.phase.value == "completed" and job.epochs_done != job.epochs:
        yield f"I3: job {job.id} is completed with {job.epochs_done} of {job.epochs} epochs."


def _of_store(job: JobView, store: Store) -> Iterator[str]:
    """I2 and I4: what is listed is whole."""
    prefix = layout.job_prefix(job.id, job.project_id)
    keys = [info.key for info in store.list(prefix)]
    folders: dict[tuple[int, int], list[str]] = {}
    for key in keys:
        if TEMPORARY_PREFIX in key:
            yield f"I4: '{key}' is listed, and half-written."
        if match := _FOLDER.search(key):
            folders.setdefault((int(match[1]), int(match[2])), []).append(key)
    for (attempt, epoch), files in sorted(folders.items()):
        if layout.manifest_key(prefix, attempt, epoch) in files:
            yield from _of_checkpoint(job, store, prefix, attempt, epoch)
        elif job.phase.value == "completed":
            yield f"I4: job {job.id} is completed, and epoch {epoch} of attempt {attempt} has no manifest."
    yield from _of_portable_files(job, store, prefix)
    yield from _of_records(job, store, prefix)


def _of_checkpoint(job: JobView, store: Store, prefix: str, attempt: int, epoch: int) -> Iterator[str]:
    where = f"epoch {epoch} of attempt {attempt} of job {job.id}"
    try:
        manifest = Manifest.model_validate_json(store.get_bytes(layout.manifest_key(prefix, attempt, epoch)))
    except ValidationError:
        yield f"I4: the manifest of {where} is not whole."
        return
    for name, entry in manifest.files.items():
        try:
            found = store.digest(f"{layout.checkpoint_prefix(prefix, attempt, epoch)}/{name}")
        except StorageError as error:
            yield f"I2: {name} of {where} cannot be read: {error.message}"
            continue
        if found != entry:
            yield f"I2: {name} of {where} is not what its manifest says."


def _of_portable_files(job: JobView, store: Store, prefix: str) -> Iterator[str]:
    """I2: `last.pt` and `best.pt` are some checkpoint's portable file, never a mix."""
    known = {manifest.files[manifest.portable_file].sha256 for manifest in Checkpoints(store, prefix).all()}
    for key in (layout.last_key(prefix), layout.best_key(prefix)):
        try:
            found = store.digest(key)
        except NotFoundError:
            if known and job.phase.value == "completed":
                yield f"I2: job {job.id} is completed, and there is no '{key}'."
            continue
        if found.sha256 not in known:
            yield f"I2: '{key}' is no checkpoint's portable file."


def _of_records(job: JobView, store: Store, prefix: str) -> Iterator[str]:
    """I4: the job's record and its figures in the store can be read."""
    try:
        JobRecord.model_validate_json(store.get_bytes(layout.job_record_key(job.id)))
    except NotFoundError:
        yield f"I4: job {job.id} has no record in the store."
    except ValidationError as error:
        yield f"I4: the record of job {job.id} is not whole: {error.errors(include_url=False)[0]['msg']}"
    try:
        rows = [json.loads(line) for line in store.get_bytes(layout.metrics_key(prefix)).splitlines()]
    except NotFoundError:
        return
    except ValueError:
        yield f"I4: the figures of job {job.id} in the store are not whole."
        return
    epochs = [row["epoch"] for row in rows]
    if job.phase.value == "completed" and epochs != list(range(1, job.epochs + 1)):
        yield f"I3: job {job.id} is completed, and its figures in the store are of epochs {epochs}."


def _of_answers(history: History) -> Iterator[str]:
    """I6. While the whole server was away nobody could answer; then even a refused connection is in order."""
    for answer in history.answers:
        away = any(began <= answer.at + answer.seconds and answer.at <= ended for began, ended in history.outages)
        if answer.status == 0:
            if not away:
                yield f"I6: {answer.request} was not answered at all."
            continue
        if answer.seconds > answer.limit_s:
            yield f"I6: {answer.request} took {answer.seconds:.1f} s of {answer.limit_s:g}."
        # Without a replica the proxy itself answers, and knows neither codes nor ids.
        if away:
            continue
        if not answer.request_id:
            yield f"I6: {answer.request} was answered {answer.status} without a request id."
        if answer.status >= 400 and not _CODE.fullmatch(answer.code):
            yield f"I6: {answer.request} was answered {answer.status} with the code '{answer.code}'."


def _of_acknowledged(history: History, queries: Queries, engine: Engine) -> Iterator[str]:
    """I7. That the tables have keys is looked at here too, as a migration may have lost one."""
    jobs = {job_id for job_id, _, _ in history.metrics} | {job_id for job_id, _ in history.lines}
    there: set[tuple[int, str, int]] = set()
    lines: dict[tuple[int, int], str] = {}
    for job_id in sorted(jobs - history.deleted):
        try:
            there |= {(job_id, point.key, point.epoch) for point in queries.metrics(job_id)}
            lines |= {(job_id, line.id): line.text for line in queries.logs(job_id, limit=10_000_000)}
        except UnknownNameError:
            continue
    for missing in sorted(row for row in history.metrics - there if row[0] not in history.deleted):
        yield f"I7: the figure {missing} was seen and is not there."
    for (job_id, line_id), text in history.lines.items():
        if job_id not in history.deleted and lines.get((job_id, line_id)) != text:
            yield f"I7: line {line_id} of job {job_id} was seen and is not there: '{text[:60]}'."
    twice = select(Metric.job_id, Metric.epoch, Metric.key).group_by(Metric.job_id, Metric.epoch, Metric.key)
    with engine.connect() as connection:
        for row in connection.execute(twice.having(func.count() > 1)):
            yield f"I7: job {row.job_id} has '{row.key}' of epoch {row.epoch} more than once."


def _of_leftovers(world: World) -> Iterator[str]:
    """I5."""
    for command in world.processes():
        yield f"I5: a process of an ended job is still there: {command}"
    held = select(Attempt.job_id, Attempt.number).where(Attempt.released.is_(False))
    with world.engine.connect() as connection:
        for row in connection.execute(held):
            yield f"I5: attempt {row.number} of job {row.job_id} still holds its lease."
    if swept := world.store.sweep_unfinished(world.temporary_ttl_s):
        yield f"I5: {swept} uploads in parts or temporary files were older than {world.temporary_ttl_s:g} s."
