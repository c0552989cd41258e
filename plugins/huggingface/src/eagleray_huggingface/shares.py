"""How several workers share a dataset: every sample once an epoch, whatever its size."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler, Sampler
from transformers.trainer_utils import seed_worker


class SharedBatches(Sampler[list[int]]):
    """The batches that one process alone would draw, of which each worker takes its part.

    accelerate would fill the last batch up with samples that were seen already, so that all workers have as many. Here
    a batch is shared as evenly as it goes; where the last has fewer samples than workers, they join the one before.

    Args:
        size: samples in all.
        batch: samples of one step over all workers.
    """

    def __init__(self, size: int, batch: int, rank: int, world_size: int, seed: int) -> None:
        self.order = RandomSampler(range(size), generator=torch.Generator())
        self.size, self.batch, self.rank, self.world_size, self.seed = size, batch, rank, world_size, seed
        self.epoch = 0

    def __iter__(self) -> Iterator[list[int]]:
        # As accelerate's SeedableRandomSampler does, so that one worker and several see the same order.
        self.order.generator.manual_seed(self.seed + self.epoch)
        order = list(self.order)
        edges = [number * self.batch for number in range(len(self))] + [self.size]
        for start, end in pairwise(edges):
            yield part(order[start:end], self.rank, self.world_size)

    def __len__(self) -> int:
        whole, rest = divmod(self.size, self.batch)
        return max(1, whole + (rest >= self.world_size))


def part(batch: list[int], rank: int, world_size: int) -> list[int]:
    """This worker's consecutive part; parts differ by one sample at most."""
    few, more = divmod(len(batch), world_size)
    start = rank * few + min(rank, more)
    return batch[start : start + few + (rank < more)]


class SharedLoader(DataLoader[Any]):
    """Loads this worker's part; the Trainer tells it the epoch."""

    def set_epoch(self, epoch: int) -> None:
        assert isinstance(self.batch_sampler, SharedBatches)
        self.batch_sampler.epoch = epoch


def shared_loader(dataset: Any, batch_size: int, arguments: Any, collate: Any) -> SharedLoader:
    """This worker's parts of the batches of `dataset`; `batch_size` is over all workers."""
    batches = SharedBatches(
        len(dataset),
        batch_size,
        arguments.process_index,
        arguments.world_size,
        arguments.seed,
    )
    workers = arguments.dataloader_num_workers
    return SharedLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=arguments.dataloader_pin_memory,
        worker_init_fn=partial(seed_worker, num_workers=workers, rank=arguments.process_index),
    )
