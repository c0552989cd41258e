"""timm's model with the dataset's head: made, loaded, frozen, and written as a portable file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import group_parameters, resolve_model_input_args, split_model_name_tag
from torch import nn

from eagleray.contract import CheckpointError, ConfigError, WeightsError
from eagleray_timm.config import ClassificationConfig

PLAIN = (int, float, str, bool, list, tuple)
# Settings of the training, which a finished model does not need.
TRAINING_ONLY = frozenset({"drop_rate", "drop_path_rate", "drop_block_rate", "pretrained_cfg"})


def build_model(
    name: str, config: ClassificationConfig, num_classes: int, state: Mapping[str, torch.Tensor] | None
) -> Any:
    """The model `name` (with or without a tag) for `num_classes`, from `state` or with random weights.

    A head in `state` for another number of classes is left out; anything else must fit.

    Raises:
        ConfigError: the model does not know an option.
        WeightsError: `state` belongs to another model.
    """
    arguments = model_arguments(name, config)
    if state is None:
        return create(arguments, config, num_classes=num_classes)
    model = with_weights(name, arguments, config, state)
    if model.num_classes != num_classes:
        model.reset_classifier(num_classes)
    return model


def model_arguments(name: str, config: ClassificationConfig) -> dict[str, Any]:
    """Arguments of `timm.create_model` for the options that are set."""
    options = {
        "drop_rate": config.drop or None,
        "drop_path_rate": config.drop_path,
        "drop_block_rate": config.drop_block,
        "global_pool": config.gp,
    }
    given = {key: value for key, value in options.items() if value is not None}
    size = {"img_size": config.img_size} if config.img_size else {}
    arguments: dict[str, Any] = resolve_model_input_args(name, {**size, "in_chans": config.in_chans}, **given)
    return arguments


def create(arguments: Mapping[str, Any], config: ClassificationConfig, **more: Any) -> Any:
    """`timm.create_model`, with a sentence where the model does not know an option."""
    try:
        return timm.create_model(**{**arguments, **more})
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if not unknown:
            raise
        raise ConfigError(f"{arguments['model_name']} does not know {unknown[1]}.", "Leave it out.") from None
    except AssertionError as error:
        chosen = config.model_dump(include={"img_size", "gp"}, exclude_none=True)
        raise ConfigError(f"{arguments['model_name']} cannot be made with {chosen}: {error}") from None


def with_weights(
    name: str, arguments: Mapping[str, Any], config: ClassificationConfig, state: Mapping[str, torch.Tensor]
) -> Any:
    """The model with the weights and the head of `state`."""
    cfg = arguments["pretrained_cfg"]
    found = head_size(cfg, state)
    problem = ""
    # A file in a foreign layout names its head in its own way: then it has timm's number of classes, or none.
    for size in [found] if found is not None else [cfg.get("num_classes", 1000), 0]:
        overlay = {"state_dict": dict(state), "num_classes": size, "label_offset": 0, "custom_load": False}
        try:
            model = create(arguments, config, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=size)
        except (RuntimeError, KeyError, ValueError, AttributeError, IndexError) as error:
            problem = problem or " ".join(str(error).split())
            continue
        # It would be copied with every copy of the model.
        model.pretrained_cfg.pop("state_dict", None)
        return model
    raise WeightsError(f"The weights do not fit {name}: {problem[:600]}", "Use the weights of this model.")


def head_size(cfg: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> int | None:
    """Classes of the head in `state`; None where it has none under timm's name."""
    names = cfg.get("classifier") or ()
    for name in (names,) if isinstance(names, str) else names:
        for suffix in ("weight", "bias"):
            if f"{name}.{suffix}" in state:
                return int(state[f"{name}.{suffix}"].shape[0])
    return None


