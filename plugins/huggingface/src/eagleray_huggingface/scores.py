"""Figures of a validation: gathered picture by picture, merged over workers, computed once.

What a score keeps is plain (tensors and lists on the CPU), so that workers can send it to the first one.
"""

from __future__ import annotations

import contextlib
import io
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


class Score(ABC):
    """One validation's figures."""

    @abstractmethod
    def update(self, outputs: Any, truth: Any) -> None:
        """Take in the model's outputs for a batch and what would have been right."""

    @abstractmethod
    def merge(self, other: Score) -> None:
        """Take in what another worker has gathered of other pictures."""

    @abstractmethod
    def figures(self) -> dict[str, float]:
        """The metrics by their stable names."""


class ClassificationScore(Score):
    """Top-1, top-5 and macro F1. `truth` is int64 `[B]`."""

    def __init__(self, num_classes: int) -> None:
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.top5 = 0

    def update(self, outputs: Any, truth: torch.Tensor) -> None:
        logits, truth = outputs.logits.float().cpu(), truth.cpu()
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        self.top5 += int((best == truth[:, None]).any(dim=1).sum())
        self.confusion += confusion(best[:, 0], truth, len(self.confusion))

    def merge(self, other: Score) -> None:
        assert isinstance(other, ClassificationScore)
        self.confusion += other.confusion
        self.top5 += other.top5

    def figures(self) -> dict[str, float]:
        total, hits = self.confusion.sum().item(), self.confusion.diag().double()
        f1 = 2 * hits / (self.confusion.sum(0) + self.confusion.sum(1)).clamp(min=1)
        seen = self.confusion.sum(1) > 0
        return {
            "metrics/accuracy_top1": float(hits.sum() / total),
            "metrics/accuracy_top5": self.top5 / total,
            "metrics/f1_macro": float(f1[seen].mean()),
        }


def confusion(found: torch.Tensor, truth: torch.Tensor, num_classes: int) -> torch.Tensor:
    """int64 `[classes, classes]`: rows are what is right, columns what was found."""
    places = truth.flatten() * num_classes + found.flatten()
    return torch.bincount(places, minlength=num_classes**2).reshape(num_classes, num_classes)


class PaintingScore(Score):
    """mIoU of painted classes. `truth` is int64 `[B, H, W]`, 255 where it does not count; `outputs` the same."""

    def __init__(self, num_classes: int) -> None:
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, outputs: torch.Tensor, truth: torch.Tensor) -> None:
        counts = truth != 255
        self.confusion += confusion(outputs[counts], truth[counts], len(self.confusion)).cpu()

    def merge(self, other: Score) -> None:
        assert isinstance(other, PaintingScore)
        self.confusion += other.confusion

    def figures(self) -> dict[str, float]:
        hits, right, found = self.confusion.diag().double(), self.confusion.sum(1), self.confusion.sum(0)
        union = right + found - hits
        seen = union > 0
        iou = (hits / union.clamp(min=1))[seen]
        miou = float(iou.mean()) if len(iou) else 0.0
        return {
            "metrics/mIoU": miou,
            "metrics/accuracy_pixel": float(hits.sum() / max(1, int(right.sum()))),
            "metrics/accuracy_mean": float((hits / right.clamp(min=1))[right > 0].mean()),
            "fitness": miou,
        }


