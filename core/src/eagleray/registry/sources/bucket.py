"""Fetches what lies below a prefix of a bucket."""

from __future__ import annotations

from pathlib import Path

from eagleray.contract.errors import DatasetError
from eagleray.registry.limits import Limits
from eagleray.registry.progress import Progress
from eagleray.registry.sources.budget import Budget
from eagleray.registry.sources.names import MemberNames
from eagleray.registry.threads import in_threads
from eagleray.storage.store import Store


def fetch_prefix(store: Store, into: Path, limits: Limits, progress: Progress) -> None:
    """Write every object of `store` into the empty folder `into`.

    Raises:
        DatasetError: there is none, one has a name that cannot be a file's, or they are more than `limits` allow.
    """
    what = store.location
    names, budget = MemberNames(what), Budget(what, into, limits)
    wanted: list[tuple[str, Path, int]] = []
    for found in store.list(""):
        # Consoles make an empty object to show a folder.
        if found.key.endswith("/"):
            continue
        budget.count_file()
        budget.count_bytes(found.size_bytes)
        wanted.append((found.key, into / names.add(found.key), found.size_bytes))
    if not wanted:
        raise DatasetError(f"There is nothing at {what}.", "Check the bucket, the prefix and the credentials.")
    budget.check_disk(budget.size_bytes)
    done = 0

    def fetch(item: tuple[str, Path, int]) -> int:
        store.fetch_file(item[0], item[1], sha256=None)
        return item[2]

    for size_bytes in in_threads(fetch, wanted):
        done += size_bytes
        progress("downloading", done, budget.size_bytes)
