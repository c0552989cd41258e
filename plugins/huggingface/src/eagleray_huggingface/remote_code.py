"""Refuses models that bring code of their own. Free of torch: a host checks a job with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eagleray.contract import WeightsError

# Each of them names, or asks for, a Python file beside the weights.
KEYS = frozenset({"auto_map", "custom_pipelines", "custom_pipeline", "trust_remote_code", "custom_generate"})
HINT = "Use a model that Transformers itself implements, or write a plugin that ships the code."


def remote_code_keys(values: Any, path: str = "") -> list[str]:
    """Where in `values` (nested dicts and lists) such a key stands: `text_config.auto_map`, say."""
    return sorted(_found(values, path))


def _found(values: Any, path: str) -> Iterator[str]:
    if isinstance(values, dict):
        for key, value in values.items():
            here = f"{path}.{key}" if path else str(key)
            if key in KEYS and value:
                yield here
            yield from _found(value, here)
    elif isinstance(values, list):
        for number, value in enumerate(values):
            yield from _found(value, f"{path}[{number}]")


def refuse_remote_code(folder: Path, name: str) -> None:
    """Look through every JSON file of a model's folder.

    Raises:
        WeightsError: one of them names code, at any depth; or is no JSON.
    """
    for file in sorted(folder.rglob("*.json")):
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
            raise WeightsError(f"The file {file.name} of the model {name} cannot be read as JSON: {error}.") from None
        if file.name != "tokenizer.json" and (found := remote_code_keys(values)):
            raise WeightsError(
                f"The model {name} asks to run code of its own ({file.name}: {', '.join(found[:3])}).", HINT
            )
