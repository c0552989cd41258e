"""What an adapter is given. Free of Ray, so an adapter is tested without a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from eagleray.contract.framework import ModelCard


@dataclass(frozen=True)
class Split:
    """One split of a dataset.

    Attributes:
        images: folder of the images, relative to the dataset's path.
        num_images: pictures, backgrounds included.
        num_annotations: objects (detection, segmentation, pose) or labelled pictures (classification).
        num_backgrounds: pictures without any object.
        annotations: file or folder of the labels, relative to the dataset's path; empty where folders are the labels.
    """

    images: str
    num_images: int
    num_annotations: int
    num_backgrounds: int = 0
    annotations: str = ""


@dataclass(frozen=True)
class Dataset:
    """A dataset on this node, already checked.

    Attributes:
        path: its root folder; read-only for an adapter.
        format: `dice`, `yolo`, `imagefolder`, …
        splits: `train`, `val` and, where there is one, `test`.
        keypoints: `(count, dims)` of a pose dataset's keypoints, else None.
        flip_index: order of the keypoints in a mirrored picture; empty where the dataset names none.
        tables: of the format `csv`, the files to read, relative to `path`; empty: all that lie there.
    """

    path: Path
    format: str
    task: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    keypoints: tuple[int, int] | None = None
    flip_index: tuple[int, ...] = ()
    tables: tuple[str, ...] = ()

    @property
    def num_images(self) -> int:
        return sum(split.num_images for split in self.splits.values())

    @property
    def num_annotations(self) -> int:
        return sum(split.num_annotations for split in self.splits.values())


@dataclass(frozen=True)
class Resume:
    """The committed checkpoint to continue from.

    Attributes:
        path: folder with the files that `save_checkpoint` wrote, on this node; the adapter may change it freely.
        epoch: the last finished epoch, 1-based; training continues at `epoch + 1`.
    """

    path: Path
    epoch: int
    metrics: Mapping[str, float]


class TrainingHost(Protocol):
    """The other side of a `TrainingContext`; adapters call the context, not this."""

    def report(self, epoch: int, metrics: Mapping[str, float], save: Callable[[Path], None] | None) -> None: ...

    def progress(self, epoch: int, step: int, steps: int, metrics: Mapping[str, float]) -> None: ...

    def should_stop(self) -> bool: ...

    def keep_weights(self, path: Path) -> None: ...

    def keep_file(self, path: Path, name: str) -> None: ...

    def publish_best(self, path: Path) -> None: ...

    def warn(self, message: str) -> None: ...


@dataclass
class TrainingContext:
    """One attempt of a job, as seen by one worker.

    Attributes:
        task: canonical task name.
        model: the card of the model to train.
        epochs: how many in all, also when resuming.
        batch_size: over all workers; `"auto"` only where the framework says it can.
        learning_rate: None leaves the framework's default.
        config: the validated `advanced_config`, an instance of the plugin's model for the task.
        pretrained: whether to start from pretrained weights.
        weights: their file on this node, or their folder where they are several files, to change freely; None: not in
            the store, the adapter fetches them and calls `keep_weights`.
        further_weights: files of the card's `further_weights`, by name.
        work_dir: the only place to write to; empty at start.
        device: `cpu` or `cuda:0`.
        resume: where to continue, or None for a fresh start.
    """

    job_id: int
    attempt: int
    task: str
    model: ModelCard
    epochs: int
    batch_size: int | Literal["auto"]
    config: Any
    dataset: Dataset
    work_dir: Path
    host: TrainingHost
    learning_rate: float | None = None
    seed: int = 0
    pretrained: bool = True
    weights: Path | None = None
    weights_location: str = ""
    further_weights: Mapping[str, Path] = field(default_factory=dict)
    resume: Resume | None = None
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: str = "cpu"

    def report(self, epoch: int, metrics: Mapping[str, float], save: Callable[[Path], None] | None = None) -> None:
        """Say that `epoch` (1-based) is finished. Every worker calls it once an epoch.

        The host decides whether a checkpoint is due; if so it calls `save(folder)` on rank 0 before it returns.
        """
        self.host.report(epoch, {name: float(value) for name, value in metrics.items()}, save)

    def progress(self, epoch: int, step: int, steps: int, metrics: Mapping[str, float] | None = None) -> None:
        """Say that `step` of `steps` (1-based) of `epoch` is done. Cheap: call it as often as you like."""
        self.host.progress(epoch, step, steps, metrics or {})

    @property
    def should_stop(self) -> bool:
        """True once the job is to end; check it at least once a batch and return from `train()` soon after."""
        return self.host.should_stop()

    def keep_weights(self, path: Path) -> None:
        """Keep pretrained weights that the framework fetched, a file or a folder, so that no later job fetches them."""
        self.host.keep_weights(path)

    def keep_file(self, path: Path, name: str = "") -> None:
        """Keep a plot or a table with the job, under `files/{name}`."""
        self.host.keep_file(path, name or path.name)

    def publish_best(self, path: Path) -> None:
        """Replace the job's `best.pt` by `path` (stripped of optimizer state, say). Resumable state stays as it is."""
        self.host.publish_best(path)

    def warn(self, message: str) -> None:
        """Say a sentence that whoever asked for the job must read: a knob of theirs that has no effect, say.

        It is shown at once and kept in the job's record, once also where several workers say the same.
        """
        self.host.warn(str(message))
