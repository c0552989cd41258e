"""From a location that a person typed to a store."""

from __future__ import annotations

from pathlib import Path

from eagleray.contract.errors import StorageError
from eagleray.storage.local import LocalStore
from eagleray.storage.store import Store


def open_store(location: str) -> Store:
    """The store at `location`, a folder, which need not exist yet.

    Raises:
        StorageError: it is a bucket or another address, or a file.
    """
    if "://" in location:
        what = "Buckets are" if location.startswith("s3://") else "That kind of storage is"
        raise StorageError(
            f"Cannot store at '{location}': {what} not supported yet; a folder is.",
            "Set EAGLERAY_STORAGE to a folder, one that every node sees if there is more than one.",
        )
    if not location.strip() or "\0" in location:
        raise StorageError(f"{location!r} is not a folder.", "Set EAGLERAY_STORAGE to a folder.")
    root = Path(location).expanduser().absolute()
    if root.exists() and not root.is_dir():
        raise StorageError(f"'{root}' is a file, not a folder.", "Set EAGLERAY_STORAGE to a folder.")
    return LocalStore(root)
