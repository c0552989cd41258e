"""`eagleray plugins new` and `lock`: for those who write a plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def new(
    name: Annotated[str, typer.Argument(help="For example my-shapes; the package is eagleray-my-shapes.")],
    task: Annotated[
        str, typer.Option(help="What it is for: image-classification or object-detection.")
    ] = "image-classification",
    path: Annotated[Path, typer.Option(help="The folder to make it in.")] = Path(),
) -> None:
    """A complete package for a new plugin, which passes the conformance suite and trains as it stands."""
    from eagleray.plugins.scaffold import write_plugin  # noqa: PLC0415 - listing needs no template

    folder = write_plugin(name, task, path)
    plain = folder.name.removeprefix("eagleray-")
    print(f"made {folder}\n\nNext:\n  cd {folder}\n  pip install -e '.[test]'\n  pytest")
    print(f"  eagleray train --framework {plain} --model {plain}-small --data FOLDER --epochs 5")


def lock(
    project: Annotated[Path, typer.Argument(help="The plugin's folder, with its pyproject.toml.")] = Path(),
) -> None:
    """Pin what the plugin's extra `runtime` needs, with hashes, into its package."""
    from eagleray.environments.plugin_lock import write_lock  # noqa: PLC0415 - listing needs no uv

    target, written = write_lock(project.absolute())
    print(f"{target}: {len(written.requirements)} pins")
