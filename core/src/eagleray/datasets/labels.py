"""Label rows: one object a line, everything divided by the picture's width and height."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eagleray.contract.tasks import (
    IMAGE_SEGMENTATION,
    KEYPOINT_DETECTION,
    OBJECT_DETECTION,
    ZERO_SHOT_OBJECT_DETECTION,
)
from eagleray.datasets.report import Findings, shown

MAX_BYTES = 16 << 20
# Writers that round to six digits may end a hair outside.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class RowShape:
    """What a row must fit: how many classes there are, and `(count, dims)` of its keypoints."""

    num_classes: int
    keypoints: tuple[int, int] | None = None


class RowError(ValueError):
    """What is wrong with a row; `fix` says what it must look like."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what, fix)
        self.what = what
        self.fix = fix


BOX_FIX = "A row is `class cx cy w h`, the last four in 0..1."
OUTLINE_FIX = "A row is `class x1 y1 x2 y2 x3 y3 …`, at least three points in 0..1."
KEYPOINT_FIX = "A row is `class cx cy w h` and `x y` or `x y visibility` for each keypoint, as kpt_shape says."


def check_box(values: list[float], shape: RowShape) -> None:
    if len(values) != 4:
        also = " (outlines need the task image-segmentation)" if len(values) >= 6 and len(values) % 2 == 0 else ""
        raise RowError(f"{len(values) + 1} columns instead of 5{also}", BOX_FIX)
    check_range(values, BOX_FIX)
    if values[2] <= 0 or values[3] <= 0:
        raise RowError(f"the box has no area (w {values[2]:g}, h {values[3]:g})", BOX_FIX)


def check_outline(values: list[float], shape: RowShape) -> None:
    # A box instead of an outline would make frameworks drop the picture, or every outline of the set.
    if len(values) == 4:
        raise RowError("a box instead of an outline", OUTLINE_FIX)
    if len(values) < 6 or len(values) % 2:
        raise RowError(f"{len(values)} coordinates are not three or more pairs", OUTLINE_FIX)
    check_range(values, OUTLINE_FIX)
    xs, ys = values[::2], values[1::2]
    pairs = range(len(xs))
    area = abs(sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in pairs)) / 2
    if area < 1e-12:
        raise RowError("the outline has no area", OUTLINE_FIX)


def check_keypoints(values: list[float], shape: RowShape) -> None:
    if shape.keypoints is None:
        raise ValueError("rows with keypoints need their count and dimensions")
    count, dims = shape.keypoints
    if len(values) != 4 + count * dims:
        raise RowError(f"{len(values) + 1} columns instead of {5 + count * dims}", KEYPOINT_FIX)
    check_box(values[:4], shape)
    points = values[4:]
    if dims == 3:
        visibility = points[2::3]
        if not all(value in (0, 1, 2) for value in visibility):
            raise RowError(f"a visibility is not 0, 1 or 2: {visibility}", KEYPOINT_FIX)
        points = [value for number, value in enumerate(points) if number % 3 != 2]
    check_range(points, KEYPOINT_FIX)


def check_range(values: list[float], fix: str) -> None:
    for value in values:
        if not -TOLERANCE <= value <= 1 + TOLERANCE:
            raise RowError(f"{value:g} is outside 0..1", fix)


ROWS: dict[str, Callable[[list[float], RowShape], None]] = {
    OBJECT_DETECTION: check_box,
    ZERO_SHOT_OBJECT_DETECTION: check_box,
    IMAGE_SEGMENTATION: check_outline,
    KEYPOINT_DETECTION: check_keypoints,
}


def check_row(line: str, task: str, shape: RowShape) -> int:
    """The class id of a row. Raises RowError."""
    try:
        # Python reads `1_0` as ten; no framework's parser is promised to.
        values = [float(field) if "_" not in field else math.nan for field in line.split()]
    except ValueError as error:
        raise RowError(shown(error, 80), "Every column is a number.") from None
    if not all(map(math.isfinite, values)):
        raise RowError("a column is not a finite number", "Every column is a number.")
    class_id = values[0]
    if class_id != int(class_id) or not 0 <= class_id < shape.num_classes:
        raise RowError(
            f"class {class_id:g} is not in 0..{shape.num_classes - 1}", "Class ids count from 0 up to `nc` - 1."
        )
    ROWS[task](values[1:], shape)
    return int(class_id)


def read_labels(path: Path, task: str, shape: RowShape, findings: Findings) -> tuple[list[int], int]:
    """The class ids of the objects in a label file, and how many rows repeat another; faults go to `findings`."""
    if path.stat().st_size > MAX_BYTES:
        findings.fault(path, f"larger than {MAX_BYTES} bytes", "Is it really a label file?")
        return [], 0
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        findings.fault(path, "not UTF-8 text", "Save the label file as UTF-8.")
        return [], 0
    class_ids: list[int] = []
    rows = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if row := line.strip():
            try:
                class_ids.append(check_row(row, task, shape))
                rows.add(row)
            except RowError as error:
                findings.fault(path, error.what, error.fix, number)
    return class_ids, len(class_ids) - len(rows)
