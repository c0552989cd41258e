"""The five steps of a training run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from eagleray.contract.context import TrainingContext


class TrainingAdapter(ABC):
    """One framework's way through a run; lives on a worker, in the plugin's own environment.

    The host makes one instance per worker and calls `load_data`, `load_model`, `train` and `validate` once each, in
    this order. `save_checkpoint` is handed to `context.report` by `train` and called when a checkpoint is due.
    """

    def __init__(self, context: TrainingContext) -> None:
        self.context = context

    @abstractmethod
    def load_data(self) -> None:
        """Make `context.dataset` usable for the framework. Raises DatasetError where it is not."""

    @abstractmethod
    def load_model(self) -> None:
        """Build the model: from `context.resume`, else pretrained weights, else from scratch."""

    @abstractmethod
    def train(self) -> None:
        """Train to `context.epochs`, calling `context.report` after every epoch; leave soon when `should_stop`."""

    @abstractmethod
    def validate(self) -> Mapping[str, float]:
        """Evaluate the best model; the returned figures are the job's final metrics. May call `publish_best`."""

    @abstractmethod
    def save_checkpoint(self, path: Path) -> None:
        """Write all that is needed to continue, and the framework's `portable_file`, into the empty folder `path`."""
