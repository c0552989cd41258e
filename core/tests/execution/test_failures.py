"""Decisions about failures are values, so they need no cluster."""

import pickle

import pytest

from eagleray.execution.failures import Failure, FailureKind, GiveUp, Retry, WorkerRaised, classify, decide

LOST = Failure(FailureKind.WORKER_LOST, "A worker process died.")


def test_the_first_lost_worker_is_replaced_at_once() -> None:
    assert decide(LOST, failures_without_progress=1, max_failures=3) == Retry(0.0, LOST.message)


def test_waits_grow_until_the_budget_is_spent() -> None:
    waits = [decide(LOST, failures_without_progress=n, max_failures=3) for n in (2, 3)]
    assert [wait.after_s for wait in waits if isinstance(wait, Retry)] == [4.0, 8.0]
    assert isinstance(decide(LOST, failures_without_progress=4, max_failures=3), GiveUp)


@pytest.mark.parametrize("kind", [FailureKind.RAISED, FailureKind.CLUSTER, FailureKind.ENVIRONMENT])
def test_what_would_happen_again_is_not_tried_again(kind: FailureKind) -> None:
    assert decide(Failure(kind, "why"), failures_without_progress=1, max_failures=3) == GiveUp("why")


class _Group(Exception):
    def __init__(self, failures: dict[int, Exception]) -> None:
        super().__init__("group")
        self.worker_failures = failures


def test_a_workers_own_words_are_found_inside_ray_trains_error() -> None:
    raised = WorkerRaised.of(error="DatasetError", message="bad label", hint="mend it", traceback="")
    failure = classify(_Group({0: pickle.loads(pickle.dumps(raised))}))
    assert failure == Failure(FailureKind.RAISED, "bad label", "mend it", "DatasetError", "")


def test_a_dead_process_is_a_lost_worker() -> None:
    died = type("ActorDiedError", (Exception,), {})("x")
    assert classify(_Group({0: died})).kind is FailureKind.WORKER_LOST
