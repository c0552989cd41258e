"""`eagleray storage`: whether the store works, what waits for it, and what may go."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eagleray.contract.errors import ConfigError, StorageError
from eagleray.settings import load_settings

if TYPE_CHECKING:
    from eagleray.storage.store import Store

app = typer.Typer(help="The store: a folder, or a bucket of S3 or R2.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]


@app.command()
def check(as_json: Json = False) -> None:
    """Write, read, list and delete a small object, and say how long each took."""
    settings = load_settings()
    store = _open(settings.storage)
    steps = []
    for name, step in _steps(store):
        started = time.perf_counter()
        step()
        steps.append({"step": name, "milliseconds": round(1000 * (time.perf_counter() - started), 1)})
    waiting = _waiting()
    cache = _cache_usage()
    if as_json:
        _json({"storage": store.location, "steps": steps, "pending": waiting, "cache": cache})
        return
    typer.echo(f"{store.location} works")
    for one in steps:
        typer.echo(f"  {one['step']:22}{one['milliseconds']:>9.1f} ms")
    typer.echo(f"  {'cache of this node':22}{cache['size_bytes'] / 1e6:>9.1f} MB in {cache['files']} files")
    if waiting:
        typer.echo(f"  {len(waiting)} uploads of this node wait. Try: eagleray storage retry")


@app.command()
def retry(as_json: Json = False) -> None:
    """Send what ended jobs of this node saved while the store could not be reached."""
    from eagleray.storage.pending import finish_pending  # noqa: PLC0415 - see `_open`

    settings = load_settings()
    store = _open(settings.storage)
    done = finish_pending(store, settings.pending)
    _update_records(store, {item.job_id for item in done.sent})
    elsewhere = sorted({one["store"] for one in _waiting()} - {store.location})
    if as_json:
        _json(
            {
                "sent": [f"job {item.job_id}: {item}" for item in done.sent],
                "obsolete": [f"job {item.job_id}: {item}" for item in done.obsolete],
                "left": [f"job {item.job_id}: {item}" for item in done.left],
                "reason": done.reason,
                "other_stores": elsewhere,
            }
        )
    else:
        for word, items in (("sent", done.sent), ("not needed any more", done.obsolete), ("still waits", done.left)):
            for item in items:
                typer.echo(f"job {item.job_id}: {item} ({word})")
        typer.echo(f"{len(done.sent)} sent, {len(done.left)} left")
        for location in elsewhere:
            typer.echo(f"more waits for {location}: EAGLERAY_STORAGE={location} eagleray storage retry")
    if done.left:
        raise StorageError(f"{len(done.left)} uploads wait still: {done.reason}", "Try again once the store answers.")


@app.command()
def sweep(
    older_than_days: Annotated[float, typer.Option(help="Only what nobody has written to for so long.")] = 7.0,
    dry_run: Annotated[bool, typer.Option(help="Only say what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Remove uploads that broke off, and checkpoints, imports and removals of datasets that were never completed."""
    from eagleray.registry import sweep_datasets  # noqa: PLC0415 - see `_open`
    from eagleray.storage.sweep import sweep as sweep_store  # noqa: PLC0415 - see `_open`

    if not older_than_days > 0:
        raise ConfigError(
            f"--older-than-days is {older_than_days:g}.", "It is above 0: what is being uploaded now must stay."
        )
    store = _open(load_settings().storage)
    swept = sweep_store(store, older_than_days * 86_400, dry_run=dry_run)
    datasets = sweep_datasets(store, older_than_days * 86_400, dry_run=dry_run)
    if as_json:
        _json({"dry_run": dry_run, **asdict(swept), "datasets": datasets})
        return
    for folder in (*swept.folders, *datasets):
        typer.echo(f"{'would remove' if dry_run else 'removed'} {store.location}/{folder}")
    typer.echo(
        f"{len(swept.folders)} checkpoints without a manifest, {len(datasets)} datasets without a version, "
        f"{swept.unfinished} uploads that broke off"
    )


def _steps(store: Store) -> list[tuple[str, Callable[[], Any]]]:
    folder = f"checks/{os.urandom(8).hex()}"
    key = f"{folder}/object"
    data = os.urandom(1024)

    def read() -> None:
        if store.get_bytes(key) != data:
            raise StorageError(f"{store.location} gives back other bytes than were written.", "Do not use it.")

    return [
        ("reach", store.check),
        ("write, only if absent", lambda: store.put_bytes(key, data, if_absent=True)),
        ("refuse to overwrite", lambda: _refused(store, key)),
        ("read", read),
        ("copy inside the store", lambda: store.copy(key, f"{key}-copy")),
        ("list", lambda: list(store.list(folder))),
        ("delete", lambda: store.delete_prefix(folder)),
    ]


def _refused(store: Store, key: str) -> None:
    from eagleray.storage.store import AlreadyExistsError  # noqa: PLC0415 - see `_open`

    try:
        store.put_bytes(key, b"", if_absent=True)
    except AlreadyExistsError:
        return
    raise StorageError(
        f"{store.location} ignores conditional writes (If-None-Match).",
        "Two jobs could overwrite each other there; use another server.",
    )


def _update_records(store: Store, job_ids: set[int]) -> None:
    """A finished job's record names its files; those that came late are added."""
    from eagleray.jobs.records import note_artifacts  # noqa: PLC0415 - see `_open`

    for job_id in sorted(job_ids):
        note_artifacts(store, job_id)


def _waiting() -> list[dict[str, Any]]:
    from eagleray.storage.pending import list_pending  # noqa: PLC0415 - see `_open`

    return [
        {"job_id": one.item.job_id, "what": str(one.item), "store": one.item.store, "path": str(one.path)}
        for one in list_pending(load_settings().pending)
    ]


def _cache_usage() -> dict[str, int]:
    from eagleray.storage.cache import NodeCache  # noqa: PLC0415 - see `_open`

    return asdict(NodeCache(load_settings().cache).usage())


def _open(location: str) -> Store:
    # The storage room costs pydantic's models, and a bucket boto3, which other commands need not pay.
    from eagleray.storage.opening import open_store  # noqa: PLC0415

    return open_store(location)


def _json(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
