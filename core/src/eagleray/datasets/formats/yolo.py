"""Ultralytics' layout: `images/train` beside `labels/train`, and for classification a folder for each class."""

from __future__ import annotations

from pathlib import Path

from eagleray.contract.tasks import IMAGE_CLASSIFICATION
from eagleray.datasets.formats.base import EVERYTHING, Format
from eagleray.datasets.formats.dice import DiceWriter, description_in, open_dice, recognise_dice
from eagleray.datasets.formats.imagefolder import FolderWriter, open_imagefolder
from eagleray.datasets.records import DatasetInfo, DatasetSource, DatasetWriter
from eagleray.datasets.report import Findings
from eagleray.datasets.writing import Files


def open_yolo(given: Path, task: str | None, findings: Findings, *, mend: bool) -> DatasetSource:
    """See `Open`; a folder without any description holds class folders."""
    if task == IMAGE_CLASSIFICATION or (task is None and given.is_dir() and not description_in(given).is_file()):
        return open_imagefolder(given, task, findings, mend=mend, name="yolo")
    return open_dice(given, task, findings, mend=mend, name="yolo")


def recognise_yolo(given: Path) -> str:
    """A description and `images/`; class folders without one are called `imagefolder`."""
    root = given.parent if given.is_file() else given
    path = given if given.is_file() and given.suffix.lower() in {".yaml", ".yml"} else description_in(root)
    if given.is_file() and path != given:
        return ""
    found = path.is_file() and (root / "images").is_dir() and not recognise_dice(given)
    return f"{path.name} and images/" if found else ""


def yolo_writer(files: Files, info: DatasetInfo) -> DatasetWriter:
    if info.task == IMAGE_CLASSIFICATION:
        return FolderWriter(files, info, val="val")
    return DiceWriter(files, info, images_first=True)


def split_hint(split: str) -> str:
    name = {"train": "train", "val": "val"}.get(split, split)
    return (
        f"Put pictures into images/{name} and labels into labels/{name}, and `{split}: images/{name}` into data.yaml."
    )


YOLO = Format(
    name="yolo",
    title="YOLO, Ultralytics' layout: `data.yaml`, `images/train`, `labels/train`; `train/<class>/…`",
    reads=EVERYTHING,
    writes=EVERYTHING,
    recognise=recognise_yolo,
    open=open_yolo,
    writer=yolo_writer,
    split_hint=split_hint,
)
