"""Transformers' Trainer, whose updates and figures are those of all samples at once, however workers share them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch.utils.data import DataLoader, Subset
from transformers import Trainer

from eagleray_huggingface.balance import loss_weights
from eagleray_huggingface.group import Group
from eagleray_huggingface.scores import Score
from eagleray_huggingface.shares import shared_loader
from eagleray_huggingface.tasks import Task
from eagleray_huggingface.tasks.base import TRUTH

WEIGHT = "loss_weight"


class SharedTrainer(Trainer):
    """Training is the Trainer's own; one worker alone loads its batches as the Trainer does.

    Args:
        look: called after every batch of an evaluation; True ends it early, for a stop.
        still: modules that stay in evaluation mode while the others train.
    """

    loss_is_scaled_for_ga = True
    # The Trainer's own annotations allow for None, and for several datasets.
    model: Any
    train_dataset: Any
    eval_dataset: Any
    control: Any

    def __init__(
        self, task: Task, group: Group, look: Callable[[], bool], still: Sequence[torch.nn.Module], **options: Any
    ) -> None:
        self.task, self.group, self.look, self.still = task, group, look, still
        super().__init__(data_collator=task.collate, **options)
        # Many a model takes the number of items of an update and ignores it, while the Trainer believes it divided.
        self.model_accepts_loss_kwargs = False
        sum_over_workers()

    def get_train_dataloader(self) -> Any:
        if self.group.world_size == 1:
            return super().get_train_dataloader()
        batch_size = self.task.context.batch_size
        assert isinstance(batch_size, int)
        return shared_loader(self.train_dataset, batch_size, self.args, self.task.collate)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], None]:
        """The batches of one update, each with the weight of its loss."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = [self.task.items(batch) for batch in batches]
        weights = loss_weights(counts, self.group, together=self.task.divides_together)
        return [batch | {WEIGHT: weight} for batch, weight in zip(batches, weights, strict=True)], None

    def compute_loss(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
        """The model's own mean over the batch, times what the batch counts in its update."""
        # The Trainer puts the whole model into training mode before every batch.
        for module in self.still:
            module.eval()
        inputs = dict(inputs)
        return inputs.pop(WEIGHT) * super().compute_loss(model, inputs, *rest, **options)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """This worker's share of the validation pictures."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        # One that has none takes part with a picture that does not count.
        mine = Subset(dataset, range(self.group.rank, len(dataset), self.group.world_size) or range(1))
        return DataLoader(
            mine,
            batch_size=self.args.per_device_eval_batch_size,
            collate_fn=self.task.collate,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """The figures of all validation pictures, the same on every worker; `on_evaluate` gets them."""
        self.group.same_buffers(self.model)
        with alone():
            score, loss, samples = self._evaluate_share(self.get_eval_dataloader(eval_dataset))
        parts = self.group.gather((score, loss, samples))
        figures = self.group.from_first(merged(parts) if parts else {})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    @torch.no_grad()
    def _evaluate_share(self, loader: Any) -> tuple[Score, float, int]:
        """The share's score, the sum of its losses and the number of its samples.

        Every worker takes as many steps, for a loss may wait for the others; what a worker has too few of is made up
        by its last batch again, which does not count.
        """
        model, score = self.model, self.task.score()
        model.eval()
        loss, samples = 0.0, 0
        batches = iter(loader)
        batch: dict[str, Any] = {}
        steps, own = self._evaluation_steps()
        for step in range(steps):
            batch = next(batches, batch)
            inputs = {name: value for name, value in batch.items() if name != TRUTH}
            outputs = model(**self._prepare_inputs(inputs))
            if step < own:
                truth = batch[TRUTH]
                right = score_truth(truth)
                count = len(right)
                score.update(self.task.answers(outputs, truth), right)
                loss, samples = loss + float(outputs.loss) * count, samples + count
                self.task.finish_batch(score, truth)
            if self.group.any(self.look()):
                break
        # So that its loading processes end now.
        del batches
        return score, loss, samples

    def _evaluation_steps(self) -> tuple[int, int]:
        """Steps that the worker with most of them takes, and how many of this worker's own count."""
        pictures, batch = len(self.eval_dataset), self.args.per_device_eval_batch_size
        most = -(-pictures // self.group.world_size)
        own = len(range(self.group.rank, pictures, self.group.world_size))
        return -(-most // batch), -(-own // batch)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing: the model was built from the checkpoint's portable file."""


@contextmanager
def alone() -> Iterator[None]:
    """While inside, the losses of DETR and Mask2Former divide by this worker's own objects, as one worker's would.

    What they look at to find others is hidden from them.
    """
    shared = PartialState._shared_state
    PartialState._shared_state = {}
    try:
        yield
    finally:
        PartialState._shared_state = shared


def sum_over_workers() -> None:
    """Make these losses divide by the mean number of objects of the workers' batches.

    Transformers 5.23 takes the mean over workers and divides by their number once more, so that with N workers the
    loss, and every gradient, is N times what one worker has on the whole batch.
    """
    for name, module in list(sys.modules.items()):
        names = vars(module) if name.startswith("transformers.") else {}
        if "reduce" in names and names["reduce"] is reduce:
            names["reduce"] = partial(reduce, reduction="sum")


def score_truth(truth: Any) -> Any:
    """What would have been right, one entry for each picture."""
    return truth["labels"] if isinstance(truth, dict) else truth


def merged(parts: list[tuple[Score, float, int]]) -> dict[str, float]:
    """The figures of all workers' shares together."""
    score, loss, samples = parts[0]
    for other, other_loss, other_samples in parts[1:]:
        score.merge(other)
        loss, samples = loss + other_loss, samples + other_samples
    return {"val/loss": loss / max(1, samples), **(score.figures() if samples else {})}
