"""Processors: what turns pictures into a model's tensors, for the side that a job wants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoProcessor

from eagleray.contract import ConfigError, EaglerayError, WeightsError
from eagleray_huggingface.framework import DETECTION, SEGMENTATION, TEXT
from eagleray_huggingface.portable import first_line
from eagleray_huggingface.tasks.detection import takes_mask

# The rule by which the published detectors resize: 800 pixels, at most 1333.
LONGEST = 1333 / 800


def processor_of(task: str, folder: Path, model: Any, image_size: int | None) -> Any:
    """The processor of the model's files, for pictures of `image_size`.

    Raises:
        ConfigError: its side cannot be changed.
        WeightsError: a text model comes without its processor.
    """
    try:
        if task == TEXT:
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            if image_size:
                raise ConfigError("A vision-language model's image_size is its own.", "Leave image_size out.")
            return processor
        return AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **_sides(task, folder, model, image_size)
        )
    except EaglerayError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"The model's processor cannot be loaded: {first_line(error)}") from None


def _sides(task: str, folder: Path, model: Any, image_size: int | None) -> dict[str, Any]:
    """Arguments that make the processor give pictures of the wanted side."""
    default = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    size = getattr(default, "size", None)
    own = getattr(model.config, "image_size", None)
    described = (folder / "preprocessor_config.json").read_text(encoding="utf-8") if _has_processor(folder) else "{}"
    if image_size is None and "size" not in json.loads(described) and isinstance(own, int):
        image_size = own
    fixed = task == SEGMENTATION or (task == DETECTION and not takes_mask(model))
    ranged = size is not None and bool(_edge(size, "longest_edge"))
    if image_size is None and not (fixed and ranged):
        return {}
    if size is None:
        if image_size is None or image_size == own:
            return {}
        raise ConfigError(
            f"The side of this model's pictures cannot be changed to {image_size}.", "Leave image_size out."
        )
    side = image_size or _edge(size, "shortest_edge")
    if ranged and not fixed:
        return {"size": {"shortest_edge": side, "longest_edge": round(side * LONGEST)}}
    if _edge(size, "shortest_edge") and not ranged:
        crop = getattr(default, "crop_size", None)
        if crop and getattr(default, "do_center_crop", False):
            ratio = _edge(size, "shortest_edge") / (_edge(crop, "height") or side)
            return {
                "size": {"shortest_edge": round(side * ratio)},
                "crop_size": {"height": side, "width": side},
            }
        if not fixed:
            return {"size": {"shortest_edge": side}}
    return {"size": {"height": side, "width": side}}


def _has_processor(folder: Path) -> bool:
    return (folder / "preprocessor_config.json").is_file()


def _edge(size: Any, name: str) -> int:
    found = size.get(name) if isinstance(size, Mapping) else getattr(size, name, None)
    return int(found or 0)
