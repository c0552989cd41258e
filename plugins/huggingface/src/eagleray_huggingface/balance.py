"""By what the loss of each batch of an update counts, however the update's samples are cut into batches and shared."""

from __future__ import annotations

from collections.abc import Sequence

from eagleray_huggingface.group import Group


def loss_weights(counts: Sequence[int], group: Group, *, together: bool) -> list[float]:
    """Factors of this worker's losses, one for each batch of the update, for the gradient of all its items at once.

    A batch's loss is a mean over its items, and DistributedDataParallel takes the mean over workers of their sums.

    Args:
        counts: items of this worker's batches.
        together: the losses divide by the workers' mean number of items already.
    """
    if len(counts) == group.world_size == 1:
        return [1.0]
    totals = group.sum(counts)
    whole = sum(totals)
    if together:
        return [total / whole for total in totals]
    return [count * group.world_size / whole for count in counts]
