"""The files of a Pascal VOC set: lists of names, pictures, XML files and masks that belong together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from eagleray.datasets.formats.description import FOLDERS
from eagleray.datasets.geometry import RowError
from eagleray.datasets.images import SUFFIXES, find_images, walk
from eagleray.datasets.places import is_there, safe_name
from eagleray.datasets.report import Findings, shown

MAX_BYTES = 16 << 20
MAX_LINE = 4096
XML_FIX = "Export the file again; it holds `annotation`, `size` and an `object` with `name` and `bndbox` for each box."


@dataclass(frozen=True)
class Item:
    """One picture of a split with what lies beside it; None where it does not."""

    image: Path | None
    stem: str
    xml: Path | None
    classes: Path | None = None
    instances: Path | None = None


def read_xml(path: Path, findings: Findings) -> Element | None:
    """The root element; None where there is none to be had, which is noted."""
    try:
        if path.stat().st_size > MAX_BYTES:
            what = f"larger than {MAX_BYTES} bytes"
            findings.fault(path, what, "Is it really an annotation file?", code="file-too-large")
            return None
        # Entities and document types are how a small file becomes a large one, or another file.
        tree: Element = fromstring(path.read_bytes(), forbid_dtd=True)
    except DefusedXmlException as error:
        what = f"has {type(error).__name__}, which an annotation file may not have"
        findings.fault(path, what, XML_FIX, code="file-malformed")
    except (ParseError, ValueError, LookupError, OSError, RecursionError) as error:
        findings.fault(path, f"not XML: {shown(error, 100)}", XML_FIX, code="file-malformed")
    else:
        if tree.tag == "annotation":
            return tree
        findings.fault(path, f"holds `{shown(tree.tag, 40)}`, not `annotation`", XML_FIX, code="file-malformed")
    return None


def text_of(element: Element, tag: str) -> str:
    found = element.find(tag)
    return (found.text or "").strip() if found is not None else ""


def number(element: Element, tag: str) -> float:
    text = text_of(element, tag)
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        raise RowError(f"`{tag}` is '{shown(text, 40)}', not a number", XML_FIX) from None
    if not math.isfinite(value):
        raise RowError(f"`{tag}` is {value}", XML_FIX, "not-finite")
    return value


def images_of(root: Path, split: str) -> str | None:
    """The folder of a split's pictures: JPEGImages where `ImageSets` lists the split, else a folder of its own."""
    if (root / "JPEGImages").is_dir():
        listed = any(list_of(root, split, kind) for kind in ("Main", "Segmentation"))
        only = split == "train" and not any((root / "ImageSets").glob("*/*.txt"))
        return "JPEGImages" if listed or only else None
    folder = next((name for name in FOLDERS[split] if any((root / name).glob("*.xml"))), None)
    return folder if folder or split != "train" else ("." if any(root.glob("*.xml")) else None)


def list_of(root: Path, split: str, kind: str) -> Path | None:
    return next(
        (path for name in FOLDERS[split] if (path := root / "ImageSets" / kind / f"{name}.txt").is_file()), None
    )


def items(root: Path, split: str, folder: str, findings: Findings) -> Iterator[Item]:
    """Every picture of the split, in the order of its list or by name."""
    original = folder == "JPEGImages"
    pictures: dict[str, Path] = {}
    for path in find_images(root / folder, findings, known=frozenset({".xml"})):
        stem = path.relative_to(root / folder).with_suffix("").as_posix()
        if stem in pictures:
            what = f"same name as {shown(pictures[stem].name)} but for the suffix"
            findings.fault(path, what, "Rename or remove one: both would take the same file.", code="image-name")
        pictures[stem] = path
    labels = root / "Annotations" if original else root / folder
    there = {
        path.relative_to(labels).with_suffix("").as_posix(): path for path in walk(labels) if path.suffix == ".xml"
    }
    listed = listed_stems(root, split, {*pictures, *there}, findings) if original else None
    for stem in listed if listed is not None else sorted({*pictures, *there}):
        masks = [root / kind / f"{stem}.png" if is_there(root / kind, f"{stem}.png") else None for kind in MASKS]
        yield Item(pictures.get(stem), stem, there.get(stem), *masks)


MASKS = ("SegmentationClass", "SegmentationObject")


def listed_stems(root: Path, split: str, known: set[str], findings: Findings) -> Iterator[str] | None:
    """The split's names from `ImageSets`; None where there are no lists.

    Args:
        known: names of which something lies there; of the others none is held, so one may come twice.
    """
    paths = [path for kind in ("Main", "Segmentation") if (path := list_of(root, split, kind))]
    return names_in(paths, root, known, findings) if paths else None


def names_in(paths: list[Path], root: Path, known: set[str], findings: Findings) -> Iterator[str]:
    came: set[str] = set()
    for path in paths:
        for row, line in list_lines(path, findings):
            words = line.split()
            # A list of one class has 1 or -1 behind the name.
            name = " ".join(words[:-1] if len(words) > 1 and words[-1] in ("1", "-1", "0") else words)
            stem = name[: -len(suffix)] if (suffix := Path(name).suffix.lower()) in SUFFIXES else name
            if not name or stem in came:
                continue
            if safe_name(stem, root) is None:
                what = f"'{shown(name)}' leads out of the dataset, or can be no file's name"
                findings.fault(path, what, "Remove it.", row, code="image-missing")
                continue
            if stem in known:
                came.add(stem)
            yield stem


def list_lines(path: Path, findings: Findings) -> Iterator[tuple[int, str]]:
    """Number and text of every line; none of a list that is longer than one of a million pictures."""
    if path.stat().st_size > MAX_BYTES:
        findings.fault(path, f"larger than {MAX_BYTES} bytes", "Is it really a list?", code="file-too-large")
        return
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                what = f"a line longer than {MAX_LINE} characters"
                findings.fault(path, what, "One name a line.", number, code="file-too-large")
                return
            yield number, line


def xml_and_masks(root: Path, folders: Iterable[str]) -> tuple[int, int]:
    """How many pictures have an XML file, and how many of these a mask, too."""
    labels = [root / "Annotations"] if (root / "Annotations").is_dir() else [root / folder for folder in folders]
    described = {
        path.relative_to(folder).with_suffix("").as_posix()
        for folder in labels
        for path in walk(folder)
        if path.suffix == ".xml"
    }
    return len(described), sum(is_there(root / MASKS[0], f"{stem}.png") for stem in described)


def masked(root: Path) -> bool:
    return any(any((root / kind).glob("*.png")) for kind in MASKS)
