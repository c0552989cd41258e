"""Groups of `advanced_config`, under the names that timm's own train script gives them.

Defaults are timm's, save where a value that suits ImageNet from scratch would spoil the short fine-tuning that most
jobs are: the optimizer is AdamW, warm-up follows the length of the run, and the schedule moves with every update.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Range = Annotated[list[Positive], Field(min_length=2, max_length=2)]
Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"]
OptimizerName = Literal[
    "adabelief", "adadelta", "adafactor", "adafactorbv", "adagrad", "adam", "adamax", "adamp", "adamuon", "adamw",
    "adan", "adanw", "adopt", "adoptw", "cadamw", "clion", "lamb", "lambc", "laprop", "larc", "lars", "lion",
    "madgrad", "madgradw", "mars", "momentum", "muon", "nadam", "nadamw", "nadamuon", "novograd", "radam", "radamw",
    "rmsprop", "rmsproptf", "sgd", "sgdp", "sgdw",
]  # fmt: skip
WeightRule = Literal["inv_freq", "effective_num", "neg_pos"]
Loss = Literal["ce", "bce", "asl", "poly", "twoway", "zlpr"]


def option(default: Any, description: str, **bounds: Any) -> Any:
    """A described field."""
    return Field(default, description=description, **bounds)


class Options(BaseModel):
    """What all groups have in common: an unknown key is an error, and a configuration does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelOptions(Options):
    """Model"""

    img_size: int | None = option(None, "Side of the square input in pixels; none: the model's own.", ge=16, le=2048)
    in_chans: Literal[1, 3] = option(3, "Channels of the input: 3 for colour, 1 for grey.")
    drop: Unit = option(0.0, "Dropout before the classifier.")
    drop_path: Unit | None = option(None, "Rate of stochastic depth; none: the model's own.")
    drop_block: Unit | None = option(None, "Rate of dropped blocks, for models that know it.")
    gp: Literal["fast", "avg", "max", "avgmax", "catavgmax"] | None = option(
        None, "Global pooling; none: the model's own."
    )
    freeze: Literal["backbone"] | Annotated[int, Field(ge=0)] | list[str] | None = option(
        None, "What is not trained: `backbone` (all but the classifier), the first n layer groups, or module names."
    )
    channels_last: bool = option(False, "Memory layout that convolutions on a GPU prefer.")
    compile: bool | Literal["default", "reduce-overhead", "max-autotune"] = option(
        False, "Compile the model by torch.compile, in this mode."
    )


class OptimizerOptions(Options):
    """Optimizer"""

    opt: OptimizerName = option("adamw", "timm's name of the optimizer.")
    lr_base: Positive | None = option(
        None,
        "Learning rate for 256 pictures an update, where the job names no learning rate: scaled by the batch, linearly "
        "for SGD and its kin (0.1), by the square root for adaptive ones (0.001).",
    )
    momentum: float = option(0.9, "Momentum of optimizers that have one.", ge=0.0, lt=1.0)
    weight_decay: float = option(0.05, "Weight decay; biases and norms are left out of it.", ge=0.0, le=10.0)
    opt_eps: Positive | None = option(None, "Epsilon; none: the optimizer's own.")
    opt_betas: Annotated[list[Unit], Field(min_length=2, max_length=3)] | None = option(
        None, "Betas; none: the optimizer's own."
    )
    layer_decay: float | None = option(
        None, "Learning rate of a layer group ÷ that of the group after it; none: the same for all.", gt=0.0, le=1.0
    )
    clip_grad: Positive | None = option(None, "Bound of the gradient; none: not clipped.")
    clip_mode: Literal["norm", "value", "agc"] = option("norm", "What is bounded; `agc` is adaptive clipping.")
    grad_accum_steps: int = option(1, "Batches that make up one update.", ge=1, le=1024)


