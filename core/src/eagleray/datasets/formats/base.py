"""What a format is: how it is recognised, opened and written, and which tasks it serves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from eagleray.contract.tasks import (
    IMAGE_CLASSIFICATION,
    IMAGE_SEGMENTATION,
    KEYPOINT_DETECTION,
    OBJECT_DETECTION,
    ZERO_SHOT_OBJECT_DETECTION,
)
from eagleray.datasets.records import DatasetInfo, DatasetSource, DatasetWriter
from eagleray.datasets.report import Findings
from eagleray.datasets.writing import Files

# What an open vocabulary is trained from are boxes with names.
BOXES = (OBJECT_DETECTION, ZERO_SHOT_OBJECT_DETECTION)
OBJECTS = (*BOXES, IMAGE_SEGMENTATION, KEYPOINT_DETECTION)
EVERYTHING = (*OBJECTS, IMAGE_CLASSIFICATION)


class Open(Protocol):
    """Opens a dataset.

    Args:
        given: its folder, or the file in it that describes it.
        task: a canonical task name; None: what the annotations hold.
        mend: cut what is outside and decode other encodings, for a mended copy.

    Raises:
        DatasetError: it is not usable as a whole. Faults of files and rows go to `findings`.
    """

    def __call__(self, given: Path, task: str | None, findings: Findings, *, mend: bool) -> DatasetSource: ...


@dataclass(frozen=True)
class Format:
    """A dataset format.

    Attributes:
        reads, writes: tasks.
        recognise: why a folder or file looks like this format; empty where it does not.
        split_hint: what to do where a split is missing.
    """

    name: str
    title: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    recognise: Callable[[Path], str]
    open: Open
    writer: Callable[[Files, DatasetInfo], DatasetWriter]
    split_hint: Callable[[str], str]
