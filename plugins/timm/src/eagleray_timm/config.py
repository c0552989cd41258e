"""`advanced_config` of image classification: every group of options, and what must not be combined."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, model_validator

from eagleray_timm.options import (
    GROUPS,
    AugmentationOptions,
    InputOptions,
    LossOptions,
    ModelOptions,
    OptimizerOptions,
    PrecisionOptions,
    ScheduleOptions,
)

MULTI_LABEL_LOSSES = ("bce", "asl", "poly", "twoway", "zlpr")
SINGLE_LABEL_LOSSES = ("ce", "bce", "asl", "poly")


def with_groups(schema: dict[str, Any]) -> None:
    """Name each property's group, by which a form can order its fields."""
    for group in GROUPS:
        for name in group.model_fields:
            schema["properties"][name]["group"] = group.__doc__


class ClassificationConfig(
    PrecisionOptions,
    InputOptions,
    AugmentationOptions,
    LossOptions,
    ScheduleOptions,
    OptimizerOptions,
    ModelOptions,
):
    """Hyperparameters of image classification, under the names of timm's train script."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=with_groups)

    @property
    def loss_name(self) -> str:
        return self.loss or ("bce" if self.multi_label else "ce")

    @property
    def fitness(self) -> str:
        """Name of the figure that chooses the best epoch, without its prefix."""
        return self.eval_metric or ("mAP" if self.multi_label else "accuracy_top1")

    @property
    def mixes(self) -> bool:
        """Whether pictures are mixed, which makes the targets soft."""
        return self.mixup > 0 or self.cutmix > 0 or self.cutmix_minmax is not None

    @model_validator(mode="after")
    def _losses_fit(self) -> ClassificationConfig:
        valid = MULTI_LABEL_LOSSES if self.multi_label else SINGLE_LABEL_LOSSES
        kind = "several labels" if self.multi_label else "one label"
        if self.loss_name not in valid:
            raise ValueError(f"loss {self.loss_name} does not take {kind} a picture; valid: {', '.join(valid)}")
        binary = self.loss_name in ("twoway", "zlpr")
        if self.mixes and (binary or (self.loss_name == "asl" and not self.multi_label)):
            raise ValueError(f"loss {self.loss_name} needs hard labels, and mixup and cutmix make them soft")
        if binary and self.smoothing and "smoothing" in self.model_fields_set:
            raise ValueError(f"loss {self.loss_name} needs hard labels; smoothing={self.smoothing} makes them soft")
        if self.eval_metric == "mAP" and not self.multi_label:
            raise ValueError("eval_metric mAP needs multi_label=true; valid: accuracy_top1, accuracy_top5, f1, loss")
        return self

    @model_validator(mode="after")
    def _weights_fit(self) -> ClassificationConfig:
        if self.class_weights is None:
            return self
        binary = self.loss_name == "bce" or (self.loss_name == "asl" and self.multi_label)
        if not (binary or self.loss_name == "ce"):
            raise ValueError(f"class_weights act on ce, bce and multi-label asl, not on {self.loss_name}")
        if self.class_weights == "neg_pos" and not binary:
            raise ValueError("class_weights neg_pos needs loss bce; valid with ce: inv_freq, effective_num, or by name")
        return self

    @model_validator(mode="after")
    def _channels_fit(self) -> ClassificationConfig:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) not in (1, self.in_chans):
                raise ValueError(f"{name} has {len(values)} values for {self.in_chans} channels")
        return self
