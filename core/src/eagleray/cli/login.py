"""`eagleray login` and `logout`: which server, and with which key."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from eagleray.cli.output import print_json
from eagleray.contract.errors import ConfigError

Address = Annotated[str | None, typer.Argument(metavar="SERVER", help="For example https://train.example.org.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]


def login(
    server: Address = None,
    key_stdin: Annotated[bool, typer.Option("--key-stdin", help="Read the key from standard input.")] = False,
    as_json: Json = False,
) -> None:
    """Keep a key for a server, and make it the one that other commands speak to."""
    from eagleray.client import Client  # noqa: PLC0415 - saves other commands httpx, some 100 ms
    from eagleray.client.credentials import find_server, keep_key  # noqa: PLC0415 - as above

    address = find_server(server)
    key = sys.stdin.readline().strip() if key_stdin else _asked(address)
    if not key:
        raise ConfigError("No key was given.", "An admin makes one: eagleray keys create NAME")
    with Client(address, key) as client:
        me = client.whoami()
    path = keep_key(address, key)
    if as_json:
        print_json({"server": address, "credentials": str(path), **me})
    else:
        projects = "all projects" if me["projects"] is None else f"projects {', '.join(me['projects'])}"
        print(f"{address}: {me['name']}, {', '.join(me['scopes'])}, {projects}; kept in {path}")


def logout(server: Address = None, as_json: Json = False) -> None:
    """Forget the key for a server."""
    from eagleray.client.credentials import find_server, forget_key  # noqa: PLC0415 - see `login`

    address = find_server(server)
    forget_key(address)
    if as_json:
        print_json({"server": address})
    else:
        print(f"the key for {address} is forgotten; it stays good until it is revoked")


def _asked(address: str) -> str:
    # Never an argument of the command line: those are seen by every user of the machine.
    found: str = typer.prompt(f"Key for {address}", hide_input=True)
    return found.strip()


def register(app: typer.Typer) -> None:
    app.command("login")(login)
    app.command("logout")(logout)
