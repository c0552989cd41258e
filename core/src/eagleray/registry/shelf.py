"""Finding and reading datasets and versions in the store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress

from pydantic import ValidationError

from eagleray.contract.errors import StorageError, UnknownNameError, unknown_name
from eagleray.registry import keys
from eagleray.registry.files import read_files, read_list
from eagleray.registry.models import DatasetRecord, DatasetVersion, SourceType
from eagleray.registry.names import Reference, is_id
from eagleray.registry.placing import Layout
from eagleray.storage.store import FileEntry, NotFoundError, Store

TRY = "eagleray datasets list"


class Shelf:
    """The datasets of a store, to read."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def records(self) -> Iterator[DatasetRecord]:
        """Every dataset that has a version, by name."""
        found = [self.record(name) for name in self.store.list_folders(keys.DATASETS) if is_id(name)]
        present = [record for record in found if record and not record.deleted and self.numbers(record.id)]
        yield from sorted(present, key=lambda record: record.name.lower())

    def find(self, dataset: str) -> DatasetRecord:
        """A dataset by its name or id. Raises UnknownNameError."""
        record = self.lookup(dataset)
        if record is None or not self.numbers(record.id):
            raise unknown_name("dataset", dataset, [record.name for record in self.records()], try_command=TRY)
        return record

    def lookup(self, dataset: str) -> DatasetRecord | None:
        """As `find`, also one without a version yet; None where there is none."""
        dataset_id = dataset if is_id(dataset) else self.id_of(dataset)
        record = self.record(dataset_id) if dataset_id else None
        return None if record is None or record.deleted else record

    def remains(self, dataset: str) -> DatasetRecord:
        """As `find`, also what a first import or a removal that broke off has left. Raises UnknownNameError."""
        dataset_id = dataset if is_id(dataset) else self.id_of(dataset)
        if dataset_id is None or (
            dataset_id == dataset and next(iter(self.store.list(keys.prefix(dataset_id))), None) is None
        ):
            return self.find(dataset)
        return self.record(dataset_id) or self.new_record(dataset_id, dataset)

    def new_record(
        self, dataset_id: str, name: str, *, source_type: SourceType = "folder", created_by: str = ""
    ) -> DatasetRecord:
        """One that is not in the store yet."""
        location = f"{self.store.location}/{keys.prefix(dataset_id)}"
        return DatasetRecord(
            id=dataset_id, name=name, storage_path=location, source_type=source_type, created_by=created_by
        )

    def id_of(self, name: str) -> str | None:
        """The id that the name stands for; there may be no dataset yet, or no more."""
        try:
            content = json.loads(self.store.get_bytes(keys.name_key(name)))
        except NotFoundError:
            return None
        except ValueError:
            content = None
        if not isinstance(content, dict) or not is_id(str(content.get("id"))):
            raise StorageError(f"{self.store.location}/{keys.name_key(name)} is damaged.", 'Write {"id": …} into it.')
        return str(content["id"])

    def numbers(self, dataset_id: str) -> list[int]:
        """The versions of a dataset, oldest first."""
        pattern = re.compile(rf"{re.escape(keys.versions_prefix(dataset_id))}/([1-9]\d*)\.json")
        found = (pattern.fullmatch(info.key) for info in self.store.list(keys.versions_prefix(dataset_id)))
        return sorted(int(match[1]) for match in found if match)

    def version(self, reference: Reference) -> DatasetVersion:
        """The version that is named, or the newest. Raises UnknownNameError, StorageError."""
        record = self.find(reference.dataset)
        numbers = self.numbers(record.id)
        number = reference.version or max(numbers)
        if number not in numbers:
            raise UnknownNameError(
                f"The dataset '{record.name}' has no version {number}.",
                f"It has {', '.join(map(str, numbers[-20:]))}. Try: eagleray datasets show {record.name}",
            )
        return self.read(record.id, number)

    def read(self, dataset_id: str, number: int) -> DatasetVersion:
        """Raises StorageError where the manifest is missing or cannot be read."""
        key = keys.manifest_key(dataset_id, number)
        try:
            version = DatasetVersion.model_validate_json(self.store.get_bytes(key))
        except ValidationError as error:
            raise StorageError(
                f"The manifest {self.store.location}/{key} cannot be read: {_reason(error)}.",
                "A newer eagleray may have written it.",
            ) from error
        if (version.dataset_id, version.number) != (dataset_id, number):
            raise StorageError(f"The manifest {self.store.location}/{key} is of {version.dataset_id}.", "Move it back.")
        return version

    def layout(self, record: DatasetRecord) -> Layout:
        """What lies under the dataset's `images/` and `annotations/`."""
        files = read_list(self.store, record.id, record.layout, record.layout_sha256) if record.layout else {}
        if record.moving_to is None:
            return Layout(record.id, record.layout, files)
        target = read_files(self.store, self.read(record.id, record.moving_to))
        return Layout(record.id, record.layout, files, record.moving_to, target)

    def locate(self, version: DatasetVersion) -> dict[str, tuple[str, FileEntry]]:
        """Key and identity of each file, by path. Right until the next change of the dataset; then ask again."""
        record = self.record(version.dataset_id)
        if record is None:
            raise unknown_name("dataset", version.name, [found.name for found in self.records()], try_command=TRY)
        return self.layout(record).locate(version.number, read_files(self.store, version))

    def record(self, dataset_id: str) -> DatasetRecord | None:
        """A dataset by its id, also one without a version, or whose removal has begun; None: there is none."""
        key = keys.record_key(dataset_id)
        with suppress(NotFoundError):
            try:
                return DatasetRecord.model_validate_json(self.store.get_bytes(key))
            except ValidationError as error:
                raise StorageError(
                    f"{self.store.location}/{key} cannot be read: {_reason(error)}.",
                    "A newer eagleray may have written it.",
                ) from error
        return None


def _reason(error: ValidationError) -> str:
    finding = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, finding['loc'])) or 'content'}: {finding['msg']}"
