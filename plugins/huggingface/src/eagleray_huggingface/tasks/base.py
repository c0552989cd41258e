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
    """Turns a dataset into batches for a model, and the model's outputs into figures."""

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

    @abstractmethod
    def score(self) -> Score:
        """An empty score."""

    @abstractmethod
    def answers(self, outputs: Any, truth: Any) -> Any:
        """The model's outputs for a batch as the score takes them."""

    def finish_batch(self, score: Score, truth: Any) -> None:
        """After a batch of the validation has been scored; most tasks have nothing more to do."""
        return


class Samples(Dataset):
    """A split as torch reads it; `train` changes its pictures at random."""

    def __init__(self, task: Task, pictures: list[Picture], train: bool) -> None:
        self.task = task
        self.pictures = pictures
        self.train = train

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Batch:
        return self.task.load(self.pictures[index], self.train)


def positions(model: Any, image_size: int | None) -> Batch:
    """`interpolate_pos_encoding` for a model that is made for another side than `image_size`."""
    own = getattr(model.config, "image_size", None)
    known = "interpolate_pos_encoding" in inspect.signature(model.forward).parameters
    return {"interpolate_pos_encoding": True} if known and image_size and own and image_size != own else {}


def opened(picture: Picture) -> Any:
    """The picture as Pillow's RGB, upright."""
    return open_image(picture.path)
