"""JSON lines for vision-language models: a picture and a conversation about it in each row."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eagleray.contract import DatasetError
from eagleray.contract.tasks import IMAGE_TEXT_TO_TEXT
from eagleray.datasets.formats.base import Format
from eagleray.datasets.geometry import RowError
from eagleray.datasets.places import Named, folder_with, is_there, safe_name, split_of
from eagleray.datasets.records import Annotation, DatasetInfo, DatasetWriter, ImageRecord
from eagleray.datasets.report import Findings, is_text, shown
from eagleray.datasets.writing import SPLIT_FOLDERS, Files

IMAGE = ("image", "file_name", "image_path", "path")
ASKED = ("prompt", "question", "instruction", "query")
ANSWERED = ("answer", "caption", "text", "response", "output", "label")
ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
MAX_ROW = 1 << 20
FIX = 'A row is {"image": …, "prompt": …, "answer": …}, or {"image": …, "messages": [{"role": …, "content": …}]}.'

Turns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class JsonlSource:
    """One file for each split, read row by row."""

    info: DatasetInfo
    findings: Findings
    mend: bool
    named: Named

    def records(self, split: str) -> Iterator[ImageRecord]:
        path = self.info.root / self.info.annotations[split]
        folder = self.info.root / self.info.images[split]
        names: set[str] = set()
        for line, content in lines_of(path, self.findings, mend=self.mend):
            try:
                given, turns = row_of(content)
                name = safe_name(given, folder)
                if name is None or not is_there(folder, name):
                    fix = "Add it, or remove the row."
                    raise RowError(f"the picture {shown(given)} is not in {shown(folder.name)}/", fix, "image-missing")
            except RowError as error:
                self.findings.fault(path, error.what, error.fix, line, code=error.code)
                continue
            names.add(name)
            yield ImageRecord(name, folder / name, 0, 0, split, (Annotation(-1, turns=turns),))
        self.named.read(split, names)


def lines_of(path: Path, findings: Findings, *, mend: bool = False) -> Iterator[tuple[int, str]]:
    """Number and text of every row that holds something, each of bounded length."""
    with path.open("rb") as file:
        head = file.read(3)
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            findings.fault(path, "UTF-16, not UTF-8 text", "Save the file as UTF-8.", code="file-encoding")
            if mend:
                yield from wide_lines(path, findings)
            return
        file.seek(3 if head == codecs.BOM_UTF8 else 0)
        number = 0
        while content := file.readline(MAX_ROW + 1):
            number += 1
            if len(content) > MAX_ROW:
                findings.fault(path, f"a row longer than {MAX_ROW} bytes", FIX, number, code="file-too-large")
                while content and not content.endswith(b"\n"):
                    content = file.readline(MAX_ROW)
                continue
            try:
                text = content.decode("utf-8").strip()
            except UnicodeDecodeError:
                findings.fault(path, "not UTF-8 text", "Save the file as UTF-8.", number, code="file-encoding")
                continue
            if text:
                yield number, text


def wide_lines(path: Path, findings: Findings) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-16", errors="replace") as file:
        number = 0
        while line := file.readline(MAX_ROW + 1):
            number += 1
            if len(line) > MAX_ROW:
                findings.fault(path, f"a row longer than {MAX_ROW} characters", FIX, number, code="file-too-large")
                while line and not line.endswith("\n"):
                    line = file.readline(MAX_ROW)
            elif line.strip():
                yield number, line.strip()


def row_of(content: str) -> tuple[str, Turns]:
    """The picture's name and the conversation of a row. Raises RowError."""
    try:
        row = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RowError(f"not JSON: {shown(error, 80)}", FIX) from None
    if not isinstance(row, dict):
        raise RowError(f"a {type(row).__name__} instead of an object", FIX)
    image = next((row[key] for key in IMAGE if isinstance(row.get(key), str) and row[key]), None)
    if image is None:
        raise RowError("no `image`", FIX)
    messages = row.get("messages", row.get("conversations"))
    turns = turns_of(messages) if messages is not None else pair_of(row)
    if not any(role == "assistant" and text.strip() for role, text in turns):
        raise RowError("no answer", FIX)
    if not all(is_text(text) for _, text in turns):
        raise RowError("a text that is not UTF-8", "Write the row again.", "file-encoding")
    return image, turns