class ScheduleOptions(Options):
    """Learning-rate schedule"""

    sched: Literal["cosine", "tanh", "step", "multistep", "poly", "wsd", "rsqrt", "constant", "none"] = option(
        "cosine", "timm's name of the schedule."
    )
    sched_on_updates: bool = option(True, "Move with every update; else with every epoch.")
    warmup_epochs: float | None = option(
        None, "Epochs of linear warm-up; none: a tenth of the run, at most 5.", ge=0.0, le=1000.0
    )
    warmup_lr: float = option(1e-5, "Learning rate at the start of the warm-up.", ge=0.0)
    min_lr: float = option(0.0, "Lowest learning rate.", ge=0.0)
    cooldown_epochs: int = option(0, "Epochs at the lowest learning rate at the end of the run.", ge=0)
    decay_epochs: Positive | None = option(
        None, "Epochs between steps (step); length of the decay, or share of the run below 1 (wsd, rsqrt)."
    )
    decay_milestones: list[Annotated[int, Field(ge=1)]] = option([30, 60], "Epochs of the steps (multistep).")
    decay_rate: Positive = option(0.1, "Factor of a step (step, multistep); power (poly).")
    lr_cycle_limit: int = option(1, "Cycles in the run (cosine, tanh, poly).", ge=1)
    lr_cycle_mul: Positive = option(1.0, "Length of a cycle ÷ that of the one before.")
    lr_cycle_decay: Positive = option(0.1, "Top of a cycle ÷ that of the one before.")
    lr_k_decay: Positive = option(1.0, "k-decay (cosine, poly).")
    lr_noise: Annotated[list[Unit], Field(min_length=1, max_length=2)] | None = option(
        None, "Between which shares of the run the learning rate is noisy."
    )
    lr_noise_pct: Positive = option(0.67, "Largest noise ÷ learning rate.")
    lr_noise_std: Positive = option(1.0, "Standard deviation of the noise.")


class LossOptions(Options):
    """Labels and loss"""

    multi_label: bool = option(False, "A picture may have several labels (`a;b` in a table), or none (`;`).")
    loss: Loss | None = option(
        None,
        "Cross-entropy, binary cross-entropy, asymmetric, Poly-1, two-way or ZLPR; none: ce, or bce if multi-label.",
    )
    smoothing: float = option(0.1, "Label smoothing.", ge=0.0, lt=1.0)
    bce_target_thresh: Unit | None = option(None, "Soft targets above this count as 1 (bce); none: they stay soft.")
    class_weights: WeightRule | dict[str, Annotated[float, Field(ge=0.0)]] | None = option(
        None,
        "Weight of each class in the loss: by inverse frequency, by the effective number of its pictures, as negatives "
        "÷ positives (bce, asl), or by name (classes that are not named weigh 1).",
    )
    eval_metric: Literal["accuracy_top1", "accuracy_top5", "f1", "mAP", "loss"] | None = option(
        None, "What `fitness`, by which the best epoch is chosen, is; none: accuracy_top1, or mAP if multi-label."
    )
    threshold: float = option(0.5, "Score from which a label counts as predicted (multi-label).", gt=0.0, lt=1.0)


