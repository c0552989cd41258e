"""Small datasets of every task and format, and what reading one is refused with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eagleray.contract import DatasetError
from eagleray.datasets import read_dataset
from eagleray.datasets.records import DatasetInfo, ImageRecord
from eagleray.testing.data import write_detection_dataset

Refusal = Callable[..., str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_detection_dataset(tmp_path / "set")


@pytest.fixture
def refusal() -> Refusal:
    """The error that reading the dataset at a path ends with, as text; it must name a way out."""

    def refuse(root: Path, task: str = "object-detection", format: str | None = None) -> str:
        with pytest.raises(DatasetError) as caught:
            read_dataset(root, task, format)
        assert caught.value.hint
        return str(caught.value)

    return refuse


@dataclass
class Made:
    """A source that holds its records in memory; pictures are written when it is made."""

    info: DatasetInfo
    held: list[ImageRecord]

    def records(self, split: str) -> Iterator[ImageRecord]:
        return (record for record in self.held if record.split == split)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    """`make(task, [(name, split, (width, height), annotations), …], classes=…)`: a source with real pictures."""

    def made(task: str, pictures: list[Any], *, classes: tuple[str, ...] = ("a", "b"), **also: Any) -> Made:
        folder = tmp_path / "made"
        records: list[ImageRecord] = []
        for name, split, (width, height), found in pictures:
            path = folder / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                Image.new("RGB", (width, height), (len(records) * 7 % 255, 40, 90)).save(path)
            records.append(ImageRecord(name, path, width, height, split, tuple(found)))
        splits = dict.fromkeys(record.split for record in records)
        return Made(DatasetInfo(folder, "made", task, classes, {split: split for split in splits}, **also), records)

    return made
