"""Writes COCO: pictures in `train/`, and one JSON file for each split, entry by entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eagleray.contract.tasks import IMAGE_SEGMENTATION, KEYPOINT_DETECTION
from eagleray.datasets.masks import area_of
from eagleray.datasets.records import Annotation, DatasetInfo, ImageRecord
from eagleray.datasets.writing import Files

# To a millionth of a pixel, so that what was a whole number is one again.
DIGITS = 6


class CocoWriter:
    """`{split}/…` and `annotations/instances_{split}.json` (`person_keypoints_` for poses)."""

    def __init__(self, files: Files, info: DatasetInfo) -> None:
        self.files, self.info = files, info
        self.name = "person_keypoints" if info.task == KEYPOINT_DETECTION else "instances"
        folder = Path(files.folder("annotations"))
        # Pictures and annotations come together and stand apart in the file, so the latter wait in a file of their own.
        self.open = {}
        for split in info.splits:
            files.folder(split)
            self.open[split] = SplitFile(folder / f"{self.name}_{split}.json")

    def write(self, record: ImageRecord) -> None:
        name = self.files.claim(record.split, record.name)
        self.files.place(record.path, f"{record.split}/{name}")
        entries = [self.entry(found) for found in record.annotations]
        self.open[record.split].add(name, record.width, record.height, entries)

    def entry(self, found: Annotation) -> dict[str, Any]:
        x1, y1, x2, y2 = found.box or (0.0, 0.0, 0.0, 0.0)
        entry: dict[str, Any] = {
            "category_id": found.class_id + 1,
            "bbox": numbers((x1, y1, x2 - x1, y2 - y1)),
            "area": round(area_of(found), DIGITS),
            "iscrowd": int(found.ignore),
        }
        if self.info.task == IMAGE_SEGMENTATION:
            if found.rle is not None:
                size = [found.rle.height, found.rle.width]
                entry["segmentation"] = {"size": size, "counts": found.rle.counts.decode("ascii")}
            else:
                entry["segmentation"] = [numbers(polygon) for polygon in found.polygons]
        if found.keypoints:
            entry["keypoints"] = numbers([value for point in found.keypoints for value in point])
            entry["num_keypoints"] = sum(visibility > 0 for _, _, visibility in found.keypoints)
        return entry

    def close(self) -> None:
        for file in self.open.values():
            file.close(self.categories())

    def categories(self) -> list[dict[str, Any]]:
        info = self.info
        also: dict[str, Any] = {}
        if info.keypoints:
            also["keypoints"] = list(info.keypoint_names) or [f"keypoint-{i + 1}" for i in range(info.keypoints[0])]
            also["skeleton"] = [[a + 1, b + 1] for a, b in info.skeleton]
        return [
            {"id": number, "name": name, "supercategory": "", **also}
            for number, name in enumerate(info.classes, start=1)
        ]


class SplitFile:
    """One annotation file while it is written."""

    def __init__(self, path: Path) -> None:
        self.part = path.with_suffix(".part")
        self.images = path.open("w", encoding="utf-8")
        self.annotations = self.part.open("w+", encoding="utf-8")
        self.images.write('{"images": [')
        self.image_id = self.annotation_id = 0

    def add(self, name: str, width: int, height: int, entries: list[dict[str, Any]]) -> None:
        self.image_id += 1
        image = {"id": self.image_id, "file_name": name, "width": width, "height": height}
        self.images.write(f"{',' if self.image_id > 1 else ''}\n{json.dumps(image)}")
        for entry in entries:
            self.annotation_id += 1
            whole = {"id": self.annotation_id, "image_id": self.image_id, **entry}
            self.annotations.write(f"{',' if self.annotation_id > 1 else ''}\n{json.dumps(whole)}")

    def close(self, categories: list[dict[str, Any]]) -> None:
        self.images.write('\n],\n"annotations": [')
        self.annotations.seek(0)
        while text := self.annotations.read(1 << 20):
            self.images.write(text)
        self.images.write(f'\n],\n"categories": {json.dumps(categories)}}}\n')
        self.images.close()
        self.annotations.close()
        self.part.unlink()


def numbers(values: Any) -> list[float]:
    """Rounded, and whole numbers without a point, as COCO itself has them."""
    rounded = [round(value, DIGITS) for value in values]
    return [int(value) if value == int(value) else value for value in rounded]
