"""Pictures and boxes as torchvision's detectors take them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.functional import hflip, pil_to_tensor

from eagleray.contract import Dataset, DatasetError

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
Target = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Sample:
    """A picture and its rows `class cx cy w h`, in 0..1."""

    image: Path
    rows: tuple[tuple[float, ...], ...]


def read_split(dataset: Dataset, split: str) -> list[Sample]:
    """All pictures of a split by path; backgrounds have no rows.

    Raises:
        DatasetError: there is no picture.
    """
    folder = dataset.path / dataset.splits[split].images
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not images:
        raise DatasetError(f"The split '{split}' of '{dataset.path}' has no picture.", "Check data.yaml.")
    return [Sample(path, _rows(path, folder)) for path in images]


def _rows(image: Path, folder: Path) -> tuple[tuple[float, ...], ...]:
    file = folder.parent / "labels" / image.relative_to(folder).with_suffix(".txt")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return tuple(tuple(float(value) for value in line.split()[:5]) for line in lines if line.strip())


def load(sample: Sample, mirror: bool = False) -> tuple[torch.Tensor, Target]:
    """The picture, float32 `[3, H, W]` in 0..1, and its target: `boxes` `[N, 4]` in pixels, `labels` `[N]` from 1."""
    with Image.open(sample.image) as opened:
        picture = pil_to_tensor(opened.convert("RGB")).float() / 255
    height, width = picture.shape[1:]
    rows = torch.tensor(sample.rows, dtype=torch.float32).reshape(-1, 5)
    if mirror:
        picture = hflip(picture)
        rows[:, 1] = 1 - rows[:, 1]
    centre, size = rows[:, 1:3], rows[:, 3:5]
    corners = torch.cat([centre - size / 2, centre + size / 2], dim=1).clamp(0, 1)
    boxes = corners * torch.tensor([width, height, width, height])
    return picture, {"boxes": boxes, "labels": rows[:, 0].long() + 1}
