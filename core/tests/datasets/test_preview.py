"""Contact sheets: the same for the same seed, with what is annotated drawn in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eagleray.contract import DatasetError
from eagleray.datasets import preview, write
from eagleray.datasets.preview import CELL, COLOURS, GAP
from eagleray.datasets.records import Annotation
from eagleray.testing.data import (
    write_classification_dataset,
    write_detection_dataset,
    write_keypoint_dataset,
    write_segmentation_dataset,
)


@pytest.mark.parametrize(
    "maker", [write_detection_dataset, write_segmentation_dataset, write_keypoint_dataset, write_classification_dataset]
)
def test_a_sheet_of_each_task_is_written_and_is_the_same_again(maker: Callable[..., Path], tmp_path: Path) -> None:
    root = maker(tmp_path / "set", images=20)

    first = preview(root, tmp_path / "out/a.png", images=6).read_bytes()

    assert preview(root, tmp_path / "b.png", images=6).read_bytes() == first
    assert preview(root, tmp_path / "c.png", images=6, seed=1).read_bytes() != first
    with Image.open(tmp_path / "b.png") as image:
        assert image.width == 4 * (CELL + GAP) + GAP


def test_boxes_outlines_and_keypoints_are_drawn_in_the_colour_of_their_class(make: Any, tmp_path: Path) -> None:
    square = ((40.0, 40.0, 120.0, 40.0, 120.0, 120.0, 40.0, 120.0),)
    found = [Annotation(1, (40, 40, 120, 120), square)]
    source = make("image-segmentation", [("a.png", "train", (320, 320), found)])
    write(source, "coco", tmp_path / "coco")

    with Image.open(preview(tmp_path / "coco", tmp_path / "a.png")) as image:
        edge, inside, outside = (image.getpixel((GAP + x, GAP + y)) for x, y in ((80, 119), (80, 80), (200, 200)))

    assert edge == COLOURS[1]
    assert inside not in (outside, COLOURS[1])


def test_a_picture_that_cannot_be_read_is_said_on_the_sheet(tmp_path: Path) -> None:
    root = write_classification_dataset(tmp_path / "set")
    for path in (root / "train/a").iterdir():
        path.write_bytes(b"x")

    assert preview(root, tmp_path / "a.png").is_file()


def test_a_dataset_without_a_picture_has_no_sheet(tmp_path: Path) -> None:
    root = write_detection_dataset(tmp_path / "set")
    for path in root.rglob("*.png"):
        path.unlink()

    with pytest.raises(DatasetError, match="has no picture to show"):
        preview(root, tmp_path / "a.png")


def test_many_classes_share_one_bar(make: Any, tmp_path: Path) -> None:
    found = [Annotation(number, (1, 1, 9, 9)) for number in range(60)]
    classes = tuple(f"class {number}" for number in range(60))
    write(make("object-detection", [("a.png", "train", (32, 32), found)], classes=classes), "coco", tmp_path / "coco")

    with Image.open(preview(tmp_path / "coco", tmp_path / "a.png")) as image:
        assert image.height < 1000
