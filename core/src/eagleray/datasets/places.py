"""Names that an annotation file gives to pictures: where they lie, and that they lie in the dataset."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from eagleray.datasets.images import SUFFIXES
from eagleray.datasets.report import Findings, is_text, listed

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
# Bytes that file systems take for one part of a path.
MAX_PART_BYTES = 255
SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def split_of(path: Path, root: Path) -> str | None:
    """The split that a file's name or folder speaks of: `instances_val2017.json`, `valid/_annotations.coco.json`."""
    for text in (path.stem, *reversed(path.relative_to(root).parts[:-1])):
        for word in re.split(r"[^a-z]+", text.lower()):
            if word in WORDS:
                return WORDS[word]
    return None


def safe_name(name: str, folder: Path) -> str | None:
    """`name` in posix form, relative to `folder`; None where it leads out of it, or can be no file's name."""
    if PLAIN.fullmatch(name):
        return name if len(name) <= MAX_PART_BYTES else None
    if not name or "\0" in name or not is_text(name):
        return None
    text = name.replace("\\", "/")
    if text.startswith("/"):
        # Exporters write absolute paths of the machine they ran on; those that lead into the folder are kept.
        text = os.path.relpath(text, folder)
    parts = PurePosixPath(text).parts
    if not parts or ".." in parts or re.match("[A-Za-z]:", parts[0]):
        return None
    if any(len(part.encode("utf-8")) > MAX_PART_BYTES for part in parts):
        return None
    return PurePosixPath(*parts).as_posix()


def is_there(folder: Path, name: str) -> bool:
    """Whether a file lies there; never raises, and is asked once for each picture, so without making a Path."""
    return os.path.isfile(f"{folder}/{name}")  # noqa: PTH113


@dataclass
class Named:
    """What annotation files name of the pictures in their folders; when every split was read, the others are said.

    Attributes:
        folders: split → folder of its pictures, relative to `root`.
    """

    root: Path
    folders: Mapping[str, str]
    findings: Findings
    _there: dict[str, set[str]] = field(default_factory=dict)
    _names: dict[str, set[str]] = field(default_factory=dict)
    _said: bool = False

    def has(self, split: str, name: str) -> bool:
        """Whether the picture lies there: by one listing of the folder, which is faster than to ask for each."""
        folder = self.folders[split]
        if folder not in self._there:
            self._there[folder] = pictures_below(self.root / folder)
        return name in self._there[folder] or is_there(self.root / folder, name)

    def read(self, split: str, names: set[str]) -> None:
        """All of `split` was read; `names` are relative to its folder."""
        self._names[split] = names
        if self._said or len(self._names) < len(self.folders):
            return
        self._said = True
        named = {f"{self._prefix(self.folders[each])}{name}" for each, found in self._names.items() for name in found}
        self._names = {}
        others: set[str] = set()
        for folder in dict.fromkeys(self.folders.values()):
            prefix = self._prefix(folder)
            there = self._there.pop(folder, None)
            names = pictures_below(self.root / folder) if there is None else there
            others.update(path for name in names if (path := prefix + name) not in named)
        if others:
            words = f"{len(others)} pictures lie there that no annotation file names: {listed(sorted(others))}."
            self.findings.warn(words, code="image-unnamed", fix="Name them, or remove them: they are not read.")

    @staticmethod
    def _prefix(folder: str) -> str:
        return "" if folder == "." else f"{folder}/"


def pictures_below(folder: Path) -> set[str]:
    """The names of the visible pictures below `folder`, in posix form."""
    found: set[str] = set()
    start = len(str(folder)) + 1
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = f"{parent}/"[start:]
        found.update([prefix + name for name in names if not name.startswith(".") and is_picture(name)])
    return found


def is_picture(name: str) -> bool:
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and f"{dot}{suffix.lower()}" in SUFFIXES


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
        if name and is_there(folder, name):
            return folder.relative_to(root).as_posix()
    chosen = next((folder for folder in there if folder not in (beside, root)), root)
    return chosen.relative_to(root).as_posix()
