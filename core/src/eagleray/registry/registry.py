"""Datasets under names, with immutable versions, in any store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from eagleray.contract.errors import ConfigError, UnknownNameError
from eagleray.datasets import Placing, convert
from eagleray.datasets.report import shown
from eagleray.registry import keys
from eagleray.registry.check import ImportOptions, prepared
from eagleray.registry.compare import Comparison, compare_versions
from eagleray.registry.fetching import fetch_version, materialise_version, require_free
from eagleray.registry.files import read_files
from eagleray.registry.limits import Limits
from eagleray.registry.models import DatasetRecord, DatasetVersion, Imported, Source, SourceType
from eagleray.registry.names import check_name, is_reference, new_id, parse_reference
from eagleray.registry.progress import Progress, quiet
from eagleray.registry.removal import lease_of, remove_dataset
from eagleray.registry.shelf import Shelf
from eagleray.registry.sources.opening import SourceRules, name_from, open_archive, open_source
from eagleray.registry.sources.temporary import temporary_folder
from eagleray.registry.writing import DatasetWriter
from eagleray.settings import Settings, load_settings
from eagleray.storage.cache import NodeCache
from eagleray.storage.store import AlreadyExistsError, FileEntry, Store


class DatasetRegistry:
    """The datasets of a store.

    Every method raises UnknownNameError for a dataset or version that is not there, ConfigError for a name that cannot
    be one, and StorageError where the store refuses.
    """

    def __init__(self, store: Store, settings: Settings | None = None) -> None:
        self.store = store
        self._settings = settings or load_settings()
        self._shelf = Shelf(store)

    def source_rules(self, *, for_others: bool = False) -> SourceRules:
        """What may be imported from: by whoever runs this process, or by others who ask a server."""
        buckets = self._settings.dataset_buckets if for_others else None
        return SourceRules(paths=not for_others, buckets=buckets, hosts=self._settings.dataset_hosts)

    def import_dataset(
        self,
        source: str | Path,
        *,
        name: str | None = None,
        options: ImportOptions = ImportOptions(),
        rules: SourceRules | None = None,
        limits: Limits = Limits(),
        progress: Progress = quiet,
    ) -> Imported:
        """Keep the dataset at `source` as the newest version of `name` (default: made of the source's).

        Args:
            source: a folder, an archive, `s3://bucket/prefix` or an https address.
            rules: what may be imported from; default: all that this process may.

        Raises:
            ConfigError: the rules forbid the source.
            DatasetError: it is not there, cannot be unpacked, has faults, or is more than `limits` allow.
        """
        name = check_name(name or name_from(str(source)))
        rules = rules or self.source_rules()
        with open_source(str(source), self._settings.imports, rules, limits, progress) as opened:
            return self.import_folder(
                opened.folder, name=name, options=options, source=opened.source, limits=limits, progress=progress
            )

    def import_upload(
        self,
        archive: Path,
        *,
        name: str,
        filename: str,
        options: ImportOptions = ImportOptions(),
        limits: Limits = Limits(),
        progress: Progress = quiet,
    ) -> Imported:
        """As `import_dataset`, of an archive that was uploaded as `filename`, which is only shown."""
        check_name(name)
        source = Source(type="upload", location=shown(filename or "an upload"))
        with open_archive(archive, self._settings.imports, limits, progress, what=source.location) as folder:
            return self.import_folder(
                folder, name=name, options=options, source=source, limits=limits, progress=progress
            )

    def import_folder(
        self,
        folder: Path,
        *,
        name: str,
        options: ImportOptions = ImportOptions(),
        source: Source | None = None,
        limits: Limits = Limits(),
        progress: Progress = quiet,
    ) -> Imported:
        """Check the dataset in `folder` and keep it as the newest version of `name`.

        Raises:
            DatasetError: it has faults, or is more than `limits` allow; nothing was stored.
            NotOwnedError: the dataset is someone else's, and `options` ask for one's own.
        """
        check_name(name)
        source = source or Source(type="folder", location=str(folder.absolute()))
        with (
            prepared(folder, self._settings.imports, options, limits, progress) as ready,
            self._writing(name, source.type, progress, create_for=options.created_by) as (record, writer),
        ):
            numbers = self._shelf.numbers(record.id)
            if numbers and options.only_own:
                record.require_owner(options.created_by)
            newest = self._shelf.read(record.id, numbers[-1]) if numbers else None
            if newest is not None and newest.digest == ready.digest:
                return Imported(newest, created=False, done=ready.done)
            if not numbers:
                record.created_by = options.created_by
            return Imported(writer.commit(ready, source=source, options=options), created=True, done=ready.done)

    def mend(self, reference: str, *, options: ImportOptions = ImportOptions(), progress: Progress = quiet) -> Imported:
        """Make a mended copy of a version the newest one: `eagleray.datasets.fix` says what that does.

        Args:
            options: `task` and `format` are the version's, whatever they say.

        Raises:
            DatasetError: nothing of it can be mended.
        """
        with self.copy_of(reference, progress=progress) as (folder, version):
            note = options.note or f"{version}, mended"
            options = replace(options, task=version.task, format=version.format, mend=True, note=note)
            return self.import_folder(
                folder, name=version.name, options=options, source=version.source, progress=progress
            )

    @contextmanager
    def copy_of(self, reference: str, *, progress: Progress = quiet) -> Iterator[tuple[Path, DatasetVersion]]:
        """A version's files in a folder to read, gone at the end; they are those of this node's cache."""
        version = self.show(reference)
        cache = NodeCache(self._settings.cache, self._settings.cache_max_bytes)
        with temporary_folder(self._settings.imports) as temporary:
            yield self.fetch(version, cache, temporary / version.name), version

    def list(self) -> Sequence[DatasetRecord]:
        """Every dataset, by name, with the figures of its newest version."""
        return list(self._shelf.records())

    def find(self, dataset: str) -> DatasetRecord:
        """A dataset by name or id."""
        return self._shelf.find(dataset)

    def remains(self, dataset: str) -> DatasetRecord:
        """As `find`, also what a first import or a removal that broke off has left."""
        return self._shelf.remains(dataset)

    def show(self, reference: str) -> DatasetVersion:
        """The version that `reference` (`name`, `name@3`, an id, …) names; the newest where it names none."""
        return self._shelf.version(parse_reference(reference))

    def versions(self, dataset: str) -> Sequence[DatasetVersion]:
        """All versions of a dataset, newest first."""
        record = self._shelf.find(dataset)
        return [self._shelf.read(record.id, number) for number in reversed(self._shelf.numbers(record.id))]

    def count_versions(self, record: DatasetRecord) -> int:
        return len(self._shelf.numbers(record.id))

    def files(self, reference: str) -> dict[str, FileEntry]:
        """Identity of each file of a version, by its path in the dataset."""
        return read_files(self.store, self.show(reference))

    def locate(self, version: DatasetVersion) -> dict[str, tuple[str, FileEntry]]:
        """Key and identity of each file of a version, by its path. Right until the dataset's next change."""
        return self._shelf.locate(version)

    def compare(self, a: str, b: str) -> Comparison:
        """What differs in version `b`, seen from version `a`."""
        one, other = self.show(a), self.show(b)
        return compare_versions(one, read_files(self.store, one), other, read_files(self.store, other))

    def export(
        self,
        reference: str,
        into: Path,
        *,
        format: str | None = None,
        allow_loss: bool = False,
        progress: Progress = quiet,
    ) -> DatasetVersion:
        """Write a version into the folder `into`, absent or empty: all of its files, verified, or nothing.

        Args:
            format: write it in this format instead of its own.
            allow_loss: go on where that format cannot hold all.

        Raises:
            ConfigError: `into` holds something.
            DatasetError: something would be lost.
        """
        version = self.show(reference)
        require_free(into)
        if format in (None, version.format):
            fetch_version(self._shelf, version, into, progress)
            return version
        with self.copy_of(reference, progress=progress) as (folder, _):
            convert(
                folder,
                format or "",
                into,
                source_format=version.format,
                task=version.task,
                allow_loss=allow_loss,
                # The copy's files are the node cache's own.
                placing=Placing.OWN,
            )
        return version

    def delete(self, dataset: str, *, version: int | None = None, progress: Progress = quiet) -> None:
        """Delete one version of a dataset, or all of it. A job that used it keeps its record; its data is gone.

        Without `version` also what a first import or a removal that broke off has left.

        Raises:
            ConfigError: the version is the only one.
        """
        if version is None:
            remove_dataset(self._shelf, self._shelf.remains(dataset), progress)
            return
        found = self._shelf.find(dataset)
        with self._writing(found.name, found.source_type, progress) as (record, writer):
            numbers = self._shelf.numbers(record.id)
            if version not in numbers:
                raise UnknownNameError(
                    f"The dataset '{record.name}' has no version {version}.", f"It has {', '.join(map(str, numbers))}."
                )
            if numbers == [version]:
                raise ConfigError(
                    f"{record.name}@{version} is the only version.", f"Try: eagleray datasets delete {record.name}"
                )
            writer.remove_version(version)

    def resolve(
        self,
        text: str,
        *,
        options: ImportOptions = ImportOptions(),
        rules: SourceRules | None = None,
        progress: Progress = quiet,
    ) -> Path | DatasetVersion:
        """What a job means by `text`: a path where there is one, else a dataset's version.

        An address or a bucket's prefix is imported, under the name that is made of it; what was imported before with
        the same content is used again.

        Raises:
            UnknownNameError: it reads like a dataset's name, and there is neither such a dataset nor such a path.
        """
        if "://" in text:
            return self.import_dataset(text, options=options, rules=rules, progress=progress).version
        path = Path(text).expanduser()
        if path.exists() or not is_reference(text):
            return path
        try:
            return self.show(text)
        except UnknownNameError as error:
            raise UnknownNameError(f"{error.message} There is no folder '{text}' either.", error.hint) from None

    def fetch(self, version: DatasetVersion, cache: NodeCache, into: Path) -> Path:
        """The folder `into` (absent or empty) with the version's files, by way of this node's cache. Read-only.

        Raises:
            StorageError: a file is missing or damaged, or the disk is full.
        """
        materialise_version(self._shelf, version, cache, into)
        return into

    @contextmanager
    def _writing(
        self, name: str, source_type: SourceType, progress: Progress, *, create_for: str | None = None
    ) -> Iterator[tuple[DatasetRecord, DatasetWriter]]:
        """Hold a dataset alone, in the state that its last commit left.

        Args:
            create_for: who makes it where it is not there yet; None: nobody.
        """
        while True:
            dataset_id = self._reserve(name) if create_for is not None else self._shelf.find(name).id
            with lease_of(self.store, dataset_id, name, progress) as lease:
                record = self._shelf.record(dataset_id)
                if record is not None and record.deleted:
                    DatasetWriter(self._shelf, record, lease, progress).remove()
                elif self._shelf.id_of(name) == dataset_id:
                    record = record or self._new_record(dataset_id, name, source_type, create_for or "")
                    writer = DatasetWriter(self._shelf, record, lease, progress)
                    writer.recover()
                    yield record, writer
                    return
                lease.forget()

    def _reserve(self, name: str) -> str:
        while (dataset_id := self._shelf.id_of(name)) is None:
            content = json.dumps({"id": new_id(), "name": name}).encode()
            try:
                self.store.put_bytes(keys.name_key(name), content, if_absent=True)
            except AlreadyExistsError:
                continue
        return dataset_id

    def _new_record(self, dataset_id: str, name: str, source_type: SourceType, created_by: str) -> DatasetRecord:
        record = self._shelf.new_record(dataset_id, name, source_type=source_type, created_by=created_by)
        self.store.put_bytes(keys.record_key(dataset_id), record.model_dump_json(indent=1).encode())
        return record
