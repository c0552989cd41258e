"""Reading any dataset: the counts, and what cannot be read at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eagleray.contract import DatasetError, UnknownNameError
from eagleray.datasets import Edit, convert, detect_format, read_dataset, split_validation
from eagleray.testing.data import (
    write_classification_dataset,
    write_detection_dataset,
    write_keypoint_dataset,
    write_segmentation_dataset,
)

Refusal = Callable[..., str]
Write = Callable[..., Path]


def label(root: Path, text: str) -> None:
    (root / "train/labels/train-0000.txt").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("write", "task"),
    [
        (write_detection_dataset, "object-detection"),
        (write_detection_dataset, "zero-shot-object-detection"),
        (write_segmentation_dataset, "segment"),
        (write_keypoint_dataset, "pose"),
        (write_classification_dataset, "classify"),
    ],
)
def test_a_written_dataset_of_each_task_is_read_without_a_warning(write: Write, task: str, tmp_path: Path) -> None:
    report = read_dataset(write(tmp_path / "set", images=12), task)

    assert report.warnings == ()
    assert report.dataset.num_images == 12
    assert report.dataset.num_annotations >= 12


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_detection_dataset(tmp_path / name, seed=3) for name in "ab")

    def content(root: Path) -> dict[str, bytes]:
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    assert content(first) == content(second)


def test_the_counts_are_plain_data_with_totals_and_splits(root: Path) -> None:
    label(root, "0 .5 .5 .2 .2\n1 .4 .4 .2 .2\n")
    (root / "train/labels/train-0001.txt").unlink()

    counts = read_dataset(root, "detect").counts()

    train, val = (counts["splits"][split] for split in ("train", "val"))  # type: ignore[index]
    assert train["images"] == 6
    assert train["backgrounds"] == 1
    assert counts["images"] == 8
    assert counts["annotations"] == train["annotations"] + val["annotations"]
    assert counts["backgrounds"] == 1


def test_a_missing_folder_an_empty_folder_and_a_missing_description_are_refused(
    tmp_path: Path, refusal: Refusal
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()

    assert "There is no dataset at" in refusal(tmp_path / "absent")
    assert "is empty" in refusal(tmp_path / "empty")
    assert "data.yaml is missing" in refusal(tmp_path / "other")
    assert "is not a folder" in refusal(tmp_path / "other/file")


def test_an_unknown_format_names_the_valid_ones(root: Path) -> None:
    with pytest.raises(UnknownNameError, match="dice"):
        read_dataset(root, "detect", "dise")


def test_a_format_that_does_not_serve_the_task_is_refused(root: Path) -> None:
    with pytest.raises(DatasetError, match="--dataset-format dice"):
        read_dataset(root, "detect", "imagefolder")


def test_a_task_without_any_format_is_refused(root: Path, refusal: Refusal) -> None:
    assert "mask-generation" in refusal(root, "mask-generation")


def test_a_folder_that_is_two_formats_asks_for_one(root: Path) -> None:
    (root / "train.jsonl").write_text('{"image": "train/images/train-0000.png", "answer": "x"}\n')

    with pytest.raises(DatasetError, match=r"can be read as dice .* or jsonl") as caught:
        detect_format(root)

    assert "--format dice" in caught.value.hint
    assert read_dataset(root, "detect").dataset.format == "dice"


@pytest.mark.parametrize("form", ["dice", "yolo", "coco", "voc"])
def test_every_written_format_is_recognised(form: str, root: Path, tmp_path: Path) -> None:
    convert(root, form, tmp_path / "copy")

    assert detect_format(tmp_path / "copy") == form


@pytest.mark.parametrize("form", ["imagefolder", "csv", "yolo"])
def test_every_written_format_of_labels_is_recognised(form: str, tmp_path: Path) -> None:
    convert(write_classification_dataset(tmp_path / "source"), form, tmp_path / "copy")

    # Class folders are class folders, whoever wrote them.
    assert detect_format(tmp_path / "copy") == ("imagefolder" if form == "yolo" else form)


def test_class_folders_without_splits_are_one_training_split(tmp_path: Path) -> None:
    source = write_classification_dataset(tmp_path / "source")

    report = convert(source / "train", "imagefolder", tmp_path / "copy", edit=Edit(validation=split_validation(0.5)))

    assert report.classes == ("a", "b")
    assert read_dataset(tmp_path / "copy", "classify").dataset.num_images == report.images
