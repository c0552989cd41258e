"""Files from strangers: weights, descriptions of models and of datasets that would run a command run none."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Recorder, make_context, train, write_dataset

from eagleray.contract import WeightsError


class Command:
    """Runs a shell command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What the attack would leave behind."""
    return tmp_path / "pwned"


def save(kind: str, content: Any, path: Path) -> None:
    if kind == "plain pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain pickle"])
@pytest.mark.parametrize("key", ["model", "train_args", "optimizer", "extra"])
def test_weights_that_would_run_a_command_are_refused(kind: str, key: str, marker: Path, tmp_path: Path) -> None:
    file = tmp_path / "evil.pt"
    save(kind, {"model": None, "train_args": {}, "epoch": -1, key: Command(f"touch {marker}")}, file)
    dataset = write_dataset(tmp_path / "data", "object-detection", images=4)
    context = make_context(tmp_path, dataset, Recorder(tmp_path / "host"), pretrained=True, weights=file)

    with pytest.raises(WeightsError, match="cannot be loaded"):
        train(context)

    assert not marker.exists()


def test_the_attack_would_work_without_a_guard(marker: Path, tmp_path: Path) -> None:
    save("zip", {"model": Command(f"touch {marker}")}, tmp_path / "evil.pt")

    torch.load(tmp_path / "evil.pt", weights_only=False)

    assert marker.exists()


@pytest.mark.parametrize("call", ["__import__('os').system('touch {}')", "torch.nn.ReLU(os.system('touch {}'))"])
def test_a_description_of_a_model_runs_no_command(call: str, marker: Path, tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    layers = "backbone:\n  - [-1, 1, Conv, [8, 3, 2]]\nhead:\n  - [[0], 1, Detect, [nc]]\n"
    file.write_text(f'nc: 2\nactivation: "{call.format(marker)}"\n{layers}')
    dataset = write_dataset(tmp_path / "data", "object-detection", images=4)
    context = make_context(tmp_path, dataset, Recorder(tmp_path / "host"), pretrained=True, weights=file)

    with pytest.raises(WeightsError, match="cannot be loaded"):
        train(context)

    assert not marker.exists()


def test_what_a_dataset_would_download_or_run_is_not(marker: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", "object-detection", images=4)
    script = f"__import__('os').system('touch {marker}')"
    with (tmp_path / "data/data.yaml").open("a") as file:
        file.write(f'download: "{script}"\nval: nowhere\npath: /\n')
    context = make_context(tmp_path, dataset, Recorder(tmp_path / "host"), epochs=1)

    assert train(context)

    assert not marker.exists()
    assert "download" not in (context.work_dir / "dataset/data.yaml").read_text()
