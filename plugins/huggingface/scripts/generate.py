"""Write `models.json` from Transformers: every model of the catalogue is built (without memory) and counted.

Run with the Python of the plugin's environment; `--check` writes nothing and exits 1 where the file is out of date.
A row's `config` describes the architecture of the published model as changes to its class's defaults, so that it can be
built, and trained from scratch, without the hub. A row without one needs the model's files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    __version__,
)

TARGET = Path(__file__).resolve().parents[1] / "src" / "eagleray_huggingface" / "models.json"
CLASSIFICATION, DETECTION = "image-classification", "object-detection"
SEGMENTATION, TEXT = "image-segmentation", "image-text-to-text"
FACTORIES = {
    CLASSIFICATION: (AutoModelForImageClassification,),
    DETECTION: (AutoModelForObjectDetection,),
    SEGMENTATION: (AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation),
}
IMAGENET, COCO, COCO_INSTANCES, ADE = 1000, 91, 80, 150
Row = tuple[str, str, str, dict[str, Any], int]


def vit(width: int, heads: int, layers: int = 12) -> dict[str, int]:
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": 4 * width,
    }


def resnet(depths: list[int], basic: bool = False) -> dict[str, Any]:
    narrow = {"hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"} if basic else {}
    return {"depths": depths, **narrow}


def mit(widths: list[int], depths: list[int], decoder: int = 768, size: int = 512) -> dict[str, Any]:
    """Segformer's encoder (`mit-b0` to `mit-b5`) and the width of its decoder."""
    return {"hidden_sizes": widths, "depths": depths, "decoder_hidden_size": decoder, "image_size": size}


SWIN = {
    "tiny": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]},
    "small": {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24]},
    "base": {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]},
}
CONVNEXT = {
    "tiny": {"depths": [3, 3, 9, 3], "hidden_sizes": [96, 192, 384, 768]},
    "small": {"depths": [3, 3, 27, 3], "hidden_sizes": [96, 192, 384, 768]},
    "base": {"depths": [3, 3, 27, 3], "hidden_sizes": [128, 256, 512, 1024]},
    "nano": {"depths": [2, 2, 8, 2], "hidden_sizes": [80, 160, 320, 640]},
}
WIDE = [64, 128, 320, 512]
MIT = {
    "b0": mit([32, 64, 160, 256], [2, 2, 2, 2], 256),
    "b1": mit(WIDE, [2, 2, 2, 2], 256),
    "b2": mit(WIDE, [3, 4, 6, 3]),
    "b3": mit(WIDE, [3, 4, 18, 3]),
    "b4": mit(WIDE, [3, 8, 27, 3]),
    "b5": mit(WIDE, [3, 6, 40, 3], size=640),
}
EFFICIENTNET = {
    "b0": (1.0, 1.0, 224, 1280, 0.2),
    "b1": (1.0, 1.1, 240, 1280, 0.2),
    "b2": (1.1, 1.2, 260, 1408, 0.3),
    "b3": (1.2, 1.4, 300, 1536, 0.3),
    "b4": (1.4, 1.8, 380, 1792, 0.4),
}
RT_DETR = {
    "r18vd": ([2, 2, 2, 2], "basic", [64, 128, 256, 512], {"decoder_layers": 3, "hidden_expansion": 0.5}),
    "r34vd": ([3, 4, 6, 3], "basic", [64, 128, 256, 512], {"decoder_layers": 4, "hidden_expansion": 0.5}),
    "r50vd": ([3, 4, 6, 3], "bottleneck", [256, 512, 1024, 2048], {}),
    "r101vd": (
        [3, 4, 23, 3],
        "bottleneck",
        [256, 512, 1024, 2048],
        {"encoder_hidden_dim": 384, "encoder_ffn_dim": 2048},
    ),
}


