"""From a location that a person typed to a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eagleray.contract.errors import StorageError
from eagleray.settings import S3Access, load_s3_access, load_settings
from eagleray.storage.local import LocalStore
from eagleray.storage.store import Store


def open_store(location: str, access: Mapping[str, Any] | None = None) -> Store:
    """The store at `location`: a folder, which need not exist yet, or `s3://bucket/prefix`.

    Args:
        access: what `store_access` gave in another process; None: what this process's environment says.

    Raises:
        StorageError: it is another kind of address, or a file.
    """
    if location.startswith("s3://"):
        # boto3 takes a third of a second to import, which nobody with a folder shall pay.
        from eagleray.storage.s3.store import S3Store  # noqa: PLC0415

        return S3Store.open(
            location, S3Access(**access) if access else load_s3_access(), state=load_settings().home / "uploads"
        )
    if "://" in location:
        raise StorageError(
            f"Cannot store at '{location.partition('://')[0]}://…': that kind of storage is not supported.",
            "Set EAGLERAY_STORAGE to a folder or to s3://bucket/prefix.",
        )
    if not location.strip() or "\0" in location:
        raise StorageError(f"{location!r} is not a folder.", "Set EAGLERAY_STORAGE to a folder or s3://bucket/prefix.")
    root = Path(location).expanduser().absolute()
    if root.exists() and not root.is_dir():
        raise StorageError(f"'{root}' is a file, not a folder.", "Set EAGLERAY_STORAGE to a folder.")
    return LocalStore(root)


def store_access(store: Store) -> dict[str, Any] | None:
    """What another node needs to open `store` as this process has; None where its own environment will do.

    It may hold a secret: it travels only as an argument of a remote call, never in a runtime environment, a job's
    description or a command line.
    """
    if isinstance(store, LocalStore):
        return None
    access = getattr(store, "portable_access", lambda: None)()
    return asdict(access) if access is not None else None
