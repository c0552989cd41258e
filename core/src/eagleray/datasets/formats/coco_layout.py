"""Where the files of a COCO set lie, and what their categories say."""

from __future__ import annotations

import re
from pathlib import Path

from eagleray.contract import DatasetError
from eagleray.contract.tasks import IMAGE_SEGMENTATION, KEYPOINT_DETECTION, OBJECT_DETECTION
from eagleray.datasets.formats.coco_index import CocoCategory, CocoIndex, Id
from eagleray.datasets.places import folder_with, split_of
from eagleray.datasets.report import shown

# The first key of a COCO file; others stand further back.
SNIFF = re.compile(rb'^\s*\{\s*"(?:info|licenses|images|annotations|categories|type|year)"\s*:')
SKIPPED = ("captions", "stuff", "panoptic", "image_info")
Skeleton = tuple[tuple[int, int], ...]


def annotation_files(given: Path, root: Path, task: str | None) -> dict[str, Path]:
    """Split → file. Of several files of one split, the one for the task; captions and the like are left out."""
    if given.is_file():
        return {split_of(given, root) or "train": given} if is_coco(given) else {}
    candidates = [path for folder in (root, *sorted(root.glob("*/"))) for path in sorted(folder.glob("*.json"))]
    found: dict[str, Path] = {}
    wanted = "person_keypoints" if task == KEYPOINT_DETECTION else "instances"
    for path in candidates:
        if path.name.startswith((".", *SKIPPED)) or not is_coco(path):
            continue
        split = split_of(path, root) or "train"
        if split not in found or path.name.startswith(wanted):
            found[split] = path
    return {split: found[split] for split in ("train", "val", "test") if split in found}


def is_coco(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            # UTF-16 is recognised, too, so that it can be refused by that name.
            return bool(SNIFF.match(file.read(4096).lstrip(b"\xff\xfe\xef\xbb\xbf\0").replace(b"\0", b"")))
    except OSError:
        return False


def agreed_categories(indexes: dict[str, CocoIndex]) -> list[CocoCategory]:
    """All categories by id. Raises DatasetError where two splits mean different things by one id."""
    found: dict[Id, CocoCategory] = {}
    for split, index in indexes.items():
        for category in index.categories:
            known = found.setdefault(category.id, category)
            if known.name != category.name:
                raise DatasetError(
                    f"{shown(index.path)}: category {shown(category.id)} is '{shown(category.name)}' in {split} "
                    f"and '{shown(known.name)}' before.",
                    "Export all splits with the same categories.",
                )
    if not found:
        raise DatasetError(f"{shown(next(iter(indexes.values())).path)} has no category.", "Name the classes there.")
    categories = sorted(found.values(), key=lambda category: (isinstance(category.id, str), category.id))
    first, *others = categories
    # An exporter puts the name of the whole collection first, as the parent of all classes.
    if others and first.supercategory == "none" and all(each.supercategory == first.name for each in others):
        return others
    return categories


def guess_task(indexes: dict[str, CocoIndex]) -> str:
    """Keypoints if there are any, outlines if every annotation has one, else boxes."""
    total = sum(len(index.offsets) for index in indexes.values())
    if any(index.posed for index in indexes.values()):
        return KEYPOINT_DETECTION
    if total and sum(index.outlined for index in indexes.values()) == total:
        return IMAGE_SEGMENTATION
    return OBJECT_DETECTION


def also_held(indexes: dict[str, CocoIndex], task: str) -> dict[str, str]:
    """What the files hold beside what `task` reads, by the task that reads it."""
    total = sum(len(index.offsets) for index in indexes.values())
    found = {
        IMAGE_SEGMENTATION: ("masks", sum(index.outlined for index in indexes.values())),
        KEYPOINT_DETECTION: ("keypoints", sum(index.posed for index in indexes.values())),
    }
    return {
        other: f"the {what} of {count} of {total} annotations"
        for other, (what, count) in found.items()
        if count and other != task
    }


def keypoints_of(
    categories: list[CocoCategory], files: dict[str, Path]
) -> tuple[tuple[int, int], tuple[str, ...], Skeleton]:
    """`(count, 3)`, the names and the joints. Raises DatasetError where the categories have none, or differ."""
    kinds = {tuple(found.keypoints) for found in categories if found.keypoints}
    if len(kinds) != 1:
        raise DatasetError(
            f"{shown(next(iter(files.values())))}: {'no category names' if not kinds else 'categories differ in'} "
            "`keypoints`.",
            "Every class of a pose dataset has the same keypoints; name them in `categories`.",
        )
    names = kinds.pop()
    joints = next((found.skeleton for found in categories if found.skeleton), [])
    skeleton = tuple((a - 1, b - 1) for a, b in joints if 1 <= a <= len(names) and 1 <= b <= len(names))
    return (len(names), 3), names, skeleton


def flip_of(names: tuple[str, ...]) -> tuple[int, ...]:
    """The order in a mirrored picture, by `left` and `right` in the names; empty where that gives no order."""
    swapped = [
        re.sub("left|right", lambda match: "right" if match[0] == "left" else "left", name.lower()) for name in names
    ]
    lower = [name.lower() for name in names]
    if len(set(lower)) != len(lower) or any(name not in lower for name in swapped):
        return ()
    return tuple(lower.index(name) for name in swapped)


def images_of(root: Path, split: str, path: Path, index: CocoIndex) -> str:
    """The folder of a split's pictures, by where the first of them lies."""
    first = index.images[0].file_name if index.images else ""
    stem = path.stem.removeprefix("instances_").removeprefix("person_keypoints_")
    return folder_with(root, path.parent, first, [stem, split])
