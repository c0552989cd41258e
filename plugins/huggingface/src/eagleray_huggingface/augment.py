"""Random changes of a training picture; boxes and masks follow. All chance comes from torch's generator."""

from __future__ import annotations

import math
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from eagleray_huggingface.config import Augment

# Narrowest and widest side ratio of a crop, as in torchvision's RandomResizedCrop.
RATIOS = (3 / 4, 4 / 3)
SMALLEST_BOX = 1.0


class Change:
    """Applies one draw of an `Augment` to a picture and all that belongs to it."""

    def __init__(self, options: Augment) -> None:
        self.options = options
        colour = (options.brightness, options.contrast, options.saturation, options.hue)
        self.jitter = v2.ColorJitter(*colour) if any(colour) else None

    def __call__(self, image: Any, *more: Any) -> tuple[Any, ...]:
        """`image` is a Pillow picture; `more` are `tv_tensors` of the same size. Returns them changed alike."""
        things = (image, *more)
        if self.options.crop < 1.0:
            top, left, height, width = self._crop(image.height, image.width)
            things = tuple(functional.crop(thing, top, left, height, width) for thing in things)
        if _chance(self.options.horizontal_flip):
            things = tuple(functional.horizontal_flip(thing) for thing in things)
        if _chance(self.options.vertical_flip):
            things = tuple(functional.vertical_flip(thing) for thing in things)
        if self.jitter is not None:
            things = (self.jitter(things[0]), *things[1:])
        return things

    def _crop(self, height: int, width: int) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = height * width * _between(self.options.crop, 1.0)
            ratio = math.exp(_between(math.log(RATIOS[0]), math.log(RATIOS[1])))
            wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < high <= height:
                top = int(torch.randint(0, height - high + 1, ()))
                return top, int(torch.randint(0, width - wide + 1, ())), high, wide
        return 0, 0, height, width


def _chance(probability: float) -> bool:
    return probability > 0 and float(torch.rand(())) < probability


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def kept_boxes(boxes: Any, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`boxes` cut to the picture and `labels`, without those of which nothing is left."""
    cut = functional.clamp_bounding_boxes(boxes).as_subclass(torch.Tensor)
    sides = cut[:, 2:] - cut[:, :2]
    keep = (sides >= SMALLEST_BOX).all(dim=1)
    return cut[keep], labels[keep]


def as_boxes(boxes: Any, height: int, width: int) -> Any:
    """float32 `[N, 4]` xyxy as a torchvision tensor that crops and flips know."""
    return tv_tensors.BoundingBoxes(
        torch.from_numpy(boxes), format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=(height, width)
    )


def as_mask(mask: Any) -> Any:
    return tv_tensors.Mask(torch.from_numpy(mask))
