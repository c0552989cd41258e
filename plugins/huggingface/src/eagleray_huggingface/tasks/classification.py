"""One class for each picture."""

from __future__ import annotations

from typing import Any

import torch
from torchvision.transforms import v2

from eagleray_huggingface.annotations import Picture
from eagleray_huggingface.augment import Change
from eagleray_huggingface.scores import ClassificationScore, Score
from eagleray_huggingface.tasks.base import TRUTH, Batch, Task, opened


class Classification(Task):
    """`pixel_values` float32 `[B, 3, H, W]` and `labels` int64 `[B]`."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        options = self.config.augment
        self.change = Change(options)
        self.rand_augment = v2.RandAugment(num_ops=options.rand_augment) if options.rand_augment else None
        self.erase = v2.RandomErasing(p=options.random_erasing) if options.random_erasing else None

    def load(self, picture: Picture, train: bool) -> Batch:
        image = opened(picture)
        if train:
            (image,) = self.change(image)
            if self.rand_augment is not None:
                image = self.rand_augment(image)
        pixels = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        if train and self.erase is not None:
            pixels = self.erase(pixels)
        return {"pixel_values": pixels, "labels": picture.class_id, "train": train}

    def collate(self, rows: list[Batch]) -> Batch:
        labels = torch.tensor([row["labels"] for row in rows])
        batch = {"pixel_values": torch.stack([row["pixel_values"] for row in rows]), "labels": labels, **self.fixed}
        return batch if rows[0]["train"] else batch | {TRUTH: labels}

    def score(self) -> Score:
        return ClassificationScore(self.model.config.num_labels)

    def answers(self, outputs: Any, truth: Any) -> Any:
        return outputs
