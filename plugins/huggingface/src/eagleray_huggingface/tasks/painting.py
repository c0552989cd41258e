"""A class for each pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import InterpolationMode, functional

from eagleray_huggingface.annotations import Picture, class_ids, masks
from eagleray_huggingface.augment import Change, as_mask
from eagleray_huggingface.scores import PaintingScore, Score
from eagleray_huggingface.tasks.base import TRUTH, Batch, Task, objects, opened

BACKGROUND = "background"
# Of a pixel that is neither learnt nor counted.
IGNORED = 255


class Painting(Task):
    """`labels` int64 `[B, H, W]`: 0 is the background, classes count from 1.

    A model of masks (Mask2Former, MaskFormer) is given one mask for each class that a picture shows instead.
    """

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.change = Change(self.config.augment)
        self.of_masks = self.divides_together = hasattr(self.processor, "post_process_instance_segmentation")

    def load(self, picture: Picture, train: bool) -> Batch:
        image = opened(picture)
        painted = as_mask(paint(picture, image.width, image.height)[None])
        if train:
            image, painted = self.change(image, painted)
        pixels = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        size = list(pixels.shape[-2:])
        labels = functional.resize(painted, size, interpolation=InterpolationMode.NEAREST)[0]
        return {"pixel_values": pixels, "labels": labels.as_subclass(torch.Tensor).long(), "train": train}

    def collate(self, rows: list[Batch]) -> Batch:
        batch: Batch = {"pixel_values": torch.stack([row["pixel_values"] for row in rows])}
        labels = [row["labels"] for row in rows]
        if self.of_masks:
            shown = [torch.unique(label) for label in labels]
            batch["class_labels"] = shown
            batch["mask_labels"] = [
                (label == ids[:, None, None]).float() for label, ids in zip(labels, shown, strict=True)
            ]
        else:
            batch["labels"] = torch.stack(labels)
        return batch if rows[0]["train"] else batch | {TRUTH: torch.stack(labels)}

    def items(self, batch: Batch) -> int:
        return objects(batch) if self.of_masks else int((batch["labels"] != IGNORED).sum())

    def score(self) -> Score:
        return PaintingScore(len(self.context.dataset.classes) + 1)

    def answers(self, outputs: Any, truth: Any) -> Any:
        size = truth.shape[-2:]
        if self.of_masks:
            found = self.processor.post_process_semantic_segmentation(outputs, target_sizes=[tuple(size)] * len(truth))
            return torch.stack(found).cpu()
        logits = interpolate(outputs.logits.float(), size=size, mode="bilinear", align_corners=False)
        return logits.argmax(dim=1).cpu()


def paint(picture: Picture, width: int, height: int) -> Any:
    """uint8 `[height, width]`: 0 where no object is, else 1 + its class; of two on one pixel the smaller shows."""
    drawn, ids = masks(picture, width, height), class_ids(picture)
    canvas = np.zeros((height, width), dtype=np.uint8)
    for number in np.argsort(-drawn.reshape(len(drawn), -1).sum(axis=1), kind="stable"):
        canvas[drawn[number] == 1] = ids[number] + 1
    return canvas
