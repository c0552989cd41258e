"""What workers tell one another beside gradients: over gloo, so that no GPU waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as distributed

Value = TypeVar("Value")


class Group:
    """All workers of the job; one alone talks to nobody."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self._gloo: Any = None
        if world_size > 1:
            plain = distributed.get_backend() == "gloo"
            self._gloo = distributed.group.WORLD if plain else distributed.new_group(backend="gloo")

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any worker; all get the same answer."""
        if self._gloo is None:
            return flag
        found = torch.tensor([flag], dtype=torch.uint8)
        distributed.all_reduce(found, distributed.ReduceOp.MAX, group=self._gloo)
        return bool(found.item())

    def sum(self, counts: Sequence[int]) -> list[int]:
        """Each of `counts` added up over all workers, which give as many; all get the same answer."""
        if self._gloo is None:
            return list(counts)
        found = torch.tensor(counts, dtype=torch.int64)
        distributed.all_reduce(found, group=self._gloo)
        totals: list[int] = found.tolist()
        return totals

    def gather(self, value: Value) -> list[Value]:
        """Every worker's value, in the order of ranks, on the first worker; elsewhere an empty list."""
        if self._gloo is None:
            return [value]
        found: list[Any] | None = [None] * self.world_size if self.rank == 0 else None
        distributed.gather_object(value, found, dst=0, group=self._gloo)
        return found or []

    def from_first(self, value: Value) -> Value:
        """The first worker's value, everywhere."""
        if self._gloo is None:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, group=self._gloo)
        return box[0]

    def same_buffers(self, model: torch.nn.Module) -> None:
        """Give every worker the first one's buffers (running means of batch normalisation, say).

        DistributedDataParallel does it before a forward pass only, so after an epoch's last one they differ.
        """
        if self.world_size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer.data, src=0)
