"""Detectors of torchvision, and the files they are kept in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torchvision.models import get_model

from eagleray.contract import CheckpointError


def build(name: str, classes: int, image_size: int) -> Any:
    """The model `name` with fresh weights; class 0 is the background, so ours begin at 1."""
    sizes = {"min_size": image_size, "max_size": 2 * image_size}
    return get_model(name, weights=None, weights_backbone=None, num_classes=classes + 1, **sizes)


def start_from(model: Any, weights: dict[str, torch.Tensor]) -> int:
    """Take every tensor that fits; returns how many did. Those of another number of classes stay fresh."""
    own = model.state_dict()
    fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    return len(fitting)


def read(path: Path, device: str = "cpu") -> dict[str, Any]:
    """What `torch.save` wrote, without running any code that it may hold.

    Raises:
        CheckpointError: it is missing, damaged or something else.
    """
    try:
        found = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds here
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"'{path}' cannot be read: {reason.rstrip('.')}.", "Take another checkpoint.") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"'{path}' holds {type(found).__name__}, not a model.", "Take another checkpoint.")
    return found
