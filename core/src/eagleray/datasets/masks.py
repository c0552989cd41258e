"""Masks: run lengths, pixels and outlines, and the ways between them.

pycocotools draws and encodes; it has no way from pixels back to outlines, so that one is here, along the pixels' edges:
drawing the outline again gives the very same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from eagleray.datasets.geometry import RowError, outline_area
from eagleray.datasets.records import Annotation, BoxXYXY, Rle

Pixels = NDArray[np.uint8]
Point = tuple[int, int]
# A mask of more pixels than any picture may have is a stranger's attempt at our memory.
MAX_PIXELS = 100_000_000


def encoded(pixels: Pixels) -> Rle:
    """A mask of zeros and others, `[H, W]`, as run lengths."""
    found = coco.encode(np.asfortranarray(pixels != 0, dtype=np.uint8))
    return Rle(pixels.shape[0], pixels.shape[1], found["counts"])


def rle_of_counts(counts: Sequence[int] | str, height: int, width: int) -> Rle:
    """COCO's run lengths, as numbers or compressed text, checked.

    Raises:
        RowError: they are not of a mask of this size.
    """
    fix = "Write the mask again with the program that made it."
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise RowError(f"a mask of {width} x {height} pixels", fix)
    lengths = run_lengths(counts) if isinstance(counts, str) else list(counts)
    if any(length < 0 for length in lengths) or sum(lengths) != height * width:
        raise RowError(f"the run lengths do not add up to {height * width} pixels", fix)
    if isinstance(counts, str):
        return Rle(height, width, counts.encode("ascii"))
    found = coco.frPyObjects({"counts": lengths, "size": [height, width]}, height, width)
    return Rle(height, width, found["counts"])


def run_lengths(text: str) -> list[int]:
    """The numbers in COCO's compressed text: five bits a character from 48 up, differences from the third on.

    pycocotools reads beyond its buffer where the text is cut or not of this kind, so it is read here first.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            raise RowError("the run lengths are not COCO's compressed text", "Write the mask again.")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    if shift:
        raise RowError("the run lengths end in the middle of a number", "Write the mask again.")
    return lengths


def pixels_of(rle: Rle) -> Pixels:
    """Zeros and ones, uint8 `[H, W]`."""
    lengths = run_lengths(rle.counts.decode("ascii"))
    # pycocotools' own decoding warns with numpy 2, and the lengths are to be had without it.
    column = np.repeat(np.arange(len(lengths), dtype=np.uint8) % 2, lengths)
    return column.reshape(rle.width, rle.height).T


def plain(rle: Rle) -> dict[str, Any]:
    return {"size": [rle.height, rle.width], "counts": rle.counts}


def rle_of(annotation: Annotation, width: int, height: int) -> Rle:
    """The annotation's mask on a picture of `width` x `height`; its box where it has nothing finer."""
    if annotation.rle is not None:
        return annotation.rle
    polygons = [list(polygon) for polygon in annotation.polygons]
    if not polygons:
        x1, y1, x2, y2 = annotation.box or (0.0, 0.0, 0.0, 0.0)
        polygons = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    found = coco.merge(coco.frPyObjects(polygons, height, width))
    return Rle(height, width, found["counts"])


def box_of_rle(rle: Rle) -> BoxXYXY:
    x, y, w, h = (float(value) for value in coco.toBbox(plain(rle)))
    return x, y, x + w, y + h


def area_of(annotation: Annotation) -> float:
    """Pixels that the object covers."""
    if annotation.rle is not None:
        return float(coco.area(plain(annotation.rle)))
    if annotation.polygons:
        return sum(outline_area(polygon) for polygon in annotation.polygons)
    x1, y1, x2, y2 = annotation.box or (0.0, 0.0, 0.0, 0.0)
    return (x2 - x1) * (y2 - y1)


def outlines_of(pixels: Pixels) -> list[list[Point]]:
    """Closed outlines along the edges of the set pixels of `[H, W]`; holes run the other way round."""
    padded = np.pad(pixels != 0, 1)
    steps: dict[Point, list[Point]] = {}
    # Every edge between a set pixel and one that is not, walked with the set pixel on the right.
    for ahead, start, end in (
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    ):
        neighbour = np.roll(padded, (-ahead[0], -ahead[1]), (0, 1))
        ys, xs = np.nonzero(padded & ~neighbour)
        for y, x in zip((ys - 1).tolist(), (xs - 1).tolist(), strict=True):
            steps.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    outlines = []
    while steps:
        outlines.append(corners(walked(steps)))
    return outlines


def walked(steps: dict[Point, list[Point]]) -> list[Point]:
    """One closed walk along `steps`, which it uses up; where two pixels meet at a corner it turns right."""
    first = next(iter(steps))
    walk = [first]
    before, here = first, take(steps, first, None)
    while here != first:
        walk.append(here)
        before, here = here, take(steps, here, before)
    return walk


def take(steps: dict[Point, list[Point]], here: Point, before: Point | None) -> Point:
    choices = steps[here]
    chosen = 0
    if len(choices) > 1 and before is not None:
        dx, dy = here[0] - before[0], here[1] - before[1]
        right = (here[0] - dy, here[1] + dx)
        chosen = choices.index(right) if right in choices else 0
    found = choices.pop(chosen)
    if not choices:
        del steps[here]
    return found


def corners(walk: list[Point]) -> list[Point]:
    """The points of a closed walk at which it turns."""
    count = len(walk)
    return [
        walk[i]
        for i in range(count)
        if (walk[i][0] - walk[i - 1][0], walk[i][1] - walk[i - 1][1])
        != (walk[(i + 1) % count][0] - walk[i][0], walk[(i + 1) % count][1] - walk[i][1])
    ]


def polygons_of(annotation: Annotation) -> list[tuple[float, ...]]:
    """The annotation's outlines; of a mask, along the edges of its pixels."""
    if annotation.polygons or annotation.rle is None:
        return list(annotation.polygons)
    found = outlines_of(pixels_of(annotation.rle))
    return [tuple(float(value) for point in outline for value in point) for outline in found]


def one_outline(annotation: Annotation) -> tuple[float, ...]:
    """All parts and holes as one outline `x1, y1, x2, y2, …`, joined by cuts of no width.

    Filled by the even-odd rule it covers what the parts cover, so one object stays one row.
    """
    joined, *others = polygons_of(annotation)
    for polygon in others:
        joined = bridged(joined, polygon)
    return joined


def bridged(first: tuple[float, ...], second: tuple[float, ...]) -> tuple[float, ...]:
    """Walk `first` to the point nearest to `second`, all around `second`, and on."""
    a, b = (np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in (first, second))
    # Of long outlines every few points will do: the cut has no width wherever it lies.
    few, many = a[:: 1 + len(a) // 500], b[:: 1 + len(b) // 500]
    distances = ((few[:, None] - many[None]) ** 2).sum(-1)
    nearest, other = divmod(int(distances.argmin()), distances.shape[1])
    i, j = nearest * (1 + len(a) // 500), other * (1 + len(b) // 500)
    ring = [*second[2 * j :], *second[: 2 * j], *second[2 * j : 2 * j + 2]]
    return (*first[: 2 * i + 2], *ring, *first[2 * i :])
