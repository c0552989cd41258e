"""Reading COCO annotations: objects a second ÷ pycocotools' load, and memory ÷ size of the file; linear in size.

    python benchmarks/datasets_import.py [--images 100000] [--objects 860000] [--outlines 24] [--rounds 3] [--json FILE]

The set is made: pictures of one pixel (nothing here opens them), boxes, outlines of `--outlines` points each,
annotations in random order as COCO's own are. Ours reads every annotation into records, grouped by picture and checked;
pycocotools' load parses the file and makes its index. Each run is a process of its own, in alternating order; the
control is the peer against itself. The same is done with a quarter of the set, which says whether time and memory are
linear.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratio import compare, interleave, medians, show

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)
CATEGORIES = 80


def make(root: Path, images: int, objects: int, points: int, seed: int = 0) -> Path:
    """A COCO set with `train/` and `annotations/instances_train.json`; returns the latter."""
    chance = random.Random(seed)
    (root / "train").mkdir(parents=True)
    (root / "annotations").mkdir()
    for number in range(images):
        (root / "train" / f"{number:012d}.png").write_bytes(PIXEL)
    path = root / "annotations" / "instances_train.json"
    owners = [number % images for number in range(objects)]
    chance.shuffle(owners)
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info": {"description": "made"}, "images": [')
        for number in range(images):
            entry = {"id": number + 1, "file_name": f"{number:012d}.png", "width": 640, "height": 480, "license": 1}
            file.write(("," if number else "") + json.dumps(entry))
        file.write('], "annotations": [')
        for number, owner in enumerate(owners):
            file.write(("," if number else "") + json.dumps(annotation(number + 1, owner + 1, points, chance)))
        names = [{"id": number + 1, "name": f"class {number}"} for number in range(CATEGORIES)]
        file.write(f'], "categories": {json.dumps(names)}}}')
    return path


def annotation(number: int, image: int, points: int, chance: random.Random) -> dict[str, Any]:
    x, y, w, h = (round(chance.uniform(0, 300), 2), round(chance.uniform(0, 200), 2), 100.5, 80.25)
    outline = [round(value, 2) for _ in range(points) for value in (x + chance.random() * w, y + chance.random() * h)]
    return {
        "segmentation": [outline] if points > 2 else [],
        "area": w * h,
        "iscrowd": 0,
        "image_id": image,
        "bbox": [x, y, w, h],
        "category_id": chance.randrange(CATEGORIES) + 1,
        "id": number,
    }


def read_ours(path: Path, task: str) -> int:
    from eagleray.datasets import open_dataset

    source, _ = open_dataset(path, task, "coco")
    return sum(len(record.annotations) for split in source.info.splits for record in source.records(split))


def read_theirs(path: Path, task: str) -> int:
    from pycocotools.coco import COCO

    return len(COCO(str(path)).anns)


def high_water() -> int:
    """Most resident memory so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def once(way: str, path: Path, task: str) -> None:
    """In a process of its own: import, read, and print seconds, bytes and objects."""
    import pycocotools.coco  # noqa: F401

    import eagleray.datasets  # noqa: F401 - what is measured is reading, not importing

    before, started = high_water(), time.perf_counter()
    objects = read_ours(path, task) if way == "ours" else read_theirs(path, task)
    print(json.dumps({"seconds": time.perf_counter() - started, "bytes": high_water() - before, "objects": objects}))


class Runs:
    """Runs of one file, each in a process; memory is kept beside the seconds."""

    def __init__(self, path: Path, task: str, objects: int) -> None:
        self.path, self.task, self.objects = path, task, objects
        self.memory: dict[str, list[int]] = {}

    def way(self, name: str) -> Callable[[], float]:
        def run() -> float:
            command = [
                sys.executable,
                __file__,
                "--once",
                name.split()[0],
                "--path",
                str(self.path),
                "--task",
                self.task,
            ]
            result = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
            assert result["objects"] == self.objects, result
            self.memory.setdefault(name, []).append(result["bytes"])
            return float(result["seconds"])

        return run

    def measure(self, rounds: int) -> dict[str, Any]:
        samples = interleave({name: self.way(name) for name in ("ours", "theirs", "theirs again")}, rounds)
        size = self.path.stat().st_size
        rates = {name: round(self.objects / seconds) for name, seconds in medians(samples).items()}
        return {
            "file_mib": round(size / 2**20),
            "objects_per_s": rates,
            "seconds": medians(samples),
            # Theirs ÷ ours in seconds is ours ÷ theirs in objects a second.
            "ratio": compare(samples, "theirs", "ours"),
            "control": compare(samples, "theirs again", "theirs"),
            "memory_of_file": {name: round(max(found) / size, 2) for name, found in self.memory.items()},
            "samples": samples,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--objects", type=int, default=860_000)
    parser.add_argument("--outlines", type=int, default=24, help="points of each outline; 0: boxes only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="folder for the made set; default: the temp folder")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--once", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--task", default="object-detection", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        return once(options.once, options.path, options.task)
    task = "image-segmentation" if options.outlines > 2 else "object-detection"
    result: dict[str, Any] = {"task": task}
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        for name, part in (("quarter", 4), ("whole", 1)):
            objects = options.objects // part
            path = make(Path(folder, name), options.images // part, objects, options.outlines)
            result[name] = Runs(path, task, objects).measure(options.rounds)
    for name in ("quarter", "whole"):
        show({"set": name, **result[name]})
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
