"""Batch norm over all workers' batch, on any device.

torch's SyncBatchNorm is another class of module, for GPUs only. Here the modules stay `BatchNorm2d`, so checkpoints and
exports are those of one worker; only how they are computed while training changes, in this process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed, nn


class _Sum(torch.autograd.Function):
    """The sum over all workers; what follows from it anywhere comes back to every worker."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
        return _summed(values)

    @staticmethod
    def backward(context: Any, *slopes: Any) -> torch.Tensor:
        return _summed(slopes[0])


def _summed(values: torch.Tensor) -> torch.Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total


@contextmanager
def over_all_workers() -> Iterator[None]:
    """While inside, every `BatchNorm2d` in training mode takes mean and variance over all workers."""
    patched: Any = nn.BatchNorm2d
    alone = patched.forward

    def forward(self: nn.BatchNorm2d, images: torch.Tensor) -> torch.Tensor:
        return _normalise(self, images) if self.training else alone(self, images)

    patched.forward = forward
    try:
        yield
    finally:
        patched.forward = alone


def _normalise(module: Any, images: torch.Tensor) -> torch.Tensor:
    """`images`: `[B, C, H, W]` of this worker. Ioffe and Szegedy (2015) with B over all workers."""
    shape = (1, -1, 1, 1)
    # Around the running mean, which all workers share, so that squares do not drown the variance.
    centre = module.running_mean.detach().clone()
    shifted = images.float() - centre.view(shape)
    count = shifted.new_tensor([shifted.numel() / shifted.shape[1]])
    sums = _Sum.apply(torch.cat([shifted.sum((0, 2, 3)), shifted.square().sum((0, 2, 3)), count]))
    channels = shifted.shape[1]
    n = sums[-1].detach()
    mean, square = sums[:channels] / n, sums[channels:-1] / n
    variance = (square - mean.square()).clamp(min=0)
    with torch.no_grad():
        momentum = module.momentum
        module.running_mean.lerp_(mean.detach() + centre, momentum)
        module.running_var.lerp_(variance.detach() * (n / (n - 1).clamp(min=1)), momentum)
        module.num_batches_tracked.add_(1)
    scale = module.weight * torch.rsqrt(variance + module.eps)
    result = (shifted - mean.view(shape)) * scale.view(shape) + module.bias.view(shape)
    return result.to(images.dtype)
