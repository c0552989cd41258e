"""What a checkpoint folder of this plugin holds, written and read.

`model.pt` is the portable model, in full precision: what is resumed starts from its weights. `optimizer.pt`,
`scheduler.pt`, `scaler.pt` and `trainer_state.json` are the Trainer's own; `rng_state.pth` (of each worker
`rng_state_{rank}.pth`) has the generators; `progress.json` the best epoch's figures.
"""

from __future__ import annotations

import json
import math
import pickle
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerState
from transformers.trainer_pt_utils import safe_globals

from eagleray.contract import CheckpointError, Resume
from eagleray_huggingface import portable

STATE, PROGRESS = "trainer_state.json", "progress.json"
OPTIMIZER, SCHEDULER, SCALER = "optimizer.pt", "scheduler.pt", "scaler.pt"
GENERATORS = "rng_state.pth"


def write(
    folder: Path, trainer: Any, about: Mapping[str, Any], generators: Sequence[Any], best: Mapping[str, float]
) -> None:
    """Write everything into the empty `folder`."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    portable.write(folder / portable.NAME, model, trainer.task.processor, about)
    # The Trainer's own, so that what it writes is what it reads.
    trainer._save_optimizer_and_scheduler(str(folder))
    trainer._save_scaler(str(folder))
    trainer.state.save_to_json(str(folder / STATE))
    alone = len(generators) == 1
    for rank, state in enumerate(generators):
        torch.save(state, folder / (GENERATORS if alone else f"rng_state_{rank}.pth"))
    (folder / PROGRESS).write_text(json.dumps({"best": dict(best)}), encoding="utf-8")


def generators() -> dict[str, Any]:
    """This process's random generators, as the Trainer restores them."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        states["cuda"] = torch.cuda.get_rng_state_all() if distributed else torch.cuda.get_rng_state()
    return states


def check(resume: Resume) -> dict[str, float]:
    """Make sure that the folder can be resumed; returns the best epoch's figures.

    Raises:
        CheckpointError: a file is missing or unreadable; names it.
    """
    for name in (STATE, PROGRESS):
        if not isinstance(_json(resume.path / name), dict):
            raise CheckpointError(f"The checkpoint's {name} is not an object.")
    # A scaler is there for fp16 only; which worker's generators there are depends on how many workers saved.
    scalers = [path.name for path in resume.path.glob(SCALER)]
    for name in (OPTIMIZER, SCHEDULER, *scalers):
        _tensors(resume.path / name)
    for name in sorted(path.name for path in resume.path.glob("rng_state*.pth")) or [GENERATORS]:
        found = _tensors(resume.path / name)
        if not isinstance(found, dict) or not {"python", "numpy", "cpu"} <= found.keys():
            raise CheckpointError(f"The checkpoint's {name} holds no random generators.")
    best = _json(resume.path / PROGRESS).get("best", {})
    return {str(name): float(value) for name, value in best.items() if not math.isnan(float(value))}


def fit_to(resume: Resume, steps_per_epoch: int) -> None:
    """Let the Trainer's state say that `resume.epoch` epochs are done, also where an epoch has more or fewer steps now.

    It does after a change of the number of workers, whose last batches are shared in another way.
    """
    path = resume.path / STATE
    state = TrainerState.load_from_json(str(path))
    state.global_step, state.epoch = resume.epoch * steps_per_epoch, float(resume.epoch)
    path.unlink()
    state.save_to_json(str(path))


def _tensors(path: Path) -> Any:
    try:
        with safe_globals():
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = f"{type(error).__name__}: {portable.first_line(error)}"
        raise CheckpointError(f"The checkpoint's {path.name} cannot be read: {reason}") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise CheckpointError(f"The checkpoint's {path.name} cannot be read: {error}") from None
