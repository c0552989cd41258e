"""The one model that every format is read into and written from: a stream of pictures with their annotations.

Coordinates are float pixels of the picture as it is displayed (EXIF orientation applied), x to the right and y down,
the corner of the first pixel at 0, 0. Class ids count from 0 in the order of `DatasetInfo.classes`.
Nothing here holds a whole dataset: a source yields one picture at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import msgspec

SPLITS = ("train", "val", "test")
BoxXYXY = tuple[float, float, float, float]


class Rle(msgspec.Struct, frozen=True, gc=False):
    """A run-length mask as COCO writes it: `counts` compressed, column by column, for a mask of `height` x `width`."""

    height: int
    width: int
    counts: bytes


class Annotation(msgspec.Struct, frozen=True, gc=False):
    """One object, or the label of a whole picture, or one conversation about it.

    Attributes:
        class_id: counts from 0; -1 where the task has no classes.
        box: `x1, y1, x2, y2` in pixels; None for labels of whole pictures.
        polygons: closed outlines, each `x1, y1, x2, y2, …` of three or more points in pixels; together one object.
        rle: the mask in the place of polygons.
        keypoints: `[K, 3]` as `((x, y, visibility), …)`; pixels, and 0 unlabelled, 1 hidden, 2 visible.
        ignore: COCO's `iscrowd` and Pascal VOC's `difficult`: neither trained on nor evaluated.
        turns: `((role, text), …)` of a conversation, roles `system`, `user` and `assistant`.
    """

    class_id: int
    box: BoxXYXY | None = None
    polygons: tuple[tuple[float, ...], ...] = ()
    rle: Rle | None = None
    keypoints: tuple[tuple[float, float, float], ...] = ()
    ignore: bool = False
    turns: tuple[tuple[str, str], ...] = ()


class ImageRecord(msgspec.Struct, frozen=True, gc=False):
    """One picture and what is known of it.

    Attributes:
        name: its path within the split, in posix form, for example `a/b.jpg`.
        path: the file on this node.
        width, height: pixels as displayed; 0 where the format does not need them (labels of whole pictures).
        split: `train`, `val` or `test`.
        labelled: False where the format has a place for this picture's labels and nothing is there.
    """

    name: str
    path: Path
    width: int
    height: int
    split: str
    annotations: tuple[Annotation, ...] = ()
    labelled: bool = True


@dataclass(frozen=True)
class DatasetInfo:
    """What is known before the first record.

    Attributes:
        root: folder of the dataset.
        images: split → folder of its pictures, relative to `root`; its keys are the splits.
        annotations: split → file or folder of its labels, relative to `root`; missing where there is none.
        keypoints: `(count, dims)`; dims 2 means that the format keeps no visibility.
        flip_index: order of the keypoints in a mirrored picture; empty where unknown.
        keypoint_names: empty where unknown.
        skeleton: pairs of keypoint numbers, from 0, that are joined when drawn.
        tables: of tables, the files that are read, relative to `root`.
        also_holds: task → what lies there for it and `task` has no place for, as `the masks of 3 of 4 annotations`.
    """

    root: Path
    format: str
    task: str
    classes: tuple[str, ...]
    images: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    keypoints: tuple[int, int] | None = None
    flip_index: tuple[int, ...] = ()
    keypoint_names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    also_holds: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if split in self.images)

    def described(self, **changes: object) -> DatasetInfo:
        """The same with some attributes changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


class DatasetSource(Protocol):
    """A dataset that can be read again and again, one picture at a time."""

    @property
    def info(self) -> DatasetInfo: ...

    def records(self, split: str) -> Iterator[ImageRecord]:
        """The split's pictures in a stable order. Faults of files and rows go to the findings it was opened with."""
        ...


class DatasetWriter(Protocol):
    """Writes a dataset of one format, picture after picture; `close` makes it whole."""

    def write(self, record: ImageRecord) -> None: ...

    def close(self) -> None: ...
