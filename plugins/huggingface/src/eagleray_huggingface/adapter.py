"""Transformers' Trainer, driven through the five steps of the contract."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.utils import logging

from eagleray.contract import DatasetError, EaglerayError, TrainingAdapter, TrainingContext, TrainingError
from eagleray_huggingface import checkpoint
from eagleray_huggingface.annotations import Picture, read_split
from eagleray_huggingface.arguments import make_arguments
from eagleray_huggingface.framework import BEST_METRICS
from eagleray_huggingface.group import Group
from eagleray_huggingface.loop import HostCallback, Stopped
from eagleray_huggingface.models import build
from eagleray_huggingface.portable import first_line
from eagleray_huggingface.source import find_source
from eagleray_huggingface.tasks import task_of
from eagleray_huggingface.tasks.base import Samples
from eagleray_huggingface.trainer import SharedTrainer


@contextmanager
def plain_errors(batch_size: object) -> Iterator[None]:
    """Let only builtin exceptions and the contract's own cross: the host's side knows no others."""
    try:
        yield
    except DatasetError as error:
        # One from a loading process carries that process's traceback before the sentence.
        _, found, sentence = error.message.rpartition("DatasetError: ")
        raise DatasetError(sentence.strip() if found else error.message, error.hint) from None
    except (EaglerayError, Stopped):
        raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"The GPU's memory was not enough for batch_size {batch_size}: {first_line(error)}",
            "Lower batch_size or image_size, or use --set gradient_checkpointing=true.",
        ) from None
    except Exception as error:
        if type(error).__module__ == "builtins":
            raise
        raise TrainingError(f"Transformers failed: {type(error).__name__}: {error}") from error


class HuggingFaceAdapter(TrainingAdapter):
    """Trains a Transformers model on one device of each worker."""

    def __init__(self, context: TrainingContext) -> None:
        super().__init__(context)
        logging.set_verbosity_info()
        logging.disable_progress_bar()
        set_seed(context.seed)
        self.arguments = make_arguments(context)
        self.group = Group(context.rank, context.world_size)
        self.loop = HostCallback(context, self.group, BEST_METRICS[context.task], self.save_checkpoint, self._gather)
        self._generators: list[Any] = []
        self._about: dict[str, Any] = {}
        self._trainer: Any = None
        self._pictures: dict[str, list[Picture]] = {}

    def load_data(self) -> None:
        """Read what is known of each picture; the pictures themselves are read in training."""
        self._pictures = {name: read_split(self.context.dataset, name) for name in ("train", "val")}

    def load_model(self) -> None:
        """Build the model, its processor and the Trainer."""
        context = self.context
        if context.resume is not None:
            self.loop.best = checkpoint.check(context.resume)
        with plain_errors(context.batch_size):
            built = build(context, find_source(context))
            task = task_of(context, built.kind, built.model, built.processor)
            self._about = {
                "task": context.task,
                "kind": built.kind,
                "classes": list(context.dataset.classes),
                "lora": dict(built.lora) if built.lora else None,
            }
            self._trainer = SharedTrainer(
                task,
                self.group,
                lambda: self.context.should_stop,
                built.still,
                model=built.model,
                args=self.arguments,
                train_dataset=Samples(task, self._pictures["train"], train=True),
                eval_dataset=Samples(task, self._pictures["val"], train=False),
                callbacks=[self.loop],
            )
        self.loop.trainer = self._trainer

    def train(self) -> None:
        """Run the Trainer to the last epoch, or until the host wants to stop."""
        context = self.context
        if context.resume is not None and context.resume.epoch >= context.epochs:
            return
        resume = None
        if context.resume is not None:
            steps = math.ceil(len(self._trainer.get_train_dataloader()) / self.arguments.gradient_accumulation_steps)
            checkpoint.fit_to(context.resume, steps)
            resume = str(context.resume.path)
        try:
            with plain_errors(context.batch_size):
                self._trainer.train(resume_from_checkpoint=resume)
        except Stopped:
            pass
        finally:
            # Loading processes end with the iterators that an exception's frames held.
            gc.collect()

    def validate(self) -> Mapping[str, float]:
        """The figures of the best epoch, measured when it ended; after a stop, the last one's."""
        found = self.loop.best or self.loop.metrics
        return {name: value for name, value in found.items() if name != "epoch"}

    def save_checkpoint(self, path: Path) -> None:
        """Write the portable model, the Trainer's state and every worker's generators into `path`."""
        checkpoint.write(path, self._trainer, self._about, self._generators, self.loop.best)

    def _gather(self) -> None:
        """Bring every worker's generators to the first one, which saves."""
        self._generators = self.group.gather(checkpoint.generators())