def data_config(model: Any, config: ClassificationConfig) -> dict[str, Any]:
    """What pictures the model takes: input_size `[C, H, W]`, mean and std (0..1), interpolation, crop."""
    wanted = ("mean", "std", "interpolation", "crop_pct", "crop_mode", "img_size")
    given = {key: value for key in wanted if (value := getattr(config, key)) is not None}
    resolved = resolve_model_data_config(model, args={**given, "in_chans": config.in_chans})
    if config.img_size is None:
        resolved["input_size"] = (config.in_chans, *resolved["input_size"][-2:])
    for key in ("mean", "std"):
        values = tuple(resolved[key])
        # A grey picture of a model made for colour.
        resolved[key] = values if len(values) == config.in_chans else (sum(values) / len(values),) * config.in_chans
    return resolved


def freeze(model: Any, what: str | int | Sequence[str] | None) -> list[nn.Module]:
    """Stop training parts of `model`; returns the modules that must stay in evaluation mode.

    Raises:
        ConfigError: a name is not a module's, or nothing is left to train.
    """
    if not what:
        return []
    for parameter in frozen_parameters(model, what):
        parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"freeze={what} leaves nothing to train.", "Freeze less.")
    # Statistics of a frozen batch norm would go on moving.
    return [
        module
        for module in model.modules()
        if getattr(module, "running_mean", None) is not None
        and not any(parameter.requires_grad for parameter in module.parameters())
        and any(True for _ in module.parameters())
    ]


def frozen_parameters(model: Any, what: str | int | Sequence[str]) -> list[nn.Parameter]:
    """Parameters that `freeze` means."""
    if isinstance(what, int):
        groups = group_parameters(model, model.group_matcher(coarse=True))
        names = {name for number in sorted(groups)[:what] for name in groups[number]}
        return [parameter for name, parameter in model.named_parameters() if name in names]
    if isinstance(what, str):
        heads = model.get_classifier()
        kept = {id(p) for head in (heads if isinstance(heads, tuple) else (heads,)) for p in head.parameters()}
        return [parameter for parameter in model.parameters() if id(parameter) not in kept]
    found: list[nn.Parameter] = []
    for name in what:
        try:
            found += list(model.get_submodule(name).parameters())
        except AttributeError:
            children = ", ".join(child for child, _ in model.named_children())
            raise ConfigError(f"freeze names '{name}', which the model lacks.", f"Its parts: {children}.") from None
    return found


def portable(
    model: Any, name: str, classes: Sequence[str], data: Mapping[str, Any], multi_label: bool
) -> dict[str, Any]:
    """All that is needed to predict, as plain data and tensors on the CPU.

    `timm.create_model(architecture, checkpoint_path=…, **model_args)` reads it too.
    """
    made_with = getattr(model, "_model_args", {})
    arguments = {
        key: value for key, value in made_with.items() if key not in TRAINING_ONLY and isinstance(value, PLAIN)
    }
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    return {
        "framework": "timm",
        "timm": timm.__version__,
        "architecture": split_model_name_tag(name)[0],
        "model_args": {**arguments, "num_classes": len(classes)},
        "classes": list(classes),
        "multi_label": multi_label,
        "data_config": {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()},
        "state_dict": weights,
    }


def read_portable(file: Path) -> dict[str, Any]:
    """What `portable` has put into `file`; nothing in it is run.

    Raises:
        CheckpointError: it is not such a file.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"The model {file} cannot be read: {reason}") from None
    if not isinstance(content, dict) or content.get("framework") != "timm":
        raise CheckpointError(
            f"{file} is not a model that this plugin has trained.", "Use best.pt or last.pt of a job."
        )
    return content


def load_portable(content: Mapping[str, Any]) -> Any:
    """The model of a portable file, in evaluation mode on the CPU."""
    try:
        model = timm.create_model(content["architecture"], **content["model_args"])
        model.load_state_dict(content["state_dict"])
    except (RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"The model does not fit timm {timm.__version__}: {' '.join(str(error).split())[:600]}"
        ) from None
    return model.eval()
