"""Names that an annotation file gives to pictures: where they lie, and that they lie in the dataset."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# A file beside the others, which nearly all are.
PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_. -]*")
SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def split_of(path: Path, root: Path) -> str | None:
    """The split that a file's name or folder speaks of: `instances_val2017.json`, `valid/_annotations.coco.json`."""
    for text in (path.stem, *reversed(path.relative_to(root).parts[:-1])):
        for word in re.split(r"[^a-z]+", text.lower()):
            if word in WORDS:
                return WORDS[word]
    return None


def safe_name(name: str, folder: Path) -> str | None:
    """`name` in posix form, relative to `folder`; None where it leads out of it."""
    if PLAIN.fullmatch(name):
        return name
    if not name or "\0" in name:
        return None
    text = name.replace("\\", "/")
    if text.startswith("/"):
        # Exporters write absolute paths of the machine they ran on; those that lead into the folder are kept.
        text = os.path.relpath(text, folder)
    parts = PurePosixPath(text).parts
    if not parts or ".." in parts or re.match("[A-Za-z]:", parts[0]):
        return None
    return PurePosixPath(*parts).as_posix()


def folder_with(root: Path, beside: Path, first: str, names: Sequence[str]) -> str:
    """The folder, relative to `root`, in which the picture `first` lies; else the likeliest one that is there.

    Args:
        beside: folder of the annotation file.
        names: words for the split, such as `train2017` and `train`.
    """
    words = [*names, *(other for name in names for other in SPLIT_FOLDERS.get(name, ()))]
    candidates = [
        beside,
        *(root / place for word in words for place in (word, f"images/{word}", f"{word}/images")),
        root / "images",
        root / "JPEGImages",
        root,
    ]
    there = [folder for folder in dict.fromkeys(candidates) if folder.is_dir() and folder.is_relative_to(root)]
    for folder in there:
        name = safe_name(first, folder) if first else None
        if name and (folder / name).is_file():
            return folder.relative_to(root).as_posix()
    chosen = next((folder for folder in there if folder not in (beside, root)), root)
    return chosen.relative_to(root).as_posix()
