"""Which pictures a worker sees: of every batch its own share, each once an epoch, in validation as in training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DistributedSampler


class Shares:
    """A batch sampler over one worker's shares of the batches of all workers.

    All workers draw the same order and cut it into the same batches of `batch_size`; of each, worker `rank` takes every
    `world_size`-th picture. A last batch of fewer pictures than workers is joined to the one before, so nobody idles
    and no picture is repeated to fill up.
    """

    def __init__(self, pictures: int, batch_size: int, rank: int, world_size: int, seed: int) -> None:
        self.pictures, self.batch_size, self.rank, self.world_size = pictures, batch_size, rank, world_size
        self.seed = seed
        self.epoch = 0
        self._drawn = -1

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Begin and end of every batch in the epoch's order."""
        size = max(self.batch_size, self.world_size)
        starts = list(range(0, self.pictures, size))
        if len(starts) > 1 and self.pictures - starts[-1] < self.world_size:
            starts.pop()
        return list(zip(starts, [*starts[1:], self.pictures], strict=True))

    def __len__(self) -> int:
        return len(self.bounds)

    def __iter__(self) -> Iterator[list[int]]:
        # A loader that reads ahead asks for the next epoch's order before that epoch is announced.
        self._drawn = max(self.epoch, self._drawn + 1)
        generator = torch.Generator().manual_seed(self.seed + self._drawn)
        order = torch.randperm(self.pictures, generator=generator).tolist()
        for begin, end in self.bounds:
            yield order[begin:end][self.rank :: self.world_size]


class Share:
    """A worker's part of the pictures, as Ultralytics asks a loader's `sampler` about it."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares

    def __len__(self) -> int:
        shares = self.shares
        return sum(len(range(begin + shares.rank, end, shares.world_size)) for begin, end in shares.bounds)

    def set_epoch(self, epoch: int) -> None:
        self.shares.epoch = epoch


def share(loader: Any, shares: Shares) -> None:
    """Let Ultralytics' endless `loader`, which has not started yet, draw from `shares`."""
    loader.batch_sampler.sampler = shares
    # A loader guards its attributes once it is made, also those that only its owner reads.
    object.__setattr__(loader, "sampler", Share(shares))


def share_validation(loader: Any, rank: int, world_size: int) -> None:
    """Let a validation's `loader`, which has not started yet, show each picture to one worker only.

    Classification's would show some twice, so that all workers have equally many. The other tasks' is left as it is:
    it cuts the pictures, which are sorted by shape, between batches.
    """
    if isinstance(loader.sampler, DistributedSampler):
        mine = range(rank, len(loader.dataset), world_size)
        loader.batch_sampler.sampler = BatchSampler(mine, loader.batch_size, drop_last=False)
        object.__setattr__(loader, "sampler", mine)
