"""A dataset's pictures and what is known of them, from the forms that the plugin trains from. Free of torch.

Coordinates are those of the picture as it is displayed (EXIF orientation applied).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from eagleray.contract import Dataset, DatasetError, Split

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
Outline = Sequence[float]


@dataclass(frozen=True)
class Thing:
    """One object.

    Attributes:
        box: `x1, y1, x2, y2`.
        outlines: closed polygons `x1, y1, x2, y2, …`, together the object's mask.
        rle: COCO run lengths, in the place of outlines.
    """

    class_id: int
    box: tuple[float, float, float, float]
    outlines: tuple[Outline, ...] = ()
    rle: Any = None


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        class_id: of the whole picture; -1 where its objects are labelled.
        relative: whether its things' coordinates are shares of the picture's size rather than pixels.
        turns: `(role, text)` of a conversation about it.
    """

    path: Path
    class_id: int = -1
    things: tuple[Thing, ...] = ()
    relative: bool = False
    turns: tuple[tuple[str, str], ...] = ()


def read_split(dataset: Dataset, name: str) -> list[Picture]:
    """All pictures of a split, in a stable order. Raises DatasetError where there is none or the form is unknown."""
    split = dataset.splits.get(name)
    if split is None:
        raise DatasetError(f"The dataset {dataset.path} has no {name} split.")
    readers = {"imagefolder": _folders, "coco": _coco, "dice": _dice, "jsonl": _jsonl}
    if dataset.format not in readers:
        raise DatasetError(f"The form '{dataset.format}' cannot be read here.", f"Valid: {', '.join(readers)}.")
    pictures = readers[dataset.format](dataset, split)
    if not pictures:
        raise DatasetError(f"The {name} split of {dataset.path} has no picture.")
    return pictures


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _folders(dataset: Dataset, split: Split) -> list[Picture]:
    root = dataset.path / split.images
    return [Picture(path, class_id) for class_id, name in enumerate(dataset.classes) for path in _images(root / name)]


def _coco(dataset: Dataset, split: Split) -> list[Picture]:
    path = dataset.path / split.annotations
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    known = {name: number for number, name in enumerate(dataset.classes)}
    # A category above others, which no object has, is no class.
    named = {category["id"]: category["name"] for category in content["categories"]}
    class_ids = {number: known[name] for number, name in named.items() if name in known}
    things: dict[Any, list[Thing]] = defaultdict(list)
    for entry in content.get("annotations", []):
        # A crowd is neither learnt nor counted.
        if not entry.get("iscrowd"):
            things[entry["image_id"]].append(_coco_thing(entry, class_ids[entry["category_id"]]))
    folder = dataset.path / split.images
    return [Picture(folder / image["file_name"], things=tuple(things[image["id"]])) for image in content["images"]]


def _coco_thing(entry: dict[str, Any], class_id: int) -> Thing:
    found = entry.get("segmentation") or ()
    rle = found if isinstance(found, dict) else None
    outlines = () if rle else tuple(outline for outline in found if len(outline) >= 6)
    if entry.get("bbox"):
        x, y, width, height = entry["bbox"]
        return Thing(class_id, (x, y, x + width, y + height), outlines, rle)
    return Thing(class_id, _around(outlines) if outlines else _rle_box(rle), outlines, rle)


def _rle_box(rle: Any) -> tuple[float, float, float, float]:
    x, y, width, height = (float(value) for value in coco_mask.toBbox(_compressed(rle)))
    return x, y, x + width, y + height


def _compressed(rle: Any) -> Any:
    """Run lengths as pycocotools decodes them; `counts` may be a list."""
    if isinstance(rle["counts"], list):
        height, width = rle["size"]
        return coco_mask.frPyObjects(rle, height, width)
    return rle