def classification() -> Iterator[Row]:
    def row(name: str, kind: str, config: dict[str, Any], labels: int = IMAGENET) -> Row:
        return name, CLASSIFICATION, kind, config, labels

    for size, shape in (("tiny", vit(192, 3)), ("small", vit(384, 6))):
        yield row(f"WinKawaks/vit-{size}-patch16-224", "vit", shape)
        yield row(f"facebook/deit-{size}-patch16-224", "vit", shape)
    yield row("google/vit-base-patch16-224", "vit", {})
    yield row("google/vit-base-patch16-384", "vit", {"image_size": 384})
    yield row("google/vit-large-patch16-224", "vit", vit(1024, 16, 24))
    yield row("facebook/deit-base-patch16-224", "vit", {})
    for size in ("tiny", "small", "base"):
        yield row(f"microsoft/swin-{size}-patch4-window7-224", "swin", SWIN[size])
        yield row(
            f"microsoft/swinv2-{size}-patch4-window8-256",
            "swinv2",
            SWIN[size] | {"image_size": 256, "window_size": 8},
        )
        yield row(f"facebook/convnext-{size}-224", "convnext", CONVNEXT[size])
    for size in ("nano", "tiny", "base"):
        yield row(f"facebook/convnextv2-{size}-1k-224", "convnextv2", CONVNEXT[size])
    yield row("microsoft/resnet-18", "resnet", resnet([2, 2, 2, 2], basic=True))
    yield row("microsoft/resnet-34", "resnet", resnet([3, 4, 6, 3], basic=True))
    yield row("microsoft/resnet-50", "resnet", resnet([3, 4, 6, 3]))
    yield row("microsoft/resnet-101", "resnet", resnet([3, 4, 23, 3]))
    yield row("microsoft/resnet-152", "resnet", resnet([3, 8, 36, 3]))
    for size, shape in (("small", (384, 6)), ("base", (768, 12))):
        config = {"hidden_size": shape[0], "num_attention_heads": shape[1], "image_size": 518, "patch_size": 14}
        yield row(f"facebook/dinov2-{size}-imagenet1k-1-layer", "dinov2", config)
    yield row(
        "microsoft/beit-base-patch16-224", "beit", {"use_relative_position_bias": True, "layer_scale_init_value": 0.1}
    )
    yield row("google/mobilenet_v2_1.0_224", "mobilenet_v2", {}, 1001)
    yield row("apple/mobilevit-small", "mobilevit", {})
    yield row("apple/mobilevitv2-1.0-imagenet1k-256", "mobilevitv2", {})
    for size, (width, depth, side, hidden, dropout) in EFFICIENTNET.items():
        config = {
            "width_coefficient": width,
            "depth_coefficient": depth,
            "image_size": side,
            "hidden_dim": hidden,
            "dropout_rate": dropout,
        }
        yield row(f"google/efficientnet-{size}", "efficientnet", config)
    for size in ("b0", "b1", "b2"):
        yield row(f"nvidia/mit-{size}", "segformer", MIT[size])


def rt_detr(depths: list[int], layer: str, widths: list[int], more: dict[str, Any]) -> dict[str, Any]:
    backbone = {"model_type": "rt_detr_resnet", "depths": depths, "layer_type": layer, "hidden_sizes": widths}
    backbone |= {"out_features": ["stage2", "stage3", "stage4"]}
    return {"backbone_config": backbone, "encoder_in_channels": widths[1:], **more}


def detection() -> Iterator[Row]:
    def row(name: str, kind: str, config: dict[str, Any], labels: int = COCO) -> Row:
        return name, DETECTION, kind, config, labels

    deep = {"backbone_config": {"model_type": "resnet", "depths": [3, 4, 23, 3], "out_features": ["stage4"]}}
    yield row("facebook/detr-resnet-50", "detr", {})
    yield row("facebook/detr-resnet-101", "detr", deep)
    yield row("microsoft/conditional-detr-resnet-50", "conditional_detr", {})
    yield row("SenseTime/deformable-detr", "deformable_detr", {})
    for size, (depths, layer, widths, more) in RT_DETR.items():
        config = rt_detr(depths, layer, widths, more)
        yield row(f"PekingU/rtdetr_{size}", "rt_detr", config, COCO_INSTANCES)
        yield row(f"PekingU/rtdetr_v2_{size}", "rt_detr_v2", config, COCO_INSTANCES)
    yield row("hustvl/yolos-tiny", "yolos", vit(192, 3) | {"image_size": [800, 1333]})
    yield row("hustvl/yolos-small", "yolos", vit(384, 6) | {"image_size": [512, 864]})
    yield row("hustvl/yolos-base", "yolos", {"image_size": [800, 1344]})


