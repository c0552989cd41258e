"""Fixtures for the tests that run with the plugin's own Python, beside torch and Transformers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract import Dataset, ModelCard, Split, TrainingContext
from eagleray.testing import data as datasets
from eagleray.testing.host import RecordingHost, run_adapter
from eagleray_huggingface.framework import ENV_VARS, describe

from real import DIGITS, NAMES, write_pasted, write_scans  # isort: skip

FRAMEWORK = describe("0")
CLASSIFICATION, DETECTION = "image-classification", "object-detection"
SEGMENTATION, TEXT = "image-segmentation", "image-text-to-text"
# The hub's library reads these when it is imported, as on a worker.
HOME = tempfile.mkdtemp(prefix="eagleray-huggingface-")
os.environ.update({name: value.replace("{work_dir}", HOME) for name, value in ENV_VARS.items()})

WRITERS: dict[str, Callable[..., Path]] = {
    DETECTION: datasets.write_detection_dataset,
    SEGMENTATION: datasets.write_segmentation_dataset,
    CLASSIFICATION: datasets.write_classification_dataset,
}
PLAIN = {"augment": {"horizontal_flip": 0.0, "crop": 1.0}, "workers": 0}
VIT = {
    "model": "google/vit-base-patch16-224",
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "patch_size": 8,
}
SMALL_RESNET = {"depths": [1, 1], "hidden_sizes": [16, 32], "embedding_size": 16, "layer_type": "basic"}
RESNET = {"model": "microsoft/resnet-18", **SMALL_RESNET}
SMALL_DETR = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 8}
SMALL_DETR |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
SMALL_DETR |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
DETR = {
    "model": "facebook/detr-resnet-50",
    **SMALL_DETR,
    "backbone_config": {"model_type": "resnet", **SMALL_RESNET, "out_features": ["stage2"]},
}
RT_DETR = {
    "model": "PekingU/rtdetr_r18vd",
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "decoder_layers": 1,
    "num_queries": 16,
    "num_denoising": 4,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "decoder_in_channels": [32, 32, 32],
    "encoder_in_channels": [16, 32, 32],
    "anchor_image_size": None,
    "backbone_config": {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "embedding_size": 16},
}
SEGFORMER = {
    "model": "nvidia/segformer-b0-finetuned-ade-512-512",
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "decoder_hidden_size": 32,
    "num_attention_heads": [1, 1, 1, 1],
}
MASK2FORMER = {
    "model": "facebook/mask2former-swin-tiny-coco-instance",
    "hidden_dim": 32,
    "feature_size": 32,
    "mask_feature_size": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_queries": 8,
    "num_attention_heads": 2,
    "dim_feedforward": 64,
    "encoder_feedforward_dim": 64,
    "train_num_points": 256,
    "backbone_config": {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4},
}
CONVNEXT = {"model": "facebook/convnext-tiny-224", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
TINY: dict[str, dict[str, Any]] = {
    "vit": {"task": CLASSIFICATION, **VIT},
    "resnet": {"task": CLASSIFICATION, **RESNET},
    "convnext": {"task": CLASSIFICATION, **CONVNEXT},
    "detr": {"task": DETECTION, **DETR},
    "rt_detr": {"task": DETECTION, **RT_DETR},
    "segformer": {"task": SEGMENTATION, **SEGFORMER},
    "mask2former": {"task": SEGMENTATION, **MASK2FORMER},
}
SIZES = {kind: 32 if described["task"] == CLASSIFICATION else 64 for kind, described in TINY.items()}


def write_dataset(root: Path, task: str, images: int = 16, size: int = 64) -> Dataset:
    """A tiny dataset of `task` below `root`, as the host would describe it."""
    WRITERS[task](root, images=images, size=size)
    suffix = "" if task == CLASSIFICATION else "/images"
    splits = {
        name: Split(
            f"{folder}{suffix}",
            sum(1 for _ in (root / folder).rglob("*.png")),
            1,
            annotations="" if task == CLASSIFICATION else f"{folder}/labels",
        )
        for name, folder in (("train", "train"), ("val", "valid"))
    }
    form = "imagefolder" if task == CLASSIFICATION else "dice"
    return Dataset(path=root, format=form, task=task, classes=("a", "b"), splits=splits)


def make_config(task: str, values: dict[str, Any]) -> Any:
    module, _, name = FRAMEWORK.configs[task].partition(":")
    return getattr(import_module(module), name).model_validate(values)


def tiny_context(folder: Path, kind: str, dataset: Dataset, host: RecordingHost, **changes: Any) -> TrainingContext:
    """A context for a model of the architecture `kind`, small and from scratch."""
    described = dict(TINY[kind])
    task, model = described.pop("task"), described.pop("model")
    config = {"config_overrides": described, "image_size": SIZES[kind], **PLAIN, **changes.pop("config", {})}
    return make_context(folder, dataset, host, task=task, model=model, config=config, **changes)


def make_context(folder: Path, dataset: Dataset, host: RecordingHost, **changes: Any) -> TrainingContext:
    """A context of the dataset's task; `config` and `model` by their plain values."""
    values: dict[str, Any] = {"epochs": 2, "batch_size": 4, "pretrained": False, "learning_rate": 1e-3} | changes
    task, name = values.pop("task", dataset.task), values.pop("model")
    cards = [card for card in FRAMEWORK.models if (card.name, card.task) == (name, task)]
    work_dir = folder / "work"
    work_dir.mkdir(parents=True)
    return TrainingContext(
        job_id=1,
        attempt=1,
        task=task,
        model=cards[0] if cards else ModelCard(name, task, weights=name),
        config=make_config(task, values.pop("config", {})),
        dataset=dataset,
        work_dir=work_dir,
        host=host,
        **values,
    )