def pair_of(row: dict[str, Any]) -> Turns:
    """A prompt and an answer; a caption alone answers nothing."""
    found: list[tuple[str, str]] = []
    for role, keys in (("user", ASKED), ("assistant", ANSWERED)):
        value = next((row[key] for key in keys if key in row), None)
        if value is not None and not isinstance(value, str):
            raise RowError(f"the {role}'s text is a {type(value).__name__}", FIX)
        if value is not None:
            found.append((role, value))
    return tuple(found)


def turns_of(messages: Any) -> Turns:
    """Messages of `role` and `content` (text, or parts of it), or of `from` and `value`."""
    if not isinstance(messages, list):
        raise RowError("`messages` is not a list", FIX)
    turns = []
    for message in messages:
        if not isinstance(message, dict):
            raise RowError("a message is not an object", FIX)
        role = ROLES.get(str(message.get("role", message.get("from"))))
        content = message.get("content", message.get("value"))
        if isinstance(content, list):
            parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
            content = "\n".join(part for part in parts if isinstance(part, str))
        if role is None or not isinstance(content, str):
            raise RowError(f"a message of the role {shown(message.get('role', message.get('from')), 40)}", FIX)
        turns.append((role, content))
    return tuple(turns)


def open_jsonl(given: Path, task: str | None, findings: Findings, *, mend: bool) -> JsonlSource:
    """See `Open`."""
    root = given.parent if given.is_file() else given
    paths = [given] if given.is_file() else sorted([*root.glob("*.jsonl"), *root.glob("*/*.jsonl")])
    found: dict[str, Path] = {}
    for path in paths:
        found.setdefault(split_of(path, root) or "train", path)
    if not found:
        raise DatasetError(f"{shown(given)} has no .jsonl file.", FIX)
    images = {split: folder_with(root, path.parent, first_image(path), [split]) for split, path in found.items()}
    labels = {split: path.relative_to(root).as_posix() for split, path in found.items()}
    info = DatasetInfo(root, "jsonl", IMAGE_TEXT_TO_TEXT, (), images, labels)
    return JsonlSource(info, findings, mend, Named(root, images, findings))


def first_image(path: Path) -> str:
    silent = Findings(path.parent)
    for _, content in lines_of(path, silent, mend=True):
        try:
            return row_of(content)[0]
        except RowError:
            continue
    return ""


class JsonlWriter:
    """`{split}.jsonl` with `image` and `messages`, and the pictures in `images/{split}/`."""

    def __init__(self, files: Files, info: DatasetInfo) -> None:
        self.files, self.info = files, info
        self.placed: dict[str, str] = {}
        folder = Path(files.folder("."))
        self.open = {
            split: (folder / f"{SPLIT_FOLDERS[split]}.jsonl").open("w", encoding="utf-8") for split in info.splits
        }

    def write(self, record: ImageRecord) -> None:
        key = f"{record.split}/{record.path}"
        if key not in self.placed:
            # Many rows may speak of one picture, which is put there once.
            folder = f"images/{SPLIT_FOLDERS[record.split]}"
            name = record.name.removeprefix(f"{folder}/")
            self.placed[key] = f"{folder}/{self.files.claim(record.split, name)}"
            self.files.place(record.path, self.placed[key])
        for found in record.annotations:
            messages = [{"role": role, "content": text} for role, text in found.turns]
            row = {"image": self.placed[key], "messages": messages}
            self.open[record.split].write(json.dumps(row, ensure_ascii=True) + "\n")

    def close(self) -> None:
        for file in self.open.values():
            file.close()


def recognise_jsonl(given: Path) -> str:
    paths = [given] if given.is_file() else sorted(given.glob("*.jsonl"))
    return next((path.name for path in paths if path.suffix.lower() == ".jsonl"), "")


def jsonl_writer(files: Files, info: DatasetInfo) -> DatasetWriter:
    return JsonlWriter(files, info)


def split_hint(split: str) -> str:
    return f"Put its rows into {SPLIT_FOLDERS[split]}.jsonl."


JSONL = Format(
    name="jsonl",
    title="JSON lines of pictures and text: `train.jsonl`, `images/…`",
    reads=(IMAGE_TEXT_TO_TEXT,),
    writes=(IMAGE_TEXT_TO_TEXT,),
    recognise=recognise_jsonl,
    open=open_jsonl,
    writer=jsonl_writer,
    split_hint=split_hint,
)
