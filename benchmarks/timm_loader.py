"""P6 for timm: seconds of an epoch of our training loader ÷ a plain torch DataLoader with PIL on the same JPEGs.

    .venv/bin/python benchmarks/timm_loader.py --python ENVIRONMENT/bin/python [--rounds 4] [--workers 2] [--json FILE]

Both decode, take a random resized crop of 224 pixels, flip, and give normalised float batches on the CPU. The peer is
what a tutorial writes: torchvision's transforms with ToTensor and Normalize for each picture. Target: 1.0 or less.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from ratio import compare, interleave, medians, show, verdict
from timm_runs import SOURCES, arguments, read, write_pictures

MEAN, STD, SIZE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224


def plain(data: Path, batch: int, workers: int) -> object:
    """The peer's loader; torch exists in the plugin's environment only."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    pictures = ImageFolder(str(data / "train"), transform)
    return DataLoader(pictures, batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def ours(data: Path, batch: int, workers: int) -> object:
    """The plugin's loader, one epoch after another."""
    import torch

    from eagleray.contract import Dataset, Split
    from eagleray_timm.config import ClassificationConfig
    from eagleray_timm.loader import Plan, make_loader
    from eagleray_timm.samples import read_samples

    classes = tuple(sorted(path.name for path in (data / "train").iterdir()))
    dataset = Dataset(data, "imagefolder", "image-classification", classes, {"train": Split("train", 0, 0)})
    samples = read_samples(dataset, "train", multi_label=False)
    return make_loader(
        samples,
        ClassificationConfig(color_jitter=0.0, train_interpolation="bilinear"),
        {"input_size": (3, SIZE, SIZE), "mean": MEAN, "std": STD},
        plan=Plan(len(samples), batch),
        rank=0,
        device=torch.device("cpu"),
        processes=workers,
        num_classes=len(classes),
        seed=0,
    )


def epochs(way: str, data: Path, batch: int, workers: int, count: int) -> None:
    """In the plugin's environment: print the seconds of each epoch."""
    import time

    loader = {"plain": plain, "ours": ours}[way](data, batch, workers)
    seconds = []
    for epoch in range(1, count + 1):
        began, seen = time.perf_counter(), 0
        for pictures, _ in loader.batches(epoch) if way == "ours" else loader:  # type: ignore[attr-defined]
            seen += len(pictures)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": seconds, "images": seen}))


def measured(python: str, way: str, data: Path, workers: int, count: int) -> float:
    command = [python, __file__, "--python", python, "--way", way, "--data", str(data), "--workers", str(workers)]
    done = subprocess.run(
        [*command, "--epochs", str(count)], env={"PYTHONPATH": SOURCES, "PATH": ""}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return read(done.stdout)


def benchmark(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name:
        data = write_pictures(Path(name) / "data", given.images, 4, (500, 375))
        way = partial(measured, given.python, data=data, workers=given.workers, count=given.epochs)
        ways = {"plain": lambda: way("plain"), "ours": lambda: way("ours"), "again": lambda: way("plain")}
        samples = interleave(ways, given.rounds)
    control, ratio = compare(samples, "again", "plain"), compare(samples, "ours", "plain")
    result = {
        "control": control,
        "ours/plain": [*ratio, verdict(ratio, control, 1.0)],
        "images a second": {key: round(given.images / value, 1) for key, value in medians(samples).items()},
        "samples": samples,
    }
    show(result)
    if given.json:
        given.json.write_text(json.dumps(result))
    print(json.dumps(result))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--way", choices=["plain", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        epochs(given.way, given.data, 64, given.workers, given.epochs)
        sys.exit()
    benchmark(given)


if __name__ == "__main__":
    main()