def train(context: TrainingContext) -> dict[str, float]:
    """The host's four calls; returns the final metrics."""
    from eagleray_huggingface.adapter import HuggingFaceAdapter

    return dict(run_adapter(HuggingFaceAdapter, context))


def again(context: TrainingContext, folder: Path, host: RecordingHost, **changes: Any) -> TrainingContext:
    """The same job elsewhere, for another host."""
    work_dir = folder / "work"
    work_dir.mkdir(parents=True)
    return replace(context, work_dir=work_dir, host=host, **changes)


def free_port() -> int:
    for port in range(36000, 36999):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise RuntimeError("no free port")


def state_of(host: RecordingHost, name: str = "model.pt") -> Any:
    import torch

    checkpoint = host.reports[-1].checkpoint
    assert checkpoint is not None
    return torch.load(checkpoint / name, weights_only=True)


def assert_same(one: Any, other: Any, tolerance: float = 0.0) -> None:
    """Both hold tensors of the same names, equal within `tolerance`."""
    import torch

    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(
            tensor, other[name], rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """No test reaches a network; what is tried is listed."""
    tried: list[object] = []
    connect = socket.socket.connect

    def refuse(*args: object, **kwargs: object) -> None:
        tried.append(args)
        raise OSError("no network in tests")

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"):
            connect(self, address)
        else:
            refuse(address)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", local_only)
    yield tried


@pytest.fixture(scope="session", autouse=True)
def home() -> Iterator[None]:
    yield
    shutil.rmtree(HOME, ignore_errors=True)


def write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("EAGLERAY_TEST_REAL_DATA")
    if not folder:
        pytest.skip("EAGLERAY_TEST_REAL_DATA names no folder with real scans and weights")
    return Path(folder)


@pytest.fixture(scope="session")
def scans(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Real scans of digits."""
    root = tmp_path_factory.mktemp("scans")
    write_scans(real_data, root)
    splits = {"train": Split("train", 2400, 2400), "val": Split("valid", 600, 600)}
    return Dataset(path=root, format="imagefolder", task=CLASSIFICATION, classes=DIGITS, splits=splits)


@pytest.fixture(scope="session")
def pasted(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Real scans on a grey ground, as COCO."""
    root = tmp_path_factory.mktemp("pasted")
    write_pasted(real_data, root)
    counts = {"train": ("train", 600), "val": ("valid", 100)}
    splits = {
        name: Split(folder, count, count, annotations=f"{folder}/_annotations.coco.json")
        for name, (folder, count) in counts.items()
    }
    return Dataset(path=root, format="coco", task=DETECTION, classes=NAMES, splits=splits)
