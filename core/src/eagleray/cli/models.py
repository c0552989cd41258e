"""`eagleray models`: what can be trained."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from eagleray.cli.jobs import MaybeServer, connected, server_of
from eagleray.cli.output import parameters, print_facts, print_json, print_table
from eagleray.contract.errors import ConfigError, UnknownNameError, unknown_name
from eagleray.contract.framework import Framework, ModelCard
from eagleray.plugins.catalogue import config_schema, find_card, find_models
from eagleray.plugins.description import model_facts
from eagleray.plugins.host import Catalogue, discover
from eagleray.settings import load_settings

app = typer.Typer(help="Models of the installed frameworks.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]
OfFramework = Annotated[str | None, typer.Option("--framework", "-f", help="Of this framework only.")]
ForTask = Annotated[str | None, typer.Option("--task", "-t", help="For this task only.")]


@app.command("list")
def show_all(
    framework: OfFramework = None,
    task: ForTask = None,
    name: Annotated[str | None, typer.Option("--name", "-n", help="Part of the name, or a pattern with *.")] = None,
    server: MaybeServer = None,
    as_json: Json = False,
) -> None:
    """Models with their tasks, sizes, status and licence."""
    if address := server_of(server):
        with connected(address) as client:
            found = client.models(framework=framework, task=task, name=name)
    else:
        cards = find_models(discover(load_settings()), framework, task, name)
        found = [model_facts(owner, card) for owner, card in cards]
    if as_json:
        print_json(found)
        return
    if not found:
        print("No model fits. All of them: eagleray models list")
        return
    print_table(
        ["MODEL", "FRAMEWORK", "TASK", "PARAMETERS", "STATUS", "WEIGHTS", "LICENCE"],
        [
            [
                each["name"],
                each["framework"],
                each["task"],
                parameters(each["parameters"]),
                each["status"],
                each["weights"],
                each["licence"],
            ]
            for each in found
        ],
    )


@app.command("show")
def show_one(
    name: Annotated[str, typer.Argument(help="For example yolo11n, or yolo11n-seg.")],
    framework: OfFramework = None,
    task: ForTask = None,
    schema: Annotated[bool, typer.Option("--schema", help="Only the JSON Schema of its advanced_config.")] = False,
    server: MaybeServer = None,
    as_json: Json = False,
) -> None:
    """One model, and the settings that its training takes."""
    if address := server_of(server):
        found, version, config = _of_server(address, name, framework, task)
    else:
        owner, card = _find(discover(load_settings()), name, framework, task)
        found, version, config = model_facts(owner, card), owner.version, config_schema(owner, card.task)
    if schema:
        print_json(config)
        return
    if as_json:
        print_json(found | {"config_schema": config})
        return
    print_facts(
        [
            ("model", found["name"]),
            ("framework", f"{found['framework']} {version}"),
            ("task", found["task"]),
            ("about", found["description"]),
            ("parameters", parameters(found["parameters"])),
            ("status", f"{found['status']}: {found['reason']}" if found["reason"] else found["status"]),
            ("weights", found["weights"] or "none, trained from scratch"),
            ("licence", found["licence"]),
        ]
    )
    print("\nadvanced_config")
    print_table(["KEY", "DEFAULT", "VALID", "MEANING"], [_row(*item) for item in config.get("properties", {}).items()])


def _of_server(
    server: str, name: str, framework: str | None, task: str | None
) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """The model's facts, its framework's version and the schema of its settings."""
    plain = name.removesuffix(".pt")
    with connected(server) as client:
        everything = client.models(framework=framework, task=task)
        found = [each for each in everything if each["name"] in (name, plain) or each["weights"] == plain]
        if not found:
            raise unknown_name("model", name, {each["name"] for each in everything})
        if len({each["framework"] for each in found}) > 1:
            owners = ", ".join(sorted({each["framework"] for each in found}))
            raise ConfigError(f"The model '{name}' is offered by several frameworks: {owners}.", "Add --framework.")
        first = found[0]
        version = str(client.framework(first["framework"])["version"])
        return first, version, client.config_schema(first["framework"], first["task"])


def _find(catalogue: Catalogue, name: str, framework: str | None, task: str | None) -> tuple[Framework, ModelCard]:
    if framework:
        owner = catalogue.framework(framework).framework
        return owner, find_card(owner, name, task)
    found: list[tuple[Framework, ModelCard]] = []
    refusal: ConfigError | None = None
    for plugin in catalogue.frameworks.values():
        try:
            found.append((plugin.framework, find_card(plugin.framework, name, task)))
        except UnknownNameError:
            # An unknown task is the same mistake in every framework; an unknown model is only this one's.
            find_models(catalogue, task=task)
        except ConfigError as error:
            refusal = error
    if len(found) == 1:
        return found[0]
    if found:
        owners = ", ".join(owner.name for owner, _ in found)
        raise ConfigError(f"The model '{name}' is offered by several frameworks: {owners}.", "Add --framework.")
    if refusal:
        raise refusal
    names = {card.name for _, card in find_models(catalogue)}
    raise unknown_name("model", name, names, try_command="eagleray models list")


def _row(key: str, schema: dict[str, Any]) -> list[str]:
    """A key of a JSON Schema as one line: name, default, what is valid, meaning."""
    choices = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    return [key, _default(schema), " or ".join(_valid(part) for part in choices), schema.get("description", "")]


def _default(schema: dict[str, Any]) -> str:
    if "default" not in schema:
        return "required"
    return "" if schema["default"] is None else str(schema["default"])


def _valid(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    signs = (("minimum", "≥ "), ("exclusiveMinimum", "> "), ("maximum", "≤ "), ("exclusiveMaximum", "< "))
    bounds = [f"{sign}{schema[key]:g}" for key, sign in signs if key in schema]
    return " ".join([str(schema.get("type", "value")), *bounds])
