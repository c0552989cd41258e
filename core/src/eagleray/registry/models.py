"""What is written down of a dataset and of each version."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from eagleray.contract import Dataset, Split
from eagleray.contract.errors import EaglerayError

SourceType = Literal["upload", "roboflow", "url", "folder", "s3"]
_CONFIG = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class NotOwnedError(EaglerayError):
    """The dataset was imported by someone else, and whoever asks may change only their own."""

    code = "forbidden"
    exit_code = 2
    http_status = 403


def _now() -> datetime:
    return datetime.now(UTC)


class Source(BaseModel):
    """Where a version's bytes came from; `location` never holds a secret."""

    model_config = _CONFIG

    type: SourceType
    location: str


class SplitFacts(BaseModel):
    """One split: where its pictures and labels are, and what is in it.

    Attributes:
        images, annotations: paths in the dataset; `annotations` is empty where folders are the labels.
        class_counts: annotations by class name.
    """

    model_config = _CONFIG

    images: str
    num_images: int = Field(ge=0)
    num_annotations: int = Field(ge=0)
    num_backgrounds: int = Field(default=0, ge=0)
    annotations: str = ""
    class_counts: dict[str, int] = Field(default_factory=dict)


class DatasetRecord(BaseModel):
    """`dataset.json`: a dataset, with the figures of its current version.

    Attributes:
        layout: the version whose files lie under `images/` and `annotations/`; 0: none yet. It may be removed already.
        layout_sha256: sha256 of that version's list of files.
        moving_to: the version that they are being changed into; None outside such a change.
        last_number: the highest version number ever given; one is never given twice.
        created_by: who imported its first version.
        deleted: its removal has begun, and goes on when somebody next meets it.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    id: str
    name: str
    format: str = ""
    task: str = ""
    storage_path: str
    num_images: int = 0
    num_annotations: int = 0
    classes: tuple[str, ...] = ()
    source_type: SourceType
    metadata: dict[str, Any] = Field(default_factory=dict)
    created_by: str = ""
    created_at: datetime = Field(default_factory=_now)
    updated_at: datetime = Field(default_factory=_now)
    layout: int = 0
    layout_sha256: str = ""
    moving_to: int | None = None
    last_number: int = 0
    deleted: bool = False

    def require_owner(self, name: str) -> None:
        """Raises NotOwnedError where `name` did not import it."""
        if self.created_by != name:
            raise NotOwnedError(
                f"'{self.name}' was imported by someone else.",
                "A key that is bound to projects changes and deletes only what it imported itself.",
            )


class DatasetVersion(BaseModel):
    """The manifest of a version, `versions/{number}.json`. Immutable.

    Attributes:
        digest: the version's identity: sha256 over everything in it that decides what is trained.
        files_sha256: sha256 of its list of files.
    """

    model_config = _CONFIG

    dataset_id: str
    name: str
    number: int = Field(ge=1)
    digest: str
    format: str
    task: str
    classes: tuple[str, ...]
    splits: dict[str, SplitFacts]
    keypoints: tuple[int, int] | None = None
    flip_index: tuple[int, ...] = ()
    files_sha256: str
    num_files: int = Field(ge=0)
    size_bytes: int = Field(ge=0)
    source: Source
    note: str = ""
    created_by: str = ""
    warnings: tuple[str, ...] = ()
    created_at: datetime = Field(default_factory=_now)

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"

    @property
    def num_images(self) -> int:
        return sum(split.num_images for split in self.splits.values())

    @property
    def num_annotations(self) -> int:
        return sum(split.num_annotations for split in self.splits.values())

    @property
    def class_counts(self) -> dict[str, int]:
        """Annotations of each class over all splits, by class name."""
        totals = dict.fromkeys(self.classes, 0)
        for split in self.splits.values():
            for name, count in split.class_counts.items():
                totals[name] = totals.get(name, 0) + count
        return totals

    def dataset(self, path: Path) -> Dataset:
        """The version as an adapter is given it, its files at `path`."""
        splits = {name: Split(**facts.model_dump(exclude={"class_counts"})) for name, facts in self.splits.items()}
        return Dataset(path, self.format, self.task, self.classes, splits, self.keypoints, self.flip_index)


@dataclass(frozen=True)
class Imported:
    """What an import led to.

    Attributes:
        created: False where the newest version had the same content already.
        done: what was mended, as sentences with counts.
    """

    version: DatasetVersion
    created: bool
    done: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.created:
            return f"Imported as {self.version}."
        return f"{self.version} has exactly this content already; no new version was made."


def digest_of(dataset: Dataset, files_sha256: str) -> str:
    """Identity of what is trained: files, how they are read, and which pictures are for what."""
    content = {
        "files": files_sha256,
        "format": dataset.format,
        "task": dataset.task,
        "classes": dataset.classes,
        "splits": {name: [split.images, split.annotations] for name, split in dataset.splits.items()},
        "keypoints": dataset.keypoints,
        "flip_index": dataset.flip_index,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
