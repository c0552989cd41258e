"""`eagleray envs`: the plugins' environments on this machine."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eagleray.contract.errors import ConfigError
from eagleray.settings import load_settings

if TYPE_CHECKING:
    from eagleray.environments.cache import KeptEnvironment

app = typer.Typer(help="Environments of the plugins on this machine.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]


@app.command("list")
def show(as_json: Json = False) -> None:
    """What is built here, most recently used first."""
    from eagleray.environments.cache import list_environments  # noqa: PLC0415 - other commands need it not

    root = load_settings().environments
    found = list_environments(root)
    if as_json:
        _json([_plain(environment) for environment in found])
    elif found:
        _table(found)
    else:
        typer.echo(f"No environment is built in {root}. A job builds its own; or try: eagleray envs build ultralytics")


@app.command()
def build(
    frameworks: Annotated[list[str], typer.Argument(help="For example ultralytics.", show_default=False)],
    offline: Annotated[bool, typer.Option(help="Use uv's cache alone.")] = False,
    as_json: Json = False,
) -> None:
    """Build the environments of frameworks now, so that no job waits for them, and see that they import."""
    # Both are needed by this command alone, and cost the others their start.
    from eagleray.environments.builder import build as build_environment  # noqa: PLC0415
    from eagleray.environments.lock import read_lock  # noqa: PLC0415
    from eagleray.plugins.host import discover  # noqa: PLC0415

    settings = load_settings()
    catalogue = discover(settings)
    # All names are looked up before the first gigabyte is fetched.
    wanted = [catalogue.framework(name).framework.environment for name in dict.fromkeys(frameworks)]
    built = [
        build_environment(
            read_lock(environment.lock),
            root=settings.environments,
            imports=environment.imports,
            timeout_s=settings.environment_timeout_s,
            # Progress goes to stderr, so that stdout holds the result alone.
            say=lambda line: typer.echo(line, err=True),
            offline=offline,
        )
        for environment in wanted
    ]
    if as_json:
        _json(
            [
                {"name": one.path.name, "python": str(one.python), "seconds": one.seconds, "reused": one.reused}
                for one in built
            ]
        )
        return
    for one in built:
        typer.echo(f"{one.path}  {'was there' if one.reused else f'built in {one.seconds:.1f} s'}")


@app.command()
def prune(
    max_count: Annotated[int | None, typer.Option(help="Keep this many, the most recently used.")] = None,
    older_than_days: Annotated[float | None, typer.Option(help="Remove what was not used for so long.")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="Never remove this one; may be repeated.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all that are not in use.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove environments, least recently used first; never one that is in use."""
    from eagleray.environments.cache import prune as prune_environments  # noqa: PLC0415 - as in `show`

    if everything == (max_count is not None or older_than_days is not None):
        raise ConfigError(
            "Say which environments may go.", "Valid: --max-count N, --older-than-days D, or both; or --all alone."
        )
    for option, value in (("--max-count", max_count), ("--older-than-days", older_than_days)):
        if value is not None and not value >= 0:
            raise ConfigError(f"{option} is {value}.", "It is a number from 0.")
    root = load_settings().environments
    gone = prune_environments(
        root, keep=frozenset(keep or ()), max_count=max_count, older_than_days=older_than_days, dry_run=dry_run
    )
    if as_json:
        _json({"dry_run": dry_run, "removed": [_plain(environment) for environment in gone]})
        return
    for environment in gone:
        typer.echo(f"{'would remove' if dry_run else 'removed'} {environment.name}")
    freed = sum(environment.unique_bytes for environment in gone)
    typer.echo(f"{len(gone)} environments, {'would free' if dry_run else 'freed'} {_size(freed)} in {root}")


def _plain(found: KeptEnvironment) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(found).items()}


def _json(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


def _table(found: list[KeptEnvironment]) -> None:
    # rich costs 50 ms that `--json` and the other commands need not pay.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    table.add_column("environment", overflow="fold")
    for heading in ("state", "used", "size", "of its own"):
        table.add_column(heading, no_wrap=True)
    for one in found:
        used = "in use" if one.in_use else _ago(time.time() - one.last_used)
        table.add_row(one.name, one.state, used, _size(one.apparent_bytes), _size(one.unique_bytes))
    Console().print(table)


def _ago(seconds: float) -> str:
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:.0f} {unit} ago"
    return "just now"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
