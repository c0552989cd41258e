"""`advanced_config` of each task: the useful part of `TrainingArguments` under its own names, typed and bounded.

Defaults are the Trainer's. What the host owns (epochs, batch size, learning rate, seed, devices) is not offered.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from eagleray_huggingface.remote_code import remote_code_keys

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Side = Annotated[int, Field(ge=16, le=4096)]


class Strict(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Colour(Strict):
    """Random changes of the colours."""

    brightness: Unit = Field(0.0, description="Largest relative change of the brightness.")
    contrast: Unit = Field(0.0, description="Largest relative change of the contrast.")
    saturation: Unit = Field(0.0, description="Largest relative change of the saturation.")
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = Field(0.0, description="Largest turn of the hue, in full turns.")


class Augment(Colour):
    """Random changes of training pictures; boxes and masks follow."""

    horizontal_flip: Unit = Field(0.5, description="Probability of mirroring left and right.")
    vertical_flip: Unit = Field(0.0, description="Probability of mirroring top and bottom.")
    crop: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="Smallest share of the picture's area that a random crop keeps; 1: no crop."
    )


class ClassificationAugment(Augment):
    crop: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.25, description="Smallest share of the picture's area that a random crop keeps; 1: no crop."
    )
    rand_augment: Annotated[int, Field(ge=0, le=10)] = Field(0, description="RandAugment operations for each picture.")
    random_erasing: Unit = Field(0.0, description="Probability of erasing a rectangle.")


class Lora(Strict):
    """Low-rank adapters, trained instead of the model's own weights."""

    r: Annotated[int, Field(ge=1, le=1024)] = Field(16, description="Rank.")
    alpha: Annotated[float, Field(gt=0.0)] = Field(32.0, description="Scale; the adapter counts alpha ÷ r.")
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.05, description="Dropout before the adapter.")
    target_modules: str | list[str] = Field(
        "all-linear", description="Names of the layers that get one, a regular expression, or `all-linear`."
    )


class Hyperparameters(Strict):
    """What every task has in common."""

    optim: Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"] = Field(
        "adamw_torch_fused", description="Optimizer."
    )
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
    ] = Field("linear", description="Course of the learning rate after the warm-up.")
    warmup_steps: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="Steps of linear warm-up; below 1: their share of all steps."
    )
    weight_decay: Unit = Field(0.0, description="Weight decay, of weights only.")
    adam_beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.9, description="Decay of Adam's first moment.")
    adam_beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.999, description="Decay of Adam's second moment.")
    adam_epsilon: Annotated[float, Field(gt=0.0, le=1.0)] = Field(1e-8, description="Adam's epsilon.")
    max_grad_norm: Annotated[float, Field(ge=0.0)] = Field(1.0, description="Clip gradients to this norm; 0: never.")
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=4096)] = Field(
        1, description="Batches for each step of the optimizer."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Mixed precision; auto: bf16 on a GPU that has it, else fp32."
    )
    gradient_checkpointing: bool = Field(False, description="Less memory, about a third slower.")
    torch_compile: bool = Field(False, description="Compile the model.")
    sync_batchnorm: bool = Field(False, description="Batch normalisation over all workers (GPUs only).")
    freeze_backbone: bool = Field(False, description="Train the head only.")
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="End after so many epochs without a better one; 0: no."
    )
    eval_batch_size: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Pictures of each worker's validation step; default: as in training."
    )
    workers: Annotated[int, Field(ge=0, le=64)] = Field(
        4, description="Loading processes of each worker, at most as many as it has CPUs; 0: none."
    )
    image_size: Side | None = Field(None, description="Side in pixels; default: the model's own.")
    config_overrides: dict[str, JsonValue] = Field(
        {}, description="Fields of the model's configuration to change (dropout, depth, …)."
    )

    @field_validator("config_overrides")
    @classmethod
    def _runs_no_code(cls, values: dict[str, Any]) -> dict[str, Any]:
        if found := remote_code_keys(values):
            raise ValueError(f"{', '.join(found)} would run code that comes with a model, which is refused")
        return values


class ClassificationConfig(Hyperparameters):
    """Hyperparameters of image-classification."""

    augment: ClassificationAugment = Field(ClassificationAugment(), description="Random changes of training pictures.")
    label_smoothing_factor: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.0, description="Label smoothing.")


class DetectionConfig(Hyperparameters):
    """Hyperparameters of object-detection."""

    augment: Augment = Field(Augment(), description="Random changes of training pictures.")


class SegmentationConfig(Hyperparameters):
    """Hyperparameters of image-segmentation."""

    augment: Augment = Field(Augment(), description="Random changes of training pictures.")
    kind: Literal["auto", "semantic", "instance"] = Field(
        "auto", description="Paint classes or tell objects apart; auto: objects where the model can."
    )


class TextConfig(Hyperparameters):
    """Hyperparameters of image-text-to-text."""

    lora: Lora | None = Field(Lora(), description="Low-rank adapters; null: train the model's own weights.")
    freeze_vision: bool = Field(True, description="Leave the vision encoder as it is.")
    max_length: Annotated[int, Field(ge=16, le=131072)] = Field(
        2048, description="Longest example in tokens, picture included; a longer one is refused."
    )
    prompt: str = Field("Describe the picture.", description="Prompt of rows that have a caption only.")
    train_on_prompt: bool = Field(False, description="Learn the prompt as well as the answer.")
    generate_samples: Annotated[int, Field(ge=0, le=10000)] = Field(
        0, description="Validation rows to answer each epoch, for metrics/exact_match; 0: none."
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = Field(64, description="Longest answer in tokens.")
