"""The dataset as this worker gets it: from where the job says, in the form that its framework trains from."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from eagleray.contract import Dataset, Split
from eagleray.contract.errors import ClusterError, DatasetError
from eagleray.settings import Settings
from eagleray.storage.cache import NodeCache
from eagleray.storage.store import Store


def dataset_of(payload: dict[str, Any], settings: Settings, work_dir: Path, store: Store, held: ExitStack) -> Dataset:
    """The job's dataset on this node; it stays while `held` is open.

    Raises:
        ClusterError: a folder that this node does not see.
        DatasetError: the version has been deleted and made anew.
        StorageError: a file of the version is missing or damaged, or the disk is full.
    """
    planned = _planned(payload["dataset"])
    if payload["dataset_version"] is not None:
        path = _fetched(payload["dataset_version"], settings, work_dir, store)
    elif planned.path.exists():
        path = planned.path
    else:
        raise ClusterError(
            f"The dataset '{planned.path}' is not visible on this node.",
            "Import it, and name it instead of the folder: eagleray datasets import FOLDER. Or put it on a file "
            "system that every node mounts, at the same path.",
        )
    found = _planned({**payload["dataset"], "path": path})
    if found.format in payload["dataset_formats"]:
        return found
    from eagleray.registry.forms import use_form  # noqa: PLC0415 - see `_fetched`

    return use_form(found, payload["dataset_formats"], settings.forms, held)


def _fetched(wanted: dict[str, Any], settings: Settings, work_dir: Path, store: Store) -> Path:
    # A worker that trains from a folder as it is needs none of the formats, half a second to import.
    from eagleray.registry import DatasetRegistry  # noqa: PLC0415

    registry = DatasetRegistry(store, settings)
    version = registry.show(f"{wanted['dataset_id']}@{wanted['number']}")
    if version.digest != wanted["digest"]:
        raise DatasetError(f"{version} is no longer what this job was planned with.", "Start a new job.")
    return registry.fetch(version, NodeCache(settings.cache, settings.cache_max_bytes), work_dir / "dataset")


def _planned(facts: dict[str, Any]) -> Dataset:
    """A dataset from plain data, which has lists for tuples."""
    return Dataset(
        path=Path(facts["path"]),
        format=facts["format"],
        task=facts["task"],
        classes=tuple(facts["classes"]),
        splits={name: Split(**split) for name, split in facts["splits"].items()},
        keypoints=tuple(facts["keypoints"]) if facts["keypoints"] else None,
        flip_index=tuple(facts["flip_index"]),
        tables=tuple(facts["tables"]),
    )
