"""An entry of `annotations` of a COCO file: its box, its outlines or run lengths, its keypoints."""

from __future__ import annotations

import math

import msgspec

from eagleray.datasets.formats.coco_index import Id, lenient
from eagleray.datasets.geometry import MIN_AREA, RowError, box_around, check_outline, outline_area
from eagleray.datasets.masks import box_of_rle, rle_of_counts
from eagleray.datasets.records import BoxXYXY, Rle
from eagleray.datasets.report import shown

BOX_FIX = "`bbox` is [x, y, width, height] in pixels."


class CocoRle(msgspec.Struct, gc=False):
    """Run lengths; `size` is `[height, width]`."""

    size: tuple[int, int]
    counts: list[int] | str


class CocoEntry(msgspec.Struct, gc=False):
    """An entry of `annotations`; masks are decoded only where the task wants them."""

    category_id: Id
    bbox: list[float] | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    keypoints: list[float] | None = None
    iscrowd: int | bool | None = 0


ENTRIES = msgspec.json.Decoder(list[CocoEntry])
OUTLINES = msgspec.json.Decoder(list[list[float]])
RLE = msgspec.json.Decoder(CocoRle)


def entries_of(contents: list[bytes]) -> list[CocoEntry] | None:
    """All entries of a picture, in one call; None where one of them is not as it should be."""
    try:
        found = ENTRIES.decode(b"[" + b",".join(contents) + b"]")
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return found if len(found) == len(contents) else None


def entry_of(content: bytes) -> CocoEntry:
    """Raises RowError."""
    try:
        entry: CocoEntry = lenient(content, CocoEntry)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise RowError(shown(error, 120), BOX_FIX) from None
    return entry


def around(polygons: tuple[tuple[float, ...], ...], rle: Rle | None) -> BoxXYXY | None:
    return box_around(polygons) if polygons else box_of_rle(rle) if rle else None


def box_of(values: list[float] | None) -> BoxXYXY | None:
    if not values:
        return None
    if len(values) != 4:
        raise RowError(f"bbox has {len(values)} numbers", BOX_FIX)
    x, y, w, h = values
    if not math.isfinite(x + y + w + h):
        raise RowError("bbox is not finite", BOX_FIX, "not-finite")
    if w <= 0 or h <= 0:
        raise RowError(f"the box has no area (w {w:g}, h {h:g})", BOX_FIX, "no-area")
    return x, y, x + w, y + h


def mask_of(content: bytes, width: int, height: int) -> tuple[tuple[tuple[float, ...], ...], Rle | None]:
    """Outlines or run lengths. Raises RowError where there is neither."""
    fix = "`segmentation` is [[x1, y1, x2, y2, …], …], or {size, counts}."
    try:
        if content.startswith(b"{"):
            found = RLE.decode(content)
            if found.size != (height, width):
                raise RowError(f"a mask of {found.size[1]} x {found.size[0]} on a picture of {width} x {height}", fix)
            rle = rle_of_counts(found.counts, height, width)
            if box_of_rle(rle)[2:] <= box_of_rle(rle)[:2]:
                raise RowError("the mask is empty", "Remove it.", "no-area")
            return (), rle
        outlines = OUTLINES.decode(content)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        what = "no outline" if content in (b"null", b"[]") else "a segmentation that is none, or is not finite"
        raise RowError(what, fix) from None
    # Annotation programs leave crumbs of two points; of an object with a sound part they are no part.
    kept = [tuple(outline) for outline in outlines if sound(outline)]
    if not kept:
        for outline in outlines:
            check_outline(outline)
        raise RowError("no outline", fix)
    return tuple(kept), None


def sound(outline: list[float]) -> bool:
    """Whether it goes around something; an odd number of coordinates is an error, however many parts there are."""
    if len(outline) % 2:
        check_outline(outline)
    return len(outline) >= 6 and outline_area(outline) >= MIN_AREA
