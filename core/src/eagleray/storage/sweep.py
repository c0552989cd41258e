"""What nobody will ever finish or read: uploads that broke off, and checkpoints without a manifest."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from eagleray.storage import layout
from eagleray.storage.store import ObjectInfo, Store

# A slow upload of a large checkpoint must never be taken for an orphan.
TTL_S = 7 * 24 * 3600.0
DAY_S = 24 * 3600.0
_CHECKPOINT = re.compile(r"(checkpoints/.+/attempts/[1-9]\d*/epoch-\d{5,})/")


@dataclass
class Swept:
    """What went: uploads in parts and half-written files, and the folders of checkpoints that were never completed."""

    unfinished: int = 0
    folders: list[str] = field(default_factory=list)


def sweep(store: Store, older_than_s: float = TTL_S, *, dry_run: bool = False) -> Swept:
    """Remove orphans that nobody has written to for so long."""
    swept = Swept(folders=_orphans(store, time.time() - older_than_s))
    if not dry_run:
        swept.unfinished = store.sweep_unfinished(older_than_s)
        for folder in swept.folders:
            store.delete_prefix(folder)
    return swept


def sweep_daily(store: Store, note: Path) -> None:
    """End what broke off, once a day on this node: one request. `note` is a file whose age says when it was last."""
    with suppress(OSError):
        if time.time() - note.stat().st_mtime < DAY_S:
            return
    note.parent.mkdir(parents=True, exist_ok=True)
    note.touch()
    store.sweep_unfinished(TTL_S)


def _orphans(store: Store, before: float) -> list[str]:
    """Folders of checkpoints that have no manifest and whose youngest file is older than `before`."""
    found: dict[str, list[ObjectInfo]] = {}
    for info in store.list("checkpoints"):
        match = _CHECKPOINT.match(info.key)
        if match:
            found.setdefault(match[1], []).append(info)
    return [
        folder
        for folder, files in sorted(found.items())
        if all(info.key != f"{folder}/{layout.MANIFEST}" for info in files)
        and max(info.modified_at for info in files) < before
    ]
