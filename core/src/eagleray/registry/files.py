"""The list of a version's files: paths, sizes and sha256, one JSON object a line, sorted by path."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from eagleray.contract.errors import StorageError
from eagleray.registry import keys
from eagleray.registry.models import DatasetVersion
from eagleray.storage.store import FileEntry, NotFoundError, Store, check_key

Files = Mapping[str, FileEntry]
_SHA256 = re.compile(r"[0-9a-f]{64}")


def dump_files(files: Files) -> bytes:
    """The same files give the same bytes."""
    lines = (
        json.dumps({"path": path, "sha256": files[path].sha256, "size_bytes": files[path].size_bytes})
        for path in sorted(files)
    )
    return "".join(f"{line}\n" for line in lines).encode()


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_files(store: Store, version: DatasetVersion) -> dict[str, FileEntry]:
    """The files of a version, by path. Raises StorageError."""
    return read_list(store, version.dataset_id, version.number, version.files_sha256)


def read_list(store: Store, dataset_id: str, number: int, sha256: str) -> dict[str, FileEntry]:
    """The files of version `number`, by path.

    Raises:
        StorageError: the list is missing, has another sha256, or names a path that leads out of the dataset.
    """
    key = keys.files_key(dataset_id, number, sha256)
    where = f"{store.location}/{key}"
    try:
        data = store.get_bytes(key)
    except NotFoundError:
        raise StorageError(f"The list of files of version {number} is missing at {where}.", _HINT) from None
    if sha256_of(data) != sha256:
        raise StorageError(f"The list of files of version {number} at {where} is damaged.", _HINT)
    try:
        return dict(map(_entry, data.splitlines()))
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"The list of files {where} cannot be read: {error}.", _HINT) from None


_HINT = "Restore it from a backup, or delete the version and import it again."


def _entry(line: bytes) -> tuple[str, FileEntry]:
    fields = json.loads(line)
    # What this program wrote and the sha256 above guards; validating a million rows again would take seconds.
    if not _SHA256.fullmatch(fields["sha256"]):
        raise ValueError(f"{fields['sha256']!r} is no sha256")
    return check_key(fields["path"]), FileEntry.model_construct(
        sha256=fields["sha256"], size_bytes=int(fields["size_bytes"])
    )
