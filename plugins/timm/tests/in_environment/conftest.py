"""Fixtures for the tests that run with the plugin's own Python, beside torch and timm."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from eagleray.contract import Dataset, Split, TrainingContext
from eagleray.testing.data import write_classification_dataset
from eagleray.testing.host import RecordingHost, run_adapter
from eagleray_timm.adapter import TimmAdapter
from eagleray_timm.config import ClassificationConfig
from eagleray_timm.framework import TASK, describe

from scans import write_scans  # isort: skip

FRAMEWORK = describe("0")
CLASSES = ("a", "b", "c")
State = dict[str, torch.Tensor]


def write_dataset(root: Path, images: int = 40) -> Dataset:
    """An image folder of coloured shapes: three quarters of `images` for training."""
    write_classification_dataset(root, images=images, size=32, classes=CLASSES)
    return describe_folder(root, CLASSES)


def describe_folder(root: Path, classes: tuple[str, ...]) -> Dataset:
    counts = {name: sum(1 for _ in (root / name).rglob("*.png")) for name in ("train", "valid")}
    splits = {"train": Split("train", counts["train"], counts["train"]), "val": Split("valid", counts["valid"], 1)}
    return Dataset(root, "imagefolder", TASK, classes, splits)


def make_context(folder: Path, dataset: Dataset, host: RecordingHost, **changes: Any) -> TrainingContext:
    """A context at 32 pixels, from scratch; `config` and `model` by their plain values."""
    config = ClassificationConfig(**{"img_size": 32, "warmup_epochs": 0} | changes.pop("config", {}))
    model = changes.pop("model", "test_resnet")
    work_dir = folder / "work"
    work_dir.mkdir(parents=True)
    values: dict[str, Any] = {"epochs": 2, "batch_size": 8, "pretrained": False} | changes
    return TrainingContext(
        job_id=1,
        attempt=1,
        task=TASK,
        model=next(card for card in FRAMEWORK.models if card.name == model),
        config=config,
        dataset=dataset,
        work_dir=work_dir,
        host=host,
        **values,
    )


def train(folder: Path, dataset: Dataset, host: RecordingHost | None = None, **changes: Any) -> RecordingHost:
    """A run below `folder`; its host, which has kept everything."""
    host = host or RecordingHost(folder)
    run_adapter(TimmAdapter, make_context(folder, dataset, host, **changes))
    return host


def state_of(host: RecordingHost, epoch: int = -1) -> State:
    """The trained weights in the checkpoint of an epoch (by its place among the reports)."""
    checkpoint = host.reports[epoch].checkpoint
    assert checkpoint is not None
    return weights_in(checkpoint)


def weights_in(checkpoint: Path) -> State:
    """The trained weights: in `state.pt` where the portable model is their average."""
    apart: State | None = torch.load(checkpoint / "state.pt", weights_only=True)["model"]
    portable: State = torch.load(checkpoint / "model.pt", weights_only=True)["state_dict"]
    return portable if apart is None else apart


def assert_same(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("EAGLERAY_TEST_REAL_DATA")
    if not folder:
        pytest.skip("EAGLERAY_TEST_REAL_DATA names no folder with real scans and weights")
    return Path(folder)


@pytest.fixture(scope="session")
def scans(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("scans")
    write_scans(real_data, root)
    return describe_folder(root, tuple("0123456789"))


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """No test reaches a network; what is tried is listed."""
    tried: list[object] = []

    def refuse(*args: object, **kwargs: object) -> None:
        tried.append(args)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield tried
