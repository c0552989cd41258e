"""Pictures and labels of a split, from folders and from tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from eagleray.contract import Dataset, DatasetError, Split
from eagleray.datasets.read import read_dataset
from eagleray.testing.data import write_classification_dataset
from eagleray_timm.samples import class_names, read_samples

TASK = "image-classification"


def folders(root: Path, *files: str) -> Dataset:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    return Dataset(root, "imagefolder", TASK, ("a", "b"), {"train": Split("train", 1, 1)})


def table(root: Path, text: str, images: str = ".") -> Dataset:
    (root / "labels.csv").write_text(text, encoding="utf-8")
    return Dataset(root, "csv", TASK, ("a", "b"), {"train": Split(images, 1, 1), "val": Split(images, 1, 1)})


def test_a_folder_is_a_class_and_pictures_come_in_order(tmp_path: Path) -> None:
    dataset = folders(tmp_path, "train/b/1.png", "train/a/2.JPG", "train/a/deeper/1.png", "train/a/.hidden.png")
    (tmp_path / "train/a/notes.txt").write_text("")
    samples = read_samples(dataset, "train", multi_label=False)
    names = [str(Path(path).relative_to(tmp_path / "train")) for path in samples.paths]
    assert names == ["a/2.JPG", "a/deeper/1.png", "b/1.png"]
    assert samples.labels == ((0,), (0,), (1,)) and samples.positives(2) == [2, 1]


def test_a_table_may_name_several_labels_and_the_split(tmp_path: Path) -> None:
    dataset = table(tmp_path, "image,label,split\nx/1.png,a;b,train\n2.png,b,training\n3.png,b,valid\n")
    train = read_samples(dataset, "train", multi_label=True)
    assert train.labels == ((0, 1), (1,)) and train.paths[0] == str(tmp_path / "x/1.png")
    assert read_samples(dataset, "val", multi_label=True).labels == ((1,),)


def test_classes_of_several_labels_are_their_parts(tmp_path: Path) -> None:
    dataset = replace(table(tmp_path, ""), classes=("a;b", "b", "c; a"))
    assert class_names(dataset, multi_label=True) == ("a", "b", "c")
    assert class_names(dataset, multi_label=False) == ("a;b", "b", "c; a")


def test_a_semicolon_alone_is_a_picture_without_labels_for_the_core_too(tmp_path: Path) -> None:
    write_classification_dataset(tmp_path, images=12)
    pictures = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.png"))
    rows = [f"{path},{';' if number % 3 == 0 else path.parent.name}" for number, path in enumerate(pictures)]
    splits = ["train" if path.parts[0] == "train" else "val" for path in pictures]
    text = "\n".join(["image,label,split", *map(",".join, zip(rows, splits, strict=True))])
    (tmp_path / "labels.csv").write_text(text + "\n", encoding="utf-8")
    dataset = read_dataset(tmp_path / "labels.csv", TASK, "csv").dataset
    assert class_names(dataset, multi_label=True) == ("a", "b")
    labels = read_samples(dataset, "train", multi_label=True).labels
    assert set(labels) == {(), (0,), (1,)}


def test_a_table_without_splits_is_of_the_split_that_its_name_says(tmp_path: Path) -> None:
    dataset = table(tmp_path, "note\nnot a table of pictures\n")
    (tmp_path / "val.csv").write_text("Filename,Class\n1.png,a\n")
    assert read_samples(dataset, "val", multi_label=False).labels == ((0,),)


@pytest.mark.parametrize("multi_label", [True, False])
def test_an_unknown_class_is_named_with_its_picture(tmp_path: Path, multi_label: bool) -> None:
    dataset = table(tmp_path, "image,label\n1.png,dog\n")
    with pytest.raises(DatasetError, match=r"1\.png.*'dog'"):
        read_samples(dataset, "train", multi_label=multi_label)


def test_the_core_reads_the_same_rows(tmp_path: Path) -> None:
    write_classification_dataset(tmp_path / "folders", images=12)
    rows = ["image,label,set"]
    for split, folder in (("train", "train"), ("validation", "valid")):
        pictures = sorted((tmp_path / "folders" / folder).rglob("*.png"))
        rows += [f"{path.relative_to(tmp_path / 'folders')},{path.parent.name},{split}" for path in pictures]
    (tmp_path / "folders" / "all.csv").write_text("\n".join(rows) + "\n")
    # A table that the job does not name is not read.
    (tmp_path / "folders" / "old.csv").write_text("\n".join(rows) + "\n")
    dataset = read_dataset(tmp_path / "folders" / "all.csv", TASK, "csv").dataset
    for split, found in dataset.splits.items():
        samples = read_samples(dataset, split, multi_label=False)
        assert len(samples) == found.num_images and all(Path(path).is_file() for path in samples.paths)
        assert all(
            Path(path).parent.name == dataset.classes[label]
            for path, (label,) in zip(samples.paths, samples.labels, strict=True)
        )


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    dataset = folders(tmp_path, "train/a/readme.txt")
    with pytest.raises(DatasetError, match="no pictures"):
        read_samples(dataset, "train", multi_label=False)
