"""A version's files on this machine."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from eagleray.contract.errors import ConfigError, StorageError
from eagleray.registry.models import DatasetVersion
from eagleray.registry.progress import Progress
from eagleray.registry.shelf import Shelf
from eagleray.registry.threads import in_threads
from eagleray.storage.cache import NodeCache
from eagleray.storage.disk import DiskFullError, disk_errors
from eagleray.storage.store import FileEntry

# A change of the dataset moves bytes between two kinds of place, so a key may be gone by the time it is read.
TRIES = 3


def fetch_version(shelf: Shelf, version: DatasetVersion, into: Path, progress: Progress) -> None:
    """Make the folder `into` with the version's files, each verified; all of them or nothing.

    Raises:
        ConfigError: `into` is a file, or holds something.
        StorageError: a file is missing or damaged.
    """
    require_free(into)
    part = into.with_name(f".{into.name}-{secrets.token_hex(4)}")
    try:
        with disk_errors(f"fetch {version}", into.parent):
            part.mkdir(parents=True)
            _fetch_all(shelf, version, part, progress)
            part.replace(into)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def require_free(into: Path) -> None:
    """Raises ConfigError where `into` is a file, or holds something."""
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise ConfigError(f"{into} exists and is not an empty folder.", "Name a folder that is not there yet.")


def materialise_version(shelf: Shelf, version: DatasetVersion, cache: NodeCache, into: Path) -> None:
    """As `fetch_version`, by way of a node's cache: what it has is not fetched. The files are read-only."""
    for attempt in range(1, TRIES + 1):
        try:
            cache.materialise(shelf.store, shelf.locate(version), into)
            return
        except DiskFullError:
            raise
        except StorageError as error:
            if attempt == TRIES:
                raise StorageError(f"{version} cannot be fetched: {error.message}", error.hint) from error


def _fetch_all(shelf: Shelf, version: DatasetVersion, folder: Path, progress: Progress) -> None:
    wanted = shelf.locate(version)
    total = sum(entry.size_bytes for _, entry in wanted.values())
    done = 0
    for attempt in range(1, TRIES + 1):
        failed: dict[str, StorageError] = {}
        for path, fetched in in_threads(lambda item: _fetch(shelf, folder, *item), wanted.items()):
            if isinstance(fetched, StorageError):
                failed[path] = fetched
            else:
                done += fetched
                progress("fetching", done, total)
        if not failed:
            return
        if attempt == TRIES:
            path, error = next(iter(failed.items()))
            raise StorageError(f"{path} of {version} cannot be fetched: {error.message}", error.hint) from error
        wanted = {path: place for path, place in shelf.locate(version).items() if path in failed}


def _fetch(shelf: Shelf, folder: Path, path: str, place: tuple[str, FileEntry]) -> tuple[str, int | StorageError]:
    key, entry = place
    try:
        shelf.store.fetch_file(key, folder / path, sha256=entry.sha256)
    except StorageError as error:
        return path, error
    return path, entry.size_bytes
