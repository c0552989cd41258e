"""A plugin is given the form that it declares, from any format, once for each content."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from eagleray.contract import DatasetError
from eagleray.datasets import convert, prepare_form, read_dataset
from eagleray.testing.data import write_classification_dataset, write_detection_dataset, write_segmentation_dataset

DICE = ("dice", "yolo", "imagefolder")


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    convert(write_detection_dataset(tmp_path / "source"), "coco", tmp_path / "coco")
    return tmp_path / "coco"


def test_a_form_that_fits_is_left_where_it_is(tmp_path: Path) -> None:
    root = write_detection_dataset(tmp_path / "set")

    report = prepare_form(root, "detect", DICE, tmp_path / "cache")

    assert report.dataset == read_dataset(root, "detect").dataset
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_another_form_is_converted_with_the_same_counts_and_says_so(form: str, tmp_path: Path) -> None:
    root = write_detection_dataset(tmp_path / "source")
    convert(root, form, tmp_path / form)

    report = prepare_form(tmp_path / form, "detect", DICE, tmp_path / "cache")

    assert report.dataset.format == "dice"
    assert report.counts() == read_dataset(root, "detect").counts()
    assert f"The dataset is of the format {form}; it is trained from as dice." in report.warnings


def test_the_second_time_it_is_found_and_no_picture_is_read_again(
    coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare_form(coco, "detect", DICE, tmp_path / "cache")
    monkeypatch.setattr("eagleray.datasets.prepare.write", None)
    monkeypatch.setattr("eagleray.datasets.images.load", None)

    assert prepare_form(coco, "detect", DICE, tmp_path / "cache") == first


def test_pictures_are_linked(coco: Path, tmp_path: Path) -> None:
    dataset = prepare_form(coco, "detect", DICE, tmp_path / "cache").dataset

    assert (dataset.path / "train/images/train-0000.png").samefile(coco / "train/train-0000.png")


def test_other_content_is_another_folder(coco: Path, tmp_path: Path) -> None:
    first = prepare_form(coco, "detect", DICE, tmp_path / "cache").dataset.path
    for path in (coco / "annotations").iterdir():
        path.write_text(path.read_text().replace('"a"', '"another"'))

    second = prepare_form(coco, "detect", DICE, tmp_path / "cache")

    assert second.dataset.path != first
    assert second.dataset.classes[0] == "another"


def test_a_replaced_picture_is_seen(coco: Path, tmp_path: Path) -> None:
    first = prepare_form(coco, "detect", DICE, tmp_path / "cache").dataset.path
    os.utime(coco / "train/train-0000.png", ns=(1, 1))

    assert prepare_form(coco, "detect", DICE, tmp_path / "cache").dataset.path != first


def test_faults_are_named_by_the_files_that_the_user_has(coco: Path, tmp_path: Path) -> None:
    (coco / "train/train-0001.png").unlink()
    (coco / "train/train-0001.png").write_bytes(b"x")

    with pytest.raises(DatasetError, match=r"train/train-0001.png: not a readable picture"):
        prepare_form(coco, "detect", DICE, tmp_path / "cache")

    assert not list((tmp_path / "cache").glob("*"))


def test_masks_are_trained_from_as_boxes_where_the_job_is_of_boxes(tmp_path: Path) -> None:
    convert(write_segmentation_dataset(tmp_path / "source"), "coco", tmp_path / "coco")

    report = prepare_form(tmp_path / "coco", "detect", DICE, tmp_path / "cache")

    assert report.dataset.task == "object-detection"
    assert report.dataset.num_annotations == read_dataset(tmp_path / "source", "segment").dataset.num_annotations


def test_a_form_that_cannot_be_had_is_refused_with_those_that_can(coco: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot become one of imagefolder, csv") as caught:
        prepare_form(coco, "detect", ("imagefolder", "csv"), tmp_path / "cache")

    assert "imagefolder" in caught.value.hint


def test_class_folders_become_a_table(tmp_path: Path) -> None:
    root = write_classification_dataset(tmp_path / "set")

    assert (
        prepare_form(root, "classify", ("csv",), tmp_path / "cache").counts() == read_dataset(root, "classify").counts()
    )


def test_a_dataset_without_a_validation_split_is_refused_before_it_is_converted(coco: Path, tmp_path: Path) -> None:
    (coco / "annotations/instances_val.json").unlink()

    with pytest.raises(DatasetError, match="has no val split"):
        prepare_form(coco, "detect", DICE, tmp_path / "cache")


def test_two_at_once_end_with_the_same(coco: Path, tmp_path: Path) -> None:
    found = []

    def prepare() -> None:
        found.append(prepare_form(coco, "detect", DICE, tmp_path / "cache"))

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 4
    assert all(report == found[0] for report in found)
    assert len(list((tmp_path / "cache").iterdir())) == 1