class AugmentationOptions(Options):
    """Augmentation"""

    no_aug: bool = option(False, "Train on centre crops, without any of this group but mixup and cutmix.")
    train_crop_mode: Literal["rrc", "rkrc", "rkrr"] = option(
        "rrc", "Random resized crop; or resize keeping the ratio, then centre or random crop."
    )
    scale: Range | None = option(None, "Smallest and largest area of the crop; none: 0.08 and 1, for rk… 0.8 and 1.")
    ratio: Range | None = option(
        None, "Smallest and largest ratio of its sides; none: 3/4 and 4/3, for rk… 0.9 and 1.11."
    )
    hflip: Unit = option(0.5, "Probability of a horizontal flip.")
    vflip: Unit = option(0.0, "Probability of a vertical flip.")
    color_jitter: Annotated[float, Field(ge=0.0)] = option(
        0.4, "Jitter of brightness, contrast and saturation; off where `aa` is on."
    )
    color_jitter_prob: Unit | None = option(None, "Probability of the jitter; none: always.")
    grayscale_prob: Unit = option(0.0, "Probability of a grey picture.")
    gaussian_blur_prob: Unit = option(0.0, "Probability of a blur.")
    aa: str | None = option(
        None,
        "Policy: `rand-m9-mstd0.5-inc1` (RandAugment), `original`, `originalr`, `v0`, `v0r`, `3a` (AutoAugment), "
        "`augmix-m5-w4-d2` (AugMix).",
        pattern=r"^(rand|augmix)(-[a-z]+[0-9.]+)*$|^(original|originalr|v0|v0r|3a)(-mstd[0-9.]+)?$",
    )
    reprob: Unit = option(0.0, "Probability of random erasing.")
    remode: Literal["const", "rand", "pixel"] = option("pixel", "What is put in place of the erased.")
    recount: int = option(1, "Regions to erase.", ge=1, le=100)
    train_interpolation: Interpolation | Literal["random"] = option("random", "Resampling in training.")
    mixup: float = option(0.0, "Alpha of mixup; 0: off.", ge=0.0)
    cutmix: float = option(0.0, "Alpha of cutmix; 0: off.", ge=0.0)
    cutmix_minmax: Annotated[list[Unit], Field(min_length=2, max_length=2)] | None = option(
        None, "Smallest and largest side of the cut, in place of alpha."
    )
    mixup_prob: Unit = option(1.0, "Probability of either.")
    mixup_switch_prob: Unit = option(0.5, "Probability of cutmix where both are on.")
    mixup_mode: Literal["batch", "pair", "elem"] = option("batch", "Drawn for each batch, pair or picture.")
    mixup_off_epoch: int = option(0, "Both are off after this epoch; 0: never.", ge=0)


class InputOptions(Options):
    """Input"""

    mean: Annotated[list[Unit], Field(min_length=1, max_length=3)] | None = option(
        None, "Mean of each channel, 0 to 1; none: the model's own."
    )
    std: Annotated[list[Positive], Field(min_length=1, max_length=3)] | None = option(
        None, "Standard deviation of each channel; none: the model's own."
    )
    interpolation: Interpolation | None = option(None, "Resampling in validation; none: the model's own.")
    crop_pct: float | None = option(
        None, "Side of the centre crop ÷ side before; none: the model's own.", gt=0.0, le=1.0
    )
    crop_mode: Literal["center", "squash", "border"] | None = option(
        None, "How a picture is fitted in validation; none: the model's own."
    )
    fast_decode: bool = option(
        True, "Decode a large JPEG at a half, a quarter or an eighth of its size where no crop needs more."
    )
    workers: int | None = option(
        None,
        "Processes that load pictures, for each worker; none: as many as its share of the cores allows.",
        ge=0,
        le=128,
    )
    prefetch: int = option(2, "Batches that each of these processes loads ahead.", ge=1, le=64)
    val_batch_factor: int = option(1, "Batch in validation ÷ batch in training.", ge=1, le=16)


class PrecisionOptions(Options):
    """Precision, averaging, several workers"""

    amp: Literal["auto", "off", "bf16", "fp16"] = option(
        "auto", "Mixed precision; auto: bf16 where the GPU has it, fp16 on other GPUs, none on a CPU."
    )
    deterministic: bool = option(False, "Ask CUDA for the same bits every time, at the cost of speed.")
    model_ema: bool = option(False, "Average the weights over updates; the average is validated and saved.")
    model_ema_decay: float = option(0.9998, "Decay of the average.", gt=0.0, lt=1.0)
    model_ema_warmup: bool = option(False, "Let the decay grow at the start.")
    sync_bn: bool = option(False, "Batch norm over all workers (on GPUs).")
    dist_bn: Literal["reduce", "broadcast", "off"] = option(
        "reduce", "What happens to the workers' batch-norm statistics after an epoch: averaged, rank 0's, or left."
    )
    patience: int = option(0, "Stop after this many epochs without a better `fitness`; 0: never.", ge=0)


GROUPS = (
    ModelOptions,
    OptimizerOptions,
    ScheduleOptions,
    LossOptions,
    AugmentationOptions,
    InputOptions,
    PrecisionOptions,
)
