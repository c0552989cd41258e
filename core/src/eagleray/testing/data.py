"""Writes tiny datasets for tests: coloured shapes, Pillow only, the same bytes for the same arguments."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = ((220, 40, 40), (40, 200, 60), (50, 80, 230), (230, 210, 40), (210, 50, 210))
Box = tuple[int, int, int, int]
Row = Callable[[int, Box, int], str]


def write_detection_dataset(
    root: Path, *, images: int = 8, size: int = 64, classes: Sequence[str] = ("a", "b"), seed: int = 0
) -> Path:
    """A DICE dataset of `images` pictures in all, a quarter (at least one) for validation, 1–2 shapes each."""
    return write_dice(root, box_row, "", images, size, classes, seed)


def write_segmentation_dataset(
    root: Path, *, images: int = 8, size: int = 64, classes: Sequence[str] = ("a", "b"), seed: int = 0
) -> Path:
    """As `write_detection_dataset`; the outline of each shape is its box's four corners."""
    return write_dice(root, outline_row, "", images, size, classes, seed)


def write_keypoint_dataset(
    root: Path, *, images: int = 8, size: int = 64, classes: Sequence[str] = ("a",), seed: int = 0
) -> Path:
    """As `write_detection_dataset`, with two keypoints: the upper left and the upper right corner."""
    return write_dice(root, keypoint_row, "kpt_shape: [2, 3]\nflip_idx: [1, 0]\n", images, size, classes, seed)


def write_classification_dataset(
    root: Path, *, images: int = 8, size: int = 64, classes: Sequence[str] = ("a", "b"), seed: int = 0
) -> Path:
    """An image folder; `images` in all, at least one of each class in `train` and in `valid`."""
    rng = random.Random(seed)
    valid = max(len(classes), images // 4)
    for split, count in (("train", max(len(classes), images - valid)), ("valid", valid)):
        for number in range(count):
            class_id = number % len(classes)
            picture, draw = blank(size, rng)
            draw_shape(draw, class_id, random_box(size, 0, 1, rng), rng)
            folder = root / split / classes[class_id]
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f"{split}-{number:04d}.png")
    return root


def write_dice(root: Path, row: Row, extra: str, images: int, size: int, classes: Sequence[str], seed: int) -> Path:
    rng = random.Random(seed)
    valid = max(1, images // 4)
    for split, count in (("train", images - valid), ("valid", valid)):
        for folder in ("images", "labels"):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture, draw = blank(size, rng)
            shapes = rng.randint(1, 2)
            rows = []
            for place in range(shapes):
                class_id = number % len(classes) if place == 0 else rng.randrange(len(classes))
                box = random_box(size, place, shapes, rng)
                draw_shape(draw, class_id, box, rng)
                rows.append(row(class_id, box, size))
            picture.save(root / split / "images" / f"{split}-{number:04d}.png")
            (root / split / "labels" / f"{split}-{number:04d}.txt").write_text("".join(f"{text}\n" for text in rows))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(classes))
    text = f"train: train/images\nval: valid/images\n{extra}nc: {len(classes)}\nnames:\n{names}"
    (root / "data.yaml").write_text(text, encoding="utf-8")
    return root


def blank(size: int, rng: random.Random) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    grey = rng.randint(90, 160)
    picture = Image.new("RGB", (size, size), (grey, grey, grey))
    return picture, ImageDraw.Draw(picture)


def random_box(size: int, place: int, places: int, rng: random.Random) -> Box:
    """`x1, y1, x2, y2` in pixels, exclusive at the far edges, inside column `place` of `places`."""
    room = size // places
    width, height = rng.randint(room // 2, room - 2), rng.randint(size // 3, size // 2)
    x, y = place * room + rng.randint(0, room - width), rng.randint(0, size - height)
    return x, y, x + width, y + height


def draw_shape(draw: ImageDraw.ImageDraw, class_id: int, box: Box, rng: random.Random) -> None:
    """Even classes are rectangles, odd ones ellipses; the colour tells the classes apart, too."""
    red, green, blue = COLOURS[class_id % len(COLOURS)]
    shade = rng.randint(0, 20)
    x1, y1, x2, y2 = box
    shape = draw.ellipse if class_id % 2 else draw.rectangle
    shape((x1, y1, x2 - 1, y2 - 1), fill=(red + shade, green + shade, blue + shade))


def box_row(class_id: int, box: Box, size: int) -> str:
    x1, y1, x2, y2 = box
    values = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
    return " ".join([str(class_id), *(f"{value / size:.6f}" for value in values)])


def outline_row(class_id: int, box: Box, size: int) -> str:
    x1, y1, x2, y2 = box
    return " ".join([str(class_id), *(f"{value / size:.6f}" for value in (x1, y1, x2, y1, x2, y2, x1, y2))])


def keypoint_row(class_id: int, box: Box, size: int) -> str:
    x1, y1, x2, _ = box
    points = f"{x1 / size:.6f} {y1 / size:.6f} 2 {x2 / size:.6f} {y1 / size:.6f} 2"
    return f"{box_row(class_id, box, size)} {points}"
