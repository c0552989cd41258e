"""What a checkpoint folder holds, file by file."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils.torch_utils import strip_optimizer

from eagleray_ultralytics import checkpoint

from conftest import FRAMEWORK, Recorder, make_context, train, write_dataset  # isort: skip

DATED = {"date"}


@pytest.mark.parametrize("task", FRAMEWORK.tasks)
def test_what_is_written_without_reading_is_what_ultralytics_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    """Key by key, so that a release of Ultralytics that adds something to its checkpoints is noticed."""
    theirs: list[Path] = []
    save = BaseTrainer.save_model

    def saved(trainer: Any) -> bool:
        done = bool(save(trainer))
        theirs.append(tmp_path / f"theirs-{trainer.epoch + 1}.pt")
        theirs[-1].write_bytes(trainer.last.read_bytes())
        return done

    monkeypatch.setattr(BaseTrainer, "save_model", saved)
    host = Recorder(tmp_path / "run")
    train(make_context(host.folder, write_dataset(tmp_path / "data", task), host, epochs=2))
    for epoch, file in enumerate(theirs, start=1):
        their_state = torch.load(file, weights_only=False)
        our_state = torch.load(host.checkpoint(epoch) / "state.pt", weights_only=True)
        assert set(their_state) - set(our_state) == {"git"}
        for name in set(their_state) - DATED - {"git", "license", "ema", "optimizer"}:
            assert our_state[name] == their_state[name], name
        strip_optimizer(file, s=str(tmp_path / "stripped.pt"))
        their_model = torch.load(tmp_path / "stripped.pt", weights_only=False)
        our_model = torch.load(host.checkpoint(epoch) / "model.pt", weights_only=False)
        assert set(their_model) - set(our_model) == {"git"}
        for name in set(their_model) - DATED - {"git", "license", "model"}:
            assert our_model[name] == their_model[name], name
        their_tensors, our_tensors = their_model["model"].state_dict(), our_model["model"].state_dict()
        assert their_tensors.keys() == our_tensors.keys()
        assert all(torch.equal(value, our_tensors[name]) for name, value in their_tensors.items())
        assert not any(value.requires_grad for value in our_model["model"].parameters())
        assert vars(their_model["model"]).keys() == vars(our_model["model"]).keys()
        assert getattr(their_model["model"], "args", {}) == getattr(our_model["model"], "args", {})


def test_the_portable_best_is_made_again_only_where_no_checkpoint_was_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bytes] = []

    def strip(source: Path, target: Path) -> None:
        made.append(source.read_bytes())
        target.write_bytes(b"portable " + made[-1])

    monkeypatch.setattr(checkpoint, "strip", strip)
    best = tmp_path / "best.pt"
    trainer = SimpleNamespace(best=best)
    for number, content in enumerate((b"first", b"second"), start=1):
        best.write_bytes(content)
        later = best.stat().st_mtime_ns + number * 1_000_000_000
        os.utime(best, ns=(later, later))
        for _ in range(2):
            file = checkpoint._stripped_best(trainer)
            assert file.read_bytes() == b"portable " + content
            os.utime(file, ns=(later + 1, later + 1))
    assert made == [b"first", b"second"]
