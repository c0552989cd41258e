"""Who starts and why the others wait, without any clock, database or cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eagleray.control.decisions import (
    Admit,
    AdmittedJob,
    Capacity,
    Gang,
    Node,
    NodeType,
    QueuedJob,
    Quota,
    Reserve,
    ScheduleState,
    Wait,
    schedule,
)
from eagleray.control.fitting import Room, workers_on

GPU = (("CPU", 1.0), ("GPU", 1.0))


def node(name: str, gpus: float, free: float | None = None) -> Node:
    return Node(name, {"CPU": 16, "GPU": gpus}, {"CPU": 16, "GPU": gpus if free is None else free})


def job(number: int, workers: int = 1, **fields: Any) -> QueuedJob:
    return QueuedJob(
        **{
            "id": number,
            "project": None,
            "priority": 0,
            "queued_at": float(number),
            "gang": Gang(workers, GPU),
            **fields,
        }
    )


def state(queued: list[QueuedJob], *nodes: Node, **fields: Any) -> ScheduleState:
    capacity = Capacity(tuple(nodes), fields.pop("types", ()))
    return ScheduleState(**{"now": 100.0, "queued": queued, "admitted": [], "capacity": capacity, **fields})


def admitted(found: ScheduleState) -> list[int]:
    return [decision.job_id for decision in schedule(found) if isinstance(decision, Admit)]


def reason(found: ScheduleState, job_id: int) -> str:
    (waits,) = [item for item in schedule(found) if isinstance(item, Wait) and item.job_id == job_id]
    return waits.reason


def test_the_first_come_are_served_first() -> None:
    assert admitted(state([job(2), job(1), job(3)], node("a", 2))) == [1, 2]


def test_priority_comes_before_time() -> None:
    assert admitted(state([job(1), job(2, priority=5)], node("a", 1))) == [2]


def test_among_equals_the_project_that_holds_least_is_next() -> None:
    queued = [job(1, project="a"), job(2, project="a"), job(3, project="b")]
    assert admitted(state(queued, node("n", 2))) == [1, 3]


def test_what_a_project_holds_already_counts() -> None:
    held = [AdmittedJob(9, "a", Gang(1, GPU), placed=True)]
    queued = [job(1, project="a"), job(2, project="b")]
    assert admitted(state(queued, node("n", 4, free=1), admitted=held)) == [2]


def test_a_gang_starts_whole_or_not_at_all() -> None:
    found = state([job(1, workers=3)], node("a", 1), node("b", 1))
    assert admitted(found) == []
    assert reason(found, 1) == "it needs 3 workers with 1 CPU and 1 GPU, more than this cluster can ever have"


def test_a_group_of_nodes_at_zero_must_grow() -> None:
    kind = NodeType({"CPU": 8, "GPU": 4}, more=2)
    assert admitted(state([job(1, workers=8)], types=(kind,))) == [1]
    assert admitted(state([job(1, workers=9)], types=(kind,))) == []


def test_what_is_admitted_and_not_placed_yet_takes_its_room() -> None:
    held = [AdmittedJob(9, None, Gang(2, GPU), placed=False)]
    assert admitted(state([job(1, workers=3)], node("a", 4), admitted=held)) == []
    assert admitted(state([job(1, workers=2)], node("a", 4), admitted=held)) == [1]


def test_quotas_count_jobs_and_gpus() -> None:
    queued = [job(1, project="a"), job(2, project="a", workers=2), job(3, project="a")]
    found = state(queued, node("n", 8), quotas={"a": Quota(jobs=1)})
    assert (admitted(found), reason(found, 2)) == ([1], "project a may run 1 job at once")
    found = state(queued, node("n", 8), quotas={"a": Quota(gpus=2)})
    assert (admitted(found), reason(found, 2)) == (
        [1, 3],
        "project a may use 2 GPUs at once, and this job needs 2",
    )


def test_the_head_drives_only_so_many_jobs_but_drivers_that_run_already_are_free() -> None:
    found = state([job(1), job(2), job(3, holds_driver=True)], node("n", 8), max_drivers=1)
    assert admitted(found) == [1, 3]
    assert reason(found, 2) == "1 jobs run, which is what the head can drive"


def test_a_pause_after_a_failure_is_kept() -> None:
    found = state([job(1, not_before=101.0)], node("n", 8))
    assert admitted(found) == []
    assert admitted(replace(found, now=101.0)) == [1]


def test_small_jobs_pass_a_large_one_until_it_has_waited_its_time() -> None:
    queued = [job(1, workers=4), job(2)]
    found = state(queued, node("a", 4, free=2), reserve_after_s=600)
    assert admitted(found) == [2]
    late = replace(found, now=1000.0)
    assert admitted(late) == []
    assert Reserve(1, ("a",)) in schedule(late)
    assert "job 1, which has waited longest, has nodes kept" in reason(late, 2)


def test_kept_nodes_stay_the_same_while_they_drain_and_others_are_free_for_all() -> None:
    nodes = [node("a", 4, free=2), node("b", 4, free=0), node("c", 1)]
    found = state([job(1, workers=4), job(2)], *nodes, now=1000.0)
    assert Reserve(1, ("a",)) in schedule(found)
    assert admitted(found) == [2], "job 2 fits on c, which is not kept"


def test_only_the_first_that_waits_too_long_gets_nodes_kept() -> None:
    found = state([job(1, workers=4), job(2, workers=4)], node("a", 4, free=0), now=1000.0)
    assert [item for item in schedule(found) if isinstance(item, Reserve)] == [Reserve(1, ("a",))]


def test_nodes_that_can_be_added_are_kept_for_a_large_job_too() -> None:
    kind = NodeType({"CPU": 16, "GPU": 4}, more=1)
    queued = [job(1, workers=8), job(2)]
    found = state(queued, node("a", 4, free=0), types=(kind,), now=1000.0)
    assert Reserve(1, ("a",)) in schedule(found)
    assert admitted(found) == [], "job 2 would take the new node from it, and the next one, for ever"
    grown = state(queued, node("a", 4, free=0), node("b", 4), now=1000.0)
    assert Reserve(1, ("b", "a")) in schedule(grown)
    assert admitted(grown) == []
    assert admitted(state(queued, node("a", 4), node("b", 4), now=1000.0)) == [1]


def test_nodes_that_are_there_are_kept_before_any_that_can_be_added() -> None:
    kind = NodeType({"CPU": 16, "GPU": 4}, more=2)
    held = [AdmittedJob(9, None, Gang(4, GPU), placed=False)]
    found = state([job(1, workers=12)], node("a", 4), types=(kind,), admitted=held, now=1000.0)
    assert [item for item in schedule(found) if isinstance(item, Reserve)] == [Reserve(1, ("a",))]


def test_a_job_stays_away_from_nodes_that_failed_it() -> None:
    avoiding = job(1, gang=Gang(1, GPU, frozenset({"a"})))
    assert admitted(state([avoiding], node("a", 4))) == []
    assert admitted(state([avoiding], node("a", 4), node("b", 1))) == [1]


def test_a_cluster_that_does_not_answer_admits_nothing() -> None:
    found = replace(state([job(1)], node("a", 4)), capacity=None)
    assert reason(found, 1) == "the cluster does not answer"


def test_the_next_in_line_are_told_when_running_jobs_are_likely_to_end() -> None:
    held = [AdmittedJob(8, None, Gang(1, GPU), True, ends_at=150.0), AdmittedJob(9, None, Gang(1, GPU), True, 120.0)]
    found = state([job(1), job(2), job(3)], node("a", 2, free=0), admitted=held)
    starts = [item.estimated_start for item in schedule(found) if isinstance(item, Wait)]
    assert starts[:2] == [120.0, 150.0]
    assert starts[2] is not None and starts[2] > 120.0


def test_a_worker_may_take_a_share_of_a_gpu() -> None:
    assert workers_on({"CPU": 16.0, "GPU": 1.0}, (("CPU", 1.0), ("GPU", 0.1))) == 10


_JOBS = st.lists(
    st.builds(
        job,
        st.integers(1, 10_000),
        workers=st.integers(1, 6),
        project=st.sampled_from([None, "a", "b"]),
        priority=st.integers(-1, 1),
    ),
    max_size=30,
    unique_by=lambda found: found.id,
)
_NODES = st.lists(st.integers(0, 8), max_size=8).map(
    lambda sizes: [node(f"n{index}", size) for index, size in enumerate(sizes)]
)


@given(queued=_JOBS, nodes=_NODES, drivers=st.integers(1, 10))
def test_every_job_gets_one_decision_and_nothing_is_promised_twice(
    queued: list[QueuedJob], nodes: list[Node], drivers: int
) -> None:
    found = state(queued, *nodes, max_drivers=drivers)
    decisions = [item for item in schedule(found) if not isinstance(item, Reserve)]
    assert sorted(item.job_id for item in decisions) == sorted(item.id for item in queued)
    chosen = [item.gang.workers for item in queued if item.id in admitted(found)]
    assert len(chosen) <= drivers
    assert sum(chosen) <= sum(found.total["GPU"] for found in nodes)
    assert schedule(found) == schedule(replace(found, queued=list(reversed(queued))))


@given(workers=st.integers(1, 20), nodes=_NODES)
def test_room_is_taken_by_whole_gangs_only(workers: int, nodes: list[Node]) -> None:
    room = Room.of(Capacity(tuple(nodes)))
    before = [dict(slot.free) for slot in room.slots]
    fitting = room.place(Gang(workers, GPU))
    taken = sum(old["GPU"] - slot.free["GPU"] for old, slot in zip(before, room.slots, strict=True))
    assert taken == (workers if fitting == workers else 0)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_shape_that_did_not_fit_is_not_looked_for_again_but_a_smaller_gang_is(workers: int) -> None:
    room = Room.of(Capacity((node("a", 2),)))
    assert room.place(Gang(5, GPU)) == 2
    assert room.place(Gang(workers, GPU)) == min(workers, 2)
