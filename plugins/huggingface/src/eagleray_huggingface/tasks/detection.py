"""A box and a class for each object: DETR and its family, which match their queries to the boxes."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers.loss.loss_rt_detr import RTDetrLoss

from eagleray_huggingface.annotations import Picture, boxes_xyxy, class_ids
from eagleray_huggingface.augment import Change, as_boxes, kept_boxes
from eagleray_huggingface.scores import ObjectScore, Score
from eagleray_huggingface.tasks.base import TRUTH, Batch, Task, objects, opened


class Detection(Task):
    """`pixel_values` float32 `[B, 3, H, W]`, `labels` per picture: `class_labels` `[N]`, `boxes` `[N, 4]` cxcywh, 0..1.

    Boxes are shares of the picture without its padding, as the published models were trained; `pixel_mask` says what
    is padding. A model that has no such argument gets pictures of one size.
    """

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.change = Change(self.config.augment)
        self.takes_mask = takes_mask(self.model)
        self.divides_together = not divides_alone(self.model)

    def load(self, picture: Picture, train: bool) -> Batch:
        image = opened(picture)
        labels = torch.from_numpy(class_ids(picture))
        boxes = as_boxes(boxes_xyxy(picture, image.width, image.height), image.height, image.width)
        if train:
            image, boxes = self.change(image, boxes)
        boxes, labels = kept_boxes(boxes, labels)
        size = torch.tensor([image.height, image.width])
        found = self.processor(images=image, return_tensors="pt", do_pad=False)
        return {
            "pixel_values": found["pixel_values"][0],
            "boxes": boxes,
            "class_labels": labels,
            "orig_size": size,
            "train": train,
        }

    def collate(self, rows: list[Batch]) -> Batch:
        batch = padded([row["pixel_values"] for row in rows])
        if not self.takes_mask:
            batch.pop("pixel_mask")
        batch["labels"] = [
            {"class_labels": row["class_labels"], "boxes": to_shares(row["boxes"], row["orig_size"])} for row in rows
        ]
        if not rows[0]["train"]:
            batch[TRUTH] = [
                {"labels": row["class_labels"], "boxes": row["boxes"], "orig_size": row["orig_size"]} for row in rows
            ]
        return batch

    def items(self, batch: Batch) -> int:
        return objects(batch)

    def score(self) -> Score:
        return ObjectScore(len(self.context.dataset.classes))

    def answers(self, outputs: Any, truth: Any) -> Any:
        sizes = torch.stack([target["orig_size"] for target in truth]).to(outputs.logits.device)
        return self.processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)


def takes_mask(model: Any) -> bool:
    return "pixel_mask" in inspect.signature(model.forward).parameters


def divides_alone(model: Any) -> bool:
    """Whether the loss is of RT-DETR's family, which asks no other worker for its number of objects."""
    known = vars(inspect.getmodule(model.loss_function)).values()
    return any(isinstance(value, type) and issubclass(value, RTDetrLoss) for value in known)


def padded(pictures: list[torch.Tensor]) -> Batch:
    """Pictures `[3, h, w]` as one tensor, filled up below and to the right; the mask is 1 where there is a picture."""
    height, width = (max(picture.shape[side] for picture in pictures) for side in (1, 2))
    pixels = torch.zeros(len(pictures), 3, height, width)
    mask = torch.zeros(len(pictures), height, width, dtype=torch.int64)
    for number, picture in enumerate(pictures):
        pixels[number, :, : picture.shape[1], : picture.shape[2]] = picture
        mask[number, : picture.shape[1], : picture.shape[2]] = 1
    return {"pixel_values": pixels, "pixel_mask": mask}


def to_shares(boxes: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """xyxy in pixels of a picture of `size` `[height, width]` → cxcywh in 0..1."""
    corner, other = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(corner + other) / 2, other - corner], dim=1) / size.flip(0).repeat(2)
