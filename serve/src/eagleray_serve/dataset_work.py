"""Imports of datasets, and the mending of stored ones: each makes a version, in the background."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import Field

from eagleray.contract.errors import EaglerayError, UnknownNameError
from eagleray.control.commands import Commands
from eagleray.control.errors import ConflictError
from eagleray.control.queries import Queries
from eagleray.registry import DatasetRecord, DatasetRegistry, Imported, ImportOptions, Progress
from eagleray.registry.names import check_name
from eagleray.registry.sources.opening import name_from
from eagleray.registry.sources.temporary import temporary_folder
from eagleray.registry.uploads import Upload, Uploads
from eagleray.settings import Settings
from eagleray.storage.store import AlreadyExistsError, Store
from eagleray_serve.background import Background, WorkState, WorkView
from eagleray_serve.dataset_tasks import DatasetTasks, TaskView

logger = logging.getLogger(__name__)
IMPORTS = "dataset_imports"
# So many at a time; the others wait.
THREADS = 2
# What an import came to is told for so long.
KEEP = timedelta(days=30)
SWEEP_S = 24 * 3600.0


class ImportView(WorkView):
    """How far an import is.

    Attributes:
        created: whether there is a new version; false: the newest one had the same content.
        mended: what was mended, as sentences.
    """

    name: str
    version: int | None = None
    created: bool | None = None
    mended: list[str] = Field(default_factory=list)
    digest: str = Field(default="", exclude=True)

    def hidden(self) -> dict[str, str]:
        return {"digest": self.digest}


class DatasetWork:
    """The datasets of a store, and the work on them that this replica runs."""

    def __init__(self, store: Store, settings: Settings, commands: Commands, queries: Queries) -> None:
        self._settings = settings
        self._commands = commands
        self._queries = queries
        self.registry = DatasetRegistry(store, settings)
        self.uploads = Uploads(store)
        self.tasks = DatasetTasks(self.registry, settings)
        self.rules = self.registry.source_rules(for_others=True)
        self._imports = Background(store, IMPORTS, threads=THREADS)
        self._sweeper = ThreadPoolExecutor(1, thread_name_prefix="eagleray-dataset-sweep")
        self._swept = -SWEEP_S

    def announce(self, size_bytes: int, sha256: str, filename: str) -> Upload:
        """Begin an upload. Raises ConfigError."""
        self.sweep_daily()
        return self.uploads.create(size_bytes, sha256, filename=filename)

    def sweep_daily(self) -> None:
        """Once a day, what is old goes."""
        if time.monotonic() - self._swept > SWEEP_S:
            self._swept = time.monotonic()
            self._sweeper.submit(self._sweep)

    def _sweep(self) -> None:
        self.uploads.sweep()
        self._imports.sweep(ImportView, KEEP)
        self.tasks.sweep()
        # What was imported or deleted without this server, or while the control plane was away.
        before = self._queries.dataset_ids()
        self._tell({**dict.fromkeys(before), **{record.id: _facts(record) for record in self.registry.list()}})

    def delete(self, record: DatasetRecord, number: int | None, caller: str) -> TaskView | None:
        """As `DatasetTasks.delete`."""
        return self.tasks.delete(record, number, caller, lambda: self._index(record.id))

    def _index(self, dataset_id: str) -> None:
        """Have the database's table say what the store says now."""
        try:
            self._tell({dataset_id: _facts(self.registry.find(dataset_id))})
        except UnknownNameError:
            self._tell({dataset_id: None})

    def _tell(self, found: dict[str, dict[str, Any] | None]) -> None:
        try:
            self._commands.index_datasets(found)
        except EaglerayError as error:
            # The store is the truth; the next sweep tells it again.
            logger.warning("the table of datasets was not written: %s", error)

    def start(
        self, wanted: Mapping[str, Any], options: ImportOptions, *, idempotency_key: str | None = None
    ) -> ImportView:
        """Begin an import; with the same key and the same wish, the one that was begun then.

        Args:
            wanted: `name`, and `source` or `upload_id`; or only `mends`, a version that shall be mended.

        Raises:
            ConfigError: the name cannot be one.
            ConflictError: the key was used for another wish.
            UnknownNameError: there is no such upload, or no such version.
        """
        self.sweep_daily()
        name = self._name_of(wanted)
        wish = json.dumps({**wanted, "name": name, "options": repr(options)}, sort_keys=True)
        digest = hashlib.sha256(wish.encode()).hexdigest()
        key = f"{options.created_by}\0{idempotency_key}" if idempotency_key else secrets.token_hex(16)
        now = datetime.now(UTC)
        view = ImportView(
            id=hashlib.sha256(key.encode()).hexdigest()[:32],
            name=name,
            created_by=options.created_by,
            digest=digest,
            created_at=now,
            updated_at=now,
        )

        def do(view: ImportView, progress: Progress) -> None:
            imported = self._import(view, wanted, options, progress)
            self._index(imported.version.dataset_id)
            view.version, view.created = imported.version.number, imported.created
            view.mended = list(imported.done)

        try:
            self._imports.begin(view, do)
        except AlreadyExistsError:
            known = self.show(view.id)
            if known.digest == digest and known.state is WorkState.LOST:
                self._imports.begin(view, do, again=True)
        known = self.show(view.id)
        if known.digest != digest:
            raise ConflictError("This Idempotency-Key was used for another import.", "Use a new one.")
        return known

    def show(self, import_id: str) -> ImportView:
        """Raises UnknownNameError."""
        view = self._imports.show(import_id, ImportView)
        if view is None:
            raise unknown_import(import_id)
        view.links = {"self": f"/api/v1/datasets/imports/{view.id}"}
        if view.state is WorkState.DONE:
            view.links["dataset"] = f"/api/v1/datasets/{view.name}/versions/{view.version}"
        return view

    def _name_of(self, wanted: Mapping[str, Any]) -> str:
        if wanted.get("mends"):
            return self.registry.show(wanted["mends"]).name
        name = check_name(wanted["name"] or name_from(wanted["source"] or ""))
        if wanted["upload_id"]:
            self.uploads.show(wanted["upload_id"])
        return name

    def _import(
        self, view: ImportView, wanted: Mapping[str, Any], options: ImportOptions, progress: Progress
    ) -> Imported:
        if wanted.get("mends"):
            return self.registry.mend(wanted["mends"], options=options, progress=progress)
        if not wanted["upload_id"]:
            return self.registry.import_dataset(
                wanted["source"], name=view.name, options=options, rules=self.rules, progress=progress
            )
        with temporary_folder(self._settings.imports) as temporary:
            archive = temporary / "archive"
            upload = self.uploads.finish(wanted["upload_id"], archive)
            imported = self.registry.import_upload(
                archive, name=view.name, filename=upload.filename, options=options, progress=progress
            )
        self.uploads.delete(upload.id)
        return imported


def _facts(record: DatasetRecord) -> dict[str, Any]:
    return record.model_dump(mode="json") | {"version": record.layout}


def unknown_import(import_id: str) -> UnknownNameError:
    return UnknownNameError(f"There is no import '{import_id}'.", "It may be too old.")
