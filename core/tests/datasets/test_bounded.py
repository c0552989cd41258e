"""Files that would fill the memory: read in bounded pieces, and refused by a sentence."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from eagleray.datasets import convert, fix, validate
from eagleray.datasets.formats import coco_index, csv, jsonl, voc_files
from eagleray.testing.data import write_classification_dataset, write_detection_dataset

MIB = 1 << 20
BIG = 40 * MIB


def long_list(root: Path) -> str:
    convert(write_detection_dataset(root.parent / "source"), "voc", root)
    write(root / "ImageSets/Main/train.txt", "a" * 60 + "{}\n")
    return "larger than"


def long_name_in_a_list(root: Path) -> str:
    convert(write_detection_dataset(root.parent / "source"), "voc", root)
    (root / "ImageSets/Main/train.txt").write_text("x" * 8 * MIB)
    return "a line longer than"


def long_header(root: Path) -> str:
    convert(write_classification_dataset(root.parent / "source"), "csv", root)
    (root / "labels.csv").write_text(f"image,label,{'x' * BIG}\n")
    return "a row longer than"


def long_row(root: Path) -> str:
    convert(write_classification_dataset(root.parent / "source"), "csv", root)
    write(root / "labels.csv", 'a,b,"\n",{}', start="image,label\n")
    return "a row longer than"


def many_categories(root: Path) -> str:
    convert(write_detection_dataset(root.parent / "source"), "coco", root)
    path = root / "annotations/instances_train.json"
    whole = json.loads(path.read_text())
    whole["categories"] = "PLACE"
    head, _, tail = json.dumps(whole).partition('"PLACE"')
    path.write_text(head)
    write(path, ',{{"id": {}, "name": "' + "x" * 40 + '"}}', start=head + '[{"id": 0, "name": "a"}', end="]" + tail)
    return "`categories` is longer than"


def write(path: Path, row: str, *, start: str = "", end: str = "") -> None:
    with path.open("w") as file:
        file.write(start)
        number = 0
        while file.tell() < BIG:
            number += 1
            file.write("".join(row.format(number * 1000 + each) for each in range(1000)))
        file.write(end)


@pytest.mark.parametrize(
    "make", [long_list, long_name_in_a_list, long_header, long_row, many_categories], ids=lambda make: make.__name__
)
def test_a_huge_file_is_a_finding_and_never_in_memory(make: Callable[[Path], str], tmp_path: Path) -> None:
    words = make(tmp_path / "set")
    # Half of what is traced are Python's own objects of a file of the largest size that is read.
    tracemalloc.start()
    try:
        report = validate(tmp_path / "set")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert any(words in found.message for found in report.findings), report.text()
    assert peak < BIG


def test_a_list_of_names_that_nothing_lies_there_for_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(write_detection_dataset(tmp_path / "source"), "voc", tmp_path / "set")
    path = tmp_path / "set/ImageSets/Main/train.txt"
    path.write_text(path.read_text() + "".join(f"lost-{n % 3}\n" for n in range(90)) + path.read_text())

    report = validate(tmp_path / "set")

    assert report.splits["train"].images == 6
    assert report.counts["error/label-orphan"] == 3


def test_a_long_row_of_utf_16_is_left_out_of_a_mended_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_ROW", 200)
    source = write_detection_dataset(tmp_path / "source")
    (tmp_path / "set/images").mkdir(parents=True)
    (tmp_path / "set/images/a.png").write_bytes(next(source.rglob("*.png")).read_bytes())
    good = json.dumps({"image": "images/a.png", "prompt": "a", "answer": "b"})
    long = json.dumps({"image": "images/a.png", "prompt": "a", "answer": "b" * 500})
    for split in ("train", "valid"):
        (tmp_path / f"set/{split}.jsonl").write_text(f"{long}\n{good}\n", encoding="utf-16")

    mended = fix(validate(tmp_path / "set"), tmp_path / "mended")

    assert [split.annotations for split in mended.report.splits.values()] == [1, 1]


def test_a_table_of_too_many_classes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "MAX_CLASSES", 1)
    convert(write_classification_dataset(tmp_path / "source"), "csv", tmp_path / "set")

    assert "more than 1 classes" in validate(tmp_path / "set").findings[0].message


def test_limits_leave_room_for_a_million_pictures() -> None:
    assert 1_000_000 * len("2008_000001\n") <= voc_files.MAX_BYTES
    assert 100_000 * len('{"id": 100000, "name": "a plain name"}') <= coco_index.MAX_CATEGORY_BYTES
