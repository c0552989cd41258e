"""`eagleray`: the commands, put together.

A command's module must be cheap to import: all of them are imported to run any one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from eagleray import __version__
from eagleray.cli import access, database, datasets, envs, jobs, login, models, plugins, server, storage, train
from eagleray.cli.edge import run_command

app = typer.Typer(
    name="eagleray",
    help="Trains vision models on Ray clusters, each framework in its own environment.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
train.register(app)
app.add_typer(jobs.app, name="jobs")
server.register(app)
login.register(app)
app.add_typer(access.keys, name="keys")
app.add_typer(access.users, name="users")
app.add_typer(access.projects, name="projects")
app.add_typer(plugins.app, name="plugins")
app.add_typer(models.app, name="models")
app.add_typer(datasets.app, name="datasets")
app.add_typer(envs.app, name="envs")
app.add_typer(database.app, name="database")
app.add_typer(storage.app, name="storage")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"eagleray {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: the process's own); the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    command = get_command(app)
    return run_command(lambda: command.main(args=given, prog_name="eagleray", standalone_mode=False), as_json=as_json)
