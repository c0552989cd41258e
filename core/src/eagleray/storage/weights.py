"""Pretrained weights in the store: one file, or a folder of several.

A file `{name}.pt` alone is whole, since every put is; a person may have placed it. `{name}.pt.sha256`, written after
it, guards it from then on. So each half of the pair that a crash can leave is one of: nothing, a whole file.

A folder `{name}/` is there when its `manifest.json` is, which is written last and names each file with its sha256.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from eagleray.contract.errors import StorageError, WeightsError
from eagleray.storage.cache import NodeCache
from eagleray.storage.disk import disk_errors
from eagleray.storage.layout import MANIFEST, weights_key
from eagleray.storage.store import AlreadyExistsError, FileEntry, NotFoundError, Store, check_key, file_entry


class WeightsManifest(BaseModel):
    """The files of weights that are a folder, by their path in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: dict[str, FileEntry]

    @field_validator("files")
    @classmethod
    def _check(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            try:
                check_key(name)
            except StorageError as error:
                raise ValueError(error.message) from error
        return files


def find_weights(store: Store, framework: str, name: str) -> str | None:
    """The key of the weights' file or folder, None where the store has none.

    What can be known without reading them is checked, and in a folder of this machine they are read.

    Raises:
        WeightsError: the file and its `.sha256` do not match, or the folder's manifest cannot be read.
    """
    key = weights_key(framework, name)
    try:
        known = store.identify(key)
    except NotFoundError:
        folder = _folder_key(framework, name)
        return folder if _manifest(store, folder) is not None else None
    if known.sha256 is None and (expected := _expected(store, key)) is not None and store.local_path(key):
        _compare(store, key, store.digest(key).sha256, expected)
    return key


def fetch_weights(store: Store, framework: str, name: str, into: Path, cache: NodeCache) -> Path | None:
    """The weights as a file `{into}/{name}.pt` or a folder `{into}/{name}` of the caller's own; None: there are none.

    From a bucket they come through the node's cache, so once for all jobs.

    Raises:
        WeightsError: they are damaged.
    """
    key = find_weights(store, framework, name)
    if key is None:
        return None
    target = into / (f"{name}.pt" if key.endswith(".pt") else name)
    with disk_errors(f"fetch the weights {name}", into):
        target.parent.mkdir(parents=True, exist_ok=True)
        if not key.endswith(".pt"):
            manifest = _manifest(store, key)
            assert manifest is not None
            _fetch_folder(store, key, manifest, target, cache)
        elif store.local_path(key) is not None:
            store.fetch_file(key, target, sha256=_expected(store, key))
        else:
            shutil.copyfile(_cached(store, key, cache), target)
    return target


def keep_weights(store: Store, framework: str, name: str, path: Path) -> str:
    """Put the weights `path`, a file or a folder, into the store and return their key. The same bytes again are fine.

    Raises:
        WeightsError: other weights of that name are kept.
    """
    if path.is_dir():
        return _keep_folder(store, framework, name, path)
    key = weights_key(framework, name)
    if not store.exists(key):
        # Left over from weights that someone deleted; it would condemn the new ones.
        store.delete(_sidecar(key))
    try:
        entry = store.put_file(key, path, if_absent=True)
    except AlreadyExistsError:
        with disk_errors(f"read {path.name}", path.parent):
            entry = file_entry(path)
        if store.digest(key) != entry:
            raise WeightsError(
                f"Other weights are kept at {weights_location(store, framework, name)}.",
                "Delete that file and its .sha256 if they are to be replaced.",
            ) from None
    store.put_bytes(_sidecar(key), f"{entry.sha256}\n".encode())
    return key


def weights_location(store: Store, framework: str, name: str) -> str:
    """Where a person puts the file, to be shown in a sentence."""
    return f"{store.location}/{weights_key(framework, name)}"


def _keep_folder(store: Store, framework: str, name: str, path: Path) -> str:
    folder = _folder_key(framework, name)
    with disk_errors(f"read {path.name}", path):
        paths = {one.relative_to(path).as_posix(): one for one in sorted(path.rglob("*")) if one.is_file()}
        files = {relative: file_entry(one) for relative, one in paths.items()}
    manifest = WeightsManifest(files=files)
    kept = _manifest(store, folder)
    if kept is None:
        for relative, one in paths.items():
            store.put_file(f"{folder}/{relative}", one)
        try:
            store.put_bytes(f"{folder}/{MANIFEST}", manifest.model_dump_json(indent=1).encode(), if_absent=True)
        except AlreadyExistsError:
            kept = _manifest(store, folder)
    if kept is not None and kept != manifest:
        raise WeightsError(
            f"Other weights are kept at {store.location}/{folder}.", "Delete that folder if they are to be replaced."
        )
    return folder


def _fetch_folder(store: Store, folder: str, manifest: WeightsManifest, target: Path, cache: NodeCache) -> None:
    for relative, entry in manifest.files.items():
        key, path = f"{folder}/{relative}", target / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        if store.local_path(key) is not None:
            store.fetch_file(key, path, sha256=entry.sha256)
        else:
            # A copy, for a framework may rewrite what it loads.
            shutil.copyfile(cache.get(store, key, entry), path)


def _cached(store: Store, key: str, cache: NodeCache) -> Path:
    known = store.identify(key)
    expected = None if known.sha256 else _expected(store, key)
    path = cache.get(store, key)
    if expected is not None:
        _compare(store, key, file_entry(path).sha256, expected)
    return path


def _expected(store: Store, key: str) -> str | None:
    """What the file's `.sha256` says, where there is one."""
    try:
        return store.get_bytes(_sidecar(key)).decode(errors="replace").strip().lower()
    except NotFoundError:
        return None


def _compare(store: Store, key: str, found: str, expected: str) -> None:
    if found != expected:
        where = f"{store.location}/{key}"
        what = "does not match" if re.fullmatch(r"[0-9a-f]{64}", expected) else "cannot be compared with"
        raise WeightsError(
            f"The weights {where} are damaged or were replaced: their sha256 {found} {what} {where}.sha256.",
            "Delete both files to have them fetched again, or only the .sha256 if you placed the .pt yourself.",
        )


def _manifest(store: Store, folder: str) -> WeightsManifest | None:
    try:
        data = store.get_bytes(f"{folder}/{MANIFEST}")
    except NotFoundError:
        return None
    try:
        return WeightsManifest.model_validate_json(data)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise WeightsError(
            f"The manifest of the weights {store.location}/{folder} cannot be read ({reason}).",
            "Delete that folder to have them fetched again.",
        ) from error


def _folder_key(framework: str, name: str) -> str:
    return weights_key(framework, name).removesuffix(".pt")


def _sidecar(key: str) -> str:
    return f"{key}.sha256"
