"""Label rows: one object a line, everything divided by the picture's width and height."""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from eagleray.contract.tasks import (
    IMAGE_SEGMENTATION,
    KEYPOINT_DETECTION,
    OBJECT_DETECTION,
    ZERO_SHOT_OBJECT_DETECTION,
)
from eagleray.datasets.geometry import RowError, box_around, clipped_box, inside, outline_area
from eagleray.datasets.records import Annotation
from eagleray.datasets.report import Findings, shown

MAX_BYTES = 16 << 20
# Writers that round to six digits may end a hair outside.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class RowShape:
    """What a row must fit: how many classes there are, and `(count, dims)` of its keypoints."""

    num_classes: int
    keypoints: tuple[int, int] | None = None


BOX_FIX = "A row is `class cx cy w h`, the last four in 0..1."
OUTLINE_FIX = "A row is `class x1 y1 x2 y2 x3 y3 …`, at least three points in 0..1."
KEYPOINT_FIX = "A row is `class cx cy w h` and `x y` or `x y visibility` for each keypoint, as kpt_shape says."


def check_box(values: list[float], shape: RowShape) -> None:
    if len(values) != 4:
        also = " (outlines need the task image-segmentation)" if len(values) >= 6 and len(values) % 2 == 0 else ""
        raise RowError(f"{len(values) + 1} columns instead of 5{also}", BOX_FIX)
    check_range(values, BOX_FIX)
    if values[2] <= 0 or values[3] <= 0:
        raise RowError(f"the box has no area (w {values[2]:g}, h {values[3]:g})", BOX_FIX, "no-area")


def check_outline(values: list[float], shape: RowShape) -> None:
    # A box instead of an outline would make frameworks drop the picture, or every outline of the set.
    if len(values) == 4:
        raise RowError("a box instead of an outline", OUTLINE_FIX)
    if len(values) < 6 or len(values) % 2:
        raise RowError(f"{len(values)} coordinates are not three or more pairs", OUTLINE_FIX)
    check_range(values, OUTLINE_FIX)
    if outline_area(values) < 1e-12:
        raise RowError("the outline has no area", OUTLINE_FIX, "no-area")


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
            raise RowError(f"{value:g} is outside 0..1", fix, "outside")


ROWS: dict[str, Callable[[list[float], RowShape], None]] = {
    OBJECT_DETECTION: check_box,
    ZERO_SHOT_OBJECT_DETECTION: check_box,
    IMAGE_SEGMENTATION: check_outline,
    KEYPOINT_DETECTION: check_keypoints,
}


def parse_row(line: str, task: str, shape: RowShape, *, mend: bool = False) -> tuple[int, list[float]]:
    """The class id of a row and its other columns. Raises RowError."""
    try:
        # Python reads `1_0` as ten; no framework's parser is promised to.
        values = [float(field) if "_" not in field else math.nan for field in line.split()]
    except ValueError as error:
        raise RowError(shown(error, 80), "Every column is a number.") from None
    if not all(map(math.isfinite, values)):
        raise RowError("a column is not a finite number", "Every column is a number.", "not-finite")
    class_id = values[0]
    if class_id != int(class_id) or not 0 <= class_id < shape.num_classes:
        raise RowError(
            f"class {class_id:g} is not in 0..{shape.num_classes - 1}",
            "Class ids count from 0 up to `nc` - 1.",
            "class-id",
        )
    columns = values[1:]
    try:
        ROWS[task](columns, shape)
    except RowError as error:
        if not (mend and error.code == "outside"):
            raise
        columns = cut_columns(columns, task, shape)
        ROWS[task](columns, shape)
    return int(class_id), columns


def cut_columns(values: list[float], task: str, shape: RowShape) -> list[float]:
    """The columns with everything brought into 0..1; keypoints outside become unlabelled."""
    if task == IMAGE_SEGMENTATION:
        return [min(max(value, 0.0), 1.0) for value in values]
    cx, cy, w, h = values[:4]
    x1, y1, x2, y2 = clipped_box((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), 1, 1)
    points = values[4:]
    dims = shape.keypoints[1] if shape.keypoints else 2
    for start in range(0, len(points) - dims + 1, dims):
        if not (0 <= points[start] <= 1 and 0 <= points[start + 1] <= 1):
            points[start : start + dims] = [0.0] * dims
    return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, *points]


