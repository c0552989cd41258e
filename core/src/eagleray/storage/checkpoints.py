"""Checkpoints of one job. One exists when its manifest does; the manifest is written last and deleted first."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eagleray.contract.errors import CheckpointError, StorageError
from eagleray.storage import layout
from eagleray.storage.disk import disk_errors
from eagleray.storage.failpoints import failpoint
from eagleray.storage.store import (
    AlreadyExistsError,
    FileEntry,
    NotFoundError,
    Store,
    StoreUnreachableError,
    check_key,
    file_entry,
)


class Manifest(BaseModel):
    """What one checkpoint holds.

    Attributes:
        epoch: the last finished epoch, 1-based.
        files: identity of each file, by its path in the checkpoint's folder.
        portable_file: the one of them that becomes `last.pt` and `best.pt`.
        best: whether it was the best so far when it was written.
        best_value: the task's metric at `best_epoch`; None before there is one.
        recent: metrics of the last epochs, by epoch: a driver that dies may not have recorded them all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    job_id: int = Field(ge=1)
    attempt: int = Field(ge=1)
    epoch: int = Field(ge=0)
    metrics: dict[str, float]
    files: dict[str, FileEntry]
    portable_file: str
    best: bool
    best_value: float | None = None
    best_epoch: int | None = None
    recent: dict[int, dict[str, float]] = Field(default_factory=dict)
    created_at: datetime

    @model_validator(mode="after")
    def _check_files(self) -> Manifest:
        for name in self.files:
            try:
                check_key(name)
            except StorageError as error:
                raise ValueError(error.message) from error
        if self.portable_file not in self.files:
            raise ValueError(f"portable_file '{self.portable_file}' is not one of the files")
        return self

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.files.values())


