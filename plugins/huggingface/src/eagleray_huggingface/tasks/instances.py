"""A mask and a class for each object: Mask2Former and its family, which match their queries to the masks."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import InterpolationMode, functional

from eagleray_huggingface.annotations import Picture, class_ids, masks
from eagleray_huggingface.augment import Change, as_mask
from eagleray_huggingface.scores import ObjectScore, Score
from eagleray_huggingface.tasks.base import TRUTH, Batch, Task, objects, opened

# As many as COCO counts in a picture.
MOST_OBJECTS = 100


class Instances(Task):
    """`mask_labels` per picture: float32 `[N, H, W]` of the picture's size; `class_labels`: int64 `[N]`."""

    divides_together = True

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.change = Change(self.config.augment)

    def load(self, picture: Picture, train: bool) -> Batch:
        image = opened(picture)
        labels = torch.from_numpy(class_ids(picture))
        drawn = as_mask(masks(picture, image.width, image.height))
        if train:
            image, drawn = self.change(image, drawn)
        pixels = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        # An empty stack has no pixel to interpolate.
        resized = (
            functional.resize(drawn, list(pixels.shape[-2:]), interpolation=InterpolationMode.NEAREST)
            if len(drawn)
            else torch.zeros(0, *pixels.shape[-2:], dtype=torch.uint8)
        ).as_subclass(torch.Tensor)
        keep = resized.flatten(1).any(dim=1)
        return {"pixel_values": pixels, "masks": resized[keep], "labels": labels[keep], "train": train}

    def collate(self, rows: list[Batch]) -> Batch:
        batch: Batch = {
            "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
            "mask_labels": [row["masks"].float() for row in rows],
            "class_labels": [row["labels"] for row in rows],
        }
        if rows[0]["train"]:
            return batch
        return batch | {TRUTH: [{"labels": row["labels"], "masks": row["masks"].bool()} for row in rows]}

    def items(self, batch: Batch) -> int:
        return objects(batch)

    def score(self) -> Score:
        return ObjectScore(len(self.context.dataset.classes), masks=True)

    def answers(self, outputs: Any, truth: Any) -> Any:
        return [found(outputs, number, target["masks"].shape[-2:]) for number, target in enumerate(truth)]


def found(outputs: Any, number: int, size: tuple[int, int], most: int = MOST_OBJECTS) -> dict[str, torch.Tensor]:
    """Objects of picture `number`: `labels` and `scores` `[N]`, `masks` bool `[N, height, width]`, best first.

    A score is the class's probability times the mean of the mask's own inside it, as Mask2Former's authors rank them.
    """
    chances = outputs.class_queries_logits[number].float().softmax(-1)[:, :-1]
    best = chances.flatten().topk(min(most, chances.numel()))
    queries, labels = best.indices // chances.shape[1], best.indices % chances.shape[1]
    small = outputs.masks_queries_logits[number][queries].float()
    logits = interpolate(small[None], size=size, mode="bilinear", align_corners=False)[0]
    inside = logits > 0
    area = inside.flatten(1).sum(1)
    certain = (logits.sigmoid() * inside).flatten(1).sum(1) / area.clamp(min=1)
    scores = best.values * certain
    order = scores.argsort(descending=True)
    order = order[area[order] > 0]
    return {"labels": labels[order].cpu(), "scores": scores[order].cpu(), "masks": inside[order].cpu()}
