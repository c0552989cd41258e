"""A contact sheet: some pictures with what is annotated on them, and how classes and sizes are spread."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from eagleray.contract import DatasetError
from eagleray.datasets.images import FORMATS
from eagleray.datasets.masks import area_of, polygons_of
from eagleray.datasets.read import open_dataset
from eagleray.datasets.records import Annotation, DatasetInfo, ImageRecord
from eagleray.datasets.report import shown

CELL = 320
GAP = 12
CAPTION = 18
MAX_BARS = 20
# Ten that differ also for most who see few colours; more classes take them again.
COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (148, 103, 189),
    (140, 220, 90),
    (255, 120, 120),
)
# By the share of the picture's side: the classes of COCO's evaluation, for pictures of any size.
SIZES = ((0.01, "up to 1 %"), (0.03, "1 to 3 %"), (0.1, "3 to 10 %"), (0.3, "10 to 30 %"), (1.0, "over 30 %"))
Canvas = ImageDraw.ImageDraw


@dataclass
class Spread:
    """How many of each class and size were seen, over all splits."""

    classes: Counter[int] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)

    def add(self, record: ImageRecord) -> None:
        for found in record.annotations:
            self.classes[found.class_id] += 1
            if found.box is not None and record.width:
                share = math.sqrt(max(area_of(found), 0) / (record.width * record.height))
                self.sizes[next(name for bound, name in SIZES if share <= bound or bound == 1.0)] += 1


def preview(
    path: str | Path,
    out: str | Path,
    *,
    task: str | None = None,
    format: str | None = None,
    images: int = 16,
    seed: int = 0,
) -> Path:
    """Write a PNG with `images` pictures of the dataset, boxes, masks, keypoints and class names drawn, and histograms.

    The same dataset and seed give the same pictures, in whatever order its files lie. Faulty rows are left out.

    Raises:
        DatasetError: the dataset cannot be read, or has no picture.
    """
    source, _ = open_dataset(path, task, format)
    spread = Spread()
    chosen: list[tuple[int, str, ImageRecord]] = []
    for split in source.info.splits:
        for record in source.records(split):
            spread.add(record)
            digest = hashlib.sha256(f"{seed}\0{split}\0{record.name}".encode("utf-8", "surrogateescape")).digest()
            entry = (-int.from_bytes(digest[:8], "big"), f"{split}\0{record.name}", record)
            if len(chosen) < images:
                heapq.heappush(chosen, entry)
            elif entry[:2] > chosen[0][:2]:
                heapq.heapreplace(chosen, entry)
    if not chosen:
        raise DatasetError(f"{shown(source.info.root)} has no picture to show.", "Try: eagleray datasets validate")
    records = [record for *_, record in sorted(chosen, key=lambda entry: entry[1])]
    target = Path(out).expanduser().absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet(records, source.info, spread).save(target, "PNG")
    return target


def sheet(records: Sequence[ImageRecord], info: DatasetInfo, spread: Spread) -> Image.Image:
    columns = min(4, len(records))
    rows = math.ceil(len(records) / columns)
    width = max(columns, 2) * (CELL + GAP) + GAP
    grid = rows * (CELL + CAPTION + GAP) + GAP
    charts = [
        chart(
            "classes", [(info.classes[number], count) for number, count in spread.classes.most_common() if number >= 0]
        ),
        chart(
            "size of objects: their side in the picture's",
            [(name, spread.sizes[name]) for _, name in SIZES if spread.sizes],
        ),
    ]
    whole = Image.new("RGB", (width, grid + max(image.height for image in charts) + GAP), "white")
    for number, record in enumerate(records):
        place = (GAP + number % columns * (CELL + GAP), GAP + number // columns * (CELL + CAPTION + GAP))
        whole.paste(cell(record, info), place)
    for number, image in enumerate(charts):
        whole.paste(image, (GAP + number * width // 2, grid))
    return whole


def cell(record: ImageRecord, info: DatasetInfo) -> Image.Image:
    """One picture, scaled to fit, with its annotations and name."""
    whole = Image.new("RGB", (CELL, CELL + CAPTION), (235, 235, 235))
    draw = ImageDraw.Draw(whole)
    try:
        with Image.open(record.path, formats=FORMATS) as image:
            picture = ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # Pillow's decoders raise anything on broken bytes
        text(draw, (4, CELL // 2), f"cannot be read ({type(error).__name__})", (200, 0, 0))
    else:
        scale = min(CELL / picture.width, CELL / picture.height)
        small = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
        whole.paste(annotated(small, record, info, scale), (0, 0))
    text(draw, (2, CELL + 3), f"{record.split}/{record.name}"[-52:], (60, 60, 60))
    return whole


def annotated(picture: Image.Image, record: ImageRecord, info: DatasetInfo, scale: float) -> Image.Image:
    veil = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    shade = ImageDraw.Draw(veil)
    for found in record.annotations:
        for polygon in polygons_of(found):
            scaled = [value * scale for value in polygon]
            shade.polygon(scaled, fill=(*colour_of(found), 90), outline=(*colour_of(found), 255))
    drawn = Image.alpha_composite(picture.convert("RGBA"), veil).convert("RGB")
    draw = ImageDraw.Draw(drawn)
    for number, found in enumerate(record.annotations):
        mark(draw, found, info, scale, number)
    return drawn


def mark(draw: Canvas, found: Annotation, info: DatasetInfo, scale: float, number: int) -> None:
    colour = colour_of(found)
    if found.box is not None:
        x1, y1, x2, y2 = (value * scale for value in found.box)
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=2)
    for a, b in info.skeleton:
        if a < len(found.keypoints) and b < len(found.keypoints) and found.keypoints[a][2] and found.keypoints[b][2]:
            ends = [value * scale for point in (found.keypoints[a], found.keypoints[b]) for value in point[:2]]
            draw.line(ends, fill=colour, width=2)
    for x, y, visibility in found.keypoints:
        if visibility:
            spot = (x * scale - 3, y * scale - 3, x * scale + 3, y * scale + 3)
            draw.ellipse(spot, fill=colour if visibility == 2 else None, outline="white")
    place = (found.box[0] * scale, found.box[1] * scale) if found.box else (2.0, 2.0 + 14 * number)
    label(draw, place, words_of(found, info), colour)


def words_of(found: Annotation, info: DatasetInfo) -> str:
    if found.turns:
        return " / ".join(words for _, words in found.turns)[:60]
    return f"{info.classes[found.class_id]}{' (ignored)' if found.ignore else ''}"


def label(draw: Canvas, place: tuple[float, float], words: str, colour: tuple[int, int, int]) -> None:
    shape = draw.textbbox((0, 0), printable(words), font=font())
    x, y = place[0], max(place[1], 0)
    draw.rectangle((x, y, x + shape[2] + 4, y + shape[3] + 2), fill=colour)
    text(draw, (x + 2, y), words, (0, 0, 0))


def chart(title: str, bars: list[tuple[str, int]]) -> Image.Image:
    """Horizontal bars with names and counts; a long tail is one bar."""
    if len(bars) > MAX_BARS:
        rest = bars[MAX_BARS - 1 :]
        bars = [*bars[: MAX_BARS - 1], (f"{len(rest)} more", sum(count for _, count in rest))]
    image = Image.new("RGB", (CELL + 2 * GAP, 24 + 18 * max(len(bars), 1)), "white")
    draw = ImageDraw.Draw(image)
    text(draw, (0, 2), title if bars else "", (0, 0, 0))
    most = max((count for _, count in bars), default=1)
    for row, (name, count) in enumerate(bars):
        y = 22 + 18 * row
        draw.rectangle((120, y, 120 + max(1, 150 * count // most), y + 13), fill=COLOURS[4])
        text(draw, (0, y), name[:18], (40, 40, 40))
        text(draw, (276, y), f"{count:,}", (40, 40, 40))
    return image


def text(draw: Canvas, place: tuple[float, float], words: str, colour: tuple[int, int, int]) -> None:
    draw.text(place, printable(words), fill=colour, font=font())


def printable(words: str) -> str:
    """A terminal is not in play here, but a line end would tear a label in two."""
    return "".join(character if character.isprintable() else "?" for character in words)


def font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=11)


def colour_of(found: Annotation) -> tuple[int, int, int]:
    return COLOURS[found.class_id % len(COLOURS)]
