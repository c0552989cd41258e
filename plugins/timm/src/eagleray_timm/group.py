"""What the workers of a run do together; with one worker, nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as distributed

from eagleray.contract import PluginError, TrainingContext


class Group:
    """The run's workers. The host has made the process group; `flags` runs beside it, off the GPU."""

    def __init__(self, context: TrainingContext) -> None:
        self.rank, self.size = context.rank, context.world_size
        self.flags: Any = None
        if self.size == 1:
            return
        if not distributed.is_initialized():
            raise PluginError(
                f"{self.size} workers were asked for and there is no process group.",
                "The host makes it where a framework's process_group is INIT.",
            )
        if distributed.get_backend() != "gloo":
            self.flags = distributed.new_group(backend="gloo")

    @property
    def several(self) -> bool:
        return self.size > 1

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any worker; all of them get the same answer."""
        if not self.several:
            return flag
        tensor = torch.tensor([int(flag)])
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX, group=self.flags)
        return bool(tensor.item())

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` added up over all workers, in place."""
        if self.several:
            distributed.all_reduce(tensor)
        return tensor

    def copy_from_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite `tensors` by those of rank 0."""
        if self.several:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)
