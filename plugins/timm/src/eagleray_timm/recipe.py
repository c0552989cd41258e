"""timm's factories, called with a configuration: loss, mixing, optimizer, schedule, precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.data import Mixup
from timm.data.mixup import mixup_target
from timm.loss import compute_class_weights, create_classification_loss
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch.nn import functional

from eagleray.contract import ConfigError
from eagleray_timm.config import ClassificationConfig

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
LR_BASE_BATCH = 256


def class_weights(config: ClassificationConfig, classes: Sequence[str], positives: Sequence[int], count: int) -> Any:
    """Weight of each class, float `[classes]`, or None; `positives` are the pictures of each class among `count`."""
    rule = config.class_weights
    if rule is None:
        return None
    if isinstance(rule, str):
        return compute_class_weights(list(positives), count, method=rule)[1]
    unknown = sorted(set(rule) - set(classes))
    if unknown:
        raise ConfigError(
            f"class_weights names {', '.join(unknown)}, which the dataset lacks.", f"Its classes: {', '.join(classes)}."
        )
    return torch.tensor([rule.get(name, 1.0) for name in classes])


def make_loss(config: ClassificationConfig, weights: torch.Tensor | None, device: torch.device) -> Loss:
    """The training loss: the mean over logits `[B, classes]` and targets (numbers `[B]`, or `[B, classes]`)."""
    smoothing = 0.0 if config.loss_name in ("twoway", "zlpr") else config.smoothing
    if config.loss_name == "ce" and weights is not None:
        return partial(weighted_cross_entropy, weights.to(device), 0.0 if config.mixes else smoothing)
    kind = "pos_weight" if config.class_weights == "neg_pos" else "class_weight"
    more: dict[str, Any] = {} if weights is None else {kind: weights}
    if config.loss_name == "bce":
        more["bce_target_thresh"] = config.bce_target_thresh
    return create_classification_loss(
        config.loss_name, multi_label=config.multi_label, smoothing=smoothing, soft_targets=config.mixes, **more
    ).to(device)


def weighted_cross_entropy(
    weights: torch.Tensor, smoothing: float, logits: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy with class weights, divided by the number of pictures: torch's own mean divides by their weights,
    which differ from worker to worker."""
    losses = functional.cross_entropy(logits, targets, weights, label_smoothing=smoothing, reduction="none")
    return losses.mean()


class Mixing:
    """timm's mixup and cutmix, also for a batch of odd size: its last picture stays as it is."""

    def __init__(self, config: ClassificationConfig, num_classes: int) -> None:
        self._off_after = config.mixup_off_epoch
        self._mixup = Mixup(
            mixup_alpha=config.mixup,
            cutmix_alpha=config.cutmix,
            cutmix_minmax=config.cutmix_minmax,
            prob=config.mixup_prob,
            switch_prob=config.mixup_switch_prob,
            mode=config.mixup_mode,
            label_smoothing=config.smoothing,
            num_classes=num_classes,
            multi_label=config.multi_label,
        )

    def start(self, epoch: int) -> None:
        self._mixup.mixup_enabled = not self._off_after or epoch <= self._off_after

    def __call__(self, pictures: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures `[B, C, H, W]`, changed in place, and soft targets `[B, classes]`."""
        mixup = self._mixup
        even = len(pictures) - len(pictures) % 2
        if even == len(pictures):
            return mixup(pictures, targets)
        last = mixup_target(targets[even:], mixup.num_classes, 1.0, mixup.label_smoothing, mixup.multi_label)
        if not even:
            return pictures, last
        _, soft = mixup(pictures[:even], targets[:even])
        return pictures, torch.cat([soft, last.to(soft.dtype)])


def learning_rate(config: ClassificationConfig, given: float | None, batch_size: int) -> float:
    """The job's rate, else one for `batch_size` pictures an update by the rule of timm's train script."""
    if given is not None:
        if config.lr_base is not None:
            raise ConfigError(
                f"learning_rate={given} and lr_base={config.lr_base} name the same thing.", "Give only one of them."
            )
        return given
    plain = any(name in config.opt for name in ("sgd", "momentum", "lars", "larc", "rmsprop"))
    base = config.lr_base if config.lr_base is not None else 0.1 if plain else 0.001
    ratio = batch_size / LR_BASE_BATCH
    return float(base * (ratio if plain else ratio**0.5))


def make_optimizer(model: Any, config: ClassificationConfig, lr: float) -> Any:
    """timm's optimizer over the trainable parameters."""
    more: dict[str, Any] = {}
    if config.opt_eps is not None:
        more["eps"] = config.opt_eps
    if config.opt_betas is not None:
        more["betas"] = tuple(config.opt_betas)
    try:
        return create_optimizer_v2(
            model,
            opt=config.opt,
            lr=lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            layer_decay=config.layer_decay,
            **more,
        )
    except TypeError as error:
        raise ConfigError(f"The optimizer {config.opt} does not take {sorted(more)}: {error}") from None


def make_schedule(optimizer: Any, config: ClassificationConfig, epochs: int, updates_per_epoch: int) -> Any:
    """timm's schedule over `epochs` in all, warm-up, cycles and cool-down included; None where there is none."""
    warmup = config.warmup_epochs if config.warmup_epochs is not None else min(5.0, epochs / 10)
    unit = updates_per_epoch if config.sched_on_updates else 1
    warmup = min(round(warmup * unit), epochs * unit) / unit
    length = max(epochs - config.cooldown_epochs, 1)
    multiple, cycles = config.lr_cycle_mul, config.lr_cycle_limit
    # So that all cycles together take the epochs that there are: a geometric series.
    share = cycles if multiple == 1 else (1 - multiple**cycles) / (1 - multiple)
    first = length / share if config.sched in ("cosine", "tanh", "poly") and cycles > 1 else length
    # timm takes fractions and None here, which its annotations do not say.
    loosely: dict[str, Any] = {"num_epochs": first, "warmup_epochs": warmup, "noise": config.lr_noise}
    try:
        schedule, _ = create_scheduler_v2(
            optimizer,
            sched=config.sched,
            decay_epochs=config.decay_epochs,
            decay_milestones=config.decay_milestones,
            cooldown_epochs=config.cooldown_epochs,
            decay_rate=config.decay_rate,
            min_lr=config.min_lr,
            warmup_lr=config.warmup_lr,
            **loosely,
            noise_pct=config.lr_noise_pct,
            noise_std=config.lr_noise_std,
            cycle_mul=multiple,
            cycle_decay=config.lr_cycle_decay,
            cycle_limit=cycles,
            k_decay=config.lr_k_decay,
            step_on_epochs=not config.sched_on_updates,
            updates_per_epoch=updates_per_epoch,
        )
    except ValueError as error:
        raise ConfigError(f"The schedule {config.sched} cannot be made: {error}") from None
    return schedule


@dataclass(frozen=True)
class Precision:
    """In what numbers the forward pass runs; None: float32."""

    device: str
    dtype: torch.dtype | None

    @property
    def scaled(self) -> bool:
        """Whether gradients are too small to be kept without scaling."""
        return self.dtype is torch.float16

    def autocast(self) -> Any:
        return torch.autocast(self.device, dtype=self.dtype, enabled=self.dtype is not None)


def make_precision(config: ClassificationConfig, device: torch.device) -> Precision:
    """The precision that `amp` means on this device."""
    chosen = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if config.amp != "auto":
        return Precision(device.type, chosen[config.amp])
    if device.type != "cuda":
        return Precision(device.type, None)
    return Precision(device.type, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)