class ObjectScore(Score):
    """COCO's mAP, by pycocotools, of boxes or of masks.

    `truth` and `outputs` hold for each picture `labels` `[N]`, `scores` `[N]` (outputs only), and `boxes`
    (float `[N, 4]` xyxy in pixels) or `masks` (bool `[N, H, W]`).
    """

    def __init__(self, num_classes: int, masks: bool = False) -> None:
        self.num_classes = num_classes
        self.kind = "segm" if masks else "bbox"
        self.truth: list[list[dict[str, Any]]] = []
        self.found: list[list[dict[str, Any]]] = []

    def update(self, outputs: Any, truth: Any) -> None:
        self.truth += [self._entries(target) for target in truth]
        self.found += [self._entries(answer) for answer in outputs]

    def merge(self, other: Score) -> None:
        assert isinstance(other, ObjectScore)
        self.truth += other.truth
        self.found += other.found

    def figures(self) -> dict[str, float]:
        stats = self._evaluate()
        figures = {
            "metrics/mAP50-95": stats[0],
            "metrics/mAP50": stats[1],
            "metrics/mAP75": stats[2],
            "metrics/recall": stats[8],
        }
        # COCO's -1 stands for "no object in the validation split", of which nothing was missed.
        figures = {name: max(0.0, float(value)) for name, value in figures.items()}
        return figures | ({"fitness": figures["metrics/mAP50-95"]} if self.kind == "segm" else {})

    def _entries(self, things: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
        labels = things["labels"].tolist()
        scores = things["scores"].tolist() if "scores" in things else [1.0] * len(labels)
        shapes: list[dict[str, Any]]
        if self.kind == "segm":
            drawn = np.asfortranarray(things["masks"].cpu().numpy().astype(np.uint8).transpose(1, 2, 0))
            rles = coco_mask.encode(drawn) if len(labels) else []
            shapes = [{"segmentation": rle, "area": float(coco_mask.area(rle))} for rle in rles]
        else:
            boxes = things["boxes"].double().cpu()
            sides = boxes[:, 2:] - boxes[:, :2]
            shapes = [
                {"bbox": [*corner, *side], "area": side[0] * side[1]}
                for corner, side in zip(boxes[:, :2].tolist(), sides.tolist(), strict=True)
            ]
        return [
            {"category_id": label, "score": score, "iscrowd": 0, **shape}
            for label, score, shape in zip(labels, scores, shapes, strict=True)
        ]

    def _evaluate(self) -> Any:
        truth = [
            {**entry, "image_id": number, "id": 0} for number, entries in enumerate(self.truth) for entry in entries
        ]
        found = [{**entry, "image_id": number} for number, entries in enumerate(self.found) for entry in entries]
        if not truth or not found:
            return [0.0] * 12
        coco = COCO()
        coco.dataset = {
            "info": {},
            # Sizes are asked for, and not used where every mask is run lengths.
            "images": [{"id": number, "height": 1, "width": 1} for number in range(len(self.truth))],
            "categories": [{"id": number} for number in range(self.num_classes)],
            # COCO takes the id 0 for "not matched".
            "annotations": [{**entry, "id": number} for number, entry in enumerate(truth, start=1)],
        }
        # It prints its table.
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
            run = COCOeval(coco, coco.loadRes(found), self.kind)
            run.evaluate()
            run.accumulate()
            run.summarize()
        return run.stats


class TextScore(Score):
    """Share of the answers' tokens that are guessed right, and of whole answers that are generated right."""

    def __init__(self) -> None:
        self.right = self.tokens = self.exact = self.answers = 0

    def update(self, outputs: Any, truth: torch.Tensor) -> None:
        """`truth` is int64 `[B, L]`, -100 where a token is not to be guessed; logits are one token ahead."""
        wanted = truth[:, 1:]
        counts = wanted != -100
        self.right += int((outputs.logits[:, :-1].argmax(-1) == wanted)[counts].sum())
        self.tokens += int(counts.sum())

    def answered(self, answer: str, wanted: str) -> None:
        self.exact += answer.strip().casefold() == wanted.strip().casefold()
        self.answers += 1

    def merge(self, other: Score) -> None:
        assert isinstance(other, TextScore)
        self.right += other.right
        self.tokens += other.tokens
        self.exact += other.exact
        self.answers += other.answers

    def figures(self) -> dict[str, float]:
        found = {"metrics/token_accuracy": self.right / max(1, self.tokens)}
        return found | ({"metrics/exact_match": self.exact / self.answers} if self.answers else {})
