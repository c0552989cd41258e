"""Several workers train what one does, and every picture is seen once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from eagleray.testing.attempt import AttemptSpec
from eagleray.testing.attempts import Outcome, Runner, code_folder
from eagleray_timm.loader import EpochSampler, Plan

from conftest import TASK, State, weights_in, write_dataset  # isort: skip

PLANS = [
    Plan(count, batch, workers)
    for workers in (1, 2, 3, 4)
    for batch in (workers, workers + 1, 8, 13, 32)
    if batch >= workers
    for count in range(2 * workers, 70)
]


def test_every_picture_is_in_one_batch_of_one_worker_in_every_epoch() -> None:
    for plan in PLANS:
        samplers = [EpochSampler(plan, rank, shuffle=True, seed=3) for rank in range(plan.world_size)]
        for sampler in samplers:
            sampler.epoch = 2
        seen = [key for sampler in samplers for batch in sampler for key in batch]
        assert sorted(seen) == [(2, index) for index in range(plan.count)], plan


def test_every_worker_has_a_part_of_every_training_batch_and_none_is_too_large() -> None:
    for plan in PLANS:
        sizes = plan.sizes
        assert sum(sizes) == plan.count, plan
        assert min(plan.share(size, plan.world_size - 1) for size in sizes) >= 1, plan
        # One picture more for some workers, only where a batch is one picture for each.
        assert max(sizes) <= max(plan.batch_size, 2 * plan.world_size - 1), plan


def test_a_batch_of_one_picture_is_avoided() -> None:
    assert Plan(33, 8).sizes == [8, 8, 8, 5, 4]
    assert Plan(30, 8, 2).sizes == [8, 8, 8, 6]


def test_epochs_come_in_different_orders_and_validation_in_its_own() -> None:
    plan = Plan(20, 8)
    sampler, ordered = EpochSampler(plan, 0, shuffle=True, seed=0), EpochSampler(plan, 0, shuffle=False, seed=0)
    first = [index for batch in sampler for _, index in batch]
    sampler.epoch = 2
    assert first != [index for batch in sampler for _, index in batch]
    assert [index for batch in ordered for _, index in batch] == list(range(20))


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(sys.executable, code_folder(tmp_path_factory.mktemp("code"), ["eagleray", "eagleray_timm"]))


def weights(outcome: Outcome) -> State:
    assert outcome.error is None, outcome.error
    return weights_in(outcome.resume().path)


def test_two_workers_end_with_the_weights_of_one_on_the_whole_batch(tmp_path: Path, runner: Runner) -> None:
    dataset = write_dataset(tmp_path / "data")  # 30 for training: the last batch is smaller, augmentation is on
    spec = AttemptSpec(
        plugin="eagleray_timm",
        framework="timm",
        folder=tmp_path / "one",
        task=TASK,
        model="test_vit",
        config={"img_size": 32, "warmup_epochs": 0, "opt": "sgd", "grad_accum_steps": 3, "class_weights": "inv_freq"},
        dataset=dataset,
        epochs=2,
        batch_size=8,
        learning_rate=0.05,
    )
    one = runner.run(spec)
    two = runner.run_workers(AttemptSpec(**{**vars(spec), "folder": tmp_path / "two"}), 2)
    alone, first = weights(one), weights(two[0])
    for name, value in alone.items():
        assert torch.allclose(value, first[name], atol=1e-5), name
    for report, same in zip(one.reports, two[0].reports, strict=True):
        assert report.metrics == pytest.approx(dict(same.metrics), abs=1e-4)
    assert [len(outcome.steps) for outcome in two] == [8, 8]


def test_batch_norm_statistics_are_evened_out_and_what_is_not_shared_is_said(tmp_path: Path, runner: Runner) -> None:
    spec = AttemptSpec(
        plugin="eagleray_timm",
        framework="timm",
        folder=tmp_path / "two",
        task=TASK,
        model="test_resnet",
        config={"img_size": 32, "sync_bn": True, "workers": 1, "multi_label": True, "loss": "twoway", "smoothing": 0.0},
        dataset=write_dataset(tmp_path / "data"),
        epochs=1,
        batch_size=8,
    )
    first, second = runner.run_workers(spec, 2)
    assert first.error is None and second.error is None, (first.error, second.error)
    assert dict(first.reports[0].metrics) == dict(second.reports[0].metrics)
    warnings = "\n".join(first.result["warnings"])
    assert "sync_bn acts on GPUs only" in warnings and "loss=twoway compares the pictures of a batch" in warnings