def annotation_of(
    class_id: int, values: list[float], task: str, shape: RowShape, width: int, height: int
) -> Annotation:
    """A checked row in pixels of a picture of `width` x `height`."""
    if task == IMAGE_SEGMENTATION:
        outline = tuple(value * (height if place % 2 else width) for place, value in enumerate(values))
        return Annotation(class_id, box_around([outline]), (outline,))
    cx, cy, w, h = values[:4]
    box = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
    if task != KEYPOINT_DETECTION or shape.keypoints is None:
        return Annotation(class_id, box)
    dims = shape.keypoints[1]
    points = tuple(
        # Without visibility, 0 0 is how this layout says that a keypoint is not labelled.
        (x * width, y * height, values[start + 2] if dims == 3 else 2.0 * bool(x or y))
        for start in range(4, len(values), dims)
        for x, y in [(values[start], values[start + 1])]
    )
    return Annotation(class_id, box, keypoints=points)


def read_labels(
    path: Path, task: str, shape: RowShape, size: tuple[int, int], findings: Findings, *, mend: bool = False
) -> tuple[Annotation, ...]:
    """The objects in a label file, in pixels of a picture of `size`; faults go to `findings`."""
    annotations = []
    for number, line in label_lines(path, findings, mend=mend):
        try:
            class_id, values = parse_row(line, task, shape, mend=mend)
            annotation = annotation_of(class_id, values, task, shape, *size)
            over = 0.0
            if task != IMAGE_SEGMENTATION:
                # Frameworks train from any row whose numbers are in 0..1, wherever its box ends: cut, not refused.
                annotation, over = inside(annotation, *size, mend=True)
        except RowError as error:
            findings.fault(path, error.what, error.fix, number, code=error.code)
            continue
        if over > 2 * TOLERANCE * max(size):
            words = f"the box ends {over:g} pixels outside of its picture; wherever the dataset is written it is cut"
            findings.warn(words, code="outside", path=path, line=number, fix="Cut it to the picture.")
        annotations.append(annotation)
    return tuple(annotations)


def label_lines(path: Path, findings: Findings, *, mend: bool = False) -> Iterator[tuple[int, str]]:
    """The lines that hold something, with their numbers from 1; none where the file cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        findings.fault(path, f"cannot be read: {error.strerror}", "Check the file's rights.", code="file-malformed")
        return
    if len(content) > MAX_BYTES:
        what = f"larger than {MAX_BYTES} bytes"
        findings.fault(path, what, "Is it really a label file?", code="file-too-large")
        return
    text = decoded(content, path, findings, mend=mend)
    for number, line in enumerate(text.splitlines(), start=1):
        if row := line.strip():
            yield number, row


def decoded(content: bytes, path: Path, findings: Findings, *, mend: bool = False) -> str:
    """The text of a file, empty where it is not UTF-8; UTF-16 is read with `mend`, and refused without."""
    mark = next((name for name in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) if content.startswith(name)), None)
    try:
        if mark is None:
            text = content.decode("utf-8-sig")
            odd = [
                *(["a byte-order mark"] if content.startswith(codecs.BOM_UTF8) else []),
                *(["Windows line ends"] if b"\r\n" in content else []),
            ]
            if odd:
                words = f"{' and '.join(odd)}, which some readers stumble over"
                findings.warn(words, code="file-encoding", path=path, fix="Save it as UTF-8 with Unix line ends.")
            return text
        findings.fault(path, "UTF-16, not UTF-8 text", "Save the label file as UTF-8.", code="file-encoding")
        return content.decode("utf-16") if mend else ""
    except UnicodeDecodeError:
        findings.fault(path, "not UTF-8 text", "Save the label file as UTF-8.", code="file-encoding")
        return ""
