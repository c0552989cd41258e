"""The portable file `model.pt`: everything that predicting, or training further, needs, in one file without code.

`torch.save` of plain data and tensors, so `torch.load(weights_only=True)` reads it:
`format`, `task`, `kind`, `classes`, `lora` (None or its settings), `files` (name → bytes as uint8 tensor: `config.json`
and the processor's) and `state_dict`.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from eagleray.contract import EaglerayError

NAME = "model.pt"
FORMAT = "eagleray-huggingface/1"
PROCESSOR = "preprocessor_config.json"


def write(path: Path, model: Any, processor: Any, about: Mapping[str, Any]) -> None:
    """Write `model` (unwrapped) with its processor; `about` gives task, kind, classes and lora."""
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    torch.save(
        {"format": FORMAT, **about, "files": described(model, processor, path.parent), "state_dict": state}, path
    )


def described(model: Any, processor: Any, scratch_root: Path) -> dict[str, torch.Tensor]:
    """`config.json` and the processor's files; `scratch_root` is a folder that may be written to."""
    with tempfile.TemporaryDirectory(dir=scratch_root) as scratch:
        folder = Path(scratch)
        processor.save_pretrained(folder)
        model.config.to_json_file(folder / "config.json", use_diff=False)
        return {
            file.name: torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
            for file in sorted(folder.iterdir())
            if file.is_file() and file.stat().st_size
        }


def unpack(kept: Mapping[str, Any], folder: Path) -> None:
    """Write the `files` of a portable file's content into `folder`."""
    for name, content in kept["files"].items():
        (folder / Path(name).name).write_bytes(content.numpy().tobytes())
    complete(folder)


def complete(folder: Path) -> None:
    """Give a model's folder the file by which image processors are found, where it has none.

    Empty, it means the defaults of the architecture, or what `config.json` says.
    """
    if not any((folder / name).exists() for name in (PROCESSOR, "processor_config.json")):
        (folder / PROCESSOR).write_text("{}", encoding="utf-8")


def read(path: Path, error: type[EaglerayError]) -> dict[str, Any]:
    """The content of a portable file. Raises `error` where it is unreadable or something else."""
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as cause:
        raise error(f"The file {path.name} cannot be read: {type(cause).__name__}: {first_line(cause)}") from None
    if not isinstance(kept, dict) or kept.get("format") != FORMAT:
        raise error(
            f"The file {path.name} is not a model of this plugin.",
            "Give best.pt or last.pt of a huggingface job, or a folder as `save_pretrained` writes it.",
        )
    return kept


def first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else "no details"
