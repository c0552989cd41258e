"""Mean average precision, by COCO's own code."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def score(
    targets: Sequence[Mapping[str, torch.Tensor]], found: Sequence[Mapping[str, torch.Tensor]], classes: int
) -> dict[str, float]:
    """`map` (IoU 0.50 to 0.95) and `map50` of the boxes `found` in pictures with `targets`; 0 where there is nothing.

    Both hold `boxes` `[N, 4]`, as corners in pixels, and `labels` `[N]` from 1; `found` also `scores` `[N]`.
    """
    answers = [answer for number, boxes in enumerate(found) for answer in _rows(number, boxes)]
    truth = [row | {"iscrowd": 0} for number, boxes in enumerate(targets) for row in _rows(number, boxes)]
    if not answers or not truth:
        return {"map": 0.0, "map50": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(len(targets))],
            "categories": [{"id": label} for label in range(1, classes + 1)],
            "annotations": [row | {"id": number} for number, row in enumerate(truth, start=1)],
        }
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(answers), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"map": max(0.0, float(evaluation.stats[0])), "map50": max(0.0, float(evaluation.stats[1]))}


def _rows(number: int, boxes: Mapping[str, torch.Tensor]) -> list[dict[str, Any]]:
    rows = []
    scores = boxes.get("scores", torch.ones(len(boxes["labels"]))).tolist()
    for (x1, y1, x2, y2), label, value in zip(boxes["boxes"].tolist(), boxes["labels"].tolist(), scores, strict=True):
        width, height = x2 - x1, y2 - y1
        box = {"bbox": [x1, y1, width, height], "area": width * height}
        rows.append({"image_id": number, "category_id": label, "score": value} | box)
    return rows
