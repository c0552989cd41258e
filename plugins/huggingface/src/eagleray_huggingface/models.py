"""Models and processors, built from a source for a task's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
)

from eagleray.contract import ConfigError, TrainingContext, WeightsError
from eagleray_huggingface.framework import CLASSIFICATION, DETECTION, SEGMENTATION, TEXT
from eagleray_huggingface.portable import first_line
from eagleray_huggingface.processors import processor_of
from eagleray_huggingface.source import CONFIG, Source
from eagleray_huggingface.tasks.painting import BACKGROUND

FACTORIES: dict[str, tuple[Any, ...]] = {
    CLASSIFICATION: (AutoModelForImageClassification,),
    DETECTION: (AutoModelForObjectDetection,),
    SEGMENTATION: (AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation),
    TEXT: (AutoModelForImageTextToText,),
}
SEMANTIC, INSTANCE = "semantic", "instance"
BACKBONES = ("backbone", "model.backbone", "model.pixel_level_module.encoder", "pixel_level_module.encoder")
EYES = ("vision_tower", "vision_model", "visual", "vision_encoder")
# The names of all modules in them, as peft matches a regular expression.
EXCLUDED = rf"(.*\.)?({'|'.join(EYES)})(\..*)?"
# What share of a model's weights a folder may lack before it is taken for another model's.
MOST_MISSING = 0.9


@dataclass(frozen=True)
class Built:
    """A model ready to train.

    Attributes:
        kind: how a segmentation is learnt, `semantic` or `instance`; else empty.
        lora: settings of its low-rank adapters, or None.
        still: modules that must stay in evaluation mode: frozen normalisations, whose statistics would go on moving.
    """

    model: Any
    processor: Any
    kind: str
    lora: Mapping[str, Any] | None
    still: tuple[torch.nn.Module, ...]


def build(context: TrainingContext, source: Source) -> Built:
    """The model of `source` with a head for the dataset's classes.

    Raises:
        WeightsError: the weights are unreadable or another model's.
        ConfigError: the architecture does not do the task, or a setting does not fit it.
    """
    try:
        config = AutoConfig.from_pretrained(source.folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise WeightsError(
            f"The {CONFIG} of {context.model.name} is not of a model that Transformers knows: {first_line(error)}"
        ) from None
    factory = factory_of(context.task, config, context.model.name)
    kind = kind_of(context, factory)
    labels = labels_of(context.task, context.dataset.classes, kind)
    if labels:
        config = named(source.folder, labels)
    if not source.trained and context.config.image_size and isinstance(getattr(config, "image_size", None), int):
        config.image_size = context.config.image_size
    model = _model(context, source, factory, config)
    processor = processor_of(context.task, source.folder, model, context.config.image_size)
    model = synchronised(context, model)
    lora = lora_of(context, source)
    if lora is not None:
        model = with_lora(model, lora)
        if source.kept.get("lora") and source.state is not None:
            load_state(model, source.state, exact=True)
    # After the adapters, which would be trained inside what is frozen.
    still = freeze(context, model)
    return Built(model, processor, kind, lora, still)


def factory_of(task: str, config: Any, name: str) -> Any:
    for factory in FACTORIES[task]:
        if type(config) in factory._model_mapping:
            return factory
    raise ConfigError(
        f"The model {name} ({config.model_type}) is not made for {task}.",
        f"Try: eagleray models list --framework huggingface --task {task}",
    )


def kind_of(context: TrainingContext, factory: Any) -> str:
    """Whether classes are painted or objects told apart; empty for tasks other than segmentation."""
    if context.task != SEGMENTATION:
        return ""
    wanted = str(context.config.kind)
    if factory is AutoModelForSemanticSegmentation:
        if wanted == INSTANCE:
            raise ConfigError(
                f"The model {context.model.name} paints classes and cannot tell objects apart (kind=instance).",
                "Use kind=semantic, or a Mask2Former.",
            )
        return SEMANTIC
    return SEMANTIC if wanted == SEMANTIC else INSTANCE


def labels_of(task: str, classes: Sequence[str], kind: str) -> list[str]:
    """Names of the model's outputs: none for text; a painted picture has a background."""
    if task == TEXT:
        return []
    return [BACKGROUND, *classes] if kind == SEMANTIC else list(classes)


def named(folder: Path, labels: Sequence[str]) -> Any:
    """The configuration with these labels."""
    return AutoConfig.from_pretrained(
        folder,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={name: number for number, name in enumerate(labels)},
        local_files_only=True,
        trust_remote_code=False,
    )


