"""What a checkpoint folder of this plugin holds, written and read.

`model.pt` is the portable model of that epoch, `state.pt` all else that is needed to go on, and `best.pt` the best
portable model so far, where it is another epoch's. All of them load without running code of theirs. No weights are
written twice: on a small set that is what an epoch pays for its checkpoint.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from eagleray.contract import CheckpointError, Resume
from eagleray_timm.learner import Learner
from eagleray_timm.model import read_portable

STATE, MODEL, BEST = "state.pt", "model.pt", "best.pt"
HINT = "Resume from an earlier checkpoint, or start the job anew."


@dataclass
class Record:
    """What a run knows of its epochs.

    Attributes:
        epoch: the last finished one, from 1.
        best: the best `fitness` so far; `best_epoch` 0: none yet.
        rows: metrics of every epoch, in order.
    """

    epoch: int = 0
    best: float = float("-inf")
    best_epoch: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)

    def add(self, epoch: int, metrics: dict[str, float]) -> bool:
        """Note a finished epoch; True where it is the best so far."""
        self.epoch = epoch
        self.rows.append({"epoch": epoch, **metrics})
        # The first epoch is the best so far whatever its figure, so that there is a best model.
        better = not self.best_epoch or math.isnan(self.best) or metrics["fitness"] > self.best
        if better:
            self.best, self.best_epoch = metrics["fitness"], epoch
        return better


def write(folder: Path, learner: Learner, record: Record, portable: dict[str, Any], best: Path) -> None:
    """Write the checkpoint of `record.epoch` into the empty `folder`, and keep `best`, the best model so far."""
    identity = {key: portable[key] for key in ("architecture", "classes", "model_args")}
    torch.save({**identity, "record": asdict(record), **learner.state()}, folder / STATE)
    torch.save(portable, folder / MODEL)
    if record.best_epoch == record.epoch:
        share(folder / MODEL, best)
    elif best.is_file():
        share(best, folder / BEST)


def share(source: Path, target: Path) -> None:
    """Put `source`, which nobody changes any more, at `target`, too: by a hard link where the file system has them."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def read(resume: Resume, architecture: str, classes: tuple[str, ...]) -> tuple[Record, dict[str, Any]]:
    """The record of `resume`, and the learner's state without the weights of the portable model.

    Raises:
        CheckpointError: it is missing, unreadable, or belongs to another epoch, model or dataset.
    """
    file = resume.path / STATE
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        record = Record(**state.pop("record"))
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"The checkpoint {file} cannot be read: {reason}", HINT) from None
    if record.epoch != resume.epoch:
        raise CheckpointError(f"The checkpoint {file} is of epoch {record.epoch}, not {resume.epoch}.", HINT)
    if state["architecture"] != architecture:
        raise CheckpointError(f"The checkpoint {file} is of {state['architecture']}, not {architecture}.", HINT)
    if tuple(state["classes"]) != classes:
        raise CheckpointError(
            f"The checkpoint {file} knows {len(state['classes'])} classes that are not the dataset's {len(classes)}.",
            HINT,
        )
    return record, state


def restore(learner: Learner, state: dict[str, Any], resume: Resume) -> None:
    """Continue with the weights of the portable model and with `state`."""
    try:
        saved = read_portable(resume.path / MODEL)["state_dict"]
    except CheckpointError as error:
        raise CheckpointError(error.message, HINT) from None
    try:
        learner.load(saved, state, resume.epoch)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:600]
        raise CheckpointError(f"The checkpoint {resume.path / STATE} does not fit this job: {reason}", HINT) from None


def best_of(resume: Resume) -> Path:
    """The best portable model in a checkpoint folder."""
    best = resume.path / BEST
    return best if best.is_file() else resume.path / MODEL
