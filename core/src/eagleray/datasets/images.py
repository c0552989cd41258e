"""Finds pictures and checks that every one of them decodes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from eagleray.datasets.records import ImageRecord
from eagleray.datasets.report import Findings, is_text, listed

# The suffixes of each kind; the first is what a mended copy writes.
KINDS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
}
SUFFIXES = frozenset(suffix for suffixes in KINDS.values() for suffix in suffixes)
# By name, so that no file is ever handed to an interpreter such as PostScript's.
FORMATS = tuple(KINDS)
MAX_PIXELS = 100_000_000
BATCH = 1024
FIX = "Replace or remove the pictures that cannot be read."
ORIENTATION = 0x0112
TURNED = frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class Picture:
    """What a file's header says, and why it cannot be used.

    Attributes:
        width, height: pixels as stored, before EXIF orientation.
        kind: `JPEG`, `PNG`, …; empty where it is none of these.
        orientation: EXIF's, 1 (upright) to 8.
        fault: empty where the picture is sound.
    """

    width: int = 0
    height: int = 0
    kind: str = ""
    orientation: int = 1
    fault: str = ""

    @property
    def code(self) -> str:
        """The kind of the fault."""
        return "image-too-large" if "pixels" in self.fault else "image-unreadable"

    @property
    def displayed(self) -> tuple[int, int]:
        """Width and height after EXIF orientation, as viewers and labelling programs show it."""
        return (self.height, self.width) if self.orientation in TURNED else (self.width, self.height)


def walk(folder: Path) -> Iterator[Path]:
    """Every visible file below `folder`, in a stable order."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def find_images(folder: Path, findings: Findings, known: frozenset[str] = frozenset()) -> list[Path]:
    """The pictures below `folder`, by suffix in any letter case; other files are named in a warning.

    `known` are suffixes of files that belong there, labels between the pictures say.
    """
    images: list[Path] = []
    others: list[Path] = []
    for path in walk(folder):
        suffix = path.suffix.lower()
        if suffix in SUFFIXES and not is_text(str(path.relative_to(folder))):
            findings.fault(path, "the name is not UTF-8 text", "Rename the picture.", code="image-name")
        elif suffix not in known:
            (images if suffix in SUFFIXES else others).append(path)
    others = [path for path in others if path.name not in {"Thumbs.db", "desktop.ini"}]
    if others:
        names = listed([str(path.relative_to(findings.root)) for path in others])
        findings.warn(f"Ignored, because the name does not end like a picture's: {names}.", code="file-ignored")
    return images


def inspected(records: Iterable[ImageRecord]) -> Iterator[tuple[ImageRecord, Picture]]:
    """Every record with its picture, decoded in one thread per core, in their order."""
    Image.init()
    remaining = iter(records)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        while batch := list(islice(remaining, BATCH)):
            # One filter around all threads: filters are the process's, so threads must not change them each for itself.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pictures = list(threads.map(inspect, (record.path for record in batch)))
            yield from zip(batch, pictures, strict=True)


def checked(records: Iterable[ImageRecord], findings: Findings) -> Iterator[ImageRecord]:
    """The records, and what is wrong with their pictures noted."""
    for record, picture in inspected(records):
        note(record, picture, findings)
        yield record


def note(record: ImageRecord, picture: Picture, findings: Findings) -> None:
    path = record.path
    if picture.fault:
        findings.fault(path, picture.fault, FIX, code=picture.code)
        return
    if path.suffix.lower() not in KINDS[picture.kind]:
        fix = f"Rename it to {path.stem}{KINDS[picture.kind][0]}."
        findings.warn(
            f"the content is {picture.kind}, the suffix {path.suffix}", code="image-mislabelled", path=path, fix=fix
        )
    if picture.orientation != 1:
        words = f"EXIF orientation {picture.orientation} turns the picture; frameworks differ in whether they obey"
        findings.warn(words, code="image-orientation", path=path, fix="Store the picture upright, without the tag.")
    size = (record.width, record.height)
    if record.width and size != picture.displayed:
        if size == (picture.width, picture.height):
            words = f"the annotations are of {size[0]} x {size[1]} pixels as stored, EXIF shows it turned"
            findings.warn(words, code="image-size", path=path, fix="Remove the EXIF orientation.")
        else:
            words = (
                f"the annotations say {size[0]} x {size[1]} pixels, the picture has {picture.width} x {picture.height}"
            )
            findings.fault(
                path, words, "Annotate the picture that is there, or put back the one that was.", code="image-size"
            )


def header(path: Path) -> Picture:
    """What the picture's header says; the pixels are not read. For one thread at a time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return inspect(path, decode=False)


def inspect(path: Path, decode: bool = True) -> Picture:
    """What the picture is and, with `decode`, whether all of it can be read. Never raises."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            kind = "JPEG" if image.format == "MPO" else str(image.format)
            picture = Picture(*image.size, kind, orientation_of(image))
            if image.width * image.height > MAX_PIXELS:
                return Picture(fault=f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
            if decode:
                load(image, path)
            return picture
    except Image.DecompressionBombError:
        return Picture(fault=f"more than {MAX_PIXELS:,} pixels")
    except Exception as error:  # Pillow's decoders raise anything from SyntaxError to struct.error on broken bytes
        if path.is_file() and path.stat().st_size == 0:
            return Picture(fault="the file is empty")
        if not path.is_file():
            return Picture(fault="there is no such picture")
        words = str(error).replace(str(path), path.name)[:120]
        return Picture(fault=f"not a readable picture ({type(error).__name__}: {words})")


def load(image: Any, path: Path) -> None:
    """Read every byte of the picture; raises where one is wrong."""
    if image.format == "PNG":
        # Decoding alone does not compare a PNG's checksums, and `verify` uses the file up.
        image.verify()
        with Image.open(path, formats=FORMATS) as again:
            again.load()
        return
    # An eighth of the side: the whole JPEG stream is still read, the costly transform is not done.
    image.draft(None, (1, 1))
    image.load()


def orientation_of(image: Any) -> int:
    # PNG keeps EXIF behind the pixels at times, and reading that far is what `load` is for.
    if image.format == "BMP" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    value = image.getexif().get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
