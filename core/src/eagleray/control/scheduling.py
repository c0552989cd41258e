"""Who may start now, and why the others wait: a pure function of the queue, the running jobs and the cluster."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from eagleray.control.fitting import Capacity, Gang, Room, workers_on

# Estimates are made for the head of the queue only; further back they would be noise.
ESTIMATED_JOBS = 50
_UNKNOWN_S = 3600.0


@dataclass(frozen=True)
class QueuedJob:
    """Times are seconds on one clock.

    Attributes:
        holds_driver: its driver runs already (`ray job submit`), so it needs no place on the head.
    """

    id: int
    project: str | None
    priority: int
    queued_at: float
    gang: Gang
    not_before: float = 0.0
    holds_driver: bool = False


@dataclass(frozen=True)
class AdmittedJob:
    """A job that holds its gang, or soon will.

    Attributes:
        placed: its workers hold their resources, so the cluster's free figures are without them already.
        ends_at: an estimate; None: unknown.
    """

    id: int
    project: str | None
    gang: Gang
    placed: bool
    ends_at: float | None = None


@dataclass(frozen=True)
class Quota:
    """Of a project; None: no limit."""

    jobs: int | None = None
    gpus: float | None = None


@dataclass(frozen=True)
class ScheduleState:
    """Everything a pass looks at.

    Attributes:
        capacity: None: the cluster does not answer, so nothing is admitted.
        max_drivers: how many jobs the head can drive at once.
        reserve_after_s: how long a job that does not fit waits before nodes are kept for it.
    """

    now: float
    queued: Sequence[QueuedJob]
    admitted: Sequence[AdmittedJob]
    capacity: Capacity | None
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    max_drivers: int = 8
    reserve_after_s: float = 600.0


@dataclass(frozen=True)
class Admit:
    job_id: int


@dataclass(frozen=True)
class Wait:
    """`reason` does not change from pass to pass by itself, so that a waiting queue is not written all the time."""

    job_id: int
    reason: str
    estimated_start: float | None = None


@dataclass(frozen=True)
class Reserve:
    """`nodes`, and as many that can be added as it needs besides, take no further work until `job_id` fits."""

    job_id: int
    nodes: tuple[str, ...]


Decision = Admit | Wait | Reserve


class _Usage:
    """What each project has admitted, and who comes next by it."""

    def __init__(self, admitted: Sequence[AdmittedJob]) -> None:
        self.jobs: dict[str | None, int] = defaultdict(int)
        self.gpus: dict[str | None, float] = defaultdict(float)
        for job in admitted:
            self.add(job.project, job.gang)

    def add(self, project: str | None, gang: Gang) -> None:
        self.jobs[project] += 1
        self.gpus[project] += gang.gpus

    def share(self, project: str | None) -> tuple[float, int]:
        return self.gpus[project], self.jobs[project]

    def refusal(self, job: QueuedJob, quota: Quota | None) -> str:
        if quota is None:
            return ""
        if quota.jobs is not None and self.jobs[job.project] >= quota.jobs:
            return f"project {job.project} may run {quota.jobs} job{'s' if quota.jobs != 1 else ''} at once"
        if quota.gpus is not None and self.gpus[job.project] + job.gang.gpus > quota.gpus:
            return f"project {job.project} may use {quota.gpus:g} GPUs at once, and this job needs {job.gang.gpus:g}"
        return ""


def in_order(queued: Sequence[QueuedJob], usage: _Usage) -> Iterator[QueuedJob]:
    """By priority; among equals the project that holds least; within a project the oldest.

    `usage` may grow between two jobs: the next one is chosen by what is held by then.
    """
    by_priority: dict[int, dict[str | None, list[QueuedJob]]] = defaultdict(lambda: defaultdict(list))
    for job in queued:
        by_priority[job.priority][job.project].append(job)
    for priority in sorted(by_priority, reverse=True):
        lines = {
            project: deque(sorted(jobs, key=lambda job: (job.queued_at, job.id)))
            for project, jobs in by_priority[priority].items()
        }
        heap = [_place(usage, project, line[0]) for project, line in lines.items()]
        heapq.heapify(heap)
        while heap:
            share, _, _, _, project = heap[0]
            line = lines[project]
            if share != usage.share(project):
                heapq.heapreplace(heap, _place(usage, project, line[0]))
                continue
            yield line.popleft()
            if line:
                heapq.heapreplace(heap, _place(usage, project, line[0]))
            else:
                heapq.heappop(heap)


def _place(
    usage: _Usage, project: str | None, first: QueuedJob
) -> tuple[tuple[float, int], float, int, str, str | None]:
    return usage.share(project), first.queued_at, first.id, project or "", project


def schedule(state: ScheduleState) -> list[Decision]:
    """One decision for every queued job, and at most one reservation."""
    if state.capacity is None:
        return [Wait(job.id, "the cluster does not answer") for job in state.queued]
    return _Pass(state, state.capacity).decide()


class _Pass:
    def __init__(self, state: ScheduleState, capacity: Capacity) -> None:
        self._state = state
        self._capacity = capacity
        self._usage = _Usage(state.admitted)
        self._room = Room.of(capacity)
        for job in state.admitted:
            if not job.placed:
                self._room.place(job.gang, partly=True)
        self._drivers = state.max_drivers - len(state.admitted)
        self._reserved: Reserve | None = None
        self._estimates = _Estimates(state, capacity)
        self._ever: dict[Gang, bool] = {}

    def decide(self) -> list[Decision]:
        decisions: list[Decision] = []
        for job in in_order(self._state.queued, self._usage):
            reason = self._refusal(job)
            if not reason:
                decisions.append(Admit(job.id))
                self._usage.add(job.project, job.gang)
                self._drivers -= not job.holds_driver
                continue
            decisions.append(Wait(job.id, reason, self._estimates.next(job)))
        return [*decisions, *([self._reserved] if self._reserved else [])]

    def _refusal(self, job: QueuedJob) -> str:
        """Why it waits, or nothing; its room is taken then."""
        if job.not_before > self._state.now:
            return "it failed and is tried again after a pause"
        quota = self._state.quotas.get(job.project) if job.project is not None else None
        if refused := self._usage.refusal(job, quota):
            return refused
        if self._drivers <= 0 and not job.holds_driver:
            return f"{self._state.max_drivers} jobs run, which is what the head can drive"
        fitting = self._room.place(job.gang)
        if fitting == job.gang.workers:
            return ""
        if not self._fits_ever(job.gang):
            return f"it needs {job.gang}, more than this cluster can ever have"
        self._reserve(job)
        if self._reserved and self._reserved.job_id == job.id:
            return f"it needs {job.gang}; nodes are being kept for it"
        kept = f" (job {self._reserved.job_id}, which has waited longest, has nodes kept)" if self._reserved else ""
        return f"it needs {job.gang}, and there is no room now{kept}"

    def _reserve(self, job: QueuedJob) -> None:
        """The first job in order that has waited too long gets the next nodes, whatever smaller ones there are."""
        if self._reserved or self._state.now - job.queued_at < self._state.reserve_after_s:
            return
        nodes = self._room.hold(job.gang, self._capacity)
        if nodes is not None:
            self._reserved = Reserve(job.id, nodes)

    def _fits_ever(self, gang: Gang) -> bool:
        if gang not in self._ever:
            there = sum(workers_on(node.total, gang.each) for node in self._capacity.nodes if node.id not in gang.avoid)
            for kind in self._capacity.types:
                fit = workers_on(kind.total, gang.each)
                there += fit * (1 << 30 if kind.more is None else kind.more)
            self._ever[gang] = there >= gang.workers
        return self._ever[gang]


class _Estimates:
    """When the next waiting job may start: the running ones end one by one, and the queue takes their places."""

    def __init__(self, state: ScheduleState, capacity: Capacity) -> None:
        ends = [job.ends_at for job in state.admitted]
        self._ends = sorted(end for end in ends if end is not None)
        self._unknown = not self._ends
        self._given = 0
        self._now = state.now
        spans = [end - state.now for end in self._ends if end > state.now]
        self._span = sum(spans) / len(spans) if spans else _UNKNOWN_S

    def next(self, job: QueuedJob) -> float | None:
        if self._unknown or self._given >= ESTIMATED_JOBS:
            return None
        rounds, index = divmod(self._given, len(self._ends))
        self._given += 1
        return max(self._ends[index] + rounds * self._span, self._now, job.not_before)
