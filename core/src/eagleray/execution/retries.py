"""What follows a failed attempt: a decision as a value, from the failure and what was tried before."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from eagleray.contract.failures import FailureKind
from eagleray.execution.failures import Failure
from eagleray.storage.disk import DiskFullError


@dataclass(frozen=True)
class RetryAfter:
    """Another attempt, from the newest committed checkpoint.

    Attributes:
        counts: whether this failure is counted against its budget.
        avoid_node: id or address of a node that the job shall not use again; empty: none.
    """

    after_s: float
    reason: str
    counts: bool = True
    avoid_node: str = ""


@dataclass(frozen=True)
class GiveUp:
    reason: str
    hint: str = ""


@dataclass(frozen=True)
class Budget:
    """How often one kind of failure is tried again without a new checkpoint in between.

    Attributes:
        retries: None: the job's own `max_failures`; infinite where `counts` is false.
        first_s: the wait before the first retry; it doubles with each, up to `LONGEST_WAIT_S`.
    """

    retries: int | None
    first_s: float
    counts: bool = True


LONGEST_WAIT_S = 600.0
_NEVER = Budget(0, 0.0)
# Somebody must make room first.
_NEEDS_A_HAND = frozenset({DiskFullError.__name__})
# A process that runs by itself: what a retry on this very machine, right now, may mend.
ALONE: Mapping[FailureKind, Budget] = {
    # The first restart is free: most deaths are single, and a fresh start costs seconds anyway.
    FailureKind.WORKER_LOST: Budget(None, 0.0),
    FailureKind.PREEMPTION: Budget(None, 2.0, counts=False),
    FailureKind.BAD_NODE: Budget(3, 0.0),
    FailureKind.STORAGE: Budget(2, 5.0),
}
# A queue can wait: for the network of an environment's build, for nodes, for a store that comes back.
QUEUED: Mapping[FailureKind, Budget] = {
    **ALONE,
    FailureKind.STORAGE: Budget(5, 15.0),
    FailureKind.ENVIRONMENT: Budget(2, 15.0),
    FailureKind.CLUSTER: Budget(5, 15.0),
}


def after_failure(
    failure: Failure,
    counts: Mapping[str, int],
    *,
    max_failures: int,
    seed: str,
    budgets: Mapping[FailureKind, Budget] = QUEUED,
    other_nodes: bool = True,
) -> RetryAfter | GiveUp:
    """Whether another attempt is worth it, and when.

    Args:
        counts: failures by kind since the last new checkpoint, this one included.
        max_failures: `JobSpec.max_failures`.
        seed: makes the jitter repeatable; different for every job and attempt.
        other_nodes: whether the job fits without the failure's node.
    """
    kind = failure.kind
    budget = _NEVER if failure.error in _NEEDS_A_HAND else budgets.get(kind, _NEVER)
    if kind is FailureKind.BAD_NODE and not other_nodes:
        # A driver that hangs comes back with a new process; a full disk or broken memory does not.
        budget = replace(budget, retries=1)
    if budget.retries is None:
        budget = replace(budget, retries=max_failures)
    count = counts.get(kind.value, 1)
    if not budget.counts:
        return RetryAfter(_wait(budget, 1, seed), failure.message, counts=False)
    assert budget.retries is not None
    if count > budget.retries:
        if budget.retries == 0:
            return GiveUp(failure.message, failure.hint)
        times = f"{count} times" if count > 1 else "once"
        reason = f"{_WHAT.get(kind, 'it failed')} {times} without a new checkpoint in between: {failure.message}"
        return GiveUp(reason, failure.hint)
    avoid = failure.node if kind is FailureKind.BAD_NODE and other_nodes else ""
    return RetryAfter(_wait(budget, count, seed), failure.message, avoid_node=avoid)


_WHAT = {
    FailureKind.WORKER_LOST: "a worker died",
    FailureKind.BAD_NODE: "a node failed",
    FailureKind.STORAGE: "the store failed",
    FailureKind.ENVIRONMENT: "the environment could not be built",
    FailureKind.CLUSTER: "the workers could not be placed",
}


def _wait(budget: Budget, count: int, seed: str) -> float:
    """Doubling, with jitter between a half and the whole, so that jobs that fell together do not rise together."""
    first = budget.first_s
    if first == 0.0:
        first, count = 2.0, count - 1
        if count == 0:
            return 0.0
    whole = min(first * 2.0 ** (count - 1), LONGEST_WAIT_S)
    return whole * random.Random(f"{seed}/{count}").uniform(0.5, 1.0)
