"""`TrainingArguments` of a job."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import TrainingArguments

from eagleray.contract import ConfigError, TrainingContext, TrainingError
from eagleray_huggingface.framework import CLASSIFICATION

SAME_NAME = (
    "optim",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "torch_compile",
)
# Set for one process alone, they make accelerate start a process group of its own.
GROUP_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


def share_of_batch(context: TrainingContext) -> int:
    """Samples that a worker takes of a batch at most. Raises ConfigError where some worker would have none."""
    assert isinstance(context.batch_size, int)
    if context.batch_size < context.world_size:
        raise ConfigError(
            f"A batch_size of {context.batch_size} is not enough for {context.world_size} workers.",
            f"Use at least one sample for each: --batch-size {context.world_size}.",
        )
    return -(-context.batch_size // context.world_size)


def make_arguments(context: TrainingContext) -> TrainingArguments:
    """The arguments, on the device that the host gave.

    Raises:
        ConfigError: the batch cannot be shared, or the precision is not to be had.
        TrainingError: accelerate does not see the workers that there are, and would train each alone.
    """
    config, cpu = context.config, context.device == "cpu"
    if context.world_size == 1:
        for name in GROUP_VARIABLES:
            os.environ.pop(name, None)
    if not cpu:
        os.environ["ACCELERATE_TORCH_DEVICE"] = context.device
        torch.cuda.set_device(context.device)
    share = share_of_batch(context)
    values: dict[str, Any] = {name: getattr(config, name) for name in SAME_NAME}
    if context.learning_rate is not None:
        values["learning_rate"] = context.learning_rate
    if context.task == CLASSIFICATION:
        values["label_smoothing_factor"] = config.label_smoothing_factor
    arguments = TrainingArguments(
        output_dir=str(context.work_dir / "run"),
        num_train_epochs=context.epochs,
        per_device_train_batch_size=share,
        per_device_eval_batch_size=config.eval_batch_size or share,
        seed=context.seed,
        # Without it accelerate takes processes without GPUs for strangers, and each trains the whole dataset alone.
        use_cpu=cpu,
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=min(config.workers, os.cpu_count() or 1),
        dataloader_pin_memory=not cpu,
        **precision(config.precision, cpu=cpu),
        **values,
    )
    if arguments.world_size != context.world_size:
        raise TrainingError(
            f"accelerate sees {arguments.world_size} workers where there are {context.world_size}; "
            "each would train the whole dataset alone."
        )
    # One worker with several GPUs would become a DataParallel, which multiplies the batch.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def precision(wanted: str, *, cpu: bool) -> dict[str, Any]:
    """`bf16` and `fp16` of the arguments. Raises ConfigError for fp16 on a CPU, which has no such arithmetic."""
    if wanted == "fp16" and cpu:
        raise ConfigError("precision=fp16 needs a GPU.", "Use bf16 or fp32.")
    if wanted == "auto":
        wanted = "bf16" if not cpu and torch.cuda.is_bf16_supported() else "fp32"
    return {"bf16": wanted == "bf16", "fp16": wanted == "fp16"}
