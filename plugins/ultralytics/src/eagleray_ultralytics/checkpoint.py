"""What a checkpoint folder of this plugin holds, written and read.

`state.pt` is Ultralytics' own resumable checkpoint, in full precision and with what it leaves out: the trained
weights beside their average, and the state of every random generator. `model.pt` is the portable model (averaged
weights in half precision, no optimizer). `best.pt` is the best portable model so far, where it is not this epoch's.
"""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils import LOGGER
from ultralytics.utils.patches import torch_load
from ultralytics.utils.torch_utils import strip_optimizer, unwrap_model

from eagleray.contract import CheckpointError, Resume

STATE, MODEL, BEST = "state.pt", "model.pt", "best.pt"
EXACT = "eagleray"
# Ultralytics writes what `optimizer=auto` chose into its arguments and rebuilds the same optimizer from them.
CHOSEN = ("optimizer", "lr0", "warmup_bias_lr")


@contextmanager
def quiet() -> Iterator[None]:
    """Ultralytics' logger at WARNING, so that a file written every epoch is not announced every epoch."""
    level = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.setLevel(level)


def strip(source: Path, target: Path) -> None:
    """Write the portable model of the checkpoint `source` to `target`. Raises CheckpointError if it is unreadable."""
    with quiet():
        written = strip_optimizer(source, s=str(target))
    if not written:
        raise CheckpointError(f"The checkpoint {source} that Ultralytics wrote cannot be read.")


def write(trainer: Any, folder: Path, random_states: list[dict[str, Any]]) -> None:
    """Write the checkpoint of the epoch that `trainer` has just saved into the empty `folder`.

    `random_states` are those of all workers, by rank.
    """
    state = torch_load(trainer.last, map_location="cpu")
    average: Any = deepcopy(unwrap_model(trainer.ema.ema)).cpu().float().to(memory_format=torch.contiguous_format)
    if hasattr(average, "criterion"):
        average.criterion = None
    state["ema"] = average
    state["optimizer"] = trainer.optimizer.state_dict()
    weights = unwrap_model(trainer.model).state_dict()
    state[EXACT] = {
        "model": {name: value.detach().cpu().contiguous() for name, value in weights.items()},
        "random": random_states,
    }
    torch.save(state, folder / STATE)
    strip(trainer.last, folder / MODEL)
    if trainer.best.exists() and trainer.best_fitness != trainer.fitness:
        shutil.copyfile(_portable(trainer.best), folder / BEST)


def _portable(best: Path) -> Path:
    """The portable model of `best`, made once for each that comes: reading a model costs more than an epoch's save."""
    file = best.with_name("best-portable.pt")
    if not file.exists() or file.stat().st_mtime_ns < best.stat().st_mtime_ns:
        strip(best, file)
    return file


def random_state(trainer: Any) -> dict[str, Any]:
    """The generators' states as tensors and plain values, which a weights-only load accepts."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, float(cached)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "buffer": list(getattr(trainer.train_loader.dataset, "buffer", ())),
    }


def restore(trainer: Any, exact: Mapping[str, Any], rank: int, world_size: int) -> None:
    """Continue with the exact weights and generators; call it when the trainer is ready for its first batch.

    With another number of workers than before, generators start anew from the seed.
    """
    unwrap_model(trainer.model).load_state_dict(exact["model"])
    if len(exact["random"]) != world_size:
        return
    state = exact["random"][rank]
    if trainer.train_loader.num_workers == 0:
        restore_loader(trainer, state["buffer"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


def restore_loader(trainer: Any, buffer: list[int]) -> None:
    """Bring a loader without worker processes to where the uninterrupted run's stood at the end of that epoch.

    `buffer` are the pictures that mosaic picks its partners from. The order of the pictures is drawn again from the
    first epoch on, without loading any. (Worker processes read ahead and keep generators of their own.)
    """
    loader = trainer.train_loader
    close = trainer.args.close_mosaic
    closing = max(trainer.epochs - close, 0) if close else None
    for epoch in range(trainer.start_epoch):
        if loader.iterator is None or epoch == closing:
            loader.iterator = loader._get_iterator()
        for _ in range(len(loader)):
            next(loader.iterator._sampler_iter)
    if closing is not None and trainer.start_epoch > closing:
        # The uninterrupted run closed its mosaic in an earlier epoch; the trainer would do it again now, drawing
        # numbers that it did not draw then.
        trainer._close_dataloader_mosaic()
        trainer._close_dataloader_mosaic = lambda: None
        object.__setattr__(loader, "reset", lambda: None)
    for index in buffer:
        loader.dataset.load_image(index)


def read(resume: Resume) -> dict[str, Any]:
    """The resumable state of `resume`.

    Raises:
        CheckpointError: it is missing, unreadable, not resumable or of another epoch.
    """
    file = resume.path / STATE
    hint = "Resume from an earlier checkpoint, or start the job anew."
    try:
        state, _ = torch_safe_load(file, safe_only=True)
    except Exception as error:
        raise CheckpointError(f"The checkpoint {file} cannot be read: {error}", hint) from None
    if not isinstance(state, dict) or not state.get("optimizer"):
        raise CheckpointError(f"The checkpoint {file} holds no optimizer state.", hint)
    if state["epoch"] + 1 != resume.epoch:
        raise CheckpointError(f"The checkpoint {file} is of epoch {state['epoch'] + 1}, not {resume.epoch}.", hint)
    return dict(state)


def place(resume: Resume, state: dict[str, Any], arguments: Mapping[str, Any], run_dir: Path) -> Path:
    """Lay out `run_dir` as if the first epochs had been trained there; returns the checkpoint to resume from.

    The state gets this job's arguments (its paths belong to another attempt, maybe another node), except for the
    optimizer that has been chosen; the best model and the rows of `results.csv` are put back.
    """
    weights = run_dir / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    kept = state["train_args"]
    new = {**kept, **arguments, **{name: kept[name] for name in CHOSEN}}
    for name in CHOSEN:
        if arguments[name] not in (kept[name], "auto") and arguments["optimizer"] != "auto":
            LOGGER.warning(f"Resuming keeps {name}={kept[name]}: {name}={arguments[name]} would need a new job.")
    state["train_args"] = new
    file = weights / "resume.pt"
    torch.save(state, file)
    best = resume.path / BEST
    shutil.copyfile(best if best.is_file() else resume.path / MODEL, weights / "best.pt")
    write_results(state.get("train_results") or {}, run_dir / "results.csv")
    return file


def write_results(columns: Mapping[str, list[float]], file: Path) -> None:
    """Write the table of finished epochs (column name → values) as Ultralytics does."""
    if not columns:
        return
    lines = [",".join(columns)] + [
        ",".join(f"{value:.6g}" for value in row) for row in zip(*columns.values(), strict=True)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