def _model(context: TrainingContext, source: Source, factory: Any, config: Any) -> Any:
    if source.state is not None:
        return _from_state(context, source, factory, config)
    if not source.trained:
        return factory.from_config(config, dtype=_dtype(context))
    try:
        model, found = factory.from_pretrained(
            source.folder,
            config=config,
            dtype=_dtype(context),
            ignore_mismatched_sizes=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # each reader has its own kinds: of safetensors, of pickles, of configurations
        raise WeightsError(f"The weights of {context.model.name} cannot be loaded: {first_line(error)}") from None
    missing, total = len(found["missing_keys"]), len(model.state_dict())
    if missing > MOST_MISSING * total:
        raise WeightsError(
            f"The weights of {context.model.name} are another model's: {missing} of {total} tensors are missing."
        )
    return model


def _from_state(context: TrainingContext, source: Source, factory: Any, config: Any) -> Any:
    """A model of a portable file; its head is made anew where the classes are others."""
    assert source.state is not None
    model = factory.from_config(config, dtype=_dtype(context))
    # Where there are adapters, tensors bear names that only exist once those are there; `build` loads them then.
    if not source.kept.get("lora"):
        load_state(model, source.state, exact=context.resume is not None)
    return model


def load_state(model: Any, state: Mapping[str, torch.Tensor], *, exact: bool) -> None:
    """Load `state`; unless `exact`, tensors of another shape (a head for other classes) are left out.

    Raises:
        WeightsError: it is another model's.
    """
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape}
    lacking = len(own) - len(fitting)
    if lacking and (exact or lacking > MOST_MISSING * len(own)):
        raise WeightsError(f"The weights are another model's: {lacking} of {len(own)} tensors do not fit.")
    model.load_state_dict(fitting, strict=False)


def _dtype(context: TrainingContext) -> torch.dtype:
    """Half precision only for what is frozen: the base of low-rank adapters, on a GPU."""
    frozen = context.task == TEXT and context.config.lora is not None
    half = context.config.precision in ("auto", "bf16") and context.device != "cpu" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if frozen and half else torch.float32


def lora_of(context: TrainingContext, source: Source) -> Mapping[str, Any] | None:
    """The adapters of the checkpoint that is continued, else those that the job asks for."""
    kept = source.kept.get("lora")
    if kept or context.resume is not None or context.task != TEXT or context.config.lora is None:
        return kept
    asked: dict[str, Any] = context.config.lora.model_dump()
    return asked | ({"exclude_modules": EXCLUDED} if context.config.freeze_vision else {})


def with_lora(model: Any, lora: Mapping[str, Any]) -> Any:
    try:
        return get_peft_model(
            model,
            LoraConfig(
                r=lora["r"],
                lora_alpha=lora["alpha"],
                lora_dropout=lora["dropout"],
                target_modules=lora["target_modules"],
                exclude_modules=lora.get("exclude_modules"),
                task_type="CAUSAL_LM",
            ),
        )
    except ValueError as error:
        raise ConfigError(f"lora.target_modules does not fit this model: {first_line(error)}") from None


def synchronised(context: TrainingContext, model: Any) -> Any:
    """`model`, its batch normalisation over all workers where that is wanted and can be."""
    if not context.config.sync_batchnorm or context.world_size == 1:
        return model
    if context.device == "cpu":
        context.warn("sync_batchnorm acts on GPUs only: each worker normalises over its own part of a batch.")
        return model
    return torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)


def freeze(context: TrainingContext, model: Any) -> tuple[torch.nn.Module, ...]:
    """Stop what the job does not want to be trained; returns the modules that must stay in evaluation mode.

    Raises:
        ConfigError: nothing is left to train.
    """
    parts = EYES if context.task == TEXT and context.config.freeze_vision else ()
    frozen = [module for name, module in model.named_modules() if name.rpartition(".")[2] in parts]
    if context.config.freeze_backbone:
        frozen.append(backbone_of(model.get_base_model() if isinstance(model, PeftModel) else model))
    for module in frozen:
        module.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            "Nothing is left to train: all that may learn, low-rank adapters included, lies in what is frozen.",
            "Leave freeze_backbone out, or use lora=null to train the head itself.",
        )
    return tuple(
        inner for module in frozen for inner in module.modules() if getattr(inner, "running_mean", None) is not None
    )


def backbone_of(model: Any) -> Any:
    """What computes features, without the part that answers the task. Raises ConfigError where that is not known."""
    modules = dict(model.named_modules())
    for name in BACKBONES:
        if name in modules:
            return modules[name]
    if model.base_model is not model:
        return model.base_model
    if hasattr(model, "timm_model"):
        body = model.timm_model
        head = body.get_classifier()
        # The head stays as it is: only what comes before it is frozen.
        return torch.nn.ModuleList([child for child in body.children() if child is not head])
    raise ConfigError(f"{type(model).__name__} has no backbone that can be frozen.", "Leave freeze_backbone out.")