def _around(outlines: Sequence[Outline]) -> tuple[float, float, float, float]:
    xs = [x for outline in outlines for x in outline[0::2]]
    ys = [y for outline in outlines for y in outline[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def _dice(dataset: Dataset, split: Split) -> list[Picture]:
    images = dataset.path / split.images
    labels = dataset.path / (split.annotations or _labels_folder(split.images))
    outlined = dataset.task == "image-segmentation"
    return [
        Picture(
            path,
            things=_rows((labels / path.relative_to(images)).with_suffix(".txt"), outlined),
            relative=True,
        )
        for path in _images(images)
    ]


def _labels_folder(images: str) -> str:
    parts = list(PurePosixPath(images).parts)
    last = len(parts) - 1 - parts[::-1].index("images")
    return str(PurePosixPath(*parts[:last], "labels", *parts[last + 1 :]))


def _rows(path: Path, outlined: bool) -> tuple[Thing, ...]:
    if not path.is_file():
        return ()
    things = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if not line.strip():
            continue
        class_id, *values = (float(value) for value in line.split())
        if outlined:
            things.append(Thing(int(class_id), _around([values]), (tuple(values),)))
        else:
            x, y, width, height = values[:4]
            things.append(Thing(int(class_id), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)))
    return tuple(things)


ASKED = ("prompt", "question", "instruction", "query")
ANSWERED = ("answer", "caption", "text", "response", "output", "label")
ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
IMAGE = ("image", "file_name", "image_path", "path")


def _jsonl(dataset: Dataset, split: Split) -> list[Picture]:
    folder = dataset.path / split.images
    rows = (dataset.path / split.annotations).read_text(encoding="utf-8-sig").splitlines()
    return [_conversation(json.loads(row), folder) for row in rows if row.strip()]


def _conversation(row: dict[str, Any], folder: Path) -> Picture:
    given = next(row[key] for key in IMAGE if row.get(key))
    messages = row.get("messages", row.get("conversations"))
    if messages is None:
        asked = next((row[key] for key in ASKED if key in row), "")
        answered = next((row[key] for key in ANSWERED if key in row), "")
        turns = ([("user", asked)] if asked else []) + [("assistant", answered)]
    else:
        turns = [
            (ROLES[message.get("role", message.get("from"))], _text(message.get("content", message.get("value"))))
            for message in messages
        ]
    return Picture(_beside(folder, given), turns=tuple(turns))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")


def _beside(folder: Path, name: str) -> Path:
    """`name` below `folder`, or, where `folder` is a part of it already, below the folder's parents."""
    for base in (folder, *folder.parents):
        if (base / name).is_file():
            return base / name
    return folder / name


def boxes_xyxy(picture: Picture, width: int, height: int) -> npt.NDArray[np.float32]:
    """float32 `[N, 4]` in pixels, cut to the picture."""
    boxes = np.asarray([thing.box for thing in picture.things], dtype=np.float32).reshape(-1, 4)
    if picture.relative:
        boxes = boxes * np.asarray([width, height, width, height], dtype=np.float32)
    limits = np.asarray([width, height, width, height], dtype=np.float32)
    cut: npt.NDArray[np.float32] = np.clip(boxes, 0, limits)
    return cut


def class_ids(picture: Picture) -> npt.NDArray[np.int64]:
    """int64 `[N]`."""
    return np.asarray([thing.class_id for thing in picture.things], dtype=np.int64)


def masks(picture: Picture, width: int, height: int) -> npt.NDArray[np.uint8]:
    """uint8 `[N, height, width]`, 1 inside; an object without an outline is its box."""
    drawn = np.zeros((len(picture.things), height, width), dtype=np.uint8)
    scale = np.asarray([width, height] if picture.relative else [1, 1], dtype=np.float64)
    for number, thing in enumerate(picture.things):
        if thing.rle is not None:
            drawn[number] = coco_mask.decode(_compressed(thing.rle))
            continue
        x1, y1, x2, y2 = thing.box
        outlines = thing.outlines or ((x1, y1, x2, y1, x2, y2, x1, y2),)
        scaled = [(np.asarray(outline).reshape(-1, 2) * scale).ravel().tolist() for outline in outlines]
        drawn[number] = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(scaled, height, width)))
    return drawn
