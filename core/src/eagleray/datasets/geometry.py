"""Boxes and outlines in float pixels: what a sound one is, and how one is brought into its picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from eagleray.datasets.records import Annotation, BoxXYXY

# Annotation programs round, so a box that ends up to this many pixels outside is cut, not refused.
SLACK = 1.0
# Square pixels; what programs write by a slip of the hand is less.
MIN_AREA = 1e-6
# Pixels; writers round what is less to nothing.
MIN_SIDE = 1e-6


class RowError(ValueError):
    """What is wrong with one annotation; `fix` says what it must look like, `code` its kind."""

    def __init__(self, what: str, fix: str, code: str = "row") -> None:
        super().__init__(what, fix, code)
        self.what = what
        self.fix = fix
        self.code = code


def box_around(polygons: Sequence[Sequence[float]]) -> BoxXYXY:
    """The smallest box around outlines of `x1, y1, x2, y2, …`."""
    return (
        min(min(polygon[::2]) for polygon in polygons),
        min(min(polygon[1::2]) for polygon in polygons),
        max(max(polygon[::2]) for polygon in polygons),
        max(max(polygon[1::2]) for polygon in polygons),
    )


def outline_area(polygon: Sequence[float]) -> float:
    """The area inside an outline `x1, y1, x2, y2, …`, by Gauss's formula."""
    xs, ys = polygon[::2], polygon[1::2]
    # Products and sums without a loop: this runs for every outline of a set.
    ahead: float = sum(map(mul, xs, ys[1:])) + xs[-1] * ys[0]
    back: float = sum(map(mul, xs[1:], ys)) + xs[0] * ys[-1]
    return abs(ahead - back) / 2


def clipped_box(box: BoxXYXY, width: float, height: float) -> BoxXYXY:
    x1, y1, x2, y2 = box
    return min(max(x1, 0.0), width), min(max(y1, 0.0), height), min(max(x2, 0.0), width), min(max(y2, 0.0), height)


def clipped_outline(polygon: Sequence[float], width: float, height: float) -> tuple[float, ...]:
    bounds = (width, height)
    return tuple(min(max(value, 0.0), bounds[place % 2]) for place, value in enumerate(polygon))


def inside(annotation: Annotation, width: int, height: int, *, mend: bool) -> tuple[Annotation, float]:
    """The annotation, cut to its picture where it ends outside, and by how many pixels it did.

    Its outlines have passed `check_outline`.

    Raises:
        RowError: NaN, no area, or more than `SLACK` pixels outside. With `mend` what is outside is cut instead.
    """
    box, over = annotation.box, 0.0
    if box is not None:
        x1, y1, x2, y2 = box
        within = x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height
        # Nearly every box of a set, without more; NaN is within nothing and goes on below.
        if within and x2 - x1 >= MIN_SIDE and y2 - y1 >= MIN_SIDE and not (annotation.polygons or annotation.keypoints):
            return annotation, 0.0
        if not math.isfinite(x1 + y1 + x2 + y2):
            raise RowError(f"the box {rounded(box)} is not finite", "Every coordinate is a number.", "not-finite")
        if x2 - x1 < MIN_SIDE or y2 - y1 < MIN_SIDE:
            fix = "Remove it, or give it a width and a height."
            raise RowError(f"the box {rounded(box)} has no area", fix, "no-area")
        if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
            over = max(-x1, -y1, x2 - width, y2 - height)
    for polygon in annotation.polygons:
        xs, ys = polygon[::2], polygon[1::2]
        over = max(over, -min(xs), -min(ys), max(xs) - width, max(ys) - height)
    for x, y, visibility in annotation.keypoints:
        if not math.isfinite(x + y + visibility):
            raise RowError(f"the keypoint {x:g}, {y:g} is not finite", "Every coordinate is a number.", "not-finite")
        if visibility:
            over = max(over, -x, -y, x - width, y - height)
    if over <= 0:
        return annotation, 0.0
    if over > SLACK and not mend:
        raise RowError(
            f"ends {over:g} pixels outside of its picture of {width} x {height}", "Cut it to the picture.", "outside"
        )
    return cut(annotation, width, height), over


def check_outline(polygon: Sequence[float]) -> None:
    if len(polygon) < 6 or len(polygon) % 2:
        raise RowError(
            f"an outline of {len(polygon)} numbers is not three or more pairs", "Give x and y of each corner."
        )
    if not math.isfinite(sum(polygon)):
        raise RowError("an outline is not finite", "Every coordinate is a number.", "not-finite")
    if outline_area(polygon) < MIN_AREA:
        raise RowError("an outline has no area", "Remove it, or draw it around something.", "no-area")


def cut(annotation: Annotation, width: int, height: int) -> Annotation:
    """Cut to the picture. Raises RowError where nothing is left."""
    box = clipped_box(annotation.box, width, height) if annotation.box else None
    if box and (box[2] <= box[0] or box[3] <= box[1]):
        raise RowError(f"the box {rounded(annotation.box or ())} lies outside", "Remove it.", "outside")
    polygons = tuple(clipped_outline(polygon, width, height) for polygon in annotation.polygons)
    kept = tuple(polygon for polygon in polygons if outline_area(polygon) >= MIN_AREA)
    if polygons and not kept:
        raise RowError("the outline lies outside", "Remove it.", "outside")
    keypoints = tuple(
        (x, y, visibility) if 0 <= x <= width and 0 <= y <= height else near_or_none(x, y, visibility, width, height)
        for x, y, visibility in annotation.keypoints
    )
    return Annotation(annotation.class_id, box, kept, annotation.rle, keypoints, annotation.ignore)


def near_or_none(x: float, y: float, visibility: float, width: int, height: int) -> tuple[float, float, float]:
    """A keypoint a hair outside is moved to the edge; one further out counts as not labelled."""
    if max(-x, -y, x - width, y - height) <= SLACK:
        return min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height)), visibility
    return 0.0, 0.0, 0.0


def rounded(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
