"""What a dataset says of itself in `data.yaml`: classes, keypoints and where its splits lie."""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from eagleray.contract import DatasetError
from eagleray.datasets.report import Findings, is_text, shown
from eagleray.datasets.yaml import Node, read_yaml

NAMES_FIX = "Write `names: [cat, dog]`, or a mapping with the ids 0, 1, … : `names: {0: cat, 1: dog}`."
KPT_FIX = "Write `kpt_shape: [17, 3]`: how many keypoints, and 2 (x y) or 3 (x y visibility)."
FLIP_FIX = "Write `flip_idx:` with each keypoint's counterpart in a mirrored picture, every index once."
NOTHING = {"", "null", "~", "None"}
KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
FOLDERS = {"train": ("train",), "val": ("valid", "val", "validation"), "test": ("test",)}


@dataclass(frozen=True)
class Description:
    """A `data.yaml`, checked as far as it can be without the pictures."""

    path: Path
    content: dict[str, Node]
    classes: tuple[str, ...]

    def keypoints(self) -> tuple[int, int]:
        """`(count, dims)` from `kpt_shape`. Raises DatasetError."""
        numbers = integers(self.content.get("kpt_shape"))
        if numbers is None or len(numbers) != 2 or numbers[0] < 1 or numbers[1] not in (2, 3):
            value = shown(self.content.get("kpt_shape", "nothing"))
            raise DatasetError(f"{shown(self.path)}: kpt_shape is {value}, but keypoints need it.", KPT_FIX)
        return numbers[0], numbers[1]

    def flip_index(self, count: int, findings: Findings) -> tuple[int, ...]:
        """`flip_idx`, empty where there is none. Raises DatasetError where it is not a mirror of `count` keypoints."""
        value = self.content.get("flip_idx", "")
        if isinstance(value, str) and value in NOTHING:
            findings.warn("data.yaml has no flip_idx, so pictures cannot be mirrored in training.", code="keypoints")
            return ()
        index = integers(value)
        if index is None or sorted(index) != list(range(count)):
            raise DatasetError(
                f"{shown(self.path)}: flip_idx is {shown(value)}, not an order of the {count} keypoints.", FLIP_FIX
            )
        if any(index[index[number]] != number for number in range(count)):
            raise DatasetError(
                f"{shown(self.path)}: flip_idx {shown(value)}, applied twice, is not the order it began with.", FLIP_FIX
            )
        return tuple(index)

    def images_folder(self, split: str, root: Path, findings: Findings) -> str | None:
        """The folder of a split's pictures, relative to `root`, in posix form; None where there is none."""
        declared = self._declared(split)
        usual = next((found for name in FOLDERS[split] if (found := images_below(root, name))), None)
        if declared is None:
            return usual
        prefix = self.content.get("path", "")
        prefixes = ["", prefix] if isinstance(prefix, str) and prefix not in NOTHING else [""]
        for candidate in candidates(declared, prefixes, root):
            if found := images_below(root, candidate):
                return found
        if usual is None:
            return None
        sentence = f"data.yaml says `{shown(declared)}` for {split}, which is not in the dataset; {usual} is used."
        findings.warn(sentence, code="description")
        return usual

    def keypoint_names(self, count: int) -> tuple[str, ...]:
        """`kpt_names`, a list or a mapping of class id to one; empty where it is missing or does not fit `count`."""
        value = self.content.get("kpt_names", "")
        names = next(iter(value.values()), "") if isinstance(value, dict) else value
        found = [name for name in names if isinstance(name, str) and is_text(name)] if isinstance(names, list) else []
        return tuple(found) if len(found) == count else ()

    def _declared(self, split: str) -> str | None:
        value = next((self.content[key] for key in KEYS[split] if key in self.content), "")
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, str):
            raise DatasetError(f"{shown(self.path)}: {split} is {shown(value)}.", "Name one folder for each split.")
        if value.endswith(".txt"):
            raise DatasetError(
                f"{shown(self.path)}: {split} is the list of files {shown(value)}.",
                f"Put the pictures into {FOLDERS[split][0]}/images and their labels into {FOLDERS[split][0]}/labels.",
            )
        return None if value in NOTHING else value.replace("\\", "/")


def candidates(declared: str, prefixes: list[str], root: Path) -> list[str]:
    """The places inside `root` that a path of `data.yaml` may mean; those outside are left out.

    Exporters write `../train/images` though the folder lies beside data.yaml, so leading dots are dropped, too.
    """
    stripped = declared
    while stripped.startswith(("../", "./")):
        stripped = stripped.partition("/")[2]
    inside = []
    for text in dict.fromkeys([*(str(Path(prefix, declared)) for prefix in prefixes), stripped]):
        place = Path(os.path.normpath(root / text))
        if place.is_relative_to(root):
            inside.append(place.relative_to(root).as_posix())
    return inside


def images_below(root: Path, place: str) -> str | None:
    """`place`, or `images` in it, if it is a folder with `images` in its path; labels are found by that name."""
    for path in (PurePosixPath(place), PurePosixPath(place, "images")):
        if "images" in path.parts and (root / path).is_dir():
            return path.as_posix()
    return None


def read_description(path: Path, findings: Findings) -> Description:
    """Raises DatasetError with file, value and fix."""
    if not path.is_file():
        raise DatasetError(
            f"{shown(path)} is missing.",
            "A dataset of the DICE format has a data.yaml with `names`, train/ and valid/.",
        )
    content = read_yaml(path)
    if "download" in content:
        findings.warn("data.yaml has a `download` key; it is ignored, nothing is fetched or run.", code="description")
    return Description(path, content, class_names(content, path, findings))


def class_names(content: dict[str, Node], path: Path, findings: Findings) -> tuple[str, ...]:
    names = content.get("names", "")
    if isinstance(names, list):
        found = names
    elif isinstance(names, dict):
        ids = integers(list(names))
        if ids is None or sorted(ids) != list(range(len(ids))):
            raise DatasetError(f"{shown(path)}: the ids of names are {shown(', '.join(names))}.", NAMES_FIX)
        found = [name for _, name in sorted(zip(ids, names.values(), strict=True), key=lambda pair: pair[0])]
    else:
        found = []
    classes = tuple(name.strip() for name in found if isinstance(name, str) and name.strip())
    if not classes or len(classes) != len(found):
        raise DatasetError(f"{shown(path)}: names is {shown(names) or 'missing'}.", NAMES_FIX)
    if odd := [name for name in classes if not is_text(name)]:
        raise DatasetError(f"{shown(path)}: the name {shown(odd[0])} is not UTF-8 text.", "Rename the class.")
    if twice := sorted({name for name in classes if classes.count(name) > 1}):
        findings.warn(f"data.yaml names a class twice: {shown(', '.join(twice))}.", code="class-name")
    if "nc" in content and integers([content["nc"]]) != [len(classes)]:
        raise DatasetError(
            f"{shown(path)}: nc is {shown(content['nc'])}, but names has {len(classes)}.", f"Set nc: {len(classes)}."
        )
    return classes


def integers(value: Node | None) -> list[int] | None:
    """The plain decimal whole numbers of a list, or None if it holds anything else."""
    if not isinstance(value, list):
        return None
    texts = [item for item in value if isinstance(item, str) and item.isascii() and item.isdigit() and len(item) < 10]
    return [int(text) for text in texts] if len(texts) == len(value) else None
