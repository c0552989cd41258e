"""Each setting does what its description says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from eagleray.contract import ConfigError, Resume
from eagleray.testing.host import RecordingHost

import workers  # isort: skip
from conftest import (  # isort: skip
    CLASSIFICATION,
    assert_same,
    free_port,
    make_context,
    state_of,
    tiny_context,
    train,
    write_dataset,
)
from language import write_conversations, write_model  # isort: skip


def weights_of(folder: Path, kind: str, **changes: Any) -> Any:
    """The weights after an epoch on the folder's dataset."""
    dataset = write_dataset(folder / "data", CLASSIFICATION)
    host = RecordingHost(folder / "host")
    train(tiny_context(folder, kind, dataset, host, **{"epochs": 1, **changes}))
    return state_of(host)["state_dict"]


def language_weights(folder: Path, **config: Any) -> Any:
    """The weights of a vision-language model after an epoch."""
    model, dataset = write_model(folder / "model"), write_conversations(folder / "data")
    host = RecordingHost(folder / "host")
    values = {"workers": 0, **config}
    train(make_context(folder / "run", dataset, host, model=str(model), pretrained=True, epochs=1, config=values))
    return state_of(host)["state_dict"]


def test_the_normalisation_of_a_frozen_backbone_stands_still(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION)
    host = RecordingHost(tmp_path / "host")
    train(tiny_context(tmp_path, "resnet", dataset, host, learning_rate=0.1, config={"freeze_backbone": True}))
    saved = [report.checkpoint for report in host.reports if report.checkpoint is not None]
    first, last = (torch.load(folder / "model.pt", weights_only=True)["state_dict"] for folder in saved)
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}


def test_a_frozen_vision_tower_has_no_adapters(tmp_path: Path) -> None:
    state = language_weights(tmp_path, lora={"r": 4, "dropout": 0.0})
    adapters = {name for name in state if "lora_" in name}
    assert adapters and not {name for name in adapters if "vision_tower" in name}


def test_a_vision_tower_that_is_not_frozen_gets_adapters(tmp_path: Path) -> None:
    state = language_weights(tmp_path, lora={"r": 4, "dropout": 0.0}, freeze_vision=False)
    moved = [name for name, tensor in state.items() if "lora_B" in name and "vision_tower" in name and tensor.any()]
    assert moved


def test_a_frozen_backbone_that_holds_all_adapters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Nothing is left to train"):
        language_weights(tmp_path, freeze_backbone=True)


def test_synchronised_normalisation_without_gpus_is_said_to_do_nothing(tmp_path: Path) -> None:
    from eagleray_huggingface.models import synchronised

    dataset = write_dataset(tmp_path / "data", CLASSIFICATION)
    host = RecordingHost(tmp_path / "host")
    context = tiny_context(tmp_path, "resnet", dataset, host, world_size=2, config={"sync_batchnorm": True})
    model = torch.nn.BatchNorm2d(3)
    assert synchronised(context, model) is model
    assert len(host.warnings) == 1 and "sync_batchnorm" in host.warnings[0]


def test_checkpointed_gradients_are_the_same_gradients(tmp_path: Path) -> None:
    plain = weights_of(tmp_path / "plain", "vit")
    assert_same(weights_of(tmp_path / "less", "vit", config={"gradient_checkpointing": True}), plain, tolerance=1e-6)


def test_smoothed_labels_change_what_is_learnt(tmp_path: Path) -> None:
    plain = weights_of(tmp_path / "plain", "vit")
    smooth = weights_of(tmp_path / "smooth", "vit", config={"label_smoothing_factor": 0.5})
    assert any(not torch.equal(smooth[name], plain[name]) for name in plain)


def test_half_precision_trains_and_saves_whole_weights(tmp_path: Path) -> None:
    state = weights_of(tmp_path, "vit", config={"precision": "bf16"})
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_is_resumed_by_another_number_of_workers(tmp_path: Path, before: int, after: int) -> None:
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION)
    first = workers.run(tmp_path / "first", "vit", dataset, before, free_port(), changes={"epochs": 1})[0]
    copy = tmp_path / "resume"
    shutil.copytree(first["saved"][0], copy)
    changes = {"epochs": 2, "resume": Resume(copy, 1, {})}
    for found in workers.run(tmp_path / "second", "vit", dataset, after, free_port(), changes=changes):
        assert [epoch for epoch, _ in found["epochs"]] == [2]
