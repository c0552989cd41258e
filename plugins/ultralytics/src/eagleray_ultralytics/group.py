"""What the workers of one job say to each other beside gradients; a single worker says nothing to anybody."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import distributed


def size() -> int:
    """How many workers there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@lru_cache(maxsize=1)
def control() -> Any:
    """A group of all workers by gloo, so that a question never waits for a GPU's queue. All must ask together."""
    return distributed.new_group(backend="gloo")


def any_of(*flags: bool) -> list[bool]:
    """For each flag whether it is true for any worker; all workers call it in the same place."""
    if size() == 1:
        return list(flags)
    votes = torch.tensor(flags, dtype=torch.int32)
    distributed.all_reduce(votes, distributed.ReduceOp.MAX, group=control())
    return [bool(vote) for vote in votes]


def total(number: float) -> float:
    """The sum over all workers."""
    if size() == 1:
        return number
    value = torch.tensor(number, dtype=torch.float64)
    distributed.all_reduce(value, group=control())
    return float(value)


def gathered(value: Any) -> list[Any]:
    """Every worker's `value`, by rank, on worker 0; nothing on the others."""
    if size() == 1:
        return [value]
    found: list[Any] | None = [None] * size() if distributed.get_rank() == 0 else None
    distributed.gather_object(value, found, group=control())
    return found or []


def from_first(value: Any) -> Any:
    """Worker 0's `value`, on all."""
    found = [value]
    if size() > 1:
        distributed.broadcast_object_list(found, group=control())
    return found[0]


def wait() -> None:
    """Until all workers are here."""
    if size() > 1:
        distributed.barrier(group=control())
