"""Changing a dataset: a new version, another current version, removal. One writer at a time; any step may be the last.

A version exists when its manifest does. What has been committed before stays whole, whatever happens: bytes are put
where nothing lies, or under their sha256, and are overwritten or removed only once a copy is there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from eagleray.contract.errors import DatasetError, StorageError
from eagleray.registry import keys
from eagleray.registry.check import ImportOptions, Prepared
from eagleray.registry.files import Files, read_files
from eagleray.registry.held import HeldStore
from eagleray.registry.lease import DatasetBusyError, Lease
from eagleray.registry.models import DatasetRecord, DatasetVersion, Source
from eagleray.registry.placing import Layout
from eagleray.registry.progress import Progress
from eagleray.registry.shelf import Shelf
from eagleray.registry.threads import in_threads
from eagleray.storage.failpoints import failpoint
from eagleray.storage.store import AlreadyExistsError, FileEntry, Store

Item = TypeVar("Item")


class DatasetWriter:
    """Writes one dataset. Its maker holds the lease."""

    def __init__(self, shelf: Shelf, record: DatasetRecord, lease: Lease, progress: Progress) -> None:
        self._shelf = shelf
        self._store: Store = shelf.store
        self._held = HeldStore(shelf.store, lease)
        self._record = record
        self._lease = lease
        self._progress = progress

    def recover(self) -> None:
        """Finish what a writer that died had begun."""
        newest = max(self._shelf.numbers(self._record.id), default=0)
        if newest and (self._record.moving_to is not None or newest != self._record.layout):
            self.lay_out(newest)
        if self._lease.after_a_crash:
            self.sweep()

    def commit(self, ready: Prepared, *, source: Source, options: ImportOptions) -> DatasetVersion:
        """Store a new version and make it the current one.

        Raises:
            DatasetError: a file has changed since it was identified.
            DatasetBusyError: another writer has come in between.
        """
        layout = self._shelf.layout(self._record)
        number = max([self._record.last_number, *self._shelf.numbers(self._record.id)]) + 1
        self._put_new(ready.folder, ready.files, layout, number)
        version = DatasetVersion(
            dataset_id=self._record.id,
            name=self._record.name,
            number=number,
            digest=ready.digest,
            format=ready.dataset.format,
            task=ready.dataset.task,
            classes=ready.dataset.classes,
            splits=ready.splits,
            keypoints=ready.dataset.keypoints,
            flip_index=ready.dataset.flip_index,
            files_sha256=ready.files_sha256,
            num_files=len(ready.files),
            size_bytes=sum(entry.size_bytes for entry in ready.files.values()),
            source=source,
            note=options.note,
            created_by=options.created_by,
            warnings=ready.warnings,
        )
        self._lease.check()
        self._held.put_bytes(keys.files_key(version.dataset_id, number, ready.files_sha256), ready.files_list)
        failpoint("dataset.before_manifest")
        self._put_manifest(version)
        failpoint("dataset.after_manifest")
        self.lay_out(number)
        return version

    def lay_out(self, number: int) -> None:
        """Make version `number` the one that lies under `images/` and `annotations/`."""
        self._lease.check()
        version = self._shelf.read(self._record.id, number)
        now = self._shelf.layout(self._record)
        if now.target_number is not None and now.target_number != number:
            raise StorageError(f"'{self._record.name}' is half-way to version {now.target_number}, which is gone.")
        change = Layout(self._record.id, now.number, now.files, number, read_files(self._store, version))
        self._preserve(change)
        self._save(moving_to=number)
        failpoint("dataset.layout_begun")
        self._each("arranging", change.to_remove(), self._remove)
        self._each("arranging", change.to_write().items(), lambda item: self._write(change, *item))
        self._save(
            moving_to=None,
            layout=number,
            layout_sha256=version.files_sha256,
            last_number=max(number, now.number, self._record.last_number),
            **_figures(version),
        )
        failpoint("dataset.layout_done")
        laid_out = {self._object(entry.sha256) for entry in change.target.values()}
        self._each("arranging", laid_out & self._objects(), self._held.delete)

    def remove_version(self, number: int) -> None:
        """Remove a version, and the bytes that no other one has. There must be another."""
        self._lease.check()
        self._save(last_number=max(number, self._record.last_number))
        self._held.delete(keys.manifest_key(self._record.id, number))
        failpoint("dataset.version_gone")
        self.recover()
        self.sweep()

    def remove(self) -> None:
        """Remove the whole dataset."""
        self._save(deleted=True)
        failpoint("dataset.removal_begun")
        for folder in self._store.list_folders(keys.prefix(self._record.id)):
            if folder != "writers":
                self._held.delete_prefix(f"{keys.prefix(self._record.id)}/{folder}")
        if self._shelf.id_of(self._record.name) == self._record.id:
            self._held.delete(keys.name_key(self._record.name))
        self._held.delete(keys.record_key(self._record.id))
        self._lease.forget()

    def sweep(self) -> int:
        """Remove what no version refers to; how many objects that were."""
        self._lease.check()
        layout = self._shelf.layout(self._record)
        wanted = {self._current(path) for path in layout.files}
        wanted.add(keys.files_key(self._record.id, layout.number, self._record.layout_sha256))
        for number in self._shelf.numbers(self._record.id):
            version = self._shelf.read(self._record.id, number)
            wanted.add(keys.manifest_key(self._record.id, number))
            wanted.add(keys.files_key(self._record.id, number, version.files_sha256))
            wanted.update(key for key, _ in layout.locate(number, read_files(self._store, version)).values())
        root = keys.prefix(self._record.id)
        unwanted = [
            info.key
            for folder in ("images", "annotations", "objects", "versions")
            for info in self._store.list(f"{root}/{folder}")
            if info.key not in wanted
        ]
        self._each("sweeping", unwanted, self._held.delete)
        return len(unwanted)

    def _put_new(self, folder: Path, files: Files, layout: Layout, number: int) -> None:
        """Put what the store lacks; what it has under another path is copied inside it."""
        objects = self._objects()
        puts: dict[str, tuple[str, FileEntry]] = {}
        for path, entry in files.items():
            key = layout.place(number, path, entry)
            if layout.takes(path) or (key == self._object(entry.sha256) and key not in objects):
                puts[key] = (path, entry)
        total = sum(entry.size_bytes for _, entry in puts.values())
        done = 0
        self._progress("storing", 0, total)
        for size_bytes in in_threads(lambda item: self._put(folder, item[0], *item[1], layout), puts.items()):
            done += size_bytes
            self._progress("storing", done, total)

    def _put(self, folder: Path, key: str, path: str, entry: FileEntry, layout: Layout) -> int:
        stored = layout.steady.get(entry.sha256)
        if stored is not None:
            self._held.copy(self._current(stored), key)
        else:
            self._put_file(folder / path, key, path, entry)
        failpoint("dataset.after_file")
        return entry.size_bytes

    def _put_file(self, source: Path, key: str, path: str, entry: FileEntry) -> None:
        """Put what is at no version's place yet. One who was held for dead replaces nothing of whoever came after."""
        try:
            found = self._held.put_file(key, source, if_absent=True)
        except AlreadyExistsError:
            if self._lies_at(key) != entry.sha256:
                raise DatasetBusyError(
                    f"Another process has just stored {path} of '{self._record.name}'.", "Run the command again."
                ) from None
            return
        if found != entry:
            self._held.delete(key)
            raise DatasetError(f"'{path}' changed while it was imported.", "Import again once nothing writes to it.")

    def _lies_at(self, key: str) -> str:
        return self._store.identify(key).sha256 or self._store.digest(key).sha256

    def _put_manifest(self, version: DatasetVersion) -> None:
        key = keys.manifest_key(version.dataset_id, version.number)
        try:
            self._held.put_bytes(key, version.model_dump_json(indent=1).encode(), if_absent=True)
        except AlreadyExistsError:
            # The acknowledgement of our own put may have been lost, and the retry met it.
            if self._shelf.read(version.dataset_id, version.number) != version:
                raise DatasetBusyError(f"Another process has just made {version}.", "Run the command again.") from None

    def _preserve(self, change: Layout) -> None:
        if wanted := change.to_preserve():
            have = self._objects()
            missing = [(path, key) for sha256, path in wanted.items() if (key := self._object(sha256)) not in have]
            self._each("arranging", missing, lambda item: self._held.copy(self._current(item[0]), item[1]))

    def _write(self, change: Layout, path: str, entry: FileEntry) -> None:
        steady = change.steady.get(entry.sha256)
        self._held.copy(self._object(entry.sha256) if steady is None else self._current(steady), self._current(path))
        failpoint("dataset.layout_file")

    def _remove(self, path: str) -> None:
        self._held.delete(self._current(path))

    def _current(self, path: str) -> str:
        return keys.current_key(self._record.id, path)

    def _object(self, sha256: str) -> str:
        return keys.object_key(self._record.id, sha256)

    def _objects(self) -> set[str]:
        return {info.key for info in self._store.list(keys.objects_prefix(self._record.id))}

    def _each(self, stage: str, items: Collection[Item], do: Callable[[Item], object]) -> None:
        for done, _ in enumerate(in_threads(do, items), start=1):
            self._progress(stage, done, len(items))

    def _save(self, **changes: Any) -> None:
        for name, value in {**changes, "updated_at": datetime.now(UTC)}.items():
            setattr(self._record, name, value)
        self._held.put_bytes(keys.record_key(self._record.id), self._record.model_dump_json(indent=1).encode())


def _figures(version: DatasetVersion) -> dict[str, Any]:
    return {
        "format": version.format,
        "task": version.task,
        "num_images": version.num_images,
        "num_annotations": version.num_annotations,
        "classes": version.classes,
        "source_type": version.source.type,
    }
