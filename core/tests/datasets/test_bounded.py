"""Files that would fill the memory: read in bounded pieces, and refused by a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

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


@pytest.mark.slow
def test_memory_stays_the_same_while_the_file_grows(tmp_path: Path) -> None:
    code = """
import resource, sys
from eagleray.datasets import open_dataset
source, findings = open_dataset(sys.argv[1], "image-segmentation", "coco")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(len(record.annotations) for record in source.records("train"))
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""
    mib = []
    for count in (50_000, 500_000):
        root = tmp_path / str(count)
        (root / "train").mkdir(parents=True)
        Image.new("RGB", (640, 480)).save(root / "train/a.png")
        (root / "annotations").mkdir()
        row = {"id": 0, "image_id": 1, "category_id": 1, "bbox": [1, 1, 99, 99]}
        text = json.dumps(row | {"segmentation": [[round(1.5 * n, 2) for n in (1, 1, 60, 1, 60, 60, 9, 60)] * 12]})
        images = [{"id": 2, "file_name": "a.png", "width": 640, "height": 480}]
        with (root / "annotations/instances_train.json").open("w") as file:
            file.write(
                '{"images": ' + json.dumps(images) + ', "categories": [{"id": 1, "name": "a"}], "annotations": ['
            )
            # Spread over pictures that are not there, so that none of them is held with all its outlines.
            file.writelines(
                ("," if n else "") + text.replace('"image_id": 1', f'"image_id": {n}') for n in range(count)
            )
            file.write("]}")
        done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
        mib.append(int(done.stdout.split()[1]))
        size = (root / "annotations/instances_train.json").stat().st_size >> 20

    assert size > 250
    # Ten times the file; what grows is the index, sixteen bytes and an id an annotation.
    assert mib[1] - mib[0] < 128
