"""Write the plugin's data files from the installed Ultralytics; `--check` says whether they still agree.

Run with the Python of the plugin's environment: hyperparameters come from Ultralytics' `default.yaml` and the type sets
beside it, models from its model files, parameter counts from models that are really built.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultralytics import YOLO, __version__
from ultralytics.cfg import (
    CFG_BOOL_KEYS,
    CFG_FLOAT_KEYS,
    CFG_FRACTION_KEYS,
    CFG_INT_KEYS,
    CFG_INT_MIN,
    DEFAULT_CFG_DICT,
    DEFAULT_CFG_PATH,
)
from ultralytics.utils.downloads import GITHUB_ASSETS_STEMS

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "eagleray_ultralytics"
DETECTION, SEGMENTATION, POSE, CLASSIFICATION = (
    "object-detection",
    "image-segmentation",
    "keypoint-detection",
    "image-classification",
)
TASKS = (DETECTION, SEGMENTATION, POSE, CLASSIFICATION)
BOXES = (DETECTION, SEGMENTATION, POSE)

# Which tasks a training key acts on; what is in neither table is the host's, or belongs to prediction and export.
COMMON = [
    "patience",
    "imgsz",
    "cache",
    "workers",
    "optimizer",
    "verbose",
    "deterministic",
    "single_cls",
    "cos_lr",
    "amp",
    "fraction",
    "freeze",
    "compile",
    "channels_last",
    "val",
    "split",
    "plots",
    "lr0",
    "lrf",
    "momentum",
    "weight_decay",
    "warmup_epochs",
    "warmup_momentum",
    "warmup_bias_lr",
    "nbs",
    "hsv_h",
    "hsv_s",
    "hsv_v",
    "scale",
    "flipud",
    "fliplr",
]
BOX_ONLY = [
    "rect",
    "close_mosaic",
    "multi_scale",
    "cls_remap",
    "conf",
    "iou",
    "max_det",
    "box",
    "cls",
    "cls_pw",
    "dfl",
    "degrees",
    "translate",
    "shear",
    "perspective",
    "bgr",
    "mosaic",
    "mixup",
    "cutmix",
]
ONE_TASK = {
    "overlap_mask": SEGMENTATION,
    "mask_ratio": SEGMENTATION,
    "copy_paste": SEGMENTATION,
    "copy_paste_mode": SEGMENTATION,
    "pose": POSE,
    "kobj": POSE,
    "rle": POSE,
    "dropout": CLASSIFICATION,
    "auto_augment": CLASSIFICATION,
    "erasing": CLASSIFICATION,
}
NOT_OFFERED = {
    **dict.fromkeys(
        [
            "task",
            "mode",
            "model",
            "data",
            "epochs",
            "time",
            "batch",
            "save",
            "save_period",
            "device",
            "project",
            "name",
            "exist_ok",
            "pretrained",
            "seed",
            "resume",
            "cfg",
        ],
        "the host owns it",
    ),
    **dict.fromkeys(["distill_model", "dis"], "names a second model's file, which a job cannot carry"),
    "quantize": "quantization-aware training needs a package that the environment does not hold",
    "save_json": "writes for pycocotools, which the environment does not hold",
    **dict.fromkeys(["angle", "dlog", "dgrad", "dlam"], "acts on tasks that the plugin does not offer"),
    **dict.fromkeys(
        [
            "profile",
            "dnn",
            "nms",
            "source",
            "vid_stride",
            "stream_buffer",
            "visualize",
            "augment",
            "agnostic_nms",
            "classes",
            "retina_masks",
            "embed",
            "show",
            "save_frames",
            "save_txt",
            "save_conf",
            "save_crop",
            "show_labels",
            "show_conf",
            "show_boxes",
            "line_width",
            "format",
            "optimize",
            "dynamic",
            "simplify",
            "opset",
            "workspace",
            "tracker",
        ],
        "acts on prediction or export only",
    ),
}
# What Ultralytics' type sets leave open: gains and angles that make sense, and the values a word may take.
BOUNDS: dict[str, dict[str, Any]] = {
    "imgsz": {"type": "int", "ge": 32, "le": 8192},
    "workers": {"ge": 0, "le": 64},
    "close_mosaic": {"ge": 0},
    "warmup_epochs": {"ge": 0.0},
    "degrees": {"ge": 0.0, "le": 180.0},
    "shear": {"ge": 0.0, "le": 180.0},
    **{key: {"ge": 0.0} for key in ("box", "cls", "dfl", "pose", "kobj", "rle")},
    "fraction": {"type": "fraction"},
    "scale": {"type": "scale"},
    "cache": {"type": "bool-or-choice", "choices": ["ram", "disk"]},
    "amp": {"type": "bool-or-choice", "choices": ["fp16", "bf16", "fp32"]},
    "compile": {
        "type": "bool-or-choice",
        "choices": ["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"],
    },
    "freeze": {"type": "freeze"},
    "split": {"type": "choice", "choices": ["train", "val", "test"]},
    "copy_paste_mode": {"type": "choice", "choices": ["flip", "mixup"]},
    "auto_augment": {"type": "choice", "choices": ["randaugment", "autoaugment", "augmix"], "optional": True},
    "optimizer": {
        "type": "choice",
        "choices": ["auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop"],
    },
}


def descriptions() -> dict[str, str]:
    """The comment behind each key of `default.yaml`, without its type."""
    found = re.findall(r"^(\w+):[^#\n]*# \([^)]*\) (.+)$", DEFAULT_CFG_PATH.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(found)


def field(key: str, description: str) -> dict[str, Any]:
    """Type, default, bounds and description of one hyperparameter."""
    default = DEFAULT_CFG_DICT[key]
    out: dict[str, Any] = {"default": default, "description": description}
    if key in CFG_FRACTION_KEYS:
        out |= {"type": "float", "ge": 0.0, "le": 1.0}
    elif key in CFG_FLOAT_KEYS:
        out |= {"type": "float"}
    elif key in CFG_INT_KEYS:
        out |= {"type": "int", **({"ge": CFG_INT_MIN[key]} if key in CFG_INT_MIN else {})}
    elif key in CFG_BOOL_KEYS:
        out |= {"type": "bool"}
    if default is None:
        out["optional"] = True
    return out | BOUNDS.get(key, {})


def hyperparameters() -> dict[str, Any]:
    """The content of `hyperparameters.json`. Raises SystemExit where Ultralytics has a key that no table names."""
    tasks = {
        **{key: list(TASKS) for key in COMMON},
        **{key: list(BOXES) for key in BOX_ONLY},
        **{key: [task] for key, task in ONE_TASK.items()},
    }
    unplaced = set(DEFAULT_CFG_DICT) ^ (set(tasks) | set(NOT_OFFERED))
    if unplaced:
        raise SystemExit(f"Keys that are new in, or gone from, Ultralytics {__version__}: {sorted(unplaced)}")
    said = descriptions()
    fields = {key: field(key, said[key]) | {"tasks": tasks[key]} for key in DEFAULT_CFG_DICT if key in tasks}
    # The classification trainer's own default where nothing is given.
    fields["imgsz"]["task_defaults"] = {CLASSIFICATION: 224}
    return {"ultralytics": __version__, "not_offered": NOT_OFFERED, "fields": fields}


def families() -> Iterator[tuple[str, str, str, str]]:
    """Yields (card name, task, model file, name of the weights or '')."""
    suffixes = {DETECTION: "", SEGMENTATION: "-seg", POSE: "-pose", CLASSIFICATION: "-cls"}
    sizes = {"yolo11": "nsmlx", "yolo26": "nsmlx", "yolo12": "nsmlx", "yolov8": "nsmlx"}
    rows = [(f, k, t, s) for f, ks in sizes.items() for k in ks for t, s in suffixes.items()]
    rows += [("yolov10", k, DETECTION, "") for k in "nsmblx"]
    rows += [("yolov9", k, DETECTION, "") for k in "tsmce"] + [("yolov9", k, SEGMENTATION, "-seg") for k in "ce"]
    for family, size, task, suffix in rows:
        stem = f"{family}{size}{suffix}"
        yield f"{family}{size}", task, f"{stem}.yaml", stem if stem in GITHUB_ASSETS_STEMS else ""


def count(file: str) -> int:
    """Parameters of the model that `file` describes, with its own number of classes."""
    return sum(p.numel() for p in YOLO(file).model.parameters())


def models(counted: dict[str, int] | None = None) -> dict[str, Any]:
    """The content of `models.json`; `counted` (model file → parameters) saves building the models."""
    cards = [
        {"name": name, "task": task, "file": file, "weights": weights, "parameters": (counted or {}).get(file)}
        for name, task, file, weights in families()
    ]
    for card in cards:
        if card["parameters"] is None:
            card["parameters"] = count(str(card["file"]))
    world = "yolov8s-worldv2"
    cards.append(
        {
            "name": "yolo_world_v2_s",
            "task": DETECTION,
            "file": f"{world}.yaml",
            "weights": world,
            "parameters": (counted or {}).get(f"{world}.yaml") or count(f"{world}.yaml"),
            "status": "needs",
            "reason": "needs the weights of its text encoder, ViT-B-32 of CLIP, in the store",
            "description": "open-vocabulary detection",
        }
    )
    cards.append(
        {
            "name": "sam2_t",
            "task": SEGMENTATION,
            "file": "",
            "weights": "sam2_t",
            "parameters": None,
            "status": "predict-only",
            "reason": "Ultralytics has no trainer for SAM 2: its code there only predicts",
            "description": "promptable segmentation",
        }
    )
    return {"ultralytics": __version__, "models": cards}


def main() -> int:
    """Write both files, or compare them with what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is out of date")
    check = parser.parse_args().check
    stale = []
    known: dict[str, int] = {}
    models_file = PACKAGE / "models.json"
    if check:  # counts of the smallest models are built again, which shows a changed architecture in seconds
        rows = json.loads(models_file.read_text(encoding="utf-8"))["models"]
        known = {row["file"]: row["parameters"] for row in rows if not re.match(r"yolo(11|26)n", row["file"])}
    for path, content in ((PACKAGE / "hyperparameters.json", hyperparameters()), (models_file, models(known))):
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        if not check:
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
    if stale:
        print(f"{', '.join(stale)} no longer agree with Ultralytics {__version__}; run scripts/generate.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
