"""What several workers share: the batches, batch norm's statistics and the wish to stop."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn
from ultralytics.engine import trainer as ultralytics_trainer

from eagleray_ultralytics import group
from eagleray_ultralytics.batch_norm import over_all_workers
from eagleray_ultralytics.data_parallel import alone
from eagleray_ultralytics.shares import Shares

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
        assert sys.modules["ultralytics.engine.validator"].RANK == -1
    assert ultralytics_trainer.RANK == 3


def test_one_worker_asks_nobody() -> None:
    assert group.size() == 1 and group.any_of(True, False) == [True, False]
    assert group.gathered("mine") == ["mine"] and group.total(2) == 2
