"""Names that no file can have or that UTF-8 cannot hold: a finding of our own in every format, never a crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from eagleray.datasets import ValidationReport, convert, fix, validate
from eagleray.testing.data import write_classification_dataset, write_detection_dataset

LONG = "x" * 300 + ".png"
DEEP = "/".join(["x" * 200] * 40) + ".png"


def put_coco(root: Path, name: str) -> None:
    convert(write_detection_dataset(root.parent / "source"), "coco", root)
    path = root / "annotations/instances_train.json"
    whole = json.loads(path.read_text())
    whole["images"][0]["file_name"] = name
    path.write_text(json.dumps(whole))


def put_csv(root: Path, name: str) -> None:
    convert(write_classification_dataset(root.parent / "source"), "csv", root)
    lines = (root / "labels.csv").read_text().splitlines(keepends=True)
    (root / "labels.csv").write_text("".join([lines[0], f"{name},a,train\n", *lines[1:]]))


def put_voc(root: Path, name: str) -> None:
    convert(write_detection_dataset(root.parent / "source"), "voc", root)
    path = root / "ImageSets/Main/train.txt"
    path.write_text(f"{name}\n{path.read_text()}")


def put_jsonl(root: Path, name: str) -> None:
    root.mkdir()
    write_detection_dataset(root.parent / "source")
    for split in ("train", "valid"):
        row = {"image": name, "prompt": "a", "answer": "b"}
        (root / f"{split}.jsonl").write_text(json.dumps(row) + "\n")


PUT = {"coco": put_coco, "csv": put_csv, "voc": put_voc, "jsonl": put_jsonl}


@pytest.mark.parametrize("name", [LONG, DEEP, "x" * 252 + ".png"], ids=["long", "deep", "long with another suffix"])
@pytest.mark.parametrize("put", PUT.values(), ids=PUT)
def test_a_name_that_no_file_can_have_is_a_missing_picture(
    put: Callable[[Path, str], None], name: str, tmp_path: Path
) -> None:
    put(tmp_path / "set", name)

    report = validate(tmp_path / "set")

    codes = {found.code for found in report.findings if found.severity == "error"}
    assert codes & {"image-missing", "label-orphan", "file-too-large"}


@pytest.mark.parametrize("name", ["\ud800.png", "\udcff.png"])
@pytest.mark.parametrize("put", [put_coco, put_jsonl])
def test_a_name_that_utf_8_cannot_hold_is_a_missing_picture(
    put: Callable[[Path, str], None], name: str, tmp_path: Path
) -> None:
    put(tmp_path / "set", name)
    for folder in tmp_path.glob("set/*"):
        if folder.is_dir() and name == "\udcff.png":
            (folder / name).touch()

    report = validate(tmp_path / "set")

    assert "image-missing" in {found.code for found in report.findings}
    assert ValidationReport.model_validate_json(report.model_dump_json()) == report


def test_a_category_that_utf_8_cannot_hold_is_refused_and_can_be_printed(tmp_path: Path) -> None:
    convert(write_detection_dataset(tmp_path / "source"), "coco", tmp_path / "set")
    for path in (tmp_path / "set/annotations").iterdir():
        path.write_text(path.read_text().replace('"name": "a"', '"name": "\\ud800"'))

    report = validate(tmp_path / "set")

    assert {(found.code, found.row) for found in report.findings if found.severity == "error"} == {("class-name", 1)}
    assert ValidationReport.model_validate_json(report.model_dump_json()) == report


def test_a_class_of_a_description_that_utf_8_cannot_hold_is_refused(root: Path) -> None:
    text = (root / "data.yaml").read_text()
    (root / "data.yaml").write_text(text.replace("0: a", '0: "\\uD800"'))

    report = validate(root)

    assert not report.ok
    assert report.model_dump_json()


def test_an_answer_that_utf_8_cannot_hold_is_a_faulty_row(tmp_path: Path) -> None:
    put_jsonl(tmp_path / "set", "a.png")
    (tmp_path / "set/train.jsonl").write_text('{"image": "a.png", "prompt": "a", "answer": "\\ud800"}\n')

    assert "file-encoding" in {found.code for found in validate(tmp_path / "set").findings}


@pytest.mark.parametrize("form", ["dice", "coco", "voc", "csv", "imagefolder"])
def test_a_file_on_disk_whose_name_is_not_utf_8_is_a_finding_and_no_crash(form: str, tmp_path: Path) -> None:
    boxes = form in ("dice", "coco", "voc")
    write = write_detection_dataset if boxes else write_classification_dataset
    convert(write(tmp_path / "source"), form, tmp_path / "set")
    picture = next(path for path in (tmp_path / "set").rglob("*.png"))
    picture.with_name("\udcff.png").write_bytes(picture.read_bytes())

    report = validate(tmp_path / "set", None, form)

    assert {"image-name", "image-unnamed"} & {found.code for found in report.findings}
    assert report.model_dump_json()
    fix(report, tmp_path / "mended")
    assert not [path for path in (tmp_path / "mended").rglob("*") if not path.name.isprintable()]
    assert validate(tmp_path / "mended", None, form).ok


def test_a_class_folder_whose_name_is_not_utf_8_is_a_finding(tmp_path: Path) -> None:
    root = write_classification_dataset(tmp_path / "set")
    (root / "train/a").rename(root / "train/\udcff")

    report = validate(root)

    assert not report.ok
    assert report.model_dump_json()
