"""The formats, one module each: all enter by the same list."""

from __future__ import annotations

from pathlib import Path

from eagleray.contract import DatasetError
from eagleray.contract.errors import unknown_name
from eagleray.datasets.formats.base import Format
from eagleray.datasets.formats.coco import COCO
from eagleray.datasets.formats.csv import CSV
from eagleray.datasets.formats.dice import DICE
from eagleray.datasets.formats.imagefolder import IMAGEFOLDER
from eagleray.datasets.formats.jsonl import JSONL
from eagleray.datasets.formats.voc import VOC
from eagleray.datasets.formats.yolo import YOLO
from eagleray.datasets.report import shown

FORMATS: dict[str, Format] = {form.name: form for form in (DICE, YOLO, COCO, VOC, IMAGEFOLDER, CSV, JSONL)}

DESCRIBED = frozenset({"dice", "yolo", "coco", "voc", "jsonl"})


def format_named(name: str) -> Format:
    """Raises UnknownNameError."""
    if name not in FORMATS:
        raise unknown_name("dataset format", name, FORMATS)
    return FORMATS[name]


def recognised(path: Path) -> dict[str, str]:
    """Format → what it was recognised by."""
    found = {name: evidence for name, form in FORMATS.items() if (evidence := form.recognise(path))}
    # Pictures in folders are class folders only where no file says what else they are.
    if not DESCRIBED.isdisjoint(found):
        found.pop("imagefolder", None)
    return found


def detect_format(path: str | Path) -> str:
    """The format of the dataset in a folder, or described by a file.

    Raises:
        DatasetError: it looks like none of them, or like several.
    """
    given = Path(path).expanduser().absolute()
    if not given.exists():
        raise DatasetError(f"There is no dataset at {shown(given)}.", "Name a folder, or the data.yaml in it.")
    found = recognised(given)
    if len(found) == 1:
        return next(iter(found))
    if not found:
        titles = "; ".join(form.title for form in FORMATS.values())
        raise DatasetError(f"{shown(given)} is of no dataset format known here.", f"Known: {titles}.")
    ways = " or ".join(f"{name} (by {shown(evidence)})" for name, evidence in found.items())
    raise DatasetError(
        f"{shown(given)} can be read as {ways}.",
        f"Name one: --format {next(iter(found))}, say; of a job --dataset-format {next(iter(found))}.",
    )
