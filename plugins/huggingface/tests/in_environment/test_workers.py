"""Two workers train what one does on the whole batch; every sample is seen once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from eagleray.contract import ConfigError, TrainingError
from eagleray.testing.host import RecordingHost

import workers  # isort: skip
from conftest import (  # isort: skip
    CLASSIFICATION,
    DETECTION,
    TINY,
    assert_same,
    free_port,
    tiny_context,
    train,
    write_dataset,
)

# Gradients of two halves add up in another order than those of the whole; SGD keeps the difference as small as it is.
EXACT = {"optim": "sgd", "max_grad_norm": 0.0}


@pytest.mark.parametrize("kind", ["vit", "detr", "segformer"])
def test_two_workers_end_with_the_weights_and_figures_of_one(tmp_path: Path, kind: str) -> None:
    dataset = write_dataset(tmp_path / "data", TINY[kind]["task"], images=32)
    # Normalisation over a batch sees half of it in each worker.
    overrides = {"dropout": 0.0} if kind == "detr" else {}
    if kind == "segformer":
        overrides = {"classifier_dropout_prob": 0.0, "drop_path_rate": 0.0}
    described = {key: value for key, value in TINY[kind].items() if key not in ("task", "model")} | overrides
    changes = {"batch_size": 8, "config": {**EXACT, "config_overrides": described}}
    alone = workers.run(tmp_path / "alone", kind, dataset, 1, free_port(), changes=changes)[0]
    first, second = workers.run(tmp_path / "two", kind, dataset, 2, free_port(), changes=changes)
    assert first["epochs"] == second["epochs"]
    tolerance = 5e-3 if kind == "segformer" else 1e-4
    # Its first decoder layer attends to zeros, whose normalisation magnifies what rounding leaves of their difference.
    blind = "model.decoder.layers.0.self_attn."
    states = [
        {name: tensor for name, tensor in found["state"].items() if not name.startswith(blind)}
        for found in (first, alone)
    ]
    assert_same(*states, tolerance=tolerance)
    for (_, one), (_, two) in zip(alone["epochs"], first["epochs"], strict=True):
        # A detector's loss divides by the objects of its batch, which is half as large.
        assert one["val/loss"] == pytest.approx(two["val/loss"], rel=0.2 if kind == "detr" else tolerance)


@pytest.mark.parametrize(("images", "batch"), [(24, 8), (28, 8), (25, 8), (24, 5)])
def test_every_sample_is_seen_exactly_once_in_every_epoch(tmp_path: Path, images: int, batch: int) -> None:
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION, images=images, size=32)
    results = workers.run(tmp_path / "two", "vit", dataset, 2, free_port(), changes={"batch_size": batch})
    seen = Counter(name for result in results for name in result["drawn"])
    assert set(seen.values()) == {2} and len(seen) == dataset.splits["train"].num_images


def test_figures_are_those_of_all_pictures_however_they_are_shared(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", DETECTION, images=20)
    changes = {"epochs": 1, "config": EXACT, "batch_size": 2, "learning_rate": 1e-9}
    alone = workers.run(tmp_path / "alone", "rt_detr", dataset, 1, free_port(), changes=changes)[0]
    first, _ = workers.run(tmp_path / "two", "rt_detr", dataset, 2, free_port(), changes=changes)
    for name in ("metrics/mAP50-95", "metrics/mAP50", "metrics/recall"):
        assert first["final"][name] == pytest.approx(alone["final"][name], abs=1e-6)


def test_one_workers_stop_ends_both_at_the_same_step(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION, images=32)
    results = workers.run(tmp_path / "two", "vit", dataset, 2, free_port(), stop_after_steps=5, changes={"epochs": 9})
    assert [[epoch for epoch, _ in result["epochs"]] for result in results] == [[1]] * 2 or all(
        len(result["epochs"]) == len(results[0]["epochs"]) for result in results
    )


def test_a_batch_of_which_a_worker_would_have_nothing_is_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION)
    context = tiny_context(tmp_path, "vit", dataset, RecordingHost(tmp_path / "host"), world_size=3, batch_size=2)
    with pytest.raises(ConfigError, match="2 is not enough for 3 workers"):
        train(context)


def test_workers_that_do_not_see_one_another_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION)
    context = tiny_context(tmp_path, "vit", dataset, RecordingHost(tmp_path / "host"), world_size=2)
    with pytest.raises(TrainingError, match="accelerate sees 1 workers where there are 2"):
        train(context)


def test_variables_of_a_group_of_one_make_no_process_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION)
    train(tiny_context(tmp_path, "vit", dataset, RecordingHost(tmp_path / "host"), epochs=1))
    assert not torch.distributed.is_initialized()
