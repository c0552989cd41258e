"""A dataset as Ultralytics wants it, in the job's own folder.

Ultralytics writes its label caches (and, where asked, decoded pictures and text embeddings) beside the files it reads
and resolves folder links first. So folders are made anew and only files are linked: what it writes stays with the job.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from eagleray.contract import Dataset, DatasetError

IMAGES, LABELS = "images", "labels"


def link_tree(source: Path, target: Path) -> int:
    """Mirror `source` as real folders of links to its files; returns how many files there are."""
    count = 0
    for folder, _, names in os.walk(source, followlinks=True):
        here = target / os.path.relpath(folder, source)
        here.mkdir(parents=True, exist_ok=True)
        for name in names:
            if not name.endswith(".cache"):
                (here / name).symlink_to(Path(folder, name).absolute())
                count += 1
    return count


def labels_folder(images: str) -> str:
    """Where the labels of the image folder `images` lie: its last part named `images` becomes `labels`."""
    parts = list(Path(images).parts)
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] == IMAGES:
            parts[index] = LABELS
            return str(Path(*parts))
    return images


def link_boxes(dataset: Dataset, target: Path) -> Path:
    """Link pictures and labels of every split into `target`; returns the `data.yaml` written there."""
    description: dict[str, object] = {
        "path": str(target),
        "nc": len(dataset.classes),
        "names": dict(enumerate(dataset.classes)),
    }
    for name, split in dataset.splits.items():
        images = dataset.path / split.images
        if not images.is_dir():
            raise DatasetError(f"The {name} split has no image folder {images}.", "Check data.yaml of the dataset.")
        link_tree(images, target / name / IMAGES)
        labels = dataset.path / labels_folder(split.images)
        if labels.is_dir() and labels != images:
            link_tree(labels, target / name / LABELS)
        elif labels == images:
            link_texts(images, target / name / LABELS)
        description[name] = f"{name}/{IMAGES}"
    if dataset.keypoints:
        description["kpt_shape"] = list(dataset.keypoints)
        if dataset.flip_index:
            description["flip_idx"] = list(dataset.flip_index)
    file = target / "data.yaml"
    # JSON is YAML, and leaves no class name (`yes`, `1e3`, `null`) to a YAML reader's guess.
    names = json.dumps(description, ensure_ascii=False, indent=1)
    file.write_text(names + "\n", encoding="utf-8")
    return file


def link_texts(source: Path, target: Path) -> None:
    """Link the label files that lie between the pictures."""
    for text in source.rglob("*.txt"):
        link = target / text.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(text.absolute())


def link_folders(dataset: Dataset, target: Path) -> Path:
    """Link a classification dataset's `split/class/picture` tree into `target`, which is returned."""
    for name, split in dataset.splits.items():
        source = dataset.path / split.images
        if not source.is_dir():
            raise DatasetError(f"The {name} split has no folder {source}.", "It should hold one folder per class.")
        link_tree(source, target / name)
    return target
