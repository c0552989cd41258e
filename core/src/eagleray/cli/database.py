"""`eagleray database`: backups of the control plane's SQLite database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eagleray.settings import load_settings

app = typer.Typer(help="Back up, restore and check the control plane's SQLite database.", no_args_is_help=True)


@app.command()
def backup(target: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Write a checked copy; the control plane may go on meanwhile."""
    # Only these commands pay for SQLAlchemy's import.
    from eagleray.control.database.backup import back_up  # noqa: PLC0415
    from eagleray.control.database.opening import database_url  # noqa: PLC0415

    back_up(database_url(load_settings().home), target)
    typer.echo(f"backed up to {target}")


@app.command()
def restore(source: Annotated[Path, typer.Argument(help="A file that `backup` wrote.")]) -> None:
    """Put a backup in the database's place; no control plane may run. The old file is kept beside it."""
    from eagleray.control.database import backup as backups  # noqa: PLC0415 - as above
    from eagleray.control.database.opening import database_url  # noqa: PLC0415

    aside = backups.restore(database_url(load_settings().home), source)
    typer.echo(f"restored from {source}" + (f"; the old database is at {aside}" if aside else ""))


@app.command()
def check() -> None:
    """Read the database through."""
    from eagleray.control.database.backup import verify  # noqa: PLC0415 - as above
    from eagleray.control.database.opening import database_url  # noqa: PLC0415

    path = Path(str(database_url(load_settings().home).database))
    verify(path)
    typer.echo(f"{path} is whole")
