"""What of a framework is tried: small enough to train within seconds on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from eagleray.contract import Dataset
from eagleray.contract import tasks as names
from eagleray.datasets.read import read_dataset
from eagleray.testing import data

WRITERS: Mapping[str, Callable[..., Path]] = {
    names.OBJECT_DETECTION: data.write_detection_dataset,
    names.IMAGE_SEGMENTATION: data.write_segmentation_dataset,
    names.KEYPOINT_DETECTION: data.write_keypoint_dataset,
    names.IMAGE_CLASSIFICATION: data.write_classification_dataset,
}


@dataclass(frozen=True)
class Case:
    """One task of a framework with a model that learns on made pictures.

    Attributes:
        model: a card's name; "": the task's first that can be trained.
        config: `advanced_config` that makes the model small and its runs comparable: two runs of it with one seed,
            or one that was stopped and resumed, must end alike.
        workers_config: over `config` where two workers are compared with one. Pictures come in another order then, and
            every worker sees its own share, so: no augmentation, and batch norm over all workers.
        workers_images: pictures of the dataset for that, a quarter of them for validation. The default makes four
            batches an epoch, the last of three pictures: what is left out, seen twice, or weighed by workers instead of
            by pictures shows, as does a gradient that is not all workers'.
        workers_batch_size: over both workers. As many as the pictures for training where one worker alone sees them in
            another order than several do: batches of other pictures cannot be compared, but for the one of them all.
        images: pictures of the made dataset, a quarter of them for validation.
        weights: a file of pretrained weights to start from; None: from scratch.
        tolerance: by how much a metric may differ, relative to its size or absolutely, between runs that must be alike.
        workers_tolerance: the same between one worker and two.
        untold: names (patterns with `*`) of metrics that differ from run to run, such as times.
        workers_untold: the same for one worker and two: means over batches that are cut otherwise, say.
        prompt: for the predictor of a task that takes one.
    """

    task: str
    model: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    workers_config: Mapping[str, Any] = field(default_factory=dict)
    workers_images: int = 20
    workers_batch_size: int = 4
    epochs: int = 3
    batch_size: int = 4
    learning_rate: float | None = None
    images: int = 16
    image_size: int = 64
    weights: Path | None = None
    tolerance: float = 1e-6
    workers_tolerance: float = 1e-3
    untold: tuple[str, ...] = ()
    workers_untold: tuple[str, ...] = ()
    prompt: str = ""
    threshold: float = 0.0

    def prepared(self, python: str, code: Path, folder: Path) -> Case:
        """The case as it is tried; override it for one that must first make something by the plugin's own Python.

        Args:
            python: the interpreter that has the framework.
            code: for its PYTHONPATH: the core and the plugin.
            folder: for what is made; nothing else may be written to.
        """
        return self

    def write_dataset(self, root: Path, images: int) -> Dataset:
        """A dataset of the task below `root`, as the host would describe it."""
        if self.task not in WRITERS:
            raise NotImplementedError(
                f"Nobody makes pictures for '{self.task}': override Case.write_dataset, or name it in `untried`."
            )
        write = WRITERS[self.task]
        return read_dataset(write(root, images=images, size=self.image_size), self.task).dataset

    def told(self, metrics: Mapping[str, float], *more: str) -> dict[str, float]:
        """`metrics` without those that differ from run to run, nor what fits one of `more` patterns."""
        patterns = (*self.untold, *more)
        return {
            name: value
            for name, value in metrics.items()
            if not any(fnmatchcase(name, pattern) for pattern in patterns)
        }


def differences(one: Mapping[str, float], other: Mapping[str, float], tolerance: float) -> list[str]:
    """Every metric that is not in both or differs by more than `tolerance`, as a clause; NaN equals NaN."""
    found = [f"only one has {name}" for name in sorted(one.keys() ^ other.keys())]
    for name in sorted(one.keys() & other.keys()):
        a, b = one[name], other[name]
        both_nan = a != a and b != b
        if not both_nan and not abs(a - b) <= tolerance * max(1.0, abs(a), abs(b)):
            found.append(f"{name}: {a!r} and {b!r}")
    return found
