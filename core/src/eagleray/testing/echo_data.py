"""Pixels and classes of a dataset, as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eagleray.contract import Dataset, DatasetError

SIDE = 16
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


@dataclass(frozen=True)
class Samples:
    """`pixels`: float64 `[N, 16 * 16 * 3]`, RGB in -0.5..0.5. `labels`: int64 `[N]`, index into the classes."""

    pixels: NDArray[np.float64]
    labels: NDArray[np.int64]


def read_samples(dataset: Dataset, split: str) -> Samples:
    """All samples of a split, ordered by path.

    Raises:
        DatasetError: the split is not there or has no labelled picture.
    """
    if split not in dataset.splits:
        raise DatasetError(f"The dataset '{dataset.path}' has no split '{split}'.", "It needs train and val.")
    folder = dataset.path / dataset.splits[split].images
    found = list(_class_folders(folder, dataset.classes) if dataset.format == "imagefolder" else _first_objects(folder))
    if not found:
        raise DatasetError(f"The split '{split}' of '{dataset.path}' has no labelled picture.", "Label some.")
    pixels = np.stack([_read_pixels(path) for path, _ in found])
    return Samples(pixels, np.array([label for _, label in found], dtype=np.int64))


def _class_folders(folder: Path, classes: tuple[str, ...]) -> Iterator[tuple[Path, int]]:
    for label, name in enumerate(classes):
        for path in _pictures(folder / name):
            yield path, label


def _first_objects(folder: Path) -> Iterator[tuple[Path, int]]:
    """A picture's class is its first object's; backgrounds have none and are left out."""
    labels = folder.parent / "labels" if folder.name == "images" else folder.parent.parent / "labels" / folder.name
    for path in _pictures(folder):
        file = labels / path.relative_to(folder).with_suffix(".txt")
        rows = file.read_text(encoding="utf-8").split() if file.is_file() else []
        if rows:
            yield path, int(float(rows[0]))


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def _read_pixels(path: Path) -> NDArray[np.float64]:
    with Image.open(path) as image:
        return pixels_of(image)


def pixels_of(image: Image.Image) -> NDArray[np.float64]:
    """One row of `Samples.pixels`."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64).reshape(-1) / 255 - 0.5
