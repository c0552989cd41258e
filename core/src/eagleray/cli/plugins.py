"""`eagleray plugins`: what is installed, what of it can be used, and why not the rest."""

from __future__ import annotations

import importlib.util
from importlib.resources import files
from typing import Annotated, Any

import typer

from eagleray.cli.output import print_facts, print_json, print_table
from eagleray.contract.errors import EaglerayError, PluginError
from eagleray.contract.framework import Absent, Framework
from eagleray.plugins.catalogue import config_schema
from eagleray.plugins.host import Catalogue, PluginFramework, Quarantine, discover
from eagleray.settings import load_settings

app = typer.Typer(help="Installed plugins and their frameworks.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]


@app.command("list")
def show_all(as_json: Json = False) -> None:
    """Frameworks that can be used, and plugins that cannot, with the reason."""
    catalogue = discover(load_settings())
    if as_json:
        print_json(
            {
                "frameworks": [_summary(found) for found in catalogue.frameworks.values()],
                "quarantined": [_quarantine(found) for found in catalogue.quarantined],
                "blocked": list(catalogue.blocked),
            }
        )
        return
    rows = [
        [
            found.framework.name,
            found.framework.version,
            found.framework.licence,
            ", ".join(found.framework.tasks),
            str(len({card.name for card in found.framework.models})),
            f"{found.distribution} {found.version}",
        ]
        for found in catalogue.frameworks.values()
    ]
    print_table(["FRAMEWORK", "VERSION", "LICENCE", "TASKS", "MODELS", "FROM"], rows)
    _print_unusable(catalogue)


@app.command("show")
def show_one(name: Annotated[str, typer.Argument(help="For example ultralytics.")], as_json: Json = False) -> None:
    """All about one framework."""
    found = discover(load_settings()).framework(name)
    if as_json:
        print_json(_details(found))
        return
    framework = found.framework
    print_facts(
        [
            ("framework", f"{framework.name} {framework.version}"),
            ("about", framework.description),
            ("licence", framework.licence),
            ("from", f"{found.distribution} {found.version}"),
            ("tasks", ", ".join(framework.tasks)),
            ("models", ", ".join(dict.fromkeys(card.name for card in framework.models))),
            ("datasets", ", ".join(framework.dataset_formats)),
            ("best by", ", ".join(f"{metric.name} ({metric.mode})" for metric in _metrics(framework))),
            *((name.replace("_", " "), _answer(absent)) for name, absent in _capabilities(framework).items()),
            ("export", ", ".join(framework.capabilities.export_formats)),
            ("lock", framework.environment.lock),
        ]
    )


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check every plugin further than listing does: configs import, locks are there, adapters can be found."""
    catalogue = discover(load_settings())
    faults = {found.name: [f"{found.reason} {found.hint}"] for found in catalogue.quarantined}
    for name, usable in catalogue.frameworks.items():
        faults.setdefault(name, []).extend(_faults(usable.framework))
    if as_json:
        print_json({"faults": faults, "blocked": list(catalogue.blocked)})
    else:
        for name, found in sorted(faults.items()):
            print(f"{name}: {'; '.join(found) or 'ok'}")
        for name in catalogue.blocked:
            print(f"{name}: blocked by EAGLERAY_BLOCKED_PLUGINS")
    if any(faults.values()):
        raise typer.Exit(PluginError.exit_code)


def _faults(framework: Framework) -> list[str]:
    faults = []
    for task in framework.tasks:
        try:
            config_schema(framework, task)
        except EaglerayError as error:
            faults.append(f"{task}: {error}")
        except Exception as error:  # whatever a plugin's model does while its schema is made
            faults.append(f"{task}: its config has no schema: {type(error).__name__}: {error}")
    package, _, path = framework.environment.lock.partition(":")
    try:
        if not files(package).joinpath(path).is_file():
            faults.append(f"its lock {framework.environment.lock} is not in the package")
    except ImportError as error:
        faults.append(f"its lock {framework.environment.lock} cannot be found: {error}")
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


def _print_unusable(catalogue: Catalogue) -> None:
    for found in catalogue.quarantined:
        print(f"\nnot offered: {found.name} ({found.distribution} {found.version}): {found.reason}\n  {found.hint}")
    for name in catalogue.blocked:
        print(f"\nblocked by EAGLERAY_BLOCKED_PLUGINS: {name}")


def _metrics(framework: Framework) -> list[Any]:
    return list(dict.fromkeys(framework.best_metrics.values()))


def _capabilities(framework: Framework) -> dict[str, Absent | None]:
    can = framework.capabilities
    return {
        "several_workers": can.several_workers,
        "resume": can.resume,
        "auto_batch_size": can.auto_batch_size,
    }


def _answer(absent: Absent | None) -> str:
    return f"no: {absent.reason}" if absent else "yes"


def _summary(found: PluginFramework) -> dict[str, Any]:
    framework = found.framework
    return {
        "name": framework.name,
        "version": framework.version,
        "licence": framework.licence,
        "description": framework.description,
        "tasks": list(framework.tasks),
        "num_models": len({card.name for card in framework.models}),
        "distribution": found.distribution,
        "distribution_version": found.version,
    }


def _details(found: PluginFramework) -> dict[str, Any]:
    framework = found.framework
    return _summary(found) | {
        "models": list(dict.fromkeys(card.name for card in framework.models)),
        "dataset_formats": list(framework.dataset_formats),
        "best_metrics": {task: {"name": m.name, "mode": m.mode} for task, m in framework.best_metrics.items()},
        "capabilities": {
            name: {"available": absent is None, "reason": absent.reason if absent else ""}
            for name, absent in _capabilities(framework).items()
        },
        "export_formats": list(framework.capabilities.export_formats),
        "lock": framework.environment.lock,
        "adapter": framework.adapter,
        "predictor": framework.predictor,
    }


def _quarantine(found: Quarantine) -> dict[str, str]:
    return {
        "name": found.name,
        "distribution": found.distribution,
        "version": found.version,
        "reason": found.reason,
        "hint": found.hint,
    }
