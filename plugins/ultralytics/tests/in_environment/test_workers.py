"""What several workers share: the batches, batch norm's statistics, what they learn, and the wish to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing, nn
from ultralytics.engine import trainer as ultralytics_trainer
from ultralytics.engine import validator as ultralytics_validator

from eagleray_ultralytics import group
from eagleray_ultralytics.batch_norm import over_all_workers
from eagleray_ultralytics.data_parallel import alone
from eagleray_ultralytics.shares import Shares

import workers  # isort: skip
from conftest import FRAMEWORK, write_dataset  # isort: skip

SIZES = [(1, 4, 1), (12, 4, 2), (13, 4, 2), (17, 4, 3), (10, 4, 4), (9, 16, 2), (100, 7, 3), (5, 2, 3)]


@pytest.mark.parametrize(("pictures", "batch_size", "workers"), SIZES)
def test_every_picture_is_seen_once_an_epoch_and_nobody_idles(pictures: int, batch_size: int, workers: int) -> None:
    shares = [list(Shares(pictures, batch_size, rank, workers, seed=0)) for rank in range(workers)]
    assert sorted(number for share in shares for batch in share for number in batch) == list(range(pictures))
    assert len({len(share) for share in shares}) == 1, "all workers take equally many steps"
    assert all(batch for share in shares for batch in share)


def test_a_batch_of_all_workers_has_the_size_that_was_asked_for() -> None:
    shares = [list(Shares(24, 6, rank, 4, seed=0)) for rank in range(4)]
    assert [sum(map(len, batches)) for batches in zip(*shares, strict=True)] == [6, 6, 6, 6]


def test_every_epoch_has_an_order_of_its_own_also_when_it_is_read_ahead() -> None:
    shares = Shares(32, 8, 0, 2, seed=3)
    first, ahead = list(shares), list(shares)
    assert first != ahead
    again = Shares(32, 8, 0, 2, seed=3)
    again.epoch = 1
    assert list(again) == ahead


def norm_of(rank: int, folder: str) -> None:
    """One worker of two: batch norm forwards and backwards on its half of the batch."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    images = torch.load(Path(folder, "images.pt"))[rank::2].requires_grad_()
    module = nn.BatchNorm2d(3, eps=1e-3, momentum=0.03)
    with over_all_workers():
        result = module(images)
    result.pow(3).sum().backward()
    state = {"result": result.detach(), "slope": images.grad, "weight_slope": module.weight.grad, **module.state_dict()}
    torch.save(state, Path(folder, f"rank-{rank}.pt"))
    assert group.any_of(rank == 1, False) == [True, False]
    assert group.total(rank + 1) == 3
    assert group.gathered(rank) == ([0, 1] if rank == 0 else [])
    distributed.destroy_process_group()


def test_batch_norm_of_two_workers_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    images = torch.randn(6, 3, 5, 4) * 3 + 7
    torch.save(images, tmp_path / "images.pt")
    multiprocessing.spawn(norm_of, args=(str(tmp_path),), nprocs=2)
    whole = images.clone().requires_grad_()
    module = nn.BatchNorm2d(3, eps=1e-3, momentum=0.03)
    result = module(whole)
    result.pow(3).sum().backward()
    workers = [torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2)]
    for rank, worker in enumerate(workers):
        assert torch.allclose(worker["result"], result.detach()[rank::2], atol=1e-5)
        assert torch.allclose(worker["slope"], whole.grad[rank::2], rtol=1e-3, atol=1e-4)
        assert torch.allclose(worker["running_mean"], module.running_mean, atol=1e-6)
        assert torch.allclose(worker["running_var"], module.running_var, rtol=1e-5)
        assert worker["num_batches_tracked"] == 1
    assert torch.allclose(
        workers[0]["weight_slope"] + workers[1]["weight_slope"], module.weight.grad, rtol=1e-4, atol=1e-3
    )


def test_outside_of_it_batch_norm_is_its_own_again() -> None:
    before = nn.BatchNorm2d.forward
    with over_all_workers():
        assert nn.BatchNorm2d.forward is not before
    assert nn.BatchNorm2d.forward is before


