"""What a dataset holds beside its task is named when it is read, and refused where a copy would lose it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract import DatasetError
from eagleray.datasets import Edit, convert, fix, open_dataset, prepare_form, read_dataset, validate, write
from eagleray.datasets.formats import FORMATS
from eagleray.datasets.records import Annotation
from eagleray.testing.data import (
    write_classification_dataset,
    write_detection_dataset,
    write_keypoint_dataset,
    write_segmentation_dataset,
)

SQUARE = [[1, 1, 9, 1, 9, 9, 1, 9]]
WRITERS: dict[str, Callable[..., Path]] = {
    "object-detection": write_detection_dataset,
    "image-segmentation": write_segmentation_dataset,
    "keypoint-detection": write_keypoint_dataset,
    "image-classification": write_classification_dataset,
}


def annotation_file(root: Path) -> Path:
    return next((root / "annotations").glob("*_train.json"))


@pytest.fixture
def partly(tmp_path: Path) -> Path:
    """A COCO set of which all annotations but one have an outline."""
    convert(write_segmentation_dataset(tmp_path / "source"), "coco", tmp_path / "partly")
    whole = json.loads(annotation_file(tmp_path / "partly").read_text())
    del whole["annotations"][0]["segmentation"]
    annotation_file(tmp_path / "partly").write_text(json.dumps(whole))
    return tmp_path / "partly"


@pytest.fixture
def posed(tmp_path: Path) -> Path:
    """A COCO set of keypoints of which one annotation has an outline, too."""
    convert(write_keypoint_dataset(tmp_path / "source"), "coco", tmp_path / "posed")
    whole = json.loads(annotation_file(tmp_path / "posed").read_text())
    whole["annotations"][0]["segmentation"] = SQUARE
    annotation_file(tmp_path / "posed").write_text(json.dumps(whole))
    return tmp_path / "posed"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """As the original is: every picture has boxes, and all but one a mask."""
    convert(write_segmentation_dataset(tmp_path / "source"), "voc", tmp_path / "voc", allow_loss=True)
    for kind in ("SegmentationClass", "SegmentationObject"):
        (tmp_path / "voc" / kind / "train-0000.png").unlink()
    return tmp_path / "voc"


@pytest.fixture(params=["partly", "posed", "voc"])
def mixed(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_reading_names_what_the_task_does_not_read(mixed: Path) -> None:
    report = validate(mixed)

    found = [finding for finding in report.findings if finding.code == "left-out"]
    assert [finding.severity for finding in found] == ["warning"]
    assert "masks" in found[0].message
    assert "--task image-segmentation" in found[0].message
    assert report.ok
    assert found[0].message in read_dataset(mixed, report.task).warnings


@pytest.mark.parametrize("edit", [None, Edit(keep=("a",))], ids=["as it is", "edited"])
def test_a_conversion_refuses_to_lose_masks_and_says_what_it_lost(
    edit: Edit | None, mixed: Path, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=r"the masks .* are left out") as caught:
        convert(mixed, "coco", tmp_path / "copy", edit=edit)

    assert "--allow-loss" in caught.value.hint
    assert not (tmp_path / "copy").exists()
    report = convert(mixed, "coco", tmp_path / "copy", edit=edit, allow_loss=True)
    assert "masks" in report.lost[0]
    assert not [sentence for sentence in report.warnings if "masks" in sentence]


def test_a_mended_copy_refuses_to_lose_masks_and_says_what_it_lost(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"the masks .* are left out"):
        fix(validate(mixed), tmp_path / "copy")

    assert not (tmp_path / "copy").exists()
    assert "masks" in fix(validate(mixed), tmp_path / "copy", allow_loss=True).done[-1]


def test_a_task_that_reads_the_masks_loses_none(posed: Path, tmp_path: Path) -> None:
    source, _ = open_dataset(posed, "image-segmentation")

    assert list(source.info.also_holds) == ["keypoint-detection"]


def test_boxes_of_pictures_without_a_mask_are_named_where_masks_are_read(voc: Path) -> None:
    source, _ = open_dataset(voc, "image-segmentation")

    assert source.info.also_holds == {"object-detection": "the boxes of 1 pictures without a mask"}


def test_what_a_form_for_training_leaves_out_is_said_once(posed: Path, tmp_path: Path) -> None:
    report = prepare_form(posed, "keypoint-detection", ["dice"], tmp_path / "forms")

    assert len([sentence for sentence in report.warnings if "masks" in sentence]) == 1


@pytest.mark.parametrize(
    ("task", "form"),
    [(task, form.name) for task in WRITERS for form in FORMATS.values() if task in form.writes],
)
def test_what_was_written_is_read_again_as_the_same_task(task: str, form: str, tmp_path: Path) -> None:
    convert(WRITERS[task](tmp_path / "source"), form, tmp_path / "copy", allow_loss=True)

    source, findings = open_dataset(tmp_path / "copy", None)

    assert source.info.task == task
    assert not source.info.also_holds
    assert not [finding for finding in findings.items if finding.code == "left-out"]


def test_crowds_do_not_become_objects_of_a_mask(make: Any, tmp_path: Path) -> None:
    square = ((1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0),)
    found = [Annotation(0, (1, 1, 5, 5), square), Annotation(0, (1, 1, 5, 5), square, ignore=True)]
    source = make("image-segmentation", [("a.png", "train", (12, 12), found)])

    with pytest.raises(DatasetError, match="whole pixels"):
        write(source, "voc", tmp_path / "copy")
    report = write(source, "voc", tmp_path / "copy", allow_loss=True)

    assert (report.annotations, report.ignored) == (1, 1)
