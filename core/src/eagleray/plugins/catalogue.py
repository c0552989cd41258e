"""Questions to the catalogue: which models there are, which one is meant, and how it is configured."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eagleray.contract.errors import ConfigError, PluginError, unknown_name
from eagleray.contract.framework import Framework, ModelCard, ModelStatus
from eagleray.contract.tasks import normalise_task
from eagleray.plugins.host import Catalogue

if TYPE_CHECKING:
    from pydantic import BaseModel


def find_models(
    catalogue: Catalogue, framework: str | None = None, task: str | None = None, name: str | None = None
) -> list[tuple[Framework, ModelCard]]:
    """Cards that fit all filters, in the plugins' own order.

    Args:
        name: part of a model's name, or a pattern with `*`; case does not matter.

    Raises:
        UnknownNameError: the framework or the task does not exist.
    """
    wanted_task = normalise_task(task) if task else None
    frameworks = [catalogue.framework(framework)] if framework else list(catalogue.frameworks.values())
    pattern = (name if "*" in name else f"*{name}*").lower() if name else "*"
    return [
        (found.framework, card)
        for found in frameworks
        for card in found.framework.models
        if (wanted_task is None or card.task == wanted_task) and fnmatchcase(card.name.lower(), pattern)
    ]


def find_card(framework: Framework, model_name: str, task: str | None = None) -> ModelCard:
    """The card that `model_name` means, trainable or not.

    `model_name` is a card's name or the name of its weights (`yolo11n-seg`, also with `.pt`). A name with several
    tasks means the one that stands first in `framework.tasks`. Where the framework has `open_models`, another name
    that fits them gets a card of its own.

    Raises:
        UnknownNameError: no such model, or no such task.
        ConfigError: the model is not offered for `task`, or is outside the catalogue and no task is given.
    """
    wanted = normalise_task(task) if task else None
    plain = model_name.removesuffix(".pt")
    cards = [card for card in framework.models if card.name in (model_name, plain)]
    cards = cards or [card for card in framework.models if card.weights and card.weights == plain]
    if not cards and (name := _open_name(framework, model_name)):
        return _open_card(framework, name, wanted)
    if not cards:
        valid = {card.name for card in framework.models}
        command = f"eagleray models list --framework {framework.name}"
        raise unknown_name(f"model of {framework.name}", model_name, valid, try_command=command)
    cards.sort(key=lambda card: framework.tasks.index(card.task))
    for card in cards:
        if wanted in (None, card.task):
            return card
    tasks = ", ".join(card.task for card in cards)
    raise ConfigError(
        f"The model '{model_name}' of {framework.name} is not offered for {wanted}.",
        f"It is for: {tasks}. Try: eagleray models list --framework {framework.name} --task {wanted}",
    )


def _open_name(framework: Framework, model_name: str) -> str:
    """`model_name` as a name outside the catalogue, a folder by its absolute path; empty where it is none."""
    if framework.open_models is None:
        return ""
    folder = Path(model_name).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    return model_name if re.fullmatch(framework.open_models.pattern, model_name) else ""


def _open_card(framework: Framework, name: str, task: str | None) -> ModelCard:
    assert framework.open_models is not None
    if task is None:
        raise ConfigError(
            f"The model '{name}' is not in {framework.name}'s catalogue, so its task is not known.",
            f"Add --task with one of: {', '.join(framework.tasks)}.",
        )
    if task not in framework.tasks:
        raise ConfigError(f"{framework.name} does not offer {task}.", f"Its tasks: {', '.join(framework.tasks)}.")
    # Never absolute: a worker puts the weights into a folder of its own by this name.
    return ModelCard(name=name, task=task, weights=name.lstrip("/"), description=framework.open_models.note)


def resolve_model(framework: Framework, model_name: str, task: str | None) -> ModelCard:
    """The card of a model that can be trained; `find_card` says which one is meant.

    One that `needs` something passes: whether it is there shows on the worker only, and its adapter says so.

    Raises:
        ConfigError: unknown, not offered for the task, or for prediction only.
    """
    card = find_card(framework, model_name, task)
    other = f"Try: eagleray models list --framework {framework.name} --task {card.task}"
    if card.status is ModelStatus.PREDICT_ONLY:
        raise ConfigError(f"The model '{card.name}' of {framework.name} is for prediction only: {card.reason}", other)
    return card


def config_model(framework: Framework, task: str) -> type[BaseModel]:
    """The pydantic model of `advanced_config` for `task`, imported now.

    Raises:
        ConfigError: the framework does not offer the task.
        PluginError: the plugin's model cannot be imported, or is none.
    """
    from pydantic import BaseModel  # noqa: PLC0415 - saves listing some 50 ms

    name = normalise_task(task)
    if name not in framework.configs:
        raise ConfigError(f"{framework.name} does not offer {name}.", f"Its tasks: {', '.join(framework.tasks)}.")
    reference = framework.configs[name]
    module, _, attribute = reference.partition(":")
    try:
        model = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise PluginError(
            f"The config '{reference}' of {framework.name} cannot be imported: {type(error).__name__}: {error}.",
            "Try: eagleray plugins doctor",
        ) from error
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        raise PluginError(f"The config '{reference}' of {framework.name} is not a pydantic model.")
    return model


def validate_config(
    framework: Framework, task: str, values: Mapping[str, Any], *, learning_rate: float | None = None
) -> BaseModel:
    """`values` as the plugin's config for `task`.

    Args:
        learning_rate: the job's own, where it gives one.

    Raises:
        ConfigError: names every wrong key with its value; an unknown key names the nearest one. Or a key says what
            `learning_rate` says.
    """
    from eagleray.contract.validation import validate  # noqa: PLC0415 - imports pydantic's models

    hint = f"All keys: eagleray models list --framework {framework.name}; eagleray models show MODEL --schema"
    config = validate(config_model(framework, task), values, what=f"advanced_config of {framework.name}", hint=hint)
    for key in framework.learning_rate_keys:
        if learning_rate is not None and values.get(key) is not None:
            raise ConfigError(
                f"learning_rate = {learning_rate:g} and {framework.name}'s {key} = {values[key]!r} are the same thing.",
                "Give only one of them.",
            )
    return config


def config_schema(framework: Framework, task: str) -> dict[str, Any]:
    """JSON Schema of `advanced_config` for `task`; raises as `config_model` does."""
    return config_model(framework, task).model_json_schema()
