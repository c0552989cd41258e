"""Pascal VOC's masks: PNG files of numbers, one of classes and one of objects; 0 is background, 255 nobody's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eagleray.datasets.geometry import RowError
from eagleray.datasets.images import MAX_PIXELS
from eagleray.datasets.masks import Pixels, box_of_rle, encoded, pixels_of, rle_of
from eagleray.datasets.records import Annotation

VOID = 255
FIX = "A mask is a PNG of class or object numbers (mode P or L), as large as its picture."


def numbers_of(path: Path, size: tuple[int, int]) -> Any:
    """The numbers of a mask, uint8 `[H, W]`. Raises RowError."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.size != size or image.width * image.height > MAX_PIXELS:
                what = f"a mask of {image.width} x {image.height} on a picture of {size[0]} x {size[1]}"
                raise RowError(what, FIX, "image-size")
            if image.mode not in ("P", "L"):
                raise RowError(f"a mask of the mode {image.mode}", FIX)
            return np.array(image)
    except RowError:
        raise
    except Exception as error:  # Pillow's decoders raise anything on broken bytes
        raise RowError(f"a mask that cannot be read ({type(error).__name__})", FIX, "image-unreadable") from None


def annotations_of_masks(
    classes: Path | None, instances: Path | None, size: tuple[int, int], num_classes: int
) -> tuple[Annotation, ...]:
    """One annotation for each object number; where there is no file of objects, one for each class.

    Raises:
        RowError: a file is unreadable or of another size, or a class number is out of range.
    """
    if classes is None:
        if instances is None:
            return ()
        raise RowError("objects without classes", "Put the file of classes into SegmentationClass/.", "label-orphan")
    kinds = numbers_of(classes, size)
    numbers = kinds if instances is None else numbers_of(instances, size)
    found = []
    for number in np.unique(numbers).tolist():
        if number in (0, VOID):
            continue
        pixels = numbers == number
        inside = kinds[pixels]
        inside = inside[(inside != 0) & (inside != VOID)]
        if not len(inside):
            raise RowError(f"object {number} has no class", FIX, "class-id")
        class_number = int(np.bincount(inside).argmax())
        if class_number > num_classes:
            raise RowError(f"class number {class_number}, but there are {num_classes}", FIX, "class-id")
        rle = encoded(pixels.astype(np.uint8))
        found.append(Annotation(class_number - 1, box_of_rle(rle), rle=rle))
    return tuple(found)


def drawn(annotations: Sequence[Annotation], size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    """Class and object numbers of every pixel, uint8 `[H, W]`; where objects overlap the later one wins.

    Raises:
        RowError: there are too many for one byte, or one is hidden by others altogether.
    """
    width, height = size
    kinds, numbers = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    if len(annotations) >= VOID:
        raise RowError(f"{len(annotations)} objects in a picture; a mask has numbers for {VOID - 1}", "Split it.")
    for number, annotation in enumerate(annotations, start=1):
        if annotation.class_id + 1 >= VOID:
            raise RowError(
                f"class number {annotation.class_id + 1}; a mask has numbers up to {VOID - 1}", "Merge classes."
            )
        pixels = pixels_of(rle_of(annotation, width, height)) != 0
        kinds[pixels], numbers[pixels] = annotation.class_id + 1, number
    there = set(np.unique(numbers).tolist())
    if hidden := [number for number in range(1, len(annotations) + 1) if number not in there]:
        raise RowError(
            f"object {hidden[0]} has no pixel of its own, so a mask cannot hold it",
            "Use a format of outlines, coco say.",
        )
    return kinds, numbers


def palette() -> list[int]:
    """Pascal VOC's 256 colours, so that masks look as they always did."""
    colours = []
    for number in range(256):
        red = green = blue = 0
        for bit in range(8):
            red |= (number >> (3 * bit) & 1) << (7 - bit)
            green |= (number >> (3 * bit + 1) & 1) << (7 - bit)
            blue |= (number >> (3 * bit + 2) & 1) << (7 - bit)
        colours += [red, green, blue]
    return colours


def save_mask(pixels: Pixels, path: Path) -> None:
    image = Image.fromarray(pixels).convert("P") if pixels.dtype != np.uint8 else Image.fromarray(pixels, "L")
    image.putpalette(palette())
    image.save(path, "PNG")
