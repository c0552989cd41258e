"""Image folders: `train/<class>/*.jpg` and `val/<class>/*.jpg`, as torchvision and Ultralytics read them."""

from __future__ import annotations

from pathlib import Path

from eagleray.contract import Dataset, DatasetError, Split
from eagleray.datasets.description import FOLDERS
from eagleray.datasets.images import check_images, find_images
from eagleray.datasets.report import Findings, listed, shown

LAYOUT = "The layout is train/<class>/… and valid/<class>/…, one folder for each class."


def read_imagefolder(root: Path, findings: Findings) -> Dataset:
    """Read the dataset; faults of single files go to `findings`, faults of the whole raise DatasetError."""
    folders = {
        split: found
        for split, names in FOLDERS.items()
        if (found := next((root / name for name in names if (root / name).is_dir()), None))
    }
    for split in ("train", "val"):
        if split not in folders:
            also = " For validation, move a fifth of the training pictures, say." if split == "val" else ""
            raise DatasetError(f"The dataset {shown(root)} has no {split} split.", LAYOUT + also)
    classes = class_folders(folders["train"])
    if not classes:
        raise DatasetError(f"{shown(folders['train'])} has no class folders.", LAYOUT)
    if set(classes) <= {"images", "labels"}:
        raise DatasetError(
            f"{shown(folders['train'])} holds images/ and labels/, the layout of detection datasets.",
            f"{LAYOUT} For the dataset as it is, use --task object-detection.",
        )
    splits = {split: read_split(folder, classes, findings) for split, folder in folders.items()}
    return Dataset(root, "imagefolder", "image-classification", classes, splits)


def class_folders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def read_split(folder: Path, classes: tuple[str, ...], findings: Findings) -> Split:
    """Every split must have every class: frameworks number a split's own folders, so one missing shifts the rest."""
    present = class_folders(folder)
    for name in sorted(set(present) - set(classes)):
        findings.fault(folder / name, "a class that train does not have", "Every split must have the same classes.")
    loose = [path.name for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    if loose:
        findings.warn(f"Ignored, because outside the class folders of {folder.name}: {listed(loose)}.")
    total = 0
    for name in classes:
        if name not in present:
            findings.fault(folder / name, "class missing in this split", "Every split must have the same classes.")
            continue
        images = find_images(folder / name, findings)
        if not images:
            findings.fault(folder / name, "no picture of this class", "Add pictures, or remove the class everywhere.")
        check_images(images, findings)
        total += len(images)
    return Split(folder.name, total, total)
