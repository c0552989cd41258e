"""Removing datasets, and what first imports and removals that broke off have left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

from eagleray.contract.errors import StorageError
from eagleray.registry import keys
from eagleray.registry.lease import Lease
from eagleray.registry.models import DatasetRecord
from eagleray.registry.names import is_id
from eagleray.registry.progress import Progress, quiet
from eagleray.registry.shelf import Shelf
from eagleray.registry.writing import DatasetWriter
from eagleray.storage.store import Store


def lease_of(store: Store, dataset_id: str, name: str, progress: Progress) -> Lease:
    """The right to change a dataset; who waits for it says so by `progress`."""
    return Lease(
        store,
        keys.writers_prefix(dataset_id),
        what=f"The dataset '{name}'",
        waiting=lambda holder: progress(f"waiting for {holder}", 0, None),
    )


def remove_dataset(shelf: Shelf, found: DatasetRecord, progress: Progress, *, unfinished: bool = False) -> bool:
    """Remove all of a dataset, in whatever state it is; whether that was done.

    Args:
        unfinished: only where it has no version, or its removal had begun, once it can be held.
    """
    with lease_of(shelf.store, found.id, found.name, progress) as lease:
        record = shelf.record(found.id) or found
        if unfinished and not record.deleted and shelf.numbers(record.id):
            return False
        DatasetWriter(shelf, record, lease, progress).remove()
        return True


def sweep_datasets(store: Store, older_than_s: float, *, dry_run: bool = False) -> list[str]:
    """Remove datasets that no version was ever made of, or whose removal broke off; the folders, or keys of names.

    Only what nobody has written to for so long, and what nobody holds.
    """
    shelf = Shelf(store)
    swept = []
    for found in _unfinished(shelf, time.time() - older_than_s):
        if dry_run or remove_dataset(shelf, found, quiet, unfinished=True):
            swept.append(keys.prefix(found.id))
    return swept


def _unfinished(shelf: Shelf, before: float) -> Iterator[DatasetRecord]:
    names = dict(_names(shelf, before))
    for dataset_id in sorted({*filter(is_id, shelf.store.list_folders(keys.DATASETS)), *names}):
        # What cannot be read is no leftover: somebody may restore it.
        with suppress(StorageError):
            record = shelf.record(dataset_id)
            if record is not None and not record.deleted and shelf.numbers(dataset_id):
                continue
            if all(info.modified_at < before for info in shelf.store.list(keys.prefix(dataset_id))):
                yield record or shelf.new_record(dataset_id, names.get(dataset_id, dataset_id))


def _names(shelf: Shelf, before: float) -> Iterator[tuple[str, str]]:
    """Id and name of each name that was given so long ago."""
    for info in shelf.store.list(keys.NAMES):
        if info.modified_at < before:
            name = keys.name_of(info.key)
            with suppress(StorageError):
                if dataset_id := shelf.id_of(name):
                    yield dataset_id, name
