"""Imports of datasets: each runs in a thread of the replica that took it, and says in the store how far it is."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from eagleray.contract.errors import EaglerayError, StorageError, UnknownNameError
from eagleray.control.errors import ConflictError
from eagleray.registry import DatasetRegistry, Imported, ImportOptions, Progress
from eagleray.registry.names import check_name
from eagleray.registry.sources.opening import name_from
from eagleray.registry.sources.temporary import temporary_folder
from eagleray.registry.uploads import Upload, Uploads
from eagleray.settings import Settings
from eagleray.storage.store import AlreadyExistsError, NotFoundError, Store

logger = logging.getLogger(__name__)
IMPORTS = "dataset_imports"
# So many at a time; the others wait.
THREADS = 2
SAVE_S = 1.5
# A replica that runs an import writes its state at least so often, unless it has died.
SILENCE = timedelta(minutes=5)
# What an import came to is told for so long.
KEEP = timedelta(days=30)
SWEEP_S = 24 * 3600.0


class ImportState(StrEnum):
    """`lost`: the replica that ran it has ended; the same request again starts over and stores nothing twice."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"

    @property
    def is_terminal(self) -> bool:
        return self in (ImportState.DONE, ImportState.FAILED, ImportState.LOST)


class ImportView(BaseModel):
    """How far an import is.

    Attributes:
        stage: what is being done, `downloading` for example; `done` of `total` (null: unknown) bytes or files of it.
        created: whether there is a new version; false: the newest one had the same content.
        mended: what was mended, as sentences.
        error: code, message and hint, where it has failed.
    """

    id: str
    name: str
    created_by: str
    state: ImportState = ImportState.WAITING
    stage: str = ""
    done: int = 0
    total: int | None = None
    version: int | None = None
    created: bool | None = None
    mended: list[str] = Field(default_factory=list)
    error: dict[str, str] | None = None
    digest: str = Field(default="", exclude=True)
    created_at: datetime
    updated_at: datetime
    links: dict[str, str] = Field(default_factory=dict)


class DatasetWork:
    """The datasets of a store, and the imports that this replica runs."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self.registry = DatasetRegistry(store, settings)
        self.uploads = Uploads(store)
        self.rules = self.registry.source_rules(for_others=True)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="eagleray-import")
        self._swept = -SWEEP_S

    def announce(self, size_bytes: int, sha256: str, filename: str) -> Upload:
        """Begin an upload; once a day, old ones go. Raises ConfigError."""
        if time.monotonic() - self._swept > SWEEP_S:
            self._swept = time.monotonic()
            self._threads.submit(self._sweep)
        return self.uploads.create(size_bytes, sha256, filename=filename)

    def _sweep(self) -> None:
        self.uploads.sweep()
        for info in self._store.list(IMPORTS):
            import_id = info.key.rpartition("/")[2].removesuffix(".json")
            with suppress(UnknownNameError):
                if datetime.now(UTC) - self.show(import_id).updated_at > KEEP:
                    self._store.delete(info.key)

    def start(
        self, wanted: Mapping[str, Any], options: ImportOptions, *, idempotency_key: str | None = None
    ) -> ImportView:
        """Begin an import; with the same key and the same wish, the one that was begun then.

        Args:
            wanted: `name`, and `source` or `upload_id`.

        Raises:
            ConfigError: the name cannot be one.
            ConflictError: the key was used for another wish.
            UnknownNameError: there is no such upload.
        """
        name = check_name(wanted["name"] or name_from(wanted["source"] or ""))
        if wanted["upload_id"]:
            self.uploads.show(wanted["upload_id"])
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
        try:
            self._save(view, if_absent=True)
        except AlreadyExistsError:
            known = self.show(view.id)
            if known.digest != digest:
                raise ConflictError("This Idempotency-Key was used for another import.", "Use a new one.") from None
            if known.state is not ImportState.LOST:
                return known
            self._save(view)
        self._threads.submit(self._run, view, dict(wanted), options)
        return view

    def show(self, import_id: str) -> ImportView:
        """Raises UnknownNameError."""
        try:
            content = json.loads(self._store.get_bytes(_key(import_id)))
            view = ImportView.model_validate(content)
        except (NotFoundError, ValidationError, ValueError):
            raise unknown_import(import_id) from None
        if not view.state.is_terminal and datetime.now(UTC) - view.updated_at > SILENCE:
            view.state = ImportState.LOST
        view.links = {"self": f"/api/v1/datasets/imports/{view.id}"}
        if view.state is ImportState.DONE:
            view.links["dataset"] = f"/api/v1/datasets/{view.name}/versions/{view.version}"
        return view

    def _run(self, view: ImportView, wanted: dict[str, Any], options: ImportOptions) -> None:
        view.state = ImportState.RUNNING
        alive = threading.Event()
        beat = threading.Thread(target=self._keep_alive, args=(view, alive), daemon=True)
        beat.start()
        try:
            imported = self._import(view, wanted, options)
            view.state, view.version, view.created = ImportState.DONE, imported.version.number, imported.created
            view.mended = list(imported.done)
        except EaglerayError as error:
            view.state = ImportState.FAILED
            view.error = {"code": error.code, "message": error.message, "hint": error.hint}
        except Exception:
            logger.exception("import %s failed", view.id)
            view.state = ImportState.FAILED
            view.error = {"code": "internal", "message": "Something unexpected went wrong.", "hint": "Try again."}
        finally:
            alive.set()
            beat.join()
            self._save_quietly(view)

    def _import(self, view: ImportView, wanted: dict[str, Any], options: ImportOptions) -> Imported:
        progress = self._progress_of(view)
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

    def _progress_of(self, view: ImportView) -> Progress:
        saved = time.monotonic()

        def progress(stage: str, done: int, total: int | None) -> None:
            nonlocal saved
            changed = stage != view.stage
            view.stage, view.done, view.total = stage, done, total
            if changed or time.monotonic() - saved > SAVE_S:
                saved = time.monotonic()
                self._save_quietly(view)

        return progress

    def _keep_alive(self, view: ImportView, over: threading.Event) -> None:
        while not over.wait(SILENCE.total_seconds() / 4):
            self._save_quietly(view)

    def _save_quietly(self, view: ImportView) -> None:
        try:
            self._save(view)
        except StorageError as error:
            logger.warning("import %s: its state was not stored: %s", view.id, error)

    def _save(self, view: ImportView, *, if_absent: bool = False) -> None:
        view.updated_at = datetime.now(UTC)
        content = {**view.model_dump(mode="json"), "digest": view.digest}
        self._store.put_bytes(_key(view.id), json.dumps(content).encode(), if_absent=if_absent)


def unknown_import(import_id: str) -> UnknownNameError:
    return UnknownNameError(f"There is no import '{import_id}'.", "It may be too old.")


def _key(import_id: str) -> str:
    return f"{IMPORTS}/{import_id}.json"
