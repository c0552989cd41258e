"""Names that the shell completes: frameworks, models and tasks of what is installed."""

from __future__ import annotations

from collections.abc import Iterable

import typer

from eagleray.contract.errors import EaglerayError
from eagleray.plugins.catalogue import find_models
from eagleray.plugins.host import discover
from eagleray.settings import load_settings


def framework_names(incomplete: str) -> list[str]:
    return _beginning(incomplete, discover(load_settings()).frameworks)


def model_names(context: typer.Context, incomplete: str) -> list[str]:
    """Models of the framework and the task that stand on the line already, if they do."""
    try:
        found = find_models(discover(load_settings()), context.params.get("framework"), context.params.get("task"))
    except EaglerayError:
        # The line names a framework or a task that does not exist; running it will say so.
        return []
    return _beginning(incomplete, (card.name for _, card in found))


def task_names(incomplete: str) -> list[str]:
    frameworks = discover(load_settings()).frameworks.values()
    return _beginning(incomplete, (task for found in frameworks for task in found.framework.tasks))


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})
