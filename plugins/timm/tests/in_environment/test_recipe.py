"""What the configuration makes of timm's factories."""

from __future__ import annotations

from typing import get_args

import pytest
import timm
import torch
from timm.optim import list_optimizers

from eagleray.contract import ConfigError
from eagleray_timm.config import ClassificationConfig
from eagleray_timm.evaluation import Counts
from eagleray_timm.options import OptimizerName
from eagleray_timm.recipe import (
    Mixing,
    class_weights,
    learning_rate,
    make_loss,
    make_optimizer,
    make_schedule,
)

CPU = torch.device("cpu")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_every_optimizer_is_timms_and_takes_a_step(name: str) -> None:
    assert name in list_optimizers()
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=2, img_size=32)
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = make_optimizer(model, ClassificationConfig(opt=name), 0.1)
    for _ in range(2):
        model(torch.rand(2, 3, 32, 32)).square().sum().backward()
        optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("on_updates", [True, False])
@pytest.mark.parametrize("name", ["cosine", "tanh", "step", "multistep", "poly", "wsd", "rsqrt", "constant"])
def test_every_schedule_warms_up_and_never_exceeds_the_rate(name: str, on_updates: bool) -> None:
    config = ClassificationConfig(sched=name, warmup_epochs=2, sched_on_updates=on_updates, decay_milestones=[5])
    rates = rates_of(config, epochs=10, per_epoch=3)
    assert rates[0] == pytest.approx(1e-5) and 0.05 < max(rates) <= 0.1 + 1e-9
    assert name == "constant" or rates[-1] < 0.1 or name == "step"


def rates_of(config: ClassificationConfig, epochs: int, per_epoch: int) -> list[float]:
    """The learning rate of every update of a run at 0.1."""
    optimizer = make_optimizer(torch.nn.Linear(2, 2), config.model_copy(update={"opt": "sgd"}), 0.1)
    schedule = make_schedule(optimizer, config, epochs, per_epoch)
    rates = []
    for epoch in range(1, epochs + 1):
        for step in range(per_epoch):
            rates.append(optimizer.param_groups[0]["lr"])
            schedule.step_update(num_updates=(epoch - 1) * per_epoch + step + 1)
        schedule.step(epoch)
    return rates


def test_cycles_share_the_run_and_a_cooldown_ends_it() -> None:
    config = ClassificationConfig(warmup_epochs=0, lr_cycle_limit=2, lr_cycle_decay=1.0, cooldown_epochs=2)
    rates = rates_of(config, epochs=10, per_epoch=4)
    assert rates[0] == rates[16] == pytest.approx(0.1) and rates[-1] == 0.0


def test_the_rate_follows_the_batch_as_in_timms_script() -> None:
    assert learning_rate(ClassificationConfig(opt="sgd"), None, 512) == pytest.approx(0.2)
    assert learning_rate(ClassificationConfig(opt="adamw"), None, 1024) == pytest.approx(0.002)
    assert learning_rate(ClassificationConfig(), 0.3, 8) == 0.3
    with pytest.raises(ConfigError, match="lr_base"):
        learning_rate(ClassificationConfig(lr_base=0.1), 0.3, 8)


def test_layer_decay_gives_the_head_the_largest_rate() -> None:
    model = timm.create_model("test_vit", num_classes=2, img_size=32)
    optimizer = make_optimizer(model, ClassificationConfig(layer_decay=0.5), 0.1)
    scales = [group["lr_scale"] for group in optimizer.param_groups]
    assert max(scales) == 1.0 and min(scales) < 0.5


def test_weighted_cross_entropy_counts_pictures_not_weights() -> None:
    config = ClassificationConfig(class_weights={"b": 3.0}, smoothing=0.0)
    weights = class_weights(config, ("a", "b"), [1, 1], 2)
    loss = make_loss(config, weights, CPU)
    logits, targets = torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1])
    each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    assert loss(logits, targets).item() == pytest.approx(float((each[0] + 3 * each[1]) / 2))


def test_rarer_classes_weigh_more() -> None:
    weights = class_weights(ClassificationConfig(class_weights="inv_freq"), ("a", "b"), [90, 10], 100)
    assert float(weights[1] / weights[0]) == pytest.approx(9.0)


def test_a_weight_for_a_class_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"names dog.*Its classes: a, b"):
        class_weights(ClassificationConfig(class_weights={"dog": 2.0}), ("a", "b"), [1, 1], 2)


@pytest.mark.parametrize("loss", ["ce", "bce", "asl", "poly"])
def test_every_single_label_loss_is_finite_and_falls(loss: str) -> None:
    criterion = make_loss(ClassificationConfig(loss=loss), None, CPU)
    wrong, right = torch.tensor([[3.0, -3.0]]), torch.tensor([[-3.0, 3.0]])
    target = torch.tensor([1])
    assert 0 <= float(criterion(right, target)) < float(criterion(wrong, target))


@pytest.mark.parametrize("loss", ["bce", "asl", "poly", "twoway", "zlpr"])
def test_every_multi_label_loss_is_finite_and_falls(loss: str) -> None:
    criterion = make_loss(ClassificationConfig(multi_label=True, loss=loss), None, CPU)
    wrong, right = torch.tensor([[3.0, -3.0]]), torch.tensor([[-3.0, 3.0]])
    target = torch.tensor([[0.0, 1.0]])
    assert float(criterion(right, target)) < float(criterion(wrong, target)) < float("inf")


@pytest.mark.parametrize("count", [1, 5, 6])
def test_mixing_takes_a_batch_of_any_size(count: int) -> None:
    mixing = Mixing(ClassificationConfig(mixup=1.0, smoothing=0.0), 3)
    mixing.start(1)
    pictures, targets = mixing(torch.rand(count, 3, 8, 8), torch.arange(count) % 3)
    assert pictures.shape[0] == count and torch.allclose(targets.sum(1), torch.ones(count))
    if count % 2:
        assert targets[-1].max() == 1.0


def test_mixing_ends_after_its_epoch() -> None:
    mixing = Mixing(ClassificationConfig(mixup=1.0, mixup_off_epoch=2, smoothing=0.0), 3)
    mixing.start(3)
    assert mixing(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))[1].max(1).values.tolist() == [1.0] * 4


def test_a_picture_without_a_label_is_neither_right_nor_wrong() -> None:
    counts = Counts(ClassificationConfig(multi_label=True), 2, CPU)
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    counts.add(torch.tensor([[3.0, -3.0], [-3.0, 3.0], [3.0, -3.0]]), targets)
    assert counts.metrics()["metrics/accuracy_top1"] == 0.5
    # Given one that it has not, it is a false positive.
    assert counts.metrics()["metrics/precision"] == 0.25
