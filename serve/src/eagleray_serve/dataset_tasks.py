"""Reports, previews and copies of stored versions: made in the background, kept for a while, fetched once done.

A version never changes, so the same wish has one id, and is done once. Deletions are tasks, too, which make nothing.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, wait
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field

from eagleray.contract.errors import UnknownNameError
from eagleray.datasets import Edit, convert, preview, validate
from eagleray.registry import DatasetRecord, DatasetRegistry, DatasetVersion, Progress
from eagleray.registry.sources.temporary import temporary_folder
from eagleray.settings import Settings
from eagleray.storage.store import AlreadyExistsError
from eagleray_serve.background import Background, WorkState, WorkView

TASKS = "dataset_tasks"
RESULTS = "dataset_results"
PATH = "/api/v1/dataset-tasks"
# So many at a time; the others wait.
THREADS = 2
# A deletion that is done by then is answered as done.
PATIENCE_S = 5.0
# A copy in another format is as large as the dataset.
KEEP = timedelta(days=1)
# Makes the result: from the version's folder into a new file.
Make = Callable[["TaskView", Path, Path, Progress], None]


class TaskKind(StrEnum):
    VALIDATION = "validation"
    PREVIEW = "preview"
    CONVERSION = "conversion"
    DELETION = "deletion"

    @property
    def suffix(self) -> str:
        """Of the file that it makes; empty: it makes none."""
        return {"validation": "json", "preview": "png", "conversion": "zip"}.get(self.value, "")


class TaskView(WorkView):
    """How far a task is.

    Attributes:
        version: None: all versions.
        lost: what of the dataset the copy cannot hold, as sentences.
        links: `result` is there once it is done.
    """

    kind: TaskKind
    dataset: str
    version: int | None
    lost: list[str] = Field(default_factory=list)

    @property
    def filename(self) -> str:
        return f"{self.dataset}-{self.version}-{self.kind.value}.{self.kind.suffix}"


class DatasetTasks:
    """The tasks of a store, and those that this replica runs."""

    def __init__(self, registry: DatasetRegistry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings
        self._work = Background(registry.store, TASKS, threads=THREADS)
        # Of their own, so that what is quick does not wait behind what is slow.
        self._deletions = Background(registry.store, TASKS, threads=THREADS)

    def validate(self, version: DatasetVersion, caller: str, *, task: str | None, pictures: bool) -> TaskView:
        """All that is odd about a version, file by file and row by row, as JSON."""

        def make(view: TaskView, folder: Path, result: Path, progress: Progress) -> None:
            progress("validating", 0, None)
            report = validate(folder, task or version.task, version.format, decode=pictures)
            result.write_text(json.dumps(report.model_dump(mode="json") | {"path": str(version)}), encoding="utf-8")

        return self._start(TaskKind.VALIDATION, version, caller, {"task": task, "pictures": pictures}, make)

    def preview(self, version: DatasetVersion, caller: str, *, images: int, seed: int) -> TaskView:
        """A contact sheet, as PNG."""

        def make(view: TaskView, folder: Path, result: Path, progress: Progress) -> None:
            progress("drawing", 0, None)
            preview(folder, result, task=version.task, format=version.format, images=images, seed=seed)

        return self._start(TaskKind.PREVIEW, version, caller, {"images": images, "seed": seed}, make)

    def convert(
        self,
        version: DatasetVersion,
        caller: str,
        *,
        format: str,
        task: str | None,
        edit: Edit | None,
        allow_loss: bool,
    ) -> TaskView:
        """A copy in another format, as a zip archive."""

        def make(view: TaskView, folder: Path, result: Path, progress: Progress) -> None:
            progress("converting", 0, None)
            copy = result.with_name("copy")
            report = convert(
                folder,
                format,
                copy,
                source_format=version.format,
                task=task or version.task,
                edit=edit,
                allow_loss=allow_loss,
            )
            view.lost = list(report.lost)
            progress("packing", 0, None)
            _pack(copy, result)

        wish = {"format": format, "task": task, "edit": repr(edit), "allow_loss": allow_loss}
        return self._start(TaskKind.CONVERSION, version, caller, wish, make)

    def delete(
        self, dataset: DatasetRecord, number: int | None, caller: str, then: Callable[[], None]
    ) -> TaskView | None:
        """Delete one version of a dataset, or all of it; None: that is done.

        Args:
            then: called once it is done.

        Raises:
            EaglerayError: it failed, as `DatasetRegistry.delete` says.
        """

        def do(view: TaskView, progress: Progress) -> None:
            progress("deleting", 0, None)
            self._registry.delete(dataset.id, version=number, progress=progress)
            then()

        view = _view(TaskKind.DELETION, dataset.name, number, caller, [dataset.id, number])
        # Of what was deleted before, the registry knows best.
        running = _begin(self._deletions, view, do, is_over=lambda known: known.state.is_terminal)
        if running is None or not wait([running], PATIENCE_S).done:
            return self.show(view.id)
        if error := running.result():
            raise error
        return None

    def show(self, task_id: str) -> TaskView:
        """Raises UnknownNameError."""
        view = self._work.show(task_id, TaskView)
        if view is None:
            raise UnknownNameError(f"There is no task '{task_id}'.", "It may be too old: ask for it anew.")
        view.links = {"self": f"{PATH}/{view.id}"}
        if view.state is WorkState.DONE and view.kind.suffix:
            view.links["result"] = f"{PATH}/{view.id}/result"
        return view

    def result_of(self, task_id: str) -> tuple[TaskView, str]:
        """The task, and the key of what it made. Raises UnknownNameError."""
        view = self.show(task_id)
        if view.state is not WorkState.DONE or not self._registry.store.exists(_result_key(task_id)):
            raise UnknownNameError(f"The task '{task_id}' has no result.", "Its state says why, or that it runs still.")
        return view, _result_key(task_id)

    def sweep(self) -> None:
        """Remove results, and states, that are old."""
        for task_id in self._work.sweep(TaskView, KEEP):
            self._registry.store.delete(_result_key(task_id))

    def _start(
        self, kind: TaskKind, version: DatasetVersion, caller: str, wish: dict[str, Any], make: Make
    ) -> TaskView:
        identity = [version.dataset_id, str(version), version.digest, wish]
        view = _view(kind, version.name, version.number, caller, identity)

        def do(view: TaskView, progress: Progress) -> None:
            with (
                self._registry.copy_of(f"{version.dataset_id}@{version.number}", progress=progress) as (folder, _),
                temporary_folder(self._settings.imports) as temporary,
            ):
                result = temporary / f"result.{kind.suffix}"
                make(view, folder, result, progress)
                progress("storing", 0, result.stat().st_size)
                self._registry.store.put_file(_result_key(view.id), result)

        _begin(self._work, view, do, is_over=self._is_to_do_again)
        return self.show(view.id)

    def _is_to_do_again(self, known: TaskView) -> bool:
        if known.state is WorkState.DONE:
            return not self._registry.store.exists(_result_key(known.id))
        return known.state.is_terminal


def _view(kind: TaskKind, dataset: str, version: int | None, caller: str, identity: list[Any]) -> TaskView:
    """A task that has not begun; one with the same `identity` is the same one."""
    now = datetime.now(UTC)
    return TaskView(
        id=hashlib.sha256(json.dumps([kind, *identity], sort_keys=True).encode()).hexdigest()[:32],
        kind=kind,
        dataset=dataset,
        version=version,
        created_by=caller,
        created_at=now,
        updated_at=now,
    )


def _begin(
    work: Background, view: TaskView, do: Callable[[TaskView, Progress], None], *, is_over: Callable[[TaskView], bool]
) -> Future[Exception | None] | None:
    """As `Background.begin`, unless the task has been begun by any replica and is not over."""
    try:
        return work.begin(view, do)
    except AlreadyExistsError:
        known = work.show(view.id, TaskView)
        return work.begin(view, do, again=True) if known is None or is_over(known) else None


def _pack(folder: Path, into: Path) -> None:
    """Pictures are packed already, so nothing is compressed."""
    with zipfile.ZipFile(into, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())


def _result_key(task_id: str) -> str:
    return f"{RESULTS}/{task_id}"
