"""Pretrained weights in the store.

A file `{name}.pt` alone is whole, since every put is; a person may have placed it. `{name}.pt.sha256`, written after
it, guards it from then on. So each half of the pair that a crash can leave is one of: nothing, a whole file.
"""

from __future__ import annotations

import re
from pathlib import Path

from eagleray.contract.errors import WeightsError
from eagleray.storage.disk import disk_errors
from eagleray.storage.layout import weights_key
from eagleray.storage.store import AlreadyExistsError, NotFoundError, Store, file_entry


def find_weights(store: Store, framework: str, name: str) -> str | None:
    """The key of the weights, verified where their sha256 is known; None where the store has none.

    Raises:
        WeightsError: the file and its `.sha256` do not match.
    """
    key = weights_key(framework, name)
    try:
        found = store.digest(key)
        expected = store.get_bytes(_sidecar(key)).decode(errors="replace").strip().lower()
    except NotFoundError:
        return key if store.exists(key) else None
    if found.sha256 != expected:
        where = weights_location(store, framework, name)
        what = "does not match" if re.fullmatch(r"[0-9a-f]{64}", expected) else "cannot be compared with"
        raise WeightsError(
            f"The weights {where} are damaged or were replaced: their sha256 {found.sha256} {what} {where}.sha256.",
            "Delete both files to have them fetched again, or only the .sha256 if you placed the .pt yourself.",
        )
    return key


def keep_weights(store: Store, framework: str, name: str, path: Path) -> str:
    """Put the weights `path` into the store and return their key. The same bytes again are fine.

    Raises:
        WeightsError: other weights of that name are kept.
    """
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


def _sidecar(key: str) -> str:
    return f"{key}.sha256"
