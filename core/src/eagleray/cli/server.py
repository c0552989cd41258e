"""`eagleray up`, `down` and `status`: a server on this machine."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Annotated, Any

import typer

from eagleray.cli.output import print_facts, print_json
from eagleray.contract.errors import ClusterError, ConfigError, EaglerayError
from eagleray.settings import load_settings

Json = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]


def up(
    port: Annotated[int, typer.Option(help="Where the API listens.")] = 8000,
    host: Annotated[str, typer.Option(help="On which address; the default is this machine only.")] = "127.0.0.1",
    dashboard_port: Annotated[int | None, typer.Option(help="Where Ray's dashboard listens; default: any.")] = None,
    num_cpus: Annotated[int | None, typer.Option(help="CPUs to use; default: all.")] = None,
    num_gpus: Annotated[int | None, typer.Option(help="GPUs to use; default: all.")] = None,
    new_admin_key: Annotated[
        bool, typer.Option("--new-admin-key", help="Make another admin's key; the others stay good.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Start Ray, the control plane and the HTTP API on this machine; of a server that is up, mend what is not well."""
    arguments = ["up", "--port", str(port), "--host", host]
    for name, value in (("--dashboard-port", dashboard_port), ("--num-cpus", num_cpus), ("--num-gpus", num_gpus)):
        arguments += [name, str(value)] if value is not None else []
    found = _serve([*arguments, "--new-admin-key"] if new_admin_key else arguments)
    if as_json:
        print_json(found)
    else:
        _show_up(found)
    if found["not_ok"]:
        raise typer.Exit(ClusterError.exit_code)


def _show_up(found: dict[str, Any]) -> None:
    print_facts(
        [
            ("server", found["server"] + ("" if found["started"] else "  (it was up already)")),
            ("dashboard", found["dashboard"]),
            ("admin key", found.get("key", "")),
            ("kept in", found.get("key_file", "")),
            *((f"not ok: {name}", message) for name, message in found["not_ok"].items()),
            ("next", "eagleray train --server " + found["server"] + " …   or: eagleray jobs list"),
        ]
    )
    if "key" in found:
        print("The key is shown this once; commands on this machine find it by themselves.")


def down(as_json: Json = False) -> None:
    """End what `eagleray up` started. Running jobs go on from their last checkpoint at the next `up`."""
    found = _serve(["down"])
    if as_json:
        print_json(found)
    else:
        print("the server has ended" if found["stopped"] else "there is no server of this home to end")


def status(
    server: Annotated[str | None, typer.Option("--server", help="Default: the one last logged in to.")] = None,
    as_json: Json = False,
) -> None:
    """Whether a server answers, and how each of its parts is."""
    from eagleray.client import Client  # noqa: PLC0415 - saves other commands httpx, some 100 ms

    with Client(server) as client:
        client.health()
        found = client.ready()
        address = client.server
    if as_json:
        print_json({"server": address, **found})
    else:
        parts = found["parts"].items()
        print_facts(
            [("server", address), ("version", found["version"]), *((name, _state(part)) for name, part in parts)]
        )
    if found["status"] != "ok":
        raise typer.Exit(ClusterError.exit_code)


def _state(part: dict[str, Any]) -> str:
    return ("ok" if part["ok"] else "NOT OK") + (f"  {part['message']}" if part["message"] else "")


def _serve(arguments: list[str]) -> dict[str, Any]:
    """Run the other package, which this one does not import."""
    if importlib.util.find_spec("eagleray_serve") is None:
        raise ConfigError("The package eagleray-serve is not installed.", "Try: pip install eagleray-serve")
    load_settings().home.mkdir(parents=True, exist_ok=True)
    result = subprocess.run(
        [sys.executable, "-m", "eagleray_serve", *arguments],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        found = json.loads(result.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise ClusterError(f"'{arguments[0]}' ended with {result.returncode}.", "See the lines above.") from None
    if "error" in found:
        raise _Reported(found["error"])
    return dict(found)


class _Reported(EaglerayError):
    """An error as the other process told it."""

    def __init__(self, error: dict[str, str]) -> None:
        super().__init__(error["message"], error["hint"])
        self.args = (error,)
        self.code = error["code"]
        self.exit_code = ClusterError.exit_code


def register(app: typer.Typer) -> None:
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)
