"""Decisions about failures are values, so they need no cluster."""

import pytest

from eagleray.contract.failures import FailureKind
from eagleray.execution.failures import Failure
from eagleray.execution.retries import ALONE, LONGEST_WAIT_S, QUEUED, GiveUp, RetryAfter, after_failure

LOST = Failure(FailureKind.WORKER_LOST, "A worker process died.")


def decide(failure: Failure, count: int, **arguments: object) -> RetryAfter | GiveUp:
    values = {"max_failures": 3, "seed": "7/1", **arguments}
    return after_failure(failure, {failure.kind.value: count}, **values)  # type: ignore[arg-type]


def waits(decision: RetryAfter | GiveUp) -> float:
    assert isinstance(decision, RetryAfter)
    return decision.after_s


def test_the_first_lost_worker_is_replaced_at_once() -> None:
    assert decide(LOST, 1) == RetryAfter(0.0, LOST.message)


def test_waits_double_with_jitter_until_the_jobs_own_budget_is_spent() -> None:
    """C17"""
    assert 1 <= waits(decide(LOST, 2)) <= 2
    assert 2 <= waits(decide(LOST, 3)) <= 4
    assert decide(LOST, 4) == GiveUp(
        "a worker died 4 times without a new checkpoint in between: A worker process died."
    )


@pytest.mark.parametrize(
    "kind", [FailureKind.OUT_OF_MEMORY, FailureKind.DATA, FailureKind.PLUGIN, FailureKind.USER], ids=str
)
def test_what_would_happen_again_is_not_tried_again(kind: FailureKind) -> None:
    assert decide(Failure(kind, "why", "lower it"), 1) == GiveUp("why", "lower it")


def test_a_process_by_itself_does_not_wait_for_nodes_or_networks() -> None:
    for kind in (FailureKind.CLUSTER, FailureKind.ENVIRONMENT):
        assert isinstance(decide(Failure(kind, "why"), 1, budgets=ALONE), GiveUp)
        assert isinstance(decide(Failure(kind, "why"), 1, budgets=QUEUED), RetryAfter)


def test_preemptions_are_retried_without_end_and_without_counting() -> None:
    decision = decide(Failure(FailureKind.PREEMPTION, "taken"), 1000, max_failures=0)
    assert isinstance(decision, RetryAfter)
    assert not decision.counts


def test_a_bad_node_is_named_so_that_it_is_left_out() -> None:
    decision = decide(Failure(FailureKind.BAD_NODE, "ECC", node="10.0.0.7"), 1)
    assert isinstance(decision, RetryAfter)
    assert decision.avoid_node == "10.0.0.7"


def test_budgets_are_separate() -> None:
    counts = {"worker-lost": 3, "storage": 1}
    failure = Failure(FailureKind.STORAGE, "away")
    assert isinstance(after_failure(failure, counts, max_failures=0, seed=""), RetryAfter)


def test_no_wait_is_longer_than_the_longest_and_jitter_is_repeatable() -> None:
    first = decide(LOST, 30, max_failures=99)
    assert waits(first) <= LONGEST_WAIT_S
    assert first == decide(LOST, 30, max_failures=99)
    assert waits(first) != waits(decide(LOST, 30, max_failures=99, seed="8/1"))


def test_a_full_disk_is_not_tried_again_before_somebody_makes_room() -> None:
    full = Failure(FailureKind.STORAGE, "no room", "free some", error="DiskFullError")
    assert decide(full, 1) == decide(full, 1, budgets=ALONE) == GiveUp("no room", "free some")


def test_the_only_node_that_fits_gets_one_more_try_and_is_not_left_out() -> None:
    failure = Failure(FailureKind.BAD_NODE, "busy", node="10.0.0.7")
    first = decide(failure, 1, other_nodes=False)
    assert isinstance(first, RetryAfter)
    assert not first.avoid_node
    assert isinstance(decide(failure, 2, other_nodes=False), GiveUp)
