"""The pictures of a split and their labels, from an image folder or a table, without torch."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eagleray.contract import Dataset, DatasetError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
SEPARATOR = ";"
# As the core reads them: names of a table's columns for picture, class and split, and words for the splits.
COLUMNS = (
    ("image", "filename", "file_name", "file", "path", "filepath", "image_path", "img"),
    ("label", "class", "category", "target", "class_name", "label_name", "species"),
    ("split", "set", "subset", "dataset"),
)
WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Samples:
    """One split: `labels[i]` are the class numbers of the picture `paths[i]`."""

    paths: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.paths)

    def positives(self, num_classes: int) -> list[int]:
        """How many pictures have each class."""
        counts = [0] * num_classes
        for labels in self.labels:
            for label in labels:
                counts[label] += 1
        return counts


def read_samples(dataset: Dataset, split: str, *, multi_label: bool) -> Samples:
    """The pictures of `split` in a stable order; class numbers are those of `class_names`.

    Raises:
        DatasetError: the split is empty, or a row names a class that is not the dataset's.
    """
    numbers = {name: number for number, name in enumerate(class_names(dataset, multi_label=multi_label))}
    rows = list(table_rows(dataset, split) if dataset.format == "csv" else folder_rows(dataset, split))
    if not rows:
        raise DatasetError(f"The {split} split of {dataset.path} holds no pictures.")
    labels = []
    for path, text in rows:
        names = label_parts(text) if multi_label else [text]
        unknown = [name for name in names if name not in numbers]
        if unknown:
            raise DatasetError(
                f"{path} has the label '{unknown[0]}', which is none of the dataset's classes.",
                f"Its classes: {', '.join(list(numbers)[:20])}.",
            )
        labels.append(tuple(sorted({numbers[name] for name in names})))
    return Samples(tuple(path for path, _ in rows), tuple(labels))


def class_names(dataset: Dataset, *, multi_label: bool) -> tuple[str, ...]:
    """The dataset's classes; where a picture may have several, `a;b` stands for the classes a and b."""
    if not multi_label:
        return tuple(dataset.classes)
    return tuple(sorted({part for name in dataset.classes for part in label_parts(name)}))


def label_parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(SEPARATOR) if part.strip()]


def folder_rows(dataset: Dataset, split: str) -> Iterator[tuple[str, str]]:
    """Picture and label of an image folder: one folder for each class."""
    root = dataset.path / dataset.splits[split].images
    for name in dataset.classes:
        for parent, folders, files in os.walk(root / name, followlinks=True):
            folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
            for file in sorted(files):
                if file.lower().endswith(SUFFIXES) and not file.startswith("."):
                    yield os.path.join(parent, file), name  # noqa: PTH118 - a Path each is slow for millions


def table_rows(dataset: Dataset, split: str) -> Iterator[tuple[str, str]]:
    """Picture and label of every row of `split`, in the dataset's tables."""
    folder = dataset.path / dataset.splits[split].images
    named = [dataset.path / name for name in dataset.tables]
    for table in named or sorted([*dataset.path.glob("*.csv"), *dataset.path.glob("*/*.csv")]):
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            image, label, told = (next((header.index(n) for n in names if n in header), None) for names in COLUMNS)
            if image is None or label is None:
                continue
            own = split_of(table, dataset.path)
            for row in reader:
                if any(row) and (WORDS.get(row[told].strip().lower() or "train") if told is not None else own) == split:
                    yield str(folder / row[image].strip()), row[label].strip()


def split_of(table: Path, root: Path) -> str:
    """The split that a table's name, or a folder's above it, says."""
    texts = (table.stem, *reversed(table.relative_to(root).parts[:-1]))
    words = (word for text in texts for word in re.split(r"[^a-z]+", text.lower()))
    return next((WORDS[word] for word in words if word in WORDS), "train")
