"""Annotations as label rows: `class` and coordinates divided by the picture's width and height."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from eagleray.contract.tasks import IMAGE_SEGMENTATION, KEYPOINT_DETECTION
from eagleray.datasets.geometry import clipped_box
from eagleray.datasets.masks import one_outline
from eagleray.datasets.records import Annotation

Row = Callable[[Annotation, int, int], str]


def box_columns(found: Annotation, width: int, height: int) -> str:
    x1, y1, x2, y2 = found.box or (0.0, 0.0, 0.0, 0.0)
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        x1, y1, x2, y2 = clipped_box((x1, y1, x2, y2), width, height)
    across, down = 2 * width, 2 * height
    # Eight digits: after two conversions a coordinate is what it was to a ten-thousandth of a pixel.
    cx, cy, w, h = (x1 + x2) / across, (y1 + y2) / down, (x2 - x1) / width, (y2 - y1) / height
    return "%d %.8g %.8g %.8g %.8g" % (found.class_id, cx, cy, w, h)  # noqa: UP031 - a third faster than an f-string


def box_row(found: Annotation, width: int, height: int) -> str:
    return f"{box_columns(found, width, height)}\n"


def outline_row(found: Annotation, width: int, height: int) -> str:
    values = one_outline(found)
    scaled = [0.0] * len(values)
    scaled[::2] = [x / width for x in values[::2]]
    scaled[1::2] = [y / height for y in values[1::2]]
    if min(scaled) < 0 or max(scaled) > 1:
        scaled = [min(max(value, 0.0), 1.0) for value in scaled]
    return f"{found.class_id} {pattern(len(scaled)) % tuple(scaled)}\n"


@lru_cache(maxsize=1024)
def pattern(count: int) -> str:
    """How `count` numbers are written; one formatting is some four times faster than one for each."""
    return " ".join(["%.8g"] * count)


def keypoint_row(dims: int) -> Row:
    def row(found: Annotation, width: int, height: int) -> str:
        points = []
        for x, y, visibility in found.keypoints:
            points += [f"{min(max(x / width, 0.0), 1.0):.8g}", f"{min(max(y / height, 0.0), 1.0):.8g}"]
            points += [f"{visibility:g}"] if dims == 3 else []
        return f"{box_columns(found, width, height)} {' '.join(points)}\n"

    return row


def row_of(task: str, keypoints: tuple[int, int] | None) -> Row:
    """The function that writes a row of the task."""
    if task == KEYPOINT_DETECTION and keypoints:
        return keypoint_row(keypoints[1])
    return outline_row if task == IMAGE_SEGMENTATION else box_row
