"""DICE, also what Ultralytics reads: `data.yaml`, and for each split `images/` and `labels/` paired by stem."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from eagleray.contract import Dataset, DatasetError, Split
from eagleray.contract.tasks import KEYPOINT_DETECTION
from eagleray.datasets.description import FOLDERS, read_description
from eagleray.datasets.images import check_images, find_images, walk
from eagleray.datasets.labels import RowShape, read_labels
from eagleray.datasets.report import Findings, shown

# Files that labelling programs leave beside the labels.
NOT_LABELS = {"classes.txt", "labels.txt", "notes.json", "readme.txt"}


@dataclass(frozen=True)
class Pairing:
    """One split's pictures in order, each with its label file or None."""

    images: list[Path]
    labels: list[Path | None]


def read_dice(root: Path, task: str, findings: Findings, description: Path | None = None) -> Dataset:
    """Read the dataset; faults of single files go to `findings`, faults of the whole raise DatasetError."""
    described = read_description(description or root / "data.yaml", findings)
    keypoints: tuple[int, int] | None = None
    flip_index: tuple[int, ...] = ()
    if task == KEYPOINT_DETECTION:
        keypoints = described.keypoints()
        flip_index = described.flip_index(keypoints[0], findings)
    shape = RowShape(len(described.classes), keypoints)
    folders = {split: described.images_folder(split, root, findings) for split in FOLDERS}
    splits = {
        split: read_split(root, split, folder, task, shape, described.classes, findings)
        for split, folder in folders.items()
        if folder is not None
    }
    require(splits, root)
    if folders["train"] == folders["val"]:
        findings.warn("Validation pictures are the training pictures, so metrics say nothing of new ones.")
    return Dataset(root, "dice", task, described.classes, splits, keypoints, flip_index)


def require(splits: dict[str, Split], root: Path) -> None:
    for split, use in (("train", "nothing can be learnt"), ("val", "the best epoch cannot be chosen")):
        if split not in splits:
            folder = FOLDERS[split][0]
            raise DatasetError(
                f"The dataset {shown(root)} has no {split} split, so {use}.",
                f"Put pictures into {folder}/images and their labels into {folder}/labels"
                f"{', moved from train, a fifth of them, say' if split == 'val' else ''}, "
                f"and `{split}: {folder}/images` into data.yaml.",
            )


def read_split(
    root: Path, split: str, folder: str, task: str, shape: RowShape, classes: tuple[str, ...], findings: Findings
) -> Split:
    pairing = pair(root / folder, root / labels_folder(folder), findings)
    if not pairing.images:
        suffixes = "Pictures end in .jpg, .jpeg, .png, .bmp, .webp, .tif or .tiff."
        findings.fault(root / folder, "no picture in this folder", suffixes)
        return Split(folder, 0, 0)
    per_class: Counter[int] = Counter()
    empty = missing = repeated = 0
    for label in pairing.labels:
        if label is None:
            missing += 1
            continue
        class_ids, same = read_labels(label, task, shape, findings)
        per_class.update(class_ids)
        repeated += same
        empty += not class_ids
    check_images(pairing.images, findings)
    total = len(pairing.images)
    tell(split, total, missing, empty, repeated, findings)
    if split == "train":
        if not per_class:
            fix = f"Put the label files into {labels_folder(folder)}."
            findings.fault(root / folder, f"none of the {total} pictures has an object", fix)
        elif unseen := [name for number, name in enumerate(classes) if number not in per_class]:
            findings.warn(f"No object in train of: {shown(', '.join(unseen))}.")
    return Split(folder, total, per_class.total(), missing + empty)


def tell(split: str, total: int, missing: int, empty: int, repeated: int, findings: Findings) -> None:
    if missing + empty:
        findings.warn(
            f"{split}: {missing + empty} of {total} pictures have no object and count as backgrounds "
            f"({missing} without a label file, {empty} with an empty one)."
        )
    if repeated:
        findings.warn(f"{split}: {repeated} label rows repeat another of the same picture; frameworks may drop them.")


def labels_folder(images: str) -> str:
    """`labels` in the place of the last `images`, as every framework that reads this layout does."""
    parts = list(PurePosixPath(images).parts)
    last = len(parts) - 1 - parts[::-1].index("images")
    parts[last] = "labels"
    return PurePosixPath(*parts).as_posix()


def pair(images_folder: Path, labels_folder: Path, findings: Findings) -> Pairing:
    """Pair by place and stem (all before the last dot), exactly as written: no letter case, no Unicode form is bent.

    A framework opens `labels/a.b.txt` for `images/a.b.jpg` and nothing else, so what does not match exactly is a
    fault here instead of a label lost in silence there.
    """
    images = find_images(images_folder, findings)
    stems: dict[Path, Path] = {}
    for path in images:
        stem = path.relative_to(images_folder).with_suffix("")
        if stem in stems:
            fix = "Rename or remove one: both would take the same label file."
            findings.fault(path, f"same name as {shown(stems[stem].name)} but for the suffix", fix)
        stems[stem] = path
    labels: dict[Path, Path] = {}
    for path in walk(labels_folder):
        if path.suffix.lower() != ".txt":
            continue
        stem = path.relative_to(labels_folder).with_suffix("")
        if path.suffix != ".txt":
            findings.fault(path, "frameworks look for the suffix .txt in small letters", "Rename the label files.")
        elif stem in stems:
            labels[stem] = path
        elif path.name.lower() not in NOT_LABELS:
            orphan(path, stem, stems, findings)
    return Pairing(images, [labels.get(path.relative_to(images_folder).with_suffix("")) for path in images])


def orphan(label: Path, stem: Path, stems: dict[Path, Path], findings: Findings) -> None:
    """Note a label without its picture, and the picture that differs only in letter case, if there is one."""
    alike = stem.with_name(stem.name.lower()), stem.with_name(stem.name.upper())
    near = next((stems[name] for name in alike if name in stems), None)
    what = f"no picture of this name{f' (there is {shown(near.name)})' if near else ''}"
    findings.fault(label, what, "Add the picture, or remove or rename the label: their names must be the same.")