def segmentation() -> Iterator[Row]:
    def row(name: str, kind: str, config: dict[str, Any], labels: int = ADE) -> Row:
        return name, SEGMENTATION, kind, config, labels

    for size, config in MIT.items():
        side = config["image_size"]
        yield row(f"nvidia/segformer-{size}-finetuned-ade-{side}-{side}", "segformer", config)
    for size in ("tiny", "small", "base"):
        window = 12 if size == "base" else 7
        backbone = SWIN[size] | {
            "model_type": "swin",
            "window_size": window,
            "image_size": 384 if size == "base" else 224,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        }
        for kind, short in (("mask2former", "mask2former"), ("maskformer", "maskformer")):
            if kind == "mask2former":
                instance = f"facebook/{short}-swin-{size}-coco-instance"
                yield row(instance, kind, {"backbone_config": backbone}, COCO_INSTANCES)
            semantic = f"facebook/{short}-swin-{size}-ade{'-semantic' if kind == 'mask2former' else ''}"
            yield row(semantic, kind, {"backbone_config": backbone})
    for size in ("tiny", "small", "base"):
        backbone = CONVNEXT[size] | {
            "model_type": "convnext",
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        }
        auxiliary = {"auxiliary_in_channels": CONVNEXT[size]["hidden_sizes"][2]}
        yield row(f"openmmlab/upernet-convnext-{size}", "upernet", {"backbone_config": backbone, **auxiliary})


LANGUAGE = (
    ("HuggingFaceTB/SmolVLM-256M-Instruct", "answers questions about pictures"),
    ("HuggingFaceTB/SmolVLM-500M-Instruct", "answers questions about pictures"),
    ("HuggingFaceTB/SmolVLM-Instruct", "answers questions about pictures"),
    ("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "answers questions about pictures"),
    ("Qwen/Qwen2-VL-2B-Instruct", "answers questions about pictures"),
    ("Qwen/Qwen2.5-VL-3B-Instruct", "answers questions about pictures"),
    ("Qwen/Qwen2.5-VL-7B-Instruct", "answers questions about pictures"),
    ("llava-hf/llava-1.5-7b-hf", "answers questions about pictures"),
    ("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "answers questions about pictures"),
    ("google/paligemma2-3b-pt-224", "made for fine-tuning on one task"),
)


def count(task: str, kind: str, config: dict[str, Any], labels: int) -> int:
    """Parameters of the published model, with its own number of classes."""
    described = AutoConfig.for_model(kind, **config, num_labels=labels)
    factory = next(found for found in FACTORIES[task] if type(described) in found._model_mapping)
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in factory.from_config(described).parameters())


def content() -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for name, task, kind, config, labels in (*classification(), *detection(), *segmentation()):
        parameters = count(task, kind, config, labels)
        rows.append({"name": name, "task": task, "parameters": parameters, "config": {"model_type": kind, **config}})
    rows += [{"name": name, "task": TEXT, "parameters": None, "description": said} for name, said in LANGUAGE]
    return {"transformers": __version__, "models": rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the file is out of date")
    check = parser.parse_args().check
    text = json.dumps(content(), indent=1) + "\n"
    if not check:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.read_text(encoding="utf-8") == text:
        return 0
    print(f"models.json no longer agrees with Transformers {__version__}; run scripts/generate.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
