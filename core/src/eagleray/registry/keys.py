"""Where a dataset lies in the store."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import unquote

from eagleray.storage.layout import quote_name

DATASETS = "datasets"
NAMES = "dataset_names"
# Decides the folder only; what a file is, its format says.
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def prefix(dataset_id: str) -> str:
    return f"{DATASETS}/{dataset_id}"


def name_key(name: str) -> str:
    """Names that differ only in the case of letters are one: not every file system tells them apart."""
    return f"{NAMES}/{quote_name(name.lower())}.json"


def name_of(key: str) -> str:
    """The name, in lower case, that `name_key` made `key` of."""
    return unquote(key.removeprefix(f"{NAMES}/").removesuffix(".json"))


def record_key(dataset_id: str) -> str:
    return f"{prefix(dataset_id)}/dataset.json"


def versions_prefix(dataset_id: str) -> str:
    return f"{prefix(dataset_id)}/versions"


def manifest_key(dataset_id: str, number: int) -> str:
    return f"{versions_prefix(dataset_id)}/{number}.json"


def files_key(dataset_id: str, number: int, sha256: str) -> str:
    """The list of a version's files. Its content is in its name, so two writers never share one."""
    return f"{versions_prefix(dataset_id)}/{number}-{sha256[:16]}.jsonl"


def objects_prefix(dataset_id: str) -> str:
    return f"{prefix(dataset_id)}/objects"


def object_key(dataset_id: str, sha256: str) -> str:
    return f"{objects_prefix(dataset_id)}/{sha256}"


def writers_prefix(dataset_id: str) -> str:
    return f"{prefix(dataset_id)}/writers"


def current_key(dataset_id: str, path: str) -> str:
    """The place of the file `path` of the current version."""
    folder = "images" if PurePosixPath(path).suffix.lower() in PICTURES else "annotations"
    return f"{prefix(dataset_id)}/{folder}/{path}"
