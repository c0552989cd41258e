"""Write the plugin's catalogue from the installed timm; `--check` says whether it still agrees.

Run with the Python of the plugin's environment. Names, input sizes and pretrained tags come from timm's registry,
parameter counts from models that are really built (on torch's meta device where the model allows it).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg, list_models, list_modules

FILE = Path(__file__).resolve().parents[1] / "src" / "eagleray_timm" / "models.json"
FIRST = ("resnet", "efficientnet")
# Built again by `--check`: seconds, and a changed architecture shows.
SMALL = re.compile(r"test_|resnet1[08]$|efficientnet_lite0$|mobilenetv3_small_050$")


def ordered_names() -> list[str]:
    """Every architecture once: the ResNet and EfficientNet families, the rest by module, timm's test models last."""
    modules = [*FIRST, *(module for module in list_modules() if module not in FIRST)]
    names = dict.fromkeys(name for module in modules for name in list_models(module=module))
    return sorted(names, key=place)


def place(name: str) -> int:
    """The part of the list that `name` belongs to."""
    for number, family in enumerate(FIRST):
        if name.startswith(family):
            return number
    return len(FIRST) + name.startswith("test_")


def tags(name: str) -> list[str]:
    """Tags of the weights that exist for `name`, timm's default first."""
    weights = [key for key, cfg in get_arch_pretrained_cfgs(name).items() if cfg.has_weights]
    return [key.partition(".")[2] for key in weights]


def input_size(name: str) -> int:
    """Side of the model's picture in pixels; the longer one where they differ."""
    cfg = get_pretrained_cfg(name)
    return max(cfg.input_size[-2:]) if cfg else 224


def count(name: str) -> int:
    """Parameters of the model with its own number of classes."""
    try:
        with torch.device("meta"):
            model = timm.create_model(name)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # initialisation that reads its own values
        model = timm.create_model(name)
    return sum(p.numel() for p in model.parameters())


def rows(counted: dict[str, int]) -> list[list[Any]]:
    """The catalogue; `counted` (name → parameters) saves building the models."""
    return [[name, counted.get(name) or count(name), input_size(name), tags(name)] for name in ordered_names()]


def main() -> int:
    """Write the file, or compare it with what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the file is out of date")
    check = parser.parse_args().check
    known: dict[str, int] = {}
    if check:
        kept = json.loads(FILE.read_text(encoding="utf-8"))["models"]
        known = {name: parameters for name, parameters, *_ in kept if not SMALL.match(name)}
    lines = ",\n".join(json.dumps(row) for row in rows(known))
    text = f'{{"timm": "{timm.__version__}", "models": [\n{lines}\n]}}\n'
    if not check:
        FILE.write_text(text, encoding="utf-8")
    elif FILE.read_text(encoding="utf-8") != text:
        print(f"{FILE.name} no longer agrees with timm {timm.__version__}; run scripts/generate.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
