"""Classes and splits on their way: subsets, new names, merging, other splits, a validation split."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eagleray.contract import DatasetError, UnknownNameError
from eagleray.datasets import Edit, convert, read_dataset, split_validation, write
from eagleray.datasets.edit import edited, stratified
from eagleray.datasets.records import Annotation, DatasetInfo, ImageRecord
from eagleray.testing.data import write_classification_dataset, write_detection_dataset


@pytest.fixture
def three(tmp_path: Path) -> Path:
    return write_detection_dataset(tmp_path / "three", images=16, classes=("cat", "dog", "cow"))


def per_class(root: Path, tmp_path: Path, edit: Edit) -> dict[str, int]:
    return convert(root, "dice", tmp_path / "copy", edit=edit).class_counts


def test_a_subset_keeps_its_order_and_the_other_pictures_become_backgrounds(three: Path, tmp_path: Path) -> None:
    before = convert(three, "coco", tmp_path / "whole").class_counts

    report = convert(three, "dice", tmp_path / "copy", edit=Edit(keep=("cow", "cat")))

    assert report.class_counts == {"cat": before["cat"], "cow": before["cow"]}
    assert report.images == 16
    assert read_dataset(tmp_path / "copy", "detect").dataset.classes == ("cat", "cow")


def test_classes_are_renamed_and_two_with_one_name_become_one(three: Path, tmp_path: Path) -> None:
    before = convert(three, "coco", tmp_path / "whole").class_counts

    after = per_class(three, tmp_path, Edit(rename={"dog": "pet", "cat": "pet"}))

    assert after == {"pet": before["cat"] + before["dog"], "cow": before["cow"]}


def test_a_class_may_take_the_name_of_another(three: Path, tmp_path: Path) -> None:
    before = convert(three, "coco", tmp_path / "whole").class_counts

    assert per_class(three, tmp_path, Edit(rename={"cat": "dog", "dog": "cat"})) == {
        "dog": before["cat"],
        "cat": before["dog"],
        "cow": before["cow"],
    }


@pytest.mark.parametrize("edit", [Edit(keep=("cta",)), Edit(rename={"cta": "x"}), Edit(splits={"tain": "val"})])
def test_an_unknown_name_names_the_nearest(edit: Edit, three: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean"):
        convert(three, "dice", tmp_path / "copy", edit=edit)


def test_a_class_without_a_name_is_refused(three: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="would have no name"):
        convert(three, "dice", tmp_path / "copy", edit=Edit(rename={"cat": " "}))


def test_splits_are_renamed_joined_and_left_out(three: Path, tmp_path: Path) -> None:
    joined = convert(three, "dice", tmp_path / "joined", edit=Edit(splits={"val": "train"}))
    assert {name: split.images for name, split in joined.splits.items()} == {"train": 16}

    alone = convert(three, "coco", tmp_path / "alone", edit=Edit(splits={"val": ""}))
    assert {name: split.images for name, split in alone.splits.items()} == {"train": 12}

    moved = convert(three, "voc", tmp_path / "moved", edit=Edit(splits={"val": "test"}))
    assert set(moved.splits) == {"train", "test"}


def test_a_missing_validation_split_is_made_and_the_result_can_be_trained_from(three: Path, tmp_path: Path) -> None:
    edit = Edit(splits={"val": "train"}, validation=split_validation(0.25, seed=1))

    first = convert(three, "dice", tmp_path / "first", edit=edit)
    convert(three, "dice", tmp_path / "again", edit=edit)

    assert {name: split.images for name, split in first.splits.items()} == {"train": 12, "val": 4}
    assert names(tmp_path / "first") == names(tmp_path / "again")
    assert read_dataset(tmp_path / "first", "detect").dataset.num_images == 16
    other = Edit(splits={"val": "train"}, validation=split_validation(0.25, seed=2))
    convert(three, "dice", tmp_path / "other", edit=other)
    assert names(tmp_path / "first") != names(tmp_path / "other")


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "valid/images").iterdir())


def test_what_is_wrong_before_a_split_is_made_is_still_said(three: Path, tmp_path: Path) -> None:
    (three / "train/labels/lost.txt").write_text("0 .5 .5 .1 .1\n")

    with pytest.raises(DatasetError, match="has 1 fault:"):
        convert(three, "dice", tmp_path / "copy", edit=Edit(splits={"val": ""}, validation=split_validation(0.5)))


def test_a_validation_split_that_is_there_is_not_made_again(three: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has a val split already"):
        convert(three, "dice", tmp_path / "copy", edit=Edit(validation=split_validation(0.5)))


@pytest.mark.parametrize("fraction", [0, 1, -1, 2, float("nan")])
def test_a_fraction_is_between_nothing_and_all(fraction: float) -> None:
    with pytest.raises(DatasetError, match="no part of the dataset"):
        split_validation(fraction)


def test_pictures_of_a_class_that_is_left_out_go_with_it(tmp_path: Path) -> None:
    root = write_classification_dataset(tmp_path / "set", images=12, classes=("a", "b", "c"))

    report = convert(root, "imagefolder", tmp_path / "copy", edit=Edit(keep=("a", "c")))

    assert report.images == 8
    assert read_dataset(tmp_path / "copy", "classify").dataset.classes == ("a", "c")


class Held:
    """A source of labelled pictures in memory, without files."""

    def __init__(self, labels: list[int], classes: int) -> None:
        self.labels = labels
        self.info = DatasetInfo(
            Path("/nowhere"), "made", "image-classification", tuple(map(str, range(classes))), {"train": "train"}
        )

    def records(self, split: str) -> Any:
        for number, label in enumerate(self.labels):
            yield ImageRecord(f"{number}.png", Path(f"{number}.png"), 0, 0, split, (Annotation(label),))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(st.integers(2, 40), min_size=1, max_size=8),
    fraction=st.floats(0.05, 0.9),
    seed=st.integers(0, 5),
    shuffle=st.randoms(use_true_random=False),
)
def test_every_class_has_its_fraction_and_is_in_both_parts(
    counts: list[int], fraction: float, seed: int, shuffle: Any
) -> None:
    labels = [class_id for class_id, count in enumerate(counts) for _ in range(count)]
    source = Held(labels, len(counts))

    chosen = stratified(source, split_validation(fraction, seed))

    taken = Counter(labels[int(name.removesuffix(".png"))] for name in chosen)
    for class_id, count in enumerate(counts):
        assert 1 <= taken[class_id] <= count - 1
        assert abs(taken[class_id] - fraction * count) <= len(counts) + 1
    order = list(source.records("train"))
    shuffle.shuffle(order)
    source.records = lambda split: iter(order)  # type: ignore[method-assign]
    assert stratified(source, split_validation(fraction, seed)) == chosen


def test_one_picture_cannot_be_parted(make: Any, tmp_path: Path) -> None:
    source = make("object-detection", [("a.png", "train", (12, 12), [Annotation(0, (1, 1, 5, 5))])])

    with pytest.raises(DatasetError, match="too few pictures"):
        write(edited(source, Edit(validation=split_validation(0.5))), "dice", tmp_path / "copy")
