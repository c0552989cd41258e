"""The interface that the trainer needs of a task."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any

from torch.utils.data import Dataset

from eagleray.contract import TrainingContext
from eagleray.contract.predictor import open_image
from eagleray_huggingface.annotations import Picture
from eagleray_huggingface.scores import Score

Batch = dict[str, Any]
TRUTH = "truth"


class Task(ABC):
    """Turns a dataset into batches for a model, and the model's outputs into figures.

    Attributes:
        divides_together: the model's loss divides by the workers' mean number of items, not by its own batch's.
    """

    divides_together = False

    def __init__(self, context: TrainingContext, model: Any, processor: Any) -> None:
        self.context = context
        self.config = context.config
        self.model = model
        self.processor = processor
        # Present where pictures of another side than the model's own need its positions to be interpolated.
        self.fixed: Batch = positions(model, context.config.image_size)

    @abstractmethod
    def load(self, picture: Picture, train: bool) -> Batch:
        """One picture as tensors; runs in a loading process."""

    @abstractmethod
    def collate(self, rows: list[Batch]) -> Batch:
        """Several of them as the model's arguments; without `train`, also `TRUTH` for the score."""

    def items(self, batch: Batch) -> int:
        """How many things the model's loss for a batch is a mean over: pictures, unless a task says otherwise."""
        return len(batch["pixel_values"])

    @abstractmethod
    def score(self) -> Score:
        """An empty score."""

    @abstractmethod
    def answers(self, outputs: Any, truth: Any) -> Any:
        """The model's outputs for a batch as the score takes them."""

    def finish_batch(self, score: Score, truth: Any) -> None:
        """After a batch of the validation has been scored; most tasks have nothing more to do."""
        return


class Samples(Dataset[Batch]):
    """A split as torch reads it; `train` changes its pictures at random."""

    def __init__(self, task: Task, pictures: list[Picture], train: bool) -> None:
        self.task = task
        self.pictures = pictures
        self.train = train

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Batch:
        return self.task.load(self.pictures[index], self.train)


def objects(batch: Batch) -> int:
    """Objects of a batch as the losses of detectors count them, which divide by one where there is none."""
    labels = batch["class_labels"] if "class_labels" in batch else [label["class_labels"] for label in batch["labels"]]
    return max(1, sum(len(found) for found in labels))


def positions(model: Any, image_size: int | None) -> Batch:
    """`interpolate_pos_encoding` for a model that is made for another side than `image_size`."""
    own = getattr(model.config, "image_size", None)
    known = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
    return {"interpolate_pos_encoding": True} if known and image_size and own and image_size != own else {}


def opened(picture: Picture) -> Any:
    """The picture as Pillow's RGB, upright."""
    return open_image(picture.path)
