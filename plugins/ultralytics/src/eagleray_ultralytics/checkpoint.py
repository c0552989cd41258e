"""What a checkpoint folder of this plugin holds, written and read.

`state.pt` is what Ultralytics resumes from, in full precision and with what it leaves out: the trained weights beside
their average, and the state of every random generator; plain values and tensors. `model.pt` is the portable model
(averaged weights in half precision, no optimizer). `best.pt` is the best portable model so far, where it is not this
epoch's.

Nothing is read back to write them: reading a model costs a tenth of an epoch on a small dataset.
"""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import ultralytics
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils import DEFAULT_CFG_DICT, DEFAULT_CFG_KEYS, LOGGER
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


class Writer:
    """Writes the checkpoints of one run."""

    def __init__(self) -> None:
        self._portable: Any = None

    def write(self, trainer: Any, folder: Path, random_states: list[dict[str, Any]]) -> None:
        """Write the checkpoint of the epoch that `trainer` has just saved into the empty `folder`.

        `random_states` are those of all workers, by rank.
        """
        state = state_of(trainer)
        torch.save(state | {EXACT: exact_of(trainer, random_states)}, folder / STATE)
        torch.save(self._stripped(state, trainer), folder / MODEL)
        if trainer.best_fitness == trainer.fitness:
            shutil.copyfile(folder / MODEL, _portable_best(trainer))
        elif trainer.best.exists():
            shutil.copyfile(_stripped_best(trainer), folder / BEST)

    def _stripped(self, state: Mapping[str, Any], trainer: Any) -> dict[str, Any]:
        """What `strip_optimizer` makes of Ultralytics' checkpoint, without reading that again."""
        average = unwrap_model(trainer.ema.ema)
        if self._portable is None:
            model: Any = deepcopy(average).cpu().half().to(memory_format=torch.contiguous_format).requires_grad_(False)
            if hasattr(model, "args"):
                model.args = dict(model.args)
            if hasattr(model, "criterion"):
                model.criterion = None
            self._portable = model
        for kept, value in zip(self._portable.state_dict().values(), average.state_dict().values(), strict=True):
            kept.copy_(value)
            if kept.is_floating_point():
                # As Ultralytics does with what half precision cannot hold.
                torch.nan_to_num_(kept)
        arguments = {**DEFAULT_CFG_DICT, **state["train_args"]}
        return {
            **state,
            **dict.fromkeys(("best_fitness", "stopper", "ema", "updates", "optimizer", "scaler")),
            "epoch": -1,
            "model": self._portable,
            "train_args": {key: value for key, value in arguments.items() if key in DEFAULT_CFG_KEYS},
        }


def state_of(trainer: Any) -> dict[str, Any]:
    """Ultralytics' own checkpoint with plain values, the optimizer in full precision and no model."""
    return {
        "epoch": trainer.epoch,
        "best_fitness": _plain(trainer.best_fitness),
        "stopper": {name: _plain(getattr(trainer.stopper, name)) for name in ("best_fitness", "best_epoch")},
        "model": None,
        "ema": None,
        "updates": trainer.ema.updates,
        "modelopt": None,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "train_args": vars(trainer.args),
        "train_metrics": {name: _plain(value) for name, value in trainer.metrics.items()}
        | {"fitness": _plain(trainer.fitness)},
        "train_results": trainer.read_results_csv(),
        "date": datetime.now().astimezone().isoformat(),
        "version": ultralytics.__version__,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
    }


def _plain(number: Any) -> Any:
    """A number of numpy's or torch's as Python's, which a weights-only load accepts."""
    return number.item() if hasattr(number, "item") else number


def exact_of(trainer: Any, random_states: list[dict[str, Any]]) -> dict[str, Any]:
    """What Ultralytics leaves out: weights in full precision, and the generators of all workers, by rank."""

    def weights(model: Any) -> dict[str, torch.Tensor]:
        return {name: value.detach().cpu().contiguous() for name, value in unwrap_model(model).state_dict().items()}

    return {"model": weights(trainer.model), "average": weights(trainer.ema.ema), "random": random_states}


def _portable_best(trainer: Any) -> Path:
    return Path(trainer.best).with_name("best-portable.pt")


def _stripped_best(trainer: Any) -> Path:
    """The portable model of the best epoch; made from Ultralytics' own where no checkpoint was due at that epoch."""
    file = _portable_best(trainer)
    if not file.exists() or file.stat().st_mtime_ns < trainer.best.stat().st_mtime_ns:
        strip(trainer.best, file)
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
    """The resumable state of `resume`, its model in full precision.

    Raises:
        CheckpointError: it is missing, unreadable, not resumable or of another epoch.
    """
    hint = "Resume from an earlier checkpoint, or start the job anew."
    file = resume.path / STATE
    try:
        state = torch_load(file, map_location="cpu", weights_only=True)
        exact = state[EXACT]
        if state["epoch"] + 1 != resume.epoch:
            raise CheckpointError(f"The checkpoint {file} is of epoch {state['epoch'] + 1}, not {resume.epoch}.", hint)
        file = resume.path / MODEL
        model = torch_safe_load(file, safe_only=True)[0]["model"].float()
        model.load_state_dict(exact.pop("average"))
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"The checkpoint {file} cannot be read: {error}", hint) from None
    return dict(state) | {"ema": model}


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
