"""`eagleray plugins`: what is installed, what of it can be used, and why not the rest."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated, Any

import typer

from eagleray.cli import plugin_authoring
from eagleray.cli.jobs import MaybeServer, connected, server_of
from eagleray.cli.output import print_facts, print_json, print_table
from eagleray.contract import versions
from eagleray.contract.errors import EaglerayError, PluginError
from eagleray.contract.framework import Framework
from eagleray.plugins.catalogue import config_schema
from eagleray.plugins.description import framework_details, framework_summary, quarantine_facts
from eagleray.plugins.host import Quarantine, discover
from eagleray.settings import load_settings

app = typer.Typer(help="Installed plugins and their frameworks.", no_args_is_help=True)
app.command("new")(plugin_authoring.new)
app.command("lock")(plugin_authoring.lock)

Json = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]


@app.command("list")
def show_all(server: MaybeServer = None, as_json: Json = False) -> None:
    """Frameworks that can be used, and plugins that cannot, with the reason."""
    if address := server_of(server):
        with connected(address) as client:
            found = client.catalogue()
    else:
        catalogue = discover(load_settings())
        found = {
            "items": [framework_summary(each) for each in catalogue.frameworks.values()],
            "quarantined": [quarantine_facts(each) for each in catalogue.quarantined],
            "blocked": list(catalogue.blocked),
        }
    if as_json:
        print_json({"frameworks": found.pop("items"), **found})
        return
    rows = [
        [
            each["name"],
            each["version"],
            each["licence"],
            ", ".join(each["tasks"]),
            str(each["num_models"]),
            f"{each['distribution']} {each['distribution_version']}",
        ]
        for each in found["items"]
    ]
    print_table(["FRAMEWORK", "VERSION", "LICENCE", "TASKS", "MODELS", "FROM"], rows)
    _print_unusable(found)


@app.command("show")
def show_one(
    name: Annotated[str, typer.Argument(help="For example ultralytics.")],
    server: MaybeServer = None,
    as_json: Json = False,
) -> None:
    """All about one framework."""
    if address := server_of(server):
        with connected(address) as client:
            found = client.framework(name)
    else:
        found = framework_details(discover(load_settings()).framework(name))
    if as_json:
        print_json(found)
        return
    best = dict.fromkeys(f"{metric['name']} ({metric['mode']})" for metric in found["best_metrics"].values())
    able = found["capabilities"].items()
    print_facts(
        [
            ("framework", f"{found['name']} {found['version']}"),
            ("about", found["description"]),
            ("licence", found["licence"]),
            ("from", f"{found['distribution']} {found['distribution_version']}"),
            ("tasks", ", ".join(found["tasks"])),
            ("models", ", ".join(found["models"])),
            ("datasets", ", ".join(found["dataset_formats"])),
            ("best by", ", ".join(best)),
            *((each.replace("_", " "), "yes" if can["available"] else f"no: {can['reason']}") for each, can in able),
            ("export", ", ".join(found["export_formats"])),
            ("lock", found.get("lock", "")),
        ]
    )


@app.command()
def doctor(as_json: Json = False) -> None:
    """Explain every plugin that cannot be used, and check the others further than listing does.

    Of those: configs import and have a schema, locks hold pins with hashes and this Ray, adapters and predictors can be
    found. Whether an environment is built here is said; it is no fault, since a job builds its own.
    """
    settings = load_settings()
    catalogue = discover(settings)
    faults: dict[str, list[str]] = {}
    for found in catalogue.quarantined:
        faults.setdefault(found.name, []).append(_explained(found))
    notices: dict[str, list[str]] = {}
    for name, usable in catalogue.frameworks.items():
        faults.setdefault(name, []).extend(_faults(usable.framework))
        notice = versions.notice_of(usable.framework.contract_version)
        notices[name] = [f"{notice} Try: pip install --upgrade {usable.distribution}"] if notice else []
    environments = {
        name: _environment(usable.framework, settings.environments) for name, usable in catalogue.frameworks.items()
    }
    if as_json:
        print_json(
            {
                "faults": faults,
                "notices": notices,
                "environments": environments,
                "blocked": list(catalogue.blocked),
            }
        )
    else:
        for name, sentences in sorted(faults.items()):
            print(f"{name}: {'; '.join(sentences) or 'ok'}")
            for notice in notices.get(name, ()):
                print(f"  {notice}")
            if environment := environments.get(name):
                print(f"  environment {environment['state']}: {environment['path']}{_way_on(name, environment)}")
        for name in catalogue.blocked:
            print(f"{name}: blocked by EAGLERAY_BLOCKED_PLUGINS")
    if any(faults.values()):
        raise typer.Exit(PluginError.exit_code)


def _explained(found: Quarantine) -> str:
    """Whose plugin it is, where it lies, what is wrong and what to do about it."""
    origin = f"{found.distribution} {found.version}"
    try:
        origin += f" in {distribution(found.distribution).locate_file('')}"
    except PackageNotFoundError:
        pass
    return f"{found.reason} {found.hint} (from {origin})"


def _faults(framework: Framework) -> list[str]:
    from eagleray.environments.lock import read_lock  # noqa: PLC0415 - listing needs no lock

    faults = []
    for task in framework.tasks:
        try:
            config_schema(framework, task)
        except EaglerayError as error:
            faults.append(f"{task}: {error}")
        except Exception as error:  # whatever a plugin's model does while its schema is made
            faults.append(f"{task}: its config has no schema: {type(error).__name__}: {error}")
    try:
        read_lock(framework.environment.lock)
    except EaglerayError as error:
        faults.append(str(error))
    for reference in filter(None, (framework.adapter, framework.predictor)):
        module = reference.partition(":")[0]
        try:
            # Found, not imported: its framework lives in another environment.
            missing = importlib.util.find_spec(module) is None
        except ImportError:
            missing = True
        if missing:
            faults.append(f"its module {module} cannot be found")
    return faults


def _environment(framework: Framework, root: Path) -> dict[str, str] | None:
    """State and path of the framework's environment on this machine; None where its lock cannot be read."""
    from eagleray.environments.lock import environment_name, read_lock  # noqa: PLC0415 - listing needs neither
    from eagleray.environments.ready import read_marker  # noqa: PLC0415 - as above

    try:
        path = root / environment_name(read_lock(framework.environment.lock))
    except EaglerayError:
        return None
    # Not `is_ready`, which counts as a use.
    state = "ready" if read_marker(path) else "unfinished" if path.exists() else "not built"
    return {"state": state, "path": str(path)}


def _way_on(name: str, environment: dict[str, str]) -> str:
    return "" if environment["state"] == "ready" else f"; a job builds it, or: eagleray envs build {name}"


def _print_unusable(catalogue: dict[str, Any]) -> None:
    for found in catalogue["quarantined"]:
        where = f"{found['distribution']} {found['version']}"
        print(f"\nnot offered: {found['name']} ({where}): {found['reason']}\n  {found['hint']}")
    for name in catalogue["blocked"]:
        print(f"\nblocked by EAGLERAY_BLOCKED_PLUGINS: {name}")
