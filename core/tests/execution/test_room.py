"""What fits a cluster is arithmetic; what never will is refused with numbers before anything is built."""

from __future__ import annotations

import math
from typing import Any

import pytest

from eagleray.contract.errors import ClusterError
from eagleray.execution.room import Gang, capacity, check

HEAD = {"CPU": 0.0, "GPU": 0.0}
A100 = {"CPU": 8.0, "GPU": 2.0, "accelerator_type:A100": 1.0}


def gang(num_workers: int = 1, accelerator_type: str | None = None, **resources: float) -> Gang:
    return Gang(num_workers, resources or {"CPU": 2.0, "GPU": 1.0}, accelerator_type)


def group(more: int | None, **total: float) -> dict[str, Any]:
    return {"total": total, "more": more}


def test_workers_on_the_nodes_that_are_up_are_counted() -> None:
    assert capacity(gang(), [HEAD, A100, A100], []) == 4


def test_a_cluster_that_starts_at_zero_is_counted_with_what_it_can_grow_to() -> None:
    check(gang(16), [HEAD], [group(8, CPU=8.0, GPU=2.0)])
    assert capacity(gang(), [HEAD], [group(None, CPU=8.0, GPU=2.0)]) == math.inf


def test_more_than_an_autoscaling_cluster_can_grow_to_is_refused_with_the_number() -> None:
    with pytest.raises(ClusterError, match="grown to its node types' maximum: 16 would fit") as refused:
        check(gang(17), [HEAD], [group(8, CPU=8.0, GPU=2.0)])
    assert "at most 16" in refused.value.hint


def test_a_worker_that_no_node_type_holds_is_refused() -> None:
    with pytest.raises(ClusterError, match="0 would fit"):
        check(gang(CPU=2.0, GPU=4.0), [HEAD], [group(8, CPU=8.0, GPU=2.0), group(0, CPU=32.0, GPU=8.0)])


def test_a_node_type_that_does_not_say_what_it_has_is_not_refused() -> None:
    check(gang(4, accelerator_type="A100"), [HEAD], [group(8)])


def test_an_accelerator_that_no_node_has_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(ClusterError, match="type 'H100'") as refused:
        check(gang(accelerator_type="H100"), [HEAD, A100], [group(2, CPU=4.0)])
    assert refused.value.hint == "It has: A100."


def test_only_nodes_with_the_accelerator_count() -> None:
    t4 = {"CPU": 8.0, "GPU": 4.0, "accelerator_type:T4": 1.0}
    assert capacity(gang(accelerator_type="A100"), [t4, A100], []) == 2


def test_a_gpu_node_type_without_a_named_accelerator_may_have_it() -> None:
    check(gang(2, accelerator_type="L4"), [HEAD], [group(2, CPU=4.0, GPU=1.0)])
