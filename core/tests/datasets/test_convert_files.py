"""The files of a conversion: pictures are linked, else copied, and a full disk leaves nothing."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract import DatasetError, EaglerayError
from eagleray.datasets import convert, read_dataset, write
from eagleray.datasets.records import Annotation
from eagleray.testing.data import (
    write_detection_dataset,
)


def test_pictures_are_linked_not_copied(tmp_path: Path) -> None:
    source = write_detection_dataset(tmp_path / "source")

    convert(source, "coco", tmp_path / "copy")

    assert (tmp_path / "copy/train/train-0000.png").samefile(source / "train/images/train-0000.png")


def test_a_picture_behind_a_link_is_linked_itself(tmp_path: Path) -> None:
    source = write_detection_dataset(tmp_path / "source")
    picture = source / "train/images/train-0000.png"
    picture.rename(tmp_path / "elsewhere.png")
    picture.symlink_to(tmp_path / "elsewhere.png")

    convert(source, "coco", tmp_path / "copy")

    placed = tmp_path / "copy/train/train-0000.png"
    assert not placed.is_symlink()
    assert placed.samefile(tmp_path / "elsewhere.png")


def test_pictures_of_one_stem_get_names_of_their_own_and_that_is_counted(make: Any, tmp_path: Path) -> None:
    found = [Annotation(0, (1, 1, 5, 5))]
    names = ["a/x.png", "b/x.png", "x.png", "x.bmp", "X.png"]
    pictures = [(name, "train", (12, 12), found) for name in names] + [("x.png", "val", (12, 12), found)]
    source = make("object-detection", pictures)
    write(source, "coco", tmp_path / "coco")

    report = convert(tmp_path / "coco", "voc", tmp_path / "voc")

    # COCO itself keeps folders apart; in the one folder of VOC the names of all splits meet.
    assert report.images == 6
    assert report.renamed == 3 - 2
    stems = Counter(path.stem.lower() for path in (tmp_path / "voc/JPEGImages").iterdir())
    assert set(stems.values()) == {1}
    assert read_dataset(tmp_path / "voc", "detect").dataset.num_annotations == 6


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    source = write_detection_dataset(tmp_path / "source")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").touch()

    with pytest.raises(DatasetError, match="not an empty folder"):
        convert(source, "coco", tmp_path / "full")

    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def test_where_no_link_can_be_made_pictures_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_detection_dataset(tmp_path / "source")
    monkeypatch.setattr("os.link", failing(errno.EXDEV))

    convert(source, "coco", tmp_path / "copy")

    copied = tmp_path / "copy/train/train-0000.png"
    assert copied.read_bytes() == (source / "train/images/train-0000.png").read_bytes()
    assert not copied.samefile(source / "train/images/train-0000.png")


@pytest.mark.parametrize("what", ["os.link", "os.write"])
def test_a_full_disk_is_our_error_and_nothing_is_left(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_detection_dataset(tmp_path / "source")
    with monkeypatch.context() as patched:
        patched.setattr(what, failing(errno.ENOSPC))

        with pytest.raises(EaglerayError, match="No space left"):
            convert(source, "yolo", tmp_path / "copy")

    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail
