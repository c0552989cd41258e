"""Changing a store only as long as the lease is held."""

from __future__ import annotations

from pathlib import Path

from eagleray.registry.lease import Lease
from eagleray.storage.store import FileEntry, Store


class HeldStore:
    """The changes that a writer makes, each refused once another writer may have taken over.

    Every method raises DatasetBusyError then. What has begun goes on, so what must replace nothing is put `if_absent`.
    """

    def __init__(self, store: Store, lease: Lease) -> None:
        self._store = store
        self._lease = lease

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._lease.hold()
        self._store.put_bytes(key, data, if_absent=if_absent)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> FileEntry:
        self._lease.hold()
        return self._store.put_file(key, path, if_absent=if_absent)

    def copy(self, source_key: str, key: str) -> None:
        self._lease.hold()
        self._store.copy(source_key, key)

    def delete(self, key: str) -> None:
        self._lease.hold()
        self._store.delete(key)

    def delete_prefix(self, prefix: str) -> None:
        self._lease.hold()
        self._store.delete_prefix(prefix)
