"""Fixtures for the tests that run with the plugin's own Python, beside torch and Ultralytics."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract import Dataset, Resume, Split, TrainingContext
from eagleray.testing import data as datasets
from eagleray_ultralytics.framework import ENV_VARS, describe

FRAMEWORK = describe("0")
# Ultralytics reads these when it is imported, as on a worker.
HOME = tempfile.mkdtemp(prefix="eagleray-ultralytics-")
os.environ.update({name: value.replace("{work_dir}", HOME) for name, value in ENV_VARS.items()})

WRITERS: dict[str, Callable[..., Path]] = {
    "object-detection": datasets.write_detection_dataset,
    "image-segmentation": datasets.write_segmentation_dataset,
    "keypoint-detection": datasets.write_keypoint_dataset,
    "image-classification": datasets.write_classification_dataset,
}


class Recorder:
    """The host's side of a context: keeps what it is told, and asks to stop when told to."""

    def __init__(self, folder: Path, stop_after: int = 0, stop_at_step: tuple[int, int] = (0, 0)) -> None:
        self.folder, self.stop_after, self.stop_at_step = folder, stop_after, stop_at_step
        self.reports: list[tuple[int, dict[str, float]]] = []
        self.steps: list[tuple[int, int, int]] = []
        self.files: list[str] = []
        self.warnings: list[str] = []
        self.best: Path | None = None
        self.weights: Path | None = None
        self.stopping = False

    def report(self, epoch: int, metrics: Mapping[str, float], save: Callable[[Path], None] | None) -> None:
        self.reports.append((epoch, dict(metrics)))
        if save:
            self.checkpoint(epoch).mkdir(parents=True)
            save(self.checkpoint(epoch))
        self.stopping |= epoch == self.stop_after

    def progress(self, epoch: int, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        self.steps.append((epoch, step, steps))
        self.stopping |= (epoch, step) == self.stop_at_step

    def should_stop(self) -> bool:
        return self.stopping

    def keep_weights(self, path: Path) -> None:
        self.weights = path

    def keep_file(self, path: Path, name: str) -> None:
        self.files.append(name)

    def publish_best(self, path: Path) -> None:
        self.best = Path(shutil.copy(path, self.folder / "best.pt"))

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def checkpoint(self, epoch: int) -> Path:
        return self.folder / f"checkpoint-{epoch}"


def write_dataset(root: Path, task: str, images: int = 16) -> Dataset:
    """A tiny dataset of `task` below `root`, as the host would describe it."""
    WRITERS[task](root, images=images)
    pose = task == "keypoint-detection"
    suffix = "" if task == "image-classification" else "/images"
    splits = {
        name: Split(f"{folder}{suffix}", sum(1 for _ in (root / folder).rglob("*.png")), 1)
        for name, folder in (("train", "train"), ("val", "valid"))
    }
    return Dataset(
        path=root,
        format="imagefolder" if task == "image-classification" else "dice",
        task=task,
        classes=("a",) if pose else ("a", "b"),
        splits=splits,
        keypoints=(2, 3) if pose else None,
        flip_index=(1, 0) if pose else (),
    )


def make_context(folder: Path, dataset: Dataset, host: Recorder, **changes: Any) -> TrainingContext:
    """A context for yolo11n from scratch at 64 pixels; `config` and `model` by their plain values."""
    task = dataset.task
    module, _, name = FRAMEWORK.configs[task].partition(":")
    config = getattr(import_module(module), name)(**{"imgsz": 64, "plots": False} | changes.pop("config", {}))
    model = changes.pop("model", "yolo11n")
    card = next(card for card in FRAMEWORK.models if (card.name, card.task) == (model, task))
    work_dir = folder / "work"
    work_dir.mkdir(parents=True)
    values: dict[str, Any] = {"epochs": 2, "batch_size": 4, "pretrained": False} | changes
    return TrainingContext(
        job_id=1,
        attempt=1,
        task=task,
        model=card,
        config=config,
        dataset=dataset,
        work_dir=work_dir,
        host=host,
        **values,
    )


def train(context: TrainingContext) -> dict[str, float]:
    """The host's four calls; returns the final metrics."""
    from eagleray_ultralytics.adapter import UltralyticsAdapter

    adapter = UltralyticsAdapter(context)
    adapter.load_data()
    adapter.load_model()
    adapter.train()
    return dict(adapter.validate())


def resume_from(host: Recorder, epoch: int, target: Path) -> Resume:
    """The checkpoint of `epoch` on "another node": elsewhere, and what it came from is gone."""
    shutil.move(host.checkpoint(epoch), target)
    shutil.rmtree(host.folder)
    return Resume(target, epoch, {})


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """No test reaches a network; what is tried is listed, and a test that expects none fails at the end."""
    tried: list[object] = []

    def refuse(*args: object, **kwargs: object) -> None:
        tried.append(args)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield tried
