"""Figures of a model on a split, over all workers: each picture counts once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm.task.evaluator import ClassificationEvaluator, MultiLabelClassificationEvaluator

from eagleray_timm.config import ClassificationConfig
from eagleray_timm.group import Group
from eagleray_timm.loader import Loader
from eagleray_timm.recipe import Precision

# More classes make a table that neither fits memory well nor a picture.
MATRIX_CLASSES = 1000


@dataclass(frozen=True)
class Figures:
    """What an evaluation found.

    Attributes:
        metrics: by their stable names; accuracies, f1 and mAP are 0..1.
        support, predicted, right: pictures that have each class, were given it, and both; int64 `[classes]`.
        matrix: pictures by true (row) and predicted class, int64 `[classes, classes]`; None where labels are several
            or classes too many.
    """

    metrics: dict[str, float]
    support: torch.Tensor
    predicted: torch.Tensor
    right: torch.Tensor
    matrix: torch.Tensor | None


class Counts:
    """Counts of classes and of top-1 and top-5 hits, on the device: no batch waits for them."""

    def __init__(self, config: ClassificationConfig, num_classes: int, device: torch.device) -> None:
        self.multi_label, self.threshold, self.num_classes = config.multi_label, config.threshold, num_classes
        # Pictures that have a label, and of these top-1 and top-5.
        self.hits = torch.zeros(3, dtype=torch.int64, device=device)
        self.classes = torch.zeros(3, num_classes, dtype=torch.int64, device=device)  # support, predicted, right
        keep = not self.multi_label and num_classes <= MATRIX_CLASSES
        self.matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device) if keep else None

    def add(self, logits: torch.Tensor, targets: torch.Tensor) -> None:
        """Logits `[B, classes]`; targets `[B]`, or 0/1 `[B, classes]` where labels are several."""
        best = logits.topk(min(5, self.num_classes), dim=-1).indices
        if self.multi_label:
            truth, guess = targets > 0.5, logits.float().sigmoid() >= self.threshold
            # Where there is no label no answer can be right.
            hit = truth.gather(1, best)[truth.any(1)]
            self.classes += torch.stack([truth.sum(0), guess.sum(0), (truth & guess).sum(0)])
        else:
            hit = best == targets[:, None]
            self._add_single(targets, best[:, 0])
        self.hits += torch.stack([hit.new_tensor(len(hit), dtype=torch.int64), hit[:, 0].sum(), hit.any(1).sum()])

    def _add_single(self, truth: torch.Tensor, guess: torch.Tensor) -> None:
        size = self.num_classes
        right = truth[truth == guess]
        self.classes += torch.stack([torch.bincount(part, minlength=size) for part in (truth, guess, right)])
        if self.matrix is not None:
            self.matrix += torch.bincount(truth * size + guess, minlength=size * size).reshape(size, size)

    def metrics(self) -> dict[str, float]:
        """Top-1, top-5 and, as macro averages over the classes that occur, precision, recall and F1."""
        count, top1, top5 = (int(value) for value in self.hits)
        support, predicted, right = self.classes.double()
        occurs = (support + predicted) > 0
        averages = {
            "f1": 2 * right / (support + predicted).clamp(min=1),
            "precision": right / predicted.clamp(min=1),
            "recall": right / support.clamp(min=1),
        }
        return {
            "metrics/accuracy_top1": top1 / max(count, 1),
            "metrics/accuracy_top5": top5 / max(count, 1),
            **{f"metrics/{name}": float(values[occurs].mean()) for name, values in averages.items()},
        }


def evaluate(
    model: Callable[[torch.Tensor], torch.Tensor],
    loader: Loader,
    config: ClassificationConfig,
    group: Group,
    precision: Precision,
    *,
    device: torch.device,
    num_classes: int,
    should_stop: Callable[[], bool],
    place: Callable[[torch.Tensor], torch.Tensor],
) -> Figures | None:
    """Figures of `model`, which is in evaluation mode; None where the run is to end.

    Args:
        should_stop: asked before every batch, on every worker.
        place: puts a batch into the memory layout of the model.
    """
    evaluator: Any = (
        MultiLabelClassificationEvaluator(device, threshold=config.threshold)
        if config.multi_label
        else ClassificationEvaluator(device)
    )
    counts = Counts(config, num_classes, device)
    batches = loader.batches()
    # Workers may have one batch more or less than others, and still ask one another before each.
    for _ in loader.plan.sizes:
        if group.any(should_stop()):
            return None
        batch = next(batches, None)
        if batch is None:
            continue
        pictures, targets = batch
        with torch.inference_mode(), precision.autocast():
            logits = model(place(pictures))
        logits = logits[0] if isinstance(logits, (tuple, list)) else logits
        evaluator.update(logits, targets)
        counts.add(logits, targets)
    found = evaluator.compute(distributed=group.several)
    for tensor in (counts.hits, counts.classes, counts.matrix):
        if tensor is not None:
            group.sum(tensor)
    metrics = {"val/loss": float(found["loss"]), **counts.metrics()}
    if config.multi_label:
        metrics |= {"metrics/mAP": found["map"] / 100, "metrics/f1_micro": found["micro_f1"] / 100}
    metrics["fitness"] = -metrics["val/loss"] if config.fitness == "loss" else metrics[f"metrics/{config.fitness}"]
    support, predicted, right = counts.classes.cpu()
    return Figures(metrics, support, predicted, right, None if counts.matrix is None else counts.matrix.cpu())
