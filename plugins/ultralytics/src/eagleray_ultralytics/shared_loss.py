"""The loss of the batch of all workers, from each worker's own share of it.

Ultralytics divides by what a worker sees: its pictures, its assigned boxes. Gradients that are averaged over workers
then are not those of the whole batch. Here every worker's part is weighted by its share of the whole, so that two
workers learn what one would learn from both halves together. (Terms that are no sums over objects, such as a dice loss
over a picture's mask, stay each worker's own.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import distributed
from ultralytics.utils.loss import v8ClassificationLoss, v8DetectionLoss

PARTS = ("one2many", "one2one", "vp_criterion")
# Methods whose result is a mean over the assigned boxes.
OBJECT_MEANS = ("calculate_segmentation_loss", "calculate_keypoints_loss")


class SharedLoss:
    """A criterion of Ultralytics whose loss and loss items are those of all workers' batch.

    The trainer multiplies a worker's loss by the number of workers and averages gradients, so gradients add up.
    """

    def __init__(self, criterion: Any) -> None:
        self.criterion = criterion
        self.mean = isinstance(criterion, v8ClassificationLoss)
        self.pictures = torch.ones(1)
        for part in (criterion, *(getattr(criterion, name, None) for name in PARTS)):
            if isinstance(part, v8DetectionLoss):
                _weigh(part, self)

    def __call__(self, preds: Any, batch: Mapping[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        count = float(batch["img"].shape[0])
        self.pictures = _summed(torch.tensor([count], device=batch["img"].device))
        share = count / self.pictures[0]
        loss, items = self.criterion(preds, batch)
        values = _summed(torch.stack([value.detach().float() * share for value in items.values()]))
        # A mean over pictures adds up by share; the others come multiplied by the number of their own pictures.
        return (loss * share if self.mean else loss), dict(zip(items, values, strict=True))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.criterion, name)

    def __deepcopy__(self, memo: Any) -> None:
        """A copy of the model, such as the average that is validated, makes a criterion of its own."""
        return


def _weigh(part: Any, shared: SharedLoss) -> None:
    """Make the sums that `part` divides by those of all workers."""
    weights: dict[str, torch.Tensor] = {}

    def assigned(module: Any, arguments: Any, result: Any) -> None:
        scores, foreground = result[2], result[3]
        own = torch.stack([scores.sum().float(), foreground.sum().float()])
        # Always, whether this worker has any object or not: all must call it equally often.
        whole = _summed(own.clone())
        # `* share` follows in the trainer: a part is multiplied by its own number of pictures.
        pictures = shared.pictures[0] / scores.shape[0]
        weights["scores"] = own[0].clamp(min=1) / whole[0].clamp(min=1) * pictures
        weights["objects"] = own[1] / whole[1].clamp(min=1) * pictures

    def weighted(method: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if isinstance(result, tuple):
                return tuple(value * weights[name] for value in result)
            return result * weights[name]

        return call

    detection = part.get_assigned_targets_and_loss

    def detected(*args: Any, **kwargs: Any) -> Any:
        targets, loss, items = detection(*args, **kwargs)
        weight = weights["scores"]
        return targets, loss * weight, {name: value * weight for name, value in items.items()}

    part.assigner.register_forward_hook(assigned)
    part.get_assigned_targets_and_loss = detected
    for name in OBJECT_MEANS:
        if hasattr(part, name):
            setattr(part, name, weighted(getattr(part, name), "objects"))


def _summed(values: torch.Tensor) -> torch.Tensor:
    distributed.all_reduce(values)
    return values