def test_a_worker_alone_is_rank_minus_one_for_ultralytics_only_while_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ultralytics_trainer, "RANK", 3)
    with alone():
        assert ultralytics_trainer.RANK == -1
        assert ultralytics_validator.RANK == -1
    assert ultralytics_trainer.RANK == 3


def test_one_worker_asks_nobody() -> None:
    assert group.size() == 1 and group.any_of(True, False) == [True, False]
    assert group.gathered("mine") == ["mine"] and group.total(2) == 2


FEW = [*((task, 5) for task in FRAMEWORK.tasks), ("object-detection", 1), ("image-classification", 1)]
# Batch norm over all workers, and nothing drawn at random: each worker would draw its own. Steps so small that what
# rounding changes does not grow from one to the next.
PLAIN: dict[str, Any] = {"sync_batch_norm": True, "nbs": 8, "warmup_epochs": 0.0, "optimizer": "SGD", "lr0": 1e-4}
PLAIN |= dict.fromkeys(("fliplr", "hsv_h", "hsv_s", "hsv_v", "scale"), 0.0) | {"workers": 0}
STILL = {task: PLAIN | {"mosaic": 0.0, "translate": 0.0} for task in FRAMEWORK.tasks}
STILL["image-classification"] = PLAIN | {"auto_augment": None, "erasing": 0.0}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """How far two models' learnt weights are from each other."""
    squares = [
        (one[name].double() - other[name].double()).square().sum()
        for name in one
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    ]
    return float(torch.stack(squares).sum().sqrt())


def test_two_workers_end_with_the_weights_of_one_on_the_whole_batch(tmp_path: Path) -> None:
    # 15 pictures are two batches of 8 and 7, of which one worker gets 4 and the other 3.
    datasets = {task: write_dataset(tmp_path / task, task, images=20) for task in FRAMEWORK.tasks}
    one, two = (
        workers.run(
            tmp_path / str(count),
            [
                workers.Job(tmp_path / str(count) / task, data, {"epochs": 2, "batch_size": 8, "config": STILL[task]})
                for task, data in datasets.items()
            ],
            count,
        )
        for count in (1, 2)
    )
    apart = {}
    for task, (only,), (first, second) in zip(datasets, one, two, strict=True):
        assert distance(only["before"], first["before"]) == distance(first["weights"], second["weights"]) == 0.0
        apart[task] = distance(only["weights"], first["weights"]) / distance(only["before"], only["weights"])
    print(f"two workers and one, in shares of what was learnt: {apart}")
    assert max(apart.values()) < 1e-3


def test_every_validation_picture_counts_once(tmp_path: Path) -> None:
    jobs = []
    for task, pictures in FEW:
        dataset = write_dataset(tmp_path / f"{task}-{pictures}", task, images=20)
        for superfluous in sorted((dataset.path / "valid").rglob("*.png"))[pictures:]:
            superfluous.unlink()
        changes = {"epochs": 1, "batch_size": 2, "config": {"workers": 0}}
        jobs.append(workers.Job(tmp_path / "jobs" / f"{task}-{pictures}", dataset, changes))
    found = workers.run(tmp_path / "two", jobs, 2)
    seen = [sorted(first["validated"] + second["validated"]) for first, second in found]
    assert seen == [list(range(pictures)) for _, pictures in FEW]


def test_a_loss_that_is_no_number_in_one_worker_takes_all_back_to_the_epoch_before(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "data", "object-detection", images=16)
    changes = {"epochs": 3, "batch_size": 4, "config": {"nbs": 4, "workers": 0}}
    # 12 pictures are three batches an epoch: it is the last one of the second.
    jobs = [workers.Job(tmp_path / f"lost-{rank}", dataset, changes, lost=(rank, 5)) for rank in (0, 1)]
    for both in workers.run(tmp_path / "two", jobs, 2):
        assert [[epoch for epoch, _ in worker["epochs"]] for worker in both] == [[1, 2, 3]] * 2
        first, second = (worker["weights"] for worker in both)
        assert distance(first, second) == 0.0 and all(torch.isfinite(tensor).all() for tensor in first.values())