class Checkpoints:
    """The checkpoints below `prefix`, a job's folder in `store`."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.store = store
        self.prefix = prefix

    def commit(
        self,
        folder: Path,
        *,
        job_id: int,
        attempt: int,
        epoch: int,
        metrics: Mapping[str, float],
        portable_file: str,
        is_best: bool,
        best_value: float | None,
        best_epoch: int | None,
        recent: Mapping[int, Mapping[str, float]] | None = None,
    ) -> Manifest:
        """Store all files of `folder`, then the manifest; then publish and prune. The same commit again is fine.

        Raises:
            CheckpointError: the folder lacks `portable_file` or holds a `manifest.json`, or another checkpoint of this
                attempt and epoch is committed.
            StorageError: the store refused; what was committed before is intact.
        """
        with disk_errors("commit a checkpoint", folder):
            paths = _files(folder, portable_file)
            old = self._read(attempt, epoch)
            # Compare before writing: the files of a committed checkpoint are never written over.
            files = (
                {name: file_entry(path) for name, path in paths.items()} if old else self._put(paths, attempt, epoch)
            )
            manifest = Manifest(
                job_id=job_id,
                attempt=attempt,
                epoch=epoch,
                metrics=dict(metrics),
                files=files,
                portable_file=portable_file,
                best=is_best,
                best_value=best_value,
                best_epoch=best_epoch,
                recent={number: dict(row) for number, row in (recent or {}).items()},
                created_at=datetime.now(UTC),
            )
            failpoint("ckpt.before_manifest")
            manifest = self._put_manifest(manifest)
            failpoint("ckpt.after_manifest")
        found = self.all()
        self._publish(manifest, found)
        self._prune(found)
        return manifest

    def all(self) -> list[Manifest]:
        """Every committed checkpoint with a readable manifest, newest first: by epoch, then attempt."""
        found = []
        for attempt, epoch in self._folders():
            with _passing_over(lambda error: None):
                manifest = self._read(attempt, epoch)
                if manifest:
                    found.append(manifest)
        return found

    def any_committed(self) -> bool:
        """Whether there is a manifest at all, readable or not."""
        keys = (info.key for info in self.store.list(layout.attempts_prefix(self.prefix)))
        return any(key.endswith(f"/{layout.MANIFEST}") for key in keys)

    def newest_valid(self, say: Callable[[str], None]) -> Manifest | None:
        """The newest checkpoint whose every file has its manifest's sha256; `say` is told of each passed over.

        Raises:
            StoreUnreachableError: what cannot be reached now is not damaged.
        """
        for attempt, epoch in self._folders():
            where = f"epoch {epoch} (attempt {attempt})"
            with _passing_over(lambda error: say(f"The checkpoint of {where} is not used: {error.message}")):  # noqa: B023 - called at once
                manifest = self._read(attempt, epoch)
                if manifest is None:
                    say(f"The checkpoint of {where} was never completed (it has no manifest) and is not used.")
                    continue
                self._verify(manifest)
                return manifest
        return None

    def fetch(self, manifest: Manifest, into: Path) -> None:
        """Make the folder `into` (absent or empty) with the checkpoint's files, each verified; all of them or nothing.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        prefix = self._checkpoint(manifest)
        part = into.with_name(f".{into.name}-{secrets.token_hex(4)}")
        try:
            with disk_errors(f"fetch the checkpoint of epoch {manifest.epoch}", into.parent):
                part.mkdir(parents=True)
                self.store.fetch_many(
                    {name: (f"{prefix}/{name}", entry) for name, entry in manifest.files.items()}, part
                )
                part.replace(into)
        except StoreUnreachableError:
            raise
        except StorageError as error:
            raise CheckpointError(error.message, error.hint) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def publish(self, manifest: Manifest) -> None:
        """Copy the portable file to `last.pt` and, if it is the best, `best.pt`, unless a later one has been there."""
        self._publish(manifest, self.all())

    def republish(self) -> None:
        """Make up for a writer that was killed between a manifest and its `last.pt` or `best.pt`.

        One that is younger than the manifest stays: the framework may have put a stripped one there.
        """
        found = sorted(self.all(), key=_age, reverse=True)
        written = {info.key: info.modified_at for info in self.store.list(self.prefix)} if found else {}
        for manifests, key in (
            (found, layout.last_key(self.prefix)),
            ([one for one in found if one.best], layout.best_key(self.prefix)),
        ):
            for manifest in manifests[:1]:
                if written.get(key, 0.0) < manifest.created_at.timestamp():
                    self.store.copy(f"{self._checkpoint(manifest)}/{manifest.portable_file}", key)

    def _publish(self, manifest: Manifest, found: Sequence[Manifest]) -> None:
        later = [other for other in found if _age(other) > _age(manifest)]
        source = f"{self._checkpoint(manifest)}/{manifest.portable_file}"
        if not later:
            self.store.copy(source, layout.last_key(self.prefix))
        if manifest.best and not any(other.best for other in later):
            self.store.copy(source, layout.best_key(self.prefix))

    def prune(self, keep: int = 2) -> None:
        """Delete all but the newest `keep` and the best one.

        After a fall-back the later attempt starts at an earlier epoch, so the newest by attempt stay as well.
        """
        self._prune(self.all(), keep)

    def _prune(self, manifests: Sequence[Manifest], keep: int = 2) -> None:
        by_age = sorted(manifests, key=_age, reverse=True)
        best = [manifest for manifest in by_age if manifest.best][:1]
        kept = {_age(manifest) for manifest in [*manifests[:keep], *by_age[:keep], *best]}
        for manifest in manifests:
            if _age(manifest) not in kept:
                self._delete(manifest.attempt, manifest.epoch)

    def sweep(self, attempt: int) -> None:
        """Delete what attempts before `attempt` left without a manifest."""
        for old, epoch in self._folders():
            key = layout.manifest_key(self.prefix, old, epoch)
            if old < attempt and not self.store.exists(key):
                self._delete(old, epoch)

    def _checkpoint(self, manifest: Manifest) -> str:
        return layout.checkpoint_prefix(self.prefix, manifest.attempt, manifest.epoch)

    def _folders(self) -> list[tuple[int, int]]:
        return sorted(self._find(), key=lambda found: (found[1], found[0]), reverse=True)

    def _find(self) -> set[tuple[int, int]]:
        # One listing: in a bucket every question costs a round trip.
        keys = (info.key for info in self.store.list(layout.attempts_prefix(self.prefix)))
        start = len(layout.attempts_prefix(self.prefix)) + 1
        found = (re.match(r"([1-9]\d*)/epoch-(\d{5,})/", key[start:]) for key in keys)
        return {(int(number[1]), int(number[2])) for number in found if number}

    def _read(self, attempt: int, epoch: int) -> Manifest | None:
        try:
            data = self.store.get_bytes(layout.manifest_key(self.prefix, attempt, epoch))
        except NotFoundError:
            return None
        what = f"the manifest of epoch {epoch} (attempt {attempt})"
        try:
            manifest = Manifest.model_validate_json(data)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise CheckpointError(f"{what} cannot be read ({reason}).") from error
        if (manifest.attempt, manifest.epoch) != (attempt, epoch):
            raise CheckpointError(f"{what} is that of epoch {manifest.epoch} (attempt {manifest.attempt}).")
        return manifest

    def _verify(self, manifest: Manifest) -> None:
        prefix = self._checkpoint(manifest)
        for name, entry in manifest.files.items():
            try:
                found = self.store.digest(f"{prefix}/{name}")
            except NotFoundError:
                raise CheckpointError(f"its file {name} is missing.") from None
            except StoreUnreachableError:
                raise
            except StorageError as error:
                raise CheckpointError(f"its file {name} cannot be read: {error.message}", error.hint) from error
            if found.size_bytes != entry.size_bytes:
                raise CheckpointError(f"its file {name} has {found.size_bytes} of {entry.size_bytes} bytes.")
            if found != entry:
                raise CheckpointError(f"its file {name} is damaged (its sha256 is not the manifest's).")

    def _put(self, paths: Mapping[str, Path], attempt: int, epoch: int) -> dict[str, FileEntry]:
        prefix = layout.checkpoint_prefix(self.prefix, attempt, epoch)
        files = {}
        for name, path in paths.items():
            files[name] = self.store.put_file(f"{prefix}/{name}", path)
            failpoint("ckpt.after_file")
        return files

    def _put_manifest(self, manifest: Manifest) -> Manifest:
        key = layout.manifest_key(self.prefix, manifest.attempt, manifest.epoch)
        try:
            self.store.put_bytes(key, manifest.model_dump_json(indent=1).encode(), if_absent=True)
        except AlreadyExistsError:
            old = self._read(manifest.attempt, manifest.epoch)
            if old is None or not _same(old, manifest):
                raise CheckpointError(
                    f"Another checkpoint of epoch {manifest.epoch}, attempt {manifest.attempt} is at '{key}'.",
                    "Two runs of one attempt are writing; end one of them.",
                ) from None
            return old
        return manifest

    def _delete(self, attempt: int, epoch: int) -> None:
        # The manifest first, so that a half-deleted checkpoint is none.
        self.store.delete(layout.manifest_key(self.prefix, attempt, epoch))
        self.store.delete_prefix(layout.checkpoint_prefix(self.prefix, attempt, epoch))


@contextmanager
def _passing_over(tell: Callable[[StorageError], None]) -> Iterator[None]:
    """Go on after a checkpoint that cannot be read; an outage is another matter and goes through."""
    try:
        yield
    except StoreUnreachableError:
        raise
    except StorageError as error:
        tell(error)


def _age(manifest: Manifest) -> tuple[int, int]:
    """Order in which checkpoints come to be: a later attempt replaces what an earlier one went on to."""
    return manifest.attempt, manifest.epoch


def _same(one: Manifest, other: Manifest) -> bool:
    """Whether they differ only in when they were written. As JSON, where NaN equals NaN."""
    return one.model_dump_json(exclude={"created_at"}) == other.model_dump_json(exclude={"created_at"})


def _files(folder: Path, portable_file: str) -> dict[str, Path]:
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    if portable_file not in paths:
        raise CheckpointError(
            f"The checkpoint in {folder} has no '{portable_file}'.",
            f"It holds: {', '.join(sorted(paths)[:20]) or 'nothing'}. save_checkpoint must write the portable file.",
        )
    if layout.MANIFEST in paths:
        raise CheckpointError(
            f"The checkpoint in {folder} holds a '{layout.MANIFEST}'.", "That name is the store's own."
        )
    return paths
