"""Finds pictures and checks that every one of them decodes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from eagleray.datasets.report import Findings, listed

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
# By name, so that no file is ever handed to an interpreter such as PostScript's.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
MAX_PIXELS = 100_000_000
BATCH = 1024
FIX = "Replace or remove the pictures that cannot be read."


def walk(folder: Path) -> Iterator[Path]:
    """Every visible file below `folder`, in a stable order."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def find_images(folder: Path, findings: Findings) -> list[Path]:
    """The pictures below `folder`, by suffix in any letter case; other files are named in a warning."""
    images: list[Path] = []
    others: list[Path] = []
    for path in walk(folder):
        (images if path.suffix.lower() in SUFFIXES else others).append(path)
    others = [path for path in others if path.name not in {"Thumbs.db", "desktop.ini"}]
    if others:
        names = listed([str(path.relative_to(findings.root)) for path in others])
        findings.warn(f"Ignored, because the name does not end like a picture's: {names}.")
    return images


def check_images(images: Sequence[Path], findings: Findings) -> None:
    """Decode every picture, in one thread per core, and note those that fail."""
    Image.init()
    # One filter around all threads: filters are the process's, so threads must not change them each for itself.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        warnings.simplefilter("ignore")
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            for path, reason in zip(batch, threads.map(fault_of, batch), strict=True):
                if reason:
                    findings.fault(path, reason, FIX)


def fault_of(path: Path) -> str:
    """Why the picture at `path` cannot be used; empty if it can."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}"
            if image.format == "PNG":
                # Decoding alone does not compare a PNG's checksums, and `verify` uses the file up.
                image.verify()
                with Image.open(path, formats=FORMATS) as again:
                    again.load()
                return ""
            # An eighth of the side: the whole JPEG stream is still read, the costly transform is not done.
            image.draft(None, (1, 1))
            image.load()
    except Image.DecompressionBombError:
        return f"more than {MAX_PIXELS:,} pixels"
    except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error on broken bytes
        if path.is_file() and path.stat().st_size == 0:
            return "the file is empty"
        return f"not a readable picture ({type(error).__name__}: {str(error).replace(str(path), path.name)[:120]})"
    return ""
