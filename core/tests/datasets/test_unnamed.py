"""Pictures that lie in a dataset's folders and that no annotation file names are counted and named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eagleray.contract import DatasetError
from eagleray.datasets import convert, read_dataset, validate
from eagleray.testing.data import write_classification_dataset, write_detection_dataset

PLACES = {"coco": "train", "csv": "images/train", "voc": "JPEGImages"}


@pytest.fixture(params=PLACES)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write = write_classification_dataset if request.param == "csv" else write_detection_dataset
    convert(write(tmp_path / "source"), request.param, tmp_path / "set")
    return tmp_path / "set"


def test_what_was_written_has_no_picture_without_a_name(root: Path) -> None:
    assert not [found for found in validate(root).findings if found.code == "image-unnamed"]


def test_pictures_without_a_name_are_a_warning_with_their_number(root: Path) -> None:
    picture = next(root.rglob("*.png"))
    for number in range(5):
        shutil.copy(picture, picture.with_name(f"stray-{number}.png"))

    report = validate(root)

    (found,) = (found for found in report.findings if found.code == "image-unnamed")
    place = picture.parent.relative_to(root).as_posix()
    assert found.severity == "warning"
    assert found.message.startswith("5 pictures lie there that no annotation file names: ")
    assert f"{place}/stray-0.png" in found.message
    assert "and 2 more" in found.message


def test_a_folder_that_two_splits_share_is_looked_at_once_both_are_read(tmp_path: Path) -> None:
    convert(write_detection_dataset(tmp_path / "source"), "coco", tmp_path / "set")
    (tmp_path / "set/images").mkdir()
    for split in ("train", "val"):
        for path in (tmp_path / "set" / split).iterdir():
            path.rename(tmp_path / "set/images" / path.name)
        (tmp_path / "set" / split).rmdir()

    assert validate(tmp_path / "set").findings == []


def test_a_missing_validation_split_says_how_one_is_made(tmp_path: Path) -> None:
    root = write_detection_dataset(tmp_path / "set")
    shutil.rmtree(root / "valid")

    with pytest.raises(DatasetError) as caught:
        read_dataset(root, "detect")

    assert "--validation 0.2" in caught.value.hint
    assert "`validation`" in caught.value.hint
