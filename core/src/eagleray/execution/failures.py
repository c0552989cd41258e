"""What went wrong in an attempt, and what to do about it: values, decided without a cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class FailureKind(StrEnum):
    WORKER_LOST = "worker-lost"  # the process died: killed, out of memory, segmentation fault, node gone
    RAISED = "raised"  # the adapter raised; the same input would raise again
    CLUSTER = "cluster"  # the workers could not be placed
    ENVIRONMENT = "environment"


@dataclass(frozen=True)
class Failure:
    """One attempt's end.

    Attributes:
        error: where the worker raised one of our errors: its class name, message and hint.
    """

    kind: FailureKind
    message: str
    hint: str = ""
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Retry:
    after_s: float
    reason: str


@dataclass(frozen=True)
class GiveUp:
    reason: str


def decide(failure: Failure, *, failures_without_progress: int, max_failures: int) -> Retry | GiveUp:
    """Whether another attempt is worth it.

    Args:
        failures_without_progress: lost attempts since the last new checkpoint, this one included.
        max_failures: how many of them are allowed (`JobSpec.max_failures`).
    """
    if failure.kind is not FailureKind.WORKER_LOST:
        return GiveUp(failure.message)
    if failures_without_progress > max_failures:
        return GiveUp(
            f"a worker died {failures_without_progress} times without a new checkpoint in between: {failure.message}"
        )
    # The first restart is free: most deaths are single, and a fresh start costs seconds anyway.
    return Retry(
        after_s=0.0 if failures_without_progress <= 1 else 2.0**failures_without_progress, reason=failure.message
    )


class WorkerRaised(RuntimeError):
    """What an adapter raised, as text: nothing framework-made crosses the border."""

    def __init__(self, text: str) -> None:
        super().__init__(text)

    @classmethod
    def of(cls, **facts: Any) -> WorkerRaised:
        return cls(json.dumps(facts))

    def facts(self) -> dict[str, str]:
        found = json.loads(self.args[0])
        return {str(key): str(value) for key, value in found.items()}


def classify(error: BaseException) -> Failure:
    """The failure behind what `fit` raised."""
    for cause in _chain(error):
        if isinstance(cause, WorkerRaised):
            facts = cause.facts()
            return Failure(
                FailureKind.RAISED,
                facts.get("message", ""),
                facts.get("hint", ""),
                facts.get("error", ""),
                facts.get("traceback", ""),
            )
    names = {type(cause).__name__ for cause in _chain(error)}
    text = " ".join(str(error).split())[:600]
    if names & {"WorkerGroupStartupTimeoutError", "InsufficientClusterResourcesError"}:
        return Failure(
            FailureKind.CLUSTER,
            "The workers could not be placed in time.",
            "Try `ray status` to see what is free, or ask for fewer workers.",
        )
    if names & {"RuntimeEnvSetupError", "ActorUnschedulableError"}:
        return Failure(FailureKind.ENVIRONMENT, f"A node could not start the plugin's environment: {text}")
    if names & {"OutOfMemoryError"}:
        return Failure(FailureKind.WORKER_LOST, "A node ran out of memory.", "Lower batch_size or the image size.")
    if names & {"ActorDiedError", "RayActorError", "WorkerHealthCheckFailedError", "WorkerGroupStartupFailedError"}:
        return Failure(FailureKind.WORKER_LOST, "A worker process died.")
    return Failure(FailureKind.RAISED, f"{type(error).__name__}: {text}", traceback=str(error))


def _chain(error: BaseException) -> list[BaseException]:
    """`error`, its causes, and the failures of single workers that Ray Train carries inside."""
    found: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if current is None or any(current is seen for seen in found):
            continue
        found.append(current)
        queue += [current.__cause__, current.__context__]
        queue += list(getattr(current, "worker_failures", {}).values())
        for name in ("controller_failure", "cause"):
            inner = getattr(current, name, None)
            if isinstance(inner, BaseException):
                queue.append(inner)
    return found
